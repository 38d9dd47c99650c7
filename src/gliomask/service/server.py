"""Run the web application at an address until a signal ends it."""

from __future__ import annotations

import ipaddress
import logging
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import uvicorn
from fastapi import FastAPI

from gliomask.errors import InputError
from gliomask.foreign import read_plan
from gliomask.labels import get_convention
from gliomask.model.file import SHIPPED
from gliomask.service.app import create_app
from gliomask.service.connections import TimedProtocol, raise_file_limit
from gliomask.service.limits import Limits
from gliomask.service.queue import Queue
from gliomask.service.request import Settings
from gliomask.service.routing import Service
from gliomask.service.security import LEAST_TOKEN, AccessPolicy, Token
from gliomask.service.store import Store


@dataclass(frozen=True)
class Address:
    """The address at which a server listens, and its names."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0: any free port."""
    more_names: tuple[str, ...] = ()
    """Further host names that are accepted, such as the public name of a proxy."""

    @property
    def is_local(self) -> bool:
        """Whether the address can be reached from this machine only."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True)
class ServeOptions:
    """The options of `serve`."""

    store: Path
    address: Address = field(default_factory=Address)
    secret: str | None = None
    settings: Settings = field(default_factory=Settings)
    limits: Limits = field(default_factory=Limits)


def serve(options: ServeOptions, on_ready: Callable[[str, str | None], None]) -> None:
    """Serve until a signal ends the process.

    Args:
        options: Store, address, token, prediction settings and limits.
        on_ready: Called once the server accepts connections, with its URL and its token (None: no token).

    Raises:
        InputError: A model or the store cannot be used, the token is too short, or the address is not available.
    """
    secret = choose_secret(options.address, options.secret)
    plans = [read_plan(path) for path in options.settings.models or [None]]
    if options.settings.labels is not None:
        get_convention(options.settings.labels)
    listening = _listen(options.address)
    port = int(listening.getsockname()[1])
    try:
        store = Store(options.store, options.limits)
        model = ", ".join("/".join(PurePath(path).parts[-2:]) for path in options.settings.models) or SHIPPED
        service = Service(store, Queue(store, options.settings), tuple(plans), model)
        app = create_app(service, make_access_policy(options.address, secret, port))
        # At their lowest level these log the content of uploads.
        for name in ("python_multipart", "multipart", "uvicorn", "asyncio"):
            logging.getLogger(name).setLevel(logging.WARNING)
        for name in ("uvicorn.error", "asyncio"):  # a warning for each malformed request and each lost connection
            logging.getLogger(name).setLevel(logging.ERROR)
        raise_file_limit()
        _run(app, listening, lambda: on_ready(_url(options.address, port), secret))
    finally:
        listening.close()


def choose_secret(address: Address, secret: str | None) -> str | None:
    """Return the given token; without one, a random token for addresses that other machines can reach, else None.

    Raises:
        InputError: The given token is too short, or contains characters that are not printable.
    """
    if secret is not None and len(secret.strip()) < LEAST_TOKEN:
        raise InputError(f"a token must have at least {LEAST_TOKEN} characters; this one has {len(secret.strip())}.")
    if secret is not None and not secret.isprintable():
        raise InputError("a token must consist of printable characters; this one contains others.")
    return secret or (None if address.is_local else secrets.token_urlsafe(24))


def make_access_policy(address: Address, secret: str | None, port: int) -> AccessPolicy:
    """Return the access policy of a server: the host names that it accepts, and its token."""
    names = {"localhost", "127.0.0.1", "::1", address.host.lower(), *(name.lower() for name in address.more_names)}
    if not address.is_local:
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return AccessPolicy(Token.of(secret) if secret else None, frozenset(names), not address.is_local, port)


def _listen(address: Address) -> socket.socket:
    listening = None
    try:
        [(family, kind, protocol, _, place), *_] = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listening = socket.socket(family, kind, protocol)
        _reserve(listening)
        listening.bind(place)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise InputError(
            f"cannot listen at {address.host}, port {address.port}: {error.strerror or error}. "
            "Choose another with --port or --host."
        ) from error
    return listening


def _reserve(listening: socket.socket) -> None:
    """Set the option with which an address can be bound again at once after a restart, but not by two servers."""
    if sys.platform == "win32":  # there SO_REUSEADDR would let other programs bind the same address
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def _run(app: FastAPI, listening: socket.socket, on_ready: Callable[[], None]) -> None:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
        http=TimedProtocol,
        ws="none",
    )
    with suppress(KeyboardInterrupt):  # uvicorn ends in order, and then lets the signal go on that asked for it
        _Server(config, on_ready).run(sockets=[listening])


class _Server(uvicorn.Server):
    """A uvicorn server that calls a function once it accepts connections."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: Sequence[socket.socket] | None = None) -> None:
        await super().startup(sockets=list(sockets) if sockets else None)
        if self.started:
            self._on_ready()


def _url(address: Address, port: int) -> str:
    host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(address.host, address.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
