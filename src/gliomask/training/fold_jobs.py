"""The folds of a cross-validation on the workers of a cluster, each trained by a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gliomask.cases import Case
from gliomask.errors import InputError
from gliomask.execution import Where, map_cases, usable_cores
from gliomask.files import one_writer
from gliomask.training.config import TrainConfig
from gliomask.training.cross_validation import chosen_folds, is_complete, prepared_once, score_folds
from gliomask.training.run import Run, load_run, open_run, start_plan
from gliomask.training.watcher import Watcher

# How long a worker's last process may take to save its state after the scheduler has given its fold to another worker.
_SAVING_SECONDS = 600.0
# How long a worker whose fold was told to end waits for its own end, before it goes on with the fold.
_ENDING_SECONDS = 60.0


def cross_validate_on(
    where: Where,
    cases: Sequence[Case] | Path,
    folder: Path | str,
    config: TrainConfig,
    folds: Sequence[int] | None = None,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> list[Run]:
    """Train some or all folds at the same time on a cluster; return the runs of those that are complete.

    The results are those of `cross_validate`. The cases are prepared here, once. What a fold's process prints is in
    `fold0.log`, `fold1.log` and so on in the folder. A fold whose worker is lost, for example because its job was
    pre-empted, is given to another worker and resumed from its checkpoint, as often as it gets further each time.

    Args:
        where: The cluster. The number of workers is that of the folds unless it is given.
        cases, folder, config, folds: As for `cross_validate`; all workers must reach them by the same paths.
        resume: As for `cross_validate`.
        watcher: Is called when cases are prepared, when a fold is complete (`on_fold`) and at the end (`on_scores`).

    Raises:
        InputError: As for `cross_validate`; the cluster cannot be used; or folds failed: all of them are named, and the
            others are complete.
    """
    chosen = chosen_folds(config, folds)
    watcher, folder = watcher or Watcher(), Path(folder).absolute()
    start = start_plan(config, [folder / f"fold{fold}" for fold in chosen] if resume else [])
    for fold in chosen:
        place = folder / f"fold{fold}"
        with one_writer(place):
            again = resume and (place / "config.json").is_file()
            # Another run is refused before any work.
            open_run(place, config.model_copy(update={"fold": fold}), start, resume=again)
    cache = prepared_once(cases, folder / "cache", config, start, watcher, resume=resume).absolute()
    work = partial(train_fold, cache, folder, config.threads)
    failed: dict[int, str] = {}
    left = chosen
    while left:
        before = {fold: _saved(folder, fold) for fold in left}
        lost: dict[int, str] = {}
        for fold, found in map_cases(work, left, where):
            if isinstance(found, InputError):
                lost[fold] = str(found)
            elif found is not None:
                failed[fold] = found
            else:
                watcher.on_fold(load_run(folder / f"fold{fold}"))
        left = [fold for fold in lost if _saved(folder, fold) != before[fold]]
        failed |= {fold: text for fold, text in lost.items() if fold not in left}
    if scores := score_folds(cache, folder):
        watcher.on_scores(scores)
    if failed:
        listed = "; ".join(f"fold {fold}: {text}" for fold, text in sorted(failed.items()))
        raise InputError(f"{listed} ({len(failed)} of {len(chosen)} folds; the others are complete). Use --resume.")
    return [load_run(folder / f"fold{fold}") for fold in chosen]


def train_fold(cache: Path, folder: Path, threads: int | None, fold: int) -> str | None:
    """Train a fold, whose `config.json` is there, to its end in a process of its own; return why it failed, or None.

    The process receives the signals of the job scheduler itself, as only the main thread of a process can, and saves
    its state. If this worker is not ended afterwards, it starts the process again.
    """
    log = folder / f"fold{fold}.log"
    try:
        _wait_for_last_worker(folder, fold)
        run = load_run(folder / f"fold{fold}")
        words = ["-o", str(folder), "--fold", str(fold), "--resume", "--threads", str(threads or usable_cores())]
        while not is_complete(run, cache):
            if status := _run(["train", str(cache), *words], log):
                return f"{_last_line(log)} (exit status {status}, {log})"
            if not is_complete(run, cache):
                time.sleep(_ENDING_SECONDS)
    except InputError as error:
        return str(error)
    return None


def _wait_for_last_worker(folder: Path, fold: int) -> None:
    """Return when no process writes to the fold; the one of a worker that was lost may still train, and get further."""
    while True:
        before = _saved(folder, fold)
        try:
            with one_writer(folder / f"fold{fold}", wait_seconds=_SAVING_SECONDS):
                return
        except InputError:
            if _saved(folder, fold) == before:
                raise


def _run(words: list[str], log: Path) -> int:
    with log.open("ab") as said:
        command = [sys.executable, "-m", "gliomask", *words]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, check=False
        ).returncode


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def _saved(folder: Path, fold: int) -> int:
    """Return when the checkpoint of a fold was written; 0 if there is none."""
    path = folder / f"fold{fold}" / "checkpoint.pt"
    return path.stat().st_mtime_ns if path.is_file() else 0
