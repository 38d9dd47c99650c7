"""Reading images in the viewer: real keys, wheel turns, drags and touches change pixels and slice numbers."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from browser import NEEDS_VIEWER, PATIENCE_MS, drawn, open_page
from conftest import AFFINE, nested_ellipsoids
from gliomask.figures.case import PLANES
from gliomask.labels import get_convention
from gliomask.report.measure import axial_diameters
from gliomask.viewer import Scene, ShownMask, serve_scene
from gliomask.volume import Volume, gzip_nifti, match_axes, nifti_bytes, reorient

pytestmark = NEEDS_VIEWER

ORDER = ("t2f", "t1c", "t2w", "t1n")
ANTERIOR = 2000  # the value of a block in front of the head
CELLS = ("axial", "coronal", "sagittal")


def scene_of(seed: int, title: str) -> Scene:
    """Return a scene in memory: four images with a bright block in front, a truth, and a prediction beside it."""
    images, tissues = nested_ellipsoids(seed)
    labels = Volume(np.where(tissues == 3, 4, tissues).astype(np.uint8)[None], AFFINE)
    front = reorient(Volume(np.zeros_like(labels.data), AFFINE), "LPS")
    front.data[0, 10:13, :3, 8:11] = 1
    convention = get_convention("brats2021")
    moved = Volume(np.roll(labels.data, 1, axis=1), AFFINE)
    there = match_axes(front, labels.grid).data[0] == 1
    shown = {name: Volume(np.where(there, ANTERIOR, images[name]).astype(np.int16)[None], AFFINE) for name in ORDER}
    masks = (
        ShownMask("prediction", "prediction", "prediction", moved, convention),
        ShownMask("truth", "truth", "truth", labels, convention),
    )
    return Scene(title, shown, masks)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return scene_of(1, "first")


@pytest.fixture(scope="module")
def shared(scene: Scene) -> Iterator[Any]:
    """The viewer with all volumes loaded; opening it takes longer than the tests."""
    with (
        serve_scene(scene, beside=scene_of(2, "second")) as served,
        open_page(
            served.url,
            (served.url, "blob:", "data:"),
            width=1000,
            expected=("niivue-error Error processing NIfTI",),  # of a dropped file that is none
        ) as opened,
    ):
        opened.wait_for_selector("#viewer[data-ready][data-loaded]")
        opened.on("filechooser", lambda chooser: None)  # intercepts them from now on
        yield opened


@pytest.fixture
def page(shared: Any) -> Any:
    """The viewer as it was at first."""
    shared.keyboard.press("Escape")
    shared.set_viewport_size({"width": 1000, "height": 800})
    for value in ("planes", "axial", "crosshair", "t2f", "auto", "prediction", "fill"):
        shared.check(f"input[value={value}]")
    shared.locator("figure:not([hidden]) canvas.marks").focus()
    for key in ("0", "h"):
        shared.keyboard.press(key)
    return shared


def seen(page: Any, place: str = ".stages") -> np.ndarray:
    """The pixels of an element, `(rows, columns, 3)`."""
    image = pytest.importorskip("PIL.Image")
    page.wait_for_selector(".stages[aria-busy=false]")
    drawn(page)
    content = page.locator(place).first.screenshot(timeout=PATIENCE_MS)
    return np.asarray(image.open(BytesIO(content)).convert("RGB")).astype(int)


def picture_of(page: Any, plane: str = "axial") -> np.ndarray:
    """The pixels of a plane's picture, without what surrounds it."""
    return seen(page, f"figure:not([hidden]) .tile[data-plane={plane}]")[24:-19, 17:-42]


def same(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and bool(np.abs(first - second).max() <= 2)


def counts(page: Any) -> dict[str, int]:
    """The printed slice number of each plane."""
    drawn(page)
    texts = page.eval_on_selector_all(
        "figure:not([hidden]) .tile .count",
        "all => all.map((one) => [one.parentElement.dataset.plane, one.textContent])",
    )
    return {plane: int(text.split(" / ")[0]) for plane, text in texts}


def wheel(page: Any, delta: int, **changes: int) -> None:
    """Turn the wheel, and wait until the slice numbers have changed by `changes`, which the browser does later."""
    expected = {**counts(page)}
    for plane, change in changes.items():
        expected[plane] += change
    page.mouse.wheel(0, delta)
    until(lambda: counts(page) == expected, lambda: f"{counts(page)} is not {expected}")


def until(true: Callable[[], bool], what: Callable[[], str] = lambda: "", seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what()


def centre(page: Any, plane: str, right: float = 0, down: float = 0) -> tuple[float, float]:
    """A place near the middle of a plane's picture, in pixels of the page."""
    box = page.locator(f"figure:not([hidden]) .tile[data-plane={plane}]").first.bounding_box()
    return box["x"] + box["width"] / 2 - 12 + right, box["y"] + box["height"] / 2 + 2 + down


def drag(page: Any, start: tuple[float, float], end: tuple[float, float], button: str = "left") -> None:
    page.mouse.move(*start)
    page.mouse.down(button=button)
    page.mouse.move(*((a + b) / 2 for a, b in zip(start, end, strict=True)))
    page.mouse.move(*end)
    page.mouse.up(button=button)


def test_the_wheel_changes_the_slice_and_zooms_with_ctrl(page: Any) -> None:
    """In each plane a turn of the wheel is one slice; with Ctrl it zooms, and `0` shows the whole image again."""
    for plane in CELLS:
        before, picture = counts(page), picture_of(page, plane)
        page.mouse.move(*centre(page, plane))
        wheel(page, -100, **{plane: 1})
        assert not same(picture_of(page, plane), picture)
        wheel(page, 100, **{plane: -1})
        assert counts(page) == before
        assert same(picture_of(page, plane), picture)
    page.mouse.move(*centre(page, "axial"))
    picture = picture_of(page)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    until(lambda: not same(picture_of(page), picture))
    page.keyboard.up("Control")
    zoomed = picture_of(page)
    drag(page, centre(page, "axial"), centre(page, "axial", 40, 20), button="middle")
    assert not same(picture_of(page), zoomed)
    assert counts(page) == before
    page.keyboard.press("0")
    assert same(picture_of(page), picture)


def test_the_right_button_windows_and_each_sequence_keeps_its_window(page: Any) -> None:
    """Dragging with the right button changes the grey window of one sequence only; presets set and reset it."""
    first = picture_of(page)
    drag(page, centre(page, "axial"), centre(page, "axial", 60, 40), button="right")
    dark = picture_of(page)
    assert not same(dark, first)
    assert (
        page.locator("input[name^=gliomask]:checked").evaluate_all(
            "all => all.map((one) => one.value).filter((value) => ['auto', 'tumour', 'full'].includes(value))"
        )
        == []
    )
    page.keyboard.press("2")
    assert page.locator("input[value=auto]").is_checked()
    page.keyboard.press("1")
    assert same(picture_of(page), dark)
    page.keyboard.press("7")
    full = picture_of(page)
    page.keyboard.press("6")
    assert not same(picture_of(page), full)
    page.keyboard.press("5")
    assert same(picture_of(page), first)


def test_a_double_click_shows_one_plane(page: Any) -> None:
    """A double click on a plane shows it alone, another one shows all."""
    page.mouse.dblclick(*centre(page, "coronal"))
    page.wait_for_selector(".stages[aria-busy=false]")
    shown = page.locator("figure:not([hidden]) .tile:not([hidden])")
    assert shown.evaluate_all("all => all.map((one) => one.dataset.plane)") == ["coronal"]
    page.mouse.dblclick(*centre(page, "coronal"))
    page.wait_for_selector(".stages[aria-busy=false]")
    assert shown.count() == 4


def test_the_slider_of_a_plane_shows_and_changes_its_slice(page: Any) -> None:
    """Each plane has a slider with the number of its slice."""
    before = counts(page)
    for plane in CELLS:
        slider = page.locator(f"figure:not([hidden]) input[name=slice-{plane}]").first
        assert int(slider.input_value()) == before[plane]
        slider.focus()
        page.keyboard.press("ArrowUp")
        assert counts(page)[plane] == before[plane] + 1
        page.keyboard.press("ArrowDown")
    assert counts(page) == before
    page.locator("canvas.marks").first.focus()


def test_front_is_left_in_sagittal_slices_everywhere(page: Any) -> None:
    """In viewer, figures and reports, a bright block in front of the head is on the left."""
    page.keyboard.press("m")
    page.keyboard.press("x")
    tile = picture_of(page, "sagittal")
    block = np.argwhere(tile.min(axis=-1) > 240)
    page.keyboard.press("m")
    page.keyboard.press("x")
    assert len(block) > 20
    assert block[:, 1].mean() < 0.3 * tile.shape[1]
    letters = page.locator("figure:not([hidden]) .tile[data-plane=sagittal] .letter").first
    assert letters.text_content() == "A"
    assert (PLANES[2].left, PLANES[2].right) == ("A", "P")
    lps = np.zeros((4, 6, 5))
    lps[:, 0] = 1  # in LPS order the front comes first
    assert PLANES[2].cut(lps, 1)[:, 0].all()


def test_letters_neither_collide_nor_lie_on_images(page: Any) -> None:
    """Letters, titles, numbers and sliders have places of their own beside the pictures, at any width."""
    for width in (1000, 820, 400):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(200)
        drawn(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        boxes = page.evaluate(
            """() => [...document.querySelectorAll("figure:not([hidden]) .tile:not([hidden])")].map((tile) => {
                const box = (one) => {
                    const { left, top, right, bottom } = one.getBoundingClientRect();
                    return [left, top, right, bottom];
                };
                return [box(tile), tile.dataset.plane, [...tile.children].map(box)];
            })"""
        )
        assert len(boxes) == 4
        for tile, plane, parts in boxes:
            right = tile[2] - (17 if plane == "space" else 42)
            picture = [tile[0] + 17, tile[1] + 24, right, tile[3] - 19]
            everything = [picture, *parts]
            for number, one in enumerate(everything):
                for other in everything[number + 1 :]:
                    apart = one[2] <= other[0] + 1 or other[2] <= one[0] + 1
                    assert apart or one[3] <= other[1] + 1 or other[3] <= one[1] + 1, (width, plane, one, other)
    page.set_viewport_size({"width": 1000, "height": 800})
    page.wait_for_timeout(200)


def test_outlines_are_thin_contours(page: Any) -> None:
    """An outline colours fewer pixels than the filled mask; that of a square has 4 pieces a voxel of its side."""
    page.check("input[value=prediction]")
    coloured = {}
    for style in ("fill", "outline"):
        page.check(f"input[value={style}]")
        for plane in CELLS:
            tile = picture_of(page, plane)
            coloured[style, plane] = int((tile.max(axis=-1) - tile.min(axis=-1) > 40).sum())
    page.check("input[value=fill]")
    for plane in CELLS:
        assert 20 < coloured["outline", plane] < 0.6 * coloured["fill", plane], coloured
    pieces = page.evaluate(
        """async () => {
            const { segments } = await import("./contours.js");
            const values = new Uint8Array(64);
            for (const row of [2, 3, 4]) for (const column of [3, 4, 5]) values[8 * row + column] = 2;
            return segments({ values, width: 8, height: 8 }, [2]);
        }"""
    )
    assert len(pieces) == 12
    assert np.array(pieces).min(axis=0).tolist() == [2.5, 1.5, 2.5, 1.5]


def test_ruler_diameters_and_mean(page: Any, scene: Scene) -> None:
    """The ruler, both diameters and the mean in a circle are those of NumPy and of the report."""
    truth = scene.masks[1]
    page.check("input[value=truth]")
    page.keyboard.press("l")
    drag(page, centre(page, "axial", -40), centre(page, "axial", 40))
    drag(page, centre(page, "axial", -20, 30), centre(page, "axial", 20, 30))
    page.keyboard.press("i")
    drag(page, centre(page, "axial"), centre(page, "axial", 25))
    texts = page.locator(".measures li span").all_text_contents()
    lengths = [float(text.split()[2]) for text in texts[:2]]
    assert lengths[0] == pytest.approx(2 * lengths[1], rel=0.02)
    assert "mean" in texts[2]
    for _ in range(3):
        page.keyboard.press("Delete")
    assert page.locator(".measures li").count() == 0
    expected = axial_diameters(truth.region("WT"), truth.labels.affine)
    assert expected is not None
    ras = reorient(truth.labels, "RAS").data[0]
    image = reorient(scene.images["t2f"], "RAS")
    flat = np.linalg.qr(image.affine[:3, :2])[1]
    flat *= np.sign(np.diag(flat))[:, None]
    scale = [flat[0, 0], flat[0, 1], flat[1, 1]]
    best = 0.0
    for index in np.flatnonzero(ras.any(axis=(0, 1))):
        place = np.argwhere(ras[:, :, index])[0]
        points = page.evaluate(
            """async ([values, width, height, place, scale]) => {
                const { diametersAt, distance } = await import("./measure.js");
                const points = diametersAt({ values, width, height }, [1, 2, 4], place, scale);
                return [distance(points[0], points[1], scale), distance(points[2], points[3], scale)];
            }""",
            [ras[:, :, index].T.ravel().tolist(), ras.shape[0], ras.shape[1], place.tolist(), scale],
        )
        if points[0] > best + 1e-9:
            best, second = points
    assert best == pytest.approx(expected.longest_mm, abs=0.01)
    assert second == pytest.approx(expected.perpendicular_mm, abs=0.01)
    section = image.data[0, :, :, 9].T.astype(float)
    rows, columns = np.indices(section.shape)
    inside = np.linalg.norm(np.tensordot(flat, [columns - 8, rows - 11], 1), axis=0) <= 4.01 * flat[0, 0]
    mean = page.evaluate(
        """async ([values, width, height, scale]) => {
            const { within } = await import("./measure.js");
            return within({ values, width, height }, [[8, 11], [12.01, 11]], scale);
        }""",
        [section.ravel().tolist(), section.shape[1], section.shape[0], scale],
    )
    assert mean["count"] == inside.sum()
    assert mean["mean"] == pytest.approx(section[inside].mean())
    assert mean["deviation"] == pytest.approx(section[inside].std())
    page.keyboard.press("d")
    page.mouse.click(*centre(page, "axial"))
    assert "×" in page.locator(".measures li span").text_content()
    page.get_by_role("button", name="Remove all").click()
    assert page.locator(".measures li").count() == 0


KEYS = {
    # The keys of the list, and how to undo each; None: tested below.
    **dict.fromkeys("1234", "1"),
    **{key: key for key in ("a", "t", "e", "m", "o", "x", "Enter")},
    **{"n": "nnn", "[": "]", "]": "[", "v": None, "p": "pp", "b": "bbb", "5": "5", "6": "5", "7": "5"},
    **{"←": "ArrowRight", "→": "ArrowLeft", "↑": "ArrowDown", "↓": "ArrowUp"},
    **{"Page up": "PageDown", "Page down": "PageUp", "+": "-", "-": "+", "0": "0", "h": "h"},
    **dict.fromkeys(("c", "g", "w", "l", "d", "i"), "c"),
    **dict.fromkeys(("Delete", "Backspace", "f", "s", "?")),
}
NAMES = {
    "←": "ArrowLeft",
    "→": "ArrowRight",
    "↑": "ArrowUp",
    "↓": "ArrowDown",
    "Page up": "PageUp",
    "Page down": "PageDown",
}


def test_every_listed_key_does_something(page: Any) -> None:
    """Each key that the list of shortcuts names changes the picture or the controls when it is pressed."""
    page.set_viewport_size({"width": 920, "height": 560})  # small, as many pictures are compared
    page.keyboard.press("?")
    listed = page.locator("dialog kbd").all_text_contents()
    page.keyboard.press("Escape")
    assert set(listed) == set(KEYS)
    page.keyboard.press("+")  # so that zooming out changes something
    before = state(page)
    for key, undo in KEYS.items():
        if undo is None or key in ("1", "5", "0", "h", "c"):
            continue
        page.keyboard.press(NAMES.get(key, key))
        assert state(page) != before, key
        for back in [undo] if len(undo) > 4 or undo in ("Enter",) else list(undo):
            page.keyboard.press(back)
    page.keyboard.press("v")
    assert state(page) != before
    page.check("input[value=planes]")
    page.locator("figure:not([hidden]) canvas.marks").focus()
    for key, undone in (("1", "2"), ("5", "7"), ("h", "PageUp"), ("c", "g"), ("0", "+")):
        first = state(page)
        page.keyboard.press(undone)
        assert state(page) != first, key
        page.keyboard.press(key)
    with page.expect_file_chooser():
        page.keyboard.press("f")
    with page.expect_download():
        page.keyboard.press("s")
    page.keyboard.press("l")
    for key in ("Delete", "Backspace"):
        drag(page, centre(page, "axial", -40), centre(page, "axial", 40))
        assert page.locator(".measures li").count() == 1
        page.keyboard.press(key)
        assert page.locator(".measures li").count() == 0
    page.keyboard.press("c")


def state(page: Any) -> tuple[bytes, list[str]]:
    """What the reader sees: the pixels of the pictures, and which controls are chosen."""
    pixels = seen(page).tobytes()
    chosen = page.eval_on_selector_all("input:checked", "all => all.map((one) => one.name + one.value)")
    return pixels, chosen


def test_files_can_be_dropped(page: Any, scene: Scene) -> None:
    """A dropped image or mask is shown at once; another file is refused with its name."""
    image = gzip_nifti(nifti_bytes(scene.images["t1c"]), 1)
    labels = nifti_bytes(scene.masks[1].labels)
    for name, content in (("mine.nii.gz", image), ("labels.nii", labels), ("notes.txt", b"text"), ("bad.nii", b"no")):
        drop(page, name, content)
        if name.endswith(".txt") or name.startswith("bad"):
            page.wait_for_selector(f"text={name}: cannot be shown")
        else:
            page.wait_for_selector(f"label:has-text('{name}') >> nth=0")
            page.wait_for_selector(".stages[aria-busy=false]")
    assert "mine.nii.gz" in page.locator("fieldset:has(legend:text('Sequence'))").inner_text()
    assert page.locator("input[value^=file-]:checked").count() == 2
    assert gzip.decompress(image) != labels
    page.keyboard.press("1")
    page.check("input[value=prediction]")


def drop(page: Any, name: str, content: bytes) -> None:
    """Drop a file onto the pictures."""
    page.evaluate(
        """([name, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name));
            const event = new DragEvent("drop", { dataTransfer: data, bubbles: true });
            document.querySelector(".stages").dispatchEvent(event);
        }""",
        [name, list(content)],
    )


def test_values_are_those_after_slope_and_intercept(page: Any, scene: Scene) -> None:
    """Images and masks stored with them look and measure like the same without: readout, windows, mean, labels, 3D."""
    labels = ("plain.nii", "scaled.nii")
    for label, slope, intercept in ((labels[0], 1, 0.0), (labels[1], 0.5, 10.0)):
        for kind, volume in (("image", scene.images["t1c"]), ("mask", scene.masks[0].labels)):
            file = nib.Nifti1Image(((volume.data[0] - intercept) / slope).astype(np.int16), volume.affine)
            file.header.set_slope_inter(slope, intercept)
            drop(page, f"{kind} {label}", file.to_bytes())
            page.locator(f"label:has-text('{kind} {label}') >> nth=0").wait_for()
    shown, told = {}, {}
    for label in labels:
        for kind in ("image", "mask"):
            page.get_by_role("radio", name=f"{kind} {label}").check()
        page.locator("figure:not([hidden]) canvas.marks").focus()
        pictures = []
        for key in "567":
            page.keyboard.press(key)
            pictures.append(picture_of(page))
        page.keyboard.press("i")
        drag(page, centre(page, "axial", -20), centre(page, "axial", 20))
        measured = page.locator(".measures li span").text_content()
        read = [
            page.locator(f"div:has(> dt:text-is('{kind} {label}')) dd").text_content() for kind in ("image", "mask")
        ]
        page.keyboard.press("Delete")
        page.check("input[value=space]")
        shown[label], told[label] = [*pictures, seen(page, "figure:not([hidden]) .canvas")], [measured, *read]
        page.check("input[value=planes]")
    for plain, scaled in zip(*shown.values(), strict=True):
        assert same(plain, scaled)
    assert told["plain.nii"] == told["scaled.nii"]
    assert not same(*shown["plain.nii"][1:3])


def test_two_examinations_move_together(page: Any) -> None:
    """Both examinations show the same place: the wheel in one changes the slice of the other."""
    page.check("input[value=pair]")
    page.wait_for_selector(".stages[data-tiles='2'][aria-busy=false]")
    captions = page.locator("figure:not([hidden]) figcaption").all_text_contents()
    assert [text.split(":")[0] for text in captions] == ["first", "second"]
    numbers = "figure:not([hidden]) .tile:not([hidden]) .count"
    before = page.locator(numbers).all_text_contents()
    page.mouse.move(*centre(page, "axial"))
    page.mouse.wheel(0, -100)
    until(lambda: page.locator(numbers).all_text_contents()[1] != before[1])
    after = page.locator(numbers).all_text_contents()
    assert len(after) == 2
    assert all(int(new.split()[0]) == int(old.split()[0]) + 1 for new, old in zip(after, before, strict=True))
    page.mouse.wheel(0, 100)
    page.check("input[value=planes]")


@pytest.mark.parametrize("width", [820, 400])
def test_fingers_change_the_slice_and_zoom(page: Any, width: int) -> None:
    """One finger changes the slice, a tap moves the crosshair, two fingers zoom."""
    page.set_viewport_size({"width": width, "height": 900})
    page.locator(".stages").scroll_into_view_if_needed()
    places: list[tuple[float, float]] = [(0, 0)]
    until(lambda: places.append(centre(page, "axial")) or drawn(page) or places[-1] == places[-2])
    before, picture = counts(page), seen(page)
    x, y = centre(page, "axial")
    touch(page, [[(x, y)], [(x, y - 15)], [(x, y - 31)]])
    assert counts(page)["axial"] == before["axial"] + 3
    touch(page, [[(x, y)], [(x, y + 15)], [(x, y + 31)]])
    assert counts(page) == before
    touch(page, [[(x + 9, y + 9)]])
    assert counts(page) != before
    page.keyboard.press("h")
    touch(page, [[(x - 10, y), (x + 10, y)], [(x - 20, y), (x + 20, y)], [(x - 30, y), (x + 30, y)]])
    assert counts(page) == before
    assert not same(seen(page), picture)
    page.keyboard.press("0")
    page.set_viewport_size({"width": 1000, "height": 800})
    page.wait_for_timeout(200)


def touch(page: Any, steps: list[list[tuple[float, float]]]) -> None:
    """Touch with one or two fingers, move through the steps, and let go."""
    session = page.context.new_cdp_session(page)
    for number, points in enumerate(steps):
        kind = "touchStart" if number == 0 else "touchMove"
        fingers = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    session.detach()
    drawn(page)
