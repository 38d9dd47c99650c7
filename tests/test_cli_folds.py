"""`gliomask train --folds`: all folds one after the other, ended by a job scheduler and continued."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

RECIPE = ("--folds", "2", "--network", "fcn", "--patch-size", "16", "--precision", "fp32", "--lr", "1e-3")
LENGTH = ("--epochs", "8", "--val-every", "4", "--threads", "1")


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Return when a file exists; an error if the process ends before."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, f"{path} was not written"
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not send SIGTERM to another process")
def test_folds_ended_by_a_scheduler_and_resumed_equal_undisturbed_ones(
    folder_of: Callable[..., Path], gliomask: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """SIGTERM, which SLURM may send twice, saves everything and is no failure: status 0, so that the job is requeued.

    The resumed folds end with the same bits as those of an undisturbed cross-validation.
    """
    folder, kept = folder_of(4), tmp_path / "kept"
    words = ["train", str(folder), "-o", str(tmp_path / "cv"), *RECIPE, *LENGTH]
    process = subprocess.Popen(
        [sys.executable, "-m", "gliomask", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(tmp_path / "cv" / "fold1" / "log.jsonl", process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    assert "continue with: gliomask train -o" in said
    assert (tmp_path / "cv" / "fold0" / "finished.json").is_file()
    assert (tmp_path / "cv" / "fold1" / "checkpoint.pt").is_file()
    assert not (tmp_path / "cv" / "fold1" / "finished.json").exists(), "fold 1 ended before it was stopped"

    status, said = gliomask("train", "-o", tmp_path / "cv", "--resume")
    assert status == 0, said
    assert "fold1: best epoch" in said
    assert "held-out cases of all folds so far: brats2021, 4 cases" in said
    status, _ = gliomask("train", folder, "-o", kept, *RECIPE, *LENGTH)
    assert status == 0
    for fold in ("fold0", "fold1"):
        assert (tmp_path / "cv" / fold / "finished.json").is_file()
        last = Path(fold, "last.safetensors")
        assert (tmp_path / "cv" / last).read_bytes() == (kept / last).read_bytes()
    assert (tmp_path / "cv" / "out_of_fold.csv").read_bytes() == (kept / "out_of_fold.csv").read_bytes()


def test_a_cluster_trains_folds_only(folder_of: Callable[..., Path], gliomask: Callable[..., tuple[int, str]]) -> None:
    """Without --folds, or with a settings file that is not there, nothing is begun."""
    folder = folder_of(2)
    run = folder.parent / "run"
    status, said = gliomask("train", folder, "-o", run, "--cluster", "tcp://127.0.0.1:9")
    assert (status, "--folds 5" in said) == (2, True)
    status, said = gliomask("train", folder, "-o", run, "--folds", "2", "--cluster", "slurm.yaml")
    assert (status, "--cluster slurm.yaml: no such file" in said) == (2, True)
    assert not run.exists()
