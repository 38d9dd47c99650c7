"""The routes to the results of a job: files to download, and data for the viewer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import FileResponse
from pydantic import Field

from gliomask.service.editors import image_file, saved_volumes
from gliomask.service.limits import RefusedError
from gliomask.service.request import (
    EDITED,
    EDITED_FACTS,
    FACTS,
    MASK,
    PROBABILITIES,
    QUALITY,
    REPORT,
    RESULTS,
    SCENE,
    VOLUMES,
)
from gliomask.service.routing import NO_FILE, NO_JOB, JobId, Service, ServiceOf, refusals

router = APIRouter(prefix="/api")


def _content(kind: str) -> dict[int | str, dict[str, Any]]:
    schema: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
    return {200: {"content": {kind: schema}, "description": "The file."}}


@router.get(
    "/jobs/{job_id}/mask",
    response_class=FileResponse,
    responses={**_content("application/gzip"), **refusals(**NO_FILE)},
    tags=["results"],
)
def mask(service: ServiceOf, job_id: JobId) -> FileResponse:
    """Return the mask as NIfTI on the grid of the images: the same bytes that `gliomask predict` writes."""
    return _result(service, job_id, MASK, "application/gzip", "_mask.nii.gz")


@router.get(
    "/jobs/{job_id}/probabilities",
    response_class=FileResponse,
    responses={**_content("application/gzip"), **refusals(**NO_FILE)},
    tags=["results"],
)
def probabilities(service: ServiceOf, job_id: JobId) -> FileResponse:
    """Return the probabilities as 4-D NIfTI with one channel per region."""
    return _result(service, job_id, PROBABILITIES, "application/gzip", "_probabilities.nii.gz")


@router.get(
    "/jobs/{job_id}/edited",
    response_class=FileResponse,
    responses={**_content("application/gzip"), **refusals(**NO_FILE)},
    tags=["results"],
)
def edited(service: ServiceOf, job_id: JobId) -> FileResponse:
    """Return the corrected mask as it was saved last, as NIfTI on the grid of the mask."""
    return _result(service, job_id, EDITED, "application/gzip", "_edited.nii.gz")


@router.get(
    "/jobs/{job_id}/edited/facts", responses=refusals(**NO_FILE), response_model=dict[str, Any], tags=["results"]
)
def edited_facts(service: ServiceOf, job_id: JobId) -> FileResponse:
    """Return what was corrected: volumes before and after, Dice between both, seconds spent, versions."""
    return _result(service, job_id, EDITED_FACTS, "application/json", "_edited.json")


@router.get("/jobs/{job_id}/facts", responses=refusals(**NO_FILE), response_model=dict[str, Any], tags=["results"])
def facts(service: ServiceOf, job_id: JobId) -> FileResponse:
    """Return facts about the mask: volumes in mL, labels, model, versions, warnings."""
    return _result(service, job_id, FACTS, "application/json", ".json")


@router.get(
    "/jobs/{job_id}/report",
    response_class=FileResponse,
    responses={**_content("text/html"), **refusals(**NO_FILE)},
    tags=["results"],
)
def report(service: ServiceOf, job_id: JobId) -> FileResponse:
    """Return the report: one self-contained HTML file. Opened in a browser, it has no access to this server."""
    return _page(service, job_id, REPORT, "_report.html")


@router.get(
    "/jobs/{job_id}/quality",
    response_class=FileResponse,
    responses={**_content("text/html"), **refusals(**NO_FILE)},
    tags=["results"],
)
def quality(service: ServiceOf, job_id: JobId) -> FileResponse:
    """Return the page about the preparation of raw images: one self-contained HTML file."""
    return _page(service, job_id, QUALITY, "_quality.html")


def _page(service: Service, job_id: str, name: str, ending: str) -> FileResponse:
    answer = _result(service, job_id, name, "text/html", ending)
    answer.headers["content-disposition"] = answer.headers["content-disposition"].replace("attachment", "inline", 1)
    answer.headers["content-security-policy"] = (
        "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src data: blob:; frame-ancestors 'none'"
    )
    return answer


@router.get("/jobs/{job_id}/scene", responses=refusals(**NO_FILE), tags=["viewer"])
def scene(service: ServiceOf, job_id: JobId) -> dict[str, Any]:
    """Return the description of the scene that the viewer shows. A corrected mask comes before the one of the model."""
    path = Path(_result(service, job_id, SCENE, "application/json", "_scene.json").path)
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    volumes_ml = saved_volumes(path.parent)
    if volumes_ml is not None:
        [mask] = content["masks"]
        corrected = {"name": "corrected", "role": "mask", "label": "corrected", "volumes_ml": volumes_ml}
        address = f"/api/jobs/{job_id}/edit/volumes/prediction.nii.gz"
        content["masks"] = [{**mask, **corrected, "url": address}, mask]
    return content


@router.get(
    "/jobs/{job_id}/volumes/{name}",
    response_class=FileResponse,
    responses={**_content("application/gzip"), **refusals(**NO_FILE)},
    tags=["viewer"],
)
def volume(service: ServiceOf, job_id: JobId, name: Annotated[str, Field(max_length=40)]) -> FileResponse:
    """Return one of the volumes that the scene refers to: a sequence or the mask."""
    job = service.store.get(job_id)
    if name == "prediction.nii.gz":
        place = f"{VOLUMES}/{name}" if job.raw else MASK
        return _result(service, job_id, place, "application/gzip", "_mask.nii.gz")
    try:
        path = image_file(job, service.store.folder_of(job_id) / RESULTS, name.removesuffix(".nii.gz"))
    except KeyError:
        raise RefusedError(404, "The job has no such volume.") from None
    if job.raw and job.volumes_ml is None:
        raise RefusedError(404, "The job has no results (yet).")
    return _file(path, "application/gzip")


@router.get(
    "/jobs/{job_id}/images/{image}/preview",
    response_class=FileResponse,
    responses={**_content("image/png"), **refusals(**NO_JOB)},
    tags=["viewer"],
)
def preview(service: ServiceOf, job_id: JobId, image: Annotated[str, Field(max_length=20)]) -> FileResponse:
    """Return one slice of an image as a PNG."""
    if image not in {one.name for one in service.store.get(job_id).images}:
        raise RefusedError(404, "The job has no such image.")
    return _file(service.store.folder_of(job_id) / "images" / f"{image}.png", "image/png")


def _result(service: Service, job_id: str, name: str, kind: str, ending: str) -> FileResponse:
    job = service.store.get(job_id)
    folder = service.store.folder_of(job_id)
    path = folder / name if name in (REPORT, QUALITY) else folder / RESULTS / name
    if job.volumes_ml is None or not path.is_file():
        raise RefusedError(404, "The job has no results (yet).")
    return _file(path, kind, job.title.replace(" ", "_") + ending)


def _file(path: Path, kind: str, name: str | None = None) -> FileResponse:
    """Return the response with a file; raises FileNotFoundError if the job was deleted meanwhile."""
    return FileResponse(path, media_type=kind, filename=name, stat_result=path.stat())
