"""A small raw study that counts as prepared: its transforms are the true ones, so that nothing has to be computed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gliomask.acquisition.alignment import Alignment, Matrix
from gliomask.acquisition.atlas import own_grid
from gliomask.acquisition.find import find_studies
from gliomask.acquisition.places import PREPARED_FOLDER, RECORD
from gliomask.acquisition.prepare_study import describe_request
from gliomask.acquisition.preprocess import Preprocessed, PreprocessSettings, write_preprocessed
from gliomask.acquisition.study import Study
from gliomask.files import write_text
from gliomask.phantom.raw import RawImage, make_raw_phantom
from gliomask.volume import Grid, Volume, write_volume


@dataclass(frozen=True)
class RawStudy:
    """A study on the disk, its truth, and the output of `predict --raw` that was made from it."""

    study: Study
    truth: dict[str, RawImage]
    images: Path
    output: Path
    mask: Path


def write_raw_study(
    folder: Path, names: Sequence[str] = ("t1c", "t2w"), *, moved: Matrix | None = None, quality: bool = True
) -> RawStudy:
    """Write the images of a coarse head, and what `predict --raw` would leave of them.

    Args:
        folder: An empty folder.
        names: The sequences, the reference first.
        moved: How far all sequences but the reference are from where they should be.
        quality: Whether the overlaps of the brains are part of the record.
    """
    found = make_raw_phantom(5, size=40, edge_mm=3, thickness_mm=(4, 5), degrees=8, shift_mm=10)
    truth = {name: found[name] for name in names}
    images, output = folder / "studies" / "RAW", folder / "out"
    for name, raw in truth.items():
        write_volume(images / f"{name}.nii.gz", raw.image)
    study = find_studies(images)[0]
    reference = names[0]
    brain_places = Volume(truth[reference].brain[None].astype(np.uint8), truth[reference].image.affine)
    away = np.linalg.inv(truth[reference].from_head)
    coarse = own_grid(Volume(brain_places.data, away @ brain_places.affine))
    alignment = Alignment(
        reference=reference,
        grid=coarse,
        native={name: raw.image.grid for name, raw in truth.items()},
        to_native={
            name: (moved if moved is not None and name != reference else np.eye(4)) @ raw.from_head
            for name, raw in truth.items()
        },
        quality={**{f"overlap_{name}": 0.97 for name in names}, "brain_ml": 1500.0} if quality else {},
    )
    brain = alignment.onto_grid(reference, brain_places, nearest=True)
    prepared = output / PREPARED_FOLDER / study.id
    write_preprocessed(
        Preprocessed({n: alignment.onto_grid(n, raw.image) for n, raw in truth.items()}, brain, alignment),
        study.id,
        prepared,
    )
    record = {
        "case": study.id,
        "images": dict.fromkeys(names, ""),
        "request": describe_request(study, PreprocessSettings(atlas="none")),
        "quality": dict(alignment.quality),
        "warnings": [],
        "seconds": {},
    }
    write_text(prepared / RECORD, json.dumps(record))
    mask = output / f"{study.id}.nii.gz"
    tissues = np.array([0, 1, 2, 4], np.uint8)[truth[reference].tissues]
    write_volume(mask, Volume(tissues[None], truth[reference].image.affine))
    facts = {
        "case": study.id,
        "space": reference,
        "labels": {"convention": "brats2021", "1": "NCR", "2": "ED", "4": "ET"},
        "regions": ["WT", "TC", "ET"],
        "volumes_ml": {"WT": 50.0, "TC": 20.0, "ET": 10.0},
        "volumes_ml_prepared": {"WT": 50.5, "TC": 20.0, "ET": 11.0},
        "warnings": [],
    }
    write_text(output / f"{study.id}.json", json.dumps(facts))
    return RawStudy(study, truth, images, output, mask)


def is_same_grid(volume: Volume, grid: Grid) -> bool:
    """Return whether a volume lies on a grid."""
    return volume.grid.difference(grid) is None
