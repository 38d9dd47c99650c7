"""Connections: clients that send or read slowly are disconnected, and others are served meanwhile."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

import uvicorn

from gliomask.service import connections
from serving import wait_for

HALF = b"GET / HTTP/1.1\r\nHost: x\r\nX-Half: "
WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = 30_000_000


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """A small response, after the body for a POST; for `/large` a large one, in pieces."""
    while scope["method"] == "POST" and (await receive()).get("more_body"):
        pass
    size = LARGE if scope["path"] == "/large" else 2
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(size).encode())]})
    for start in range(0, size, 65536):
        length = min(65536, size - start)
        await send({"type": "http.response.body", "body": bytes(length), "more_body": start + length < size})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server with short time limits and room for three connections."""
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 1.0)
    monkeypatch.setattr(connections, "WRITE_SECONDS", 1.0)
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 3)
    config = uvicorn.Config(
        answer, http=connections.TimedProtocol, lifespan="off", log_config=None, ws="none", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    yield int(listening.getsockname()[1])
    server.should_exit = True
    thread.join()
    listening.close()


def connect(port: int, content: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(content)
    return connection


def rest(connection: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    found = b""
    try:
        while piece := connection.recv(1 << 16):
            found += piece
    except ConnectionError:
        pass
    return found


@pytest.mark.parametrize(
    "start", [b"", HALF, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab", WHOLE + HALF]
)
def test_a_request_must_be_complete_in_time(port: int, start: bytes) -> None:
    """Whether nothing, half of the headers or half of the body is sent, or half of a second request."""
    began = time.monotonic()
    with connect(port, start) as connection:
        rest(connection)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("act", ["save", "apply", "open"])
def test_a_corrected_mask_may_take_longer(port: int, act: str) -> None:
    """Its speed is checked while it is received, as that of uploads; the other requests of the editor are small."""
    headers = "Host: x\r\nConnection: close\r\nContent-Length: 4"
    start = f"POST /api/jobs/{'0' * 32}/edit/{act} HTTP/1.1\r\n{headers}\r\n\r\nab"
    with connect(port, start.encode()) as connection:
        time.sleep(2)
        with suppress(ConnectionError):
            connection.sendall(b"cd")
        assert rest(connection).startswith(b"HTTP/1.1 200") == (act != "open")


def test_bytes_do_not_extend_the_time(port: int) -> None:
    """A client that sends one now and then is disconnected too."""
    with connect(port, HALF) as connection:
        end = time.monotonic() + 20
        with suppress(ConnectionError):
            while time.monotonic() < end:
                time.sleep(0.1)
                connection.sendall(b"x")
        assert time.monotonic() < end


def test_others_are_served_while_connections_wait(port: int) -> None:
    """The one for which the server has waited longest gives way."""
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connect(port, HALF))
        with connect(port, WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) as connection:
            assert rest(connection).startswith(b"HTTP/1.1 200")


def test_a_client_that_does_not_read_is_disconnected(port: int) -> None:
    """And one that reads gets everything."""
    request = b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with connect(port, request) as stuck:
        with connect(port, request) as reading:
            assert len(rest(reading)) > LARGE
        time.sleep(2.5)
        assert len(rest(stuck)) < LARGE


def test_files_can_be_opened_for_all_connections() -> None:
    """The limit of the process is raised, never lowered."""
    resource = pytest.importorskip("resource", reason="needs POSIX")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections.raise_file_limit()
    after = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert after[1] == before[1]
    assert after[0] == resource.RLIM_INFINITY or after[0] >= min(before[1], connections.MOST_CONNECTIONS)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
