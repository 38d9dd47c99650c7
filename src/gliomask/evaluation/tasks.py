"""Read and score cases, several at a time; an error in one case does not affect the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from gliomask.cases import Problem
from gliomask.errors import InputError, describe
from gliomask.evaluation.conventions import find_conventions
from gliomask.evaluation.pairs import MatchedMasks, find_pairs, mask_stem
from gliomask.evaluation.records import record_of
from gliomask.execution import HERE, Where, map_cases
from gliomask.labels import REGIONS, LabelConvention, check_labels, label_values
from gliomask.metrics import Mask, Protocol, Spacing, joint_box
from gliomask.volume import Volume, match_axes, read_volume

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Task:
    """A case to score: its files and their label conventions."""

    id: str
    truth: Path
    truth_convention: LabelConvention
    prediction: Path | None
    """None if the prediction is missing."""
    prediction_convention: LabelConvention | None

    def known(self, regions: Sequence[str]) -> tuple[str, ...]:
        """Return the regions that the truth labels and, if there is one, the prediction too; only these are scored."""
        sides = [side for side in (self.truth_convention, self.prediction_convention) if side is not None]
        return tuple(region for region in regions if all(side.knows(region) for side in sides))


@dataclass(frozen=True, eq=False)
class CaseMasks:
    """The regions of a case, cropped to the bounding box of the tumour in truth and prediction."""

    truth: Mapping[str, Mask]
    prediction: Mapping[str, Mask] | None
    spacing_mm: Spacing
    grid: tuple[int, int, int]
    """The shape of the whole grid, before cropping."""


def plan_tasks(
    prediction: Path,
    truth: Path,
    labels: str | None,
    truth_labels: str | None,
    *,
    ignore_extra: bool,
    edited: bool = False,
) -> tuple[list[Task], MatchedMasks]:
    """Return the cases to score, and how the files were matched.

    Raises:
        InputError: As for `evaluate`.
    """
    matched = find_pairs(prediction, truth, edited=edited)
    if matched.extra and not ignore_extra:
        names = list(matched.extra)
        counted = "1 prediction has" if len(names) == 1 else f"{len(names)} predictions have"
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise InputError(
            f"{prediction}: {counted} no truth in {truth}: {shown}. Is it the right folder? "
            "Remove the files that do not belong there, or skip them with --ignore-extra."
            + "".join(f" {problem}" for problem in matched.problems)
        )
    truths = {pair.id: pair.truth for pair in matched.pairs} | dict(matched.missing)
    predictions = {pair.id: pair.prediction for pair in matched.pairs}
    problems: list[Problem] = []
    truth_conventions = find_conventions(truths, truth_labels, problems)
    conventions = find_conventions(predictions, labels, problems)
    unclear = {problem.name for problem in problems}
    tasks = [
        Task(case, path, truth_conventions[case], predictions.get(case), conventions.get(case))
        for case, path in sorted(truths.items())
        if case not in unclear
    ]
    return tasks, replace(matched, problems=(*matched.problems, *problems))


def run_tasks(
    tasks: Sequence[Task],
    regions: Sequence[str],
    score: Callable[[CaseMasks], Result],
    on_case: Callable[[str], None],
    where: Where = HERE,
) -> tuple[dict[str, Result], tuple[Problem, ...]]:
    """Return the result of `score` for each case, and the cases that failed, both in the order of the tasks.

    By default there is one thread per available core. Threads suffice because numpy and the nearest-neighbour searches
    release the interpreter lock. Any exception of a case, whether bad input or a defect of this program, becomes a
    problem of that case; for a defect the log has the traceback.
    """
    done: dict[str, Result | Problem] = {}
    for task, found in map_cases(_Score(regions, score), tasks, where):
        done[task.id] = Problem(task.id, str(found)) if isinstance(found, InputError) else found
        on_case(task.id)
    failed = tuple(result for task in tasks if isinstance(result := done[task.id], Problem))
    return {task.id: result for task in tasks if not isinstance(result := done[task.id], Problem)}, failed


@dataclass(frozen=True)
class _Score(Generic[Result]):
    """Reads a case and scores it."""

    regions: Sequence[str]
    score: Callable[[CaseMasks], Result]

    def __call__(self, task: Task) -> Result | Problem:
        try:
            return self.score(_read(task, self.regions))
        except InputError:
            raise
        except MemoryError:
            return Problem(task.id, "could not be scored: there is not enough memory")
        except Exception as error:
            log.info("%s", task.id, exc_info=True)
            return Problem(task.id, f"could not be scored: {describe(error)}")


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


def swapped_note(tasks: Sequence[Task]) -> list[Problem]:
    """Return a note if `predict` wrote the truths and not the predictions, as when the two were exchanged."""
    both = [task for task in tasks if task.prediction is not None]
    swapped = [task for task in both if record_of(task.truth) and not record_of(task.prediction)]
    if not swapped:
        return []
    where = f"{swapped[0].truth.with_name(mask_stem(swapped[0].truth))}.json"
    count = f"{len(swapped)} of {len(both)} cases" if len(both) > 1 else "this case"
    return [
        Problem(
            "truth",
            f"was predicted by gliomask in {count} ({where}), and the prediction was not: are the two exchanged? "
            "The prediction comes first: gliomask evaluate PREDICTION TRUTH",
        )
    ]


def keep_known(
    tasks: Sequence[Task], scores: Mapping[str, Mapping[str, Result]]
) -> tuple[dict[str, dict[str, Result]], tuple[Problem, ...]]:
    """Return the scores without the regions that a case's masks do not label, and the cases without any score left."""
    by_id = {task.id: task for task in tasks}
    kept = {
        case: {region: found[region] for region in by_id[case].known(tuple(found))} for case, found in scores.items()
    }
    nothing = tuple(
        Problem(case, "has no region that both its prediction and its truth label")
        for case, found in kept.items()
        if not found
    )
    return {case: found for case, found in kept.items() if found}, nothing


def unknown_regions(protocol: Protocol, tasks: Sequence[Task]) -> list[Problem]:
    """Return a note for each region that the masks of some cases do not label."""
    notes = []
    for region in protocol.regions:
        cases = [task.id for task in tasks if not task.known([region])]
        sides = [side for task in tasks for side in (task.truth_convention, task.prediction_convention) if side]
        names = sorted({side.name for side in sides if not side.knows(region)})
        if cases:
            where = f"{len(cases)} of {len(tasks)} cases" if len(tasks) > 1 else cases[0]
            notes.append(Problem(region, f"not scored in {where}, because {' and '.join(names)} masks do not label it"))
    return notes


def read_masks(task: Task) -> tuple[Volume, Volume | None]:
    """Return the label maps of truth and prediction on one grid; None for a missing prediction.

    A prediction whose axes are stored in another order is reoriented, which changes no voxel.

    Raises:
        InputError: A file is bad, holds values that its label convention does not define, or the grids differ.
    """
    truth = read_volume(task.truth, mask=True)
    check_labels(label_values(truth.data), task.truth_convention, str(task.truth))
    if task.prediction is None or task.prediction_convention is None:
        return truth, None
    prediction = match_axes(read_volume(task.prediction, mask=True), truth.grid)
    both = ((task.truth, truth), (task.prediction, prediction))
    if difference := truth.grid.difference(prediction.grid):
        about = [f" {path.name}: {note}" for path, volume in both for note in volume.notes]  # they may be the reason
        raise InputError(
            f"{task.prediction}: its grid differs from that of {task.truth} in {difference}.{''.join(about)}"
        )
    check_labels(label_values(prediction.data), task.prediction_convention, str(task.prediction))
    return truth, prediction


def regions_of(
    volume: Volume, box: tuple[slice, slice, slice], convention: LabelConvention, regions: Sequence[str]
) -> dict[str, NDArray[np.bool_]]:
    """Return boolean masks of regions or tissues from a label map, cropped to a box of its grid."""
    labels = np.ascontiguousarray(volume.data[0][box])
    masks = {}
    for region in regions:
        table = np.zeros(256, bool)
        table[sorted(label_values_of(region, convention))] = True
        masks[region] = table[labels]
    return masks


def label_values_of(region: str, convention: LabelConvention) -> frozenset[int]:
    """Return the label values of a region (`WT`, `TC`, `ET`, `RC`) or of a tissue (`NCR`, `ED`, `CC`)."""
    if region in REGIONS:
        return convention.regions.get(region, frozenset())
    value = convention.value_of(region)
    return frozenset() if value is None else frozenset({value})
