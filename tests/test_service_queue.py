"""The queue: one job at a time, each in its own process, and none lost by a restart."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import HERE, as_files, build, four, state_of, wait_for, wait_for_state

pytest.importorskip("fastapi", reason="needs the extra serve")

from fastapi.testclient import TestClient

import gliomask
from gliomask.service import queue
from gliomask.service.messages import read_message
from gliomask.service.process import WORKER_COMMAND
from gliomask.service.progress import Progress, read_expected, write_expected

FILES = dict(list(four().items())[:2])


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(build(tmp_path / "store"), base_url=HERE) as client:
        yield client


def start(client: TestClient, title: str) -> str:
    """Upload and start a job; the title chooses what the worker substitute does."""
    answer = client.post("/api/jobs", files=as_files(FILES), data={"title": title, "start": "true"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_jobs_run_one_at_a_time_in_the_order_of_submission(client: TestClient) -> None:
    """The others are queued and know their place."""
    slow = start(client, "slow")
    wait_for_state(client, slow, "running")
    second, third = start(client, "second"), start(client, "third")
    places = [client.get(f"/api/jobs/{job}").json()["position"] for job in (slow, second, third)]
    assert places == [None, 1, 2]
    assert client.get(f"/api/jobs/{third}").json()["seconds_left"] > 0
    client.post(f"/api/jobs/{slow}/cancel")
    done = wait_for_state(client, third, "done")
    assert state_of(client, second) == "done"
    assert done["volumes_ml"] == {"WT": 1.5}
    jobs = [client.get(f"/api/jobs/{job}").json() for job in (slow, second, third)]
    assert jobs[0]["finished"] <= jobs[1]["started"] <= jobs[1]["finished"] <= jobs[2]["started"]


def test_cancelling_kills_the_process(client: TestClient) -> None:
    """Immediately. A cancelled job can be started again, and a cancelled queued job never starts."""
    slow, waiting = start(client, "slow"), start(client, "slow 2")
    wait_for_state(client, slow, "running")
    process = wait_for(lambda: client.app.state.service.queue.process_id)  # type: ignore[attr-defined]
    assert client.delete(f"/api/jobs/{slow}").status_code == 409
    assert client.post(f"/api/jobs/{waiting}/cancel").json()["state"] == "cancelled"
    assert client.post(f"/api/jobs/{slow}/cancel").json()["state"] == "cancelled"
    wait_for(lambda: not is_alive(process), "the process to end")
    assert client.post(f"/api/jobs/{slow}/cancel").status_code == 409
    assert client.post(f"/api/jobs/{slow}/start").status_code == 200
    wait_for_state(client, slow, "running")
    client.post(f"/api/jobs/{slow}/cancel")
    assert client.delete(f"/api/jobs/{waiting}").status_code == 204


def test_results_are_available_during_the_report_and_kept_by_cancelling(client: TestClient) -> None:
    """The mask can be viewed before the report is complete. Cancelling then ends only the report."""
    job = start(client, "late")
    wait_for(lambda: client.get(f"/api/jobs/{job}").json()["volumes_ml"])
    assert client.get(f"/api/jobs/{job}/mask").status_code == 200
    assert client.get(f"/api/jobs/{job}/report").status_code == 404
    assert client.post(f"/api/jobs/{job}/cancel").json()["state"] == "done"
    assert client.get(f"/api/jobs/{job}").json()["error"] == "The report was cancelled."
    assert client.get(f"/api/jobs/{job}/mask").status_code == 200


def test_a_crash_affects_only_its_job(client: TestClient) -> None:
    """The error names the signal, and the next job is completed."""
    crash, fail, good = (start(client, title) for title in ("crash", "fail", "good"))
    wait_for_state(client, good, "done")
    assert "signal 9" in client.get(f"/api/jobs/{crash}").json()["error"]
    assert client.get(f"/api/jobs/{fail}").json()["error"] == "image-1: is not good."
    assert {state_of(client, job) for job in (crash, fail)} == {"failed"}


def test_a_truncated_message_does_not_stop_the_queue(client: TestClient) -> None:
    """A worker that dies in the middle of a line fails its job; the next job is completed."""
    cut, after = start(client, "cut"), start(client, "after")
    wait_for_state(client, after, "done")
    assert state_of(client, cut) == "failed"


ODD_LINES = [
    *(b"5", b"null", b"[]", b'"text"', b"{", b" ", b"\xff\xfe", b"x" * 25),
    *(b'{"ready": 7}', b'{"ready": {"a": 1}}', b'{"share": "x"}', b'{"share": NaN}', b'{"stage": "nap"}'),
    *(b'{"failed": 1}', b'{"done": "perhaps"}', b'{"other": 1}', b"1e999", b"[[[[[[[[[["),
]


def test_unexpected_lines_of_a_worker_are_ignored(client: TestClient) -> None:
    """Whatever a library prints to the standard output, the job is completed, and so are later ones."""
    jobs = []
    for line in ODD_LINES:
        job = start(client, f"odd {line.hex()}"[:60])
        jobs.append(wait_for_state(client, job, "done", "failed")["state"])
    assert jobs == ["done"] * len(ODD_LINES)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"stage": "start"' + " " * 100_000, "\ud800", '{"share": 1e400}'])
def test_a_line_that_is_not_a_message_is_none(line: str) -> None:
    """Deeply nested and very long lines too."""
    assert read_message(line) is None


def test_an_unexpected_error_does_not_end_the_queue(client: TestClient, monkeypatch: Any) -> None:
    """Later jobs are computed."""
    monkeypatch.setattr(queue.time, "sleep", lambda _: None)
    original = queue.WorkerProcess.messages
    failures = iter([True])

    def fail_once(self: Any) -> Any:
        if next(failures, False):
            raise ZeroDivisionError
        yield from original(self)

    monkeypatch.setattr(queue.WorkerProcess, "messages", fail_once)
    first, second = start(client, "first"), start(client, "second")
    wait_for_state(client, second, "done")
    assert state_of(client, first) == "failed"


def test_a_worker_that_closes_its_output_is_ended(client: TestClient) -> None:
    """It cannot report anything any more."""
    closed = start(client, "closed")
    assert wait_for_state(client, closed, "failed")["error"]


def test_a_job_has_a_time_limit(tmp_path: Path) -> None:
    """Then its process is killed, and the next job starts."""
    with TestClient(build(tmp_path / "store", job_minutes=0.01), base_url=HERE) as client:
        slow = start(client, "slow")
        assert "longer than 0.01 minutes" in wait_for_state(client, slow, "failed")["error"]


def test_a_mask_is_kept_when_its_report_fails(client: TestClient) -> None:
    """The job is done and says why there is no report; starting it again makes only the report."""
    job = start(client, "no report")
    found = wait_for_state(client, job, "done", "failed")
    assert (found["state"], found["error"]) == ("done", "The report could not be made. no room for it.")
    assert found["volumes_ml"] == {"WT": 1.5}
    assert client.get(f"/api/jobs/{job}/mask").status_code == 200
    assert client.get(f"/api/jobs/{job}/report").status_code == 404
    assert client.post(f"/api/jobs/{job}/start").json()["state"] == "queued"
    again = wait_for(
        lambda: client.get(f"/api/jobs/{job}/report").status_code == 200 and wait_for_state(client, job, "done")
    )
    assert (again["error"], again["volumes_ml"]) == (None, {"WT": 1.5})
    assert client.post(f"/api/jobs/{job}/start").status_code == 409


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_mask_is_kept_when_the_server_dies_during_the_report(tmp_path: Path, attempts: int) -> None:
    """The next server makes only the report, or, after too many attempts, says that it is missing."""
    with TestClient(build(tmp_path / "store"), base_url=HERE) as client:
        job = start(client, "late")
        wait_for(lambda: client.get(f"/api/jobs/{job}").json()["volumes_ml"])
        mask = client.app.state.service.store.folder_of(job) / "results" / "mask.nii.gz"  # type: ignore[attr-defined]
    mask.write_text("the first one")
    app: Any = build(tmp_path / "store")
    app.state.service.store.change(job, state="running", attempts=attempts)  # the state that a killed server leaves
    with TestClient(app, base_url=HERE) as client:
        found = wait_for_state(client, job, "done")
        assert client.get(f"/api/jobs/{job}/mask").text == "the first one"
        assert (found["error"] is None) == (attempts == 1)
        assert client.get(f"/api/jobs/{job}/report").status_code == (200 if attempts == 1 else 404)


def test_the_current_folder_is_not_searched_for_modules(tmp_path: Path) -> None:
    """A file `nibabel.py` or `gliomask.py` there is not executed by the worker; PYTHONPATH still applies."""
    for name in ("nibabel", "json", "gliomask", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(77)")
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "of_the_user.py").write_text("print('found')")
    python, flag, code = WORKER_COMMAND
    source = Path(gliomask.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(source), str(tmp_path / "path")])}
    ran = subprocess.run(
        [python, flag, f"{code.replace('main()', 'import nibabel, of_the_user')}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, "found"), ran.stderr


def test_a_job_that_cannot_be_started_does_not_block_the_next(client: TestClient, monkeypatch: Any) -> None:
    """It is marked as failed, and the next job starts."""
    asked = queue._request

    def refuse_one(store: Any, job: Any, settings: Any) -> Any:
        if job.title == "none":
            raise OSError("no room")
        return asked(store, job, settings)

    monkeypatch.setattr(queue, "_request", refuse_one)
    slow = start(client, "slow")
    wait_for_state(client, slow, "running")
    none, after = start(client, "none"), start(client, "after")
    client.post(f"/api/jobs/{slow}/cancel")
    wait_for_state(client, after, "done")
    assert state_of(client, none) == "failed"


def test_a_regular_shutdown_puts_the_running_job_back_into_the_queue(tmp_path: Path) -> None:
    """The attempt does not count; the next server runs all queued jobs in their order."""
    with TestClient(build(tmp_path / "store"), base_url=HERE) as client:
        ids = [start(client, title) for title in ("slow", "second")]
        wait_for_state(client, ids[0], "running")
        process = wait_for(lambda: client.app.state.service.queue.process_id)  # type: ignore[attr-defined]
    assert not is_alive(process)
    with TestClient(build(tmp_path / "store"), base_url=HERE) as client:
        job = wait_for_state(client, ids[0], "running")
        assert job["attempts"] == 1
        client.post(f"/api/jobs/{ids[0]}/cancel")
        wait_for_state(client, ids[1], "done")


def test_a_job_during_which_the_server_died_is_run_again_once(tmp_path: Path) -> None:
    """The second time it is marked as interrupted, with the reason, and can be started by the user."""
    for attempts, expected in ((1, "done"), (2, "interrupted")):
        with TestClient(build(tmp_path / "store"), base_url=HERE) as client:
            answer = client.post("/api/jobs", files=as_files(FILES), data={"title": f"job {attempts}"})
            job = answer.json()["id"]
        app: Any = build(tmp_path / "store")
        app.state.service.store.change(job, state="running", attempts=attempts)  # the state that a killed server leaves
        with TestClient(app, base_url=HERE) as client:
            found = wait_for_state(client, job, "done", "interrupted")
            assert found["state"] == expected
            if expected == "interrupted":
                assert "ended 2 times" in found["error"]
                assert client.post(f"/api/jobs/{job}/start").status_code == 200
                wait_for_state(client, job, "done")


def test_the_worker_process_ends_with_the_server(client: TestClient) -> None:
    """Its standard input ends when the server is gone, for whatever reason."""
    job = start(client, "slow")
    wait_for_state(client, job, "running")
    running = wait_for(lambda: client.app.state.service.queue._running)  # type: ignore[attr-defined]
    running.process.stdin.close()
    assert wait_for_state(client, job, "failed")["error"]
    assert not is_alive(running.process.pid)


def test_progress_never_decreases() -> None:
    """The estimate uses the durations of the last job and, within a stage, the reported fraction."""
    moment = 0.0
    progress = Progress({"start": 1, "predict": 8, "write": 1, "report": 2}, clock=lambda: moment)
    seen = []
    for step in range(120):
        moment = step / 10
        if step == 10:
            progress.update("predict")
        if 10 <= step < 90:
            progress.update("predict", (step - 10) / 80)
        if step == 90:
            progress.update("write")
        if step == 100:
            progress.update("report")
        seen.append(progress.estimate())
    shares = [one.progress for one in seen]
    assert shares == sorted(shares)
    assert shares[0] < 0.05
    assert shares[-1] > 0.95
    assert abs(seen[0].seconds_left - 12) < 0.2
    assert abs(seen[50].seconds_left - 7) < 1
    assert dict(progress.finish()) == pytest.approx({"start": 1, "predict": 8, "write": 1, "report": 1.9})


def test_stage_durations_are_stored(tmp_path: Path) -> None:
    """A missing or damaged file is replaced by a first guess."""
    path = tmp_path / "durations.json"
    guess = read_expected(path)
    write_expected(path, {"start": 1.5, "predict": 20.0, "write": 0.5, "report": 3.0})
    assert read_expected(path)["predict"] == 20
    for damage in ("{", "[]", '{"start": "soon"}', '{"start": null}'):
        path.write_text(damage)
        assert read_expected(path) == guess


def test_the_error_of_a_killed_process_names_the_signal(client: TestClient) -> None:
    """Also for signals other than SIGKILL."""
    job = start(client, "slow")
    process = wait_for(lambda: client.app.state.service.queue.process_id)  # type: ignore[attr-defined]
    wait_for_state(client, job, "running")
    os.kill(process, signal.SIGTERM)
    assert "signal 15" in wait_for_state(client, job, "failed")["error"]
