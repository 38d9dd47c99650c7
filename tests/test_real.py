"""Tests on real BraTS 2021 cases, which take minutes: pytest tests -m real --real-cases=FOLDER."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gliomask import metrics
from gliomask.cases import check_case, find_cases, resolve_conventions
from gliomask.volume import read_volume

pytestmark = pytest.mark.real

_GB = 1e9


def gliomask(*words: object) -> tuple[str, float]:
    """Run a command as a user does; return its output and its peak memory in bytes."""
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-m', 'gliomask', *sys.argv[1:]])\n"
        "print('PEAK', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)\n"
        "sys.exit(done.returncode)"
    )
    command = [sys.executable, "-c", code, *map(str, words)]
    environment = {**os.environ, "COLUMNS": "160"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr, float(done.stdout.rpartition("PEAK ")[2].split()[0])


def test_check_names_the_convention_and_the_odd_cases(real_cases: Path) -> None:
    """The convention is brats2021, 01477 has no ET, 00014 has two voxels of NCR, and there are no problems."""
    reports = {case.id: check_case(case) for case in resolve_conventions(find_cases(real_cases))}
    assert not [report for report in reports.values() if report.problems]
    assert "no ET" in reports["BraTS2021_01477"].notes
    assert "only 2 voxels of NCR" in reports["BraTS2021_00014"].notes
    said, _ = gliomask("check", real_cases)
    assert "layout brats2021" in said
    assert "brats2021 (1 NCR, 2 ED, 4 ET)" in said


def test_a_few_minutes_of_training_beat_the_trivial_answers(real_cases: Path, tmp_path: Path) -> None:
    """The Dice of the held-out case is twice that of trivial masks; training takes 4 GB at most, predicting 2 GB."""
    options = ("--patch-size", 128, "--epochs", 3, "--patches-per-case", 4, "--val-fraction", 0.2, "--seed", 3)
    _, peak = gliomask("train", real_cases, "-o", tmp_path / "run", *options)
    assert peak < 4 * _GB
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    (held_out,) = json.loads((tmp_path / "run" / "splits_final.json").read_text())[0]["val"]
    shutil.copytree(real_cases / held_out, tmp_path / "held_out" / held_out)

    model, found = tmp_path / "run" / "best.safetensors", tmp_path / "found"
    _, peak = gliomask("predict", "-m", model, "-i", tmp_path / "held_out", "-o", found, "--picture")
    assert peak < 2 * _GB
    gliomask("evaluate", found, tmp_path / "held_out", "-o", tmp_path / "scores.csv")
    assert (found / f"{held_out}.png").stat().st_size > 50_000

    (case,) = resolve_conventions(find_cases(tmp_path / "held_out"))
    truth = read_volume(case.mask, mask=True).data[0] > 0
    brain = read_volume(case.images["t2f"].path).data[0] > 0
    predicted = read_volume(found / f"{held_out}.nii.gz", mask=True).data[0] > 0
    trivial = max(metrics.dice(truth, brain), metrics.dice(truth, np.zeros_like(truth)))
    assert metrics.dice(truth, predicted) > 2 * trivial


def test_a_truth_scores_perfectly_against_itself(real_cases: Path) -> None:
    """This also holds for empty regions."""
    said, _ = gliomask("evaluate", real_cases, real_cases)
    assert f"{len(find_cases(real_cases))} cases" in said
    assert said.count("0.000 ± 0.000") == 3  # the distances
    assert said.count("1.000 ± 0.000") == 9


def test_finding_nothing_is_98_percent_accurate(real_cases: Path) -> None:
    """An empty mask has the accuracy that the README states."""
    shares = [(read_volume(case.mask, mask=True).data == 0).mean() for case in find_cases(real_cases)]
    assert round(min(shares), 3) == 0.978
    assert round(max(shares), 3) == 0.998


def test_the_shipped_model_finds_the_tumours(real_cases: Path, tmp_path: Path) -> None:
    """Masks with and without t1 agree, and so do both engines, within 2 GB and without warnings.

    The model was trained on these cases, among others, so this does not measure its accuracy.
    """
    for name in ("all", "trio", "torch"):
        shutil.copytree(real_cases, tmp_path / name)
    for path in (tmp_path / "trio").glob("*/*_t1.nii.gz"):
        path.unlink()
    for name, more in (("all", ()), ("trio", ()), ("torch", ("--engine", "torch"))):
        said, peak = gliomask("predict", "-i", tmp_path / name, "-o", tmp_path / f"{name}-found", *more)
        assert peak < 2 * _GB
        assert "warning" not in said
    for case in find_cases(real_cases):
        truth, *found = (
            read_volume(path, mask=True).data[0]
            for path in (case.mask, *(tmp_path / f"{n}-found" / f"{case.id}.nii.gz" for n in ("all", "trio", "torch")))
        )
        assert metrics.dice(truth > 0, found[0] > 0) > 0.6
        assert metrics.dice(found[0] > 0, found[1] > 0) > 0.9
        assert (found[0] == found[2]).mean() > 0.999
