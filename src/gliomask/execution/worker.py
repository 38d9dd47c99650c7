"""What a Dask worker is told when it joins: how many cases it takes at a time, and how many cores each may use."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Any

from distributed import Worker, WorkerPlugin

from gliomask.execution.cores import give_cores
from gliomask.execution.task import run_packed

# How many cases this process works on at a time. A worker that somebody else started may have more threads than that.
_turns = BoundedSemaphore(1)


@dataclass(frozen=True)
class Share:
    """What one case may use of a worker."""

    threads: int | None = None
    """How many threads one case uses; None: all that the worker has."""
    alone: bool = False
    """Whether a worker takes one case at a time."""

    def at_once(self, threads: int) -> int:
        """Return how many cases a worker takes at a time that has so many threads.

        Where a case uses all threads, there are two of them if possible: one is read or written while the other is
        computed.
        """
        if self.alone:
            return 1
        return max(1, threads // self.threads if self.threads else min(2, threads))


def run_in_turn(job: bytes, item: bytes) -> bytes:
    """Return what `run_packed` does, when it is this item's turn."""
    with _turns:
        return run_packed(job, item)


class Sharing(WorkerPlugin):
    """Tells each worker that joins what one case may use of it.

    Args:
        share: What one case may use.
        cores: How many cores belong to a worker; None: as many as it has threads.
        own: The worker was started for this program: it prints nothing, and Ctrl-C reaches the program only.
        gpus: How many GPUs belong to each worker of this program.
    """

    name = "gliomask"

    def __init__(self, share: Share, cores: int | None, *, own: bool, gpus: int = 0) -> None:
        self.share = share
        self.cores = cores
        self.own = own
        self.gpus = gpus

    def setup(self, worker: Worker) -> None:
        """Prepare the process of a worker; called by Dask."""
        global _turns
        threads = worker.state.nthreads
        _turns = BoundedSemaphore(self.share.at_once(threads))
        give_cores(self.share.threads or self.cores or threads)
        if self.own:
            _belong_to_program(worker.name, self.gpus)


def _belong_to_program(name: Any, gpus: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    if gpus and str(name).isdigit():
        first = int(name) * gpus
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(first + number) for number in range(gpus))
