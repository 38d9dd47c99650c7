"""The extras, the optional parts of the installation, and the command that installs a missing one."""

from __future__ import annotations

import json
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from gliomask.errors import InputError


def missing_extra(what: str, extra: str) -> InputError:
    """Return the error for a part of gliomask whose libraries are not installed, with the command that installs them.

    Args:
        what: What needs which library, such as `pictures need matplotlib`.
        extra: The extra that contains the library.
    """
    return InputError(f"{what}, which is part of the extra {extra}: {install_command(extra)}")


def install_command(extra: str) -> str:
    """Return the command that installs an extra from where this copy of gliomask was installed.

    That is a folder with the source or a wheel, as pip recorded it in `direct_url.json` (PEP 610). If it is not there
    any more, or gliomask came from a package index, the command names the distribution only.
    """
    source, option = _source()
    return f"pip install {option}{_quoted(f'{source}[{extra}]')}"


def _source() -> tuple[str, str]:
    """Return where gliomask was installed from, and the option for an editable installation."""
    with suppress(PackageNotFoundError, OSError, ValueError, KeyError, TypeError, AttributeError):
        record = json.loads(distribution("gliomask").read_text("direct_url.json") or "")
        path = Path(url2pathname(urlsplit(record["url"]).path))
        if record["url"].startswith("file:") and path.exists():
            return str(path), "-e " if record.get("dir_info", {}).get("editable") else ""
    return "gliomask", ""


def _quoted(text: str) -> str:
    """Return an argument in quotes that a POSIX shell, PowerShell and, if it has no blank, cmd accept."""
    return f"'{text}'" if "'" not in text else f'"{text}"'
