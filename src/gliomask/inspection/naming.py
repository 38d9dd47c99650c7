"""Which image is which sequence, told from the images: names get swapped where files are renamed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from gliomask.inspection.arrangement import MEANS, MODALITIES, RELATIONS, SHAPES, SPREADS
from gliomask.inspection.sampled import Samples, take_samples
from gliomask.volume import Volume

# The log odds of the best arrangement against the given one that are said, by the number of images; one says nothing.
_ODDS = {2: 5.0, 3: 3.0, 4: 3.0}
_RIM_MM = 6.0
_FEW_SAMPLES = 2000
# Of the brain below its rim: the darkest and the brightest of one image, where CSF, vessels and tumours show.
_DARKEST, _BRIGHTEST = 0.05, 0.97


def misnamed(samples: Samples) -> str | None:
    """Name the images that look like another sequence than the one they are given as.

    Every arrangement of sequence names is scored by the distribution of each image's intensities and by how those of
    two images go together (what is darkest in T1 and brightest in T2 is CSF). Differences of scores are log odds. The
    numbers were fitted by `recipes/fit_sequences.py`.
    """
    names = list(samples.images)
    if len(names) not in _ODDS or np.count_nonzero(samples.brain) < _FEW_SAMPLES:
        return None
    shapes, relations = describe(samples)
    given = tuple(MODALITIES.index(name) for name in names)
    scores = {ways: score(shapes, relations, ways) for ways in permutations(range(4), len(names))}
    swapped, best = (max(ways, key=lambda one: scores[one]) for ways in (list(permutations(given)), scores))
    # Two files that were swapped are more likely than one file of a sequence that is not there.
    likely = swapped if scores[swapped] - scores[given] > _ODDS[len(names)] else best
    if scores[likely] - scores[given] <= _ODDS[len(names)]:
        return None
    found = [
        f"{samples.named([name])} looks like {MODALITIES[way]}"
        for name, way, ours in zip(names, likely, given, strict=True)
        if way != ours
    ]
    return f"{', '.join(found)}. Were files swapped or misnamed?"


def recognise(volume: Volume, given: Sequence[str | None]) -> tuple[str | None, ...]:
    """Return the sequence of every image, where only some are named: the given name, or the likeliest name left.

    A guess for the user to confirm; the fewer images there are, the less certain it is. None stays where nothing can be
    told (too little of a brain, too many images).

    Args:
        volume: One channel per image, all on one grid, in any orientation.
        given: For each channel a name of `t1n t1c t2w t2f`, or None. A name that is given is not used again.
    """
    unknown = [number for number, name in enumerate(given) if name is None]
    known = [(number, name) for number, name in enumerate(given) if name is not None]
    left = [number for number, name in enumerate(MODALITIES) if name not in dict(known).values()]
    channels = [str(number) for number in range(len(given))]
    samples = take_samples(volume, channels, {})
    if not unknown or len(unknown) > len(left) or len(samples.images) < len(given):
        return tuple(given)
    if np.count_nonzero(samples.brain) < _FEW_SAMPLES:
        return tuple(given)
    shapes, relations = describe(samples)
    fixed = [MODALITIES.index(name) for _, name in known]
    order = [number for number, _ in known] + unknown
    shapes, relations = shapes[order], relations[:, order][:, :, order]
    best = max(permutations(left, len(unknown)), key=lambda ways: score(shapes, relations, (*fixed, *ways)))
    found = dict(zip(unknown, (MODALITIES[way] for way in best), strict=True))
    return tuple(found.get(number, name) for number, name in enumerate(given))


def describe(samples: Samples) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the numbers by which sequences are told apart; they do not depend on the intensities' scale.

    Returns:
        Four numbers for each image, `(N, 4)`, standardised: the lengths of the upper and of the lower tail of its
        intensities and of the topmost part of the upper tail, each divided by the interquartile range, as logarithms,
        and the mean rank of the brain's outermost 6 mm. Three numbers for each pair of images, `(3, N, N)`: their rank
        correlation, and the mean rank of the first where the second is darkest and where it is brightest, from -.5 to
        .5.
    """
    brain = samples.brain
    rim = samples.rim(_RIM_MM)[brain]
    values = [image[brain] for image in samples.images.values()]
    ranks = np.stack([_ranks(one) for one in values])
    shapes = np.array([_shape(one, rank[rim]) for one, rank in zip(values, ranks, strict=True)])
    inner = ranks[:, ~rim]
    dark, bright = np.empty((2, len(inner), len(inner)))
    for number, rank in enumerate(inner):
        dark[:, number] = inner[:, rank <= np.quantile(rank, _DARKEST)].mean(axis=1) - 0.5
        bright[:, number] = inner[:, rank >= np.quantile(rank, _BRIGHTEST)].mean(axis=1) - 0.5
    return (shapes - MEANS) / SPREADS, np.stack([np.atleast_2d(np.corrcoef(ranks)), dark, bright])


def score(shapes: NDArray[np.float64], relations: NDArray[np.float64], ways: Sequence[int]) -> float:
    """Return how well these sequence names (indices of `MODALITIES`) fit the images; differences are log odds."""
    alone = sum(float(shape @ SHAPES[way]) for shape, way in zip(shapes, ways, strict=True))
    chosen = RELATIONS[:, ways][:, :, ways]
    apart = ~np.eye(len(ways), dtype=bool)
    return alone + float((relations * chosen)[:, apart].sum())


def _shape(values: NDArray[np.float32], rim: NDArray[np.float64]) -> list[float]:
    low, quarter, middle, three, high, top = np.percentile(values, [1, 25, 50, 75, 99, 99.8])
    width = float(three - quarter) or 1.0
    return [
        float(np.log(max((high - middle) / width, 0.1))),
        float(np.log(max((middle - low) / width, 0.1))),
        float(rim.mean()) if len(rim) else 0.5,
        float(np.log(max((top - high) / width, 0.01))),
    ]


def _ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return each value's rank, from 0 to 1; equal values share theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2) / len(values)
    return ranks[places]
