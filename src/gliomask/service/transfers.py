"""Uploads while they are received: how many, how much together, and how slow they may be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gliomask.service.limits import Limits, RefusedError

_WINDOW_S = 10.0
_LONGEST_WAIT_S = 2.0
# A new upload takes the place of one that is at least this old and slower than this.
_REPLACEABLE_AFTER_S = 0.25
_REPLACEABLE_BYTES_PER_S = 64_000.0
# Bytes of all uploads together, as a multiple of the largest single one.
_MOST_TOGETHER = 4


class Transfer:
    """One upload in progress."""

    def __init__(self, moment: float) -> None:
        self.bytes = 0
        self.is_received = False
        self.is_replaced = False
        self.started = moment
        self._window_started = moment
        self._window_bytes = 0

    def add(self, size: int) -> None:
        """Count bytes that were received."""
        self.bytes += size
        self._window_bytes += size

    def rate(self, moment: float) -> float:
        """Return the mean number of bytes per second."""
        return self.bytes / max(moment - self.started, 1e-3)

    def is_slow(self, moment: float, slowest: float) -> bool:
        """Return whether the last ten seconds were slower than `slowest` bytes per second."""
        if moment - self._window_started < _WINDOW_S:
            return False
        slow = self._window_bytes < slowest * (moment - self._window_started)
        self._window_started, self._window_bytes = moment, 0
        return slow


class Transfers:
    """The uploads in progress.

    An upload that stays too slow for ten seconds is refused. When all places are taken, a new upload takes the place of
    the slowest one, unless all are fast. So clients that send a byte a second keep nobody from uploading.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._open: set[Transfer] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Transfer]:
        """Yield a place for an upload.

        Raises:
            RefusedError: 429, all places are taken, for two seconds, by uploads that are not slow.
        """
        end = self._clock() + _LONGEST_WAIT_S
        while len(self._open) >= self._limits.uploads_at_once and not self._replace_slowest():
            if self._clock() >= end:
                raise RefusedError(429, "Too many uploads are in progress. Try again in a minute.")
            await asyncio.sleep(0.1)
        transfer = Transfer(self._clock())
        self._open.add(transfer)
        try:
            yield transfer
        finally:
            self._open.discard(transfer)

    async def chunks(self, stream: AsyncIterator[bytes], transfer: Transfer) -> AsyncIterator[bytes]:
        """Yield the chunks of an upload while it is fast enough.

        Raises:
            RefusedError: 408, it is too slow; 429, all uploads together are too large.
        """
        while True:
            waiting = asyncio.ensure_future(anext(stream, None))
            try:
                while not waiting.done():
                    await asyncio.wait([waiting], timeout=0.5)
                    self._check(transfer)
            finally:
                if not waiting.done():
                    waiting.cancel()
            chunk = waiting.result()
            if chunk is None:
                transfer.is_received = True
                return
            transfer.add(len(chunk))
            if sum(one.bytes for one in self._open) > _MOST_TOGETHER * self._limits.upload_bytes:
                raise RefusedError(429, "Too many large uploads are in progress. Try again in a minute.")
            yield chunk

    def _check(self, transfer: Transfer) -> None:
        if transfer.is_replaced or transfer.is_slow(self._clock(), self._limits.slowest_bytes_per_s):
            raise RefusedError(408, "The upload was too slow and was ended. Check the connection, then try again.")

    def _replace_slowest(self) -> bool:
        """End the slowest upload, and return whether there was one that is slow enough."""
        moment = self._clock()
        slow = [
            one
            for one in self._open
            if not one.is_received
            and moment - one.started >= _REPLACEABLE_AFTER_S
            and one.rate(moment) < _REPLACEABLE_BYTES_PER_S
        ]
        if not slow:
            return False
        slowest = min(slow, key=lambda one: one.rate(moment))
        slowest.is_replaced = True
        self._open.discard(slowest)
        return True
