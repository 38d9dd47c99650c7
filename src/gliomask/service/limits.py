"""The limits of a server, and the error of a refused request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gliomask.errors import InputError


@dataclass(frozen=True)
class Limits:
    """Limits of one upload and of the whole store."""

    upload_bytes: int = 2 * 1024**3
    """Bytes of one upload, counted while it is received."""
    files: int = 16
    """Images of one upload, those in zips included."""
    voxels: int = 100_000_000
    """Voxels of one image; a BraTS image has 8.9 million."""
    inflated_bytes: int = 4 * 1024**3
    """Bytes of all images of one upload, decompressed from gzip and zip."""
    zip_entries: int = 500
    """Entries of one zip, other files and folders included."""
    zip_ratio: int = 100
    """Decompressed over compressed size of an image in a zip. A brain on a background of zeros reaches 20."""
    waiting: int = 20
    """Jobs that are not finished."""
    uploads_at_once: int = 4
    """Uploads that are received or read at the same time."""
    keep_days: float = 30
    """Days after which a finished job is deleted."""
    keep_unstarted_days: float = 1
    """Days after which a job that was never started is deleted."""


class RefusedError(InputError):
    """A request that is refused, with the reason and the HTTP status."""

    def __init__(self, status: int, text: str, problems: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.problems = tuple(problems)
