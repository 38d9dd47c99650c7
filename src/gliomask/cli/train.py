"""gliomask train: train a network on cases and write a run folder with the model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from gliomask.cli.console import listed, note, out, progress, show_notes, warn, with_masks
from gliomask.cli.options import Device, Labels, Modalities, Output, Threads
from gliomask.cli.train_options import add_options
from gliomask.errors import InputError
from gliomask.model.choices import Normalization
from gliomask.training.config import TrainConfig, make_config
from gliomask.training.options import Panel

if TYPE_CHECKING:
    from gliomask.cases import Case
    from gliomask.evaluation import Evaluation
    from gliomask.execution import Where
    from gliomask.training.run import Run

EXAMPLES = """
**Examples**

`gliomask train BraTS2021_Training_Data -o run --budget 2h`

Continue after a stop, a crash or a power cut, with the settings of the run:

`gliomask train -o run --resume`

Continue the same run for longer:

`gliomask train -o run --resume --epochs 40`

`gliomask train MY_CASES -o tuned --from run/best.safetensors --lr 1e-4 --steps 500`

Learn from masks that were corrected by hand, and see on held-out cases whether it helped:

`gliomask train PATIENTS -o tuned --from run/best.safetensors --corrected predictions --lr 1e-4 --steps 500`

`gliomask train DATA -o run -d cuda --modalities t1,t1ce,t2,flair --drop-modalities 0.3`

Train five folds, cv/fold0 to cv/fold4 (one of them alone: --fold 2):

`gliomask train DATA -o cv --folds 5`

The folds as jobs of SLURM, at the same time; again with --resume if it was stopped:

`gliomask train DATA -o cv --folds 5 --fold all --cluster slurm.yaml`

`torchrun --nproc-per-node 4 -m gliomask train DATA -o run --batch-size 4`

The original project's recipe:

`gliomask train DATA -o seed --network unet --modalities flair,t1ce,t2 --patch-size 128 --batch-size 1 --epochs 20`
`--loss dice+focal --lr 1e-4 --schedule constant --val-fraction 0.25 --min-tumour 0.01`
"""


def train(
    context: typer.Context,
    output: Output,
    cases: Annotated[
        Path | None, typer.Argument(help="A folder or a list of cases with masks, or a cache made by gliomask prepare.")
    ] = None,
    modalities: Modalities = "flair,t1ce,t2",
    device: Device = "auto",
    threads: Threads = None,
    labels: Labels = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the run in the output folder, with its settings.",
            rich_help_panel=Panel.LENGTH.value,
        ),
    ] = False,
    fold: Annotated[
        str,
        typer.Option(
            "--fold",
            help="With --folds, which to train: all, or one or more: 0 or 0,2. With --split, which split of the file.",
            rich_help_panel=Panel.HELD_OUT.value,
        ),
    ] = "all",
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            help="With --folds, train them at the same time on a cluster: a settings file of dask-jobqueue "
            "(slurm.yaml; also pbs, sge, lsf), or the address of a Dask scheduler (tcp://host:8786).",
            rich_help_panel=Panel.HELD_OUT.value,
        ),
    ] = None,
    **settings: Any,
) -> None:
    """Train a network on BraTS cases: log, curves, best and last model in one folder.

    Ctrl-C stops cleanly and loses nothing; --resume continues from there, as it does after a crash. Cases are split by
    patient and validation predicts whole cases.
    """
    from gliomask.files import check_writable
    from gliomask.inference.loading import require_torch

    require_torch()
    check_writable(output)
    from gliomask.cases import get_modality
    from gliomask.cli.bar import train_with_bar

    given = settings | {"modalities": modalities, "device": device, "threads": threads, "labels": labels}
    values = {name: value for name, value in given.items() if _was_given(context, name)}
    if "modalities" in values:
        values["modalities"] = tuple(get_modality(name) for name in modalities.split(","))
    if "start_from" in values:
        values = _of_model(Path(values["start_from"])) | values
    if cases is not None:
        values["cases"] = str(cases.resolve())
    config = make_config(**(_of_run(output, values) if resume else {}) | values)
    if cluster is not None and config.folds is None:
        raise InputError(
            "--cluster trains the folds of a cross-validation: --folds 5. One training: gliomask docs cluster"
        )
    chosen = None if fold == "all" else _numbers(fold)
    if chosen is not None and config.folds is None:
        config = _with_fold(config, chosen)
    where = _cluster_of(cluster, config, chosen)
    source = _source(output, config, given=cases is not None)
    if config.folds is None:
        run = train_with_bar(source, output, config, resume=resume)
        _print_result(run)
        if config.corrected is not None:
            _print_improvement(run)
        return
    _print_folds(*_cross_validate(where, source, output, config, chosen, resume=resume), output)


add_options(train, TrainConfig.model_fields)


def _cluster_of(cluster: str | None, config: TrainConfig, folds: Sequence[int] | None) -> Where | None:
    """Return the cluster with a worker for each fold, or None if this process trains."""
    from gliomask.execution import Where

    if cluster is None:
        return None
    number = config.folds if folds is None else len(folds)
    where = Where(number, cluster, threads=config.threads, alone=True)
    where.check_installed()
    return where


def _cross_validate(
    where: Where | None,
    source: Sequence[Case] | Path,
    output: Path,
    config: TrainConfig,
    folds: Sequence[int] | None,
    *,
    resume: bool,
) -> tuple[list[Run], Evaluation | None]:
    from gliomask.cli.bar import cross_validate_on_with_bar, cross_validate_with_bar

    if where is None:
        return cross_validate_with_bar(source, output, config, folds, resume=resume)
    return cross_validate_on_with_bar(where, source, output, config, folds, resume=resume)


def _was_given(context: typer.Context, name: str) -> bool:
    origin = context.get_parameter_source(name)
    return origin is not None and not origin.name.startswith("DEFAULT")


def _of_run(output: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the run to be continued; a length given now replaces the one it had."""
    from gliomask.training.run import load_run

    folder = next((path.parent for path in sorted(output.glob("fold*/config.json"))), output)
    lengths = {"epochs", "steps", "budget_seconds"}
    if not (folder / "config.json").is_file():
        raise InputError(f"{output}: nothing to resume (no config.json). Start without --resume.")
    settings = load_run(folder).config.model_dump()
    if settings["folds"]:
        del settings["fold"]  # each run of a cross-validation has its own
    return {k: v for k, v in settings.items() if not (lengths & values.keys() and k in lengths)}


def _with_fold(config: TrainConfig, folds: Sequence[int]) -> TrainConfig:
    """Return the config with the split of the file that `--fold` names."""
    if config.split is None:
        raise InputError("--fold chooses among the folds of --folds or the splits of --split: name one of them.")
    if len(folds) > 1:
        raise InputError("--split FILE trains one split at a time: --fold 0, and another output folder for each.")
    return config.model_copy(update={"fold": folds[0]})


def _of_model(path: Path) -> dict[str, Any]:
    """Return the settings in a model file that a run which starts from it shares: its network and normalization."""
    from gliomask.foreign import read_plan

    plan = read_plan(path)
    arguments = dict(plan.network_arguments)
    norm = arguments.pop("norm", "own")
    kind: dict[str, Any] = {"network": plan.network, "network_arguments": arguments}
    kinds = set(plan.normalizations)
    if len(kinds) == 1 and kinds <= set(get_args(Normalization)):
        kind["normalization"] = kinds.pop()
    return kind | ({} if norm == "own" else {"norm": norm or "none"})


def _source(output: Path, config: TrainConfig, *, given: bool) -> Sequence[Case] | Path:
    """Return the cases to train on: a folder that is given or known from the run, or else the run's own cache.

    A run that was started from Python may have no folder of cases, and the folder may have moved since.
    """
    from gliomask.cases import resolve_conventions, survey
    from gliomask.training.cache import is_cache

    kept = output / "cache"
    # The cache holds all cases once a split has been written, here or, in a cross-validation, by a fold.
    complete = is_cache(kept) and any(output.glob(f"{place}splits_final.json") for place in ("", "fold*/"))
    if config.cases is None and not complete:
        raise InputError("name the folder of cases: gliomask train CASES -o run.")
    folder = kept if config.cases is None else Path(config.cases)
    if complete and not given and not folder.exists():
        note(f"{folder}: no longer exists; the cases prepared in {kept} are used")
        folder = kept
    if is_cache(folder):
        if config.corrected is not None and not complete and folder.resolve() != kept.resolve():
            raise InputError("--corrected needs the folder of the cases, not a cache, whose masks are fixed.")
        return folder
    found = survey(folder, output)
    show_notes(found)
    if found.problems:
        raise InputError("; ".join(map(str, found.problems)))
    return resolve_conventions(with_masks(_with_corrections(found.cases, config), folder), config.labels)


def _with_corrections(cases: Sequence[Case], config: TrainConfig) -> Sequence[Case]:
    if config.corrected is None:
        return cases
    from gliomask.training.correction import use_corrections

    changed, corrected = use_corrections(cases, Path(config.corrected), config.labels)
    note(f"corrected masks of {len(corrected)} cases: {listed(corrected)}")
    return changed


def _numbers(text: str) -> list[int]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise InputError(f"--fold {text!r}: write all, or numbers from 0: 2 or 0,1.")
    return [int(number) for number in text.split(",")]


def _print_result(run: Run) -> None:
    from gliomask.training.distributed import is_first
    from gliomask.training.record import best_row

    if not is_first():
        return
    best = best_row(run.rows())
    if "val_dice" in best:
        out.print(f"best epoch {best['epoch']:g}: mean Dice {best['val_dice']:.3f} on whole validation cases")
    else:
        warn("there was no validation: the best model is that of the last epoch")
    out.print(f"curves: {run.folder / 'curves.png'}")
    out.print(f"try: gliomask predict -m {run.best} -i CASE_OR_FOLDER -o predictions --picture")


def _print_improvement(run: Run) -> None:
    """Print the Dice of held-out cases before and after the corrections were learned from."""
    from gliomask.training.correction import compare_with_start
    from gliomask.training.distributed import is_first

    if not is_first():
        return
    with progress("comparing with the model before", 1) as bar:
        task = bar.tasks[0].id
        found = compare_with_start(run, on_case=lambda done, total: bar.update(task, total=total, completed=done))
    for name, test in found.tests.items():
        change = f"{test.difference:+.3f} (95 % interval {test.low:+.3f} to {test.high:+.3f})"
        out.print(f"Dice {name}: {test.second:.3f} before, {test.first:.3f} after, {change}")
    out.print(found.verdict)
    out.print(found.before_saw)
    out.print(f"the new model: {run.last}")


def _print_folds(runs: Sequence[Run], scores: Evaluation | None, output: Path) -> None:
    from gliomask.training.distributed import is_first
    from gliomask.training.record import best_row

    if not is_first():
        return
    for run in runs:
        best = best_row(run.rows())
        out.print(f"{run.folder.name}: best epoch {best['epoch']:g}, mean Dice {best['val_dice']:.3f}")
    if scores is not None:
        out.print(f"held-out cases of all folds so far: {scores}")
    out.print(
        f"predictions of held-out cases by the folds that did not train on them: {output / 'out_of_fold'}, "
        "scores: out_of_fold.csv"
    )
    out.print(f"try: gliomask predict -i CASE_OR_FOLDER -o predictions -m {output}/fold*/best.safetensors")
