"""The folder of a training run: its config, split, log, models and checkpoint."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import TypeAdapter

from gliomask.cases import Case, common_convention, get_modality
from gliomask.errors import InputError
from gliomask.figures import SCREEN_DPI, curves_figure, figure_png, save_figure
from gliomask.files import clear_partials, replacing, write_text
from gliomask.foreign import read_plan
from gliomask.inference.loading import Model, new_model, save_model
from gliomask.inference.preprocessing import common_spacing
from gliomask.labels import get_convention
from gliomask.model.plan import Plan, Postprocessing, plan_from_dict, plan_to_dict
from gliomask.model.sampling import Origin
from gliomask.training.cache import CachedCase, build_cache, cache_plan, open_cache
from gliomask.training.config import FREE, TrainConfig
from gliomask.training.own_files import reading
from gliomask.training.record import check_row, read_config, read_log, read_run_split, write_log
from gliomask.training.split import Split

START = "start.json"
"""The plan of the model that a run started from."""
# The files of a run that ended before its first step, for example because of a bad case. Such a run can be started
# again without losing anything. The last two are those of the lock under which a run is written; the folder for
# TensorBoard has no row of an epoch yet.
BEFORE_TRAINING = {
    *("config.json", START, "splits_final.json", "cache", "tensorboard"),
    *(".writing.lock", ".writing.json"),
}


@dataclass(frozen=True)
class RunState:
    """The progress of the training loop. The next step depends on this, the weights and the optimizer alone."""

    step: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    """The log."""
    seconds: float = 0.0
    """Time since the start, summed over all parts of a resumed run."""
    losses: list[float] = field(default_factory=list)
    """The losses of the steps of the current epoch; the following fields are of the current epoch as well."""
    confusion: list[list[int]] = field(default_factory=lambda: [[0] * 4] * 4)
    epoch_seconds: float = 0.0
    wait_seconds: float = 0.0


@dataclass(frozen=True)
class Run:
    """The folder of a run and the files in it."""

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
        """The file that a resumed run starts from."""
        return self.folder / "checkpoint.pt"

    @property
    def finished(self) -> Path:
        """A file that is there once the training has reached its end, for scripts that start it again until then."""
        return self.folder / "finished.json"

    def rows(self) -> list[dict[str, float]]:
        """Return the log, a row for each epoch; see `record.read_log`."""
        return read_log(self.folder)

    def _repr_png_(self) -> bytes | None:
        """Return the curves for a notebook; None before the first epoch has finished."""
        rows = self.rows()
        return figure_png(curves_figure(rows), dpi=SCREEN_DPI) if rows else None

    def split(self) -> Split:
        """Return the ids of the cases trained and validated on, as `train` and `val`; see `record.read_run_split`."""
        return read_run_split(self.folder, self.config.fold)

    def prepare(self, cases: Sequence[Case] | Path, plan: Plan, *, on_case: Callable[[str], None]) -> list[CachedCase]:
        """Return the prepared cases: those of the given cache, or of a cache that is made in this folder."""
        if isinstance(cases, Path):
            return open_cache(cases, plan)
        prepared, problems = build_cache(cases, self.folder / "cache", plan, on_case=on_case)
        if problems:
            raise InputError("; ".join(map(str, problems)))
        return sorted(prepared, key=lambda case: case.id)  # as in `open_cache`, because the patches depend on the order

    def save_model(self, model: Model, name: Literal["best", "last"], facts: Mapping[str, object]) -> None:
        """Write the best or the last model, with the facts about its epoch."""
        save_model(model, self.folder / f"{name}.safetensors", training=facts)

    def write_log(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write the log, and with TensorBoard add the last row to its events."""
        write_log(self.folder, rows)
        if self.config.tensorboard:
            with _event_writer(self.folder / "tensorboard") as events:
                for name, value in rows[-1].items():
                    events.add_scalar(name, value, int(rows[-1]["step"]))

    def draw_curves(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Draw the curves of the log's rows."""
        save_figure(curves_figure(rows), self.folder / "curves.png")

    def save_state(self, state: RunState, parts: Mapping[str, Any]) -> None:
        """Write the checkpoint completely or not at all, with the `state_dict` of each part, such as the network."""
        content = {"state": asdict(state)} | {name: part.state_dict() for name, part in parts.items()}
        with replacing(self.checkpoint) as partial:
            try:
                torch.save(content, partial)
            except RuntimeError as error:  # torch raises it for any error of the disk
                raise OSError(errno.EIO, str(error)) from error

    def finish(self, state: RunState) -> None:
        """Write the file that says that the training has reached its end."""
        facts = {"step": state.step, "hours": round(state.seconds / 3600, 5)}
        write_text(self.finished, json.dumps(facts) + "\n")

    def load_state(self, parts: Mapping[str, Any]) -> RunState:
        """Load the parts from the checkpoint and return the state; the initial state if there is no checkpoint.

        Raises:
            InputError: The checkpoint is damaged or does not belong to this run.
        """
        if not self.checkpoint.is_file():
            return RunState()
        with reading(
            self.checkpoint, "It is not a complete checkpoint of this run. Start a new run, --from its model."
        ):
            content = torch.load(self.checkpoint, weights_only=True, map_location="cpu")
            state = _checked_state(content["state"])
            for name, part in parts.items():
                part.load_state_dict(content[name])
        return state


def _checked_state(stored: dict[str, Any]) -> RunState:
    """Return the state in a checkpoint. Version 0.1 used the name `tally` for `confusion`.

    Raises:
        ValueError: A value is missing or of another kind.
    """
    renamed = {("confusion" if name == "tally" else name): value for name, value in stored.items()}
    if missing := RunState.__dataclass_fields__.keys() - renamed.keys():
        raise ValueError(f"the state lacks {', '.join(sorted(missing))}")
    state: RunState = TypeAdapter(RunState).validate_python(renamed)
    for row in state.rows:
        check_row(row)
    shape = np.shape(state.confusion)
    if shape != (4, 4) or state.step < 0 or not 0 <= state.seconds < np.inf:
        raise ValueError(f"step {state.step}, {state.seconds} seconds and counts of shape {shape} make no sense")
    return state


def open_run(folder: Path, config: TrainConfig, start: Plan | None, *, resume: bool) -> Run:
    """Return a run to write to: in a new folder, or with `resume` the existing run.

    Call it while the folder is locked (`files.one_writer`). The plan of the model that the run starts from, if any, is
    kept in the folder, as that model may be moved before the run is resumed.

    Raises:
        InputError: The folder is not empty; or with `resume` it has no run, or a run with another config, whose
            differences are listed. The fields in `config.FREE` may differ, and a label convention may be named where
            the run had none: `check_conventions` compares it with that of the prepared cases.
    """
    path = folder / "config.json"
    if resume:
        _check_same(path, config)
    elif folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - BEFORE_TRAINING):
        raise InputError(f"{folder}: already exists and is not empty. Use --resume, or choose another folder.")
    if not resume:
        (folder / "splits_final.json").unlink(missing_ok=True)
    if config.tensorboard:
        _event_writer(folder / "tensorboard").close()
    clear_partials(folder)  # of a process that was killed while it wrote
    run = Run(folder, config)
    run.finished.unlink(missing_ok=True)
    write_text(path, json.dumps(config.model_dump(), indent=2) + "\n")
    if start is not None:
        write_text(folder / START, json.dumps(plan_to_dict(start), indent=2) + "\n")
    return run


def _event_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("--tensorboard needs TensorBoard: pip install tensorboard.") from error
    return SummaryWriter(str(folder))


def load_run(folder: Path | str) -> Run:
    """Return the run in a folder.

    Raises:
        InputError: There is none, or its config is damaged or of another version.
    """
    return Run(Path(folder), read_config(Path(folder)))


def start_plan(config: TrainConfig, runs: Sequence[Path] = ()) -> Plan | None:
    """Return the plan of the model that a run starts from; None if it starts from initial weights.

    Args:
        config: The config of the run.
        runs: Folders of runs with this config that began earlier. The plan is read from the first that kept it, as the
            model may have been moved or replaced since.

    Raises:
        InputError: No folder has the plan, and the model is gone or damaged.
    """
    if config.start_from is None:
        return None
    for folder in runs:
        if (path := folder / START).is_file():
            with reading(path, "Restore the file from a copy, or start a new run."):
                return plan_from_dict(json.loads(path.read_text("utf-8")), str(path))
    models = [folder / "last.safetensors" for folder in runs]  # of runs of versions that kept no plan
    left = next((model for model in models if model.is_file()), None)
    return read_plan(left if left is not None and not Path(config.start_from).exists() else config.start_from)


def make_plan(config: TrainConfig, cases: Sequence[Case] | Path, start: Plan | None = None) -> Plan:
    """Return the plan that a config asks for, with the convention that the training masks use.

    Its regions are those of WT, TC and ET that at least one mask labels. Its axes are those of the model that it starts
    from, because a network that was trained on another orientation would see the head turned.

    Args:
        config: How to train.
        cases: The cases, or the folder of a cache.
        start: The plan of the model that the run starts from; by default that of the model's file (`start_plan`).

    Raises:
        InputError: A name is unknown; or cases lack a mask, or a sequence that the plan names (all are listed), unless
            sequences are dropped in training too.
    """
    modalities = tuple(map(get_modality, config.modalities))
    start = start or start_plan(config)
    if isinstance(cases, Path):
        made_for = cache_plan(cases)
        spacing_mm, axes, convention = made_for.spacing_mm, made_for.axes, made_for.convention
        opened = open_cache(cases, made_for)
        _check_cached(opened, modalities, can_miss=config.drop_modalities > 0)
        known = {region for case in opened for region in case.known}
    else:
        _check_cases(cases, modalities, can_miss=config.drop_modalities > 0)
        axes = "LPS" if start is None else start.axes
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
        postprocessing=_rules(config, regions, start),
        origin=None if start is None else _origin(start),
    )


def _rules(config: TrainConfig, regions: tuple[str, ...], start: Plan | None) -> Postprocessing:
    """Return the rules of the model whose masks were corrected, which the new one replaces; otherwise none."""
    if config.corrected is None or start is None or start.regions != regions:
        return Postprocessing()
    return start.postprocessing


def _origin(start: Plan) -> Origin | None:
    """Return where a network comes from that is trained further; its license and citation still apply."""
    if start.origin is None:
        return None
    further = ", trained further with gliomask"
    made_with = start.origin.made_with.removesuffix(further)[: 500 - len(further)]
    return start.origin.model_copy(update={"made_with": made_with + further})


def plan_differences(start: Plan, plan: Plan) -> list[str]:
    """Return in what a plan differs from that of the model that a run starts from, so that the same input differs."""
    fields = ("modalities", "regions", "spacing_mm", "axes", "normalizations")
    return [
        f"{name.replace('_', ' ')} {_listed(getattr(plan, name))}, not {_listed(getattr(start, name))}"
        for name in fields
        if getattr(plan, name) != getattr(start, name)
    ]


def _listed(value: str | Sequence[object]) -> str:
    return value if isinstance(value, str) else ", ".join(map(str, value))


def refuse_incomparable(config: TrainConfig, start: Plan, plan: Plan) -> None:
    """Refuse a run whose model cannot be compared on the same prepared cases with the model that it starts from.

    Raises:
        InputError: Sequences, regions, voxel sizes, orientation or normalization differ; all differences are named.
    """
    if found := plan_differences(start, plan):
        raise InputError(
            f"{config.start_from}: the two models cannot be compared on the prepared cases, as --corrected does: the "
            f"new one has {'; '.join(found)}. Give the options with which the old one was trained."
        )


def new_run_model(plan: Plan, seed: int, config_file: Path | None) -> Model:
    """Return an untrained model; an error about the network's arguments names the file from which they were read."""
    if config_file is None:
        return new_model(plan, seed=seed)
    with reading(config_file, "Restore the file from a copy, or start a new run."):
        return new_model(plan, seed=seed)


def _check_cases(cases: Sequence[Case], modalities: Sequence[str], *, can_miss: bool) -> None:
    wrong = []
    for case in cases:
        missing = [modality for modality in modalities if modality not in case.images]
        if case.mask is None:
            wrong.append(f"{case.id} has no mask")
        if missing and not (can_miss and len(missing) < len(modalities)):
            wrong.append(f"{case.id} lacks {', '.join(missing)}")
    _refuse(wrong)


def _check_cached(cases: Sequence[CachedCase], modalities: Sequence[str], *, can_miss: bool) -> None:
    """Refuse prepared cases as `_check_cases` does; a sequence that none of the cache has is refused elsewhere."""
    wrong = []
    for case in cases:
        present = dict(zip(case.modalities, case.present, strict=True))
        missing = [modality for modality in modalities if not present.get(modality, True)]
        if missing and not (can_miss and len(missing) < len(modalities)):
            wrong.append(f"{case.id} lacks {', '.join(missing)}")
    _refuse(wrong)


def _refuse(wrong: Sequence[str]) -> None:
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
    free = FREE | ({"labels"} if before["labels"] is None else set())
    changed = [key for key, value in config.model_dump(mode="json").items() if value != before[key] and key not in free]
    if changed:
        listed = ", ".join(f"{key} was {before[key]}" for key in changed)
        raise InputError(f"{path.parent}: the run was started with other settings ({listed}). Resume with those.")
