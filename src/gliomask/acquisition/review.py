"""A prepared study together with its images as they were acquired, on one grid, to look at and to judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gliomask.acquisition.alignment import Alignment, carry, load_alignment
from gliomask.acquisition.places import PREPARED, RECORD
from gliomask.acquisition.prepare_study import describe_series
from gliomask.acquisition.study import Choice, Study
from gliomask.errors import InputError
from gliomask.inference.record import read_facts
from gliomask.volume import Grid, Volume, read_volume


@dataclass(frozen=True, eq=False)
class StudyReview:
    """The images of a study as they were acquired, and what the preparation found out about them."""

    id: str
    images: Mapping[str, Volume]
    """By sequence, with skull, each on its own grid; the sequences in the order of `MODALITIES`."""
    brain: Volume
    """The brain mask on the prepared grid."""
    alignment: Alignment
    record: Mapping[str, Any]
    """The content of `preprocess.json`."""

    def grid_of(self, space: str) -> Grid:
        """Return the grid of a sequence, or the prepared grid for the space `prepared`.

        Raises:
            InputError: The study has no such sequence.
        """
        if space == PREPARED:
            return self.alignment.grid
        if space not in self.images:
            raise InputError(f"{self.id}: has no {space}; it has {', '.join(self.images)}.")
        return self.alignment.native[space]

    def images_in(self, space: str) -> dict[str, Volume]:
        """Return all images on the grid of a sequence, or on the prepared grid; that sequence's own image unchanged."""
        return {
            name: image if name == space else self.onto(self.grid_of(space), name, space=space)
            for name, image in self.images.items()
        }

    def brain_in(self, space: str) -> Volume:
        """Return the brain mask, uint8, on the grid of a sequence, or on the prepared grid."""
        if space == PREPARED:
            return self.brain
        inside = self.alignment.onto_native(space, Volume(self.brain.data.astype(np.float32), self.brain.affine))
        return Volume((inside.data > 0.5).astype(np.uint8), inside.affine)

    def onto(self, grid: Grid, modality: str, *, space: str = PREPARED) -> Volume:
        """Return one image, interpolated linearly, on a grid in the space of a sequence or in the prepared space."""
        to_image = self.alignment.to_native[modality]
        if space != PREPARED:
            to_image = to_image @ np.linalg.inv(self.alignment.to_native[space])
        return carry(self.images[modality], to_image, grid)


def read_review(study: Study, folder: Path) -> StudyReview:
    """Return a study as it was acquired, with the results of its preparation.

    Args:
        study: The study. Of its series those are read that the preparation used, by their fingerprints, even if others
            would be chosen now.
        folder: The folder of the prepared study; see `places.find_prepared`.

    Raises:
        InputError: The folder is damaged, a file cannot be read, or the images are not those that were prepared.
    """
    alignment = load_alignment(folder / "transforms")
    record = read_facts(folder / RECORD)
    if record is None or not isinstance(record.get("request"), dict):
        raise InputError(f"{folder / RECORD}: damaged. Remove the folder and run predict --raw or preprocess again.")
    images = _used_series(study, record["request"].get("images", {}), folder).read()
    brain = read_volume(folder / f"{study.id}_brain.nii.gz", mask=True)
    if set(images) != set(alignment.native) or alignment.grid.difference(brain.grid):
        raise InputError(f"{folder}: its files do not belong together. Remove the folder and prepare the study again.")
    return StudyReview(study.id, images, brain, alignment, record)


def space_of(mask: Path, alignment: Alignment) -> str:
    """Return the space of a mask of a raw study, from the JSON beside it; by default that of the reference.

    Raises:
        InputError: The JSON names a space that the study does not have.
    """
    stem = mask.name.removesuffix(".gz").removesuffix(".nii")
    facts = read_facts(mask.with_name(f"{stem}.json"))
    space = str((facts or {}).get("space", alignment.reference))
    if space != PREPARED and space not in alignment.native:
        raise InputError(f"{mask}: lies in the space of {space}, which the prepared study does not have.")
    return space


def _used_series(study: Study, used: Mapping[str, str], folder: Path) -> Study:
    """Return the study with exactly the series that were prepared."""
    left = dict(used)
    found = {}
    for choice in sorted(study.choices, key=lambda choice: not choice.used):  # most likely those that are used now
        if not left:
            break
        digest = describe_series(choice.series)
        for name in [name for name, wanted in left.items() if wanted == digest]:
            found[name] = replace(choice.series, modality=name)
            del left[name]
    if left or not found:
        raise InputError(
            f"{study.id}: its {', '.join(left) or 'image'} is not what was prepared in {folder}. Name the study from "
            "which the mask was predicted, or predict it again."
        )
    return Study(study.id, tuple(Choice(series, True, series.reason) for series in found.values()))
