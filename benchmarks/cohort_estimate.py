"""Estimate on paper how long a cohort takes on a cluster, and what limits it: processors, file system or scheduler.

First the constants are measured on this machine with one thread: processor seconds for one examination, bytes and
file operations for one, seconds for the start of a worker, and the time that Dask's scheduler and the program spend
on one task. They can be given instead (--constants, the line that an earlier run printed). Then the number of
examinations a second is computed that each part can sustain; the smallest counts. What a shared file system sustains
is not measured but assumed (--bandwidth, --operations).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

_COUNTED = ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.utime")
_COUNTING = """
import atexit, sys
counts = {}
def count(event, arguments):
    if event in %r and (event != "open" or isinstance(arguments[0], str) and arguments[0].startswith(%r)):
        counts[event] = counts.get(event, 0) + 1
sys.addaudithook(count)
atexit.register(lambda: print("OPERATIONS", sum(counts.values())))
from gliomask.__main__ import main
main()
"""


@dataclass(frozen=True)
class Constants:
    """What one examination, one worker and one task cost."""

    case_seconds: float
    """Processor seconds for one examination, in one thread."""
    start_seconds: float
    """Processor seconds from the start of a process to its first examination."""
    read_mb: float
    written_mb: float
    operations: float
    """Files opened, renamed, removed and listed for one examination."""
    task_ms: float
    """Processor milliseconds of the program and the scheduler in it for one task."""


@dataclass(frozen=True)
class Site:
    """A cluster: its nodes, and what its shared file system sustains."""

    cores: int
    bandwidth_mb: float
    operations: float


def measure(folder: Path, tasks: int) -> Constants:
    """Measure the constants on full-size phantoms with the built-in model."""
    from gliomask.phantom import write_phantoms

    write_phantoms(folder / "three", 3)
    first = min((folder / "three").iterdir())
    shutil.copytree(first, folder / "one" / first.name)
    few, fewer = _predict(folder / "one", folder / "one-masks")
    many, more = _predict(folder / "three", folder / "three-masks")
    case = (many - few) / 2
    images = [path for path in first.iterdir() if "seg" not in path.name]
    written = sum(path.stat().st_size for path in (folder / "three-masks").iterdir())
    return Constants(
        round(case, 2),
        round(few - case, 2),
        round(sum(path.stat().st_size for path in images) / 1e6, 2),
        round(written / 3e6, 3),
        round((more - fewer) / 2, 1),
        round(_task_ms(tasks), 2),
    )


def _predict(cases: Path, masks: Path) -> tuple[float, int]:
    """Return the processor seconds of `gliomask predict`, and its file operations below the folder of the cases."""
    words = ["predict", "-i", str(cases), "-o", str(masks), "--threads", "1", "-q"]
    before = os.times()
    command = [sys.executable, "-c", _COUNTING % (_COUNTED, str(cases.parent)), *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, int(re.findall(r"OPERATIONS (\d+)", done.stdout)[0])


def _task_ms(tasks: int) -> float:
    from gliomask.execution import Where, map_cases

    found = map_cases(math.sqrt, range(100), Where(workers=2))
    for _ in found:
        pass
    # The start of the workers is in both, and is subtracted.
    taken = []
    for number in (100, 100 + tasks):
        before = time.process_time()
        assert sum(1 for _ in map_cases(math.sqrt, range(number), Where(workers=2))) == number
        taken.append(time.process_time() - before)
    return (taken[1] - taken[0]) / tasks * 1e3


def rates(found: Constants, site: Site, nodes: int) -> dict[str, float]:
    """Return how many examinations a second each part sustains."""
    return {
        "processors": nodes * site.cores / found.case_seconds,
        "bandwidth": site.bandwidth_mb / (found.read_mb + found.written_mb),
        "file operations": site.operations / found.operations,
        "scheduler": 1e3 / found.task_ms,
    }


def main() -> None:
    """Measure or read the constants, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--constants", type=json.loads, help="the line of JSON that an earlier run printed")
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 10, 20, 50, 100, 200])
    parser.add_argument("--cores", type=int, default=32, help="cores of a node")
    parser.add_argument("--bandwidth", type=float, default=5000, help="MB a second of the file system")
    parser.add_argument("--operations", type=float, default=20_000, help="file operations a second of the file system")
    parser.add_argument("--tasks", type=int, default=1000, help="empty tasks for the measurement of the scheduler")
    given = parser.parse_args()
    if given.constants:
        found = Constants(**given.constants)
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Path(folder), given.tasks)
    print(json.dumps(asdict(found)))
    site = Site(given.cores, given.bandwidth, given.operations)
    print("nodes  cases a second by: processors  bandwidth  file operations  scheduler   limit            whole cohort")
    for nodes in given.nodes:
        by = rates(found, site, nodes)
        limit = min(by, key=lambda name: by[name])
        minutes = (given.cases / by[limit] + found.start_seconds) / 60
        numbers = "  ".join(f"{by[name]:>{width}.0f}" for name, width in zip(by, (29, 9, 15, 9), strict=True))
        print(f"{nodes:5}  {numbers}   {limit:15}  {minutes:.1f} min")
    rest = {name: rate for name, rate in rates(found, site, 1).items() if name != "processors"}
    for name, rate in rest.items():
        print(f"{name} is the limit from {rate * found.case_seconds / given.cores:.1f} nodes on")


if __name__ == "__main__":
    main()
