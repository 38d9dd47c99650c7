"""A Dask cluster that runs already (`--cluster tcp://...`): its masks are those of one process, and no work is lost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gliomask.files import claimed

pytest.importorskip("distributed")

Run = Callable[..., tuple[int, str]]
PATIENCE = 120.0


@dataclass
class Cluster:
    """A scheduler and its workers, started as their users start them, each a process of this machine."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *words: str) -> None:
        """Start one of them."""
        with (self.folder / f"{len(self.processes)}.log").open("wb") as log:
            command = [sys.executable, "-m", "dask", *words, "--scheduler-file", str(self.folder / "where.json")]
            self.processes.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)
            )

    def address(self) -> str:
        """Return the scheduler's address, when it is there."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with suppress(OSError, ValueError):
                return str(json.loads((self.folder / "where.json").read_text("utf-8"))["address"])
            time.sleep(0.1)
        raise AssertionError((self.folder / "0.log").read_text(errors="replace"))

    def end(self) -> None:
        """Kill all that are left."""
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def start_cluster(tmp_path: Path) -> Iterator[Callable[[str], Cluster]]:
    """Return a function that starts a scheduler and two workers with one thread each."""
    started: list[Cluster] = []

    def start(name: str = "cluster") -> Cluster:
        cluster = Cluster(tmp_path / name)
        cluster.folder.mkdir()
        started.append(cluster)
        cluster.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        for _ in range(2):
            options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", ".")
            cluster.start("worker", *options, "--host", "127.0.0.1")
        return cluster

    yield start
    for cluster in started:
        cluster.end()


def masks_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*.nii.gz")}


@pytest.mark.slow
def test_masks_of_a_cluster_are_those_of_one_process(
    gliomask: Run,
    start_cluster: Callable[..., Cluster],
    folder_of: Callable[..., Path],
    model_file: Path,
    tmp_path: Path,
) -> None:
    """A damaged case is one failed case; two commands use one cluster, and it is there afterwards."""
    data = folder_of(4)
    damaged = data / "BraTS2021_00003" / "BraTS2021_00003_flair.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    given = ("predict", "-m", model_file, "-i", data)
    address = start_cluster().address()
    status, said = gliomask(*given, "-o", tmp_path / "far", "--cluster", address)
    assert (status, "BraTS2021_00003: " in said, "1 failed, 3 done" in said) == (1, True, True), said
    assert gliomask(*given, "-o", tmp_path / "here")[0] == 1
    assert masks_of(tmp_path / "far") == masks_of(tmp_path / "here")
    assert len(masks_of(tmp_path / "far")) == 3
    assert (tmp_path / "far" / "index.html").is_file()
    status, said = gliomask("evaluate", tmp_path / "far", data, "-o", tmp_path / "far.csv", "--cluster", address)
    assert status in (0, 1), said
    gliomask("evaluate", tmp_path / "far", data, "-o", tmp_path / "here.csv")
    assert (tmp_path / "far.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()
    assert [path.name for path in (tmp_path / "far").iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_a_scheduler_that_goes_away_loses_nothing(
    gliomask: Run,
    start_cluster: Callable[..., Cluster],
    folder_of: Callable[..., Path],
    model_file: Path,
    tmp_path: Path,
    how: str,
) -> None:
    """The command says so and ends; what is written is kept, and a second run on another cluster does the rest."""
    data, out = folder_of(6), tmp_path / "far"
    given = ["predict", "-m", str(model_file), "-i", str(data), "-d", "cpu"]
    first = start_cluster("first")
    command = [sys.executable, "-m", "gliomask", *given, "-o", str(out), "--cluster", first.address()]
    # Two cases are held by this process meanwhile, so that the command cannot come to its end.
    with claimed(out, "BraTS2021_00002"), claimed(out, "BraTS2021_00005"):
        client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        end = time.monotonic() + PATIENCE
        while len(masks_of(out)) < 4:
            assert client.poll() is None, client.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.05)
        getattr(first.processes[0], how)()
        said, _ = client.communicate(timeout=PATIENCE)
        first.end()
    assert client.returncode == 1, said
    assert "Traceback" not in said
    assert "ERROR" not in said
    assert "fault of gliomask" not in said
    # As it was doing something, as it connected for the cases that were held, or before that.
    assert any(
        text in said for text in ("to the scheduler was lost", "the scheduler ended", "no Dask scheduler answers")
    )
    assert "of 6 done; run the same command again" in said
    assert len((out / "volumes.csv").read_text().splitlines()) == 1 + 4
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("[!.]*.nii.gz")}
    status, said = gliomask(*given, "-o", out, "--cluster", start_cluster("second").address())
    assert status == 0, said
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert gliomask(*given, "-o", tmp_path / "here")[0] == 0
    assert masks_of(out) == masks_of(tmp_path / "here")
    assert len(masks_of(out)) == 6
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []
