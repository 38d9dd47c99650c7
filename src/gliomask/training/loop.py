"""Cases -> a run folder with a model, its log and curves: one loop, read top to bottom."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from gliomask.cases import Case
from gliomask.errors import InputError
from gliomask.inference.loading import Model, load_weights, new_model
from gliomask.inference.torch_engine import get_device
from gliomask.model.plan import Plan
from gliomask.networks.checkpointing import recompute
from gliomask.training.allocator import keep_memory
from gliomask.training.augment import Augmentation
from gliomask.training.cache import CachedCase
from gliomask.training.config import TrainConfig
from gliomask.training.confusion import Confusion
from gliomask.training.distributed import ProcessGroup, join_process_group
from gliomask.training.learner import Learner
from gliomask.training.losses import build_loss
from gliomask.training.patches import Batch, Order, Patches, PatchSettings, is_fully_labelled
from gliomask.training.run import Run, RunState, make_plan, open_run, split_cases
from gliomask.training.schedule import Schedule, learning_rate
from gliomask.training.validation import validate

_CHECKPOINT_SECONDS = 300.0


@dataclass(frozen=True)
class Moment:
    """Where a training stands after a step."""

    step: int
    epoch: int
    """The one that the step belongs to, counted from 1."""
    progress: float
    """The share of the training that is over."""
    loss: float
    seconds_left: float | None


class Watcher:
    """What a caller may want to see of a training, and how it may stop it; here each does nothing."""

    def on_prepared(self, case: str) -> None:
        """A case has been prepared (or failed)."""

    def on_start(self, run: Run, config: TrainConfig, train: Sequence[CachedCase], val: Sequence[CachedCase]) -> None:
        """Everything is ready and the loop begins."""

    def on_step(self, moment: Moment) -> None:
        """A step has been taken."""

    def on_validated(self, case: str) -> None:
        """A validation case has been predicted and scored."""

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """An epoch has ended; the row is that of `log.jsonl`."""

    def should_stop(self) -> bool:
        """Asked after each step: whether to save everything and return."""
        return False


def train(
    cases: Sequence[Case] | Path,
    run: Path | str,
    config: TrainConfig,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> Run:
    """Train a network and return its run folder.

    The folder gets `config.json`, `splits_final.json`, `log.jsonl` and `curves.png` (a row and a point each epoch; the
    curves lag behind where epochs take no longer than they do to draw),
    `best.safetensors` (highest mean Dice on whole validation cases), `last.safetensors`, and `checkpoint.pt`, from
    which `resume` goes on as if nothing had happened: on the CPU, to the same bits.

    Under `torchrun` the processes share each step's patches and the validation cases; the first one writes.

    Args:
        cases: With masks and conventions (`resolve_conventions`), or the folder of a cache (`gliomask prepare`).
        run: The run's folder; new, empty, or with `resume` one that holds a checkpoint.
        config: How to train.
        resume: Go on with the run in the folder; `config` may then ask for another length, and little else.
        watcher: Sees progress and may stop it; then everything is saved and the run returned unfinished.

    Raises:
        InputError: The folder holds another run, a case is bad or lacks its mask or a sequence, too few patients are
            left for the split, a name in the config is unknown, the device is not there, the memory was not enough,
            the loss became infinite (the case is named), or another process of the training died.
    """
    watcher = watcher or Watcher()
    started = time.monotonic()
    config = _with_place(config, cases, Path(run))
    with join_process_group(get_device(config.device)) as group:
        _check_share(config, group)
        build_loss(config.loss)  # an unknown name is said before any work
        if config.threads:
            torch.set_num_threads(config.threads)
        if group.device.type == "cpu":
            keep_memory()
        plan = group.once(lambda: make_plan(config, cases))
        model = new_model(plan, seed=config.seed)
        if config.start_from is not None and not (Path(run) / "checkpoint.pt").is_file():
            load_weights(model, config.start_from)
        model = Model(fitted_plan(plan, model), model.network.to(group.device), model.name)
        model.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        if config.low_memory:
            recompute(model.network)
        folder = group.once(lambda: open_run(Path(run), config, resume=resume))
        prepared = group.once(lambda: folder.prepare(cases, model.plan, on_case=watcher.on_prepared))
        training, validation = group.once(lambda: split_cases(prepared, config, folder, model.plan))
        watcher.on_start(folder, config, training, validation)
        training = repeated(training, config.repeat_faint)
        _loop(_Job(model, training, validation, config, folder, watcher, group), started)
    return folder


def _with_place(config: TrainConfig, cases: Sequence[Case] | Path, run: Path) -> TrainConfig:
    """The config that knows its cache, unless that is the run's own, which is found wherever the run is moved to."""
    if config.cases is not None or not isinstance(cases, Path) or cases.resolve() == (run / "cache").resolve():
        return config
    return config.model_copy(update={"cases": str(cases.resolve())})


@dataclass(frozen=True)
class _Job:
    """All that the loop works with and does not replace."""

    model: Model
    training: Sequence[CachedCase]
    validation: Sequence[CachedCase]
    config: TrainConfig
    folder: Run
    watcher: Watcher
    group: ProcessGroup

    @property
    def steps_per_epoch(self) -> int:
        whole = [is_fully_labelled(case, self.model.plan) for case in self.training]
        patches = len(Order(whole, self.config.partial_share, self.config.seed)) * self.config.patches_per_case
        return max(1, -(-patches // self.config.batch_size))


@dataclass
class _Epoch:
    """What is added up over the steps of one epoch; part of the checkpoint."""

    losses: list[float] = field(default_factory=list)
    confusion: Confusion = field(default_factory=Confusion)
    seconds: float = 0.0
    wait: float = 0.0
    """Seconds for which the network waited for its patches."""


@dataclass
class _Standing:
    """Where the loop stands; the same in all processes."""

    step: int
    rows: list[dict[str, float]]
    epoch: _Epoch
    seconds: float
    """By the first process's clock, since the start of the run, when it was last asked."""

    def state(self) -> RunState:
        epoch = self.epoch
        counts = epoch.confusion.counts.tolist()
        return RunState(self.step, self.rows, self.seconds, epoch.losses, counts, epoch.seconds, epoch.wait)


def _loop(job: _Job, started: float) -> None:
    config = job.config
    learner = Learner(job.model, config, job.group)
    job = replace(job, model=learner.model)
    state = job.folder.load_state(learner.parts)
    epoch = _Epoch(state.losses, Confusion(np.array(state.confusion)), state.epoch_seconds, state.wait_seconds)
    clock = _Clock(started - state.seconds, job.group)
    now = _Standing(state.step, state.rows, epoch, clock.read())
    schedule = Schedule(config, job.steps_per_epoch, len(job.validation))
    patches = Patches(job.training, job.model.plan, _patch_settings(job), config.batch_size, job.group)
    saved = now.seconds
    with closing(patches.ahead(now.step, _workers(config, job.group))) as batches:
        while not schedule.is_over(now.step, now.seconds) and not _out_of_patience(config, now.rows):
            before = now.seconds
            rate = learning_rate(config, now.step, schedule.progress(now.step, now.seconds))
            _step(learner, rate, batches, now, clock)
            schedule.step_seconds.append(now.seconds - before)
            job.watcher.on_step(_moment(now, schedule))
            stop = job.group.total([job.watcher.should_stop()])[0] > 0
            if now.step % job.steps_per_epoch == 0 or schedule.is_over(now.step, now.seconds):
                _end_epoch(job, schedule, now, rate, clock)
            if not now.epoch.losses or stop or now.seconds - saved > _CHECKPOINT_SECONDS:
                _save(job, learner, now)
                saved = now.seconds
            if stop:
                if now.rows and job.group.first:
                    job.folder.draw_curves(now.rows)
                return
    if now.epoch.losses:  # resumed when its time was over already
        _end_epoch(job, schedule, now, learner.rate, clock)
        _save(job, learner, now)


def _step(learner: Learner, rate: float, batches: Iterator[Batch], now: _Standing, clock: _Clock) -> None:
    """Learn from the next batch and count it in."""
    begun = time.monotonic()
    batch = next(batches)
    now.epoch.wait += time.monotonic() - begun
    loss, counts = learner.learn(batch, now.step, rate)
    now.step += 1
    now.epoch.losses.append(loss)
    now.epoch.confusion.counts += counts
    now.epoch.seconds += time.monotonic() - begun
    now.seconds = clock.read()


def _end_epoch(job: _Job, schedule: Schedule, now: _Standing, rate: float, clock: _Clock) -> None:
    """Validate if that is due, write the log, the curves and the models, and begin the next epoch."""
    epoch = now.epoch
    row: dict[str, float] = {
        "epoch": _whole(now.step / job.steps_per_epoch),
        "step": now.step,
        "learning_rate": rate,
        "train_loss": float(np.mean(epoch.losses)),
        "train_accuracy": epoch.confusion.accuracy(),
        "train_mean_iou": epoch.confusion.mean_iou(),
        "train_seconds": round(epoch.seconds, 2),
        "wait_seconds": round(epoch.wait, 3),
    }
    if schedule.validates(now.step, now.seconds):
        loss_of, precision = build_loss(job.config.loss), job.config.precision
        watch = job.watcher.on_validated
        job.group.align(job.model.network)
        row |= validate(job.model, job.validation, loss_of, precision, group=job.group, on_case=watch)
        before, now.seconds = now.seconds, clock.read()
        schedule.validation_seconds, schedule.validated_at = now.seconds - before, now.seconds
    row |= {"hours": round(now.seconds / 3600, 5), "peak_memory_gb": round(_peak_memory_gb(job.group.device), 2)}
    now.rows = [*now.rows, row]
    now.epoch = _Epoch()
    if job.group.first:
        job.folder.save_model(job.model, "last", {"epoch": row["epoch"]})
        if best_row(now.rows) is row:
            job.folder.save_model(job.model, "best", row)
        job.folder.write_log(now.rows)
        if schedule.draws(now.step, now.seconds):
            _draw_curves(job, schedule, now)
    job.watcher.on_epoch(row)


def _draw_curves(job: _Job, schedule: Schedule, now: _Standing) -> None:
    begun = time.monotonic()
    job.folder.draw_curves(now.rows)
    schedule.drawing_seconds, schedule.drawn_at = time.monotonic() - begun, now.seconds


def best_row(rows: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """Return the row of the best epoch: the highest mean Dice of the regions, or without validation the last."""
    validated = [row for row in rows if "val_dice" in row]
    return max(validated, key=lambda row: row["val_dice"]) if validated else rows[-1]


def repeated(cases: Sequence[CachedCase], times: int) -> list[CachedCase]:
    """Return the cases, those several times whose ET is less than a fiftieth of their TC, or not there.

    A case whose mask does not label both comes once.
    """

    def is_faint(case: CachedCase) -> bool:
        known = {"TC", "ET"} <= set(case.known)
        return known and 50 * case.voxels.get("ET", 0) < case.voxels.get("TC", 0)

    counts = (times if is_faint(case) else 1 for case in cases)
    return [case for case, count in zip(cases, counts, strict=True) for _ in range(count)]


def fitted_plan(plan: Plan, model: Model) -> Plan:
    """Return the plan with a patch size that the network takes: each edge rounded up to a multiple of its divisor."""
    divisor = int(model.network.divisor)  # type: ignore[arg-type]
    x, y, z = (-(-edge // divisor) * divisor for edge in plan.patch_size)
    return plan.model_copy(update={"patch_size": (x, y, z)})


@dataclass(frozen=True)
class _Clock:
    """The first process's clock, for all; what they decide by it they decide alike."""

    started: float
    group: ProcessGroup

    def read(self) -> float:
        return self.group.total([time.monotonic() - self.started if self.group.first else 0.0])[0]


def _save(job: _Job, learner: Learner, now: _Standing) -> None:
    if job.group.first:
        job.folder.save_state(now.state(), learner.parts)


def _moment(now: _Standing, schedule: Schedule) -> Moment:
    return Moment(
        now.step,
        -(-now.step // schedule.steps_per_epoch),
        schedule.progress(now.step, now.seconds),
        now.epoch.losses[-1],
        schedule.seconds_left(now.step, now.seconds),
    )


def _out_of_patience(config: TrainConfig, rows: Sequence[Mapping[str, float]]) -> bool:
    validated = [row for row in rows if "val_dice" in row]
    if config.patience is None or not validated:
        return False
    return len(validated) - 1 - validated.index(best_row(validated)) >= config.patience


def _patch_settings(job: _Job) -> PatchSettings:
    config = job.config
    changes = Augmentation().times(config.augment) if config.augment or config.thick_slices else None
    if changes is not None:
        changes = replace(changes, thick_scan_probability=config.thick_slices)
    plan, divisor = job.model.plan, int(job.model.network.divisor)  # type: ignore[arg-type]
    size = None if config.whole_brain else plan.patch_size
    return PatchSettings(
        size,
        changes,
        config.drop_modalities,
        config.seed,
        multiple=divisor,
        transplant=config.transplant,
        histograms=config.histograms,
        lesion_contrast=config.lesion_contrast,
        lone_modality=config.lone_modality,
        partial_share=config.partial_share,
    )


def _workers(config: TrainConfig, group: ProcessGroup) -> int:
    """One thread keeps ahead of the network on a CPU; a GPU changes the patches itself, and two keep it busy."""
    return config.workers or (1 if group.device.type == "cpu" else 2)


def _check_share(config: TrainConfig, group: ProcessGroup) -> None:
    parts = group.count * config.accumulate
    if config.batch_size % parts:
        raise InputError(
            f"a batch of {config.batch_size} cannot be shared evenly by {group.count} processes taking it in "
            f"{config.accumulate} part(s) each. Give a --batch-size that is a multiple of {parts}."
        )
    if config.whole_brain and config.batch_size > group.count:
        raise InputError(
            f"--whole-brain takes brains of any size, one a process and step: --batch-size {group.count}, not "
            f"{config.batch_size}."
        )


def _peak_memory_gb(device: torch.device) -> float:
    """The most memory that the process (on a GPU: torch there) has held so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _whole(number: float) -> float:
    return int(number) if number == int(number) else round(number, 2)
