"""Items in threads of this process: as they end, or in their order ahead of their use."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

from gliomask.errors import InputError
from gliomask.execution.cores import usable_cores
from gliomask.execution.outcome import as_error

Item = TypeVar("Item")
Value = TypeVar("Value")

_own = threading.local()


class Stopped(BaseException):
    """The work on an item was given up because the whole was stopped."""


def asked_to_stop() -> bool:
    """Return whether the whole was stopped, in a thread of `map_cases`; False in other threads."""
    stop: threading.Event | None = getattr(_own, "stop", None)
    return stop is not None and stop.is_set()


def stop_if_asked() -> None:
    """Give up the work on an item if the whole was stopped; call it now and then in work that takes long.

    Raises:
        Stopped: It was; in other threads than those of `map_cases` nothing happens.
    """
    if asked_to_stop():
        raise Stopped


def started_whole(start: Callable[[], Value], close: Callable[[Value], object]) -> Value:
    """Return what a function starts; at Ctrl-C it is started to its end and closed, and then Ctrl-C goes on.

    A signal interrupts the main thread, therefore another one starts it.
    """
    begun: list[Value] = []
    pool = ThreadPoolExecutor(1)
    try:
        pool.submit(lambda: begun.append(start())).result()
    except KeyboardInterrupt:
        pool.shutdown()
        for each in begun:
            close(each)
        raise
    finally:
        pool.shutdown()
    return begun[0]


def in_threads(
    work: Callable[[Item], Value],
    items: Iterable[Item],
    at_once: int | None,
    meanwhile: Callable[[], object],
) -> Generator[tuple[Item, Value | InputError], None, None]:
    """Yield each item with its result as it ends; see `map_cases`."""
    threads = at_once or usable_cores()
    stop = threading.Event()

    def run(item: Item) -> Value | InputError:
        _own.stop = stop
        try:
            stop_if_asked()
            return work(item)
        except Exception as error:
            return as_error(error)

    remaining = iter(items)
    pool = ThreadPoolExecutor(threads)
    running: dict[Future[Value | InputError], Item] = {}
    try:
        for item in islice(remaining, threads):
            running[pool.submit(run, item)] = item
        meanwhile()
        while running:
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                done = running.pop(future)
                for item in islice(remaining, 1):
                    running[pool.submit(run, item)] = item
                yield done, future.result()
                del future
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def ahead(
    function: Callable[[Item], Value], items: Iterable[Item], threads: int | None = None, name: str = "ahead"
) -> Generator[Value, None, None]:
    """Yield `function` of each item in their order, computed in threads while earlier results are used.

    The first items are begun at once, before the first result is asked for. An error of the function is raised where
    its result would be yielded. Close the iterator if it is not read to its end; items that have not begun are then
    dropped.

    Args:
        function: Called in the threads.
        items: Taken from the iterable as they are needed; there may be no end of them.
        threads: By default one for each core. One more result than threads is computed ahead.
        name: The beginning of the threads' names.
    """
    number = threads or usable_cores()
    remaining = iter(items)
    pool = ThreadPoolExecutor(number, thread_name_prefix=name)
    pending = deque(pool.submit(function, item) for item in islice(remaining, number + 1))
    return _in_order(function, remaining, pool, pending)


def _in_order(
    function: Callable[[Item], Value],
    remaining: Iterator[Item],
    pool: ThreadPoolExecutor,
    pending: deque[Future[Value]],
) -> Generator[Value, None, None]:
    try:
        while pending:
            yield pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(remaining, 1))
    finally:
        pool.shutdown(cancel_futures=True)
