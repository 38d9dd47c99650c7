"""Several processes: they train as one would, one of them writes, and none waits for one that has died."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gliomask.errors import InputError
from gliomask.training.distributed import ProcessGroup, join_process_group
from gliomask.training.run import load_run

RECIPE = ("--network", "fcn", "--patch-size", "16", "--precision", "fp32", "--lr", "1e-3", "--batch-size", "2")


def torchrun(*words: object) -> subprocess.Popen[str]:
    """Start `gliomask` twice, as `torchrun` does."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    return subprocess.Popen(
        [*command, "-m", "gliomask", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port() -> str:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def alone(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "gliomask", *map(str, words)], check=True, capture_output=True)


def test_a_single_process_is_a_group_of_one() -> None:
    """Without torchrun, sums, shares and lists are those of one process."""
    group = ProcessGroup()
    assert group.first
    assert group.total([1.5, 2.0]) == [1.5, 2.0]
    assert group.share("abc") == ["a", "b", "c"]
    assert group.gather(7) == [7]
    assert group.once(lambda: 3) == 3


def test_shares_make_up_the_list() -> None:
    """Each item is in one share, and the shares are about equal."""
    parts = [ProcessGroup(rank, 3).share(range(8)) for rank in range(3)]
    assert sorted(item for part in parts for item in part) == list(range(8))
    assert {len(part) for part in parts} == {2, 3}


def test_two_processes_learn_what_one_learns(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """The same batches give the same loss up to rounding; then a single process continues the run."""
    folder = folder_of(6)
    alone("train", folder, "-o", tmp_path / "one", *RECIPE, "--epochs", 2)
    process = torchrun("train", folder, "-o", tmp_path / "two", *RECIPE, "--epochs", 2)
    said = process.communicate(timeout=240)[0]
    assert process.returncode == 0, said
    assert said.count("epoch 1: loss") == 1
    assert "Grad strides" not in said
    one, two = (load_run(tmp_path / name).rows() for name in ("one", "two"))
    for single, shared in zip(one, two, strict=True):
        assert single["step"] == shared["step"]
        assert shared["train_loss"] == pytest.approx(single["train_loss"], rel=1e-3)
        assert shared["val_loss"] == pytest.approx(single["val_loss"], rel=1e-2)
        assert shared["val_dice_WT"] == pytest.approx(single["val_dice_WT"], abs=0.02)
    splits = [json.loads((tmp_path / name / "splits_final.json").read_text()) for name in ("one", "two")]
    assert splits[0] == splits[1]
    alone("train", "-o", tmp_path / "two", "--resume", "--epochs", 3)
    assert [row["epoch"] for row in load_run(tmp_path / "two").rows()] == [1, 2, 3]


def test_a_killed_process_ends_the_others(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """Soon and with a message; the checkpoint is complete, and a single process continues from it."""
    folder, run = folder_of(4), tmp_path / "run"
    process = torchrun("train", folder, "-o", run, *RECIPE, "--epochs", 5000)
    wait_for(run / "checkpoint.pt")
    # every process writes its own command's name and number; torchrun's children are the two that train
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    os.kill(int(children[-1]), signal.SIGKILL)
    said = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert "another process of this training has ended" in said
    done = len(load_run(run).rows())
    alone("train", "-o", run, "--resume", "--epochs", done + 1)
    assert len(load_run(run).rows()) >= done


def test_bad_input_ends_all_processes(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """A batch that cannot be shared evenly is refused before the run folder is made."""
    process = torchrun("train", folder_of(4), "-o", tmp_path / "run", *RECIPE[:-1], 3)
    said = process.communicate(timeout=120)[0]
    assert "multiple of 2" in said
    assert not (tmp_path / "run").exists()


def test_an_error_in_the_first_process_is_raised() -> None:
    """With one process, it is raised unchanged."""

    def refuse() -> None:
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        ProcessGroup().once(refuse)


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        ("[/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:57053: Connection reset by peer", True),
        ("Application timeout caused pair closure", True),
        ("NCCL communicator was aborted on rank 1", True),
        ("mat1 and mat2 shapes cannot be multiplied (2x11 and 10x10)", False),
        ("Expected all tensors to be on the same device", False),
    ],
)
def test_only_a_lost_process_is_reported_as_one(message: str, lost: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other error of torch keeps its own message."""

    def fail(*_: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr("torch.distributed.all_reduce", fail)
    with pytest.raises(InputError if lost else RuntimeError, match="another process" if lost else re.escape(message)):
        ProcessGroup(0, 2).total([1.0])


def test_processes_that_do_not_find_each_other_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong environment is named, and so is a rendezvous that fails."""
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(InputError, match="WORLD_SIZE is 'two'"), join_process_group(torch.device("cpu")):
        pass
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(InputError, match="cannot join the other processes"), join_process_group(torch.device("cpu")):
        pass


def wait_for(path: Path) -> None:
    for _ in range(600):
        time.sleep(0.1)
        if path.exists():
            return
    raise AssertionError(f"{path} did not appear")
