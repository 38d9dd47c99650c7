"""General laws of the scores, and small masks against code that counts voxel by voxel."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gliomask import metrics
from gliomask.metrics import PROTOCOLS, LesionRule, Mask, find_lesions, score_case
from gliomask.metrics.lesionwise import match_one_to_one

Voxel = tuple[int, int, int]
Spacing = tuple[float, float, float]
OBLONG: Spacing = (0.9, 1.4, 3.0)
STEPS = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]
FACES = [step for step in STEPS if sum(map(abs, step)) == 1]
EDGES = [step for step in STEPS if sum(map(abs, step)) <= 2]

PAIRS = st.tuples(*[st.integers(1, 6)] * 3).flatmap(lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape)))
SIZES = st.floats(0.25, 6)


def places(mask: Mask) -> set[Voxel]:
    return {(int(x), int(y), int(z)) for x, y, z in np.argwhere(mask)}


def near(place: Voxel, steps: list[tuple[int, ...]]) -> set[Voxel]:
    return {(place[0] + x, place[1] + y, place[2] + z) for x, y, z in steps}


def pieces(left: set[Voxel]) -> list[set[Voxel]]:
    """Return the 26-connected components, in the order of their first voxels."""
    left, found = set(left), []
    while left:
        piece, edge = set(), {min(left)}
        while edge:
            piece |= edge
            edge = {other for place in edge for other in near(place, STEPS)} & (left - piece)
        left -= piece
        found.append(piece)
    return found


def grown(some: set[Voxel], steps: int) -> set[Voxel]:
    for _ in range(steps):
        some = some | {other for place in some for other in near(place, EDGES)}
    return some


def slow_scores(truth: Mask, prediction: Mask, spacing_mm: Spacing) -> dict[str, float]:
    """Return the scores of a region that follow from counting sets of voxels."""
    ours, theirs = places(truth), places(prediction)
    every = truth.size
    right = every - len(ours ^ theirs)
    surfaces = [{p for p in some if near(p, FACES) - some} for some in (ours, theirs)]
    shares = []
    for here, there in (surfaces, surfaces[::-1]):
        apart = [
            min((math.dist(scaled(p, spacing_mm), scaled(q, spacing_mm)) for q in there), default=9e9) for p in here
        ]
        shares.append(sum(distance <= 1 for distance in apart) / len(apart) if apart else None)
    nsd = 1.0 if shares == [None, None] else 0.0 if None in shares else sum(shares) / 2
    litre = math.prod(spacing_mm) / 1000
    return {
        "dice": 2 * len(ours & theirs) / (len(ours) + len(theirs)) if ours or theirs else 1.0,
        "iou": len(ours & theirs) / len(ours | theirs) if ours or theirs else 1.0,
        "sensitivity": len(ours & theirs) / len(ours) if ours else float(not theirs),
        "specificity": (every - len(ours | theirs)) / (every - len(ours)) if every > len(ours) else 1.0,
        "voxel_accuracy": right / every,
        "voxel_accuracy_of_nothing": 1 - len(ours) / every,
        "truth_ml": len(ours) * litre,
        "prediction_ml": len(theirs) * litre,
        "volume_difference_ml": (len(theirs) - len(ours)) * litre,
        "truth_pieces": len(pieces(ours)),
        "prediction_pieces": len(pieces(theirs)),
        "nsd_1mm": nsd,
    }


def scaled(place: Voxel, spacing_mm: Spacing) -> Spacing:
    x, y, z = (index * mm for index, mm in zip(place, spacing_mm, strict=True))
    return x, y, z


def score(truth: Mask, prediction: Mask, spacing_mm: Spacing = OBLONG, protocol: str = "brats2021") -> dict[str, float]:
    row = PROTOCOLS[protocol]
    sides = [dict.fromkeys(row.required_regions, mask) for mask in (truth, prediction)]
    return score_case(*sides, spacing_mm, row)["WT"]


@given(PAIRS, st.sampled_from([(1.0, 1.0, 1.0), OBLONG, (0.5, 0.5, 2.0)]))
@settings(deadline=None, max_examples=60)
def test_whatever_can_be_counted_is_what_counting_gives(masks, spacing_mm) -> None:
    """Overlap, accuracy, volumes, components and surface Dice of any two masks equal the counted ones."""
    found = score(*masks, spacing_mm)
    expected = slow_scores(*masks, spacing_mm)
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@given(PAIRS, st.tuples(SIZES, SIZES, SIZES))
@settings(deadline=None, max_examples=60)
def test_what_is_symmetric_stays_when_the_masks_change_places(masks, spacing_mm) -> None:
    """Exchanging the masks keeps Dice, IoU, both HD95 and surface Dice; sensitivity becomes precision."""
    here, there = score(*masks, spacing_mm), score(*masks[::-1], spacing_mm)
    for name in ("dice", "iou", "hd95_pooled_mm", "hd95_surface_mm", "nsd_0.5mm", "nsd_1mm", "voxel_accuracy"):
        assert here[name] == pytest.approx(there[name], abs=1e-9)
    assert here["volume_difference_ml"] == pytest.approx(-there["volume_difference_ml"])


@given(PAIRS, st.integers(0, 7), st.permutations(range(3)), st.sampled_from(sorted(PROTOCOLS)))
@settings(deadline=None, max_examples=80)
def test_no_score_of_any_year_depends_on_the_view(masks, flips, order, protocol) -> None:
    """Flipped along any axes and with its axes and spacing in any order, a case scores the same.

    But for the distances of lesions paired one to one: where two pairings have the same sum of Dice, which is taken
    depends on the order of the pieces.
    """
    axes = [axis for axis in range(3) if flips >> axis & 1]
    turned = [np.flip(mask, axes).transpose(order) for mask in masks]
    x, y, z = (OBLONG[axis] for axis in order)
    expected = score(*masks, OBLONG, protocol)
    found = score(turned[0], turned[1], (x, y, z), protocol)
    if PROTOCOLS[protocol].match is match_one_to_one:
        expected, found = (
            {name: value for name, value in scores.items() if not name.startswith(("lesion_hd95", "lesion_nsd"))}
            for scores in (expected, found)
        )
    assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)


@given(PAIRS, st.floats(0.3, 4))
@settings(deadline=None, max_examples=60)
def test_distances_and_volumes_scale_with_the_voxels(masks, factor) -> None:
    """With larger voxels, distances grow by the factor and volumes by its cube; fractions do not change."""
    x, y, z = (factor * mm for mm in OBLONG)
    small, large = score(*masks), score(*masks, (x, y, z))
    apart = masks[0].any() != masks[1].any()
    for name in ("hd95_pooled_mm", "hd95_surface_mm"):
        assert large[name] == pytest.approx(small[name] if apart else factor * small[name], abs=1e-9)
    assert large["truth_ml"] == pytest.approx(factor**3 * small["truth_ml"])
    assert (large["dice"], large["truth_pieces"]) == (small["dice"], small["truth_pieces"])


@given(PAIRS)
@settings(deadline=None, max_examples=60)
def test_of_nested_masks_the_sizes_tell_everything(masks) -> None:
    """For a mask of a voxels inside one of b: Dice is 2a / (a + b), IoU is a / b."""
    inner, outer = masks[0] & masks[1], masks[1]
    a, b = int(inner.sum()), int(outer.sum())
    if not a:
        return
    found = score(outer, inner)
    assert found["dice"] == pytest.approx(2 * a / (a + b))
    assert found["iou"] == pytest.approx(a / b)
    assert (found["sensitivity"], found["specificity"]) == (pytest.approx(a / b), 1)
    assert score(inner, outer)["sensitivity"] == 1


@given(PAIRS)
@settings(deadline=None, max_examples=20)
def test_scores_keep_within_their_bounds(masks) -> None:
    """In every protocol, shares are between 0 and 1, and distances between 0 and the penalty or the masks' extent."""
    for protocol, row in PROTOCOLS.items():
        for name, value in score(*masks, OBLONG, protocol).items():
            metric = metrics.METRICS.get(name.removeprefix("lesion_"))
            if metric is not None and metric.kind == "share" and not math.isnan(value):
                assert 0 <= value <= 1, (row.name, name)
            if metric is not None and metric.kind == "distance" and not math.isnan(value):
                assert value >= 0, (row.name, name)


@pytest.mark.parametrize("seed", range(12))
def test_lesions_joined_by_another_tissue_are_those_of_the_walk(seed: int) -> None:
    """As 2024 merges ET by NCR: all lesions whose first touched lesion of the other region is the same are one."""
    rng = np.random.default_rng(seed)
    masks = {name: rng.random((13, 11, 9)) < share for name, share in (("ET", 0.015), ("NCR", 0.02))}
    masks["NCR"] |= np.roll(masks["NCR"], 1, 0)
    masks["NCR"] &= ~masks["ET"]
    rules = {"ET": LesionRule(dilation=1, joined_by=("NCR",)), "NCR": LesionRule(dilation=1)}
    lesions, others = (
        [piece & places(masks[name]) for piece in pieces(grown(places(masks[name]), 1))] for name in ("ET", "NCR")
    )
    groups: dict[int, set[Voxel]] = {}
    for number, lesion in enumerate(lesions):
        touched = [place for place, other in enumerate(others) if grown(lesion, 1) & other]
        groups.setdefault(len(lesions) + touched[0] if touched else number, set()).update(lesion)
    found = find_lesions(masks, "ET", rules, truth=True)
    walked = {frozenset(group) for group in groups.values()}
    assert {frozenset(places(found.labels == number)) for number in range(1, found.count + 1)} == walked
    assert len(walked) < len(lesions) or seed not in (0, 1, 2)  # that something is joined at all
