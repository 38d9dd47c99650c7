"""What went wrong in a case, in a word: told from truth and prediction alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gliomask.metrics.lesions import Lesions, components
from gliomask.metrics.lesionwise import Parts
from gliomask.metrics.masks import Mask, Spacing, check_pair, check_spacing, joint_box
from gliomask.metrics.protocols import Protocol

Kind = Literal[
    "missed lesion", "false lesion", "ET/NCR swapped", "shifted", "over-segmented", "under-segmented", "inexact border"
]
Voxel = tuple[int, int, int]

# Moved back, a prediction has at most this part of its wrong voxels left: then it was shifted.
_LEFT_AFTER_SHIFT = 0.5

# So many times more on one side of the border than on the other: then it is too large, or too small.
_ONE_SIDED = 2


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong in a region."""

    kind: Kind
    region: str
    text: str
    """With the numbers of this case."""
    cost: float
    """About how much of the protocol's own Dice of the region it takes, 0 to 1."""
    place: Voxel
    """A voxel in the midst of it, by its indices."""


def find_mistakes(
    truth: Mapping[str, Mask], prediction: Mapping[str, Mask], spacing_mm: Spacing, protocol: Protocol
) -> list[Mistake]:
    """Return what went wrong in a case, the costliest mistake first; nothing where both sides are equal.

    Missed and false lesions are those of the protocol where it scores by lesions, else pieces without a voxel in the
    other mask. ET and NCR are swapped where the truth's ET is more NCR than ET in the prediction, and its NCR more ET;
    nothing else is then said of the two. A region is shifted where moving the prediction back, by whole voxels, rights
    half of its wrong voxels or more; nothing else is then said of it. What is left lies at the borders of lesions that
    were found: too much is at least twice too little (over-segmented), the other way round, or neither.

    Args:
        truth, prediction: Boolean masks `(X, Y, Z)` of one shape, all regions that the protocol needs.
        spacing_mm: Voxel size along X, Y, Z.
        protocol: The rules by which the case was scored.

    Raises:
        InputError: Shapes differ, a mask is not boolean with three axes, or the spacing is not three positive numbers.
    """
    check_spacing(spacing_mm)
    for region in protocol.needs:
        check_pair(truth[region], prediction[region], region)
    box = joint_box(*(side[region] for side in (truth, prediction) for region in protocol.needs))
    ours, theirs = ({name: side[name][box] for name in protocol.needs} for side in (truth, prediction))
    rules = {region: protocol.rule(region) for region in protocol.needs}
    found = [*_swapped(ours, theirs, spacing_mm)]
    settled = ("ET", "NCR") if found else ()
    for region in protocol.regions:
        if region not in settled and (ours[region] ^ theirs[region]).any():
            found += _in_region(Parts(ours, theirs, spacing_mm, region, rules), protocol)
    corner = [span.start for span in box]
    moved = [_moved(mistake, corner) for mistake in found]
    return sorted(moved, key=lambda mistake: -mistake.cost)


def _swapped(truth: Mapping[str, Mask], prediction: Mapping[str, Mask], spacing_mm: Spacing) -> Iterator[Mistake]:
    if not {"TC", "ET"} <= truth.keys():
        return
    (ours, our_core), (theirs, their_core) = (
        (side["ET"], side["NCR"] if "NCR" in side else side["TC"] & ~side["ET"]) for side in (truth, prediction)
    )
    et_as_core, core_as_et = ours & their_core, our_core & theirs
    right = np.count_nonzero(ours & theirs), np.count_nonzero(our_core & their_core)
    if np.count_nonzero(et_as_core) > right[0] and np.count_nonzero(core_as_et) > right[1]:
        wrong = et_as_core | core_as_et
        volumes = f"{_ml(et_as_core, spacing_mm)} of ET taken for NCR, {_ml(core_as_et, spacing_mm)} of NCR for ET"
        cost = np.count_nonzero(wrong) / (np.count_nonzero(ours) + np.count_nonzero(theirs))
        yield Mistake("ET/NCR swapped", "ET", f"ET and NCR swapped: {volumes}", min(1.0, float(cost)), _middle(wrong))


@dataclass(frozen=True, eq=False)
class _Some:
    """Some of one side's lesions."""

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
class _Sorted:
    """The lesions of both sides, but for those that do not count."""

    missed: _Some
    false: _Some
    found: _Some
    """Of the truth; beside it those of the prediction."""
    partners: _Some
    weight: float
    """Of what was found."""


def _in_region(parts: Parts, protocol: Protocol) -> Iterator[Mistake]:
    region, spacing_mm = parts.region, parts.spacing_mm
    ours, theirs = parts.truth[region], parts.prediction[region]
    if shift := _shift(ours, theirs, spacing_mm, region):
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


def _by_voxels(parts: Parts, protocol: Protocol) -> _Sorted:
    """The pieces with and without a common voxel; each weighs as it does in Dice."""
    ours, theirs = parts.truth[parts.region], parts.prediction[parts.region]
    voxels = np.count_nonzero(ours) + np.count_nonzero(theirs)
    missed, found = _parted(ours, theirs, voxels)
    false, partners = _parted(theirs, ours, voxels)
    return _Sorted(missed, false, found, partners, found.weight + partners.weight)


def _parted(mask: Mask, other: Mask, voxels: int) -> tuple[_Some, _Some]:
    """Return the pieces of a mask without and with a voxel in another, weighed by their share of so many voxels."""
    pieces = components(mask)
    met = np.zeros(pieces.count + 1, bool)
    met[np.unique(pieces.labels[other])] = True
    alone, shared = (tuple((np.flatnonzero(some[1:]) + 1).tolist()) for some in (~met, met))
    weights = (float(pieces.sizes[list(some)].sum() / voxels) for some in (alone, shared))
    return _Some(pieces, alone, next(weights)), _Some(pieces, shared, next(weights))


def _by_lesions(parts: Parts, protocol: Protocol) -> _Sorted:
    """The lesions that the protocol calls missed, false, and found; each weighs like another, if it weighs at all."""
    matching = protocol.match(parts)
    weight = 1 / max(1, len(matching.pairs) + matching.charged)
    charge = weight if matching.charged else 0.0
    partners = {other for _, others in matching.pairs for other in others}
    return _Sorted(
        _Some(matching.truth, matching.missed, charge * len(matching.missed)),
        _Some(matching.prediction, matching.false, charge * len(matching.false)),
        _Some(matching.truth, tuple(number for number, _ in matching.pairs), 0),
        _Some(matching.prediction, tuple(sorted(partners)), 0),
        weight * len(matching.pairs),
    )


def _counted(some: _Some, what: str, spacing_mm: Spacing) -> str:
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
    """How far the prediction's centre lies from the truth's, in whole voxels."""
    x, y, z = np.rint(np.argwhere(prediction).mean(axis=0) - np.argwhere(truth).mean(axis=0)).astype(int).tolist()
    return x, y, z


def _wrong_after(truth: Mask, prediction: Mask, step: Voxel) -> int:
    """Count the wrong voxels once the prediction is moved back by a step."""
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
    """A voxel of a mask: in the plane across Z that has most of it, there in the fullest row, there the middle one."""
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
