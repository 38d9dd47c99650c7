"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gliomask.execution import Where
    from gliomask.figures import FigureStyle

COHORT_PANEL = "Many cases"

Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        help="Label convention of the masks, where file names and values leave it open: brats2021, brats2023, msd, ...",
        autocompletion=lambda: label_conventions(),
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
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Number of processes on this machine, each with one case at a time; with a settings file, "
        "number of workers on the cluster.",
        rich_help_panel=COHORT_PANEL,
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="A cluster to work on: the address of a Dask scheduler (tcp://host:8786), or a settings file of "
        "dask-jobqueue (slurm.yaml; also pbs, sge, lsf).",
        rich_help_panel=COHORT_PANEL,
    ),
]
GpusPerWorker = Annotated[
    int,
    typer.Option("--gpus-per-worker", min=0, help="How many GPUs each worker has.", rich_help_panel=COHORT_PANEL),
]
Window = Annotated[
    str,
    typer.Option("--window", help="whole: one pass; sliding: overlapping windows; auto: whichever suits the model."),
]
Mirrors = Annotated[
    bool, typer.Option("--tta/--no-tta", help="Average over the 8 mirror images; takes 8 times as long.")
]
Precision = Annotated[
    str, typer.Option("--precision", help="Floating-point type: auto, bf16, fp16 (GPU only) or fp32.")
]
Engine = Annotated[
    str,
    typer.Option("--engine", help="auto: PyTorch on a GPU, else OpenVINO if it supports the network; openvino; torch."),
]
Output = Annotated[Path, typer.Option("-o", "--output", help="Output folder; created if it does not exist.")]

FigureFormat = Annotated[
    str, typer.Option("--format", help="The format of the pictures: png, svg or pdf.", rich_help_panel="Pictures")
]
Dpi = Annotated[
    int,
    typer.Option(
        "--dpi", help="The pictures' resolution in dots per inch; journals ask for 300.", rich_help_panel="Pictures"
    ),
]
Theme = Annotated[
    str, typer.Option("--theme", help="Colours of the pictures: light, or dark for slides.", rich_help_panel="Pictures")
]


def label_conventions() -> list[str]:
    """Return the names of the label conventions, for the completion of a shell."""
    from gliomask.labels import CONVENTIONS  # imported here because it needs NumPy, which would slow down --help

    return list(CONVENTIONS)


def where_of(workers: int | None, cluster: str | None, gpus_per_worker: int = 0) -> Where:
    """Return where cases are worked on, as the options say.

    Raises:
        InputError: The cluster is neither an address nor a settings file, or the package for it is not installed.
    """
    from gliomask.execution import Where

    where = Where(workers, cluster, gpus_per_worker)
    where.check_installed()
    return where


def figure_style(image_format: str, dpi: int, theme: str, *pictures: Path | None) -> FigureStyle:
    """Return the style of the pictures, after a check of the options and of the endings of the files to be drawn.

    Raises:
        InputError: An option or an ending cannot be used.
    """
    from gliomask.figures import FigureStyle

    style = FigureStyle(image_format, dpi, theme)
    for path in pictures:
        if path is not None:
            style.format_of(path)
    return style


_CHOICES = {
    "--window": ("auto", "whole", "sliding"),
    "--precision": ("auto", "bf16", "fp16", "fp32"),
    "--engine": ("auto", "openvino", "torch"),
    "--model-changed": ("redo", "keep"),
}


def choose(option: str, value: str) -> str:
    """Return the value of one of the options above that has a few values only.

    Raises:
        InputError: It is none of them.
    """
    from gliomask.errors import unknown_name

    if value not in _CHOICES[option]:
        raise unknown_name(f"value of {option}", value, _CHOICES[option])
    return value
