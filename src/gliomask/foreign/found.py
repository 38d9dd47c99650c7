"""What the reader of a format returns, and what a user may add to what the files say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gliomask.model.plan import Plan

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Hints:
    """What a user says about a model, where its files do not say it."""

    channels: tuple[str, ...] = ()
    """The sequence of each channel."""
    axes: str = "LPS"
    """The orientation in which the images were stored that the network was trained on. BraTS stores LPS."""
    configuration: str = ""
    """Which of several configurations in an archive is wanted."""
    license: str = ""
    cite: str = ""
    network: str = ""
    """Of a file of weights alone: the name of MONAI's network."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of a file of weights alone: the network's arguments."""
    regions: tuple[str, ...] = ()
    """The region of each output channel."""
    patch_size: tuple[int, int, int] | None = None
    """Of a file of weights alone: the size of the windows."""


@dataclass(frozen=True)
class Found:
    """A model made elsewhere: its plan, and a function that reads its weights."""

    plan: Plan
    read_weights: Callable[[], Arrays]
    """Returns the weights by the names of our network's; called only if they are needed."""
    files: tuple[Path, ...]
    """The files that it is made of, for its digest."""
    facts: dict[str, object] = field(default_factory=dict)
    """What is known about its training."""
