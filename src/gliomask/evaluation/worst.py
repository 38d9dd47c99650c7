"""The cases with the lowest scores, each with what went wrong and all that is needed to look at it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomask.cases import Case, find_cases, read_case
from gliomask.errors import InputError
from gliomask.evaluation.table import Evaluation
from gliomask.evaluation.work import Task, plan_tasks, read_masks, regions_of
from gliomask.metrics import Mask, Mistake, find_mistakes

# What shows a region best, first: enhancement in T1 with contrast, oedema in T2-FLAIR.
_CORE = ("t1c", "t2f", "t2w", "t1n")
_WHOLE = ("t2f", "t2w", "t1c", "t1n")


@dataclass(frozen=True, eq=False)
class Finding:
    """A case that went wrong; the arrays are `(X, Y, Z)` on the truth's grid."""

    case: str
    dice: Mapping[str, float]
    """The protocol's own Dice of each region."""
    mistakes: tuple[Mistake, ...]
    """At least one, the costliest first."""
    truth: Mask
    """Of the region of the costliest mistake; beside it the prediction's."""
    prediction: Mask
    affine: NDArray[np.float64]
    image: NDArray[np.generic] | None = None
    """Of a sequence that shows the region; None where the truth comes without images on its grid."""
    sequence: str | None = None


def find_worst(
    found: Evaluation,
    prediction: Path | str,
    truth: Path | str,
    *,
    labels: str | None = None,
    truth_labels: str | None = None,
    count: int = 6,
) -> list[Finding]:
    """Return the cases with the lowest mean over the regions of the protocol's own Dice, the worst first.

    A score that is none counts as 1. Cases without a prediction are not among them, as there is nothing to see, nor are
    those without a mistake. Images are taken from the truth's folder, where it holds the sequences of the case.

    Args:
        found: The scores of these files, as `evaluate` gave them.
        prediction, truth, labels, truth_labels: As for `evaluate`.
        count: How many at most.

    Raises:
        InputError: As for `evaluate`; a file has become unreadable since.
    """
    tasks, _ = plan_tasks(Path(prediction), Path(truth), labels, truth_labels, ignore_extra=True)
    by_id = {task.id: task for task in tasks if task.prediction is not None}
    headline = found.protocol.headline[0]
    dice = {
        case: {region: scores[headline] for region, scores in regions.items()}
        for case, regions in found.scores.items()
        if case in by_id
    }
    images = _cases_with_images(Path(truth))
    worst: list[Finding] = []
    for case in sorted(dice, key=lambda case: (_mean(list(dice[case].values())), case)):
        if len(worst) == count:
            break
        if finding := _look_at(by_id[case], found, dice[case], images.get(by_id[case].truth.resolve())):
            worst.append(finding)
    return worst


def _look_at(task: Task, found: Evaluation, dice: Mapping[str, float], case: Case | None) -> Finding | None:
    truth, prediction = read_masks(task)
    if prediction is None or task.prediction_convention is None:
        return None
    whole = (slice(None), slice(None), slice(None))
    ours = regions_of(truth, whole, task.truth_convention, found.protocol.needs)
    theirs = regions_of(prediction, whole, task.prediction_convention, found.protocol.needs)
    mistakes = find_mistakes(ours, theirs, truth.spacing_mm, found.protocol)
    if not mistakes:
        return None
    region = mistakes[0].region
    finding = Finding(task.id, dice, tuple(mistakes), ours[region], theirs[region], truth.affine)
    for sequence in _WHOLE if region in ("WT", "ED") else _CORE:
        if case is not None and sequence in case.images:
            with suppress(InputError):  # the masks are what the picture is about
                image = read_case(case, [sequence])
                if not truth.grid.difference(image.grid):
                    return replace(finding, image=image.data[0], sequence=sequence)
    return finding


def _cases_with_images(truth: Path) -> dict[Path, Case]:
    """The cases whose sequences lie with their masks, by the mask."""
    with suppress(InputError):  # masks alone
        folder = truth if truth.is_dir() else truth.parent
        return {case.mask.resolve(): case for case in find_cases(folder) if case.mask is not None}
    return {}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(1.0 if math.isnan(value) else value for value in values) / len(values)
