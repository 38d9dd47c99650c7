"""Calibration of probabilities: one temperature for each region, fitted to cases the model was not trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

# Logits are counted in bins of width 1/64 from -32 to 32, which changes a probability by at most 0.002.
_STEPS, _LARGEST = 64, 32
_CENTRES = (np.arange(2 * _LARGEST * _STEPS) + 0.5) / _STEPS - _LARGEST
_TEMPERATURES = (0.2, 10.0)
_STEP = 1.05
_BINS = 15


@dataclass(frozen=True, eq=False)
class Tables:
    """Histograms of the logits inside and outside a region: all that calibration needs, for any number of voxels."""

    false: NDArray[np.int64]
    """The number of voxels outside the region in each bin of the logit."""
    true: NDArray[np.int64]
    """The number of voxels of the region in each bin of the logit."""

    def __add__(self, other: Tables) -> Tables:
        return Tables(self.false + other.false, self.true + other.true)

    def __sub__(self, other: Tables) -> Tables:
        return Tables(self.false - other.false, self.true - other.true)

    @property
    def count(self) -> int:
        """The number of all voxels."""
        return int(self.false.sum() + self.true.sum())


def count_logits(logits: NDArray[np.floating], truth: NDArray[np.bool_]) -> Tables:
    """Return the tables of one region, from its logits and its true mask, two arrays of the same shape."""
    steps = np.floor((logits.ravel().astype(np.float32) + _LARGEST) * _STEPS)
    steps = np.clip(steps, 0, len(_CENTRES) - 1).astype(np.int64)
    where = truth.ravel()
    return Tables(*(np.bincount(steps[mask], minlength=len(_CENTRES)) for mask in (~where, where)))


def likelihood(tables: Tables, temperature: float = 1.0) -> float:
    """Return the mean negative log-likelihood of a voxel in nats, with the logits divided by a temperature."""
    scaled = _CENTRES / temperature
    total = tables.false @ np.logaddexp(0, scaled) + tables.true @ np.logaddexp(0, -scaled)
    return float(total / max(1, tables.count))


def fit_temperature(tables: Tables) -> float:
    """Return the temperature from 0.2 to 10 of maximum likelihood; 1 if no voxel or every voxel is in the region.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks.
    """
    if not (tables.true.any() and tables.false.any()):
        return 1.0
    bounds = tuple(np.log(_TEMPERATURES).tolist())
    found = minimize_scalar(lambda x: likelihood(tables, float(np.exp(x))), bounds=bounds, method="bounded")
    return float(np.exp(found.x))


def calibration_error(tables: Tables, temperature: float = 1.0) -> float:
    """Return the expected calibration error with 15 bins of probability.

    It is the mean over all voxels of the absolute difference between the predicted probability and the true fraction of
    their bin. It is always small, because most voxels of a brain are clearly background, so it should be used for
    comparisons only.
    """
    probability = expit(_CENTRES / temperature)
    bins = np.minimum((probability * _BINS).astype(np.int64), _BINS - 1)
    both = tables.false + tables.true
    predicted, true = (np.bincount(bins, weights, minlength=_BINS) for weights in (both * probability, tables.true))
    return float(np.abs(predicted - true).sum() / max(1, tables.count))


def round_temperature(temperature: float) -> float:
    """Return the nearest power of 1.05, to three decimals.

    Temperatures that are fitted to almost the same cases are then mostly equal, so that scores need not be computed
    for each of them. The likelihood is flat near its maximum, so that a step of 5 % hardly changes it.
    """
    return round(_STEP ** round(math.log(temperature, _STEP)), 3)


def left_out_temperatures(tables: Sequence[Tables]) -> list[float]:
    """Return for each patient the temperature that is fitted to all others; see `round_temperature`.

    Args:
        tables: Those of each patient; at least two.
    """
    total = sum(tables[1:], tables[0])
    return [round_temperature(fit_temperature(total - one)) for one in tables]
