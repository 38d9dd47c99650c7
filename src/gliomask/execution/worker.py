"""What a Dask worker is told when it joins: how many cases it takes at a time, and how many cores each may use."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from threading import BoundedSemaphore

from distributed import Worker, WorkerPlugin

from gliomask.errors import InputError
from gliomask.execution.cores import give_cores
from gliomask.execution.task import run_packed

# How many cases this process works on at a time. A worker that somebody else started may have more threads than that.
_turns = BoundedSemaphore(1)
_GPUS = "CUDA_VISIBLE_DEVICES"
_seen_gpus = os.environ.get(_GPUS)


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
        gpus: How many GPUs belong to each worker; 0: nothing is said about them.
        together: How many workers share the GPUs that each of them sees; their names end with their number.
    """

    name = "gliomask"

    def __init__(self, share: Share, cores: int | None, *, own: bool, gpus: int = 0, together: int = 1) -> None:
        self.share = share
        self.cores = cores
        self.own = own
        self.gpus = gpus
        self.together = together

    def setup(self, worker: Worker) -> None:
        """Prepare the process of a worker; called by Dask."""
        global _turns
        threads = worker.state.nthreads
        _turns = BoundedSemaphore(self.share.at_once(threads))
        give_cores(self.share.threads or self.cores or threads)
        if self.gpus and (self.own or self.together > 1):
            number = int(str(worker.name).rpartition("-")[2])
            os.environ[_GPUS] = own_gpus(_seen_gpus, number, self.gpus)
        if self.own:
            _belong_to_program()


def own_gpus(seen: str | None, number: int, gpus: int) -> str:
    """Return the `CUDA_VISIBLE_DEVICES` of one of several workers that see the same GPUs.

    Args:
        seen: The variable as all of them have it; None or empty: all GPUs of the machine.
        number: Of the worker, from 0.
        gpus: How many GPUs each has.

    Raises:
        InputError: They see fewer GPUs.
    """
    places = range(number * gpus, (number + 1) * gpus)
    if not seen:
        return ",".join(map(str, places))
    names = seen.split(",")
    if places.stop > len(names):
        raise InputError(
            f"CUDA_VISIBLE_DEVICES={seen}: these are {len(names)} GPUs, and worker {number + 1} with --gpus-per-worker "
            f"{gpus} needs {places.stop}. Use fewer workers."
        )
    return ",".join(names[place] for place in places)


def _belong_to_program() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
