"""The queue of jobs. One job runs at a time.

Each job runs in its own process, so a crash or a cancellation affects only that job.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from gliomask.cases import MODALITIES
from gliomask.service.ingest import image_path
from gliomask.service.jobs import STARTABLE, Job, now
from gliomask.service.limits import RefusedError
from gliomask.service.messages import Result
from gliomask.service.process import WORKER_COMMAND, WorkerProcess
from gliomask.service.progress import Estimate, Progress, read_expected, write_expected
from gliomask.service.request import MASK, PARTIAL, QUALITY, REPORT, RESULTS, Request, Settings
from gliomask.service.store import Store

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 2
"""A job during which the server ended this many times is not restarted automatically."""

_SWEEP_SECONDS = 600.0
_DURATIONS = "durations.json"
_OUTPUTS = (RESULTS, PARTIAL, REPORT, QUALITY)
_NO_RESULTS: dict[str, Any] = {"volumes_ml": None, "warnings": ()}


class Queue:
    """Run the queued jobs of a store in the order in which they were submitted."""

    def __init__(
        self,
        store: Store,
        settings: Settings | None = None,
        command: Sequence[str] = WORKER_COMMAND,
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
        self._running: WorkerProcess | None = None
        self._thread = threading.Thread(target=self._run, name="queue", daemon=True)

    def start(self) -> None:
        """Recover the jobs of an earlier server, and start the queue's thread.

        A job that was running when the server ended is run again first; after `MOST_ATTEMPTS` it is marked interrupted.
        A job whose results were complete keeps them, and only its report is made again.
        """
        for job in self._store.jobs():
            if job.state != "running":
                continue
            if job.attempts < MOST_ATTEMPTS:
                self._store.change(job.id, must_store=False, state="queued")
            elif self._has_results(job):
                text = f"The report is missing: the server ended {job.attempts} times during this job."
                self._store.change(job.id, must_store=False, state="done", error=text, finished=now())
            else:
                text = f"The server ended {job.attempts} times during this job. Perhaps there is too little memory."
                self._store.change(
                    job.id, must_store=False, state="interrupted", error=text, finished=now(), **_NO_RESULTS
                )
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
        """Add a job to the end of the queue. Of a job that is done but has no report, only the report is made again.

        Raises:
            RefusedError: 404, there is no such job; 409, it has problems or was already started; 507, the disk is full.
        """
        with self._change:
            job = self._store.get(job_id)
            only_report = job.state == "done" and job.error is not None
            job = self._store.change(
                job_id,
                only=(job.state,) if only_report else STARTABLE,
                state="queued",
                queued=now(),
                attempts=0,
                error=None,
                started=None,
                finished=None,
                **({} if only_report else _NO_RESULTS),
            )
            self._change.notify_all()
            return job

    def cancel(self, job_id: str) -> Job:
        """Remove a job from the queue, or kill its process. Results that are complete are kept, without a report.

        Raises:
            RefusedError: 404, there is no such job; 409, it is neither queued nor running.
        """
        with self._change:
            if self._has_results(self._store.get(job_id)):
                changes: dict[str, Any] = {"state": "done", "error": "The report was cancelled."}
            else:
                changes = {"state": "cancelled", **_NO_RESULTS}
            job = self._store.change(job_id, only=("queued", "running"), must_store=False, finished=now(), **changes)
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
        expected = read_expected(self._store.folder / _DURATIONS)
        each = sum(seconds for stage, seconds in expected.items() if job.raw or stage != "prepare")
        running = self._running
        return (running.progress.estimate().seconds_left if running is not None else 0.0) + place * each

    @property
    def process_id(self) -> int | None:
        """The process id of the running worker, or None."""
        return self._running.process.pid if self._running is not None else None

    def _run(self) -> None:
        swept = 0.0
        while True:
            try:
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
                self._follow(running)
            except Exception:  # the thread must go on, or no later job would ever be computed
                log.exception("the queue continues after an unexpected error")
                time.sleep(1)

    def _follow(self, running: WorkerProcess) -> None:
        """Wait until a process ends, and store what it reports."""
        try:
            for message in running.messages():
                if message.ready is not None:
                    self._store_results(running, message.ready)
        finally:
            running.end()
            with self._change:
                self._running = None
                self._finish(running)

    def _start_next(self) -> WorkerProcess | None:
        """Start the next job; a job that cannot be started is marked as failed and skipped."""
        for job in sorted((job for job in self._store.jobs() if job.state == "queued"), key=_queue_order):
            try:
                self._running = self._start_worker(job)
                return self._running
            except Exception as error:  # no process can be started, or the disk is full
                log.warning("job %s: could not be started: %s", job.id, error)
                text = "The job could not be started. See the messages of the server."
                with suppress(RefusedError):
                    self._fail(job, text)
        return None

    def _start_worker(self, job: Job) -> WorkerProcess:
        only_report = self._has_results(job)
        job = self._store.change(
            job.id,
            only=["queued"],
            state="running",
            started=now(),
            attempts=job.attempts + 1,
            **({} if only_report else _NO_RESULTS),
        )
        _remove_outputs(self._store.folder_of(job.id), (PARTIAL, REPORT, QUALITY) if only_report else _OUTPUTS)
        request = replace(_request(self._store, job, self._settings), only_report=only_report)
        expected = read_expected(self._store.folder / _DURATIONS)
        progress = Progress({stage: s for stage, s in expected.items() if job.raw or stage != "prepare"})
        return WorkerProcess(job, self._command, request, progress, minutes=self._store.limits.job_minutes)

    def _has_results(self, job: Job) -> bool:
        """Return whether the mask and the other results of a job are complete."""
        return job.volumes_ml is not None and (self._store.folder_of(job.id) / RESULTS / MASK).is_file()

    def _store_results(self, running: WorkerProcess, found: Result) -> None:
        """Store the volumes and warnings, so that the result is visible while the report is made."""
        try:
            self._store.change(running.job.id, only=["running"], must_store=False, **found.model_dump())
        except RefusedError:  # the job was cancelled or deleted
            running.kill()

    def _finish(self, running: WorkerProcess) -> None:
        """Store the final state of a job whose process has ended."""
        with suppress(RefusedError):  # the job was deleted
            job = self._store.get(running.job.id)
            if job.state != "running":
                _remove_outputs(self._store.folder_of(job.id), (PARTIAL,) if self._has_results(job) else _OUTPUTS)
            elif self._stopping and not running.is_done:
                self._store.change(job.id, must_store=False, state="queued", attempts=running.job.attempts - 1)
            elif not self._has_results(job):
                self._fail(job, running.failure_reason())
            elif running.is_done:
                taken = running.progress.finish()
                path = self._store.folder / _DURATIONS
                write_expected(path, {**read_expected(path), **taken})
                seconds = round(sum(taken.values()), 2)
                self._store.change(job.id, must_store=False, state="done", finished=now(), seconds=seconds)
            else:
                _remove_outputs(self._store.folder_of(job.id), (PARTIAL, REPORT, QUALITY))
                text = f"The report could not be made. {running.failure_reason()}"
                self._store.change(job.id, must_store=False, state="done", error=text, finished=now())

    def _fail(self, job: Job, reason: str) -> None:
        self._store.change(job.id, must_store=False, state="failed", error=reason, finished=now(), **_NO_RESULTS)
        _remove_outputs(self._store.folder_of(job.id), _OUTPUTS)


def _remove_outputs(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        if name in (REPORT, QUALITY):
            (folder / name).unlink(missing_ok=True)
        else:
            shutil.rmtree(folder / name, ignore_errors=True)


def _request(store: Store, job: Job, settings: Settings) -> Request:
    folder = store.folder_of(job.id).absolute()
    names = {str(image.sequence): image.name for image in job.images}
    images = {m: str(image_path(folder, names[m])) for m in MODALITIES if m in names}
    volumes = f"/api/jobs/{job.id}/volumes/"
    models = tuple(str(Path(path).absolute()) for path in settings.models)
    return Request(str(folder), job.title, volumes, images, replace(settings, models=models), raw=job.raw)


def _queue_order(job: Job) -> tuple[Any, str]:
    return job.queued or job.created, job.id
