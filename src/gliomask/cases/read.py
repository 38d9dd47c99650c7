"""The voxels of a case, all on one grid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gliomask.cases.case import Case, get_modality
from gliomask.errors import InputError
from gliomask.execution import ahead
from gliomask.labels import check_labels, get_convention, label_values
from gliomask.volume import Grid, Volume, match_axes, read_volume

# A skull-stripped brain fills 14-20 % of BraTS's grid and about half of its tightest box; air around a head is noise.
_MOST_NONZERO = 0.6


class UnpreparedError(InputError):
    """The images of a case are not registered to each other, as raw scans are."""


def read_case(case: Case, modalities: Sequence[str]) -> Volume:
    """Return a case's sequences as the channels of one volume, in the order asked for.

    A sequence that the case does not have is a channel of zeros. The volume's `notes` say what is odd about the files.

    Args:
        case: The case; its files are opened now.
        modalities: In any accepted spelling.

    Raises:
        InputError: A name is not known, and as for `read_channels`.
    """
    modalities = [get_modality(name) for name in modalities]
    channels = read_channels(case, modalities)
    first = next(iter(channels.values()))
    kind = np.result_type(*(volume.data.dtype for volume in channels.values()))
    notes = merge_notes(case, channels)
    data = np.zeros((len(modalities), *first.grid.shape), dtype=kind)
    for number, modality in enumerate(modalities):
        if modality in channels:
            data[number] = channels[modality].data[0]
            if modality not in modalities[number + 1 :]:
                del channels[modality]  # its memory is free before the next channel is copied
    return Volume(data, first.affine, notes)


def read_channels(case: Case, modalities: Sequence[str]) -> dict[str, Volume]:
    """Return those of a case's sequences that it has, a volume of one channel each, all on the grid of the first.

    A sequence that is stored with its axes in another order is reoriented, which changes no voxel. The files are read
    in two threads.

    Raises:
        InputError: The case has none of the sequences, a file is bad (see `read_volume`) or has another number of
            channels than the case says, or the grids differ (`UnpreparedError`). All that is wrong is said at once.
    """
    wanted = {modality: case.images[modality] for modality in modalities if modality in case.images}
    if not wanted:
        there = ", ".join(case.images) or "no sequence"
        raise InputError(f"{case.id}: has none of {', '.join(modalities)}; it has {there}.")
    files = list(dict.fromkeys(source.path for source in wanted.values()))
    volumes = dict(zip(files, ahead(_read_or_error, files, 2), strict=True))
    problems = [volume for volume in volumes.values() if isinstance(volume, InputError)]
    if problems:
        raise InputError("; ".join(f"{case.id}: {problem}" for problem in problems))
    channels = {
        modality: _channel(volumes[source.path], source.path, source.channel) for modality, source in wanted.items()
    }
    return _on_one_grid(case, channels)


def looks_like_head(channels: Iterable[Volume]) -> str | None:
    """Return a question about the skull where few voxels are zero in all channels, as in a head surrounded by air."""
    inside = np.logical_or.reduce([volume.data[0] != 0 for volume in channels])
    filled = float(np.count_nonzero(inside)) / inside.size
    return f"{filled:.0%} of the voxels are not zero: is the skull still there?" if filled > _MOST_NONZERO else None


def merge_notes(case: Case, channels: Mapping[str, Volume]) -> tuple[str, ...]:
    """Return the notes of several sequences, each once, with the names of the files it is about."""
    files: dict[str, list[str]] = defaultdict(list)
    for modality, volume in channels.items():
        for note in volume.notes:
            files[note].append(f"{modality} ({case.images[modality].path.name})")
    return tuple(f"{', '.join(names)}: {note}" for note, names in files.items())


def read_mask(case: Case, grid: Grid | None = None) -> Volume:
    """Return a case's mask, one uint8 channel in the numbers of the case's convention (see `resolve_conventions`).

    Args:
        case: The case; its mask is opened now.
        grid: The grid of its images, if the mask is to lie on it: a mask that is stored with its axes in another order
            is reoriented.

    Raises:
        InputError: The case has no mask, the file is bad, holds numbers outside the convention, or lies on another grid
            than the one given.
    """
    if case.mask is None:
        raise InputError(f"{case.id}: has no mask (a file such as {case.id}_seg.nii.gz).")
    volume = read_volume(case.mask, mask=True)
    if case.convention is None:
        raise InputError(f"{case.id}: the label convention of {case.mask} is not known. Name it with --labels.")
    check_labels(label_values(volume.data), get_convention(case.convention), str(case.mask))
    return volume if grid is None else mask_on_grid(case, volume, grid)


def mask_on_grid(case: Case, mask: Volume, grid: Grid) -> Volume:
    """Return a case's mask with its axes in the order of its images.

    Raises:
        InputError: It lies on another grid than the images.
    """
    turned = match_axes(mask, grid)
    if difference := grid.difference(turned.grid):
        about = "".join(f" {note}" for note in mask.notes)
        raise InputError(f"{case.id}: the grid of {case.mask} differs from that of the images in {difference}.{about}")
    return turned


def _read_or_error(path: Path) -> Volume | InputError:
    try:
        return read_volume(path)
    except InputError as error:
        return error


def _channel(volume: Volume | InputError, path: Path, channel: int | None) -> Volume:
    assert isinstance(volume, Volume)
    count = len(volume.data)
    if channel is None and count > 1:
        raise InputError(
            f"{path}: a 4-D file of {count} volumes where one sequence is expected. Split it, or provide a "
            "dataset.json that says which volume is which sequence."
        )
    if channel is not None and channel >= count:
        raise InputError(f"{path}: has {count} channels; channel {channel} is asked for (see dataset.json).")
    return Volume(volume.data[channel or 0][None], volume.affine, volume.notes)


def _on_one_grid(case: Case, channels: Mapping[str, Volume]) -> dict[str, Volume]:
    first = next(iter(channels))
    grid = channels[first].grid
    matched: dict[str, Volume] = {}
    differences = []
    for modality, volume in channels.items():
        turned = match_axes(volume, grid)
        if turned is not volume:
            note = f"stored as {volume.grid.axes}, {first} as {grid.axes}; it was reoriented, no voxel changed."
            turned = replace(turned, notes=(*turned.notes, note))
        if difference := grid.difference(turned.grid):
            differences.append(f"{first} and {modality} differ in {difference}")
        matched[modality] = turned
    if differences:
        skulls = [f"{modality}: {text}" for modality, volume in channels.items() if (text := looks_like_head([volume]))]
        about = "".join(f" {note}" for note in merge_notes(case, channels))  # they may be the reason
        raise UnpreparedError(
            f"{case.id}: all sequences must share one grid; {'; '.join([*differences, *skulls])}.{about} "
            "Register and resample them first, or let `gliomask predict --raw` or `gliomask preprocess` do it."
        )
    return matched
