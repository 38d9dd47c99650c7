"""Cross-validation: a run for each fold, and a prediction of every case by the model that was not trained on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gliomask.cases import Case
from gliomask.errors import InputError
from gliomask.evaluation import Task, evaluate_tasks
from gliomask.inference.loading import load_torch_model
from gliomask.inference.prediction import predict
from gliomask.inference.torch_engine import get_device
from gliomask.inference.windows import Inference
from gliomask.labels import LabelConvention, get_convention
from gliomask.training.cache import CachedCase, build_cache, cache_plan, open_cache
from gliomask.training.config import TrainConfig
from gliomask.training.distributed import ProcessGroup, join_process_group
from gliomask.training.loop import Watcher, train
from gliomask.training.own_files import read_json, reading
from gliomask.training.run import Run, load_run, make_plan


def cross_validate(
    cases: Sequence[Case] | Path,
    folder: Path | str,
    config: TrainConfig,
    folds: Sequence[int] | None = None,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> list[Run]:
    """Train some or all folds, one after the other, and return their runs: `fold0`, `fold1`, ... in the folder.

    The `splits_final.json` of every fold lists all splits, as nnU-Net writes them. The cases are prepared once, in
    `cache`. When a fold has been trained, its best model predicts a mask of each held-out case into `out_of_fold`,
    except for cases whose files have moved since they were prepared. `out_of_fold.csv` has the scores, by the rules of
    BraTS 2021, of all folds that have been predicted so far.

    Args:
        cases: As for `train`.
        folder: Where the runs are written.
        config: With `folds`; its `fold` is replaced.
        folds: The folds to train; by default all. Others may be trained elsewhere and their folders copied here.
        resume: Keep finished folds, resume one that was stopped, and start missing ones.
        watcher: As for `train`; if it stops one fold, no other is started.

    Raises:
        InputError: As for `train`; or there is no such fold.
    """
    if config.folds is None:
        raise InputError("cross-validation needs a number of folds: --folds 5.")
    chosen = list(range(config.folds)) if folds is None else list(folds)
    if wrong := [fold for fold in chosen if not 0 <= fold < config.folds]:
        raise InputError(f"there is no fold {', '.join(map(str, wrong))}; the {config.folds} folds count from 0.")
    watcher = watcher or Watcher()
    folder = Path(folder)
    runs: list[Run] = []
    with join_process_group(get_device(config.device)) as group:
        cache = cases if isinstance(cases, Path) else _prepare(cases, folder / "cache", config, group, watcher)
        for fold in chosen:
            place = folder / f"fold{fold}"
            resumed = resume and (place / "checkpoint.pt").is_file()
            run = train(cache, place, config.model_copy(update={"fold": fold}), resume=resumed, watcher=watcher)
            runs.append(run)
            if watcher.should_stop():
                break
            group.once(lambda run=run: _predict_held_out(run, cache, folder / "out_of_fold"))  # type: ignore[misc]
        group.once(lambda: _score(cache, folder))
    return runs


def found_folds(folder: Path) -> list[Run]:
    """Return the runs of a cross-validation in a folder; an empty list if the folder holds something else."""
    return [load_run(path.parent) for path in sorted(folder.glob("fold*/config.json"))]


def _prepare(cases: Sequence[Case], cache: Path, config: TrainConfig, group: ProcessGroup, watcher: Watcher) -> Path:
    def build() -> None:
        _, problems = build_cache(cases, cache, make_plan(config, cases), on_case=watcher.on_prepared)
        if problems:
            raise InputError("; ".join(map(str, problems)))

    group.once(build)
    return cache


def _predict_held_out(run: Run, cache: Path, folder: Path) -> None:
    """Predict a fold's validation cases with its best model, except those whose mask is newer than the model."""
    model = load_torch_model(run.best, device=run.config.device)
    held_out = set(run.split()["val"])
    prepared = [case for case in open_cache(cache, model.plan) if case.id in held_out]
    for case in prepared:
        path = folder / f"{case.id}.nii.gz"
        made = path.is_file() and path.stat().st_mtime >= run.best.stat().st_mtime
        if not made and _files_exist(case):
            predict(model, case.case(), inference=Inference(precision=run.config.precision)).save(path)


def _score(cache: Path, folder: Path) -> None:
    """Score all existing predictions, of this call's folds and of earlier ones, against the masks of the cases."""
    tasks = []
    for case in open_cache(cache, cache_plan(cache)):
        path = folder / "out_of_fold" / f"{case.id}.nii.gz"
        if path.is_file() and _files_exist(case):
            numbers = get_convention(case.convention)
            tasks.append(Task(case.id, Path(case.files["mask"][0]), numbers, path, _written_convention(path)))
    if tasks:
        evaluate_tasks(tasks).save(folder / "out_of_fold.csv")


def _written_convention(mask: Path) -> LabelConvention:
    """Return the label convention that a predicted mask was written in, from the JSON file beside it."""
    path = mask.with_name(mask.name.replace(".nii.gz", ".json"))
    remedy = "Delete it and the mask, and resume the cross-validation, which predicts the case again."
    facts = read_json(path, remedy)
    with reading(path, remedy):
        return get_convention(facts["labels"]["convention"])


def _files_exist(case: CachedCase) -> bool:
    return all(Path(path).is_file() for path, _ in case.files.values())
