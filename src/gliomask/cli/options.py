"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomask.labels import CONVENTIONS

Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        help=f"The masks' label convention, where names and numbers do not settle it: {', '.join(CONVENTIONS)}.",
        autocompletion=lambda: list(CONVENTIONS),
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
