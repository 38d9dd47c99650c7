"""Files in object stores and on servers, by URL (`s3://bucket/key`, `gs://`, ...), through fsspec (extra `remote`).

A URL is kept as a path, in which the two slashes after the scheme have become one (`s3:/bucket/key`), also below
another folder; `url_of` gives the URL back. Credentials are those of the store's own settings (such as `~/.aws` or the
environment) and are never read or printed here.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gliomask.errors import InputError
from gliomask.extras import missing_extra

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two characters at least: one is a drive of Windows
_OF_THIS_MACHINE = ("file:", "local:")
_USER = re.compile(r"(://)[^/@]*@")
_SECRETS = re.compile(r"((?:key|token|secret|signature|credential|password)[\w-]*=)[^&\s'\"]+", re.IGNORECASE)


def url_of(path: Path) -> str | None:
    """Return the URL that a path stands for, or None for a path of this machine."""
    for number, part in enumerate(path.parts):
        if _SCHEME.fullmatch(part):
            root = "/" if part.lower() in _OF_THIS_MACHINE else ""
            return f"{part}//{root}{'/'.join(path.parts[number + 1 :])}"
    return None


def shown(text: str) -> str:
    """Return a text without the user, password and signatures that URLs in it may contain."""
    return _SECRETS.sub(r"\1...", _USER.sub(r"\1", text))


def list_url(url: str) -> list[Path]:
    """Return the files below a URL as paths, sorted; all of them are listed in one go.

    Raises:
        InputError: fsspec or the part of it for this kind of store is missing, or the place cannot be listed.
    """
    store, root = _open(url)
    scheme = url.partition("://")[0]
    try:
        names = store.find(root)
    except Exception as error:
        raise _explain(url, error) from error
    if not names:
        raise InputError(f"{shown(url)}: holds no file, or does not exist.")
    return sorted(Path(f"{scheme}:/{str(name).lstrip('/')}") for name in names)


def fetch(url: str, target: Path) -> None:
    """Copy a file to this machine.

    Raises:
        InputError: It is not there, may not be read, or could not be read.
    """
    store, name = _open(url)
    try:
        store.get_file(name, str(target))
    except Exception as error:
        raise _explain(url, error) from error


def _open(url: str) -> tuple[Any, str]:
    """Return the store of a URL and the name in it."""
    if find_spec("fsspec") is None:
        raise missing_extra(f"{shown(url)}: files in object stores need fsspec", "remote")
    import fsspec

    try:
        store, name = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(f"{shown(url)}: this kind of address cannot be read here: {shown(str(error))}.") from error
    except Exception as error:
        raise _explain(url, error) from error
    return store, name


def _explain(url: str, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{shown(url)}: is not there.")
    if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        return InputError(f"{shown(url)}: may not be read: permission was denied. Check the credentials of the store.")
    return InputError(f"{shown(url)}: could not be read: {type(error).__name__}: {shown(str(error))}")
