"""The store: jobs kept as folders, so that they survive a restart.

`DIR/jobs/ID/` contains `job.json`, `images/` and, once the job is done, `results/`. Uploads in progress and jobs being
deleted are in `DIR/partial/`, which is emptied at each start. So a job exists completely or not at all.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from gliomask.errors import InputError
from gliomask.files import clear_partials, one_writer, write_text
from gliomask.service.jobs import JOB_ID, UNFINISHED, Job, State
from gliomask.service.limits import Limits, RefusedError, storage_error

log = logging.getLogger(__name__)

_LARGEST_JOB_FILE = 1 << 20


class Store:
    """The jobs of one server, in a folder that only one server can use at a time."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        """Open a store, or create it. A new folder is readable by its owner only.

        Raises:
            InputError: The folder cannot be created or written to, or another server uses it.
        """
        self.limits = limits or Limits()
        self.folder = folder
        self._jobs_folder, self._partial = folder / "jobs", folder / "partial"
        self._guard = threading.RLock()
        self._held = ExitStack()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._held.enter_context(one_writer(folder))
            for place in (self._jobs_folder, self._partial):
                place.mkdir(exist_ok=True, mode=0o700)
            for left in self._partial.iterdir():
                _remove(left)
            clear_partials(folder)
            self._jobs = self._load()
        except OSError as error:
            self._held.close()
            raise InputError(f"{folder}: cannot be used as a store: {error.strerror or error}.") from error

    def close(self) -> None:
        """Release the folder for other servers."""
        self._held.close()

    def jobs(self) -> list[Job]:
        """Return all jobs, newest first. Does not wait for a change that is being written to the disk."""
        return sorted(self._jobs.copy().values(), key=lambda job: (job.created, job.id), reverse=True)

    def get(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            RefusedError: 404, there is no such job.
        """
        job = self._jobs.get(job_id)
        if job is None:
            raise RefusedError(404, "There is no such job, or it was deleted.")
        return job

    def folder_of(self, job_id: str) -> Path:
        """Return the folder of an existing job."""
        return self._jobs_folder / self.get(job_id).id

    @contextmanager
    def upload(self) -> Iterator[Path]:
        """Yield an empty folder to build a job in. Files that `add` has not taken over are deleted afterwards.

        Raises:
            RefusedError: 429, too many jobs are unfinished, or too many uploads are in progress.
        """
        with self._guard:
            waiting = sum(job.state in UNFINISHED for job in self._jobs.values())
            if waiting >= self.limits.waiting:
                raise RefusedError(429, f"{waiting} jobs are already waiting. Try again when some are done or deleted.")
            if sum(1 for _ in self._partial.iterdir()) >= self.limits.uploads_at_once:
                raise RefusedError(429, "Too many uploads are in progress. Try again in a minute.")
            place = self._partial / secrets.token_hex(16)
            place.mkdir(mode=0o700)
        try:
            yield place
        finally:
            _remove(place)

    def add(self, job: Job, built: Path) -> Job:
        """Add a job whose images are in `built/images`; the folder becomes the job's.

        Raises:
            RefusedError: 429, too many jobs are unfinished; 507, the job cannot be stored.
        """
        with self._guard:
            self._check_waiting()
            with _storing():
                _write(built, job)
                built.rename(self._jobs_folder / job.id)
            self._jobs[job.id] = job
        return job

    def change(self, job_id: str, *, only: Collection[State] = (), must_store: bool = True, **changes: Any) -> Job:
        """Change fields of a job, first on the disk and then in memory.

        Args:
            job_id: The job's id.
            only: The states in which the change is permitted; none: in any state.
            must_store: If false, the change is made in memory even if the disk is full. A restart then undoes it.
            changes: The new values by field.

        Raises:
            RefusedError: 404, there is no such job; 409, its state is not one of `only`; 507, it cannot be stored.
        """
        with self._guard:
            job = self.get(job_id)
            if only and job.state not in only:
                raise RefusedError(
                    409, f"The job is {job.state}; this is possible only when it is {' or '.join(only)}."
                )
            changed = Job.model_validate({**job.model_dump(), **changes})
            try:
                with _storing():
                    _write(self._jobs_folder / job_id, changed)
            except InputError as error:
                if must_store:
                    raise
                log.warning("job %s: its state %s could not be stored: %s", job_id, changed.state, error)
            self._jobs[job_id] = changed
            return changed

    def remove(self, job_id: str, *, only: Collection[State] = ()) -> None:
        """Delete a job with its images and results.

        Raises:
            RefusedError: As for `change`.
        """
        with self._guard:
            job = self.get(job_id)
            if only and job.state not in only:
                raise RefusedError(409, f"The job is {job.state}: cancel it first.")
            gone = self._partial / f"deleted-{secrets.token_hex(8)}"
            with suppress(FileNotFoundError), _storing():
                (self._jobs_folder / job_id).rename(gone)
            del self._jobs[job_id]
        _remove(gone)

    def check_there(self, job_id: str) -> None:
        """Check after writing to a job's folder that the job was not deleted meanwhile; if so, what was written is too.

        Raises:
            RefusedError: 404, it was deleted.
        """
        try:
            self.get(job_id)
        except RefusedError:
            if JOB_ID.fullmatch(job_id):
                _remove(self._jobs_folder / job_id)
            raise

    def deleted_on(self, job: Job) -> datetime:
        """Return when a job will be deleted automatically."""
        days, since = self.limits.keep_days, job.finished or job.created
        if job.state in ("uploaded", "checked"):
            days, since = min(self.limits.keep_unstarted_days, days), job.created
        try:
            return since + timedelta(days=days)
        except OverflowError:
            return datetime.max.replace(tzinfo=timezone.utc)

    def sweep(self, moment: datetime) -> int:
        """Delete the expired jobs that are neither queued nor running, and return their number.

        A job whose folder cannot be removed is kept and tried again at the next call.
        """
        old = [job for job in self.jobs() if job.state not in ("queued", "running") and self.deleted_on(job) <= moment]
        deleted = 0
        for job in old:
            try:
                self.remove(job.id, only=[job.state])
            except RefusedError as error:  # 404 or 409: it was started again or deleted meanwhile
                if error.status == 507:
                    log.warning("job %s cannot be deleted: %s", job.id, error)
                continue
            except OSError as error:
                log.warning("job %s cannot be deleted: %s", job.id, error)
                continue
            deleted += 1
        return deleted

    def _load(self) -> dict[str, Job]:
        found = {}
        for folder in self._jobs_folder.iterdir():
            if not JOB_ID.fullmatch(folder.name):
                continue
            try:
                job = _read(folder)
            except (OSError, ValueError, RecursionError) as error:  # a ValidationError is a ValueError
                log.warning("%s: its job.json is damaged; the folder is ignored and left as it is", folder)
                log.debug("%s: %s", folder, error)
                continue
            clear_partials(folder)
            found[job.id] = job
        return found

    def _check_waiting(self) -> None:
        with self._guard:
            waiting = sum(job.state in UNFINISHED for job in self._jobs.values())
        if waiting >= self.limits.waiting:
            raise RefusedError(429, f"{waiting} jobs are already waiting. Try again when some are done or deleted.")


@contextmanager
def _storing() -> Iterator[None]:
    """Turn an error that a full or read-only disk caused into a refusal with status 507."""
    try:
        yield
    except (InputError, OSError) as error:
        refused = storage_error(error)
        if refused is None:
            raise
        raise refused from error


def _read(folder: Path) -> Job:
    """Return the job of a folder; raises OSError or ValueError if its `job.json` is damaged or of another job."""
    with (folder / "job.json").open("rb") as file:
        content = file.read(_LARGEST_JOB_FILE + 1)
    if len(content) > _LARGEST_JOB_FILE:
        raise ValueError("the file is too large")
    job = Job.model_validate_json(content)
    if job.id != folder.name:
        raise ValueError(f"the file belongs to job {job.id}")
    return job


def _write(folder: Path, job: Job) -> None:
    write_text(folder / "job.json", Job.model_dump_json(job, indent=1) + "\n")


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)
