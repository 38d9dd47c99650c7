"""Measure the processor time and the peak memory of finding cases, in folders of empty files with BraTS names.

Each measurement has its own process. The wall-clock time is printed too; it depends on what else the machine does and
on whether the folders are in the memory of the system.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from gliomask.cases import find_cases

_SEQUENCES = ("t1n", "t1c", "t2w", "t2f", "seg")


def make_cases(folder: Path, count: int) -> None:
    """Make `count` folders with five empty files each."""
    for number in range(count):
        name = f"BraTS-GLI-{number:05d}-000"
        (folder / name).mkdir(parents=True)
        for sequence in _SEQUENCES:
            (folder / name / f"{name}-{sequence}.nii.gz").touch()


def measure(folder: Path, answer: Connection) -> None:
    """Send the number of cases found, processor seconds, wall-clock seconds and the peak memory in MB."""
    started, wall = time.process_time(), time.perf_counter()
    found = len(find_cases(folder))
    seconds = time.process_time() - started, time.perf_counter() - wall
    answer.send((found, *seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main() -> None:
    """Print a line for each number of cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=[5_000, 20_000])
    parser.add_argument("--folder", type=Path, help="where to make the folders, such as a network file system")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for count in options.counts:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            make_cases(Path(folder), count)
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=measure, args=(Path(folder), sender))
            process.start()
            found, processor, wall, megabytes = receiver.recv()
            process.join()
        print(
            f"{found} cases: {processor:.2f} s of processor time, {wall:.2f} s on the clock, peak memory "
            f"{megabytes:.0f} MB in the whole process",
            flush=True,
        )


if __name__ == "__main__":
    main()
