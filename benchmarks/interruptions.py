"""Kill a training repeatedly at random moments, resume it each time, and compare it with an uninterrupted one.

The training runs in processes of its own, which are ended by SIGKILL and therefore cannot clean up. Both runs must end
with bitwise identical weights and the same log.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.numpy import load_file

from gliomask.phantom import write_phantoms

# Fields of the log that depend on the machine.
MEASURED = {"train_seconds", "val_seconds", "wait_seconds", "hours", "peak_memory_gb"}


def command(run: Path, cases: Path, epochs: int) -> list[str]:
    """Return the command that starts a run or, if its folder exists, resumes it."""
    words = [sys.executable, "-m", "gliomask", "train", "-o", str(run)]
    if (run / "config.json").is_file():
        return [*words, "--resume"]
    recipe = ["--network", "unet", "--patch-size", "32", "--lr", "3e-3", "--drop-modalities", "0.2"]
    return [*words, str(cases), *recipe, "--epochs", str(epochs), "--threads", "1"]


def kill_and_resume(folder: Path, *, kills: int, epochs: int, longest: float, seed: int) -> int:
    """Return how many times a running process was killed; raise an error if the results differ."""
    write_phantoms(folder / "cases", 4, size=48)
    alone, killed = folder / "alone", folder / "killed"
    subprocess.run(command(alone, folder / "cases", epochs), check=True, capture_output=True)
    moments = random.Random(seed)
    met = 0
    while met < kills:
        process = subprocess.Popen(
            command(killed, folder / "cases", epochs), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(moments.uniform(0.2, longest))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        met += 1
    subprocess.run(command(killed, folder / "cases", epochs), check=True, capture_output=True)
    compare(alone, killed)
    return met


def compare(one: Path, other: Path) -> None:
    """Raise an error unless two runs have the same weights, log and files."""
    assert (one / "last.safetensors").read_bytes() == (other / "last.safetensors").read_bytes(), "last models differ"
    best = [load_file(run / "best.safetensors") for run in (one, other)]
    assert all(best[0][name].tobytes() == best[1][name].tobytes() for name in best[0]), "best models differ"
    logs = [(run / "log.jsonl").read_text().splitlines() for run in (one, other)]
    rows = [[{k: v for k, v in json.loads(line).items() if k not in MEASURED} for line in log] for log in logs]
    assert rows[0] == rows[1], "logs differ"
    left = {path.name for path in other.iterdir()} - {path.name for path in one.iterdir()}
    assert not {name for name in left if not name.startswith(".partial-")}, f"left over: {left}"


def main() -> None:
    """Print how many times the training was killed and resumed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--longest", type=float, default=9.0, help="the most seconds until a kill")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        met = kill_and_resume(
            Path(folder), kills=options.kills, epochs=options.epochs, longest=options.longest, seed=options.seed
        )
    print(f"killed {met} times at random moments and resumed: weights and log the same to the bit")


if __name__ == "__main__":
    main()
