"""Cross-validation: a run per fold; every case is held out once and predicted by the model not trained on it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gliomask.cases import Case, find_cases, resolve_conventions
from gliomask.errors import InputError
from gliomask.inference.loading import load_model
from gliomask.inference.prediction import predict
from gliomask.inference.windows import Inference
from gliomask.training.cache import build_cache
from gliomask.training.config import TrainConfig, make_config
from gliomask.training.cross_validation import cross_validate, found_folds
from gliomask.training.record import best_row
from gliomask.training.run import load_run, make_plan
from gliomask.training.watcher import Moment, Watcher
from gliomask.volume import read_volume


@pytest.fixture
def cases(folder_of: Callable[..., Path]) -> list[Case]:
    return resolve_conventions(find_cases(folder_of(4)))


def config(**changes: object) -> TrainConfig:
    return make_config(**{"network": "fcn", "patch_size": 16, "epochs": 1, "folds": 2, "precision": "fp32", **changes})


def test_every_case_is_predicted_by_the_fold_that_did_not_train_on_it(cases: list[Case], tmp_path: Path) -> None:
    """There is one cache, one list of splits in nnU-Net's format, and a mask for each case."""
    runs = cross_validate(cases, tmp_path / "cv", config())
    assert [run.folder.name for run in runs] == ["fold0", "fold1"]
    splits = [json.loads((run.folder / "splits_final.json").read_text()) for run in runs]
    assert splits[0] == splits[1]
    assert [run.split() for run in runs] == splits[0]
    assert sorted(splits[0][0]["val"] + splits[0][1]["val"]) == [case.id for case in cases]
    assert not (runs[0].folder / "cache").exists()
    by_id = {case.id: case for case in cases}
    for run in runs:
        for held_out in run.split()["val"]:
            kept = read_volume(tmp_path / "cv" / "out_of_fold" / f"{held_out}.nii.gz", mask=True)
            again = predict(load_model(run.best), by_id[held_out], inference=Inference(precision="fp32"))
            assert np.array_equal(kept.data, again.labels.data)
    with (tmp_path / "cv" / "out_of_fold.csv").open() as file:
        scores = {row["case"]: float(row["dice"]) for row in csv.DictReader(file) if row["region"] == "WT"}
    assert scores.keys() == by_id.keys()
    logged = [best_row(run.rows())["val_dice_WT"] for run in runs]
    means = [np.mean([scores[case] for case in run.split()["val"]]) for run in runs]
    np.testing.assert_allclose(means, logged, atol=0.02)  # the log has the run's precision and the network's grid
    assert [run.folder for run in found_folds(tmp_path / "cv")] == [run.folder for run in runs]


def test_cases_that_are_not_given_any_more_are_in_no_fold(cases: list[Case], tmp_path: Path) -> None:
    """What was prepared of them before is not used; a fold that has begun needs all cases of its split."""
    _, problems = build_cache(cases, tmp_path / "cv" / "cache", make_plan(config(), cases))
    assert not problems
    cross_validate(cases[1:], tmp_path / "cv", config(), folds=[0])
    split = load_run(tmp_path / "cv" / "fold0").split()
    assert sorted(split["train"] + split["val"]) == [case.id for case in cases[1:]]
    with pytest.raises(InputError, match="Resume with all cases"):
        cross_validate(cases[2:], tmp_path / "cv", config(), resume=True)
    assert (tmp_path / "cv" / "cache" / cases[1].id / "case.json").is_file()


def test_folds_can_be_trained_one_at_a_time(cases: list[Case], tmp_path: Path) -> None:
    """In any order and on any machine, because the splits follow from the seed."""
    whole = cross_validate(cases, tmp_path / "whole", config())
    for fold in (1, 0):
        cross_validate(cases, tmp_path / "parts", config(), [fold])
    for run in whole:
        other = tmp_path / "parts" / run.folder.name
        assert (other / "last.safetensors").read_bytes() == run.last.read_bytes()


def test_a_stopped_cross_validation_is_resumed(cases: list[Case], tmp_path: Path) -> None:
    """Finished folds are kept, a stopped one is resumed, the others are started."""

    class StopInSecondFold(Watcher):
        steps = 0

        def on_step(self, moment: Moment) -> None:
            self.steps += 1

        def should_stop(self) -> bool:
            return self.steps >= 3

    runs = cross_validate(cases, tmp_path / "cv", config(), watcher=StopInSecondFold())
    assert [len(run.rows()) for run in runs] == [1, 0]
    first = runs[0].last.stat().st_mtime_ns
    runs = cross_validate(cases, tmp_path / "cv", config(), resume=True)
    assert [len(run.rows()) for run in runs] == [1, 1]
    assert runs[0].last.stat().st_mtime_ns == first
    assert len(list((tmp_path / "cv" / "out_of_fold").glob("*.nii.gz"))) == 4


def test_a_case_whose_files_have_moved_is_left_out_of_the_predictions(cases: list[Case], tmp_path: Path) -> None:
    """Training itself needs only the cache."""
    cross_validate(cases, tmp_path / "cv", config())
    cases[0].images["t2f"].path.unlink()
    cross_validate(tmp_path / "cv" / "cache", tmp_path / "again", config())
    names = {path.name for path in (tmp_path / "again" / "out_of_fold").glob("*.nii.gz")}
    assert names == {f"{case.id}.nii.gz" for case in cases[1:]}


def test_folds_that_do_not_exist_are_refused(cases: list[Case], tmp_path: Path) -> None:
    """Folds count from 0, and their number must be given."""
    with pytest.raises(InputError, match="no fold 2; the 2 folds"):
        cross_validate(cases, tmp_path / "cv", config(), [2])
    with pytest.raises(InputError, match="--folds"):
        cross_validate(cases, tmp_path / "cv", config(folds=None))
    with pytest.raises(InputError, match="too few for 9 folds"):
        cross_validate(cases, tmp_path / "cv", config(folds=9))
