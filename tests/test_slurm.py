"""Jobs of a real SLURM, which the fixture starts on this machine: trainings and cases survive the end of their job."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gliomask.cases import Case
from slurm import Slurm, one_node, why_not

ROOT = Path(__file__).parent.parent
SCRIPTS = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "cluster.md").read_text("utf-8"), re.DOTALL)
RECIPE = "--network fcn --patch-size 16 --precision fp32 --lr 1e-3"

SETTINGS = """\
jobqueue:
  slurm:
    queue: debug
    cores: 1
    processes: 1
    memory: 2GB
    walltime: "00:30:00"
    interface: lo
    python: {python}
    local-directory: {folder}
    log-directory: {folder}
"""

needs_slurm = pytest.mark.skipif(why_not() is not None, reason=f"no SLURM here: {why_not()}")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Give a SLURM with one node of two processors; jobs are ended and daemons stopped afterwards."""
    with one_node(tmp_path_factory.mktemp("slurm") / "node") as running:
        yield running


def wait_for(condition: Callable[[], object], seconds: float, what: Callable[[], str]) -> None:
    """Return when a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.1)


def settings_in(folder: Path) -> Path:
    """Write a settings file of dask-jobqueue for the node of the fixture, and return it."""
    path = folder / "slurm.yaml"
    path.write_text(SETTINGS.format(python=sys.executable, folder=folder))
    return path


def started(slurm: Slurm, *words: object) -> subprocess.Popen[str]:
    """Start gliomask as its users do where SLURM is."""
    return subprocess.Popen(
        [sys.executable, "-m", "gliomask", *map(str, words)],
        env={**slurm.environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="the scripts are for bash")
@pytest.mark.parametrize("number", range(len(SCRIPTS)))
def test_the_scripts_in_the_documentation_are_valid(number: int) -> None:
    """Bash reads each of them without an error."""
    assert len(SCRIPTS) >= 2
    done = subprocess.run(["bash", "-n"], input=SCRIPTS[number], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_slurm
@pytest.mark.long
def test_a_job_that_is_told_to_end_is_requeued_and_finishes(
    slurm: Slurm, folder_of: Callable[..., Path], tmp_path: Path
) -> None:
    """The script in docs/cluster.md, with two processes on the one node: its second part ends the training."""
    script = SCRIPTS[0].replace("gliomask train", f"{sys.executable} -m gliomask train")
    script = script.replace(
        "DATA -o run --epochs 300 --batch-size 8", f"{folder_of(4)} -o run {RECIPE} --batch-size 2 --epochs 6"
    )
    script = re.sub(r"#SBATCH --(gpus|mem).*\n", "", script).replace("--cpus-per-task=8", "--cpus-per-task=1")
    (tmp_path / "train.sh").write_text(script.replace("--nodes=2", "--nodes=1"))
    job = slurm.ask(
        "sbatch", "--parsable", f"--chdir={tmp_path}", f"--output={tmp_path}/said.txt", f"{tmp_path}/train.sh"
    )
    said = tmp_path / "said.txt"
    text = lambda: said.read_text() if said.exists() else "nothing was printed"  # noqa: E731
    wait_for((tmp_path / "run" / "log.jsonl").exists, 120, text)
    slurm.ask("scancel", "--signal=TERM", "--batch", job.strip())
    wait_for(lambda: "continue with: gliomask train -o run --resume" in text(), 60, text)
    assert not (tmp_path / "run" / "finished.json").exists(), "it ended before it was told to"
    wait_for((tmp_path / "run" / "finished.json").exists, 200, text)
    slurm.wait_until_empty(30)
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 6
    assert "Traceback" not in text()


@needs_slurm
@pytest.mark.slow
def test_a_cancelled_job_loses_no_case(
    slurm: Slurm,
    write_case: Callable[..., Case],
    model_file: Path,
    gliomask: Callable[..., tuple[int, str]],
    tmp_path: Path,
) -> None:
    """Two jobs predict twelve phantoms, one of them is cancelled in the middle: the masks are those of one process."""
    for number in range(1, 13):
        write_case("brats2021", number=number, shape=(64, 72, 56))
    masks, alone = tmp_path / "masks", tmp_path / "alone"
    given = ("predict", "-m", model_file, "-i", tmp_path / "data")
    process = started(slurm, *given, "-o", masks, "--cluster", settings_in(tmp_path), "--workers", 2)
    found = lambda: len(list(masks.glob("[!.]*.nii.gz")))  # noqa: E731

    def in_the_middle() -> bool:
        assert process.poll() is None, process.communicate()[0]
        return found() >= 2 and len(slurm.running()) == 2

    wait_for(in_the_middle, 200, lambda: f"{found()} masks, jobs: {slurm.ask('squeue')}")
    slurm.ask("scancel", slurm.running()[0])
    assert found() < 12, "all cases were done before the job was cancelled"
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    status, _ = gliomask(*given, "-o", alone)
    assert status == 0
    names = sorted(path.name for path in alone.glob("*.nii.gz"))
    assert len(names) == 12
    for name in names:
        assert (masks / name).read_bytes() == (alone / name).read_bytes()
    assert [path.name for path in masks.iterdir() if path.name.startswith(".")] == []
    slurm.wait_until_empty(60)


@needs_slurm
@pytest.mark.long
def test_folds_are_trained_by_jobs_and_resumed_when_these_are_cancelled(
    slurm: Slurm, folder_of: Callable[..., Path], gliomask: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """The jobs are cancelled in the middle of fold 1: others resume it, to the bits of an undisturbed training."""
    folder, recipe = folder_of(4), [*RECIPE.split(), "--folds", "2", "--threads", "1", "--epochs", "6"]
    jobs, here = tmp_path / "jobs", tmp_path / "here"
    process = started(slurm, "train", folder, "-o", jobs, *recipe, "--cluster", settings_in(tmp_path))

    def in_the_middle() -> bool:
        assert process.poll() is None, process.communicate()[0]
        return (jobs / "fold1" / "log.jsonl").exists()

    wait_for(in_the_middle, 250, lambda: f"jobs: {slurm.ask('squeue')}")
    for job in slurm.running():
        slurm.ask("scancel", job)
    assert not (jobs / "fold1" / "finished.json").exists(), "fold 1 ended before its job was cancelled"
    said = process.communicate(timeout=400)[0]
    assert process.returncode == 0, said
    assert "held-out cases of all folds so far: brats2021, 4 cases" in said
    assert (jobs / "fold1.log").read_text().count("fcn on 2 cases") >= 2  # it was begun again
    assert gliomask("train", folder, "-o", here, *recipe)[0] == 0
    for fold in ("fold0", "fold1"):
        assert (jobs / fold / "last.safetensors").read_bytes() == (here / fold / "last.safetensors").read_bytes()
    assert (jobs / "out_of_fold.csv").read_bytes() == (here / "out_of_fold.csv").read_bytes()
