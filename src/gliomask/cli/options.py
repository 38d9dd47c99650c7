"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        help="Label convention of the masks, where file names and values leave it open: brats2021, brats2023, msd, ...",
        autocompletion=lambda: _conventions(),
    ),
]
Modalities = Annotated[
    str,
    typer.Option("--modalities", help="Sequences in channel order, separated by commas: any of t1, t1ce, t2, flair."),
]
Device = Annotated[
    str,
    typer.Option(
        "-d",
        "--device",
        help="Where to compute: auto, cpu, cuda, cuda:0 or mps.",
        autocompletion=lambda: ["auto", "cpu", "cuda"],
    ),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Processor threads; default: one per core.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="Output folder; created if it does not exist.")]


def _conventions() -> list[str]:
    from gliomask.labels import CONVENTIONS  # imported here because it needs NumPy, which would slow down --help

    return list(CONVENTIONS)
