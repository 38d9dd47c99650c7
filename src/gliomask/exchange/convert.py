"""Cases written in another layout: names, channels and label numbers change, and no voxel or place does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomask.cases import Case, Problem, read_channels, read_mask
from gliomask.errors import InputError, describe
from gliomask.exchange.targets import Names, Target, files_of
from gliomask.execution import HERE, Where, map_cases
from gliomask.files import replacing, write_bytes
from gliomask.labels import TISSUES, count_labels, get_convention
from gliomask.volume import Volume, gzip_nifti, read_grid, read_volume, write_volume


@dataclass(frozen=True)
class Settings:
    """How cases are written."""

    target: Target
    modalities: tuple[str, ...]
    """The sequences of the data set, in the order of its channels."""
    convention: str
    """The label convention of the masks that are written."""
    link: bool = False
    """Link to a file instead of copying it, where it stays as it is."""


@dataclass(frozen=True)
class Converted:
    """What became of one case."""

    case: Case
    names: Names
    linked: int = 0
    copied: int = 0
    rewritten: int = 0
    missing: tuple[str, ...] = ()
    """Sequences of the data set that the case does not have."""


def convert_cases(
    planned: Sequence[tuple[Case, Names]],
    root: Path,
    settings: Settings,
    *,
    threads: int | None = None,
    on_case: Callable[[Converted | Problem], None] = lambda _: None,
    where: Where = HERE,
) -> tuple[list[Converted], list[Problem]]:
    """Write cases to a folder, several at a time, and return what was written and which cases failed and why.

    Args:
        planned: The cases, and what their files are called.
        root: The folder of the new data set.
        settings: How they are written.
        threads: How many cases at a time; by default one for each core.
        on_case: Called after each case, in this thread.
        where: Where the cases are converted.
    """
    done: list[Converted] = []
    problems: list[Problem] = []
    convert = partial(_convert_or_problem, root=root, settings=settings)
    for (case, _), found in map_cases(convert, planned, replace(where, at_once=threads)):
        outcome = Problem(case.id, str(found)) if isinstance(found, InputError) else found
        if isinstance(outcome, Problem):
            problems.append(outcome)
        else:
            done.append(outcome)
        on_case(outcome)
    places = {case.id: number for number, (case, _) in enumerate(planned)}
    done.sort(key=lambda each: places[each.case.id])
    problems.sort(key=lambda each: places[each.where])
    return done, problems


def _convert_or_problem(planned: tuple[Case, Names], *, root: Path, settings: Settings) -> Converted | Problem:
    case, names = planned
    try:
        return convert_case(case, names, root, settings)
    except Exception as error:  # whatever is wrong with one case, the others get done
        for path in files_of(names, root):
            path.unlink(missing_ok=True)
        return Problem(case.id, describe(error).removeprefix(f"{case.id}: "))


def convert_case(case: Case, names: Names, root: Path, settings: Settings) -> Converted:
    """Write one case. All of its files are read whole first, so damaged ones are found.

    Files that stay as they are (one sequence in a file of its own, its axes in the same order as those of the others)
    are copied byte by byte or linked. All others are written anew with the same voxels and the same place.

    Raises:
        InputError: A sequence is missing that the layout needs, a file is bad, the grids differ, or a mask holds a
            tissue that has no number in the new convention.
    """
    missing = tuple(modality for modality in settings.modalities if modality not in case.images)
    if missing and settings.target.all_sequences:
        raise InputError(
            f"{case.id}: has no {', '.join(missing)}; in layout {settings.target.layout.name} every case has the same "
            "sequences. Leave these out for all cases with --modalities, or choose another layout."
        )
    channels = read_channels(case, settings.modalities)
    mask = read_mask(case, next(iter(channels.values())).grid) if case.mask is not None else None
    labels = convert_tissues(case, mask.data[0], settings.convention) if mask is not None else None
    like = case.images[next(iter(channels))].path
    ways = _write_images(case, channels, names, root, settings)
    if names.mask is not None and mask is not None and labels is not None and case.mask is not None:
        kept = case.mask if np.array_equal(labels, mask.data[0]) and _is_plain(case.mask, mask) else None
        volume = Volume(labels[None], mask.affine)
        ways.append(_write(root / names.mask, volume, kept, like, link=settings.link))
    linked, copied, rewritten = (ways.count(way) for way in ("linked", "copied", "rewritten"))
    return Converted(case, names, linked, copied, rewritten, missing)


def convert_tissues(case: Case, labels: NDArray[np.uint8], convention: str) -> NDArray[np.uint8]:
    """Return a mask's tissues in the numbers of another convention.

    Raises:
        InputError: A tissue that is present has no number there.
    """
    source, target = get_convention(case.convention or ""), get_convention(convention)
    counts = count_labels(labels)
    table = np.zeros(256, np.uint8)
    for value, tissue in source.tissues.items():
        number = target.value_of(tissue)
        if number is None and counts[value]:
            raise InputError(
                f"{case.id}: its mask has {counts[value]} voxels of {tissue} ({TISSUES[tissue]}), which has no number "
                f"in {target}. Choose another layout or --write-labels, so that nothing is lost."
            )
        table[value] = number or 0
    converted: NDArray[np.uint8] = table[labels]
    return converted


def _write_images(
    case: Case, channels: Mapping[str, Volume], names: Names, root: Path, settings: Settings
) -> list[str]:
    """Write the images of a case and return how each was written."""
    first = next(iter(channels))
    like = case.images[first].path
    if settings.target.layout.one_file:
        stacked = np.concatenate([channels[modality].data for modality in settings.modalities])
        return [_write(root / names.images[first], Volume(stacked, channels[first].affine), None, like, link=False)]
    ways = []
    for modality, volume in channels.items():
        source = case.images[modality].path
        own, count = read_grid(source)
        kept = source if count == 1 and own.axes == channels[first].grid.axes else None
        ways.append(_write(root / names.images[modality], volume, kept, like, link=settings.link))
    return ways


def _is_plain(path: Path, mask: Volume) -> bool:
    """Tell whether a mask is stored as integers, with its axes in the order in which it was read."""
    if not mask.data.any():
        return False  # an empty one is written again, because `read_volume` refuses it as an image
    return read_grid(path)[0].axes == mask.grid.axes and read_volume(path).data.dtype.kind in "iu"


def _write(path: Path, volume: Volume, kept: Path | None, like: Path, *, link: bool) -> str:
    """Link or copy the file that the volume was read from, where that is kept as it is, or write the volume.

    Args:
        path: Ends in .nii.gz.
        volume: What to write.
        kept: The file that holds the same; None if the volume is to be written.
        like: A file with the same grid, whose header says where the voxels lie.
        link: Whether to link if possible.

    Returns:
        What was done: `linked`, `copied` or `rewritten`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if kept is None:
        write_volume(path, volume, like=like)
        return "rewritten"
    if not kept.name.lower().endswith(".gz"):
        write_bytes(path, gzip_nifti(kept.read_bytes()))
        return "copied"
    if link and make_link(kept, path):
        return "linked"
    with replacing(path) as partial:
        shutil.copyfile(kept, partial)
    return "copied"


def make_link(source: Path, path: Path) -> bool:
    """Make a hard link to a file, or a symbolic one where it lies on another disk; False where neither is possible.

    An older file at the path is replaced.
    """
    target = source.resolve()
    path.unlink(missing_ok=True)
    for make in (os.link, os.symlink):
        try:
            make(target, path)
        except OSError:
            continue
        return True
    return False
