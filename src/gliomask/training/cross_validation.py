"""Cross-validation: a run for each fold, and a prediction of every case by the model that was not trained on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gliomask.cases import Case
from gliomask.errors import InputError
from gliomask.evaluation import Evaluation, Task, evaluate_tasks
from gliomask.inference.loading import load_torch_model
from gliomask.inference.prediction import predict
from gliomask.inference.torch_engine import get_device
from gliomask.inference.windows import Inference
from gliomask.labels import LabelConvention, get_convention
from gliomask.model.plan import Plan
from gliomask.training.cache import CachedCase, build_cache, cache_plan, forget_cases, further_cases, open_cache
from gliomask.training.config import TrainConfig
from gliomask.training.distributed import join_process_group
from gliomask.training.loop import train
from gliomask.training.own_files import read_json, reading
from gliomask.training.run import Run, load_run, make_plan, start_plan
from gliomask.training.run_split import check_complete, check_conventions
from gliomask.training.watcher import Watcher


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
    chosen = chosen_folds(config, folds)
    watcher = watcher or Watcher()
    folder = Path(folder)
    runs: list[Run] = []
    earlier = [folder / f"fold{fold}" for fold in chosen] if resume else []
    with join_process_group(get_device(config.device)) as group:
        start = group.once(lambda: start_plan(config, earlier))
        cache = group.once(lambda: prepared_once(cases, folder / "cache", config, start, watcher, resume=resume))
        for fold in chosen:
            place = folder / f"fold{fold}"
            resumed = resume and (place / "config.json").is_file()
            run = train(cache, place, config.model_copy(update={"fold": fold}), resume=resumed, watcher=watcher)
            runs.append(run)
            if watcher.should_stop():
                break
            group.once(lambda run=run: _predict_held_out(run, cache, folder / "out_of_fold"))  # type: ignore[misc]
        scores = group.once(lambda: score_folds(cache, folder))
    if scores is not None:
        watcher.on_scores(scores)
    return runs


def chosen_folds(config: TrainConfig, folds: Sequence[int] | None) -> list[int]:
    """Return the folds to train: those that are given, or all.

    Raises:
        InputError: The config has no number of folds, or there is no such fold.
    """
    if config.folds is None:
        raise InputError("cross-validation needs a number of folds: --folds 5.")
    chosen = list(range(config.folds)) if folds is None else list(folds)
    if wrong := [fold for fold in chosen if not 0 <= fold < config.folds]:
        raise InputError(f"there is no fold {', '.join(map(str, wrong))}; the {config.folds} folds count from 0.")
    return chosen


def found_folds(folder: Path) -> list[Run]:
    """Return the runs of a cross-validation in a folder; an empty list if the folder holds something else."""
    return [load_run(path.parent) for path in sorted(folder.glob("fold*/config.json"))]


def prepared_once(
    cases: Sequence[Case] | Path,
    place: Path,
    config: TrainConfig,
    start: Plan | None,
    watcher: Watcher,
    *,
    resume: bool = False,
) -> Path:
    """Return the cache that all folds use: the given one, or one that is made at a place in their folder.

    A cache that is made holds the given cases only: what an earlier call prepared of others is taken out of it.

    Raises:
        InputError: Cases cannot be prepared; all of them are named. With `resume`, a case that a fold trains or
            validates on is not given; or as for `run.check_conventions`.
    """
    if isinstance(cases, Path):
        return cases
    if resume:
        begun = [run.folder for run in found_folds(place.parent)]
        check_conventions(cases, place, begun)
        for folder in begun:
            check_complete(folder, {case.id for case in cases})
    prepared, problems = build_cache(cases, place, make_plan(config, cases, start), on_case=watcher.on_prepared)
    if problems:
        raise InputError("; ".join(map(str, problems)))
    forget_cases(place, further_cases(place, {case.id for case in prepared}))
    return place


def _predict_held_out(run: Run, cache: Path, folder: Path) -> None:
    """Predict a fold's validation cases with its best model, except those whose mask is newer than the model."""
    if not (left := _not_predicted(run, cache, folder)):
        return
    model = load_torch_model(run.best, device=run.config.device)
    for case in left:
        path = folder / f"{case.id}.nii.gz"
        predict(model, case.case(), inference=Inference(precision=run.config.precision)).save(path)


def _not_predicted(run: Run, cache: Path, folder: Path) -> list[CachedCase]:
    held_out = set(run.split()["val"])
    prepared = [case for case in open_cache(cache, cache_plan(cache)) if case.id in held_out and _files_exist(case)]
    written = run.best.stat().st_mtime
    paths = [folder / f"{case.id}.nii.gz" for case in prepared]
    made = [path.is_file() and path.stat().st_mtime >= written for path in paths]
    return [case for case, done in zip(prepared, made, strict=True) if not done]


def is_complete(run: Run, cache: Path) -> bool:
    """Tell whether a fold has been trained to its end and its best model has predicted the held-out cases."""
    return run.finished.is_file() and not _not_predicted(run, cache, run.folder.parent / "out_of_fold")


def score_folds(cache: Path, folder: Path) -> Evaluation | None:
    """Score all existing predictions, of this call's folds and of earlier ones, against the masks of the cases.

    The scores are written to `out_of_fold.csv`. None, and no file, if there is no prediction.
    """
    tasks = []
    for case in open_cache(cache, cache_plan(cache)):
        path = folder / "out_of_fold" / f"{case.id}.nii.gz"
        if path.is_file() and _files_exist(case):
            numbers = get_convention(case.convention)
            tasks.append(Task(case.id, Path(case.files["mask"][0]), numbers, path, _written_convention(path)))
    if not tasks:
        return None
    scores = evaluate_tasks(tasks)
    scores.save(folder / "out_of_fold.csv")
    return scores


def _written_convention(mask: Path) -> LabelConvention:
    """Return the label convention that a predicted mask was written in, from the JSON file beside it."""
    path = mask.with_name(mask.name.replace(".nii.gz", ".json"))
    remedy = "Delete it and the mask, and resume the cross-validation, which predicts the case again."
    facts = read_json(path, remedy)
    with reading(path, remedy):
        return get_convention(facts["labels"]["convention"])


def _files_exist(case: CachedCase) -> bool:
    return all(Path(path).is_file() for path, _ in case.files.values())
