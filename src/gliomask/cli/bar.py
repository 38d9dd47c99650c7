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
from gliomask.evaluation import Evaluation
from gliomask.execution import Where
from gliomask.labels import REGIONS
from gliomask.training.cache import CachedCase
from gliomask.training.config import TrainConfig
from gliomask.training.cross_validation import cross_validate
from gliomask.training.distributed import is_first
from gliomask.training.loop import train
from gliomask.training.run import Run
from gliomask.training.watcher import Moment, Watcher

# Sent before a job is ended. Windows knows no SIGTERM from another process; it sends SIGBREAK at Ctrl-Break.
OF_SCHEDULERS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGBREAK") if hasattr(signal, name))
_AT_ONCE = " (press Ctrl-C again to stop at once)"


def train_with_bar(source: Sequence[Case] | Path, output: Path, config: TrainConfig, *, resume: bool = False) -> Run:
    """Train with a progress bar. If stopped, print how to continue; exit with 130 after Ctrl-C, 0 after SIGTERM."""
    with _watching(source, output) as watcher:
        return train(source, output, config, resume=resume, watcher=watcher)


def cross_validate_with_bar(
    source: Sequence[Case] | Path, output: Path, config: TrainConfig, folds: Sequence[int] | None, *, resume: bool
) -> tuple[list[Run], Evaluation | None]:
    """Train the folds of a cross-validation with a progress bar for each, as `train_with_bar` does for one run.

    The scores are those of all held-out cases; None if none could be predicted.
    """
    with _watching(source, output) as watcher:
        return cross_validate(source, output, config, folds, resume=resume, watcher=watcher), watcher.scores


def cross_validate_on_with_bar(
    where: Where,
    source: Sequence[Case] | Path,
    output: Path,
    config: TrainConfig,
    folds: Sequence[int] | None,
    *,
    resume: bool,
) -> tuple[list[Run], Evaluation | None]:
    """Train the folds of a cross-validation on a cluster, with a line for each that is complete."""
    from gliomask.training.fold_jobs import cross_validate_on

    with _watching(source, output, where.cluster) as watcher:
        watcher.say(f"each fold prints to its log: {output / 'fold0.log'} and so on")
        return cross_validate_on(where, source, output, config, folds, resume=resume, watcher=watcher), watcher.scores


@contextmanager
def _watching(source: Sequence[Case] | Path, output: Path, cluster: str | None = None) -> Iterator[Bar]:
    """Yield a progress bar. The first signal asks the loop to stop after its step; a second Ctrl-C interrupts it.

    Before the first step, and if a cluster trains, a signal interrupts this process at once. After a signal of a
    job scheduler the exit status is 0: everything is saved, and the job can be put into the queue again.
    """
    watcher = Bar(0 if isinstance(source, Path) else len(source))
    before = {number: signal.signal(number, watcher.on_interrupt) for number in (signal.SIGINT, *OF_SCHEDULERS)}
    try:
        with watcher.bar:
            yield watcher
    except KeyboardInterrupt:
        if watcher.training:
            raise
        if cluster:
            watcher.say(f"stopped; continue with: gliomask train -o {output} --resume --cluster {cluster}")
        else:
            watcher.say("stopped; what is prepared is kept. Run the same command again to go on")
        raise typer.Exit(watcher.status) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if watcher.stop:
        watcher.say(f"stopped; continue with: gliomask train -o {output} --resume")
        raise typer.Exit(watcher.status)


class Bar(Watcher):
    """A progress line with epoch, loss, Dice and time left; if stderr is not a terminal, only a line for each epoch."""

    def __init__(self, cases: int) -> None:
        self.is_first = is_first()
        columns = (text_column("{task.description}"), BarColumn(), text_column("{task.fields[facts]}"))
        hidden = not shows_progress() or not self.is_first
        self.bar = Progress(*columns, console=err, transient=True, disable=hidden)
        self.task = self.bar.add_task("preparing", total=cases or None, facts="")
        self.stop = False
        self.status = INTERRUPTED
        """The exit status after a signal."""
        self.training = False
        self.dice = ""
        self.scores: Evaluation | None = None
        """Those of a cross-validation."""

    def on_interrupt(self, number: int, frame: FrameType | None) -> None:
        by_scheduler, again = number in OF_SCHEDULERS, self.stop
        if by_scheduler and again:  # SLURM, torchrun and LSF may each send one: none of them is in a hurry
            return
        self.stop = True
        self.status = 0 if by_scheduler else INTERRUPTED
        if again or not self.training:
            raise KeyboardInterrupt
        self.say("stopping after this step; nothing is lost" + ("" if by_scheduler else _AT_ONCE))

    def should_stop(self) -> bool:
        return self.stop

    def on_prepared(self, case: str) -> None:
        self.bar.advance(self.task)

    def on_split(self, patients: str) -> None:
        self.say(patients)

    def on_note(self, text: str) -> None:
        self.say(text)

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

    def on_fold(self, run: Run) -> None:
        self.say(f"{run.folder.name}: complete")

    def on_scores(self, scores: Evaluation) -> None:
        self.scores = scores

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
