"""gliomask compare-scores: several sets of predictions of the same cases against each other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomask.cli.console import line, listed, out, warn
from gliomask.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gliomask.evaluation import Contest, Duel

EXAMPLES = """
**Examples**

`gliomask compare-scores unet.csv fast.csv -o comparison.csv --picture comparison.png`

`gliomask compare-scores team-*.csv --metric lesion_dice --metric detection_f1 -o ranks.json`
"""

_RANK = "rank"  # as in evaluation.contest, which takes numpy to load
_SHOWN_WHOLE = 3  # entrants of which every difference fits a screen


def compare_scores(
    files: Annotated[list[Path], typer.Argument(help="Scores, as gliomask evaluate -o writes them; two or more.")],
    output: Annotated[
        list[Path] | None,
        typer.Option("-o", "--output", help="Write the comparison as .csv or, with the ranks, .json; may be repeated."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="A column to compare; again for more. [the protocol's own Dice and HD95]"),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="Whose rules, where the files hold the scores of several.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Draw each case as a line from file to file into this PNG.")
    ] = None,
) -> None:
    """Compare the scores of several models or teams case by case, and rank them as the BraTS challenge does.

    Only cases that all files have count. Differences have 95 % intervals, an effect size, and the p-values of a
    permutation test and Wilcoxon's; docs/scores.md tells how to read them.
    """
    from gliomask.evaluation import compare_scores as compare

    endings = [path for path in output or () if path.suffix.lower() not in (".csv", ".json")]
    if endings:  # before the work, not after
        raise InputError(f"{endings[0]}: comparisons are written as .csv or .json; choose one of these endings.")
    if picture is not None:
        from gliomask.figures import require_matplotlib

        require_matplotlib()
    found = compare(files, protocol=protocol, metrics=metric or ())
    for note in found.field.left_out:
        where, cases = note.where, note.what.partition(": ")[2].split(", ")
        warn(f"{where}: {len(cases)} of its cases are not in all files, and left out: {listed(cases)}")
    _show_standings(found)
    _show_duels(found)
    for path in output or ():
        found.save(path)
        out.print(f"comparison: {path}")
    if picture is not None:
        _draw(found, picture)
        out.print(f"picture: {picture}")


def _show_standings(found: Contest) -> None:
    from rich.table import Table

    count = len(found.field.cases)
    out.print(f"{found.field.protocol.name}, {count} case{'s' if count != 1 else ''} that all files have")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("mean", overflow="fold")
    for heading in (*found.field.regions, "rank"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in found.standings():
        table.add_row(line((str(row["entrant"]), "bold")), *[""] * len(found.field.regions), _short(row["mean_rank"]))
        for metric in found.metrics:
            table.add_row(f"  {metric}", *(_short(row[f"{region}_{metric}"]) for region in found.field.regions), "")
    out.print(table)
    out.print("rank: mean over cases, regions and metrics, 1 the best")


def _show_duels(found: Contest) -> None:
    names = [entrant.name for entrant in found.field.entrants]
    pairs = list(dict.fromkeys((duel.first, duel.second) for duel in found.duels))
    if len(names) > _SHOWN_WHOLE:
        out.print()
        out.print(line(("differences in rank", "bold"), " (those in each score: -o)"))
        duels = [duel for duel in found.duels if duel.metric == _RANK]
        _print_duels(duels, [f"{duel.first} less {duel.second}" for duel in duels])
        pairs = []
    for first, second in pairs:
        for metric in (*found.metrics, _RANK):
            duels = [d for d in found.duels if (d.first, d.second, d.metric) == (first, second, metric)]
            out.print()
            out.print(f"{metric}, {first} less {second}", style="bold")
            _print_duels(duels, [duel.region for duel in duels])
    out.print()
    out.print("p: permutation test, two-sided; Holm: adjusted for the number of tests; effect: rank-biserial, -1 to 1.")


def _print_duels(duels: Sequence[Duel], headings: Sequence[str]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold", min_width=6)
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True, min_width=19)
    for heading in ("effect", "p", "p Holm", "Wilcoxon"):
        table.add_column(heading, justify="right", no_wrap=True)
    for duel, heading in zip(duels, headings, strict=True):
        table.add_row(heading, *_cells(duel))
    out.print(table)


def _cells(duel: Duel) -> list[str]:
    test = duel.test
    interval = "none" if math.isnan(test.low) else f"{test.low:+.3f} – {test.high:+.3f}"
    difference = "none" if math.isnan(test.difference) else f"{test.difference:+.3f}"
    return [difference, interval, *map(_number, (test.effect, test.p_permutation, duel.p_holm, test.p_wilcoxon))]


def _draw(found: Contest, path: Path) -> None:
    from gliomask.evaluation.contest import more_is_better
    from gliomask.figures import contest_figure, save_figure

    scores = {
        metric: {
            region: {entrant.name: found.values(entrant, region, metric) for entrant in found.field.entrants}
            for region in found.field.regions
        }
        for metric in found.metrics
    }
    title = f"{found.field.protocol.name}, {len(found.field.cases)} cases"
    save_figure(contest_figure(scores, title, {metric: bool(more_is_better(metric)) for metric in scores}), path)


def _short(value: str | float) -> str:
    """Four digits, so that six regions fit a line."""
    number = float(value)
    return "none" if math.isnan(number) else f"{number:.{3 if number < 10 else 2 if number < 100 else 1}f}"


def _number(value: str | float) -> str:
    number = float(value)
    return "none" if math.isnan(number) else f"{number:.3f}"
