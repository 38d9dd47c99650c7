"""A Bland-Altman figure: how well predicted and true volumes agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gliomask.figures.style import point_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEAST_CASES = 3


def bland_altman_figure(rows: Sequence[Mapping[str, str | float]]) -> Figure:
    """Return one panel per region: predicted minus true volume over the mean of both, in mL, one point per case.

    The solid line is the mean difference (bias). The dashed lines are the limits of agreement, 1.96 sample standard
    deviations on either side; with fewer than three cases they are not drawn. Cases without a prediction are left out,
    and so are cases in which both volumes are 0; the title gives the number of the remaining ones.

    Args:
        rows: The rows of `Evaluation.rows`, with `region`, `status`, `truth_ml` and `prediction_ml`.

    Source: Bland and Altman, Lancet 1986.
    """
    from matplotlib.figure import Figure

    regions = list(dict.fromkeys(str(row["region"]) for row in rows))
    columns = min(3, max(1, len(regions)))
    lines = -(-max(1, len(regions)) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.6 * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes, region in zip(panels, regions, strict=False):
        volumes = [
            (float(row["truth_ml"]), float(row["prediction_ml"]))
            for row in rows
            if row["region"] == region and row["status"] != "missing"
        ]
        _draw(axes, region, np.array([pair for pair in volumes if any(pair)]).reshape(-1, 2))
    for axes in panels[len(regions) :]:
        axes.set_axis_off()
    if not regions:
        panels[0].text(0.5, 0.5, "no data", transform=panels[0].transAxes, ha="center", va="center", color="#777777")
    return figure


def _draw(axes: Axes, region: str, volumes: NDArray[np.float64]) -> None:
    axes.set_title(f"{region}, {len(volumes)} case{'s' if len(volumes) != 1 else ''}", fontsize=10, loc="left")
    axes.set_xlabel("mean of true and predicted volume (mL)", fontsize=9)
    axes.set_ylabel("predicted minus true (mL)", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.axhline(0, color="#999999", linewidth=0.8)
    if not len(volumes):
        return
    means, differences = volumes.mean(axis=1), volumes[:, 1] - volumes[:, 0]
    axes.scatter(means, differences, s=18, color=point_colour(), alpha=0.75, linewidths=0, zorder=3)
    levels = [(differences.mean(), "-", "bias")]
    spread = 1.96 * differences.std(ddof=1) if len(differences) >= _LEAST_CASES else 0.0
    if spread:
        levels += [(levels[0][0] + spread, "--", "+1.96 sd"), (levels[0][0] - spread, "--", "-1.96 sd")]
    reach = [*differences, *(level for level, _, _ in levels), 0.0]
    room = 0.1 * (max(reach) - min(reach)) or 1.0
    axes.set_ylim(min(reach) - room, max(reach) + room)
    for level, style, name in levels:
        axes.axhline(level, color="#d55e00", linestyle=style, linewidth=1.3)
        axes.annotate(
            f"{name}\n{level:+.2f}", (1, level), xycoords=("axes fraction", "data"), xytext=(3, 0),
            textcoords="offset points", ha="left", va="center", fontsize=8, color="#d55e00", annotation_clip=False,
        )  # fmt: skip
