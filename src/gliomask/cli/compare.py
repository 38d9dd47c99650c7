"""gliomask compare: runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomask.cli.console import out, progress, warn
from gliomask.cli.options import Device, Output, Threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gliomask.comparison import Entrant

EXAMPLES = """
**Examples**

`gliomask compare run-unet run-fast -o comparison`  and then look at comparison/*.png

`gliomask compare runs/* -o comparison --case BraTS2021_00014`
"""


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, as gliomask train makes them.")],
    output: Output = Path("comparison"),
    case: Annotated[
        list[str] | None, typer.Option("--case", help="A held-out case to draw; again for more. [the median one]")
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Compare runs: curves over epochs and hours, scores with intervals, cost, and what each sees in the same case.

    Scores are of the best models on the cases that all runs held out.
    """
    from gliomask.files import check_writable
    from gliomask.model import require_torch

    torch = require_torch()
    check_writable(output)
    torch.set_num_threads(threads or torch.get_num_threads())
    from gliomask.comparison import compare as compare_runs

    with progress("predicting", 1) as bar:
        task = bar.tasks[0].id
        entrants, notes = compare_runs(
            runs,
            output,
            cases=case or (),
            device=device,
            on_case=lambda done, of: bar.update(task, total=of, completed=done),
        )
    _show(entrants)
    for note in notes:
        warn(note)
    out.print(f"pictures, table.csv and table.md: {output}")


def _show(entrants: Sequence[Entrant]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("run", "M par.", "GFLOP", "s/step", "GB", "hours", "WT", "TC", "ET", "mean [95 %]"):
        table.add_column(heading, justify="left" if heading == "run" else "right", overflow="fold")
    for entrant in entrants:
        facts = entrant.facts()
        cost = [f"{facts[key]:.3g}" for key in ("million_parameters", "gflop_forward", "seconds_a_step")]
        cost += [f"{facts['peak_memory_gb']:.1f}", f"{facts['hours']:.2f}"]
        scores = [""] * 4
        if entrant.scores:
            scores = [
                f"{facts[f'dice_{region}']:.3f}" if f"dice_{region}" in facts else "" for region in ("WT", "TC", "ET")
            ]
            scores.append(f"{facts['dice_mean']:.3f} [{facts['dice_mean_low']:.2f} {facts['dice_mean_high']:.2f}]")
        table.add_row(entrant.label, *cost, *scores)
    out.print(table)
