"""The training loop: from cases to a run folder with models, log and curves."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from gliomask.cases import Case
from gliomask.errors import InputError
from gliomask.execution.memory import keep_memory, peak_memory_gb
from gliomask.files import one_writer
from gliomask.inference.loading import Model, load_weights
from gliomask.inference.torch_engine import get_device
from gliomask.model.plan import Plan
from gliomask.networks.checkpointing import recompute
from gliomask.training.cache import CachedCase
from gliomask.training.config import TrainConfig
from gliomask.training.confusion import Confusion
from gliomask.training.distributed import ProcessGroup, join_process_group
from gliomask.training.learner import Learner
from gliomask.training.losses import build_loss
from gliomask.training.patches import Batch, Order, Patches, is_fully_labelled, patch_settings, repeated
from gliomask.training.patients import read_patients
from gliomask.training.record import best_row
from gliomask.training.run import (
    Run,
    RunState,
    make_plan,
    new_run_model,
    open_run,
    plan_differences,
    refuse_incomparable,
    start_plan,
)
from gliomask.training.run_split import check_conventions, split_cases
from gliomask.training.schedule import Schedule, learning_rate
from gliomask.training.validation import validate
from gliomask.training.watcher import Moment, Watcher

_CHECKPOINT_SECONDS = 300.0


def train(
    cases: Sequence[Case] | Path,
    run: Path | str,
    config: TrainConfig,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> Run:
    """Train a network and return its run folder.

    The folder receives `config.json`, `splits_final.json`, `log.jsonl` and `curves.png` (with a row and a point for
    each epoch; if epochs are very short, the curves are drawn less often), `best.safetensors` (highest mean Dice on
    whole validation cases), `last.safetensors`, `finished.json` at the end, and `checkpoint.pt`, from which
    `resume` continues as if the run had not been interrupted: on a CPU, to the same bits.

    Under `torchrun` the processes share each step's patches and the validation cases, and the first one writes files.

    Args:
        cases: With masks and conventions (`resolve_conventions`), or the folder of a cache (`gliomask prepare`).
        run: The run's folder; new, empty, or with `resume` that of an earlier run.
        config: How to train.
        resume: Continue the run in the folder. Only the fields in `config.FREE`, such as the length, may have changed.
        watcher: Receives the progress and can stop the training, which then saves everything and returns the run.

    Raises:
        InputError: The folder holds another run or another process is training into it, a case is bad or lacks its mask
            or a sequence, there are too few patients for the split, a name in the config is unknown, the device does
            not exist, there is too little memory, the loss is not finite (the case is named), or another process of the
            training has ended; or with `corrected`, as for `run.refuse_incomparable`.
    """
    watcher = watcher or Watcher()
    started = time.monotonic()
    config = _with_place(config, cases, Path(run))
    with join_process_group(get_device(config.device)) as group, ExitStack() as held:
        _check_share(config, group)
        build_loss(config.loss)  # refuses an unknown name before any work is done
        if config.threads:
            torch.set_num_threads(config.threads)
        if group.device.type == "cpu":
            keep_memory()
        start = group.once(lambda: start_plan(config, [Path(run)] if resume else []))
        plan = group.once(lambda: make_plan(config, cases, start))
        if start is not None and not resume:
            if config.corrected is not None:
                refuse_incomparable(config, start, plan)
            if found := plan_differences(start, plan):
                watcher.on_note(f"other than the model of --from, this one has {'; '.join(found)}")
        if resume:
            group.once(lambda: check_conventions(cases, Path(run) / "cache", [Path(run)]))
        else:
            group.once(lambda: _check_patients(config, cases))
        model = new_run_model(plan, config.seed, Path(run) / "config.json" if resume else None)
        if config.start_from is not None and not (Path(run) / "checkpoint.pt").is_file():
            load_weights(model, config.start_from)
        model = Model(fitted_plan(plan, model), model.network.to(group.device), model.name)
        model.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        if config.low_memory:
            recompute(model.network)
        group.once(lambda: held.enter_context(one_writer(Path(run))))
        folder = group.once(lambda: open_run(Path(run), config, start, resume=resume))
        prepared = group.once(lambda: folder.prepare(cases, model.plan, on_case=watcher.on_prepared))
        training, validation = group.once(
            lambda: split_cases(
                prepared, config, folder, model.plan, on_split=watcher.on_split, on_note=watcher.on_note
            )
        )
        watcher.on_start(folder, config, training, validation)
        training = repeated(training, config.repeat_faint)
        _loop(_Job(model, training, validation, config, folder, watcher, group), started)
    return folder


def _check_patients(config: TrainConfig, cases: Sequence[Case] | Path) -> None:
    """Read the table of patients before the cases are prepared, which may take long."""
    if config.patients and not isinstance(cases, Path):
        read_patients(Path(config.patients), [case.id for case in cases])


def _with_place(config: TrainConfig, cases: Sequence[Case] | Path, run: Path) -> TrainConfig:
    """Return the config with the place of the cache, except for the run's own cache, which moves with the run."""
    if config.cases is not None or not isinstance(cases, Path) or cases.resolve() == (run / "cache").resolve():
        return config
    return config.model_copy(update={"cases": str(cases.resolve())})


@dataclass(frozen=True)
class _Job:
    """Everything that the loop uses and does not change."""

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
    """Sums over the steps of the current epoch; part of the checkpoint."""

    losses: list[float] = field(default_factory=list)
    confusion: Confusion = field(default_factory=Confusion)
    seconds: float = 0.0
    wait: float = 0.0
    """Seconds spent waiting for patches."""


@dataclass
class _Progress:
    """The state of the loop, which is the same in all processes."""

    step: int
    rows: list[dict[str, float]]
    epoch: _Epoch
    seconds: float
    """Seconds since the start of the run, by the first process's clock when it was last read."""

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
    now = _Progress(state.step, state.rows, epoch, clock.read())
    schedule = Schedule(config, job.steps_per_epoch, len(job.validation))
    divisor = int(job.model.network.divisor)  # type: ignore[arg-type]
    settings = patch_settings(config, job.model.plan, divisor)
    patches = Patches(job.training, job.model.plan, settings, config.batch_size, job.group)
    saved = now.seconds
    if _is_whole(job, now):  # stopped before the validation at the end of its epoch
        _end_epoch(job, schedule, now, learner.rate, clock)
        _save(job, learner, now)
    with closing(patches.ahead(now.step, _workers(config, job.group))) as batches:
        while not schedule.is_over(now.step, now.seconds) and not _out_of_patience(config, now.rows):
            before = now.seconds
            rate = learning_rate(config, now.step, schedule.progress(now.step, now.seconds))
            _step(learner, rate, batches, now, clock)
            schedule.step_seconds.append(now.seconds - before)
            job.watcher.on_step(_moment(now, schedule))
            stop = _should_stop(job)
            if _is_whole(job, now) or schedule.is_over(now.step, now.seconds):
                stop = _end_epoch_or_stop(job, learner, schedule, now, rate, clock, stop=stop)
            if not now.epoch.losses or stop or now.seconds - saved > _CHECKPOINT_SECONDS:
                _save(job, learner, now)
                saved = now.seconds
            if stop:
                if now.rows and job.group.first:
                    job.folder.draw_curves(now.rows)
                return
    if now.epoch.losses:  # resumed after the end of its time
        _end_epoch(job, schedule, now, learner.rate, clock)
        _save(job, learner, now)
    if job.group.first:
        job.folder.finish(now.state())


def _is_whole(job: _Job, now: _Progress) -> bool:
    """Tell whether all steps of the current epoch have been taken, and it has not been ended yet."""
    return bool(now.epoch.losses) and now.step % job.steps_per_epoch == 0


def _should_stop(job: _Job) -> bool:
    """Tell whether the watcher of any process asks for a stop."""
    return job.group.total([job.watcher.should_stop()])[0] > 0


def _end_epoch_or_stop(
    job: _Job, learner: Learner, schedule: Schedule, now: _Progress, rate: float, clock: _Clock, *, stop: bool
) -> bool:
    """End the epoch and return whether to stop, which is looked up again; a validation is not begun after a stop."""
    if schedule.validates(now.step, now.seconds):
        if stop:
            return True
        _save(job, learner, now)  # a validation may take long, and a run that is killed in it must not lose its steps
    _end_epoch(job, schedule, now, rate, clock)
    return stop or _should_stop(job)


def _step(learner: Learner, rate: float, batches: Iterator[Batch], now: _Progress, clock: _Clock) -> None:
    """Train on the next batch and add its loss and counts to the epoch."""
    begun = time.monotonic()
    batch = next(batches)
    now.epoch.wait += time.monotonic() - begun
    loss, counts = learner.learn(batch, now.step, rate)
    now.step += 1
    now.epoch.losses.append(loss)
    now.epoch.confusion.counts += counts
    now.epoch.seconds += time.monotonic() - begun
    now.seconds = clock.read()


def _end_epoch(job: _Job, schedule: Schedule, now: _Progress, rate: float, clock: _Clock) -> None:
    """Validate if it is due, write the log, the curves and the models, and begin the next epoch."""
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


def _draw_curves(job: _Job, schedule: Schedule, now: _Progress) -> None:
    begun = time.monotonic()
    job.folder.draw_curves(now.rows)
    schedule.drawing_seconds, schedule.drawn_at = time.monotonic() - begun, now.seconds


def _peak_memory_gb(device: torch.device) -> float:
    """Return the peak memory so far: on a GPU of the tensors there, otherwise of the process."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else peak_memory_gb()


def fitted_plan(plan: Plan, model: Model) -> Plan:
    """Return the plan with a patch size that the network accepts: each edge rounded up to a multiple of its divisor."""
    divisor = int(model.network.divisor)  # type: ignore[arg-type]
    x, y, z = (-(-edge // divisor) * divisor for edge in plan.patch_size)
    return plan.model_copy(update={"patch_size": (x, y, z)})


@dataclass(frozen=True)
class _Clock:
    """The first process's clock, read by all processes so that they take the same decisions."""

    started: float
    group: ProcessGroup

    def read(self) -> float:
        return self.group.total([time.monotonic() - self.started if self.group.first else 0.0])[0]


def _save(job: _Job, learner: Learner, now: _Progress) -> None:
    if job.group.first:
        job.folder.save_state(now.state(), learner.parts)


def _moment(now: _Progress, schedule: Schedule) -> Moment:
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


def _workers(config: TrainConfig, group: ProcessGroup) -> int:
    """Return the number of threads that draw patches: one is enough on a CPU; a GPU augments patches and needs two."""
    return config.workers or (1 if group.device.type == "cpu" else 2)


def _check_share(config: TrainConfig, group: ProcessGroup) -> None:
    parts = group.count * config.accumulate
    if config.batch_size % parts:
        raise InputError(
            f"a batch of {config.batch_size} cannot be divided evenly among {group.count} processes with "
            f"{config.accumulate} part(s) each. Give a --batch-size that is a multiple of {parts}."
        )
    if config.whole_brain and config.batch_size > group.count:
        raise InputError(
            f"--whole-brain trains on one brain per process and step: --batch-size must be {group.count}, not "
            f"{config.batch_size}."
        )


def _whole(number: float) -> float:
    return int(number) if number == int(number) else round(number, 2)
