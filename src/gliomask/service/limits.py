"""The limits of a server, and the error of a refused request."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from gliomask.errors import InputError

# What the operating system reports when it cannot store data; EDQUOT does not exist on Windows.
_STORAGE_ERRORS = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "EMFILE", "ENFILE")
    if hasattr(errno, name)
)


@dataclass(frozen=True)
class Limits:
    """Limits of one upload and of the whole store.

    Raises:
        InputError: A limit is negative or not finite.
    """

    upload_bytes: int = 2 * 1024**3
    """Bytes of one upload, counted while it is received."""
    files: int = 16
    """Images of one upload, those in zips included."""
    study_files: int = 10_000
    """DICOM files of one upload, those in zips included."""
    study_seconds: float = 300
    """Seconds after which the reading of the DICOM files of an upload is ended."""
    voxels: int = 30_000_000
    """Voxels of one image; a BraTS image has 8.9 million."""
    upload_voxels: int = 70_000_000
    """Voxels of all images of one upload together; four images of 256 x 256 x 256 have 67 million."""
    covered_mm3: float = 40_000_000
    """Volume that an image covers in space, which is the number of voxels after resampling to 1 mm."""
    inflated_bytes: int = 1024**3
    """Bytes of all images in the zips of one upload, extracted."""
    zip_entries: int = 12_000
    """Entries of one zip, other files and folders included."""
    zip_ratio: int = 100
    """Decompressed over compressed size of an image in a zip. A brain on a background of zeros reaches 20."""
    waiting: int = 20
    """Jobs that are not finished."""
    uploads_at_once: int = 32
    """Uploads that are received or read at the same time; see `Transfers` for what happens to slow ones."""
    slowest_bytes_per_s: float = 8000
    """An upload that is slower than this for ten seconds is refused."""
    job_minutes: float = 60
    """Minutes after which the computation of a job is ended."""
    keep_days: float = 30
    """Days after which a finished job is deleted."""
    keep_unstarted_days: float = 1
    """Days after which a job that was never started is deleted."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"the limit {name} must be a number of at least 0, not {value}.")


class RefusedError(InputError):
    """A request that is refused, with the reason and the HTTP status."""

    def __init__(self, status: int, text: str, problems: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.problems = tuple(problems)


def storage_error(error: BaseException | None) -> RefusedError | None:
    """Return the refusal, with status 507, for an error that a full or read-only disk caused, or None for others.

    The message contains the system's reason but no path.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _STORAGE_ERRORS:
            reason = os.strerror(error.errno) if error.errno is not None else "unknown"
            return RefusedError(
                507, f"The server cannot store the data: {reason}. Ask the person who runs it for help."
            )
        error = error.__cause__
    return None
