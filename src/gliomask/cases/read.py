"""A case's files -> voxels on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gliomask.cases.case import Case, get_modality
from gliomask.errors import InputError
from gliomask.labels import check_labels, get_convention, label_values
from gliomask.volume import Volume, read_volume


def read_case(case: Case, modalities: Sequence[str]) -> Volume:
    """Return a case's sequences as the channels of one volume, in the order asked for.

    A sequence that the case does not have is a channel of zeros.

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
    data = np.zeros((len(modalities), *first.grid.shape), dtype=kind)
    for number, modality in enumerate(modalities):
        if modality in channels:
            data[number] = channels[modality].data[0]
    return Volume(data, first.affine)


def read_channels(case: Case, modalities: Sequence[str]) -> dict[str, Volume]:
    """Return those of a case's sequences that it has, a volume of one channel each, all on one grid.

    The files are read side by side in two threads.

    Raises:
        InputError: The case has none of the sequences, a file is bad (see `read_volume`) or has another number of
            channels than the case says, or the grids differ. All that is wrong is said at once.
    """
    wanted = {modality: case.images[modality] for modality in modalities if modality in case.images}
    if not wanted:
        there = ", ".join(case.images) or "no sequence"
        raise InputError(f"{case.id}: has none of {', '.join(modalities)}; it has {there}.")
    files = list(dict.fromkeys(source.path for source in wanted.values()))
    with ThreadPoolExecutor(2) as pool:
        volumes = dict(zip(files, pool.map(_read_or_error, files), strict=True))
    problems = [volume for volume in volumes.values() if isinstance(volume, InputError)]
    if problems:
        raise InputError("; ".join(f"{case.id}: {problem}" for problem in problems))
    channels = {
        modality: _channel(volumes[source.path], source.path, source.channel) for modality, source in wanted.items()
    }
    _check_grids(case, channels)
    return channels


def read_mask(case: Case) -> Volume:
    """Return a case's mask, one uint8 channel in the numbers of the case's convention (see `resolve_conventions`).

    Raises:
        InputError: The case has no mask, the file is bad, or holds numbers outside the convention.
    """
    if case.mask is None:
        raise InputError(f"{case.id}: has no mask (a file such as {case.id}_seg.nii.gz).")
    volume = read_volume(case.mask, mask=True)
    if case.convention is None:
        raise InputError(f"{case.id}: the label convention of {case.mask} is not known. Say it with --labels.")
    check_labels(label_values(volume.data), get_convention(case.convention), str(case.mask))
    return volume


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
            f"{path}: a 4-D file of {count} volumes where one sequence is expected. Split it, or give dataset.json."
        )
    if channel is not None and channel >= count:
        raise InputError(f"{path}: has {count} channels; channel {channel} is asked for (see dataset.json).")
    return Volume(volume.data[channel or 0][None], volume.affine)


def _check_grids(case: Case, channels: dict[str, Volume]) -> None:
    first, *others = channels
    differences = [
        f"{first} and {other} differ in {difference}"
        for other in others
        if (difference := channels[first].grid.difference(channels[other].grid))
    ]
    if differences:
        raise InputError(
            f"{case.id}: all sequences must share one grid; {'; '.join(differences)}. "
            "Register and resample them first (see docs/data.md)."
        )
