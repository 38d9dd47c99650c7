"""Definitions that the routes share: the service's parts, path parameters and error responses."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import BaseModel, Field

from gliomask.model.file import SHIPPED
from gliomask.model.plan import Plan
from gliomask.service.queue import Queue
from gliomask.service.store import Store


@dataclass(frozen=True)
class Service:
    """The parts of the service that the routes use."""

    store: Store
    queue: Queue
    plans: tuple[Plan, ...]
    model: str = SHIPPED
    reading: Lock = field(default_factory=Lock)
    """Held while images are read, so that the images of only one upload are in memory at a time."""


class Refusal(BaseModel):
    """The reason why a request was refused."""

    detail: str
    problems: list[str] = Field(default=[], description="One sentence for each file that cannot be used.")


def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


def refusals(**reasons: str) -> dict[int | str, dict[str, Any]]:
    """Return the error responses of a route for the OpenAPI schema."""
    always = {
        "401": "The token is missing or wrong.",
        "403": "The request comes from a page of another site.",
        "421": "The host name in the request is not one of this server.",
    }
    return {int(code): {"model": Refusal, "description": text} for code, text in {**always, **reasons}.items()}


NO_JOB = {"404": "There is no such job.", "422": "The request is invalid."}
NO_FILE = {"404": "There is no such job, or it has no results yet.", "422": "The request is invalid."}
ServiceOf = Annotated[Service, Depends(_service)]
JobId = Annotated[str, Field(pattern="^[0-9a-f]{32}$", description="The id of a job.")]
