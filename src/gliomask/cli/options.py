"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        help="The masks' label convention, where names and numbers do not settle it: brats2021, brats2023, msd, ...",
        autocompletion=lambda: _conventions(),
    ),
]
Modalities = Annotated[
    str,
    typer.Option("--modalities", help="The sequences, in channel order: any of t1, t1ce, t2, flair, with commas."),
]
Device = Annotated[
    str,
    typer.Option(
        "-d", "--device", help="auto, cpu, cuda, cuda:0, mps.", autocompletion=lambda: ["auto", "cpu", "cuda"]
    ),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Processor threads; by default one a core.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="Where to; a folder is made if need be.")]


def _conventions() -> list[str]:
    from gliomask.labels import CONVENTIONS  # here, as it takes numpy, and help shall be quick

    return list(CONVENTIONS)
