"""Probabilities that mean what they say: a temperature a region, fitted on cases that the model has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

# Logits are counted in steps of 1/64 from -32 to 32: a probability is off by 0.002 at the most, and mostly far less.
_STEPS, _LARGEST = 64, 32
_CENTRES = (np.arange(2 * _LARGEST * _STEPS) + 0.5) / _STEPS - _LARGEST
_TEMPERATURES = (0.2, 10.0)
_BINS = 15


@dataclass(frozen=True, eq=False)
class Tables:
    """How often each logit came with what was true: all that calibration needs to know of any number of voxels."""

    false: NDArray[np.int64]
    """Voxels outside the region, by the step of their logit."""
    true: NDArray[np.int64]
    """Voxels of the region."""

    def __add__(self, other: Tables) -> Tables:
        return Tables(self.false + other.false, self.true + other.true)

    def __sub__(self, other: Tables) -> Tables:
        return Tables(self.false - other.false, self.true - other.true)

    @property
    def count(self) -> int:
        """All voxels."""
        return int(self.false.sum() + self.true.sum())


def count_logits(logits: NDArray[np.floating], truth: NDArray[np.bool_]) -> Tables:
    """Return the tables of one region's logits and what is true, two arrays of one shape."""
    steps = np.floor((logits.ravel().astype(np.float32) + _LARGEST) * _STEPS)
    steps = np.clip(steps, 0, len(_CENTRES) - 1).astype(np.int64)
    where = truth.ravel()
    return Tables(*(np.bincount(steps[mask], minlength=len(_CENTRES)) for mask in (~where, where)))


def likelihood(tables: Tables, temperature: float = 1.0) -> float:
    """Return the mean negative log-likelihood of a voxel, in nats, with logits over a temperature."""
    scaled = _CENTRES / temperature
    total = tables.false @ np.logaddexp(0, scaled) + tables.true @ np.logaddexp(0, -scaled)
    return float(total / max(1, tables.count))


def fit_temperature(tables: Tables) -> float:
    """Return the temperature from 0.2 to 10 that makes what is true likeliest; 1 where there is nothing of a region.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks.
    """
    if not (tables.true.any() and tables.false.any()):
        return 1.0
    bounds = tuple(np.log(_TEMPERATURES).tolist())
    found = minimize_scalar(lambda x: likelihood(tables, float(np.exp(x))), bounds=bounds, method="bounded")
    return float(np.exp(found.x))


def calibration_error(tables: Tables, temperature: float = 1.0) -> float:
    """Return the expected calibration error: how far 15 bins of probability are from the share that is true.

    The mean over all voxels of the difference in their bin. Most voxels of a brain are surely no tumour, so it is small
    by nature: compare, do not judge.
    """
    probability = expit(_CENTRES / temperature)
    bins = np.minimum((probability * _BINS).astype(np.int64), _BINS - 1)
    both = tables.false + tables.true
    said, true = (np.bincount(bins, weights, minlength=_BINS) for weights in (both * probability, tables.true))
    return float(np.abs(said - true).sum() / max(1, tables.count))


def held_out_likelihoods(tables: Sequence[Tables]) -> tuple[float, float]:
    """Return the mean likelihood over cases as they are, and with the temperature that all other cases give."""
    total = sum(tables[1:], tables[0])
    before = [likelihood(one) for one in tables]
    after = [likelihood(one, fit_temperature(total - one)) for one in tables]
    return float(np.mean(before)), float(np.mean(after))
