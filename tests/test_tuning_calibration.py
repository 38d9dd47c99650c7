"""Laws of calibration: a factor applied to calibrated logits is recovered as their temperature."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from gliomask.tuning.calibration import (
    Tables,
    calibration_error,
    count_logits,
    fit_temperature,
    left_out_temperatures,
    likelihood,
    round_temperature,
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


def test_a_left_out_temperature_is_that_of_the_others() -> None:
    """Each patient's is fitted to all others, and its likelihood is no better than with the one fitted to all."""
    tables = [count_logits(*calibrated(seed, 300)) for seed in range(8)]
    together = sum(tables[1:], tables[0])
    temperatures = left_out_temperatures(tables)
    assert temperatures[3] == round_temperature(fit_temperature(together - tables[3]))
    inside = np.mean([likelihood(one, fit_temperature(together)) for one in tables])
    assert np.mean([likelihood(*pair) for pair in zip(tables, temperatures, strict=True)]) >= inside


def test_temperatures_are_rounded_to_steps_of_five_percent() -> None:
    """The nearest step is at most 2.5 % away, and 1 is one of them."""
    for temperature in np.geomspace(0.2, 10, 50):
        assert round_temperature(temperature) == pytest.approx(temperature, rel=0.026)
    assert round_temperature(1.01) == 1.0
    assert round_temperature(1.03) == round_temperature(1.07) == 1.05
