"""The application: its routes, its error handlers and the security middleware around them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gliomask.service import api, pages, results
from gliomask.service.limits import RefusedError
from gliomask.service.routing import Service
from gliomask.service.security import AccessPolicy, SecurityMiddleware, refusal_body
from gliomask.version import VERSION

_DESCRIPTION = """
Segments brain tumours in MRI: upload the images of one examination, start the job, wait until it is done and download
the mask. Research use only, not a medical device.

If the server has a token, each request needs the header `Authorization: Bearer TOKEN`.
"""


def create_app(service: Service, access: AccessPolicy | None = None) -> FastAPI:
    """Return the application. Its queue runs between the application's startup and shutdown."""
    app = FastAPI(
        title="gliomask",
        version=VERSION,
        description=_DESCRIPTION.strip(),
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=_lifespan,
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.access = access or AccessPolicy()
    app.include_router(api.router)
    app.include_router(results.router)
    app.include_router(pages.router)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(SecurityMiddleware, access=app.state.access, most_bytes=service.store.limits.upload_bytes)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    service.queue.start()
    try:
        yield
    finally:
        service.queue.stop()
        service.store.close()


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RefusedError)
    return JSONResponse(refusal_body(error), error.status)


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    refused = RefusedError(
        error.status_code, "There is no such page or route." if error.status_code == 404 else str(error.detail)
    )
    return JSONResponse(refusal_body(refused), error.status_code, headers=error.headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """List the invalid parts of a request, without repeating their content."""
    assert isinstance(error, RequestValidationError)
    problems = [f"{'.'.join(str(part) for part in one['loc'])[:80]}: {one['msg']}" for one in error.errors()]
    return JSONResponse(refusal_body(RefusedError(422, "The request is invalid.", problems)), 422)
