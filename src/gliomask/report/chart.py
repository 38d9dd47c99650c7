"""A line chart as drawn elements, sharp at any size and readable without a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 52, 12, 40


@dataclass(frozen=True)
class Line:
    """One region's line, in the chart's units."""

    name: str
    points: str
    end: tuple[float, float]


@dataclass(frozen=True)
class Chart:
    """Lines, and the ticks of both axes as (place, text)."""

    lines: tuple[Line, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    band: tuple[float, float]
    """Where the range from .3 to .7 begins, and how wide it is."""
    size: tuple[int, int] = (WIDTH, HEIGHT)
    frame: tuple[int, int, int, int] = (_LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM)


def threshold_chart(thresholds: Sequence[float], volumes: Mapping[str, Sequence[float]]) -> Chart:
    """Return the volumes in mL above each threshold, a line a region."""
    most = max((max(values) for values in volumes.values()), default=0.0) or 1.0
    step = _round_step(most / 4)
    top = step * -(-most // step)

    def x(threshold: float) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * threshold, 1)

    def y(volume: float) -> float:
        return round(HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * volume / top, 1)

    lines = tuple(
        Line(
            name,
            " ".join(f"{x(t)},{y(v)}" for t, v in zip(thresholds, values, strict=True)),
            (x(thresholds[-1]), y(values[-1])),
        )
        for name, values in volumes.items()
    )
    across = tuple((x(tenth / 10), f"{tenth / 10:.1f}") for tenth in range(1, 10, 2))
    up = tuple((y(step * number), f"{step * number:g}") for number in range(round(top / step) + 1))
    return Chart(lines, across, up, (x(0.3), round(x(0.7) - x(0.3), 1)))


def _round_step(least: float) -> float:
    """The least of 1, 2, 5, 10, ... that is no smaller."""
    power = 10.0 ** (len(str(int(least))) - 1) if least >= 1 else 10.0 ** -len(f"{1 / least:.0f}")
    return next(round(power * factor, 10) for factor in (1, 2, 5, 10, 20, 50, 100) if power * factor >= least)
