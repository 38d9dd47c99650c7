"""Folds as jobs: each is trained by a process, given out again while it gets further, and never done twice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from gliomask.cases import Case, find_cases, resolve_conventions
from gliomask.errors import InputError
from gliomask.evaluation import Evaluation
from gliomask.execution import HERE
from gliomask.training import fold_jobs
from gliomask.training.config import TrainConfig, make_config
from gliomask.training.cross_validation import cross_validate
from gliomask.training.fold_jobs import cross_validate_on, train_fold
from gliomask.training.run import Run
from gliomask.training.watcher import Watcher

CONFIG: dict[str, object] = {"network": "fcn", "patch_size": 16, "epochs": 1, "precision": "fp32", "threads": 1}


@pytest.fixture
def cases(folder_of: Callable[..., Path]) -> list[Case]:
    return resolve_conventions(find_cases(folder_of(4)))


def config(**changes: object) -> TrainConfig:
    return make_config(**{**CONFIG, "folds": 2, **changes})


class Told(Watcher):
    """What a cross-validation said."""

    def __init__(self) -> None:
        self.folds: list[str] = []
        self.scored: list[int] = []

    def on_fold(self, run: Run) -> None:
        self.folds.append(run.folder.name)

    def on_scores(self, scores: Evaluation) -> None:
        self.scored.append(len(scores.scores))


def test_folds_trained_by_processes_equal_those_trained_here(cases: list[Case], tmp_path: Path) -> None:
    """To the bit. A second call finds them, and does nothing twice."""
    told = Told()
    runs = cross_validate_on(HERE, cases, tmp_path / "jobs", config(), watcher=told)
    assert [run.folder.name for run in runs] == sorted(told.folds) == ["fold0", "fold1"]
    assert told.scored == [4]
    assert "epoch 1: loss" in (tmp_path / "jobs" / "fold1.log").read_text()
    for run, other in zip(runs, cross_validate(cases, tmp_path / "here", config()), strict=True):
        assert run.last.read_bytes() == other.last.read_bytes()
    assert (tmp_path / "jobs" / "out_of_fold.csv").read_bytes() == (tmp_path / "here" / "out_of_fold.csv").read_bytes()
    with pytest.raises(InputError, match="already exists and is not empty"):
        cross_validate_on(HERE, cases, tmp_path / "jobs", config())


def test_a_complete_fold_is_not_trained_again(
    cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is given it finds its last file; one that is given an incomplete fold reports why it failed."""
    cross_validate(cases, tmp_path / "cv", config())
    started: list[list[str]] = []

    def run(words: list[str], log: Path) -> int:
        started.append(words)
        log.write_text("epoch 1: loss 0.5\nerror: the disk is full.\n")
        return 2

    monkeypatch.setattr(fold_jobs, "_run", run)
    assert train_fold(tmp_path / "cv" / "cache", tmp_path / "cv", 1, 0) is None
    assert started == []
    (tmp_path / "cv" / "fold0" / "finished.json").unlink()
    said = train_fold(tmp_path / "cv" / "cache", tmp_path / "cv", 1, 0)
    assert said == f"error: the disk is full. (exit status 2, {tmp_path / 'cv' / 'fold0.log'})"
    assert started[0][-5:] == ["--fold", "0", "--resume", "--threads", "1"]


@pytest.mark.parametrize(("further", "failed"), [(3, False), (1, True)])
def test_a_lost_fold_is_given_out_again_while_it_gets_further(
    cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, further: int, failed: bool
) -> None:
    """Three workers are lost with fold 0. It is given up only if one of them has not written a checkpoint."""
    rounds: list[list[int]] = []

    def map_cases(
        work: Callable[[int], str | None], folds: Iterable[int], where: object
    ) -> Iterator[tuple[int, str | InputError | None]]:
        rounds.append(list(folds))
        for fold in rounds[-1]:
            place = tmp_path / "cv" / f"fold{fold}"
            if fold == 0 and len(rounds) <= 3:
                if len(rounds) <= further:
                    (place / "checkpoint.pt").write_bytes(b"")
                    os.utime(place / "checkpoint.pt", ns=(0, len(rounds)))
                yield fold, InputError("the workers ended one after the other")
            else:
                yield fold, None

    monkeypatch.setattr(fold_jobs, "map_cases", map_cases)
    monkeypatch.setattr(fold_jobs, "score_folds", lambda *_: None)
    told = Told()
    if failed:
        with pytest.raises(InputError, match=r"^fold 0: the workers ended one after the other \(1 of 2 folds"):
            cross_validate_on(HERE, cases, tmp_path / "cv", config(), watcher=told)
        assert (rounds, told.folds) == ([[0, 1], [0]], ["fold1"])
    else:
        cross_validate_on(HERE, cases, tmp_path / "cv", config(), watcher=told)
        assert (rounds, told.folds) == ([[0, 1], [0], [0], [0]], ["fold1", "fold0"])
