"""The controls of the viewer, in a browser that can connect to the viewer's server only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import NEEDS_VIEWER, drawn, open_page
from gliomask.cases import Case
from gliomask.figures import AGREEMENT_COLOURS
from gliomask.labels import CONVENTIONS
from gliomask.viewer import read_scene, serve_scene
from gliomask.volume import Volume, read_volume, write_volume

pytestmark = NEEDS_VIEWER

SHIFT = 3
CAPTION = 30


@pytest.fixture
def case(write_case: Callable[..., Case]) -> Case:
    return write_case("brats2021")


@pytest.fixture
def prediction(case: Case, tmp_path: Path) -> Path:
    """The case's mask, shifted along X."""
    assert case.mask is not None
    truth = read_volume(case.mask, mask=True)
    path = tmp_path / "out" / f"{case.id}.nii.gz"
    write_volume(path, Volume(np.roll(truth.data, SHIFT, axis=1), truth.affine))
    return path


@pytest.fixture
def page(case: Case, prediction: Path) -> Iterator[Any]:
    """The viewer with all volumes loaded."""
    with (
        serve_scene(read_scene(case, [prediction])) as served,
        open_page(served.url, (served.url, "blob:", "data:")) as opened,
    ):
        opened.wait_for_selector("#viewer[data-ready][data-loaded]")
        yield opened


def seen(page: Any) -> np.ndarray:
    """The pixels of the pictures without their caption, `(rows, columns, 3)`."""
    image = pytest.importorskip("PIL.Image")
    page.wait_for_selector(".stages[aria-busy=false]")
    drawn(page)
    return np.asarray(image.open(BytesIO(page.locator(".stages").screenshot())).convert("RGB")).astype(int)[CAPTION:]


def same(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and bool(np.abs(first - second).max() <= 2)


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def slide(page: Any, name: str, value: float) -> None:
    page.locator(f"input[name={name}]").evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input', { bubbles: true })); }", value
    )


def test_masks_change_what_is_seen_there_and_back(page: Any) -> None:
    """Regions are switched by box and key, as is the whole mask; outlines and opacity change the picture."""
    before = seen(page)
    for region in ("WT", "TC", "ET"):
        page.uncheck(f"input[name=region][value={region}]")
        assert not same(seen(page), before), region
        press(page, {"WT": "a", "TC": "t", "ET": "e"}[region])
        assert same(seen(page), before), region
    press(page, "m")
    bare = seen(page)
    assert not same(bare, before)
    press(page, "m", "o")
    assert not same(seen(page), before)
    press(page, "o")
    assert same(seen(page), before)
    slide(page, "opacity", 0.9)
    strong = seen(page)
    assert np.abs(strong - bare).sum() > 1.2 * np.abs(before - bare).sum()
    press(page, "[", "[", "[", "[")
    assert same(seen(page), before)


def test_sequences_blends_and_brightness_change_the_image(page: Any) -> None:
    """Sequence, blending and brightness change the picture and back."""
    press(page, "m")
    first = seen(page)
    press(page, "2")
    second = seen(page)
    assert not same(first, second)
    press(page, "1")
    assert same(seen(page), first)
    page.select_option("select[name=blend]", "t1c")
    assert not same(seen(page), first)
    slide(page, "mix", 0)
    assert same(seen(page), first)
    page.select_option("select[name=blend]", "")
    page.click("summary")
    slide(page, "white", 0.4)
    assert seen(page).mean() > first.mean()
    page.check("input[value=auto]")
    assert same(seen(page), first)


def values(page: Any) -> dict[str, str]:
    """The readout, by name."""
    cells = page.eval_on_selector_all("[data-name]", "all => all.map((one) => [one.dataset.name, one.textContent])")
    return dict(cells)


def test_the_crosshair_tells_what_the_files_hold(page: Any, case: Case, prediction: Path) -> None:
    """The readout is correct at the start, after steps along each axis, and after a click."""
    assert case.mask is not None
    files = {name: source.path for name, source in case.images.items()}
    images = {name: read_volume(path) for name, path in files.items()}
    masks = {"truth": read_volume(case.mask, mask=True), "prediction": read_volume(prediction, mask=True)}
    tissues = {0: "none", **CONVENTIONS["brats2021"].tissues}
    met = set()
    for keys in (
        (),
        ("ArrowRight",),
        ("ArrowUp", "ArrowUp"),
        ("PageUp",),
        ("ArrowRight",) * 4,
        ("Shift+ArrowLeft",),
        None,
    ):
        if keys is None:
            page.locator("canvas.marks").first.click(position={"x": 250, "y": 300})
        else:
            press(page, *keys)
        drawn(page)
        told = values(page)
        voxel = tuple(map(int, told["voxel"].split()))
        met.add(voxel)
        for name, image in images.items():
            assert float(told[name]) == image.data[0][voxel], (name, voxel)
        for name, mask in masks.items():
            assert told[name].split()[0] == tissues[int(mask.data[0][voxel])], (name, voxel)
        place = [float(word) for word in told["place"].split()[1:-1:2]]
        index = np.linalg.solve(masks["truth"].affine, [*place, 1])[:3]
        assert np.abs(index - voxel).max() <= 0.51
    assert len(met) == 7


def test_where_masks_differ_has_three_colours(page: Any) -> None:
    """A comparison has the colours of its legend only, for the selected region."""
    slide(page, "opacity", 1)
    press(page, "x", "n", "n")
    pixels = seen(page)[:, : pixels_wide(page)]
    counts = {}
    for name, colour in AGREEMENT_COLOURS.items():
        wanted = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)])
        counts[name] = int((np.abs(pixels - wanted).max(axis=-1) <= 6).sum())
    assert min(counts.values()) > 200, counts
    coloured = pixels.max(axis=-1) - pixels.min(axis=-1) > 60
    assert sum(counts.values()) > 0.5 * coloured.sum()
    whole = seen(page)
    page.select_option("select[name=compared-region]", "ET")
    assert not same(seen(page), whole)


def pixels_wide(page: Any) -> int:
    """Return the width of the large slice."""
    return int(0.62 * page.locator(".stages").bounding_box()["width"])


def test_space_is_drawn_turned_and_cut(page: Any) -> None:
    """The 3D view can be rotated by dragging and clipped by the slider."""
    page.check("input[value=space]")
    first = seen(page)
    assert (first.max(axis=-1) > 25).mean() > 0.02
    box = page.locator("figure:not([hidden]) canvas.marks").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 120, box["y"] + box["height"] / 2, steps=3)
    page.mouse.up()
    turned = seen(page)
    assert not same(turned, first)
    slide(page, "cut", 0.5)
    assert not same(seen(page), turned)


def test_side_by_side_shows_each_sequence_and_each_mask(page: Any) -> None:
    """Side by side shows sequences or masks, and the crosshair moves in all of them."""
    press(page, "v", "v")
    page.wait_for_selector(".stages[data-tiles='4'][aria-busy=false]")
    before = seen(page)
    press(page, "ArrowUp", "ArrowUp")
    after = seen(page)
    rows, columns = before.shape[0] // 2, before.shape[1] // 2
    for top in (0, rows):
        for left in (0, columns):
            part = (slice(top, top + rows), slice(left, left + columns))
            assert not same(before[part], after[part])
    page.check("input[value=masks]")
    page.wait_for_selector(".stages[data-tiles='3'][aria-busy=false]")
    captions = page.locator("figure:not([hidden]) figcaption").all_text_contents()
    assert captions == ["prediction", "truth", "WT: prediction against truth"]


def test_help_lists_the_keys_and_can_silence_them(page: Any) -> None:
    """`?` opens the list of shortcuts, Escape closes it, and its switch disables single letters."""
    press(page, "?")
    dialog = page.locator("dialog")
    assert dialog.is_visible()
    assert dialog.locator("tr").count() > 15
    dialog.locator("input[type=checkbox]").uncheck()
    press(page, "Escape")
    assert not dialog.is_visible()
    before = seen(page)
    press(page, "m", "o", "2", "v")
    assert same(seen(page), before)


def test_a_picture_is_saved_with_its_legend(page: Any) -> None:
    """The saved PNG is named after the case and has text below the pictures."""
    image = pytest.importorskip("PIL.Image")
    pictures = page.locator(".stages").bounding_box()
    with page.expect_download() as download:
        press(page, "s")
    assert download.value.suggested_filename == "BraTS2021_00001.png"
    with image.open(download.value.path()) as saved:
        assert saved.format == "PNG"
        assert saved.height > pictures["height"] + 50
        below = np.asarray(saved.convert("RGB"))[-70:]
        above = np.asarray(saved.convert("RGB"))[:-90]
    assert (below.max(axis=-1) > 120).sum() > 300
    assert (above.max(axis=-1) > 120).sum() > 3000


def test_every_control_has_a_name(page: Any) -> None:
    """Every control has a label for screen readers, and the page has the notice."""
    nameless = page.evaluate(
        """() => [...document.querySelectorAll(
            "button, input, select, canvas:not([aria-hidden]), dialog, summary"
        )].filter((one) => {
            const labelled = one.getAttribute("aria-labelledby");
            const words = [one.ariaLabel, labelled && document.getElementById(labelled)?.textContent,
                           ...[...(one.labels ?? [])].map((label) => label.textContent), one.textContent];
            return !words.some((text) => text && text.trim());
        }).map((one) => one.outerHTML)"""
    )
    assert nameless == []
    assert "Research use only, not a medical device." in page.locator("header").inner_text()


@pytest.mark.parametrize("width", [1280, 820])
def test_nothing_sticks_out_of_the_page(page: Any, width: int) -> None:
    """There is no horizontal scrolling at the width of a screen and of a tablet."""
    page.set_viewport_size({"width": width, "height": 1000})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_can_be_put_away(page: Any) -> None:
    """After `destroy` nothing is left in the element, and keys are not handled any more."""
    left = page.evaluate(
        """async () => {
            const { createViewer } = await import("./viewer.js");
            const place = document.createElement("div");
            document.body.append(place);
            const viewer = await createViewer(place, await (await fetch("scene.json")).json(), { shortcuts: false });
            const built = place.querySelectorAll("canvas").length;
            viewer.destroy();
            return [built, place.childElementCount];
        }"""
    )
    assert left == [2, 0]


def test_without_webgl_2_it_says_what_to_do(case: Case) -> None:
    """A browser without WebGL 2 shows a message instead of an empty page."""
    with (
        serve_scene(read_scene(case)) as served,
        open_page(served.url, (served.url, "data:"), flags=("--disable-3d-apis",)) as opened,
    ):
        opened.wait_for_selector("[role=alert]:has-text('has no WebGL 2')")
