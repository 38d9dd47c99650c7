"""Items on the workers of Dask. The scheduler, its queue, and what it does when a worker is lost are Dask's."""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from gliomask.errors import InputError, describe
from gliomask.execution.clusters import opened_client
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


def on_workers(
    work: Callable[[Item], Value], items: Iterable[Item], where: Where
) -> Generator[tuple[Item, Value | InputError], None, None]:
    """Yield each item with its result as it ends; see `map_cases`.

    An item whose workers were lost more often than the scheduler allows is done again at the end, alone: the others are
    done by then, and nothing else of this program is at work. If that fails too, its result is an error.
    """
    job = packed(work)  # before anything is started
    with opened_client(where) as client:
        lost: deque[Item] = deque()
        for item, found in _as_they_end(client, job, iter(items)):
            if isinstance(found, _Lost):
                lost.append(item)
            else:
                yield item, found
        for item in lost:
            [(_, again)] = _as_they_end(client, job, iter([item]))
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


def _as_they_end(client: Client, job: bytes, items: Iterator[Item]) -> Iterator[tuple[Item, Any]]:
    """Yield each item with its result, an `InputError`, or `_Lost`."""
    from distributed import as_completed

    from gliomask.execution.worker import run_in_turn

    waiting = as_completed(loop=client.loop, with_results=True, raise_errors=False)
    by_key: dict[str, Item] = {}
    numbers = count()
    run = f"gliomask-{uuid4().hex}"

    slots, counted = 0, -_COUNT_SECONDS

    def send_more() -> None:
        nonlocal slots, counted
        if time.monotonic() - counted >= _COUNT_SECONDS:  # asking the scheduler takes as long as sending an item
            slots, counted = _slots(client), time.monotonic()
        wanted = max(_FEWEST, (1 + _AHEAD) * slots)
        while len(by_key) < wanted:
            item = next(items, _END)
            if item is _END:
                return
            future = client.submit(run_in_turn, job, packed(item), key=f"{run}-{next(numbers)}")
            by_key[str(future.key)] = item
            waiting.add(future)

    send_more()
    for future, result in waiting:
        item = by_key.pop(str(future.key))
        found = _outcome(future, result)
        del future, result  # so that the scheduler forgets it
        send_more()
        yield item, found


_END: Any = object()


def _outcome(future: Future[Any], result: Any) -> Any:
    from distributed import CancelledError, KilledWorker

    try:
        # If its worker ended before the result was fetched, Dask has the item done again.
        found = pickle.loads(result if isinstance(result, bytes) else future.result())
    except KilledWorker as error:
        return _Lost(error)
    except CancelledError:
        return InputError("the scheduler was stopped or restarted. Run the same command again.")
    except Exception as error:
        return InputError(f"its worker failed: {describe(error)}")
    if isinstance(found, VersionError):
        raise found
    return found


def _slots(client: Client) -> int:
    """Return how many items all workers together work on at a time, at most."""
    return sum(worker["nthreads"] for worker in client.scheduler_info(n_workers=-1)["workers"].values())
