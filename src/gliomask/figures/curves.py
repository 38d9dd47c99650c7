"""Training curves: loss, accuracy, mean IoU and Dice over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import TYPE_CHECKING

from gliomask.figures.case import REGION_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TRAIN, _VALIDATION = "#999999", "#0072b2"
# Yellow is hard to see on white, so ET is darker here than on images; TC is darker too, to stay distinguishable from it
# for colour-blind readers.
_REGIONS = {**REGION_COLOURS, "TC": "#aa4400", "ET": "#c8a800"}


@dataclass(frozen=True)
class _Line:
    key: str
    label: str
    colour: str
    style: str = "-"


def curves_figure(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Return the curves of a run from the rows of its `log.jsonl`, one row per epoch.

    There are four panels: loss, voxel accuracy (with that of an empty prediction), mean IoU, and Dice of the regions on
    whole validation cases with the best epoch marked. A key that is absent from a row leaves a gap; a key that is
    absent from all rows is not drawn.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    panels = figure.subplots(2, 2)
    dice = dict.fromkeys(key for row in rows for key in row if key.startswith("val_dice_"))
    regions = [_Line(key, key[9:], _REGIONS.get(key[9:], "black")) for key in dice]
    contents = (
        ("loss", (_Line("train_loss", "training", _TRAIN), _Line("val_loss", "validation", _VALIDATION))),
        (
            "voxel accuracy (includes background; read with care)",
            (
                _Line("train_accuracy", "training", _TRAIN),
                _Line("val_accuracy", "validation", _VALIDATION),
                _Line("all_background_accuracy", "empty prediction", "#d55e00", "--"),
            ),
        ),
        (
            "mean IoU of four classes, background included",
            (_Line("train_mean_iou", "training", _TRAIN), _Line("val_mean_iou", "validation", _VALIDATION)),
        ),
        ("Dice on whole validation cases", (*regions, _Line("val_dice", "mean", "black", ":"))),
    )
    for axes, (title, lines) in zip(panels.flat, contents, strict=True):
        _draw_panel(axes, title, lines, rows)
    for axes in panels.flat[1:]:
        axes.set_ylim(top=min(1.0, axes.get_ylim()[1]) if axes is panels.flat[1] else 1.0)
    panels.flat[3].set_ylim(bottom=0)
    _mark_best(panels.flat[3], rows)
    return figure


def _draw_panel(axes: Axes, title: str, lines: Sequence[_Line], rows: Sequence[Mapping[str, float]]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    drawn = False
    for line in lines:
        points = [(row["epoch"], row[line.key]) for row in rows if line.key in row]
        if points:
            if line.style == "--" and len(points) == 1:
                axes.axhline(points[0][1], linestyle="--", linewidth=0.8, color=line.colour)
            marker = "o" if len(points) <= 30 else ""  # a line of one epoch would be invisible
            axes.plot(
                *zip(*points, strict=True), line.style, color=line.colour, label=line.label, marker=marker, markersize=3
            )
            drawn = True
    if drawn:
        axes.legend(fontsize=8, frameon=False)
    else:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", va="center", color="#777777")


def _mark_best(axes: Axes, rows: Sequence[Mapping[str, float]]) -> None:
    scored = [row for row in rows if not isnan(row.get("val_dice", nan))]
    if not scored:
        return
    best = max(scored, key=lambda row: row["val_dice"])
    axes.axvline(best["epoch"], color="#777777", linewidth=0.8, linestyle="--")
    axes.set_title(
        f"{axes.get_title(loc='left')}; best epoch {best['epoch']:.0f}: mean {best['val_dice']:.3f}",
        fontsize=10,
        loc="left",
    )
