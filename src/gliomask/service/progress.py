"""Progress and remaining time of a running job, estimated from the durations of earlier jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gliomask.errors import InputError
from gliomask.files import write_text
from gliomask.service.jobs import STAGES, Stage

# Seconds for a BraTS case with the built-in model on two cores; replaced after each successful job.
_FIRST_GUESS: Mapping[Stage, float] = {"start": 1.0, "prepare": 40.0, "predict": 2.0, "write": 1.0, "report": 2.0}


@dataclass(frozen=True)
class Estimate:
    """The estimated progress of a job."""

    stage: Stage
    progress: float
    """Fraction that is done, 0 to 1; it never decreases."""
    seconds_left: float


@dataclass
class Progress:
    """Track the stages of a running job against the durations of the stages in the last job."""

    expected: Mapping[Stage, float]
    """The seconds that each stage will take; a stage that is missing is not part of the job."""
    clock: Callable[[], float] = time.monotonic
    taken: dict[Stage, float] = field(default_factory=dict)
    _stage: Stage = "start"
    _since: float = 0.0
    _share: float = 0.0
    _most: float = 0.0

    def __post_init__(self) -> None:
        self._since = self.clock()

    def update(self, stage: Stage, share: float = 0.0) -> None:
        """Record that a stage has begun, or the fraction of it that is done."""
        if stage != self._stage:
            self._end_stage()
            self._stage = stage
        self._share = share

    def finish(self) -> Mapping[Stage, float]:
        """End the last stage and return the duration of each stage in seconds."""
        self._end_stage()
        return self.taken

    def estimate(self) -> Estimate:
        """Return the current progress and remaining time."""
        place = STAGES.index(self._stage)
        passed = self.clock() - self._since
        expected = max(self.expected.get(self._stage, 0.0), 0.01)
        if 0.1 <= self._share < 1:
            expected = passed / self._share
        left_here = max(expected - passed, 0.05 * expected)  # a stage that takes longer than expected is not done yet
        later = sum(self.expected.get(stage, 0.0) for stage in STAGES[place + 1 :])
        before = sum(self.taken.values()) + passed
        self._most = max(self._most, min(before / (before + left_here + later), 0.99))
        return Estimate(self._stage, round(self._most, 3), round(left_here + later, 1))

    def _end_stage(self) -> None:
        moment = self.clock()
        self.taken[self._stage] = self.taken.get(self._stage, 0.0) + moment - self._since
        self._since, self._share = moment, 0.0


def read_expected(path: Path) -> dict[Stage, float]:
    """Return the duration of each stage in the last job in seconds, or a first guess where none is stored."""
    found = dict(_FIRST_GUESS)
    with suppress(OSError, ValueError, TypeError):
        read = json.loads(path.read_text("utf-8"))
        found |= {stage: min(max(float(read[stage]), 0.0), 86_400.0) for stage in STAGES if stage in read}
    return found


def write_expected(path: Path, taken: Mapping[Stage, float]) -> None:
    """Store the duration of each stage. A failure to write is ignored, since only the estimates depend on it."""
    with suppress(InputError):
        write_text(path, json.dumps({stage: round(seconds, 3) for stage, seconds in taken.items()}) + "\n")
