"""Make the README's pictures of web pages: python docs/make_page_pictures.py [report] [viewer] [service] [raw].

This needs chromium. All pictures show phantoms; the project contains no patients' data.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

import gliomask
from gliomask.cases import Case, find_cases
from gliomask.phantom import write_phantoms
from gliomask.phantom.raw import write_raw_phantoms
from gliomask.report import write_prediction_report
from gliomask.viewer import read_scene, serve_scene

PICTURES = Path(__file__).parent / "pictures"
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def main() -> None:
    """Make the pictures that are named, or all."""
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        write_phantoms(Path(name, "cases"), 1, seed=1)
        case = find_cases(Path(name, "cases"))[0]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for wanted in sys.argv[1:] or PAGES:
            page = browser.new_page(
                viewport={"width": 1180, "height": 800}, reduced_motion="reduce", color_scheme="dark"
            )
            PAGES[wanted](page, case, Path(name))
            page.close()
        browser.close()


def photograph_report(page: Any, case: Case, folder: Path) -> None:
    """Save a picture of a report on the true mask: measurements, planes and surface."""
    assert case.mask is not None
    write_prediction_report(case, case.mask, folder / "page.html")
    page.goto((folder / "page.html").as_uri())
    page.wait_for_selector("#viewer[data-ready]")
    for section in ("about", "slices", "checked"):
        page.evaluate(f"document.getElementById('{section}').parentElement.remove()")
    page.evaluate("document.getElementById('tissues').closest('.two').remove()")
    save(page, "report", full_page=True)


def photograph_viewer(page: Any, case: Case, folder: Path) -> None:
    """Save a picture of the viewer with the mask predicted by the model in the package."""
    mask = folder / "masks" / f"{case.id}.nii.gz"
    gliomask.predict(gliomask.load_model(), case).save(mask)
    with serve_scene(read_scene(case, [mask])) as served:
        page.goto(served.url)
        page.wait_for_selector("[data-ready]", timeout=120_000)
        save(page, "viewer")


def photograph_service(page: Any, case: Case, folder: Path) -> None:
    """Save pictures of the web page: after the check, and with the result of a job."""
    command = [sys.executable, "-m", "gliomask", "serve", "--store", str(folder / "store"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = next(found.group() for line in server.stdout if (found := re.search(r"http://\S+", line)))
        page.goto(url)
        images = [source.path for source in case.images.values()]
        page.set_input_files("input[type=file]:not([webkitdirectory])", images)
        page.wait_for_selector("#start:enabled", timeout=120_000)
        save(page, "service_check")
        page.click("#start")
        page.wait_for_selector("#viewer[data-loaded]", timeout=120_000)
        page.wait_for_selector("text=Open the report", timeout=120_000)
        save(page, "service")
        server.terminate()


def photograph_raw(page: Any, _: Case, folder: Path) -> None:
    """Save pictures of a raw head: its mask in its own space with a part of the quality page, and that page alone."""
    write_raw_phantoms(folder / "heads", 1, size=96)
    command = [sys.executable, "-m", "gliomask", "predict", "--raw", "--report"]
    subprocess.run([*command, "-i", str(folder / "heads"), "-o", str(folder / "masks")], check=True)
    photograph_raw_pages(page, folder / "masks" / "RAW_001.html", folder / "masks" / "RAW_001_quality.html")


def photograph_raw_pages(page: Any, report: Path, quality: Path) -> None:
    """Save the pictures of `photograph_raw` from the two pages of a study."""
    page.goto(quality.as_uri())
    page.evaluate("document.querySelectorAll('main > section').forEach((one, n) => n > 2 && one.remove())")
    save(page, "quality", full_page=True)
    page.goto(quality.as_uri())
    alignment = page.locator("section[aria-label='T2-FLAIR']").evaluate(
        """(section) => {
            const rows = section.querySelectorAll('h3, .overlays');  // keep the checkerboard
            rows.forEach((one, n) => n > 1 && one.remove());
            return section.outerHTML;
        }"""
    )
    page.goto(report.as_uri())
    page.wait_for_selector("#viewer[data-ready]")
    page.evaluate(
        """(alignment) => {
            const planes = document.getElementById('viewer').closest('section');
            document.querySelectorAll('main section').forEach((one) => one.contains(planes) || one.remove());
            planes.insertAdjacentHTML('afterend', alignment);
            document.querySelectorAll('footer, header').forEach((one) => one.remove());
        }""",
        alignment,
    )
    save(page, "raw", full_page=True)


def save(page: Any, name: str, *, full_page: bool = False) -> None:
    """Save a picture of a page."""
    page.screenshot(path=PICTURES / f"{name}.jpg", full_page=full_page, type="jpeg", quality=75)


PAGES: Mapping[str, Callable[[Any, Case, Path], None]] = {
    "report": photograph_report,
    "viewer": photograph_viewer,
    "service": photograph_service,
    "raw": photograph_raw,
}

if __name__ == "__main__":
    main()
