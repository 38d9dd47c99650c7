"""Measure what it costs to train with two processes instead of one: gloo on this machine, one thread each.

Both trainings take the same steps on the same patches. Elapsed seconds mean something on two idle cores only;
processor seconds and the bytes that are exchanged for a step do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def train(cases: Path, run: Path, processes: int, words: list[str]) -> tuple[float, int, float]:
    """Train; return the elapsed seconds and number of the steps, and the processor seconds of all processes."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    command = [sys.executable, *start, "-m", "gliomask", "train", str(cases), "-o", str(run), "--threads", "1", *words]
    before = os.times()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = os.times()
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return sum(row["train_seconds"] for row in rows), int(rows[-1]["step"]), spent


def per_step(cases: Path, folder: Path, processes: int, epochs: int, words: list[str]) -> tuple[float, float]:
    """Return the elapsed and the processor seconds of a step: those of a longer training less those of a short one."""
    found = [
        train(
            cases, folder / f"{processes}-{number}", processes, [*words, "--epochs", str(number), "--val-every", "99"]
        )
        for number in (1, epochs)
    ]
    steps = found[1][1] - found[0][1]
    return (found[1][0] - found[0][0]) / steps, (found[1][2] - found[0][2]) / steps


def main() -> None:
    """Train both ways, print the table and the size of what is exchanged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch-size", default="96")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--network", default="fast")
    given = parser.parse_args()
    from gliomask.inference.loading import load_torch_model
    from gliomask.phantom import write_phantoms

    words = ["--patch-size", given.patch_size, "--network", given.network, "--batch-size", "2", "--workers", "1"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_phantoms(folder / "cases", 8, size=128)
        subprocess.run(
            [sys.executable, "-m", "gliomask", "prepare", str(folder / "cases"), "-o", str(folder / "cache")],
            check=True, capture_output=True,
        )  # fmt: skip
        found = {count: per_step(folder / "cache", folder, count, given.epochs, words) for count in (1, 2)}
        network = load_torch_model(folder / "1-1" / "last.safetensors").network
        parameters = sum(weight.numel() for weight in network.parameters())
    print(f"{given.network}, patches of {given.patch_size}, batch 2: {parameters / 1e6:.2f} million parameters")
    print(f"gradients of a step: {4 * parameters / 1e6:.1f} MB")
    for count, (elapsed, spent) in found.items():
        print(f"{count} process(es): a step takes {elapsed:.2f} s, and {spent:.2f} processor seconds in all processes")
    print(f"elapsed 1 : 2 = {found[1][0] / found[2][0]:.2f}, processor time 2 : 1 = {found[2][1] / found[1][1]:.2f}")


if __name__ == "__main__":
    main()
