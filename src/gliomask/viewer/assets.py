"""The files of the page: a fixed table of names; no part of a request is ever used as a path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from gliomask.errors import InputError

_FOLDER = Path(__file__).parent / "assets"
_SCRIPT, _TEXT = "text/javascript; charset=utf-8", "text/plain; charset=utf-8"

_MODULES = (
    *(
        "actions",
        "contours",
        "dom",
        "edit",
        "editpanel",
        "files",
        "geometry",
        "keys",
        "measure",
        "overlay",
        "panel",
        "picture",
    ),
    *("pointer", "readout", "shortcuts", "stage", "tiles", "windows"),
)

ASSETS: Mapping[str, str] = MappingProxyType(
    {
        "index.html": "text/html; charset=utf-8",
        "page.js": _SCRIPT,
        "viewer.js": _SCRIPT,
        **dict.fromkeys((f"{name}.js" for name in _MODULES), _SCRIPT),
        "viewer.css": "text/css; charset=utf-8",
        "niivue.js": _SCRIPT,
        "niivue-LICENSE.txt": _TEXT,
    }
)
"""The media type of each file that a page may request."""

_GZIPPED = frozenset({"niivue.js"})  # compressed in the package: 0.8 MB instead of 2.3 MB


@dataclass(frozen=True)
class Asset:
    """A file as it is sent to the browser."""

    content: bytes
    media_type: str
    encoding: str | None = None
    """`gzip` if the content has to be sent with this Content-Encoding."""


@cache
def read_asset(name: str) -> Asset:
    """Return a file of `ASSETS`.

    Raises:
        KeyError: The name is not in the table.
        InputError: The file is niivue, which is missing from this installation.
    """
    media_type = ASSETS[name]
    if name not in _GZIPPED:
        return Asset((_FOLDER / name).read_bytes(), media_type)
    require_niivue()
    return Asset((_FOLDER / f"{name}.gz").read_bytes(), media_type, "gzip")


def require_niivue() -> None:
    """Raise an error if the viewer's library is missing, before any work is done.

    Raises:
        InputError: gliomask was built without npm, so niivue is missing.
    """
    if not (_FOLDER / "niivue.js.gz").is_file():
        raise InputError(
            "the viewer's library, niivue, is not in this installation: gliomask was built where npm was missing or "
            "failed. Install Node.js with npm, then install gliomask again from its sources: "
            "pip install --force-reinstall --no-deps ."
        )
