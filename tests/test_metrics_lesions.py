"""Lesions are found, matched and scored as by slow reference code."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import ndimage

from gliomask.metrics import (
    LesionRule,
    Mask,
    MatchingInput,
    components,
    dice,
    find_lesions,
    hausdorff_95_pooled,
    hausdorff_95_surface,
    match_one_to_one,
    score_case,
    surface_dice,
)
from gliomask.metrics.lesions import dilate
from gliomask.metrics.protocols import PROTOCOLS

ONE_MM = (1.0, 1.0, 1.0)
OBLONG = (1.5, 1.0, 2.25)
SHAPE = (15, 17, 14)

Voxel = tuple[int, int, int]
STEPS = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]
STEPS_18 = [step for step in STEPS if sum(map(abs, step)) <= 2]


def speckle(seed: int, share: float = 0.02, size: int = 1) -> Mask:
    """Return a random mask of small blobs."""
    seeds = np.random.default_rng(seed).random(SHAPE) < share
    return ndimage.binary_dilation(seeds, iterations=size) if size else seeds


def pair_of_masks(seed: int) -> tuple[Mask, Mask]:
    """Return a random truth, and a prediction that has a part of it and other voxels."""
    rng = np.random.default_rng(1000 + seed)
    truth = speckle(seed, share=rng.choice([0.0, 0.001, 0.004, 0.01]), size=int(rng.integers(0, 3)))
    prediction = truth & (rng.random(SHAPE) < rng.choice([0.5, 0.9, 1.0]))
    prediction |= speckle(seed + 500, share=rng.choice([0.0, 0.001, 0.003]), size=int(rng.integers(0, 2)))
    return truth, np.roll(prediction, int(rng.integers(0, 3)), int(rng.integers(0, 3)))


def voxels(mask: Mask) -> set[Voxel]:
    """Return the voxel positions of a mask."""
    return {(int(x), int(y), int(z)) for x, y, z in np.argwhere(mask)}


def as_mask(places: set[Voxel]) -> Mask:
    """Return the mask of voxel positions."""
    mask = np.zeros(SHAPE, bool)
    for place in places:
        mask[place] = True
    return mask


def moved(place: Voxel, step: Voxel) -> Voxel:
    """Return a neighbouring position."""
    return place[0] + step[0], place[1] + step[1], place[2] + step[2]


def slow_pieces(places: set[Voxel]) -> list[set[Voxel]]:
    """Return the 26-connected components by walking from voxel to voxel."""
    left, found = set(places), []
    while left:
        piece, edge = set(), {left.pop()}
        while edge:
            piece |= edge
            edge = {moved(place, step) for place in edge for step in STEPS} & left
            left -= edge
        found.append(piece)
    return found


def slow_dilate(places: set[Voxel], steps: int) -> set[Voxel]:
    """Return positions and all that can be reached from them in a number of steps across faces and edges."""
    for _ in range(steps):
        places = places | {moved(place, step) for place in places for step in STEPS_18}
    return places


def slow_lesions(places: set[Voxel], steps: int) -> list[set[Voxel]]:
    """Return the components, merged where their dilations touch."""
    return [grown & places for grown in slow_pieces(slow_dilate(places, steps))]


def slow_by_dilation(
    truth: Mask, prediction: Mask, rule: LesionRule, penalty_mm: float, spacing_mm: tuple[float, float, float]
) -> dict[str, float]:
    """Return the lesion-wise scores of 2023 and 2024, lesion by lesion, as they are described."""
    lesions = slow_lesions(voxels(truth), rule.dilation)
    found = (
        slow_lesions(voxels(prediction), rule.dilation) if rule.merge_predictions else slow_pieces(voxels(prediction))
    )
    found = [piece for piece in found if len(piece) > rule.dropped_voxels]
    kept: list[tuple[float, float, float]] = []
    used: set[int] = set()
    hits = 0
    for lesion in lesions:
        near = [i for i, piece in enumerate(found) if piece & slow_dilate(lesion, rule.dilation)]
        used |= set(near)
        if len(lesion) * math.prod(spacing_mm) <= rule.ignored_mm3:
            continue
        masks = as_mask(lesion), as_mask(set().union(*(found[i] for i in near)))
        hits += bool(near)
        distance = hausdorff_95_surface(*masks, spacing_mm, empty_mm=penalty_mm)
        kept.append((dice(*masks), distance, surface_dice(*masks, spacing_mm, 1.0)))
    false = len(found) - len(used)
    rows = kept + [(0.0, penalty_mm, 0.0)] * false
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)] if rows else [1.0, 0.0, 1.0]
    names = ("lesion_dice", "lesion_hd95_surface_mm", "lesion_nsd_1mm")
    counts = {"lesion_tp": hits, "lesion_fp": false, "lesion_fn": len(kept) - hits}
    return {**dict(zip(names, means, strict=True)), **counts}


@pytest.mark.parametrize("spacing_mm", [ONE_MM, OBLONG])
@pytest.mark.parametrize("protocol", ["brats2023-gli", "brats2023-men", "brats2023-met", "brats2024-met"])
@pytest.mark.parametrize("seed", range(8))
def test_random_masks_score_as_by_hand(seed, protocol, spacing_mm):
    """Every lesion-wise score of small masks equals that of the reference code on sets of voxels."""
    truth, prediction = pair_of_masks(seed)
    row = PROTOCOLS[protocol]
    penalty_mm = row.empty_mm or math.hypot(*(n * size for n, size in zip(SHAPE, spacing_mm, strict=True)))
    expected = slow_by_dilation(truth, prediction, row.lesions["WT"], penalty_mm, spacing_mm)
    nothing = np.zeros_like(truth)
    sides = [{"WT": mask, **dict.fromkeys(("TC", "ET", "NCR", "RC"), nothing)} for mask in (truth, prediction)]
    scores = score_case(*sides, spacing_mm, row)["WT"]
    assert {name: scores[name] for name in expected if name in scores} == pytest.approx(
        {name: value for name, value in expected.items() if name in scores}
    )


def slow_one_to_one(truth: Mask, prediction: Mask) -> list[tuple[set[Voxel], set[Voxel]]]:
    """Return the pairs of components with the largest sum of Dice, by trying every pairing."""
    lesions, found = slow_pieces(voxels(truth)), slow_pieces(voxels(prediction))

    def pairing(left: list[set[Voxel]], free: list[set[Voxel]]) -> tuple[float, list[tuple[set[Voxel], set[Voxel]]]]:
        if not left:
            return 0.0, []
        ways = [pairing(left[1:], free)]
        for place, piece in enumerate(free):
            if left[0] & piece:
                gain = 2 * len(left[0] & piece) / (len(left[0]) + len(piece))
                total, pairs = pairing(left[1:], [*free[:place], *free[place + 1 :]])
                ways.append((total + gain, [(left[0], piece), *pairs]))
        return max(ways, key=lambda way: way[0])

    return pairing(lesions, found)[1]


@pytest.mark.parametrize("spacing_mm", [ONE_MM, OBLONG])
@pytest.mark.parametrize("seed", range(12))
def test_random_masks_pair_as_by_hand(seed, spacing_mm):
    """For small masks in 2026, counts and means are those of the best of all pairings."""
    truth, prediction = pair_of_masks(seed)
    pairs = [(as_mask(one), as_mask(other)) for one, other in slow_one_to_one(truth, prediction)]
    pieces = len(slow_pieces(voxels(truth))), len(slow_pieces(voxels(prediction)))
    nothing = np.zeros_like(truth)
    sides = [{"WT": mask, "TC": nothing, "ET": nothing} for mask in (truth, prediction)]
    scores = score_case(*sides, spacing_mm, "brats2026-goat")["WT"]
    assert scores["lesion_tp"] == len(pairs)
    assert (scores["lesion_fn"], scores["lesion_fp"]) == (pieces[0] - len(pairs), pieces[1] - len(pairs))
    if pairs:
        measured = {
            "lesion_dice": [dice(*pair) for pair in pairs],
            "lesion_hd95_pooled_mm": [hausdorff_95_pooled(*pair, spacing_mm) for pair in pairs],
            "lesion_nsd_one_voxel": [surface_dice(*pair, spacing_mm, min(spacing_mm)) for pair in pairs],
        }
        for name, values in measured.items():
            assert scores[name] == pytest.approx(sum(values) / len(values))
    elif any(pieces):
        assert (scores["lesion_dice"], scores["lesion_hd95_pooled_mm"]) == (0, math.inf)
    else:
        assert math.isnan(scores["lesion_dice"])


@pytest.mark.parametrize("protocol", ["brats2023-gli", "brats2024-men", "brats2024-met", "brats2026-gli"])
@pytest.mark.parametrize("seed", [0, 3])
def test_the_view_does_not_matter(seed, protocol):
    """Scores do not change if truth and prediction are flipped, or their axes and spacing are permuted."""

    def scored(truth: Mask, prediction: Mask, spacing_mm: tuple[float, float, float]) -> dict[str, float]:
        nothing = np.zeros_like(truth)
        sides = [
            {**dict.fromkeys(PROTOCOLS[protocol].required_regions, nothing), "WT": mask, "TC": mask, "ET": mask}
            for mask in (truth, prediction)
        ]
        return score_case(*sides, spacing_mm, protocol)["WT"]

    truth, prediction = speckle(seed, 0.004, 2), np.roll(speckle(seed, 0.004, 2), 1, 0) | speckle(seed + 9, 0.002, 1)
    expected = scored(truth, prediction, OBLONG)
    assert expected["lesion_tp"] > 0
    for axes in ((0,), (1,), (2,), (0, 1, 2)):
        found = scored(np.flip(truth, axes), np.flip(prediction, axes), OBLONG)
        assert found == pytest.approx(expected)
    for order in itertools.permutations(range(3)):
        x, y, z = (OBLONG[axis] for axis in order)
        assert scored(truth.transpose(order), prediction.transpose(order), (x, y, z)) == pytest.approx(expected)


def test_one_to_one_is_symmetric():
    """In 2026, exchanging truth and prediction exchanges false and missed lesions and keeps every score."""
    truth, prediction = pair_of_masks(3)
    assert truth.any()
    assert prediction.any()
    nothing = np.zeros_like(truth)
    sides = [{"WT": mask, "TC": nothing, "ET": nothing} for mask in (truth, prediction)]
    there = score_case(*sides, OBLONG, "brats2026-goat")["WT"]
    back = score_case(*sides[::-1], OBLONG, "brats2026-goat")["WT"]
    assert (there["lesion_fp"], there["lesion_fn"]) == (back["lesion_fn"], back["lesion_fp"])
    for name in ("lesion_tp", "detection_f1", "lesion_dice", "lesion_hd95_pooled_mm", "lesion_nsd_one_voxel"):
        assert there[name] == pytest.approx(back[name], nan_ok=True)


def test_one_to_one_prefers_the_larger_sum():
    """Two lesser matches beat one greater, where together they are more.

    Along a line, lesions of 6 and 2 voxels; predicted are a voxel in the first, and a piece of 7 with 4 in the first
    and 2 in the second. The piece with the first: 2 * 4 / (6 + 7) = 0.615, and nothing else. The piece with the second
    and the voxel with the first: 2 * 2 / (2 + 7) + 2 * 1 / (6 + 1) = 0.730.
    """
    truth, prediction = np.zeros((12, 1, 1), bool), np.zeros((12, 1, 1), bool)
    truth[0:6] = truth[7:9] = True
    prediction[0] = prediction[2:9] = True
    matching = match_one_to_one(MatchingInput({"ET": truth}, {"ET": prediction}, ONE_MM, "ET", {}))
    assert sorted(matching.pairs) == [(1, (1,)), (2, (2,))]
    assert (matching.false, matching.missed) == ((), ())


def test_predicted_lumps_of_one_lesion_are_paired_once():
    """Of two predicted components in one lesion, the one with the larger overlap is matched; the other is false."""
    truth, prediction = np.zeros((12, 5, 5), bool), np.zeros((12, 5, 5), bool)
    truth[1:10, 1:4, 1:4] = True
    prediction[1:4, 1:4, 1:4] = prediction[5:10, 1:4, 1:4] = True
    matching = match_one_to_one(MatchingInput({"ET": truth}, {"ET": prediction}, ONE_MM, "ET", {}))
    ((lesion, (partner,)),) = matching.pairs
    assert lesion == 1
    assert matching.prediction.sizes[partner] == 45
    assert (len(matching.false), len(matching.missed)) == (1, 0)


@pytest.mark.parametrize("steps", [0, 1, 3, 5])
def test_dilation_is_that_of_scipy(steps):
    """A mask grows by the 18 neighbours in each step and is cut off at the border of the array."""
    mask = speckle(1, 0.005, 0)
    mask[0, 0, 0] = mask[-1, -1, -1] = True
    structure = ndimage.generate_binary_structure(3, 2)
    expected = ndimage.binary_dilation(mask, structure, iterations=steps) if steps else mask
    assert np.array_equal(dilate(mask, steps), expected)


def test_components_are_numbered_as_a_scan_meets_them():
    """Components connect across corners and are numbered in the order of their first voxels, for any memory layout."""
    mask = speckle(5, 0.01, 0)
    mask[3, 3, 3] = mask[4, 4, 4] = True
    for given in (mask, np.asfortranarray(mask), mask[::-1][::-1]):
        found = components(given)
        assert found.count == len(slow_pieces(voxels(mask)))
        assert found.labels[3, 3, 3] == found.labels[4, 4, 4]
        first_met = dict.fromkeys(found.labels[given].tolist())
        assert list(first_met) == list(range(1, found.count + 1))
        assert found.sizes[1:].sum() == mask.sum()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5, 1), (99, 1, 1), (5, 1, 3), (1, 7, 7), (1, 1, 1), (5, 3, 7)])
def test_as_many_pieces_as_an_array_can_hold_are_found(shape):
    """Every second voxel along each axis is a component, also in arrays one voxel thick."""
    mask = np.zeros(shape, bool)
    mask[::2, ::2, ::2] = True
    found = components(mask)
    assert found.count == found.labels.max() == mask.sum()
    assert found.labels.shape == shape


@pytest.mark.parametrize("seed", range(4))
def test_lesions_keep_every_voxel_and_reach_apart(seed):
    """The merged components are the mask again; the dilations of two lesions neither overlap nor touch."""
    mask = speckle(seed, 0.003, 1)
    lesions = find_lesions({"WT": mask}, "WT", {"WT": LesionRule(dilation=1)}, truth=True)
    assert np.array_equal(lesions.labels > 0, mask)
    assert np.array_equal(lesions.dilated > 0, dilate(mask, 1))
    assert np.array_equal(lesions.dilated[mask], lesions.labels[mask])
    assert components(lesions.dilated > 0).count == lesions.count


def test_masks_are_left_as_they_were():
    """No mask is written to; read-only arrays are accepted."""
    truth, prediction = pair_of_masks(2)
    before = truth.copy(), prediction.copy()
    truth.flags.writeable = prediction.flags.writeable = False
    sides = [dict.fromkeys(("WT", "TC", "ET", "NCR", "ED", "RC"), mask) for mask in (truth, prediction)]
    score_case(*sides, ONE_MM, "brats2024-gli")
    assert np.array_equal(truth, before[0])
    assert np.array_equal(prediction, before[1])
