"""gliomask phantom: write synthetic examinations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomask.cli.console import advance, counted, out, progress

EXAMPLES = """
**Examples**

`gliomask phantom phantoms --cases 8`

`gliomask phantom small --cases 20 --size 96 --layout brats2023 --missing t1ce --seed 7`
"""


def phantom(
    folder: Annotated[Path, typer.Argument(help="Output folder; must be new or empty.")],
    cases: Annotated[int, typer.Option("--cases", min=1, help="Number of examinations.")] = 8,
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            help="Naming of the files: brats2017 to brats2024, brats-ped, msd, nnunet.",
            autocompletion=lambda: _layouts(),
        ),
    ] = "brats2021",
    missing: Annotated[str, typer.Option("--missing", help="Sequences to leave out, such as t1ce,t2.")] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same files.")] = 0,
    size: Annotated[int, typer.Option("--size", min=32, help="Voxels along the longest axis; BraTS has 240.")] = 240,
) -> None:
    """Write synthetic glioma examinations with masks, for trying gliomask without data.

    They look like brains with tumours and are computed from random numbers, without any patient's data.
    """
    from gliomask.phantom import write_phantoms

    left_out = [name for name in missing.split(",") if name]
    with progress("drawing phantoms", cases) as bar:
        written = write_phantoms(
            folder, cases, layout=layout, missing=left_out, seed=seed, size=size, on_case=lambda _: advance(bar)
        )
    out.print(f"{counted(len(written), 'case')} in {folder}, layout {layout}. Next: gliomask check {folder}")


def _layouts() -> list[str]:
    from gliomask.cases import LAYOUTS

    return list(LAYOUTS)
