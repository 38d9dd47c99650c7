"""Printing for every command: results, progress, warnings, failures. All text is plain; markup is never read in it."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

import typer
from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from gliomask.errors import InputError, visible

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rich.console import ConsoleOptions, RenderableType
    from rich.progress import Progress, Task, TextColumn

    from gliomask.cases import Case, Problem, Survey

FAILED = 1
"""Exit status where some cases failed, or the output could not be written."""
BAD_INPUT = 2
"""Exit status of input or options that cannot be used."""
FAULT = 3
"""Exit status of an error that gliomask did not expect, which is a fault of its own."""
INTERRUPTED = 130
"""Exit status after Ctrl-C, as a shell reports it."""


class PlainConsole(Console):
    """A console that prints text as it is: no markup, no emoji codes, and a string is one line (see `visible`)."""

    def __init__(self, *, stderr: bool) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **{**options, "markup": False, "emoji": False, "highlight": False})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Also make visible what reaches the console as `Text`, in which line breaks are the program's own."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment("\n".join(map(visible, segment.text.split("\n"))), segment.style)


out = PlainConsole(stderr=False)
"""For results."""
err = PlainConsole(stderr=True)
"""For everything else, so that results can be piped on."""


def line(*parts: str | tuple[str, str]) -> Text:
    """Return one line of plain parts, each a string or a (string, style) pair."""
    text = Text()
    for part in parts:
        words, style = (part, "") if isinstance(part, str) else part
        text.append(visible(words), style)
    return text


class Stream:
    """Stand in for standard output or error, and keep the first failure of a write instead of raising it.

    What is written after a failure is dropped, so that a full disk or a closed pipe behind the output does not end the
    work. Characters that the stream's encoding lacks are written as escapes.
    """

    def __init__(self, target: TextIO | None) -> None:
        self._target = target
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        self._attempt(lambda target: target.write(_encodable(text, target)))
        return len(text)

    def flush(self) -> None:
        self._attempt(lambda target: target.flush())

    def isatty(self) -> bool:
        return self._target is not None and self._target.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def _attempt(self, action: Callable[[TextIO], object]) -> None:
        if self.failure is not None:
            return
        try:
            if self._target is None:  # it was closed before gliomask began
                raise ValueError
            action(self._target)
        except OSError as error:
            self.failure = error
        except ValueError:  # it is closed
            self.failure = OSError(errno.EBADF, os.strerror(errno.EBADF))
        if self.failure is not None:
            self._discard()

    def _discard(self) -> None:
        """Redirect the stream to the null device, so that the rest of its buffer does not fail when Python ends."""
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._target.fileno())  # type: ignore[union-attr]
            os.close(nowhere)


def _encodable(text: str, target: TextIO) -> str:
    encoding = getattr(target, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


_MOST_NOTES = 20  # of a list with thousands of rows, each may have a remark

_verbosity = 0


def set_verbosity(verbosity: int) -> None:
    """Choose how much is said on stderr: 0 warnings, 1 facts, 2 everything, -1 errors only."""
    global _verbosity
    _verbosity = verbosity
    level = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    logging.basicConfig(handlers=[_LogHandler()], format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger().setLevel(level)
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # its findings are in gliomask's own messages
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its warnings quote headers, which name patients
    logging.captureWarnings(True)  # Python's, which libraries issue to developers: shown as facts, with -v
    logging.getLogger("py.warnings").setLevel(logging.ERROR if verbosity < 1 else logging.NOTSET)


def verbose() -> bool:
    """Tell whether facts were asked for (`-v`)."""
    return _verbosity > 0


class _LogHandler(logging.Handler):
    """Print what is logged; a warning of gliomask itself looks as `warn` prints it, whatever room it comes from."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING and record.name.startswith("gliomask."):
            warn(record.getMessage())
            return
        for text in self.format(record).split("\n"):
            err.print(text)


@contextmanager
def progress(description: str, total: int) -> Iterator[Progress]:
    """Give a progress bar with the time left, on stderr, where that is a terminal; elsewhere one that shows nothing."""
    from rich.progress import BarColumn, Progress, TimeRemainingColumn

    columns = (
        text_column("{task.description}"),
        BarColumn(),
        text_column("{task.percentage:>3.0f}% of {task.total:.0f}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=err, transient=True, disable=not shows_progress()) as bar:
        bar.add_task(description, total=total)
        yield bar


def shows_progress() -> bool:
    """Tell whether a progress bar is shown: only on a terminal, and not with `-q`."""
    return err.is_terminal and _verbosity >= 0


def text_column(template: str) -> TextColumn:
    """Return a column of a progress bar whose text is plain, as rich's own column reads markup in it."""
    from rich.progress import TextColumn

    class PlainColumn(TextColumn):
        def render(self, task: Task) -> Text:
            return Text(visible(self.text_format.format(task=task)))

    return PlainColumn(template)


def advance(bar: Progress, description: str | None = None) -> None:
    """Advance a bar of one task by one."""
    task = bar.tasks[0]
    bar.update(task.id, advance=1, description=description or task.description)


def with_masks(cases: Sequence[Case], folder: Path) -> list[Case]:
    """Return the cases that have a mask and so can be trained on, and warn of those that have none.

    Raises:
        InputError: No case has a mask.
    """
    masked = [case for case in cases if case.mask is not None]
    if not masked:
        raise InputError(f"{folder}: no mask in any of {counted(len(cases), 'case')} (a file such as ID_seg.nii.gz).")
    without = [case.id for case in cases if case.mask is None]
    if without:
        warn(f"{len(without)} of {counted(len(cases), 'case')} left out, as they have no mask: {listed(without, 3)}")
    return masked


def show_notes(found: Survey) -> None:
    """Print what a survey decided, of many remarks the first, and what it passed over (see `show_passed_over`).

    With `-v`, all of both are printed.
    """
    lists_all = f"gliomask check {found.folder} -v"
    shown = found.notes if verbose() else found.notes[:_MOST_NOTES]
    for each in shown:
        note(str(each))
    if left := len(found.notes) - len(shown):
        note(f"and {counted(left, 'more remark')}; {lists_all} lists them")
    show_passed_over(found.passed_over, lists_all)


def show_passed_over(passed_over: Sequence[Problem], command: str) -> None:
    """Print how many files or folders were passed over and which command lists them, or with `-v` the list itself."""
    if verbose():
        for each in passed_over:
            note(f"passed over: {each}")
    elif passed_over:
        what = "file or folder" if len(passed_over) == 1 else "files or folders"
        note(f"{len(passed_over)} {what} passed over; {command} lists them with the reasons")


def tell(text: str, style: str | None = None) -> None:
    """Print how far the work is to stderr; not with `-q`."""
    if _verbosity >= 0:
        err.print(text, style=style)


def note(text: str) -> None:
    """Print a remark to stderr; not with `-q`."""
    tell(text, style="dim")


def warn(text: str) -> None:
    """Print a warning to stderr; not with `-q`."""
    if _verbosity >= 0:
        err.print(line(("warning: ", "yellow"), text))


def fail(text: str) -> None:
    """Print an error to stderr."""
    err.print(line(("error: ", "red"), text))


def end_batch(problems: Sequence[Problem], done: int) -> None:
    """List the failed cases of a batch, if any, and exit with status 1 then."""
    if not problems:
        return
    failed = len({problem.where for problem in problems})  # of one case, several things may be wrong
    err.print(line((f"{failed} failed", "red"), f", {done} done:"))
    for problem in problems:
        err.print(f"  {problem}")
    raise typer.Exit(FAILED)


def clear_stale(*outputs: Path | None) -> None:
    """Remove the partial files that killed processes left in the folders of these output files."""
    from gliomask.files import clear_partials

    for folder in {output.parent for output in outputs if output is not None}:
        clear_partials(folder)


def listed(names: Sequence[str], shown: int = 5) -> str:
    """Return names separated by commas, and the number of those after the first few."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: `1 case`, `2 cases`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
