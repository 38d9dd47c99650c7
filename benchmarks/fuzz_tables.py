"""Give damaged score tables, prediction folders and `CASE.json` files to gliomask, and count what is not an InputError.

    python benchmarks/fuzz_tables.py [--inputs N] [--seed N]

Each input is a good file in which a seeded generator has made one to three changes: bytes are replaced, inserted,
removed or repeated, the file is cut, or a value becomes one of a list of unusual ones. An input may be accepted or
refused with an `InputError`; any other exception is a fault, and so is an input that takes more than 10 seconds of CPU
time. The exit status is 1 if there was a fault. Everything is made in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gliomask.cases import Case, Source
from gliomask.errors import InputError
from gliomask.evaluation import Evaluation, compare_scores, evaluate
from gliomask.evaluation.results import to_csv, to_json
from gliomask.evaluation.table_text import csv_text
from gliomask.metrics import PROTOCOLS
from gliomask.report.prediction import describe_case, measure_case
from gliomask.volume import Volume, write_volume

LONGEST_SECONDS = 10.0
CASES = ("BraTS2021_00001", "BraTS2021_00002")
UNUSUAL = (
    *("", "nan", "inf", "-7", "1e400", "=1+1", "a" * 140_000, "\x00", "\x1b[31m", "\ud800", "../..", "null", "[]"),
    *("{}", "[" * 2000, "true", "1" * 5000, "brats2023-gli", "missing", '"', "\r", "\n,,,\n", ",,,,,", "\ufeff"),
)
FACTS = {
    "case": CASES[0],
    "labels": {"convention": "brats2021", "values": {"1": "NCR", "2": "ED", "4": "ET"}},
    "model": "run/best.safetensors",
    "network": "fast",
    "regions": ["WT", "TC", "ET"],
    "versions": {"gliomask": "0.1"},
    "volumes_ml": {"WT": 1.0, "TC": 0.5, "ET": 0.2},
    "warnings": ["t1c: an odd image"],
    "window": "whole",
}


def main() -> None:
    """Print how many inputs of each sort were accepted and refused, and each fault with its number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="of all sorts together (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options = parser.parse_args()
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # it reports the damage of each header
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        faults = fuzz(Path(folder), options.inputs, options.seed, print)
    print(f"{options.inputs} inputs, {faults} faults, {time.perf_counter() - started:.0f} s")
    sys.exit(1 if faults else 0)


def fuzz(folder: Path, inputs: int, seed: int, say: Callable[[str], None]) -> int:
    """Give so many damaged inputs to the functions that read them, and return the number of faults."""
    sorts = (("score tables", try_table), ("prediction folders", try_predictions), ("CASE.json", try_facts))
    prepare(folder)
    counts: dict[str, Counter[str]] = {name: Counter() for name, _ in sorts}
    faults = 0
    for number in range(inputs):
        name, attempt = sorts[0 if number % 8 < 5 else 1 if number % 8 < 7 else 2]
        started = time.process_time()
        try:
            attempt(folder, np.random.default_rng([seed, number]))
            outcome = "accepted"
        except InputError:
            outcome = "refused"
        except Exception:
            outcome, faults = "fault", faults + 1
            say(f"{name}, input {number}:\n{traceback.format_exc()}")
        seconds = time.process_time() - started
        if seconds > LONGEST_SECONDS:
            outcome, faults = "slow", faults + 1
            say(f"{name}, input {number}: took {seconds:.0f} s")
        counts[name][outcome] += 1
    for name, found in counts.items():
        say(f"{name}: " + ", ".join(f"{count} {outcome}" for outcome, count in sorted(found.items())))
    return faults


def prepare(folder: Path) -> None:
    """Write good files of each sort."""
    random = np.random.default_rng(0)
    row = PROTOCOLS["brats2021"]
    for name in ("good", "other"):
        values = {case: {r: {m: random.uniform() for m in row.names} for r in row.regions} for case in CASES}
        for ending in ("csv", "json"):
            Evaluation(row, values, ()).save(folder / f"{name}.{ending}")
    labels = np.zeros((1, 12, 12, 12), np.uint8)
    for value, first in ((2, 2), (1, 3), (4, 4)):
        labels[:, first:9, first:9, first:9] = value
    for case in CASES:
        for place in ("found", "truth"):
            write_volume(folder / place / f"{case}.nii", Volume(labels, np.eye(4)))
    image = random.uniform(1, 100, (1, 12, 12, 12)).astype(np.float32)
    write_volume(folder / "t2f.nii", Volume(image, np.eye(4)))
    write_volume(folder / "found" / f"{CASES[0]}_probabilities.nii", Volume(np.repeat(image / 100, 3, 0), np.eye(4)))
    (folder / "facts.json").write_text(json.dumps(FACTS))


def try_table(folder: Path, random: np.random.Generator) -> None:
    """Compare a good table with a damaged one."""
    ending = random.choice(["csv", "json"])
    damaged = folder / f"damaged.{ending}"
    damaged.write_bytes(change((folder / f"other.{ending}").read_bytes(), random))
    found = compare_scores([folder / "good.csv", damaged])
    to_json([found.standings(), csv_text(list(found.rows()[0]), found.rows())]).encode()


def try_predictions(folder: Path, random: np.random.Generator) -> None:
    """Score a folder in which a mask, its name, or the JSON beside it is damaged."""
    mask, facts = folder / "found" / f"{CASES[0]}.nii", folder / "found" / f"{CASES[0]}.json"
    content = mask.read_bytes()
    kind = random.integers(3)
    name = folder / "found" / (odd_name(random) if kind == 1 else mask.name)
    try:
        mask.unlink()
        name.write_bytes(change(content, random, first=rand_start(random)) if kind == 0 else content)
        if kind == 2:
            facts.write_bytes(change((folder / "facts.json").read_bytes(), random))
        found = evaluate(folder / "found", folder / "truth", ignore_extra=bool(random.integers(2)))
        (to_csv([found]) + to_json(found.to_dict()) + str(found)).encode()
    finally:
        name.unlink(missing_ok=True)
        facts.unlink(missing_ok=True)
        mask.write_bytes(content)


def try_facts(folder: Path, random: np.random.Generator) -> None:
    """Read the prediction of a case beside a damaged `CASE.json`."""
    mask = folder / "found" / f"{CASES[0]}.nii"
    facts = mask.with_suffix(".json")
    facts.write_bytes(change((folder / "facts.json").read_bytes(), random))
    try:
        case = Case(CASES[0], {"t2f": Source(folder / "t2f.nii")})
        describe_case(measure_case(case, mask, sequences=["flair"]))
    finally:
        facts.unlink()


def rand_start(random: np.random.Generator) -> int:
    """Return where changes of a mask begin: in its header, or among its voxels."""
    return 0 if random.integers(2) else 352


def odd_name(random: np.random.Generator) -> str:
    """Return the name of a mask with characters of any kind but the separators of paths."""
    letters = random.choice([*"abc019-_.=+@$ '", "\x1b", "\n", "\u202e", "\udcff", "é"], random.integers(1, 12))
    return f"{''.join(letters)}.nii"


def change(content: bytes, random: np.random.Generator, first: int = 0) -> bytes:
    """Return the content with one to three changes, from the byte `first` on."""
    for _ in range(random.integers(1, 4)):
        at = int(random.integers(first, max(first + 1, len(content))))
        end = min(len(content), at + int(random.integers(1, 9)))
        unusual = str(random.choice(UNUSUAL)).encode("utf-8", "surrogatepass")
        pieces = (
            bytes(random.integers(0, 256, end - at, dtype=np.uint8)),
            b"",
            content[at:end] * 3,
            unusual,
        )
        kind = int(random.integers(8))
        if kind < len(pieces):
            content = content[:at] + pieces[kind] + content[end:]
        elif kind == len(pieces):
            content = content[:at]
        else:
            content = replace_value(content, unusual, random)
    return content


def replace_value(content: bytes, value: bytes, random: np.random.Generator) -> bytes:
    """Return the content with one field between separators replaced."""
    cuts = [place for place, byte in enumerate(content) if byte in b',:\n[]{}"']
    if len(cuts) < 2:
        return content
    place = int(random.integers(len(cuts) - 1))
    return content[: cuts[place] + 1] + value + content[cuts[place + 1] :]


if __name__ == "__main__":
    main()
