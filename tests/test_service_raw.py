"""Raw images in the service: DICOM and heads are taken, prepared in the job's process, and leave no patient's data."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import NEEDS_VIEWER, open_page
from conftest import AFFINE
from gliomask.phantom.raw import make_raw_phantom
from gliomask.volume import Volume, read_volume
from serving import HERE, as_files, build, nifti, wait_for, zipped

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("pydicom", reason="needs the extra raw")
pytest.importorskip("SimpleITK", reason="needs the extra raw")
pytest.importorskip("picsl_greedy", reason="needs the extra raw")

from fastapi.testclient import TestClient

from gliomask.errors import InputError
from gliomask.phantom.dicom import DESCRIPTIONS, write_dicom_series
from gliomask.service.dicom_study import read_dicom
from gliomask.service.limits import Limits
from gliomask.service.progress import Progress

PATIENT = "DOE^JANE"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(build(tmp_path / "store", waiting=1000), base_url=HERE) as client:
        yield client


def write_study(folder: Path, *, uid: str = "1.2.3", patient: str = PATIENT, slices: int = 12) -> list[Path]:
    """Write T1 with contrast, T2 and FLAIR of a box, each on a grid of its own, and return the files."""
    written = []
    for number, name in enumerate(("t1c", "t2w", "t2f"), 1):
        affine = AFFINE.copy()
        affine[:3, :3] *= 3  # a head's extent
        affine[0, 3] += number
        data = np.random.default_rng(number).integers(1, 900, (1, 20, 22, slices)).astype(np.float32)
        header = DESCRIPTIONS["SIEMENS"][name]
        place = folder / f"{patient} {number}"
        written += write_dicom_series(
            place, Volume(data, affine), header, number=number, study_uid=uid, frame_uid="1.2.4", patient=patient
        )
    return written


def contents(files: list[Path]) -> dict[str, bytes]:
    return {f"{PATIENT}-{number}": path.read_bytes() for number, path in enumerate(files)}


def said(answer: Any) -> str:
    return " ".join([answer.json()["detail"], *answer.json()["problems"]])


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() + str(path).encode() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("packed", [False, True])
def test_a_dicom_study_becomes_a_raw_job_without_patient_data(
    client: TestClient, tmp_path: Path, caplog: pytest.LogCaptureFixture, packed: bool
) -> None:
    """Sequences come from the headers; no name is stored, answered or logged, and no DICOM file is kept."""
    caplog.set_level(logging.DEBUG)
    files = contents(write_study(tmp_path / "study"))
    if packed:
        entries = {f"{PATIENT}/S{number % 3}/{name}": content for number, (name, content) in enumerate(files.items())}
        files = {
            "study.zip": zipped({**entries, "t1.nii": nifti(), f"{PATIENT}.pdf": b"%PDF" * 50, "autorun.inf": b"x"})
        }
    answer = client.post("/api/jobs", files=as_files(files))
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert (job["raw"], job["state"], job["notes"]) == (True, "checked", [])
    assert [(image["sequence"], image["told_by"]) for image in job["images"]] == [
        ("t1c", "header"),
        ("t2w", "header"),
        ("t2f", "header"),
    ]
    assert job["file_names"] == {"image-1": "series 1", "image-2": "series 2", "image-3": "series 3"}
    stored = tmp_path / "store" / "jobs" / job["id"]
    assert sorted(path.name for path in stored.iterdir()) == ["images", "job.json"]
    assert read_volume(stored / "images" / "image-1.nii.gz").data.shape == (1, 20, 22, 12)
    for text in (everything(stored), answer.content, caplog.text.encode()):
        assert not re.search(rb"doe|jane|mprage|DICM", text, re.IGNORECASE)


def test_two_patients_and_files_without_images_are_refused(client: TestClient, tmp_path: Path) -> None:
    first = write_study(tmp_path / "a")
    second = write_study(tmp_path / "b", uid="1.2.9", patient="ROE^RICHARD")
    both = client.post("/api/jobs", files=as_files(contents([*first, *second])))
    assert both.status_code == 422
    assert "2 examinations, perhaps of several patients" in said(both)
    few = client.post("/api/jobs", files=as_files(contents(first[:3])))
    assert few.status_code == 422
    assert "3 slices only" in said(few)
    assert "ROE" not in both.text
    assert client.get("/api/jobs").json() == {"jobs": []}
    assert not [*(tmp_path / "store" / "partial").iterdir()]


def test_hostile_dicom_gets_a_message(client: TestClient, tmp_path: Path) -> None:
    """Truncated, with random bytes, encrypted in a zip, a path that leaves the zip, a bomb: never an internal error."""
    files = contents(write_study(tmp_path / "study", slices=9))
    draw = np.random.default_rng(3)
    cut = {name: content[: int(draw.integers(133, len(content)))] for name, content in files.items()}
    noisy = {}
    for name, content in files.items():
        damaged = bytearray(content)
        damaged[140 : int(draw.integers(200, 600))] = draw.bytes(60)
        noisy[name] = bytes(damaged)
    bomb = zipped({f"image{n}": b"\0" * 128 + b"DICM" + b"\0" * 4_000_000 for n in range(3)})
    leaving = zipped({"../../evil": next(iter(files.values()))})
    for content in (cut, noisy, {"x.zip": bomb}, {"x.zip": leaving}):
        answer = client.post("/api/jobs", files=as_files(content))
        assert answer.status_code == 422, answer.text
        assert len(said(answer)) > 40
        assert "JANE" not in answer.text
        assert str(tmp_path) not in answer.text
    assert "leads out of the zip" in said(client.post("/api/jobs", files=as_files({"x.zip": leaving})))
    assert not (tmp_path / "evil").exists()
    assert client.get("/api/jobs").json() == {"jobs": []}


def test_the_numbers_of_files_and_voxels_are_limited(tmp_path: Path) -> None:
    files = contents(write_study(tmp_path / "study"))
    with TestClient(build(tmp_path / "one", study_files=20), base_url=HERE) as client:
        assert "more than 20 files" in client.post("/api/jobs", files=as_files(files)).json()["detail"]
        answer = client.post("/api/jobs", files=as_files({"x.zip": zipped(files)}))
        assert "at most 20 are accepted" in said(answer)
    with TestClient(build(tmp_path / "two", voxels=5000), base_url=HERE) as client:
        answer = client.post("/api/jobs", files=as_files(files))
        assert "20 x 22 x 12 voxels are more than this server accepts" in said(answer)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import time; time.sleep(60)", "within 0.5 seconds"),
        ("import os; os.abort()", "damaged"),
        ("print('x')", "damaged"),
    ],
)
def test_a_reader_that_hangs_or_crashes_ends_alone(tmp_path: Path, script: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_dicom(tmp_path, Limits(study_seconds=0.5 if "sleep" in script else 60), (sys.executable, "-c", script))


def test_a_server_that_stops_does_not_wait_for_a_reader(tmp_path: Path) -> None:
    """Its process is killed with the application, long before the five minutes that it may take."""
    script = "import sys, time; print(1, file=open('began', 'w')); time.sleep(60)"
    command = (sys.executable, "-c", script.replace("'began'", repr(str(tmp_path / "began"))))
    with ThreadPoolExecutor() as pool, TestClient(build(tmp_path / "store")):
        reading = pool.submit(read_dicom, tmp_path, Limits(), command)
        wait_for((tmp_path / "began").is_file)
        began = time.monotonic()
    with pytest.raises(InputError, match="cannot be read"):
        reading.result()
    assert time.monotonic() - began < 30


def test_heads_and_differing_grids_are_prepared_unless_the_user_says_otherwise(client: TestClient) -> None:
    different = {"a_t1.nii": nifti("t1n"), "a_t2.nii": nifti("t2w", shape=(20, 20, 20))}
    job = client.post("/api/jobs", files=as_files(different)).json()
    assert (job["raw"], job["state"], job["problems"]) == (True, "checked", [])
    address = f"/api/jobs/{job['id']}"
    as_they_are = client.patch(address, json={"raw": False}).json()
    assert (as_they_are["raw"], as_they_are["state"]) == (False, "uploaded")
    assert "must share one grid" in as_they_are["problems"][0]
    assert client.patch(address, json={"raw": True}).json()["state"] == "checked"
    stripped = client.post("/api/jobs", files=as_files({"a_t1.nii": nifti("t1n"), "a_t2.nii": nifti("t2w")})).json()
    assert not stripped["raw"]


def test_raw_jobs_wait_for_the_preparation_too() -> None:
    expected = {"start": 1.0, "prepare": 40.0, "predict": 2.0, "write": 1.0, "report": 2.0}
    raw, plain = Progress(expected), Progress({name: s for name, s in expected.items() if name != "prepare"})
    assert raw.estimate().seconds_left > plain.estimate().seconds_left + 30
    raw.update("prepare", 0.5)
    assert raw.estimate().stage == "prepare"


@pytest.mark.slow
def test_a_raw_job_ends_with_a_mask_in_the_space_of_its_reference(tmp_path: Path) -> None:
    """In the worker's own function: results, scene volumes on one grid, report and quality page."""
    from gliomask.service.request import Request, Settings
    from gliomask.service.worker import run
    from gliomask.volume import write_volume

    found = make_raw_phantom(3, size=48, edge_mm=3, thickness_mm=(3, 4), degrees=5, shift_mm=5)
    paths = {}
    for number, name in enumerate(("t1c", "t2f"), 1):
        paths[name] = str(tmp_path / "images" / f"image-{number}.nii.gz")
        write_volume(Path(paths[name]), found[name].image)
    messages: list[dict[str, Any]] = []
    request = Request(str(tmp_path), "my title", "/volumes/", paths, Settings(threads=2), raw=True)
    run(Request.from_json(request.to_json()), lambda **message: messages.append(message))
    stages = list(dict.fromkeys(message["stage"] for message in messages if "stage" in message))
    assert stages == ["start", "prepare", "predict", "write", "report"]
    assert {"WT", "TC", "ET"} <= next(message["ready"] for message in messages if "ready" in message)[
        "volumes_ml"
    ].keys()
    results = tmp_path / "results"
    grid = found["t1c"].image.grid
    assert read_volume(results / "mask.nii.gz", mask=True).grid.difference(grid) is None
    scene = json.loads((results / "scene.json").read_text("utf-8"))
    names = [image["url"].rpartition("/")[2] for image in scene["images"]] + ["prediction.nii.gz"]
    grids = [read_volume(results / "volumes" / name).grid for name in names]
    assert all(grids[0].difference(other) is None for other in grids[1:])
    assert "Quality of the preparation of my title" in (tmp_path / "quality.html").read_text("utf-8")
    report = (tmp_path / "report.html").read_text("utf-8")
    assert "Preparation of the raw images" in report
    assert "_quality.html" not in report  # the server has it at an address of its own


class TestInABrowser:
    """The way of a user with a folder from a CD."""

    pytestmark = NEEDS_VIEWER

    def test_a_folder_of_dicom_is_recognised(self, tmp_path: Path) -> None:
        """Files without endings are found by their content, other files stay, and the preparation can be unchecked."""
        from test_service_api import Served

        write_study(tmp_path / "study")
        (tmp_path / "study" / "README.TXT").write_text("x" * 300, "utf-8")
        server = Served(tmp_path / "store")
        try:
            with open_page(f"{server.url}/", (server.url, "blob:", "data:")) as page:
                page.wait_for_selector("#list-heading")
                page.set_input_files("#choose-folder", str(tmp_path / "study"))
                page.wait_for_selector("#start:enabled", timeout=120_000)
                text = page.locator("#main").inner_text()
                assert text.count("recognised from the DICOM header") == 3
                assert "series 2" in text
                assert "DOE" not in text
                assert page.locator("#raw").is_checked()
                page.locator("#raw").uncheck()
                page.wait_for_selector("text=must share one grid")
                page.locator("#raw").check()
                page.wait_for_selector("#start:enabled")
                page.set_viewport_size({"width": 400, "height": 800})
                assert page.evaluate("document.documentElement.scrollWidth") <= 400
        finally:
            server.end()
