"""Raw studies in a folder or a zip file, whatever they are stored as."""

from __future__ import annotations

import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from gliomask.acquisition.dicom import find_dicom_studies, is_dicom
from gliomask.acquisition.places import without_results
from gliomask.acquisition.study import (
    Study,
    name_series,
    subfolder_of,
    visible_files,
    volume_files,
    volumes_of,
)
from gliomask.acquisition.volumes import find_volume_studies
from gliomask.cases import refuse_list
from gliomask.errors import InputError

# What a zip file may hold unpacked: some two hundred studies.
_MOST_BYTES = 64_000_000_000
# Unpacked bytes for each packed one: images pack to a half or a tenth, a bomb to a thousandth.
_MOST_RATIO = 200


_MOST_FILES = 500_000
_INSTEAD = "Name a folder (or a zip file) that holds one or more examinations."


@contextmanager
def opened_studies(
    path: Path,
    *,
    by_patient: bool = False,
    named: Mapping[str, str] | None = None,
    on_files: Callable[[int, int], None] = lambda done, of: None,
    output: Path | None = None,
) -> Iterator[list[Study]]:
    """Give the studies in a folder, or in a zip file, which is unpacked for as long as the block lasts.

    Args:
        path: A folder, a zip file, or the DICOMDIR of a folder.
        by_patient, named, on_files, output: See `find_studies`.

    Raises:
        InputError: See `find_studies`; or the zip file is damaged or encrypted, unpacks to more than 64 GB or 200 times
            its size, or holds a path that leads out of it.
    """
    refuse_list(path, _INSTEAD)  # a workbook is a zip file too
    if path.is_file() and zipfile.is_zipfile(path):
        with TemporaryDirectory(prefix="gliomask-") as folder:
            root = Path(folder) / path.name.removesuffix(".zip")
            _unpack(path, root)
            yield find_studies(root, by_patient=by_patient, named=named, on_files=on_files, output=output)
    else:
        folder_of = path.parent if path.is_file() and path.name.upper() == "DICOMDIR" else path
        yield find_studies(folder_of, by_patient=by_patient, named=named, on_files=on_files, output=output)


def find_studies(
    path: Path,
    *,
    by_patient: bool = False,
    named: Mapping[str, str] | None = None,
    on_files: Callable[[int, int], None] = lambda done, of: None,
    output: Path | None = None,
) -> list[Study]:
    """Return the studies in a folder: DICOM, and volumes in NIfTI, MHA, MHD or NRRD; only headers are read.

    Where a subfolder holds DICOM files, its volumes are passed over, and those beside all subfolders. A study that
    cannot be used has a `problem`, as two of one name have, or no series that is used (see `Study.check`). Links
    are followed.

    Args:
        path: A study's folder, or a folder of studies.
        by_patient: Separate the DICOM images of several patients in one folder instead of refusing them.
        named: By sequence, the series that the user names (see `name_series`).
        on_files: Called with the number of files that have been read, and of all.
        output: A folder that results are written to; what was written there is no study.

    Raises:
        InputError: There is no such folder, no image in it, or see `find_dicom_studies`.
    """
    refuse_list(path, _INSTEAD)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder. {_INSTEAD}")
    files = visible_files(path)
    if output is not None:
        files = without_results(files, path, output)
    dicom = [file for file in files if is_dicom(file)]
    with_dicom = {subfolder_of(path, file) for file in dicom} | ({""} if dicom else set())
    volumes = [file for file in volumes_of(files) if subfolder_of(path, file) not in with_dicom]
    if not dicom and not volumes:
        raise InputError(f"{path}: no image in it: of {len(files)} files none is DICOM, NIfTI, MHA or NRRD.")
    done = count(1)
    studies = find_volume_studies(path, volumes)
    if dicom:
        try:
            # Volumes beside DICOM that are named like no sequence, such as masks that somebody drew, are no studies.
            studies = [study for study in studies if any(choice.series.modality for choice in study.choices)]
            studies += find_dicom_studies(
                path,
                dicom,
                by_patient=by_patient,
                alone=not studies,
                on_file=lambda: on_files(next(done), len(dicom)),
            )
        except InputError as error:
            if not studies:
                raise
            studies.append(Study(path.resolve().name, (), problem=str(error).removeprefix(f"{path}: ")))
    studies = _refuse_doubles(path, studies)
    return [name_series(study, named or {}) for study in sorted(studies, key=lambda study: study.id)]


def holds_images(path: Path) -> bool:
    """Tell whether a folder holds any image that `find_studies` looks at: DICOM, NIfTI, MHA, MHD or NRRD."""
    return any(is_dicom(file) for file in visible_files(path)) or bool(volume_files(path))


def _refuse_doubles(path: Path, studies: Sequence[Study]) -> list[Study]:
    """Give studies that have one name a problem, so that neither is taken for the other, and the rest is done."""
    folders: dict[str, list[str]] = defaultdict(list)
    for study in studies:
        files = [choice.series.files[0] for choice in study.choices]
        folders[study.id].append(subfolder_of(path, files[0]) if files else study.id)
    return [
        replace(
            study,
            problem=f"{len(those)} studies have this name, of the folders {' and '.join(sorted(those))}. Rename one.",
        )
        if len(those := folders[study.id]) > 1
        else study
        for study in studies
    ]


def _unpack(path: Path, root: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            for member in members:
                member.filename = member.filename.replace("\\", "/")  # as older tools of Windows write it
            members = [member for member in members if not member.is_dir()]
            size = sum(member.file_size for member in members)
            if len(members) > _MOST_FILES:
                raise InputError(f"{path}: holds {len(members)} files, more than is taken for images.")
            if size > _MOST_BYTES or size > _MOST_RATIO * max(1, path.stat().st_size):
                raise InputError(f"{path}: unpacks to {size / 1e9:.1f} GB, more than is taken for images.")
            for member in members:
                place = PurePosixPath(member.filename)
                if place.is_absolute() or ".." in place.parts or ":" in place.parts[0]:
                    raise InputError(f"{path}: holds a path that leads out of it ({member.filename[:60]!r}).")
                archive.extract(member, root)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError) as error:
        raise InputError(f"{path}: cannot be unpacked: {error}. Is it damaged, or does it need a password?") from error
