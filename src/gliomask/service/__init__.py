"""The web application: images in by a browser or curl, masks out. The rest of the room needs the extra `serve`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from gliomask.errors import InputError

__all__ = ["require_service"]

_NEEDED = ("fastapi", "uvicorn", "python_multipart")


def require_service(find: Callable[[str], object] = find_spec) -> None:
    """Refuse to go on where the server's libraries are missing, before any work is done.

    Raises:
        InputError: One of them is not installed.
    """
    if missing := [name for name in _NEEDED if find(name) is None]:
        raise InputError(f"the server needs {', '.join(missing)}: pip install 'gliomask[serve]'.")
