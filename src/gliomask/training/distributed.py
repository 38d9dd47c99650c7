"""The processes that train one network together (`torchrun`), as seen by one of them; or a single process."""

from __future__ import annotations

import os
import re
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
# Parts of the messages with which gloo and NCCL report a closed connection or a timeout; both raise a RuntimeError, as
# torch does for any other error.
_LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|timed out|pair closure", re.IGNORECASE)
PEER_LOST = (
    "another process of this training has ended or does not answer, so this one ends too. "
    "The last checkpoint is complete: start again with --resume, with any number of processes."
)


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
        InputError: There are fewer GPUs on this machine than processes, the processes do not find each other, or an
            environment variable that `torchrun` sets is not a number.
    """
    if _environment_number("WORLD_SIZE", 1) == 1:
        yield ProcessGroup(device=device)
        return
    if device.type == "cuda":
        device = _own_gpu()
    if distributed.is_initialized():  # by a cross-validation, which trains several networks in turn
        yield _here(device)
        return
    try:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"cannot join the other processes of this training: {reason} Start all of them with torchrun, with one "
            "address and a free port (--master-addr, --master-port)."
        ) from error
    try:
        yield _here(device)
    finally:
        distributed.destroy_process_group()


def is_first() -> bool:
    """Tell whether this process is the one that prints messages; may be called before `join_process_group`."""
    return os.environ.get("RANK", "0") == "0"


def is_lost_peer(error: BaseException) -> bool:
    """Tell whether an error means that another process has ended or does not answer, and not a fault in this one."""
    return isinstance(error, distributed.DistError) or bool(_LOST.search(str(error)))


def _environment_number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise InputError(f"the environment variable {name} is {text!r}; torchrun sets it to a number.")
    return int(text)


def _here(device: torch.device) -> ProcessGroup:
    return ProcessGroup(distributed.get_rank(), distributed.get_world_size(), device)


def _own_gpu() -> torch.device:
    local, there = _environment_number("LOCAL_RANK", 0), torch.cuda.device_count()
    if local >= there:
        raise InputError(
            f"torchrun started process {local + 1} on this machine, which has {there} GPU(s). "
            "Start as many processes as there are GPUs (--nproc-per-node)."
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


@contextmanager
def _peers() -> Iterator[None]:
    """Raise an InputError that says so if another process is lost; leave other errors as they are."""
    try:
        yield
    except RuntimeError as error:
        if is_lost_peer(error):
            raise InputError(PEER_LOST) from error
        raise
