"""gliomask compare: compare training runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomask.cli.console import out, progress, warn
from gliomask.cli.options import Device, Dpi, FigureFormat, Output, Theme, Threads, figure_style

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.table import Table

    from gliomask.training.run_comparison import ComparedRun

    Facts = Mapping[str, str | float]

EXAMPLES = """
**Examples**

Draw pictures into the folder comparison:

`gliomask compare run-unet run-fast -o comparison`

`gliomask compare runs/* -o comparison --case BraTS2021_00014`
"""


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders made by gliomask train.")],
    output: Output = Path("comparison"),
    case: Annotated[
        list[str] | None, typer.Option("--case", help="A held-out case to draw; may be repeated. [the median case]")
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    image_format: FigureFormat = "png",
    dpi: Dpi = 110,
    theme: Theme = "light",
) -> None:
    """Compare training runs: curves over epochs and hours, scores with intervals, cost, and masks of the same case.

    The best model of each run is scored on the cases that all runs held out.
    """
    from gliomask.files import check_writable
    from gliomask.inference.loading import require_torch

    torch = require_torch()
    style = figure_style(image_format, dpi, theme)
    check_writable(output)
    torch.set_num_threads(threads or torch.get_num_threads())
    from gliomask.training.run_comparison import compare as compare_runs

    with progress("predicting", 1) as bar:
        task = bar.tasks[0].id
        compared, notes = compare_runs(
            runs,
            output,
            cases=case or (),
            device=device,
            style=style,
            on_case=lambda done, total: bar.update(task, total=total, completed=done),
        )
    _print_tables(compared)
    for note in notes:
        warn(note)
    out.print(f"pictures, table.csv and table.md: {output}")


def _print_tables(compared: Sequence[ComparedRun]) -> None:
    """Print one table of costs and one of scores with intervals; both together would be wider than 80 columns."""
    rows = [run.facts() for run in compared]
    out.print(_table(("M par.", "GFLOP", "s/step", "GB", "hours", "best epoch"), rows, _cost))
    scored = [row for row in rows if row["cases"]]
    if not scored:
        return
    names = [*(name for name in ("WT", "TC", "ET", "RC") if f"dice_{name}" in scored[0]), "mean"]
    out.print()
    out.print(f"mean Dice [95 % interval] on the cases that all runs held out: {scored[0]['cases']}")
    fewer = [f"{name} {scored[0][f'dice_{name}_cases']}" for name in names if _is_partial(scored[0], name)]
    if fewer:
        out.print(f"cases whose masks label the region: {', '.join(fewer)}")
    out.print(_table(names, scored, lambda row: [_score(row, name) for name in names]))


def _table(headings: Sequence[str], rows: Sequence[Facts], cells: Callable[[Facts], list[str]]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(str(row["run"]), *cells(row))
    return table


def _cost(row: Facts) -> list[str]:
    keys = ("million_parameters", "gflop_forward", "seconds_a_step", "peak_memory_gb", "hours", "best_epoch")
    return [_figure(float(row[key])) for key in keys]


def _figure(value: float) -> str:
    """Return a number with three significant digits and without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _is_partial(row: Facts, name: str) -> bool:
    return row[f"dice_{name}_cases"] != row["cases"]


def _score(row: Facts, name: str) -> str:
    """Return a mean with its interval, which a single case does not have; "none" if no mask labels the region."""
    mean, low, high = (float(row[f"dice_{name}{end}"]) for end in ("", "_low", "_high"))
    if math.isnan(mean):
        return "none"
    if row[f"dice_{name}_cases"] == 1:
        return _short(mean, 3)
    return f"{_short(mean, 3)} [{_short(low, 2)} {_short(high, 2)}]"


def _short(share: float, digits: int) -> str:
    """Return a number from 0 to 1 without its leading zero, such as `.831`, to save space."""
    text = f"{share:.{digits}f}"
    return "1" if text.startswith("1") else text[1:]
