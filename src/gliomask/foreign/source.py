"""The files of a model made elsewhere, in a folder or in a zip archive."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from gliomask.errors import InputError
from gliomask.files import refuse_placeholder

# Plans and configurations are far smaller; a checkpoint with its optimizer takes a few gigabytes at the most.
_LARGEST_JSON = 64_000_000
_LARGEST_FILE = 16_000_000_000


@dataclass(frozen=True)
class Files:
    """Files under a folder, or under a folder in a zip archive; names are relative, with slashes."""

    path: Path
    """The folder, or the archive."""
    inside: str = ""
    """For an archive: the folder in it, without a slash at its end; empty for its top."""

    @property
    def is_archive(self) -> bool:
        """Whether the files are in a zip archive."""
        return self.path.is_file()

    def names(self) -> list[str]:
        """Return the names of all files, sorted.

        Raises:
            InputError: The archive is damaged.
        """
        if not self.is_archive:
            found = [path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if path.is_file()]
            return sorted(found)
        start = f"{self.inside}/" if self.inside else ""
        with self._open() as archive:
            entries = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        return sorted(name.removeprefix(start) for name in entries if name.startswith(start))

    def folders(self) -> list[str]:
        """Return the names of the folders at the top, sorted; of those in an archive that hold a file.

        Raises:
            InputError: The archive is damaged.
        """
        if self.is_archive:
            return sorted({name.partition("/")[0] for name in self.names() if "/" in name})
        return sorted(path.name for path in self.path.iterdir() if path.is_dir())

    def has(self, name: str) -> bool:
        """Return whether there is a file with this name."""
        return name in self.names() if self.is_archive else (self.path / name).is_file()

    def describe(self, name: str) -> str:
        """Return the path of a file, for messages."""
        inside = "/".join(filter(None, (self.inside, name)))
        return f"{self.path}:{inside}" if self.is_archive else str(self.path / name)

    def open(self, name: str) -> Path | io.BytesIO:
        """Return the path of a file, or for an archive its content.

        Raises:
            InputError: There is no such file, or the archive is damaged or the file in it far too large.
        """
        if not self.has(name):
            raise InputError(f"{self.describe(name)}: no such file.")
        if not self.is_archive:
            return self.path / name
        return io.BytesIO(self._extract(name, _LARGEST_FILE))

    def json(self, name: str) -> dict[str, Any]:
        """Return the mapping in a JSON file.

        Raises:
            InputError: The file is missing, too large or no JSON, or contains no mapping.
        """
        try:
            found = json.loads(self.text(name))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.describe(name)}: is cut short or damaged ({error}). Copy it again.") from error
        if not isinstance(found, dict):
            raise InputError(f"{self.describe(name)}: must contain a mapping.")
        return found

    def text(self, name: str) -> str:
        """Return the content of a small text file.

        Raises:
            InputError: The file is missing, empty, too large, no text, or a git-lfs pointer.
        """
        if not self.has(name):
            raise InputError(f"{self.describe(name)}: no such file.")
        try:
            content = self._extract(name, _LARGEST_JSON) if self.is_archive else self._read(name)
            refuse_placeholder(content, self.describe(name))
            return content.decode("utf-8")
        except (OSError, ValueError) as error:
            raise InputError(f"{self.describe(name)}: is cut short or damaged ({error}). Copy it again.") from error

    def _read(self, name: str) -> bytes:
        path = self.path / name
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError("it is far too large")
        return path.read_bytes()

    def _extract(self, name: str, most: int) -> bytes:
        full = str(PurePosixPath(self.inside, name))
        with self._open() as archive:
            try:
                if archive.getinfo(full).file_size > most:
                    raise InputError(f"{self.describe(name)}: is far too large for its kind.")
                return archive.read(full)
            except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError) as error:
                raise InputError(f"{self.describe(name)}: the archive is damaged ({error}). Copy it again.") from error

    def _open(self) -> zipfile.ZipFile:
        try:
            refuse_placeholder(self.path, str(self.path))
            return zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{self.path}: no whole zip archive ({error}). Copy it again.") from error
