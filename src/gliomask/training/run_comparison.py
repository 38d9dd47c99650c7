"""Comparison of training runs: learning curves, scores on common cases, cost, and predictions of the same case."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from gliomask.cases import SEQUENCE_NAMES
from gliomask.errors import InputError
from gliomask.evaluation.summary import Statistics, describe
from gliomask.figures import (
    CaseView,
    FigureStyle,
    case_figure,
    run_comparison_curves_figure,
    run_comparison_scores_figure,
    save_figure,
)
from gliomask.files import write_text
from gliomask.inference.loading import Model, load_torch_model
from gliomask.inference.torch_engine import autocast
from gliomask.labels import get_convention, to_regions
from gliomask.training.cache import CachedCase, cache_plan, is_cache, open_cache
from gliomask.training.losses import build_loss
from gliomask.training.record import best_row
from gliomask.training.run import Run, load_run
from gliomask.training.validation import CaseScore, predict_cached_case, score_cached_case

_PLAIN = FigureStyle()


@dataclass(frozen=True)
class ComparedRun:
    """A training run in a comparison, with its log, its best model and what that scores and costs."""

    label: str
    run: Run
    rows: Sequence[Mapping[str, float]]
    model: Model
    scores: Sequence[CaseScore]
    """Scores on the cases that all runs held out, in the same order for each run; empty if there are no such cases."""
    million_parameters: float
    gflop: float
    """Floating-point operations of one forward pass over a patch; a multiplication and an addition count as two."""
    forward_seconds: float
    """Duration of one forward pass over a patch: the median of three passes, after a first one that is not timed."""

    def statistics(self) -> dict[str, Statistics]:
        """Return the statistics of the cases' Dice for each region, and of the regions' mean Dice as `mean`."""
        regions = self.model.plan.regions
        dice = {region: [score.dice[region] for score in self.scores] for region in regions}
        found = {
            region: describe([value for value in values if not np.isnan(value)]) for region, values in dice.items()
        }
        return found | {"mean": describe([_mean_dice(score) for score in self.scores])}

    def facts(self) -> dict[str, str | float]:
        """Return the run's row of the table: label, network, cost, length and, if there are scores, mean Dice.

        `dice_…_cases` is the number of cases whose masks label the region; the mean Dice of a region without any is
        NaN.
        """
        best = best_row(self.rows)
        steps = self.rows[-1]["step"]
        row: dict[str, str | float] = {
            "run": self.label,
            "network": self.run.config.network,
            "million_parameters": round(self.million_parameters, 2),
            "gflop_forward": round(self.gflop, 1),
            "seconds_forward": round(self.forward_seconds, 3),
            "seconds_a_step": round(sum(row["train_seconds"] for row in self.rows) / steps, 3),
            "peak_memory_gb": max(row["peak_memory_gb"] for row in self.rows),
            "steps": steps,
            "epochs": self.rows[-1]["epoch"],
            "hours": round(self.rows[-1]["hours"], 3),
            "best_epoch": best["epoch"],
            "cases": len(self.scores),
        }
        for name, statistics in self.statistics().items() if self.scores else ():
            row |= {f"dice_{name}": round(statistics.mean, 4), f"dice_{name}_cases": statistics.cases}
            row |= {f"dice_{name}_low": round(statistics.low, 4), f"dice_{name}_high": round(statistics.high, 4)}
        for key in ("val_accuracy", "all_background_accuracy", "val_mean_iou"):
            row |= {key: round(best[key], 4)} if key in best else {}
        return row


def compare(
    runs: Sequence[Path | str],
    output: Path | str,
    *,
    cases: Sequence[str] = (),
    device: str = "auto",
    style: FigureStyle = _PLAIN,
    on_case: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[ComparedRun], list[str]]:
    """Compare runs and write `curves.png`, `scores.png`, `table.md`, `table.csv` and a picture of a case to a folder.

    The best model of each run is scored on the cases that every run held out, because scores on different cases are
    not comparable. If there are no such cases, or their cache no longer exists, scores and picture are left out and a
    note gives the reason.

    Args:
        runs: The folders of runs that have finished at least one epoch.
        output: The folder to write to.
        cases: Ids of cases to draw; by default the case whose mean Dice over all runs is the median.
        device: The device that runs the networks.
        style: The format, resolution and colours of the pictures.
        on_case: Called after each prediction with the number of predictions done and their total.

    Returns:
        The compared runs in the order given, and notes about the comparison for the user.

    Raises:
        InputError: A folder has no run with a finished epoch and a best model (all such folders are listed), or a case
            to draw was not held out by all runs.
    """
    opened = _open(runs)
    common, notes = common_cases(opened)
    if wrong := [case for case in cases if case not in {each.id for each in common}]:
        raise InputError(f"{', '.join(wrong)}: not among the {len(common)} case(s) that all runs held out.")
    compared = []
    for number, (label, run) in enumerate(opened.items()):
        model = load_torch_model(run.best, device=device)
        loss_of, precision = build_loss(run.config.loss), run.config.precision
        scores = []
        for done, case in enumerate(common, start=1):
            scores.append(score_cached_case(model, case, loss_of, precision))
            on_case(number * len(common) + done, len(opened) * len(common))
        compared.append(ComparedRun(label, run, run.rows(), model, scores, *_cost(model, run)))
    output = Path(output)
    _write_table(compared, output)
    with style.colours():
        curves = run_comparison_curves_figure({each.label: each.rows for each in compared})
        save_figure(curves, output / f"curves.{style.format}", style)
        if common:
            dice = {each.label: [score.dice for score in each.scores] for each in compared}
            save_figure(run_comparison_scores_figure(dice), output / f"scores.{style.format}", style)
    for case in ([each for each in common if each.id in cases] or [_median_case(compared, common)]) if common else ():
        _draw(compared, case, output / f"{case.id}.{style.format}", style)
    return compared, notes


def _open(runs: Sequence[Path | str]) -> dict[str, Run]:
    """Return the runs by label: the network's name, with the folder's name where several runs share a network."""
    opened, problems = [], []
    for folder in map(Path, runs):
        try:
            run = load_run(folder)
            if not run.rows() or not run.best.is_file():
                raise InputError(
                    f"{folder}: has no finished epoch yet. Continue it: gliomask train -o {folder} --resume"
                )
            opened.append(run)
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("; ".join(problems))
    names = [run.config.network for run in opened]
    labels = [
        name if names.count(name) == 1 else f"{run.folder.name} ({name})"
        for run, name in zip(opened, names, strict=True)
    ]
    if len(set(labels)) < len(labels):
        labels = [f"{run.folder} ({name})" for run, name in zip(opened, names, strict=True)]
    return dict(zip(labels, opened, strict=True))


def common_cases(runs: Mapping[str, Run]) -> tuple[list[CachedCase], list[str]]:
    """Return the prepared cases that all runs held out, and notes for the user about cases that are left out."""
    held_out = [set(run.split()["val"]) for run in runs.values()]
    common = set.intersection(*held_out)
    if not common:
        return [], ["no scores: the runs held out no case in common, and scores on different cases cannot be compared"]
    notes = []
    if any(ids != common for ids in held_out):
        notes.append(f"scored on the {len(common)} case(s) that all runs held out; other held-out cases are not used")
    for run in runs.values():
        cache = next((place for place in _caches(run) if is_cache(place)), None)
        needed = {modality for other in runs.values() for modality in other.config.modalities}
        if cache is not None and needed <= set(cache_plan(cache).modalities):
            return [case for case in open_cache(cache, cache_plan(cache)) if case.id in common], notes
    return [], [
        *notes,
        "no scores: the prepared cases no longer exist. Continue a run with --resume to prepare them again",
    ]


def _caches(run: Run) -> list[Path]:
    kept = [Path(run.config.cases)] if run.config.cases else []
    return [run.folder / "cache", run.folder.parent / "cache", *kept]


def _cost(model: Model, run: Run) -> tuple[float, float, float]:
    """Return millions of parameters, GFLOP and seconds of a forward pass over a patch; see `ComparedRun`."""
    network, plan = model.network, model.plan
    device = next(network.parameters()).device
    image = torch.zeros((1, len(plan.modalities), *plan.patch_size), device=device)
    image = image.contiguous(memory_format=torch.channels_last_3d)
    seconds = []
    with torch.inference_mode(), autocast(device, run.config.precision):
        with FlopCounterMode(display=False) as counter:
            network(image)
        for _ in range(3):
            started = time.perf_counter()
            network(image).sum().item()
            seconds.append(time.perf_counter() - started)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters / 1e6, counter.get_total_flops() / 1e9, float(np.median(seconds))


def _mean_dice(score: CaseScore) -> float:
    """Return the mean Dice of the regions that the case's mask labels."""
    return float(np.nanmean(list(score.dice.values())))


def _median_case(compared: Sequence[ComparedRun], cases: Sequence[CachedCase]) -> CachedCase:
    means = np.mean([[_mean_dice(score) for score in run.scores] for run in compared], axis=0)
    return cases[int(np.argsort(means)[len(means) // 2])]


def _draw(compared: Sequence[ComparedRun], case: CachedCase, path: Path, style: FigureStyle) -> None:
    shown = [modality for modality in ("t2f", "t1c", "t2w", "t1n") if modality in case.modalities][:2]
    regions = compared[0].model.plan.regions
    truth = to_regions(case.labels(), get_convention(case.convention), regions)
    view = CaseView(
        title=case.id,
        affine=plain_affine(compared[0].model.plan.axes, case.spacing_mm),
        images={
            SEQUENCE_NAMES[modality]: np.asarray(case.image()[case.modalities.index(modality)]) for modality in shown
        },
        truth=dict(zip(regions, truth, strict=True)),
        predictions={one.label: predict_cached_case(one.model, case, one.run.config.precision) for one in compared},
    )
    save_figure(case_figure(view), path, style)


def plain_affine(axes: str, spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return the affine of a grid with this orientation and voxel size; its origin is 0, 0, 0."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (letter, mm) in enumerate(zip(axes, spacing_mm, strict=True)):
        row = next(i for i, pair in enumerate(("LR", "PA", "IS")) if letter in pair)
        affine[row, axis] = mm if letter in "RAS" else -mm
    return affine


def _write_table(compared: Sequence[ComparedRun], output: Path) -> None:
    rows = [run.facts() for run in compared]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(output / "table.csv", text.getvalue())
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows]
    write_text(output / "table.md", "\n".join(lines) + "\n")
