"""The pages, their scripts and styles: fixed tables of files, read once, sent gzipped where a browser takes that."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from gliomask.errors import InputError
from gliomask.service.limits import RefusedError
from gliomask.service.security import Door
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
"""Each address with its file and type."""

_LONGEST_FORM = 4096

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class _File:
    content: bytes
    packed: bytes
    media_type: str
    tag: str


def _page(request: Request) -> Response:
    name, kind = PAGES[request.url.path]
    return _send(request, _own(name, kind))


for _address in PAGES:
    router.add_api_route(_address, _page, methods=["GET"])


@router.get("/viewer/{name}")
def viewer_file(request: Request, name: str) -> Response:
    """Give a file of the viewer."""
    if name not in ASSETS:
        raise RefusedError(404, "There is no such file.")
    try:
        return _send(request, _viewers(name))
    except InputError as error:
        raise RefusedError(404, str(error)) from error


@router.get("/login")
def login_page(request: Request) -> Response:
    """Ask for the token."""
    if _door(request).token is None:
        return RedirectResponse("/", 303)
    return _login()


@router.post("/login")
async def login(request: Request) -> Response:
    """Take the token from the form, and give the browser its cookie."""
    door = _door(request)
    if door.token is None:
        return RedirectResponse("/", 303)
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_FORM:
            raise RefusedError(413, "The form is too long.")
    [secret] = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[:1]
    if not door.token.matches(secret.strip()):
        return _login(401, "That is not the token. The server printed it when it was started.")
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        door.cookie,
        door.token.session,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/logout")
def logout(request: Request) -> Response:
    """Take the cookie back."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(_door(request).cookie, httponly=True, samesite="strict")
    return answer


def _door(request: Request) -> Door:
    door: Door = request.app.state.door
    return door


def _login(status: int = 200, message: str = "") -> Response:
    page = (_FOLDER / "login.html").read_text("utf-8")
    shown = f'<p class="problem" role="alert">{message}</p>' if message else ""
    return Response(page.replace("<!-- message -->", shown), status, media_type=_HTML)


def _send(request: Request, file: _File) -> Response:
    """Send a file, or word that the browser's copy is still right."""
    headers = {"cache-control": "no-cache", "etag": file.tag, "vary": "accept-encoding"}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.packed, headers={**headers, "content-encoding": "gzip"}, media_type=file.media_type)
    content = file.content or gzip.decompress(file.packed)
    return Response(content, headers=headers, media_type=file.media_type)


@cache
def _own(name: str, kind: str) -> _File:
    content = (_FOLDER / name).read_bytes()
    return _File(content, gzip.compress(content, 9, mtime=0), kind, _tag(content))


@cache
def _viewers(name: str) -> _File:
    asset = read_asset(name)
    if asset.encoding == "gzip":  # inflated only for who cannot: it is the largest
        return _File(b"", asset.content, asset.media_type, _tag(asset.content))
    return _File(asset.content, gzip.compress(asset.content, 9, mtime=0), asset.media_type, _tag(asset.content))


def _tag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'
