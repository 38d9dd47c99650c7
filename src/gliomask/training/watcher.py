"""What is told of a training while it runs, and how it is asked to stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gliomask.evaluation import Evaluation
from gliomask.training.cache import CachedCase
from gliomask.training.config import TrainConfig
from gliomask.training.run import Run


@dataclass(frozen=True)
class Moment:
    """The progress of a training run after a step."""

    step: int
    epoch: int
    """The epoch of the step, counted from 1."""
    progress: float
    """The completed fraction of the training."""
    loss: float
    seconds_left: float | None


class Watcher:
    """Callbacks that report on a training run and can stop it. The methods of this class do nothing."""

    def on_prepared(self, case: str) -> None:
        """Called after a case has been prepared or has failed."""

    def on_split(self, patients: str) -> None:
        """Called before a split is drawn, with how the patients of the cases were told apart."""

    def on_note(self, text: str) -> None:
        """Called with what is to be known about the split and the model that the run starts from."""

    def on_start(self, run: Run, config: TrainConfig, train: Sequence[CachedCase], val: Sequence[CachedCase]) -> None:
        """Called when everything is ready and the loop begins."""

    def on_step(self, moment: Moment) -> None:
        """Called after each step."""

    def on_validated(self, case: str) -> None:
        """Called after a validation case has been predicted and scored."""

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Called at the end of each epoch with its row of `log.jsonl`."""

    def on_fold(self, run: Run) -> None:
        """Called when a fold that was trained on a cluster is complete."""

    def on_scores(self, scores: Evaluation) -> None:
        """Called at the end of a cross-validation with the scores of all held-out cases predicted so far."""

    def should_stop(self) -> bool:
        """Tell whether to save everything and return; called after each step, and after each validation.

        After the last step of an epoch it returns before the validation, which is done when the run is resumed.
        """
        return False
