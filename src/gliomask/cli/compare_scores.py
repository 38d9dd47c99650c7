"""gliomask compare-scores: compare the scores of several sets of predictions of the same cases."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomask.cli.console import clear_stale, line, listed, out, warn
from gliomask.cli.options import Dpi, Theme, figure_style
from gliomask.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gliomask.evaluation import PairedDifference, ScoreComparison

EXAMPLES = """
**Examples**

`gliomask compare-scores unet.csv fast.csv -o comparison.csv --picture comparison.png`

`gliomask compare-scores team-*.csv --metric lesion_dice --metric detection_f1 -o ranks.json`
"""

_MOST_IN_DETAIL = 3  # tables of which every difference is printed


def compare_scores(
    files: Annotated[list[Path], typer.Argument(help="Two or more score tables, written by gliomask evaluate -o.")],
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o", "--output", help="Write the comparison as .csv, or with the ranks as .json; may be repeated."
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="A column to compare; may be repeated. [the protocol's Dice and HD95]"),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="The protocol, if the files hold the scores of several.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture", help="Draw each case as a line from table to table into this file (.png, .svg, .pdf)."
        ),
    ] = None,
    dpi: Dpi = 110,
    theme: Theme = "light",
) -> None:
    """Compare the scores of several models or teams case by case, and rank them as the BraTS challenge does.

    Only cases that are in all files are compared. Each difference has a 95 % interval, an effect size, and the p-values
    of a permutation test and of Wilcoxon's test; `gliomask docs scores` explains how to read them.
    """
    from gliomask.evaluation import compare_scores as compare
    from gliomask.evaluation.records import refuse_records
    from gliomask.files import refuse_inputs

    endings = [path for path in output or () if path.suffix.lower() not in (".csv", ".json")]
    if endings:  # reported before the work rather than after it
        raise InputError(f"{endings[0]}: comparisons are written as .csv or .json; choose one of these endings.")
    refuse_inputs([*(output or ()), *filter(None, [picture])], files)
    if picture is not None:
        from gliomask.figures import require_matplotlib

        require_matplotlib()
    style = figure_style("png", dpi, theme, picture)
    refuse_records(output or ())
    clear_stale(*(output or ()), picture)
    found = compare(files, protocol=protocol, metrics=metric or ())
    for note in found.tables.left_out:
        where, cases = note.where, note.what.partition(": ")[2].split(", ")
        verb = "is not in all files and was" if len(cases) == 1 else "are not in all files and were"
        warn(f"{where}: {len(cases)} of its cases {verb} left out: {listed(cases)}")
    for note in found.notes():
        warn(str(note))
    _show_standings(found)
    _show_differences(found)
    for path in output or ():
        found.save(path)
        out.print(f"comparison: {path}")
    if picture is not None:
        from gliomask.figures import save_figure
        from gliomask.report.pictures import draw_score_comparison

        with style.colours():
            save_figure(draw_score_comparison(found), picture, style)
        out.print(f"picture: {picture}")


def _show_standings(found: ScoreComparison) -> None:
    from rich.table import Table

    count = len(found.tables.cases)
    out.print(f"{found.tables.protocol.name}, {count} case{'s' if count != 1 else ''} that all files have")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("mean", overflow="fold")
    for heading in (*found.tables.regions, "rank"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in found.standings():
        table.add_row(line((str(row["entrant"]), "bold")), *[""] * len(found.tables.regions), _short(row["mean_rank"]))
        for metric in found.metrics:
            table.add_row(f"  {metric}", *(_short(row[f"{region}_{metric}"]) for region in found.tables.regions), "")
    out.print(table)
    out.print("rank: mean over cases, regions and metrics; 1 is best")
    if found.notes():
        out.print("mean: over the cases in which a table has the score")


def _show_differences(found: ScoreComparison) -> None:
    from gliomask.evaluation.score_comparison import RANK

    names = [table.name for table in found.tables.tables]
    pairs = list(dict.fromkeys((difference.first, difference.second) for difference in found.differences))
    if len(names) > _MOST_IN_DETAIL:
        out.print()
        out.print(line(("differences in rank", "bold"), " (those in each metric: -o)"))
        differences = [difference for difference in found.differences if difference.metric == RANK]
        _print_differences(differences, [f"{difference.first} minus {difference.second}" for difference in differences])
        pairs = []
    for first, second in pairs:
        for metric in (*found.metrics, RANK):
            differences = [d for d in found.differences if (d.first, d.second, d.metric) == (first, second, metric)]
            out.print()
            out.print(f"{metric}, {first} minus {second}", style="bold")
            _print_differences(differences, [difference.region for difference in differences])
    out.print()
    out.print("p: two-sided permutation test; Holm: adjusted for the number of tests; effect: rank-biserial, -1 to 1.")


def _print_differences(differences: Sequence[PairedDifference], headings: Sequence[str]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold", min_width=6)
    table.add_column("cases", justify="right", no_wrap=True)
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True, min_width=19)
    for heading in ("effect", "p", "p Holm", "Wilcoxon"):
        table.add_column(heading, justify="right", no_wrap=True)
    for difference, heading in zip(differences, headings, strict=True):
        table.add_row(heading, *_cells(difference))
    out.print(table)


def _cells(found: PairedDifference) -> list[str]:
    test = found.test
    interval = "none" if math.isnan(test.low) else f"{test.low:+.3f} – {test.high:+.3f}"
    difference = "none" if math.isnan(test.difference) else f"{test.difference:+.3f}"
    others = map(_number, (test.effect, test.p_permutation, found.p_holm, test.p_wilcoxon))
    return [str(test.cases), difference, interval, *others]


def _short(value: str | float) -> str:
    """Format a number with four digits, so that six regions fit on a line."""
    number = float(value)
    return "none" if math.isnan(number) else f"{number:.{3 if number < 10 else 2 if number < 100 else 1}f}"


def _number(value: str | float) -> str:
    number = float(value)
    return "none" if math.isnan(number) else f"{number:.3f}"
