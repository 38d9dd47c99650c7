"""gliomask table: the table and the page of a folder of predicted cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomask.cli.console import counted, end_batch, out, progress, verbose, warn
from gliomask.errors import InputError

EXAMPLES = """
**Examples**

Write masks/volumes.csv, failed.csv and index.html, and with pyarrow volumes.parquet:

`gliomask table masks`

Only the tables, which takes a few seconds for 6,000 cases:

`gliomask table masks --no-page`
"""

_SHOWN = 5  # files without a row
_INSTEAD = "Name the folder that predict wrote to."


def table(
    output: Annotated[Path, typer.Argument(help="The folder that predict wrote to.")],
    page: Annotated[
        bool, typer.Option("--page/--no-page", help="Also write index.html, for which every mask is read.")
    ] = True,
) -> None:
    """Write the table of all cases in a folder of predictions, and a page to look through them.

    volumes.csv and volumes.parquet have a row for each mask: volumes, lesions, warnings, measures of quality, model.
    failed.csv lists the cases that could not be predicted. The rows are made of the JSON files beside the masks; masks
    without one, and JSON files without a mask, are named.
    """
    from gliomask.cases import refuse_list
    from gliomask.cohort import FAILED, PARQUET, VOLUMES, FolderTable
    from gliomask.report import write_cohort_page

    refuse_list(output, _INSTEAD)
    if not output.is_dir():
        raise InputError(f"{output}: {'is a file' if output.exists() else 'no such folder'}. {_INSTEAD}")
    found = FolderTable(output)
    written = found.write()
    if not written.rows and not written.failed:
        left = f" {VOLUMES} is left as it is." if (output / VOLUMES).exists() else ""
        raise InputError(f"{output}: holds no mask that predict wrote, with its JSON beside it.{left}")
    names = [name for name in (VOLUMES, PARQUET) if (output / name).is_file()]
    out.print(f"{counted(written.rows, 'case')}: {', '.join(str(output / name) for name in names)}")
    if written.failed:
        out.print(f"{written.failed} failed: {output / FAILED}")
    left_out = found.left_out()
    for each in left_out if verbose() else left_out[:_SHOWN]:
        warn(str(each))
    if len(left_out) > _SHOWN and not verbose():
        warn(f"and {len(left_out) - _SHOWN} more files without a row; -v lists them")
    if page and written.rows:
        with progress("reading masks", written.rows) as bar:
            index = write_cohort_page(found, lambda: bar.advance(bar.tasks[0].id))
        out.print(f"page: {index}")
    end_batch(written.problems, written.rows)
