"""The command `predict`: from images to masks, with facts as JSON and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomask.cli.console import end_batch, show_notes
from gliomask.cli.options import (
    Cluster,
    Device,
    Engine,
    GpusPerWorker,
    Mirrors,
    Precision,
    Threads,
    Window,
    Workers,
    where_of,
)
from gliomask.cli.predict_case import PredictCase
from gliomask.cli.predict_how import How
from gliomask.cli.raw import make_settings, predict_studies, raw_studies
from gliomask.cli.raw_answer import Wishes
from gliomask.cli.raw_options import (
    N4,
    PANEL,
    Atlas,
    ByPatient,
    KeepUids,
    OutputType,
    Register,
    Segments,
    SkullStrip,
    Strict,
)
from gliomask.cli.tables import Tables
from gliomask.errors import InputError
from gliomask.execution import ClusterLostError

if TYPE_CHECKING:
    from gliomask.cases import Case, Problem
    from gliomask.execution import Where
    from gliomask.inference.record import Wanted
    from gliomask.inference.result import Prediction

EXAMPLES = """
**Examples**

With the built-in model, and a picture of each case:

`gliomask predict -i PATIENTS -o predictions --picture`

`gliomask predict -m run/best.safetensors -i PATIENTS -o predictions`

`gliomask predict -m run/best.safetensors --t1ce a.nii.gz --t2 b.nii.gz --flair c.nii.gz -o mask.nii.gz`

Cases that are listed in a file (columns `id,folder`, or one for each sequence), or that lie in an object store:

`gliomask predict -i list.csv -o masks`

`gliomask predict -i s3://bucket/cohort -o masks`

With the mean of several models:

`gliomask predict -i PATIENTS -o predictions -m run/fold*/best.safetensors`

Thousands of cases in eight processes, or on a cluster (`gliomask docs cohort`):

`gliomask predict -i COHORT -o predictions --workers 8`

`gliomask predict -i COHORT -o predictions --cluster slurm.yaml --workers 40`

A DICOM study, and a DICOM mask for its archive:

`gliomask predict --raw -i STUDY -o masks --output-type nifti,dicom-seg`

Raw scans, of which series 7 is the T1 after contrast:

`gliomask predict --raw -i STUDY -o masks --t1c 7`
"""

_Output = Annotated[
    Path, typer.Option("-o", "--output", help="Output folder, or for a single case a file ending in .nii.gz.")
]
_Models = Annotated[
    list[Path] | None,
    typer.Option(
        "-m",
        "--model",
        help="RUN/best.safetensors or .onnx, or a model of nnU-Net or MONAI; default: the built-in model. The "
        "probabilities of several models are averaged.",
    ),
]
_More = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[CASE]",
        help="The case, or the folder of cases; the same as -i. With -i: more model files, as a shell expands a "
        "pattern after -m.",
        show_default=False,
    ),
]
_Source = Annotated[
    Path | None,
    typer.Option("-i", "--input", help="A case, a folder of cases in any layout, or a list of them (CSV, Parquet)."),
]
# Texts, as a path would lose the stroke at the end of a description, and turn it round on Windows.
_T1n = Annotated[
    str | None,
    typer.Option("--t1", "--t1n", help="T1-weighted, native; with --raw -i, a series' number, description or UID."),
]
_T1c = Annotated[str | None, typer.Option("--t1c", "--t1ce", "--t1gd", help="T1-weighted, after contrast; likewise.")]
_T2w = Annotated[str | None, typer.Option("--t2", "--t2w", help="T2-weighted; likewise.")]
_T2f = Annotated[str | None, typer.Option("--flair", "--t2f", help="T2-FLAIR; likewise.")]
_Labels = Annotated[
    str | None,
    typer.Option(
        "--labels", help="Label values to write: brats2021 (0,1,2,4), brats2023 (0,1,2,3), ...; default: the model's."
    ),
]
_Picture = Annotated[bool, typer.Option("--picture", help="Also draw CASE.png with three planes.")]
_Show = Annotated[str, typer.Option("--show", help="With --picture: the sequences to show, such as flair,t1ce.")]
_Probabilities = Annotated[
    bool, typer.Option("--save-probabilities", help="Also write CASE_probabilities.nii.gz, a channel for each region.")
]
_CrossCheck = Annotated[
    bool,
    typer.Option(
        "--cross-check",
        help="Also predict from T2-FLAIR alone, and warn where the two whole tumours differ much; takes about half as "
        "long again.",
    ),
]
_Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Compute every mask again. Without it a mask is kept if the same model made it from the same images with "
        "the same options, or if it was edited since; all others are computed again.",
    ),
]
_ModelChanged = Annotated[
    str,
    typer.Option(
        "--model-changed",
        help="What is done with masks that another model made: redo computes them again, keep keeps them.",
    ),
]
_Raw = Annotated[
    bool,
    typer.Option(
        "--raw",
        help="The images are as the scanner made them: with skull, each on its own grid. They are aligned and stripped "
        "first, and the mask goes back to the patient's own space.",
        rich_help_panel=PANEL,
    ),
]
_Report = Annotated[
    bool,
    typer.Option(
        "--report",
        help="Also write STUDY.html, the report in the space of the mask, and STUDY_quality.html, which shows how well "
        "the images were aligned and the brain was found.",
        rich_help_panel=PANEL,
    ),
]
_Space = Annotated[
    str,
    typer.Option(
        "--space",
        help="Where the mask lies: reference (the grid of T1c, or of the next best sequence), t1n, t1c, t2w, t2f, or "
        "prepared (1 mm).",
        rich_help_panel=PANEL,
    ),
]


def predict(
    output: _Output,
    model: _Models = None,
    more: _More = None,
    source: _Source = None,
    t1n: _T1n = None,
    t1c: _T1c = None,
    t2w: _T2w = None,
    t2f: _T2f = None,
    labels: _Labels = None,
    picture: _Picture = False,
    show: _Show = "",
    save_probabilities: _Probabilities = False,
    window: Window = "auto",
    tta: Mirrors = False,
    cross_check: _CrossCheck = False,
    precision: Precision = "auto",
    overwrite: _Overwrite = False,
    model_changed: _ModelChanged = "redo",
    device: Device = "auto",
    engine: Engine = "auto",
    threads: Threads = None,
    raw: _Raw = False,
    space: _Space = "reference",
    report: _Report = False,
    atlas: Atlas = "sri24",
    skull_strip: SkullStrip = "deepbet",
    register: Register = "greedy",
    n4: N4 = False,
    strict: Strict = False,
    by_patient: ByPatient = False,
    output_type: OutputType = "nifti",
    segments: Segments = "tissues",
    keep_uids: KeepUids = False,
    workers: Workers = None,
    cluster: Cluster = None,
    gpus_per_worker: GpusPerWorker = 0,
) -> None:
    """Predict the tumour: one mask for each case on its own grid, with CASE.json (volumes in mL, model, versions).

    Research use only, not a medical device.
    """
    files = {name: text for name, text in (("t1n", t1n), ("t1c", t1c), ("t2w", t2w), ("t2f", t2f)) if text}
    sequences = _check_wishes(labels, show, picture=picture)
    source, more_models = _source_and_models(source, files, more or [])
    paths: list[Path | None] = [*(model or []), *more_models]
    where = where_of(workers, cluster, gpus_per_worker)
    how = How(tuple(paths or [None]), window, tta, precision, device, engine, threads, cross_check, model_changed)
    if raw:
        from gliomask.exchange import check_outputs

        settings = make_settings(atlas, skull_strip, register, threads, n4=n4)
        if picture or show:
            raise InputError("--picture and --show do not go with --raw: use --report.")
        raw_wanted = how.wanted(labels, probabilities=save_probabilities)
        outputs = _outputs(output_type)
        wishes = Wishes(
            space,
            save_probabilities,
            overwrite,
            strict,
            keep_uids,
            labels,
            raw_wanted.settings,
            outputs,
            segments,
            report,
            raw_wanted.any_model,
        )
        check_outputs(outputs, segments, space)  # before the images are looked for
        with raw_studies(source, files, output, by_patient=by_patient) as studies:
            predict_studies(studies, output, settings, how.models(raw_wanted), wishes, where)
        return
    if _outputs(output_type) != ("nifti",):
        raise InputError("--output-type needs --raw, and DICOM images that a DICOM object can refer to.")
    if report:
        raise InputError("--report goes with --raw; otherwise predict first, and then gliomask report CASES OUT.")
    cases, problems = _cases(source, files, output)
    wanted = how.wanted(labels, probabilities=save_probabilities, picture=picture, redraw=bool(show))
    where = replace(where, at_once=3)  # one is read, one is computed, and one is written
    files_of = {case.id: [image.path for image in case.images.values()] for case in cases}
    tables = Tables(output, files_of, problems, source)
    failed = _predict(cases, output, how, wanted, sequences, where, tables, overwrite=overwrite, alone=not problems)
    end_batch([*problems, *failed], len(cases) - len(failed))


def _source_and_models(
    source: Path | None, files: Mapping[str, str], given: Sequence[Path]
) -> tuple[Path | None, Sequence[Path]]:
    """Return the input and the further models; without `-i`, a single argument that is no model file is the input."""
    if source is None and not files and len(given) == 1 and given[0].suffix.lower() not in (".safetensors", ".onnx"):
        return given[0], []
    return source, given


def _outputs(words: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in words.split(",") if word.strip())


def _predict(
    cases: Sequence[Case],
    output: Path,
    how: How,
    wanted: Wanted,
    sequences: tuple[str, ...],
    where: Where,
    tables: Tables,
    *,
    overwrite: bool,
    alone: bool,
) -> list[Problem]:
    """Predict the cases whose mask is missing or out of date, and return those that failed.

    Raises:
        InputError: The options do not fit each other or the model, or the only case of all failed (`alone`).
    """
    from gliomask.cases import Problem
    from gliomask.cli.predict_batch import draw_missing, find_work, predict_all, refused, report_work
    from gliomask.files import check_writable, clear_partials
    from gliomask.foreign import read_plan
    from gliomask.inference.record import is_mask_name

    work = find_work(cases, output, wanted, overwrite=overwrite)
    report_work(work, output)
    if not is_mask_name(output):
        clear_partials(output)
    actions = {each.state.action for each in work}
    failed = refused(work)
    folder = work[0].path.parent
    with _removed_if_empty(folder):
        if not actions <= {"keep", "refuse"}:
            check_writable(folder)
        failed += draw_missing(work, read_plan(how.paths[0]), partial(_draw, sequences=sequences), where)
        if "predict" in actions:
            predict_case = PredictCase(how.models(wanted), wanted, sequences, overwrite)
            try:
                failed += predict_all(work, predict_case, where, tables.update)
            except (KeyboardInterrupt, ClusterLostError):
                tables.end()
                raise
        what = [Problem(case.id, str(error).removeprefix(f"{case.id}: ")) for case, error in failed]
        tables.end(what, page=not where.is_here, begun=not actions <= {"keep", "refuse"})
    if failed and len(cases) == 1 and alone:
        raise failed[0][1]
    return what


@contextmanager
def _removed_if_empty(folder: Path) -> Iterator[None]:
    """Remove a folder at the end if it was made meanwhile and is empty, because no case could be predicted."""
    is_new = not folder.exists()
    try:
        yield
    finally:
        if is_new:
            with suppress(OSError):
                folder.rmdir()


def _check_wishes(labels: str | None, show: str, *, picture: bool) -> tuple[str, ...]:
    """Return the sequences to show; refuse unknown names, and pictures without matplotlib, before any work is done.

    Raises:
        InputError: A name is unknown, matplotlib is not installed, or sequences are named without a picture.
    """
    from gliomask.cases import get_modality
    from gliomask.labels import get_convention

    if labels is not None:
        get_convention(labels)
    if picture:
        from gliomask.figures import require_matplotlib

        require_matplotlib()
    sequences = tuple(get_modality(name) for name in show.split(",") if name)
    if sequences and not picture:
        raise InputError("--show names the sequences of the picture: add --picture.")
    return sequences


def _draw(found: Prediction, path: Path, *, sequences: tuple[str, ...]) -> None:
    from gliomask.report.pictures import draw_prediction

    draw_prediction(found, path, sequences=sequences)


def _cases(source: Path | None, files: Mapping[str, str], output: Path) -> tuple[list[Case], list[Problem]]:
    from gliomask.cases import case_of_files, survey

    if (source is None) == (not files):
        raise InputError("name the images with -i CASE_OR_FOLDER, or each with --t1 --t1c --t2 --flair; not both.")
    if source is None:
        return [case_of_files({name: Path(text) for name, text in files.items()})], []
    found = survey(source, output)
    show_notes(found)
    if not found.cases:
        end_batch(found.problems, 0)
    return list(found.cases), list(found.problems)
