"""Training in a terminal: a progress bar with the time left, a line for each epoch, and Ctrl-C."""

from __future__ import annotations

import itertools
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer
from rich.progress import BarColumn, Progress

from gliomask.cases import Case, get_modality
from gliomask.cli.console import INTERRUPTED, counted, err, shows_progress, tell, text_column
from gliomask.labels import REGIONS
from gliomask.training.cache import CachedCase
from gliomask.training.config import TrainConfig
from gliomask.training.cross_validation import cross_validate
from gliomask.training.distributed import is_first
from gliomask.training.loop import Moment, Watcher, train
from gliomask.training.run import Run


def train_with_bar(source: Sequence[Case] | Path, output: Path, config: TrainConfig, *, resume: bool = False) -> Run:
    """Train with a progress bar. After Ctrl-C or SIGTERM, print how to continue and exit with status 130."""
    with _watching(source, output) as watcher:
        return train(source, output, config, resume=resume, watcher=watcher)


def cross_validate_with_bar(
    source: Sequence[Case] | Path, output: Path, config: TrainConfig, folds: Sequence[int] | None, *, resume: bool
) -> list[Run]:
    """Train the folds of a cross-validation with a progress bar for each, as `train_with_bar` does for one run."""
    with _watching(source, output) as watcher:
        return cross_validate(source, output, config, folds, resume=resume, watcher=watcher)


@contextmanager
def _watching(source: Sequence[Case] | Path, output: Path) -> Iterator[Bar]:
    """Yield a progress bar. The first signal asks the loop to stop after its step; a second one interrupts it.

    Before the first step, a signal interrupts the preparation.
    """
    watcher = Bar(0 if isinstance(source, Path) else len(source))
    handled = (signal.SIGINT, signal.SIGTERM)  # job schedulers send SIGTERM before they end a job
    before = {number: signal.signal(number, watcher.on_interrupt) for number in handled}
    try:
        with watcher.bar:
            yield watcher
    except KeyboardInterrupt:
        if watcher.training:
            raise
        watcher.say("stopped; what is prepared is kept. Run the same command again to go on")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if watcher.stop:
        watcher.say(f"stopped; continue with: gliomask train -o {output} --resume")
        raise typer.Exit(INTERRUPTED)


class Bar(Watcher):
    """A progress line with epoch, loss, Dice and time left; if stderr is not a terminal, only a line for each epoch."""

    def __init__(self, cases: int) -> None:
        self.is_first = is_first()
        columns = (text_column("{task.description}"), BarColumn(), text_column("{task.fields[facts]}"))
        hidden = not shows_progress() or not self.is_first
        self.bar = Progress(*columns, console=err, transient=True, disable=hidden)
        self.task = self.bar.add_task("preparing", total=cases or None, facts="")
        self.stop = False
        self.training = False
        self.dice = ""

    def on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.stop or not self.training:
            raise KeyboardInterrupt
        self.stop = True
        self.say("stopping after this step; nothing is lost (press Ctrl-C again to stop at once)")

    def should_stop(self) -> bool:
        return self.stop

    def on_prepared(self, case: str) -> None:
        self.bar.advance(self.task)

    def on_split(self, patients: str) -> None:
        self.say(patients)

    def on_start(
        self, run: Run, config: TrainConfig, training: Sequence[CachedCase], validation: Sequence[CachedCase]
    ) -> None:
        self.training = True
        left_out = len(run.split()["train"]) - len(training)
        self.say(
            f"{config.network} on {counted(len(training), 'case')}, validated on {len(validation)}"
            + (f"; {left_out} left out: tumour under {config.min_tumour:.1%} of a patch" if left_out else "")
        )
        for text in _partial(training, config):
            self.say(text)
        small = [c.id for c in training if min(c.shape) < config.patch_size]
        if small and not config.whole_brain:
            self.say(f"{len(small)} brains are smaller than the patch along some axis; padded with zeros")

    def on_step(self, moment: Moment) -> None:
        left = "" if moment.seconds_left is None else f"  {_clock(moment.seconds_left)} left"
        self.bar.update(
            self.task,
            total=1.0,
            completed=moment.progress,
            description=f"epoch {moment.epoch}",
            facts=f"loss {moment.loss:.3f}{self.dice}{left}",
        )

    def on_validated(self, case: str) -> None:
        self.bar.update(self.task, facts=f"validating {case}{self.dice}")

    def on_epoch(self, row: Mapping[str, float]) -> None:
        self.dice = f"  Dice {row['val_dice']:.3f}" if "val_dice" in row else self.dice
        self.say(_epoch_line(row))

    def say(self, text: str) -> None:
        """Print a line above the bar; with several processes, only in the first."""
        if self.is_first:
            tell(text)


def _partial(training: Sequence[CachedCase], config: TrainConfig) -> list[str]:
    """Return lines about cases whose masks label some regions only, and about cases that lack sequences."""
    wanted = {get_modality(name) for name in config.modalities}
    regions = Counter(case.known for case in training if len(case.known) < len(REGIONS))
    present = (tuple(itertools.compress(case.modalities, case.present)) for case in training)
    sequences = Counter(kept for names in present if len(kept := tuple(n for n in names if n in wanted)) < len(wanted))
    lines = [f"{count} cases with masks of {', '.join(known)} only" for known, count in regions.items()]
    lines += [f"{count} cases with {', '.join(names)} only" for names, count in sequences.items()]
    if regions and config.partial_share is not None:
        lines.append(f"{config.partial_share:.0%} of the patches are from cases whose masks label some regions only")
    return lines


def _epoch_line(row: Mapping[str, float]) -> str:
    text = f"epoch {row['epoch']:g}: loss {row['train_loss']:.3f}"
    if "val_dice" not in row:
        return text
    regions = " ".join(f"{key.removeprefix('val_dice_')} {value:.3f}" for key, value in row.items() if "dice_" in key)
    return (
        f"{text}, validation loss {row['val_loss']:.3f}, Dice {regions}, accuracy {row['val_accuracy']:.4f} "
        f"(without any tumour: {row['all_background_accuracy']:.4f}), mean IoU {row['val_mean_iou']:.3f}"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
