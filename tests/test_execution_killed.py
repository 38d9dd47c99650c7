"""Laws of `predict --workers`: whatever is killed, every mask is written once, and it is that of a single process."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gliomask.cases import find_cases
from gliomask.inference.loading import new_model, save_model
from gliomask.inference.preprocessing import common_spacing
from gliomask.model.plan import Plan

psutil = pytest.importorskip("psutil")
pytest.importorskip("distributed")


@dataclass
class Chaos:
    """A run of `predict` whose workers and client are killed, and what was seen of its masks meanwhile."""

    command: list[str]
    output: Path
    log: Path
    total: int
    seconds_between_kills: float
    masks_between_kills: int
    client_kills: int = 2
    random: random.Random = field(default_factory=lambda: random.Random(0))
    seen: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of each mask, the file's number and time when it was first seen."""
    written_again: set[str] = field(default_factory=set)
    killed_workers: int = 0

    def run(self) -> int:
        """Start the command, kill the client at even shares of the work, and return the last exit status."""
        for kill in range(1, self.client_kills + 1):
            self._run(until=kill * self.total // (self.client_kills + 1))
        return self._run(until=None)

    def _run(self, until: int | None) -> int:
        with self.log.open("w", encoding="utf-8") as log:  # of the last part
            client = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=log)
        self.look()  # what was written between the last look and the kill is no work of this client
        before, last, at_last = len(self.seen), time.monotonic(), len(self.seen)
        while client.poll() is None:
            time.sleep(0.02)
            self.look()
            if len(self.seen) == before:
                last = time.monotonic()  # its workers are being started, which ends the command if it fails
            if until is not None and len(self.seen) >= until:
                family = [psutil.Process(client.pid), *psutil.Process(client.pid).children(recursive=True)]
                client.kill()
                client.wait()
                psutil.wait_procs(family, timeout=60)
                assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
                return -9
            late = time.monotonic() - last > self.seconds_between_kills
            if late and at_last + self.masks_between_kills <= len(self.seen) < self.total:
                last, at_last = time.monotonic(), len(self.seen)
                self._kill_a_worker(client.pid)
        assert until is None, (
            f"the client ended with {client.returncode} too soon: {self.log.read_text('utf-8')[-2000:]}"
        )
        self.look()
        return client.returncode

    def _kill_a_worker(self, client: int) -> None:
        try:
            found = psutil.Process(client).children()
            workers = [p for p in found if "spawn_main" in " ".join(p.cmdline())]
            if workers:
                self.random.choice(workers).kill()
                self.killed_workers += 1
        except psutil.Error:
            pass

    def look(self) -> None:
        """Note the masks that are new, and those that were replaced."""
        if not self.output.is_dir():
            return
        for entry in os.scandir(self.output):
            if entry.name.endswith(".nii.gz") and not entry.name.startswith("."):
                try:
                    now = entry.stat()
                except FileNotFoundError:
                    continue
                if self.seen.setdefault(entry.name, (now.st_ino, now.st_mtime_ns)) != (now.st_ino, now.st_mtime_ns):
                    self.written_again.add(entry.name)


def make_model(data: Path, path: Path) -> None:
    plan = Plan(
        modalities=("t2f", "t1c", "t2w"),
        spacing_mm=common_spacing(find_cases(data), "LPS"),
        patch_size=(16, 16, 16),
        network="fast",
        network_arguments={"channels": [4, 6]},
    )
    save_model(new_model(plan, seed=1), path)


@pytest.mark.parametrize(
    ("cases", "workers", "seconds", "masks"),
    [(30, 2, 0.0, 5), pytest.param(500, 4, 0.0, 20, marks=pytest.mark.long)],
)
def test_killed_workers_and_clients_lose_nothing_and_do_nothing_twice(
    gliomask, folder_of: Callable[..., Path], tmp_path: Path, cases: int, workers: int, seconds: float, masks: int
) -> None:
    """All masks are those of one process, none was written twice, and no other file is left in the folder."""
    data, model = folder_of(cases), tmp_path / "model.safetensors"
    make_model(data, model)
    common = ["-m", str(model), "-i", str(data), "-d", "cpu", "--threads", "1"]
    status, said = gliomask("predict", *common, "-o", tmp_path / "alone")
    assert status == 0, said
    alone = {path.name: path.read_bytes() for path in (tmp_path / "alone").glob("*.nii.gz")}
    out = tmp_path / "out"
    command = [sys.executable, "-m", "gliomask", "predict", *common, "-o", str(out), "--workers", str(workers)]
    chaos = Chaos(command, out, tmp_path / "log.txt", cases, seconds, masks)
    started = time.monotonic()
    status = chaos.run()
    print(f"{cases} cases, {chaos.killed_workers} workers killed, {time.monotonic() - started:.0f} s, status {status}")
    assert (status, chaos.killed_workers > 0) == (0, True), chaos.log.read_text("utf-8")[-2000:]
    assert not chaos.written_again
    assert {path.name: path.read_bytes() for path in out.glob("*.nii.gz")} == alone
    of_cases = {path.name for path in out.iterdir() if path.name.startswith((".", "BraTS"))}
    assert of_cases == {name.replace(".nii.gz", ending) for name in alone for ending in (".json", ".nii.gz")}
