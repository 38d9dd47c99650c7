"""Render a page: a template with its style and scripts in one file that loads nothing else."""

from __future__ import annotations

import math
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gliomask.evaluation.table_text import escape_page
from gliomask.figures import REGION_COLOURS, figure_png
from gliomask.labels import LONG_NAMES
from gliomask.report.pixels import embed
from gliomask.version import VERSION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_BYTES = 10_000_000
"""The largest size of a page, so that it can be sent by e-mail."""


def render(template: str, scripts: tuple[str, ...] = (), **content: Any) -> str:
    """Return a page as HTML; every text in `content` is escaped, including its control characters.

    Args:
        template: The name of a file in `templates`.
        scripts: The names of files in `templates` that the page runs.
        content: The variables of the template.
    """
    page: str = (
        _environment()
        .get_template(template)
        .render(
            style=_text("style.css"),
            scripts=[_text(name) for name in scripts],
            version=VERSION,
            made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
            colours=REGION_COLOURS,
            long_names=LONG_NAMES,
            **content,
        )
    )
    return escape_page(page)


def embed_figure(figure: Figure) -> str:
    """Return a figure as a data URL."""
    return embed(figure_png(figure), "image/png")


@cache
def _environment() -> Environment:
    loader = PackageLoader("gliomask.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"mm": _mm, "ml": _ml, "percent": _percent, "number": _number, "setting": _setting}
    return environment


def _text(name: str) -> str:
    return (files("gliomask.report") / "templates" / name).read_text("utf-8")


def _mm(value: float) -> str:
    return f"{value:.1f}"


def _ml(value: float) -> str:
    return f"{value:.2f}"


def _percent(value: float) -> str:
    return f"{value:.0%}".replace("%", "\N{NO-BREAK SPACE}%")


def _setting(value: object) -> str:
    """Format a setting as it would be typed."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _number(value: object) -> str:
    """Format scores with three digits, counts as whole numbers, and NaN as `none`."""
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return "none"
    return f"{value:.0f}" if value.is_integer() and abs(value) >= 10 else f"{value:.3f}"
