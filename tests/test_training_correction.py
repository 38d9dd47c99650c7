"""Corrected masks replace those of their cases, and a model counts as better only if held-out cases show it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gliomask.cases import Case, find_cases, read_mask, resolve_conventions
from gliomask.errors import InputError
from gliomask.evaluation import paired_test
from gliomask.inference.loading import load_torch_model, save_model
from gliomask.model.plan import Postprocessing, RegionRule
from gliomask.training.config import make_config
from gliomask.training.correction import Improvement, compare_with_start, use_corrections
from gliomask.training.loop import train
from gliomask.training.watcher import Watcher
from gliomask.viewer import read_scene
from gliomask.viewer.editing import edit_mask
from gliomask.volume import Volume, read_volume, write_volume

CONFIG = {"network": "fcn", "patch_size": 16, "precision": "fp32", "threads": 1, "val_fraction": 0.4}


@pytest.fixture
def cases(folder_of: Callable[..., Path]) -> list[Case]:
    return resolve_conventions(find_cases(folder_of(5)))


def correct(case: Case, folder: Path, convention: str | None = "brats2021") -> Volume:
    """Write a corrected mask of a case: its own without the core."""
    mask = read_mask(case)
    changed = Volume(np.where(mask.data > 0, 2, 0).astype(np.uint8), mask.affine)
    write_volume(folder / f"{case.id}_edited.nii.gz", changed)
    if convention:
        (folder / f"{case.id}_edited.json").write_text(json.dumps({"labels": {"convention": convention}}))
    return changed


def test_corrected_masks_replace_those_of_their_cases(cases: list[Case], tmp_path: Path) -> None:
    """Also of cases that had none; the other cases stay as they are."""
    unlabelled = [replace(cases[0], mask=None, convention=None), *cases[1:]]
    changed = [correct(case, tmp_path) for case in cases[:2]]
    found, ids = use_corrections(unlabelled, tmp_path)
    assert ids == [case.id for case in cases[:2]]
    for case, mask in zip(found[:2], changed, strict=True):
        assert np.array_equal(read_mask(case).data, mask.data)
    assert found[2:] == cases[2:]


def test_masks_that_the_viewer_saved_keep_their_convention(cases: list[Case], tmp_path: Path) -> None:
    """Also one that neither the values nor the id tell: 1 2 3 in a case of BraTS 2021."""
    case = cases[0]
    mask = read_mask(case)
    predicted = tmp_path / f"{case.id}.nii.gz"
    write_volume(predicted, Volume(np.where(mask.data == 4, 3, mask.data).astype(np.uint8), mask.affine))
    scene = read_scene(replace(case, mask=None, convention=None), [predicted], labels="brats2023")
    with edit_mask(scene, predicted, tmp_path) as editing:
        editing.save(editing.start[scene.box].tobytes(order="F"), 1.0)
    [found, *_], _ = use_corrections(cases, tmp_path)
    assert found.convention == "brats2023"
    assert np.array_equal(read_mask(found).data, read_volume(predicted, mask=True).data)


def test_corrections_that_cannot_be_used_are_refused(cases: list[Case], tmp_path: Path) -> None:
    """None at all, of unknown cases, and two of one case."""
    with pytest.raises(InputError, match="no corrected mask"):
        use_corrections(cases, tmp_path)
    correct(cases[0], tmp_path)
    with pytest.raises(InputError, match=f"not given: {cases[0].id}"):
        use_corrections(cases[1:], tmp_path)
    (tmp_path / "again").mkdir()
    correct(cases[0], tmp_path / "again")
    with pytest.raises(InputError, match="two corrected masks"):
        use_corrections(cases, tmp_path)


def test_the_rules_of_the_model_that_was_corrected_stay(cases: list[Case], tmp_path: Path) -> None:
    """Its successor makes masks by the same rules, and both are scored by them; without corrections it has none."""
    first = train(cases, tmp_path / "first", make_config(**CONFIG, steps=1))
    rules = Postprocessing(regions=dict.fromkeys(("WT", "TC", "ET"), RegionRule(threshold=0.999)))
    start = tmp_path / "start.safetensors"
    model = load_torch_model(first.last)
    save_model(replace(model, plan=model.plan.model_copy(update={"postprocessing": rules})), start)
    options = CONFIG | {"start_from": str(start), "steps": 1, "lr": 1e-6}
    plain = train(cases, tmp_path / "plain", make_config(**options))
    assert load_torch_model(plain.last).plan.postprocessing == Postprocessing()
    (tmp_path / "edits").mkdir()
    correct(cases[0], tmp_path / "edits")
    tuned = train(cases, tmp_path / "tuned", make_config(**options, corrected=str(tmp_path / "edits")))
    assert load_torch_model(tuned.last).plan.postprocessing == rules
    found = compare_with_start(tuned)
    assert found.tests["WT"].first == found.tests["WT"].second == 0  # nothing is as probable as that


def test_the_models_before_and_after_are_scored_on_the_same_held_out_cases(cases: list[Case], tmp_path: Path) -> None:
    """The run that starts from a model is compared with exactly that model."""
    first = train(cases, tmp_path / "first", make_config(**CONFIG, epochs=2))
    start = {"start_from": str(first.best), "split": str(first.folder / "splits_final.json")}
    second = train(cases, tmp_path / "second", make_config(**CONFIG, **start, steps=1, lr=0.05))
    found = compare_with_start(second)
    logged = max(row["val_dice"] for row in first.rows())
    assert found.tests["mean"].cases == 2
    assert found.tests["mean"].second == pytest.approx(logged, abs=1e-5)
    assert found.tests["mean"].first == pytest.approx(second.rows()[-1]["val_dice"], abs=1e-5)
    text = (second.folder / "before_after.md").read_text("utf-8")
    assert found.verdict[1:] in text
    assert load_torch_model(second.best).plan.regions == tuple(found.tests)[:-1]
    with pytest.raises(InputError, match="did not start from a model"):
        compare_with_start(first)


def test_a_run_that_could_not_be_compared_is_not_begun(gliomask, cases: list[Case], tmp_path: Path) -> None:
    """The command takes the normalization of the model before; another one is said, and refused with corrections."""
    first = train(cases, tmp_path / "first", make_config(**CONFIG, steps=1, normalization="minmax"))
    (tmp_path / "edits").mkdir()
    correct(cases[0], tmp_path / "edits")
    options = CONFIG | {"start_from": str(first.last), "steps": 1}
    with pytest.raises(InputError, match="normalizations zscore, zscore, zscore, not minmax, minmax, minmax"):
        train(cases, tmp_path / "no", make_config(**options, corrected=str(tmp_path / "edits")))
    assert not (tmp_path / "no").exists()
    told = Notes()
    train(cases, tmp_path / "other", make_config(**options), watcher=told)
    assert "this one has normalizations zscore, zscore, zscore, not minmax" in told.notes[0]
    words = ("train", tmp_path / "data", "-o", tmp_path / "same", "--from", first.last, "--steps", 1, "-d", "cpu")
    status, said = gliomask(*words, "--patch-size", 16, "--val-fraction", 0.4)
    assert status == 0, said
    assert "other than the model" not in said
    assert load_torch_model(tmp_path / "same" / "last.safetensors").plan.normalization == "minmax"


class Notes(Watcher):
    """Keeps what is said about the split."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_note(self, text: str) -> None:
        self.notes.append(text)


def test_no_patient_that_the_model_before_has_seen_is_held_out(cases: list[Case], tmp_path: Path) -> None:
    """Patients are compared, not ids, over all models in line; a split file that breaks it is refused."""
    again = [replace(case, id=f"P{n}-2", patient=f"P{n}") for n, case in enumerate(cases)]
    cases = [replace(case, id=f"P{n}-1", patient=f"P{n}") for n, case in enumerate(cases)]
    table = tmp_path / "patients.csv"
    table.write_text("case,patient\n" + "".join(f"{case.id},{case.patient}\n" for case in [*cases, *again]))
    options = CONFIG | {"patients": str(table), "steps": 1}
    first = train(cases, tmp_path / "first", make_config(**options))
    told = Notes()
    tuned = options | {"start_from": str(first.last)}
    second = train(again, tmp_path / "second", make_config(**tuned, seed=5), watcher=told)
    assert {name[:2] for name in second.split()["val"]} == {name[:2] for name in first.split()["val"]}
    assert any("trained on 3 of the 5 patients; none of them is held out, and all others are" in t for t in told.notes)
    assert "none of these patients" in compare_with_start(second).before_saw
    third = train(again, tmp_path / "third", make_config(**options | {"start_from": str(second.last)}))
    assert third.split() == second.split()
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps([{"train": second.split()["val"], "val": second.split()["train"]}]))
    with pytest.raises(InputError, match=r"holds out P\d, P\d, P\d, whom the model"):
        train(again, tmp_path / "wrong", make_config(**tuned, split=str(wrong)))


def test_a_model_without_a_record_may_have_seen_what_is_held_out(cases: list[Case], tmp_path: Path) -> None:
    """It is said when the split is drawn, and beside the comparison; folds hold out all patients."""
    first = train(cases, tmp_path / "first", make_config(**CONFIG, steps=1))
    start = tmp_path / "start.safetensors"
    start.write_bytes(first.last.read_bytes())
    told = Notes()
    options = CONFIG | {"start_from": str(start), "steps": 1}
    tuned = train(cases, tmp_path / "tuned", make_config(**options), watcher=told)
    assert [note for note in told.notes if "not known which of the held-out patients" in note]
    assert "It is not known" in compare_with_start(tuned).before_saw
    assert "It is not known" in (tuned.folder / "before_after.md").read_text("utf-8")
    folds = options | {"folds": 2, "fold": 0, "start_from": str(first.last), "seed": 1}
    train(cases, tmp_path / "fold", make_config(**folds), watcher=told)
    assert "held-out patients: scores on them are too high" in told.notes[-1]


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ([0.5, 0.6, 0.4, 0.5, 0.6, 0.5], [0.7, 0.7, 0.6, 0.8, 0.7, 0.6], "better than before on 6 held-out cases"),
        ([0.7, 0.7, 0.6, 0.8, 0.7, 0.6], [0.5, 0.6, 0.4, 0.5, 0.6, 0.5], "worse than before"),
        ([0.5, 0.6, 0.4, 0.5, 0.6], [0.7, 0.7, 0.6, 0.8, 0.7], "not shown to be better on 5 held-out cases, and fewer"),
        ([0.5, 0.6, 0.4, 0.5, 0.6], [0.7, 0.4, 0.6, 0.3, 0.7], "not shown to be better"),
        ([float("nan")], [float("nan")], "not shown to be better"),
    ],
)
def test_better_is_said_only_if_interval_and_permutation_test_show_it(
    before: list[float], after: list[float], verdict: str
) -> None:
    """Nor is worse said otherwise; five cases are too few for either."""
    found = Improvement({"mean": paired_test(after, before)})
    assert found.verdict.startswith(verdict)
    assert found.is_better == (verdict.startswith("better"))


def test_the_command_line_learns_from_corrections(gliomask, cases: list[Case], tmp_path: Path) -> None:
    """It says how many, and compares; without a model to start from, or with a cache, it refuses."""
    data = tmp_path / "data"
    first = train(cases, tmp_path / "first", make_config(**CONFIG, epochs=1))
    (tmp_path / "edits").mkdir()
    correct(cases[0], tmp_path / "edits")
    words = ("train", data, "-o", tmp_path / "tuned", "--corrected", tmp_path / "edits", "--steps", 1, "-d", "cpu")
    more = ("--patch-size", 16, "--val-fraction", 0.4, "--precision", "fp32", "--threads", 1)
    status, said = gliomask(*words, *more)
    assert (status, "--corrected needs --from" in said) == (2, True)
    status, said = gliomask(*words, *more, "--from", first.best)
    assert status == 0, said
    assert f"corrected masks of 1 cases: {cases[0].id}" in said
    assert "Dice mean:" in said
    assert "held-out cases" in said
    status, said = gliomask(
        "train", first.folder / "cache", "-o", tmp_path / "x", *words[4:], *more, "--from", first.best
    )
    assert (status, "not a cache" in said) == (2, True)
