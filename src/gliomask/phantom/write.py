"""Phantoms written as files, in any layout that `find_cases` reads."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gliomask.cases import MODALITIES, Case, get_layout, get_modality
from gliomask.errors import InputError
from gliomask.files import write_text
from gliomask.labels import REGIONS, get_convention, to_labels, to_regions
from gliomask.phantom.examination import Phantom, make_phantom
from gliomask.volume import Volume, write_volume


def write_phantoms(
    folder: Path | str,
    count: int,
    *,
    layout: str = "brats2021",
    missing: Sequence[str] = (),
    seed: int = 0,
    size: int = 240,
    on_case: Callable[[str], None] = lambda _: None,
) -> list[Case]:
    """Write synthetic examinations with their masks in the layout of a BraTS release, and return them as cases.

    Args:
        folder: New or empty.
        count: The number of cases; they are numbered from 1.
        layout: A name from `cases.LAYOUTS`.
        missing: Sequences to leave out of every case.
        seed: The same seed gives the same files.
        size: The grid's longest edge in voxels; see `make_phantom`.
        on_case: Called with the id after each case, for a progress bar.

    Raises:
        InputError: The folder is not empty or cannot be written to, a name is unknown, or a sequence is left out of a
            layout with all sequences in one file.
    """
    folder = Path(folder)
    table = get_layout(layout)
    left_out = {get_modality(name) for name in missing}
    if left_out and table.one_file:
        raise InputError(
            f"layout {layout!r} holds all sequences in one file; none can be missing. Choose another layout."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists already and is not empty. Choose another folder.")
    modalities = [modality for modality in MODALITIES if modality not in left_out]
    cases = [table.case(folder, number, modalities) for number in range(1, count + 1)]
    for number, case in enumerate(cases):
        _write_case(case, make_phantom(seed * 10_000 + number, size=size))
        on_case(case.id)
    if table.dataset_json:
        described = {**table.dataset_json, "numTraining": count}
        write_text(folder / "dataset.json", json.dumps(described, indent=2) + "\n")
    return cases


def _write_case(case: Case, phantom: Phantom) -> None:
    by_file: dict[Path, list[str]] = defaultdict(list)
    for modality, source in case.images.items():
        by_file[source.path].append(modality)
    for path, modalities in by_file.items():
        in_order = sorted(modalities, key=lambda modality: case.images[modality].channel or 0)
        write_volume(path, Volume(np.stack([phantom.images[m] for m in in_order]), phantom.affine))
    assert case.mask is not None
    # The phantom's own numbers (1 NCR, 2 ED, 3 ET) are those of BraTS 2023.
    numbers = get_convention(case.convention or "brats2024-ped")
    regions = to_regions(phantom.tissues, get_convention("brats2023"), tuple(REGIONS))
    labels = to_labels(regions, tuple(REGIONS), numbers)
    write_volume(case.mask, Volume(labels[None], phantom.affine))
