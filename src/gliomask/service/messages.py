"""The messages that a worker process writes, one line of JSON each, and how the server reads them."""

from __future__ import annotations

import json
import logging

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from gliomask.service.jobs import Stage

log = logging.getLogger(__name__)

LONGEST_LINE = 1 << 16
"""Characters of a message; the rest of a longer line is read as further lines, which are not messages."""


class Result(BaseModel):
    """What is shown of a finished prediction."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    volumes_ml: dict[str, FiniteFloat]
    warnings: tuple[str, ...] = ()


class Message(BaseModel):
    """One message; the fields that are None are not part of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    stage: Stage | None = None
    share: float = Field(default=0.0, ge=0, le=1)
    """Fraction of the stage that is done."""
    ready: Result | None = None
    """The mask and the other results are in the job's folder; only the report is missing."""
    failed: str | None = None
    """The reason why the job failed, for the user."""
    done: bool = False


def read_message(line: str) -> Message | None:
    """Return the message of a line, or None if the line is not a message.

    Lines that are not messages are logged and otherwise ignored: a library may write to the standard output, and a
    worker that is killed may leave a truncated line.
    """
    try:
        return Message.model_validate(json.loads(line))
    except (ValueError, RecursionError) as error:
        kind = "invalid message" if isinstance(error, ValidationError) else "not JSON"
        log.warning("a worker wrote an unexpected line (%s, %d characters); it is ignored", kind, len(line))
        return None
