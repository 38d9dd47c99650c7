"""What lies in the place of a file that was not fetched: nothing, the pointer of a program for large files, a web page.

Such a file is named like the real one, so that readers should say what it is instead of calling it damaged.
"""

from __future__ import annotations

from pathlib import Path

from gliomask.errors import InputError

_START_BYTES = 64


def is_pointer(start: bytes) -> bool:
    """Return whether the start of a file is that of a pointer to the file, of git-lfs or git-annex."""
    return start.startswith(b"version https://git-lfs") or b"/annex/objects/" in start


def is_web_page(start: bytes) -> bool:
    """Return whether the start of a file is that of a web page, such as one that asks for a login."""
    return start.lstrip()[:1] == b"<"


def refuse_placeholder(file: Path | bytes, where: str) -> None:
    """Refuse a file that holds nothing, a pointer or a web page.

    Args:
        file: The file, of which 64 bytes are read, or its content.
        where: Its path, for messages.

    Raises:
        InputError: It is one of these.
        OSError: The file cannot be read.
    """
    if isinstance(file, Path):
        with file.open("rb") as stream:
            start = stream.read(_START_BYTES)
    else:
        start = file
    if not start.strip():
        raise InputError(f"{where}: is empty. Copy or download it again.")
    if is_pointer(start):
        raise InputError(
            f"{where}: is a pointer of git-lfs or git-annex, not the file itself. Get the file first (git lfs pull, "
            "datalad get)."
        )
    if is_web_page(start):
        raise InputError(f"{where}: is a web page, not the file itself. Download it again.")
