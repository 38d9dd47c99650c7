"""Dask clusters: processes on this machine, one that runs already, or jobs of a queueing system."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gliomask.errors import InputError, describe
from gliomask.execution.cores import usable_cores
from gliomask.execution.outcome import ClusterLostError
from gliomask.execution.where import Where
from gliomask.extras import missing_extra

if TYPE_CHECKING:
    from distributed import Client

    from gliomask.execution.worker import Share, Sharing

log = logging.getLogger(__name__)

_JOBQUEUE = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "oar": "OARCluster",
    "htcondor": "HTCondorCluster",
    "moab": "MoabCluster",
}
# How often a worker may be lost with a case before the case is put off; a scheduler that runs already has its own rule.
_ALLOWED_FAILURES = 1
_CONNECT_SECONDS = 20
_LEAST_MEMORY = 500_000_000
"""Bytes that a worker of this machine must have: a worker with less is ended in each case, again and again."""
# Loggers that report what is expected here. Dask gives some of those below a level of their own.
_LOUD = ("distributed", "distributed.client", "tornado", "tornado.application", "asyncio", "dask_jobqueue")
_PATIENCE_SECONDS = 30
"""How long a cluster may have no worker before it is said."""
# What a setting is called elsewhere, such as in the options of sbatch, and here.
_CALLED = {"partition": "queue", "time": "walltime", "cpus": "cores", "cpus-per-task": "cores", "mem": "memory"}


class Opened:
    """The client of a cluster, and what is known of its workers."""

    def __init__(self, client: Client, where: Where, refusals: list[str]) -> None:
        self.client = client
        self._where = where
        self._refusals = refusals
        self._had_workers = False
        self._alone_since: float | None = time.monotonic()

    def slots(self) -> int:
        """Return how many items all workers together work on at a time, at most; 0 where there is no worker now.

        Without workers for half a minute, this is said, once each time.

        Raises:
            InputError: There is no worker, and the queueing system refused the jobs.
            ClusterLostError: The same, but there were workers before, so some items may be done.
        """
        found = sum(worker["nthreads"] for worker in self.client.scheduler_info(n_workers=-1)["workers"].values())
        if found:
            self._had_workers = True
            self._alone_since = time.monotonic()
            return int(found)
        if self._refusals:
            text = f"{_named(self._where)}: the queueing system refused a job: {self._refusals[-1]}."
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
        refusals: list[str] = []
        try:
            if where.is_address:
                cluster, sharing = where.cluster, Sharing(share, None, own=False)
            elif where.cluster is None:
                cluster, sharing = _own_processes(where, share)
                stack.enter_context(cluster)
            else:
                cluster, sharing = _queue(_read_settings(where.cluster), where, share, stack, refusals)
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
        yield Opened(client, where, refusals)


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
    try:
        cluster = LocalCluster(
            n_workers=number,
            threads_per_worker=1,
            processes=True,
            memory_limit=MEMORY_LIMIT // number,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )
    except RuntimeError as error:
        raise InputError(
            f"--workers {number}: a process of a worker ended while it was being started. Too little memory? Run the "
            "same command again, with fewer workers."
        ) from error
    cores = max(1, usable_cores() // number)
    return cluster, Sharing(share, cores, own=True, gpus=where.gpus_per_worker, together=number)


def _queue(
    settings: Mapping[str, Any], where: Where, share: Share, stack: ExitStack, refusals: list[str]
) -> tuple[Any, Sharing]:
    """Return the cluster of a settings file, whose workers are jobs of the queueing system, and what they are told.

    Args:
        settings: See `_read_settings`.
        where: The number of workers, and their GPUs.
        share: What each worker is given.
        stack: Ends what must last as long as the cluster.
        refusals: Grows while the cluster is there: what the queueing system says of each job that it refuses.
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
    kind = _class("dask_jobqueue", _JOBQUEUE[queue], "dask-jobqueue", str(where.cluster))  # it adds its own defaults
    known = [_spelled(name) for name in dask.config.get(f"jobqueue.{queue}")]
    _check_names(f"{where.cluster}: jobqueue.{queue}", settings["jobqueue"][queue], known)
    merged = dask.config.merge(dask.config.get("jobqueue"), settings["jobqueue"])
    stack.enter_context(dask.config.set(jobqueue=merged))  # until the end, as each job reads them
    given = partial(dask.config.get, default=None)
    _check_settings(f"{where.cluster}: jobqueue.{queue}", merged[queue])
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
    cluster = kind(**options, job_cls=_noting(kind.job_cls, refusals))
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


def _spelled(name: str) -> str:
    return name.replace("_", "-")  # Dask reads both


def _check_names(where: str, settings: Mapping[str, Any], known: list[str]) -> None:
    """Refuse settings that dask-jobqueue does not have; it would ignore them.

    Raises:
        InputError: As said, with the setting that was probably meant.
    """
    for name in settings:
        if _spelled(str(name)) in known:
            continue
        close = get_close_matches(_CALLED.get(_spelled(str(name)), str(name)), known, n=1)
        hint = f"; do you mean {close[0]}?" if close else "."
        raise InputError(
            f"{where}: {name} is not a setting of dask-jobqueue{hint} There are {', '.join(sorted(known))}."
        )


def _check_settings(where: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings with which no job can work, naming the field; Dask says of most of them nothing that helps.

    Args:
        where: The file and the section, for messages.
        settings: The section, with the site's and Dask's own values where the file has none.

    Raises:
        InputError: As said.
    """
    for field in ("cores", "processes"):
        value = settings.get(field)
        if (value is not None or field == "cores") and (type(value) is not int or value < 1):
            given = "is missing" if value is None else f"is {value!r}"
            raise InputError(f"{where}: {field} {given}; give a whole number of 1 or more, such as {field}: 4.")
    if settings.get("memory") is None:
        raise InputError(f"{where}: memory is missing; give that of a job, such as memory: 8GB.")
    if (settings.get("processes") or 1) > settings["cores"]:
        raise InputError(
            f"{where}: {settings['processes']} processes share {settings['cores']} cores; ask for more cores."
        )
    if isinstance(settings.get("walltime"), int):  # YAML reads 10:00:00 as a number to the base of 60
        raise InputError(f"{where}: walltime is a number; write the time in quotes, such as walltime: '04:00:00'.")
    for field in ("job-extra-directives", "worker-extra-args", "job-script-prologue"):
        value = settings.get(field)
        if value is not None and not isinstance(value, list):
            raise InputError(f"{where}: {field} is {value!r}; give a list, each entry on a line that begins with '- '.")


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


def _read_settings(path: str) -> dict[str, Any]:
    """Return a settings file in the form that dask-jobqueue documents: `jobqueue: {slurm: {cores: 4, ...}}`.

    Raises:
        InputError: It is not YAML, or does not name exactly one queueing system.
    """
    import yaml

    known = f"jobqueue: with one of {', '.join(_JOBQUEUE)}; or kubernetes:"
    try:
        found = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}.") from error
    if isinstance(found, dict) and isinstance(found.get("kubernetes"), dict):
        return dict(found)
    queues = found.get("jobqueue") if isinstance(found, dict) else None
    if isinstance(queues, dict) and (others := [str(name) for name in found if name != "jobqueue"]):
        raise InputError(
            f"{path}: {', '.join(others)}: only jobqueue: is read from this file. The rest belongs into Dask's own "
            "configuration, such as ~/.config/dask/distributed.yaml."
        )
    if not isinstance(queues, dict) or len(queues) != 1 or not set(queues) <= set(_JOBQUEUE):
        raise InputError(f"{path}: expected dask-jobqueue's settings ({known}).")
    [queue] = queues
    if not isinstance(queues[queue], dict):
        raise InputError(f"{path}: jobqueue.{queue}: expected settings such as cores and memory.")
    return dict(found)


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
