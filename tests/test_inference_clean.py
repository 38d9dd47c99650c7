"""Laws of post-processing: masks are nested, and components are removed only for their size and probability."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter, label
from scipy.special import expit, logit

from gliomask.errors import InputError
from gliomask.inference.postprocessing import clean, to_probabilities
from gliomask.labels import get_convention, to_labels
from gliomask.model.plan import Postprocessing, RegionRule

REGIONS = ("WT", "TC", "ET")
NOTHING = Postprocessing()
MM = (1.0, 1.0, 1.0)
EVERYWHERE = np.ones((3, 3, 3))


def cloudy(seed: int, regions: int = 3) -> np.ndarray:
    """Return probabilities that form blobs of all sizes."""
    noise = np.random.default_rng(seed).normal(size=(regions, 18, 16, 14))
    smooth = gaussian_filter(noise, (0, 1.2, 1.2, 1.2))
    return expit(smooth / smooth.std() * 2 - 1).astype(np.float32)


def boxes(*places: tuple[int, int, int, int], value: float = 0.9) -> np.ndarray:
    """Return one channel with boxes, given by their first voxel along x and their sizes."""
    channel = np.full((30, 12, 12), 0.01, np.float32)
    for start, x, y, z in places:
        channel[start : start + x, 2 : 2 + y, 2 : 2 + z] = value
    return channel


rules = st.builds(
    Postprocessing,
    regions=st.fixed_dictionaries(
        {
            region: st.builds(
                RegionRule,
                threshold=st.sampled_from([0.3, 0.5, 0.7]),
                least_mm3=st.sampled_from([0.0, 5.0, 40.0, 200.0]),
                least_probability=st.sampled_from([0.0, 0.6, 0.75]),
            )
            for region in REGIONS
        }
    ),
    least_et_mm3=st.sampled_from([0.0, 30.0, 300.0]),
    tc_threshold_without_et=st.sampled_from([None, 0.05, 0.4]),
)


@given(seed=st.integers(0, 10_000), rule=rules, spacing=st.sampled_from([MM, (0.5, 1.0, 3.0)]))
@settings(max_examples=60, deadline=None)
def test_masks_are_nested_without_small_components_and_idempotent(
    seed: int, rule: Postprocessing, spacing: tuple[float, float, float]
) -> None:
    """Under any rules: TC within WT, ET within TC, no component too small, and a second run changes nothing."""
    masks = clean(cloudy(seed), REGIONS, rule, spacing)
    wt, tc, et = masks
    assert not (tc & ~wt).any()
    assert not (et & ~tc).any()
    for region, mask in zip(REGIONS, masks, strict=True):
        pieces, count = label(mask, EVERYWHERE)
        sizes = np.bincount(pieces.ravel())[1:] * np.prod(spacing)
        assert count == 0 or sizes.min() >= rule.rule(region).least_mm3
    assert not 0 < et.sum() * np.prod(spacing) < rule.least_et_mm3
    np.testing.assert_array_equal(clean(masks.astype(np.float32), REGIONS, rule, spacing), masks)


@pytest.mark.parametrize("regions", [("WT", "TC", "ET"), ("ET", "WT"), ("WT", "TC", "ET", "RC"), ("RC", "TC"), ("WT",)])
def test_without_rules_the_threshold_is_one_half(regions: tuple[str, ...]) -> None:
    """The label map is that of the threshold alone, for any order of the channels; arguments are not changed."""
    probabilities = cloudy(1, len(regions))
    before = probabilities.copy()
    numbers = get_convention("brats2024")
    masks = clean(probabilities, regions, NOTHING, MM)
    expected = to_labels(probabilities > 0.5, regions, numbers)
    np.testing.assert_array_equal(to_labels(masks, regions, numbers), expected)
    np.testing.assert_array_equal(probabilities, before)


def test_each_region_has_its_threshold() -> None:
    """Voxels belong to a region if their probability is above its threshold, not equal to it."""
    probabilities = np.full((2, 4, 4, 4), 0.4, np.float32)
    rule = Postprocessing(regions={"WT": RegionRule(threshold=0.35), "TC": RegionRule(threshold=0.45)})
    masks = clean(probabilities, ("WT", "TC"), rule, MM)
    assert masks[0].all()
    assert not masks[1].any()
    assert not clean(probabilities, ("WT", "TC"), Postprocessing(regions={"WT": RegionRule(threshold=0.4)}), MM).any()


@pytest.mark.parametrize("spacing", [MM, (1.0, 1.0, 3.0), (0.5, 0.5, 0.5), (0.9, 1.1, 2.4)])
def test_sizes_are_in_mm3_on_any_grid(spacing: tuple[float, float, float]) -> None:
    """A component of exactly the smallest size is kept; one with a voxel less is removed."""
    channel = boxes((2, 2, 2, 5), (12, 1, 1, 19))[None]
    channel[0, 12, 2, 2:21] = 0.01
    channel[0, 12:31, 2, 2] = 0.9  # 18 voxels in a row
    voxel = float(np.prod(spacing))
    for least, kept in ((18.0, 38), (18.5, 20), (20.0, 20), (20.5, 0)):
        rule = Postprocessing(regions={"WT": RegionRule(least_mm3=least * voxel)})
        assert clean(channel, ("WT",), rule, spacing).sum() == kept


def test_components_are_connected_over_corners() -> None:
    """Components are 26-connected, as in the challenge's count of lesions."""
    channel = np.zeros((1, 8, 8, 8), np.float32)
    channel[0, 1:3, 1:3, 1:3] = 0.9
    channel[0, 3:5, 3:5, 3:5] = 0.9
    rule = Postprocessing(regions={"WT": RegionRule(least_mm3=16)})
    assert clean(channel, ("WT",), rule, MM).sum() == 16


def test_a_removed_component_becomes_part_of_the_region_around_it() -> None:
    """ET becomes part of TC, TC of WT, and WT becomes background together with everything inside it."""
    probabilities = np.stack(
        [
            boxes((1, 12, 6, 6), (20, 3, 3, 3)),  # a large and a small WT
            boxes((1, 4, 4, 4), (8, 2, 2, 2), (20, 3, 3, 3)),
            boxes((1, 1, 1, 1), (3, 2, 3, 3), (20, 3, 3, 3)),
        ]
    )
    least = {"WT": RegionRule(least_mm3=100), "TC": RegionRule(least_mm3=20), "ET": RegionRule(least_mm3=5)}
    wt, tc, et = clean(probabilities, REGIONS, Postprocessing(regions=least), MM)
    assert wt.sum() == 12 * 6 * 6
    assert tc.sum() == 4 * 4 * 4
    assert et.sum() == 2 * 3 * 3
    numbers = get_convention("brats2021")
    labels = to_labels(np.stack([wt, tc, et]), REGIONS, numbers)
    assert labels[1, 2, 2] == 1  # a voxel of ET is NCR now
    assert labels[8, 2, 2] == 2  # a small core is oedema now
    assert labels[21, 3, 3] == 0


def test_an_uncertain_component_is_removed() -> None:
    """The criterion is its mean probability, not its largest."""
    channel = boxes((2, 3, 3, 3), value=0.95) + boxes((12, 3, 3, 3), value=0.6)
    channel[13, 3, 3] = 0.99
    rule = Postprocessing(regions={"WT": RegionRule(least_probability=0.7)})
    (mask,) = clean(channel[None], ("WT",), rule, MM)
    assert mask[:6].sum() == 27
    assert not mask[10:].any()


def test_a_large_uncertain_component_is_kept() -> None:
    """From `kept_mm3` on, the size of a component counts and its mean probability does not."""
    channel = boxes((2, 3, 3, 3), (12, 3, 3, 2), value=0.6)
    rule = RegionRule(least_probability=0.7, kept_mm3=27)
    (mask,) = clean(channel[None], ("WT",), Postprocessing(regions={"WT": rule}), MM)
    assert mask[:6].sum() == 27
    assert not mask[10:].any()
    (mask,) = clean(channel[None], ("WT",), Postprocessing(regions={"WT": rule}), (1.0, 1.0, 1.5))
    assert mask.sum() == 45
    small = rule.model_copy(update={"least_mm3": 30})
    assert not clean(channel[None], ("WT",), Postprocessing(regions={"WT": small}), MM).any()


def test_a_small_total_of_enhancing_tumour_is_removed() -> None:
    """The total volume counts, and the removed voxels stay part of the core."""
    core = boxes((1, 25, 6, 6))
    probabilities = np.stack([core, core, boxes((2, 2, 2, 2), (10, 2, 2, 2))])
    for least, left in ((16.0, 16), (16.5, 0)):
        masks = clean(probabilities, REGIONS, Postprocessing(least_et_mm3=least), MM)
        assert masks[2].sum() == left
        assert masks[1].sum() == 25 * 36


def test_a_cavity_is_not_nested() -> None:
    """RC loses its small components and does not change WT."""
    cavity = boxes((20, 4, 4, 4), (27, 1, 1, 1))
    probabilities = np.stack([boxes((1, 5, 5, 5)), cavity])
    rule = Postprocessing(regions={"RC": RegionRule(least_mm3=2)})
    masks = clean(probabilities, ("WT", "RC"), rule, MM)
    assert masks[0].sum() == 125
    assert masks[1].sum() == 64


def test_a_temperature_divides_the_logits_of_its_region() -> None:
    """A temperature above 1 moves probabilities towards one half; the mask at one half stays the same."""
    logits = np.random.default_rng(0).normal(0, 6, (3, 5, 6, 7)).astype(np.float32)
    rule = Postprocessing(regions={"TC": RegionRule(temperature=2.5)})
    found = to_probabilities(logits, REGIONS, rule)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], expit(logits[0]), atol=1e-6)
    np.testing.assert_allclose(logit(found[1].astype(float)), logits[1] / 2.5, atol=1e-3)
    np.testing.assert_array_equal(clean(found, REGIONS, rule, MM), clean(expit(logits), REGIONS, NOTHING, MM))
    extreme = to_probabilities(np.array([[-200.0, 200.0]], np.float32), ("WT",), NOTHING)
    np.testing.assert_array_equal(extreme, [[0, 1]])


@pytest.mark.parametrize(
    "fields",
    [{"threshold": 0}, {"threshold": 1}, {"temperature": 0}, {"temperature": float("inf")}, {"least_mm3": -1}],
)
def test_an_invalid_rule_is_refused(fields: dict[str, float]) -> None:
    """The error names the field."""
    with pytest.raises(ValidationError, match=next(iter(fields))):
        RegionRule(**fields)
    with pytest.raises(InputError, match="unknown region 'ED'"):
        Postprocessing(regions={"ED": RegionRule()})


def test_without_contrast_the_core_has_no_smallest_probability() -> None:
    """Without t1c all components of TC and ET are uncertain: only their size counts; the rule of WT is unchanged."""
    rule = RegionRule(threshold=0.45, least_mm3=20, least_probability=0.7)
    rules = Postprocessing(regions=dict.fromkeys(REGIONS, rule), least_et_mm3=30)
    assert rules.given(("t1c", "t2f")) == rules
    without = rules.given(("t1n", "t2w", "t2f"))
    assert without.regions["WT"] == rule
    assert without.regions["TC"] == without.regions["ET"] == RegionRule(threshold=0.45, least_mm3=20)
    assert without.least_et_mm3 == 30
    assert NOTHING.given(()) == NOTHING
    doubtful = np.stack([boxes((2, 6, 6, 6)), boxes((2, 6, 6, 6), value=0.6), boxes((2, 5, 5, 5), value=0.5)])
    assert [mask.sum() for mask in clean(doubtful, REGIONS, rules, MM)] == [216, 0, 0]
    assert [mask.sum() for mask in clean(doubtful, REGIONS, without, MM)] == [216, 216, 125]


def test_a_core_without_enhancement_has_its_own_threshold() -> None:
    """It applies in cases without ET, within WT, and not to components that are too small."""
    rules = Postprocessing(regions={"TC": RegionRule(least_mm3=20, least_probability=0.7)}, tc_threshold_without_et=0.1)
    whole = boxes((2, 6, 6, 6))
    faint = boxes((2, 4, 4, 4), (7, 1, 1, 1), (20, 5, 5, 5), value=0.2)
    none, some = boxes(), boxes((2, 3, 3, 3))
    sure = np.maximum(faint, some)
    assert [mask.sum() for mask in clean(np.stack([whole, faint, none]), REGIONS, rules, MM)] == [216, 64, 0]
    assert [mask.sum() for mask in clean(np.stack([whole, sure, some]), REGIONS, rules, MM)] == [216, 27, 27]
    too_little = rules.model_copy(update={"least_et_mm3": 30})
    assert [mask.sum() for mask in clean(np.stack([whole, sure, some]), REGIONS, too_little, MM)] == [216, 64, 0]
    plain = rules.model_copy(update={"tc_threshold_without_et": None})
    assert [mask.sum() for mask in clean(np.stack([whole, faint, none]), REGIONS, plain, MM)] == [216, 0, 0]
