"""Cases cropped to cubes of one size and written as plain arrays, as many BraTS tutorials use them."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomask.cases import Case, Problem, read_case, read_mask
from gliomask.errors import InputError
from gliomask.execution import HERE, Where, map_cases
from gliomask.files import clear_partials, one_writer, replacing, write_text
from gliomask.inference.preprocessing import (
    brain_box,
    channel_moments,
    normalize,
    onto_plan,
    replace_outliers,
)
from gliomask.labels import convert_labels, get_convention
from gliomask.model.plan import Plan
from gliomask.training.own_files import describe_error
from gliomask.volume import Box

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Crop:
    """The position of the cube of one case, and what it cuts off."""

    id: str
    start: tuple[int, int, int]
    tumour_voxels: int
    tumour_cut: float
    """The fraction of the tumour outside the cube."""
    brain_cut: float
    """The fraction of the brain outside the cube."""


def write_crops(
    cases: Sequence[Case],
    folder: Path,
    plan: Plan,
    edge: int,
    *,
    threads: int | None = None,
    on_case: Callable[[str], None] = lambda _: None,
    where: Where = HERE,
) -> tuple[list[Crop], list[Problem]]:
    """Write a cube of each case, and return the crops and the cases that failed.

    For each case `CASE_image.npy` is float32 `(edge, edge, edge, C)` with every sequence scaled from its minimum and
    maximum to 0 and 1, and `CASE_mask.npy` is uint8 `(edge, edge, edge)` with 1 NCR, 2 ED, 3 ET. `crops.csv` lists what
    each cube cuts off.

    The cube is centred on the brain's bounding box and does not depend on the tumour, because the tumour of a new
    patient is not known. A volume smaller than the cube is padded with zeros.

    Args:
        cases: With masks and conventions (`resolve_conventions`).
        folder: Made if it does not exist.
        plan: The sequences, orientation and spacing.
        edge: Edge length of the cube in voxels.
        threads: Number of cases processed at the same time; by default one per core.
        on_case: Called with the id after each case.
        where: Where the cases are prepared.

    Raises:
        InputError: The folder cannot be written to, or another process is writing to it.
    """
    made: dict[str, Crop | Problem] = {}
    with one_writer(folder):
        clear_partials(folder)  # of processes that were killed
        for case, found in map_cases(_Make(folder, plan, edge), cases, replace(where, at_once=threads)):
            made[case.id] = Problem(case.id, str(found)) if isinstance(found, InputError) else found
            on_case(case.id)
        crops = [crop for case in cases if isinstance(crop := made[case.id], Crop)]
        _write_table(crops, folder / "crops.csv")
    return crops, [problem for case in cases if isinstance(problem := made[case.id], Problem)]


@dataclass(frozen=True)
class _Make:
    folder: Path
    plan: Plan
    edge: int

    def __call__(self, case: Case) -> Crop | Problem:
        try:
            return _make(case, self.folder, self.plan, self.edge)
        except InputError as error:
            return Problem(case.id, str(error).removeprefix(f"{case.id}: "))
        except Exception as error:  # whatever is wrong with one case, the others are written
            log.debug("%s", case.id, exc_info=True)
            return Problem(case.id, f"cannot be prepared: {describe_error(error)}")


def central_cube(brain: NDArray[np.bool_], edge: int) -> Box:
    """Return the cube with this edge length around the centre of the mask's bounding box, moved to lie in the grid."""
    spans = []
    for box, length in zip(brain_box(brain[None]), brain.shape, strict=True):
        size = min(edge, length)
        start = min(max((box.start + box.stop - size) // 2, 0), length - size)
        spans.append(slice(start, start + size))
    return spans[0], spans[1], spans[2]


def _make(case: Case, folder: Path, plan: Plan, edge: int) -> Crop:
    volume = read_case(case, plan.modalities)
    mask = read_mask(case, volume.grid)
    data = onto_plan(replace_outliers(volume)[0], plan).data
    source = get_convention(case.convention or plan.convention)
    labels = onto_plan(mask, plan, nearest=True).data[0]
    classes = convert_labels(labels, source, get_convention("brats2023"), case.id)
    brain = np.asarray(data.any(axis=0))
    x, y, z = central_cube(brain, edge)
    scaled = normalize(data, [channel_moments(channel) for channel in data], "minmax")
    image = _padded(np.moveaxis(scaled[:, x, y, z], 0, -1), edge)
    with replacing(folder / f"{case.id}_image.npy") as path:
        np.save(path, image)
    with replacing(folder / f"{case.id}_mask.npy") as path:
        np.save(path, _padded(classes[x, y, z], edge))
    tumour = int(np.count_nonzero(classes))
    return Crop(
        case.id,
        (x.start, y.start, z.start),
        tumour,
        _share_outside(classes, (x, y, z)),
        _share_outside(brain, (x, y, z)),
    )


def _share_outside(mask: NDArray[np.generic], box: Box) -> float:
    whole = np.count_nonzero(mask)
    return float(1 - np.count_nonzero(mask[box]) / whole) if whole else 0.0


def _padded(array: NDArray[np.generic], edge: int) -> NDArray[np.generic]:
    widths = [((edge - n) // 2, edge - n - (edge - n) // 2) for n in array.shape[:3]]
    return np.pad(array, widths + [(0, 0)] * (array.ndim - 3))


def _write_table(crops: Sequence[Crop], path: Path) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["case", "x", "y", "z", "tumour_voxels", "tumour_cut", "brain_cut"])
    for crop in crops:
        table.writerow([crop.id, *crop.start, crop.tumour_voxels, f"{crop.tumour_cut:.5f}", f"{crop.brain_cut:.5f}"])
    write_text(path, text.getvalue())
