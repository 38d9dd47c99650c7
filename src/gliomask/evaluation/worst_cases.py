"""Find the cases with the lowest scores, with their mistakes and the arrays needed to draw them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomask.cases import Case, is_table, read_case, survey
from gliomask.errors import InputError
from gliomask.evaluation.results import Evaluation
from gliomask.evaluation.tasks import Task, plan_tasks, read_masks, regions_of
from gliomask.metrics import Mask, Mistake, find_mistakes
from gliomask.volume import match_axes

log = logging.getLogger(__name__)

# The sequences that show a region, best first: enhancement in T1 with contrast, oedema in T2-FLAIR.
_CORE = ("t1c", "t2f", "t2w", "t1n")
_WHOLE = ("t2f", "t2w", "t1c", "t1n")


@dataclass(frozen=True, eq=False)
class WorstCase:
    """A case with a low score; the arrays are `(X, Y, Z)` on the grid of the truth."""

    case: str
    dice: Mapping[str, float]
    """The Dice that the protocol reports first, by region."""
    mistakes: tuple[Mistake, ...]
    """At least one; the one that costs the most Dice first."""
    truth: Mask
    """The true mask of the region of the first mistake."""
    prediction: Mask
    """The predicted mask of the same region."""
    affine: NDArray[np.float64]
    image: NDArray[np.generic] | None = None
    """The image of a sequence that shows the region; None if the truth comes without images on its grid."""
    sequence: str | None = None


def find_worst(
    found: Evaluation,
    prediction: Path | str,
    truth: Path | str,
    *,
    labels: str | None = None,
    truth_labels: str | None = None,
    edited: bool = False,
    count: int = 6,
) -> list[WorstCase]:
    """Return the cases with the lowest mean Dice over the regions, worst first.

    The Dice is the one that the protocol reports first; an undefined one counts as 1. Cases without a prediction are
    left out because there is nothing to show, and so are cases without a mistake. Images are taken from the folder of
    the truth if it holds the sequences of the case.

    Args:
        found: The scores of these files, as returned by `evaluate`.
        prediction, truth, labels, truth_labels, edited: As for `evaluate`.
        count: The largest number of cases to return.

    Raises:
        InputError: As for `evaluate`. A case that cannot be read any more is left out, and a warning is logged.
    """
    tasks, _ = plan_tasks(Path(prediction), Path(truth), labels, truth_labels, ignore_extra=True, edited=edited)
    by_id = {task.id: task for task in tasks if task.prediction is not None}
    headline = found.protocol.headline[0]
    dice = {
        case: {region: scores[headline] for region, scores in regions.items()}
        for case, regions in found.scores.items()
        if case in by_id and regions
    }
    images = _cases_with_images(Path(truth))
    worst: list[WorstCase] = []
    for case in sorted(dice, key=lambda case: (_mean(list(dice[case].values())), case)):
        if len(worst) == count:
            break
        try:
            found_case = _inspect(by_id[case], found, dice[case], images.get(by_id[case].truth.resolve()))
        except Exception as error:  # the scores are done, and a case that cannot be drawn does not end the others
            log.warning("%s cannot be shown: %s: %s", case, type(error).__name__, error)
            continue
        if found_case is not None:
            worst.append(found_case)
    return worst


def _inspect(task: Task, found: Evaluation, dice: Mapping[str, float], case: Case | None) -> WorstCase | None:
    truth, prediction = read_masks(task)
    if prediction is None or task.prediction_convention is None:
        return None
    whole = (slice(None), slice(None), slice(None))
    truth_regions = regions_of(truth, whole, task.truth_convention, found.protocol.required_regions)
    predicted_regions = regions_of(prediction, whole, task.prediction_convention, found.protocol.required_regions)
    mistakes = [
        mistake
        for mistake in find_mistakes(truth_regions, predicted_regions, truth.spacing_mm, found.protocol)
        if mistake.region in dice
    ]
    if not mistakes:
        return None
    region = mistakes[0].region
    found_case = WorstCase(
        task.id, dice, tuple(mistakes), truth_regions[region], predicted_regions[region], truth.affine
    )
    for sequence in _WHOLE if region in ("WT", "ED") else _CORE:
        if case is not None and sequence in case.images:
            with suppress(InputError):  # the masks can be drawn without an image
                image = match_axes(read_case(case, [sequence]), truth.grid)
                if not truth.grid.difference(image.grid):
                    return replace(found_case, image=image.data[0], sequence=sequence)
    return found_case


def _cases_with_images(truth: Path) -> dict[Path, Case]:
    """Return the cases whose sequences are stored with their masks, by the path of the mask."""
    with suppress(InputError):  # a folder of masks without images
        place = truth if truth.is_dir() or is_table(truth) else truth.parent
        return {case.mask.resolve(): case for case in survey(place).cases if case.mask is not None}
    return {}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(1.0 if math.isnan(value) else value for value in values) / len(values)
