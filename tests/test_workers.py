"""Every command that takes `--workers` and `--cluster` gives with them what it gives without, and lists what failed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gliomask.phantom.raw import make_raw_phantom
from gliomask.volume import Volume, write_volume

pytest.importorskip("distributed")
pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, str]]
BAD = "BraTS2021_00002"
QUICK = ("--skull-strip", "none", "--atlas", "none", "--register", "none")
# What differs between two runs of one command.
_TIMES = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?[^\s<\"]*|\d+\.\d+ s\b")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two workers, which all tests share, as starting one takes the longest."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50) as running:
        yield running.scheduler_address


@pytest.fixture
def data(model_file: Path, folder_of: Callable[..., Path]) -> Path:
    """Three small cases; an image of the second ends too early."""
    folder = folder_of(3)
    damage(folder / BAD / f"{BAD}_flair.nii.gz")
    return folder


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Three raw studies of one very coarse stripped head each; the second one's image ends too early."""
    for number in (1, 2, 3):
        raw = make_raw_phantom(number, size=32, edge_mm=5, thickness_mm=(5, 6))["t1c"]
        head = Volume(np.where(raw.brain, raw.image.data, 0), raw.image.affine)
        write_volume(tmp_path / "studies" / f"P{number}" / "t1c.nii.gz", head)
    damage(tmp_path / "studies" / "P2" / "t1c.nii.gz")
    return tmp_path / "studies"


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def compare(gliomask: Run, cluster: str, folder: Path, *words: object) -> Path:
    """Run a command without and with a cluster, and return the folder that both have written alike.

    Both end with status 1 and name the case that failed.
    """
    said, written = [], []
    for name, options in (("here", ()), ("far", ("--cluster", cluster))):
        place = folder / name
        status, text = gliomask(*words, "-o", place, *options)
        assert status == 1, text
        said.append(text)
        written.append(content(place))
    failures = [text[text.index(" failed, ") :].replace("/far", "/here").splitlines()[1:] for text in said]
    assert failures[0] == failures[1]
    assert len(failures[0]) == 1
    if words[0] == "predict":
        written[1].pop("index.html", None)  # of a run with workers only
    assert written[0].keys() == written[1].keys()
    different = [name for name, value in written[0].items() if value != written[1][name]]
    assert not different
    assert len(written[0]) >= 2
    return folder / "far"


def content(folder: Path) -> dict[str, Any]:
    """Return what the files of a folder hold, without times and without the folder's own name."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".json":
            found[name] = timeless(json.loads(path.read_text("utf-8")))
        elif path.suffix == ".html":
            found[name] = _TIMES.sub("", path.read_text("utf-8")).replace(str(folder), "")
        elif (
            path.suffix not in (".csv", ".parquet") and path.is_file()
        ):  # tables have seconds; their cases are compared
            found[name] = path.read_bytes()
    return found


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if "seconds" not in key}
    if isinstance(value, list):
        return [timeless(each) for each in value]
    return value


def test_prepare(gliomask: Run, cluster: str, data: Path, tmp_path: Path) -> None:
    compare(gliomask, cluster, tmp_path, "prepare", data)


def test_convert(gliomask: Run, cluster: str, data: Path, tmp_path: Path) -> None:
    compare(gliomask, cluster, tmp_path, "convert", data, "--layout", "brats2023")


def test_report(gliomask: Run, cluster: str, data: Path, model_file: Path, tmp_path: Path) -> None:
    assert gliomask("predict", "-m", model_file, "-i", data, "-o", tmp_path / "masks")[0] == 1
    compare(gliomask, cluster, tmp_path, "report", data, tmp_path / "masks")


def test_pictures_of_masks_that_are_there(
    gliomask: Run, cluster: str, data: Path, model_file: Path, tmp_path: Path
) -> None:
    """They are drawn by the workers, and are those that this process draws."""
    pytest.importorskip("matplotlib")
    words = ("predict", "-m", model_file, "-i", data, "-d", "cpu", "-o")
    for name in ("here", "far"):
        assert gliomask(*words, tmp_path / name)[0] == 1
    compare(gliomask, cluster, tmp_path, *words[:-1], "--picture")
    assert len(list((tmp_path / "far").glob("*.png"))) == 2


def test_preprocess(gliomask: Run, cluster: str, studies: Path, tmp_path: Path) -> None:
    compare(gliomask, cluster, tmp_path, "preprocess", studies, *QUICK)


def test_predict_raw(gliomask: Run, cluster: str, studies: Path, tmp_path: Path) -> None:
    out = compare(gliomask, cluster, tmp_path, "predict", "--raw", "-i", studies, *QUICK, "-d", "cpu", "--threads", "1")
    assert "P2" in (out / "failed.csv").read_text("utf-8")


def test_raw_scans_are_checked_without_workers(gliomask: Run, studies: Path) -> None:
    """Only their headers are read, so the option is refused."""
    for path in studies.glob("*/t1c.nii.gz"):
        path.rename(path.with_name("7.nii.gz"))
    status, said = gliomask("check", studies, "--workers", "2")
    assert (status, "leave out --workers" in said) == (2, True), said


def test_check(gliomask: Run, data: Path) -> None:
    """The cases are printed in the same order."""
    answers = [gliomask("check", data, "--json", *options) for options in ((), ("--workers", "2"))]
    assert answers[0] == answers[1]
    status, said = answers[0]
    assert (status, [bool(case["problems"]) for case in json.loads(said)["cases"]]) == (1, [False, True, False])


def test_evaluate(gliomask: Run, cluster: str, data: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for path in data.glob("*/*_seg.nii.gz"):
        (tmp_path / "masks" / path.name.replace("_seg", "")).write_bytes(path.read_bytes())
    damage(tmp_path / "masks" / f"{BAD}.nii.gz")
    for name, options in (("here", ()), ("far", ("--cluster", cluster))):
        status, said = gliomask("evaluate", tmp_path / "masks", data, "-o", tmp_path / f"{name}.csv", *options)
        assert (status, "1 failed, 2 done" in said, BAD in said) == (1, True, True), said
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "far.csv").read_bytes()
