"""The progress of a training run, by steps or by the clock, from which learning rate, end and time left follow."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from gliomask.training.config import TrainConfig

# The fraction of the time that validation takes under a time budget.
_VALIDATION_SHARE = 0.1
# The largest fraction of the time that drawing the curves takes; it matters when epochs take only about a second.
_DRAWING_SHARE = 0.05
# The assumed cost of a validation case in training steps until one has been timed: eight windows, forward only.
_STEPS_A_CASE = 3


@dataclass
class Schedule:
    """The length of a training run and the measured durations of its parts, in seconds.

    `config`, `steps_per_epoch` and `validation_cases` are fixed; the caller updates the other fields while training.
    """

    config: TrainConfig
    steps_per_epoch: int
    validation_cases: int
    step_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=50))
    validation_seconds: float | None = None
    """Duration of the last validation."""
    validated_at: float = 0.0
    drawing_seconds: float = 0.0
    """How long the curves took to draw the last time."""
    drawn_at: float = 0.0

    @property
    def steps(self) -> int | None:
        """The number of steps of the whole training; None under a time budget."""
        if self.config.steps is not None:
            return self.config.steps
        return self.config.epochs * self.steps_per_epoch if self.config.epochs else None

    def progress(self, step: int, seconds: float) -> float:
        """Return the completed fraction of the training, in [0, 1], after `step` steps and `seconds`."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        return min(1.0, seconds / max(1e-9, self._training_ends()))

    def is_over(self, step: int, seconds: float) -> bool:
        """Tell whether to stop; under a time budget, before a step that would end too late.

        The first step is always taken, even if preparing the cases has used up the budget, so that a run always has a
        model.
        """
        if self.steps is not None:
            return step >= self.steps
        return step > 0 and seconds + self._mean_step() / 2 >= self._training_ends()

    def validates(self, step: int, seconds: float) -> bool:
        """Tell whether to validate after this step: at the end of training, and after epochs as the config says."""
        if not self.validation_cases:
            return False
        if self.is_over(step, seconds):
            return True
        if step % self.steps_per_epoch:
            return False
        if self.config.val_every or self.steps is not None:
            return (step // self.steps_per_epoch) % (self.config.val_every or 1) == 0
        wait = self._validation() * (1 / _VALIDATION_SHARE - 1)
        return self.validation_seconds is None or seconds - self.validated_at >= wait

    def draws(self, step: int, seconds: float) -> bool:
        """Tell whether to draw the curves after this epoch: at the end of training, and as often as it costs little."""
        return self.is_over(step, seconds) or seconds - self.drawn_at >= self.drawing_seconds / _DRAWING_SHARE

    def seconds_left(self, step: int, seconds: float) -> float | None:
        """Return the time left in seconds, including validations; None before the first step."""
        if not self.step_seconds:
            return None
        if self.steps is None:
            assert self.config.budget_seconds is not None
            return max(0.0, self.config.budget_seconds - seconds)
        left = (self.steps - step) * self._mean_step()
        if self.validation_cases and step < self.steps:
            every = (self.config.val_every or 1) * self.steps_per_epoch
            ends = (self.steps - 1) // every - step // every + 1  # after each `every` steps, and at the end
            left += ends * self._validation()
        return left

    def _training_ends(self) -> float:
        """Return the second at which the last validation of a time budget must begin."""
        assert self.config.budget_seconds is not None
        reserve = self._validation() if self.validation_cases else 0.0
        return self.config.budget_seconds - reserve

    def _mean_step(self) -> float:
        return sum(self.step_seconds) / len(self.step_seconds) if self.step_seconds else 0.0

    def _validation(self) -> float:
        if self.validation_seconds is not None:
            return self.validation_seconds
        return self.validation_cases * _STEPS_A_CASE * self._mean_step()


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """Return the learning rate of a step: constant, or a short rise and then half a cosine down to a hundredth.

    The rise ends after 50 steps or a twentieth of the training, whichever comes first.

    Args:
        config: Has the schedule and the highest rate.
        step: Counted from 0.
        progress: The completed fraction of the training, in [0, 1].

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983.
    """
    if config.schedule == "constant":
        return config.lr
    rise = min(1.0, max((step + 1) / 50, 20 * progress))
    return config.lr * rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
