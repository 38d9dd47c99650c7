"""gliomask docs: open the documentation that is part of the package."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from gliomask.cli.console import out, warn
from gliomask.cli.view import open_browser
from gliomask.errors import InputError

EXAMPLES = """
**Examples**

`gliomask docs`

Open the page on error messages:

`gliomask docs troubleshooting`

Only print where the page is:

`gliomask docs training --print`
"""


def docs(
    page: Annotated[
        str, typer.Argument(help="index, tutorial, data, predicting, clinical, training, troubleshooting, ...")
    ] = "index",
    print_only: Annotated[
        bool, typer.Option("--print", help="Write the pages and print the path of this one; open no browser.")
    ] = False,
) -> None:
    """Open the documentation in the browser: tutorial, instructions, error messages, terms. No network is needed.

    The pages are written as HTML to the folder for your caches, or to a temporary folder if that cannot be written.
    """
    from gliomask.manual import page_source

    name = page.replace("-", "_")
    page_source(name)
    path = _write()[name]
    out.print(str(path))
    if not print_only and not open_browser(path.as_uri()):
        warn("no browser could be opened. Open the file above in a browser.")


def _write() -> dict[str, Path]:
    from gliomask.manual import default_folder, write_manual

    try:
        return write_manual(default_folder())
    except (InputError, OSError, RuntimeError):  # RuntimeError: this user has no home folder
        return write_manual(Path(tempfile.mkdtemp(prefix="gliomask-docs-")))
