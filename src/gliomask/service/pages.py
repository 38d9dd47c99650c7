"""The pages with their scripts and styles.

The files are listed in fixed tables, read once, and sent gzipped to browsers that accept it.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from gliomask.errors import InputError
from gliomask.service.brake import Brake
from gliomask.service.limits import RefusedError
from gliomask.service.security import AccessPolicy, client_address
from gliomask.viewer.assets import ASSETS, read_asset

_FOLDER = Path(__file__).parent / "assets"
_HTML, _SCRIPT, _STYLE = "text/html; charset=utf-8", "text/javascript; charset=utf-8", "text/css; charset=utf-8"

PAGES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "/": ("index.html", _HTML),
        "/api": ("api.html", _HTML),
        "/login/login.js": ("login.js", _SCRIPT),
        "/login/login.css": ("app.css", _STYLE),
        "/assets/api.js": ("api.js", _SCRIPT),
        "/assets/app.css": ("app.css", _STYLE),
        "/assets/app.js": ("app.js", _SCRIPT),
        "/assets/check.js": ("check.js", _SCRIPT),
        "/assets/dom.js": ("dom.js", _SCRIPT),
        "/assets/home.js": ("home.js", _SCRIPT),
        "/assets/job.js": ("job.js", _SCRIPT),
        "/assets/server.js": ("server.js", _SCRIPT),
    }
)
"""The file and media type of each address."""

_LONGEST_FORM = 4096
_PIECE = 1 << 15

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class _File:
    content: bytes
    packed: bytes
    media_type: str
    tag: str


async def _page(request: Request) -> Response:
    name, kind = PAGES[request.url.path]
    return _send(request, _page_file(name, kind))


for _address in PAGES:
    router.add_api_route(_address, _page, methods=["GET"])


@router.get("/viewer/{name}")
async def viewer_file(request: Request, name: str) -> Response:
    """Return a file of the viewer."""
    if name not in ASSETS:
        raise RefusedError(404, "There is no such file.")
    try:
        return _send(request, _viewer_asset(name))
    except InputError as error:
        raise RefusedError(404, str(error)) from error


@router.get("/login")
async def login_page(request: Request) -> Response:
    """Return the form that asks for the token."""
    if _access(request).token is None:
        return RedirectResponse("/", 303)
    return _login()


@router.post("/login")
async def login(request: Request) -> Response:
    """Check the token from the form and set the session cookie."""
    access = _access(request)
    if access.token is None:
        return RedirectResponse("/", 303)
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_FORM:
            raise RefusedError(413, "The form is too long.")
    matches = partial(access.token.matches, _token_in(body))
    try:
        if not _brake(request).admits(client_address(request.scope), matches):
            return _login(401, "That is not the token. The server printed it when it started.")
    except RefusedError as refused:
        return _login(refused.status, str(refused))
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        access.cookie,
        access.token.session,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/logout")
async def logout(request: Request) -> Response:
    """Delete the session cookie."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(_access(request).cookie, httponly=True, samesite="strict")
    return answer


def _token_in(body: bytes) -> str:
    """Return the token in the body of a form, or an empty string."""
    try:
        return parse_qs(body.decode("utf-8", "replace"), max_num_fields=20).get("token", [""])[0]
    except ValueError:  # too many fields
        return ""


def _brake(request: Request) -> Brake:
    brake: Brake = request.app.state.brake
    return brake


def _access(request: Request) -> AccessPolicy:
    access: AccessPolicy = request.app.state.access
    return access


def _login(status: int = 200, message: str = "") -> Response:
    page = (_FOLDER / "login.html").read_text("utf-8")
    shown = f'<p class="problem" role="alert">{message}</p>' if message else ""
    return Response(page.replace("<!-- message -->", shown), status, media_type=_HTML)


def _send(request: Request, file: _File) -> Response:
    """Return a file, or status 304 if the browser's copy is current."""
    headers = {"cache-control": "no-cache", "etag": file.tag, "vary": "accept-encoding"}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return _response(file.packed, {**headers, "content-encoding": "gzip"}, file.media_type)
    return _response(file.content, headers, file.media_type)


def _response(content: bytes, headers: dict[str, str], media_type: str) -> Response:
    """Return large content in pieces, so that a client that reads slowly does not have all of it kept in memory."""
    if len(content) <= _PIECE:
        return Response(content, headers=headers, media_type=media_type)
    pieces = (content[start : start + _PIECE] for start in range(0, len(content), _PIECE))
    headers = {**headers, "content-length": str(len(content))}
    return StreamingResponse(_each(pieces), headers=headers, media_type=media_type)


async def _each(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)  # others are served between two pieces


@cache
def _page_file(name: str, kind: str) -> _File:
    content = (_FOLDER / name).read_bytes()
    return _File(content, gzip.compress(content, 9, mtime=0), kind, _tag(content))


@cache
def _viewer_asset(name: str) -> _File:
    asset = read_asset(name)
    if asset.encoding == "gzip":
        return _File(gzip.decompress(asset.content), asset.content, asset.media_type, _tag(asset.content))
    return _File(asset.content, gzip.compress(asset.content, 9, mtime=0), asset.media_type, _tag(asset.content))


def _tag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'
