"""Kill `evaluate`, `report` and `export` while they work, run each again, and see whether its output is complete.

    python benchmarks/kill_reports.py FOLDER [--kills N] [--seed N]

The folder is made, with phantoms. Every other kill comes when a partial file appears in the output folder, the others
after a random part of the time that the command takes. The next run has to exit with status 0, every output has to be
the one of an undisturbed run (of a page, all but its date), and no partial file or lock may be left. The exit status is
1 if something was wrong.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

DATE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d")


def main() -> None:
    """Print a line for each command: kills, how many came while a file was written, and what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=10, help="for each command (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options = parser.parse_args()
    generator = random.Random(options.seed)
    wrong = 0
    for name, command, output in prepare(options.folder):
        reference, seconds = undisturbed(command, output)
        writing = 0
        problems: list[str] = []
        for number in range(options.kills):
            shutil.rmtree(output, ignore_errors=True)
            writing += kill(command, output, generator.uniform(0.3, 1) * seconds, at_partial=number % 2 == 0)
            problems += after(command, output, reference)
        print(f"{name}: {options.kills} kills, {writing} while a file was written; {len(problems)} problems")
        print(*(f"  {problem}\n" for problem in problems), sep="", end="", flush=True)
        wrong += len(problems)
    sys.exit(1 if wrong else 0)


def prepare(folder: Path) -> list[tuple[str, list[str], Path]]:
    """Write phantoms and masks, and return the commands, each with its name and its output folder."""
    data, masks = folder / "data", folder / "masks"
    run(["phantom", str(data), "--cases", "3", "--size", "48"])
    masks.mkdir(parents=True, exist_ok=True)
    for mask in data.rglob("*seg*.nii.gz"):
        shutil.copy(mask, masks / f"{mask.parent.name}.nii.gz")
    made = {name: folder / name for name in ("scores", "pages", "model")}
    outputs = [word for ending in ("csv", "json") for word in ("-o", str(made["scores"] / f"scores.{ending}"))]
    return [
        ("evaluate", ["evaluate", str(masks), str(data), *outputs, "--pictures", str(made["scores"])], made["scores"]),
        ("report", ["report", str(data), str(masks), "-o", str(made["pages"])], made["pages"]),
        ("export", ["export", "-o", str(made["model"] / "model.onnx")], made["model"]),
    ]


def run(words: list[str]) -> int:
    """Run a command of gliomask and return its exit status."""
    return subprocess.run([sys.executable, "-m", "gliomask", *words], capture_output=True, check=False).returncode


def undisturbed(command: list[str], output: Path) -> tuple[dict[str, bytes], float]:
    """Return the content of each output file, and how long the command takes."""
    shutil.rmtree(output, ignore_errors=True)
    started = time.perf_counter()
    assert run(command) == 0, command
    return contents(output), time.perf_counter() - started


def kill(command: list[str], output: Path, seconds: float, *, at_partial: bool) -> bool:
    """Start the command and kill it; return whether it left a partial file."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gliomask", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.perf_counter() + (60 if at_partial else seconds)
    while time.perf_counter() < end and process.poll() is None:
        if at_partial and any(output.glob(".partial-*")):
            break
        time.sleep(0 if at_partial else 0.01)
    process.kill()
    process.wait()
    return any(output.glob(".partial-*"))


def after(command: list[str], output: Path, reference: dict[str, bytes]) -> list[str]:
    """Run the command again, and return what is wrong with its output."""
    problems = [] if run(command) == 0 else ["the next run failed"]
    found = contents(output)
    problems += [f"{name} is left" for name in found.keys() - reference.keys()]
    return problems + [f"{name} is missing or differs" for name in reference if found.get(name) != reference[name]]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of each file of a folder, without dates."""
    return {path.name: DATE.sub(b"", path.read_bytes()) for path in folder.glob("*")}


if __name__ == "__main__":
    main()
