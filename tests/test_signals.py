"""Signals that ask a command to end: what is done is kept and in the table, and the next run does the rest."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="another process cannot send these signals there")
CASES = 12


def begun(words: list[object], output: Path, hangup: str = "") -> subprocess.Popen[str]:
    """Start a command in a process of its own, and return when its first masks are there."""
    command = [sys.executable, "-m", "gliomask", *map(str, words)]
    if hangup:
        command = [hangup, *command]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
    )
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None and len(list(output.glob("*.nii.gz"))) < 2:
        time.sleep(0.01)
    return process


@pytest.mark.parametrize(
    ("name", "where"), [("SIGINT", ()), ("SIGTERM", ()), ("SIGHUP", ()), ("SIGTERM", ("--workers", 2))]
)
def test_a_stopped_prediction_has_its_table_and_goes_on(
    name: str, where: tuple[object, ...], folder_of: Callable[..., Path], model_file: Path, tmp_path: Path
) -> None:
    """The status is 128 and the number of the signal, as a shell reports it."""
    if where:
        pytest.importorskip("distributed")
    folder, output = folder_of(CASES), tmp_path / "masks"
    words = ["predict", "-i", folder, "-o", output, "-m", model_file, *where]
    process = begun(words, output)
    process.send_signal(getattr(signal, name))
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + getattr(signal, name), said
    assert f"of {CASES} done; run the same command again to go on" in said
    assert "Traceback" not in said
    masks = {path.name.removesuffix(".nii.gz") for path in output.glob("*.nii.gz")}
    assert 2 <= len(masks) < CASES
    with (output / "volumes.csv").open(encoding="utf-8", newline="") as file:
        assert {row["case"] for row in csv.DictReader(file)} == masks
    again = subprocess.run(
        [sys.executable, "-m", "gliomask", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert len(list(output.glob("*.nii.gz"))) == CASES


def test_a_program_under_nohup_is_not_stopped_when_the_terminal_is_closed(
    folder_of: Callable[..., Path], model_file: Path, tmp_path: Path
) -> None:
    """SIGHUP is ignored there, and stays so."""
    folder, output = folder_of(CASES), tmp_path / "masks"
    process = begun(["predict", "-i", folder, "-o", output, "-m", model_file], output, "nohup")
    process.send_signal(signal.SIGHUP)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    assert len(list(output.glob("*.nii.gz"))) == CASES
