"""Transplantation of a tumour into the brain of another patient, to get many combinations from few patients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gliomask.training.augment.brain import find_brain, find_present
from gliomask.training.augment.draws import chance, integer
from gliomask.training.augment.masks import box_around, grown, smoothed

# The width in voxels of the seam over which the donor's intensities pass into the host's, so that there is no edge.
_SEAM = 3


@dataclass(frozen=True)
class Transplant:
    """The number of voxels around the donor's first region that are transplanted with it."""

    margin: int


def sample_transplant(generator: torch.Generator, probability: float) -> Transplant | None:
    """Draw how much of the tumour's surroundings is transplanted, or None."""
    return Transplant(integer(generator, (2, 12))) if chance(generator, probability) else None


def apply_transplant(
    host: tuple[Tensor, Tensor], donor: tuple[Tensor, Tensor], transplant: Transplant
) -> tuple[Tensor, Tensor]:
    """Return the host's image and target with the donor's tumour at the same place.

    In the tumour and the margin around it, the donor's intensities and labels replace those of the host, including any
    tumour of the host there; over a seam of a few voxels the intensities change gradually. Only voxels where both have
    brain are replaced, so the host keeps its outline. Sequences that the donor lacks (0 everywhere) are not changed.

    Args:
        host, donor: Image `(C, X, Y, Z)`, normalized, and target `(R, X, Y, Z)` with the outermost region first; on one
            grid, at about the same place of the brain.
        transplant: As returned by `sample_transplant`.

    Source: Zhang et al. 2023, doi:10.1016/j.neuroimage.2023.120041 (CarveMix), where the margin may be negative and
        the edge is sharp; Yang et al. 2021, doi:10.1007/978-3-030-87193-2_55 (TumorCP).
    """
    (image, target), (others, tumour) = host, donor
    mixed, truth = image.clone(), target.clone()
    box = box_around(tumour[0], transplant.margin + 2 * _SEAM)
    if box is None:
        return mixed, truth
    part, their_part, their_tumour = mixed[box], others[box], tumour[box]
    taken = grown(their_tumour[0], transplant.margin)
    both = find_brain(part) & find_brain(their_part)
    weight = smoothed(taken.float(), _SEAM) * both
    for channel in set(find_present(image)) & set(find_present(others)):
        part[channel].lerp_(their_part[channel], weight)
    truth[box] = torch.where(taken & both, their_tumour, truth[box])
    return mixed, truth
