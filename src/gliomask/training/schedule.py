"""How far a training is, by steps or by the clock: what its learning rate, its end and its time left follow from."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from gliomask.training.config import TrainConfig

# Under a time budget validation takes a tenth of the time.
_VALIDATION_SHARE = 0.1
# The curves take at most this share: half a second to draw are nothing, unless an epoch takes no longer.
_DRAWING_SHARE = 0.05
# Where none has been timed yet: the cost of a validation case in training steps, eight windows without a way back.
_STEPS_A_CASE = 3


@dataclass
class Schedule:
    """A training's length and how fast it goes.

    Times are seconds. `steps_per_epoch` and what `config` says are fixed; the rest is told to it as training goes.
    """

    config: TrainConfig
    steps_per_epoch: int
    validation_cases: int
    step_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=50))
    validation_seconds: float | None = None
    """Of the last one."""
    validated_at: float = 0.0
    drawing_seconds: float = 0.0
    """Of the curves, the last time."""
    drawn_at: float = 0.0

    @property
    def steps(self) -> int | None:
        """The steps of the whole training; None under a time budget."""
        if self.config.steps is not None:
            return self.config.steps
        return self.config.epochs * self.steps_per_epoch if self.config.epochs else None

    def progress(self, step: int, seconds: float) -> float:
        """Return the share of the training that is over when `step` steps took `seconds`, in [0, 1]."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        return min(1.0, seconds / max(1e-9, self._training_ends()))

    def is_over(self, step: int, seconds: float) -> bool:
        """Tell whether no further step is to be taken; under a budget, one that would end too late is not.

        The first one is, however late: preparing cases may have taken the whole budget, and a run without a model is
        worth nothing.
        """
        if self.steps is not None:
            return step >= self.steps
        return step > 0 and seconds + self._mean_step() / 2 >= self._training_ends()

    def validates(self, step: int, seconds: float) -> bool:
        """Tell whether to validate after this step: at the end, and at ends of epochs as the config says."""
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
        """Tell whether to draw the curves after this epoch: at the end, and as often as costs little."""
        return self.is_over(step, seconds) or seconds - self.drawn_at >= self.drawing_seconds / _DRAWING_SHARE

    def seconds_left(self, step: int, seconds: float) -> float | None:
        """Return the time until all is done, the validations that are to come included; None before the first step."""
        if not self.step_seconds:
            return None
        if self.steps is None:
            assert self.config.budget_seconds is not None
            return max(0.0, self.config.budget_seconds - seconds)
        left = (self.steps - step) * self._mean_step()
        if self.validation_cases:
            every = (self.config.val_every or 1) * self.steps_per_epoch
            ends = set(range(step - step % every + every, self.steps, every)) | {self.steps}
            left += len({end for end in ends if end > step}) * self._validation()
        return left

    def _training_ends(self) -> float:
        """The second at which the last validation of a budget must begin."""
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
    """Return the rate of a step: `constant`, or `cosine`: a short rise, then half a cosine down to a hundredth.

    The rise is over after 50 steps or a twentieth of the training, whichever comes first.

    Args:
        config: Says the schedule and the highest rate.
        step: Counted from 0.
        progress: The share of the training that is over, in [0, 1]: the schedule is fitted to the training's length.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983.
    """
    if config.schedule == "constant":
        return config.lr
    rise = min(1.0, max((step + 1) / 50, 20 * progress))
    return config.lr * rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
