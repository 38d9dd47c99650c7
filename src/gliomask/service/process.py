"""A running job and its worker process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress

from gliomask.service.jobs import Job
from gliomask.service.messages import LONGEST_LINE, Message, read_message
from gliomask.service.progress import Progress
from gliomask.service.request import Request

# Not `-m`, which adds the current folder to the module search path: a file `nibabel.py` there would be executed.
# `-c` adds an empty string, which is removed before anything is imported. PYTHONPATH and the like still apply.
WORKER_COMMAND = (
    sys.executable,
    "-c",
    "import sys; sys.path[:1] = filter(None, sys.path[:1]); from gliomask.service.worker import main; main()",
)
"""The command of a worker process."""


class WorkerProcess:
    """A running job, the process that computes it, and its progress."""

    def __init__(
        self, job: Job, command: Sequence[str], request: Request, progress: Progress, *, minutes: float
    ) -> None:
        """Start the process.

        Args:
            job: The job.
            command: The command of the process.
            request: What it is asked to do.
            progress: Is updated with each message.
            minutes: When it is killed.

        Raises:
            OSError: The process cannot be started.
        """
        self.job = job
        self.progress = progress
        self.has_results = request.only_report
        self.is_done = False
        self._failed: str | None = None
        self._minutes = minutes
        self._is_late = False
        environment = {name: value for name, value in os.environ.items() if name != "GLIOMASK_TOKEN"}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._timer = threading.Timer(min(minutes * 60, threading.TIMEOUT_MAX), self._end_late)
        self._timer.daemon = True
        self._timer.start()
        assert self.process.stdin is not None
        with suppress(OSError):  # it has ended already, which `messages` notices
            self.process.stdin.write(request.to_json() + "\n")
            self.process.stdin.flush()

    def messages(self) -> Iterator[Message]:
        """Yield the messages of the process until it ends."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline(LONGEST_LINE):
            message = read_message(line)
            if message is not None:
                self._record(message)
                yield message
        with suppress(subprocess.TimeoutExpired):  # a process that closed its output cannot report anything more
            self.process.wait(timeout=5)

    def end(self) -> None:
        """End the process if it still runs, and release its resources."""
        self._timer.cancel()
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def kill(self) -> None:
        """End the process."""
        self.process.kill()

    def failure_reason(self) -> str:
        """Return the reason for the failure, for the user."""
        if self._failed is not None:
            return self._failed
        if self._is_late:
            return (
                f"The computation was ended because it took longer than {self._minutes:g} minutes, the server's limit."
            )
        if self.process.returncode < 0:
            return (
                f"The computation was ended from outside (signal {-self.process.returncode}); perhaps there is too "
                "little memory."
            )
        return "The computation ended unexpectedly. See the messages of the server."

    def _end_late(self) -> None:
        self._is_late = True
        self.process.kill()

    def _record(self, message: Message) -> None:
        if message.stage is not None:
            self.progress.update(message.stage, message.share)
        self.is_done = self.is_done or message.done
        self._failed = message.failed or self._failed
