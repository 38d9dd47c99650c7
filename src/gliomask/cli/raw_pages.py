"""Raw studies in `gliomask report` and `gliomask view`: found again beside what was predicted from them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gliomask.cli.console import advance, end_batch, listed, out, progress
from gliomask.errors import InputError, describe
from gliomask.execution import Where, map_cases

if TYPE_CHECKING:
    from gliomask.acquisition.study import Study
    from gliomask.viewer import Scene

log = logging.getLogger(__name__)


@contextmanager
def predicted_studies(source: Path | None, files: Mapping[str, Path], masks: Path) -> Iterator[list[Study]]:
    """Give the studies of a folder or zip file, or the one whose images are named, as `predict --raw` finds them.

    Args:
        source: The folder or zip file; None where `files` names the images.
        files: By sequence, the image's file.
        masks: A mask, or the folder that predict wrote to, which may lie in the source.
    """
    from gliomask.acquisition.find import opened_studies
    from gliomask.acquisition.study import make_study, series_by_name

    if source is None:
        name = next(iter(files.values())).resolve().parent.name
        yield [make_study(name, series_by_name(files))]
        return
    # Patients are taken apart, as they were if --by-patient was given; with one patient nothing changes.
    with opened_studies(source, by_patient=True, output=masks.parent if masks.is_file() else masks) as studies:
        yield studies


def report_studies(
    source: Path | None,
    files: Mapping[str, Path],
    masks: Path,
    output: Path | None,
    labels: str | None,
    sequences: Sequence[str],
    where: Where,
) -> None:
    """Write the report and the quality page of every study, and end as a batch does."""
    from gliomask.cases import Problem

    if output is not None and output.suffix.lower() == ".html":
        raise InputError(
            f"{output}: a raw study has two pages, its report and its quality page; name a folder with -o."
        )
    with predicted_studies(source, files, masks) as studies:
        if masks.is_file() and len(studies) > 1:
            raise InputError(f"{masks}: a single mask cannot belong to {len(studies)} studies. Name its study.")
        problems: list[Problem] = []
        with progress("reporting", len(studies)) as bar:
            pages = _StudyPages(masks, output, labels, tuple(sequences))
            for study, found in map_cases(pages, studies, where):
                if isinstance(found, InputError):
                    problems.append(Problem(study.id, str(found).removeprefix(f"{study.id}: ")))
                else:
                    for text in found:
                        out.print(text)
                advance(bar)
        if problems and len(studies) == 1:
            raise InputError(str(problems[0]))
        end_batch(problems, len(studies) - len(problems))


@dataclass(frozen=True)
class _StudyPages:
    """The pages that are wanted; a function for `map_cases`."""

    masks: Path
    output: Path | None
    labels: str | None
    sequences: tuple[str, ...]

    def __call__(self, study: Study) -> list[str]:
        return write_study_pages(study, self.masks, self.output, labels=self.labels, sequences=self.sequences)


def write_study_pages(
    study: Study,
    masks: Path,
    output: Path | None = None,
    *,
    labels: str | None = None,
    sequences: Sequence[str] = (),
) -> list[str]:
    """Write the pages of one study and return lines that say where they are.

    Raises:
        InputError: Whatever keeps the pages from being written.
    """
    from gliomask.report.raw import write_raw_reports

    try:
        pages = write_raw_reports(study, masks, output, labels=labels, sequences=sequences)
    except InputError:
        raise
    except MemoryError as error:
        raise InputError("no report could be made: there is not enough memory") from error
    except Exception as error:  # a defect in one study does not end the others
        log.info("%s", study.id, exc_info=True)
        raise InputError(f"no report could be made: {describe(error)}") from error
    report = [f"report: {pages.report}"] if pages.report is not None else []
    return [*report, f"quality: {pages.quality}"]


def read_study_scene(
    source: Path | None, files: Mapping[str, Path], masks: Sequence[Path], wanted: str, labels: str | None
) -> Scene:
    """Return the scene of one raw study and its masks.

    Raises:
        InputError: There is no such study, several could be meant, or a file is bad.
    """
    from gliomask.acquisition.places import find_prepared
    from gliomask.acquisition.review import read_review
    from gliomask.cases import Case
    from gliomask.report import find_mask
    from gliomask.viewer import read_raw_scene

    with predicted_studies(source, files, masks[0]) as studies:
        ids = [study.id for study in studies]
        found = [study for study in studies if study.id == wanted] if wanted else studies
        if wanted and not found:
            raise InputError(f"{source}: has no study {wanted!r}; it has {listed(ids)}.")
        if len(found) > 1:
            raise InputError(f"{source}: has {len(ids)} studies. Choose one with --case: {listed(ids)}.")
        study = found[0]
        prepared = find_prepared(masks[0], study.id)
        if prepared is None:
            raise InputError(f"{study.id}: was not prepared in {masks[0]}; name the output of predict --raw.")
        case = Case(study.id, {})
        return read_raw_scene(read_review(study, prepared), [find_mask(case, mask) for mask in masks], labels=labels)
