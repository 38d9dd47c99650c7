"""`map_cases`: one function for every item, wherever it is worked on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from gliomask.errors import InputError
from gliomask.execution.processes import in_processes
from gliomask.execution.threads import in_threads
from gliomask.execution.where import HERE, Where

Item = TypeVar("Item")
Value = TypeVar("Value")


def map_cases(
    work: Callable[[Item], Value],
    items: Iterable[Item],
    where: Where = HERE,
    *,
    meanwhile: Callable[[], object] = lambda: None,
) -> Generator[tuple[Item, Value | InputError], None, None]:
    """Yield each item with the result of `work`, in the order in which they end.

    Whatever one item raises or whatever happens to its worker is an `InputError` in the place of its result; the others
    are worked on all the same. Items are taken from the iterable only as they are needed, so there may be very many.
    If the iterator is closed or interrupted (Ctrl-C), no other item is begun. Threads end the items they have begun
    (see `stop_if_asked`); processes that were started for the items are ended.

    Args:
        work: The function. For anything but threads of this process it must pickle, as must items and results: small
            values such as paths, plans and settings, never images. Paths are made absolute on the way.
        items: The items, such as cases.
        where: Where they are worked on.
        meanwhile: Called once in this thread while threads of this process work on the first items.

    Raises:
        InputError: The cluster cannot be reached or started, a package is missing for it, or its workers have another
            version of gliomask.
        ClusterLostError: The cluster was reached, and its scheduler ended meanwhile.
    """
    if not where.is_here:
        from gliomask.execution.dask_engine import on_workers

        return on_workers(work, items, where)
    if where.processes:
        return in_processes(work, items, where.at_once)
    return in_threads(work, items, where.at_once, meanwhile)
