"""gliomask evaluate: predictions against truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomask.cli.console import advance, end_batch, out, progress, warn
from gliomask.cli.options import Labels

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

    table = Table(title=f"{result.protocol.name}, {len(result.scores)} cases: mean ± standard deviation (median)")
    table.add_column("region")
    for metric in result.protocol.metrics:
        table.add_column(metric, justify="right")
    for row in result.summary():
        cells = [
            f"{row[f'{metric}_mean']:.4f} ± {row[f'{metric}_std']:.4f} ({row[f'{metric}_median']:.4f})"
            for metric in result.protocol.metrics
        ]
        table.add_row(str(row["region"]), *cells)
    out.print(table)
