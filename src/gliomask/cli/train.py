"""gliomask train: cases -> a run folder with a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gliomask.cli.console import out, warn, with_masks
from gliomask.cli.options import Device, Labels, Modalities, Output, Threads
from gliomask.errors import InputError
from gliomask.networks import NETWORKS
from gliomask.training.losses import LOSSES

if TYPE_CHECKING:
    from gliomask.cases import Case
    from gliomask.training.config import TrainConfig
    from gliomask.training.run import Run

EXAMPLES = """
**Examples**

`gliomask train BraTS2021_Training_Data -o run --budget 2h`

`gliomask train -o run --resume`  (after a stop, a crash or a power cut; every setting is the run's own)

`gliomask train -o run --resume --epochs 40`  (the same run, for longer)

`gliomask train MY_CASES -o tuned --from run/best.safetensors --lr 1e-4 --steps 500`

`gliomask train DATA -o run -d cuda --modalities t1,t1ce,t2,flair --drop-modalities 0.3`

`gliomask train DATA -o cv --folds 5`  (cv/fold0 ... cv/fold4; one of them: --fold 2)

`torchrun --nproc-per-node 4 -m gliomask train DATA -o run --batch-size 4`

The original project's recipe:

`gliomask train DATA -o seed --network unet --modalities flair,t1ce,t2 --patch-size 128 --batch-size 1 --epochs 20`
`--loss dice+focal --lr 1e-4 --schedule constant --val-fraction 0.25 --min-tumour 0.01`
"""

_TASK, _LENGTH, _MEMORY, _LEARNING, _HELD_OUT = (
    "The task",
    "How long",
    "Speed and memory",
    "How it learns",
    "What is held out",
)


def train(
    context: typer.Context,
    output: Output,
    cases: Annotated[
        Path | None, typer.Argument(help="A folder of cases with masks, or a cache made by gliomask prepare.")
    ] = None,
    network: Annotated[
        str,
        typer.Option(
            "--network", help=", ".join(NETWORKS), autocompletion=lambda: list(NETWORKS), rich_help_panel=_TASK
        ),
    ] = "fast",
    norm: Annotated[
        str | None, typer.Option("--norm", help="instance, batch or none. [the network's own]", rich_help_panel=_TASK)
    ] = None,
    modalities: Modalities = "flair,t1ce,t2",
    start_from: Annotated[
        Path | None,
        typer.Option("--from", help="Begin with a model's weights; sequences may differ.", rich_help_panel=_TASK),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run in the output folder, with its settings.", rich_help_panel=_LENGTH
        ),
    ] = False,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Times through all cases. [20]", rich_help_panel=_LENGTH)
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Or: steps of the optimizer.", rich_help_panel=_LENGTH)
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="Or: by the clock: 2h, 90m, 1h30m, 45s.", rich_help_panel=_LENGTH)
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option("--patience", min=1, help="End after N validations without a better.", rich_help_panel=_LENGTH),
    ] = None,
    val_every: Annotated[
        int | None,
        typer.Option(
            "--val-every", min=1, help="Epochs between validations. [1; by the clock a tenth]", rich_help_panel=_LENGTH
        ),
    ] = None,
    patches_per_case: Annotated[
        int, typer.Option("--patches-per-case", min=1, help="Patches of each case an epoch.", rich_help_panel=_LENGTH)
    ] = 1,
    val_fraction: Annotated[
        float,
        typer.Option(
            "--val-fraction",
            min=0,
            max=0.9,
            help="Of the patients, to validate on; 0: none.",
            rich_help_panel=_HELD_OUT,
        ),
    ] = 0.25,
    folds: Annotated[
        int | None,
        typer.Option("--folds", min=2, help="Cross-validate: a run for each fold.", rich_help_panel=_HELD_OUT),
    ] = None,
    fold: Annotated[
        str, typer.Option("--fold", help="all, or one or more of them: 0 or 0,2.", rich_help_panel=_HELD_OUT)
    ] = "all",
    min_tumour: Annotated[
        float,
        typer.Option(
            "--min-tumour",
            min=0,
            max=0.9,
            help="Do not train on cases with less tumour, as a share of a patch.",
            rich_help_panel=_HELD_OUT,
        ),
    ] = 0.0,
    loss: Annotated[
        str,
        typer.Option("--loss", help=", ".join(LOSSES), autocompletion=lambda: list(LOSSES), rich_help_panel=_LEARNING),
    ] = "dice+ce",
    lr: Annotated[float, typer.Option("--lr", help="Highest learning rate (AdamW).", rich_help_panel=_LEARNING)] = 1e-3,
    schedule: Annotated[
        str, typer.Option("--schedule", help="cosine or constant.", rich_help_panel=_LEARNING)
    ] = "cosine",
    batch_size: Annotated[
        int,
        typer.Option("--batch-size", min=1, help="Patches a step, over all processes.", rich_help_panel=_LEARNING),
    ] = 1,
    drop_modalities: Annotated[
        float,
        typer.Option(
            "--drop-modalities",
            min=0,
            max=0.9,
            help="Probability to leave out each sequence.",
            rich_help_panel=_LEARNING,
        ),
    ] = 0.0,
    normalization: Annotated[
        str, typer.Option("--normalization", help="zscore or minmax.", rich_help_panel=_LEARNING)
    ] = "zscore",
    augment: Annotated[
        float,
        typer.Option(
            "--augment",
            min=0,
            max=10,
            help="How often to rotate, scale, add noise and the like: 0 never, 2 twice as often.",
            rich_help_panel=_LEARNING,
        ),
    ] = 1.0,
    transplant: Annotated[
        float,
        typer.Option(
            "--transplant",
            min=0,
            max=1,
            help="Probability of another case's tumour in a patch.",
            rich_help_panel=_LEARNING,
        ),
    ] = 0.0,
    histograms: Annotated[
        float,
        typer.Option(
            "--histograms",
            min=0,
            max=1,
            help="Probability of moving a patch's intensities towards another case's.",
            rich_help_panel=_LEARNING,
        ),
    ] = 0.0,
    lesion_contrast: Annotated[
        float,
        typer.Option(
            "--lesion-contrast",
            min=0,
            max=1,
            help="Probability that a region of a patch stands out less or more from its surroundings.",
            rich_help_panel=_LEARNING,
        ),
    ] = 0.0,
    repeat_faint: Annotated[
        int,
        typer.Option(
            "--repeat-faint",
            min=1,
            help="How often an epoch draws a case whose core hardly enhances, or not at all.",
            rich_help_panel=_LEARNING,
        ),
    ] = 1,
    ema: Annotated[
        float,
        typer.Option("--ema", min=0, max=0.99999, help="Average weights over steps: 0.999.", rich_help_panel=_LEARNING),
    ] = 0.0,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of the split, the weights and the patches.", rich_help_panel=_LEARNING)
    ] = 0,
    patch_size: Annotated[
        int,
        typer.Option("--patch-size", min=16, help="Edge of the training cubes, voxels.", rich_help_panel=_MEMORY),
    ] = 128,
    whole_brain: Annotated[
        bool,
        typer.Option(
            "--whole-brain", help="Train on whole brains, not on patches; predict in one pass.", rich_help_panel=_MEMORY
        ),
    ] = False,
    accumulate: Annotated[
        int,
        typer.Option(
            "--accumulate", min=1, help="Take a step's patches in N parts: less memory.", rich_help_panel=_MEMORY
        ),
    ] = 1,
    low_memory: Annotated[
        bool,
        typer.Option(
            "--low-memory", help="Compute activations twice instead of keeping them.", rich_help_panel=_MEMORY
        ),
    ] = False,
    precision: Annotated[
        str, typer.Option("--precision", help="auto, bf16, fp16 (GPU), fp32.", rich_help_panel=_MEMORY)
    ] = "auto",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Let torch compile the network (GPU).", rich_help_panel=_MEMORY)
    ] = False,
    device: Device = "auto",
    threads: Threads = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Threads that draw patches. [1; on a GPU 2]", rich_help_panel=_MEMORY),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also log for TensorBoard, in OUTPUT/tensorboard.")
    ] = False,
    labels: Labels = None,
) -> None:
    """Train a network on BraTS cases: log, curves, best and last model in one folder.

    Ctrl-C stops cleanly with everything kept; --resume goes on from there, as it does after a crash. Split by patient,
    validated on whole cases.
    """
    from gliomask.files import check_writable
    from gliomask.inference.loading import require_torch

    require_torch()
    check_writable(output)
    from gliomask.cases import get_modality
    from gliomask.cli.bar import cross_validate_with_bar, train_with_bar
    from gliomask.training.config import make_config

    values = _said(context, resume=resume)
    if "modalities" in values:
        values["modalities"] = tuple(get_modality(name) for name in modalities.split(","))
    if "budget" in values:
        values["budget_seconds"] = _seconds(values.pop("budget"))
    if "start_from" in values:
        given = {name: value for name, value in values.items() if _was_given(context, name)}
        values |= _of_model(start_from) | given | {"start_from": str(start_from)}
    values.pop("fold", None)
    if cases is not None:
        values["cases"] = str(cases.resolve())
    config = make_config(**(_of_run(output, values) if resume else {}) | values)
    source = _source(output, config, labels)
    if config.folds is None:
        _say_result(train_with_bar(source, output, config, resume=resume))
        return
    chosen = None if fold == "all" else _numbers(fold)
    _say_folds(cross_validate_with_bar(source, output, config, chosen, resume=resume), output)


_NOT_CONFIG = {"context", "output", "cases", "resume", "labels"}


def _said(context: typer.Context, *, resume: bool) -> dict[str, Any]:
    """The options that make the config; when a run goes on, only those that were given."""
    return {
        name: value
        for name, value in context.params.items()
        if name not in _NOT_CONFIG and value is not None and (not resume or _was_given(context, name))
    }


def _was_given(context: typer.Context, name: str) -> bool:
    origin = context.get_parameter_source(name)
    return origin is not None and not origin.name.startswith("DEFAULT")


def _of_run(output: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The settings of the run that is to go on; a length that is given takes the place of the one it had."""
    from gliomask.training.run import load_run

    folder = next((path.parent for path in sorted(output.glob("fold*/config.json"))), output)
    lengths = {"epochs", "steps", "budget_seconds"}
    if not (folder / "config.json").is_file():
        raise InputError(f"{output}: nothing to resume (no config.json). Start without --resume.")
    settings = load_run(folder).config.model_dump()
    return {k: v for k, v in settings.items() if k != "fold" and not (lengths & values.keys() and k in lengths)}


def _of_model(path: Path | None) -> dict[str, Any]:
    """The kind of network in a model file, which a run that starts from it must have."""
    from gliomask.model.file import read_plan

    assert path is not None
    plan = read_plan(path)
    arguments = dict(plan.network_arguments)
    said = arguments.pop("norm", "own")
    kind = {"network": plan.network, "network_arguments": arguments}
    return kind | ({} if said == "own" else {"norm": said or "none"})


def _source(output: Path, config: TrainConfig, labels: str | None) -> Sequence[Case] | Path:
    """The cases to train on; a run that Python began knows a cache of them, if no folder."""
    from gliomask.cases import find_cases, resolve_conventions
    from gliomask.training.cache import is_cache

    kept = output / "cache"  # all cases, once the run has shared them out
    if config.cases is None and not (is_cache(kept) and (output / "splits_final.json").is_file()):
        raise InputError("name the folder of cases: gliomask train CASES -o run.")
    folder = kept if config.cases is None else Path(config.cases)
    if is_cache(folder):
        return folder
    return resolve_conventions(with_masks(find_cases(folder), folder), labels)


_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def _seconds(text: str) -> float:
    """The seconds in `2h`, `1h30m`, `90m`, `45s` or `1.5h`."""
    compact = text.lower().replace(" ", "")
    if not re.fullmatch(r"(\d+(\.\d+)?(d|h|m|min|s))+", compact):
        raise InputError(f"--budget {text!r}: write a time such as 2h, 90m, 1h30m or 45s.")
    return sum(float(number) * _UNITS[unit[0]] for number, unit in re.findall(r"(\d+(?:\.\d+)?)(d|h|min|m|s)", compact))


def _numbers(text: str) -> list[int]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise InputError(f"--fold {text!r}: write all, or numbers from 0: 2 or 0,1.")
    return [int(number) for number in text.split(",")]


def _say_result(run: Run) -> None:
    from gliomask.training.distributed import is_first
    from gliomask.training.loop import best_row

    if not is_first():
        return
    best = best_row(run.rows())
    if "val_dice" in best:
        out.print(f"best epoch {best['epoch']:g}: mean Dice {best['val_dice']:.3f} on whole validation cases")
    else:
        warn("no validation was asked for: the last epoch is called the best")
    out.print(f"curves: {run.folder / 'curves.png'}")
    out.print(f"try: gliomask predict -m {run.best} -i CASE_OR_FOLDER -o predictions --picture")


def _say_folds(runs: Sequence[Run], output: Path) -> None:
    from gliomask.training.distributed import is_first
    from gliomask.training.loop import best_row

    if not is_first():
        return
    for run in runs:
        best = best_row(run.rows())
        out.print(f"{run.folder.name}: best epoch {best['epoch']:g}, mean Dice {best['val_dice']:.3f}")
    out.print(
        f"held-out cases, each by the fold that did not see it: {output / 'out_of_fold'}, scores: out_of_fold.csv"
    )
    out.print(f"try: gliomask predict -i CASE_OR_FOLDER -o predictions -m {output}/fold*/best.safetensors")
