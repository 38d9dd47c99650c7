"""Raw studies on the command line: what `preprocess` and `predict --raw` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gliomask.cli.console import end_batch, err, line, note, out, progress, warn
from gliomask.errors import InputError, describe, unknown_name

if TYPE_CHECKING:
    from gliomask.acquisition.prepare_study import PreparedStudy
    from gliomask.acquisition.preprocess import PreprocessSettings
    from gliomask.acquisition.study import Study
    from gliomask.cases import Problem
    from gliomask.inference.prediction import Prediction
    from gliomask.inference.windows import Inference, Predictor

PANEL = "Raw studies"

Atlas = Annotated[
    str,
    typer.Option(
        "--atlas",
        help="The space of the prepared images: sri24 (BraTS until 2023), mni (BraTS 2024 and later), none (the "
        "patient's own, at 1 mm).",
        rich_help_panel=PANEL,
    ),
]
SkullStrip = Annotated[
    str,
    typer.Option(
        "--skull-strip",
        help="deepbet: its networks find the brain; none: the images have no skull; or a brain mask on the "
        "reference's grid.",
        rich_help_panel=PANEL,
    ),
]
Register = Annotated[
    str,
    typer.Option(
        "--register",
        help="greedy: register every sequence to the reference; none: they lie right as they are.",
        rich_help_panel=PANEL,
    ),
]
ByPatient = Annotated[
    bool,
    typer.Option(
        "--by-patient",
        help="Take DICOM images of several patients in one folder apart, instead of refusing them.",
        rich_help_panel=PANEL,
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Exit with status 1 where an alignment looks poor.", rich_help_panel=PANEL)
]
OutputType = Annotated[
    str,
    typer.Option(
        "--output-type",
        help="What to write, joined by commas: nifti (always written), dicom-seg (a DICOM Segmentation), rtstruct (a "
        "DICOM RT Structure Set). The DICOM files are filed with the examination and therefore hold the identifiers of "
        "patient and study, as its images do; NIfTI and JSON hold none. The images must be DICOM.",
        rich_help_panel=PANEL,
    ),
]
Segments = Annotated[
    str,
    typer.Option(
        "--segments",
        help="What a DICOM Segmentation shows: tissues (NCR, ED, ET), or regions (WT, TC, ET), which overlap and which "
        "some viewers refuse.",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True)
class Wishes:
    """How the masks of raw studies are wanted."""

    space: str
    probabilities: bool
    overwrite: bool
    strict: bool
    labels: str | None
    prediction: Mapping[str, Any]
    """What determines the prediction; see `inference.record.describe_settings`."""
    outputs: tuple[str, ...] = ("nifti",)
    """See `exchange.OUTPUT_TYPES`."""
    segments: str = "tissues"
    """See `exchange.SEGMENT_CHOICES`."""
    report: bool = False
    """Whether the report and the quality page are wanted."""


def make_settings(atlas: str, skull_strip: str, register: str, threads: int | None) -> PreprocessSettings:
    """Return the settings that the options ask for.

    Raises:
        InputError: A value is not known, or the mask's file is not there.
    """
    from gliomask.acquisition.atlas import ATLASES
    from gliomask.acquisition.preprocess import PreprocessSettings

    if atlas not in ATLASES:
        raise unknown_name("value of --atlas", atlas, ATLASES)
    if register not in ("greedy", "none"):
        raise unknown_name("value of --register", register, ("greedy", "none"))
    strip: str | Path = {"deepbet": "networks", "none": "none"}.get(skull_strip, Path(skull_strip))
    if isinstance(strip, Path) and not strip.is_file():
        raise InputError(f"--skull-strip {skull_strip}: neither deepbet, none, nor a file.")
    return PreprocessSettings(atlas=atlas, skull_strip=strip, register=register == "greedy", threads=threads)  # type: ignore[arg-type]


def show_study(study: Study) -> None:
    """Print which images of a study are used for what, and why the others are not."""
    err.print(line((study.id, "bold")))
    for choice in study.choices:
        series = choice.series
        size = " x ".join(f"{edge:.1f}" for edge in series.grid.spacing_mm) + " mm" if series.grid else ""
        mark = (series.modality or "-", "green") if choice.used else ("-", "dim")
        err.print(line("  ", mark, f"  {series.name}  {size}  {choice.reason}"))
    for remark in study.notes:
        warn(f"{study.id}: {remark}")


@contextmanager
def raw_studies(
    source: Path | None, files: Mapping[str, Path], output: Path, *, by_patient: bool
) -> Iterator[list[Study]]:
    """Give the studies that the options name, having printed which images are used.

    Raises:
        InputError: None are named, or named in both ways; there is none; or the output is no folder.
    """
    from gliomask.acquisition.find import opened_studies
    from gliomask.acquisition.study import make_study, series_by_name
    from gliomask.files import check_writable
    from gliomask.volume import NIFTI_ENDINGS

    if (source is None) == (not files):
        raise InputError("name the study with -i FOLDER, or its images with --t1 --t1c --t2 --flair; not both.")
    if output.name.lower().endswith(NIFTI_ENDINGS):
        raise InputError(f"{output}: name a folder with -o; it also gets the prepared images.")
    check_writable(output)
    if source is None:
        name = next(iter(files.values())).resolve().parent.name
        given = nullcontext([make_study(name, series_by_name(files))])
    with given if source is None else opened_studies(source, by_patient=by_patient) as studies:
        for study in studies:
            show_study(study)
        yield studies


def prepare_all(
    studies: Sequence[Study], folder: Path, settings: PreprocessSettings, *, overwrite: bool, strict: bool
) -> None:
    """Prepare studies as cases in a folder, each in a process of its own, and end as a batch does."""
    from gliomask.acquisition.prepare_study import outcome, prepared_before, preparing, workers_for
    from gliomask.cases import Problem, usable_cores

    problems: list[Problem] = []
    kept = 0
    with progress("preparing", len(studies)) as bar, preparing(workers_for(studies, usable_cores())) as submit:
        waiting = []
        for study in studies:
            if not overwrite and prepared_before(study, folder / study.id, settings):
                kept += 1
                bar.advance(bar.tasks[0].id)
            else:
                waiting.append((study, submit(study, folder / study.id, settings)))
        for study, future in waiting:
            found = outcome(study, future)
            bar.advance(bar.tasks[0].id)
            if isinstance(found, InputError):
                problems.append(Problem(study.id, str(found).removeprefix(f"{study.id}: ")))
                continue
            say_prepared(found)
            if strict and found.warnings:
                problems.append(Problem(study.id, f"looks poor: {found.warnings[0]}"))
    if kept:
        out.print(
            f"{kept} of {len(studies)} studies were prepared before and are kept (--overwrite prepares them again)"
        )
    _end(problems, studies, len(studies) - len(problems))


def say_prepared(found: PreparedStudy) -> None:
    """Print where a prepared study lies, how long it took, and what calls for a look."""
    for warning in found.warnings:
        warn(f"{found.case.id}: {warning}")
    names = ", ".join(found.case.images)
    out.print(f"{found.folder}: {names} ({sum(found.seconds.values()):.1f} s)")


def predict_studies(
    studies: Sequence[Study],
    output: Path,
    settings: PreprocessSettings,
    load: Callable[[], tuple[list[Predictor], Inference]],
    wishes: Wishes,
) -> None:
    """Prepare, predict and write every study; one is prepared while another is predicted; end as a batch does.

    Raises:
        InputError: The only study failed, or what is wanted cannot be written of these studies.
    """
    from gliomask.acquisition.answer import answer_request
    from gliomask.acquisition.places import PREPARED_FOLDER
    from gliomask.acquisition.prepare_study import outcome, prepared_before, preparing, workers_for
    from gliomask.cases import usable_cores
    from gliomask.exchange import check_outputs

    check_outputs(wishes.outputs, wishes.segments, wishes.space, studies)
    requests = {study.id: answer_request(study, settings, wishes.prediction, wishes.space) for study in studies}
    to_do = [study for study in studies if wishes.overwrite or not _is_done(study, output, requests[study.id], wishes)]
    if len(to_do) < len(studies):
        done = len(studies) - len(to_do)
        out.print(f"{done} of {len(studies)} masks are in {output} already (--overwrite makes them again)")
    waits = {study.id for study in to_do}
    failed = {study.id: _write_others(study, output, wishes) for study in studies if study.id not in waits}
    if not to_do:
        _end(_problems(failed), studies, len(studies) - len(_problems(failed)))
        return
    from gliomask.inference.prediction import predict

    models, inference = load()
    ask = partial(predict, models, inference=inference)
    with progress("predicting", len(to_do)) as bar, preparing(workers_for(to_do, usable_cores())) as submit:
        waiting = []
        for study in to_do:
            folder = output / PREPARED_FOLDER / study.id
            before = None if wishes.overwrite else prepared_before(study, folder, settings)
            waiting.append((study, before or submit(study, folder, settings)))
        for study, coming in waiting:
            prepared = outcome(study, coming) if isinstance(coming, Future) else coming
            if isinstance(prepared, InputError):
                failed[study.id] = prepared
            else:
                failed[study.id] = _predict(study, prepared, output, ask, wishes, requests[study.id])
            bar.advance(bar.tasks[0].id)
    problems = _problems(failed)
    _end(problems, studies, len(studies) - len(problems))


def _problems(failed: Mapping[str, InputError | None]) -> list[Problem]:
    from gliomask.cases import Problem

    return [Problem(name, str(error).removeprefix(f"{name}: ")) for name, error in failed.items() if error is not None]


def _write_others(study: Study, output: Path, wishes: Wishes) -> InputError | None:
    """Write what is wanted beside a mask and is missing, DICOM files and pages, or return why that failed."""
    from gliomask.exchange import write_outputs

    try:
        written = write_outputs(study, output / f"{study.id}.nii.gz", wishes.outputs, wishes.segments)
    except InputError as error:
        return error
    except Exception as error:
        return InputError(describe(error))
    if written:
        out.print(f"{study.id}: wrote {', '.join(path.name for path in written)}")
    if wishes.report and not (output / f"{study.id}.html").is_file():
        return _report(study, output, wishes)
    return None


def _report(study: Study, output: Path, wishes: Wishes) -> InputError | None:
    from gliomask.cli.raw_pages import report_study

    error = report_study(study, output, labels=wishes.labels)
    return error and InputError(f"has a mask, but no report: {str(error).removeprefix(f'{study.id}: ')}")


def _predict(
    study: Study,
    prepared: PreparedStudy,
    output: Path,
    predict: Callable[..., Prediction],
    wishes: Wishes,
    request: Mapping[str, Any],
) -> InputError | None:
    from gliomask.acquisition.answer import write_answer
    from gliomask.acquisition.places import PAGE_ENDINGS
    from gliomask.exchange import remove_outputs

    try:
        found = predict(prepared.case, convention=wishes.labels)
        path = output / f"{study.id}.nii.gz"
        remove_outputs(path)
        for ending in PAGE_ENDINGS:  # the pages of an earlier mask
            (output / f"{study.id}{ending}").unlink(missing_ok=True)
        volumes = write_answer(study, prepared, found, path, request=request, probabilities=wishes.probabilities)
    except InputError as error:
        return error
    except Exception as error:
        return InputError(describe(error))
    for warning in (*prepared.warnings, *found.warnings):
        warn(f"{study.id}: {warning}")
    text = ", ".join(f"{region} {volume:.1f} mL" for region, volume in volumes.items())
    out.print(f"{path}: {text} ({sum(prepared.seconds.values()):.1f} s to prepare, {found.seconds:.1f} s)")
    failed = _write_others(study, output, wishes)
    if failed is None and wishes.strict and prepared.warnings:
        return InputError(f"looks poor: {prepared.warnings[0]}")
    return failed


def _is_done(study: Study, output: Path, request: Mapping[str, Any], wishes: Wishes) -> bool:
    """Whether the mask of a study is kept; the reason is printed where it is replaced or was changed."""
    from gliomask.acquisition.answer import find_answer

    kept, reason = find_answer(output / f"{study.id}.nii.gz", request, probabilities=wishes.probabilities)
    if reason:
        note(f"{study.id}: {reason}" if kept else f"{study.id}: the mask is computed again: {reason}")
    return kept


def _end(problems: Sequence[Problem], studies: Sequence[Study], done: int) -> None:
    if len(studies) == 1 and problems and not problems[0].what.startswith("looks poor"):
        raise InputError(str(problems[0]))
    end_batch(problems, done)
