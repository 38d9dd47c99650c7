"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gliomask.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to, and move it over `path` once the block has ended well.

    The name keeps `path`'s ending, for writers that choose a format by it. If the block fails, nothing is left of the
    attempt and an older file at `path` stays as it was.

    Raises:
        InputError: The folder cannot be made or written to, or the disk is full.
    """
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as written:  # on the disk before it takes the old one's name
            os.fsync(written.fileno())
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}. Nothing was left half-written; "
            "choose another place with -o, or free some space."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all (see `replacing`)."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text file whole or not at all (see `replacing`)."""
    write_bytes(path, content.encode())
