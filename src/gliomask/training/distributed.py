"""The processes that train one network together (`torchrun`), as seen by one of them; or a single process."""

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

# How long to wait for a process that does not answer; one that has ended is noticed at once by its closed connection.
# The limit must exceed the time in which the first process prepares the cases while the others wait.
_PATIENCE = timedelta(minutes=60)


@dataclass(frozen=True)
class ProcessGroup:
    """The number of processes that train together and the rank of this one; rank 0 writes all files."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Return this process's part of a list; the parts of all processes are about equal and make up the list."""
        return list(items[self.rank :: self.count])

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all processes; every process must make the same calls in the same order."""
        if self.count == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        with _peers():
            distributed.all_reduce(sums)
        return [float(value) for value in sums.cpu()]

    def gather(self, value: Item) -> list[Item]:
        """Return the values of all processes in the order of their ranks."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        with _peers():
            distributed.all_gather_object(values, value)
        return values

    def align(self, network: nn.Module) -> None:
        """Copy the first process's running statistics (batch norm) to all; in training each computes its own."""
        if self.count > 1:
            with _peers():
                for buffer in network.buffers():
                    distributed.broadcast(buffer, src=0)

    def once(self, work: Callable[[], Answer]) -> Answer:
        """Do some work in the first process while the others wait, and return its result in all of them.

        Raises:
            InputError: The work raised one; it is raised in all processes.
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
            raise InputError(
                said[1] if self.first else "the first process could not continue and has printed the reason."
            )
        return said[0]  # type: ignore[no-any-return]


@contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Yield the group of the processes that `torchrun` started, each on a GPU of its own if `device` is one.

    Without torchrun the group is this process alone. Processes communicate by gloo on CPUs and by nccl on GPUs.

    Raises:
        InputError: There are fewer GPUs on this machine than processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ProcessGroup(device=device)
        return
    if device.type == "cuda":
        device = _own_gpu()
    if distributed.is_initialized():  # by a cross-validation, which trains several networks in turn
        yield _here(device)
        return
    with _peers():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield _here(device)
    finally:
        distributed.destroy_process_group()


def is_first() -> bool:
    """Tell whether this process is the one that prints messages; may be called before `join_process_group`."""
    return os.environ.get("RANK", "0") == "0"


def _here(device: torch.device) -> ProcessGroup:
    return ProcessGroup(distributed.get_rank(), distributed.get_world_size(), device)


def _own_gpu() -> torch.device:
    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= there:
        raise InputError(
            f"torchrun started process {local + 1} on this machine, which has {there} GPU(s). "
            "Start as many processes as there are GPUs (--nproc-per-node)."
        )
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
