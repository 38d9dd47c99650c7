"""gliomask rank: which predictions to look at and correct first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomask.cli.console import counted, end_batch, out, warn

if TYPE_CHECKING:
    from gliomask.evaluation import RankedCase

EXAMPLES = """
**Examples**

`gliomask rank predictions`

Write the whole order, and print the first five cases:

`gliomask rank predictions -o rank.csv --top 5`
"""


def rank(
    predictions: Annotated[Path, typer.Argument(help="The folder that predict wrote to.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write all cases, in order, as .csv.")] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="The number of cases that are printed.")] = 20,
) -> None:
    """Order predicted cases without a true mask: those whose masks are probably worst first.

    The order is that of the Dice that predict estimated from the model's own probabilities. It finds masks of which the
    model is uncertain, but not tumours that it misses with certainty.
    """
    from rich.table import Table

    from gliomask.evaluation import rank_predictions

    found = rank_predictions(predictions)
    for maker in found.made_by:
        out.print(f"masks by {maker}")
    regions = list(dict.fromkeys(region for each in found.cases for region in each.dice))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", justify="right")
    table.add_column("case", overflow="fold")
    for region in regions:
        table.add_column(f"Dice {region}", justify="right", no_wrap=True)
    table.add_column("WT mL", justify="right", no_wrap=True)
    table.add_column("warnings", justify="right")
    for number, each in enumerate(found.cases[:top], start=1):
        volume = f"{each.volumes_ml['WT']:.1f}" if "WT" in each.volumes_ml else ""
        cells = [_estimate(each, region) for region in regions]
        table.add_row(str(number), each.case, *cells, volume, str(len(each.warnings)) if each.warnings else "")
    if found.cases:
        out.print(table)
        out.print(
            "Dice as estimated from the model's probabilities; in brackets the lower end of an interval that holds "
            "for 4 cases of 5"
        )
    for problem in found.without[:5]:
        warn(str(problem))
    if len(found.without) > 5:
        warn(f"and {len(found.without) - 5} more cases without an estimate")
    if output is not None:
        found.save(output)
        out.print(f"order of {counted(len(found.cases), 'case')}: {output}")
    end_batch(found.problems, len(found.cases) + len(found.without))


def _estimate(case: RankedCase, region: str) -> str:
    return f"{case.dice[region]:.2f} [{case.low[region]:.2f}]" if region in case.dice else ""
