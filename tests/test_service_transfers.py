"""Uploads in progress: slow ones end, and never keep others from uploading."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from gliomask.service.limits import Limits, RefusedError
from gliomask.service.transfers import Transfer, Transfers


class Clock:
    """A clock that a test sets."""

    moment = 0.0

    def __call__(self) -> float:
        return self.moment


def test_a_new_upload_takes_the_place_of_the_slowest(monkeypatch: pytest.MonkeyPatch) -> None:
    """When all places are taken; one that is fast or received keeps its place. Who finds no place is refused."""
    clock = Clock()
    transfers = Transfers(Limits(uploads_at_once=3), clock)

    async def sleep(seconds: float) -> None:
        clock.moment += seconds

    async def upload() -> None:
        async with AsyncExitStack() as stack:
            fast, slow, received = [await stack.enter_async_context(transfers.open()) for _ in range(3)]
            clock.moment = 5
            fast.add(10_000_000)
            slow.add(5)
            received.is_received = True
            new = await stack.enter_async_context(transfers.open())
            assert [one.is_replaced for one in (fast, slow, received)] == [False, True, False]
            new.add(10_000_000)
            with pytest.raises(RefusedError, match="Too many uploads") as refused:
                await stack.enter_async_context(transfers.open())
            assert refused.value.status == 429
            assert clock.moment >= 7
        async with transfers.open():
            pass

    monkeypatch.setattr("gliomask.service.transfers.asyncio.sleep", sleep)
    asyncio.run(upload())


def test_an_upload_must_not_be_slow_for_ten_seconds() -> None:
    """However fast it was before."""
    transfer = Transfer(0)
    transfer.add(10**9)
    assert not transfer.is_slow(11, 1000)
    assert not transfer.is_slow(20, 1000)
    transfer.add(5000)
    assert transfer.is_slow(22, 1000)


def test_an_upload_that_stops_is_ended() -> None:
    """With 408, though nothing more arrives; and one whose place was taken at once."""
    clock = Clock()
    transfers = Transfers(Limits(uploads_at_once=1), clock)

    async def stopping() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(60)

    async def receive(replaced: bool) -> None:
        async with transfers.open() as transfer:
            async for _ in transfers.chunks(stopping(), transfer):
                clock.moment += 20
                transfer.is_replaced = replaced

    for replaced in (False, True):
        with pytest.raises(RefusedError, match="too slow") as refused:
            asyncio.run(asyncio.wait_for(receive(replaced), 20))
        assert refused.value.status == 408


def test_all_uploads_together_have_a_limit() -> None:
    """Of four times the largest one."""
    transfers = Transfers(Limits(upload_bytes=1000))

    async def large() -> AsyncIterator[bytes]:
        yield bytes(900)

    async def receive() -> None:
        async with AsyncExitStack() as stack:
            for _ in range(5):
                transfer = await stack.enter_async_context(transfers.open())
                async for _ in transfers.chunks(large(), transfer):
                    pass

    with pytest.raises(RefusedError, match="Too many large uploads"):
        asyncio.run(receive())


def test_the_chunks_of_an_upload_are_unchanged() -> None:
    """In their order, and the end is noted."""
    transfers = Transfers(Limits())
    pieces = [bytes([n]) * n for n in range(1, 50)]

    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def receive() -> list[bytes]:
        async with transfers.open() as transfer:
            found = [piece async for piece in transfers.chunks(stream(), transfer)]
            assert transfer.is_received
            assert transfer.bytes == sum(map(len, pieces))
            return found

    assert asyncio.run(receive()) == pieces
