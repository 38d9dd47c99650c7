"""`predict --raw` for one study, here or on a worker: prepare, predict, write, and return what is to be told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gliomask.errors import InputError, describe
from gliomask.execution import HERE, asked_to_stop, map_cases

if TYPE_CHECKING:
    from gliomask.acquisition.prepare_study import PreparedStudy, PrepareStudy
    from gliomask.acquisition.preprocess import PreprocessSettings
    from gliomask.acquisition.study import Study
    from gliomask.cli.predict_case import Models


@dataclass(frozen=True)
class Wishes:
    """How the masks of raw studies are wanted."""

    space: str
    probabilities: bool
    overwrite: bool
    strict: bool
    keep_uids: bool
    labels: str | None
    prediction: Mapping[str, Any]
    """What determines the prediction; see `inference.record.describe_settings`."""
    outputs: tuple[str, ...] = ("nifti",)
    """See `exchange.OUTPUT_TYPES`."""
    segments: str = "tissues"
    """See `exchange.SEGMENT_CHOICES`."""
    report: bool = False
    """Whether the report and the quality page are wanted."""
    any_model: bool = False
    """Keep a mask although another model made it."""

    def is_kept(self, mask: Path, request: Mapping[str, Any]) -> tuple[bool, str]:
        """Return whether a mask is kept, and the reason; see `find_answer`, also for the error."""
        from gliomask.acquisition.answer import find_answer

        return find_answer(mask, request, probabilities=self.probabilities, any_model=self.any_model)


@dataclass(frozen=True)
class Answered:
    """What became of a study, in plain values."""

    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    """Results to print."""
    error: InputError | None = None
    """What is missing beside the mask, or looks poor."""


@dataclass(frozen=True)
class AnswerStudy:
    """Prepares a study, predicts it and writes its mask; a function for `map_cases`."""

    output: Path
    settings: PreprocessSettings
    models: Models
    wishes: Wishes
    requests: Mapping[str, Mapping[str, Any]]
    """By study, what determines its mask; see `answer_request`."""
    wait_seconds: float = 0.0
    """How long to wait for another process or host that is at work on a study."""

    def __call__(self, study: Study) -> Answered:
        """Return what became of a study.

        Raises:
            InputError: It has no mask.
            HeldError: Another process or host is at work on it.
        """
        with self._claimed(study):
            return self._kept(study) or self.answer(study, self.prepare()(study))

    def answer_prepared(self, study: Study, prepared: PreparedStudy) -> Answered:
        """Return what became of a study that was prepared in this process or another.

        Raises:
            InputError: It has no mask.
            HeldError: Another process or host is at work on it.
        """
        with self._claimed(study):
            return self._kept(study) or self.answer(study, prepared)

    def _claimed(self, study: Study) -> AbstractContextManager[None]:
        from gliomask.files import claimed

        return claimed(self.output, study.id, wait_seconds=self.wait_seconds, give_up=asked_to_stop)

    def _kept(self, study: Study) -> Answered | None:
        """Return the answer if the mask is there by now: made by another process or a worker that was lost, or edited.

        Raises:
            InputError: It is a mask of which nothing says that gliomask made it, or that was corrected for other
                images.
        """
        from gliomask.inference.record import FOREIGN, is_foreign

        path = self.output / f"{study.id}.nii.gz"
        if self.wishes.overwrite:
            return None
        if is_foreign(path):
            raise InputError(FOREIGN)
        if not self.wishes.is_kept(path, self.requests[study.id])[0]:
            return None
        return complete_answer(study, self.output, self.settings, self.wishes)

    def prepare(self) -> PrepareStudy:
        """Return the function that prepares a study."""
        from gliomask.acquisition.places import PREPARED_FOLDER
        from gliomask.acquisition.prepare_study import PrepareStudy

        keep = not self.wishes.overwrite
        return PrepareStudy(self.output / PREPARED_FOLDER, self.settings, keep=keep, wait_seconds=self.wait_seconds)

    def answer(self, study: Study, prepared: PreparedStudy) -> Answered:
        """Predict and write a study that is prepared.

        Raises:
            InputError: It has no mask.
            HeldError: Another process or host is at work on it.
        """
        from gliomask.acquisition.answer import write_answer
        from gliomask.acquisition.places import PAGE_ENDINGS
        from gliomask.acquisition.table import write_study_record
        from gliomask.exchange import remove_outputs
        from gliomask.inference.prediction import predict

        wishes, path = self.wishes, self.output / f"{study.id}.nii.gz"
        try:
            write_study_record(study, prepared.folder, keep_uids=wishes.keep_uids)
            found = predict(
                self.models.load(), prepared.case, inference=self.models.inference, convention=wishes.labels
            )
            remove_outputs(path)
            for ending in PAGE_ENDINGS:  # the pages of an earlier mask
                (self.output / f"{study.id}{ending}").unlink(missing_ok=True)
            request = self.requests[study.id]
            volumes = write_answer(study, prepared, found, path, request=request, probabilities=wishes.probabilities)
        except InputError:
            raise
        except Exception as error:
            raise InputError(describe(error)) from error
        text = ", ".join(f"{region} {volume:.1f} mL" for region, volume in volumes.items())
        line = f"{path}: {text} ({sum(prepared.seconds.values()):.1f} s to prepare, {found.seconds:.1f} s)"
        others = write_others(study, self.output, wishes)
        missing = others.error
        if missing is None and wishes.strict and prepared.warnings:
            missing = InputError(f"looks poor: {prepared.warnings[0]}")
        warnings = (*prepared.warnings, *found.warnings)
        return Answered(prepared.notes, warnings, (line, *others.lines), missing)


def answers_here(answer: AnswerStudy, studies: Sequence[Study]) -> Iterator[tuple[Study, Answered | InputError]]:
    """Yield each study with its answer: studies are prepared in processes, and predicted in this one meanwhile."""
    from gliomask.acquisition.prepare_study import place_to_prepare

    answer.models.load()  # its errors concern all studies
    for study, prepared in map_cases(answer.prepare(), studies, place_to_prepare(studies, HERE)):
        try:
            if isinstance(prepared, InputError):
                raise prepared
            yield study, answer.answer_prepared(study, replace(prepared, folder=answer.prepare().folder / study.id))
        except InputError as error:
            yield study, error


def complete_answer(study: Study, output: Path, settings: PreprocessSettings, wishes: Wishes) -> Answered:
    """Write what is missing beside a mask that is kept; with `strict`, also say if its preparation looked poor."""
    from gliomask.acquisition.places import PREPARED_FOLDER
    from gliomask.acquisition.prepare_study import prepared_before

    answered = write_others(study, output, wishes)
    if answered.error is not None or not wishes.strict:
        return answered
    try:
        before = prepared_before(study, output / PREPARED_FOLDER / study.id, settings)
    except InputError as error:
        return replace(answered, error=error)
    poor = before.warnings[0] if before and before.warnings else None
    return replace(answered, error=InputError(f"looks poor: {poor}")) if poor else answered


def write_others(study: Study, output: Path, wishes: Wishes) -> Answered:
    """Write what is wanted beside a mask and is missing, DICOM files and pages."""
    from gliomask.cli.raw_pages import write_study_pages
    from gliomask.exchange import write_outputs

    try:
        written = write_outputs(study, output / f"{study.id}.nii.gz", wishes.outputs, wishes.segments)
    except Exception as error:
        failure = InputError(f"has a mask, but its DICOM files could not be written: {describe(error)}")
        return Answered(error=failure)
    lines = [f"{study.id}: wrote {', '.join(path.name for path in written)}"] if written else []
    if wishes.report and not (output / f"{study.id}.html").is_file():
        try:
            lines += write_study_pages(study, output, labels=wishes.labels)
        except InputError as error:
            reason = str(error).removeprefix(f"{study.id}: ")
            return Answered(lines=tuple(lines), error=InputError(f"has a mask, but no report: {reason}"))
    return Answered(lines=tuple(lines))
