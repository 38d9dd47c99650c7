"""Schedule: how long, how fast, when to validate, and the time left; with a clock of our own."""

from __future__ import annotations

import numpy as np
import pytest

from gliomask.training.config import TrainConfig
from gliomask.training.schedule import Schedule, learning_rate


def config(**changes: object) -> TrainConfig:
    return TrainConfig.model_validate(changes)


def walk(
    schedule: Schedule, step_seconds: float, validation_seconds: float
) -> tuple[int, float, list[int], list[float]]:
    """Train by an imaginary clock: steps, seconds, where it validated, and the end it foresaw after each."""
    step, seconds = 0, 0.0
    validated: list[int] = []
    foreseen: list[float] = []
    while not schedule.is_over(step, seconds):
        step, seconds = step + 1, seconds + step_seconds
        schedule.step_seconds.append(step_seconds)
        left = schedule.seconds_left(step, seconds)
        assert left is not None
        foreseen.append(seconds + left)
        if schedule.validates(step, seconds):
            seconds += validation_seconds
            schedule.validation_seconds, schedule.validated_at = validation_seconds, seconds
            validated.append(step)
    return step, seconds, validated, foreseen


@pytest.mark.parametrize(("asked", "steps"), [({"epochs": 3}, 30), ({"steps": 25}, 25), ({}, 200)])
def test_epochs_and_steps_are_counted(asked: dict[str, int], steps: int) -> None:
    """Twenty epochs where nothing is said; validation at each epoch's end and at the very end."""
    taken, _, validated, _ = walk(Schedule(config(**asked), 10, 4), 1.0, 5.0)
    assert taken == steps
    assert validated == sorted({*range(10, steps + 1, 10), steps})


@pytest.mark.parametrize("step_seconds", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("validation_seconds", [1.0, 60.0])
def test_a_budget_ends_on_time_with_a_validation(step_seconds: float, validation_seconds: float) -> None:
    """Never late by more than a step, never early by more than a validation; the last thing done is to validate."""
    budget = 1800.0
    schedule = Schedule(config(budget_seconds=budget), 40, 10)
    steps, seconds, validated, _ = walk(schedule, step_seconds, validation_seconds)
    assert -max(step_seconds, validation_seconds) - 1e-6 <= seconds - budget <= step_seconds
    assert validated[-1] == steps
    share = len(validated) * validation_seconds / seconds
    assert share < 0.2


def test_a_budget_shorter_than_an_epoch_still_validates() -> None:
    """Time is kept for it before any has been timed, by the cost of a step."""
    schedule = Schedule(config(budget_seconds=100.0), 1000, 5)
    steps, seconds, validated, _ = walk(schedule, 1.0, 15.0)
    assert validated == [steps]
    assert seconds == pytest.approx(100, abs=1)


@pytest.mark.parametrize("late", [0.0, 500.0])
def test_one_step_is_taken_however_little_time_there_is(late: float) -> None:
    """Cases that took longer to prepare than the whole training may leave it none."""
    schedule = Schedule(config(budget_seconds=1.0), 10, 5)
    assert not schedule.is_over(0, late)
    schedule.step_seconds.append(7.0)
    assert schedule.is_over(1, late + 7.0)
    assert schedule.validates(1, late + 7.0)


@pytest.mark.parametrize("asked", [{"epochs": 20}, {"steps": 190, "val_every": 3}, {"budget_seconds": 600.0}])
def test_the_time_left_is_right(asked: dict[str, float]) -> None:
    """Within three percent of the whole, once one validation has been timed."""
    schedule = Schedule(config(**asked), 10, 4)
    _, seconds, validated, foreseen = walk(schedule, 1.0, 6.0)
    assert foreseen[validated[0] + 1 :] == pytest.approx([seconds] * (len(foreseen) - validated[0] - 1), rel=0.03)


def test_fewer_validations_can_be_asked_for() -> None:
    """Every third epoch, and the end; none without cases."""
    assert walk(Schedule(config(epochs=8, val_every=3), 10, 4), 1.0, 5.0)[2] == [30, 60, 80]
    assert walk(Schedule(config(epochs=8), 10, 0), 1.0, 5.0)[2] == []


@pytest.mark.parametrize("steps", [20, 1000])
def test_the_rate_rises_then_falls_to_a_hundredth(steps: int) -> None:
    """The schedule is fitted to the length; the other choice is constant."""
    rates = np.array([learning_rate(config(lr=1.0), step, step / steps) for step in range(steps)])
    assert rates.max() > 0.95
    assert rates[0] < 0.05
    peak = int(rates.argmax())
    assert peak <= 50
    assert np.all(np.diff(rates[peak:]) <= 0)
    assert learning_rate(config(lr=1.0), steps, 1.0) == pytest.approx(0.01)
    assert {learning_rate(config(lr=1.0, schedule="constant"), s, s / steps) for s in range(steps)} == {1.0}


def test_curves_are_drawn_as_often_as_costs_little() -> None:
    """After each epoch of a minute; of epochs of a second, when a twentieth of the time has not gone into it; last."""
    schedule = Schedule(config(steps=100), 10, 0)
    schedule.drawing_seconds, schedule.drawn_at = 0.5, 100.0
    assert schedule.draws(50, 160.0)
    assert not schedule.draws(50, 101.0)
    assert schedule.draws(50, 110.0)
    assert schedule.draws(100, 100.1)
