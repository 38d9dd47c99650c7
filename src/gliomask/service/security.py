"""Who may ask: the server's names, the page's origin and the token, checked before any route is looked up."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from gliomask.service.limits import RefusedError

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LEAST_TOKEN = 16
"""Characters of a token: fewer could be guessed."""

OPEN_PATHS = frozenset({"/login", "/login/login.js", "/login/login.css"})
"""What is answered without the token: the form that asks for it, its style and its script. No job is behind them."""

UPLOADS = ("POST", "/api/jobs")
_SMALL_BODY = 64 * 1024

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self' blob:; font-src 'self' data:; worker-src 'self' blob:; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer a browser sends the form with an origin of null
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Token:
    """The secret that a client must know; only a digest of it is kept."""

    _digest: bytes
    session: str
    """What a browser's cookie holds instead: it follows from the token, which does not follow from it."""

    @classmethod
    def of(cls, secret: str) -> Token:
        """Return the token for a secret."""
        session = hmac.new(secret.encode(), b"gliomask browser session", "sha256").hexdigest()
        return cls(hashlib.sha256(secret.encode()).digest(), session)

    def matches(self, secret: str) -> bool:
        """Tell whether this is the secret, in a time that does not depend on it."""
        return hmac.compare_digest(hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest(), self._digest)

    def opens(self, session: str) -> bool:
        """Tell whether this is the content of the cookie, in a time that does not depend on it."""
        return hmac.compare_digest(session.encode("utf-8", "surrogateescape"), self.session.encode())


@dataclass(frozen=True)
class Door:
    """How a server is reached, and by whom."""

    token: Token | None = None
    """None: whoever reaches the address; only for this machine's own."""
    names: frozenset[str] = _LOCAL
    """The hosts in the address line that are this server, in lower case."""
    any_address: bool = False
    """Whether any IP address may stand there too: a page of another site has a name."""
    port: int = 0

    @property
    def cookie(self) -> str:
        """The cookie's name; cookies are the same for all ports of a machine."""
        return f"gliomask-{self.port}"


class Shield:
    """An ASGI application around another: it lets in who may, bounds what is sent, and puts its headers on each answer.

    Order: the host in the address line (against DNS rebinding), the page that asks (against requests forged by other
    sites), the token. What goes wrong inside is answered as 500 without a word of what it was about.
    """

    def __init__(self, app: App, door: Door, most_bytes: int) -> None:
        self._app = app
        self._door = door
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
            await self._app(scope, self._counted(scope, receive), answer)
        except RefusedError as refused:
            await _refuse(scope, answer, refused)
        except Exception as error:
            log.error("%s %s: %s", scope["method"], _shown(scope["path"]), type(error).__name__)
            log.debug("in full", exc_info=error)
            if started:
                raise
            await _refuse(scope, answer, RefusedError(500, "Something went wrong; the server's messages say more."))

    def _check(self, scope: Message) -> None:
        headers = _single(scope)
        host = headers.get("host", "")
        if not self._knows(host):
            raise RefusedError(
                421, "This server does not know that name. Use its address, or start it with --allow-host."
            )
        _check_origin(scope, headers, host)
        if self._door.token is not None and scope["path"] not in OPEN_PATHS and not self._has_token(headers):
            raise RefusedError(401, "The token is missing or wrong.")

    def _knows(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        return name in self._door.names or (self._door.any_address and _is_address(name))

    def _has_token(self, headers: dict[str, str]) -> bool:
        assert self._door.token is not None
        kind, _, secret = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._door.token.matches(secret.strip()):
            return True
        return self._door.token.opens(read_cookie(headers.get("cookie", ""), self._door.cookie))

    def _counted(self, scope: Message, receive: Receive) -> Receive:
        """The request's body; more of it than may be is an error."""
        most = self._most_bytes if (scope["method"], scope["path"]) == UPLOADS else _SMALL_BODY
        size = 0

        async def count() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > most:
                raise RefusedError(413, "The request is larger than this server takes.")
            return message

        return count


def read_cookie(header: str, name: str) -> str:
    """Return a cookie's content, or nothing."""
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def refusal_body(refused: RefusedError) -> dict[str, Any]:
    """Return what a refused request is answered with, ready for JSON."""
    return {"detail": str(refused), "problems": list(refused.problems)}


def _check_origin(scope: Message, headers: dict[str, str], host: str) -> None:
    """Refuse what a page of another site asks for; browsers say in two headers where a request comes from."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        raise RefusedError(403, "A page of another site asked for this. Open the server's own page.")
    site = headers.get("sec-fetch-site", "none")
    follows_a_link = headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET"
    harmless = follows_a_link and not scope["path"].startswith("/api/")
    if site not in ("same-origin", "none") and not harmless:
        raise RefusedError(403, "A page of another site asked for this. Open the server's own page.")


def _single(scope: Message) -> dict[str, str]:
    """The headers by name; of one that came twice nothing that passes a check."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        found[key] = f"{found[key]}, {value.decode('latin-1')}" if key in found else value.decode("latin-1")
    return found


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
