"""Several sets of predictions of the same cases: each case a line from entrant to entrant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gliomask.figures.scores import spread_distances

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WORSE, _BETTER, _SAME = "#d55e00", "#0072b2", "#999999"
_LONGEST_NAME = 24


def contest_figure(
    scores: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]], title: str, more_is_better: Mapping[str, bool]
) -> Figure:
    """Return paired dots: a row a metric, a column a region, in each the entrants side by side, a line for each case.

    Lines that get better to the right are blue, those that get worse orange; the bars are the medians. A case without a
    number in one of two neighbours has no line between them.

    Args:
        scores: Metric -> region -> entrant -> a score for each case, in one order.
        title: Stands above.
        more_is_better: Of each metric.
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
            axes.set_xticks(range(len(names)), [_short(name) for name in names], rotation=20, ha="right")
            if axes in panels[0]:
                axes.set_title(region, fontsize=10, loc="left")
        row[0].set_ylabel(metric, fontsize=9)
        if metric.endswith("_mm"):
            spread_distances(row[0])
            low, high = row[0].get_ylim()
            row[0].set_ylim(low, max([high, *(1.15 * axes.dataLim.y1 for axes in row)]))
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    handles = [
        Line2D([], [], color=colour, label=label)
        for colour, label in ((_BETTER, "better than its left neighbour"), (_WORSE, "worse"), (_SAME, "equal"))
    ]
    handles.append(Line2D([], [], color="black", linewidth=2.5, label="median"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _draw(axes: Axes, values: np.ndarray, more_is_better: bool) -> None:
    for place in range(len(values) - 1):
        for left, right in values[place : place + 2].T:
            gain = (right - left) if more_is_better else (left - right)
            colour = _SAME if gain == 0 else _BETTER if gain > 0 else _WORSE
            axes.plot((place, place + 1), (left, right), color=colour, linewidth=0.9, alpha=0.6)
    for place, points in enumerate(values):
        axes.scatter(np.full(len(points), place), points, s=14, color="#333333", alpha=0.7, linewidths=0, zorder=3)
        if (numbers := points[np.isfinite(points)]).size:
            axes.plot((place - 0.18, place + 0.18), [np.median(numbers)] * 2, color="black", linewidth=2.5, zorder=4)
    axes.set_xlim(-0.4, len(values) - 0.6)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"...{name[3 - _LONGEST_NAME :]}"
