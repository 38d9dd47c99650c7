"""The cache: prepared once, read as it was written, and prepared again where something has changed."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import AFFINE, SHAPE, nested_ellipsoids
from gliomask.cases import Case, find_cases
from gliomask.errors import InputError
from gliomask.files import one_writer
from gliomask.inference.preprocessing import brain_box, common_spacing
from gliomask.labels import get_convention, to_regions
from gliomask.model.plan import Plan
from gliomask.training import cache
from gliomask.training.cache import CachedCase, build_cache, cache_plan, is_cache, open_cache
from gliomask.volume import Volume, read_volume, write_volume


@pytest.fixture
def cases(folder_of: Callable[..., Path]) -> list[Case]:
    return find_cases(folder_of(3))


@pytest.fixture
def plan(cases: list[Case]) -> Plan:
    return Plan(modalities=("t2f", "t1c"), spacing_mm=common_spacing(cases, "LPS"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def build(cases: list[Case], folder: Path, plan: Plan) -> list[CachedCase]:
    prepared, problems = build_cache(cases, folder, plan, threads=2)
    assert problems == []
    return prepared


def times(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_cache_is_opened_as_it_was_built(cases: list[Case], folder: Path, plan: Plan) -> None:
    """All facts of all cases in the order of their ids, and the plan that the cache was made for."""
    assert not is_cache(folder)
    built = build(cases[::-1], folder, plan)
    assert [case.id for case in built] == [case.id for case in cases[::-1]]
    assert open_cache(folder, plan) == built[::-1]
    assert is_cache(folder)
    assert cache_plan(folder) == plan


def test_it_holds_the_brains_box_of_the_sequences_and_the_mask(cases: list[Case], folder: Path, plan: Plan) -> None:
    """In the plan's order, with the original intensities and numbers."""
    for number, case in enumerate(build(cases, folder, plan), 1):
        images, tissues = nested_ellipsoids(number)
        whole = np.stack([images["t2f"], images["t1c"]])
        x, y, z = brain_box(whole)
        np.testing.assert_array_equal(case.image(), whole[:, x, y, z])
        np.testing.assert_array_equal(case.labels(), np.asarray([0, 1, 2, 4], np.uint8)[tissues[x, y, z]])
        assert case.image().dtype == np.int16
        assert case.labels().dtype == np.uint8
        assert case.shape == case.labels().shape < SHAPE
        assert isinstance(case.image(), np.memmap)
        assert (case.id, case.patient, case.convention) == (
            cases[number - 1].id,
            cases[number - 1].patient,
            "brats2021",
        )
        np.testing.assert_allclose(case.spacing_mm, plan.spacing_mm, atol=0.01)


def test_moments_and_voxels_are_those_of_the_whole_case(cases: list[Case], folder: Path, plan: Plan) -> None:
    """Mean and deviation over each sequence's non-zero voxels; voxels of each region."""
    for number, case in enumerate(build(cases, folder, plan), 1):
        images, tissues = nested_ellipsoids(number)
        for modality, moments in zip(("t2f", "t1c"), case.moments, strict=True):
            brain = images[modality][images[modality] != 0]
            assert (moments.mean, moments.std) == (pytest.approx(brain.mean()), pytest.approx(brain.std()))
            assert (moments.least, moments.most) == (0, brain.max())
        assert case.voxels == {
            "WT": (tissues > 0).sum(),
            "TC": np.isin(tissues, (1, 3)).sum(),
            "ET": (tissues == 3).sum(),
        }
        assert case.outside == {"WT": 0, "TC": 0, "ET": 0}


def test_places_lie_in_their_region(cases: list[Case], folder: Path, plan: Plan) -> None:
    """A small region has all of its voxels; a region without voxels has no places."""
    mask = read_volume(cases[0].mask, mask=True)
    write_volume(cases[0].mask, Volume(np.where(mask.data == 4, 1, mask.data), mask.affine))
    for case in build(cases, folder, plan):
        regions = to_regions(case.labels(), get_convention("brats2021"))
        places = case.places()
        assert set(places) == {region for region, voxels in case.voxels.items() if voxels}
        for region, inside in zip(("WT", "TC", "ET"), regions, strict=True):
            if region in places:
                assert inside[tuple(places[region].T)].all()
                assert len(np.unique(places[region], axis=0)) == case.voxels[region]


def test_places_of_a_large_region_are_spread_over_it(write_case: Callable[..., Case], folder: Path) -> None:
    """A limited number of different voxels from the first slice to the last, with the same centre."""
    case = write_case(shape=(48, 44, 40))
    (prepared,) = build([case], folder, Plan(modalities=("t2f",), spacing_mm=common_spacing([case], "LPS")))
    places = prepared.places()["WT"]
    whole = np.argwhere(prepared.labels() > 0)
    assert len(whole) > 2 * len(places) == 2 * len(np.unique(places, axis=0)) == 4096
    np.testing.assert_array_equal((places[:, 0].min(), places[:, 0].max()), (whole[:, 0].min(), whole[:, 0].max()))
    np.testing.assert_allclose(places.mean(axis=0), whole.mean(axis=0), atol=0.5)


def test_tumour_that_the_box_cuts_off_is_counted(cases: list[Case], folder: Path, plan: Plan) -> None:
    """A voxel of oedema and one of core where every sequence is zero."""
    mask = read_volume(cases[0].mask, mask=True)
    labels = mask.data.copy()
    labels[0, 0, 0, :2] = (2, 1)
    write_volume(cases[0].mask, Volume(labels, mask.affine))
    first, second, _ = build(cases, folder, plan)
    assert first.outside == {"WT": 2, "TC": 1, "ET": 0}
    assert first.voxels["WT"] == (labels > 0).sum()
    assert second.outside == {"WT": 0, "TC": 0, "ET": 0}


def test_an_absent_sequence_is_zero_and_said(write_case: Callable[..., Case], folder: Path) -> None:
    """The cached case says which channels are present."""
    case = write_case(missing=["t1c"])
    plan = Plan(modalities=("t1c", "t2f"), spacing_mm=common_spacing([case], "LPS"))
    (prepared,) = build([case], folder, plan)
    assert prepared.present == (False, True)
    assert not prepared.image()[0].any()


@pytest.mark.parametrize(
    ("stored", "kept"), [("int16", "int16"), ("uint8", "int16"), ("int32", "int16"), ("float32", "float32")]
)
def test_integers_are_kept_in_16_bits_and_floats_as_they_are(
    cases: list[Case], folder: Path, plan: Plan, stored: str, kept: str
) -> None:
    """The values are exactly the same."""
    values = np.clip(nested_ellipsoids(1)[0]["t2f"] // 10, 0, 250).astype(stored)
    values = values / np.float32(7) if stored == "float32" else values
    for source in cases[0].images.values():
        write_volume(source.path, Volume(values[None], AFFINE))
    image = build(cases[:1], folder, plan)[0].image()
    assert image.dtype == kept
    x, y, z = brain_box(values[None])
    np.testing.assert_array_equal(image[0], values[x, y, z])


def test_integers_past_16_bits_become_floats(cases: list[Case], folder: Path, plan: Plan) -> None:
    """In 16 bits they would overflow."""
    values = np.where(nested_ellipsoids(1)[0]["t2f"] > 0, 40_000, 0).astype(np.uint16)
    for source in cases[0].images.values():
        write_volume(source.path, Volume(values[None], AFFINE))
    image = build(cases[:1], folder, plan)[0].image()
    assert image.dtype == np.float32
    assert image.max() == 40_000


def test_another_spacing_is_resampled(cases: list[Case], folder: Path) -> None:
    """Images linearly, as floats; masks by the nearest voxel."""
    case = build(cases, folder, Plan(modalities=("t2f",), spacing_mm=(1.5, 1.5, 1.5)))[0]
    np.testing.assert_allclose(case.spacing_mm, 1.5, rtol=0.03)
    assert case.image().dtype == np.float32
    assert set(np.unique(case.labels())) == {0, 1, 2, 4}
    volume_ratio = np.prod(np.linalg.norm(AFFINE[:3, :3], axis=0)) / np.prod(case.spacing_mm)
    assert case.voxels["WT"] == pytest.approx((nested_ellipsoids(1)[1] > 0).sum() * volume_ratio, rel=0.05)


def test_a_second_build_does_nothing(cases: list[Case], folder: Path, plan: Plan) -> None:
    """No file is written again, whatever else of the plan has changed."""
    built = build(cases, folder, plan)
    before = times(folder)
    other = plan.model_copy(update={"network": "vnet", "normalization": "minmax", "patch_size": (8, 8, 8)})
    assert build(cases, folder, other) == built
    assert times(folder) == before


def test_an_interrupted_build_goes_on_where_it_was(cases: list[Case], folder: Path, plan: Plan) -> None:
    """Finished cases are kept; an unfinished one is prepared."""
    build(cases[:2], folder, plan)
    (folder / cases[1].id / "case.json").unlink()
    before = times(folder / cases[0].id)
    assert len(build(cases, folder, plan)) == 3
    assert times(folder / cases[0].id) == before
    assert len(open_cache(folder, plan)) == 3


@pytest.mark.parametrize("what", ["image", "mask"])
def test_a_changed_file_is_prepared_anew(cases: list[Case], folder: Path, plan: Plan, what: str) -> None:
    """Only the case that it belongs to."""
    old = build(cases, folder, plan)
    before = times(folder)
    path = cases[1].images["t2f"].path if what == "image" else cases[1].mask
    volume = read_volume(path)
    write_volume(path, Volume(volume.data // 2, volume.affine))
    os.utime(path, ns=(1, 1))
    new = build(cases, folder, plan)
    assert new[1] != old[1]
    assert (new[0], new[2]) == (old[0], old[2])
    changed = {name for name, time in times(folder).items() if time != before[name]}
    assert changed == {f"{cases[1].id}/{name}" for name in ("image.npy", "labels.npy", "places.npz", "case.json")}


@pytest.mark.parametrize("layout", ["brats2021", "msd"])
def test_a_corrected_sequence_is_prepared_anew(
    folder_of: Callable[..., Path], folder: Path, plan: Plan, layout: str
) -> None:
    """Which file, or which channel of one file, is which sequence; their order says nothing."""
    case = find_cases(folder_of(1, layout))[0]
    (old,) = build([case], folder, plan)
    before, image = times(folder), np.array(old.image())
    assert build([replace(case, images=dict(reversed(case.images.items())))], folder, plan) == [old]
    assert times(folder) == before
    images = case.images | {"t2f": case.images["t1c"], "t1c": case.images["t2f"]}
    (new,) = build([replace(case, images=images)], folder, plan)
    np.testing.assert_array_equal(new.image(), image[::-1])
    assert new.files["t2f"] == old.files["t1c"]


def test_another_convention_is_prepared_anew(cases: list[Case], folder: Path, plan: Plan) -> None:
    """Because the same numbers mean other regions."""
    build(cases, folder, plan)
    (case,) = build([replace(cases[0], convention="brats2024-ped")], folder, plan)
    assert case.convention == "brats2024-ped"
    assert case.voxels["ET"] == (nested_ellipsoids(1)[1] == 1).sum()


@pytest.mark.parametrize(
    "changes", [{"modalities": ("t1c", "t2f")}, {"modalities": ("t2f",)}, {"axes": "RAS"}, {"spacing_mm": (1, 1, 1)}]
)
def test_a_cache_for_something_else_is_refused(
    cases: list[Case], folder: Path, plan: Plan, changes: dict[str, object]
) -> None:
    """Other sequences or another order of them, another orientation or spacing; the cache is not changed."""
    build(cases, folder, plan)
    before = times(folder)
    other = Plan(**(plan.model_dump() | changes))
    attempts = [lambda: build_cache(cases, folder, other)]
    if "modalities" not in changes:  # these may be among what it holds
        attempts.append(lambda: open_cache(folder, other))
    for attempt in attempts:
        with pytest.raises(InputError, match=r"holds a cache of t2f, t1c .*is asked for\. Use another") as caught:
            attempt()
        assert str(caught.value).startswith(f"{folder}: ")
    assert times(folder) == before


def test_a_cache_serves_plans_that_want_less(cases: list[Case], folder: Path, plan: Plan) -> None:
    """With any of its sequences in any order; a missing one is named."""
    build(cases, folder, plan)
    for modalities in (("t1c", "t2f"), ("t2f",)):
        opened = open_cache(folder, plan.model_copy(update={"modalities": modalities}))
        assert [case.id for case in opened] == sorted(case.id for case in cases)
    with pytest.raises(InputError, match="t2w"):
        open_cache(folder, plan.model_copy(update={"modalities": ("t2f", "t2w")}))


def test_a_bad_case_is_a_problem_and_the_others_are_done(cases: list[Case], folder: Path, plan: Plan) -> None:
    """Whatever is wrong is reported with the id, and nothing of the case remains in the cache."""
    cases[0].images["t2f"].path.write_bytes(b"")
    told: list[str] = []
    bad = [
        cases[0],
        replace(cases[1], id="no mask", mask=None),
        replace(cases[1], id="no convention", convention=None),
        replace(cases[1], id="other numbers", convention="msd"),
        replace(cases[1], id="gone", mask=cases[1].mask.with_name("gone.nii.gz")),
    ]
    prepared, problems = build_cache([*bad, *cases[1:]], folder, plan, on_case=told.append)
    assert [case.id for case in prepared] == [case.id for case in cases[1:]]
    assert [problem.where for problem in problems] == [case.id for case in bad]
    for problem, text in zip(
        problems,
        ("not a NIfTI file", "has no mask", "convention", "labels {4} are not in msd", "cannot be read"),
        strict=True,
    ):
        assert text in problem.what
        assert not problem.what.startswith(problem.where)
    assert sorted(told) == sorted(case.id for case in (*bad, *cases[1:]))
    assert open_cache(folder, plan) == prepared


@pytest.mark.parametrize("gone", [True, False])
def test_a_case_that_cannot_be_prepared_any_more_leaves_the_cache(
    cases: list[Case], folder: Path, plan: Plan, gone: bool
) -> None:
    """What was prepared from other files is not trained on; the case is there again when its files are."""
    built = build(cases, folder, plan)
    path = cases[1].mask
    whole, time = path.read_bytes(), path.stat().st_mtime_ns
    if gone:
        path.unlink()
    else:
        path.write_bytes(whole[:60])
    _, (problem,) = build_cache(cases, folder, plan)
    assert problem.where == cases[1].id
    assert open_cache(folder, plan) == [built[0], built[2]]
    path.write_bytes(whole)
    os.utime(path, ns=(time, time))
    assert build(cases, folder, plan) == open_cache(folder, plan) == built


def test_prepare_names_the_cases_that_stay(cases: list[Case], gliomask, folder: Path, tmp_path: Path) -> None:
    """Those that are no longer among the cases given."""
    assert gliomask("prepare", tmp_path / "data", "-o", folder)[0] == 0
    (tmp_path / "data" / cases[1].id).rename(tmp_path / cases[1].id)
    status, said = gliomask("prepare", tmp_path / "data", "-o", folder)
    assert (status, f"1 further case in the cache, which training uses too: {cases[1].id}" in said) == (0, True), said


def test_a_mask_on_another_grid_is_a_problem(cases: list[Case], folder: Path, plan: Plan) -> None:
    """Its voxels would not match those of the images."""
    affine = AFFINE.copy()
    affine[:3, 3] += 5
    write_volume(cases[0].mask, Volume(read_volume(cases[0].mask).data, affine))
    _, (problem,) = build_cache(cases, folder, plan)
    assert problem.where == cases[0].id
    assert problem.what.startswith(f"the grid of {cases[0].mask} differs from that of the images in origin")


def test_a_full_disk_leaves_no_half_case(
    cases: list[Case], folder: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cases in the cache are complete; the others are prepared when there is space."""
    build(cases[:1], folder, plan)

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        prepared, problems = build_cache(cases, folder, plan)
        assert [case.id for case in prepared] == [cases[0].id]
        assert all("No space left on device" in problem.what for problem in problems)
    assert open_cache(folder, plan) == prepared
    assert len(build(cases, folder, plan)) == 3
    assert not list(folder.rglob(".partial*"))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"stamp": 1}', '{"moments": [1]}'])
def test_a_damaged_case_is_named_when_opened_and_made_anew_when_built(
    cases: list[Case], folder: Path, plan: Plan, content: str
) -> None:
    """The message says what to do."""
    built = build(cases, folder, plan)
    path = folder / cases[1].id / "case.json"
    path.write_text(content)
    with pytest.raises(InputError, match="cannot be read") as caught:
        open_cache(folder, plan)
    assert str(caught.value).startswith(f"{path}: ")
    assert f"Delete {path.parent}" in str(caught.value)
    assert build(cases, folder, plan) == built


@pytest.mark.parametrize("std", [0, -1.0, 1e-320])
def test_a_standard_deviation_that_cannot_be_divided_by_is_refused(
    cases: list[Case], folder: Path, plan: Plan, std: object
) -> None:
    """As the intensities are divided by it in every step."""
    build(cases, folder, plan)
    path = folder / cases[1].id / "case.json"
    fields = json.loads(path.read_text())
    fields["moments"][0]["std"] = std
    path.write_text(json.dumps(fields))
    with pytest.raises(InputError, match=r"case\.json"):
        open_cache(folder, plan)


@pytest.mark.parametrize("damage", ["facts", "image.npy", "labels.npy", "places.npz"])
def test_a_damaged_case_is_prepared_again_from_the_same_files(
    cases: list[Case], folder: Path, plan: Plan, damage: str
) -> None:
    """If its facts are incomplete or one of its arrays has been cut."""
    built = build(cases, folder, plan)
    path = folder / cases[1].id / ("case.json" if damage == "facts" else damage)
    if damage == "facts":
        fields = json.loads(path.read_text())
        del fields["moments"]
        path.write_text(json.dumps(fields))
    else:
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(InputError, match=damage):
            open_cache(folder, plan)
    assert build(cases, folder, plan) == built
    assert open_cache(folder, plan) == built


def test_one_process_at_a_time_prepares_into_a_folder(cases: list[Case], folder: Path, plan: Plan) -> None:
    """The second is told who is writing, and nothing changes."""
    with one_writer(folder), pytest.raises(InputError, match=rf"process {os.getpid()} on .* is writing"):
        build_cache(cases, folder, plan)
    assert not list(folder.glob("*/case.json"))
    assert len(build(cases, folder, plan)) == len(cases)


def test_whatever_error_a_case_causes_the_others_are_prepared(
    cases: list[Case], folder: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of any type, such as too little memory, are reported as a problem of the case."""
    read = cache.read_case

    def read_case(case: Case, modalities: Sequence[str]) -> Volume:
        if case.id == cases[0].id:
            raise MemoryError
        return read(case, modalities)

    monkeypatch.setattr(cache, "read_case", read_case)
    prepared, (problem,) = build_cache(cases, folder, plan)
    assert [case.id for case in prepared] == [case.id for case in cases[1:]]
    assert str(problem) == f"{cases[0].id}: cannot be prepared: not enough memory"


def test_a_cache_learns_of_patients_that_are_told_apart_later(cases: list[Case], folder: Path, plan: Plan) -> None:
    """A kept case takes over the patient that is given now, also for those who open the cache."""
    build(cases, folder, plan)
    changed = [replace(case, patient="P1", patient_rule="a table") for case in cases]
    assert {case.patient for case in build(changed, folder, plan)} == {"P1"}
    assert {(case.patient, case.patient_rule) for case in open_cache(folder, plan)} == {("P1", "a table")}


def test_a_folder_that_is_no_cache_is_refused_and_left_alone(tmp_path: Path, plan: Plan) -> None:
    """Opening creates no files."""
    for folder in (tmp_path / "nowhere", tmp_path / "data"):
        before = sorted(tmp_path.rglob("*"))
        for attempt in (lambda folder=folder: open_cache(folder, plan), lambda folder=folder: cache_plan(folder)):
            with pytest.raises(InputError, match=r"not a cache \(no cache\.json\)\. Make one with gliomask prepare"):
                attempt()
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"modalities": ["t9"]}'])
def test_a_damaged_cache_is_named(cases: list[Case], folder: Path, plan: Plan, content: bytes) -> None:
    """The message names cache.json."""
    build(cases[:1], folder, plan)
    (folder / "cache.json").write_bytes(content)
    with pytest.raises(InputError) as caught:
        open_cache(folder, plan)
    assert str(caught.value).startswith(f"{folder / 'cache.json'}: ")


def test_an_empty_cache_is_refused(folder: Path, plan: Plan) -> None:
    """It results from a preparation in which every case failed."""
    assert build_cache([], folder, plan) == ([], [])
    with pytest.raises(InputError, match="the cache is empty"):
        open_cache(folder, plan)


def test_a_place_that_cannot_hold_a_cache_is_named(cases: list[Case], tmp_path: Path, plan: Plan) -> None:
    """For example a file in place of the folder."""
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write .*file"):
        build_cache(cases, tmp_path / "file" / "cache", plan)
