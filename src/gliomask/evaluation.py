"""Predictions against truth: found by name, scored case by case, summed up with nothing left out."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomask.cases import Problem, candidates_of, classify, dataset_convention, layout_of
from gliomask.errors import InputError
from gliomask.files import write_text
from gliomask.labels import (
    LabelConvention,
    check_labels,
    detect_convention,
    get_convention,
    label_values,
    to_regions,
)
from gliomask.metrics import Protocol, get_protocol, score_case
from gliomask.volume import NIFTI_ENDINGS, Volume, read_volume

Scores = Mapping[str, float]


@dataclass(frozen=True)
class Pair:
    """A prediction and its truth."""

    id: str
    prediction: Path
    truth: Path


@dataclass(frozen=True)
class Evaluation:
    """The scores of a set of cases under one protocol."""

    protocol: Protocol
    scores: Mapping[str, Mapping[str, Scores]]
    """Case -> region -> metric -> value."""
    problems: tuple[Problem, ...]
    """Cases that could not be scored; they are in no mean."""
    notes: tuple[Problem, ...] = ()
    """Cases with a prediction or a truth alone; they are in no mean either."""

    def rows(self) -> list[dict[str, str | float]]:
        """Return a row for each case and region, sorted by case."""
        return [
            {"case": case, "region": region, **values}
            for case, regions in sorted(self.scores.items())
            for region, values in regions.items()
        ]

    def summary(self) -> list[dict[str, str | float]]:
        """Return a row for each region: how many cases, and of each metric mean, standard deviation and median.

        The deviation is that of a sample (n - 1), 0 for a single case. No case scored: no row.
        """
        table: list[dict[str, str | float]] = []
        if not self.scores:
            return table
        for region in self.protocol.regions:
            row: dict[str, str | float] = {"region": region, "cases": len(self.scores)}
            for metric in self.protocol.metrics:
                values = np.array([regions[region][metric] for regions in self.scores.values()])
                row[f"{metric}_mean"] = float(values.mean())
                row[f"{metric}_std"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
                row[f"{metric}_median"] = float(np.median(values))
            table.append(row)
        return table

    def save(self, path: Path | str) -> None:
        """Write the rows as CSV, with the protocol in each: a score without its year says nothing.

        Raises:
            InputError: The place cannot be written to.
        """
        text = io.StringIO()
        fields = ["protocol", "case", "region", *self.protocol.metrics]
        table = csv.DictWriter(text, fields, lineterminator="\n")
        table.writeheader()
        for row in self.rows():
            numbers = {key: f"{value:.6f}" if isinstance(value, float) else value for key, value in row.items()}
            table.writerow({"protocol": self.protocol.name, **numbers})
        write_text(Path(path), text.getvalue())


def evaluate(
    prediction: Path | str,
    truth: Path | str,
    *,
    protocol: str = "brats2021",
    labels: str | None = None,
    truth_labels: str | None = None,
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
        on_case: Called with the id after each case, for a progress bar.

    Returns:
        The scores. A case whose files are bad, or whose grids differ, is among the problems.

    Raises:
        InputError: A name is unknown, a folder holds no mask, no pair is found, or the conventions are ambiguous.
    """
    settings = get_protocol(protocol)
    pairs, notes = find_pairs(Path(prediction), Path(truth))
    true_numbers = _conventions({pair.id: pair.truth for pair in pairs}, truth_labels)
    predicted_numbers = _conventions({pair.id: pair.prediction for pair in pairs}, labels)

    def score(pair: Pair) -> Mapping[str, Scores] | Problem:
        try:
            return _score(pair, settings, true_numbers[pair.id], predicted_numbers[pair.id])
        except InputError as error:
            return Problem(pair.id, str(error))
        finally:
            on_case(pair.id)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        scored = dict(zip([pair.id for pair in pairs], pool.map(score, pairs), strict=True))
    failed = tuple(result for result in scored.values() if isinstance(result, Problem))
    done = {case: result for case, result in scored.items() if not isinstance(result, Problem)}
    return Evaluation(settings, done, failed, notes)


def find_pairs(prediction: Path, truth: Path) -> tuple[list[Pair], tuple[Problem, ...]]:
    """Return the masks that two places have in common, by id, and what is there on one side only.

    A place is a mask, or a folder: of cases as downloaded (their masks are taken), of masks called `ID.nii.gz` or
    `ID_seg.nii.gz`, or with masks in `labelsTr`. Two files are a pair whatever they are called.

    Raises:
        InputError: A place does not exist or holds no mask, two masks have one id, or no id is on both sides.
    """
    if prediction.is_file() and truth.is_file():
        return [Pair(_id(truth), prediction, truth)], ()
    predicted, true = _masks(prediction), _masks(truth)
    common = sorted(predicted.keys() & true.keys())
    if not common:
        raise InputError(
            f"no mask in {prediction} has a counterpart of the same id in {truth} "
            f"(ids such as {', '.join(sorted(predicted)[:2])} and {', '.join(sorted(true)[:2])})."
        )
    notes = [Problem(case, "has no prediction, and is not scored") for case in sorted(true.keys() - predicted.keys())]
    notes += [Problem(case, "has no truth, and is not scored") for case in sorted(predicted.keys() - true.keys())]
    return [Pair(case, predicted[case], true[case]) for case in common], tuple(notes)


def _masks(place: Path) -> dict[str, Path]:
    if place.is_file():
        return {_id(place): place}
    if not place.is_dir():
        raise InputError(f"{place}: no such file or folder.")
    folder = place / "labelsTr" if (place / "labelsTr").is_dir() else place
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.name.lower().endswith(NIFTI_ENDINGS) and not path.name.startswith(".") and path.is_file()
    ]
    told = {path: classify(path) for path in files}
    masks = [path for path, what in told.items() if what and what[1] == "mask"]
    if not masks:  # masks called by their id alone, as predict and nnU-Net write them
        masks = [path for path, what in told.items() if what is None and "probabilities" not in path.name]
    found: dict[str, Path] = {}
    for path in masks:
        case = _id(path)
        if case in found:
            raise InputError(f"{place}: two masks for {case}: {found[case]} and {path}. Remove one.")
        found[case] = path
    if not found:
        raise InputError(f"{place}: no mask found. Looked for ID.nii.gz and ID_seg.nii.gz in it and below.")
    return found


def _id(path: Path) -> str:
    told = classify(path)
    return told[0] if told and told[1] == "mask" else _stem(path)


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _conventions(masks: Mapping[str, Path], asked: str | None) -> dict[str, LabelConvention]:
    """Each mask's convention: the one asked for, told by the JSON beside it, its id or dataset.json, or proved."""
    if asked is not None:
        return dict.fromkeys(masks, get_convention(asked))
    told = {case: _told_convention(case, path) for case, path in masks.items()}
    unknown = [masks[case] for case, convention in told.items() if convention is None]
    values: set[int] = set()
    for path in unknown:
        with suppress(InputError):  # a damaged mask proves nothing; what is wrong with it is said when it is scored
            values.update(label_values(read_volume(path, mask=True).data))
    where = f"{unknown[0]} and {len(unknown) - 1} more" if len(unknown) > 1 else str(next(iter(unknown), ""))
    candidates = candidates_of(masks)
    proved = (detect_convention(values, where, candidates) if unknown else None) or get_convention("brats2021")
    return {case: convention or proved for case, convention in told.items()}


def _told_convention(case: str, path: Path) -> LabelConvention | None:
    beside = path.with_name(f"{_stem(path)}.json")
    try:
        name = json.loads(beside.read_text("utf-8"))["labels"]["convention"]
    except (OSError, ValueError, KeyError, TypeError):
        name = None
    if not isinstance(name, str):  # no such file, or not one that `predict` wrote
        layout = layout_of(case)
        name = layout.convention if layout else dataset_convention(path.parent.parent)
        return get_convention(name) if name else None
    try:
        return get_convention(name)
    except InputError as error:
        raise InputError(f"{beside}: {error}. Mend it, or choose with --labels.") from error


def _score(
    pair: Pair, protocol: Protocol, true_numbers: LabelConvention, predicted_numbers: LabelConvention
) -> Mapping[str, Scores]:
    truth = read_volume(pair.truth, mask=True)
    prediction = read_volume(pair.prediction, mask=True)
    if difference := truth.grid.difference(prediction.grid):
        raise InputError(f"{pair.prediction}: its grid differs from that of {pair.truth} in {difference}.")
    return score_case(
        _regions(truth, true_numbers, protocol, pair.truth),
        _regions(prediction, predicted_numbers, protocol, pair.prediction),
        truth.spacing_mm,
        protocol,
    )


def _regions(mask: Volume, convention: LabelConvention, protocol: Protocol, path: Path) -> dict[str, NDArray[np.bool_]]:
    check_labels(label_values(mask.data), convention, str(path))
    channels = to_regions(mask.data[0], convention, protocol.regions)
    return dict(zip(protocol.regions, channels, strict=True))
