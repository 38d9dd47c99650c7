"""Extract the images of an uploaded zip."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from gliomask.cases import classify, is_system_folder
from gliomask.errors import InputError
from gliomask.service.limits import Limits
from gliomask.service.receive import Upload, display_name
from gliomask.volume import NIFTI_ENDINGS

_CHUNK = 1 << 18
_ENDINGS_OF_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")
# Entries below this size are exempt from the ratio check: they are too small to do harm.
_SMALL = 1 << 20


def is_zip(path: Path) -> bool:
    """Return whether a file is a zip, judged by its first bytes."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def unpack(upload: Upload, folder: Path, limits: Limits, most_files: int) -> tuple[list[Upload], list[str]]:
    """Extract the images of a zip to `folder` as `entry-1`, `entry-2`, ...

    Entries whose names are not those of images are not decompressed.

    Args:
        upload: The zip.
        folder: An empty folder.
        limits: The limits of one upload.
        most_files: Largest permitted number of images.

    Returns:
        The images, and the entries that are not used, each with the reason.

    Raises:
        InputError: The zip is damaged or encrypted or exceeds a limit, contains another archive, a link or a path that
            leads out of the folder, or contains no image. The message names the entry, not the zip.
    """
    passed_over: list[str] = []
    found: list[Upload] = []
    left = limits.inflated_bytes
    try:
        with zipfile.ZipFile(upload.path) as archive:
            entries = archive.infolist()
            if len(entries) > limits.zip_entries:
                raise InputError(f"the zip has {len(entries)} entries; at most {limits.zip_entries} are accepted.")
            images = list(_images(archive, entries, passed_over))
            niftis = sum(entry.filename.lower().endswith(NIFTI_ENDINGS) for entry in images)
            if niftis == len(images) and niftis > most_files:
                raise InputError(f"the zip has {niftis} images; at most {most_files} more are accepted.")
            if len(images) > limits.study_files:
                raise InputError(f"the zip has {len(images)} images; at most {limits.study_files} are accepted.")
            for number, entry in enumerate(images, start=1):
                _check(entry, limits, left)
                path = folder / f"entry-{number}"
                left -= _inflate(archive, entry, path, min(left, entry.file_size))
                found.append(Upload(display_name(entry.filename), upload.field, path))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, ValueError, OSError) as error:
        raise InputError("the zip is truncated, damaged or of an unsupported kind. Create it again.") from error
    if not found:
        raise InputError("the zip contains no image: neither NIfTI (.nii or .nii.gz) nor DICOM.")
    return found, passed_over


def _images(
    archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], passed_over: list[str]
) -> Iterator[zipfile.ZipInfo]:
    for entry in entries:
        name = entry.filename.replace("\\", "/")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name:
            raise InputError(f"{display_name(name)}: its path leads out of the zip. Create the zip again.")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise InputError(f"{display_name(name)}: is a link, not a file. Zip the files themselves.")
        if entry.is_dir() or any(map(is_system_folder, path.parts)):
            continue
        if name.lower().endswith(NIFTI_ENDINGS):
            found = classify(Path(path.name))
            if found is not None and found[1] == "mask":
                passed_over.append(f"{display_name(name)}: its name is that of a mask, not of an image")
            else:
                yield entry
        elif _is_dicom(archive, entry):
            yield entry
        elif name.lower().endswith(_ENDINGS_OF_ARCHIVES):
            raise InputError(f"{display_name(name)}: is an archive within the zip. Unpack it and send its files.")
        else:
            passed_over.append(f"{display_name(name)}: is neither NIfTI (.nii or .nii.gz) nor DICOM")


def _is_dicom(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    """Return whether an entry is DICOM, judged by its preamble; an encrypted one is not read."""
    if entry.flag_bits & 1 or entry.file_size < 132:
        return False
    with archive.open(entry) as file:
        return file.read(132)[128:] == b"DICM"


def _check(entry: zipfile.ZipInfo, limits: Limits, left: int) -> None:
    """Check the declared sizes and flags of an entry before it is decompressed."""
    name = display_name(entry.filename)
    if entry.flag_bits & 1:
        raise InputError(f"{name}: is encrypted. Send a zip without a password.")
    if entry.file_size > left:
        raise InputError(f"{name}: is larger, decompressed, than this server accepts.")
    if entry.file_size > _SMALL and entry.file_size > limits.zip_ratio * max(entry.compress_size, 1):
        ratio = entry.file_size // max(entry.compress_size, 1)
        raise InputError(f"{name}: is {ratio} times its compressed size, which no image is. Is the zip damaged?")


def _inflate(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, most: int) -> int:
    size = 0
    with archive.open(entry) as source, path.open("xb") as target:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > most:
                raise InputError(
                    f"{display_name(entry.filename)}: is larger than the zip declares. Is the zip damaged?"
                )
            target.write(chunk)
    return size
