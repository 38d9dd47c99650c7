"""How much a server takes, and how it says no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gliomask.errors import InputError


@dataclass(frozen=True)
class Limits:
    """What one upload and the whole store may have."""

    upload_bytes: int = 2 * 1024**3
    """Of one request, counted while it is read."""
    files: int = 16
    """Of one request, images in a zip among them."""
    voxels: int = 100_000_000
    """Of one image; BraTS has 8.9 million."""
    inflated_bytes: int = 4 * 1024**3
    """Of all images of one request, out of gzip and zip."""
    zip_entries: int = 500
    zip_ratio: int = 100
    """Inflated over packed, of an image in a zip. A brain on zeros reaches 20."""
    waiting: int = 20
    """Jobs that are not finished."""
    uploads_at_once: int = 4
    keep_days: float = 30
    """After that a job is deleted."""
    keep_unstarted_days: float = 1
    """After that what was uploaded and never started is deleted."""


class RefusedError(InputError):
    """A request that is not served: why, and with which HTTP status."""

    def __init__(self, status: int, text: str, problems: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.problems = tuple(problems)
