"""One set of predictions scored under the protocols of several years, side by side."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gliomask.cases import Problem
from gliomask.errors import InputError
from gliomask.evaluation.records import find_makers
from gliomask.evaluation.results import Evaluation, Scores, to_csv, to_json
from gliomask.evaluation.tasks import CaseMasks, Task, keep_known, plan_tasks, run_tasks, swapped_note, unknown_regions
from gliomask.execution import HERE, Where
from gliomask.files import write_text
from gliomask.metrics import Protocol, family_of, get_protocol, score_case, score_missing
from gliomask.metrics.reasons import Reason, disagree, find_reasons


@dataclass(frozen=True)
class Disagreement:
    """A region of a case whose Dice differs between the protocols."""

    case: str
    region: str
    dice: Mapping[str, float]
    """The Dice that each protocol reports first, by the protocol's name."""
    reasons: tuple[Reason, ...]

    @property
    def spread(self) -> float:
        """The largest minus the smallest Dice; infinite if one protocol leaves it undefined."""
        values = self.dice.values()
        return math.inf if any(map(math.isnan, values)) else max(values) - min(values)


@dataclass(frozen=True)
class ProtocolComparison:
    """The scores of the same predictions under several protocols."""

    evaluations: tuple[Evaluation, ...]
    """One evaluation per protocol, from the oldest to the newest, all of the same cases."""
    disagreements: tuple[Disagreement, ...]

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Cases that could not be scored; they enter no mean of any protocol."""
        return self.evaluations[0].problems

    def reasons(self) -> dict[str, list[tuple[Disagreement, Reason]]]:
        """Return the disagreements by kind of reason: the most frequent kind first, then the largest spread first."""
        kinds: dict[str, list[tuple[Disagreement, Reason]]] = defaultdict(list)
        for found in sorted(self.disagreements, key=lambda found: -found.spread):
            for reason in found.reasons:
                kinds[reason.kind].append((found, reason))
        return dict(sorted(kinds.items(), key=lambda pair: -len(pair[1])))

    def save(self, path: Path | str) -> None:
        """Write the score rows of all protocols as `.csv`, or scores, summaries and disagreements as `.json`.

        Raises:
            InputError: As for `Evaluation.save`.
        """
        path = Path(path)
        if path.suffix.lower() == ".csv":
            write_text(path, to_csv(self.evaluations))
        elif path.suffix.lower() == ".json":
            write_text(path, to_json(self._to_dict()))
        else:
            raise InputError(f"{path}: scores are written as .csv or .json; choose one of these endings.")

    def _to_dict(self) -> dict[str, object]:
        return {
            "evaluations": [found.to_dict() for found in self.evaluations],
            "disagreements": [
                {
                    "case": found.case,
                    "region": found.region,
                    "dice": dict(found.dice),
                    "reasons": [{"kind": reason.kind, "text": reason.text} for reason in found.reasons],
                }
                for found in self.disagreements
            ],
        }


def compare_protocols(
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
) -> ProtocolComparison:
    """Score predictions under the protocols of all years and explain where the protocols disagree.

    Args:
        protocol: The protocol of any year. All protocols for the same kind of tumour are compared
            (`metrics.family_of`).
        prediction, truth, labels, truth_labels, ignore_extra, edited, on_case, where: As for `evaluate`.

    Raises:
        InputError: As for `evaluate`.
    """
    rows = family_of(get_protocol(protocol))
    tasks, matched = plan_tasks(
        Path(prediction), Path(truth), labels, truth_labels, ignore_extra=ignore_extra, edited=edited
    )
    required = tuple(dict.fromkeys(region for row in rows for region in row.required_regions))
    done, failed = run_tasks(tasks, required, partial(_score, rows=rows), on_case, where)
    failed = (*matched.problems, *failed)
    missing = tuple(case for case in matched.missing if case in done)
    evaluations = tuple(
        _evaluation(row, tasks, {case: scores[row.name] for case, (scores, _) in done.items()}, failed, missing)
        for row in rows
    )
    extra = tuple(Problem(case, "has no truth and was skipped") for case in matched.extra)
    evaluations = tuple(replace(found, notes=(*found.notes, *extra)) for found in evaluations)
    by_id = {task.id: task for task in tasks}
    disagreements = tuple(
        Disagreement(case, region, _first_dice(scores, rows, region), tuple(reasons))
        for case, (scores, by_region) in sorted(done.items())
        for region, reasons in by_region.items()
        if case not in matched.missing and by_id[case].known([region])
    )
    return ProtocolComparison(evaluations, disagreements)


_ByProtocol = dict[str, Mapping[str, Scores]]


def _score(masks: CaseMasks, rows: Sequence[Protocol]) -> tuple[_ByProtocol, dict[str, list[Reason]]]:
    if masks.prediction is None:
        return {row.name: score_missing(masks.truth, masks.spacing_mm, row, grid=masks.grid) for row in rows}, {}
    scores: _ByProtocol = {
        row.name: score_case(masks.truth, masks.prediction, masks.spacing_mm, row, grid=masks.grid) for row in rows
    }
    common = [region for region in rows[0].regions if all(region in row.regions for row in rows)]
    reasons = {
        region: find_reasons(masks.truth, masks.prediction, masks.spacing_mm, region, rows)
        for region in common
        if disagree(_first_dice(scores, rows, region))
    }
    return scores, reasons


def _evaluation(
    row: Protocol,
    tasks: Sequence[Task],
    scores: Mapping[str, Mapping[str, Scores]],
    failed: tuple[Problem, ...],
    missing: tuple[str, ...],
) -> Evaluation:
    """Return the scores under one protocol, of the regions that the masks of each case label."""
    kept, nothing = keep_known(tasks, scores)
    return Evaluation(
        row,
        kept,
        (*failed, *nothing),
        missing,
        (*swapped_note(tasks), *unknown_regions(row, tasks)),
        made_by=find_makers(task.prediction for task in tasks if task.prediction is not None),
    )


def _first_dice(scores: _ByProtocol, rows: Sequence[Protocol], region: str) -> dict[str, float]:
    return {row.name: scores[row.name][region][row.headline[0]] for row in rows}
