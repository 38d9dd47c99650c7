"""Predictions against truth: found by name, scored case by case, summed up with nothing left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gliomask.cases import Problem
from gliomask.evaluation.compare import Comparison, Disagreement, compare_protocols
from gliomask.evaluation.contest import Contest, Duel, compare_scores
from gliomask.evaluation.entrants import Entrant, Field, read_entrant, read_field
from gliomask.evaluation.paired import PairedTest, compare_paired
from gliomask.evaluation.pairs import Matched, Pair, find_pairs
from gliomask.evaluation.summary import Statistics, describe
from gliomask.evaluation.table import Evaluation, Scores
from gliomask.evaluation.work import CaseMasks, Task, numbers_of, plan_tasks, run_tasks
from gliomask.evaluation.worst import Finding, find_worst
from gliomask.metrics import Protocol, get_protocol, score_case, score_missing

__all__ = [
    "Comparison",
    "Contest",
    "Disagreement",
    "Duel",
    "Entrant",
    "Evaluation",
    "Field",
    "Finding",
    "Matched",
    "Pair",
    "PairedTest",
    "Statistics",
    "Task",
    "compare_paired",
    "compare_protocols",
    "compare_scores",
    "describe",
    "evaluate",
    "evaluate_tasks",
    "find_pairs",
    "find_worst",
    "read_entrant",
    "read_field",
]


def evaluate(
    prediction: Path | str,
    truth: Path | str,
    *,
    protocol: str = "brats2021",
    labels: str | None = None,
    truth_labels: str | None = None,
    ignore_extra: bool = False,
    on_case: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Score predicted masks against true ones.

    Args:
        prediction: A mask, or a folder of masks or cases; see `find_pairs`.
        truth: Likewise.
        protocol: A name from `metrics.PROTOCOLS`.
        labels: The predictions' label convention; by default what the JSON that `predict` wrote beside a mask says, or
            the layout that the id belongs to, or what the numbers of all other masks prove together.
        truth_labels: The truth's; found likewise.
        ignore_extra: Leave predictions without a truth aside, and note them, instead of refusing them.
        on_case: Called with the id after each case, for a progress bar.

    Returns:
        The scores. A case without a prediction has the worst scores there are (`metrics.score_missing`) and is listed.
        One whose files are bad, or whose grids differ, is among the problems and in no mean.

    Raises:
        InputError: A name is unknown, a folder holds no mask, no pair is found, a prediction has no truth, or the
            conventions are ambiguous.
    """
    get_protocol(protocol)  # an unknown name is said before any file is read
    tasks, matched = plan_tasks(Path(prediction), Path(truth), labels, truth_labels, ignore_extra=ignore_extra)
    notes = [Problem(case, "has no truth, and is left aside") for case in matched.extra]
    found = evaluate_tasks(tasks, protocol=protocol, on_case=on_case)
    return replace(found, notes=(*notes, *found.notes))


def evaluate_tasks(
    tasks: Sequence[Task], *, protocol: str = "brats2021", on_case: Callable[[str], None] = lambda _: None
) -> Evaluation:
    """Score cases whose files and conventions are known already; see `evaluate`.

    Raises:
        InputError: There is no such protocol.
    """
    row = get_protocol(protocol)
    scores, failed = run_tasks(tasks, row.needs, lambda masks: _score(masks, row), on_case)
    missing = tuple(task.id for task in tasks if task.prediction is None and task.id in scores)
    return Evaluation(row, scores, failed, missing, tuple(_never_there(row, tasks)))


def _score(masks: CaseMasks, protocol: Protocol) -> Mapping[str, Scores]:
    if masks.prediction is None:
        return score_missing(masks.truth, masks.spacing_mm, protocol, grid=masks.grid)
    return score_case(masks.truth, masks.prediction, masks.spacing_mm, protocol, grid=masks.grid)


def _never_there(protocol: Protocol, tasks: Sequence[Task]) -> list[Problem]:
    """Regions for which no truth has a number: scored, as the year has it, on empty masks."""
    conventions = {task.truth_convention.name: task.truth_convention for task in tasks}
    return [
        Problem(region, f"the truth's labels ({', '.join(conventions)}) have none: always empty")
        for region in protocol.regions
        if not any(numbers_of(region, convention) for convention in conventions.values())
    ]
