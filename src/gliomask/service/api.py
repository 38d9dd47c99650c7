"""The routes under `/api` that create, show and control jobs."""

from __future__ import annotations

import re
import secrets
from functools import partial
from pathlib import Path
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from gliomask.cases import SEQUENCE_NAMES
from gliomask.labels import LONG_NAMES
from gliomask.model.sampling import Origin
from gliomask.service.ingest import Ingested, check_images, ingest_uploads
from gliomask.service.jobs import TITLE, Accepted, Image, Job, JobView, SequenceName, State, now
from gliomask.service.limits import RefusedError
from gliomask.service.raw_job import can_prepare
from gliomask.service.receive import Form, receive_form, too_large
from gliomask.service.request import EDITED, RESULTS
from gliomask.service.routing import DISK_FULL, NO_JOB, JobId, Service, ServiceOf, refusals
from gliomask.service.transfers import Transfer
from gliomask.version import VERSION


class About(BaseModel):
    """The server's version, model and limits."""

    version: str
    model: str
    made_with: str = Field(description="Who trained the model and its license; empty if gliomask trained it.")
    needs: list[str] = Field(description="The sequences that the model uses.")
    may_lack: bool = Field(description="Whether some of them may be missing.")
    sequences: dict[str, str] = Field(description="The full name of each sequence.")
    names: dict[str, str] = Field(description="The full name of each region and tissue.")
    most_upload_bytes: int
    most_files: int
    most_study_files: int = Field(description="The most DICOM files of one upload.")
    can_prepare: bool = Field(description="Whether raw images, with skull or on different grids, and DICOM are taken.")
    keep_days: float
    needs_token: bool
    note: str = "Research use only, not a medical device."


class JobList(BaseModel):
    """All jobs, newest first."""

    jobs: list[JobView]


class Changes(BaseModel):
    """Corrections of a job that has not been started."""

    model_config = ConfigDict(extra="forbid")
    title: Annotated[str, Field(pattern=TITLE)] | None = None
    raw: bool | None = Field(default=None, description="Whether the images are prepared first.")
    sequences: dict[Annotated[str, Field(max_length=20)], SequenceName | None] | None = Field(
        default=None,
        description="The sequence of each image, or null to leave it out. Images not listed are unchanged.",
    )


router = APIRouter(prefix="/api")


@router.get("/about", responses=refusals(), tags=["server"])
async def about(service: ServiceOf, request: Request) -> About:
    """Return the server's version, model and limits."""
    limits = service.store.limits
    return About(
        version=VERSION,
        model=service.model,
        made_with="; ".join(dict.fromkeys(_made_with(plan.origin) for plan in service.plans if plan.origin)),
        needs=list(dict.fromkeys(m for plan in service.plans for m in plan.modalities)),
        may_lack=all(plan.can_miss for plan in service.plans),
        sequences=dict(SEQUENCE_NAMES),
        names=dict(LONG_NAMES),
        most_upload_bytes=limits.upload_bytes,
        most_files=limits.files,
        most_study_files=limits.study_files,
        can_prepare=can_prepare(),
        keep_days=limits.keep_days,
        needs_token=request.app.state.access.token is not None,
    )


def _made_with(origin: Origin) -> str:
    return f"{origin.made_with}, license {origin.license}" if origin.license else origin.made_with


@router.get("/jobs", responses=refusals(), tags=["jobs"])
async def list_jobs(service: ServiceOf) -> JobList:
    """List all jobs, newest first."""
    return JobList(jobs=[_view(service, job) for job in service.store.jobs()])


_FILES = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "files": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "NIfTI images (.nii, .nii.gz), the DICOM files of one study, or a zip. "
                            "The sequence of each image is read from its file name or DICOM header, or guessed from "
                            "the image.",
                        },
                        **{
                            name: {"type": "string", "format": "binary", "description": f"The {words} image."}
                            for name, words in SEQUENCE_NAMES.items()
                        },
                        "title": {"type": "string", "pattern": TITLE},
                        "start": {
                            "type": "string",
                            "enum": ["true", "false"],
                            "description": "true: start the job at once if the check finds no problem.",
                        },
                    },
                }
            }
        },
    }
}


@router.post(
    "/jobs",
    status_code=201,
    response_model=Accepted,
    tags=["jobs"],
    openapi_extra=_FILES,
    responses=refusals(
        **{
            "400": "The upload is incomplete or malformed.",
            "413": "The upload exceeds a limit of the server.",
            "415": "The upload is not multipart/form-data.",
            "422": "A file cannot be used; `problems` lists which and why.",
            "429": "Too many unfinished jobs, uploads or wrong tokens.",
            **DISK_FULL,
        }
    ),
)
async def upload(service: ServiceOf, request: Request) -> Accepted:
    """Upload and check the images of one examination. The job is started only if `start` is `true`.

    Only this response contains the uploaded file names; they are not stored.
    """
    limits = service.store.limits
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and float(declared) > limits.upload_bytes:
        raise too_large(limits)
    async with service.transfers.open() as transfer:
        return await _receive(service, request, transfer)


@router.get("/jobs/{job_id}", responses=refusals(**NO_JOB), tags=["jobs"])
async def show_job(service: ServiceOf, job_id: JobId) -> JobView:
    """Show one job: its state, its progress and its result."""
    return _view(service, service.store.get(job_id))


@router.patch(
    "/jobs/{job_id}",
    responses=refusals(**NO_JOB, **DISK_FULL, **{"409": "The job was already started."}),
    tags=["jobs"],
)
async def correct_job(service: ServiceOf, job_id: JobId, changes: Changes) -> JobView:
    """Correct the sequences or the title of a job before it is started. The images are then checked again."""
    reads = changes.sequences is not None or changes.raw is not None
    limiter = service.reading if reads else None  # a new title alone reads no image
    return await run_sync(partial(_correct, service, job_id, changes), limiter=limiter)


def _correct(service: Service, job_id: str, changes: Changes) -> JobView:
    job = service.store.get(job_id)
    images = job.images
    if changes.sequences is not None:
        images = _corrected(job, changes.sequences)
    title = (changes.title or "").strip() or job.title
    only: tuple[State, ...] = ("uploaded", "checked")
    raw = job.raw if changes.raw is None else changes.raw
    if job.state not in only or (images == job.images and raw == job.raw):
        return _view(service, service.store.change(job_id, only=only, title=title))
    problems, notes = check_images(images, service.store.folder_of(job_id), service.plans, raw=raw)
    changed = service.store.change(
        job_id,
        only=only,
        title=title,
        images=[image.model_dump() for image in images],
        raw=raw,
        problems=problems,
        notes=notes,
        state="uploaded" if problems else "checked",
    )
    return _view(service, changed)


@router.post(
    "/jobs/{job_id}/start",
    responses=refusals(**NO_JOB, **DISK_FULL, **{"409": "The job has problems, or was already started."}),
    tags=["jobs"],
)
def start_job(service: ServiceOf, job_id: JobId) -> JobView:
    """Add a job to the end of the queue. A failed, cancelled or interrupted job can be started again.

    Of a job that is done but has no report, only the report is made again.
    """
    return _view(service, service.queue.submit(job_id))


@router.post(
    "/jobs/{job_id}/cancel",
    responses=refusals(**NO_JOB, **{"409": "The job is neither queued nor running."}),
    tags=["jobs"],
)
def cancel_job(service: ServiceOf, job_id: JobId) -> JobView:
    """Remove a job from the queue, or stop its computation. Its images are kept."""
    return _view(service, service.queue.cancel(job_id))


@router.delete(
    "/jobs/{job_id}",
    status_code=204,
    responses=refusals(**NO_JOB, **DISK_FULL, **{"409": "The job is queued or running: cancel it first."}),
    tags=["jobs"],
)
def delete_job(service: ServiceOf, job_id: JobId) -> Response:
    """Delete a job with its images, results and corrected mask permanently."""
    service.store.remove(job_id, only=("uploaded", "checked", "done", "failed", "cancelled", "interrupted"))
    service.editors.forget(job_id)
    return Response(status_code=204)


async def _receive(service: Service, request: Request, transfer: Transfer) -> Accepted:
    limits = service.store.limits
    with service.store.upload() as folder:
        chunks = service.transfers.chunks(request.stream(), transfer)
        form = await receive_form(chunks, request.headers.get("content-type", ""), folder, limits)
        return await run_sync(partial(_accept, service, form, folder), limiter=service.reading)


def _accept(service: Service, form: Form, folder: Path) -> Accepted:
    title = form.fields.get("title", "").strip()
    if not re.fullmatch(TITLE, title):
        raise RefusedError(
            422, "A title has up to 60 letters, digits, spaces, and the characters _ . - (and no patient's name)."
        )
    ingested = ingest_uploads(form.files, folder, service.store.limits)
    problems, notes = check_images(ingested.images, folder, service.plans, raw=ingested.raw)
    job = service.store.add(_new_job(ingested, title, problems, notes), folder)
    if form.fields.get("start") == "true" and job.state == "checked":
        job = service.queue.submit(job.id)
    view = _view(service, job)
    return Accepted(**view.model_dump(), file_names=ingested.file_names, passed_over=ingested.passed_over)


def _new_job(ingested: Ingested, title: str, problems: list[str], notes: list[str]) -> Job:
    job_id = secrets.token_hex(16)
    return Job(
        id=job_id,
        title=title or _title(ingested.case_id) or f"job-{job_id[:8]}",
        state="uploaded" if problems else "checked",
        created=now(),
        images=ingested.images,
        raw=ingested.raw,
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _title(case_id: str | None) -> str | None:
    return case_id if case_id is not None and re.fullmatch(TITLE, case_id) else None


def _corrected(job: Job, sequences: dict[str, SequenceName | None]) -> tuple[Image, ...]:
    names = [image.name for image in job.images]
    if unknown := sequences.keys() - set(names):
        raise RefusedError(422, f"The job has no image {min(unknown)!r}; it has {', '.join(names)}.")
    return tuple(
        image.model_copy(update={"sequence": sequences[image.name], "told_by": "you"})
        if image.name in sequences and sequences[image.name] != image.sequence
        else image
        for image in job.images
    )


def _view(service: Service, job: Job) -> JobView:
    estimate = service.queue.estimate(job)
    left = estimate.seconds_left if estimate else service.queue.seconds_until_done(job)
    return JobView(
        **job.model_dump(),
        position=service.queue.position(job),
        stage=estimate.stage if estimate else None,
        progress=estimate.progress if estimate else None,
        seconds_left=round(left, 1) if left is not None else None,
        edited=job.volumes_ml is not None and (service.store.folder_of(job.id) / RESULTS / EDITED).is_file(),
        deleted_on=service.store.deleted_on(job),
    )
