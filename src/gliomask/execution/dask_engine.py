"""Items on the workers of Dask. The scheduler, its queue, and what it does when a worker is lost are Dask's."""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from gliomask.errors import InputError, describe
from gliomask.execution.clusters import Opened, opened_client
from gliomask.execution.outcome import ClusterLostError
from gliomask.execution.task import VersionError, packed
from gliomask.execution.where import Where

if TYPE_CHECKING:
    from distributed import Client, Future

Item = TypeVar("Item")
Value = TypeVar("Value")

# Items that wait at the scheduler for every one that is worked on, so that no worker waits for this program.
_AHEAD = 3
# The fewest items that are sent, before any worker is there.
_FEWEST = 8
# How often the workers are counted, as some may join or leave.
_COUNT_SECONDS = 2.0
# How long to wait before it is asked again whether an item has ended.
_LOOK_SECONDS = 0.01


def on_workers(
    work: Callable[[Item], Value], items: Iterable[Item], where: Where
) -> Generator[tuple[Item, Value | InputError], None, None]:
    """Yield each item with its result as it ends; see `map_cases`.

    An item whose workers were lost more often than the scheduler allows is done again at the end, alone: the others are
    done by then, and nothing else of this program is at work. If that fails too, its result is an error.

    Raises:
        ClusterLostError: The scheduler is gone, while items were at work or waited.
        InputError: See `opened_client` and `Opened.slots`.
    """
    job = packed(work)  # before anything is started
    with opened_client(where) as cluster:
        lost: deque[Item] = deque()
        for item, found in _as_they_end(cluster, job, iter(items)):
            if isinstance(found, _Lost):
                lost.append(item)
            else:
                yield item, found
        for item in lost:
            [(_, again)] = _as_they_end(cluster, job, iter([item]))
            yield item, InputError(again.text) if isinstance(again, _Lost) else again


class _Lost:
    """What became of an item whose workers were lost."""

    def __init__(self, error: BaseException) -> None:
        limit = getattr(getattr(error, "last_worker", None), "memory_limit", 0)
        had = f", which had {limit / 1e9:.1f} GB of memory" if limit else ""
        self.text = (
            f"the workers that it was given to ended one after the other{had}. Too little memory? Use fewer workers "
            "(--workers), or give each more memory."
        )


def _as_they_end(cluster: Opened, job: bytes, items: Iterator[Item]) -> Iterator[tuple[Item, Any]]:
    """Yield each item with its result, an `InputError`, or `_Lost`."""
    from distributed import as_completed

    from gliomask.execution.worker import run_in_turn

    client = cluster.client
    waiting = as_completed(loop=client.loop, with_results=True, raise_errors=False)
    by_key: dict[str, Item] = {}
    numbers = count()
    run = f"gliomask-{uuid4().hex}"

    slots, counted = 0, -_COUNT_SECONDS

    def count_slots() -> None:
        nonlocal slots, counted
        if time.monotonic() - counted >= _COUNT_SECONDS:  # asking the scheduler takes as long as sending an item
            with _noticing_loss(client):
                slots, counted = cluster.slots(), time.monotonic()

    def send_more() -> None:
        count_slots()
        wanted = max(_FEWEST, (1 + _AHEAD) * slots)
        while len(by_key) < wanted:
            item = next(items, _END)
            if item is _END:
                return
            content = packed(item)
            with _noticing_loss(client):
                future = client.submit(run_in_turn, job, content, key=f"{run}-{next(numbers)}")
            by_key[str(future.key)] = item
            waiting.add(future)

    send_more()
    for future, result in _ended(waiting, client, count_slots):
        item = by_key.pop(str(future.key))
        with _noticing_loss(client):
            found = _outcome(future, result)
        del future, result  # so that the scheduler forgets it
        send_more()
        yield item, found


_END: Any = object()
_CONNECTION_LOST = "scheduler-connection-lost"
"""Dask's reason for the end of a future whose scheduler is gone."""
_LOST = (
    "the connection to the scheduler was lost. What is written is complete and kept; run the same command again when a "
    "scheduler is there, and the rest is done."
)


def _ended(waiting: Any, client: Client, meanwhile: Callable[[], None]) -> Iterator[tuple[Future[Any], Any]]:
    """Yield futures that have ended with their results, until there is none left.

    Dask's own iterator waits without an end if the scheduler ends while a result is fetched.

    Args:
        waiting: Dask's iterator of futures.
        client: The client that sent them.
        meanwhile: Called again and again while none has ended; what it raises ends the waiting.

    Raises:
        ClusterLostError: The scheduler is gone.
    """
    while not waiting.is_empty():
        yield from waiting.next_batch(block=False)
        if not waiting.has_ready():
            if client.status != "running":
                raise ClusterLostError(_LOST)
            meanwhile()
            time.sleep(_LOOK_SECONDS)


def _outcome(future: Future[Any], result: Any) -> Any:
    """Return the result of a future that has ended, or what became of its item.

    Raises:
        Exception: The scheduler cannot be reached (see `_noticing_loss`).
    """
    from distributed import CancelledError, KilledWorker

    try:
        # If its worker ended before the result was fetched, Dask has the item done again.
        found = pickle.loads(result if isinstance(result, bytes) else future.result())
    except KilledWorker as error:
        return _Lost(error)
    except CancelledError as error:
        if getattr(error, "reason", "") == _CONNECTION_LOST:
            raise
        return InputError("another program restarted the scheduler. Run the same command again.")
    except Exception as error:
        return InputError(f"its worker failed: {describe(error)}")
    if isinstance(found, VersionError):
        raise found
    return found


@contextmanager
def _noticing_loss(client: Client) -> Iterator[None]:
    """Turn whatever fails because the scheduler is gone into an error that says so.

    Raises:
        ClusterLostError: As said.
    """
    from distributed import CancelledError
    from distributed.comm.core import CommClosedError

    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if client.status != "running" or isinstance(error, CommClosedError | CancelledError):
            raise ClusterLostError(_LOST) from error
        raise
