"""Where cases are worked on: the number of workers or the cluster, and what one case needs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from gliomask.errors import InputError
from gliomask.extras import missing_extra

_SCHEMES = ("tcp://", "tls://", "ucx://", "ucxx://", "ws://", "wss://", "inproc://")
_SETTINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Where:
    """Where cases are worked on; without `workers` and `cluster`, in this process.

    Raises:
        InputError: The cluster is neither the address of a scheduler nor a settings file that exists, or GPUs are
            asked for where no worker is started.
    """

    workers: int | None = None
    """The number of processes on this machine; with a settings file, the number of workers on the cluster."""
    cluster: str | None = None
    """The address of a Dask scheduler, such as `tcp://host:8786`, or a settings file of dask-jobqueue."""
    gpus_per_worker: int = 0
    """How many GPUs each worker has, for processes of this machine and jobs of SLURM; 0: nothing is said about them."""
    threads: int | None = None
    """How many processor threads one case uses; None: as many as a worker has."""
    at_once: int | None = None
    """In this process: how many cases at a time; by default one for each core."""
    alone: bool = False
    """On a cluster: one item at a time on each worker, which gives it all of its threads."""
    processes: bool = False
    """On this machine without workers: each case in a process of its own, instead of a thread."""

    def __post_init__(self) -> None:
        if self.gpus_per_worker and (self.is_here or self.is_address):
            raise InputError(
                "--gpus-per-worker goes with --workers or with a settings file of SLURM. The workers of a cluster that "
                "runs already have the GPUs that they were started with."
            )
        if self.cluster is None:
            return
        if self.is_address:
            _check_address(self.cluster)
            return
        if not self.cluster.lower().endswith(_SETTINGS):
            raise InputError(
                f"--cluster {self.cluster}: expected the address of a Dask scheduler, such as tcp://host:8786, or a "
                "settings file of dask-jobqueue, such as slurm.yaml."
            )
        if not Path(self.cluster).is_file():
            raise InputError(f"--cluster {self.cluster}: no such file.")

    def check_installed(self) -> None:
        """Refuse workers and clusters where Dask is not installed, before any work is done.

        Raises:
            InputError: As said.
        """
        if not self.is_here and find_spec("distributed") is None:
            raise missing_extra("--workers and --cluster need Dask", "cohort")

    @property
    def is_here(self) -> bool:
        """Whether cases are worked on by this program itself, without Dask."""
        return self.workers is None and self.cluster is None

    @property
    def is_address(self) -> bool:
        """Whether the cluster is one that runs already."""
        return self.cluster is not None and self.cluster.startswith(_SCHEMES)


def _check_address(cluster: str) -> None:
    """Refuse an address without host and port at once: Dask would wait for it."""
    try:
        parts = urlsplit(cluster)
        usable = bool(parts.hostname and parts.port) or parts.scheme == "inproc"
    except ValueError:
        usable = False
    if not usable:
        raise InputError(f"--cluster {cluster}: expected the host and port of a scheduler, such as tcp://host:8786.")


HERE = Where()
"""In threads of this process, one for each core."""
