"""Schedule: length, learning rate, times of validation and time left, tested with a simulated clock."""

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
    """Simulate a training; return its steps, its seconds, the steps with validation, and the end predicted at each."""
    step, seconds = 0, 0.0
    validated: list[int] = []
    predicted: list[float] = []
    while not schedule.is_over(step, seconds):
        step, seconds = step + 1, seconds + step_seconds
        schedule.step_seconds.append(step_seconds)
        left = schedule.seconds_left(step, seconds)
        assert left is not None
        predicted.append(seconds + left)
        if schedule.validates(step, seconds):
            seconds += validation_seconds
            schedule.validation_seconds, schedule.validated_at = validation_seconds, seconds
            validated.append(step)
    return step, seconds, validated, predicted


@pytest.mark.parametrize(("asked", "steps"), [({"epochs": 3}, 30), ({"steps": 25}, 25), ({}, 200)])
def test_epochs_and_steps_are_counted(asked: dict[str, int], steps: int) -> None:
    """The default is twenty epochs; validation follows each epoch and the last step."""
    taken, _, validated, _ = walk(Schedule(config(**asked), 10, 4), 1.0, 5.0)
    assert taken == steps
    assert validated == sorted({*range(10, steps + 1, 10), steps})


@pytest.mark.parametrize("step_seconds", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("validation_seconds", [1.0, 60.0])
def test_a_budget_ends_on_time_with_a_validation(step_seconds: float, validation_seconds: float) -> None:
    """At most a step late or a validation early; the last action is a validation."""
    budget = 1800.0
    schedule = Schedule(config(budget_seconds=budget), 40, 10)
    steps, seconds, validated, _ = walk(schedule, step_seconds, validation_seconds)
    assert -max(step_seconds, validation_seconds) - 1e-6 <= seconds - budget <= step_seconds
    assert validated[-1] == steps
    share = len(validated) * validation_seconds / seconds
    assert share < 0.2


def test_a_budget_shorter_than_an_epoch_still_validates() -> None:
    """Before a validation has been timed, its duration is estimated from that of a step."""
    schedule = Schedule(config(budget_seconds=100.0), 1000, 5)
    steps, seconds, validated, _ = walk(schedule, 1.0, 15.0)
    assert validated == [steps]
    assert seconds == pytest.approx(100, abs=1)


@pytest.mark.parametrize("late", [0.0, 500.0])
def test_one_step_is_taken_however_little_time_there_is(late: float) -> None:
    """Even if preparing the cases has taken longer than the whole budget."""
    schedule = Schedule(config(budget_seconds=1.0), 10, 5)
    assert not schedule.is_over(0, late)
    schedule.step_seconds.append(7.0)
    assert schedule.is_over(1, late + 7.0)
    assert schedule.validates(1, late + 7.0)


@pytest.mark.parametrize("asked", [{"epochs": 20}, {"steps": 190, "val_every": 3}, {"budget_seconds": 600.0}])
def test_the_time_left_is_predicted(asked: dict[str, float]) -> None:
    """To within three percent of the whole duration, once one validation has been timed."""
    schedule = Schedule(config(**asked), 10, 4)
    _, seconds, validated, predicted = walk(schedule, 1.0, 6.0)
    assert predicted[validated[0] + 1 :] == pytest.approx([seconds] * (len(predicted) - validated[0] - 1), rel=0.03)


def test_fewer_validations_can_be_asked_for() -> None:
    """Every third epoch and at the end; never without validation cases."""
    assert walk(Schedule(config(epochs=8, val_every=3), 10, 4), 1.0, 5.0)[2] == [30, 60, 80]
    assert walk(Schedule(config(epochs=8), 10, 0), 1.0, 5.0)[2] == []


@pytest.mark.parametrize("steps", [20, 1000])
def test_the_rate_rises_then_falls_to_a_hundredth(steps: int) -> None:
    """The cosine is fitted to the length of the training; the other schedule is constant."""
    rates = np.array([learning_rate(config(lr=1.0), step, step / steps) for step in range(steps)])
    assert rates.max() > 0.95
    assert rates[0] < 0.05
    peak = int(rates.argmax())
    assert peak <= 50
    assert np.all(np.diff(rates[peak:]) <= 0)
    assert learning_rate(config(lr=1.0), steps, 1.0) == pytest.approx(0.01)
    assert {learning_rate(config(lr=1.0, schedule="constant"), s, s / steps) for s in range(steps)} == {1.0}


def test_drawing_the_curves_takes_little_of_the_time() -> None:
    """They are drawn after each long epoch, after short epochs if drawing takes under a twentieth, and at the end."""
    schedule = Schedule(config(steps=100), 10, 0)
    schedule.drawing_seconds, schedule.drawn_at = 0.5, 100.0
    assert schedule.draws(50, 160.0)
    assert not schedule.draws(50, 101.0)
    assert schedule.draws(50, 110.0)
    assert schedule.draws(100, 100.1)
