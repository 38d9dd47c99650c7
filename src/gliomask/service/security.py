"""Access control: the host name, the origin and the token of each request are checked before routing."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import logging
import re
import time
import unicodedata
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect

from gliomask.service.brake import Brake
from gliomask.service.limits import RefusedError
from gliomask.viewer.headers import security_headers

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LEAST_TOKEN = 16
"""Least number of characters of a token; a shorter one could be guessed."""

OPEN_PATHS = frozenset({"/login", "/login/login.js", "/login/login.css"})
"""Paths served without the token: the form that asks for it, its style and its script. They show no job."""

UPLOADS = ("POST", "/api/jobs")
_MASKS = re.compile(r"/api/jobs/[0-9a-f]{32}/edit/(save|apply)")
_MASK_BODY = 8 * 1024**2  # compressed; 30 million voxels of four random labels take as much
_SMALL_BODY = 64 * 1024
_SMALL_BODY_SECONDS = 8.0

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})

_HEADERS = {
    name.lower(): value
    for name, value in security_headers(
        {
            "connect-src": "'self' blob:",
            "font-src": "'self' data:",
            "worker-src": "'self' blob:",
            "form-action": "'self'",
        },
        referrer="same-origin",  # with no-referrer, browsers submit the form with "Origin: null"
    ).items()
}


@dataclass(frozen=True)
class Token:
    """The secret that clients must present; only a digest of it is kept in memory."""

    _digest: bytes
    session: str
    """Value of the browser's session cookie. It is derived from the token, which cannot be derived from it."""

    @classmethod
    def of(cls, secret: str) -> Token:
        """Return the token for a secret."""
        session = hmac.new(_encoded(secret), b"gliomask browser session", "sha256").hexdigest()
        return cls(_digest(secret), session)

    def matches(self, secret: str) -> bool:
        """Compare a string with the secret in constant time."""
        return hmac.compare_digest(_digest(secret), self._digest)

    def matches_session(self, session: str) -> bool:
        """Compare the value of a cookie with the session value in constant time."""
        return hmac.compare_digest(_encoded(session), self.session.encode())


@dataclass(frozen=True)
class AccessPolicy:
    """The host names under which a server answers, and its token."""

    token: Token | None = None
    """None: no token is needed. Used for loopback addresses only."""
    names: frozenset[str] = _LOCAL
    """Accepted values of the Host header (without the port), in lower case."""
    any_address: bool = False
    """Whether any IP address is accepted too. Safe, because DNS rebinding needs a name."""
    port: int = 0

    @property
    def cookie(self) -> str:
        """Name of the cookie. It contains the port, because browsers share cookies between the ports of a host."""
        return f"gliomask-{self.port}"


class SecurityMiddleware:
    """ASGI middleware that checks each request, limits its size, and adds security headers to each response.

    The checks are, in this order: the host name (against DNS rebinding), the origin (against cross-site request
    forgery), and the token. An unexpected exception becomes status 500 without details.
    """

    def __init__(self, app: App, access: AccessPolicy, brake: Brake, most_bytes: int) -> None:
        self._app = app
        self._access = access
        self._brake = brake
        self._most_bytes = most_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                there = {name.lower() for name, _ in message["headers"]}
                more = [(n.encode(), v.encode()) for n, v in _HEADERS.items() if n.encode() not in there]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, self._limit_body(scope, receive), answer)
        except RefusedError as refused:
            if started:  # the connection is closed, as no second response can be sent
                raise
            await _refuse(scope, answer, refused)
        except ClientDisconnect:
            log.debug("a client disconnected during its request")
        except Exception as error:
            log.error("%s %s: %s", scope["method"], _shown(scope["path"]), type(error).__name__)
            log.debug("traceback", exc_info=error)
            if started:
                raise
            await _refuse(
                scope, answer, RefusedError(500, "An internal error occurred. See the messages of the server.")
            )

    def _check(self, scope: Message) -> None:
        headers = _single(scope)
        host = headers.get("host", "")
        if not self._knows(host):
            raise RefusedError(
                421,
                "The host name is not one of this server. Use its address, or start it with --allow-host.",
            )
        _check_origin(scope, headers, host)
        if self._access.token is not None and scope["path"] not in OPEN_PATHS:
            self._check_token(headers, client_address(scope))

    def _knows(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        return name in self._access.names or (self._access.any_address and _is_address(name))

    def _check_token(self, headers: dict[str, str], address: str) -> None:
        assert self._access.token is not None
        if self._access.token.matches_session(read_cookie(headers.get("cookie", ""), self._access.cookie)):
            return
        kind, _, secret = headers.get("authorization", "").partition(" ")
        matches = partial(self._access.token.matches, _decoded(secret))
        if kind.lower() == "bearer" and self._brake.admits(address, matches):
            return
        raise RefusedError(401, "The token is missing or wrong.")

    def _limit_body(self, scope: Message, receive: Receive) -> Receive:
        """Return `receive` with a limit on the size of the request body, and on the time for it.

        The time for uploads and corrected masks is limited by `Transfers`.
        """
        is_upload, is_mask = (scope["method"], scope["path"]) == UPLOADS, sends_mask(scope)
        most = self._most_bytes if is_upload else _MASK_BODY if is_mask else _SMALL_BODY
        end = time.monotonic() + _SMALL_BODY_SECONDS
        size, complete = 0, is_upload or is_mask

        async def receive_limited() -> Message:
            nonlocal size, complete
            try:
                message = await (receive() if complete else asyncio.wait_for(receive(), max(end - time.monotonic(), 0)))
            except asyncio.TimeoutError:
                raise RefusedError(408, "The request was not sent in time.") from None
            complete = complete or not message.get("more_body", False)
            size += len(message.get("body", b""))
            if size > most:
                raise RefusedError(413, "The request is larger than this server accepts.")
            return message

        return receive_limited


def sends_mask(scope: Mapping[str, Any]) -> bool:
    """Return whether a request sends a corrected mask, to be saved or for an operation."""
    return scope["method"] == "POST" and _MASKS.fullmatch(scope["path"]) is not None


def client_address(scope: Mapping[str, Any]) -> str:
    """Return the address of the client, or an empty string if it is not known."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def read_cookie(header: str, name: str) -> str:
    """Return the value of a cookie, or an empty string. Cookies of other servers at the same host are skipped."""
    for part in header.split(";"):
        found, _, value = part.strip().partition("=")
        if found == name:
            return value
    return ""


def refusal_body(refused: RefusedError) -> dict[str, Any]:
    """Return the body of the response to a refused request, for JSON."""
    return {"detail": str(refused), "problems": list(refused.problems)}


def _check_origin(scope: Message, headers: dict[str, str], host: str) -> None:
    """Refuse requests from pages of other sites, by the two headers in which browsers send the origin."""
    origin = headers.get("origin")
    if origin is not None and _host_of(origin) != host.lower():
        raise RefusedError(403, "The request comes from a page of another site. Open the server's own page.")
    site = headers.get("sec-fetch-site", "none")
    follows_a_link = headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET"
    harmless = follows_a_link and not scope["path"].startswith("/api/")
    if site not in ("same-origin", "none") and not harmless:
        raise RefusedError(403, "The request comes from a page of another site. Open the server's own page.")


def _host_of(origin: str) -> str | None:
    """Return the host and port of an origin, or None if it is malformed."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _single(scope: Message) -> dict[str, str]:
    """Return the headers by name. Repeated headers are joined by commas, so that they pass no check."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        found[key] = f"{found[key]}, {value.decode('latin-1')}" if key in found else value.decode("latin-1")
    return found


def _digest(secret: str) -> bytes:
    """Return the digest of a token; spaces around it and the composition of accents make no difference."""
    return hashlib.sha256(_encoded(unicodedata.normalize("NFC", secret.strip()))).digest()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _decoded(header: str) -> str:
    """Return a header's value, which ASGI servers decode as Latin-1, as the UTF-8 text that most clients send."""
    try:
        return header.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return header


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _shown(path: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in path)[:100]


async def _refuse(scope: Message, send: Send, refused: RefusedError) -> None:
    wants_page = refused.status == 401 and not scope["path"].startswith("/api") and scope["method"] == "GET"
    body = b"" if wants_page else json.dumps(refusal_body(refused)).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    if wants_page:
        headers.append((b"location", b"/login"))
    else:
        headers.append((b"content-type", b"application/json"))
    if refused.status == 401 and not wants_page:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": 303 if wants_page else refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
