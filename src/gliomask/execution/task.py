"""What travels to another process and back: bytes of plain pickle, with absolute paths."""

from __future__ import annotations

import copyreg
import io
import pickle
from functools import lru_cache
from pathlib import Path, PosixPath, WindowsPath
from typing import Any

from gliomask.errors import InputError
from gliomask.execution.outcome import as_error
from gliomask.version import VERSION


def packed(value: object) -> bytes:
    """Return a value as bytes for another process, whose current folder may differ: paths become absolute.

    Raises:
        InputError: The value cannot be pickled, which is a fault of gliomask.
    """
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=5)
    pickler.dispatch_table = {**copyreg.dispatch_table, PosixPath: _absolute, WindowsPath: _absolute}
    try:
        pickler.dump((VERSION, value))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise InputError(f"{type(value).__name__} cannot be sent to another process: {error}.") from error
    return buffer.getvalue()


def unpacked(content: bytes) -> Any:
    """Return the value of `packed`.

    Raises:
        VersionError: Another version of gliomask packed it.
    """
    try:
        version, value = pickle.loads(content)
    except Exception as error:
        raise VersionError(
            f"this worker, with gliomask {VERSION}, cannot read its work ({type(error).__name__}: {error}). "
            "Install the same version of gliomask on all workers."
        ) from error
    if version != VERSION:
        raise VersionError(
            f"a worker has gliomask {VERSION}, and this program is {version}. Install the same version on all workers."
        )
    return value


class VersionError(InputError):
    """A worker has another version of gliomask: no item can be done."""


def run_packed(job: bytes, item: bytes) -> bytes:
    """Return the pickled result of a packed function for a packed item, or the pickled error."""
    try:
        found = _function(job)(unpacked(item))
        return pickle.dumps(found)
    except Exception as error:
        return pickle.dumps(as_error(error))


@lru_cache(maxsize=4)
def _function(job: bytes) -> Any:
    """Return the function of a job, the same object for all of its items, so that it can keep what it loads."""
    return unpacked(job)


def _absolute(path: Path) -> tuple[type[Path], tuple[str]]:
    return Path, (str(path.absolute()),)
