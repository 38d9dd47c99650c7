"""Patches: their place and content, which depend on the seed and the number only."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gliomask.cases import find_cases
from gliomask.inference.preprocessing import common_spacing, normalize
from gliomask.labels import get_convention, to_regions
from gliomask.model.plan import Plan
from gliomask.training.augment import Augmentation
from gliomask.training.augment.histogram import HistogramMix, apply_histogram_mix
from gliomask.training.cache import CachedCase, build_cache
from gliomask.training.distributed import ProcessGroup
from gliomask.training.patches import Patches, PatchSettings, choose_place, cut_patch


def draw_patch(case: CachedCase, plan: Plan, size: tuple[int, int, int], generator: np.random.Generator):
    data, regions = cut_patch(case, plan, choose_place(case, plan, size, generator), size)
    return data.numpy(), regions.numpy()


@pytest.fixture
def cached(folder_of: Callable[..., Path], tmp_path: Path) -> tuple[list[CachedCase], Plan]:
    cases = find_cases(folder_of(3))
    plan = Plan(modalities=("t2f", "t1c", "t2w"), spacing_mm=common_spacing(cases, "LPS"), patch_size=(16, 16, 16))
    prepared, problems = build_cache(cases, tmp_path / "cache", plan)
    assert not problems
    return prepared, plan


def test_a_patch_is_a_piece_of_the_normalized_volume(cached) -> None:
    """Image and regions are cut from the same place of the whole volume."""
    (case, *_), plan = cached
    whole = normalize(case.image(), list(case.moments), plan.normalization)
    truth = to_regions(case.labels(), get_convention(case.convention), plan.regions)
    data, regions = draw_patch(case, plan, (8, 8, 8), np.random.default_rng(5))
    places = np.argwhere((whole[0] == data[0, 0, 0, 0]) & (whole[1] == data[1, 0, 0, 0]))
    matches = [(x, y, z) for x, y, z in places if np.array_equal(whole[:, x : x + 8, y : y + 8, z : z + 8], data)]
    assert len(matches) == 1
    x, y, z = matches[0]
    assert np.array_equal(truth[:, x : x + 8, y : y + 8, z : z + 8], regions)


def test_most_patches_hold_tumour_and_every_region_is_met(cached) -> None:
    """Two of three are centred on tumour, small regions included."""
    (case, *_), plan = cached
    generator = np.random.default_rng(0)
    drawn = [draw_patch(case, plan, (6, 6, 6), generator)[1] for _ in range(200)]
    assert np.mean([regions[0].any() for regions in drawn]) > 0.66
    assert np.mean([regions[2].any() for regions in drawn]) > 0.3


def test_a_patch_larger_than_the_brain_is_padded_around_it(cached) -> None:
    """The brain is complete, and the rest is zero."""
    (case, *_), plan = cached
    data, regions = draw_patch(case, plan, (48, 48, 48), np.random.default_rng(1))
    assert data.shape == (3, 48, 48, 48)
    whole = normalize(case.image(), list(case.moments), plan.normalization)
    np.testing.assert_array_equal(np.sort(data[data != 0]), np.sort(whole[whole != 0]))
    assert regions[0].sum() == case.voxels["WT"] - case.outside["WT"]


def test_the_number_alone_decides_a_batch(cached) -> None:
    """Earlier batches and the thread make no difference."""
    prepared, plan = cached
    settings = PatchSettings((16, 16, 16), Augmentation(), 0.3, seed=4)
    for workers in (1, 3):
        with closing(Patches(prepared, plan, settings, 2).ahead(3, workers)) as batches:
            ahead = list(islice(batches, 4))
        for step, batch in zip(range(3, 7), ahead, strict=True):
            again = Patches(prepared, plan, settings, 2)[step]
            assert torch.equal(batch.images, again.images)
            assert torch.equal(batch.targets, again.targets)
            assert batch.cases == again.cases
        assert not torch.equal(ahead[0].images, ahead[1].images)


def test_processes_share_the_patches_of_one(cached) -> None:
    """With a batch of four, two processes draw two patches each, together those of one process."""
    prepared, plan = cached
    settings = PatchSettings((16, 16, 16), Augmentation(), 0.3, seed=4)
    whole = Patches(prepared, plan, settings, 4)[5]
    for rank in range(2):
        part = Patches(prepared, plan, settings, 4, ProcessGroup(rank, 2))[5]
        assert torch.equal(part.images, whole.images[rank::2])
        assert part.cases == whole.cases[rank::2]


def test_an_epoch_goes_once_through_all_cases(cached, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order differs from epoch to epoch."""
    prepared, plan = cached
    met: list[str] = []

    def note(case: CachedCase, *arguments: object) -> tuple[Tensor, Tensor]:
        met.append(case.id)
        return torch.zeros(3, 4, 4, 4), torch.zeros(3, 4, 4, 4, dtype=torch.bool)

    monkeypatch.setattr("gliomask.training.patches.cut_patch", note)
    patches = Patches(prepared, plan, PatchSettings((4, 4, 4), None, 0.0, seed=0), 1)
    for step in range(12):
        patches[step]
    epochs = [tuple(met[start : start + 3]) for start in range(0, 12, 3)]
    assert all(sorted(epoch) == sorted(case.id for case in prepared) for epoch in epochs)
    assert len(set(epochs)) > 1


def test_a_whole_brain_is_all_of_it(cached) -> None:
    """Its box is rounded up to a size that the network accepts, and nothing is cut off."""
    prepared, plan = cached
    settings = PatchSettings(None, None, 0.0, seed=0, multiple=16)
    patches = Patches(prepared, plan, settings, 1)
    for step in range(3):
        batch = patches[step]
        case = next(case for case in prepared if case.id == batch.cases[0])
        assert batch.images.shape[2:] == tuple(-(-edge // 16) * 16 for edge in case.shape)
        assert batch.targets[0, 0].sum() == case.voxels["WT"] - case.outside["WT"]


def test_a_transplant_brings_tumour_and_leaves_the_outline(cached) -> None:
    """The host's brain mask does not change; each target voxel is that of the host or of the donor."""
    prepared, plan = cached
    plain, mixed = (
        Patches(prepared, plan, PatchSettings(None, None, 0.0, seed=0, transplant=share), 1) for share in (0.0, 1.0)
    )
    changed = 0
    for step in range(6):
        before, after = plain[step], mixed[step]
        assert before.cases == after.cases
        assert torch.equal((before.images != 0).any(1), (after.images != 0).any(1))
        assert not (after.targets[:, 1:] & ~after.targets[:, :1]).any()
        changed += not torch.equal(before.targets, after.targets)
    assert changed


def test_mixed_histograms_leave_the_places_alone(cached) -> None:
    """Brain, targets and the order of intensities in a channel are kept; the intensities change."""
    prepared, plan = cached
    plain, mixed = (
        Patches(prepared, plan, PatchSettings(None, None, 0.0, seed=0, histograms=share), 1) for share in (0.0, 1.0)
    )
    changed = 0
    for step in range(6):
        before, after = plain[step], mixed[step]
        assert torch.equal(before.targets, after.targets)
        assert torch.equal(before.images != 0, after.images != 0)
        changed += not torch.equal(before.images, after.images)
        for one, other in zip(before.images[0], after.images[0], strict=True):
            order = one[one != 0].argsort()
            assert (other[other != 0][order].diff() >= -1e-4).all()
    assert changed


def test_a_lesion_that_stands_out_less_keeps_the_brain(cached) -> None:
    """The brain's outline is kept, and so is the target except for removed enhancement."""
    prepared, plan = cached
    plain, mixed = (
        Patches(prepared, plan, PatchSettings(None, None, 0.0, seed=0, lesion_contrast=share), 1)
        for share in (0.0, 1.0)
    )
    changed = gone = 0
    for step in range(24):
        before, after = plain[step], mixed[step]
        assert torch.equal(before.targets[:, :2], after.targets[:, :2])
        assert torch.equal((before.images != 0).any(1), (after.images != 0).any(1))
        changed += not torch.equal(before.images, after.images)
        if not torch.equal(before.targets, after.targets):
            gone += 1
            assert not after.targets[:, 2].any()
            enhanced = plan.modalities.index("t1c")
            assert [c for c in range(3) if not torch.equal(before.images[:, c], after.images[:, c])] == [enhanced]
    assert changed
    assert gone


def test_a_histogram_moves_its_share_of_the_way() -> None:
    """With a share of 1 the quantiles are the donor's, with 0 nothing changes; missing sequences are kept."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(3, 20, 20, 20, generator=generator)
    donor = 2 * torch.randn(3, 24, 16, 20, generator=generator) + 1
    image[0, :5], image[1], donor[2] = 0, 0, 0
    kept = image.clone()
    mixed = apply_histogram_mix(image, donor, HistogramMix((1.0, 1.0, 1.0)))
    assert torch.equal(image, kept)
    assert torch.equal(mixed[1:], image[1:])
    brain = image[0] != 0
    assert not mixed[0, ~brain].any()
    found, wanted = mixed[0, brain], donor[0].flatten()
    for share in (0.1, 0.5, 0.9):
        assert abs(found.quantile(share) - wanted.quantile(share)) < 0.1
    half = apply_histogram_mix(image, donor, HistogramMix((0.5, 0.0, 0.0)))
    torch.testing.assert_close(half[0], (mixed[0] + image[0]) / 2, atol=1e-3, rtol=0)
    torch.testing.assert_close(apply_histogram_mix(image, donor, HistogramMix((0.0, 0.0, 0.0))), image)
