"""Damage caches and run folders in thousands of ways and count how they are refused.

Each input is a copy of a small cache or run folder in which one file has been cut, overwritten, filled with random
bytes, or had a value in its JSON, NumPy or checkpoint content replaced. It is then opened as `compare`, `report` and
`train --resume` open it. The only exception allowed is `InputError`, naming a file of the folder; damage that goes
unnoticed is counted as well. Exits with status 1 if any other exception is raised or an input takes too long.

    python benchmarks/fuzz_folders.py --inputs 10000 --seed 0
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gliomask.cases import find_cases
from gliomask.errors import InputError
from gliomask.figures import curves_figure, figure_png, run_comparison_curves_figure
from gliomask.phantom import write_phantoms
from gliomask.report.training import read_run_record
from gliomask.training.cache import cache_plan, open_cache
from gliomask.training.config import make_config
from gliomask.training.distributed import ProcessGroup
from gliomask.training.learner import Learner
from gliomask.training.loop import train
from gliomask.training.patches import Patches, PatchSettings
from gliomask.training.record import best_row
from gliomask.training.run import load_run, make_plan, new_run_model

LONGEST_SECONDS = 10.0
# Values that take the place of one in a JSON file or a checkpoint.
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1e308, 10**30, float("nan"), float("inf"), "", "text", "\x00", "../..", "1", [], {}),
    *([None], {"a": 1}, [[]], 0.5, -(10**30), "é\u202e", "x" * 10_000),
)


def make_folder(root: Path) -> Path:
    """Write phantoms, train a tiny network on them for two epochs, and return the run folder with its cache."""
    write_phantoms(root / "phantoms", 3, size=32)
    config = make_config(
        network="fcn", network_arguments={"channels": [4, 8]}, patch_size=16, epochs=2, precision="fp32", threads=1
    )
    return train(find_cases(root / "phantoms"), root / "run", config).folder


def damage(path: Path, generator: np.random.Generator) -> str:
    """Damage a file in one of several ways and say which."""
    content = path.read_bytes()
    ways: list[Callable[[bytes, np.random.Generator], bytes]] = [cut, flip, overwrite, fill, insert]
    if path.suffix in (".json", ".jsonl"):
        ways += [replace_in_json] * 8
    if path.suffix == ".npy":
        ways += [replace_array] * 3
    if path.suffix == ".npz":
        ways += [replace_arrays] * 3
    if path.suffix == ".pt":
        ways += [replace_in_checkpoint] * 5
    way = ways[int(generator.integers(len(ways)))]
    path.write_bytes(way(content, generator))
    return f"{path.name}: {way.__name__}"


def cut(content: bytes, generator: np.random.Generator) -> bytes:
    """Keep the first part of a file."""
    return content[: int(generator.integers(len(content)))]


def flip(content: bytes, generator: np.random.Generator) -> bytes:
    """Change a few bytes, half of the time near the beginning."""
    changed = bytearray(content)
    end = min(len(changed), 256) if generator.random() < 0.5 else len(changed)
    for place in generator.integers(end, size=int(generator.integers(1, 9))):
        changed[place] ^= int(generator.integers(1, 256))
    return bytes(changed)


def overwrite(content: bytes, generator: np.random.Generator) -> bytes:
    """Set a block of the file to zero."""
    start = int(generator.integers(len(content)))
    length = int(generator.integers(1, 1 + min(4096, len(content) - start)))
    return content[:start] + bytes(length) + content[start + length :]


def fill(content: bytes, generator: np.random.Generator) -> bytes:
    """Replace everything by random bytes."""
    return generator.bytes(int(generator.integers(0, 2 * min(len(content), 2048))))


def insert(content: bytes, generator: np.random.Generator) -> bytes:
    """Repeat a part of the file."""
    start, stop = sorted(int(place) for place in generator.integers(len(content), size=2))
    return content[:stop] + content[start:stop][:4096] + content[stop:]


def replace_in_json(content: bytes, generator: np.random.Generator) -> bytes:
    """Replace or remove one value at any depth."""
    lines = content.decode().splitlines() if content.count(b"\n{") else [content.decode()]
    number = int(generator.integers(len(lines)))
    lines[number] = json.dumps(_replaced(json.loads(lines[number]), generator))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def replace_array(content: bytes, generator: np.random.Generator) -> bytes:
    """Write an array of another type or shape."""
    array = np.load(io.BytesIO(content))
    changed = _other_array(array, generator)
    out = io.BytesIO()
    np.save(out, changed, allow_pickle=True)
    return out.getvalue()


def replace_arrays(content: bytes, generator: np.random.Generator) -> bytes:
    """Replace or remove one of the arrays of an archive."""
    with np.load(io.BytesIO(content)) as stored:
        arrays = {name: stored[name] for name in stored.files}
    name = list(arrays)[int(generator.integers(len(arrays)))]
    arrays[name] = _other_array(arrays[name], generator)
    if generator.random() < 0.2:
        del arrays[name]
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def replace_in_checkpoint(content: bytes, generator: np.random.Generator) -> bytes:
    """Replace or remove one value of a checkpoint at any depth."""
    stored = torch.load(io.BytesIO(content), weights_only=True)
    out = io.BytesIO()
    torch.save(_replaced(stored, generator), out)
    return out.getvalue()


def _other_array(array: np.ndarray[Any, Any], generator: np.random.Generator) -> np.ndarray[Any, Any]:
    kinds = ("float64", "int64", "U4", "object", "complex64", "bool", "int16", "uint8")
    ways: list[Callable[[], np.ndarray[Any, Any]]] = [
        lambda: array.astype(kinds[int(generator.integers(len(kinds)))]),
        lambda: array[..., :-1],
        lambda: array[:0],
        lambda: array.ravel(),
        lambda: array[None],
        lambda: np.asfortranarray(array),
        lambda: (array.astype(np.int64) * -1000).astype(array.dtype),
        lambda: np.array(7),
    ]
    return ways[int(generator.integers(len(ways)))]()


def _replaced(value: Any, generator: np.random.Generator) -> Any:
    """Return a value with one part, at any depth, replaced or removed."""
    inside = isinstance(value, dict | list) and len(value) > 0 and generator.random() < 0.85
    if not inside:
        return ODD[int(generator.integers(len(ODD)))]
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[int(generator.integers(len(keys)))]
    changed = value.copy()
    if generator.random() < 0.1:
        del changed[key]
    else:
        changed[key] = _replaced(changed[key], generator)
    return changed


def open_run_folder(run: Path, *, draw: bool) -> None:
    """Read a run folder as `compare`, `report` and `train --resume` do, without training or predicting.

    With `draw`, the curves are drawn as well, which takes most of the time.
    """
    loaded = load_run(run)
    rows = loaded.rows()
    loaded.split()
    read_run_record(run)
    best_row(rows)
    if draw:
        figure_png(curves_figure(rows), dpi=20)
        figure_png(run_comparison_curves_figure({"run": rows}), dpi=20)
    model = new_run_model(make_plan(loaded.config, run / "cache"), 0, run / "config.json")
    loaded.load_state(Learner(model, loaded.config, ProcessGroup()).parts)


def open_cache_folder(run: Path) -> None:
    """Open a cache and draw a patch of each case."""
    cache = run / "cache"
    plan = cache_plan(cache)
    cases = open_cache(cache, plan)
    patches = Patches(cases, plan, PatchSettings((16, 16, 16), None, 0.0, 0), batch_size=1)
    for step in range(len(cases)):
        patches[step]


def fuzz(run: Path, inputs: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Damage a run folder in many ways, and return counts of the outcomes and the faults that were found.

    Args:
        run: As `make_folder` returns it; it is left as it was.
        inputs: How many.
        seed: Of the damage.
    """
    files = sorted(path for path in run.rglob("*") if path.suffix in (".json", ".jsonl", ".npy", ".npz", ".pt"))
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        copy = Path(shutil.copytree(run, Path(place) / "run"))
        for number in range(inputs):
            generator = np.random.default_rng([seed, number])
            path = files[int(generator.integers(len(files)))]
            target = copy / path.relative_to(run)
            what = damage(target, generator)
            fault = _open(copy, target, outcomes, draw=number % 50 == 0)
            if fault:
                faults.append(f"seed {seed}, input {number}, {what}: {fault}")
            shutil.copy2(path, target)
    return outcomes, faults


def _open(run: Path, damaged: Path, outcomes: Counter[str], *, draw: bool) -> str | None:
    """Open a damaged run folder; return what is wrong about how it is refused."""
    started = time.process_time()  # other programs on the machine do not count
    fault = None
    try:
        if "cache" in damaged.parts[-3:]:
            open_cache_folder(run)
        else:
            open_run_folder(run, draw=draw)
        outcomes["unnoticed"] += 1
    except InputError as error:
        outcomes["refused"] += 1
        if str(run) not in str(error):
            fault = f"the message names no file: {error}"
    except Exception:
        outcomes["another exception"] += 1
        fault = traceback.format_exc(limit=-4)
    if time.process_time() - started > LONGEST_SECONDS:
        fault = f"took {time.process_time() - started:.0f} s of CPU time"
    return fault


def main(words: Sequence[str] | None = None) -> int:
    """Run the fuzzer and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        run = make_folder(Path(place))
        started = time.monotonic()
        outcomes, faults = fuzz(run, options.inputs, options.seed)
    for fault in faults[:20]:
        print(fault)
    seconds = time.monotonic() - started
    print(f"{options.inputs} inputs in {seconds:.0f} s: {dict(outcomes)}, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
