"""The table of a raw study's series, as `check`, `predict --raw` and `preprocess` print it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gliomask.cli.console import PlainConsole, err, line, warn

if TYPE_CHECKING:
    from gliomask.acquisition.study import Study


def show_study(study: Study, console: PlainConsole = err) -> None:
    """Print every series of a study, for which sequence it is used, and the reason."""
    from gliomask.acquisition.table import geometry_text

    console.print(line((study.id, "bold")))
    rows = [
        (
            choice.series.modality if choice.used and choice.series.modality else "-",
            choice.series.name,
            choice.series.description,
            choice.series.modality or "other",
            geometry_text(choice.series),
            choice.reason,
        )
        for choice in study.choices
    ]
    heading = ("used", "series", "description", "is", "voxels", "reason")
    widths = [max(len(row[column]) for row in (heading, *rows)) for column in range(len(heading) - 1)]
    if rows:
        console.print(line(("  " + _padded(heading, widths), "bold")))
    for row in rows:
        console.print(line(("  " + _padded(row, widths), "dim" if row[0] == "-" else "green")))
    for remark in study.notes:
        warn(f"{study.id}: {remark}")
    if study.problem:
        console.print(line("  ", (study.problem, "red")))


def _padded(row: tuple[str, ...], widths: list[int]) -> str:
    *cells, last = row
    return "  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), last])
