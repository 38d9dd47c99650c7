"""Training as seen in a terminal: a bar with the time left, a line an epoch, and Ctrl-C."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from rich.progress import BarColumn, Progress, TextColumn

from gliomask.cache import CachedCase
from gliomask.cases import Case
from gliomask.cli.console import err
from gliomask.run import Run, TrainConfig
from gliomask.training import Watcher, train


def train_with_bar(source: Sequence[Case] | Path, output: Path, config: TrainConfig, *, resume: bool = False) -> Run:
    """Train under a progress bar; the first Ctrl-C asks the loop to stop, a second one breaks it off."""
    watcher = Bar(0 if isinstance(source, Path) else len(source))
    before = signal.signal(signal.SIGINT, watcher.on_interrupt)
    try:
        with watcher.bar:
            return train(source, output, config, resume=resume, watcher=watcher)
    finally:
        signal.signal(signal.SIGINT, before)


class Bar(Watcher):
    """A line with epoch, loss, Dice and time left; where stderr is no terminal, a line an epoch."""

    def __init__(self, cases: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[facts]}"))
        self.bar = Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
        self.task = self.bar.add_task("preparing", total=cases or None, facts="")
        self.config: TrainConfig | None = None
        self.validating = 0
        self.step_seconds: list[float] = []
        self.epoch_seconds = 0.0
        self.stop = False
        self.clock = time.monotonic()
        self.dice = ""

    def on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.stop:
            raise KeyboardInterrupt
        self.stop = True
        err.print("stopping after this step; everything is kept (once more: stop at once)")

    def should_stop(self) -> bool:
        return self.stop

    def on_prepared(self, case: str) -> None:
        self.bar.advance(self.task)

    def on_start(
        self, run: Run, config: TrainConfig, training: Sequence[CachedCase], validation: Sequence[CachedCase]
    ) -> None:
        self.config, self.validating = config, len(validation)
        left_out = len(run.split()["train"]) - len(training)
        err.print(
            f"{config.network} on {len(training)} cases, validated on {len(validation)}"
            + (f"; {left_out} left out: tumour under {config.min_tumour:.1%} of a patch" if left_out else "")
        )
        small = [c.id for c in training if min(c.shape) < config.patch_size]
        if small:
            err.print(f"{len(small)} brains are smaller than the patch along some axis; padded with zeros")
        self.clock = time.monotonic()

    def on_step(self, step: int, steps: int, loss: float) -> None:
        now = time.monotonic()
        self.step_seconds = [*self.step_seconds[-49:], now - self.clock]
        self.clock = now
        assert self.config is not None
        per_epoch = steps // self.config.epochs
        left = (steps - step) * sum(self.step_seconds) / len(self.step_seconds)
        left += self.epoch_seconds * (self.config.epochs - step // per_epoch)
        self.bar.update(
            self.task,
            total=steps,
            completed=step,
            description=f"epoch {min(step // per_epoch + 1, self.config.epochs)}/{self.config.epochs}",
            facts=f"loss {loss:.3f}{self.dice}  {_clock(left)} left",
        )

    def on_validated(self, case: str) -> None:
        self.bar.update(self.task, facts=f"validating {case}{self.dice}")

    def on_epoch(self, row: Mapping[str, float]) -> None:
        now = time.monotonic()
        self.epoch_seconds, self.clock = now - self.clock, now
        self.dice = f"  Dice {row['val_dice']:.3f}" if "val_dice" in row else ""
        err.print(_epoch_line(row))


def _epoch_line(row: Mapping[str, float]) -> str:
    text = f"epoch {row['epoch']:.0f}: loss {row['train_loss']:.3f}"
    if "val_dice" not in row:
        return text
    regions = " ".join(f"{key.removeprefix('val_dice_')} {value:.3f}" for key, value in row.items() if "dice_" in key)
    return (
        f"{text}, validation loss {row['val_loss']:.3f}, Dice {regions}, accuracy {row['val_accuracy']:.4f} "
        f"(all background: {row['all_background_accuracy']:.4f}), mean IoU {row['val_mean_iou']:.3f}"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
