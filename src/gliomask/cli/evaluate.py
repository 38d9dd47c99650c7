"""gliomask evaluate: predictions against truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomask.cli.console import advance, end_batch, out, progress, warn
from gliomask.cli.options import Labels
from gliomask.errors import InputError

if TYPE_CHECKING:
    from gliomask.evaluation import Evaluation

EXAMPLES = """
**Examples**

`gliomask evaluate predictions BraTS2021_Training_Data -o scores.csv`

`gliomask evaluate mask.nii.gz truth_seg.nii.gz`
"""


def evaluate(
    prediction: Annotated[Path, typer.Argument(help="A predicted mask, or a folder of them.")],
    truth: Annotated[Path, typer.Argument(help="The true mask, or a folder of masks or cases.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write a row a case and region as CSV.")] = None,
    protocol: Annotated[
        str, typer.Option("--protocol", help="Whose rules: brats2021.", autocompletion=lambda: ["brats2021"])
    ] = "brats2021",
    labels: Labels = None,
    truth_labels: Annotated[
        str | None, typer.Option("--truth-labels", help="The convention of the truth, likewise.")
    ] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Draw all scores into this PNG.")] = None,
) -> None:
    """Score predictions as the BraTS challenge does: Dice, HD95 in mm, sensitivity, specificity; per case and region.

    Masks are matched by their ids and compared in whatever numbers each uses.
    """
    from gliomask.evaluation import evaluate as score
    from gliomask.evaluation import find_pairs

    pairs, _ = find_pairs(prediction, truth)
    with progress("scoring", len(pairs)) as bar:
        result = score(
            prediction,
            truth,
            protocol=protocol,
            labels=labels,
            truth_labels=truth_labels,
            on_case=lambda _: advance(bar),
        )
    if len(pairs) == 1 and result.problems:
        raise InputError(str(result.problems[0]))
    for note in result.notes[:5]:
        warn(str(note))
    if len(result.notes) > 5:
        warn(f"and {len(result.notes) - 5} more cases with a truth or a prediction alone")
    if result.scores:
        _print(result)
    if output is not None:
        result.save(output)
        out.print(f"scores of {len(result.scores)} cases: {output}")
    if picture is not None:
        from gliomask.figures import save_figure, scores_figure

        save_figure(scores_figure(result.rows()), picture)
        out.print(f"picture: {picture}")
    end_batch(result.problems, len(result.scores))


def _print(result: Evaluation) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("region", "", *result.protocol.metrics):
        table.add_column(heading, justify="right" if heading in result.protocol.metrics else "left", no_wrap=True)
    for row in result.summary():
        means = [f"{row[f'{metric}_mean']:.3f} ± {row[f'{metric}_std']:.3f}" for metric in result.protocol.metrics]
        table.add_row(str(row["region"]), "mean", *means)
        table.add_row("", "median", *(f"{row[f'{metric}_median']:.3f}{' ' * 8}" for metric in result.protocol.metrics))
    count = len(result.scores)
    out.print(f"{result.protocol.name}, {count} case{'s' if count != 1 else ''}: mean ± standard deviation, and median")
    out.print(table)
