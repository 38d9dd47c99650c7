"""A job as it is stored in `job.json` and as the API shows it. It contains no name of an uploaded file."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

State = Literal["uploaded", "checked", "queued", "running", "done", "failed", "cancelled", "interrupted"]
SequenceName = Literal["t1n", "t1c", "t2w", "t2f"]
Stage = Literal["start", "prepare", "predict", "write", "report"]

STAGES: tuple[Stage, ...] = ("start", "prepare", "predict", "write", "report")
"""The stages of a job; `prepare` only of raw images."""

STARTABLE: tuple[State, ...] = ("checked", "failed", "cancelled", "interrupted")
UNFINISHED: tuple[State, ...] = ("uploaded", "checked", "queued", "running")
"""States of jobs that are not finished. Only these count against the limit of waiting jobs."""

JOB_ID = re.compile(r"[0-9a-f]{32}")
IMAGE_NAME = r"^image-[0-9]{1,4}$"
TITLE = r"^[A-Za-z0-9_.\- ]{0,60}$"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Image(_Frozen):
    """One image of a job, under a name that the server chooses."""

    name: str = Field(pattern=IMAGE_NAME, description="image-1, image-2, ... in the order of the upload.")
    sequence: SequenceName | None = Field(description="t1n, t1c, t2w or t2f; null: not used.")
    told_by: Literal["name", "image", "header", "you"] | None = Field(
        description="Where the sequence comes from: the file name, a guess from the image, the DICOM header, or the "
        "user."
    )
    shape: tuple[int, int, int]
    spacing_mm: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    axes: str = Field(description="The anatomical directions of the axes, such as LPS.")


class Job(_Frozen):
    """One examination with its images, state and result."""

    id: str = Field(pattern=f"^{JOB_ID.pattern}$")
    title: str = Field(pattern=TITLE, description="The name that the user gives it; no patient's name, please.")
    state: State
    created: AwareDatetime
    images: tuple[Image, ...]
    raw: bool = Field(
        default=False,
        description="The images are as acquired: they are registered to each other and skull-stripped first.",
    )
    problems: tuple[str, ...] = Field(default=(), description="What prevents the job from being started.")
    notes: tuple[str, ...] = Field(
        default=(), description="What is unusual about the images; the job can be started all the same."
    )
    queued: AwareDatetime | None = None
    started: AwareDatetime | None = None
    finished: AwareDatetime | None = None
    attempts: int = Field(default=0, ge=0, description="How often its prediction was started.")
    error: str | None = Field(default=None, description="Why it failed, was interrupted, or has no report.")
    seconds: FiniteFloat | None = Field(
        default=None, description="Duration of the computation in seconds, report included."
    )
    volumes_ml: dict[str, FiniteFloat] | None = None
    warnings: tuple[str, ...] = Field(default=(), description="Warnings about images unlike the training data.")

    @model_validator(mode="after")
    def _is_complete(self) -> Job:
        if self.state == "done" and (self.finished is None or self.volumes_ml is None):
            raise ValueError("a job that is done has volumes and the time at which it was finished")
        return self


class JobView(Job):
    """A job with its place in the queue and its progress."""

    position: int | None = Field(default=None, description="Place of a queued job; 1 is next.")
    stage: Stage | None = Field(default=None, description="Current stage of a running job.")
    progress: float | None = Field(default=None, description="Fraction of a running job that is done, 0 to 1.")
    seconds_left: float | None = Field(
        default=None, description="Estimated seconds until a queued or running job is done."
    )
    edited: bool = Field(default=False, description="Whether there is a corrected mask.")
    deleted_on: AwareDatetime = Field(description="When the job will be deleted automatically.")


class Accepted(JobView):
    """The response to an upload: the only one that contains the file names."""

    file_names: dict[str, str] = Field(description="The uploaded file name of each image; not stored on the server.")
    passed_over: tuple[str, ...] = Field(description="Uploaded files that are not used, each with the reason.")


def now() -> datetime:
    """Return the current time in UTC, cut to milliseconds."""
    moment = datetime.now(timezone.utc)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
