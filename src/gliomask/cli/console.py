"""What every command shows alike: progress, warnings, failures."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from gliomask.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress

    from gliomask.cases import Case, Problem

out = Console(highlight=False, soft_wrap=True)
"""For results."""
err = Console(stderr=True, highlight=False, soft_wrap=True)
"""For everything else, so that results can be piped on."""

FAILED = 1
BAD_INPUT = 2


def configure_logging(verbosity: int) -> None:
    """Send the library's log to stderr: warnings, or with 1 facts, or with 2 everything; -1 only errors."""
    level = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # what it would say, our own errors say


@contextmanager
def progress(description: str, total: int) -> Iterator[Progress]:
    """Give a progress bar with a time left, on stderr, where that is a terminal; elsewhere one that shows nothing."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    count = TextColumn("{task.percentage:>3.0f}% of {task.total:.0f}")
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn(compact=True))
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        bar.add_task(description, total=total)
        yield bar


def advance(bar: Progress, description: str | None = None) -> None:
    """Move a bar of one task on by one."""
    task = bar.tasks[0]
    bar.update(task.id, advance=1, description=description or task.description)


def with_masks(cases: Sequence[Case], folder: Path) -> list[Case]:
    """Return the cases that can be trained on, and warn of those without a mask, as test sets come.

    Raises:
        InputError: No case has a mask.
    """
    masked = [case for case in cases if case.mask is not None]
    if not masked:
        raise InputError(f"{folder}: none of its {len(cases)} cases has a mask (a file such as ID_seg.nii.gz).")
    without = [case.id for case in cases if case.mask is None]
    if without:
        shown = ", ".join(without[:3]) + (", ..." if len(without) > 3 else "")
        warn(f"left out for want of a mask: {len(without)} of {len(cases)} cases ({shown})")
    return masked


def warn(text: str) -> None:
    """Print a warning to stderr."""
    err.print(f"[yellow]warning:[/yellow] {_plain(text)}")


def fail(text: str) -> None:
    """Print an error to stderr."""
    err.print(f"[red]error:[/red] {_plain(text)}")


def end_batch(problems: Sequence[Problem], done: int) -> None:
    """List the failed cases of a batch, if any, and exit with status 1 then."""
    if not problems:
        return
    err.print(f"[red]{len(problems)} failed[/red], {done} done:")
    for problem in problems:
        err.print(f"  {_plain(str(problem))}")
    raise typer.Exit(FAILED)


def listed(names: Sequence[str], shown: int = 5) -> str:
    """Return names with commas, those after the first few as a number."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
