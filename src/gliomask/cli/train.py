"""gliomask train: cases -> a run folder with a model."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gliomask.cli.console import err, out, warn
from gliomask.cli.options import Device, Labels, Modalities, Output, Threads
from gliomask.losses import LOSSES
from gliomask.networks import NETWORKS

if TYPE_CHECKING:
    from gliomask.cache import CachedCase
    from gliomask.cases import Case
    from gliomask.run import Run, TrainConfig

EXAMPLES = """
**Examples**

`gliomask train BraTS2021_Training_Data -o run` and later, for longer, `gliomask train BraTS2021_Training_Data -o run --resume --epochs 40`

The recipe of the original project: `gliomask train DATA -o seed --network unet --modalities flair,t1ce,t2 --patch-size 128 --batch-size 1 --epochs 20 --loss dice+focal --lr 1e-4 --schedule constant --val-fraction 0.25 --min-tumour 0.01`

On the GPU, with sequences that may be missing later: `gliomask train DATA -o run -d cuda --modalities t1,t1ce,t2,flair --drop-modalities 0.3`
"""


def train(
    cases: Annotated[Path, typer.Argument(help="A folder of cases with masks, or a cache made by gliomask prepare.")],
    output: Output,
    network: Annotated[
        str, typer.Option("--network", help=", ".join(NETWORKS), autocompletion=lambda: list(NETWORKS))
    ] = "unet",
    modalities: Modalities = "flair,t1ce,t2",
    patch_size: Annotated[int, typer.Option("--patch-size", min=16, help="Edge of the training cubes, voxels.")] = 128,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Patches a step.")] = 1,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Times through all cases.")] = 20,
    patches_per_case: Annotated[
        int, typer.Option("--patches-per-case", min=1, help="Patches of each case an epoch.")
    ] = 1,
    loss: Annotated[
        str, typer.Option("--loss", help=", ".join(LOSSES), autocompletion=lambda: list(LOSSES))
    ] = "dice+ce",
    lr: Annotated[float, typer.Option("--lr", help="Highest learning rate (AdamW).")] = 1e-3,
    schedule: Annotated[str, typer.Option("--schedule", help="cosine or constant.")] = "cosine",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the split, the weights and the patches.")] = 0,
    val_fraction: Annotated[
        float, typer.Option("--val-fraction", min=0, max=0.9, help="Of the patients, kept for validation; 0: none.")
    ] = 0.25,
    min_tumour: Annotated[
        float,
        typer.Option(
            "--min-tumour", min=0, max=0.9, help="Do not train on cases with less tumour, as a share of a patch."
        ),
    ] = 0.0,
    drop_modalities: Annotated[
        float,
        typer.Option("--drop-modalities", min=0, max=0.9, help="Probability to leave out each sequence of a patch."),
    ] = 0.0,
    normalization: Annotated[str, typer.Option("--normalization", help="zscore or minmax.")] = "zscore",
    augment: Annotated[bool, typer.Option(help="Flip, rotate, scale, add noise and the like.")] = True,
    precision: Annotated[str, typer.Option("--precision", help="auto, bf16, fp32.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")] = False,
    labels: Labels = None,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Train a network on BraTS cases: log, curves, best and last model in one folder.

    Ctrl-C stops cleanly with everything kept; --resume goes on from there. Split by patient, validated on whole cases.
    """
    from gliomask.model import require_torch

    require_torch()
    from pydantic import ValidationError

    from gliomask.cache import is_cache
    from gliomask.cases import find_cases, get_modality, resolve_conventions
    from gliomask.errors import InputError
    from gliomask.run import TrainConfig
    from gliomask.training import train as train_network

    try:
        config = TrainConfig(
            network=network,
            modalities=tuple(get_modality(name) for name in modalities.split(",")),
            patch_size=patch_size,
            batch_size=batch_size,
            epochs=epochs,
            patches_per_case=patches_per_case,
            loss=loss,
            lr=lr,
            schedule=schedule,  # type: ignore[arg-type]
            seed=seed,
            val_fraction=val_fraction,
            min_tumour=min_tumour,
            drop_modalities=drop_modalities,
            normalization=normalization,  # type: ignore[arg-type]
            augment=augment,
            device=device,
            precision=precision,  # type: ignore[arg-type]
            threads=threads,
        )
    except ValidationError as error:
        wrong = "; ".join(f"--{str(e['loc'][0]).replace('_', '-')}: {e['msg']}" for e in error.errors())
        raise InputError(wrong) from error
    source: Sequence[Case] | Path = cases
    if not is_cache(cases):
        source = [case for case in resolve_conventions(find_cases(cases), labels)]
    run = run_training(train_network, source, output, config, resume=resume)
    _say_result(run)


def run_training(
    train_network: Any, source: Sequence[Case] | Path, output: Path, config: TrainConfig, *, resume: bool
) -> Run:
    """Train under a progress bar; the first Ctrl-C asks the loop to stop, a second one breaks it off."""
    watcher = _make_watcher(0 if isinstance(source, Path) else len(source))
    before = signal.signal(signal.SIGINT, watcher.on_interrupt)
    try:
        with watcher.bar:
            run: Run = train_network(source, output, config, resume=resume, watcher=watcher)
            return run
    finally:
        signal.signal(signal.SIGINT, before)


def _make_watcher(cases: int) -> Any:
    from rich.progress import BarColumn, Progress, TextColumn

    from gliomask.training import Watcher

    class Bar(Watcher):
        """A line with epoch, loss, Dice and time left; where stderr is no terminal, a line an epoch."""

        def __init__(self) -> None:
            self.bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[facts]}"),
                console=err, transient=True, disable=not err.is_terminal,
            )  # fmt: skip
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

    return Bar()


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


def _say_result(run: Run) -> None:
    rows = run.rows()
    done = int(rows[-1]["epoch"]) if rows else 0
    if done < run.config.epochs:
        out.print(f"stopped in epoch {done + 1} of {run.config.epochs}; go on with the same command and --resume")
        return
    from gliomask.training import score

    best = max(rows, key=score)
    if "val_dice" in best:
        out.print(f"best epoch {best['epoch']:.0f}: mean Dice {best['val_dice']:.3f} on whole validation cases")
    else:
        warn("no validation was asked for: the last epoch is called the best")
    out.print(f"curves: {run.folder / 'curves.png'}")
    out.print(f"try: gliomask predict -m {run.best} -i CASE_OR_FOLDER -o predictions --picture")
