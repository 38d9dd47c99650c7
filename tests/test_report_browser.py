"""The controls of a prediction's page, opened from disk in a browser without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import NEEDS_BROWSER, drawn, open_page
from gliomask.cases import Case
from gliomask.report import write_prediction_report
from gliomask.volume import Volume, read_volume, write_volume

pytestmark = NEEDS_BROWSER


@pytest.fixture
def page(write_case: Callable[..., Case], tmp_path: Path) -> Iterator[Any]:
    """The page of a small case, ready."""
    case = write_case()
    assert case.mask is not None
    labels = read_volume(case.mask, mask=True)
    write_volume(tmp_path / "out" / f"{case.id}.nii.gz", labels)
    likely = (labels.data > 0).astype("float32").repeat(3, axis=0) * 0.8
    write_volume(tmp_path / "out" / f"{case.id}_probabilities.nii.gz", Volume(likely, labels.affine))
    write_prediction_report(case, tmp_path / "out", tmp_path / "page.html")
    with open_page((tmp_path / "page.html").as_uri(), ("file:", "data:"), offline=True) as opened:
        opened.wait_for_selector("#viewer[data-ready]")
        yield opened


def pixels(page: Any, plane: int, layer: str) -> str:
    """One layer's picture, as text."""
    script = "([plane, layer]) => document.querySelectorAll(`canvas[data-layer='${layer}']`)[plane].toDataURL()"
    return str(page.evaluate(script, [plane, layer]))


def seen(page: Any) -> bytes:
    """The pixels of the three planes."""
    drawn(page)
    return bytes(page.locator(".planes").screenshot())


def test_regions_slices_and_probabilities_change_what_is_seen(page: Any) -> None:
    """Each switch changes the picture and back; the slider follows the arrow keys; a click moves the other planes."""
    before = seen(page)
    for region in ("WT", "TC", "ET"):
        page.uncheck(f"input[name=region][value={region}]")
        assert seen(page) != before
        page.check(f"input[name=region][value={region}]")
        assert seen(page) == before
    outlines = pixels(page, 0, "WT")
    page.check("input[name=style][value=fill]")
    drawn(page)
    assert pixels(page, 0, "WT") != outlines
    slice_before, other = pixels(page, 0, "image"), pixels(page, 1, "image")
    place = page.locator(".plane output").first.text_content()
    page.locator(".plane input[type=range]").first.press("ArrowRight")
    assert seen(page) != before
    assert pixels(page, 0, "image") != slice_before
    assert pixels(page, 1, "image") == other
    assert page.locator(".plane output").first.text_content() != place
    page.locator(".stack").first.click(position={"x": 60, "y": 60})
    assert seen(page) != before
    assert pixels(page, 1, "image") != other
    nothing = pixels(page, 0, "probability")
    page.select_option("select[name=probability]", "0")
    assert seen(page) != before
    assert pixels(page, 0, "probability") != nothing


def test_the_grey_window_changes_the_images_only(page: Any) -> None:
    """The sliders for level and width change the grey levels, not the outlines, and are set back by the button."""
    image, outlines = pixels(page, 0, "image"), pixels(page, 0, "WT")
    for name in ("level", "width"):
        page.locator(f"input[name={name}]").press("Home")
        drawn(page)
        assert pixels(page, 0, "image") != image
        assert pixels(page, 0, "WT") == outlines
        page.click("#window-reset")
        drawn(page)
        assert pixels(page, 0, "image") == image


@pytest.mark.parametrize("width", [1280, 400])
def test_the_first_picture_is_seen_without_scrolling(page: Any, width: int) -> None:
    """A whole slice is visible when the page is opened, on a screen and on a phone."""
    page.set_viewport_size({"width": width, "height": 800})
    box = page.locator(".stack").first.bounding_box()
    assert box["y"] > 0
    assert box["y"] + box["height"] <= 800


def test_the_surface_turns_and_its_parts_can_be_hidden(page: Any) -> None:
    """Keys and dragging rotate the surface, boxes hide its parts, and the button starts and stops the rotation."""
    surface = page.locator("#surface")
    first = surface.evaluate("canvas => canvas.toDataURL()")
    surface.press("ArrowRight")
    turned = surface.evaluate("canvas => canvas.toDataURL()")
    assert turned != first
    page.uncheck("input[name=part][value=brain]")
    assert surface.evaluate("canvas => canvas.toDataURL()") != turned
    assert page.locator("#turn").get_attribute("aria-pressed") == "false"
    page.click("#turn")
    assert page.locator("#turn").get_attribute("aria-pressed") == "true"


def test_a_slice_opens_goes_on_and_closes(page: Any) -> None:
    """A slice is enlarged by mouse or keys, and the next one is another picture."""
    page.locator(".strip button").first.click()
    shown = page.locator("#lightbox img").get_attribute("src")
    page.keyboard.press("ArrowRight")
    assert page.locator("#lightbox img").get_attribute("src") != shown
    page.keyboard.press("Escape")
    assert not page.locator("#lightbox").is_visible()


@pytest.mark.parametrize("width", [1280, 820, 400])
def test_nothing_sticks_out_of_the_page(page: Any, width: int) -> None:
    """There is no horizontal scrolling at the width of a screen, a tablet and a phone."""
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
