"""The reports of a raw study: its prediction in the patient's own space, and the quality of its preparation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gliomask.acquisition.places import PAGE_ENDINGS, PREPARED, find_prepared
from gliomask.acquisition.quality import Finding, assess, worst
from gliomask.acquisition.review import StudyReview, read_review, space_of
from gliomask.acquisition.study import Study
from gliomask.cases import SEQUENCE_NAMES, Case, Source
from gliomask.errors import InputError
from gliomask.files import write_text
from gliomask.inference.record import read_facts
from gliomask.report.prediction import (
    MeasuredCase,
    Preparation,
    choose_sequences,
    find_mask,
    measure_images,
    prediction_page,
)
from gliomask.report.preparation import describe_light, preparation_page


@dataclass(frozen=True)
class RawPages:
    """Where the pages of a raw study are written."""

    report: Path | None
    """None: there is no mask, or its report is not wanted."""
    quality: Path
    link: str | None
    """The address of the quality page in the report; None: it is not linked."""


def write_raw_reports(
    study: Study,
    output: Path,
    folder: Path | None = None,
    *,
    labels: str | None = None,
    sequences: Sequence[str] = (),
) -> RawPages:
    """Write the quality page of a raw study, and the report of its mask if there is one.

    Args:
        study: The study; its images are read.
        output: The output of `predict --raw`, a mask in it, or the output of `preprocess`.
        folder: Where the pages are written; by default beside the mask, or in the output of `preprocess`.
        labels: The label convention of the mask; see `find_conventions` for the default.
        sequences: The sequences to show in the report.

    Raises:
        InputError: The study was not prepared there, its images are others, a file is bad, or a page cannot be written.
    """
    prepared = find_prepared(output, study.id)
    if prepared is None:
        raise InputError(
            f"{study.id}: was not prepared in {output}. Name the folder that predict --raw or preprocess wrote to."
        )
    mask = _find_mask(study, output)
    folder = folder or (mask.parent if mask else output)
    quality = folder / f"{study.id}{PAGE_ENDINGS[1]}"
    pages = RawPages(folder / f"{study.id}{PAGE_ENDINGS[0]}" if mask else None, quality, quote(quality.name))
    write_pages(read_review(study, prepared), mask, pages, labels=labels, sequences=sequences)
    return pages


def write_pages(
    review: StudyReview,
    mask: Path | None,
    pages: RawPages,
    *,
    labels: str | None = None,
    sequences: Sequence[str] = (),
) -> None:
    """Write the pages of a raw study whose images were read; see `write_raw_reports`.

    Raises:
        InputError: As for `write_raw_reports`.
    """
    facts = _facts_beside(mask) if mask else {}
    findings = assess(review, facts)
    write_text(pages.quality, preparation_page(review, findings, facts))
    if mask is not None and pages.report is not None:
        measured = measure_review(review, mask, labels=labels, sequences=sequences)
        preparation = _preparation(review, mask, findings, pages.link)
        write_text(pages.report, prediction_page(measured, preparation))


def measure_review(
    review: StudyReview, mask: Path, *, labels: str | None = None, sequences: Sequence[str] = ()
) -> MeasuredCase:
    """Measure the mask of a raw study on its own grid, with the images interpolated to that grid.

    Args:
        review: The study.
        mask: A mask on the grid of the sequence that the JSON beside it names, by default of the reference.
        labels: The label convention of the mask.
        sequences: The sequences to show; by default T2-FLAIR and T1 with contrast if the study has them.

    Raises:
        InputError: As for `measure_case`.
    """
    space = space_of(mask, review.alignment)
    # Only the names of the sequences are used; the images were read from other files.
    case = Case(review.id, {name: Source(mask) for name in review.images})
    images = review.images_in(space)
    shown = {name: images[name] for name in choose_sequences(case, sequences)}
    return measure_images(case, shown, review.brain_in(space).data[0] != 0, mask, labels=labels)


def _find_mask(study: Study, output: Path) -> Path | None:
    if output.is_file():
        return output
    try:
        return find_mask(Case(study.id, {}), output)
    except InputError:
        return None


def _facts_beside(mask: Path) -> dict[str, Any]:
    """The facts about a mask; empty if there are none, as damaged ones are reported with the mask."""
    stem = mask.name.removesuffix(".gz").removesuffix(".nii")
    return read_facts(mask.with_name(f"{stem}.json")) or {}


def _preparation(review: StudyReview, mask: Path, findings: list[Finding], link: str | None) -> Preparation:
    space = space_of(mask, review.alignment)
    words = "the prepared space" if space == PREPARED else f"the space of the acquired {SEQUENCE_NAMES[space]}"
    return Preparation(worst(findings), describe_light(findings), link, words)
