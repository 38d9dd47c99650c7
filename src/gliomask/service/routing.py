"""Definitions that the routes share: the service's parts, path parameters and error responses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from anyio import CapacityLimiter
from fastapi import Depends, Request
from pydantic import BaseModel, Field

from gliomask.model.file import SHIPPED
from gliomask.model.plan import Plan
from gliomask.service.editors import Editors
from gliomask.service.queue import Queue
from gliomask.service.store import Store
from gliomask.service.transfers import Transfers


@dataclass(frozen=True)
class Service:
    """The parts of the service that the routes use."""

    store: Store
    queue: Queue
    plans: tuple[Plan, ...]
    model: str = SHIPPED
    transfers: Transfers = field(init=False)
    editors: Editors = field(init=False)
    reading: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))
    """Held while images are read, so that the images of only one upload are in memory at a time.

    Requests wait for it without taking a thread, so that others are answered meanwhile.
    """

    editing: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(2))
    """Held while a corrected mask is read, changed or saved, for the same reason."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "transfers", Transfers(self.store.limits))
        object.__setattr__(self, "editors", Editors(self.store))


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
        "408": "The request was sent too slowly.",
        "413": "The request is larger than the server accepts.",
        "421": "The host name in the request is not one of this server.",
        "429": "Too many wrong tokens came from this address.",
    }
    return {int(code): {"model": Refusal, "description": text} for code, text in {**always, **reasons}.items()}


DISK_FULL = {"507": "The disk of the server is full."}
NO_JOB = {"404": "There is no such job.", "422": "The request is invalid."}
NO_FILE = {"404": "There is no such job, or it has no results yet.", "422": "The request is invalid."}
ServiceOf = Annotated[Service, Depends(_service)]
JobId = Annotated[str, Field(pattern="^[0-9a-f]{32}$", description="The id of a job.")]
