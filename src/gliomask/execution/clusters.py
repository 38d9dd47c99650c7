"""Dask clusters: processes on this machine, one that runs already, or jobs of a queueing system."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from gliomask.errors import InputError, describe
from gliomask.execution.cores import usable_cores
from gliomask.execution.outcome import ClusterLostError
from gliomask.execution.queue_settings import JOBQUEUE, check_names, check_settings, read_settings
from gliomask.execution.threads import started_whole
from gliomask.execution.where import Where
from gliomask.extras import missing_extra

if TYPE_CHECKING:
    from distributed import Client

    from gliomask.execution.worker import Share, Sharing

log = logging.getLogger(__name__)

# How often a worker may be lost with a case before the case is put off; a scheduler that runs already has its own rule.
_ALLOWED_FAILURES = 1
_CONNECT_SECONDS = 20
_LEAST_MEMORY = 500_000_000
"""Bytes that a worker of this machine must have: a worker with less is ended in each case, again and again."""
# Loggers that report what is expected here. Dask gives some of those below a level of their own.
_LOUD = ("distributed", "distributed.client", "tornado", "tornado.application", "asyncio", "dask_jobqueue")
_PATIENCE_SECONDS = 30
"""How long a cluster may have no worker before it is said."""


@dataclass
class Jobs:
    """The jobs of a queueing system that are the workers."""

    wanted: int = 0
    refusals: list[str] = field(default_factory=list)
    """What the queueing system said of each job that it refused; grows while the cluster is there."""


class Opened:
    """The client of a cluster, and what is known of its workers."""

    def __init__(self, client: Client, where: Where, jobs: Jobs) -> None:
        self.client = client
        self._where = where
        self._jobs = jobs
        self._told_refusals = 0
        self._had_workers = False
        self._alone_since: float | None = time.monotonic()

    def slots(self) -> int:
        """Return how many items all workers together work on at a time, at most; 0 where there is no worker now.

        Without workers for half a minute, this is said, once each time, and so is a job that is refused.

        Raises:
            InputError: There is no worker, and the queueing system refused all jobs.
            ClusterLostError: The same, but there were workers before, so some items may be done.
        """
        for words in self._jobs.refusals[self._told_refusals : self._jobs.wanted - 1]:
            log.warning("%s: the queueing system refused a job, and the others go on: %s.", _named(self._where), words)
            self._told_refusals += 1
        found = sum(worker["nthreads"] for worker in self.client.scheduler_info(n_workers=-1)["workers"].values())
        if found:
            self._had_workers = True
            self._alone_since = time.monotonic()
            return int(found)
        refusals = self._jobs.refusals
        if refusals and len(refusals) >= self._jobs.wanted:
            text = f"{_named(self._where)}: the queueing system refused a job: {refusals[-1]}."
            if self._had_workers:
                raise ClusterLostError(
                    f"{text} No other worker is left. What is written is complete and kept; run the same command again "
                    "and the rest is done."
                )
            raise InputError(f"{text} Correct the settings, or try again when it accepts jobs.")
        if self._alone_since is not None and time.monotonic() - self._alone_since > _PATIENCE_SECONDS:
            self._alone_since = None
            log.warning("%s", self._waiting())
        return 0

    def _waiting(self) -> str:
        named = f"{_named(self._where)}: there is no worker {'any more' if self._had_workers else 'yet'}"
        if self._where.is_address:
            return f"{named}; this program waits. Start one with dask worker {self._where.cluster}, or end with Ctrl-C."
        if self._where.cluster is None:
            return f"{named}; this program waits until one has started."
        return (
            f"{named}; this program waits for its jobs. Look whether they are still in the queue (squeue, qstat, "
            "bjobs) or end at once (their logs tell why; set log-directory in the settings). Ctrl-C ends this program "
            "and cancels its jobs."
        )


@contextmanager
def opened_client(where: Where) -> Iterator[Opened]:
    """Give the cluster that is meant, with a client; what was started for it is stopped at the end.

    Raises:
        InputError: A package is missing, the scheduler does not answer, or the settings file cannot be used.
    """
    where.check_installed()
    import dask
    from distributed import Client
    from distributed.comm.core import CommClosedError

    from gliomask.execution.worker import Share, Sharing

    quiet = {
        "distributed.scheduler.allowed-failures": _ALLOWED_FAILURES,
        "distributed.admin.low-level-log-length": 0,
        "logging": {"distributed": "critical", "tornado": "critical"},
    }
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(quiet))
        for name in _LOUD:
            stack.enter_context(_quiet(name))
        share = Share(where.threads, alone=where.alone)
        jobs = Jobs()
        try:
            if where.is_address:
                cluster, sharing = where.cluster, Sharing(share, None, own=False)
            elif where.cluster is None:
                cluster, sharing = _own_processes(where, share)
                stack.enter_context(cluster)
            else:
                cluster, sharing = _queue(read_settings(where.cluster), where, share, stack, jobs)
                stack.callback(_close, cluster)
            client = stack.enter_context(Client(cluster, timeout=_CONNECT_SECONDS, set_as_default=False))
            client.register_plugin(sharing)
        except CommClosedError as error:
            raise InputError(f"{_named(where)}: the scheduler ended while this program connected to it.") from error
        except OSError as error:
            if not where.is_address:
                raise InputError(f"{_named(where)}: {describe(error)}.") from error
            raise InputError(
                f"{_named(where)}: no Dask scheduler answers there ({' '.join(str(error).split())}). Start it with "
                "dask scheduler, or correct the address."
            ) from error
        except (ValueError, TypeError, RuntimeError) as error:
            raise InputError(f"{_named(where)}: {str(error).rstrip('.')}.") from error
        yield Opened(client, where, jobs)


def _named(where: Where) -> str:
    return f"--cluster {where.cluster}" if where.cluster else f"--workers {where.workers}"


def _own_processes(where: Where, share: Share) -> tuple[Any, Sharing]:
    from distributed import LocalCluster
    from distributed.system import MEMORY_LIMIT

    from gliomask.execution.worker import Sharing, own_gpus

    number = where.workers or usable_cores()
    if MEMORY_LIMIT // number < _LEAST_MEMORY:
        raise InputError(
            f"--workers {number}: each would have {MEMORY_LIMIT / number / 1e9:.2f} GB of memory. Use at most "
            f"{max(1, MEMORY_LIMIT // _LEAST_MEMORY)}; more than one for each core ({usable_cores()}) gain nothing."
        )
    if where.gpus_per_worker:
        # Refuses too few GPUs before anything is started.
        own_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"), number - 1, where.gpus_per_worker)
    start = partial(
        LocalCluster,
        n_workers=number,
        threads_per_worker=1,
        processes=True,
        memory_limit=MEMORY_LIMIT // number,
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    )
    try:
        # Dask cannot close a cluster that is half started, and would print a traceback when the program ends.
        cluster = started_whole(start, lambda begun: begun.close())
    except RuntimeError as error:
        raise InputError(
            f"--workers {number}: a process of a worker ended while it was being started. Too little memory? Run the "
            "same command again, with fewer workers."
        ) from error
    cores = max(1, usable_cores() // number)
    return cluster, Sharing(share, cores, own=True, gpus=where.gpus_per_worker, together=number)


def _queue(
    settings: Mapping[str, Any], where: Where, share: Share, stack: ExitStack, jobs: Jobs
) -> tuple[Any, Sharing]:
    """Return the cluster of a settings file, whose workers are jobs of the queueing system, and what they are told.

    Args:
        settings: See `read_settings`.
        where: The number of workers, and their GPUs.
        share: What each worker is given.
        stack: Ends what must last as long as the cluster.
        jobs: What becomes of its jobs is noted there.
    """
    import dask
    from distributed.deploy.utils import nprocesses_nthreads

    from gliomask.execution.worker import Sharing

    number = where.workers or 1
    if where.gpus_per_worker and "slurm" not in settings.get("jobqueue", {}):
        raise InputError(
            "--gpus-per-worker is for SLURM and for processes of this machine. Ask for GPUs in the settings file, as "
            "your queueing system wants it (job-extra-directives, resource-spec)."
        )
    if "kubernetes" in settings:
        kind = _class("dask_kubernetes.operator", "KubeCluster", "dask-kubernetes", str(where.cluster))
        cluster = kind(**{"n_workers": number, **settings["kubernetes"]})
        return cluster, Sharing(share, None, own=False)
    [queue] = settings["jobqueue"]
    kind = _class("dask_jobqueue", JOBQUEUE[queue], "dask-jobqueue", str(where.cluster))  # it adds its own defaults
    check_names(f"{where.cluster}: jobqueue.{queue}", settings["jobqueue"][queue], dask.config.get(f"jobqueue.{queue}"))
    merged = dask.config.merge(dask.config.get("jobqueue"), settings["jobqueue"])
    stack.enter_context(dask.config.set(jobqueue=merged))  # until the end, as each job reads them
    given = partial(dask.config.get, default=None)
    check_settings(f"{where.cluster}: jobqueue.{queue}", merged[queue])
    cores = int(given(f"jobqueue.{queue}.cores"))
    processes = int(given(f"jobqueue.{queue}.processes") or nprocesses_nthreads(cores)[0])
    threads = max(1, cores // processes)
    at_once = share.at_once(threads)
    extra = [*(given(f"jobqueue.{queue}.worker-extra-args") or []), "--nthreads", str(at_once)]
    # Any free port for the dashboard: two programs on one host would meet at Dask's usual one.
    scheduler = {"dashboard_address": ":0", **(given(f"jobqueue.{queue}.scheduler-options") or {})}
    options: dict[str, Any] = {"worker_extra_args": extra, "scheduler_options": scheduler}
    if where.gpus_per_worker:
        directives = given("jobqueue.slurm.job-extra-directives") or []
        options["job_extra_directives"] = [*directives, f"--gres=gpu:{where.gpus_per_worker * processes}"]
    jobs.wanted = -(-number // processes)
    cluster = kind(**options, job_cls=_noting(kind.job_cls, jobs.refusals))
    cluster.adapt(minimum=number, maximum=number)  # a job that ends is replaced
    return cluster, Sharing(share, threads, own=False, gpus=where.gpus_per_worker, together=processes)


def _noting(job: Any, refusals: list[str]) -> Any:
    """Return a class of jobs that also notes why one is refused: Dask logs that, and waits for the worker."""

    from distributed.core import Status

    class NotedJob(job):  # type: ignore[misc]  # a class known only when the package is there
        async def start(self) -> None:
            try:
                await super().start()
            except Exception as error:  # the command fails (its words follow "stderr:"), is missing or is misunderstood
                said = str(error).rpartition("stderr:")[2] if "stderr:" in str(error) else describe(error)
                refusals.append(" ".join(said.split()).rstrip(".") or describe(error))
                self.status = Status.failed  # without it the cluster cannot be closed
                raise

    return NotedJob


def _class(module: str, name: str, package: str, path: str) -> Any:
    if find_spec(module.partition(".")[0]) is None:
        if package == "dask-jobqueue":
            raise missing_extra(f"{path} needs {package}", "cohort")
        raise InputError(f"{path} needs {package}: pip install {package}")
    before = signal.getsignal(signal.SIGINT)
    try:
        return getattr(import_module(module), name)
    finally:
        # dask_jobqueue takes Ctrl-C over when it is imported, and would end the program with status 0.
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _close(cluster: Any) -> None:
    """Close the cluster of a queueing system, which cancels its jobs."""
    with suppress(AssertionError):  # Dask's, where a job could not be submitted; it would hide what ended the work
        cluster.close()


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Let a library log what ends the work only: it reports every worker that is lost, which is expected here."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL if not os.environ.get("DASK_LOGGING__DISTRIBUTED") else before)
    try:
        yield
    finally:
        logger.setLevel(before)
