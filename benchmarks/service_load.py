"""`gliomask serve` under load and attack: is every other user still served, without an error of the server?

Runs one phase after the other, each on a server of its own with a temporary store: 200 clients, half-sent headers, slow
uploads, slow readers, images that need much memory or computation, malformed requests, wrong tokens. During each phase
another user loads the page and the list of jobs twice a second. Printed are, for each phase, the statuses of all
responses, the longest wait of the other user, and the peak memory of the server and of its worker process. The exit
status is 1 if there was a status 500, a wait of more than two seconds, or more than 1 GB of memory in the server.

Needs Linux for the memory (elsewhere it is shown as 0). Without arguments all phases run; their names select some.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import http.client
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nibabel as nib
import numpy as np

MOST_WAIT_S = 2.0
MOST_SERVER_MB = 1000.0
TOKEN = "schlüssel-für-die-gruppe-7"
CLIENTS = 200


class Server:
    """A server in its own process, and what is seen of it during a phase."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, "-m", "gliomask", "serve", "--store", str(folder), "--port", "0", "--threads", "1"]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "GLIOMASK_TOKEN": "", "OMP_NUM_THREADS": "1"}
        del environment["GLIOMASK_TOKEN"]
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        [port] = re.findall(r"http://[^/:]+:(\d+)", line)
        self.port = int(port)
        self.headers: dict[str, str] = {}
        self.source: str | None = None
        self.statuses: Counter[int | str] = Counter()
        self.waits: list[float] = []
        self.peaks = [0.0, 0.0]

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send one request and return the status and the body of its response; the status is 0 if there is none."""
        source = (self.source, 0) if self.source else None
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60, source_address=source)
        try:
            connection.request(method, path, body or None, {**self.headers, **(headers or {})})
            response = connection.getresponse()
            return response.status, response.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    def upload(self, files: dict[str, bytes], **fields: str) -> tuple[int, bytes]:
        """Upload files and return the status and the body of the response."""
        body, kind = multipart(files, fields)
        return self.ask("POST", "/api/jobs", body, {"content-type": kind})

    def count(self, status: int | str) -> None:
        """Count a response of the running phase."""
        self.statuses[status] += 1

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Measure what another user waits for, and the memory, while the block runs."""
        self.statuses.clear()
        self.waits, self.peaks = [], [0.0, 0.0]
        end = threading.Event()
        threads = [threading.Thread(target=watch, args=[end]) for watch in (self._use, self._measure)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            end.set()
            for thread in threads:
                thread.join()

    def _use(self, end: threading.Event) -> None:
        while not end.wait(0.5):
            for path in ("/", "/api/jobs"):
                began = time.monotonic()
                status, _ = self.ask("GET", path)
                self.waits.append(time.monotonic() - began)
                self.count(status if status == 200 else f"other user: {status}")

    def _measure(self, end: threading.Event) -> None:
        while not end.wait(0.1):
            for place, process in enumerate((self.process.pid, *children(self.process.pid)[:1])):
                self.peaks[place] = max(self.peaks[place], memory_mb(process))


def memory_mb(process: int) -> float:
    """Return the resident memory of a process in MB, or 0 where that is not known."""
    with suppress(OSError):
        return float(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6
    return 0.0


def children(process: int) -> list[int]:
    """Return the child processes of a process, or none where that is not known."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def multipart(files: dict[str, bytes], fields: dict[str, str]) -> tuple[bytes, str]:
    """Return the body of an upload and its content type."""
    mark = "boundary-of-the-parts"
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n'.encode() for n, v in fields.items()
    ]
    for name, content in files.items():
        head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return b"".join(parts) + f"--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


def four_images(edge: int, spacing_mm: float, kind: str = "<i2", radius: float = 0.4) -> dict[str, bytes]:
    """Return four gzipped images of one examination: a sphere on zeros, its radius a share of the edge."""
    axis = (np.arange(edge, dtype=np.float32) - edge / 2) / (edge * radius)
    inside = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 < 1
    image = np.where(inside, 100, 0).astype(kind)
    affine = np.diag([-spacing_mm, -spacing_mm, spacing_mm, 1.0])
    content = gzip.compress(nib.Nifti1Image(image, affine).to_bytes(), 1)
    return {f"x_{word}.nii.gz": content for word in ("t1", "t1ce", "t2", "flair")}


async def many_clients(server: Server) -> None:
    """200 clients load the page, its scripts and the list, all at the same time."""

    async def client() -> None:
        for path in ("/", "/api/about", "/assets/app.js", "/assets/home.js", "/api/jobs") * 2:
            server.count(await request(server, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"))

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


async def many_uploads(server: Server) -> None:
    """200 clients upload an examination at the same time."""
    body, kind = multipart(four_images(16, 6.0), {})
    head = f"POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: {kind}\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    for status in await asyncio.gather(*(request(server, head, body) for _ in range(CLIENTS))):
        server.count(status)


async def half_headers(server: Server) -> None:
    """230 clients send half of their headers and then nothing; 230 more send a byte a second."""
    await slow_senders(server, 230, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ", seconds=8, drips=False)
    await slow_senders(server, 230, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ", seconds=15)


async def slow_bodies(server: Server) -> None:
    """230 clients send the body of a small request at a byte a second."""
    head = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 60000\r\n\r\n"
    await slow_senders(server, 230, head, seconds=15)


async def slow_uploads(server: Server) -> None:
    """Four and then 40 clients upload at a byte a second, while another user uploads an examination."""
    start = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x_t1.nii"\r\n\r\n'
    head = b"POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    for clients in (4, 40):
        sending = asyncio.create_task(
            slow_senders(server, clients, head + b"Content-Length: 1000000\r\n\r\n" + start, seconds=20)
        )
        await asyncio.sleep(3)
        for _ in range(3):
            began = time.monotonic()
            status, answer = await asyncio.to_thread(server.upload, four_images(16, 6.0))
            server.waits.append(time.monotonic() - began)
            server.count(status if status == 201 else f"other user's upload: {status} {answer[:200]!r}")
            await asyncio.sleep(1)
        await sending


async def slow_readers(server: Server) -> None:
    """200 clients ask for large files and read nothing of them."""
    wanted = b"GET /viewer/niivue.js HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\n\r\n" * 5
    await slow_senders(server, CLIENTS, wanted, seconds=15, drips=False, reads=False)


async def large_images(server: Server) -> None:
    """Four float64 images of 464 voxels a side, which compress well, and the largest that the limits permit."""
    for edge, spacing in ((464, 0.5), (256, 1.0)):
        files = four_images(edge, spacing, "<f8", radius=75 / (edge * spacing))
        status, answer = await asyncio.to_thread(server.upload, files, start="true")
        server.count(status)
        if status == 201:
            server.count(f"job: {await finished(server, json.loads(answer)['id'], 240)}")


async def large_voxels(server: Server) -> None:
    """An examination of 30 mm voxels, and behind it one as usual."""
    ids = []
    for spacing in (30.0, 6.0):
        status, answer = await asyncio.to_thread(server.upload, four_images(26, spacing), start="true")
        server.count(status)
        ids += [json.loads(answer)["id"]] if status == 201 else []
    began = time.monotonic()
    server.count(f"usual job: {await finished(server, ids[-1], 120)} in {time.monotonic() - began:.0f} s")


async def malformed(server: Server) -> None:
    """Malformed headers, targets, bodies and cookies, then random bytes."""
    odd = [
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://[\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [\r\n\r\n",
        'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: a="\\; gliomask-0=;;=\r\n\r\n',
        "GET /%00%ff%fe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        "GET http://[ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nRange: bytes=9-1,x\r\nIf-None-Match: \xff\r\n\r\n",
        "POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: " + "9" * 5000 + "\r\n\r\n",
        "POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=\r\n"
        "Content-Length: 0\r\n\r\n",
        "POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        "PATCH /api/jobs/" + "0" * 32 + " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 60000\r\n\r\n" + "[" * 60000,
        "POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4000\r\n\r\n" + "&" * 4000,
        "GET /" + "x" * 70000 + " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ]
    draw = random.Random(7)
    noise = [draw.randbytes(draw.randrange(1, 300)) + b"\r\n\r\n" for _ in range(100)]
    texts = [*(one.encode("latin-1") for one in odd), *noise]
    for status in await asyncio.gather(*(request(server, text) for text in texts)):
        server.count(status)


async def wrong_tokens(server: Server) -> None:
    """300 wrong tokens, while another user has the right one, of letters beyond ASCII, at another address."""
    for number in range(300):
        bearer = (
            f"GET /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer {number}\r\n\r\n"
        )
        server.count(await request(server, bearer))
        await asyncio.sleep(0.01)


async def request(server: Server, head: str | bytes, body: bytes = b"") -> int | str:
    """Send bytes to the server and return the status of its response."""
    sent = (head.encode("latin-1") if isinstance(head, str) else head) + body
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", server.port), 30)
        writer.write(sent)
        line = await asyncio.wait_for(reader.readline(), 30)
        with suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(reader.read(), 1 if b"Connection: close" not in sent else 30)
        writer.close()
        return int(line.split()[1]) if line else "closed"
    except asyncio.TimeoutError:
        return "no response in 30 s"
    except OSError:
        return "closed"


async def slow_senders(
    server: Server, clients: int, head: bytes, *, seconds: float, drips: bool = True, reads: bool = True
) -> None:
    """Open connections, send the head on each, and then a byte a second or nothing."""

    async def client() -> None:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", server.port), 30)
        except (OSError, asyncio.TimeoutError):
            server.count("slow: not connected")
            return
        end = time.monotonic() + seconds
        with suppress(OSError):
            writer.write(head)
            while time.monotonic() < end:
                await asyncio.sleep(1)
                if drips:
                    writer.write(b"x")
                    await asyncio.wait_for(writer.drain(), 1)
        line = b""
        with suppress(OSError, asyncio.TimeoutError):
            line = await asyncio.wait_for(reader.readline(), 1) if reads else b""
        server.count(f"slow: {line.split()[1].decode() if line else 'closed or left'}")
        writer.transport.abort()

    await asyncio.gather(*(client() for _ in range(clients)))


async def finished(server: Server, job: str, seconds: float) -> str:
    """Wait until a job is finished, and return its state; cancel it when it takes too long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        status, answer = await asyncio.to_thread(server.ask, "GET", f"/api/jobs/{job}")
        state = json.loads(answer)["state"] if status == 200 else "gone"
        if state not in ("queued", "running"):
            return str(state)
        await asyncio.sleep(0.3)
    await asyncio.to_thread(server.ask, "POST", f"/api/jobs/{job}/cancel")
    return f"not finished in {seconds:.0f} s"


async def lasting(phase: Awaitable[None]) -> None:
    """Run a phase, for at least three seconds, in which another user is watched."""
    await asyncio.gather(phase, asyncio.sleep(3))


Phase = Callable[[Server], Awaitable[None]]
PHASES: tuple[Phase, ...] = (
    *(many_clients, many_uploads, half_headers, slow_bodies, slow_uploads, slow_readers),
    *(large_images, large_voxels, malformed, wrong_tokens),
)


def run(phase: Phase, folder: Path) -> bool:
    """Run a phase on a server of its own, print what was seen, and return whether all was well."""
    options = ["--token", TOKEN] if phase is wrong_tokens else ["--max-waiting", "100"]
    server = Server(folder, *options)
    if phase is wrong_tokens:
        server.headers = {"authorization": f"Bearer {TOKEN}".encode().decode("latin-1")}
        server.source = "127.0.0.2" if sys.platform == "linux" else None
    try:
        server.ask("GET", "/")  # has everything loaded
        with server.watched():
            asyncio.run(lasting(phase(server)))
    finally:
        server.process.terminate()
        server.process.wait()
    statuses = ", ".join(f"{what}: {count}" for what, count in sorted(server.statuses.items(), key=str))
    longest = max(server.waits, default=0.0)
    bad = [what for what in server.statuses if what == 500 or str(what).startswith("other user")]
    good = not bad and longest <= MOST_WAIT_S and server.peaks[0] <= MOST_SERVER_MB
    print(f"{phase.__name__}: {'good' if good else 'BAD'}")
    print(f"    {statuses}")
    print(f"    longest wait of another user {longest:.2f} s ({len(server.waits)} requests); ", end="")
    print(f"peak of the server {server.peaks[0]:.0f} MB, of the worker {server.peaks[1]:.0f} MB", flush=True)
    return good


def main() -> None:
    """Run the phases that are named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [phase.__name__ for phase in PHASES]
    parser.add_argument("phases", nargs="*", help=f"some of: {', '.join(names)}")
    chosen = parser.parse_args().phases or names
    with tempfile.TemporaryDirectory() as folder:
        results = [run(phase, Path(folder) / phase.__name__) for phase in PHASES if phase.__name__ in chosen]
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
