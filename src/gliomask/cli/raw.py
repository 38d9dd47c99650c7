"""Raw studies on the command line: what `preprocess` and `predict --raw` share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gliomask.cli.console import end_batch, listed, note, out, progress, warn
from gliomask.cli.series_table import show_study
from gliomask.cli.tables import Tables
from gliomask.errors import InputError, unknown_name
from gliomask.execution import HERE, ClusterLostError, Where, map_cases

if TYPE_CHECKING:
    from gliomask.acquisition.prepare_study import PreparedStudy
    from gliomask.acquisition.preprocess import PreprocessSettings
    from gliomask.acquisition.study import Study
    from gliomask.cases import Problem
    from gliomask.cli.predict_case import Models
    from gliomask.cli.raw_answer import Answered, AnswerStudy, Wishes


@dataclass(frozen=True)
class PreparationWishes:
    """What else is wanted of `preprocess`."""

    overwrite: bool
    strict: bool
    keep_uids: bool
    native_masks: bool


def make_settings(atlas: str, skull_strip: str, register: str, threads: int | None, *, n4: bool) -> PreprocessSettings:
    """Return the settings that the options ask for.

    Raises:
        InputError: A value is not known, the mask's file is not there, or the program is not installed.
    """
    from gliomask.acquisition.ants import require_ants
    from gliomask.acquisition.atlas import ATLASES
    from gliomask.acquisition.other_tools import STRIPPING_TOOLS, find_program
    from gliomask.acquisition.preprocess import PreprocessSettings
    from gliomask.acquisition.registration import REGISTERING

    if atlas not in ATLASES:
        raise unknown_name("value of --atlas", atlas, ATLASES)
    if register not in REGISTERING:
        raise unknown_name("value of --register", register, REGISTERING)
    if register == "ants":
        require_ants()
    known: dict[str, str] = {"deepbet": "networks", "none": "none", **{str(tool): tool for tool in STRIPPING_TOOLS}}
    strip: str | Path = known.get(skull_strip, Path(skull_strip))
    if isinstance(strip, Path) and not strip.is_file():
        raise InputError(f"--skull-strip {skull_strip}: neither {', '.join(known)}, nor a file.")
    for tool in STRIPPING_TOOLS:
        if tool == strip:
            find_program(tool)
    return PreprocessSettings(
        atlas=atlas,
        skull_strip=strip,  # type: ignore[arg-type]
        register=register,
        n4=n4,
        threads=threads,
    )


@contextmanager
def raw_studies(
    source: Path | None, files: Mapping[str, str], output: Path, *, by_patient: bool
) -> Iterator[list[Study]]:
    """Give the studies that the options name, having printed which images are used.

    Args:
        source: A study or a folder of studies; None where `files` names the images.
        files: By sequence, the image's file, or with `source` a series' number, description, UID or file name.
        output: Where the results go.
        by_patient: See `find_studies`.

    Raises:
        InputError: No study is named, none can be prepared, or the output is no folder.
    """
    from gliomask.acquisition.study import make_study, series_by_name
    from gliomask.files import check_writable
    from gliomask.volume import NIFTI_ENDINGS

    if source is None and not files:
        raise InputError("name the study with -i FOLDER, or its images with --t1 --t1c --t2 --flair.")
    if output.name.lower().endswith(NIFTI_ENDINGS):
        raise InputError(f"{output}: name a folder with -o; it also gets the prepared images.")
    with ExitStack() as stack:
        if source is None:
            paths = {modality: Path(name) for modality, name in files.items()}
            name = next(iter(paths.values())).resolve().parent.name
            studies = [make_study(name, series_by_name(paths))]
        else:
            studies = stack.enter_context(reading_studies(source, by_patient=by_patient, named=files, output=output))
        for study in studies:
            show_study(study)
        _refuse_if_none_is_usable(studies)
        check_writable(output)
        yield studies


@contextmanager
def reading_studies(
    source: Path,
    *,
    by_patient: bool = False,
    named: Mapping[str, str] | None = None,
    output: Path | None = None,
) -> Iterator[list[Study]]:
    """Give the studies of a folder or zip file, whose headers are read with a progress bar; see `opened_studies`."""
    from gliomask.acquisition.find import opened_studies

    with ExitStack() as stack:
        with progress("reading headers", 1) as bar:

            def show(done: int, of: int) -> None:
                bar.update(bar.tasks[0].id, completed=done, total=of)

            opened = opened_studies(source, by_patient=by_patient, named=named, on_files=show, output=output)
            studies = stack.enter_context(opened)
        yield studies


def _refuse_if_none_is_usable(studies: Sequence[Study]) -> None:
    problems = []
    for study in studies:
        try:
            study.check()
        except InputError as error:
            problems.append(_problem(study.id, error))
    if len(problems) < len(studies):
        return
    if len(problems) == 1:
        raise InputError(str(problems[0]))
    end_batch(problems, 0)


def prepare_all(
    studies: Sequence[Study],
    folder: Path,
    settings: PreprocessSettings,
    wishes: PreparationWishes,
    where: Where = HERE,
) -> None:
    """Prepare studies as cases in a folder, each in a process of its own, and end as a batch does."""
    from gliomask.acquisition.prepare_study import PrepareStudy, place_to_prepare, prepared_before
    from gliomask.acquisition.table import write_study_record
    from gliomask.cases import Problem

    problems: list[Problem] = []
    to_do = []
    kept = 0

    def judge(study: Study, found: PreparedStudy) -> None:
        if wishes.strict and found.warnings:
            problems.append(Problem(study.id, f"looks poor: {found.warnings[0]}"))

    with progress("preparing", len(studies)) as bar:
        for study in studies:
            try:
                study.check()
                before = None if wishes.overwrite else prepared_before(study, folder / study.id, settings)
                if before is None:
                    to_do.append(study)
                    continue
                _complete(study, folder / study.id, wishes)
                judge(study, before)
                kept += 1
            except InputError as error:
                problems.append(_problem(study.id, error))
            bar.advance(bar.tasks[0].id)
        prepare = PrepareStudy(folder, settings, wishes.native_masks)
        for study, found in map_cases(prepare, to_do, place_to_prepare(to_do, where)):
            bar.advance(bar.tasks[0].id)
            try:
                if isinstance(found, InputError):
                    raise found
                write_study_record(study, folder / study.id, keep_uids=wishes.keep_uids)
            except InputError as error:
                problems.append(_problem(study.id, error))
                continue
            say_prepared(found, folder / study.id)
            judge(study, found)
    if kept:
        out.print(
            f"{kept} of {len(studies)} studies were prepared before and are kept (--overwrite prepares them again)"
        )
    _end(problems, studies, len(studies) - len(problems))


def _complete(study: Study, folder: Path, wishes: PreparationWishes) -> None:
    """Write what is wanted beside a case that was prepared before."""
    from gliomask.acquisition.prepare_study import native_mask_path, write_native_masks
    from gliomask.acquisition.table import write_study_record

    write_study_record(study, folder, keep_uids=wishes.keep_uids)
    masks = [native_mask_path(folder, study.id, name) for name in study.chosen]
    if wishes.native_masks and not all(path.is_file() for path in masks):
        write_native_masks(study.id, folder)


def say_prepared(found: PreparedStudy, folder: Path) -> None:
    """Print where a prepared study lies, how long it took, and what calls for a look."""
    _say(found.case.id, found.notes, found.warnings)
    names = ", ".join(found.case.images)
    out.print(f"{folder}: {names} ({sum(found.seconds.values()):.1f} s)")


def predict_studies(
    studies: Sequence[Study],
    output: Path,
    settings: PreprocessSettings,
    models: Models,
    wishes: Wishes,
    where: Where = HERE,
) -> None:
    """Prepare, predict and write every study; one is prepared while another is predicted; end as a batch does.

    Raises:
        InputError: The only study failed, or what is wanted cannot be written of these studies.
    """
    from gliomask.cli.raw_answer import AnswerStudy, complete_answer
    from gliomask.exchange import check_outputs

    check_outputs(wishes.outputs, wishes.segments, wishes.space, studies)
    requests, to_do, refused = _find_work(studies, output, settings, wishes)
    failed: dict[str, InputError | None] = {**refused}
    own = [study for study in studies if study.id not in failed]
    if len(to_do) < len(own):
        done = len(own) - len(to_do)
        out.print(f"{done} of {len(studies)} masks are in {output} already (--overwrite makes them again)")
    waits = {study.id for study in to_do}
    for study in own:
        if study.id not in waits:
            failed[study.id] = _tell(study, complete_answer(study, output, settings, wishes))
    files = {study.id: [path for series in study.chosen.values() for path in series.files] for study in studies}
    tables = Tables(output, files)
    if to_do:
        answer = AnswerStudy(output, settings, models, wishes, requests)
        with progress("predicting", len(to_do)) as bar:
            try:
                for study, answered in _answers(answer, to_do, where):
                    failed[study.id] = answered if isinstance(answered, InputError) else _tell(study, answered)
                    bar.advance(bar.tasks[0].id)
                    tables.update()
            except (KeyboardInterrupt, ClusterLostError):
                tables.end()
                raise
    problems = _problems(failed)
    tables.end(problems, begun=bool(to_do))
    _end(problems, studies, len(studies) - len(problems))


def _find_work(
    studies: Sequence[Study], output: Path, settings: PreprocessSettings, wishes: Wishes
) -> tuple[dict[str, dict[str, Any]], list[Study], dict[str, InputError]]:
    """What determines the mask of each study, the studies that lack theirs, and those that cannot have one, and why."""
    from gliomask.acquisition.answer import answer_request
    from gliomask.inference.record import FOREIGN, is_foreign

    requests, to_do, failed = {}, [], {}
    for study in studies:
        try:
            study.check()
            if not wishes.overwrite and is_foreign(output / f"{study.id}.nii.gz"):
                raise InputError(FOREIGN)
            requests[study.id] = answer_request(study, settings, wishes.prediction, wishes.space)
            if wishes.overwrite or not _is_done(study, output, requests[study.id], wishes):
                to_do.append(study)
        except InputError as error:  # also of an image that is gone since its headers were read
            failed[study.id] = error
    return requests, to_do, failed


def _answers(
    answer: AnswerStudy, studies: Sequence[Study], where: Where
) -> Iterator[tuple[Study, Answered | InputError]]:
    """Yield each study with its answer; one that another process is at work on comes at the end, when it is free.

    Raises:
        InputError: The models cannot be loaded, or what `map_cases` raises.
    """
    from gliomask.cli.raw_answer import answers_here
    from gliomask.files import CLAIM_WAIT_SECONDS, HeldError

    def work(answer: AnswerStudy, studies: Sequence[Study]) -> Iterator[tuple[Study, Answered | InputError]]:
        return answers_here(answer, studies) if where.is_here else map_cases(answer, studies, where)

    held = []
    for study, answered in work(answer, studies):
        if isinstance(answered, HeldError):
            held.append(study)
        else:
            yield study, answered
    if held:
        note(f"waiting for another process, which is at work on {listed([study.id for study in held])}")
        try:
            yield from work(replace(answer, wait_seconds=CLAIM_WAIT_SECONDS), held)
        except ClusterLostError:
            raise
        except InputError as error:  # the cluster, which was there before, cannot be reached any more
            raise ClusterLostError(str(error)) from error


def _tell(study: Study, answered: Answered) -> InputError | None:
    """Print what became of a study, and return the reason if something is missing."""
    _say(study.id, answered.notes, answered.warnings)
    for text in answered.lines:
        out.print(text)
    return answered.error


def _problems(failed: Mapping[str, InputError | None]) -> list[Problem]:
    return [_problem(name, error) for name, error in failed.items() if error is not None]


def _problem(name: str, error: InputError) -> Problem:
    from gliomask.cases import Problem

    return Problem(name, str(error).removeprefix(f"{name}: "))


def _say(case_id: str, notes: Sequence[str], warnings: Sequence[str]) -> None:
    for text in notes:
        note(f"{case_id}: {text}")
    for text in dict.fromkeys(warnings):
        warn(f"{case_id}: {text}")


def _is_done(study: Study, output: Path, request: Mapping[str, Any], wishes: Wishes) -> bool:
    """Whether the mask of a study is kept; the reason is printed where it is replaced or was changed."""
    kept, reason = wishes.is_kept(output / f"{study.id}.nii.gz", request)
    if reason:
        note(f"{study.id}: {reason}" if kept else f"{study.id}: the mask is computed again: {reason}")
    return kept


def _end(problems: Sequence[Problem], studies: Sequence[Study], done: int) -> None:
    if len(studies) == 1 and problems and not problems[0].what.startswith("looks poor"):
        raise InputError(str(problems[0]))
    end_batch(problems, done)
