"""Reading files that gliomask has written itself and that may have been damaged since."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gliomask.errors import InputError


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Raise every error in the block as an InputError that names the file, the cause and the remedy.

    NumPy, zipfile, json, pydantic and torch raise errors of many types without a common base class when bytes are
    damaged, so all of them are caught. The block should only read and check the file.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) and str(path) in str(error):
            raise
        raise InputError(f"{path}: cannot be read: {describe_error(error).rstrip('.')}. {remedy}") from error


def describe_error(error: BaseException) -> str:
    """Return a short text for an error: its first line, or its type if it has no text."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    lines = str(error).splitlines()
    return lines[0] if lines and lines[0].strip() else type(error).__name__


def read_json(path: Path, remedy: str) -> Any:
    """Return the content of a JSON file.

    Raises:
        InputError: It cannot be read, or is not JSON.
    """
    with reading(path, remedy):
        return json.loads(path.read_text("utf-8"))


def to_json(value: Any) -> Any:
    """Return a value with None in place of every NaN and infinity, for which JSON has no notation."""
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
