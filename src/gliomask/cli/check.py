"""gliomask check: what a folder holds, and everything wrong with it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gliomask.cli.console import FAILED, advance, err, out, progress
from gliomask.cli.options import Labels

if TYPE_CHECKING:
    from gliomask.cases import CaseReport, Survey

EXAMPLES = """
**Examples**

`gliomask check BraTS2021_Training_Data`

`gliomask check patients --json > patients.json`
"""


def check(
    folder: Annotated[Path, typer.Argument(help="A folder of cases in any layout, as it was downloaded.")],
    labels: Labels = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say what a folder holds: layout, cases, sequences, grids, label convention, and everything wrong with it.

    Every file is read, nothing is changed. Exit status 0: all cases can be used; 1: some cannot; 2: there are none.
    """
    from concurrent.futures import ThreadPoolExecutor
    from os import cpu_count

    from gliomask.cases import check_case, resolve_conventions, survey
    from gliomask.errors import InputError
    from gliomask.inspection import inspect_channels

    found = survey(folder)
    try:
        cases, ambiguous = resolve_conventions(found.cases, labels), None
    except InputError as error:
        cases, ambiguous = list(found.cases), str(error)
    with progress("checking", len(cases)) as bar, ThreadPoolExecutor(cpu_count()) as pool:
        reports = []
        for report in pool.map(partial(check_case, inspect=inspect_channels), cases):
            reports.append(report)
            advance(bar)
    faulty = [report for report in reports if report.problems]
    if as_json:
        out.print_json(json.dumps(_as_json(found, reports, ambiguous)))
    else:
        _print(found, reports, ambiguous)
    if faulty or found.problems or ambiguous:
        raise typer.Exit(FAILED)


def _print(found: Survey, reports: Sequence[CaseReport], ambiguous: str | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, justify in (("case", "left"), ("sequences", "left"), ("grid", "left"), ("mL WT", "right")):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("")
    for report in reports:
        sequences = " ".join(report.case.images)
        table.add_row(report.case.id, sequences, _grid(report), _whole_tumour(report), _verdict(report))
    out.print(table)
    out.print()
    for report in reports:  # a line each: in a column beside the others a sentence is a word a line
        for text in report.problems:
            out.print(f"{escape(report.case.id)}: [red]{escape(text)}[/red]")
        for text in report.notes:
            out.print(f"{escape(report.case.id)}: {escape(text)}")
    if any(report.problems or report.notes for report in reports):
        out.print()
    out.print(f"layout {found.layout}, {len(reports)} cases, {_sequences(reports)}")
    out.print(f"grids: {_counted(_grid(report) for report in reports if report.grid)}")
    out.print(f"labels: {_conventions(reports)}")
    for text in (*map(str, found.problems), *([ambiguous] if ambiguous else [])):
        out.print(f"[red]{escape(text)}[/red]")
    for note in (*found.notes, *found.passed_over):
        err.print(f"[dim]{escape(str(note))}[/dim]")
    bad = sum(1 for report in reports if report.problems) + len(found.problems)
    odd = sum(1 for report in reports if report.notes and not report.problems)
    out.print(f"[bold]{len(reports) - bad} can be used, {odd} of them with something to know; {bad} cannot.[/bold]")


def _verdict(report: CaseReport) -> str:
    if report.problems:
        return "[red]bad[/red]"
    return "see below" if report.notes else "[green]fine[/green]"


def _grid(report: CaseReport) -> str:
    if report.grid is None:
        return "?"
    size = "x".join(map(str, report.grid.shape))
    spacing = "x".join(f"{mm:.3g}" for mm in dict.fromkeys(round(mm, 3) for mm in report.grid.spacing_mm))
    return f"{size} {spacing}mm {report.grid.axes}"


def _whole_tumour(report: CaseReport) -> str:
    if report.grid is None or not report.voxels:
        return ""
    x, y, z = report.grid.spacing_mm
    voxels = sum(count for tissue, count in report.voxels.items() if tissue != "RC")
    return f"{voxels * x * y * z / 1000:.1f}"


def _sequences(reports: Sequence[CaseReport]) -> str:
    kinds = Counter(" ".join(report.case.images) for report in reports)
    return "sequences " + "; ".join(f"{kind} ({count})" if len(kinds) > 1 else kind for kind, count in kinds.items())


def _counted(values: Any) -> str:
    return ", ".join(f"{value} ({count})" for value, count in Counter(values).most_common()) or "none could be read"


def _conventions(reports: Sequence[CaseReport]) -> str:
    from gliomask.labels import CONVENTIONS

    masks = [report for report in reports if report.case.mask is not None]
    named = Counter(report.case.convention for report in masks if report.case.convention)
    without = len(reports) - len(masks)
    texts = [f"{CONVENTIONS[name]} in {count} masks" for name, count in named.items()]
    texts += [f"no mask in {without} of {len(reports)} cases (train leaves these out)"] if without else []
    return "; ".join(texts) or "convention not known"


def _as_json(found: Survey, reports: Sequence[CaseReport], ambiguous: str | None) -> dict[str, Any]:
    return {
        "folder": str(found.folder),
        "layout": found.layout,
        "problems": [*map(str, found.problems), *([ambiguous] if ambiguous else [])],
        "notes": list(map(str, found.notes)),
        "passed_over": list(map(str, found.passed_over)),
        "cases": [
            {
                "id": report.case.id,
                "patient": report.case.patient,
                "sequences": {m: str(source.path) for m, source in report.case.images.items()},
                "mask": str(report.case.mask) if report.case.mask else None,
                "convention": report.case.convention,
                "shape": report.grid.shape if report.grid else None,
                "spacing_mm": report.grid.spacing_mm if report.grid else None,
                "orientation": report.grid.axes if report.grid else None,
                "voxels": report.voxels,
                "problems": report.problems,
                "notes": report.notes,
            }
            for report in reports
        ],
    }
