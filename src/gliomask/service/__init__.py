"""The web application: it takes images from a browser or curl and returns masks.

All modules but this one need the extra `serve`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from gliomask.extras import missing_extra

__all__ = ["require_service"]

_NEEDED = ("fastapi", "uvicorn", "python_multipart")


def require_service(find: Callable[[str], object] = find_spec) -> None:
    """Check that the libraries of the server are installed, before any work is done.

    Raises:
        InputError: At least one of them is missing.
    """
    if missing := [name for name in _NEEDED if find(name) is None]:
        raise missing_extra(f"the server needs {', '.join(missing)}", "serve")
