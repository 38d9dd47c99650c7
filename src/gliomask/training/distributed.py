"""Several processes that train one network (`torchrun`), seen from one of them; or a single one, the same way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed, nn

from gliomask.errors import InputError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

# A process that has died is noticed at once, by its closed connection; this is for one that hangs. It must outlast the
# first process's preparation of the cases, while the others wait.
_PATIENCE = timedelta(minutes=60)


@dataclass(frozen=True)
class ProcessGroup:
    """How many processes train together, and which of them this is: the first, number 0, writes all files."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Return this process's part of a list; the parts are about equal, and together they are all of it."""
        return list(items[self.rank :: self.count])

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all processes; each must ask for the same sums in the same order."""
        if self.count == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        with _peers():
            distributed.all_reduce(sums)
        return [float(value) for value in sums.cpu()]

    def gather(self, value: Item) -> list[Item]:
        """Return every process's value, in the order of their numbers."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        with _peers():
            distributed.all_gather_object(values, value)
        return values

    def align(self, network: nn.Module) -> None:
        """Give all processes the first one's running statistics (batch norm), which each counts by itself."""
        if self.count > 1:
            with _peers():
                for buffer in network.buffers():
                    distributed.broadcast(buffer, src=0)

    def once(self, work: Callable[[], Answer]) -> Answer:
        """Let the first process do some work while the others wait, and return what it returned in all of them.

        Raises:
            InputError: The work raised one; then it is raised in all of them.
        """
        if self.count == 1:
            return work()
        said: list[Any] = [None, None]
        if self.first:
            try:
                said[0] = work()
            except InputError as error:
                said[1] = str(error)
        with _peers():
            distributed.broadcast_object_list(said, src=0, device=self.device)
        if said[1] is not None:
            raise InputError(said[1] if self.first else "the first process could not go on; it said why.")
        return said[0]  # type: ignore[no-any-return]


@contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Give this process's number among those that `torchrun` started, on its own GPU if `device` is one.

    Without torchrun it is the only one. Gradients go by gloo on a CPU, by nccl on GPUs.

    Raises:
        InputError: There are fewer GPUs on this machine than processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ProcessGroup(device=device)
        return
    if device.type == "cuda":
        device = _own_gpu()
    if distributed.is_initialized():  # by whoever trains several networks one after the other
        yield _here(device)
        return
    with _peers():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield _here(device)
    finally:
        distributed.destroy_process_group()


def is_first() -> bool:
    """Tell whether this process is the one that speaks, also before `join_process_group`."""
    return os.environ.get("RANK", "0") == "0"


def _here(device: torch.device) -> ProcessGroup:
    return ProcessGroup(distributed.get_rank(), distributed.get_world_size(), device)


def _own_gpu() -> torch.device:
    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= there:
        raise InputError(f"{there} GPU(s) on this machine, and torchrun started process {local + 1} on it.")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


@contextmanager
def _peers() -> Iterator[None]:
    """Say in a sentence that another process is gone."""
    try:
        yield
    except RuntimeError as error:  # torch's word for a connection that closed or timed out
        raise InputError(PEER_GONE) from error


PEER_GONE = (
    "another process of this training has ended or does not answer, so this one ends too. "
    "The last checkpoint is whole: start again with --resume, with as many processes as you like."
)
