"""Comparison of runs: scores on common cases only, figures as in the logs, and notes on what cannot be compared."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection

from gliomask.cases import Case, find_cases, resolve_conventions
from gliomask.errors import InputError
from gliomask.figures import run_comparison_curves_figure, run_comparison_scores_figure
from gliomask.training.config import TrainConfig, make_config
from gliomask.training.loop import train
from gliomask.training.run import Run
from gliomask.training.run_comparison import compare


@pytest.fixture
def cases(folder_of: Callable[..., Path]) -> list[Case]:
    return resolve_conventions(find_cases(folder_of(5)))


def config(**changes: object) -> TrainConfig:
    return make_config(
        **{"network": "fcn", "patch_size": 16, "epochs": 2, "precision": "fp32", "threads": 1, **changes}
    )


@pytest.fixture
def runs(cases: list[Case], tmp_path: Path) -> list[Run]:
    """Two networks on one split of three and two cases."""
    networks = ("fcn", "unet")
    return [train(cases, tmp_path / name, config(network=name, val_fraction=0.4)) for name in networks]


def test_the_table_agrees_with_the_logs(runs: list[Run], tmp_path: Path) -> None:
    """For networks on one split, the mean Dice in the table are those of the best epochs in the logs."""
    shares: list[tuple[int, int]] = []
    compared, notes = compare(
        [run.folder for run in runs], tmp_path / "out", on_case=lambda done, of: shares.append((done, of))
    )
    assert not notes
    assert shares == [(done, 4) for done in range(1, 5)]
    with (tmp_path / "out" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["fcn", "unet"]
    for row, run, one in zip(rows, runs, compared, strict=True):
        best = max(run.rows(), key=lambda logged: logged["val_dice"])
        assert float(row["dice_WT"]) == pytest.approx(best["val_dice_WT"], abs=1e-4)
        assert float(row["dice_mean"]) == pytest.approx(best["val_dice"], abs=1e-4)
        assert float(row["best_epoch"]) == best["epoch"]
        assert int(row["steps"]) == run.rows()[-1]["step"]
        parameters = sum(p.numel() for p in one.model.network.parameters())
        assert float(row["million_parameters"]) == pytest.approx(parameters / 1e6, abs=0.01)
        assert float(row["gflop_forward"]) > 0
        assert float(row["dice_WT_low"]) <= float(row["dice_WT"]) <= float(row["dice_WT_high"])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    held_out = runs[0].split()["val"]
    assert {"curves.png", "scores.png", "table.csv", "table.md"} < names
    assert len(names & {f"{case}.png" for case in held_out}) == 1


def test_scores_are_of_the_cases_that_all_held_out(cases: list[Case], tmp_path: Path) -> None:
    """Only the common cases are scored, or none; no model is scored on a case that it was trained on."""
    for fold in (0, 1):
        train(cases, tmp_path / f"fold{fold}", config(folds=2, fold=fold, epochs=1))
    compared, notes = compare([tmp_path / "fold0", tmp_path / "fold1"], tmp_path / "folds")
    assert not any(one.scores for one in compared)
    assert "no case in common" in notes[0]
    assert {path.name for path in (tmp_path / "folds").iterdir()} == {"curves.png", "table.csv", "table.md"}
    assert [one.label for one in compared] == ["fold0 (fcn)", "fold1 (fcn)"]
    few, more = (train(cases, tmp_path / f"f{n}", config(epochs=1, val_fraction=n / 5)) for n in (1, 4))
    compared, notes = compare([few.folder, more.folder], tmp_path / "some")
    common = set(few.split()["val"]) & set(more.split()["val"])
    assert {score.case for score in compared[0].scores} == {score.case for score in compared[1].scores} == common
    if common:
        assert "other held-out cases" in notes[0]


def test_without_the_prepared_cases_the_curves_are_compared(runs: list[Run], tmp_path: Path) -> None:
    """A note gives the reason why there are no scores."""
    for run in runs:
        shutil.rmtree(run.folder / "cache")
    compared, notes = compare([run.folder for run in runs], tmp_path / "out")
    assert "no longer exist" in notes[0]
    assert not compared[0].scores
    assert "dice_WT" not in (tmp_path / "out" / "table.csv").read_text()


def test_unfinished_runs_are_refused_together(runs: list[Run], tmp_path: Path) -> None:
    """Every folder is named and nothing is written; a case that was not held out cannot be drawn."""
    runs[1].best.unlink()
    with pytest.raises(InputError, match=r"(?s)unet: has no finished epoch.*nothing: no run there"):
        compare([runs[0].folder, runs[1].folder, tmp_path / "nothing"], tmp_path / "out")
    with pytest.raises(InputError, match="elsewhere: not among the 2"):
        compare([runs[0].folder], tmp_path / "out", cases=["elsewhere"])
    assert not (tmp_path / "out").exists()


def test_the_command_shows_the_table(gliomask, runs: list[Run], tmp_path: Path) -> None:
    """One line per run for its cost and one for its scores, and the place of the pictures."""
    status, said = gliomask("compare", *(run.folder for run in runs), "-o", tmp_path / "out", columns=80)
    assert status == 0, said
    lines = said.splitlines()
    assert [line.split()[:1] for line in lines[:7]] == [["run"], ["fcn"], ["unet"], [], ["mean"], ["run"], ["fcn"]]
    assert lines[4].endswith(": 2")
    assert lines[8] == f"pictures, table.csv and table.md: {tmp_path / 'out'}"


def test_every_interval_has_its_line_in_80_columns(gliomask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is folded however large the numbers are, and the figures are those of the table on the disk."""
    cost = {"million_parameters": 19.07, "gflop_forward": 1187.2, "seconds_a_step": 12.345, "hours": 123.456}
    dice = {}
    for region, mean in (("WT", 0.8312), ("TC", 0.7449), ("ET", 0.6), ("mean", 0.9999)):
        dice |= {f"dice_{region}": mean, f"dice_{region}_low": mean - 0.123, f"dice_{region}_high": 1.0}
        dice |= {f"dice_{region}_cases": 9}
    facts = {"run": "attention_unet", **cost, "peak_memory_gb": 12.3, "best_epoch": 120, "cases": 9, **dice}
    bare = {**facts, "run": "vnet", "cases": 0}
    compared = [SimpleNamespace(facts=lambda: facts), SimpleNamespace(facts=lambda: bare)]
    monkeypatch.setattr("gliomask.training.run_comparison.compare", lambda *_, **__: (compared, []))
    status, said = gliomask("compare", "a", "b", "-o", tmp_path, columns=80)
    assert status == 0, said
    lines = said.splitlines()[:-1]
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines if line.startswith(("attention_unet", "vnet"))] == [
        ["attention_unet", "19.1", "1187", "12.3", "12.3", "123", "120"],
        ["vnet", "19.1", "1187", "12.3", "12.3", "123", "120"],
        ["attention_unet", ".831", "[.71", "1]", ".745", "[.62", "1]", ".600", "[.48", "1]", "1", "[.88", "1]"],
    ]


def test_regions_that_few_masks_label_are_counted(gliomask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Dice of a region that no mask labels is none, and that of a single case has no interval."""
    cost = ("million_parameters", "gflop_forward", "seconds_a_step", "hours", "peak_memory_gb", "best_epoch")
    facts: dict[str, str | float] = {"run": "unet", **dict.fromkeys(cost, 1.0), "cases": 3}
    for region, mean, cases in (("WT", 0.8, 3), ("TC", 0.5, 1), ("ET", math.nan, 0), ("mean", 0.7, 3)):
        facts |= dict.fromkeys((f"dice_{region}", f"dice_{region}_low", f"dice_{region}_high"), mean)
        facts |= {f"dice_{region}_cases": cases}
    compared = [SimpleNamespace(facts=lambda: facts)]
    monkeypatch.setattr("gliomask.training.run_comparison.compare", lambda *_, **__: (compared, []))
    status, said = gliomask("compare", "a", "-o", tmp_path, columns=80)
    assert status == 0, said
    lines = said.splitlines()
    assert "cases whose masks label the region: TC 1, ET 0" in lines
    assert lines[-2].split() == ["unet", ".800", "[.80", ".80]", ".500", "none", ".700", "[.70", ".70]"]


def rows(*dices: float) -> list[dict[str, float]]:
    return [
        {"epoch": n, "hours": 0.5 * n, "train_loss": 1 / n, "val_dice": dice, "all_background_accuracy": 0.9}
        for n, dice in enumerate(dices, start=1)
    ]


def test_every_run_has_its_line_in_every_panel_that_it_has_data_for() -> None:
    """Over epochs and over hours, in the same colour; an epoch without validation is left out."""
    second = rows(0.2, 0.3, 0.4)
    del second[1]["val_dice"]
    figure = run_comparison_curves_figure({"one": rows(0.5, 0.6), "two": second})
    dice_over_epochs, dice_over_hours = figure.axes[3], figure.axes[7]
    drawn = [list(map(tuple, line.get_xydata())) for line in dice_over_epochs.lines]
    assert drawn == [[(1, 0.5), (2, 0.6)], [(1, 0.2), (3, 0.4)]]
    assert [list(line.get_xdata()) for line in dice_over_hours.lines] == [[0.5, 1.0], [0.5, 1.5]]
    colours = [line.get_color() for line in dice_over_epochs.lines]
    assert len(set(colours)) == 2
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == ["one", "two"]


def test_bars_are_means_and_every_case_is_a_point() -> None:
    """Each bar also has its confidence interval."""
    scores = {"one": [{"WT": 0.8, "ET": 0.0}, {"WT": 0.6, "ET": 1.0}], "two": [{"WT": 0.9, "ET": 0.5}] * 2}
    figure = run_comparison_scores_figure(scores)
    heights = sorted(bar.get_height() for bar in figure.axes[0].patches)
    np.testing.assert_allclose(heights, [0.5, 0.5, 0.7, 0.9])
    dots = [drawn for drawn in figure.axes[0].collections if isinstance(drawn, PathCollection)]
    assert [len(drawn.get_offsets()) for drawn in dots] == [2, 2, 2, 2]
    intervals = [drawn for drawn in figure.axes[0].collections if isinstance(drawn, LineCollection)]
    assert len(intervals) == 4


def test_a_case_that_does_not_label_a_region_is_in_no_bar_of_it() -> None:
    """The bar is the mean of the other cases, whose number is below the region; a region of no case has no bar."""
    nan = math.nan
    scores = [{"WT": 0.8, "TC": 0.6, "ET": nan}, {"WT": 0.6, "TC": nan, "ET": nan}]
    figure = run_comparison_scores_figure({"one": scores, "two": scores})
    axes = figure.axes[0]
    np.testing.assert_allclose(sorted(bar.get_height() for bar in axes.patches), [0.6, 0.6, 0.7, 0.7])
    dots = [drawn for drawn in axes.collections if isinstance(drawn, PathCollection)]
    assert [len(drawn.get_offsets()) for drawn in dots] == [2, 1, 2, 1]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["WT", "TC\n1 of 2 cases", "ET\n0 of 2 cases"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two"]
