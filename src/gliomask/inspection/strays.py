"""Voxels far from the brain that are not zero, as noise or an incomplete brain extraction leaves them in the air."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gliomask.inspection.brain_box import main_box
from gliomask.inspection.sampled import Samples
from gliomask.volume import Volume


def strays(volume: Volume, modalities: Sequence[str], samples: Samples) -> str | None:
    """Name the images in which voxels far from the brain are not zero, and their number."""
    nonzero = np.asarray(volume.data.any(axis=0))
    box = main_box(nonzero)
    if box is None or np.count_nonzero(nonzero) == np.count_nonzero(nonzero[box]):
        return None
    counts = [int(np.count_nonzero(channel)) - int(np.count_nonzero(channel[box])) for channel in volume.data]
    found = [
        f"{samples.named([modality])}: {count} voxel{'' if count == 1 else 's'}"
        for modality, count in zip(modalities, counts, strict=True)
        if count
    ]
    if not found:
        return None
    return (
        f"{'; '.join(found)} far from the brain that are not 0, as noise in the air. They are left out. Check how the "
        "brain was extracted."
    )
