"""Serve one scene to the browser of this machine: from memory, by fixed names, under a URL that cannot be guessed."""

from __future__ import annotations

import json
import logging
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

from gliomask.errors import InputError
from gliomask.version import VERSION
from gliomask.viewer.assets import ASSETS, Asset, read_asset, require_niivue
from gliomask.viewer.headers import security_headers
from gliomask.viewer.scene import Scene, scene_content, volume_bytes, volume_names

log = logging.getLogger(__name__)

HOST = "127.0.0.1"

SECURITY_HEADERS: Mapping[str, str] = security_headers(
    {"connect-src": "'self' data:", "form-action": "'none'"}, referrer="no-referrer"
)
"""Sent with each response: the page can run scripts and open URLs of its own server only."""

_PLAIN = "text/plain; charset=utf-8"
_NOT_HERE = Asset(b"There is nothing here. Open the address that gliomask view printed.\n", _PLAIN)
_IDLE_S = 30  # after which an idle connection is closed


@dataclass(frozen=True)
class Served:
    """A running server."""

    url: str
    """The URL of the page, which includes the secret."""
    thread: Thread

    def wait(self) -> None:
        """Block until the server has ended; can be interrupted by Ctrl-C."""
        while self.thread.is_alive():
            self.thread.join(1)  # a join without a timeout cannot be interrupted on Windows


@contextmanager
def serve_scene(scene: Scene, *, port: int = 0) -> Iterator[Served]:
    """Serve a scene on 127.0.0.1 while the block runs.

    Other machines cannot connect, and programs of this machine need the URL.

    Args:
        scene: The scene; nothing else is ever sent.
        port: The port; 0 takes a free one.

    Raises:
        InputError: The port is not available, or niivue is missing from this installation.
    """
    require_niivue()
    token = secrets.token_urlsafe(24)
    handler = type("SceneHandler", (_Handler,), {"answers": _answers(scene, token)})
    try:
        server = _Server((HOST, port), handler)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"port {port} is not available: {error}. Choose another with --port, or omit the option."
        ) from error
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield Served(f"http://{HOST}:{server.server_address[1]}/{token}/", thread)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    """A server that does not share its port: with `SO_REUSEADDR`, Windows lets other programs listen at it too."""

    allow_reuse_address = sys.platform != "win32"

    def handle_error(self, request: object, client_address: object) -> None:
        """Log an exception in a request instead of printing it: most are connections that the browser has closed."""
        level = logging.DEBUG if isinstance(sys.exc_info()[1], OSError) else logging.ERROR
        log.log(level, "a request could not be answered", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD from a table of complete paths; no part of a request is ever used as a file path."""

    answers: ClassVar[Mapping[str, Callable[[], Asset]]] = {}
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # buffered, so that headers and body are sent together
    server_version, sys_version = f"gliomask/{VERSION}", ""
    timeout = _IDLE_S

    def do_GET(self) -> None:
        """Send a file."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Send the headers of a file."""
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the standard library
        """Log no requests: their URLs contain the secret."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer an invalid request, such as another method, with its status only."""
        self.close_connection = True
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._send(status, Asset(f"{status.phrase}\n".encode(), _PLAIN), body=True)

    def _answer(self, *, body: bool) -> None:
        port = self.server.server_address[1]  # type: ignore[index]
        # A page of another site whose name resolves to this machine (DNS rebinding) sends its own host name.
        if self.headers.get_all("Host") not in ([f"{HOST}:{port}"], [f"localhost:{port}"]):
            self._send(HTTPStatus.FORBIDDEN, _NOT_HERE, body=body)
            return
        answer = self.answers.get(self.path.partition("?")[0])
        if answer is None:
            self._send(HTTPStatus.NOT_FOUND, _NOT_HERE, body=body)
        else:
            self._send(HTTPStatus.OK, answer(), body=body)

    def _send(self, status: HTTPStatus, content: Asset, *, body: bool) -> None:
        try:
            self.send_response(status)
            for name, value in SECURITY_HEADERS.items():
                self.send_header(name, value)
            self.send_header("Content-Type", content.media_type)
            self.send_header("Content-Length", str(len(content.content)))
            if status == HTTPStatus.METHOD_NOT_ALLOWED:
                self.send_header("Allow", "GET, HEAD")
            if self.close_connection:
                self.send_header("Connection", "close")
            if content.encoding:
                self.send_header("Content-Encoding", content.encoding)
            self.end_headers()
            if body:
                self.wfile.write(content.content)
        except OSError as error:  # the page was closed
            log.debug("a page was closed while it loaded: %s", error)
            self.close_connection = True


def _answers(scene: Scene, token: str) -> dict[str, Callable[[], Asset]]:
    """Return a function that computes each response, by path; volumes are computed at the first request and kept."""
    root = f"/{token}/"
    answers: dict[str, Callable[[], Asset]] = {root + name: partial(read_asset, name) for name in ASSETS}
    answers[root] = answers.pop(f"{root}index.html")
    answers[f"{root}scene.json"] = cache(partial(_scene_asset, scene))
    for name in volume_names(scene):
        answers[f"{root}volumes/{name}"] = cache(partial(_volume_asset, scene, name))
    return answers


def _scene_asset(scene: Scene) -> Asset:
    return Asset(json.dumps(scene_content(scene)).encode(), "application/json")


def _volume_asset(scene: Scene, name: str) -> Asset:
    return Asset(volume_bytes(scene, name), "application/gzip")
