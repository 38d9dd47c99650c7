"""What workers are given: GPUs of their own, the memory of their share, and jobs of every queueing system."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from gliomask.errors import InputError
from gliomask.execution import ClusterLostError, Where, map_cases

pytest.importorskip("distributed")

DIRECTIVES = {
    "pbs": ("-l select=1:ncpus=4:mem=", "-l walltime=04:00:00", "-q normal", "#PBS --mine"),
    "sge": ("-q normal", "-l h_rt=04:00:00", "#$ --mine"),
    "lsf": ("-q normal", "-n 4", "-W 04:00", "#BSUB --mine"),
    "slurm": ("-p normal", "--cpus-per-task=4", "--mem=8G", "-t 04:00:00", "#SBATCH --mine"),
}


@pytest.mark.parametrize("queue", DIRECTIVES)
@pytest.mark.parametrize("processes", [1, 2])
def test_a_settings_file_becomes_a_job_of_each_queueing_system(
    queue: str, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script of a job asks for what the file says, and its workers take as many cases at a time as is said here."""
    core = pytest.importorskip("dask_jobqueue.core")
    from gliomask.execution.clusters import Jobs, _queue
    from gliomask.execution.queue_settings import read_settings
    from gliomask.execution.worker import Share

    asked: list[object] = []
    monkeypatch.setattr(core.JobQueueCluster, "adapt", lambda _, **limits: asked.append(limits))  # submits nothing
    walltime = "04:00" if queue == "lsf" else "04:00:00"
    settings = tmp_path / "queue.yaml"
    settings.write_text(
        f"jobqueue:\n  {queue}:\n    queue: normal\n    cores: 4\n    processes: {processes}\n    memory: 8GB\n"
        f'    walltime: "{walltime}"\n    interface: lo\n    job-extra-directives: ["--mine"]\n'
    )
    where = Where(workers=3, cluster=str(settings))
    with ExitStack() as stack:
        cluster, sharing = _queue(read_settings(str(settings)), where, Share(alone=True), stack, Jobs())
        stack.enter_context(cluster)
        script = cluster.job_script()
    assert all(text in script for text in DIRECTIVES[queue]), script
    assert f"--nworkers {processes}" in script or processes == 1
    assert script.rindex("--nthreads 1") > script.rindex("dask_worker")
    assert (sharing.cores, asked) == (4 // processes, [{"minimum": 3, "maximum": 3}])


def test_gpus_are_asked_of_slurm_and_shared_by_the_processes_of_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other queueing systems, and clusters that run already, are asked for GPUs where they are set up."""
    core = pytest.importorskip("dask_jobqueue.core")
    from gliomask.execution.clusters import Jobs, _queue
    from gliomask.execution.queue_settings import read_settings
    from gliomask.execution.worker import Share

    monkeypatch.setattr(core.JobQueueCluster, "adapt", lambda *_, **__: None)
    settings = tmp_path / "slurm.yaml"
    settings.write_text("jobqueue: {slurm: {cores: 4, processes: 2, memory: 8GB, interface: lo}}\n")
    with ExitStack() as stack:
        cluster, sharing = _queue(read_settings(str(settings)), Where(2, str(settings), 1), Share(), stack, Jobs())
        stack.enter_context(cluster)
        assert "--gres=gpu:2" in cluster.job_script()
    assert (sharing.gpus, sharing.together) == (1, 2)
    settings.write_text("jobqueue: {pbs: {cores: 4, memory: 8GB}}\n")
    with pytest.raises(InputError, match="is for SLURM"):
        list(map_cases(gpus_of, [1], Where(2, str(settings), 1)))
    for refused in (("tcp://somewhere:8786", 1), (None, 1)):
        with pytest.raises(InputError, match="goes with --workers"):
            Where(None, *refused)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("memory: 8GB", "cores is missing"),
        ("cores: 0, memory: 8GB", "cores is 0"),
        ("cores: four, memory: 8GB", "cores is 'four'"),
        ("cores: 4", "memory is missing"),
        ("cores: 1, processes: 4, memory: 8GB", "4 processes share 1 cores"),
        ("cores: 4, memory: 8GB, walltime: 10:00:00", "write the time in quotes"),
        ("cores: 4, memory: 8GB, job-extra-directives: --mine", "job-extra-directives is '--mine'; give a list"),
        ("cores: 4, memory: 8GB, worker-extra-args: --mine", "worker-extra-args is '--mine'; give a list"),
        (
            "cores: 4, memory: 8GB, partition: gpu",
            "partition is not a setting of dask-jobqueue; do you mean queue? The",
        ),
        (
            "cores: 4, memory: 8GB, wall_tim: '1:00'",
            "wall_tim is not a setting of dask-jobqueue; do you mean walltime?",
        ),
    ],
)
def test_settings_with_which_no_job_can_work_are_refused_by_name(settings: str, told: str, tmp_path: Path) -> None:
    """Before anything is submitted."""
    pytest.importorskip("dask_jobqueue")
    file = tmp_path / "slurm.yaml"
    file.write_text(f"jobqueue: {{slurm: {{interface: lo, {settings}}}}}\n")
    with pytest.raises(InputError, match=r"slurm\.yaml: jobqueue\.slurm: ") as refused:
        list(map_cases(gpus_of, [1], Where(1, str(file))))
    assert told in str(refused.value)


def test_other_sections_of_a_settings_file_are_refused_by_name(tmp_path: Path) -> None:
    """They would not be used."""
    pytest.importorskip("dask_jobqueue")
    file = tmp_path / "slurm.yaml"
    file.write_text("jobqueue: {slurm: {cores: 1, memory: 2GB}}\ndistributed: {worker: {}}\n")
    with pytest.raises(InputError, match=r"slurm\.yaml: distributed: only jobqueue: is read"):
        list(map_cases(gpus_of, [1], Where(1, str(file))))


@pytest.mark.skipif(os.name == "nt", reason="the commands of a queueing system are shell scripts here")
@pytest.mark.parametrize(
    ("sbatch", "told"),
    [
        ("echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1", "invalid partition specified: gpu"),
        ("echo accepted without a number", "Could not parse job id"),
        (None, "sbatch"),
    ],
)
def test_a_refused_job_ends_the_work_with_the_words_of_the_queueing_system(
    sbatch: str | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask logs it, and waits for a worker that cannot come."""
    pytest.importorskip("dask_jobqueue")
    commands = tmp_path / "commands"
    commands.mkdir()
    if sbatch is not None:
        (commands / "sbatch").write_text(f"#!/bin/sh\n{sbatch}\n")
        (commands / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(commands))
    file = tmp_path / "slurm.yaml"
    file.write_text("jobqueue: {slurm: {interface: lo, cores: 1, memory: 2GB}}\n")
    with pytest.raises(InputError, match="the queueing system refused a job: ") as refused:
        list(map_cases(gpus_of, [1, 2], Where(2, str(file))))
    assert told in str(refused.value)


def test_a_cluster_without_workers_is_told_once_each_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not that one is there only after a while; a refused job is told only where no worker is left."""
    from gliomask.execution import clusters

    workers: dict[str, dict[str, int]] = {}
    client = SimpleNamespace(scheduler_info=lambda n_workers: {"workers": workers})
    clock = [0.0]
    monkeypatch.setattr(clusters, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    jobs = clusters.Jobs(wanted=2)
    opened = clusters.Opened(client, Where(cluster="tcp://host:8786"), jobs)  # type: ignore[arg-type]
    counts = []
    for clock[0], threads in [(10, 0), (29, 0), (31, 0), (90, 0), (91, 2), (100, 0), (130, 0), (140, 0)]:
        workers.clear()
        if threads:
            workers["a"] = {"nthreads": threads}
        assert opened.slots() == threads
        counts.append(len(caplog.records))
    assert counts == [0, 0, 1, 1, 1, 1, 2, 2]
    texts = [record.getMessage() for record in caplog.records]
    assert "no worker yet" in texts[0]
    assert "no worker any more" in texts[1]
    for _ in range(2):
        jobs.refusals[:] = ["sbatch: error: no account"]
        assert opened.slots() == 0
    assert "refused a job, and the others go on: sbatch: error: no account" in caplog.records[2].getMessage()
    assert len(caplog.records) == 3
    jobs.refusals.append("sbatch: error: no account")
    workers["a"] = {"nthreads": 1}
    assert opened.slots() == 1
    workers.clear()
    with pytest.raises(ClusterLostError, match="no account"):
        opened.slots()


@pytest.mark.parametrize("address", ["tcp://", "tcp://host", "tcp://host:port", "tls://:8786"])
def test_an_address_without_host_and_port_is_refused_at_once(address: str) -> None:
    """Dask would wait for it."""
    with pytest.raises(InputError, match="expected the host and port"):
        Where(cluster=address)


def test_more_workers_than_the_memory_allows_are_refused() -> None:
    """With the number that it allows; nothing is started."""
    with pytest.raises(InputError, match="Use at most"):
        list(map_cases(gpus_of, [1], Where(workers=100_000)))


def test_reading_the_package_of_queueing_systems_leaves_ctrl_c_as_it_was() -> None:
    """dask_jobqueue sets a handler of its own when it is imported, which ends a program with status 0."""
    pytest.importorskip("dask_jobqueue")
    code = (
        "import signal; from gliomask.execution.clusters import _class; before = signal.getsignal(signal.SIGINT); "
        "_class('dask_jobqueue', 'SLURMCluster', 'dask-jobqueue', 'a.yaml'); "
        "assert signal.getsignal(signal.SIGINT) is before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def gpus_of(_: int) -> tuple[int, str | None]:
    time.sleep(0.3)  # so that each worker gets one
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.slow
def test_each_worker_sees_gpus_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that the program sees; there need not be any. Too few are refused before anything is started."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7,GPU-a,5")
    found = dict(value for _, value in map_cases(gpus_of, range(8), Where(workers=2, gpus_per_worker=2)))
    assert sorted(found.values()) == ["4,7", "GPU-a,5"]
    with pytest.raises(InputError, match="these are 4 GPUs"):
        list(map_cases(gpus_of, [1], Where(workers=3, gpus_per_worker=2)))


def test_workers_share_all_gpus_of_the_machine() -> None:
    """If the program was not given some of them."""
    from gliomask.execution.worker import own_gpus

    assert [own_gpus(None, number, 2) for number in range(3)] == ["0,1", "2,3", "4,5"]
    assert own_gpus("", 1, 1) == "1"


@dataclass(frozen=True)
class Hungry:
    """Work that notes each attempt, and takes more memory than a worker has for item 0."""

    notes: Path

    def __call__(self, item: int) -> int:
        with self.notes.open("a") as file:
            file.write(f"{item}\n")
        if item == 0:
            taken = bytearray(os.urandom(1 << 20) * 900)
            time.sleep(60)
            return len(taken)
        return item


@pytest.mark.slow
def test_a_case_that_needs_more_memory_than_a_worker_has_fails_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker is ended, it is tried once more alone, and the error has the worker's memory; the others are done.

    Items that wait at a worker when it is ended count as lost with it, and are likewise tried again.
    """
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", 500_000_000)
    found = dict(map_cases(Hungry(tmp_path / "notes"), range(5), Where(workers=1)))
    assert "which had 0.5 GB of memory" in str(found.pop(0))
    assert found == {item: item for item in (1, 2, 3, 4)}
    # Twice among the others, as a lost worker may have another reason, and twice alone.
    assert (tmp_path / "notes").read_text().split().count("0") == 4


@pytest.mark.skipif(sys.platform == "win32", reason="a thread cannot send a signal to another one there")
@pytest.mark.parametrize("fails", [False, True])
def test_ctrl_c_waits_until_a_cluster_is_started(*, fails: bool) -> None:
    """It is closed then; half started, it would be closed with a traceback at the end of the program."""
    code = f"""
import signal, threading, time
from gliomask.execution.threads import started_whole
def start():
    time.sleep(0.1)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    time.sleep(0.1)
    print("started", flush=True)
    if {fails}:
        raise RuntimeError
    return "closed"
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    started_whole(start, print)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["started", *([] if fails else ["closed"]), "interrupted"]


def test_a_worker_that_ends_while_it_is_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the system ends it for its memory."""
    import distributed

    def fail(**_: object) -> None:
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr(distributed, "LocalCluster", fail)
    with pytest.raises(InputError, match="--workers 2: a process of a worker ended while it was being started"):
        list(map_cases(gpus_of, [1], Where(workers=2)))
