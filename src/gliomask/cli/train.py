"""gliomask train: cases -> a run folder with a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomask.cli.console import out, warn, with_masks
from gliomask.cli.options import Device, Labels, Modalities, Output, Threads
from gliomask.losses import LOSSES
from gliomask.networks import NETWORKS

if TYPE_CHECKING:
    from gliomask.cases import Case
    from gliomask.run import Run

EXAMPLES = """
**Examples**

`gliomask train BraTS2021_Training_Data -o run`

`gliomask train BraTS2021_Training_Data -o run --resume --epochs 40`  (the same run, for longer)

`gliomask train DATA -o run -d cuda --modalities t1,t1ce,t2,flair --drop-modalities 0.3`

The original project's recipe:

`gliomask train DATA -o seed --network unet --modalities flair,t1ce,t2 --patch-size 128 --batch-size 1 --epochs 20`
`--loss dice+focal --lr 1e-4 --schedule constant --val-fraction 0.25 --min-tumour 0.01`
"""


def train(
    cases: Annotated[Path, typer.Argument(help="A folder of cases with masks, or a cache made by gliomask prepare.")],
    output: Output,
    network: Annotated[
        str, typer.Option("--network", help=", ".join(NETWORKS), autocompletion=lambda: list(NETWORKS))
    ] = "unet",
    norm: Annotated[str, typer.Option("--norm", help="instance, batch or none.")] = "instance",
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
        typer.Option("--min-tumour", min=0, max=0.9, help="Skip cases with less tumour, as a share of a patch."),
    ] = 0.0,
    drop_modalities: Annotated[
        float,
        typer.Option("--drop-modalities", min=0, max=0.9, help="Probability to leave out each sequence."),
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
    from gliomask.files import check_writable
    from gliomask.model import require_torch

    require_torch()
    check_writable(output)
    from pydantic import ValidationError

    from gliomask.cache import is_cache
    from gliomask.cases import find_cases, get_modality, resolve_conventions
    from gliomask.cli.bar import train_with_bar
    from gliomask.errors import InputError
    from gliomask.run import TrainConfig

    try:
        config = TrainConfig(
            network=network,
            norm=norm,  # type: ignore[arg-type]
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
        source = resolve_conventions(with_masks(find_cases(cases), cases), labels)
    _say_result(train_with_bar(source, output, config, resume=resume))


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
