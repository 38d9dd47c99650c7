"""Measure the preparation of raw scans on synthetic heads whose movements and brains are known.

    python benchmarks/raw.py --heads 20
    python benchmarks/raw.py --process

Each head has four sequences with rotations up to 20 degrees, shifts up to 30 mm and slices of 1 to 6 mm. For each
sequence the target registration error is measured against the reference at the voxels of the brain, and the brain mask
is compared with the true one on the sequence's own grid. With --process, a study of full size is written as DICOM and
the whole command `predict --raw` is run on it: seconds, processor seconds and peak memory of all its processes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gliomask.acquisition.preprocess import Preprocessed, PreprocessSettings, preprocess
from gliomask.phantom.raw import RawImage, make_raw_phantom, write_raw_phantoms


def main() -> None:
    """Print a row for each head, and the worst of all, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=20)
    parser.add_argument("--first", type=int, default=1, help="the seed of the first head")
    parser.add_argument("--size", type=int, default=240, help="voxels along the longest axis; 240 is 1 mm")
    parser.add_argument("--atlas", default="none")
    parser.add_argument("--process", action="store_true", help="measure the whole command instead")
    options = parser.parse_args()
    if options.process:
        print(json.dumps(measure_process(options.size)))
        return
    rows = []
    for seed in range(options.first, options.first + options.heads):
        rows.append(measure_head(seed, options.size, options.atlas))
        print(json.dumps(rows[-1]), flush=True)
    print(json.dumps(summarise(rows)))


def measure_head(seed: int, size: int, atlas: str) -> dict[str, object]:
    """Return the errors of one head in mm, the Dice of its brain, and the seconds of the preparation."""
    heads = make_raw_phantom(seed, size=size, edge_mm=240 / size)
    wall, cpu = time.perf_counter(), time.process_time()
    settings = PreprocessSettings(atlas=atlas)  # type: ignore[arg-type]
    found = preprocess({name: raw.image for name, raw in heads.items()}, settings)
    seconds = {"wall": round(time.perf_counter() - wall, 1), "cpu": round(time.process_time() - cpu, 1)}
    reference = found.alignment.reference
    errors = {name: errors_mm(found, heads, name) for name in heads if name != reference}
    dice = {name: brain_dice(found, raw, name) for name, raw in heads.items()}
    return {
        "seed": seed,
        "slice_mm": {name: round(max(raw.image.spacing_mm), 1) for name, raw in heads.items()},
        "mean_mm": {name: round(float(each.mean()), 3) for name, each in errors.items()},
        "worst_mm": {name: round(float(each.max()), 3) for name, each in errors.items()},
        "brain_dice": {name: round(value, 4) for name, value in dice.items()},
        "seconds": seconds,
        "steps": dict(found.steps),
        "warnings": list(found.warnings),
    }


def errors_mm(found: Preprocessed, heads: dict[str, RawImage], name: str) -> np.ndarray:
    """Return how far each place of the brain lies from where it should, in the sequence's own space."""
    alignment = found.alignment
    places = np.argwhere(found.brain.data[0])[::97]
    places = np.c_[places @ found.brain.affine[:3, :3].T + found.brain.affine[:3, 3], np.ones(len(places))]
    in_reference = places @ alignment.to_native[alignment.reference].T
    rest = in_reference @ np.linalg.inv(heads[alignment.reference].from_head).T
    truth = rest @ heads[name].from_head.T
    return np.linalg.norm((places @ alignment.to_native[name].T - truth)[:, :3], axis=1)


def brain_dice(found: Preprocessed, raw: RawImage, name: str) -> float:
    """Return the Dice of the brain masks, true and found, on the sequence's own grid."""
    ours = found.alignment.onto_native(name, found.brain).data[0] > 0.5
    return 2 * float((ours & raw.brain).sum()) / float(ours.sum() + raw.brain.sum())


def summarise(rows: list[dict[str, object]]) -> dict[str, object]:
    """Return the mean and the worst of all heads, by sequence."""
    summary: dict[str, object] = {"heads": len(rows)}
    for measure, worst in (("mean_mm", max), ("worst_mm", max), ("brain_dice", min)):
        by_name: dict[str, list[float]] = {}
        for row in rows:
            for name, value in row[measure].items():  # type: ignore[attr-defined]
                by_name.setdefault(name, []).append(value)
        summary[measure] = {
            name: {"mean": round(float(np.mean(values)), 3), "worst": round(worst(values), 3)}
            for name, values in by_name.items()
        }
    summary["within_1_mm"] = sum(max(row["mean_mm"].values()) <= 1 for row in rows)  # type: ignore[attr-defined]
    summary["cpu_seconds"] = round(float(np.mean([row["seconds"]["cpu"] for row in rows])), 1)  # type: ignore[index]
    return summary


def measure_process(size: int) -> dict[str, object]:
    """Return what `gliomask predict --raw` takes for one DICOM study, with the processes that it starts."""
    with tempfile.TemporaryDirectory() as folder:
        studies = Path(folder) / "studies"
        write_raw_phantoms(studies, 1, size=size, dicom=True)
        files = sum(1 for path in studies.rglob("*") if path.is_file())
        command = [sys.executable, "-m", "gliomask", "predict", "--raw", "-i", str(studies), "-o", f"{folder}/masks"]
        start = time.perf_counter()
        with subprocess.Popen(command) as process:
            peak = watch_memory(process)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        record = next(Path(folder).rglob("preprocess.json"))
        return {
            "status": process.returncode,
            "files": files,
            "seconds": round(time.perf_counter() - start, 1),
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
            "peak_gb": round(peak / 1e9, 2),
            "cores": os.cpu_count(),
            "steps": json.loads(record.read_text("utf-8"))["seconds"],
        }


def watch_memory(process: subprocess.Popen[bytes]) -> int:
    """Return the largest sum of the memory of a process and all it started, in bytes, until it ends; Linux only.

    Pages that several processes share count once (PSS).
    """
    peak = 0
    while process.poll() is None:
        family = {process.pid}
        total = 0
        for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda place: int(place.name)):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if int(folder.name) in family or parent in family:
                    family.add(int(folder.name))
                    shares = (folder / "smaps_rollup").read_text().splitlines()
                    total += next(int(line.split()[1]) * 1024 for line in shares if line.startswith("Pss:"))
            except (OSError, StopIteration, ValueError):  # it has ended
                continue
        peak = max(peak, total)
        time.sleep(0.5)
    return peak


if __name__ == "__main__":
    main()
