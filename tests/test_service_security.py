"""Access control, security headers, and names that must not be stored."""

from __future__ import annotations

import asyncio
import gzip
import hmac
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serving import HERE, SECRET, as_files, build, four, wait_for_state

pytest.importorskip("fastapi", reason="needs the extra serve")

from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from gliomask.cli.serve import _secret as read_secret
from gliomask.errors import InputError
from gliomask.service import security, server
from gliomask.service.brake import Brake
from gliomask.service.limits import RefusedError
from gliomask.service.security import OPEN_PATHS, Token
from gliomask.service.server import Address, choose_secret, make_access_policy

BEARER = {"authorization": f"Bearer {SECRET}"}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """A server with a token; redirects are not followed."""
    app = build(tmp_path / "store", token=SECRET)
    with TestClient(app, base_url=HERE, follow_redirects=False) as client:
        yield client


def routes(client: Any) -> list[tuple[str, str]]:
    """Return every method and path of the application, including the schema."""
    found = [(method, path) for path, methods in _walk(client.app.routes) for method in methods]
    assert ("GET", "/api/openapi.json") in found
    assert len([path for _, path in found if path.startswith("/api/jobs")]) >= 12
    return [
        (method, path.replace("{job_id}", "0" * 32).replace("{image}", "image-1").replace("{name}", "viewer.js"))
        for method, path in found
    ]


def _walk(some: Any) -> Iterator[tuple[str, set[str]]]:
    for route in some:
        if hasattr(route, "path") and getattr(route, "methods", None):
            yield route.path, set(route.methods)
        elif hasattr(route, "original_router"):
            prefix = getattr(getattr(route, "include_context", None), "prefix", "") or ""
            for path, methods in _walk(route.original_router.routes):
                yield prefix + path, methods


def test_every_route_requires_the_token(client: TestClient) -> None:
    """Without it, or with a wrong token or cookie, only the login form is served; with it, everything."""
    client.app.state.brake._most = 10_000  # type: ignore[attr-defined]
    wrong = [{}, {"authorization": "Bearer wrong"}, {"authorization": SECRET}, {"cookie": "gliomask-8000=wrong"}]
    for method, path in routes(client):
        for headers in wrong:
            status = client.request(method, path, headers=headers).status_code
            assert (status in (401, 303)) or path in OPEN_PATHS, (method, path, status)
            if path.startswith("/api/"):
                assert status == 401
        known = client.request(method, path, headers=BEARER).status_code
        assert known != 500, (method, path)
        assert known != 401 or path in OPEN_PATHS, (method, path, known)


def test_open_paths_show_no_job(client: TestClient) -> None:
    """The three open paths are the login form, its style and its script."""
    assert {"/login", "/login/login.js", "/login/login.css"} == OPEN_PATHS
    for path in OPEN_PATHS:
        answer = client.get(path)
        assert answer.status_code == 200
        assert "job-" not in answer.text
    assert client.get("/").headers["location"] == "/login"


def test_the_login_form_sets_a_cookie_that_is_not_the_token(client: TestClient) -> None:
    """The cookie is HttpOnly and SameSite and valid until logout. A wrong token is reported."""
    wrong = client.post("/login", data={"token": "wrong"})
    assert wrong.status_code == 401
    assert "not the token" in wrong.text
    assert "set-cookie" not in wrong.headers
    right = client.post("/login", data={"token": SECRET})
    assert (right.status_code, right.headers["location"]) == (303, "/")
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert SECRET not in cookie
    assert client.get("/api/jobs").status_code == 200
    client.post("/logout")
    assert client.get("/api/jobs").status_code == 401


@pytest.mark.parametrize("system", ["nt", "posix"])
def test_a_token_file_that_others_can_read_is_warned_of_where_its_mode_tells_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], system: str
) -> None:
    """On Windows every file has a mode by which others can read it, and chmod changes nothing."""
    file = tmp_path / "token"
    file.write_text(SECRET, "utf-8")
    file.chmod(0o644)
    with monkeypatch.context() as here:
        here.setattr("os.name", system)
        assert read_secret(None, file) == SECRET
    assert ("chmod 600" in capsys.readouterr().err) == (system == "posix")


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By `hmac.compare_digest`, on digests of equal length."""
    compared: list[tuple[int, int]] = []
    original = hmac.compare_digest

    def compare(first: bytes, second: bytes) -> bool:
        compared.append((len(first), len(second)))
        return original(first, second)

    monkeypatch.setattr(security.hmac, "compare_digest", compare)
    token = Token.of(SECRET)
    assert not token.matches("x")
    assert token.matches(SECRET)
    assert token.matches_session(token.session)
    assert compared == [(32, 32), (32, 32), (64, 64)]
    assert SECRET not in repr(token)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "", "[", "10.0.0.5"]
)
def test_other_host_names_are_refused(client: TestClient, host: str) -> None:
    """A page whose host name resolves to this server (DNS rebinding) is refused even with the token."""
    assert client.get("/api/jobs", headers={**BEARER, "host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST:8000", "[::1]:8000"])
def test_own_host_names_are_accepted(client: TestClient, host: str) -> None:
    """With and without a port, in any case."""
    assert client.get("/api/jobs", headers={**BEARER, "host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    ],
)
def test_pages_of_other_sites_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    """Pages on other ports of this machine too; for reading as well as for writing."""
    for method, path in (("POST", "/api/jobs"), ("GET", "/api/jobs"), ("DELETE", f"/api/jobs/{'0' * 32}")):
        assert client.request(method, path, headers={**BEARER, **headers}).status_code == 403


def test_links_from_other_sites_are_allowed(client: TestClient) -> None:
    """Following a link shows the page, and the page's own requests are accepted."""
    follow = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers={**BEARER, **follow}).status_code == 200
    own = {"origin": HERE, "sec-fetch-site": "same-origin"}
    assert client.get("/api/jobs", headers={**BEARER, **own}).status_code == 200


def test_every_response_has_the_security_headers(client: TestClient) -> None:
    """Refused requests and unknown paths too."""
    for path in ("/", "/login", "/api/jobs", "/nothing", "/assets/app.js"):
        for headers in ({}, BEARER):
            answer = client.get(path, headers=headers)
            policy = answer.headers["content-security-policy"]
            assert "script-src 'self';" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "same-origin"
    assert client.get("/api/jobs", headers=BEARER).headers["cache-control"] == "no-store"


def test_an_internal_error_is_a_500_without_details(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the security headers, and without the text of the exception."""
    app = build(tmp_path / "store")

    def broken() -> None:
        raise ZeroDivisionError("DOE JANE")

    monkeypatch.setattr(app.state.service.store, "jobs", broken)
    monkeypatch.setattr(app.state.service.queue, "start", lambda: None)
    monkeypatch.setattr(app.state.service.queue, "stop", lambda: None)
    with TestClient(app, base_url=HERE) as client:
        answer = client.get("/api/jobs")
    assert answer.status_code == 500
    assert "DOE" not in answer.text
    assert "nosniff" in answer.headers["x-content-type-options"]


def test_pages_have_no_inline_script_and_load_nothing_from_elsewhere(client: TestClient) -> None:
    """Each script and style is a file of this server; each page has the research-use notice."""
    for path in ("/", "/api", "/login"):
        text = client.get(path, headers=BEARER).text
        assert "<style" not in text
        assert "style=" not in text
        assert "onclick" not in text
        assert "http:" not in text
        assert "https:" not in text
        assert all('src="/' in part.partition(">")[0] for part in text.split("<script")[1:])
        assert "not a medical device" in text


def test_page_files_are_compressed_and_cached(client: TestClient) -> None:
    """Gzipped for clients that accept it, plain for others, and status 304 for current copies."""
    packed = client.get("/assets/app.js", headers=BEARER)
    assert packed.headers["content-encoding"] == "gzip"
    plain = client.get("/assets/app.js", headers={**BEARER, "accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.text == packed.text
    again = client.get("/assets/app.js", headers={**BEARER, "if-none-match": packed.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_requests_other_than_uploads_are_small(client: TestClient) -> None:
    """Their bodies are limited."""
    answer = client.patch(
        f"/api/jobs/{'0' * 32}", content=b"x" * 100_000, headers={**BEARER, "content-type": "application/json"}
    )
    assert answer.status_code in (400, 413)


def test_names_are_not_stored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither file names nor names in headers: not in the store, in later responses, or in the log."""
    caplog.set_level(logging.DEBUG)
    for name in ("python_multipart", "multipart"):  # as `serve` does
        logging.getLogger(name).setLevel(logging.WARNING)
    files = {f"DOE_JANE_{name}": content for name, content in four(names="DOE^JANE 1970").items()}
    with TestClient(build(tmp_path / "store"), base_url=HERE) as client:
        answer = client.post("/api/jobs", files=as_files(files), data={"title": "good", "start": "true"})
        job = answer.json()["id"]
        assert "DOE_JANE" in answer.text
        wait_for_state(client, job, "done")
        bad = client.post("/api/jobs", files=as_files({"DOE_JANE_t1.nii": b"broken"}))
        assert "DOE_JANE_t1.nii" in bad.text
        for path in ("/api/jobs", f"/api/jobs/{job}"):
            assert "DOE" not in client.get(path).text
        inside = client.get(f"/api/jobs/{job}/volumes/t1c.nii.gz").content
        assert b"DOE" not in gzip.decompress(inside)
    kept = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert len(kept) > 10
    for path in kept:
        content = path.read_bytes()
        assert b"DOE" not in (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content), path
        assert "DOE" not in str(path)
    assert "DOE" not in caplog.text


def test_other_addresses_need_a_token() -> None:
    """A random one is generated where none is given; a short one is refused."""
    assert choose_secret(Address(), None) is None
    assert choose_secret(Address("localhost"), None) is None
    made = choose_secret(Address("0.0.0.0"), None)
    assert made is not None
    assert len(made) >= 32
    assert choose_secret(Address("192.168.1.5"), None) != made
    assert choose_secret(Address(), SECRET) == SECRET
    with pytest.raises(InputError, match="at least 16 characters"):
        choose_secret(Address(), "short")
    access = make_access_policy(Address("0.0.0.0", more_names=("Scans.Hospital.example",)), made, 80)
    assert access.any_address
    assert "scans.hospital.example" in access.names
    assert not make_access_policy(Address(), None, 80).any_address


def test_all_routes_are_found_by_these_tests(client: TestClient) -> None:
    """The tests above would miss a new kind of route object."""
    assert all(hasattr(route, "path") or hasattr(route, "original_router") for route in client.app.routes)  # type: ignore[attr-defined]
    assert any(isinstance(route, APIRoute) or hasattr(route, "original_router") for route in client.app.routes)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "origin", ["http://[", "http://[::1", "[", "://", "", "\xff", "http://127.0.0.1:99999999", "http://a]b"]
)
def test_a_malformed_origin_is_another_site(client: TestClient, origin: str) -> None:
    """Not an error of the server."""
    assert client.get("/api/jobs", headers={**BEARER, "origin": origin.encode("latin-1")}).status_code == 403


@pytest.mark.parametrize(
    ("secret", "code"),
    [
        *(("schlüssel-für-die-gruppe", code) for code in ("utf-8", "latin-1")),
        *(("  with spaces  16  ", code) for code in ("utf-8", "latin-1")),
        *(("ключ-для-всей-группы", "utf-8"), ("e\u0301tude-e\u0301tude-16", "utf-8"), ("étude-étude-1616", "latin-1")),
    ],
)
def test_a_token_may_have_any_letters(tmp_path: Path, secret: str, code: str) -> None:
    """Sent as UTF-8, as most clients do, or as Latin-1, with accents composed or not."""
    sent = b"Bearer " + secret.strip().encode(code)
    with TestClient(build(tmp_path / "store", token=secret), base_url=HERE, follow_redirects=False) as client:
        assert client.get("/api/jobs", headers={"authorization": sent}).status_code == 200
        assert client.post("/login", data={"token": secret}).status_code == 303


def test_a_token_of_control_characters_is_refused() -> None:
    """No header could contain it."""
    with pytest.raises(InputError, match="printable"):
        choose_secret(Address(), "a-long-enough\n-token")


def test_cookies_of_other_servers_do_not_matter(client: TestClient) -> None:
    """However malformed they are."""
    session = Token.of(SECRET).session
    cookie = f'{{"a": 1}}; b="\\; c; =; gliomask-8000={session}; d=\xff'
    assert client.get("/api/jobs", headers={"cookie": cookie.encode("latin-1")}).status_code == 200


def test_wrong_tokens_are_slowed_down_by_address() -> None:
    """After ten, tokens from that address are refused without a comparison, until some time has passed."""
    moment = 0.0
    brake = Brake(most=10, seconds=6, clock=lambda: moment)
    wrong = [brake.admits("192.0.2.1", lambda: False) for _ in range(10)]
    assert wrong == [False] * 10
    compared: list[bool] = []
    with pytest.raises(RefusedError, match="Too many wrong tokens") as refused:
        brake.admits("192.0.2.1", lambda: bool(compared.append(True)))
    assert (refused.value.status, compared) == (429, [])
    assert brake.admits("192.0.2.2", lambda: True)
    moment = 6.5
    assert not brake.admits("192.0.2.1", lambda: False)
    with pytest.raises(RefusedError):
        brake.admits("192.0.2.1", lambda: True)
    moment = 70
    assert brake.admits("192.0.2.1", lambda: True)


@pytest.mark.parametrize("address", ["192.0.2.1", "127.0.0.1", "::1", "", "testclient"])
def test_nobody_locks_out_the_right_token_of_known_addresses(address: str) -> None:
    """From which the right token came before, or which may be a proxy for all."""
    brake = Brake(most=2, clock=lambda: 0.0)
    if address not in ("127.0.0.1", "::1"):
        assert brake.admits(address, lambda: True)
    for _ in range(2):
        assert not brake.admits(address, lambda: False)
    with pytest.raises(RefusedError):
        brake.admits(address, lambda: False)
    assert brake.admits(address, lambda: True)


def test_addresses_of_ipv6_count_by_network() -> None:
    """A client has 2^64 of them; what is remembered has a limit all the same."""
    brake = Brake(most=2, clock=lambda: 0.0)
    for number in range(2):
        assert not brake.admits(f"2001:db8::{number}", lambda: False)
    with pytest.raises(RefusedError):
        brake.admits("2001:db8::ffff", lambda: True)
    for number in range(5000):
        brake.admits(f"2001:db8:{number + 1:x}::", lambda: False)
    assert len(brake._counts) <= 4096


def test_the_form_and_the_header_share_the_brake(client: TestClient) -> None:
    """The form says so on the page; who is signed in is not affected."""
    for _ in range(5):
        assert client.post("/login", data={"token": "wrong"}).status_code == 401
        assert client.get("/api/jobs", headers={"authorization": "Bearer wrong"}).status_code == 401
    answer = client.post("/login", data={"token": SECRET})
    assert answer.status_code == 429
    assert "Too many wrong tokens" in answer.text
    cookie = {"cookie": f"gliomask-8000={Token.of(SECRET).session}"}
    assert client.get("/api/jobs", headers=cookie).status_code == 200


def test_a_small_request_must_be_sent_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Else it is refused, and does not wait for ever."""
    monkeypatch.setattr(security, "_SMALL_BODY_SECONDS", 0.1)
    app = build(tmp_path / "store")

    async def ask() -> int:
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(60)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            statuses.append(message.get("status", 0))

        headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "PATCH", "path": f"/api/jobs/{'0' * 32}", "headers": headers}
        await app({**scope, "query_string": b"", "http_version": "1.1", "raw_path": b""}, receive, send)
        return statuses[0]

    assert asyncio.run(ask()) in (400, 408)  # FastAPI answers 400 for all errors while it reads JSON
    app.state.service.store.close()


def test_the_address_is_not_shared_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, SO_REUSEADDR would let another program bind the same address."""
    monkeypatch.setattr(server.socket, "SO_EXCLUSIVEADDRUSE", -5, raising=False)
    chosen: list[int] = []
    listening: Any = SimpleNamespace(setsockopt=lambda _, name, __: chosen.append(name))
    for platform in ("win32", "linux"):
        monkeypatch.setattr(server.sys, "platform", platform)
        server._reserve(listening)
    assert chosen == [-5, server.socket.SO_REUSEADDR]
