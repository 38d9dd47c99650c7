"""gliomask preprocess: raw studies -> cases that BraTS tools take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomask.cli.options import Output, Threads
from gliomask.cli.raw import Atlas, ByPatient, Register, SkullStrip, Strict, make_settings, prepare_all, raw_studies

EXAMPLES = """
**Examples**

`gliomask preprocess STUDIES -o CASES`

`gliomask preprocess STUDY -o CASES --atlas none`
"""

_Source = Annotated[Path, typer.Argument(help="A study: a folder or zip file of images; or a folder of studies.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Prepare studies again that are there already.")]


def preprocess(
    source: _Source,
    output: Output,
    atlas: Atlas = "sri24",
    skull_strip: SkullStrip = "deepbet",
    register: Register = "greedy",
    strict: Strict = False,
    by_patient: ByPatient = False,
    overwrite: _Overwrite = False,
    threads: Threads = None,
) -> None:
    """Align raw images of examinations, take off the skull, and write them as BraTS cases at 1 mm.

    Images are DICOM, NIfTI, MHA or NRRD, with skull, each on its own grid, one or more sequences. Each case gets the
    brain mask as well, and the transforms that lead back.
    """
    settings = make_settings(atlas, skull_strip, register, threads)
    with raw_studies(source, {}, output, by_patient=by_patient) as studies:
        prepare_all(studies, output, settings, overwrite=overwrite, strict=strict)
