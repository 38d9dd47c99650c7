"""Inspection: does an examination look like what a model knows, before it answers?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from gliomask.cases import Case
from gliomask.inspection import geometry, values
from gliomask.inspection.naming import misnamed, recognise
from gliomask.inspection.outliers import find_outliers, spikes
from gliomask.inspection.sampled import Samples, take_samples
from gliomask.volume import Spacing, Volume, reorient

__all__ = ["Samples", "find_outliers", "inspect", "inspect_channels", "recognise", "take_samples"]


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
    look = take_samples(volume, modalities, files)
    if not look.images:
        return ("every image is empty: nothing to find.",)
    about_voxels = geometry.voxels(look, reorient(volume, axes).spacing_mm, spacing_mm)
    about_spikes = spikes(volume, modalities, look)
    return tuple(text for text in (about_voxels, about_spikes, *_findings(look)) if text is not None)


def inspect_channels(case: Case, channels: Mapping[str, Volume]) -> tuple[str, ...]:
    """Return what `inspect` says of a case's sequences, a volume of one channel each on one grid, of any voxel size."""
    first = next(iter(channels.values()))
    volume = Volume(np.concatenate([one.data for one in channels.values()]), first.affine)
    files = {modality: source.path for modality, source in case.images.items()}
    oriented = reorient(volume, "LPS")
    return inspect(volume, tuple(channels), files, spacing_mm=oriented.spacing_mm)


def _findings(look: Samples) -> Iterable[str | None]:
    background = geometry.background(look)
    skull = None if background else geometry.skull(look)
    copies = values.copies(look)
    yield from (background, skull, copies, None if background else values.scaled(look))
    if background or skull:
        return
    yield geometry.size(look)
    if geometry.is_too_large(look):
        return
    torn = values.coverage(look)
    yield from (geometry.field_of_view(look), geometry.orientation(look), torn)
    if not (torn or copies):
        yield misnamed(look)
