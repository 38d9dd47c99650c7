"""One job at a time, each in its own process: what is cancelled is killed, and what crashes takes nothing along."""

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
from gliomask.service.progress import Progress, Standing, read_expected, write_expected
from gliomask.service.store import Store
from gliomask.service.work import PARTIAL, REPORT, RESULTS, Request, Settings

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 2
"""A job during which the server ended this often is not begun by itself again."""

_SWEEP_SECONDS = 600.0


class Queue:
    """Runs the queued jobs of a store, in the order in which they were started."""

    def __init__(
        self,
        store: Store,
        settings: Settings | None = None,
        command: Sequence[str] = (sys.executable, "-m", "gliomask.service.work"),
    ) -> None:
        """Make a queue at rest.

        Args:
            store: Its jobs.
            settings: How they are predicted.
            command: What computes a job, as `gliomask.service.work` does.
        """
        self._store = store
        self._command = command
        self._settings = settings or Settings()
        self._change = threading.Condition(threading.RLock())
        self._stopping = False
        self._running: _Running | None = None
        self._thread = threading.Thread(target=self._work, name="queue", daemon=True)

    def start(self) -> None:
        """Take up what an earlier server left, and begin to work.

        A job that ran when it ended is run again before the others; after `MOST_ATTEMPTS` it is marked interrupted.
        """
        for job in self._store.jobs():
            if job.state == "running" and job.attempts >= MOST_ATTEMPTS:
                text = f"The server ended {job.attempts} times while it was computed. Perhaps the memory is not enough."
                self._store.change(job.id, state="interrupted", error=text, finished=now(), **_NOTHING)
            elif job.state == "running":
                self._store.change(job.id, state="queued", **_NOTHING)
        self._thread.start()

    def stop(self) -> None:
        """End the running process, whose job goes back into the queue, and return when all is at rest."""
        with self._change:
            self._stopping = True
            if self._running is not None:
                self._running.kill()
            self._change.notify_all()
        self._thread.join(timeout=30)

    def submit(self, job_id: str) -> Job:
        """Put a job at the end of the queue.

        Raises:
            RefusedError: 404, there is none; 409, it has problems or was started already.
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
                **_NOTHING,
            )
            self._change.notify_all()
            return job

    def cancel(self, job_id: str) -> Job:
        """Take a job out of the queue, or kill its process.

        Raises:
            RefusedError: 404, there is none; 409, it neither waits nor runs.
        """
        with self._change:
            job = self._store.change(job_id, only=("queued", "running"), state="cancelled", finished=now(), **_NOTHING)
            if self._running is not None and self._running.job.id == job_id:
                self._running.kill()
            self._change.notify_all()
            return job

    def position(self, job: Job) -> int | None:
        """Return the place of a queued job, 1 for the next one."""
        if job.state != "queued":
            return None
        return 1 + sum(_order(other) < _order(job) for other in self._store.jobs() if other.state == "queued")

    def standing(self, job: Job) -> Standing | None:
        """Return how far a running job is."""
        running = self._running
        if running is None or job.state != "running" or running.job.id != job.id:
            return None
        return running.progress.standing()

    def seconds_until_done(self, job: Job) -> float | None:
        """Return how long a queued job will take yet, those before it included."""
        place = self.position(job)
        if place is None:
            return None
        each = sum(read_expected(self._store.folder / "pace.json").values())
        running = self._running
        return (running.progress.standing().seconds_left if running is not None else 0.0) + place * each

    @property
    def process_id(self) -> int | None:
        """The running process's, or None."""
        return self._running.process.pid if self._running is not None else None

    def _work(self) -> None:
        swept = 0.0
        while True:
            if time.monotonic() - swept > _SWEEP_SECONDS or not swept:
                swept = time.monotonic()
                self._store.sweep(now())
            with self._change:
                if self._stopping:
                    return
                running = self._begin()
                if running is None:
                    self._change.wait(timeout=_SWEEP_SECONDS)
                    continue
            for message in running.listen():
                if "ready" in message:
                    self._keep(running, message["ready"])
            with self._change:
                self._running = None
                self._end(running)

    def _begin(self) -> _Running | None:
        """Start the process of the next job that can be begun; those before it that cannot have failed."""
        for job in sorted((job for job in self._store.jobs() if job.state == "queued"), key=_order):
            try:
                self._running = self._run(job)
                return self._running
            except (InputError, OSError) as error:  # no process, no room on the disk
                log.warning("job %s: could not be begun: %s", job.id, error)
                with suppress(InputError):
                    self._store.change(job.id, state="failed", error="It could not be begun.", finished=now())
        return None

    def _run(self, job: Job) -> _Running:
        job = self._store.change(job.id, only=["queued"], state="running", started=now(), attempts=job.attempts + 1)
        _clear(self._store.folder_of(job.id))
        progress = Progress(read_expected(self._store.folder / "pace.json"))
        return _Running(job, self._command, _request(self._store, job, self._settings), progress)

    def _keep(self, running: _Running, found: dict[str, Any]) -> None:
        """Let the results be seen while the report is made; without them the job has failed."""
        try:
            self._store.change(running.job.id, only=["running"], **found)
        except InputError:  # cancelled meanwhile, or the disk is full
            running.kill()

    def _end(self, running: _Running) -> None:
        """Keep what a process has left behind: results, or why there are none."""
        job_id = running.job.id
        try:
            state = self._store.get(job_id).state
            if not (state == "running" and running.done):
                _clear(self._store.folder_of(job_id))
            if state == "running" and running.done:
                taken = running.progress.finish()
                write_expected(self._store.folder / "pace.json", taken)
                seconds = round(sum(taken.values()), 2)
                self._store.change(job_id, state="done", finished=now(), seconds=seconds)
            elif state == "running" and self._stopping:
                self._store.change(job_id, state="queued", attempts=running.job.attempts - 1, **_NOTHING)
            elif state == "running":
                self._store.change(job_id, state="failed", error=running.reason(), finished=now(), **_NOTHING)
        except RefusedError:
            pass  # deleted meanwhile
        except (InputError, OSError) as error:
            log.warning("job %s: its end could not be kept: %s", job_id, error)
            with suppress(InputError):
                self._store.change(job_id, state="failed", error="The results could not be stored.", finished=now())


class _Running:
    """A job and the process that computes it."""

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

    def listen(self) -> Iterator[dict[str, Any]]:
        """Follow the process to its end, and yield what it says."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                message = json.loads(line)
            except ValueError:  # cut when the process was killed
                continue
            self._hear(message)
            yield message
        self.process.wait()
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()

    def kill(self) -> None:
        self.process.kill()

    def reason(self) -> str:
        """Return why there is no result."""
        if self._failed is not None:
            return self._failed
        if self.process.returncode < 0:
            return (
                f"The computation was ended from outside (signal {-self.process.returncode}); perhaps the memory "
                "is not enough."
            )
        return "The computation broke off. The server's messages say more."

    def _hear(self, message: dict[str, Any]) -> None:
        if message.get("stage") in STAGES:
            self.progress.tell(message["stage"], float(message.get("share", 0.0)))
        self.done = bool(message.get("done", self.done))
        self._failed = message.get("failed", self._failed)


_NOTHING: dict[str, Any] = {"volumes_ml": None, "warnings": ()}


def _clear(folder: Path) -> None:
    """Remove what an attempt has left."""
    for name in (RESULTS, PARTIAL):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / REPORT).unlink(missing_ok=True)


def _request(store: Store, job: Job, settings: Settings) -> Request:
    folder = store.folder_of(job.id).absolute()
    names = {str(image.sequence): image.name for image in job.images}
    images = {m: str(image_path(folder, names[m])) for m in MODALITIES if m in names}
    volumes = f"/api/jobs/{job.id}/volumes/"
    return Request(str(folder), job.title, volumes, images, settings)


def _order(job: Job) -> tuple[Any, str]:
    return job.queued or job.created, job.id
