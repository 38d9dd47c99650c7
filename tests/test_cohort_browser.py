"""The page of a folder of predictions, opened from disk in a browser without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import NEEDS_BROWSER, open_page
from gliomask.cohort import FolderTable
from gliomask.report import write_cohort_page
from test_cohort import facts_of, finish, write_mask

pytestmark = NEEDS_BROWSER
CASES = 60
MANY = {"CASE_007", "CASE_055"}


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    """The page of sixty cases, of which a third has a warning, two have two, and one has a report."""
    for number in range(CASES):
        case = f"CASE_{number:03d}"
        warnings = [f"tumour of {number}.5 mL is large. Look at it."] if number % 3 == 0 else []
        if case in MANY:
            warnings = ["no t1c: only that shows", "t2f looks like t2w"]
        finish(tmp_path, case, warnings=warnings)
        write_mask(tmp_path, case, (30, 30, 20), np.eye(4), 8)
    (tmp_path / "CASE_003.html").write_text("<title>its report</title>", "utf-8")
    table = FolderTable(tmp_path)
    table.fail("CASE_900", "ends too early")
    table.write()
    with open_page(write_cohort_page(table).as_uri(), ("file:", "data:"), offline=True) as opened:
        yield opened


def shown(page: Any) -> list[str]:
    """The names of the cases in the list, from above to below."""
    return [text.strip() for text in page.locator("#list tbody strong").all_inner_texts()]


def test_sorting_by_any_column_and_leafing_through(page: Any) -> None:
    """A second press turns the order round; the fifty-first case is on the second page."""
    names = [f"CASE_{number:03d}" for number in range(CASES)]
    assert shown(page) == names[:50]
    page.click("#list button:text-is('Next')")
    assert shown(page) == names[50:]
    volumes = {name: facts_of(name)["volumes_ml"]["WT"] for name in names}
    by_volume = sorted(names, key=volumes.__getitem__)
    page.click("#list th button:text-is('WT mL')")
    assert shown(page) == by_volume[::-1][:50]
    assert page.locator("#list th[aria-sort=descending]").inner_text() == "WT mL"
    page.click("#list th button:text-is('WT mL')")
    assert shown(page) == by_volume[:50]
    page.select_option("#list label:has-text('Sort by') select", label="warnings")
    assert set(shown(page)[:2]) == MANY


def test_filtering_by_warning_and_searching(page: Any) -> None:
    """By whether there is a warning, by its kind, whose numbers differ, and by parts of the names."""
    kinds = page.locator("#list label:has-text('Show') select")
    kinds.select_option("any")
    assert len(shown(page)) == 20 + 2
    kinds.select_option("none")
    assert not set(shown(page)) & MANY
    kinds.select_option(label="no t1c (2)")
    assert set(shown(page)) == MANY
    assert page.locator("#list tbody .why li").count() == 4
    page.fill("#list input[type=search]", "case_055")
    assert shown(page) == ["CASE_055"]
    page.fill("#list input[type=search]", "nobody")
    assert page.locator("#list [role=status]").inner_text() == "no case fits"


def test_links_pictures_and_failures(page: Any, tmp_path: Path) -> None:
    """The name opens the report; each case has a picture; the tables are linked; a failed case is named."""
    assert page.locator("#list tbody img").count() == 50
    picture = page.locator("#list tbody img").first
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 10
    assert page.locator("details.alarm-line summary").inner_text() == "1 case could not be predicted"
    page.click("details.alarm-line summary")
    assert "CASE_900: ends too early" in page.locator("details.alarm-line li").inner_text()
    links = page.locator("p.note a")
    assert {"volumes.csv", "failed.csv"} <= {link.get_attribute("href") for link in links.all()}
    page.click("#list tbody a:text-is('CASE_003')")
    page.wait_for_url((tmp_path / "CASE_003.html").as_uri())
    assert page.title() == "its report"


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_does_not_scroll_sideways(page: Any, width: int) -> None:
    """On a screen and on a telephone."""
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
