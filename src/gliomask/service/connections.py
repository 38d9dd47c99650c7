"""Connections of the server: time limits for clients that send or read slowly, and a limit on their number."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from gliomask.service.security import UPLOADS, sends_mask

REQUEST_SECONDS = 10.0
"""Time to send the headers of a request and, except for uploads and corrected masks, its body."""

WRITE_SECONDS = 60.0
"""Time in which a client must read what fills the buffer of a response."""

MOST_CONNECTIONS = 500
"""When there are more, the one is closed for which the server has waited longest."""

# Bytes that the operating system keeps for a client that does not read; by default they may be several megabytes.
_SEND_BUFFER = 1 << 16
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class TimedProtocol(H11Protocol):
    """uvicorn's HTTP protocol with time limits, so that slow clients do not keep others from being served.

    uvicorn limits only the time between two requests. A connection that has sent half of its headers would stay open
    for ever, and enough of them would exhaust the server's connections.
    """

    waiting_since: float | None = None
    """Since when the server has waited for the client to send a request or to read a response; None: it does not."""
    _request_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit of the first request, and make room for it."""
        super().connection_made(transport)
        connected = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._expect_request()
        if len(self.connections) > MOST_CONNECTIONS:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """End the time limit when a request is complete, or sends files or a mask, whose speed `Transfers` checks."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            return
        is_upload = (self.scope["method"], self.scope["path"]) == UPLOADS
        if not self.cycle.more_body or is_upload or sends_mask(self.scope):
            self._stop_expecting()

    def on_response_complete(self) -> None:
        """Start the time limit of the next request."""
        super().on_response_complete()
        if self.cycle is None or self.cycle.response_complete:
            self._expect_request()

    def pause_writing(self) -> None:
        """Start the time limit for reading the response."""
        super().pause_writing()
        self.waiting_since = self.loop.time()
        self._write_timer = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """End the time limit for reading the response."""
        super().resume_writing()
        self.waiting_since = None
        if self._write_timer is not None:
            self._write_timer.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the time limits."""
        super().connection_lost(exc)
        self._stop_expecting()
        if self._write_timer is not None:
            self._write_timer.cancel()

    def _expect_request(self) -> None:
        self._stop_expecting()
        self.waiting_since = self.loop.time()
        self._request_timer = self.loop.call_later(REQUEST_SECONDS, self._close_late)

    def _stop_expecting(self) -> None:
        self.waiting_since = None
        if self._request_timer is not None:
            self._request_timer.cancel()

    def _close_late(self) -> None:
        """Close the connection once the last response has been sent, and at the latest after `WRITE_SECONDS`."""
        self.transport.close()
        self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def _make_room(self) -> None:
        others = [
            one for one in cast("set[Any]", self.connections) if one is not self and one.waiting_since is not None
        ]
        if others:
            min(others, key=lambda one: one.waiting_since).transport.abort()
        else:
            self.transport.write(_BUSY)
            self.transport.close()


def raise_file_limit() -> None:
    """Permit as many open files as `MOST_CONNECTIONS` connections need, where the system allows it."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * MOST_CONNECTIONS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
