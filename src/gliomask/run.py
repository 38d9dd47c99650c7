"""The folder of a training run: its config, split, log, models and checkpoint, and who may write to it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from gliomask.augment import Augmentation
from gliomask.cache import CachedCase, build_cache, cache_plan, open_cache
from gliomask.cases import Case, common_convention, get_modality
from gliomask.engine import Precision
from gliomask.errors import InputError
from gliomask.figures import curves_figure, save_figure
from gliomask.files import replacing, write_text
from gliomask.model import Model, save_model
from gliomask.plan import Normalization, Plan
from gliomask.prepare import common_spacing

# What a run leaves that ended before its first step, for a bad case say; starting again over it loses nothing.
_BEFORE_TRAINING = {"config.json", "splits_final.json", "cache"}


class TrainConfig(BaseModel):
    """How to train; kept with the run for the record, never needed to predict."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str = "unet"
    norm: Literal["instance", "batch", "none"] = "instance"
    modalities: tuple[str, ...] = ("t2f", "t1c", "t2w")
    patch_size: int = Field(default=128, ge=16)
    """The edge of the cubes it is trained on, in voxels; rounded up to what the network takes."""
    batch_size: int = Field(default=1, ge=1)
    epochs: int = Field(default=20, ge=1)
    patches_per_case: int = Field(default=1, ge=1)
    """How many patches of each case make an epoch."""
    loss: str = "dice+ce"
    lr: float = Field(default=1e-3, gt=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    seed: int = Field(default=0, ge=0)
    val_fraction: float = Field(default=0.25, ge=0, lt=1)
    """Of the patients, those kept for validation; 0: none."""
    min_tumour: float = Field(default=0.0, ge=0, lt=1)
    """A case whose whole tumour would fill less than this share of a patch is not trained on."""
    drop_modalities: float = Field(default=0.0, ge=0, lt=1)
    """The probability with which a patch loses each sequence; above 0 the model can predict without some."""
    normalization: Normalization = "zscore"
    augment: bool = True
    device: str = "auto"
    precision: Precision = "auto"
    threads: int | None = Field(default=None, ge=1)

    def augmentation(self) -> Augmentation | None:
        """The random changes to make, or None."""
        return Augmentation() if self.augment else None


@dataclass(frozen=True)
class RunState:
    """Where the loop stands; with the weights and the optimizer it is all that the next step depends on."""

    step: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """Of the steps of the epoch that has begun."""
    tally: list[list[int]] = field(default_factory=lambda: [[0] * 4] * 4)
    seconds: float = 0.0


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

    def split(self) -> dict[str, list[str]]:
        """Return the ids of the cases trained and validated on, as `train` and `val`."""
        folds: list[dict[str, list[str]]] = json.loads((self.folder / "splits_final.json").read_text("utf-8"))
        return folds[0]

    def prepare(self, cases: Sequence[Case] | Path, plan: Plan, *, on_case: Callable[[str], None]) -> list[CachedCase]:
        """Return the cases as the loop reads them: from the cache they are, or prepared into one in this folder."""
        if isinstance(cases, Path):
            return open_cache(cases, plan)
        prepared, problems = build_cache(cases, self.folder / "cache", plan, on_case=on_case)
        if problems:
            raise InputError("; ".join(map(str, problems)))
        return prepared

    def save_model(self, model: Model, name: Literal["best", "last"], facts: Mapping[str, object]) -> None:
        """Write one of the two models, with the facts about its epoch."""
        save_model(model, self.folder / f"{name}.safetensors", training=facts)

    def write_log(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write the log and its curves."""
        write_text(self.folder / "log.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        save_figure(curves_figure(rows), self.folder / "curves.png")

    def save_state(self, state: RunState, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write the checkpoint, whole or not at all."""
        content = {"state": asdict(state), "network": network.state_dict(), "optimizer": optimizer.state_dict()}
        with replacing(self.checkpoint) as partial:
            try:
                torch.save(content, partial)
            except RuntimeError as error:  # torch's word for whatever the disk said
                raise OSError(str(error)) from error

    def load_state(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> RunState:
        """Fill the network and the optimizer from the checkpoint and return the state; a fresh one if there is none."""
        if not self.checkpoint.is_file():
            return RunState()
        try:
            content = torch.load(self.checkpoint, weights_only=True, map_location="cpu")
            network.load_state_dict(content["network"])
            optimizer.load_state_dict(content["optimizer"])
            return RunState(**content["state"])
        except (RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(f"{self.checkpoint}: not a whole checkpoint of this run: {error}") from error


def open_run(folder: Path, config: TrainConfig, *, resume: bool) -> Run:
    """Return a run to write to: a new folder, or with `resume` the one that is there.

    Raises:
        InputError: The folder holds something already, or with `resume` nothing, or a run of another config; what
            differs is named. More (or fewer) epochs are no difference.
    """
    path = folder / "config.json"
    if resume:
        _check_same(path, config)
    elif folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - _BEFORE_TRAINING):
        raise InputError(f"{folder}: is there already and not empty. Go on with --resume, or choose another folder.")
    if not resume:
        (folder / "splits_final.json").unlink(missing_ok=True)
    write_text(path, config.model_dump_json(indent=2) + "\n")
    return Run(folder, config)


def load_run(folder: Path | str) -> Run:
    """Return the run in a folder.

    Raises:
        InputError: There is none.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise InputError(f"{folder}: no run there (no config.json).")
    return Run(Path(folder), TrainConfig.model_validate_json(path.read_text("utf-8")))


def make_plan(config: TrainConfig, cases: Sequence[Case] | Path) -> Plan:
    """Return the plan that a config asks for, with the convention that the training masks use.

    Raises:
        InputError: A name is unknown; or cases lack a mask, or a sequence that the plan names (all are listed), unless
            sequences are dropped in training too.
    """
    modalities = tuple(map(get_modality, config.modalities))
    if isinstance(cases, Path):
        made_for = cache_plan(cases)
        spacing_mm, axes, convention = made_for.spacing_mm, made_for.axes, made_for.convention
    else:
        _check_cases(cases, modalities, can_miss=config.drop_modalities > 0)
        axes = "LPS"
        spacing_mm, convention = common_spacing(cases, axes), common_convention(cases)
    edge = config.patch_size
    return Plan(
        modalities=modalities,
        can_miss=config.drop_modalities > 0,
        convention=convention,
        axes=axes,
        spacing_mm=spacing_mm,
        normalization=config.normalization,
        patch_size=(edge, edge, edge),
        network=config.network,
        network_arguments={"norm": None if config.norm == "none" else config.norm},
    )


def split_cases(
    cases: Sequence[CachedCase], config: TrainConfig, run: Run, plan: Plan
) -> tuple[list[CachedCase], list[CachedCase]]:
    """Return the cases to train and to validate on; the split is by patient, seeded, and written to the run.

    A run that has a split keeps it. Cases below `min_tumour` are not trained on, but validated on.

    Raises:
        InputError: Fewer than two patients with validation asked for, or nothing is left to train on.
    """
    path = run.folder / "splits_final.json"
    if not path.is_file():
        write_text(path, json.dumps([_split(cases, config)], indent=2) + "\n")
    ids = run.split()
    validation = [case for case in cases if case.id in set(ids["val"])]
    candidates = [case for case in cases if case.id in set(ids["train"])]
    training = [case for case in candidates if case.voxels["WT"] >= config.min_tumour * np.prod(plan.patch_size)]
    if not training:
        raise InputError(
            f"no case is left to train on: of {len(candidates)}, all have tumours under {config.min_tumour:.2%} of a "
            "patch. Lower --min-tumour."
        )
    return training, validation


def _split(cases: Sequence[CachedCase], config: TrainConfig) -> dict[str, list[str]]:
    patients = sorted({case.patient for case in cases})
    count = max(1, round(config.val_fraction * len(patients))) if config.val_fraction else 0
    if count >= len(patients):
        raise InputError(
            f"{len(patients)} patient(s): too few to keep {count} for validation. Give more cases, or --val-fraction 0."
        )
    order = np.random.default_rng([config.seed, 0]).permutation(len(patients))
    held_out = {patients[i] for i in order[:count]}
    return {
        "train": [case.id for case in cases if case.patient not in held_out],
        "val": [case.id for case in cases if case.patient in held_out],
    }


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
    free = {"epochs", "device", "threads"}
    changed = [key for key, value in config.model_dump(mode="json").items() if value != before[key] and key not in free]
    if changed:
        listed = ", ".join(f"{key} was {before[key]}" for key in changed)
        raise InputError(f"{path.parent}: the run was started with other settings ({listed}). Resume with those.")
