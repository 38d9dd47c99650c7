"""The application: its routes, its error handlers and the security middleware around them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gliomask.errors import InputError
from gliomask.service import api, corrections, pages, results
from gliomask.service.brake import Brake
from gliomask.service.dicom_study import end_reading
from gliomask.service.limits import RefusedError, storage_error
from gliomask.service.paths import without_paths
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
        openapi_url=None,
        lifespan=_lifespan,
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.access = access or AccessPolicy()
    app.state.brake = Brake()
    app.add_api_route("/api/openapi.json", _schema, include_in_schema=False)
    app.include_router(api.router)
    app.include_router(results.router)
    app.include_router(corrections.router)
    app.include_router(pages.router)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(InputError, _bad_input)
    app.add_exception_handler(OSError, _system_error)
    app.add_middleware(
        SecurityMiddleware,
        access=app.state.access,
        brake=app.state.brake,
        most_bytes=service.store.limits.upload_bytes,
    )
    return app


async def _schema(request: Request) -> Response:
    """Return the OpenAPI schema, which is rendered only once."""
    state = request.app.state
    if not hasattr(state, "schema"):
        state.schema = json.dumps(request.app.openapi()).encode()
    return Response(state.schema, media_type="application/json")


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    service.queue.start()
    try:
        yield
    finally:
        end_reading()
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


async def _bad_input(_: Request, error: Exception) -> JSONResponse:
    refused = storage_error(error) or RefusedError(422, without_paths(str(error)))
    return JSONResponse(refusal_body(refused), refused.status)


async def _system_error(_: Request, error: Exception) -> JSONResponse:
    """Answer what a full disk or a job that was deleted during the request causes; other errors are internal."""
    refused = storage_error(error)
    if isinstance(error, FileNotFoundError):
        refused = RefusedError(404, "The job was deleted, or one of its files is missing.")
    if refused is None:
        raise error
    return JSONResponse(refusal_body(refused), refused.status)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """List the invalid parts of a request, without repeating their content."""
    assert isinstance(error, RequestValidationError)
    problems = [f"{'.'.join(str(part) for part in one['loc'])[:80]}: {one['msg']}" for one in error.errors()]
    return JSONResponse(refusal_body(RefusedError(422, "The request is invalid.", problems)), 422)
