"""The contrast of a tumour region to its surroundings is lowered or raised."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from gliomask.training.augment.lesion import LesionContrast, apply_lesion_contrast, sample_lesion_contrast
from round_brain import radius, seeded

SHAPE = (40, 44, 36)


@pytest.fixture
def patch() -> tuple[Tensor, Tensor]:
    """Two sequences of a round brain and one that is missing; a bright tumour whose rim has a dark gap in it."""
    distance = radius(SHAPE)
    image = 0.1 * torch.randn(3, *SHAPE, generator=seeded(0))
    target = torch.stack([distance < edge for edge in (12, 9, 6)])
    image[:2] += 1.0
    image[:, target[2]] += 2.0
    image[1, 20:22, 20:22, 18] = -3.0
    image[:, distance > 16] = 0.0
    image[2] = 0.0
    return image, target


def difference(image: Tensor, target: Tensor) -> float:
    """Return how much brighter the innermost region is than its surroundings."""
    return float(image[0, target[2]].mean() - image[0, target[1] & ~target[2]].median())


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.4])
def test_the_difference_from_the_surroundings_is_multiplied(patch, factor: float) -> None:
    """By the factor; the target and the texture are kept."""
    image, target = patch
    kept = image.clone()
    changed, truth = apply_lesion_contrast(image, target, LesionContrast(2, (factor, 1.0, 1.0)))
    assert torch.equal(image, kept)
    assert torch.equal(truth, target)
    assert difference(changed, target) == pytest.approx(factor * difference(image, target), abs=0.15)
    assert changed[0, target[2]].std() > 0.05


def test_what_is_elsewhere_stays(patch) -> None:
    """Bitwise, far from the region, outside the brain, in missing sequences, and where the factor is 1."""
    image, target = patch
    changed, _ = apply_lesion_contrast(image, target, LesionContrast(2, (0.2, 1.0, 0.2)))
    assert torch.equal(changed[1:], image[1:])
    far = radius(SHAPE) > 12
    assert torch.equal(changed[0, far], image[0, far])
    assert torch.equal(changed != 0, image != 0)
    assert not torch.equal(changed[0], image[0])


def test_a_dark_gap_in_a_bright_region_stays_dark(patch) -> None:
    """It is not enhancement, so its intensity is kept."""
    image, target = patch
    changed, _ = apply_lesion_contrast(image, target, LesionContrast(2, (1.0, 0.2, 1.0)))
    gap = image[1] < -2
    assert gap.sum() == 4
    torch.testing.assert_close(changed[1, gap], image[1, gap])


def test_a_region_that_is_gone_leaves_the_truth(patch) -> None:
    """Only that region; its voxels become core without enhancement."""
    image, target = patch
    changed, truth = apply_lesion_contrast(image, target, LesionContrast(2, (0.0, 1.0, 1.0), gone=True))
    assert not truth[2].any()
    assert torch.equal(truth[:2], target[:2])
    assert abs(difference(changed, target)) < 0.15


@pytest.mark.parametrize("region", [0, 1, 2])
def test_a_region_without_voxels_or_surroundings_changes_nothing(region: int) -> None:
    image = torch.randn(2, 8, 8, 8, generator=seeded(1))
    change = LesionContrast(region, (0.0, 0.0))
    for value in (False, True):
        target = torch.full((3, 8, 8, 8), value)
        changed, truth = apply_lesion_contrast(image, target, change)
        assert torch.equal(changed, image)
        assert torch.equal(truth, target)


def test_what_is_drawn() -> None:
    """Each present region is equally likely; only enhancement is sometimes removed, in its sequence only."""
    generator = seeded(2)
    drawn = [sample_lesion_contrast(generator, 0.5, [0, 2], 4, enhancing=(2, 1)) for _ in range(2000)]
    changes = [change for change in drawn if change is not None]
    assert 900 < len(changes) < 1100
    regions = Counter(change.region for change in changes)
    assert set(regions) == {0, 2}
    assert abs(regions[0] - regions[2]) < 150
    gone = [change for change in changes if change.gone]
    assert {(change.region, change.factors) for change in gone} == {(2, (1.0, 0.0, 1.0, 1.0))}
    assert 0.2 < len(gone) / regions[2] < 0.3
    assert all(0.15 <= factor <= 1.4 for change in changes if not change.gone for factor in change.factors)
    assert not any(sample_lesion_contrast(generator, 1.0, [2], 4).gone for _ in range(100))  # type: ignore[union-attr]
    assert sample_lesion_contrast(generator, 1.0, [], 4) is None
