"""Time and memory of a full-size network of nnU-Net: as gliomask runs it, and plainly in PyTorch.

    python benchmarks/foreign.py

The network is that of nnU-Net's usual 3d_fullres plan for BraTS (PlainConvUNet, 32 to 320 features, 31 million
parameters, patches of 128^3) with random weights, on one phantom. `plain` runs the same windows one after the other in
float32 with torch's own instance norm, as nnU-Net does on a processor. Each part runs in a process of its own, so that
its peak memory is its own; both are in one run, so that the ratio depends less on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Measure both parts and print them with their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=240, help="The phantom's longest edge; 240 is BraTS's grid.")
    options = parser.parse_args()
    if options.part:
        print(json.dumps(run(options.part, options.file, options.size)))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "big.safetensors"
        write_network(file)
        found = {part: measure(part, file, options.size) for part in ("ours", "plain")}
    for part, facts in found.items():
        print(
            f"{part}: {facts['seconds']:.1f} s ({facts['cpu_seconds']:.1f} s of CPU time, loading included) for "
            f"{facts['windows']} windows, peak {facts['peak_gb']:.2f} GB, {facts['engine']}"
        )
    ratios = (found["plain"][name] / found["ours"][name] for name in ("seconds", "cpu_seconds"))
    print("ratio {:.2f}, of CPU time {:.2f}".format(*ratios))


def write_network(file: Path) -> None:
    """Write the network with random weights as a model file."""
    from gliomask.inference.loading import new_model, save_model
    from gliomask.model.plan import Plan
    from gliomask.model.sampling import Resampling, Windows

    plan = Plan(
        modalities=("t1n", "t1c", "t2w", "t2f"),
        axes="SPL",
        channel_normalization=("zscore_brain",) * 4,
        resampling=Resampling(),
        windows=Windows(centre="voxel", least_weight=6e-9, mirror_windows=True),
        network="plain_conv_unet",
    )
    save_model(new_model(plan), file, bits=16)


def measure(part: str, file: Path, size: int) -> dict[str, Any]:
    """Return the facts about one part, run in a new process."""
    command = [sys.executable, __file__, "--part", part, "--file", str(file), "--size", str(size)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run(part: str, file: Path, size: int) -> dict[str, Any]:
    """Return the facts about one part, run in this process."""
    import resource

    from gliomask.foreign import read_plan
    from gliomask.inference.preprocessing import prepare
    from gliomask.phantom import make_phantom
    from gliomask.volume import Volume

    plan = read_plan(file)
    phantom = make_phantom(0, size=size)
    data = prepare(Volume(np.stack([phantom.images[name] for name in plan.modalities]), phantom.affine), plan).data
    del phantom
    before = time.process_time()
    seconds, windows, engine = (ours if part == "ours" else plain)(file, data)
    cpu_seconds = time.process_time() - before  # on a busy machine more telling than the time on the clock
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "windows": windows, "peak_gb": peak, "engine": engine}


def ours(file: Path, data: np.ndarray) -> tuple[float, int, str]:
    """Run the network as `predict` does."""
    from gliomask.inference.loading import load_model
    from gliomask.inference.windows import Inference

    model = load_model(file, device="cpu")
    parts: list[float] = []
    started = time.perf_counter()
    model.run(data, Inference(), parts.append)
    return time.perf_counter() - started, len(parts), model.engine


def plain(file: Path, data: np.ndarray) -> tuple[float, int, str]:
    """Run the network's windows in float32 with torch's own layers."""
    import torch
    from torch import nn

    from gliomask.inference.loading import load_torch_model
    from gliomask.networks.blocks import InstanceNorm

    network = load_torch_model(file).network
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, InstanceNorm):
                norm = nn.InstanceNorm3d(len(child.weight), affine=True)
                norm.load_state_dict(child.state_dict())
                setattr(module, name, norm)
    edges = [max(0, 128 - n) for n in data.shape[1:]]
    images = torch.from_numpy(np.pad(data, [(0, 0), *((edge // 2, edge - edge // 2) for edge in edges)]))[None]
    corners = list(product(*(starts(n) for n in images.shape[2:])))
    total = torch.zeros(1, 3, *images.shape[2:])
    started = time.perf_counter()
    with torch.inference_mode():
        for x, y, z in corners:
            place = (..., slice(x, x + 128), slice(y, y + 128), slice(z, z + 128))
            total[place] += network(images[place].contiguous())
    return time.perf_counter() - started, len(corners), f"torch {torch.__version__}"


def starts(length: int) -> list[int]:
    """Return where nnU-Net's windows of 128 voxels begin, half a window apart at the most."""
    count = ceil((length - 128) / 64) + 1
    return [round(i * (length - 128) / max(count - 1, 1)) for i in range(count)]


if __name__ == "__main__":
    main()
