"""Receive a multipart request: stream its files to a folder and enforce the limits while they arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gliomask.acquisition.headers import is_dicom
from gliomask.service.limits import Limits, RefusedError, storage_error

_LONGEST_FIELD = 1000
_MOST_FIELDS = 20


@dataclass(frozen=True)
class Upload:
    """One uploaded file."""

    name: str
    """The uploaded file's name, for messages and for recognising the sequence; never used as a path."""
    field: str
    """The form field: `files`, or the name of a sequence."""
    path: Path


@dataclass(frozen=True)
class Form:
    """The content of a multipart request."""

    fields: dict[str, str]
    files: list[Upload]


async def receive_form(chunks: AsyncIterator[bytes], content_type: str, folder: Path, limits: Limits) -> Form:
    """Return the content of a multipart request. Its files are written to `folder` as `upload-1`, `upload-2`, ...

    Raises:
        RefusedError: 400, malformed or incomplete; 413, more bytes, files or fields than the limits; 415, not
            multipart; 507, the files cannot be written.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise RefusedError(415, "Send the files as multipart/form-data, as a browser or curl -F does.")
    parts = _Parts(folder, limits)
    size = 0
    try:
        parser = MultipartParser(options[b"boundary"], parts.callbacks())  # type: ignore[arg-type]
        async for chunk in chunks:
            size += len(chunk)
            if size > limits.upload_bytes:
                raise too_large(limits)
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise RefusedError(400, "The upload is incomplete or malformed. Send it again.") from error
    except OSError as error:
        raise storage_error(error) or RefusedError(507, "The server cannot store the upload.") from error
    finally:
        parts.close()
    if not parts.ended:
        raise RefusedError(400, "The upload ended early. Send it again.")
    return Form(parts.fields, parts.files)


def too_large(limits: Limits) -> RefusedError:
    """Return the error for a request that exceeds the size limit."""
    return RefusedError(
        413, f"The upload is larger than {limits.upload_bytes / 1024**3:.3g} GB, the most that this server accepts."
    )


def display_name(name: str) -> str:
    """Return a file name for display: the last part of the path, printable characters only, shortened."""
    last = PurePosixPath(name.replace("\\", "/")).name
    shown = "".join(character if character.isprintable() else "?" for character in last).strip()
    return (shown if len(shown) <= 120 else f"{shown[:60]}...{shown[-50:]}") or "a file without a name"


@dataclass
class _Parts:
    """The state of the multipart parser between two chunks."""

    folder: Path
    limits: Limits
    fields: dict[str, str] = field(default_factory=dict)
    files: list[Upload] = field(default_factory=list)
    ended: bool = False
    _header: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    _disposition: bytes = b""
    _name: str = ""
    _text: bytearray = field(default_factory=bytearray)
    _file: IO[bytes] | None = None
    _has_dicom: bool | None = None

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        self._disposition, self._name = b"", ""
        self._text.clear()

    def _header_end(self) -> None:
        if bytes(self._header[0]).lower() == b"content-disposition":
            self._disposition = bytes(self._header[1])
        for part in self._header:
            part.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")[:100]
        if b"filename" not in options:
            if len(self.fields) >= _MOST_FIELDS:
                raise RefusedError(413, f"The form has more than {_MOST_FIELDS} fields.")
            return
        if len(self.files) >= self._most_files():
            raise RefusedError(
                413, f"The upload has more than {self._most_files()} files. Send the files of one examination."
            )
        path = self.folder / f"upload-{len(self.files) + 1}"
        name = display_name(options[b"filename"].decode("utf-8", "replace"))
        self._file = path.open("xb")
        self.files.append(Upload(name, self._name, path))

    def _most_files(self) -> int:
        """Return how many files are accepted: many of DICOM, if the first ones contain any."""
        if self._has_dicom is None and len(self.files) >= self.limits.files:
            self._has_dicom = any(is_dicom(file.path) for file in self.files)
        return self.limits.study_files if self._has_dicom else self.limits.files

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(memoryview(data)[start:end])
        elif len(self._text) + end - start > _LONGEST_FIELD:
            raise RefusedError(413, f"A field of the form is longer than {_LONGEST_FIELD} bytes.")
        else:
            self._text.extend(data[start:end])

    def _end(self) -> None:
        if self._file is None:
            self.fields[self._name] = self._text.decode("utf-8", "replace")
        self.close()

    def _finish(self) -> None:
        self.ended = True
