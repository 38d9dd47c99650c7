"""Figures that compare training runs: curves over epochs and hours, and scores with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette without yellow, which is hard to see on white; the colours repeat after seven runs.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_PANELS = (
    ("loss", "train_loss", "val_loss"),
    ("voxel accuracy (read with care)", "train_accuracy", "val_accuracy"),
    ("mean IoU, background included", "train_mean_iou", "val_mean_iou"),
    ("mean Dice of the regions, whole cases", "", "val_dice"),
)
_RESAMPLES = 2000


def run_comparison_curves_figure(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Return the curves of several runs, one colour per run: over epochs in the top row, over hours in the bottom row.

    The bottom row is in minutes if all runs are shorter than an hour. Validation is drawn solid, training thin and
    dotted. The panel of the accuracy also shows the accuracy of a prediction without any tumour.

    Args:
        runs: The rows of each run's log, by the label of the run.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(15, 7.2), layout="constrained")
    panels = figure.subplots(2, len(_PANELS), sharey="col")
    longest = max(rows[-1]["hours"] for rows in runs.values())
    unit, factor = ("hours", 1.0) if longest >= 1 else ("minutes", 60.0)
    for row, (key, label, scale) in enumerate(
        (("epoch", "epoch", 1.0), ("hours", f"{unit}, validation included", factor))
    ):
        for axes, (title, training, validation) in zip(panels[row], _PANELS, strict=True):
            for number, rows in enumerate(runs.values()):
                scaled = [{**row, key: scale * row[key]} for row in rows]
                _draw_run(axes, scaled, key, training, validation, _COLOURS[number % len(_COLOURS)])
            if validation == "val_accuracy":
                _draw_empty_prediction(axes, [row for rows in runs.values() for row in rows])
            axes.set_xlabel(label)
            axes.set_xlim(left=0)
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            if row == 0:
                axes.set_title(title, fontsize=10, loc="left")
    panels[0][-1].set_ylim(0, 1)
    handles = [
        Line2D([], [], color=_COLOURS[i % len(_COLOURS)], linewidth=2, label=name) for i, name in enumerate(runs)
    ]
    handles += [
        Line2D([], [], color="#555555", label="validation"),
        Line2D([], [], color="#555555", linestyle=":", linewidth=1, label="training"),
        Line2D([], [], color="#777777", linestyle="--", linewidth=1, label="empty prediction"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(8, len(handles)), frameon=False, fontsize=9)
    return figure


def run_comparison_scores_figure(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Return bars of the mean Dice of each region, one colour per run, with 95 % intervals and one point per case.

    The intervals are those of the means, from a seeded bootstrap over the cases. All runs have the same cases, so two
    runs can differ significantly even if their intervals overlap. A case whose mask does not label a region (NaN) is
    left out of it, and the number of the others is below the region; a region that no case labels has no bars.

    Args:
        runs: The Dice by region of every case of each run, by the label of the run.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    regions = list(next(iter(runs.values()))[0])
    figure = Figure(figsize=(max(7.0, 1.6 + 0.55 * len(regions) * (len(runs) + 1)), 4.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(runs)
    for number, scores in enumerate(runs.values()):
        colour = _COLOURS[number % len(_COLOURS)]
        for place, region in enumerate(regions):
            values = _labelled(scores, region)
            if not len(values):
                continue
            x = place + (number - (len(runs) - 1) / 2) * width
            mean = values.mean()
            draws = np.random.default_rng(0).choice(values, (_RESAMPLES, len(values))).mean(axis=1)
            low, high = np.percentile(draws, (2.5, 97.5))
            axes.bar(x, mean, 0.9 * width, color=colour, alpha=0.35)
            axes.errorbar(x, mean, [[mean - low], [high - mean]], color=colour, capsize=4, linewidth=2)
            spread = np.random.default_rng(place).uniform(-0.25, 0.25, len(values)) * width
            axes.scatter(x + spread, values, s=12, color=colour, alpha=0.8, linewidths=0, zorder=3)
    first = next(iter(runs.values()))
    count = len(first)
    axes.set_title(
        f"mean Dice on the {count} validation cases that all runs share, with 95 % intervals", fontsize=10, loc="left"
    )
    axes.set_xticks(range(len(regions)), [_name(region, len(_labelled(first, region)), count) for region in regions])
    axes.set_xlim(-0.5, len(regions) - 0.5)
    axes.set_ylim(0, 1.02)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    handles = [Patch(color=_COLOURS[i % len(_COLOURS)], alpha=0.35, label=name) for i, name in enumerate(runs)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(runs)), frameon=False, fontsize=9)
    return figure


def _labelled(scores: Sequence[Mapping[str, float]], region: str) -> NDArray[np.float64]:
    """Return the Dice of a region in the cases whose masks label it."""
    return np.array([score[region] for score in scores if not math.isnan(score[region])])


def _name(region: str, labelled: int, count: int) -> str:
    return region if labelled == count else f"{region}\n{labelled} of {count} cases"


def _draw_run(
    axes: Axes, rows: Sequence[Mapping[str, float]], x: str, training: str, validation: str, colour: str
) -> None:
    for key, style, line in ((training, ":", 1.0), (validation, "-", 1.8)):
        points = [(row[x], row[key]) for row in rows if key in row and x in row]
        if points:
            marker = "o" if len(points) <= 30 and style == "-" else ""
            axes.plot(*zip(*points, strict=True), style, color=colour, linewidth=line, marker=marker, markersize=3)


def _draw_empty_prediction(axes: Axes, rows: Sequence[Mapping[str, float]]) -> None:
    for level in sorted({round(row["all_background_accuracy"], 4) for row in rows if "all_background_accuracy" in row}):
        axes.axhline(level, color="#777777", linestyle="--", linewidth=1)
