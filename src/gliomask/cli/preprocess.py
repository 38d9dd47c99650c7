"""gliomask preprocess: raw studies -> cases that BraTS tools take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomask.cli.options import Cluster, Output, Threads, Workers, where_of
from gliomask.cli.raw import PreparationWishes, make_settings, prepare_all, raw_studies
from gliomask.cli.raw_options import N4, PANEL, Atlas, ByPatient, KeepUids, Register, SkullStrip, Strict

EXAMPLES = """
**Examples**

`gliomask preprocess STUDIES -o CASES`

`gliomask preprocess STUDY -o CASES --atlas none --native-masks`

Series 7 is the T1 after contrast:

`gliomask preprocess STUDY -o CASES --t1c 7`
"""

_Source = Annotated[Path, typer.Argument(help="A study: a folder or zip file of images; or a folder of studies.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Prepare studies again that were already prepared.")]
_NativeMasks = Annotated[
    bool,
    typer.Option(
        "--native-masks",
        help="Also write native/ID_brain_t1.nii.gz and so on: the brain mask on each sequence's own grid.",
    ),
]
# Texts, as a path would lose the stroke at the end of a description, and turn it round on Windows.
_T1n = Annotated[
    str | None,
    typer.Option(
        "--t1",
        "--t1n",
        metavar="SERIES",
        help="The series to use as T1 without contrast: its number, description, UID or file name.",
        rich_help_panel=PANEL,
    ),
]
_T1c = Annotated[
    str | None,
    typer.Option(
        "--t1c", "--t1ce", "--t1gd", metavar="SERIES", help="Likewise, T1 after contrast.", rich_help_panel=PANEL
    ),
]
_T2w = Annotated[
    str | None, typer.Option("--t2", "--t2w", metavar="SERIES", help="Likewise, T2.", rich_help_panel=PANEL)
]
_T2f = Annotated[
    str | None, typer.Option("--flair", "--t2f", metavar="SERIES", help="Likewise, T2-FLAIR.", rich_help_panel=PANEL)
]


def preprocess(
    source: _Source,
    output: Output,
    t1n: _T1n = None,
    t1c: _T1c = None,
    t2w: _T2w = None,
    t2f: _T2f = None,
    atlas: Atlas = "sri24",
    skull_strip: SkullStrip = "deepbet",
    register: Register = "greedy",
    n4: N4 = False,
    native_masks: _NativeMasks = False,
    strict: Strict = False,
    by_patient: ByPatient = False,
    keep_uids: KeepUids = False,
    overwrite: _Overwrite = False,
    threads: Threads = None,
    workers: Workers = None,
    cluster: Cluster = None,
) -> None:
    """Register the raw images of examinations, remove the skull, and write BraTS cases at 1 mm.

    Images are DICOM, NIfTI, MHA or NRRD, with skull, each on its own grid, one or more sequences. Each case gets the
    brain mask as well, and the transforms back to the original images.
    """
    wishes = PreparationWishes(overwrite, strict, keep_uids, native_masks)
    settings = make_settings(atlas, skull_strip, register, threads, n4=n4)
    named = {name: series for name, series in (("t1n", t1n), ("t1c", t1c), ("t2w", t2w), ("t2f", t2f)) if series}
    with raw_studies(source, named, output, by_patient=by_patient) as studies:
        prepare_all(studies, output, settings, wishes, where_of(workers, cluster))
