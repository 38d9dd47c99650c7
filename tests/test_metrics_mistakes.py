"""Mistakes: each kind, made on purpose, is recognised, and no other is reported."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from gliomask.errors import InputError
from gliomask.metrics import PROTOCOLS, Mask, Mistake, find_mistakes, score_case

SHAPE = (48, 40, 44)
SPACING = (1.0, 1.5, 2.0)
Regions = dict[str, Mask]
YEARS = ("brats2021", "brats2023-gli", "brats2026-goat")


def ball(centre: tuple[int, int, int], radius: float) -> Mask:
    axes = np.ogrid[tuple(map(slice, SHAPE))]
    return sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) <= radius**2


def tumour(centre: tuple[int, int, int] = (18, 18, 20), size: float = 1.0) -> Regions:
    """Return nested balls; the enhancing one is a rim around the necrotic one."""
    core = ball(centre, 8 * size)
    return {"WT": ball(centre, 12 * size), "TC": core, "ET": core & ~ball(centre, 5 * size)}


def changed(change, masks: Regions) -> Regions:
    """Return the same change made to each region."""
    return {region: change(mask) for region, mask in masks.items()}


def mistakes(prediction: Regions, truth: Regions | None = None, protocol: str = "brats2021") -> list[Mistake]:
    return find_mistakes(tumour() if truth is None else truth, prediction, SPACING, PROTOCOLS[protocol])


def kinds(found: list[Mistake]) -> set[tuple[str, str]]:
    return {(mistake.region, mistake.kind) for mistake in found}


def in_all(kind: str) -> set[tuple[str, str]]:
    return {(region, kind) for region in ("WT", "TC", "ET")}


@pytest.mark.parametrize("protocol", YEARS)
def test_nothing_is_wrong_with_the_truth(protocol: str) -> None:
    """Two empty masks have no mistake either."""
    empty = changed(np.zeros_like, tumour())
    assert mistakes(tumour(), protocol=protocol) == mistakes(empty, empty, protocol) == []


@pytest.mark.parametrize("protocol", YEARS)
@pytest.mark.parametrize(("steps", "length_mm"), [((4, 0, 0), "4.0"), ((0, -3, 0), "4.5"), ((1, 2, -2), "5.1")])
def test_a_shift(protocol: str, steps: tuple[int, int, int], length_mm: str) -> None:
    """A shift is reported with its length in mm, in any direction, and as the only mistake; hypot(1, 3, 4) = 5.1."""
    found = mistakes(changed(lambda mask: np.roll(mask, steps, (0, 1, 2)), tumour()), protocol=protocol)
    assert kinds(found) == in_all("shifted")
    assert {mistake.text for mistake in found} == {f"{r} shifted by {length_mm} mm" for r in ("WT", "TC", "ET")}


def test_a_shift_past_all_overlap_is_a_shift() -> None:
    """A shift is also recognised without a common voxel, and from the larger of two lesions."""
    small = ball((40, 32, 36), 2)
    truth = changed(lambda mask: mask | small, tumour((10, 18, 20), 0.6))
    found = mistakes(changed(lambda mask: mask | small, tumour((28, 18, 20), 0.6)), truth)
    assert kinds(found) == in_all("shifted")
    assert found[0].text.endswith("18.0 mm")


@pytest.mark.parametrize("protocol", YEARS)
def test_swapped_core(protocol: str) -> None:
    """ET predicted as NCR and NCR as ET is one mistake; WT and TC, which are correct, have none."""
    truth = tumour()
    (found,) = mistakes({**truth, "ET": truth["TC"] & ~truth["ET"]}, protocol=protocol)
    assert (found.kind, found.region, found.cost) == ("ET/NCR swapped", "ET", 1)
    assert "of ET predicted as NCR" in found.text


def test_a_core_called_all_necrotic_is_not_swapped() -> None:
    """ET that is missed and not replaced by NCR is a missed lesion."""
    assert kinds(mistakes({**tumour(), "ET": np.zeros(SHAPE, bool)})) == {("ET", "missed lesion")}


@pytest.mark.parametrize("protocol", YEARS)
def test_a_missed_and_a_false_lesion(protocol: str) -> None:
    """A lesion of the truth only is missed, one of the prediction only is false; with volume and position."""
    island, voxel = ball((40, 32, 36), 4), ball((40, 4, 4), 0)
    with_island = changed(lambda mask: mask | island, tumour())
    missed = mistakes(tumour(), with_island, protocol)
    assert kinds(missed) == in_all("missed lesion")
    assert f"WT: missed lesion of {island.sum() * 3 / 1000:.2g} mL" in {mistake.text for mistake in missed}
    assert all(island[mistake.place] for mistake in missed)
    false = mistakes(changed(lambda mask: mask | voxel, tumour()), protocol=protocol)
    assert kinds(false) == in_all("false lesion")
    assert {mistake.place for mistake in false} == {(40, 4, 4)}


def test_several_lesions_are_counted_and_the_largest_shown() -> None:
    """Two missed lesions are one mistake, placed at the larger one."""
    small, large = ball((40, 32, 36), 2), ball((40, 6, 6), 4)
    truth = changed(lambda mask: mask | small | large, tumour())
    found = mistakes(tumour(), truth)
    assert "WT: 2 missed lesions, the largest of 0.77 mL" in {mistake.text for mistake in found}
    assert all(large[mistake.place] for mistake in found)


@pytest.mark.parametrize("protocol", YEARS)
def test_too_large_and_too_small(protocol: str) -> None:
    """A mask that is dilated or eroded by two voxels is over- or under-segmented."""
    grown = changed(lambda mask: ndimage.binary_dilation(mask, iterations=2), tumour())
    assert ("WT", "over-segmented") in kinds(mistakes(grown, protocol=protocol))
    assert ("WT", "under-segmented") in kinds(mistakes(tumour(), grown, protocol))
    assert kinds(mistakes({**tumour(), "WT": grown["WT"]}, protocol=protocol)) == {("WT", "over-segmented")}


def test_a_ragged_border_is_neither() -> None:
    """Equal numbers of false and missed voxels are an inexact border."""
    noise = ndimage.gaussian_filter(np.random.default_rng(3).standard_normal(SHAPE), 2)
    edge = ball((18, 18, 20), 14) & ~ball((18, 18, 20), 10)
    truth = tumour()
    ragged = {**truth, "WT": np.where(edge, noise > 0, truth["WT"]) | ball((18, 18, 20), 10)}
    main = mistakes(ragged)[0]
    assert main.kind == "inexact border"
    assert main.region == "WT"


def test_everything_missed_and_everything_invented() -> None:
    """If one mask is empty, missed or false lesions cost the whole Dice."""
    empty = changed(np.zeros_like, tumour())
    for found, kind in ((mistakes(empty), "missed lesion"), (mistakes(tumour(), empty), "false lesion")):
        assert kinds(found) == in_all(kind)
        assert {mistake.cost for mistake in found} == {1}


def test_costs_add_up_to_the_dice_that_is_lost() -> None:
    """The costs of a missed lesion, a false lesion and a border sum to 1 minus Dice."""
    truth = changed(lambda mask: mask | ball((40, 32, 36), 4), tumour())
    prediction = changed(lambda mask: ndimage.binary_dilation(mask) | ball((40, 4, 4), 2), tumour())
    found = [mistake for mistake in mistakes(prediction, truth) if mistake.region == "WT"]
    assert {mistake.kind for mistake in found} == {"missed lesion", "false lesion", "over-segmented"}
    dice = score_case(truth, prediction, SPACING, "brats2021")["WT"]["dice"]
    assert sum(mistake.cost for mistake in found) == pytest.approx(1 - dice)


def test_by_lesions_a_stray_voxel_is_the_costliest() -> None:
    """A stray voxel costs almost nothing in 2021 and half in 2023; 2023 ignores missed lesions up to 50 mm³."""
    voxel, tiny = ball((40, 4, 4), 0), ball((40, 32, 36), 1)
    prediction = changed(lambda mask: mask | voxel, tumour(size=0.95))
    assert mistakes(prediction)[0].kind == "under-segmented"
    first = mistakes(prediction, protocol="brats2023-gli")[0]
    assert (first.kind, first.cost) == ("false lesion", 0.5)
    truth = changed(lambda mask: mask | tiny, tumour())  # 7 voxels of 3 mm³
    assert kinds(mistakes(tumour(), truth, "brats2021")) == in_all("missed lesion")
    assert mistakes(tumour(), truth, "brats2023-gli") == []


def test_in_2026_what_is_missed_costs_nothing_beside_what_is_found() -> None:
    """In 2026 it is reported last, because the Dice is of pairs only; without any pair it costs everything."""
    island = ball((40, 32, 36), 4)
    truth = changed(lambda mask: mask | island, tumour())
    found = mistakes(tumour(size=0.95), truth, "brats2026-goat")
    assert {mistake.cost for mistake in found if mistake.kind == "missed lesion"} == {0}
    assert found[0].kind == "under-segmented"
    nothing = mistakes(changed(np.zeros_like, truth), truth, "brats2026-goat")
    assert {mistake.cost for mistake in nothing} == {1}


def test_what_costs_most_comes_first() -> None:
    """The place is inside the mistake, for every region."""
    found = mistakes(changed(lambda mask: ndimage.binary_dilation(mask, iterations=3) ^ ball((40, 4, 4), 3), tumour()))
    costs = [mistake.cost for mistake in found]
    assert costs == sorted(costs, reverse=True)
    assert len(costs) >= 4


@pytest.mark.parametrize("seed", range(6))
def test_noise_has_mistakes_within_bounds(seed: int) -> None:
    """For any masks, costs are between 0 and 1, places are where the masks differ, and the masks are not changed."""
    generator = np.random.default_rng(seed)
    sides = [{region: generator.random((9, 8, 7)) < 0.25 for region in ("WT", "TC", "ET")} for _ in range(2)]
    before = [{region: mask.copy() for region, mask in side.items()} for side in sides]
    for protocol in YEARS:
        for mistake in find_mistakes(*sides, SPACING, PROTOCOLS[protocol]):
            assert 0 <= mistake.cost <= 1
            if mistake.kind != "ET/NCR swapped":
                assert sides[0][mistake.region][mistake.place] or sides[1][mistake.region][mistake.place]
    assert all(np.array_equal(side[r], old[r]) for side, old in zip(sides, before, strict=True) for r in side)


def test_masks_that_cannot_be_compared_are_refused() -> None:
    """Masks of different shapes are refused; the region is named."""
    with pytest.raises(InputError, match="WT: truth and prediction must have one shape"):
        mistakes(changed(lambda mask: mask[1:], tumour()))
