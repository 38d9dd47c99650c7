"""A figure that compares score tables of the same cases: each case is a line from table to table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gliomask.errors import visible
from gliomask.figures.scores import spread_distances
from gliomask.figures.style import text_colour
from gliomask.metrics import metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WORSE, _BETTER, _SAME = "#d55e00", "#0072b2", "#999999"
_LONGEST_NAME = 24


def score_comparison_figure(
    scores: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]], title: str, more_is_better: Mapping[str, bool]
) -> Figure:
    """Return a figure of paired scores with one row per metric and one column per region.

    Each panel has the tables side by side and a line for each case. A line that improves to the right is blue, one that
    gets worse is orange; the bars are the medians. There is no line between two tables if one of them has no score for
    the case.

    Args:
        scores: Metric -> region -> table name -> a score for each case, all in the same order.
        title: The title above the figure.
        more_is_better: Whether a larger value is better, for each metric.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    regions = list(next(iter(scores.values())))
    names = list(next(iter(next(iter(scores.values())).values())))
    width = max(2.2, 0.75 * len(names) + 0.8)
    figure = Figure(figsize=(0.8 + width * len(regions), 1.2 + 3.0 * len(scores)), layout="constrained")
    panels = figure.subplots(len(scores), len(regions), sharex=True, sharey="row", squeeze=False)
    for row, (metric, by_region) in zip(panels, scores.items(), strict=True):
        for axes, (region, by_name) in zip(row, by_region.items(), strict=True):
            _draw(axes, np.array(list(by_name.values()), dtype=float), more_is_better[metric])
            axes.set_xticks(range(len(names)), [visible(_short(name)) for name in names], rotation=20, ha="right")
            if axes in panels[0]:
                axes.set_title(region, fontsize=10, loc="left")
        row[0].set_ylabel(metric_name(metric), fontsize=9)
        if metric.endswith("_mm"):
            spread_distances(row[0])
            low, high = row[0].get_ylim()
            row[0].set_ylim(low, max([high, *(1.15 * axes.dataLim.y1 for axes in row)]))
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    handles = [
        Line2D([], [], color=colour, label=label)
        for colour, label in ((_BETTER, "better than in the table on the left"), (_WORSE, "worse"), (_SAME, "equal"))
    ]
    handles.append(Line2D([], [], color=text_colour(), linewidth=2.5, label="median"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _draw(axes: Axes, values: np.ndarray, more_is_better: bool) -> None:
    for place in range(len(values) - 1):
        for left, right in values[place : place + 2].T:
            gain = (right - left) if more_is_better else (left - right)
            colour = _SAME if gain == 0 else _BETTER if gain > 0 else _WORSE
            axes.plot((place, place + 1), (left, right), color=colour, linewidth=0.9, alpha=0.6)
    for place, points in enumerate(values):
        axes.scatter(np.full(len(points), place), points, s=14, color=text_colour(), alpha=0.6, linewidths=0, zorder=3)
        if (numbers := points[np.isfinite(points)]).size:
            axes.plot(
                (place - 0.18, place + 0.18), [np.median(numbers)] * 2, color=text_colour(), linewidth=2.5, zorder=4
            )
    axes.set_xlim(-0.4, len(values) - 0.6)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"...{name[3 - _LONGEST_NAME :]}"
