"""Cases -> a run folder with a model, its log and curves: one loop, read top to bottom."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gliomask.cache import CachedCase
from gliomask.cases import Case
from gliomask.engine import Inference, autocast, get_device, run_network
from gliomask.errors import InputError
from gliomask.labels import get_convention, to_labels, to_regions
from gliomask.losses import Loss, build_loss
from gliomask.model import Model, new_model
from gliomask.patches import Patches, PatchSettings
from gliomask.plan import Plan
from gliomask.prepare import normalize
from gliomask.run import Run, RunState, TrainConfig, make_plan, open_run, split_cases
from gliomask.tally import Tally

# Exploding gradients are cut, others never touched; the value is nnU-Net's.
_LARGEST_GRADIENT = 12.0
_CHECKPOINT_SECONDS = 300.0


class Watcher:
    """What a caller may want to see of a training, and how it may stop it; here each does nothing."""

    def on_prepared(self, case: str) -> None:
        """A case has been prepared (or failed)."""

    def on_start(self, run: Run, config: TrainConfig, train: Sequence[CachedCase], val: Sequence[CachedCase]) -> None:
        """Everything is ready and the loop begins."""

    def on_step(self, step: int, steps: int, loss: float) -> None:
        """A step has been taken, the `step`th of `steps`."""

    def on_validated(self, case: str) -> None:
        """A validation case has been predicted and scored."""

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """An epoch has ended; the row is that of `log.jsonl`."""

    def should_stop(self) -> bool:
        """Asked after each step: whether to save everything and return."""
        return False


@dataclass
class _Epoch:
    """What is added up over the steps of one epoch; part of the checkpoint."""

    losses: list[float] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0


def train(
    cases: Sequence[Case] | Path,
    run: Path | str,
    config: TrainConfig,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> Run:
    """Train a network and return its run folder.

    The folder gets `config.json`, `splits_final.json`, `log.jsonl` and `curves.png` (a row and a point each epoch),
    `best.safetensors` (highest mean Dice on whole validation cases), `last.safetensors`, and `checkpoint.pt`, from
    which `resume` goes on as if nothing had happened: on the CPU, to the same bits.

    Args:
        cases: With masks and conventions (`resolve_conventions`), or the folder of a cache (`gliomask prepare`).
        run: The run's folder; new, empty, or with `resume` one that holds a checkpoint.
        config: How to train.
        resume: Go on with the run in the folder; `config` may then ask for more epochs, and nothing else.
        watcher: Sees progress and may stop it; then everything is saved and the run returned unfinished.

    Raises:
        InputError: The folder holds another run, a case is bad or lacks its mask or a sequence, too few patients are
            left for the split, a name in the config is unknown, the device is not there, or the loss became infinite.
    """
    watcher = watcher or Watcher()
    device = get_device(config.device)
    loss_of = build_loss(config.loss)
    if config.threads:
        torch.set_num_threads(config.threads)
    plan = make_plan(config, cases)
    model = new_model(plan, seed=config.seed)
    plan = fitted_plan(plan, model)
    network = model.network.to(device)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    model = Model(plan, network, model.name)
    folder = open_run(Path(run), config, resume=resume)
    prepared = folder.prepare(cases, plan, on_case=watcher.on_prepared)
    training, validation = split_cases(prepared, config, folder, plan)
    watcher.on_start(folder, config, training, validation)
    _loop(_Job(model, loss_of, training, validation, config, folder, watcher))
    return folder


@dataclass(frozen=True)
class _Job:
    """All that the loop works with and does not replace."""

    model: Model
    loss_of: Loss
    training: Sequence[CachedCase]
    validation: Sequence[CachedCase]
    config: TrainConfig
    folder: Run
    watcher: Watcher

    @property
    def steps_per_epoch(self) -> int:
        patches = len(self.training) * self.config.patches_per_case
        return max(1, -(-patches // self.config.batch_size))

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.config.epochs


def _loop(job: _Job) -> None:
    config, model = job.config, job.model
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=config.lr, weight_decay=1e-4)
    state = job.folder.load_state(model.network, optimizer)
    epoch = _Epoch(state.losses, Tally(np.array(state.tally)), state.seconds)
    settings = PatchSettings(model.plan.patch_size, config.augmentation(), config.drop_modalities, config.seed)
    patches = Patches(job.training, model.plan, settings, config.batch_size)
    device = next(model.network.parameters()).device
    saved = started = time.monotonic()
    for step, (images, targets) in enumerate(patches.ahead(state.step, job.steps), start=state.step):
        rate = learning_rate(config, step, job.steps)
        loss = _step(job, optimizer, rate, images.to(device), targets.to(device), step, epoch)
        job.watcher.on_step(step + 1, job.steps, loss)
        ended = (step + 1) % job.steps_per_epoch == 0
        now = time.monotonic()
        epoch.seconds, started = epoch.seconds + now - started, now
        if ended:
            state = _end_epoch(job, epoch, state, step + 1, rate)
            epoch, started = _Epoch(), time.monotonic()
        stop = job.watcher.should_stop()
        if ended or stop or now - saved > _CHECKPOINT_SECONDS:
            state = RunState(step + 1, state.rows, epoch.losses, epoch.tally.counts.tolist(), epoch.seconds)
            job.folder.save_state(state, model.network, optimizer)
            saved = time.monotonic()
        if stop:
            return


def _step(
    job: _Job, optimizer: torch.optim.Optimizer, rate: float, images: Tensor, targets: Tensor, step: int, epoch: _Epoch
) -> float:
    network = job.model.network
    for group in optimizer.param_groups:
        group["lr"] = rate
    network.train()
    # Dropout draws from torch's own generator: seeded by the step, a resumed run draws what an unbroken one would.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.config.seed * 1_000_003 + step)
        with autocast(images.device, job.config.precision):
            logits = network(images.contiguous(memory_format=torch.channels_last_3d))
        loss = job.loss_of(logits, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
    value = float(loss.detach())
    if not np.isfinite(value):
        raise InputError(
            f"the loss is {value} at step {step + 1}. The last checkpoint is kept; try a lower --lr "
            f"(it was {rate:.2g}) or --precision fp32."
        )
    torch.nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
    optimizer.step()
    epoch.losses.append(value)
    epoch.tally.add(targets.cpu().numpy(), (logits.detach() > 0).cpu().numpy(), job.model.plan.regions)
    return value


def _end_epoch(job: _Job, epoch: _Epoch, state: RunState, step: int, rate: float) -> RunState:
    """Validate, write the log, the curves and the models, and return the state with the epoch's row."""
    job.folder.save_model(job.model, "last", {"epoch": step // job.steps_per_epoch})
    row: dict[str, float] = {
        "epoch": step // job.steps_per_epoch,
        "step": step,
        "learning_rate": rate,
        "train_loss": float(np.mean(epoch.losses)),
        "train_accuracy": epoch.tally.accuracy(),
        "train_mean_iou": epoch.tally.mean_iou(),
        "train_seconds": round(epoch.seconds, 2),
    }
    row |= validate(job.model, job.validation, job.loss_of, job.config, job.watcher)
    if not any(score(row) <= score(older) for older in state.rows):
        job.folder.save_model(job.model, "best", row)
    rows = [*state.rows, row]
    job.folder.write_log(rows)
    job.watcher.on_epoch(row)
    return RunState(step, rows)


def score(row: Mapping[str, float]) -> float:
    """Return what the best epoch has most of: the mean Dice of the regions, or without validation its number."""
    return row.get("val_dice", row["epoch"])


def validate(
    model: Model, cases: Sequence[CachedCase], loss_of: Loss, config: TrainConfig, watcher: Watcher
) -> dict[str, float]:
    """Predict whole cases as `predict` does and return the means over them; empty without cases.

    Dice counts the whole mask, also what lies outside the brain's box. Both empty: 1. Accuracy and mean IoU are over
    all voxels of the brains' boxes together; `all_background_accuracy` is what an empty answer would score there.
    """
    if not cases:
        return {}
    started = time.monotonic()
    tally = Tally()
    losses: list[float] = []
    dices: list[list[float]] = []
    numbers = get_convention(model.plan.convention)
    for case in cases:
        channels = [case.modalities.index(modality) for modality in model.plan.modalities]
        image = case.image()[channels]
        data = normalize(image, [case.moments[channel] for channel in channels], model.plan.normalization)
        truth = to_regions(case.labels(), get_convention(case.convention), model.plan.regions)
        logits, _ = run_network(model, data, Inference(precision=config.precision))
        losses.append(float(loss_of(logits[None], torch.from_numpy(truth)[None])))
        labels = to_labels((logits > 0).numpy(), model.plan.regions, numbers)  # nested, as a mask on the disk is
        found = to_regions(labels, numbers, model.plan.regions)
        tally.add(truth[None], found[None], model.plan.regions)
        outside = [case.outside.get(region, 0) for region in model.plan.regions]
        dices.append([_dice(t, p, missed) for t, p, missed in zip(truth, found, outside, strict=True)])
        watcher.on_validated(case.id)
    means = np.mean(dices, axis=0)
    return {
        "val_loss": float(np.mean(losses)),
        "val_accuracy": tally.accuracy(),
        "all_background_accuracy": tally.background_accuracy(),
        "val_mean_iou": tally.mean_iou(),
        **{f"val_dice_{region}": float(mean) for region, mean in zip(model.plan.regions, means, strict=True)},
        "val_dice": float(means.mean()),
        "val_seconds": round(time.monotonic() - started, 2),
    }


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Return the rate of a step: `constant`, or `cosine`: a short rise, then half a cosine down to a hundredth."""
    if config.schedule == "constant":
        return config.lr
    rise = min(50, max(1, steps // 20))
    if step < rise:
        return config.lr * (step + 1) / rise
    progress = (step - rise) / max(1, steps - rise)
    return float(config.lr * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * progress))))


def fitted_plan(plan: Plan, model: Model) -> Plan:
    """Return the plan with a patch size that the network takes: each edge rounded up to a multiple of its divisor."""
    divisor = int(model.network.divisor)  # type: ignore[arg-type]
    x, y, z = (-(-edge // divisor) * divisor for edge in plan.patch_size)
    return plan.model_copy(update={"patch_size": (x, y, z)})


def _dice(truth: np.ndarray[Any, Any], found: np.ndarray[Any, Any], outside: int) -> float:
    both = np.count_nonzero(truth & found)
    total = np.count_nonzero(truth) + np.count_nonzero(found) + outside
    return 2 * both / total if total else 1.0
