"""Labels: what the numbers mean, and that nothing is lost or guessed between conventions."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conftest import nested_ellipsoids
from gliomask.errors import InputError
from gliomask.labels import (
    CONVENTIONS,
    REGIONS,
    TISSUES,
    LabelConvention,
    check_labels,
    convert_labels,
    count_labels,
    detect_convention,
    get_convention,
    label_values,
    oedema_is_outermost,
    to_labels,
    to_regions,
)

every_convention = pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=list(CONVENTIONS))


def random_labels(convention: LabelConvention, seed: int = 0) -> np.ndarray:
    """Return a label map with every number of a convention at random places."""
    return np.random.default_rng(seed).choice(sorted(convention.values), (6, 7, 5)).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "regions"),
    [
        ("brats2021", {"WT": {1, 2, 4}, "TC": {1, 4}, "ET": {4}}),
        ("brats2023", {"WT": {1, 2, 3}, "TC": {1, 3}, "ET": {3}}),
        ("brats2024", {"WT": {1, 2, 3}, "TC": {1, 3}, "ET": {3}, "RC": {4}}),
        ("brats2024-ped", {"WT": {1, 2, 3, 4}, "TC": {1, 2, 3}, "ET": {1}}),
        ("msd", {"WT": {1, 2, 3}, "TC": {2, 3}, "ET": {3}}),
        ("hd-glio", {"WT": {1, 2}, "TC": {2}, "ET": {2}}),
        ("wt-only", {"WT": {1}}),
        ("tc-only", {"TC": {1}}),
    ],
)
def test_the_regions_are_those_of_the_challenge(name: str, regions: dict[str, set[int]]) -> None:
    """Written out by hand from each year's rules; the cavity is in neither whole tumour nor core."""
    assert get_convention(name).regions == regions


def test_the_table_is_whole() -> None:
    """Each convention names tissues that exist, once each, under numbers that a uint8 mask can hold."""
    for name, convention in CONVENTIONS.items():
        assert convention.name == name
        assert set(convention.tissues.values()) <= set(TISSUES)
        assert len(set(convention.tissues.values())) == len(convention.tissues)
        assert all(0 < value < 256 for value in convention.tissues)
        assert convention.values == {0, *convention.tissues}
        for value, tissue in convention.tissues.items():
            assert convention.value_of(tissue) == value
            assert f"{value} {tissue}" in str(convention)
    assert get_convention("brats2021").value_of("RC") is None


def test_an_unknown_convention_is_met_with_the_known_ones() -> None:
    """A misspelt name gets a hint, and the list says which years each convention is for."""
    with pytest.raises(InputError, match="brats2021 for BraTS 2017-2022; brats2023 for BraTS 2023 GLI"):
        get_convention("brats2020")
    with pytest.raises(InputError, match=re.escape("did you mean 'brats2023'")):
        get_convention("brats-2023")


@every_convention
def test_region_channels_follow_the_definition(convention: LabelConvention) -> None:
    """A voxel is in a region if its tissue belongs to it; channels are in the order asked for."""
    labels = random_labels(convention)
    regions = ("ET", "RC", "WT", "TC")
    masks = to_regions(labels, convention, regions)
    assert masks.dtype == bool
    for region, mask in zip(regions, masks, strict=True):
        members = REGIONS[region] if region in convention.known else set()
        by_hand = [convention.tissues.get(int(value), "") in members for value in labels.ravel()]
        np.testing.assert_array_equal(mask.ravel(), by_hand)


@every_convention
def test_regions_go_back_to_the_labels_they_came_from(convention: LabelConvention) -> None:
    """Only the cystic component of PED is lost, because no region distinguishes it from the core."""
    labels = random_labels(convention)
    regions = tuple(convention.regions)
    back = to_labels(to_regions(labels, convention, regions), regions, convention)
    expected = labels.copy()
    if convention.value_of("CC"):
        expected[labels == convention.value_of("CC")] = convention.value_of("NCR")
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, expected)


@every_convention
@settings(max_examples=30, deadline=None)
@given(masks=arrays(bool, (3, 3, 2, 2)), order=st.permutations(["WT", "TC", "ET"]))
def test_answers_are_nested_whatever_the_network_says(
    convention: LabelConvention, masks: np.ndarray, order: list[str]
) -> None:
    """ET is kept as it is, TC grows by it and WT by both; the channels' order does not matter.

    A convention of one region keeps that one as it is.

    HD-GLIO has no number for necrosis: core that does not enhance is oedema there.
    """
    said = dict(zip(order, masks, strict=True))
    nested = to_regions(to_labels(masks, order, convention), convention, ("WT", "TC", "ET"))
    if len(convention.known) == 1:
        (region,) = convention.known
        np.testing.assert_array_equal(nested[["WT", "TC", "ET"].index(region)], said[region])
        return
    core = said["TC"] | said["ET"]
    np.testing.assert_array_equal(nested[2], said["ET"])
    np.testing.assert_array_equal(nested[1], core if convention.value_of("NCR") else said["ET"])
    np.testing.assert_array_equal(nested[0], said["WT"] | core)


def test_a_region_alone_is_painted_alone() -> None:
    """A network with one output writes one number, and its result is kept in every convention."""
    mask = np.zeros((1, 3, 3, 3), bool)
    mask[0, 1] = True
    for convention in CONVENTIONS.values():
        for region in {"WT", "TC", "ET"} & set(convention.known):
            labels = to_labels(mask, [region], convention)
            np.testing.assert_array_equal(to_regions(labels, convention, [region]), mask)
    assert label_values(to_labels(mask, ["WT"], get_convention("brats2021"))) == [0, 2]
    assert label_values(to_labels(mask, ["TC"], get_convention("msd"))) == [0, 2]


def test_a_cavity_never_becomes_tumour() -> None:
    """If the convention has no number for the cavity, it is left out."""
    masks = to_regions(
        random_labels(get_convention("brats2024")), get_convention("brats2024"), ("WT", "TC", "ET", "RC")
    )
    for name in ("brats2021", "brats2023", "msd", "hd-glio", "brats2024-ped"):
        with_cavity = to_labels(masks, ("WT", "TC", "ET", "RC"), get_convention(name))
        np.testing.assert_array_equal(with_cavity, to_labels(masks[:3], ("WT", "TC", "ET"), get_convention(name)))


@every_convention
def test_converting_keeps_every_tissue(convention: LabelConvention) -> None:
    """Labels can be converted to any convention that can express them, and back, without a change."""
    for target in CONVENTIONS.values():
        shared = {tissue for tissue in convention.tissues.values() if target.value_of(tissue)}
        labels = random_labels(convention)
        labels[~np.isin(labels, [0, *(convention.value_of(tissue) or 0 for tissue in shared)])] = 0
        there = convert_labels(labels, convention, target, "case")
        for tissue in shared:
            np.testing.assert_array_equal(there == target.value_of(tissue), labels == convention.value_of(tissue))
        np.testing.assert_array_equal(convert_labels(there, target, convention, "case"), labels)


def test_a_tissue_without_a_number_is_refused_only_where_it_is() -> None:
    """A resection cavity cannot be written as BraTS 2021; a case of that year without one can."""
    labels = random_labels(get_convention("brats2024"))
    with pytest.raises(InputError, match=r"case-7: RC \(resection cavity\) has no number in brats2021"):
        convert_labels(labels, get_convention("brats2024"), get_convention("brats2021"), "case-7")
    labels[labels == 4] = 0
    converted = convert_labels(labels, get_convention("brats2024"), get_convention("brats2021"), "case-7")
    assert label_values(converted) == [0, 1, 2, 4]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({0, 1, 2, 4}, "brats2021"),
        ({1, 2, 4}, "brats2021"),
        ({0, 4}, "brats2021"),
        ({0, 2, 4}, "brats2021"),
        ({0}, None),
        (set(), None),
    ],
)
def test_numbers_that_prove_a_convention(values: set[int], name: str | None) -> None:
    """A 4 without a 3 is BraTS 2017 to 2022; background alone proves nothing."""
    found = detect_convention(values, "mask.nii")
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    ("values", "choices"),
    [
        ({0, 1, 2, 3}, {"brats2023", "brats2024", "brats2024-ped", "msd"}),
        ({0, 1, 2, 3, 4}, {"brats2024", "brats2024-ped"}),
        ({0, 1}, set(CONVENTIONS)),
        ({0, 1, 2}, set(CONVENTIONS) - {"wt-only", "tc-only"}),
    ],
)
def test_numbers_that_prove_nothing_are_refused_with_the_choices(values: set[int], choices: set[str]) -> None:
    """A wrong guess would train on swapped labels and never be noticed."""
    with pytest.raises(InputError, match=r"^mask\.nii: .*ambiguous.*--labels") as caught:
        detect_convention(values, "mask.nii")
    assert {name for name in CONVENTIONS if f"{name} (" in str(caught.value)} == choices


@pytest.mark.parametrize("values", [{0, 7}, {1, 2, 3, 4, 5}, {0, 255}])
def test_numbers_of_no_convention_are_refused(values: set[int]) -> None:
    """An atlas or a brain mask is no tumour mask."""
    with pytest.raises(InputError, match=r"^atlas\.nii: .*fit no known convention.*tumour mask\?"):
        detect_convention(values, "atlas.nii")


def test_a_layout_may_leave_fewer_conventions() -> None:
    """A 4 proves the later of BraTS-PED's two conventions; numbers that fit neither are refused."""
    candidates = ("brats2023", "brats2024-ped")
    for values in ({0, 4}, {0, 1, 2, 4}, {1, 2, 3, 4}):
        found = detect_convention(values, "mask.nii", candidates)
        assert found is not None
        assert found.name == "brats2024-ped"
    with pytest.raises(InputError, match=r"ambiguous: brats2023 \(.*; brats2024-ped \([^;]*$"):
        detect_convention({0, 1, 2, 3}, "mask.nii", candidates)
    with pytest.raises(InputError, match=r"fit no known convention \(brats2023 \(.*; brats2024-ped \([^;]*$"):
        detect_convention({0, 5}, "mask.nii", candidates)


def test_a_number_outside_the_convention_is_named_with_the_conventions_that_fit() -> None:
    """The message also says how to choose one of them."""
    check_labels({0, 1, 2, 4}, get_convention("brats2021"), "a.nii")
    check_labels((), get_convention("brats2021"), "a.nii")
    with pytest.raises(InputError) as caught:
        check_labels([0, 1, 2, 4], get_convention("brats2023"), "a.nii")
    message = str(caught.value)
    assert message.startswith("a.nii: labels {4} are not in brats2023")
    assert "found {0, 1, 2, 4}" in message
    assert "The conventions that fit: brats2021, brats2024, brats2024-ped; choose with --labels" in message
    with pytest.raises(InputError, match="No known convention fits"):
        check_labels([0, 9], get_convention("brats2023"), "a.nii")


@settings(max_examples=30, deadline=None)
@given(labels=arrays(np.uint8, (3, 4, 2)), order=st.sampled_from("CF"))
def test_counts_are_those_of_numpy(labels: np.ndarray, order: str) -> None:
    """The counts are right in either order of memory, including those of 0 and 255."""
    values, counts = np.unique(labels, return_counts=True)
    found = count_labels(np.asarray(labels, order=order))
    assert found.shape == (256,)
    assert label_values(labels) == values.tolist()
    np.testing.assert_array_equal(found[values], counts)
    assert found.sum() == labels.size


@pytest.mark.parametrize("order", ["C", "F"])
def test_oedema_lies_outermost_only_in_the_right_convention(order: str) -> None:
    """A BraTS mask that is read as MSD, in which 1 and 2 are exchanged, has its oedema inside."""
    tissues = np.asarray(nested_ellipsoids()[1], order=order)
    assert oedema_is_outermost(tissues, get_convention("brats2023"))
    assert not oedema_is_outermost(tissues, get_convention("msd"))


def test_a_mask_that_lacks_a_tissue_proves_nothing() -> None:
    """The same is true of a mask with only a few voxels of a tissue."""
    tissues = nested_ellipsoids()[1]
    few = np.where((tissues == 1) & (np.cumsum(tissues == 1).reshape(tissues.shape) > 49), 0, tissues)
    assert (few == 1).sum() == 49
    for labels in (few, np.where(tissues == 3, 0, tissues), np.zeros_like(tissues)):
        assert oedema_is_outermost(labels, get_convention("msd"))
