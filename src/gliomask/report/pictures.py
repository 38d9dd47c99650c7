"""Pictures of cases, predictions and evaluations: read the data and pass it to `figures`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gliomask.cases import SEQUENCE_NAMES, SHOWN_FIRST, Case, get_modality, read_case, read_mask
from gliomask.errors import InputError
from gliomask.evaluation import ScoreComparison, WorstCase
from gliomask.evaluation.score_comparison import more_is_better
from gliomask.figures import (
    CaseView,
    GalleryCase,
    Picture,
    case_figure,
    require_matplotlib,
    save_figure,
    score_comparison_figure,
)
from gliomask.inference.result import Prediction
from gliomask.labels import get_convention, to_regions
from gliomask.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_MISTAKES = 3  # in the caption of a case


def draw_case(
    case: Case,
    path: Path | str | None = None,
    *,
    sequences: Sequence[str] = (),
    prediction: Prediction | None = None,
    title: str = "",
) -> Picture:
    """Draw a case: sequences, its mask if it has one with a known convention, and a prediction.

    Args:
        case: The case; its files are read.
        path: A PNG file to write in addition.
        sequences: The sequences to show, in any accepted spelling; by default T2-FLAIR and T1 with contrast if the case
            has them.
        prediction: A prediction to draw in an additional column.
        title: The title; by default the case id.

    Raises:
        InputError: A file is bad, a sequence is missing, the mask lies on another grid than the images, matplotlib is
            not installed, or the file cannot be written.
    """
    require_matplotlib()
    there = [modality for modality in SHOWN_FIRST if modality in case.images]
    shown = [get_modality(name) for name in sequences] or there[:2]
    if missing := [modality for modality in shown if modality not in case.images]:
        raise InputError(f"{case.id}: has no {', '.join(missing)} to show; it has {', '.join(there) or 'no sequence'}.")
    volume = read_case(case, shown)
    truth = None
    if case.mask is not None and case.convention is not None:
        truth = _regions(read_mask(case, volume.grid), case.convention)
    view = CaseView(
        title=title or case.id,
        affine=volume.affine,
        images={SEQUENCE_NAMES[modality]: channel for modality, channel in zip(shown, volume.data, strict=True)},
        truth=truth,
        predictions={"prediction": _regions(prediction.labels, prediction.convention)} if prediction else {},
    )
    picture = Picture(case_figure(view))
    if path is not None:
        save_figure(picture.figure, Path(path))
    return picture


def draw_prediction(
    prediction: Prediction, path: Path | str | None = None, *, sequences: Sequence[str] = ()
) -> Picture:
    """Draw a prediction beside the mask of its case, if the case has one; see `draw_case`."""
    title = f"{prediction.case.id}    {Path(prediction.model).name}"
    return draw_case(prediction.case, path, sequences=sequences, prediction=prediction, title=title)


def gallery_cases(worst: Sequence[WorstCase]) -> list[GalleryCase]:
    """Return the worst cases as `gallery_figure` takes them, each with a description of its largest mistakes."""
    gallery = []
    for found in worst:
        values = "  ".join(f"{region} {_number(value)}" for region, value in found.dice.items())
        first = found.mistakes[0]
        shown = f"{first.region} on {found.sequence}" if found.sequence else first.region
        large = [mistake.text for mistake in found.mistakes if mistake.cost >= first.cost / 4]
        gallery.append(
            GalleryCase(
                title=f"{found.case}   {values}   (shown: {shown})",
                caption="; ".join(large[:_MOST_MISTAKES]),
                truth=found.truth,
                prediction=found.prediction,
                place=first.place,
                affine=found.affine,
                image=found.image,
            )
        )
    return gallery


def draw_score_comparison(found: ScoreComparison) -> Figure:
    """Return the figure of a score comparison: one row per metric, one column per region, one line per case."""
    scores = {
        metric: {
            region: {table.name: found.values(table, region, metric) for table in found.tables.tables}
            for region in found.tables.regions
        }
        for metric in found.metrics
    }
    title = f"{found.tables.protocol.name}, {len(found.tables.cases)} cases"
    return score_comparison_figure(scores, title, {metric: bool(more_is_better(metric)) for metric in scores})


def _number(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.3f}"


def _regions(mask: Volume, convention: str) -> dict[str, NDArray[np.bool_]]:
    numbers = get_convention(convention)
    regions = tuple(numbers.regions)
    return dict(zip(regions, to_regions(mask.data[0], numbers, regions), strict=True))
