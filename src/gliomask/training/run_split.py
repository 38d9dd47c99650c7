"""The split of a run: which cases it trains on and which it holds out, drawn once and then kept in its folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from gliomask.cases import Case, describe_patients
from gliomask.errors import InputError
from gliomask.files import write_text
from gliomask.labels import get_convention
from gliomask.model.plan import Plan
from gliomask.training.cache import CachedCase
from gliomask.training.config import TrainConfig
from gliomask.training.learned import Learned, learned_from, seen_patients
from gliomask.training.own_files import read_json
from gliomask.training.patients import with_patients
from gliomask.training.run import Run, load_run
from gliomask.training.split import Split, hold_out, make_folds, read_splits


def split_cases(
    cases: Sequence[CachedCase],
    config: TrainConfig,
    run: Run,
    plan: Plan,
    *,
    on_split: Callable[[str], None],
    on_note: Callable[[str], None] = lambda _: None,
) -> tuple[list[CachedCase], list[CachedCase]]:
    """Return the cases to train on and to validate on; see `split`. The split is written to the run once and then kept.

    Cases whose tumour is smaller than `min_tumour` are left out of training but not of validation. When a split is
    drawn, `on_split` is called with how patients were told apart, and `on_note` with what else is to be known about it.

    A run that starts from a model holds out patients that this model was not trained on, as far as the
    `splits_final.json` beside it tells (`learned_from`). A cross-validation holds out all, and says so.

    Raises:
        InputError: There are too few patients, no case is left to train on, a case of the run's split is missing, or
            the split file holds out patients that the model was trained on from which the run starts.
    """
    path = run.folder / "splits_final.json"
    if not path.is_file():
        of_patients = with_patients(cases, Path(config.patients) if config.patients else None)
        on_split(describe_patients(of_patients))
        write_text(path, json.dumps(_splits(of_patients, config, on_note), indent=2) + "\n")
    check_complete(run.folder, {case.id for case in cases})
    ids = {side: set(names) for side, names in run.split().items()}
    validation = [case for case in cases if case.id in ids["val"]]
    candidates = [case for case in cases if case.id in ids["train"]]
    least = config.min_tumour * np.prod(plan.patch_size)
    training = [case for case in candidates if "WT" not in case.known or case.voxels["WT"] >= least]
    if not training:
        raise InputError(
            f"no case is left to train on: the tumours of all {len(candidates)} fill less than {config.min_tumour:.2%} "
            "of a patch. Lower --min-tumour."
        )
    return training, validation


def _splits(cases: Sequence[CachedCase], config: TrainConfig, on_note: Callable[[str], None]) -> list[Split]:
    learned = None if config.start_from is None else learned_from(Path(config.start_from))
    table = Path(config.patients) if config.patients else None
    seen = set() if learned is None else seen_patients(cases, learned.ids, table)
    if config.split:
        splits = read_splits(Path(config.split), cases, config.fold)
        if len(splits) > 1:
            on_note(f"{config.split}: split {config.fold} of {len(splits)} is used, counted from 0 (--fold)")
    elif config.folds:
        splits = make_folds(cases, config.folds, config.seed)
    else:
        splits = [hold_out(cases, config.val_fraction, config.seed, seen)]
    held_out = {case.patient for case in cases if case.id in splits[config.fold]["val"]}
    if config.split and (both := sorted(held_out & seen)):
        raise InputError(
            f"{config.split}: holds out {', '.join(both[:5])}{' and others' if len(both) > 5 else ''}, whom the model "
            f"{config.start_from} was trained on. Train on them, or start from another model."
        )
    if learned is not None and held_out:
        on_note(_what_start_saw(config, learned, seen, held_out, len({case.patient for case in cases})))
    return splits


def _what_start_saw(
    config: TrainConfig, learned: Learned, seen: Collection[str], held_out: Collection[str], patients: int
) -> str:
    """Return what is known about the held-out patients and the cases that the first model was trained on."""
    if both := set(held_out) & set(seen):
        count = f"{len(both)} of the {len(held_out)} held-out patients"
        text = f"the model of --from was trained on {count}: scores on them are too high"
    else:
        text = f"the model of --from was trained on {len(seen)} of the {patients} patients; none of them is held out"
        if seen and len(held_out) == patients - len(seen):
            text += ", and all others are (to learn from more of these: a lower --val-fraction)"
    if learned.unknown is None:
        return text
    unknown = (
        f"it is not known which of the held-out patients {learned.unknown} was trained on: no splits_final.json lies "
        "beside it"
    )
    return f"{text}; {unknown}" if seen else unknown


def check_complete(folder: Path, ids: Collection[str]) -> None:
    """Refuse to go on with a run without all cases of its split; a run whose split is not drawn yet needs none.

    Raises:
        InputError: As said; or the split is damaged.
    """
    path = folder / "splits_final.json"
    wanted = {name for side in load_run(folder).split().values() for name in side} if path.is_file() else set()
    if missing := sorted(wanted - set(ids)):
        raise InputError(
            f"{path}: {len(missing)} case(s) of the run's split are not among the {len(ids)} cases given, such as "
            f"{missing[0]}. Resume with all cases of the run."
        )


def check_conventions(cases: Sequence[Case] | Path, cache: Path, runs: Sequence[Path]) -> None:
    """Refuse to go on with runs whose prepared cases would now be read in another label convention.

    Args:
        cases: As for `train`; the cases of a cache are as they were prepared.
        cache: The cache of the runs, which need not exist yet; cases that are not in it, or damaged, are passed over.
        runs: The folders of the runs; the cases of their splits are looked at.

    Raises:
        InputError: As said, with both conventions; or the split of a run is damaged.
    """
    if isinstance(cases, Path):
        return
    splits = [load_run(folder).split() for folder in runs if (folder / "splits_final.json").is_file()]
    wanted = {name for split in splits for side in split.values() for name in side}
    changed: dict[str, tuple[str, str]] = {}
    for case in cases:
        path = cache / case.id / "case.json"
        if case.id not in wanted or case.convention is None or not path.is_file():
            continue
        with suppress(InputError, LookupError, TypeError):
            before = get_convention(read_json(path, "")["convention"]).name
            if before != get_convention(case.convention).name:
                changed[case.id] = (before, case.convention)
    if changed:
        (first, (before, now)), *_ = changed.items()
        raise InputError(
            f"{cache}: {len(changed)} case(s) of the run, such as {first}, were prepared with masks in the numbers of "
            f"{before} and would now be read as {now}. Resume with --labels {before}, or start a new run."
        )
