"""SLURM with one node on this machine, for tests of clusters: Debian's slurm-wlm and munge, started in a folder."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo", "setpriv")
_PATH = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
# So that no daemon is left when the tests are killed.
_ENDS_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM")
_CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=1,sched_interval=2
MinJobAge=20
KillWait=30
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=60 State=UP OverSubscribe=FORCE:4
"""


def why_not() -> str | None:
    """Return why SLURM cannot be started here, or None if it can."""
    if not sys.platform.startswith("linux"):
        return "SLURM runs on Linux only"
    if missing := [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]:
        return f"not installed: {', '.join(missing)} (Debian's slurm-wlm and munge)"
    if os.geteuid() != 0:
        return "slurmd starts jobs as their users, and therefore runs as root only"
    return None


@dataclass(frozen=True)
class Slurm:
    """A running SLURM; `environment` is what its commands need."""

    environment: Mapping[str, str]

    def ask(self, *words: str) -> str:
        """Run one of its commands and return its output."""
        done = subprocess.run(
            words,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout

    def running(self) -> list[str]:
        """Return the numbers of the jobs that run now, the oldest first."""
        return self.ask("squeue", "--noheader", "--states=RUNNING", "--format=%A", "--sort=i").split()

    def wait_until_empty(self, seconds: float) -> None:
        """Return when no job is left."""
        _wait_for(lambda: not self.ask("squeue", "--noheader").strip(), seconds, "the queue is not empty")


@contextmanager
def one_node(folder: Path, cpus: int = 2) -> Iterator[Slurm]:
    """Start the daemons with all their files in a folder, give the running SLURM, and end jobs and daemons.

    Raises:
        AssertionError: It did not come up; the ends of its logs are in the message.
    """
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    facts = {"host": host, "ports": _free_ports(2), "folder": folder, "cpus": cpus, "memory": _memory_mb()}
    (folder / "slurm.conf").write_text(_CONFIG.format(**facts))
    environment = {**os.environ, "PATH": _PATH, "SLURM_CONF": str(folder / "slurm.conf")}
    munge = ["munged", "--foreground", "--force", f"--socket={folder / 'munge.socket'}", f"--key-file={key}"]
    munge += [f"--{name}-file={folder / f'munge.{name}'}" for name in ("log", "pid", "seed")]
    slurm = Slurm(environment)
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in (munge, ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-c"]):
            daemons.append(_start(command, environment, folder))
            if command is munge:
                _wait_for((folder / "munge.socket").exists, 20, "munged made no socket")
        _wait_for(lambda: "idle" in _state(slurm), 60, f"the node is not idle: {_ends_of_logs(folder)}")
        yield slurm
    finally:
        with suppress(AssertionError, subprocess.TimeoutExpired):
            slurm.ask("scancel", "--user=root")
            slurm.wait_until_empty(45)
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _start(command: list[str], environment: Mapping[str, str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / f"{command[0]}.out").open("wb") as said:
        program = shutil.which(command[0], path=_PATH)
        assert program is not None
        return subprocess.Popen(
            [*_ENDS_WITH_PARENT, program, *command[1:]],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )


def _state(slurm: Slurm) -> str:
    with suppress(AssertionError, subprocess.TimeoutExpired):
        return slurm.ask("sinfo", "--noheader", "--format=%t")
    return ""


def _wait_for(condition, seconds: float, otherwise: str) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.3)


def _ends_of_logs(folder: Path) -> str:
    return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-600:]}" for log in sorted(folder.glob("*.log")))


def _free_ports(count: int) -> list[int]:
    listeners = [socket.socket() for _ in range(count)]
    try:
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


def _memory_mb() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 - 64
