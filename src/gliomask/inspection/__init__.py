"""Inspection: does an examination look like what a model knows, before it answers?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from gliomask.cases import Case
from gliomask.inspection import frame, values
from gliomask.inspection.look import Look, take_look
from gliomask.inspection.naming import misnamed, recognise
from gliomask.volume import Spacing, Volume, reorient

__all__ = ["Look", "inspect", "inspect_channels", "recognise", "take_look"]


def inspect(
    volume: Volume,
    modalities: Sequence[str],
    files: Mapping[str, Path],
    *,
    spacing_mm: Spacing = (1.0, 1.0, 1.0),
    axes: str = "LPS",
) -> tuple[str, ...]:
    """Return a sentence for each thing about an examination that a model trained on BraTS does not expect.

    Each says what, in which file, and what to do; none keeps the model from answering. What follows from another (the
    orientation of a head with its skull, say) is not said.

    Args:
        volume: One channel a modality, in any orientation; an absent one is all zero (`read_case`).
        modalities: The channels' names, `t1n t1c t2w t2f`.
        files: The file of each, for the sentences.
        spacing_mm, axes: The voxel size that the model knows and the axes along which it is meant (`Plan`).
    """
    look = take_look(volume, modalities, files)
    if not look.images:
        return ("every image is empty: nothing to find.",)
    about_voxels = frame.voxels(look, reorient(volume, axes).spacing_mm, spacing_mm)
    return tuple(text for text in (about_voxels, *_findings(look)) if text is not None)


def inspect_channels(case: Case, channels: Mapping[str, Volume]) -> tuple[str, ...]:
    """Return what `inspect` says of a case's sequences, a volume of one channel each on one grid, of any voxel size."""
    first = next(iter(channels.values()))
    volume = Volume(np.concatenate([one.data for one in channels.values()]), first.affine)
    files = {modality: source.path for modality, source in case.images.items()}
    oriented = reorient(volume, "LPS")
    return inspect(volume, tuple(channels), files, spacing_mm=oriented.spacing_mm)


def _findings(look: Look) -> Iterable[str | None]:
    background = frame.background(look)
    skull = None if background else frame.skull(look)
    copies = values.copies(look)
    yield from (background, skull, copies, None if background else values.scaled(look))
    if background or skull:
        return
    yield frame.size(look)
    if frame.is_too_large(look):
        return
    torn = values.coverage(look)
    yield from (frame.field_of_view(look), frame.orientation(look), torn)
    if not (torn or copies):
        yield misnamed(look)
