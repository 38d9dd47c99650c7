"""Classify the mistakes of a predicted case from truth and prediction alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gliomask.metrics.lesions import Lesions, components
from gliomask.metrics.lesionwise import MatchingInput
from gliomask.metrics.masks import Mask, Spacing, check_pair, check_spacing, joint_box
from gliomask.metrics.protocols import Protocol

Kind = Literal[
    "missed lesion", "false lesion", "ET/NCR swapped", "shifted", "over-segmented", "under-segmented", "inexact border"
]
Voxel = tuple[int, int, int]

# A prediction is called shifted if moving it back leaves at most this fraction of its wrong voxels.
_LEFT_AFTER_SHIFT = 0.5

# A border is called too large or too small if one kind of wrong voxel is this many times as frequent as the other.
_ONE_SIDED = 2


@dataclass(frozen=True)
class Mistake:
    """One mistake in a region."""

    kind: Kind
    region: str
    text: str
    """A description with the numbers of this case."""
    cost: float
    """The approximate loss of the Dice that the protocol reports first for the region, 0 to 1."""
    place: Voxel
    """The indices of a voxel in the middle of the mistake."""


def find_mistakes(
    truth: Mapping[str, Mask], prediction: Mapping[str, Mask], spacing_mm: Spacing, protocol: Protocol
) -> list[Mistake]:
    """Return the mistakes of a case, the one with the largest cost first; none if truth and prediction are equal.

    Missed and false lesions are those of the protocol if it scores lesions, otherwise the connected components without
    a voxel in the other mask. ET and NCR are swapped if more of the true ET is predicted as NCR than as ET, and more of
    the true NCR as ET than as NCR; no other mistake is then reported for the two. A region is shifted if moving the
    prediction back by whole voxels corrects at least half of its wrong voxels; no other mistake is then reported for
    the region. The remaining wrong voxels lie at the borders of lesions that were found. The region is over-segmented
    if there are at least twice as many false as missed voxels, under-segmented in the opposite case, and otherwise has
    an inexact border.

    Args:
        truth, prediction: Boolean masks `(X, Y, Z)` of one shape, for all regions that the protocol requires.
        spacing_mm: Voxel size along X, Y, Z.
        protocol: The protocol by which the case was scored.

    Raises:
        InputError: Shapes differ, a mask is not boolean with three axes, or the spacing is not three positive numbers.
    """
    check_spacing(spacing_mm)
    for region in protocol.required_regions:
        check_pair(truth[region], prediction[region], region)
    box = joint_box(*(side[region] for side in (truth, prediction) for region in protocol.required_regions))
    true, predicted = ({name: side[name][box] for name in protocol.required_regions} for side in (truth, prediction))
    rules = {region: protocol.rule(region) for region in protocol.required_regions}
    found = [*_swapped(true, predicted, spacing_mm)]
    settled = ("ET", "NCR") if found else ()
    for region in protocol.regions:
        if region not in settled and (true[region] ^ predicted[region]).any():
            found += _in_region(MatchingInput(true, predicted, spacing_mm, region, rules), protocol)
    corner = [span.start for span in box]
    moved = [_moved(mistake, corner) for mistake in found]
    return sorted(moved, key=lambda mistake: -mistake.cost)


def _swapped(truth: Mapping[str, Mask], prediction: Mapping[str, Mask], spacing_mm: Spacing) -> Iterator[Mistake]:
    if not {"TC", "ET"} <= truth.keys():
        return
    (true_et, true_ncr), (predicted_et, predicted_ncr) = (
        (side["ET"], side["NCR"] if "NCR" in side else side["TC"] & ~side["ET"]) for side in (truth, prediction)
    )
    et_as_ncr, ncr_as_et = true_et & predicted_ncr, true_ncr & predicted_et
    correct = np.count_nonzero(true_et & predicted_et), np.count_nonzero(true_ncr & predicted_ncr)
    if np.count_nonzero(et_as_ncr) > correct[0] and np.count_nonzero(ncr_as_et) > correct[1]:
        wrong = et_as_ncr | ncr_as_et
        volumes = f"{_ml(et_as_ncr, spacing_mm)} of ET predicted as NCR, {_ml(ncr_as_et, spacing_mm)} of NCR as ET"
        cost = np.count_nonzero(wrong) / (np.count_nonzero(true_et) + np.count_nonzero(predicted_et))
        yield Mistake("ET/NCR swapped", "ET", f"ET and NCR swapped: {volumes}", min(1.0, float(cost)), _middle(wrong))


@dataclass(frozen=True, eq=False)
class _LesionGroup:
    """Some of the lesions of the truth or of the prediction."""

    lesions: Lesions
    numbers: tuple[int, ...]
    weight: float

    def mask(self) -> Mask:
        wanted: Mask = np.zeros(self.lesions.count + 1, bool)
        wanted[list(self.numbers)] = True
        return wanted[self.lesions.labels]

    def largest(self) -> Mask:
        largest: Mask = self.lesions.labels == max(self.numbers, key=lambda number: self.lesions.sizes[number])
        return largest


@dataclass(frozen=True, eq=False)
class _GroupedLesions:
    """The scored lesions of truth and prediction, by whether they were matched."""

    missed: _LesionGroup
    false: _LesionGroup
    found: _LesionGroup
    """The matched lesions of the truth."""
    partners: _LesionGroup
    """The matched lesions of the prediction."""
    weight: float
    """The share of the matched lesions in the score."""


def _in_region(parts: MatchingInput, protocol: Protocol) -> Iterator[Mistake]:
    region, spacing_mm = parts.region, parts.spacing_mm
    true, predicted = parts.truth[region], parts.prediction[region]
    if shift := _shift(true, predicted, spacing_mm, region):
        yield shift
        return
    lesions = (_by_lesions if protocol.lesion_metrics else _by_voxels)(parts, protocol)
    missed, false = lesions.missed, lesions.false
    if missed.numbers:
        text = f"{region}: {_counted(missed, 'missed', spacing_mm)}"
        yield Mistake("missed lesion", region, text, missed.weight, _middle(missed.largest()))
    if false.numbers:
        text = f"{region}: {_counted(false, 'false', spacing_mm)}"
        yield Mistake("false lesion", region, text, false.weight, _middle(false.largest()))
    yield from _at_border(lesions.found.mask(), lesions.partners.mask(), spacing_mm, region, lesions.weight)


def _by_voxels(parts: MatchingInput, protocol: Protocol) -> _GroupedLesions:
    """Group the components by whether they overlap; each has the weight that its voxels have in Dice."""
    true, predicted = parts.truth[parts.region], parts.prediction[parts.region]
    voxels = np.count_nonzero(true) + np.count_nonzero(predicted)
    missed, found = _split_by_overlap(true, predicted, voxels)
    false, partners = _split_by_overlap(predicted, true, voxels)
    return _GroupedLesions(missed, false, found, partners, found.weight + partners.weight)


def _split_by_overlap(mask: Mask, other: Mask, voxels: int) -> tuple[_LesionGroup, _LesionGroup]:
    """Return the components of a mask without and with a voxel in another, weighted by their fraction of `voxels`."""
    pieces = components(mask)
    overlapping = np.zeros(pieces.count + 1, bool)
    overlapping[np.unique(pieces.labels[other])] = True
    alone, shared = (tuple((np.flatnonzero(some[1:]) + 1).tolist()) for some in (~overlapping, overlapping))
    weights = (float(pieces.sizes[list(some)].sum() / voxels) for some in (alone, shared))
    return _LesionGroup(pieces, alone, next(weights)), _LesionGroup(pieces, shared, next(weights))


def _by_lesions(parts: MatchingInput, protocol: Protocol) -> _GroupedLesions:
    """Group the lesions as the protocol matches them; all lesions in the mean have the same weight."""
    matching = protocol.match(parts)
    weight = 1 / max(1, len(matching.pairs) + matching.penalized)
    penalty = weight if matching.penalized else 0.0
    partners = {other for _, others in matching.pairs for other in others}
    return _GroupedLesions(
        _LesionGroup(matching.truth, matching.missed, penalty * len(matching.missed)),
        _LesionGroup(matching.prediction, matching.false, penalty * len(matching.false)),
        _LesionGroup(matching.truth, tuple(number for number, _ in matching.pairs), 0),
        _LesionGroup(matching.prediction, tuple(sorted(partners)), 0),
        weight * len(matching.pairs),
    )


def _counted(some: _LesionGroup, what: str, spacing_mm: Spacing) -> str:
    largest = _ml(some.largest(), spacing_mm)
    if len(some.numbers) == 1:
        return f"{what} lesion of {largest}"
    return f"{len(some.numbers)} {what} lesions, the largest of {largest}"


def _at_border(truth: Mask, prediction: Mask, spacing_mm: Spacing, region: str, share: float) -> Iterator[Mistake]:
    over, under = prediction & ~truth, truth & ~prediction
    much, little = np.count_nonzero(over), np.count_nonzero(under)
    if not (much or little) or not share:
        return
    cost = float(share * (much + little) / (np.count_nonzero(truth) + np.count_nonzero(prediction)))
    amounts = ((much, over, "too much"), (little, under, "too little"))
    text = ", ".join(f"{_ml(wrong, spacing_mm)} {word}" for count, wrong, word in amounts if count)
    if much >= _ONE_SIDED * little:
        yield Mistake("over-segmented", region, f"{region} over-segmented: {text}", cost, _middle(over))
    elif little >= _ONE_SIDED * much:
        yield Mistake("under-segmented", region, f"{region} under-segmented: {text}", cost, _middle(under))
    else:
        yield Mistake("inexact border", region, f"{region}: inexact border, {text}", cost, _middle(over | under))


def _shift(truth: Mask, prediction: Mask, spacing_mm: Spacing, region: str) -> Mistake | None:
    if not (truth.any() and prediction.any()):
        return None
    wrong = truth ^ prediction
    before = np.count_nonzero(wrong)
    steps = {_step(truth, prediction), _step(_largest(truth), _largest(prediction))} - {(0, 0, 0)}
    after = {step: _wrong_after(truth, prediction, step) for step in sorted(steps)}
    step = min(after, key=lambda step: after[step], default=(0, 0, 0))
    if step == (0, 0, 0) or after[step] > _LEFT_AFTER_SHIFT * before:
        return None
    length_mm = math.hypot(*(voxels * mm for voxels, mm in zip(step, spacing_mm, strict=True)))
    cost = float(before - after[step]) / (np.count_nonzero(truth) + np.count_nonzero(prediction))
    return Mistake("shifted", region, f"{region} shifted by {length_mm:.1f} mm", cost, _middle(wrong))


def _step(truth: Mask, prediction: Mask) -> Voxel:
    """Return the offset of the prediction's centre of mass from the truth's, in whole voxels."""
    x, y, z = np.rint(np.argwhere(prediction).mean(axis=0) - np.argwhere(truth).mean(axis=0)).astype(int).tolist()
    return x, y, z


def _wrong_after(truth: Mask, prediction: Mask, step: Voxel) -> int:
    """Return the number of wrong voxels after the prediction is moved back by a step."""
    here, there = (
        tuple(slice(max(0, sign * n), size - max(0, -sign * n)) for n, size in zip(step, truth.shape, strict=True))
        for sign in (-1, 1)
    )
    both = np.count_nonzero(truth[here] & prediction[there])
    return int(np.count_nonzero(truth) + np.count_nonzero(prediction) - 2 * both)


def _largest(mask: Mask) -> Mask:
    pieces = components(mask)
    largest: Mask = pieces.labels == 1 + int(pieces.sizes[1:].argmax())
    return largest


def _middle(wrong: Mask) -> Voxel:
    """Return a voxel of a mask: in its largest slice along Z, the middle voxel of the row with the most voxels."""
    z = int(np.count_nonzero(wrong, axis=(0, 1)).argmax())
    x = int(np.count_nonzero(wrong[:, :, z], axis=1).argmax())
    row: NDArray[np.intp] = np.flatnonzero(wrong[x, :, z])
    return x, int(row[len(row) // 2]), z


def _ml(mask: Mask, spacing_mm: Spacing) -> str:
    volume_ml = np.count_nonzero(mask) * math.prod(spacing_mm) / 1000
    return f"{volume_ml:.1f} mL" if volume_ml >= 1 else f"{volume_ml:.2g} mL"


def _moved(mistake: Mistake, corner: Sequence[int]) -> Mistake:
    x, y, z = (start + index for start, index in zip(corner, mistake.place, strict=True))
    return Mistake(mistake.kind, mistake.region, mistake.text, mistake.cost, (x, y, z))
