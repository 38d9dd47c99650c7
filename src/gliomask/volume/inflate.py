"""The bytes of a file, plain or gzipped, and no more of them than are asked for."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from isal import isal_zlib
from isal.isal_zlib import error as IsalError

from gliomask.errors import InputError

_DAMAGED: tuple[type[Exception], ...] = (OSError, EOFError, IsalError)  # type: ignore[assignment]  # its stub gives an instance

_GZIP = b"\x1f\x8b"
_WITH_GZIP_HEADER = 31
# deflate packs a byte into no less than this share of one.
_HIGHEST_RATIO = 1032
_HEAD = 1 << 16
# What may follow the bytes that were asked for and still be read to check the sum at the end of the stream.
_SLACK = 1 << 16


def read_head(path: Path, length: int) -> bytes:
    """Return the first bytes of a file's content, inflated; fewer if it is shorter.

    Raises:
        InputError: The file cannot be read, or its gzip stream is damaged.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise unreadable(path, error) from error
    if head[:2] != _GZIP:
        return head[:length]
    stream = zlib.decompressobj(_WITH_GZIP_HEADER)
    try:
        content = stream.decompress(head, length)
    except zlib.error as error:
        raise _cut_or_damaged(path) from error
    if len(content) < length and not stream.eof and len(head) < _HEAD:
        raise _cut_or_damaged(path)
    return content


def longest_content(path: Path) -> int:
    """Return how many bytes of content a file of its size can hold at most.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
            return file.seek(0, os.SEEK_END) * (_HIGHEST_RATIO if packed else 1)
    except OSError as error:
        raise unreadable(path, error) from error


def read_content(path: Path, length: int) -> bytes:
    """Return the first `length` bytes of a file's content, inflated; fewer if it is shorter.

    The sum at the end of a gzip stream is checked, unless much more follows than was asked for. Ask for no more than
    `longest_content`: memory is taken for it.

    Raises:
        InputError: The file cannot be read, or its gzip stream is cut or damaged.
    """
    try:
        with path.open("rb") as file:
            if file.read(2) != _GZIP:
                file.seek(0)
                return file.read(length)
            file.seek(0)
            packed = file.read()
    except OSError as error:
        raise unreadable(path, error) from error
    return _inflate(path, packed, length)


def _inflate(path: Path, packed: bytes, length: int) -> bytes:
    parts: list[bytes] = []
    missing = length
    while missing > 0 and packed[:2] == _GZIP:
        stream = isal_zlib.decompressobj(wbits=_WITH_GZIP_HEADER)
        try:
            parts.append(stream.decompress(packed, missing))
            missing -= len(parts[-1])
            if not stream.eof and missing == 0:
                beyond = stream.decompress(stream.unconsumed_tail, _SLACK)
                if len(beyond) == _SLACK:
                    break
        except _DAMAGED as error:
            raise _cut_or_damaged(path) from error
        if not stream.eof:
            raise _cut_or_damaged(path)
        packed = stream.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _cut_or_damaged(path: Path) -> InputError:
    return InputError(f"{path}: the gzip stream is cut or damaged. Copy or download the file again.")


def unreadable(path: Path, error: OSError) -> InputError:
    """Return the error for a file that the operating system does not read, with the true reason for a broken link."""
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return InputError(f"{path}: a link to {path.readlink()}, which is not there. Get it first (datalad get).")
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such file.")
    return InputError(f"{path}: cannot be read: {error.strerror}.")
