"""Measure how many cases workers predict in a time, and what Dask's scheduler costs for each case.

`throughput` predicts full-size phantoms in one process with one thread, in one process as it is by default (reading
and writing while another case is computed), and with `--workers 2`. Each is run alternately, `--repeat` times, and the
best time of each counts, without the seconds until the first mask, which are printed too: loading takes them once for
thousands of cases. `overhead` sends empty cases to two workers, and prints the memory of this process, which contains
Dask's client and scheduler, after each tenth of the cases. Exits with status 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from gliomask.execution import Where, map_cases
from gliomask.phantom import write_phantoms

LEAST_RATIO = 1.6
MOST_MS = 10.0
MOST_BYTES = 300e6


def nothing(item: int) -> int:
    """Return the item: a case without work."""
    return item


def overhead(cases: int) -> bool:
    """Print the milliseconds and the memory that empty cases take, and return whether they keep to the limits."""
    process = psutil.Process()
    found = map_cases(nothing, range(cases), Where(workers=2))
    next(found)
    memory: list[int] = []
    started, cpu = time.perf_counter(), time.process_time()
    for number, _ in enumerate(found, 2):
        if number % max(1, cases // 10) == 0:
            memory.append(process.memory_info().rss)
    ms = 1000 * (time.perf_counter() - started) / cases
    cpu_ms = 1000 * (time.process_time() - cpu) / cases
    print(f"{cases} empty cases: {ms:.2f} ms each, {cpu_ms:.2f} ms of this process's CPU time")
    print("memory of client and scheduler, in MB, after each tenth:", " ".join(f"{size / 1e6:.0f}" for size in memory))
    flat = memory[-1] - memory[0] < 30e6
    return ms <= MOST_MS and max(memory) <= MOST_BYTES and flat


def throughput(cases: int, size: int, repeat: int, folder: Path) -> bool:
    """Print the cases per minute of each way, and return whether the workers keep to the limits."""
    data = folder / "cases"
    write_phantoms(data, cases, size=size)
    ways = {
        "one process, one thread": ["--threads", "1"],
        "one process": [],
        "two workers": ["--workers", "2"],
    }
    best: dict[str, tuple[float, float]] = {}
    for _ in range(repeat):
        for name, options in ways.items():
            first, rest = predict(data, folder / "masks", options, cases)
            best[name] = min(best.get(name, (first, rest)), (first, rest), key=lambda seconds: seconds[1])
    for name, (first, rest) in best.items():
        print(f"{name}: {60 * (cases - 1) / rest:.1f} cases a minute; the first after {first:.1f} s")
    ratios = {name: best[name][1] / best["two workers"][1] for name in ways if name != "two workers"}
    print("; ".join(f"two workers : {name} = {ratio:.2f}" for name, ratio in ratios.items()))
    return ratios["one process, one thread"] >= LEAST_RATIO and ratios["one process"] >= 1.0


def predict(data: Path, out: Path, options: list[str], cases: int) -> tuple[float, float]:
    """Predict with the built-in model; return the seconds until the first mask, and those for all others."""
    shutil.rmtree(out, ignore_errors=True)
    words = [sys.executable, "-m", "gliomask", "predict", "-i", str(data), "-o", str(out), "-d", "cpu", "-q", *options]
    started = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    first = 0.0
    while process.poll() is None:
        time.sleep(0.01)
        if not first and out.is_dir() and any(out.glob("*.nii.gz")):
            first = time.perf_counter() - started
    ended = time.perf_counter() - started
    if process.returncode or len(list(out.glob("*.nii.gz"))) != cases:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
    return first, ended - first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["throughput", "overhead"])
    parser.add_argument("--cases", type=int, help="default: 20 for throughput, 5000 for overhead")
    parser.add_argument("--size", type=int, default=240, help="voxels of a phantom along the longest axis")
    parser.add_argument("--repeat", type=int, default=2)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if options.what == "overhead":
        kept = overhead(options.cases or 5000)
    else:
        with tempfile.TemporaryDirectory() as folder:
            kept = throughput(options.cases or 20, options.size, options.repeat, Path(folder))
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
