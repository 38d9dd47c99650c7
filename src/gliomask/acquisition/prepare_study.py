"""One study prepared and written as a case, and the record of how that was done."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gliomask.acquisition.alignment import load_alignment
from gliomask.acquisition.places import RECORD
from gliomask.acquisition.preprocess import (
    Preprocessed,
    PreprocessSettings,
    image_path,
    preprocess,
    write_preprocessed,
)
from gliomask.acquisition.study import Series, Study
from gliomask.cases import Case, Source
from gliomask.cases.folders import NATIVE_MASKS
from gliomask.errors import InputError, describe
from gliomask.execution import Where, given_cores, usable_cores
from gliomask.files import one_writer, write_text
from gliomask.inference.record import digest_of, fingerprint
from gliomask.inspection import misnamed, take_samples
from gliomask.volume import Volume, read_volume, write_volume

# How the masks on the sequences' own grids are called.
_NATIVE_NAMES = {"t1n": "t1", "t1c": "t1c", "t2w": "t2", "t2f": "flair"}


@dataclass(frozen=True)
class PreparedStudy:
    """A study's prepared case, and what is known about its preparation."""

    case: Case
    folder: Path
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    """Steps that were left out, and why."""
    quality: dict[str, float]
    seconds: dict[str, float]


def describe_request(study: Study, settings: PreprocessSettings) -> dict[str, Any]:
    """Return what determines a preparation, ready for JSON: the settings, and fingerprints of the images that are used.

    Raises:
        InputError: A file cannot be read.
    """
    strip = settings.skull_strip
    return {
        "atlas": settings.atlas,
        "skull_strip": fingerprint(strip) if isinstance(strip, Path) else strip,
        # True and False: what is written since there was a choice of two.
        "register": {"greedy": True, "none": False}.get(settings.register, settings.register),
        "n4": settings.n4,
        "reference": settings.reference,
        "images": {name: describe_series(series) for name, series in study.chosen.items()},
    }


def describe_series(series: Series) -> str:
    """Return a digest of the fingerprints of a series' files.

    Raises:
        InputError: A file cannot be read.
    """
    return digest_of(" ".join(sorted(map(fingerprint, series.files))).encode())


def prepare_study(
    study: Study,
    folder: Path,
    settings: PreprocessSettings,
    *,
    native_masks: bool = False,
    on_step: Callable[[str, float], None] = lambda name, share: None,
) -> PreparedStudy:
    """Prepare a study and write it as a case into a folder; see `preprocess` and `write_preprocessed`.

    The folder also gets `preprocess.json`: which images were used and why, the measures of quality, warnings, seconds.
    A sequence whose image looks like another one is among the warnings.

    Args:
        study: The images.
        folder: Made if it does not exist.
        settings: How they are prepared.
        native_masks: Also write the brain mask on each sequence's own grid; see `write_native_masks`.
        on_step: See `preprocess`.

    Raises:
        InputError: No image can be used, one is bad or cannot be registered, another process writes to the folder, or
            the place cannot be written to.
    """
    images = study.read()
    with one_writer(folder.parent, folder.name):
        return _prepare(study, images, folder, settings, native_masks=native_masks, on_step=on_step)


def _prepare(
    study: Study,
    images: dict[str, Volume],
    folder: Path,
    settings: PreprocessSettings,
    *,
    native_masks: bool,
    on_step: Callable[[str, float], None],
) -> PreparedStudy:
    found = preprocess(images, settings, on_step=on_step)
    case = write_preprocessed(found, study.id, folder)
    if native_masks:
        write_native_masks(study.id, folder)
    contradiction = _look_like_others(found, case)
    warnings = (*study.notes, *found.warnings, *([contradiction] if contradiction else []))
    record = {
        "case": study.id,
        "reference": found.alignment.reference,
        "images": {name: series.reason for name, series in study.chosen.items()},
        "request": describe_request(study, settings),
        "quality": {name: round(value, 4) for name, value in found.alignment.quality.items()},
        "warnings": list(warnings),
        "notes": list(found.notes),
        "seconds": dict(found.steps),
        "note": "Research use only, not a medical device.",
    }
    # Written last: a folder that has it is whole.
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")
    return PreparedStudy(case, folder, warnings, found.notes, dict(found.alignment.quality), dict(found.steps))


def write_native_masks(case_id: str, folder: Path) -> None:
    """Write `native/ID_brain_{t1,t1c,t2,flair}.nii.gz`: a prepared case's brain mask on each sequence's own grid.

    Raises:
        InputError: The folder holds no prepared case, or cannot be written to.
    """
    alignment = load_alignment(folder / "transforms")
    brain = read_volume(folder / f"{case_id}_brain.nii.gz", mask=True)
    for name in alignment.native:
        carried = alignment.onto_native(name, brain)
        mask = Volume((carried.data > 0.5).astype(np.uint8), carried.affine)
        write_volume(native_mask_path(folder, case_id, name), mask)


def native_mask_path(folder: Path, case_id: str, modality: str) -> Path:
    """Return where `write_native_masks` puts the mask of a sequence."""
    return folder / NATIVE_MASKS / f"{case_id}_brain_{_NATIVE_NAMES[modality]}.nii.gz"


def _look_like_others(found: Preprocessed, case: Case) -> str | None:
    """A warning where the images contradict the sequences that headers or names gave them."""
    names = tuple(found.images)
    data = np.concatenate([image.data for image in found.images.values()])
    samples = take_samples(Volume(data, found.brain.affine), names, {n: case.images[n].path for n in names})
    return misnamed(samples)


def prepared_before(study: Study, folder: Path, settings: PreprocessSettings) -> PreparedStudy | None:
    """Return what an earlier call prepared in a folder from the same images in the same way.

    None where it did not end, its files are gone, or the images or settings are others now.

    Raises:
        InputError: The record is there and damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        names, request = list(record["images"]), record.get("request")
        warnings, quality, seconds = tuple(record["warnings"]), dict(record["quality"]), dict(record["seconds"])
        notes = tuple(record.get("notes", ()))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: damaged: {error}. Remove the folder and run again.") from error
    if request != describe_request(study, settings):
        return None
    load_alignment(folder / "transforms")
    sources = {name: Source(image_path(folder, study.id, name)) for name in names}
    if not all(source.path.is_file() for source in sources.values()):
        return None
    return PreparedStudy(Case(study.id, sources), folder, warnings, notes, quality, seconds)


@dataclass(frozen=True)
class PrepareStudy:
    """Prepares studies as cases in a folder; for `map_cases`, in processes.

    A crash or a full memory in a process affects only its study, and Greedy writes to the standard output of its
    process, which is closed there.
    """

    folder: Path
    """Each study gets a folder in it, named by its id."""
    settings: PreprocessSettings
    native_masks: bool = False
    keep: bool = False
    """Keep what was prepared before from the same images in the same way."""
    wait_seconds: float = 0.0
    """How long to wait for another process that prepares the same study."""

    def __call__(self, study: Study) -> PreparedStudy:
        """Return the prepared study.

        Raises:
            InputError: It could not be prepared; it is named.
            HeldError: Another process is preparing it.
        """
        place = self.folder / study.id
        settings = replace(self.settings, threads=self.settings.threads or given_cores())
        try:
            before = prepared_before(study, place, settings) if self.keep else None
            if before is None and self.wait_seconds:
                with one_writer(self.folder, study.id, wait_seconds=self.wait_seconds):
                    before = prepared_before(study, place, settings) if self.keep else None
            return before or prepare_study(study, place, settings, native_masks=self.native_masks)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{study.id}: could not be prepared: {describe(error)}") from error


def place_to_prepare(studies: Sequence[Study], where: Where) -> Where:
    """Return where studies are prepared: in processes of this machine, one for every two cores, as each uses two."""
    return replace(where, processes=True, at_once=max(1, min(len(studies), usable_cores() // 2)))
