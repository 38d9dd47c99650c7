"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

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


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written to, before any work is done; leaves nothing behind.

    Raises:
        InputError: As said.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror or error}. Choose another place with -o."
        ) from error
    finally:
        for place in made:
            with suppress(OSError):
                place.rmdir()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all (see `replacing`)."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text file whole or not at all (see `replacing`)."""
    write_bytes(path, content.encode())
