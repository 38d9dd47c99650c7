"""The folder of a training run: its config, split, log, models and checkpoint, and who may write to it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gliomask.cases import Case, common_convention, get_modality
from gliomask.errors import InputError
from gliomask.figures import SCREEN_DPI, curves_figure, figure_png, save_figure
from gliomask.files import replacing, write_text
from gliomask.inference.loading import Model, save_model
from gliomask.inference.preprocessing import common_spacing
from gliomask.labels import get_convention
from gliomask.model.plan import Plan
from gliomask.training.cache import CachedCase, build_cache, cache_plan, open_cache
from gliomask.training.config import FREE, TrainConfig, make_config
from gliomask.training.split import Split, hold_out, make_folds, read_split

# What a run leaves that ended before its first step, for a bad case say; starting again over it loses nothing.
_BEFORE_TRAINING = {"config.json", "splits_final.json", "cache"}


@dataclass(frozen=True)
class RunState:
    """Where the loop stands; with the weights and the optimizer it is all that the next step depends on."""

    step: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    """The log."""
    seconds: float = 0.0
    """Since the start, over all parts of a resumed run."""
    losses: list[float] = field(default_factory=list)
    """Of the steps of the epoch that has begun; so are the following."""
    confusion: list[list[int]] = field(default_factory=lambda: [[0] * 4] * 4)
    epoch_seconds: float = 0.0
    wait_seconds: float = 0.0


@dataclass(frozen=True)
class Run:
    """A run's folder and the files in it."""

    folder: Path
    config: TrainConfig

    @property
    def best(self) -> Path:
        """The model of the epoch with the highest mean Dice."""
        return self.folder / "best.safetensors"

    @property
    def last(self) -> Path:
        """The model of the last whole epoch."""
        return self.folder / "last.safetensors"

    @property
    def checkpoint(self) -> Path:
        """What a resumed run starts from."""
        return self.folder / "checkpoint.pt"

    def rows(self) -> list[dict[str, float]]:
        """Return the log, a row an epoch."""
        path = self.folder / "log.jsonl"
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []

    def _repr_png_(self) -> bytes | None:
        """The curves, where a notebook shows the run; nothing before the first epoch has ended."""
        rows = self.rows()
        return figure_png(curves_figure(rows), dpi=SCREEN_DPI) if rows else None

    def split(self) -> Split:
        """Return the ids of the cases trained and validated on, as `train` and `val`."""
        folds: list[Split] = json.loads((self.folder / "splits_final.json").read_text("utf-8"))
        return folds[self.config.fold]

    def prepare(self, cases: Sequence[Case] | Path, plan: Plan, *, on_case: Callable[[str], None]) -> list[CachedCase]:
        """Return the cases as the loop reads them: from the cache they are, or prepared into one in this folder."""
        if isinstance(cases, Path):
            return open_cache(cases, plan)
        prepared, problems = build_cache(cases, self.folder / "cache", plan, on_case=on_case)
        if problems:
            raise InputError("; ".join(map(str, problems)))
        return sorted(prepared, key=lambda case: case.id)  # as `open_cache` does: the order decides the patches

    def save_model(self, model: Model, name: Literal["best", "last"], facts: Mapping[str, object]) -> None:
        """Write one of the two models, with the facts about its epoch."""
        save_model(model, self.folder / f"{name}.safetensors", training=facts)

    def write_log(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write the log; for TensorBoard the last row, at its step."""
        write_text(self.folder / "log.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        if self.config.tensorboard:
            with _event_writer(self.folder / "tensorboard") as events:
                for name, value in rows[-1].items():
                    events.add_scalar(name, value, int(rows[-1]["step"]))

    def draw_curves(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Draw the log's rows."""
        save_figure(curves_figure(rows), self.folder / "curves.png")

    def save_state(self, state: RunState, parts: Mapping[str, Any]) -> None:
        """Write the checkpoint, whole or not at all; of each part (network, optimizer, scaler) its `state_dict`."""
        content = {"state": asdict(state)} | {name: part.state_dict() for name, part in parts.items()}
        with replacing(self.checkpoint) as partial:
            try:
                torch.save(content, partial)
            except RuntimeError as error:  # torch's word for whatever the disk said
                raise OSError(str(error)) from error

    def load_state(self, parts: Mapping[str, Any]) -> RunState:
        """Fill the parts from the checkpoint and return the state; a fresh one if there is none."""
        if not self.checkpoint.is_file():
            return RunState()
        try:
            content = torch.load(self.checkpoint, weights_only=True, map_location="cpu")
            for name, part in parts.items():
                part.load_state_dict(content[name])
            return RunState(**_renamed(content["state"]))
        except (RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(f"{self.checkpoint}: not a whole checkpoint of this run: {error}") from error


def _renamed(state: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's state with today's names: version 0.1 wrote `tally` for `confusion`."""
    return {("confusion" if name == "tally" else name): value for name, value in state.items()}


def open_run(folder: Path, config: TrainConfig, *, resume: bool) -> Run:
    """Return a run to write to: a new folder, or with `resume` the one that is there.

    Raises:
        InputError: The folder holds something already, or with `resume` nothing, or a run of another config; what
            differs is named. Its length and what leaves the result as it is (`config.FREE`) may differ.
    """
    path = folder / "config.json"
    if resume:
        _check_same(path, config)
    elif folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - _BEFORE_TRAINING):
        raise InputError(f"{folder}: is there already and not empty. Go on with --resume, or choose another folder.")
    if not resume:
        (folder / "splits_final.json").unlink(missing_ok=True)
    if config.tensorboard:
        _event_writer(folder / "tensorboard").close()
    for left in folder.glob(".partial-*"):  # of a process that was killed while it wrote
        left.unlink()
    write_text(path, config.model_dump_json(indent=2) + "\n")
    return Run(folder, config)


def _event_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("--tensorboard needs TensorBoard: pip install tensorboard.") from error
    return SummaryWriter(str(folder))


def load_run(folder: Path | str) -> Run:
    """Return the run in a folder.

    Raises:
        InputError: There is none, or its config is of another version.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise InputError(f"{folder}: no run there (no config.json).")
    try:
        return Run(Path(folder), make_config(**json.loads(path.read_text("utf-8"))))
    except (InputError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not the config of a run of this version: {error}") from error


def make_plan(config: TrainConfig, cases: Sequence[Case] | Path) -> Plan:
    """Return the plan that a config asks for, with the convention that the training masks use.

    Its regions are those of WT, TC and ET that at least one mask labels.

    Raises:
        InputError: A name is unknown; or cases lack a mask, or a sequence that the plan names (all are listed), unless
            sequences are dropped in training too.
    """
    modalities = tuple(map(get_modality, config.modalities))
    if isinstance(cases, Path):
        made_for = cache_plan(cases)
        spacing_mm, axes, convention = made_for.spacing_mm, made_for.axes, made_for.convention
        known = {region for case in open_cache(cases, made_for) for region in case.known}
    else:
        _check_cases(cases, modalities, can_miss=config.drop_modalities > 0)
        axes = "LPS"
        spacing_mm, convention = common_spacing(cases, axes), common_convention(cases)
        known = {region for case in cases for region in case.known}
    regions = tuple(region for region in ("WT", "TC", "ET") if region in known)
    edge = config.patch_size
    norm = {} if config.norm is None else {"norm": None if config.norm == "none" else config.norm}
    return Plan(
        modalities=modalities,
        can_miss=config.drop_modalities > 0,
        regions=regions,
        convention=convention if set(regions) <= set(get_convention(convention).known) else "brats2021",
        axes=axes,
        spacing_mm=spacing_mm,
        normalization=config.normalization,
        patch_size=(edge, edge, edge),
        whole_brain=config.whole_brain,
        network=config.network,
        network_arguments=config.network_arguments | norm,
    )


def split_cases(
    cases: Sequence[CachedCase], config: TrainConfig, run: Run, plan: Plan
) -> tuple[list[CachedCase], list[CachedCase]]:
    """Return the cases to train and to validate on; see `split`. The split is written to the run, and then kept.

    Cases below `min_tumour` are not trained on, but validated on.

    Raises:
        InputError: Too few patients, or nothing is left to train on.
    """
    path = run.folder / "splits_final.json"
    if not path.is_file():
        splits = _splits(cases, config)
        write_text(path, json.dumps(splits, indent=2) + "\n")
    ids = run.split()
    validation = [case for case in cases if case.id in set(ids["val"])]
    candidates = [case for case in cases if case.id in set(ids["train"])]
    least = config.min_tumour * np.prod(plan.patch_size)
    training = [case for case in candidates if "WT" not in case.known or case.voxels["WT"] >= least]
    if not training:
        raise InputError(
            f"no case is left to train on: of {len(candidates)}, all have tumours under {config.min_tumour:.2%} of a "
            "patch. Lower --min-tumour."
        )
    return training, validation


def _splits(cases: Sequence[CachedCase], config: TrainConfig) -> list[Split]:
    if config.split:
        return [read_split(Path(config.split), cases)]
    if config.folds:
        return make_folds(cases, config.folds, config.seed)
    return [hold_out(cases, config.val_fraction, config.seed)]


def _check_cases(cases: Sequence[Case], modalities: Sequence[str], *, can_miss: bool) -> None:
    wrong = []
    for case in cases:
        missing = [modality for modality in modalities if modality not in case.images]
        if case.mask is None:
            wrong.append(f"{case.id} has no mask")
        if missing and not (can_miss and len(missing) < len(modalities)):
            wrong.append(f"{case.id} lacks {', '.join(missing)}")
    if wrong:
        shown = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise InputError(
            f"cannot train on all cases: {shown}. Complete them or move them away; where sequences are missing, name "
            "fewer --modalities or train with --drop-modalities 0.3."
        )


def _check_same(path: Path, config: TrainConfig) -> None:
    if not path.is_file():
        raise InputError(f"{path.parent}: nothing to resume (no config.json). Start without --resume.")
    before = load_run(path.parent).config.model_dump(mode="json")
    changed = [key for key, value in config.model_dump(mode="json").items() if value != before[key] and key not in FREE]
    if changed:
        listed = ", ".join(f"{key} was {before[key]}" for key in changed)
        raise InputError(f"{path.parent}: the run was started with other settings ({listed}). Resume with those.")
