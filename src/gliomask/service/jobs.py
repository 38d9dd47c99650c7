"""A job, as it is kept in `job.json` and as it is shown. It holds no name of a file that was uploaded."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

State = Literal["uploaded", "checked", "queued", "running", "done", "failed", "cancelled", "interrupted"]
SequenceName = Literal["t1n", "t1c", "t2w", "t2f"]
Stage = Literal["start", "predict", "write", "report"]

STAGES: tuple[Stage, ...] = ("start", "predict", "write", "report")
STARTABLE: tuple[State, ...] = ("checked", "failed", "cancelled", "interrupted")
OPEN: tuple[State, ...] = ("uploaded", "checked", "queued", "running")
"""Jobs that are not finished; the others keep their images and results until they are deleted."""

JOB_ID = re.compile(r"[0-9a-f]{32}")
TITLE = r"^[A-Za-z0-9_.\- ]{0,60}$"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Image(_Frozen):
    """One image of a job, under a name of ours."""

    name: str = Field(description="image-1, image-2, ...: in the order of the upload.")
    sequence: SequenceName | None = Field(description="t1n, t1c, t2w or t2f; null: not used.")
    told_by: Literal["name", "image", "you"] | None = Field(description="Where the sequence is known from.")
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    axes: str = Field(description="The directions in which the axes grow, such as LPS.")


class Job(_Frozen):
    """One examination on its way, or finished."""

    id: str
    title: str = Field(description="What the uploader calls it; no patient's name, please.")
    state: State
    created: datetime
    images: tuple[Image, ...]
    problems: tuple[str, ...] = Field(default=(), description="What keeps it from being started.")
    notes: tuple[str, ...] = Field(default=(), description="What is odd about the images and keeps it from nothing.")
    queued: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None
    attempts: int = Field(default=0, description="How often its prediction was begun.")
    error: str | None = Field(default=None, description="Why it failed or was interrupted.")
    seconds: float | None = Field(default=None, description="What the prediction took, its report included.")
    volumes_ml: dict[str, float] | None = None
    warnings: tuple[str, ...] = Field(default=(), description="What about the images the model does not know.")


class JobView(Job):
    """A job with what changes while one looks."""

    position: int | None = Field(default=None, description="Of a queued job: 1 is the next one.")
    stage: Stage | None = Field(default=None, description="Of a running job.")
    progress: float | None = Field(default=None, description="Of a running job: the share that is done, 0 to 1.")
    seconds_left: float | None = Field(default=None, description="Of a queued or running job, where it can be told.")
    deleted_on: datetime = Field(description="When it will be deleted by itself.")


class Accepted(JobView):
    """The answer to an upload: the only one that names the files."""

    file_names: dict[str, str] = Field(description="By image, the uploaded name; kept nowhere on the server.")
    passed_over: tuple[str, ...] = Field(description="Uploaded files that are not used, each with the reason.")


Title = Annotated[str, Field(pattern=TITLE)]


def now() -> datetime:
    """Return the time, UTC, to the millisecond."""
    moment = datetime.now(timezone.utc)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
