"""Items in processes of this machine: a crash or a full memory affects only the item that caused it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from types import FrameType
from typing import Any, TypeVar

from gliomask.errors import InputError
from gliomask.execution.cores import usable_cores
from gliomask.execution.task import packed, run_packed

Item = TypeVar("Item")
Value = TypeVar("Value")

_END: Any = object()
_CLEANING_SECONDS = 10.0
"""How long a process may take to remove its files and end, after SIGTERM."""
_BROKEN = "its process has ended without an answer. Too little memory?"


def in_processes(
    work: Callable[[Item], Value], items: Iterable[Item], at_once: int | None
) -> Generator[tuple[Item, Value | InputError], None, None]:
    """Yield each item with its result as it ends; see `map_cases`.

    If a process crashes, no other process of the pool gives an answer. The items that were being worked on then are
    done again one by one, in a process of their own, and the rest in a new pool.
    """
    remaining = iter(items)
    number = at_once or usable_cores()
    job = packed(work)
    while True:
        broken: list[Item] = []
        for item, found in _until_one_breaks(job, remaining, number):
            if isinstance(found, BrokenProcessPool):
                broken.append(item)
            else:
                yield item, found
        for item in broken:
            [(_, again)] = _until_one_breaks(job, iter([item]), 1)
            yield item, InputError(_BROKEN) if isinstance(again, BrokenProcessPool) else again
        if not broken:
            return


def _until_one_breaks(job: bytes, items: Iterator[Item], number: int) -> Iterator[tuple[Item, Any]]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(number, mp_context=context, initializer=_begin)
    running: dict[Future[bytes], Item] = {}
    started: Mapping[int, Any] = {}
    whole = True
    try:
        for item in islice(items, 2 * number):  # as many wait as are worked on, if the results are taken slowly
            running[_submitted(pool, job, item)] = item
        while running:
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                done = running.pop(future)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    whole = False
                    yield done, error
                    continue
                if whole:
                    coming = next(items, _END)
                    if coming is _END:
                        started = dict(pool._processes or started)
                        pool.shutdown(wait=False)  # its processes free their memory as soon as the last item is done
                    else:
                        running[_submitted(pool, job, coming)] = coming
                yield done, pickle.loads(future.result())
    finally:
        if running:  # interrupted: what is begun is not awaited
            _terminate(list((pool._processes or started).values()))
        pool.shutdown(cancel_futures=True)


def _terminate(processes: Sequence[Any]) -> None:
    """End processes and return when they have ended: they may have files to remove, or programs to end."""
    for process in processes:
        process.terminate()
    end = time.monotonic() + _CLEANING_SECONDS
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
        if process.is_alive():
            process.kill()


def _submitted(pool: ProcessPoolExecutor, job: bytes, item: object) -> Future[bytes]:
    """Return the future of an item; where a process has crashed before, one with the error of the pool."""
    content = packed(item)
    try:
        return pool.submit(run_packed, job, content)
    except BrokenProcessPool as error:
        broken: Future[bytes] = Future()
        broken.set_exception(error)
        return broken


def _begin() -> None:
    """Prepare a process: what it writes to standard output is dropped, and it ends with its parent."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the process that started this one, and end this one then: a killed parent shuts no pool down."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_CLEANING_SECONDS)
        os._exit(1)


class _Ended(BaseException):
    """This process is ended from outside."""


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Leave the block as at an exception if SIGTERM ends its process, so that its files are removed and programs ended.

    This holds in the processes of `map_cases`; in other processes, and in other threads than the main one, nothing is
    changed. It is for a block that waits for another program: while a library computes, Python handles the signal only
    when the library returns.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if multiprocessing.parent_process() is None or not in_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise _Ended

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    except _Ended:
        os._exit(1)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
