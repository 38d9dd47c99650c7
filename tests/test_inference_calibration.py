"""Laws of calibration: a factor applied to calibrated logits is recovered as their temperature."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from gliomask.inference.postprocessing.calibration import (
    Tables,
    calibration_error,
    count_logits,
    fit_temperature,
    held_out_likelihoods,
    likelihood,
)


def calibrated(seed: int, count: int = 200_000, shift: float = -2.0) -> tuple[np.ndarray, np.ndarray]:
    """Return calibrated logits: the fraction of true voxels is their sigmoid."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(shift, 2, count)
    return logits, generator.random(count) < expit(logits)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.7, 4.0])
def test_the_temperature_undoes_a_factor(factor: float) -> None:
    """The fitted temperature of calibrated logits times a factor is that factor."""
    logits, truth = calibrated(0)
    tables = count_logits((logits * factor).astype(np.float16), truth)
    assert fit_temperature(tables) == pytest.approx(factor, rel=0.03)


def test_calibration_lowers_likelihood_and_error() -> None:
    """For overconfident logits both become those of calibrated logits."""
    logits, truth = calibrated(1)
    overconfident = count_logits(logits * 3, truth)
    temperature = fit_temperature(overconfident)
    assert likelihood(overconfident, temperature) < likelihood(overconfident) - 0.05

    assert calibration_error(overconfident, temperature) < 0.005 < 0.05 < calibration_error(overconfident)
    assert likelihood(overconfident, temperature) == pytest.approx(likelihood(count_logits(logits, truth)), abs=1e-3)


def test_the_likelihood_is_that_of_the_definition() -> None:
    """The likelihood from binned logits equals the definition up to the width of a bin."""
    logits, truth = calibrated(2, 1000)
    expected = -np.mean(np.log(np.where(truth, expit(logits / 1.5), 1 - expit(logits / 1.5))))
    assert likelihood(count_logits(logits, truth), 1.5) == pytest.approx(expected, abs=2e-3)


def test_a_certain_prediction_of_a_coin_toss_has_an_error_of_one_half() -> None:
    """A prediction of one half for the same truth has no calibration error."""
    truth = np.arange(1000) % 2 == 0
    assert calibration_error(count_logits(np.full(1000, 30.0), truth)) == pytest.approx(0.5, abs=1e-6)
    assert calibration_error(count_logits(np.zeros(1000), truth)) == pytest.approx(0, abs=2e-3)


def test_tables_add_up() -> None:
    """Tables of cases can be added and subtracted; extreme logits are counted too."""
    one, other = (count_logits(*calibrated(seed, 500)) for seed in (3, 4))
    logits, truth = (np.concatenate(parts) for parts in zip(calibrated(3, 500), calibrated(4, 500), strict=True))
    both = count_logits(logits, truth)
    for left, right in (((one + other).true, both.true), ((both - other).false, one.false)):
        np.testing.assert_array_equal(left, right)
    assert count_logits(np.array([-1e4, 1e4, np.float16(65504)]), np.array([False, True, True])).count == 3


def test_a_region_without_voxels_has_a_temperature_of_one() -> None:
    """With one class alone, the likelihood would be maximal for an extreme temperature."""
    logits = np.full(100, -3.0)
    assert fit_temperature(count_logits(logits, np.zeros(100, bool))) == 1.0
    assert fit_temperature(Tables(np.zeros(4096, int), np.zeros(4096, int))) == 1.0


def test_held_out_gain_is_less_than_the_gain_on_the_cases_themselves() -> None:
    """The held-out likelihood of each case uses the temperature fitted to the other cases."""
    tables = [count_logits(*calibrated(seed, 300)) for seed in range(8)]
    before, held_out = held_out_likelihoods(tables)
    together = sum(tables[1:], tables[0])
    inside = np.mean([likelihood(one, fit_temperature(together)) for one in tables])
    assert before == pytest.approx(np.mean([likelihood(one) for one in tables]))
    assert held_out >= inside
