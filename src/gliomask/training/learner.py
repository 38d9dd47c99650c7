"""One training step: forward pass, loss, gradients and optimizer, in one of several processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gliomask.errors import InputError, is_lack_of_memory
from gliomask.inference.loading import Model
from gliomask.inference.torch_engine import autocast
from gliomask.training.average import averaged, follow
from gliomask.training.config import TrainConfig
from gliomask.training.confusion import LEVELS, Confusion
from gliomask.training.distributed import PEER_LOST, ProcessGroup, is_lost_peer
from gliomask.training.losses import build_loss, supervised
from gliomask.training.patches import Batch

# Larger gradients are scaled down to this norm; the value is that of nnU-Net.
_LARGEST_GRADIENT = 12.0


class Learner:
    """A network, its optimizer and its gradient scaler. All processes have the same weights after each step.

    Args:
        model: Its network, on the group's device, is trained in place.
        config: The loss, the precision, the accumulation and the other settings.
        group: The processes that train together; each receives its part of a batch.
    """

    def __init__(self, model: Model, config: TrainConfig, group: ProcessGroup) -> None:
        self.network = model.network
        learned = config.start_from is not None
        self.average = averaged(model.network, config.ema, learned=learned) if config.ema else None
        self.model = model if self.average is None else replace(model, network=self.average.module)
        """What is validated and saved: the average of the weights if `ema` is set."""
        self.regions = model.plan.regions
        self.config = config
        self.group = group
        self.loss_of = build_loss(config.loss)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=config.lr, weight_decay=1e-4)
        # the range of fp16 is so small that gradients must be scaled to fit it
        self.scaler = torch.amp.GradScaler(group.device.type, enabled=config.precision == "fp16")
        self.forward: nn.Module = self.network
        if config.compiled:
            self.forward = torch.compile(self.forward)  # type: ignore[assignment]
        if group.count > 1:
            _settle_strides(self.network)
            devices = [group.device] if group.device.type == "cuda" else None
            self.forward = nn.parallel.DistributedDataParallel(self.forward, device_ids=devices)

    @property
    def parts(self) -> dict[str, Any]:
        """The parts that a checkpoint stores; each has a `state_dict`."""
        parts = {"network": self.network, "optimizer": self.optimizer, "scaler": self.scaler}
        return parts | ({"average": self.average.module} if self.average else {})

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def learn(self, batch: Batch, step: int, rate: float) -> tuple[float, NDArray[np.int64]]:
        """Take one step and return the mean loss and the counts of a `Confusion`, over all processes.

        Args:
            batch: This process's patches.
            step: The number of the step, which seeds dropout.
            rate: The learning rate.

        Raises:
            InputError: A loss or gradient is not finite (the weights are not changed, and the cases are named), there
                is too little memory, or another process has ended.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self._failures_said(batch):
            loss, counts, bad = self._gradients(batch, step)
            self.scaler.unscale_(self.optimizer)
            norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_GRADIENT))
        if not np.isfinite(norm) and not self.scaler.is_enabled():  # a scaler skips such a step and lowers its scale
            bad = bad or batch.cases
        loss, broken, *sums = self.group.total([loss / self.group.count, len(bad), *counts])
        if broken:
            raise InputError(_not_finite(bad, step, rate))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            follow(self.average, self.network, step)
        return loss, np.array(sums, np.int64).reshape(Confusion().counts.shape)

    def _gradients(self, batch: Batch, step: int) -> tuple[float, list[float], tuple[str, ...]]:
        """Accumulate a batch's gradients part by part; return loss, counts, and the cases whose loss is not finite."""
        parts, device = self.config.accumulate, self.group.device
        size = len(batch.cases) // parts
        total = 0.0
        bad: list[str] = []
        counts = torch.zeros(Confusion().counts.size, dtype=torch.int64, device=device)
        for part in range(parts):
            piece = slice(part * size, (part + 1) * size)
            images = batch.images[piece].to(device, non_blocking=True, memory_format=torch.channels_last_3d)
            targets = batch.targets[piece].to(device, non_blocking=True)
            known = batch.known[piece]
            outputs, loss = self._backward(images, (targets, known), step * parts + part, last=part == parts - 1)
            total += loss
            if not np.isfinite(loss):
                bad += batch.cases[piece]
            logits = outputs if isinstance(outputs, Tensor) else outputs[0]
            whole = known.all(dim=1)
            if whole.any():
                counts += _count_classes(targets[whole], logits.detach()[whole] > 0, self.regions)
        return total, counts.tolist(), tuple(bad)

    def _backward(self, images: Tensor, truth: tuple[Tensor, Tensor], number: int, *, last: bool) -> tuple[Any, float]:
        """Accumulate the gradients of one part of a batch; with the last part, average them over the processes.

        `truth` is the part's targets and which regions of them are known.
        """
        device = self.group.device
        waits = not last and isinstance(self.forward, nn.parallel.DistributedDataParallel)
        # Dropout uses torch's global generator, which is seeded by the number so that a resumed run draws the same.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed((self.config.seed * 1_000_003 + number) * self.group.count + self.group.rank)
            with self.forward.no_sync() if waits else nullcontext():  # type: ignore[operator]
                with autocast(device, self.config.precision):
                    outputs = self.forward(images)
                loss = supervised(self.loss_of, outputs, *truth) / self.config.accumulate
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return outputs, float(loss.detach())

    @contextmanager
    def _failures_said(self, batch: Batch) -> Iterator[None]:
        """Report too little memory, with the options that lower the need, and a process that has ended."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if is_lack_of_memory(error):
                raise InputError(self._too_large(batch)) from error
            if self.group.count > 1 and is_lost_peer(error):  # processes exchange gradients in the backward pass
                raise InputError(PEER_LOST) from error
            raise

    def _too_large(self, batch: Batch) -> str:
        size, *edges = batch.images.shape
        shape = " x ".join(map(str, edges))
        ways = ["--low-memory"] if not self.config.low_memory else []
        if size > self.config.accumulate:
            ways.append(f"--accumulate {self.config.batch_size // self.group.count}")
        ways.append(f"a --patch-size below {max(edges)}")
        return (
            f"not enough memory to train {self.config.network} on {size // self.config.accumulate} patch(es) of "
            f"{shape} at a time. The last checkpoint is kept. Try {', or '.join(ways)}."
        )


def _settle_strides(network: nn.Module) -> None:
    """Give 1x1x1 kernels the strides of their gradients; both layouts are valid, and DDP warns if the two differ."""
    for parameter in network.parameters():
        if parameter.ndim == 5 and parameter.shape[2:].numel() == 1:
            parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)


def _count_classes(truth: Tensor, prediction: Tensor, regions: Sequence[str]) -> Tensor:
    """Return the counts of `Confusion.add`, `(16,)`, computed on the tensors' device."""
    levels = torch.tensor([LEVELS.get(region, 0) for region in regions], dtype=torch.uint8, device=truth.device)
    true, found = ((masks * levels[:, None, None, None]).amax(dim=1) for masks in (truth, prediction))
    return torch.bincount((4 * true + found).flatten(), minlength=16)


def _not_finite(bad: Sequence[str], step: int, rate: float) -> str:
    if not bad:
        return f"the loss in another process is not finite at step {step + 1}; that process names the case."
    cases = ", ".join(dict.fromkeys(bad))
    return (
        f"the loss or its gradient is not finite at step {step + 1}, on {cases}. The last checkpoint and models are "
        f"kept. Look at that case (gliomask check), or begin a new run --from the last model with a lower --lr (it was "
        f"{rate:.2g}) or with --precision fp32."
    )
