"""A zip that was uploaded -> the images in it, under names of ours."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from gliomask.cases import classify
from gliomask.errors import InputError
from gliomask.service.limits import Limits
from gliomask.service.receive import Upload, plain_name
from gliomask.volume import NIFTI_ENDINGS

_CHUNK = 1 << 18
_ENDINGS_OF_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")
# Below this a ratio tells nothing, and no bomb fits in.
_SMALL = 1 << 20


def is_zip(path: Path) -> bool:
    """Tell by its first bytes whether a file is a zip."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def unpack(upload: Upload, folder: Path, limits: Limits, most_files: int) -> tuple[list[Upload], list[str]]:
    """Return the images of a zip, written to `folder`, and what was passed over, each with the reason.

    What is no image by its name is not inflated.

    Args:
        upload: The zip.
        folder: Where `entry-1`, `entry-2`, ... are made.
        limits: The zip's.
        most_files: How many images may be in it.

    Raises:
        InputError: It is damaged or encrypted, holds too many entries, one inflates too far, is a zip itself or has a
            path that leads out of the folder, or there is no image in it. The text names the entry, not the zip.
    """
    passed_over: list[str] = []
    found: list[Upload] = []
    left = limits.inflated_bytes
    try:
        with zipfile.ZipFile(upload.path) as archive:
            entries = archive.infolist()
            if len(entries) > limits.zip_entries:
                raise InputError(f"a zip of {len(entries)} entries; at most {limits.zip_entries} are taken.")
            images = list(_images(entries, passed_over))
            if len(images) > most_files:
                raise InputError(f"a zip of {len(images)} images; at most {most_files} more are taken.")
            for number, entry in enumerate(images, start=1):
                _check(entry, limits, left)
                path = folder / f"entry-{number}"
                left -= _inflate(archive, entry, path, min(left, entry.file_size))
                found.append(Upload(plain_name(entry.filename), upload.field, path))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, ValueError, OSError) as error:
        raise InputError("the zip is cut, damaged or of a kind that is not read. Make it again.") from error
    if not found:
        raise InputError("no NIfTI image (.nii or .nii.gz) in the zip.")
    return found, passed_over


def _images(entries: list[zipfile.ZipInfo], passed_over: list[str]) -> Iterator[zipfile.ZipInfo]:
    for entry in entries:
        name = entry.filename.replace("\\", "/")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name:
            raise InputError(f"{plain_name(name)}: its path leads out of the zip. Make the zip again.")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise InputError(f"{path.name}: a link, not a file. Zip the files themselves.")
        if entry.is_dir() or path.name.startswith((".", "._")) or "__MACOSX" in path.parts:
            continue
        if name.lower().endswith(NIFTI_ENDINGS):
            told = classify(Path(path.name))
            if told is not None and told[1] == "mask":
                passed_over.append(f"{plain_name(name)}: by its name a mask, not an image")
            else:
                yield entry
        elif name.lower().endswith(_ENDINGS_OF_ARCHIVES):
            raise InputError(f"{plain_name(name)}: an archive within the zip. Unpack it and send its files.")
        else:
            passed_over.append(f"{plain_name(name)}: no NIfTI file (.nii or .nii.gz)")


def _check(entry: zipfile.ZipInfo, limits: Limits, left: int) -> None:
    """Refuse an entry for what it says of itself, before anything is inflated."""
    name = plain_name(entry.filename)
    if entry.flag_bits & 1:
        raise InputError(f"{name}: encrypted. Send the zip without a password.")
    if entry.file_size > left:
        raise InputError(f"{name}: inflates to more than this server takes.")
    if entry.file_size > _SMALL and entry.file_size > limits.zip_ratio * max(entry.compress_size, 1):
        ratio = entry.file_size // max(entry.compress_size, 1)
        raise InputError(f"{name}: inflates {ratio} fold, which no image does. Is the zip damaged?")


def _inflate(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, most: int) -> int:
    size = 0
    with archive.open(entry) as source, path.open("xb") as target:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > most:
                raise InputError(f"{plain_name(entry.filename)}: inflates to more than it says. Is the zip damaged?")
            target.write(chunk)
    return size
