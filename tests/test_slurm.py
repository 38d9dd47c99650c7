"""Jobs of a real SLURM, which the fixture starts on this machine: trainings and cases survive the end of their job."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm import Slurm, one_node, why_not

ROOT = Path(__file__).parent.parent
SCRIPTS = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "cluster.md").read_text("utf-8"), re.DOTALL)
RECIPE = "--network fcn --patch-size 16 --precision fp32 --lr 1e-3"

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


@pytest.mark.skipif(sys.platform == "win32", reason="the scripts are for bash")
@pytest.mark.parametrize("number", range(len(SCRIPTS)))
def test_the_scripts_in_the_documentation_are_valid(number: int) -> None:
    """Bash reads each of them without an error."""
    assert len(SCRIPTS) >= 2
    done = subprocess.run(["bash", "-n"], input=SCRIPTS[number], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_slurm
@pytest.mark.slow
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
