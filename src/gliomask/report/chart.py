"""The geometry of a line chart, which a template draws as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 52, 12, 40
_LETTER = 14


@dataclass(frozen=True)
class Line:
    """The line of one region, in the units of the chart."""

    name: str
    points: str
    end: tuple[float, float]
    """The position of its name."""


@dataclass(frozen=True)
class Chart:
    """Lines, and the ticks of both axes as (position, text)."""

    lines: tuple[Line, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    band: tuple[float, float]
    """The left edge and the width of the band from .3 to .7."""
    size: tuple[int, int] = (WIDTH, HEIGHT)
    frame: tuple[int, int, int, int] = (_LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM)


def threshold_chart(thresholds: Sequence[float], volumes: Mapping[str, Sequence[float]]) -> Chart:
    """Return a chart of the volumes in mL above each threshold, one line per region."""
    most = max((max(values) for values in volumes.values()), default=0.0) or 1.0
    step = _round_step(most / 4)
    top = step * -(-most // step)

    def x(threshold: float) -> float:
        share = (threshold - thresholds[0]) / (thresholds[-1] - thresholds[0])
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * share, 1)

    def y(volume: float) -> float:
        return round(HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * volume / top, 1)

    heights = _spread({name: y(values[-1]) for name, values in volumes.items()})
    lines = tuple(
        Line(
            name,
            " ".join(f"{x(t)},{y(v)}" for t, v in zip(thresholds, values, strict=True)),
            (x(thresholds[-1]), heights[name]),
        )
        for name, values in volumes.items()
    )
    across = tuple((x(t), f"{t:.1f}") for t in thresholds if abs(10 * t - round(10 * t)) < 1e-6)
    up = tuple((y(step * number), f"{step * number:g}") for number in range(round(top / step) + 1))
    return Chart(lines, across, up, (x(0.3), round(x(0.7) - x(0.3), 1)))


def _spread(heights: Mapping[str, float]) -> dict[str, float]:
    """Return the heights of the names, moved up so that no two overlap."""
    moved: dict[str, float] = {}
    free = HEIGHT - float(_BOTTOM)
    for name in sorted(heights, key=lambda name: -heights[name]):
        moved[name] = min(heights[name], free)
        free = moved[name] - _LETTER
    return moved


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2, 5, 10, ... (times a power of ten) that is not smaller than `least`."""
    power = 10.0 ** (len(str(int(least))) - 1) if least >= 1 else 10.0 ** -len(f"{1 / least:.0f}")
    return next(round(power * factor, 10) for factor in (1, 2, 5, 10, 20, 50, 100) if power * factor >= least)
