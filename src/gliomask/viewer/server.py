"""Serve one scene to the browser of this machine: from memory, by fixed names, under a URL that cannot be guessed."""

from __future__ import annotations

import json
import logging
import math
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit
from zlib import decompressobj
from zlib import error as ZlibError

from gliomask.errors import InputError
from gliomask.version import VERSION
from gliomask.viewer.assets import ASSETS, Asset, read_asset, require_niivue
from gliomask.viewer.editing import ACTS, Editing, WindowError
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
_BESIDE = "beside/"  # before the names of the second examination's volumes
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
def serve_scene(
    scene: Scene, *, beside: Scene | None = None, editing: Editing | None = None, port: int = 0
) -> Iterator[Served]:
    """Serve a scene on 127.0.0.1 while the block runs.

    Other machines cannot connect, and programs of this machine need the URL.

    Args:
        scene: The scene; nothing else but the second one is ever sent.
        beside: A second examination, shown beside the first one at the same position in mm.
        editing: The correction of one of the scene's masks, which the page may save; None for one that saves nothing.
        port: The port; 0 takes a free one.

    Raises:
        InputError: The port is not available, or niivue is missing from this installation.
    """
    require_niivue()
    token = secrets.token_urlsafe(24)
    handler = type("SceneHandler", (_Handler,), _tables(scene, beside, editing, token))
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
    posts: ClassVar[Mapping[str, Callable[[dict[str, Any], bytes], Asset]]] = {}
    most_bytes: ClassVar[int] = 0
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

    def do_POST(self) -> None:
        """Let the page of an editor save, if this server has one."""
        if not self.posts:
            self.send_error(HTTPStatus.NOT_IMPLEMENTED)
            return
        self.close_connection = True  # so that an unread body is not taken for the next request
        post = self.posts.get(self.path.partition("?")[0])
        if not self._is_for_us() or self.headers.get("Origin", "").partition("://")[2] != self.headers.get("Host"):
            self._send(HTTPStatus.FORBIDDEN, _NOT_HERE, body=True)
        elif post is None:
            self._send(HTTPStatus.NOT_FOUND, _NOT_HERE, body=True)
        else:
            self._post(post)

    def _post(self, post: Callable[[dict[str, Any], bytes], Asset]) -> None:
        try:
            wanted = json.loads(parse_qs(urlsplit(self.path).query).get("request", ["{}"])[0])
            length = min(int(self.headers.get("Content-Length", "0")), self.most_bytes)
            content = self.rfile.read(length)
            if self.headers.get("Content-Encoding") == "gzip":
                content = decompressobj(31).decompress(content, self.most_bytes)
            status, answer = HTTPStatus.OK, post(wanted, content)
        except WindowError as error:
            status, answer = HTTPStatus.CONFLICT, _told(str(error))
        except InputError as error:
            status, answer = HTTPStatus.UNPROCESSABLE_ENTITY, _told(str(error))
        except (ValueError, TypeError, AttributeError, ZlibError, RecursionError) as error:
            status, answer = HTTPStatus.BAD_REQUEST, _told(f"the request is malformed: {error}")
        self._send(status, answer, body=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the standard library
        """Log no requests: their URLs contain the secret."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer an invalid request, such as another method, with its status only."""
        self.close_connection = True
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._send(status, Asset(f"{status.phrase}\n".encode(), _PLAIN), body=True)

    def _is_for_us(self) -> bool:
        port = self.server.server_address[1]  # type: ignore[index]
        # A page of another site whose name resolves to this machine (DNS rebinding) sends its own host name.
        return self.headers.get_all("Host") in ([f"{HOST}:{port}"], [f"localhost:{port}"])

    def _answer(self, *, body: bool) -> None:
        if not self._is_for_us():
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


def _answers(scene: Scene, beside: Scene | None, token: str) -> dict[str, Callable[[], Asset]]:
    """Return a function that computes each response, by path; volumes are computed at the first request and kept."""
    root = f"/{token}/"
    answers: dict[str, Callable[[], Asset]] = {root + name: partial(read_asset, name) for name in ASSETS}
    answers[root] = answers.pop(f"{root}index.html")
    answers[f"{root}scene.json"] = cache(partial(_scene_asset, scene, beside))
    for folder, shown in [("volumes/", scene), *([(_BESIDE, beside)] if beside else [])]:
        for name in volume_names(shown):
            answers[f"{root}{folder}{name}"] = cache(partial(_volume_asset, shown, name))
    return answers


def _tables(scene: Scene, beside: Scene | None, editing: Editing | None, token: str) -> dict[str, Any]:
    """Return the attributes of the handler: what is answered, and what may be posted."""
    answers = _answers(scene, beside, token)
    if editing is None:
        return {"answers": answers}
    root = f"/{token}/"

    def now() -> Scene:
        """Return the scene with the mask as it was saved last, so that volumes and differences are those of it."""
        return scene.with_labels(editing.mask.name, editing.start)

    answers[f"{root}scene.json"] = lambda: _scene_asset(now(), beside, editing)
    for name in volume_names(scene):
        if name.removesuffix(".nii.gz") not in scene.images:
            answers[f"{root}volumes/{name}"] = partial(lambda name: _volume_asset(now(), name), name)
    most = math.prod(span.stop - span.start for span in editing.box) + 65536
    return {"answers": answers, "posts": _posts(editing, root), "most_bytes": most}


def _posts(editing: Editing, root: str) -> dict[str, Callable[[dict[str, Any], bytes], Asset]]:
    def act(name: str, wanted: dict[str, Any], content: bytes) -> Asset:
        answer = editing.answer(name, wanted, content)
        if isinstance(answer, bytes):
            return Asset(answer, "application/octet-stream")
        return Asset(json.dumps(answer).encode(), "application/json")

    return {f"{root}edit/{name}": partial(act, name) for name in ACTS}


def _told(message: str) -> Asset:
    return Asset(json.dumps({"message": message}).encode(), "application/json")


def _scene_asset(scene: Scene, beside: Scene | None, editing: Editing | None = None) -> Asset:
    content = scene_content(scene)
    if editing is not None:
        content["edit"] = editing.content()
    if beside is not None:
        content["beside"] = scene_content(beside, _BESIDE)
    return Asset(json.dumps(content).encode(), "application/json")


def _volume_asset(scene: Scene, name: str) -> Asset:
    return Asset(volume_bytes(scene, name), "application/gzip")
