"""What all routes share: what they work with, and how a refusal looks."""

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
    """What the routes work with."""

    store: Store
    queue: Queue
    plans: tuple[Plan, ...]
    model: str = SHIPPED
    reading: Lock = field(default_factory=Lock)
    """Held while images are read, so that two uploads do not take the memory of two."""


class Refusal(BaseModel):
    """Why a request was not served."""

    detail: str
    problems: list[str] = Field(default=[], description="A sentence for each file that cannot be used.")


def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


def refusals(**reasons: str) -> dict[int | str, dict[str, Any]]:
    """The answers that a route may give beside its own, for the schema."""
    always = {
        "401": "The token is missing or wrong.",
        "403": "A page of another site asked.",
        "421": "The server is not known by that name.",
    }
    return {int(code): {"model": Refusal, "description": text} for code, text in {**always, **reasons}.items()}


NO_JOB = {"404": "There is no such job.", "422": "The request makes no sense."}
NO_FILE = {"404": "There is no such job, or it has no results yet.", "422": "The request makes no sense."}
ServiceOf = Annotated[Service, Depends(_service)]
JobId = Annotated[str, Field(pattern="^[0-9a-f]{32}$", description="A job's id.")]
