"""The queue of jobs. One job runs at a time.

Each job runs in its own process, so a crash or a cancellation affects only that job.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gliomask.cases import MODALITIES
from gliomask.errors import InputError
from gliomask.service.ingest import image_path
from gliomask.service.jobs import STAGES, STARTABLE, Job, now
from gliomask.service.limits import RefusedError
from gliomask.service.progress import Estimate, Progress, read_expected, write_expected
from gliomask.service.store import Store
from gliomask.service.worker import PARTIAL, REPORT, RESULTS, Request, Settings

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 2
"""A job during which the server ended this many times is not restarted automatically."""

_SWEEP_SECONDS = 600.0


class Queue:
    """Run the queued jobs of a store in the order in which they were submitted."""

    def __init__(
        self,
        store: Store,
        settings: Settings | None = None,
        command: Sequence[str] = (sys.executable, "-m", "gliomask.service.worker"),
    ) -> None:
        """Create a queue that is not running yet.

        Args:
            store: The store with the jobs.
            settings: Model, device and other options of the prediction.
            command: The command of the worker process; it follows the protocol of `gliomask.service.worker`.
        """
        self._store = store
        self._command = command
        self._settings = settings or Settings()
        self._change = threading.Condition(threading.RLock())
        self._stopping = False
        self._running: _WorkerProcess | None = None
        self._thread = threading.Thread(target=self._run, name="queue", daemon=True)

    def start(self) -> None:
        """Recover the jobs of an earlier server, and start the queue's thread.

        A job that was running when the server ended is run again first; after `MOST_ATTEMPTS` it is marked interrupted.
        """
        for job in self._store.jobs():
            if job.state == "running" and job.attempts >= MOST_ATTEMPTS:
                text = f"The server ended {job.attempts} times during this job. Perhaps there is too little memory."
                self._store.change(job.id, state="interrupted", error=text, finished=now(), **_NO_RESULTS)
            elif job.state == "running":
                self._store.change(job.id, state="queued", **_NO_RESULTS)
        self._thread.start()

    def stop(self) -> None:
        """Stop the running job, which goes back into the queue, and wait for the queue's thread to end."""
        with self._change:
            self._stopping = True
            if self._running is not None:
                self._running.kill()
            self._change.notify_all()
        self._thread.join(timeout=30)

    def submit(self, job_id: str) -> Job:
        """Add a job to the end of the queue.

        Raises:
            RefusedError: 404, there is no such job; 409, it has problems or was already started.
        """
        with self._change:
            job = self._store.change(
                job_id,
                only=STARTABLE,
                state="queued",
                queued=now(),
                attempts=0,
                error=None,
                started=None,
                finished=None,
                **_NO_RESULTS,
            )
            self._change.notify_all()
            return job

    def cancel(self, job_id: str) -> Job:
        """Remove a job from the queue, or kill its process.

        Raises:
            RefusedError: 404, there is no such job; 409, it is neither queued nor running.
        """
        with self._change:
            job = self._store.change(
                job_id, only=("queued", "running"), state="cancelled", finished=now(), **_NO_RESULTS
            )
            if self._running is not None and self._running.job.id == job_id:
                self._running.kill()
            self._change.notify_all()
            return job

    def position(self, job: Job) -> int | None:
        """Return the place of a queued job (1: next), or None for other jobs."""
        if job.state != "queued":
            return None
        return 1 + sum(
            _queue_order(other) < _queue_order(job) for other in self._store.jobs() if other.state == "queued"
        )

    def estimate(self, job: Job) -> Estimate | None:
        """Return the progress of a running job, or None for other jobs."""
        running = self._running
        if running is None or job.state != "running" or running.job.id != job.id:
            return None
        return running.progress.estimate()

    def seconds_until_done(self, job: Job) -> float | None:
        """Return the estimated seconds until a queued job is done, or None for other jobs."""
        place = self.position(job)
        if place is None:
            return None
        each = sum(read_expected(self._store.folder / "durations.json").values())
        running = self._running
        return (running.progress.estimate().seconds_left if running is not None else 0.0) + place * each

    @property
    def process_id(self) -> int | None:
        """The process id of the running worker, or None."""
        return self._running.process.pid if self._running is not None else None

    def _run(self) -> None:
        swept = 0.0
        while True:
            if time.monotonic() - swept > _SWEEP_SECONDS or not swept:
                swept = time.monotonic()
                self._store.sweep(now())
            with self._change:
                if self._stopping:
                    return
                running = self._start_next()
                if running is None:
                    self._change.wait(timeout=_SWEEP_SECONDS)
                    continue
            for message in running.messages():
                if "ready" in message:
                    self._store_results(running, message["ready"])
            with self._change:
                self._running = None
                self._finish(running)

    def _start_next(self) -> _WorkerProcess | None:
        """Start the next job; a job that cannot be started is marked as failed and skipped."""
        for job in sorted((job for job in self._store.jobs() if job.state == "queued"), key=_queue_order):
            try:
                self._running = self._start_worker(job)
                return self._running
            except (InputError, OSError) as error:  # no process can be started, or the disk is full
                log.warning("job %s: could not be started: %s", job.id, error)
                with suppress(InputError):
                    self._store.change(job.id, state="failed", error="The job could not be started.", finished=now())
        return None

    def _start_worker(self, job: Job) -> _WorkerProcess:
        job = self._store.change(job.id, only=["queued"], state="running", started=now(), attempts=job.attempts + 1)
        _remove_outputs(self._store.folder_of(job.id))
        progress = Progress(read_expected(self._store.folder / "durations.json"))
        return _WorkerProcess(job, self._command, _request(self._store, job, self._settings), progress)

    def _store_results(self, running: _WorkerProcess, found: dict[str, Any]) -> None:
        """Store the volumes and warnings, so that the result is visible while the report is made."""
        try:
            self._store.change(running.job.id, only=["running"], **found)
        except InputError:  # the job was cancelled, or the disk is full
            running.kill()

    def _finish(self, running: _WorkerProcess) -> None:
        """Store the final state of a job whose process has ended."""
        job_id = running.job.id
        try:
            state = self._store.get(job_id).state
            if not (state == "running" and running.done):
                _remove_outputs(self._store.folder_of(job_id))
            if state == "running" and running.done:
                taken = running.progress.finish()
                write_expected(self._store.folder / "durations.json", taken)
                seconds = round(sum(taken.values()), 2)
                self._store.change(job_id, state="done", finished=now(), seconds=seconds)
            elif state == "running" and self._stopping:
                self._store.change(job_id, state="queued", attempts=running.job.attempts - 1, **_NO_RESULTS)
            elif state == "running":
                self._store.change(
                    job_id, state="failed", error=running.failure_reason(), finished=now(), **_NO_RESULTS
                )
        except RefusedError:
            pass  # the job was deleted
        except (InputError, OSError) as error:
            log.warning("job %s: its final state could not be stored: %s", job_id, error)
            with suppress(InputError):
                self._store.change(job_id, state="failed", error="The results could not be stored.", finished=now())


class _WorkerProcess:
    """A running job and its worker process."""

    def __init__(self, job: Job, command: Sequence[str], request: Request, progress: Progress) -> None:
        self.job = job
        self.progress = progress
        self.done = False
        self._failed: str | None = None
        environment = {name: value for name, value in os.environ.items() if name != "GLIOMASK_TOKEN"}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            encoding="utf-8",
        )
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(request.to_json() + "\n")
            self.process.stdin.flush()

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield the messages of the process until it ends."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                message = json.loads(line)
            except ValueError:  # truncated because the process was killed
                continue
            self._record(message)
            yield message
        self.process.wait()
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()

    def kill(self) -> None:
        self.process.kill()

    def failure_reason(self) -> str:
        """Return the reason for the failure, for the user."""
        if self._failed is not None:
            return self._failed
        if self.process.returncode < 0:
            return (
                f"The computation was ended from outside (signal {-self.process.returncode}); perhaps there is too "
                "little memory."
            )
        return "The computation ended unexpectedly. See the messages of the server."

    def _record(self, message: dict[str, Any]) -> None:
        if message.get("stage") in STAGES:
            self.progress.update(message["stage"], float(message.get("share", 0.0)))
        self.done = bool(message.get("done", self.done))
        self._failed = message.get("failed", self._failed)


_NO_RESULTS: dict[str, Any] = {"volumes_ml": None, "warnings": ()}


def _remove_outputs(folder: Path) -> None:
    """Remove the results and the report of an earlier attempt."""
    for name in (RESULTS, PARTIAL):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / REPORT).unlink(missing_ok=True)


def _request(store: Store, job: Job, settings: Settings) -> Request:
    folder = store.folder_of(job.id).absolute()
    names = {str(image.sequence): image.name for image in job.images}
    images = {m: str(image_path(folder, names[m])) for m in MODALITIES if m in names}
    volumes = f"/api/jobs/{job.id}/volumes/"
    return Request(str(folder), job.title, volumes, images, settings)


def _queue_order(job: Job) -> tuple[Any, str]:
    return job.queued or job.created, job.id
