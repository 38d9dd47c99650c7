"""Correcting masks: the operations are those of NumPy and SciPy, keep the regions nested, and are saved."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from gliomask.cases import Case
from gliomask.cli.view import _scene
from gliomask.errors import InputError
from gliomask.labels import CONVENTIONS, get_convention, to_regions
from gliomask.metrics import dice
from gliomask.viewer import Editing, edit_mask, read_scene
from gliomask.viewer.editing import WindowError
from gliomask.viewer.operations import OPERATIONS, Request, correct, set_region, small_pieces, tables
from gliomask.volume import Volume, read_volume, write_volume

BRATS = get_convention("brats2021")
SPACING = (2.0, 1.5, 3.0)
EVERY = np.ones((3, 3, 3), dtype=bool)


def some_labels(seed: int = 0) -> np.ndarray:
    """Blobs of nested tissues."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(16, 18, 12)), 2)
    labels = np.zeros(field.shape, np.uint8)
    for value, share in ((2, 70), (1, 85), (4, 93)):
        labels[field > np.percentile(field, share)] = value
    return labels


@given(st.sampled_from(sorted(CONVENTIONS)), arrays(np.uint8, (4, 5, 3), elements=st.integers(0, 4)), st.data())
def test_a_region_becomes_what_is_asked_for_and_all_stay_nested(
    name: str, labels: np.ndarray, data: st.DataObject
) -> None:
    """Only the asked voxels change; labels stay valid; outer regions gain what is added, inner ones lose the rest."""
    convention = CONVENTIONS[name]
    labels = np.where(np.isin(labels, sorted(convention.values)), labels, 0).astype(np.uint8)
    region = data.draw(st.sampled_from(sorted(convention.regions)))
    inside = data.draw(arrays(np.bool_, labels.shape))
    done = set_region(labels, convention, region, inside)
    assert set(np.unique(done)) <= convention.values
    assert np.array_equal(to_regions(done, convention, (region,))[0], inside)
    was = to_regions(labels, convention, (region,))[0]
    assert np.array_equal(done[inside == was], labels[inside == was])
    whole, core, enhancing = to_regions(done, convention)
    if {"WT", "TC", "ET"} <= set(convention.regions):
        assert not (core & ~whole).any()
        assert not (enhancing & ~core).any()


def test_operations_are_those_of_numpy() -> None:
    """Each operation gives the region that the same steps in NumPy and SciPy give."""
    labels, image = some_labels(), np.random.default_rng(1).normal(100, 20, (16, 18, 12))
    seed = tuple(int(value) for value in np.argwhere(labels == 4)[0])
    for region in ("WT", "TC", "ET"):
        inside = to_regions(labels, BRATS, (region,))[0]
        request = Request(region, axis=2, index=seed[2], step=1, seed=seed, low=90, high=120, mm=3)
        pieces = ndimage.label(inside, EVERY)[0]
        filled, copied = inside.copy(), inside.copy()
        filled[:, :, seed[2]] = ndimage.binary_fill_holes(inside[:, :, seed[2]])
        copied[:, :, seed[2]] = inside[:, :, min(seed[2] + 1, 11)]
        between = (image >= 90) & (image <= 120)
        near = ndimage.distance_transform_edt(~inside, SPACING) <= 3
        expected = {
            "fill": filled,
            "smooth": ndimage.gaussian_filter(inside.astype(np.float32), [3 / mm for mm in SPACING], truncate=3) > 0.5,
            "remove": inside & (pieces != pieces[seed]),
            "grow": ndimage.binary_propagation(inside, EVERY, mask=inside | (near & between)),
            "shrink": inside & between,
            "copy": copied,
        }
        for name, wanted in expected.items():
            done = correct(labels, BRATS, name, request, image=image, spacing_mm=SPACING)
            assert np.array_equal(to_regions(done, BRATS, (region,))[0], wanted), (name, region)
    assert set(expected) | {"interpolate"} == set(OPERATIONS)


def test_interpolation_joins_painted_slices() -> None:
    """Between equal slices lie equal slices; between a small and a large square the sizes are in between."""
    labels = np.zeros((20, 20, 9), np.uint8)
    labels[8:12, 8:12, 1] = 2
    labels[4:16, 4:16, 5] = 2
    done = correct(labels, BRATS, "interpolate", Request("WT"), image=labels, spacing_mm=(1, 1, 1))
    areas = (done > 0).sum(axis=(0, 1)).tolist()
    assert areas[1] == 16
    assert areas[5] == 144
    assert areas[1] < areas[2] < areas[3] < areas[4] < areas[5]
    assert areas[0] == sum(areas[6:]) == 0


def test_what_is_unknown_is_refused() -> None:
    """An unknown operation, region or slice is an error that says what is known."""
    labels = some_labels()
    for name, request, words in (
        ("melt", Request("WT"), "unknown operation"),
        ("fill", Request("XX"), "unknown region"),
        ("fill", Request("WT", index=99), "outside of the grid"),
    ):
        with pytest.raises(InputError, match=words):
            correct(labels, BRATS, name, request, image=labels, spacing_mm=SPACING)


def test_small_pieces_are_named() -> None:
    """Pieces under three voxels are found with their size and place."""
    inside = np.zeros((9, 9, 9), bool)
    inside[0, 0, 0] = inside[3:5, 3, 3] = inside[6:9, 6, 6] = True
    assert small_pieces(inside) == [(1, (0, 0, 0)), (2, (3, 3, 3))]


@pytest.fixture
def case(write_case: Callable[..., Case]) -> Case:
    return write_case("brats2021")


@pytest.fixture
def mask(case: Case, tmp_path: Path) -> Path:
    """A mask to correct: the case's own, in a folder of predictions."""
    assert case.mask is not None
    path = tmp_path / "predictions" / f"{case.id}.nii.gz"
    write_volume(path, read_volume(case.mask, mask=True), like=case.mask)
    return path


def test_a_correction_is_saved_beside_the_original(case: Case, mask: Path) -> None:
    """The saved mask has the changes, the record their volumes and Dice; the original stays, and work continues."""
    before = mask.read_bytes()
    scene = read_scene(case, [mask])
    region = scene.masks[0].region("WT")
    with edit_mask(scene, mask, mask.parent) as editing:
        labels = editing.start[scene.box].copy()
        labels[:2, :2, :2] = 2
        record = editing.save(labels.tobytes(order="F"), 12.0)
        lone = labels.copy()
        lone[-1, -1, -1] = 4
        finished = editing.finish(lone.tobytes(order="F"), 20.0)
    saved = read_volume(mask.parent / f"{case.id}_edited.nii.gz", mask=True)
    assert np.array_equal(saved.data[0][scene.box], lone)
    assert mask.read_bytes() == before
    assert record["voxels_changed"] == 8
    changed = np.zeros_like(region)
    changed[scene.box] = labels > 0
    assert record["regions"]["WT"]["dice_with_original"] == pytest.approx(dice(region, changed), abs=1e-4)
    assert "ET has a piece of 1 voxel" in " ".join(finished["findings"])
    written = json.loads((mask.parent / f"{case.id}_edited.json").read_text())
    assert written["seconds"] == 20
    assert written["finished"] is True
    assert "by" not in written
    with edit_mask(scene, mask, mask.parent, by="A. Reader") as again:
        assert np.array_equal(again.start[scene.box], lone)
        assert again.seconds == 20
        assert again.save(labels.tobytes(order="F"), 21)["by"] == "A. Reader"


def test_a_second_window_and_a_second_process_are_told(case: Case, mask: Path) -> None:
    """Only one window may save; another one can take over; the lock is released at the end."""
    scene = read_scene(case, [mask])
    with edit_mask(scene, mask, mask.parent) as editing:
        content = editing.start[scene.box].tobytes(order="F")
        editing.open("a")
        with pytest.raises(WindowError, match="Another window edits"):
            editing.open("b")
        state = editing.open("b", take=True)
        for act in ("save", "apply"):
            with pytest.raises(WindowError, match="saves nothing"):
                editing.answer(act, {"window": "a", "state": state}, content)
        assert editing.answer("save", {"window": "b", "state": "old", "seconds": 1}, content)["state"] == state
        with pytest.raises(InputError, match="is writing it"), edit_mask(scene, mask, mask.parent):
            pass
    with edit_mask(scene, mask, mask.parent):
        pass


def test_a_window_without_the_right_saves_only_if_it_has_what_was_saved_last(case: Case, mask: Path) -> None:
    """After the editing window was closed, one that read the mask before its changes cannot undo them by saving."""
    scene = read_scene(case, [mask])
    with edit_mask(scene, mask, mask.parent) as editing:
        old = editing.start[scene.box]
        new = np.where(old == 0, 2, old).astype(np.uint8)
        state = editing.open("a")
        changed = editing.answer("save", {"window": "a", "seconds": 1}, new.tobytes(order="F"))
        assert changed["state"] != state
        editing.answer("close", {"window": "a"}, b"")
        with pytest.raises(WindowError, match="was changed by another window"):
            editing.answer("save", {"window": "b", "state": state, "seconds": 1}, old.tobytes(order="F"))
        assert np.array_equal(editing.start[scene.box], new)
        editing.answer("save", {"window": "c", "state": changed["state"], "seconds": 1}, old.tobytes(order="F"))
        assert editing.state == state
        with pytest.raises(WindowError, match="Another window edits"):
            editing.open("b")


def test_a_full_disk_leaves_the_last_state(case: Case, mask: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is full, the message says so, and the mask that was saved before stays."""
    scene = read_scene(case, [mask])
    with edit_mask(scene, mask, mask.parent) as editing:
        editing.save(editing.start[scene.box].tobytes(order="F"), 1)
        before = editing.target.read_bytes()

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        changed = np.zeros_like(editing.start[scene.box]) + 2
        with pytest.raises(InputError, match="No space left"):
            editing.save(changed.astype(np.uint8).tobytes(order="F"), 2)
        assert editing.target.read_bytes() == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the folder would be writable")
def test_a_read_only_folder_is_refused(case: Case, mask: Path) -> None:
    """A folder that cannot be written to is refused before the page opens."""
    mask.parent.chmod(0o500)
    try:
        with pytest.raises(InputError, match="cannot write to"), edit_mask(read_scene(case, [mask]), mask, mask.parent):
            pass
    finally:
        mask.parent.chmod(0o700)


def test_masks_of_another_grid_or_convention_are_refused(case: Case, mask: Path, tmp_path: Path) -> None:
    """Labels that were not asked for, another grid and a correction of another mask are refused with a way out."""
    scene = read_scene(case, [mask])
    with edit_mask(scene, mask, tmp_path / "out") as editing:
        content = np.full(editing.start[scene.box].shape, 3, np.uint8).tobytes()
        with pytest.raises(InputError, match="are not in brats2021"):
            editing.save(content, 1)
        with pytest.raises(InputError, match="voxels were sent"):
            editing.save(b"123", 1)
        assert not editing.target.exists()
    truth = read_volume(mask, mask=True)
    write_volume(tmp_path / "out" / f"{case.id}_edited.nii.gz", Volume(truth.data[:, 1:], truth.affine))
    with pytest.raises(InputError, match="--output"), edit_mask(scene, mask, tmp_path / "out"):
        pass


def test_a_correction_of_another_file_is_neither_shown_nor_replaced(case: Case, mask: Path, tmp_path: Path) -> None:
    """Another patient's mask with the same name on the same grid, or the same one after it was replaced, is refused."""
    scene, folder = read_scene(case, [mask]), tmp_path / "out"
    with edit_mask(scene, mask, folder) as editing:
        assert editing.content()["saved"] is None
        record = editing.save(editing.start[scene.box].tobytes(order="F"), 1)
        assert editing.content()["saved"] == record["saved"]
    before = [path.read_bytes() for path in (editing.target, editing.record_path)]
    other = tmp_path / "others" / mask.name
    labels = read_volume(mask, mask=True)
    write_volume(other, Volume(labels.data[:, ::-1].copy(), labels.affine))
    for replaced in (False, True):
        if replaced:
            mask.write_bytes(other.read_bytes())
        named = mask if replaced else other
        with (
            pytest.raises(InputError, match=r"correction of another mask .*--output"),
            edit_mask(read_scene(case, [named]), named, folder),
        ):
            pass
    assert [path.read_bytes() for path in (editing.target, editing.record_path)] == before
    older = {name: value for name, value in record.items() if name not in ("original_sha256", "state")}
    editing.record_path.write_text(json.dumps(older))
    with edit_mask(read_scene(case, [mask]), mask, folder) as again:  # older versions recorded the name only
        assert again.saved == record["saved"]
    editing.record_path.unlink()
    with edit_mask(read_scene(case, [mask]), mask, folder) as again:
        assert again.saved == ""


def test_a_correction_outside_of_what_the_page_has_stays(case: Case, mask: Path) -> None:
    """A page with more masks may have had a larger part of the grid before."""
    target = mask.parent / f"{case.id}_edited.nii.gz"
    labels = read_volume(mask, mask=True)
    write_volume(target, Volume(np.full_like(labels.data, 2), labels.affine))
    x, y, z = (slice(2, size - 2) for size in labels.data[0].shape)
    [shown] = read_scene(replace(case, mask=None), [mask]).masks
    editing = Editing(case.id, shown, (x, y, z), lambda _: shown.labels.data[0], mask, target)
    editing.save(np.zeros_like(editing.start[x, y, z]).tobytes(order="F"), 1)
    saved = read_volume(target, mask=True).data[0].copy()
    assert not saved[x, y, z].any()
    saved[x, y, z] = 2
    assert (saved == 2).all()


def test_the_mask_that_is_named_first_is_the_one_that_is_corrected(case: Case, mask: Path, tmp_path: Path) -> None:
    """Also if it is the case's own, which is shown last: its labels, its file in the record, and its folder."""
    assert case.mask is not None
    labels = read_volume(mask, mask=True)
    write_volume(mask, Volume(labels.data[:, ::-1].copy(), labels.affine))
    folder = case.mask.parent
    for things in (
        [case.mask, mask],
        [folder / ".." / folder.name / case.mask.name, mask],
        [mask, case.mask],
        [mask],
        [case.mask],
        [],
    ):
        scene, original = _scene([folder, *things], {}, "", None)
        first = things[0] if things else case.mask
        assert original is not None
        assert original.resolve() == first.resolve()
        with edit_mask(scene, original, tmp_path / "out") as editing:
            assert np.array_equal(editing.start, read_volume(first, mask=True).data[0])
            assert editing.content()["mask"] == ("prediction" if first == mask else "truth")
            record = editing.save(editing.start[scene.box].tobytes(order="F"), 1)
        assert (record["original"], record["voxels_changed"]) == (first.name, 0)
        editing.target.unlink()
    with pytest.raises(InputError, match="not among the masks"), edit_mask(scene, mask, tmp_path / "out"):
        pass


def test_tables_know_every_region() -> None:
    """Each region of each convention can be added and removed."""
    for convention in CONVENTIONS.values():
        found = tables(convention)
        assert set(found) == set(convention.regions)
        for region, table in found.items():
            members = convention.regions[region]
            assert set(table.add.tolist()) <= members
            assert not set(table.remove.tolist()) & members
