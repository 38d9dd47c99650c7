"""Turn uploaded files into the images of a job: check and de-identify them, and recognise their sequences."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gliomask.acquisition.headers import is_dicom
from gliomask.cases import MODALITIES, SEQUENCE_NAMES, Case, Source, check_case, classify, get_modality
from gliomask.cases.naming import Beside, names_beside
from gliomask.errors import InputError
from gliomask.files import write_bytes
from gliomask.inference.prediction import check_sequences
from gliomask.inspection import inspect_channels, recognise
from gliomask.model.plan import Plan
from gliomask.service.deidentify import deidentify
from gliomask.service.dicom_study import DICOM, read_dicom
from gliomask.service.jobs import Image
from gliomask.service.limits import Limits, RefusedError, storage_error
from gliomask.service.paths import without_paths
from gliomask.service.preview import preview
from gliomask.service.raw_job import can_prepare
from gliomask.service.receive import Upload
from gliomask.service.unpack import is_zip, unpack
from gliomask.volume import Grid, Volume, read_volume, voxel_volume_ml

log = logging.getLogger(__name__)

# Integers of 64 bits count twice against the limit on voxels.
_BYTES_PER_VOXEL = 4
# A larger share of the voxels, or a larger volume, is not zero in no image of a brain without its skull.
_HEAD_SHARE = 0.75
_LARGEST_BRAIN_ML = 2300.0


@dataclass(frozen=True)
class Ingested:
    """The images of an upload."""

    images: tuple[Image, ...]
    file_names: dict[str, str]
    """The uploaded file name of each image. It appears in the response to the upload only and is not stored."""
    passed_over: tuple[str, ...]
    raw: bool
    """Whether the images have to be prepared: they are from DICOM, on different grids, or show more than a brain."""
    case_id: str | None
    """The case id if the file names have one of a public data set. Other names may be those of persons."""


def ingest_uploads(uploads: Sequence[Upload], folder: Path, limits: Limits) -> Ingested:
    """Write the images of an upload to `folder/images` as `image-1.nii.gz`, ..., each with a preview `image-1.png`.

    Args:
        uploads: The received files; each is removed once it has been read.
        folder: The folder in which the job is being built.
        limits: The limits of one upload.

    Raises:
        RefusedError: 422, with a sentence for each file that cannot be used. The whole upload is refused then.
    """
    problems: list[str] = []
    passed_over: list[str] = []
    files = _files(uploads, folder, limits, problems, passed_over)
    (folder / "images").mkdir()
    if any(is_dicom(file.path) for file in files):
        return _ingest_dicom(files, problems, folder, limits)
    _check_number(files, limits, problems)
    grids: list[Grid] = []
    budget = _Budget(limits)
    for number, file in enumerate(files[: limits.files], start=1):
        try:
            grids.append(_ingest(file, folder / "images" / f"image-{number}.nii.gz", budget))
        except InputError as error:
            if storage_error(error) is not None:
                raise
            problems.append(f"{file.name}: {without_paths(str(error), folder / 'images')}")
        file.path.unlink()
    if problems:
        raise RefusedError(422, "The upload was refused because not every file can be used.", problems)
    if not files:
        raise RefusedError(
            422, "The upload contains no image. Choose NIfTI files (.nii, .nii.gz) or a zip of them.", passed_over
        )
    names = {f"image-{number}": file.name for number, file in enumerate(files, start=1)}
    raw = can_prepare() and (budget.with_skull or any(grids[0].difference(grid) for grid in grids[1:]))
    return Ingested(_with_sequences(files, grids, folder), names, tuple(passed_over), raw, _public_id(files))


def check_images(
    images: Sequence[Image], folder: Path, plans: Sequence[Plan], *, raw: bool = False
) -> tuple[list[str], list[str]]:
    """Return the problems that prevent a prediction, and notes about unusual images; see `check_case`.

    Args:
        images: The images with their sequences.
        folder: The folder of the job.
        plans: The plans of the models that will predict.
        raw: The images are prepared first, so their grids may differ, and they may show the skull.
    """
    used = [image for image in images if image.sequence is not None]
    twice = [
        f"{' and '.join(image.name for image in used if image.sequence == modality)} are both "
        f"{SEQUENCE_NAMES[modality]}. Choose another sequence for one of them, or leave it out."
        for modality in MODALITIES
        if sum(image.sequence == modality for image in used) > 1
    ]
    if twice:
        return twice, []
    if not used:
        return ["No image has a sequence yet. Choose the sequence of each image."], []
    case = make_case("images", used, folder)
    if raw and not can_prepare():
        return ["This server cannot prepare raw images: its extra raw is not installed."], []
    report = None if raw else check_case(case, inspect=inspect_channels)
    problems = [*report.problems] if report else []
    for plan in plans:
        try:
            check_sequences(plan, case)
        except InputError as error:
            problems.append(str(error))
    return [_for_client(text, folder) for text in problems], [
        _for_client(text, folder) for text in report.notes
    ] if report else []


def make_case(case_id: str, images: Sequence[Image], folder: Path) -> Case:
    """Return a job's images as a case, with the sequences in the order of `find_cases`."""
    by_sequence = {image.sequence: image for image in images}
    return Case(
        case_id,
        {m: Source(image_path(folder, by_sequence[m].name)) for m in MODALITIES if m in by_sequence},
    )


def image_path(folder: Path, name: str) -> Path:
    """Return the path of a job's image."""
    return folder / "images" / f"{name}.nii.gz"


@dataclass
class _Budget:
    """What remains of the limits of an upload for its further images."""

    limits: Limits
    voxels: int = 0
    """Voxels of the images so far."""
    bytes: int = 0
    """Bytes of the images so far, before compression."""
    with_skull: bool = False
    """Whether one of the images so far shows more than a brain."""


def _ingest(file: Upload, target: Path, budget: _Budget) -> Grid:
    """Write one image and its preview, and return its grid.

    Raises:
        InputError: The image cannot be used, or the upload exceeds a limit with it.
    """
    limits = budget.limits
    try:
        grid, size = deidentify(
            file.path,
            target,
            most_voxels=min(limits.voxels, limits.upload_voxels - budget.voxels),
            most_bytes=_BYTES_PER_VOXEL * limits.upload_voxels - budget.bytes,
        )
        budget.voxels += math.prod(grid.shape)
        budget.bytes += size
        _check_extent(grid, limits)
        image = read_volume(target)
        budget.with_skull = budget.with_skull or shows_head(image)
        write_bytes(target.with_name(target.name.replace(".nii.gz", ".png")), preview(image))
    except (InputError, OSError):
        raise
    except Exception as error:  # a kind of damage that nobody has thought of must not end the request
        log.error("an uploaded image cannot be read: %s", type(error).__name__)
        log.debug("traceback", exc_info=error)
        raise InputError("cannot be read; the file is damaged. Export it again.") from error
    return grid


def _check_extent(grid: Grid, limits: Limits) -> None:
    """Refuse an image that would become too large when it is resampled to voxels of 1 mm."""
    extent = [float(n) * mm for n, mm in zip(grid.shape, grid.spacing_mm, strict=True)]
    if not math.prod(extent) <= limits.covered_mm3:  # NaN too
        sides, voxel = (" x ".join(f"{mm:.4g}" for mm in lengths) for lengths in (extent, grid.spacing_mm))
        raise InputError(
            f"covers {sides} mm with voxels of {voxel} mm, more than this server accepts. Is the voxel size right?"
        )


def _for_client(text: str, folder: Path) -> str:
    return without_paths(text, folder / "images", folder).replace("images: ", "").replace(".nii.gz", "")


def _files(
    uploads: Sequence[Upload], folder: Path, limits: Limits, problems: list[str], passed_over: list[str]
) -> list[Upload]:
    """Return the uploads with zips unpacked and masks left out."""
    files: list[Upload] = []
    for number, upload in enumerate(uploads, start=1):
        if not is_zip(upload.path):
            found = classify(Path(upload.name))
            if found is not None and found[1] == "mask" and _sequence_of(upload.field) is None:
                passed_over.append(f"{upload.name}: its name is that of a mask, not of an image")
            else:
                files.append(upload)
            continue
        place = folder / f"zip-{number}"
        place.mkdir()
        try:
            unpacked, others = unpack(upload, place, limits, limits.files - len(files))
        except InputError as error:
            if storage_error(error) is not None:
                raise
            problems.append(f"{upload.name}: {without_paths(str(error), folder)}")
            continue
        files += unpacked
        passed_over += others
        upload.path.unlink()
    return files


def _check_number(files: Sequence[Upload], limits: Limits, problems: list[str]) -> None:
    if len(files) > limits.files:
        problems.append(
            f"The upload has {len(files)} images; at most {limits.files} are accepted. Send one examination."
        )


def _ingest_dicom(files: Sequence[Upload], problems: Sequence[str], folder: Path, limits: Limits) -> Ingested:
    """Turn the DICOM files of an upload into the images of a raw job, and remove all uploaded files.

    Raises:
        RefusedError: 422, the files cannot be used, or the extra `raw` is not installed.
    """
    refusal = "The DICOM files of the upload cannot be used."
    if not can_prepare():
        raise RefusedError(422, refusal, ["This server cannot read DICOM: its extra raw is not installed."])
    if problems:
        raise RefusedError(422, refusal, problems)
    if len(files) > limits.study_files:
        raise RefusedError(413, f"The upload has {len(files)} files; at most {limits.study_files} are accepted.")
    place = folder / DICOM
    place.mkdir()
    others = 0
    for number, file in enumerate(files):
        if is_dicom(file.path):
            file.path.rename(place / f"file-{number}")
        else:
            file.path.unlink()
            others += 1
    for emptied in folder.glob("zip-*"):
        shutil.rmtree(emptied, ignore_errors=True)
    try:
        found = read_dicom(folder, limits)
    except InputError as error:
        raise storage_error(error) or RefusedError(422, refusal, [str(error)]) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
    images = tuple(
        Image.model_validate(
            {
                "name": f"image-{number}",
                "sequence": series.sequence,
                "told_by": series.sequence and "header",
                "shape": series.shape,
                "spacing_mm": series.spacing_mm,
                "axes": series.axes,
            }
        )
        for number, series in enumerate(found.series, start=1)
    )
    passed_over = [*found.passed_over, *([f"{others} files that are not DICOM"] if others else [])]
    names = {image.name: series.label for image, series in zip(images, found.series, strict=True)}
    return Ingested(images, names, tuple(passed_over), True, None)


def shows_head(image: Volume) -> bool:
    """Return whether more than a brain is not zero: a head with its skull, or the noise around it."""
    data = image.data[0]
    filled = int(np.count_nonzero(data))
    return filled > _HEAD_SHARE * data.size or filled * voxel_volume_ml(image.affine) > _LARGEST_BRAIN_ML


def _with_sequences(files: Sequence[Upload], grids: Sequence[Grid], folder: Path) -> tuple[Image, ...]:
    """Return the images with their sequences: from the form field, else the file name, else guessed from the image."""
    by_field = [_sequence_of(file.field) for file in files]
    beside = names_beside(Path(file.name) for file in files)
    by_name = [_sequence_in(file.name, beside) for file in files]
    known = [first or second for first, second in zip(by_field, by_name, strict=True)]
    guessed: Mapping[int, str | None] = {}
    if None in known and len(files) <= len(MODALITIES) and not any(grids[0].difference(grid) for grid in grids[1:]):
        volumes = [read_volume(image_path(folder, f"image-{number + 1}")) for number in range(len(files))]
        stacked = Volume(np.concatenate([volume.data for volume in volumes]), grids[0].affine)
        guessed = dict(enumerate(recognise(stacked, known)))
    return tuple(
        Image.model_validate(
            {
                "name": f"image-{number + 1}",
                "sequence": known[number] or guessed.get(number),
                "told_by": (by_field[number] and "you")
                or (by_name[number] and "name")
                or (guessed.get(number) and "image")
                or None,
                "shape": grid.shape,
                "spacing_mm": tuple(round(mm, 4) for mm in grid.spacing_mm),
                "axes": grid.axes,
            }
        )
        for number, grid in enumerate(grids)
    )


def _sequence_of(field: str) -> str | None:
    try:
        return get_modality(field)
    except InputError:
        return None


def _sequence_in(name: str, beside: Beside) -> str | None:
    found = classify(Path(name), beside)
    return found[1] if found is not None and found[1] in MODALITIES else None


def _public_id(files: Sequence[Upload]) -> str | None:
    from gliomask.cases import layout_of

    ids = [found[0] for file in files if (found := classify(Path(file.name))) is not None]
    layout = layout_of(ids[0]) if len(set(ids)) == 1 else None
    # The ids of a release are public. A BIDS name has a form, but anything in it.
    return ids[0] if layout is not None and layout.whole_id_in_names else None
