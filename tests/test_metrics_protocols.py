"""The scores of every year against published values and cases solved by hand, and the table of protocols."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from gliomask.errors import InputError
from gliomask.metrics import (
    METRICS,
    PROTOCOLS,
    LesionRule,
    Mask,
    Metric,
    family_of,
    get_protocol,
    hausdorff_95_pooled,
    hausdorff_95_surface,
    score_case,
    score_missing,
)

ONE_MM = (1.0, 1.0, 1.0)
OBLONG = (0.9, 1.3, 4.0)
ALL = ("WT", "TC", "ET", "NCR", "ED", "CC", "RC")
SIDE = 48

Box = tuple[tuple[int, int], ...]
A: Box = ((4, 10),) * 3
B: Box = ((30, 36),) * 3
FAR_VOXEL: Box = ((40, 41),) * 3
SMALL: Box = ((4, 7),) * 3  # 27 voxels
FIFTY: Box = ((4, 9), (4, 9), (4, 6))
SIXTY: Box = ((4, 9), (4, 8), (4, 7))


def along_x(start: int, stop: int) -> Box:
    """Return a box with the extent of A along Y and Z, and another one along X."""
    return ((start, stop), *A[1:])


def boxes(*spans: Box) -> Mask:
    """Return a cubic mask of 48 voxels a side with half-open boxes."""
    mask = np.zeros((SIDE,) * 3, bool)
    for span in spans:
        mask[tuple(slice(*ends) for ends in span)] = True
    return mask


def only(region: str, mask: Mask) -> dict[str, Mask]:
    """Return the masks of a case in which only one region is not empty."""
    return {name: mask if name == region else np.zeros_like(mask) for name in ALL}


def scored(protocol: str, truth: list[Box], prediction: list[Box], region: str = "ET") -> dict[str, float]:
    """Return the scores of the only region that is not empty."""
    sides = (only(region, boxes(*truth)), only(region, boxes(*prediction)))
    return score_case(*sides, ONE_MM, protocol)[region]


def counts(scores: dict[str, float]) -> tuple[float, ...]:
    """Return true positives, false positives, false negatives."""
    return tuple(scores[name] for name in ("lesion_tp", "lesion_fp", "lesion_fn"))


def close(value: float) -> object:
    """Return an approximation to 1e-6, where NaN equals NaN."""
    return pytest.approx(value, abs=1e-6, nan_ok=True)


NAN, INF = math.nan, math.inf

# truth, prediction; 2023: lesion Dice, lesion HD95, TP FP FN, Dice, HD95; 2026: TP FP FN, F1, lesion Dice, lesion HD95,
# Dice, HD95
GOLDEN = {
    "both empty": ([], [], (1, 0, (0, 0, 0), 1, 0), ((0, 0, 0), NAN, NAN, NAN, NAN, NAN)),
    "all missed": ([A], [], (0, 374, (0, 0, 1), 0, 374), ((0, 0, 1), 0, 0, INF, 0, 373)),
    "all invented": ([], [A], (0, 374, (0, 1, 0), 0, 374), ((0, 1, 0), 0, 0, INF, 0, 373)),
    "equal": ([A], [A], (1, 0, (1, 0, 0), 1, 0), ((1, 0, 0), 1, 1, 0, 1, 0)),
    "shifted by one": (
        *([A], [along_x(5, 11)]),
        (0.833333, 1, (1, 0, 0), 0.833333, 1),
        ((1, 0, 0), 1, 0.833333, 1, 0.833333, 1),
    ),
    "one of two missed": (
        *([A, B], [A]),
        (0.5, 187, (1, 0, 1), 0.666667, 42.778499),
        ((1, 0, 1), 0.666667, 1, 0, 0.666667, 42.778499),
    ),
    "one of two invented": (
        *([A], [A, B]),
        (0.5, 187, (1, 1, 0), 0.666667, 42.778499),
        ((1, 1, 0), 0.666667, 1, 0, 0.666667, 42.778499),
    ),
    "a stray voxel": (
        *([A], [A, FAR_VOXEL]),
        (0.5, 187, (1, 1, 0), 0.997691, 0),
        ((1, 1, 0), 0.666667, 1, 0, 0.997691, 0),
    ),
    "27 voxels missed": ([SMALL], [], (1, 0, (0, 0, 0), 0, 374), ((0, 0, 1), 0, 0, INF, 0, 373)),
    "27 voxels found": ([SMALL], [SMALL], (1, 0, (0, 0, 0), 1, 0), ((1, 0, 0), 1, 1, 0, 1, 0)),
    "50 voxels missed": ([FIFTY], [], (1, 0, (0, 0, 0), 0, 374), ((0, 0, 1), 0, 0, INF, 0, 373)),
    "60 voxels missed": ([SIXTY], [], (0, 374, (0, 0, 1), 0, 374), ((0, 0, 1), 0, 0, INF, 0, 373)),
    "gap of 5": (
        *([A, along_x(15, 21)], [A]),
        (0.666667, 11, (1, 0, 0), 0.666667, 11),
        ((1, 0, 1), 0.666667, 1, 0, 0.666667, 11),
    ),
    "gap of 6": (
        *([A, along_x(16, 22)], [A]),
        (0.666667, 12, (1, 0, 0), 0.666667, 12),
        ((1, 0, 1), 0.666667, 1, 0, 0.666667, 12),
    ),
    "gap of 7": (
        *([A, along_x(17, 23)], [A]),
        (0.5, 187, (1, 0, 1), 0.666667, 13),
        ((1, 0, 1), 0.666667, 1, 0, 0.666667, 13),
    ),
    # of 2026: without a common voxel the whole region is as bad as an empty one
    "2 voxels apart": ([A], [along_x(12, 18)], (0, 8, (1, 0, 0), 0, 8), ((0, 1, 1), 0, 0, INF, 0, 373)),
    "3 voxels apart": ([A], [along_x(13, 19)], (0, 374, (0, 1, 1), 0, 9), ((0, 1, 1), 0, 0, INF, 0, 373)),
    "a bridge": (
        *([A, along_x(24, 30)], [along_x(4, 30)]),
        (0.375, 20, (2, 0, 0), 0.631579, 6),
        ((1, 0, 1), 0.666667, 0.375, 19.85, 0.631579, 6),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values_of_2023(name):
    """Each box has the scores of the challenge's script, to 1e-6."""
    truth, prediction, (lesion_dice, lesion_mm, found, dice, whole_mm), _ = GOLDEN[name]
    scores = scored("brats2023-gli", truth, prediction)
    assert scores["lesion_dice"] == close(lesion_dice)
    assert scores["lesion_hd95_surface_mm"] == close(lesion_mm)
    assert counts(scores) == found
    assert scores["dice"] == close(dice)
    assert scores["hd95_surface_mm"] == close(whole_mm)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values_of_2026(name):
    """The same boxes have the scores of the challenge's package, to 1e-6."""
    truth, prediction, _, (found, f1, lesion_dice, lesion_mm, dice, whole_mm) = GOLDEN[name]
    scores = scored("brats2026-goat", truth, prediction)
    assert counts(scores) == found
    assert scores["detection_f1"] == close(f1)
    assert scores["lesion_dice"] == close(lesion_dice)
    assert scores["lesion_hd95_pooled_mm"] == close(lesion_mm)
    assert scores["dice"] == close(dice)
    assert scores["hd95_pooled_mm"] == close(whole_mm)


def test_golden_values_of_2026_for_the_ends_of_a_bar():
    """Of a bar whose two ends were predicted, one end is matched; and the surface Dice of a shift."""
    scores = scored("brats2026-goat", [along_x(4, 30)], [A, along_x(24, 30)])
    assert counts(scores) == (1, 1, 0)
    assert scores["lesion_dice"] == close(0.375)
    assert scores["lesion_hd95_pooled_mm"] == close(19.85)
    assert scores["dice"] == close(0.631579)
    assert scores["hd95_pooled_mm"] == close(6)
    shifted = scored("brats2026-goat", [A], [along_x(5, 11)])
    assert shifted["lesion_nsd_one_voxel"] == 1
    assert shifted["nsd_0.5mm"] == close(0.657895)


def test_masks_apart_are_in_2026_as_bad_as_an_empty_one():
    """Adjacent masks without a common voxel have distances of 373 and surface Dice 0; voxel counts are unaffected."""
    beside = scored("brats2026-goat", [A], [along_x(10, 16)])
    assert {beside[name] for name in ("hd95_pooled_mm", "hd95_surface_mm")} == {373}
    assert {beside[name] for name in ("nsd_0.5mm", "nsd_1mm", "dice")} == {0}
    assert beside["specificity"] == close(1 - 216 / (SIDE**3 - 216))
    assert beside["prediction_ml"] == close(0.216)
    touching = scored("brats2026-goat", [A], [along_x(9, 15)])
    assert touching["hd95_pooled_mm"] < 6
    assert touching["nsd_1mm"] > 0


# Solved by hand from the definition. A box of 6 x 6 x 6 has 216 voxels. Two boxes of that size with a gap of g voxels
# between them along X: the far side of the second lies g + 6 voxels from the first, a sixth of its surface, so it is
# more than 5 % of both and HD95 is g + 6. A false or missed lesion costs 337 mm, and with one lesion found 168.5.
BY_HAND_2024 = {
    "nothing at all": ("ET", [], [], 1, 0, 1, (0, 0, 0)),
    "all missed": ("ET", [A], [], 0, 337, 0, (0, 0, 1)),
    "all invented": ("ET", [], [A], 0, 337, 0, (0, 1, 0)),
    # the cube's corner voxels count too: all of its surface moves by one voxel
    "shifted by one": ("ET", [A], [along_x(5, 11)], 5 / 6, 1, 1, (1, 0, 0)),
    "one of two missed": ("ET", [A, B], [A], 0.5, 168.5, 0.5, (1, 0, 1)),
    "one of two invented": ("ET", [A], [A, B], 0.5, 168.5, 0.5, (1, 1, 0)),
    # 2023 gives 0.5: here a predicted lesion of up to 10 voxels (ET), 20 (the rest), is deleted before it is looked at
    "a stray voxel is deleted": ("ET", [A], [A, FAR_VOXEL], 1, 0, 1, (1, 0, 0)),
    "10 stray voxels of ET are": ("ET", [A], [A, ((30, 32), (30, 35), (30, 31))], 1, 0, 1, (1, 0, 0)),
    "11 stray voxels of ET are not": ("ET", [A], [A, ((30, 41), (30, 31), (30, 31))], 0.5, 168.5, 0.5, (1, 1, 0)),
    "20 stray voxels of WT are": ("WT", [A], [A, ((30, 34), (30, 35), (30, 31))], 1, 0, 1, (1, 0, 0)),
    "21 stray voxels of WT are not": ("WT", [A], [A, ((30, 33), (30, 37), (30, 31))], 0.5, 168.5, 0.5, (1, 1, 0)),
    # the same limits for the truth, in mm³; 2023 ignores 27 voxels
    "27 voxels missed": ("WT", [SMALL], [], 0, 337, 0, (0, 0, 1)),
    "20 voxels missed": ("WT", [((4, 8), (4, 9), (4, 5))], [], 1, 0, 1, (0, 0, 0)),
    "20 voxels of ET missed": ("ET", [((4, 8), (4, 9), (4, 5))], [], 0, 337, 0, (0, 0, 1)),
    # 20 voxels do not count, so what is found there is neither hit nor false
    "30 predicted where 20 are": ("WT", [((4, 8), (4, 9), (4, 5))], [((4, 9), (4, 10), (4, 5))], 1, 0, 1, (0, 0, 0)),
    # predicted pieces 5 apart are one lesion: 2 * 216 of 648; of its surface half is the truth's, whole: (1 + 0.5) / 2.
    # In 2023 the second is a false lesion: 0.5
    "predicted pieces are joined": ("ET", [A], [A, along_x(15, 21)], 2 / 3, 11, 0.75, (1, 0, 0)),
    "predicted pieces 7 apart are not": ("ET", [A], [A, along_x(17, 23)], 0.5, 168.5, 0.5, (1, 1, 0)),
    # a voxel 3 beyond the border is joined to A before small lesions are deleted: 2 * 216 of 216 + 217 voxels; the
    # voxel's surface is under 5 %; one in 152 + 1 surface voxels, the voxel itself, lies off the truth's
    "a voxel nearby is kept": (
        "ET",
        [A],
        [A, ((13, 14), (4, 5), (4, 5))],
        432 / 433,
        0,
        (1 + 152 / 153) / 2,
        (1, 0, 0),
    ),
    "truth 6 apart is one": ("ET", [A, along_x(16, 22)], [A], 2 / 3, 12, 0.75, (1, 0, 0)),
    "truth 7 apart is two": ("ET", [A, along_x(17, 23)], [A], 0.5, 168.5, 0.5, (1, 0, 1)),
    # NCR and RC are dilated by 5: up to 10 apart is one; ED by 3, as the challenge's script ran it
    "NCR 10 apart is one": ("NCR", [A, along_x(20, 26)], [A], 2 / 3, 16, 0.75, (1, 0, 0)),
    "RC 10 apart is one": ("RC", [A, along_x(20, 26)], [A], 2 / 3, 16, 0.75, (1, 0, 0)),
    "NCR 11 apart is two": ("NCR", [A, along_x(21, 27)], [A], 0.5, 168.5, 0.5, (1, 0, 1)),
    "ED 7 apart is two": ("ED", [A, along_x(17, 23)], [A], 0.5, 168.5, 0.5, (1, 0, 1)),
    # within the dilation, without a common voxel: found, with Dice 0; the far side is 2 + 6 away
    "2 voxels apart": ("ET", [A], [along_x(12, 18)], 0, 8, 0, (1, 0, 0)),
    "3 voxels apart": ("ET", [A], [along_x(13, 19)], 0, 337, 0, (0, 1, 1)),
    # 2 * 216 of 216 + 936 voxels, twice; the far end of the bar is 20 away from either
    "a bridge": ("ET", [A, along_x(24, 30)], [along_x(4, 30)], 0.375, 20, None, (2, 0, 0)),
}


@pytest.mark.parametrize("name", BY_HAND_2024)
def test_2024_by_hand(name):
    """Boxes are scored as defined: components of truth and prediction merged, small predicted lesions deleted."""
    region, truth, prediction, lesion_dice, lesion_mm, nsd, found = BY_HAND_2024[name]
    scores = scored("brats2024-gli", truth, prediction, region)
    assert scores["lesion_dice"] == close(lesion_dice)
    assert scores["lesion_hd95_surface_mm"] == close(lesion_mm)
    assert nsd is None or scores["lesion_nsd_1mm"] == close(nsd)
    assert counts(scores) == found


def test_lesions_of_2024_are_joined_by_a_tissue_between_them():
    """Two pieces of ET 14 apart are two lesions; touching one piece of NCR they are one, and half of it is found.

    Two: Dice (1 + 0) / 2, HD95 (0 + 337) / 2. One: 2 * 216 of 432 + 216 voxels, its far side 14 + 6 away.
    """
    truth, prediction = only("ET", boxes(A, along_x(24, 30))), only("ET", boxes(A))
    apart = score_case(truth, prediction, ONE_MM, "brats2024-gli")["ET"]
    assert (apart["lesion_dice"], apart["lesion_hd95_surface_mm"], counts(apart)) == (0.5, 168.5, (1, 0, 1))
    between = boxes(along_x(10, 24))
    joined = score_case({**truth, "NCR": between}, prediction, ONE_MM, "brats2024-gli")["ET"]
    assert joined["lesion_dice"] == close(2 / 3)
    assert joined["lesion_hd95_surface_mm"] == close(20)
    assert counts(joined) == (1, 0, 0)


def test_joining_by_2024_takes_the_first_of_several_neighbours():
    """A lesion that touches two pieces of the other tissue goes with the first, as the challenge's script has it.

    Three pieces of ET in a row, 7 apart, with a piece of NCR between each two: the first and the middle one touch the
    first NCR, the middle one and the last touch the second. The middle one goes with the first; the last stays alone.
    """
    row = [((start, stop), (4, 10), (4, 10)) for start, stop in ((2, 5), (12, 24), (31, 34))]
    truth = {**only("ET", boxes(*row)), "NCR": boxes(along_x(5, 12), along_x(24, 31))}
    scores = score_case(truth, only("ET", boxes()), ONE_MM, "brats2024-gli")["ET"]
    assert counts(scores) == (0, 0, 2)


def test_only_ssa_and_met_join_et_by_ncr_alone():
    """NCR merges ET in SSA and MET 2024; nothing does in PED."""
    truth = {**only("ET", boxes(A, along_x(24, 30))), "NCR": boxes(along_x(10, 24))}
    missed = {
        kind: score_case(truth, only("ET", boxes()), ONE_MM, f"brats2024-{kind}")["ET"]["lesion_fn"]
        for kind in ("ssa", "met", "ped", "men")
    }
    assert missed == {"ssa": 1, "met": 1, "ped": 2, "men": 2}


@pytest.mark.parametrize(
    ("protocol", "joined_gap", "ignored_voxels", "penalty_mm"),
    [
        ("brats2023-gli", 6, 50, 374),
        ("brats2023-ssa", 6, 50, 374),
        ("brats2023-ped", 6, 50, 374),
        ("brats2023-men", 2, 50, 374),
        ("brats2023-met", 2, 2, 374),
        ("brats2024-gli", 6, 10, 337),
        ("brats2024-ssa", 6, 50, 374),
        ("brats2024-men", 2, 50, 374),
        ("brats2024-met", 2, 2, math.hypot(48, 48, 48)),
        ("brats2024-ped", 10, 10, 374),
        ("brats2026-gli", 0, 0, 373),
        ("brats2026-goat", 0, 0, 373),
        ("brats2026-met", 0, 0, 373),
        ("brats2026-ped", 0, 0, 373),
    ],
)
def test_the_settings_of_each_year(protocol, joined_gap, ignored_voxels, penalty_mm):
    """The distance at which lesions of ET merge, the largest ignored lesion, and the penalty of a missed region."""
    if joined_gap:
        assert scored(protocol, [A, along_x(10 + joined_gap, 16 + joined_gap)], [])["lesion_fn"] == 1
    assert scored(protocol, [A, along_x(11 + joined_gap, 17 + joined_gap)], [])["lesion_fn"] == 2
    line = ((4, 4 + ignored_voxels), (4, 5), (4, 5)) if ignored_voxels < 40 else FIFTY
    assert scored(protocol, [line], [])["lesion_fn"] == 0
    one_more = ((4, 5 + ignored_voxels), (4, 5), (4, 5)) if ignored_voxels < 40 else ((4, 21), (4, 7), (4, 5))
    assert scored(protocol, [one_more], [])["lesion_fn"] == 1
    assert scored(protocol, [A], [])["hd95_surface_mm"] == close(penalty_mm)


def test_2024_men_keeps_predicted_pieces_apart():
    """MEN 2024 neither merges nor deletes predicted lesions: a stray voxel costs half, as in 2023."""
    assert scored("brats2024-men", [A], [A, FAR_VOXEL])["lesion_dice"] == 0.5
    assert scored("brats2024-ssa", [A], [A, FAR_VOXEL])["lesion_dice"] == 1


def test_volume_limits_are_in_mm3():
    """In 2023, 60 voxels of half a mm³ are ignored, 30 of 2 mm³ are not."""
    truth, nothing = only("ET", boxes(SIXTY)), only("ET", boxes())
    assert score_case(truth, nothing, (1.0, 1.0, 0.5), "brats2023-gli")["ET"]["lesion_fn"] == 0
    thirty = only("ET", boxes(((4, 9), (4, 7), (4, 6))))
    assert score_case(thirty, nothing, ONE_MM, "brats2023-gli")["ET"]["lesion_fn"] == 0
    assert score_case(thirty, nothing, (1.0, 1.0, 2.0), "brats2023-gli")["ET"]["lesion_fn"] == 1


def test_fifty_oblique_voxels_are_fifty_mm3():
    """Rounding errors of the voxel size do not put a lesion above the limit."""
    truth, nothing = only("ET", boxes(FIFTY)), only("ET", boxes())
    size = float(np.nextafter(1.0, 2.0))
    assert score_case(truth, nothing, (size, size, size), "brats2023-gli")["ET"]["lesion_fn"] == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("axis", "size_mm"), [(0, 0.9), (1, 1.3), (2, 4.0)])
def test_every_distance_is_in_millimetres(protocol, axis, size_mm):
    """A box moved by one voxel is one voxel size of that axis away, as a whole and as a lesion, in every year."""
    truth = boxes(((10, 22),) * 3)
    sides = (only("WT", truth), only("WT", np.roll(truth, 1, axis)))
    scores = score_case(*sides, OBLONG, protocol)["WT"]
    distances = {name: value for name, value in scores.items() if "hd95" in name}
    assert {"hd95_pooled_mm", "hd95_surface_mm"} <= distances.keys()
    assert distances == pytest.approx(dict.fromkeys(distances, size_mm))


def test_each_hd95_is_what_its_name_says():
    """For a ball and a far island, the two HD95 differ, and each equals that of its function."""
    truth, prediction = boxes(((10, 30),) * 3), boxes(((10, 30),) * 3, ((38, 44),) * 3)
    scores = score_case(only("WT", truth), only("WT", prediction), OBLONG, "brats2021")["WT"]
    assert scores["hd95_pooled_mm"] == hausdorff_95_pooled(truth, prediction, OBLONG)
    assert scores["hd95_surface_mm"] == hausdorff_95_surface(truth, prediction, OBLONG)
    assert scores["hd95_surface_mm"] > scores["hd95_pooled_mm"]


def test_facts_beside_the_scores():
    """Volumes, their difference, components, IoU and voxel accuracy are those computed by hand."""
    scores = score_case(only("ET", boxes(A, B)), only("ET", boxes(A)), (1.0, 2.0, 0.5), "brats2021")["ET"]
    assert scores["truth_ml"] == pytest.approx(0.432)
    assert scores["prediction_ml"] == pytest.approx(0.216)
    assert scores["volume_difference_ml"] == pytest.approx(-0.216)
    assert (scores["truth_pieces"], scores["prediction_pieces"]) == (2, 1)
    assert scores["iou"] == 0.5
    assert scores["voxel_accuracy"] == 1 - 216 / SIDE**3
    assert scores["voxel_accuracy_of_nothing"] == 1 - 432 / SIDE**3
    assert counts(scores) == (1, 0, 1)
    assert scores["detection_f1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_perfect_prediction_has_the_best_scores(protocol):
    """Equal masks have Dice, IoU, surface Dice and F1 of 1 and distances of 0, in every region of every protocol."""
    masks = {region: np.roll(boxes(A, B), 5 * place, 2) for place, region in enumerate(ALL)}
    for scores in score_case(masks, masks, OBLONG, protocol).values():
        for name in ("dice", "iou", "nsd_0.5mm", "detection_f1", "lesion_dice", "lesion_nsd_one_voxel"):
            assert scores.get(name, 1) == 1
        assert not any(value for name, value in scores.items() if name.endswith("hd95_mm") or "fp" in name)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_missing_prediction_is_never_better_than_any_other(protocol):
    """Every share is 0 and every distance is the penalty, even without a tumour."""
    row = PROTOCOLS[protocol]
    for truth in (boxes(A, B), boxes()):
        missing = score_missing(only("ET", truth), ONE_MM, protocol)
        for prediction in (boxes(), boxes(A), boxes(along_x(30, 40))):
            other = score_case(only("ET", truth), only("ET", prediction), ONE_MM, protocol)
            for region, name in itertools.product(row.regions, row.headline):
                worse = missing[region][name] >= other[region][name] or math.isnan(other[region][name])
                if name.endswith("_mm"):
                    assert worse
                else:
                    assert missing[region][name] == 0
        assert missing["ET"]["lesion_fn"] == (2 if truth.any() else 0)
        assert missing["ET"]["truth_ml"] == pytest.approx(truth.sum() / 1000)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_names_are_what_comes_back(protocol):
    """Regions and metrics are in the protocol's order; its headline begins with a Dice and an HD95."""
    row = PROTOCOLS[protocol]
    scores = score_case(only("WT", boxes(A)), only("WT", boxes(B)), ONE_MM, protocol)
    assert list(scores) == list(row.regions)
    assert all(tuple(found) == row.names for found in scores.values())
    assert set(row.headline) <= set(row.names)
    assert row.headline[0].endswith("dice")
    assert "hd95" in row.headline[1]
    assert row.name == protocol
    assert row.source


def test_masks_cut_from_a_grid_score_as_the_whole():
    """If the shape of the whole grid is given, cropping the masks changes no number."""
    truth, prediction = boxes(A, B), boxes(along_x(6, 12), B)
    whole = score_case(only("ET", truth), only("ET", prediction), OBLONG, "brats2024-met")
    cut = (slice(2, 40), slice(3, 40), slice(4, 37))
    sides = (only("ET", truth[cut]), only("ET", prediction[cut]))
    found = score_case(*sides, OBLONG, "brats2024-met", grid=(SIDE,) * 3)
    assert list(found) == list(whole)
    for region, scores in found.items():
        assert scores == pytest.approx(whole[region], nan_ok=True)


def test_a_protocol_is_a_row():
    """A custom protocol with another metric, penalty and lesion rule is scored without changing the table."""
    row = replace(
        PROTOCOLS["brats2023-gli"],
        name="mine",
        regions=("RC",),
        empty_mm=1.5,
        metrics={
            "iou": METRICS["iou"],
            "penalty": Metric("penalty", "distance", lambda _, penalty_mm: penalty_mm),
        },
        lesions={"RC": LesionRule(dilation=0)},
        lesion_metrics=(METRICS["iou"],),
    )
    mask = {"RC": boxes(A, along_x(11, 12))}
    assert score_case(mask, mask, ONE_MM, row) == {
        "RC": {
            **{"iou": 1, "penalty": 1.5, "lesion_iou": 1},
            **{"lesion_tp": 2, "lesion_fp": 0, "lesion_fn": 0, "detection_f1": 1},
        }
    }


def test_families_are_the_years_of_one_tumour():
    """Families are sorted from the oldest year and begin with 2021; the family of 2021 is that of glioma."""
    gli = ["brats2021", "brats2023-gli", "brats2024-gli", "brats2026-gli"]
    assert [row.name for row in family_of(get_protocol("brats2021"))] == gli
    assert [row.name for row in family_of(get_protocol("brats2024-gli"))] == gli
    assert [row.name for row in family_of(get_protocol("brats2026-goat"))] == [*gli, "brats2026-goat"]
    assert [row.name for row in family_of(get_protocol("brats2024-ped"))] == [
        *("brats2021", "brats2023-ped", "brats2024-ped", "brats2026-ped")
    ]


def test_unknown_protocol_is_refused_with_a_hint():
    """The message suggests the nearest known name."""
    with pytest.raises(InputError, match=r"unknown protocol 'brats201'; did you mean 'brats2021'"):
        get_protocol("brats201")
    with pytest.raises(InputError, match="unknown protocol"):
        score_case({}, {}, ONE_MM, "brats1066")


def test_all_missing_regions_are_named():
    """The message names every region that truth or prediction lacks, including those that only merge lesions."""
    mask = boxes(A)
    with pytest.raises(InputError, match="truth has no TC, truth has no ET, prediction has no WT"):
        score_case({"WT": mask}, {"TC": mask, "ET": mask}, ONE_MM, "brats2021")
    regions = dict.fromkeys(("WT", "TC", "ET"), mask)
    with pytest.raises(InputError, match="truth has no NCR, prediction has no NCR"):
        score_case(regions, regions, ONE_MM, "brats2024-ssa")


def test_regions_of_different_shapes_are_refused():
    """Regions of different shapes are refused."""
    mask = boxes(A)
    regions = {"WT": mask, "TC": mask[1:], "ET": mask}
    with pytest.raises(InputError, match=r"WT and TC: .*one shape"):
        score_case(regions, regions, ONE_MM, "brats2021")
