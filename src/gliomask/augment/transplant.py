"""A tumour of one patient in the brain of another: few patients, many combinations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gliomask.augment.brain import find_brain
from gliomask.augment.draws import chance, integer

# Voxels over which the donor's intensities pass into the host's, so that no edge gives the transplant away.
_SEAM = 3


@dataclass(frozen=True)
class Transplant:
    """What is carried over: the donor's first region and so many voxels around it."""

    margin: int


def sample_transplant(generator: torch.Generator, probability: float) -> Transplant | None:
    """Draw whether, and how much of the tumour's surroundings goes with it."""
    return Transplant(integer(generator, (2, 12))) if chance(generator, probability) else None


def apply_transplant(
    host: tuple[Tensor, Tensor], donor: tuple[Tensor, Tensor], transplant: Transplant
) -> tuple[Tensor, Tensor]:
    """Return the host's image and target with the donor's tumour in the place where the donor has it.

    Within the margin around the tumour the donor's voxels replace the host's, truth and all, so that a tumour of the
    host there goes; across a seam of a few voxels the intensities pass from the one to the other. Only where both have
    brain: the host keeps its outline. The donor's sequences that are missing (0 throughout) stay the host's.

    Args:
        host, donor: Image `(C, X, Y, Z)`, normalized, and target `(R, X, Y, Z)`, the first region the outermost; of one
            grid, at about the same place of the brain. Left unchanged.
        transplant: As sampled.

    Source: Zhang et al. 2023, doi:10.1016/j.neuroimage.2023.120041 (CarveMix), where the margin may be negative and
        the edge is sharp; Yang et al. 2021, doi:10.1007/978-3-030-87193-2_55 (TumorCP).
    """
    (image, target), (others, tumour) = host, donor
    taken = _grown(tumour[0], transplant.margin)
    both = find_brain(image) & find_brain(others)
    weight = _smoothed(taken.float()) * both
    mixed = image.clone()
    for channel, other in zip(mixed, others, strict=True):
        if other.any() and channel.any():
            channel.lerp_(other, weight)
    return mixed, torch.where(taken & both, tumour, target)


def _grown(mask: Tensor, margin: int) -> Tensor:
    """The mask and all within so many voxels along each axis."""
    grown = mask[None, None].float()
    for axis in range(3):
        kernel, padding = [1, 1, 1], [0, 0, 0]
        kernel[axis], padding[axis] = 2 * margin + 1, margin
        grown = F.max_pool3d(grown, kernel, stride=1, padding=padding)
    return grown[0, 0] > 0


def _smoothed(weight: Tensor) -> Tensor:
    """The mean over a cube, an axis at a time; at the patch's faces, of what is inside it."""
    soft = weight[None, None]
    for axis in range(3):
        kernel, padding = [1, 1, 1], [0, 0, 0]
        kernel[axis], padding[axis] = 2 * _SEAM + 1, _SEAM
        soft = F.avg_pool3d(soft, kernel, stride=1, padding=padding, count_include_pad=False)
    return soft[0, 0]
