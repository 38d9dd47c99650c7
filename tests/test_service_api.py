"""The service as a whole: real predictions, the documented commands, a killed server, and the schema."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving import SECRET, as_files, build, nifti, wait_for, wait_for_state

pytest.importorskip("fastapi", reason="needs the extra serve")
from typer.testing import CliRunner

from gliomask.cases import Case
from gliomask.cli import app
from gliomask.report import write_prediction_report
from gliomask.service import require_service

httpx = pytest.importorskip("httpx", reason="needs httpx")

DOCUMENT = Path(__file__).parent.parent / "docs" / "serving.md"


class Served:
    """`gliomask serve` in its own process."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "gliomask",
                "serve",
                "--store",
                str(folder),
                "--port",
                "0",
                "--threads",
                "1",
                *options,
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        self.output = self.process.stdout.readline()
        [self.url] = re.findall(r"http://[^/ ]+", self.output)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def end(self) -> int:
        self.process.terminate()
        code = self.process.wait(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path / "store")
    yield server
    server.end()


def test_the_documented_commands_give_what_the_command_line_gives(
    served: Served, write_case: Callable[..., Case], tmp_path: Path
) -> None:
    """Each shell block of the page runs; the mask is identical to the byte, and the facts except for the duration."""
    case = write_case()
    for spelling, modality in {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f"}.items():
        shutil.copy(case.images[modality].path, tmp_path / f"{spelling}.nii.gz")
    blocks = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    commands = "".join(block for block in blocks if "curl" in block)
    assert commands.count("curl ") >= 9
    script = "set -e\n" + commands.replace("http://127.0.0.1:8000", served.url)
    ran = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stderr
    files = [word for name in ("t1", "t1ce", "t2", "flair") for word in (f"--{name}", str(tmp_path / f"{name}.nii.gz"))]
    ran_directly = CliRunner().invoke(
        app, ["predict", *files, "-o", str(tmp_path / "own" / "mask.nii.gz"), "--threads", "1", "--cross-check"]
    )
    assert ran_directly.exit_code == 0, ran_directly.output
    assert (tmp_path / "mask.nii.gz").read_bytes() == (tmp_path / "own" / "mask.nii.gz").read_bytes()
    facts = [json.loads(path.read_text()) for path in (tmp_path / "facts.json", tmp_path / "own" / "mask.json")]
    assert facts[0]["case"] == "trial-7"
    for one in facts:
        del (
            one["case"],
            one["patient"],
            one["seconds"],
            one["images"],
        )  # the sizes of the files, which are compressed anew
    assert facts[0] == facts[1]
    write_prediction_report(case, tmp_path / "own" / "mask.nii.gz", tmp_path / "own.html")
    assert "trial-7" in (tmp_path / "report.html").read_text()
    jobs = httpx.get(f"{served.url}/api/jobs").json()["jobs"]
    assert [(job["title"], job["state"]) for job in jobs] == [("trial-7", "done")]
    job = jobs[0]
    scene = httpx.get(f"{served.url}/api/jobs/{job['id']}/scene").json()
    addresses = [one["url"] for one in (*scene["images"], *scene["masks"])]
    assert len(addresses) == 5
    for address in addresses:
        assert httpx.get(served.url + address).content[:2] == b"\x1f\x8b"
    assert scene["masks"][0]["volumes_ml"]["WT"] == job["volumes_ml"]["WT"] == facts[0]["volumes_ml"]["WT"]


def test_killing_the_server_during_a_job_loses_nothing(tmp_path: Path) -> None:
    """After kill -9 the worker process ends too, and the next server completes the job."""
    server = Served(tmp_path / "store")
    files = as_files({f"x_{name}.nii": nifti(kind) for name, kind in (("t1ce", "t1c"), ("flair", "t2f"))})
    job = httpx.post(f"{server.url}/api/jobs", files=files, data={"start": "true"}).json()["id"]
    with httpx.Client(base_url=server.url) as client:
        wait_for_state(client, job, "running")
        children = wait_for(lambda: _children(server.process.pid), "the worker process")
    server.kill()
    wait_for(lambda: not any(Path(f"/proc/{child}/cmdline").exists() for child in children), "it to end")
    again = Served(tmp_path / "store")
    try:
        with httpx.Client(base_url=again.url) as client:
            found = wait_for_state(client, job, "done", "failed", "interrupted", seconds=120)
        assert (found["state"], found["attempts"]) == ("done", 2)
    finally:
        again.end()


def test_the_command_prints_its_token_and_exits_cleanly(tmp_path: Path) -> None:
    """The token is read from a file, so that it is not among the process arguments; SIGTERM is not an error."""
    (tmp_path / "token").write_text(SECRET + "\n")
    (tmp_path / "token").chmod(0o600)
    server = Served(tmp_path / "store", "--token-file", str(tmp_path / "token"))
    try:
        assert f"login#token={SECRET}" in server.output
        assert httpx.get(f"{server.url}/api/jobs").status_code == 401
        assert httpx.get(f"{server.url}/api/jobs", headers={"authorization": f"Bearer {SECRET}"}).status_code == 200
    finally:
        code = server.end()
    assert code == (1 if os.name == "nt" else 0)  # Windows has no such signal, and ends the process


def test_bad_options_are_reported_before_the_server_starts(tmp_path: Path) -> None:
    """Missing libraries or model, a store that is a file, a short token, two tokens, an unavailable address."""
    with pytest.raises(Exception, match=r"pip install .*\[serve\]"):
        require_service(lambda _: None)
    (tmp_path / "file").write_text("")
    (tmp_path / "token").write_text(SECRET)
    for options, says in (
        (["-m", str(tmp_path / "none.safetensors")], "no such model file"),
        (["--store", str(tmp_path / "file")], "cannot be used as a store"),
        (["--token", "short"], "at least 16 characters"),
        (["--token", SECRET, "--token-file", str(tmp_path / "token")], "not both"),
        (["--token-file", str(tmp_path / "none")], "cannot be read"),
        (["--host", "192.0.2.1", "--token", SECRET], "cannot listen at"),
        (["--engine", "abacus"], "unknown value of --engine"),
        (["--labels", "brats1066"], "unknown"),
    ):
        ran = CliRunner().invoke(app, ["serve", "--store", str(tmp_path / "store"), "--port", "0", *options])
        assert says in str(ran.exception), (options, ran.output)


def test_every_response_conforms_to_the_schema(tmp_path: Path) -> None:
    """For valid and invalid requests generated from the schema there is no status 500 and no undocumented response."""
    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
    from hypothesis import HealthCheck, given, settings
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    not_said = [positive_data_acceptance]  # the schema cannot express that a file must be a NIfTI image

    service = build(tmp_path / "store", waiting=100_000)
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", service, headers={"host": "127.0.0.1"})
    operations = [one.ok() for one in schema.get_all_operations()]
    assert len(operations) >= 14
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        def ask(case: object) -> None:
            case.call_and_validate(headers={"host": "127.0.0.1"}, excluded_checks=not_said)  # type: ignore[attr-defined]

        ask()


def _children(process: int) -> list[int]:
    path = Path(f"/proc/{process}/task/{process}/children")
    threads = Path(f"/proc/{process}/task")
    found = [child for task in threads.iterdir() for child in (task / "children").read_text().split()] if path else []
    return [int(child) for child in found]
