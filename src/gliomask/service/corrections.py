"""The routes by which the viewer corrects the mask of a job."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from functools import partial
from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from gliomask.errors import InputError
from gliomask.service.limits import RefusedError
from gliomask.service.routing import DISK_FULL, NO_FILE, JobId, Service, ServiceOf, refusals
from gliomask.viewer import Editing, WindowError

router = APIRouter(prefix="/api/jobs/{job_id}/edit", tags=["correction"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.get("/scene", responses=refusals(**NO_FILE))
async def scene(service: ServiceOf, job_id: JobId) -> dict[str, Any]:
    """Return the description of the scene with which the viewer corrects the mask."""
    content = partial(service.editors.content, job_id, f"/api/jobs/{job_id}/edit")
    return await run_sync(content, limiter=service.editing)


@router.get(
    "/volumes/{name}",
    response_class=Response,
    responses={200: {"content": {"application/gzip": _BINARY}, "description": "The file."}, **refusals(**NO_FILE)},
)
async def volume(service: ServiceOf, job_id: JobId, name: Annotated[str, Field(max_length=40)]) -> Response:
    """Return the mask as it was saved last, or a sequence that has to be reoriented to lie under it."""
    content = await run_sync(partial(service.editors.volume, job_id, name), limiter=service.editing)
    return Response(content, media_type="application/gzip", headers={"cache-control": "no-store"})


@router.post(
    "/{act}",
    response_class=Response,
    openapi_extra={"requestBody": {"content": {"application/octet-stream": _BINARY}}},
    responses={
        200: {
            "content": {"application/json": {"schema": {"type": "object"}}, "application/octet-stream": _BINARY},
            "description": "What was done; for apply, the voxels.",
        },
        **refusals(
            **NO_FILE,
            **DISK_FULL,
            **{"409": "Another window corrects the mask, or has changed it since this one read it."},
        ),
    },
)
async def act(
    service: ServiceOf,
    request: Request,
    job_id: JobId,
    act: Literal["open", "close", "save", "apply"],
    wanted: Annotated[
        str, Query(alias="request", max_length=2000, description="A JSON object: the window, and what it wants.")
    ] = "{}",
) -> Response:
    """Do what a page of the viewer asks for: begin or end to correct the mask, save it, or apply an operation to it.

    The body of save and apply has the label of each voxel as a byte, the first axis running fastest, compressed with
    gzip. The mask of the model is never changed.
    """
    facts = _object(wanted)
    editing = await run_sync(service.editors.of, job_id, limiter=service.editing)
    content = b""
    if act in ("save", "apply"):
        # First of all the right to save is checked, so that nobody else's voxels are received.
        await run_sync(partial(_answer, editing, "admit", facts, b""), limiter=service.editing)
        content = await _receive(service, request)
    answer = await run_sync(partial(_act, service, job_id, editing, act, facts, content), limiter=service.editing)
    if isinstance(answer, bytes):
        packed = await run_sync(partial(gzip.compress, answer, 1, mtime=0), limiter=service.editing)
        return Response(packed, media_type="application/octet-stream", headers={"content-encoding": "gzip"})
    return Response(json.dumps(answer), media_type="application/json")


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RefusedError(422, "The request is not a JSON object.")
    return found


async def _receive(service: Service, request: Request) -> bytes:
    if request.headers.get("content-encoding") != "gzip":
        raise RefusedError(422, "The voxels are sent with Content-Encoding: gzip.")
    async with service.transfers.open() as transfer:
        chunks = service.transfers.chunks(request.stream(), transfer)
        return b"".join([chunk async for chunk in chunks])


def _act(
    service: Service, job_id: str, editing: Editing, act: str, facts: dict[str, Any], content: bytes
) -> dict[str, Any] | bytes:
    most = math.prod(span.stop - span.start for span in editing.box)
    if content:
        try:
            content = zlib.decompressobj(31).decompress(content, most + 1)
        except zlib.error:
            raise RefusedError(422, "The voxels are not compressed with gzip.") from None
    try:
        return _answer(editing, act, facts, content)
    finally:
        service.store.check_there(job_id)


def _answer(editing: Editing, act: str, facts: dict[str, Any], content: bytes) -> dict[str, Any] | bytes:
    try:
        if act == "admit":
            editing.admit(str(facts.get("window", ""))[:64], str(facts.get("state", "")))
            return {}
        return editing.answer(act, facts, content)
    except WindowError as error:
        raise RefusedError(409, str(error)) from error
    except InputError:
        raise
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise RefusedError(422, "The request is invalid.") from None
