"""Damage model files in many ways and load each: it must load or be refused with an InputError, quickly.

The files are small models in safetensors (32, 16 and 8 bits, an ensemble) and ONNX. The damage is seeded: bytes are
changed, removed or inserted, fields of the plan and of the tensors' table get values of other types and sizes, and
weights become NaN. A model that still loads must return finite logits or refuse with an InputError.

The files are loaded in child processes, so that a crash of a library is counted and does not end the run.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# A file that takes more processor time than this, in seconds, counts as a fault.
SLOW = 10.0
# Files that one child process loads before it ends, so that its peak memory can be told.
BATCH = 1000

# Values that a field of JSON may not have, of every type and of extreme sizes.
STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 10**9, 2**63, -(2**63), 10**30, 0.5, 1e-9, -1e300, 1e308),
    *(
        float("nan"),
        float("inf"),
        "",
        "x",
        "lps",
        "XYZ",
        "WT",
        "t1c",
        "ensemble",
        "unet",
        "fcn",
        "é" * 300,
        "y" * 100_000,
    ),
    *([], [[]], {}, [1, 2, 3], [0, 0, 0], [1.0, -1.0, float("nan")], ["WT", "WT"], ["t1c"], [10**9] * 3, [1e-9] * 3),
    *({"a": 1}, {"name": "unet"}, {"channels": [10**7, 10**7]}, {"channels": "8"}, {"blocks": 10**9}, {"norm": {}}),
    *({"members": [["fast", {"channels": [4, 6]}]] * 3}, {"members": 3}, {"members": [["ensemble", {}]] * 2}),
)

Damage = Callable[[bytes, random.Random], bytes]


def make_models(folder: Path) -> list[Path]:
    """Write the whole models that are to be damaged; needs torch and onnx."""
    from gliomask.inference.ensembling import join_models
    from gliomask.inference.loading import new_model, save_model
    from gliomask.inference.onnx_export import export_model
    from gliomask.model.plan import Plan, Postprocessing, RegionRule

    rules = Postprocessing(regions={"ET": RegionRule(temperature=1.2, least_mm3=10)}, least_et_mm3=20)
    common: dict[str, Any] = {"modalities": ("t2f", "t1c"), "patch_size": (16, 16, 16), "postprocessing": rules}
    fast = Plan(network="fast", network_arguments={"channels": [4, 6], "norm": "batch"}, **common)
    sides = Plan(network="fast_sides", network_arguments={"channels": [4, 6, 8]}, **common)
    fcn = Plan(network="fcn", network_arguments={"channels": [4, 6]}, **common)
    save_model(new_model(fast, seed=1), folder / "fast.safetensors", training={"epoch": 3})
    save_model(new_model(sides, seed=2), folder / "sides.safetensors", bits=8)
    save_model(new_model(fcn, seed=3), folder / "fcn.safetensors", bits=16)
    joined = join_models([folder / "fast.safetensors", folder / "sides.safetensors"])
    save_model(joined, folder / "joined.safetensors")
    export_model(new_model(fast, seed=4), folder / "fast.onnx", training={"epoch": 3})
    return sorted(folder.iterdir())


def change_bytes(content: bytes, draw: random.Random) -> bytes:
    """Change some bytes to random ones, half of the time near the beginning."""
    damaged = bytearray(content)
    reach = len(damaged) if draw.random() < 0.5 else min(len(damaged), 3000)
    for _ in range(draw.choice((1, 1, 2, 8, 100))):
        damaged[draw.randrange(reach)] = draw.randrange(256)
    return bytes(damaged)


def cut(content: bytes, draw: random.Random) -> bytes:
    """Keep the beginning, or remove a part from within."""
    start = draw.randrange(len(content))
    return content[:start] if draw.random() < 0.5 else content[:start] + content[start + draw.randrange(1, 5000) :]


def insert(content: bytes, draw: random.Random) -> bytes:
    """Insert random bytes, zeros, or a part of the file itself."""
    start, length = draw.randrange(len(content)), draw.randrange(1, 2000)
    more = draw.choice((draw.randbytes(length), bytes(length), content[start : start + length]))
    return content[:start] + more + content[start:]


def change_record(content: bytes, draw: random.Random) -> bytes:
    """Give a field of the plan or of the record a strange value, remove it, or add one."""
    header, rest = _split(content)
    record = json.loads(header["__metadata__"]["gliomask"])
    _change(draw.choice((record, record["plan"], record["plan"], record["plan"]["postprocessing"])), draw)
    header["__metadata__"]["gliomask"] = json.dumps(record)
    return _join(header, rest)


def change_metadata(content: bytes, draw: random.Random) -> bytes:
    """Replace the record by text that is no record, deeply nested JSON among it."""
    header, rest = _split(content)
    deep = draw.choice((60, 1000, 100_000))
    header["__metadata__"]["gliomask"] = draw.choice(
        ("", "{", "[]", "7", "null", "[" * deep + "]" * deep, '{"plan":' * deep + "1" + "}" * deep, '{"plan": [1]}')
    )
    return _join(header, rest)


def change_table(content: bytes, draw: random.Random) -> bytes:
    """Change type, shape, place or name of a tensor."""
    header, rest = _split(content)
    name = draw.choice([key for key in header if key != "__metadata__"])
    tensor = header[name]
    kind = draw.randrange(5)
    if kind == 0:
        tensor["dtype"] = draw.choice(("F64", "F16", "BF16", "I8", "I64", "U8", "BOOL", "F8_E4M3", "X", 3))
    elif kind == 1:
        tensor["shape"] = draw.choice((tensor["shape"][::-1], [], [0], [-1], [2**62, 4], tensor["shape"] + [1]))
    elif kind == 2:
        tensor["data_offsets"] = [draw.choice((0, -1, 2**62, tensor["data_offsets"][0])), draw.choice((0, 4, 2**62))]
    elif kind == 3:
        header[draw.choice(("x", name + ".scale", "members.0." + name, "members.9." + name))] = header.pop(name)
    else:
        del header[name]
    return _join(header, rest)


def change_weights(content: bytes, draw: random.Random) -> bytes:
    """Set some floats among the weights to NaN, infinity or a huge or negative number."""
    header, rest = _split(content)
    weights = bytearray(rest)
    for _ in range(draw.choice((1, 3, 200))):
        start = 4 * draw.randrange(max(1, len(weights) // 4))
        weights[start : start + 4] = draw.choice(
            (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x00\x00\x80\xff", b"\xff\xff\x7f\x7f", b"\x00\x00\x80\xbf")
        )
    return _join(header, bytes(weights))


BINARY: tuple[Damage, ...] = (change_bytes, cut, insert)
TEXTUAL: tuple[Damage, ...] = (
    change_record,
    change_record,
    change_record,
    change_metadata,
    change_table,
    change_weights,
)


def damaged_file(models: list[Path], number: int, seed: int) -> tuple[str, bytes]:
    """Return the name and the content of one damaged file; the same for the same number and seed."""
    draw = random.Random(f"{seed}-{number}")
    model = draw.choice(models)
    content = model.read_bytes()
    change = draw.choice(BINARY if model.suffix == ".onnx" or draw.random() < 0.3 else TEXTUAL)
    return f"{change.__name__} of {model.name}", change(content, draw)


def outcome(path: Path) -> str:
    """Load a file in each engine, and run what loads; return what happened in a word, or the unexpected exception."""
    import numpy as np

    from gliomask.errors import InputError
    from gliomask.inference.loading import load_model, load_torch_model
    from gliomask.inference.windows import Inference
    from gliomask.model.file import read_plan, read_training

    found = "loaded"
    torch_too = [] if path.suffix == ".onnx" else [lambda: load_torch_model(path)]
    for load in (lambda: read_plan(path), lambda: read_training(path), lambda: load_model(path, threads=1), *torch_too):
        try:
            model: Any = load()
            if hasattr(model, "run"):
                data = np.zeros((len(model.plan.modalities), 16, 16, 16), np.float32)
                data[:, 4:12, 4:12, 4:12] = 1
                if model.plan.patch_size <= (64, 64, 64):
                    model.run(data, Inference("whole", precision="fp32"))
        except InputError:
            found = "refused"
        except Exception as error:
            return f"{type(error).__name__}: {error}"[:300]
    return found


def child(models: list[Path], first: int, count: int, seed: int) -> None:
    """Load some damaged files and print a line of JSON for each, and the peak memory at the end."""
    warnings.simplefilter("ignore")
    import torch  # before the first file, whose time would include it

    import gliomask.inference.openvino_engine  # noqa: F401

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            name, content = damaged_file(models, number, seed)
            path = Path(folder) / ("m.onnx" if name.endswith(".onnx") else "m.safetensors")
            path.write_bytes(content)
            print(json.dumps({"begin": number, "name": name}), flush=True)
            started = time.process_time()
            result = outcome(path)
            print(json.dumps({"end": number, "result": result, "s": time.process_time() - started}), flush=True)
    print(json.dumps({"peak_gb": _peak_gb()}), flush=True)


def run_batch(folder: Path, first: int, count: int, seed: int) -> tuple[list[dict[str, Any]], float]:
    """Load a batch in a child process, and a new one after a crash; return the results and the peak memory in GB."""
    results: list[dict[str, Any]] = []
    peak = 0.0
    last = first + count
    while first < last:
        words = ["--child", str(first), "--count", str(last - first), "--seed", str(seed), "--models", str(folder)]
        ran = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
        open_one: dict[str, Any] | None = None
        for line in ran.stdout.splitlines():
            message = json.loads(line)
            if "begin" in message:
                open_one = message
            elif "end" in message and open_one is not None:
                results.append({**open_one, **message})
                open_one = None
            else:
                peak = max(peak, message["peak_gb"])
        if open_one is None and ran.returncode:
            raise RuntimeError(ran.stderr)
        if open_one is None:
            break
        results.append({**open_one, "result": f"crash with status {ran.returncode}", "s": 0.0})
        first = int(open_one["begin"]) + 1
    return results, peak


def main() -> None:
    """Print how many files were refused, loaded and failed, the slowest, and the peak memory; exit with 1 on faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--models", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        child(sorted(options.models.iterdir()), options.child, options.count, options.seed)
        return
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.processes) as pool:
        make_models(Path(folder))
        batches = [
            pool.submit(run_batch, Path(folder), first, min(BATCH, options.count - first), options.seed)
            for first in range(0, options.count, BATCH)
        ]
        done = [batch.result() for batch in batches]
    results = [result for found, _ in done for result in found]
    faults = [result for result in results if result["result"] not in ("loaded", "refused") or result["s"] > SLOW]
    counts = Counter(result["result"] for result in results if result not in faults)
    print(f"{len(results)} damaged model files (seed {options.seed}) in {time.perf_counter() - started:.0f} s")
    print(f"refused with an InputError {counts['refused']}, loaded {counts['loaded']}, faults {len(faults)}")
    slowest, memory = max(result["s"] for result in results), max(peak for _, peak in done)
    print(f"slowest {slowest:.1f} s of processor time, peak memory {memory:.2f} GB")
    for fault in faults[:40]:
        print(f"  {fault['begin']} {fault['name']}: {fault['result']} ({fault['s']:.1f} s)")
    sys.exit(bool(faults))


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _join(header: dict[str, Any], rest: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + rest


def _change(fields: dict[str, Any], draw: random.Random) -> None:
    name = draw.choice([*fields, "unknown"])
    if draw.random() < 0.15:
        fields.pop(name, None)
    elif isinstance(fields.get(name), dict) and draw.random() < 0.5:
        _change(fields[name], draw)
    elif isinstance(fields.get(name), list) and fields[name] and draw.random() < 0.4:
        fields[name][draw.randrange(len(fields[name]))] = draw.choice(STRANGE)
    else:
        fields[name] = draw.choice(STRANGE)


def _peak_gb() -> float:
    try:
        import resource
    except ImportError:  # on Windows
        return 0.0
    # On Linux `ru_maxrss` counts the memory of the parent too, of which the process was a copy before it began.
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


if __name__ == "__main__":
    main()
