"""One case read whole: what it holds, and everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomask.cases.case import MODALITIES, Case
from gliomask.cases.read import UnpreparedError, looks_like_head, mask_on_grid, merge_notes, read_channels
from gliomask.errors import InputError
from gliomask.labels import CONVENTIONS, check_labels, count_labels, get_convention, oedema_is_outermost
from gliomask.volume import Grid, Volume, read_volume

# Fewer voxels of a tissue than this are noted: a score on them is all or nothing.
_FEW_VOXELS = 50
# Brains are 60-200 mm across, children's and adults'; the field of view around one may be much wider.
_FIELD_MM = (60.0, 500.0)


@dataclass(frozen=True)
class CaseReport:
    """What `check_case` found."""

    case: Case
    grid: Grid | None
    voxels: dict[str, int] = field(default_factory=dict)
    """Voxels of each tissue in the mask; empty where there is no mask or its convention is not known."""
    values: tuple[int, ...] = ()
    """The numbers in the mask."""
    problems: tuple[str, ...] = ()
    """What keeps the case from being used."""
    notes: tuple[str, ...] = ()
    """What is unusual and does not keep the case from being used."""
    unprepared: bool = False
    """Whether the images are not registered to each other, or show a whole head: raw scans."""


def check_case(
    case: Case, *, inspect: Callable[[Case, Mapping[str, Volume]], Sequence[str]] | None = None
) -> CaseReport:
    """Read a case whole and return what it holds and everything that is wrong with it; bad input raises nothing.

    Args:
        case: The case.
        inspect: Returns what is unusual about its sequences, given as volumes of one channel. By default the files'
            own notes are returned, and whether the skull may be there.
    """
    problems: list[str] = []
    notes: list[str] = []
    grid: Grid | None = None
    brain: NDArray[np.bool_] | None = None
    unprepared = False
    try:
        by_modality = read_channels(case, tuple(MODALITIES))
        channels = list(by_modality.values())
        grid, brain = channels[0].grid, _nonzero(channels)
        head = looks_like_head(channels)
        unprepared = head is not None
        about_images = (
            inspect(case, by_modality) if inspect else (*merge_notes(case, by_modality), *filter(None, [head]))
        )
        notes += [*about_images, *_unusual_grid(grid)]
    except InputError as error:
        unprepared = isinstance(error, UnpreparedError)
        problems.append(str(error).removeprefix(f"{case.id}: "))
    voxels: dict[str, int] = {}
    values: tuple[int, ...] = ()
    if case.mask is not None:
        try:
            mask = read_volume(case.mask, mask=True)
            counts = count_labels(mask.data)
            values = tuple(int(value) for value in np.flatnonzero(counts))
            voxels = _tissue_voxels(case, counts)
            notes += [f"{case.mask.name}: {note}" for note in mask.notes]
            notes += _unusual_mask(case, mask, voxels, values)
            notes += _unusual_places(case, case.mask, mask, grid, brain)
        except InputError as error:
            problems.append(str(error).removeprefix(f"{case.id}: "))
    return CaseReport(case, grid, voxels, values, tuple(problems), tuple(notes), unprepared)


def _tissue_voxels(case: Case, counts: NDArray[np.int64]) -> dict[str, int]:
    if case.convention is None:
        return {}
    convention = get_convention(case.convention)
    check_labels([int(value) for value in np.flatnonzero(counts)], convention, str(case.mask))
    return {tissue: int(counts[value]) for value, tissue in sorted(convention.tissues.items())}


def _nonzero(channels: Sequence[Volume]) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = channels[0].data[0] != 0
    for volume in channels[1:]:
        inside |= volume.data[0] != 0
    return inside


def _unusual_grid(grid: Grid) -> list[str]:
    notes = []
    extent = [n * mm for n, mm in zip(grid.shape, grid.spacing_mm, strict=True)]
    if not all(_FIELD_MM[0] <= mm <= _FIELD_MM[1] for mm in extent):
        notes.append("the field of view is " + " x ".join(f"{mm:.0f}" for mm in extent) + " mm: is the spacing right?")
    if not np.allclose(grid.spacing_mm, 1, atol=0.01):
        spacing = " x ".join(f"{mm:.3g}" for mm in grid.spacing_mm)
        notes.append(
            f"voxels of {spacing} mm; BraTS has 1 mm (images are resampled for the network, and its answer back)"
        )
    return notes


def _unusual_mask(case: Case, mask: Volume, voxels: dict[str, int], values: Sequence[int]) -> list[str]:
    notes = []
    if not any(values):
        return ["the mask is empty: no tumour"]
    for tissue, count in voxels.items():
        if count == 0 and tissue in ("NCR", "ED", "ET"):
            notes.append(f"no {tissue}")
        elif count < _FEW_VOXELS and count > 0:
            notes.append(f"only {_voxels(count)} of {tissue}")
    if case.convention and not oedema_is_outermost(mask.data[0], CONVENTIONS[case.convention]):
        notes.append(f"ED lies inside NCR: is {case.convention} the right convention?")
    return notes


def _unusual_places(
    case: Case, path: Path, mask: Volume, grid: Grid | None, brain: NDArray[np.bool_] | None
) -> list[str]:
    if grid is None or brain is None:
        return []
    turned = mask_on_grid(case, mask, grid)
    notes = []
    if turned is not mask:
        notes.append(f"{path.name}: stored as {mask.grid.axes}, the images as {grid.axes}; it was reoriented.")
    outside = int(np.count_nonzero((turned.data[0] != 0) > brain))
    return [*notes, f"{_voxels(outside)} of the mask where every image is zero"] if outside else notes


def _voxels(count: int) -> str:
    return f"{count} voxel{'s' if count != 1 else ''}"
