"""Score predicted masks against true ones: match files, score cases, summarise, and compare scores.

Two kinds of comparison live here. `protocol_comparison` scores one set of predictions under the protocols of several
years; `score_comparison` compares several score tables of the same cases with each other. The comparison of training
runs is part of `gliomask.training`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from gliomask.cases import Problem
from gliomask.evaluation.pairs import MaskPair, MatchedMasks, find_pairs
from gliomask.evaluation.protocol_comparison import Disagreement, ProtocolComparison, compare_protocols
from gliomask.evaluation.ranking import RankedCase, Ranking, rank_predictions
from gliomask.evaluation.records import find_makers
from gliomask.evaluation.results import Evaluation, Scores
from gliomask.evaluation.score_comparison import PairedDifference, ScoreComparison, compare_scores
from gliomask.evaluation.score_tables import ComparableTables, ScoreTable, read_score_table, read_score_tables
from gliomask.evaluation.significance import PairedTest, paired_test
from gliomask.evaluation.summary import Statistics, describe
from gliomask.evaluation.tasks import (
    CaseMasks,
    Task,
    keep_known,
    label_values_of,
    plan_tasks,
    run_tasks,
    swapped_note,
    unknown_regions,
)
from gliomask.evaluation.worst_cases import WorstCase, find_worst
from gliomask.execution import HERE, Where
from gliomask.metrics import Protocol, get_protocol, score_case, score_missing

__all__ = [
    "ComparableTables",
    "Disagreement",
    "Evaluation",
    "MaskPair",
    "MatchedMasks",
    "PairedDifference",
    "PairedTest",
    "ProtocolComparison",
    "RankedCase",
    "Ranking",
    "ScoreComparison",
    "ScoreTable",
    "Statistics",
    "Task",
    "WorstCase",
    "compare_protocols",
    "compare_scores",
    "describe",
    "evaluate",
    "evaluate_tasks",
    "find_pairs",
    "find_worst",
    "paired_test",
    "rank_predictions",
    "read_score_table",
    "read_score_tables",
]


def evaluate(
    prediction: Path | str,
    truth: Path | str,
    *,
    protocol: str = "brats2021",
    labels: str | None = None,
    truth_labels: str | None = None,
    ignore_extra: bool = False,
    edited: bool = False,
    on_case: Callable[[str], None] = lambda _: None,
    where: Where = HERE,
) -> Evaluation:
    """Score predicted masks against true ones.

    Args:
        prediction: A mask, or a folder of masks or cases; see `find_pairs`.
        truth: The same kinds of input as `prediction`.
        protocol: A name from `metrics.PROTOCOLS`.
        labels: The label convention of the predictions. By default it is taken from the JSON file that `predict` wrote
            beside a mask, or from the layout that the case id belongs to, or it is inferred from the values of all
            remaining masks together.
        truth_labels: The label convention of the truth, determined in the same way.
        ignore_extra: Skip predictions that have no truth and list them in the notes, instead of raising an error.
        edited: Score masks that were corrected by hand (`ID_edited.nii.gz`) in place of the predictions beside them.
            The notes say which were scored.
        on_case: Called with the case id after each case, for example to move a progress bar.
        where: Where the cases are scored.

    Returns:
        The scores. A region that the masks of a case do not label (`LabelConvention.known`) has no scores for this
        case, and a note says so. A case without a prediction gets the worst possible scores (`metrics.score_missing`)
        and is listed as missing. A case whose files are bad, whose grids differ, or whose two masks label no common
        region, and a folder that cannot be read are listed as problems and enter no mean.

    Raises:
        InputError: A name is unknown, a folder holds no mask, no prediction matches a truth, a prediction has no truth,
            or the label convention is ambiguous.
    """
    get_protocol(protocol)  # report an unknown name before any file is read
    tasks, matched = plan_tasks(
        Path(prediction), Path(truth), labels, truth_labels, ignore_extra=ignore_extra, edited=edited
    )
    notes = [*matched.notes, *(Problem(case, "has no truth and was skipped") for case in matched.extra)]
    found = evaluate_tasks(tasks, protocol=protocol, on_case=on_case, where=where)
    return replace(
        found,
        problems=(*matched.problems, *found.problems),
        notes=(*found.notes, *notes),
        made_by=find_makers(task.prediction for task in tasks if task.prediction is not None),
    )


def evaluate_tasks(
    tasks: Sequence[Task],
    *,
    protocol: str = "brats2021",
    on_case: Callable[[str], None] = lambda _: None,
    where: Where = HERE,
) -> Evaluation:
    """Score cases whose files and label conventions are already known; see `evaluate`.

    Raises:
        InputError: The protocol is unknown.
    """
    row = get_protocol(protocol)
    found, failed = run_tasks(tasks, row.required_regions, partial(_score, protocol=row), on_case, where)
    scores, nothing = keep_known(tasks, found)
    missing = tuple(task.id for task in tasks if task.prediction is None and task.id in scores)
    notes = (*swapped_note(tasks), *unknown_regions(row, tasks), *_unlabelled_regions(row, tasks))
    return Evaluation(row, scores, (*failed, *nothing), missing, notes)


def _score(masks: CaseMasks, protocol: Protocol) -> Mapping[str, Scores]:
    if masks.prediction is None:
        return score_missing(masks.truth, masks.spacing_mm, protocol, grid=masks.grid)
    return score_case(masks.truth, masks.prediction, masks.spacing_mm, protocol, grid=masks.grid)


def _unlabelled_regions(protocol: Protocol, tasks: Sequence[Task]) -> list[Problem]:
    """Return a note for each region that is known to be empty in every truth: its convention has no value for it."""
    conventions = {task.truth_convention.name: task.truth_convention for task in tasks}
    return [
        Problem(
            region, f"the label convention of the truth ({', '.join(conventions)}) has no value for it: always empty"
        )
        for region in protocol.regions
        if any(task.known([region]) for task in tasks)
        and not any(label_values_of(region, convention) for convention in conventions.values())
    ]
