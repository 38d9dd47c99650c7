"""A figure of the scores of many cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gliomask.figures.style import point_colour
from gliomask.metrics import metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def scores_figure(
    rows: Sequence[Mapping[str, str | float]], metrics: Sequence[str] = ("dice", "hd95_pooled_mm")
) -> Figure:
    """Return a box plot with one point per case for each region: Dice on the left, HD95 on the right.

    Args:
        rows: The rows of `Evaluation.rows`, with `case`, `region` and the metrics. Without rows the panels contain a
            message. Scores that are infinite, and those that are NaN (undefined for a case), are left out and counted
            below the region, each by itself.
        metrics: The Dice and the HD95 to show, in this order.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    regions = list(dict.fromkeys(str(row["region"]) for row in rows))
    for axes, metric in zip(figure.subplots(1, 2), metrics, strict=True):
        values = [np.array([float(row[metric]) for row in rows if row["region"] == region]) for region in regions]
        if regions:
            _draw_strips(axes, regions, values)
        else:
            axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", va="center", color="#777777")
        count = len({row["case"] for row in rows})
        axes.set_title(f"{metric_name(metric)}, {count} case{'' if count == 1 else 's'}", fontsize=10, loc="left")
    figure.axes[0].set_ylim(-0.02, 1.02)
    if regions:
        spread_distances(figure.axes[1])
    return figure


def spread_distances(axes: Axes) -> None:
    """Use a scale on which small distances can be read: most are a few mm, and the penalty is 373 or 374 mm."""
    axes.set_yscale("symlog", linthresh=1, linscale=0.4)
    ticks = (0, 1, 2, 5, 10, 20, 50, 100, 200, 374)
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.set_yticks([], minor=True)
    axes.set_ylim(-0.1, max(12.0, 1.15 * axes.dataLim.y1))


def _draw_strips(axes: Axes, regions: Sequence[str], values: Sequence[NDArray[np.float64]]) -> None:
    finite = [points[np.isfinite(points)] for points in values]
    axes.boxplot(
        finite,
        positions=range(len(regions)),
        widths=0.5,
        showfliers=False,
        boxprops={"color": "#888888"},
        whiskerprops={"color": "#888888"},
        capprops={"color": "#888888"},
        medianprops={"color": "#d55e00", "linewidth": 2},
    )
    for place, points in enumerate(finite):
        spread = np.random.default_rng(place).uniform(
            -0.14, 0.14, len(points)
        )  # so that equal scores do not hide each other
        axes.scatter(place + spread, points, s=16, color=point_colour(), alpha=0.7, linewidths=0, zorder=3)
    names = [_name(region, points) for region, points in zip(regions, values, strict=True)]
    axes.set_xticks(range(len(regions)), names)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _name(region: str, points: NDArray[np.float64]) -> str:
    """Return the region, and below it the numbers of points that are not drawn."""
    counts = ((int(np.isinf(points).sum()), "infinite"), (int(np.isnan(points).sum()), "not defined"))
    return "\n".join([region, *(f"{count} {word}" for count, word in counts if count)])
