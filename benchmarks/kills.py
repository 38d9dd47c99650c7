"""Kill a command repeatedly at random moments, and check that the next run completes all that was asked for.

The command runs in a process of its own, which is ended by SIGKILL and therefore cannot clean up. After each kill the
same command runs to its end: every file must be there and whole, equal to that of an undisturbed run where the command
is deterministic, and no partial file or lock may be left.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gliomask.cases import find_cases
from gliomask.inference.loading import new_model, save_model
from gliomask.inference.preprocessing import common_spacing
from gliomask.inference.record import is_whole_png
from gliomask.model.plan import Plan
from gliomask.phantom import write_phantoms
from gliomask.volume import read_volume


@dataclass(frozen=True)
class Trial:
    """A command that is killed, and what it must leave."""

    words: list[str]
    """The command without `gliomask`."""
    output: Path
    """The folder that it writes, which is removed before each kill."""
    faults: Callable[[Path], list[str]]
    """Returns what is missing or damaged in the output."""


def predict_trial(place: Path, cases: int) -> Trial:
    """Return the prediction of some small phantoms with all files, by a small untrained model."""
    write_phantoms(place / "data", cases, size=48)
    plan = Plan(
        modalities=("t2f", "t1c", "t2w"),
        spacing_mm=common_spacing(find_cases(place / "data"), "LPS"),  # so that a prediction takes a moment
        patch_size=(32, 32, 32),
        network="fast",
        network_arguments={"channels": [4, 6]},
    )
    save_model(new_model(plan, seed=1), place / "m.safetensors")
    output = place / "out"
    words = ["predict", "-m", place / "m.safetensors", "-i", place / "data", "-o", output, "-d", "cpu", "--picture"]
    ids = sorted(folder.name for folder in (place / "data").iterdir() if folder.is_dir())

    def faults(folder: Path) -> list[str]:
        found = []
        for name in ids:
            try:
                read_volume(folder / f"{name}.nii.gz", mask=True)
                read_volume(folder / f"{name}_probabilities.nii.gz")
                json.loads((folder / f"{name}.json").read_text())
            except Exception as error:
                found.append(f"{name}: {error}")
            if not is_whole_png(folder / f"{name}.png"):
                found.append(f"{name}: no whole picture")
        return found

    return Trial([*map(str, words), "--save-probabilities", "--threads", "1"], output, faults)


TRIALS: dict[str, Callable[[Path, int], Trial]] = {"predict": predict_trial}
"""A command's name and what makes its trial, in a folder and with so many cases."""


def run_trial(trial: Trial, kills: int, seed: int) -> list[str]:
    """Kill the command at random moments of its duration, and return every fault of the runs after it."""
    draw = random.Random(seed)
    command = [sys.executable, "-m", "gliomask", *trial.words]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    whole = time.perf_counter() - started
    expected = _masks(trial.output)
    faults = [f"undisturbed: {fault}" for fault in trial.faults(trial.output)]
    interrupted = 0
    for number in range(1, kills + 1):
        shutil.rmtree(trial.output, ignore_errors=True)
        # Most of the time is the start of Python; kills within it would tell nothing.
        wait = draw.uniform(0.3, 1.0) * whole
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        interrupted += child.wait() != 0
        left = sorted(path.name for path in trial.output.rglob("*") if path.is_file())
        again = subprocess.run(command, capture_output=True, text=True, check=False)
        found = trial.faults(trial.output)
        found += [f"left behind: {path.name}" for path in trial.output.rglob(".*")]
        found += [] if again.returncode == 0 else [f"exit status {again.returncode}: {again.stderr[-300:]}"]
        found += [] if _masks(trial.output) == expected else ["masks differ from those of the undisturbed run"]
        print(
            f"{number}: killed after {wait:.1f} s with {len(left)} files; then {'; '.join(found) or 'complete'}",
            flush=True,
        )
        faults += found
    print(f"{kills} kills, {interrupted} of them before the end: {len(faults)} faults")
    return faults


def main() -> None:
    """Print a line for each kill, and exit with status 1 if anything was left incomplete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=list(TRIALS))
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--cases", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trial = TRIALS[options.command](Path(folder), options.cases)
        sys.exit(bool(run_trial(trial, options.kills, options.seed)))


def _masks(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.nii.gz")}


if __name__ == "__main__":
    main()
