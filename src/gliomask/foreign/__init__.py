"""Models made by other programs, read as a plan and weights: nnU-Net v2 and MONAI.

The functions here take any model: a file of ours, or a folder or archive of another program.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gliomask.errors import InputError
from gliomask.foreign.found import Found, Hints
from gliomask.foreign.monai import is_monai, read_monai
from gliomask.foreign.near_misses import refuse_near_misses
from gliomask.foreign.nnunet import is_nnunet, read_nnunet
from gliomask.model import file as own
from gliomask.model.plan import Plan

__all__ = [
    "Found",
    "Hints",
    "find_model",
    "is_foreign",
    "model_digest",
    "read_foreign",
    "read_plan",
    "read_training",
    "read_weights",
]

_READERS = ((is_nnunet, read_nnunet), (is_monai, read_monai))
"""For each format a function that recognises it, and one that reads it."""

_ANY = Hints()


def find_model(path: Path | str | None = None) -> Path:
    """Return the path of any model, ours or made by another program; for None that of the model inside the package.

    Every command that takes a model finds it here, so that all of them take the same. Whether the model is whole is
    seen when it is read.

    Raises:
        InputError: There is nothing at the path, or it is near a model but is none; the message says which path is one.
    """
    found = own.find_model(path)
    refuse_near_misses(found)
    if not found.exists():
        raise InputError(f"{found}: no such model file or folder.")
    return found


def is_foreign(path: Path) -> bool:
    """Return whether a path is a model that another program made.

    Raises:
        InputError: It is a damaged archive.
    """
    return any(recognises(path) for recognises, _ in _READERS)


def read_foreign(path: Path, hints: Hints = _ANY) -> Found:
    """Return a model that another program made.

    Raises:
        InputError: It is not complete or uses something that is not supported.
    """
    return next(read(path, hints) for recognises, read in _READERS if recognises(path))


def read_plan(path: Path | str | None = None) -> Plan:
    """Return the plan of any model; without a path that of the model inside the package.

    Raises:
        InputError: The model is missing, damaged or not supported (see `find_model`).
    """
    path = find_model(path)
    return _read(path).plan if is_foreign(path) else own.read_plan(path)


def read_training(path: Path | str | None = None) -> dict[str, object]:
    """Return what any model says about its training; may be empty.

    Raises:
        InputError: As for `read_plan`.
    """
    path = find_model(path)
    return dict(_read(path).facts) if is_foreign(path) else own.read_training(path)


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Return the weights of any model that is not ONNX, by name, as float32; integers stay integers.

    Raises:
        InputError: As for `read_plan`, or weights are NaN or infinite.
    """
    return _read(path).read_weights() if is_foreign(path) else own.read_weights(path)


def model_digest(path: Path) -> str:
    """Return the SHA-256 of a model's file in hexadecimal digits, or that of its files' digests.

    Raises:
        InputError: A file cannot be read.
    """
    if not is_foreign(path):
        return own.model_digest(path)
    digests = [own.model_digest(file) for file in _read(path).files]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _read(path: Path) -> Found:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stamps = [(str(file), file.stat().st_mtime_ns) for file in (*files, path.parent / "plans.json") if file.is_file()]
    return _read_once(path.absolute(), tuple(stamps))


@lru_cache(maxsize=16)
def _read_once(path: Path, stamps: tuple[tuple[str, int], ...]) -> Found:
    """Return a model, whose checkpoint is opened only once for its plan; the weights are not kept.

    Args:
        path: The model.
        stamps: When its files were changed, so that it is read again after that.
    """
    return read_foreign(path)
