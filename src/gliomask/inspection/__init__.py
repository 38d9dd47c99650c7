"""Inspection: warnings about examinations that differ from what models are trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from gliomask.cases import Case, merge_notes
from gliomask.inspection import geometry, values
from gliomask.inspection.brain_box import main_box
from gliomask.inspection.naming import misnamed, recognise
from gliomask.inspection.outliers import find_outliers, spikes
from gliomask.inspection.sampled import Samples, take_samples
from gliomask.inspection.strays import strays
from gliomask.volume import Spacing, Volume, reorient

__all__ = [
    "Samples",
    "find_outliers",
    "inspect",
    "inspect_channels",
    "main_box",
    "misnamed",
    "recognise",
    "take_samples",
]


def inspect(
    volume: Volume,
    modalities: Sequence[str],
    files: Mapping[str, Path],
    *,
    spacing_mm: Spacing = (1.0, 1.0, 1.0),
    axes: str = "LPS",
) -> tuple[str, ...]:
    """Return warnings about an examination that is unlike the cases of BraTS, a sentence each.

    Each names what is unusual, the file, and what to do. Warnings stop nothing. Checks that another finding makes
    meaningless (the orientation of a head with its skull) are left out.

    Args:
        volume: One channel per sequence, in any orientation; an absent sequence is all zero (`read_case`). Its notes
            are returned first.
        modalities: The channels' names, `t1n t1c t2w t2f`.
        files: The file of each, for the sentences.
        spacing_mm, axes: The voxel size of the model and the axes along which it is given (`Plan`).
    """
    samples = take_samples(volume, modalities, files)
    if not samples.images:
        return (*volume.notes, "every image is empty: nothing to find.")
    about_voxels = geometry.voxels(samples, reorient(volume, axes).spacing_mm, spacing_mm)
    about_values = spikes(volume, modalities, samples), strays(volume, modalities, samples)
    findings = (about_voxels, *about_values, *_findings(samples))
    return (*volume.notes, *(text for text in findings if text is not None))


def inspect_channels(case: Case, channels: Mapping[str, Volume]) -> tuple[str, ...]:
    """Return the warnings of `inspect` for a case's sequences, given as volumes of one channel on one grid.

    The voxel size may be any: a model's is not known here.
    """
    first = next(iter(channels.values()))
    data = np.concatenate([channel.data for channel in channels.values()])
    volume = Volume(data, first.affine, merge_notes(case, channels))
    files = {modality: source.path for modality, source in case.images.items()}
    oriented = reorient(volume, "LPS")
    return inspect(volume, tuple(channels), files, spacing_mm=oriented.spacing_mm)


def _findings(samples: Samples) -> Iterable[str | None]:
    background = geometry.background(samples)
    skull = None if background else geometry.skull(samples)
    copies, masks = values.copies(samples), values.masks(samples)
    yield from (background, skull, copies, masks, None if background else values.scaled(samples))
    if background or skull:
        return
    yield geometry.size(samples)
    if geometry.is_too_large(samples):
        return
    incomplete = values.coverage(samples)
    yield from (geometry.field_of_view(samples), geometry.orientation(samples), incomplete)
    if not (incomplete or copies or masks):
        yield misnamed(samples)
