"""The command line: one command, one function. Each imports what it needs when it runs, so that --help is quick."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gliomask.cli import (
    check,
    compare,
    compare_scores,
    demo,
    evaluate,
    export,
    info,
    join,
    phantom,
    predict,
    prepare,
    report,
    serve,
    train,
    view,
)
from gliomask.cli.console import BAD_INPUT, configure_logging, fail
from gliomask.errors import InputError
from gliomask.version import VERSION

app = typer.Typer(
    name="gliomask",
    help="Find brain tumours in MRI: train on BraTS, predict, score, look. Research use only, not a medical device.",
    epilog="Start with: gliomask demo. Help on one command: gliomask train -h.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)
for module in (
    check,
    phantom,
    prepare,
    train,
    predict,
    evaluate,
    compare_scores,
    compare,
    report,
    view,
    serve,
    export,
    join,
    info,
    demo,
):
    name = module.__name__.rpartition(".")[2]
    app.command(name.replace("_", "-"), epilog=module.EXAMPLES)(getattr(module, name))


def main() -> None:
    """Run the command line; bad input is said in a line or two and exits with status 2."""
    try:
        app()
    except InputError as error:
        fail(str(error))
        sys.exit(BAD_INPUT)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gliomask {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="Say more; twice: everything.")] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say only what failed.")] = False,
) -> None:
    configure_logging(-1 if quiet else verbose)
