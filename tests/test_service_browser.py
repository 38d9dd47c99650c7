"""The pages of the service in a browser without other network access: from upload to download."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from browser import NEEDS_VIEWER, drawn, open_page
from gliomask.cases import Case
from serving import HERE, SECRET, build, finished_job, four, wait_for
from test_service_api import Served

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("httpx", reason="needs httpx")

pytestmark = NEEDS_VIEWER
SLOWLY = 120_000  # milliseconds; long enough for a busy machine


@pytest.fixture
def files(write_case: Callable[..., Case], tmp_path: Path) -> list[str]:
    """Four images named by sequence, with T2 and FLAIR swapped."""
    case = write_case()
    names = {"t1n": "x_t1", "t1c": "x_t1ce", "t2w": "x_flair", "t2f": "x_t2"}
    found = []
    for modality, name in names.items():
        found.append(shutil.copy(case.images[modality].path, tmp_path / f"{name}.nii.gz"))
    return [str(path) for path in found]


@contextmanager
def opened(folder: Path, **options: Any) -> Iterator[tuple[Any, Served]]:
    """Open the first page of a server whose store is in a folder."""
    server = Served(folder / "store")
    try:
        with open_page(f"{server.url}/", (server.url, "blob:", "data:"), **options) as page:
            page.wait_for_selector("#list-heading")
            yield page, server
    finally:
        server.end()


def test_from_files_to_a_mask(files: list[str], tmp_path: Path) -> None:
    """Drop files, correct sequences, start, wait, toggle a region, download; the list survives a reload."""
    from typer.testing import CliRunner

    from gliomask.cli import app

    with opened(tmp_path) as (page, _):
        mask, text = tmp_path / "x_seg.nii.gz", tmp_path / "notes.txt"
        shutil.copy(files[0], mask)
        text.write_text("about the patient")
        drop(page, [*files, str(mask), str(text)])
        page.wait_for_selector("#start:enabled", timeout=SLOWLY)
        assert page.locator(".image").count() == 4
        assert "x_seg.nii.gz: its name is that of a mask" in page.locator("#unused").inner_text()
        assert "notes.txt: is not a NIfTI file" in page.locator("#unused").inner_text()
        assert "x_flair.nii.gz" in page.locator("#main").inner_text()
        chosen = {name: page.locator(f"#sequence-image-{n}") for n, name in enumerate(("t1", "t1ce", "flair", "t2"), 1)}
        assert chosen["flair"].input_value() == "t2f"
        chosen["flair"].select_option("t2w")
        page.wait_for_selector("text=are both T2", timeout=SLOWLY)
        assert page.locator("#start").is_disabled()
        chosen["t2"].select_option("t2f")
        page.wait_for_selector("#start:enabled", timeout=SLOWLY)
        page.fill("#title", "first one")
        page.click("#start")
        page.wait_for_selector("#viewer[data-ready]", timeout=SLOWLY)
        page.wait_for_selector("#viewer[data-loaded]", timeout=SLOWLY)
        table = page.locator("[aria-labelledby=volumes-heading]").inner_text()
        assert "whole tumour" in table
        assert "oedema" in table
        before = seen(page)
        page.locator("#viewer input[name=region][value=WT]").uncheck()
        after = seen(page)
        assert after != before
        page.locator("#viewer input[name=region][value=WT]").check()
        assert seen(page) != after
        with page.expect_download() as loading:
            page.locator(".downloads a").first.click()
        assert loading.value.suggested_filename == "first_one_mask.nii.gz"
        mask = Path(loading.value.path()).read_bytes()
        page.wait_for_selector("text=Open the report", timeout=SLOWLY)
        page.goto(page.url.partition("#")[0])
        page.wait_for_selector(".jobs a")
        assert page.locator(".jobs li").inner_text().startswith("first one")
        assert "Done" in page.locator(".jobs li").inner_text()
    one, two, three, four = files
    options = ["--t1", one, "--t1ce", two, "--t2", three, "--flair", four, "--threads", "1"]
    ran = CliRunner().invoke(app, ["predict", *options, "-o", str(tmp_path / "own.nii.gz")])
    assert ran.exit_code == 0, ran.output
    assert mask == (tmp_path / "own.nii.gz").read_bytes()


def test_with_the_keyboard_alone(files: list[str], tmp_path: Path) -> None:
    """Everything can be done by keyboard, including cancelling, restarting and deleting."""
    with opened(tmp_path) as (page, _):
        with page.expect_file_chooser() as choosing:
            tab_to(page, "Choose files")
            page.keyboard.press("Enter")
        choosing.value.set_files(files[:2])
        page.wait_for_selector("#start:enabled", timeout=SLOWLY)
        assert "Check the sequences" in page.evaluate("document.activeElement.textContent")
        tab_to(page, "Start")
        page.keyboard.press("Enter")
        page.wait_for_selector("#cancel", timeout=SLOWLY)
        tab_to(page, "Cancel")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=Start again", timeout=SLOWLY)
        assert page.locator("#announcer").inner_text() != ""
        tab_to(page, "Delete")
        page.keyboard.press("Enter")
        page.wait_for_selector("#sure[open]")
        page.keyboard.press("Escape")
        assert page.locator("text=Start again").is_visible()
        tab_to(page, "Delete")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=None yet")


def test_unusable_files_are_reported_on_the_page(files: list[str], tmp_path: Path) -> None:
    """With the file name and advice; files of other types without a request to the server."""
    broken = tmp_path / "broken_t1.nii.gz"
    broken.write_bytes(Path(files[0]).read_bytes()[:-50])
    (tmp_path / "scan.dcm").write_bytes(b"x")
    with opened_complaining(tmp_path) as page:
        page.set_input_files("#choose-files", [str(broken), files[1]])
        said = page.locator("#said [role=alert]")
        said.wait_for(timeout=SLOWLY)
        assert "broken_t1.nii.gz: has a truncated gzip stream" in said.inner_text()
        page.set_input_files("#choose-files", [str(tmp_path / "scan.dcm")])
        page.wait_for_selector("text=no DICOM file")


@pytest.mark.parametrize("width", [1280, 820, 400])
def test_pages_do_not_scroll_sideways(files: list[str], tmp_path: Path, width: int) -> None:
    """At the widths of a screen, a tablet and a telephone."""
    with opened(tmp_path, width=width) as (page, server):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.set_input_files("#choose-files", files)
        page.wait_for_selector("#start", timeout=SLOWLY)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.goto(f"{server.url}/api")
        page.wait_for_selector(".operation")
        assert page.locator(".operation").count() >= 14
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_signing_in_and_out(tmp_path: Path) -> None:
    """By the printed address or the form. The token disappears from the address bar; a wrong one is reported."""
    server = Served(tmp_path / "store", "--token", SECRET)
    try:
        own = (server.url, "blob:", "data:")
        with open_page(f"{server.url}/login#token={SECRET}", own, expected=("status of 401",)) as page:
            page.wait_for_selector("#list-heading", timeout=SLOWLY)
            assert SECRET not in page.url
            page.click("#logout button")
            page.wait_for_selector("#token", timeout=SLOWLY)
            page.fill("#token", "wrong")
            page.keyboard.press("Enter")
            page.wait_for_selector("text=That is not the token", timeout=SLOWLY)
            page.fill("#token", SECRET)
            page.keyboard.press("Enter")
            page.wait_for_selector("#list-heading", timeout=SLOWLY)
    finally:
        server.end()


@contextmanager
def opened_complaining(folder: Path) -> Iterator[Any]:
    """Like `opened`, but the browser may log the status 422."""
    server = Served(folder / "store")
    try:
        with open_page(f"{server.url}/", (server.url, "blob:", "data:"), expected=("status of 422",)) as page:
            page.wait_for_selector("#list-heading")
            yield page
    finally:
        server.end()


def drop(page: Any, files: list[str]) -> None:
    """Drop files onto the page with a drag-and-drop event."""
    contents = [(Path(path).name, list(Path(path).read_bytes())) for path in files]
    page.evaluate(
        """(contents) => {
            const transfer = new DataTransfer();
            for (const [name, bytes] of contents) transfer.items.add(new File([new Uint8Array(bytes)], name));
            document.querySelector(".drop").dispatchEvent(
                new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }""",
        contents,
    )


def seen(page: Any) -> bytes:
    """Return a screenshot of the viewer."""
    page.wait_for_selector(".stages[aria-busy=false]")
    drawn(page)
    return bytes(page.locator("#viewer .stages").screenshot())


def tab_to(page: Any, text: str) -> None:
    """Press Tab until the element with this text has the focus."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == text:
            return
    raise AssertionError(f"Tab does not reach {text!r}")


def test_a_mask_is_corrected_in_the_page(files: list[str], tmp_path: Path) -> None:
    """Edit, erase, and download: the voxel that the readout names is erased; a second window is told."""
    import numpy as np

    from gliomask.volume import read_volume

    with opened(tmp_path, expected=("409",)) as (page, _):
        page.set_input_files("input[type=file]", files)
        page.wait_for_selector("#start:enabled", timeout=SLOWLY)
        page.locator("#sequence-image-3").select_option("t2w")
        page.locator("#sequence-image-4").select_option("t2f")
        page.fill("#title", "one")
        page.wait_for_selector("#start:enabled", timeout=SLOWLY)
        page.click("#start")
        page.wait_for_selector("text=Open the report", timeout=SLOWLY)
        page.wait_for_selector("#viewer[data-ready][data-loaded]", timeout=SLOWLY)
        image = read_volume(Path(files[1])).data[0]
        assert image[voxel_at_click(page)] == int(page.locator("#viewer [data-name=t1c]").text_content())
        page.click("#edit")
        page.wait_for_selector("#viewer[data-ready][data-loaded] input[name=brush-mm]", timeout=SLOWLY)
        voxel = voxel_at_click(page)
        assert image[voxel] == int(page.locator("#viewer [data-name=t1c]").text_content())
        page.locator("#viewer fieldset", has_text="Region").locator("input[value=WT]").check()
        page.locator("#viewer input[name=brush-mm]").fill("1")
        page.locator("#viewer input[value=eraser]").check()
        page.mouse.click(*middle(page))
        page.click("#viewer button[name=save]")
        page.wait_for_selector("#viewer .said >> text=/^Saved/", timeout=SLOWLY)
        second = page.context.new_page()
        second.goto(page.url)
        second.click("#edit:enabled")
        second.wait_for_selector("#viewer .said:has-text('Another window edits')", timeout=SLOWLY)
        second.close()
        page.wait_for_selector("#corrected a")
        with page.expect_download() as loading:
            page.locator("#corrected a").first.click()
        assert loading.value.suggested_filename == "one_edited.nii.gz"
        got, before = tmp_path / "got.nii.gz", tmp_path / "before.nii.gz"
        got.write_bytes(Path(loading.value.path()).read_bytes())
        with page.expect_download() as loading:
            page.locator(".downloads a").first.click()
        before.write_bytes(Path(loading.value.path()).read_bytes())
        old, new = (read_volume(path, mask=True).data[0] for path in (before, got))
        assert old[voxel] != 0
        assert new[voxel] == 0
        changed = np.argwhere(old != new)
        assert len(changed) >= 1
        assert np.abs(changed - voxel).max() <= 1
        page.locator("#viewer .tile[data-plane=axial]").scroll_into_view_if_needed()
        page.locator("#viewer input[name=brush-mm]").fill("12")
        page.mouse.click(*middle(page))
        assert "Changed, not saved" in page.locator("#viewer .said").inner_text()
        page.click("#edit")  # what was painted last is saved before the editor closes
        page.wait_for_selector("#viewer[data-ready][data-loaded]:not(:has(input[name=brush-mm]))", timeout=SLOWLY)
        assert "corrected" in page.locator("#viewer").inner_text()
        with page.expect_download() as loading:
            page.locator("#corrected a").first.click()
        got.write_bytes(Path(loading.value.path()).read_bytes())
        assert not np.array_equal(read_volume(got, mask=True).data[0], new)


@contextmanager
def editing(folder: Path, files: dict[str, bytes] | None = None, **options: Any) -> Iterator[tuple[Any, Path]]:
    """Open the editor of a job that is done; yields the page and the job's folder."""
    from fastapi.testclient import TestClient

    with TestClient(build(folder / "store"), base_url=HERE) as client:
        job = finished_job(client, folder / "store", files)
    with opened(folder, **options) as (page, _):
        page.click(".jobs a")
        page.click("#edit:enabled")
        page.wait_for_selector("#viewer[data-ready][data-loaded] input[name=brush-mm]", timeout=SLOWLY)
        yield page, folder / "store" / "jobs" / job


def test_changes_that_cannot_be_saved_keep_their_page(tmp_path: Path) -> None:
    """Neither a link nor the end of editing loses them, and both work once the server can save again."""
    with editing(tmp_path, expected=("status of 507",)) as (page, job):
        address = page.url
        page.locator("#viewer input[value=eraser]").check()
        page.locator("#viewer input[name=brush-mm]").fill("12")
        page.locator("#viewer .tile[data-plane=axial]").scroll_into_view_if_needed()
        page.mouse.click(*middle(page))
        full = '{"detail": "No space left on device."}'
        page.route("**/edit/save*", lambda route: route.fulfill(status=507, body=full, content_type="application/json"))
        for leave in ("nav a >> nth=0", "#edit", "nav a >> nth=0"):
            page.evaluate("document.getElementById('edit-words').textContent = ''")
            page.click(leave)
            page.wait_for_selector("#edit-words:has-text('could not be saved, so they stay on this page')")
            assert "NOT SAVED: No space left on device." in page.locator("#viewer .said").inner_text()
            page.wait_for_url(address)
            page.wait_for_selector("#edit:enabled:has-text('End editing')")
        assert not (job / "results" / "edited.nii.gz").exists()
        page.unroute("**/edit/save*")
        page.click("nav a >> nth=0")
        page.wait_for_selector("#list-heading")
        assert (job / "results" / "edited.nii.gz").is_file()
        page.click(".jobs a")
        page.wait_for_selector("#corrected a")


def test_an_image_with_a_slope_is_corrected_by_its_true_values(tmp_path: Path) -> None:
    """The readout, the grey window and the suggested thresholds are those of the values that the server compares."""
    import nibabel as nib
    import numpy as np

    from gliomask.volume import read_volume

    files = four()
    for name, content in files.items():
        image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
        scaled = nib.Nifti1Image(((np.asarray(image.dataobj) - 10.0) * 2).astype(np.int16), image.affine)
        scaled.header.set_slope_inter(0.5, 10)
        files[name] = gzip.compress(scaled.to_bytes())
    with editing(tmp_path, files) as (page, job):
        labels = read_volume(job / "results" / "mask.nii.gz", mask=True).data[0]
        [path] = (one for one in (job / "images").glob("*.nii*") if abs(level(one, labels) - 900) < 50)
        image = read_volume(path).data[0]
        assert nib.load(path).dataobj.slope == 0.5
        page.locator("#viewer fieldset", has_text="Sequence").locator("input[value=t1c]").check()
        voxel = voxel_at_click(page)
        assert image[voxel] == float(page.locator("#viewer [data-name=t1c]").text_content())
        page.locator("#viewer fieldset", has_text="Region").locator("input[value=ET]").check()
        page.locator("summary", has_text="Thresholds").click()
        wait_for(lambda: page.locator("input[name=low]").input_value() != "")
        inside = image[labels == 4].astype(float)
        shown = [float(page.locator(f"input[name={name}]").input_value()) for name in ("low", "high")]
        assert shown == pytest.approx([inside.mean() - 2 * inside.std(), inside.mean() + 2 * inside.std()], rel=1e-3)
        page.click("#viewer button[name=shrink]")
        page.click("#viewer button[name=save]")
        page.wait_for_selector("#viewer .said >> text=/^Saved/", timeout=SLOWLY)
        kept = read_volume(job / "results" / "edited.nii.gz", mask=True).data[0] == 4
        assert np.array_equal(kept, (labels == 4) & (image >= shown[0]) & (image <= shown[1]))
        assert 0.9 * len(inside) < kept.sum() < len(inside)


def level(path: Path, labels: Any) -> float:
    """Return the mean of an image in the enhancing tumour."""
    from gliomask.volume import read_volume

    return float(read_volume(path).data[0][labels == 4].mean())


def middle(page: Any, right: float = 0) -> tuple[float, float]:
    """A place near the middle of the axial slice."""
    box = page.locator("#viewer .tile[data-plane=axial]").bounding_box()
    return box["x"] + box["width"] / 2 - 12 + right, box["y"] + box["height"] / 2 + 2


def voxel_at_click(page: Any) -> tuple[int, ...]:
    """Click in the middle of the axial slice with the crosshair; return the voxel that the readout names."""
    page.locator("#viewer input[value=crosshair]").check()
    for _ in range(2):  # the first click may change the height of the readout below the pictures
        page.locator("#viewer").scroll_into_view_if_needed()
        page.mouse.click(*middle(page))
        drawn(page)
    return tuple(int(word) for word in page.locator("#viewer [data-name=voxel]").text_content().split())
