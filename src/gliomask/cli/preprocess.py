"""gliomask preprocess: raw studies -> cases that BraTS tools take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomask.cli.options import Output, Threads
from gliomask.cli.raw import Atlas, Register, SkullStrip, Strict, make_settings, prepare_all, show_study

EXAMPLES = """
**Examples**

`gliomask preprocess STUDIES -o CASES`

`gliomask preprocess STUDY -o CASES --atlas none`
"""

_Source = Annotated[Path, typer.Argument(help="A study: a folder of images; or a folder of studies.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Prepare studies again that are there already.")]


def preprocess(
    source: _Source,
    output: Output,
    atlas: Atlas = "sri24",
    skull_strip: SkullStrip = "deepbet",
    register: Register = "greedy",
    strict: Strict = False,
    overwrite: _Overwrite = False,
    threads: Threads = None,
) -> None:
    """Align raw images of examinations, take off the skull, and write them as BraTS cases at 1 mm.

    Images are NIfTI, MHA or NRRD, with skull, each on its own grid, one or more sequences. Beside the images each case
    gets the brain mask, and the transforms that lead back.
    """
    from gliomask.acquisition.study import find_studies
    from gliomask.files import check_writable

    settings = make_settings(atlas, skull_strip, register, threads)
    studies = find_studies(source)
    check_writable(output)
    for study in studies:
        show_study(study)
    prepare_all(studies, output, settings, overwrite=overwrite, strict=strict)
