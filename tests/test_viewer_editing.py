"""Correcting a mask in the browser: strokes, operations, undo and saving, equal to the same done with NumPy."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import CHROMIUM, FLAGS, NEEDS_VIEWER, drawn, open_page
from conftest import AFFINE
from gliomask.cases import Case, find_cases
from gliomask.labels import get_convention
from gliomask.metrics import dice
from gliomask.phantom import write_phantoms
from gliomask.viewer import edit_mask, read_scene, serve_scene
from gliomask.viewer.operations import Request, correct, tables
from gliomask.volume import read_volume, reorient, write_volume

pytestmark = NEEDS_VIEWER
BRATS = get_convention("brats2021")
SOON = 0.5  # seconds until the page saves


@pytest.fixture
def case(write_case: Callable[..., Case]) -> Case:
    return write_case("brats2021")


@pytest.fixture
def mask(case: Case, tmp_path: Path) -> Path:
    assert case.mask is not None
    path = tmp_path / "predictions" / f"{case.id}.nii.gz"
    write_volume(path, read_volume(case.mask, mask=True), like=case.mask)
    return path


@pytest.fixture
def edited(case: Case, mask: Path) -> Iterator[tuple[Any, Path]]:
    """The page of an editor that saves soon, and the file that it saves to."""
    scene = read_scene(case, [mask])
    with (
        edit_mask(scene, mask, mask.parent, autosave_s=SOON) as editing,
        serve_scene(scene, editing=editing) as served,
        open_page(served.url, (served.url, "blob:", "data:"), width=1000, expected=("409", "422")) as page,
    ):
        page.wait_for_selector("#viewer[data-ready][data-loaded]")
        yield page, editing.target


def until(true: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def said(page: Any) -> str:
    return str(page.locator(".said").text_content())


def saved(page: Any, path: Path) -> np.ndarray:
    """The labels in the file after the page has saved."""
    until(lambda: said(page).startswith("Saved"))
    labels: np.ndarray = read_volume(path, mask=True).data[0]
    return labels


def click_at(page: Any, right: float = 0, down: float = 0) -> tuple[int, ...]:
    """Click near the middle of the axial slice with the crosshair; return the voxel there, in the order of the file."""
    page.check("input[value=crosshair]")
    page.mouse.click(*place(page, right, down))
    drawn(page)
    text = page.locator("[data-name=voxel]").text_content()
    return tuple(int(word) for word in text.split())


def place(page: Any, right: float, down: float) -> tuple[float, float]:
    box = page.locator(".tile[data-plane=axial]").bounding_box()
    return box["x"] + box["width"] / 2 - 12 + right, box["y"] + box["height"] / 2 + 2 + down


def test_strokes_and_operations_equal_numpy(edited: tuple[Any, Path], mask: Path) -> None:
    """Brush, eraser, an operation, undo and redo, by mouse and keys, give the file that NumPy gives."""
    page, path = edited
    original = mask.read_bytes()
    before = read_volume(mask, mask=True)
    expected = before.data[0].copy()
    spacing = before.grid.spacing_mm
    indices = np.stack(np.indices(expected.shape), axis=-1)
    click_at(page)  # afterwards the readout below the pictures has its final height
    for tool, region, size, where in (("q", "ET", 8, (60, 40)), ("y", "WT", 6, (-30, 10))):
        voxel = click_at(page, *where)
        page.locator("fieldset", has_text="Region").locator(f"input[value={region}]").check()
        page.locator("input[name=brush-mm]").fill(str(size))
        page.locator("fieldset", has_text="Shape").locator("input[value=ball]").check()
        page.locator("canvas.marks").focus()
        page.keyboard.press(tool)
        page.mouse.click(*place(page, *where))
        ball = np.linalg.norm((indices - voxel) * spacing, axis=-1) <= size / 2 + 1e-6
        table = tables(BRATS)[region]
        expected = np.where(ball, (table.add if tool == "q" else table.remove)[expected], expected)
    assert not np.array_equal(expected, before.data[0])
    assert np.array_equal(saved(page, path), expected)
    page.locator("fieldset", has_text="Region").locator("input[value=TC]").check()
    page.locator("button[name=smooth]").click()
    smooth = correct(expected, BRATS, "smooth", Request("TC"), image=expected, spacing_mm=spacing)
    until(lambda: np.array_equal(read_volume(path, mask=True).data[0], smooth))
    page.locator("canvas.marks").focus()
    page.keyboard.press("Control+z")
    until(lambda: np.array_equal(read_volume(path, mask=True).data[0], expected))
    for _ in range(2):
        page.keyboard.press("u")
    until(lambda: np.array_equal(read_volume(path, mask=True).data[0], before.data[0]))
    for _ in range(3):
        page.keyboard.press("k")
    until(lambda: np.array_equal(read_volume(path, mask=True).data[0], smooth))
    until(lambda: said(page).startswith("Saved"))
    page.locator("button[name=finish]").click()
    until(lambda: said(page).startswith("Finished"))
    record = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    assert record["finished"] is True
    assert record["voxels_changed"] == np.count_nonzero(smooth != before.data[0])
    assert mask.read_bytes() == original


def test_a_drag_paints_a_disc_along_its_way(edited: tuple[Any, Path], mask: Path) -> None:
    """A stroke in a slice changes only that slice, leaves no gaps, and is one step of undoing."""
    page, path = edited
    before = read_volume(mask, mask=True)
    page.locator("canvas.marks").focus()
    page.keyboard.press("q")
    page.mouse.move(*place(page, -120, 90))
    page.mouse.down()
    page.mouse.move(*place(page, 120, 90))
    page.mouse.up()
    changed = saved(page, path) != before.data[0]
    ras = reorient(type(before)(changed[None].astype(np.uint8), before.affine), "RAS").data[0]
    assert np.count_nonzero(ras.any(axis=(0, 1))) == 1
    columns = np.flatnonzero(ras.any(axis=(1, 2)))
    assert len(columns) > 4
    page.keyboard.press("u")
    until(lambda: np.array_equal(read_volume(path, mask=True).data[0], before.data[0]))


def test_the_slice_stays_in_its_place_during_a_stroke(edited: tuple[Any, Path], mask: Path) -> None:
    """Wheel and keys, which change slice, zoom and view, do nothing until the button is released."""
    page, path = edited
    before = read_volume(mask, mask=True)
    voxel = in_ras(click_at(page), before)
    page.locator("canvas.marks").focus()
    page.keyboard.press("q")
    page.mouse.move(*place(page, -120, 90))
    page.mouse.down()
    page.mouse.wheel(0, 120)
    page.keyboard.press("PageUp")
    page.keyboard.down("Control")
    page.mouse.wheel(0, -120)
    page.keyboard.up("Control")
    for key in ("+", "h", "v"):
        page.keyboard.press(key)
    page.mouse.move(*place(page, 120, 90), steps=3)
    page.mouse.up()
    drawn(page)
    assert in_ras(tuple(map(int, page.locator("[data-name=voxel]").text_content().split())), before) == voxel
    changed = saved(page, path) != before.data[0]
    ras = reorient(type(before)(changed[None].astype(np.uint8), before.affine), "RAS").data[0]
    assert np.flatnonzero(ras.any(axis=(0, 1))).tolist() == [voxel[2]]
    assert np.count_nonzero(ras.any(axis=(1, 2))) > 4
    page.mouse.wheel(0, 120)
    until(lambda: in_ras(tuple(map(int, page.locator("[data-name=voxel]").text_content().split())), before) != voxel)


def test_thresholds_are_suggested_from_the_region(edited: tuple[Any, Path], case: Case, mask: Path) -> None:
    """They are mean and two standard deviations of the shown sequence in it, so that growing does something at once."""
    page, path = edited
    before = read_volume(mask, mask=True).data[0]
    page.locator("fieldset", has_text="Sequence").locator("input[value=t1c]").check()
    page.locator("fieldset", has_text="Region").locator("input[value=ET]").check()
    page.locator("summary", has_text="Thresholds").click()
    inside = read_volume(case.images["t1c"].path).data[0][before == 4].astype(float)
    bounds = inside.mean() - 2 * inside.std(), inside.mean() + 2 * inside.std()
    until(lambda: page.locator("input[name=low]").input_value() != "")
    shown = [float(page.locator(f"input[name={name}]").input_value()) for name in ("low", "high")]
    assert shown == pytest.approx(bounds, rel=1e-3)
    page.locator("input[name=high]").fill(str(float(np.median(inside))))
    page.locator("input[name=high]").blur()
    page.locator("button[name=shrink]").click()
    kept = np.count_nonzero(saved(page, path) == 4)
    assert kept == np.count_nonzero((inside >= shown[0]) & (inside <= np.median(inside)))


def test_a_second_window_is_told_and_can_take_over(edited: tuple[Any, Path]) -> None:
    """The second window says that another one edits; after it has taken over, the first one cannot save."""
    page, _ = edited
    second = page.context.new_page()
    second.goto(page.url)
    second.wait_for_selector("#viewer[data-ready][data-loaded]")
    assert "Another window edits this mask" in said(second)
    second.locator("button[name=take]").click()
    until(lambda: "This window edits now" in said(second))
    page.locator("button[name=save]").click()
    until(lambda: said(page).startswith("NOT SAVED: Another window"))
    second.close()


def test_closing_the_page_while_it_saves_is_warned_of(edited: tuple[Any, Path], mask: Path) -> None:
    """Until the server has answered, the browser asks before it closes the page; who stays loses nothing."""
    page, path = edited
    held: list[Any] = []
    page.route("**/edit/save*", lambda route: held.append(route))
    page.locator("canvas.marks").focus()
    page.keyboard.press("q")
    with page.expect_request("**/edit/save*"):
        page.mouse.click(*place(page, 60, 40))
    until(lambda: said(page) == "Saving…" and held)
    with page.expect_event("dialog", timeout=20_000) as asked:
        page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()
    assert not path.exists()
    held[0].continue_()
    assert not np.array_equal(saved(page, path), read_volume(mask, mask=True).data[0])
    with page.expect_event("close"):  # without a question
        page.close(run_before_unload=True)


def panel(page: Any) -> dict[str, str]:
    """The volumes in the panel, by region: of the prediction, then of the truth."""
    rows = page.locator("table.regions").first.locator("tbody tr").all()
    return {row.locator("b").text_content(): " ".join(row.locator("td").all_text_contents()) for row in rows}


def volumes(*masks: np.ndarray) -> dict[str, str]:
    """What the panel has to show for these labels."""
    ml = abs(np.linalg.det(AFFINE[:3, :3])) / 1000
    found = {
        name: [round(ml * np.isin(mask, sorted(BRATS.regions[name])).sum(), 3) for mask in masks]
        for name in BRATS.regions
    }
    return {name: " ".join(f"{one:.{2 if one < 10 else 1}f} mL" for one in each) for name, each in found.items()}


def test_numbers_are_those_of_the_correction(case: Case, mask: Path) -> None:
    """Volumes follow each change; Dice and differences are those of the mask as saved, and not shown after a change."""
    assert case.mask is not None
    truth = read_volume(case.mask, mask=True).data[0]
    scene = read_scene(case, [mask])
    earlier = np.roll(truth, 2, axis=0)
    with (
        edit_mask(scene, mask, mask.parent, autosave_s=SOON) as editing,
        serve_scene(scene, editing=editing) as served,
    ):
        assert editing.content()["saved"] is None
        editing.save(earlier[scene.box].tobytes(order="F"), 1)
        with open_page(served.url, (served.url, "blob:", "data:"), width=1000) as page:
            page.wait_for_selector("#viewer[data-ready][data-loaded]")
            assert re.match(rf"The correction {re.escape(editing.target.name)}, saved on .* is continued", said(page))
            assert panel(page) == volumes(earlier, truth)
            compared = page.locator("fieldset", has_text="Where they differ").locator("input[value=compare]")
            compared.check()
            assert page.locator(".dice").text_content() == f"Dice {dice(truth > 0, earlier > 0):.3f}"
            assert page.locator(".note").is_hidden()
            page.locator("canvas.marks").focus()
            page.keyboard.press("q")
            page.mouse.click(*place(page, -120, 90))
            after = saved(page, editing.target)
            assert not np.array_equal(after, earlier)
            assert panel(page) == volumes(after, truth)
            assert compared.is_hidden()
            assert page.locator(".dice").is_hidden()
            assert page.locator(".note").is_visible()
            page.keyboard.press("u")
            until(lambda: panel(page) == volumes(earlier, truth))
            page.keyboard.press("k")
            until(lambda: np.array_equal(editing.start, after) and said(page).startswith("Saved"))
            page.reload()
            page.wait_for_selector("#viewer[data-ready][data-loaded]")
            assert panel(page) == volumes(after, truth)
            compared.check()
            assert page.locator(".dice").text_content() == f"Dice {dice(truth > 0, after > 0):.3f}"


def test_a_stroke_on_a_case_of_real_size_equals_numpy(tmp_path: Path) -> None:
    """On 240 x 240 x 155 voxels, a drag of the mouse with a ball gives the file that NumPy gives."""
    write_phantoms(tmp_path / "data", 1)
    [case] = find_cases(tmp_path / "data")
    assert case.mask is not None
    mask = tmp_path / "predictions" / f"{case.id}.nii.gz"
    write_volume(mask, read_volume(case.mask, mask=True), like=case.mask)
    before = read_volume(mask, mask=True)
    assert before.data.shape == (1, 240, 240, 155)
    with (
        edit_mask(read_scene(case, [mask]), mask, mask.parent, autosave_s=SOON) as editing,
        serve_scene(read_scene(case, [mask]), editing=editing) as served,
        open_page(served.url, (served.url, "blob:", "data:")) as page,
    ):
        page.wait_for_selector("#viewer[data-ready][data-loaded]")
        click_at(page)  # afterwards the readout below the pictures has its final height
        ends = [in_ras(click_at(page, *where), before) for where in ((-60, -40), (70, 50))]
        page.locator("fieldset", has_text="Region").locator("input[value=TC]").check()
        page.locator("fieldset", has_text="Shape").locator("input[value=ball]").check()
        page.locator("input[name=brush-mm]").fill("15")
        page.locator("canvas.marks").focus()
        page.keyboard.press("q")
        page.mouse.move(*place(page, -60, -40))
        page.mouse.down()
        page.mouse.move(*place(page, 70, 50))
        page.mouse.up()
        painted = saved(page, editing.target)
    expected = reorient(before, "RAS").data[0].copy()
    indices = np.stack(np.indices(expected.shape), axis=-1)
    start, way = np.array(ends[0]), np.subtract(ends[1], ends[0])
    count = int(np.abs(way).max())
    inside = np.zeros(expected.shape, bool)
    for step in range(count + 1):
        centre = np.floor(start + step / count * way + 0.5).astype(int)
        low, high = centre - 8, centre + 9
        part = tuple(slice(max(0, one), other) for one, other in zip(low, high, strict=True))
        inside[part] |= np.linalg.norm(indices[part] - centre, axis=-1) <= 7.5
    expected = np.where(inside, tables(BRATS)["TC"].add[expected], expected)
    assert np.count_nonzero(inside) > 10_000
    assert np.array_equal(reorient(type(before)(painted[None], before.affine), "RAS").data[0], expected)


def in_ras(voxel: tuple[int, ...], volume: Any) -> tuple[int, ...]:
    """The voxel in the order of the page, from the one in the order of the file."""
    to_ras = np.linalg.inv(reorient(volume, "RAS").affine) @ volume.affine
    return tuple(int(value) for value in np.rint(to_ras @ [*voxel, 1])[:3])


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_browser_loses_only_the_last_seconds(case: Case, mask: Path, tmp_path: Path) -> None:
    """Each stroke that was made longer ago than the time until it is saved is in the file."""
    from playwright.sync_api import sync_playwright

    assert CHROMIUM is not None
    slack = 5.0  # seconds that a busy machine needs to save; with the 15 of the real page less than 20 are lost
    scene = read_scene(case, [mask])
    command = [CHROMIUM, *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'profile'}"]
    written = tmp_path / "browser.txt"  # not a pipe: the browser would wait when what it says is not read
    with (
        written.open("w") as messages,
        edit_mask(scene, mask, mask.parent, autosave_s=SOON) as editing,
        serve_scene(scene, editing=editing) as served,
        subprocess.Popen(command, stderr=messages, start_new_session=True) as process,
        sync_playwright() as playwright,
    ):
        try:
            until(lambda: re.search(r"ws://\S+\n", written.read_text()))
            address = re.findall(r"ws://\S+", written.read_text())[0]
            page = playwright.chromium.connect_over_cdp(address).contexts[0].new_page()
            page.set_viewport_size({"width": 1000, "height": 800})
            page.goto(served.url)
            page.wait_for_selector("#viewer[data-ready][data-loaded]", timeout=120_000)
            page.locator("fieldset", has_text="Region").locator("input[value=WT]").check()
            page.locator("input[name=brush-mm]").fill("1")
            click_at(page)  # afterwards the readout below the pictures has its final height
            strokes: list[tuple[float, tuple[int, ...]]] = []
            while len(strokes) < 3 or time.monotonic() < strokes[0][0] + SOON + slack + 1:
                where = (8 * (len(strokes) % 20) - 80, 12 * (len(strokes) // 20) - 60)
                voxel = click_at(page, *where)
                page.check("input[value=brush]")
                page.mouse.click(*place(page, *where))
                strokes.append((time.monotonic(), voxel))
            killed = time.monotonic()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.5)  # what was sent before is still written
        labels = read_volume(editing.target, mask=True).data[0]
    old = [voxel for moment, voxel in strokes if moment < killed - SOON - slack]
    assert old
    assert all(labels[voxel] for voxel in old)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_server_and_browser_lose_only_what_was_not_saved_yet(case: Case, mask: Path) -> None:
    """After the server is killed the file has what was saved, the page says that it cannot save, and work continues."""
    assert case.mask is not None
    command = [sys.executable, "-u", "-m", "gliomask"]
    arguments = ["view", str(case.mask.parent), str(mask), "--edit", "--no-browser"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        path = mask.parent / f"{case.id}_edited.nii.gz"
        with open_page(url, (url, "blob:", "data:"), width=1000, expected=("ERR_", "Failed to load")) as page:
            page.wait_for_selector("#viewer[data-ready][data-loaded]")
            page.locator("canvas.marks").focus()
            page.keyboard.press("q")
            page.mouse.click(*place(page, 70, 60))
            start = time.monotonic()
            until(path.is_file)
            assert time.monotonic() - start < 20
            until(lambda: said(page).startswith("Saved"))
            kept = read_volume(path, mask=True).data
            process.send_signal(signal.SIGKILL)
            process.wait()
            page.mouse.click(*place(page, -90, 60))
            page.locator("button[name=save]").click()
            until(lambda: re.match(r"NOT SAVED.*does not answer", said(page)))
    assert np.array_equal(read_volume(path, mask=True).data, kept)
    scene = read_scene(case, [mask])
    with edit_mask(scene, mask, mask.parent) as again:
        assert np.array_equal(again.start[None], kept)
