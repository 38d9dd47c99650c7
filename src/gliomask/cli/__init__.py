"""The command line: one module and one function for each command.

A command's function imports what it needs when it runs, so that `--help` takes a fraction of a second.
"""

from __future__ import annotations

import errno
import inspect
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import wraps
from types import FrameType
from typing import Annotated, Any

import typer

from gliomask.cli import (
    check,
    compare,
    compare_scores,
    console,
    convert,
    demo,
    docs,
    evaluate,
    export,
    import_,
    info,
    join,
    phantom,
    predict,
    prepare,
    preprocess,
    rank,
    report,
    serve,
    table,
    train,
    tune,
    view,
)
from gliomask.errors import InputError, describe
from gliomask.execution import ClusterLostError
from gliomask.version import VERSION


def main() -> None:
    """Run the command line and exit with a status (see the help's last lines); no exception leaves it."""
    stdout, stderr = console.Stream(sys.stdout), console.Stream(sys.stderr)
    console.set_verbosity(0)
    with redirect_stdout(stdout), redirect_stderr(stderr), _stopped_by_signals():
        status = _run()
        stdout.flush()
        if stdout.failure is not None:
            console.fail(f"cannot write to standard output: {stdout.failure.strerror}.")
            status = status or console.FAILED
        stderr.flush()
    sys.exit(status)


def _run() -> int:
    """Run the command that was typed, and return its exit status; every error has been printed then."""
    try:
        status = app(standalone_mode=False)
        return status if isinstance(status, int) else 0
    except (KeyboardInterrupt, typer.Abort) as stop:
        return _tell_stop(stop)
    except InputError as error:
        console.fail(str(error))
        return console.FAILED if _is_failure(error) else console.BAD_INPUT
    except (OSError, MemoryError) as error:
        console.fail(describe(error))
        _show_traceback(error)
        return console.FAILED
    except _UsageError as error:
        if type(error).__name__ != "NoArgsIsHelpError":  # it has printed the help
            console.fail(error.format_message())
            command = error.ctx.command_path if error.ctx else "gliomask"
            console.err.print(f"Help: {command} -h")
        return console.BAD_INPUT
    except Exception as error:
        console.fail(describe(error))
        _show_traceback(error)
        return console.FAULT


class _Signal(KeyboardInterrupt):
    """A signal that asks the program to end; whatever saves its state at Ctrl-C does so at these signals too."""

    def __init__(self, number: int) -> None:
        self.number = signal.Signals(number)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Raise `_Signal` at SIGTERM, SIGHUP and SIGBREAK, unless they are ignored, as SIGHUP is by nohup.

    SIGTERM and SIGBREAK are sent by queueing systems and containers, SIGHUP when a terminal or a connection is closed.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Signal(number)

    names = ("SIGTERM", "SIGHUP", "SIGBREAK") if threading.current_thread() is threading.main_thread() else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    taken = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _tell_stop(stop: BaseException) -> int:
    """Print what stopped the program, and return its exit status."""
    if isinstance(stop, _Signal):
        console.fail(f"stopped by {stop.number.name}.")
        return 128 + stop.number
    console.fail("stopped by Ctrl-C.")
    return console.INTERRUPTED


def _is_failure(error: InputError) -> bool:
    """Return whether the input is good, but a cluster was lost, or a disk is full or broken."""
    cause = error.__cause__
    return isinstance(error, ClusterLostError) or (
        isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
    )


# typer carries its own copy of click or uses an installed one, depending on its version: this is the class in either.
_UsageError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError")


def _show_traceback(error: BaseException) -> None:
    if console.verbose():
        for text in "".join(traceback.format_exception(error)).splitlines():
            console.err.print(text)


def _set_verbosity(count: int) -> None:
    if count:
        console.set_verbosity(count)


def _set_quiet(wanted: bool) -> None:
    if wanted:
        console.set_verbosity(-1)


# Both may stand before or after the name of the command. Their callbacks do all there is to do.
_Verbose = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        callback=_set_verbosity,
        expose_value=False,
        show_default=False,
        help="Print more: the files passed over, each step, tracebacks; twice: everything.",
    ),
]
_Quiet = Annotated[
    bool,
    typer.Option(
        "-q",
        "--quiet",
        callback=_set_quiet,
        expose_value=False,
        help="Print results and errors only: no warnings, no progress.",
    ),
]


def _with_common_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes `-v` and `-q` too, and ends with one line when it is stopped."""

    @wraps(command)
    def run(**arguments: Any) -> None:
        own = {name: value for name, value in arguments.items() if name in signature.parameters}
        try:
            command(**own)
        except KeyboardInterrupt as stop:
            raise typer.Exit(_tell_stop(stop)) from None

    signature = inspect.signature(command, eval_str=True)
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, default, kind in (("verbose", 0, _Verbose), ("quiet", False, _Quiet))
    ]
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *common]
    )
    return run


app = typer.Typer(
    name="gliomask",
    help="Segment brain tumours in MRI: train on BraTS data, predict, score and view. Research use only, "
    "not a medical device.",
    epilog="Start with: gliomask phantom cases, then gliomask predict -i cases -o masks. Help on one command: gliomask "
    "train -h.\n\n"
    "Exit status: 0, everything was done; 1, some cases failed (they are listed), or the output could not be written; "
    "2, the input or the options cannot be used; 3, a fault of gliomask, please report it; 130, stopped by Ctrl-C; "
    "143, by SIGTERM.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)
for module in (
    check,
    phantom,
    preprocess,
    convert,
    prepare,
    train,
    tune,
    predict,
    evaluate,
    compare_scores,
    compare,
    rank,
    report,
    table,
    view,
    serve,
    export,
    import_,
    join,
    info,
    demo,
    docs,
):
    name = module.__name__.rpartition(".")[2]
    app.command(name.strip("_").replace("_", "-"), epilog=module.EXAMPLES)(_with_common_options(getattr(module, name)))


def _show_version(wanted: bool) -> None:
    if wanted:
        console.out.print(f"gliomask {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: _Verbose = 0,
    quiet: _Quiet = False,
) -> None:
    """Take the options that stand before the name of a command."""
