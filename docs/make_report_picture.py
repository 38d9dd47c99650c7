"""Make the README's picture of a report: python docs/make_report_picture.py (needs playwright and chromium)."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from gliomask.cases import find_cases
from gliomask.phantom import write_phantoms
from gliomask.report import write_prediction_report

PICTURE = Path(__file__).parent / "pictures" / "report.jpg"


def main() -> None:
    """Draw a phantom, report on its true mask, and photograph the planes and the surface."""
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        write_phantoms(folder / "cases", 1, seed=1)
        case = find_cases(folder / "cases")[0]
        assert case.mask is not None
        write_prediction_report(case, case.mask, folder / "page.html")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 900}, reduced_motion="reduce", color_scheme="dark")
        page.goto((folder / "page.html").as_uri())
        page.wait_for_selector("#viewer[data-ready]")
        for section in ("about", "slices", "checked"):
            page.evaluate(f"document.getElementById('{section}').parentElement.remove()")
        page.evaluate("document.getElementById('tissues').closest('.two').remove()")
        page.screenshot(path=PICTURE, full_page=True, type="jpeg", quality=75)
        browser.close()


if __name__ == "__main__":
    main()
