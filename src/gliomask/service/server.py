"""A store, a queue and the application at an address, until Ctrl-C."""

from __future__ import annotations

import ipaddress
import logging
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import uvicorn
from fastapi import FastAPI

from gliomask.errors import InputError
from gliomask.labels import get_convention
from gliomask.model.file import SHIPPED, read_plan
from gliomask.service.app import create_app
from gliomask.service.limits import Limits
from gliomask.service.queue import Queue
from gliomask.service.routing import Service
from gliomask.service.security import LEAST_TOKEN, Door, Token
from gliomask.service.store import Store
from gliomask.service.work import Settings


@dataclass(frozen=True)
class Address:
    """Where a server listens, and under which names it answers."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0: any that is free."""
    more_names: tuple[str, ...] = ()

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True)
class Serving:
    """What `serve` needs to know."""

    store: Path
    address: Address = field(default_factory=Address)
    secret: str | None = None
    settings: Settings = field(default_factory=Settings)
    limits: Limits = field(default_factory=Limits)


def serve(serving: Serving, on_ready: Callable[[str, str | None], None]) -> None:
    """Serve until a signal ends it.

    Args:
        serving: What and where.
        on_ready: Called once the address answers, with it and with the token, if there is one.

    Raises:
        InputError: A model or the store cannot be used, the token is too short, or the address is taken.
    """
    secret = choose_secret(serving.address, serving.secret)
    plans = [read_plan(path) for path in serving.settings.models or [None]]
    if serving.settings.labels is not None:
        get_convention(serving.settings.labels)
    listening = _listen(serving.address)
    port = int(listening.getsockname()[1])
    try:
        store = Store(serving.store, serving.limits)
        name = ", ".join("/".join(PurePath(path).parts[-2:]) for path in serving.settings.models) or SHIPPED
        service = Service(store, Queue(store, serving.settings), tuple(plans), name)
        app = create_app(service, make_door(serving.address, secret, port))
        # What these log at their lowest level holds what was uploaded.
        for loud in ("python_multipart", "multipart", "uvicorn", "asyncio"):
            logging.getLogger(loud).setLevel(logging.WARNING)
        _run(app, listening, lambda: on_ready(_url(serving.address, port), secret))
    finally:
        listening.close()


def choose_secret(address: Address, secret: str | None) -> str | None:
    """Return the token to ask for: the given one, for an address that others reach a random one, else none.

    Raises:
        InputError: The given one is too short.
    """
    if secret is not None and len(secret) < LEAST_TOKEN:
        raise InputError(f"a token has at least {LEAST_TOKEN} characters; this one has {len(secret)}.")
    return secret or (None if address.is_local else secrets.token_urlsafe(24))


def make_door(address: Address, secret: str | None, port: int) -> Door:
    """Return the names under which a server answers, and its token."""
    names = {"localhost", "127.0.0.1", "::1", address.host.lower(), *(name.lower() for name in address.more_names)}
    if not address.is_local:
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return Door(Token.of(secret) if secret else None, frozenset(names), not address.is_local, port)


def _listen(address: Address) -> socket.socket:
    listening = None
    try:
        [(family, kind, protocol, _, place), *_] = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise InputError(
            f"{address.host}, port {address.port}: cannot be listened at: {error.strerror or error}. "
            "Choose another with --port or --host."
        ) from error
    return listening


def _run(app: FastAPI, listening: socket.socket, on_ready: Callable[[], None]) -> None:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
        limit_concurrency=200,
        ws="none",
    )
    _Server(config, on_ready).run(sockets=[listening])


class _Server(uvicorn.Server):
    """uvicorn's, which says when it is ready."""

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
