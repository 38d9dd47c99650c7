"""gliomask phantom: write synthetic examinations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomask.cli.console import advance, counted, out, progress
from gliomask.errors import InputError

EXAMPLES = """
**Examples**

`gliomask phantom phantoms --cases 8`

Whole heads as DICOM series, as a scanner stores them:

`gliomask phantom heads --cases 2 --raw --dicom`

`gliomask phantom small --cases 20 --size 96 --layout brats2023 --missing t1ce --seed 7`
"""


def phantom(
    folder: Annotated[Path, typer.Argument(help="Output folder; must be new or empty.")],
    cases: Annotated[int, typer.Option("--cases", min=1, help="Number of examinations.")] = 8,
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            help="Naming of the files: brats2017 to brats2024, brats-ped, upenn-gbm, bids, msd, nnunet, ...",
            autocompletion=lambda: _layouts(),
        ),
    ] = "brats2021",
    missing: Annotated[str, typer.Option("--missing", help="Sequences to leave out, such as t1ce,t2.")] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same files.")] = 0,
    size: Annotated[int, typer.Option("--size", min=32, help="Voxels along the longest axis; BraTS has 240.")] = 240,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="Whole heads as scanners make them, each sequence on its own grid; the truth is in a hidden folder.",
        ),
    ] = False,
    dicom: Annotated[bool, typer.Option("--dicom", help="With --raw: write DICOM series instead of NIfTI.")] = False,
) -> None:
    """Write synthetic glioma examinations with masks, for trying gliomask without data.

    They look like brains with tumours and are computed from random numbers, without any patient's data.
    """
    from gliomask.phantom import write_phantoms

    if dicom and not raw:
        raise InputError("--dicom goes with --raw: prepared cases are NIfTI files.")
    if raw:
        from gliomask.phantom.raw import write_raw_phantoms

        with progress("drawing heads", cases) as bar:
            written_to = write_raw_phantoms(
                folder, cases, seed=seed, size=size, dicom=dicom, on_case=lambda _: advance(bar)
            )
        out.print(f"{len(written_to)} raw examinations in {folder}. Next: gliomask predict --raw -i {folder} -o masks")
        return
    left_out = [name for name in missing.split(",") if name]
    with progress("drawing phantoms", cases) as bar:
        written = write_phantoms(
            folder, cases, layout=layout, missing=left_out, seed=seed, size=size, on_case=lambda _: advance(bar)
        )
    out.print(f"{counted(len(written), 'case')} in {folder}, layout {layout}. Next: gliomask check {folder}")


def _layouts() -> list[str]:
    from gliomask.cases import LAYOUTS

    return list(LAYOUTS)
