"""Cases read and scored, several at a time; a broken one costs itself alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gliomask.cases import Problem, usable_cores
from gliomask.errors import InputError
from gliomask.evaluation.conventions import find_conventions
from gliomask.evaluation.pairs import Matched, find_pairs
from gliomask.labels import REGIONS, LabelConvention, check_labels, label_values
from gliomask.metrics import Mask, Spacing, joint_box
from gliomask.volume import Volume, read_volume

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Task:
    """A case to score, and what its numbers mean."""

    id: str
    truth: Path
    truth_convention: LabelConvention
    prediction: Path | None
    """None: it is missing."""
    prediction_convention: LabelConvention | None


@dataclass(frozen=True, eq=False)
class CaseMasks:
    """The regions of a case, cut to the box that holds the tumours of both sides."""

    truth: Mapping[str, Mask]
    prediction: Mapping[str, Mask] | None
    spacing_mm: Spacing
    grid: tuple[int, int, int]
    """The shape before it was cut."""


def plan_tasks(
    prediction: Path, truth: Path, labels: str | None, truth_labels: str | None, *, ignore_extra: bool
) -> tuple[list[Task], Matched]:
    """Return the cases to score, and how the files were matched.

    Raises:
        InputError: As for `evaluate`.
    """
    matched = find_pairs(prediction, truth)
    if matched.extra and not ignore_extra:
        names = list(matched.extra)
        counted = "1 prediction has" if len(names) == 1 else f"{len(names)} predictions have"
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise InputError(
            f"{prediction}: {counted} no truth in {truth}: {shown}. Is it the right folder? "
            "Remove what does not belong there, or leave it aside with --ignore-extra."
        )
    truths = {pair.id: pair.truth for pair in matched.pairs} | dict(matched.missing)
    true_numbers = find_conventions(truths, truth_labels)
    predicted_numbers = find_conventions({pair.id: pair.prediction for pair in matched.pairs}, labels)
    predictions = {pair.id: pair.prediction for pair in matched.pairs}
    tasks = [
        Task(case, path, true_numbers[case], predictions.get(case), predicted_numbers.get(case))
        for case, path in sorted(truths.items())
    ]
    return tasks, matched


def run_tasks(
    tasks: Sequence[Task],
    regions: Sequence[str],
    score: Callable[[CaseMasks], Result],
    on_case: Callable[[str], None],
) -> tuple[dict[str, Result], tuple[Problem, ...]]:
    """Return what `score` makes of each case, and the cases that failed, on as many threads as there are cores.

    numpy and the searches for nearest points leave the interpreter to others meanwhile. Whatever goes wrong with a
    case, bad input or an error of ours, becomes its problem; the log has where an error of ours came from.
    """

    def work(task: Task) -> Result | Problem:
        try:
            return score(_read(task, regions))
        except InputError as error:
            return Problem(task.id, str(error))
        except Exception as error:
            log.exception("%s", task.id)
            return Problem(task.id, f"could not be scored: {type(error).__name__}: {error}")
        finally:
            on_case(task.id)

    with ThreadPoolExecutor(usable_cores()) as pool:
        done = dict(zip([task.id for task in tasks], pool.map(work, tasks), strict=True))
    failed = tuple(result for result in done.values() if isinstance(result, Problem))
    return {case: result for case, result in done.items() if not isinstance(result, Problem)}, failed


def _read(task: Task, regions: Sequence[str]) -> CaseMasks:
    truth, prediction = read_masks(task)
    box = joint_box(*(side.data[0] != 0 for side in (truth, prediction) if side is not None))
    return CaseMasks(
        regions_of(truth, box, task.truth_convention, regions),
        None
        if prediction is None or task.prediction_convention is None
        else regions_of(prediction, box, task.prediction_convention, regions),
        truth.spacing_mm,
        truth.grid.shape,
    )


def read_masks(task: Task) -> tuple[Volume, Volume | None]:
    """Return a case's truth and prediction as label maps on one grid; no prediction where it is missing.

    Raises:
        InputError: A file is bad, holds numbers that its convention lacks, or the grids differ.
    """
    truth = read_volume(task.truth, mask=True)
    check_labels(label_values(truth.data), task.truth_convention, str(task.truth))
    if task.prediction is None or task.prediction_convention is None:
        return truth, None
    prediction = read_volume(task.prediction, mask=True)
    if difference := truth.grid.difference(prediction.grid):
        raise InputError(f"{task.prediction}: its grid differs from that of {task.truth} in {difference}.")
    check_labels(label_values(prediction.data), task.prediction_convention, str(task.prediction))
    return truth, prediction


def regions_of(
    volume: Volume, box: tuple[slice, slice, slice], convention: LabelConvention, regions: Sequence[str]
) -> dict[str, NDArray[np.bool_]]:
    """Return boolean masks of regions or tissues, cut to a box of a label map's grid."""
    labels = np.ascontiguousarray(volume.data[0][box])
    masks = {}
    for region in regions:
        table = np.zeros(256, bool)
        table[sorted(numbers_of(region, convention))] = True
        masks[region] = table[labels]
    return masks


def numbers_of(region: str, convention: LabelConvention) -> frozenset[int]:
    """Return a convention's numbers of a region (`WT`, `TC`, `ET`, `RC`) or of one tissue (`NCR`, `ED`, `CC`)."""
    if region in REGIONS:
        return convention.regions.get(region, frozenset())
    number = convention.value_of(region)
    return frozenset() if number is None else frozenset({number})
