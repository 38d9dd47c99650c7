"""Measure the stages of `gliomask predict` on one case, and compare the whole process with a plain pipeline.

The plain pipeline uses the common libraries with care: `get_fdata` in float64, z-scores over the whole volume, the same
network as an ordinary PyTorch module in float32 with `nn.InstanceNorm3d`, windows of 128^3 over the whole volume that
overlap by half and are weighted by a Gaussian, and nibabel to save the mask. The two run alternately, each time in a
new process.

Without --model the network is the shipped one, and without --case the case is a phantom of full size. CPU time is
printed as well as elapsed time, because a busy machine affects it less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path


def stages(model: Path, folder: Path, threads: int | None) -> dict[str, tuple[float, float]]:
    """Return the elapsed and the CPU seconds of each stage, run one after another in this process."""
    taken: dict[str, tuple[float, float]] = {}

    def timed(name: str, work: Callable[[], object]) -> object:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        taken[name] = time.perf_counter() - wall, time.process_time() - cpu
        return result

    def libraries() -> None:
        import gliomask.cli
        import gliomask.inference.openvino_engine
        import gliomask.inference.prediction  # noqa: F401

    timed("import", libraries)
    from gliomask.cases import find_cases, read_case
    from gliomask.inference.loading import load_model
    from gliomask.inference.postprocessing import clean, to_probabilities
    from gliomask.inference.prediction import predict
    from gliomask.inference.preprocessing import prepare, restore
    from gliomask.inference.windows import Inference
    from gliomask.labels import get_convention, to_labels
    from gliomask.volume import Volume, write_volume

    case = find_cases(folder)[0]
    loaded = timed("load the model", lambda: load_model(model, device="cpu", threads=threads))
    volume = timed("read", lambda: read_case(case, loaded.plan.modalities))
    prepared = timed("prepare", lambda: prepare(volume, loaded.plan))
    timed("compile", lambda: loaded.get_ready(Inference()))
    logits, window = timed("network, first", lambda: loaded.run(prepared.data, Inference()))
    timed("network, again", lambda: loaded.run(prepared.data, Inference()))

    def label() -> Volume:
        plan = loaded.plan
        found = restore(prepared, to_probabilities(logits, plan.regions, plan.postprocessing))
        masks = clean(found.data, plan.regions, plan.postprocessing, found.spacing_mm)
        return Volume(to_labels(masks, plan.regions, get_convention("brats2021"))[None], found.affine)

    labels = timed("restore, clean, label", label)
    with tempfile.TemporaryDirectory() as place:
        like = next(iter(case.images.values())).path
        timed("write", lambda: write_volume(Path(place) / "mask.nii.gz", labels, like=like))
    timed("all of it, a second case", lambda: predict(loaded, case))
    print(f"{loaded.engine}, window {window}, box {' x '.join(map(str, prepared.data.shape[1:]))}")
    return taken


def plain(model: Path, folder: Path, output: Path) -> None:
    """Predict a case with PyTorch and nibabel alone."""
    import nibabel as nib
    import numpy as np
    import torch

    from gliomask.cases import find_cases
    from gliomask.model.file import read_plan, read_weights

    case = find_cases(folder)[0]
    loaded = [nib.load(case.images[name].path) for name in read_plan(model).modalities]
    channels = []
    for image in loaded:
        data = image.get_fdata()
        brain = data != 0
        channels.append(np.where(brain, (data - data[brain].mean()) / data[brain].std(), 0))
    images = torch.from_numpy(np.stack(channels)[None]).float()
    network = _plain_network({name: torch.from_numpy(value) for name, value in read_weights(model).items()})
    with torch.inference_mode():
        logits = _plain_windows(network, images)
    labels = np.zeros(images.shape[2:], np.uint8)
    for region, value in zip(torch.sigmoid(logits)[0].numpy() > 0.5, (2, 1, 4), strict=True):
        labels[region] = value
    nib.save(nib.Nifti1Image(labels, loaded[0].affine), output)


def _plain_network(weights: dict):
    """Return the network or, for an ensemble, the mean of its networks; every second one gets a shifted image."""
    import torch

    members: dict[str, dict] = {}
    for name, value in weights.items():
        member, _, own = name.removeprefix("members.").partition(".") if name.startswith("members.") else ("", "", name)
        members.setdefault(member, {})[own] = value
    networks = [_plain_fast(members[member]) for member in sorted(members)]

    def run(images: torch.Tensor) -> torch.Tensor:
        axes = (2, 3, 4)
        answers = [
            torch.roll(network(torch.roll(images, (i % 2,) * 3, axes)), (-(i % 2),) * 3, axes)
            for i, network in enumerate(networks)
        ]
        return sum(answers) / len(answers)

    return run


def _plain_fast(weights: dict):
    """Return the network `fast` or `fast_sides` with these weights, made of PyTorch's own layers."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    widths = []
    while f"encoder.{len(widths)}.0.0.weight" in weights:
        widths.append(len(weights[f"encoder.{len(widths)}.0.0.weight"]))
    batch = "encoder.0.0.1.running_var" in weights

    def norm(width: int) -> nn.Module:
        return nn.BatchNorm3d(width) if batch else nn.InstanceNorm3d(width, affine=True)

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            first = nn.Sequential(nn.Conv3d(width, width, 3, padding=1, bias=False), norm(width), nn.ReLU())
            self.residual = nn.Sequential(first, nn.Conv3d(width, width, 3, padding=1, bias=False), norm(width))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(x + self.residual(x))

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            inputs = weights["encoder.0.0.0.weight"].shape[1]
            blocks = [
                sum(f"encoder.{level}.{b}.residual.1.weight" in weights for b in range(1, 99))
                for level in range(len(widths))
            ]
            self.encoder = nn.ModuleList(
                nn.Sequential(
                    nn.Sequential(nn.Conv3d(a, b, 2, stride=2, bias=False), norm(b), nn.ReLU()),
                    *(Block(b) for _ in range(count)),
                )
                for (a, b), count in zip(pairwise((inputs, *widths)), blocks, strict=True)
            )
            across = [width for i, width in enumerate(widths[1:]) if f"across.{i}.weight" in weights]
            self.across = nn.ModuleList(nn.Conv3d(width, width, 1, bias=False) for width in across)
            self.up = nn.ModuleList(nn.Conv3d(b, a, 1) for a, b in pairwise(widths))
            self.decoder = nn.ModuleList(Block(width) for width in widths[:-1])
            self.head = nn.Conv3d(widths[0], len(weights["head.weight"]), 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            skips = []
            for i, level in enumerate(self.encoder):
                x = level(x)
                if i > 0 and len(self.across):
                    x = x + self.across[i - 1](x.flip(2))
                skips.append(x)
            skips.pop()
            for level in reversed(range(len(skips))):
                x = self.decoder[level](skips.pop() + F.interpolate(self.up[level](x), scale_factor=2))
            scores = self.head(x)
            regions = scores.shape[1] // 8
            fine = scores.reshape(1, 2, 2, 2, regions, *scores.shape[2:]).permute(0, 4, 5, 1, 6, 2, 7, 3)
            return fine.reshape(1, regions, *(2 * n for n in scores.shape[2:]))

    network = Plain().eval()
    network.load_state_dict({name: value for name, value in weights.items() if "scores." not in name})
    return network


def _plain_windows(network, images, edge: int = 128):
    """Return the logits of overlapping windows, averaged with Gaussian weights."""
    import torch

    shape = images.shape[2:]
    one = torch.exp(-0.5 * ((torch.arange(edge) - (edge - 1) / 2) / (edge / 8)) ** 2)
    weights = (one[:, None, None] * one[None, :, None] * one[None, None, :]).clamp_min(1e-4)
    total, weight = torch.zeros(1, 3, *shape), torch.zeros(shape)
    starts = [sorted({*range(0, n - edge, edge // 2), n - edge}) for n in shape]
    for x in starts[0]:
        for y in starts[1]:
            for z in starts[2]:
                window = (slice(x, x + edge), slice(y, y + edge), slice(z, z + edge))
                inside = (slice(None), slice(None), *window)
                total[inside] += network(images[inside]) * weights
                weight[window] += weights
    return total / weight


def whole_process(command: list[str]) -> tuple[float, float, float]:
    """Run a command and return its elapsed seconds, its CPU seconds and its peak memory in GB."""
    started = time.perf_counter()
    child = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    assert status == 0, command
    child.returncode = 0
    scale = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss * scale / 1e9


def main() -> None:
    """Print a row for each stage, then one for each whole process, and the medians of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--case", type=Path, help="a folder with one case with the sequences of the model and voxels of 1 mm"
    )
    parser.add_argument(
        "--model", type=Path, help="a model file with the network fast or fast_sides, or an ensemble of them"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", choices=["stages", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only == "plain":
        plain(options.model, options.case, options.output)
        return
    if options.only == "stages":
        print(json.dumps(stages(options.model, options.case, options.threads)))
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        case = options.case or _phantom(place)
        model = options.model or _shipped()
        _report(case, model, place, options.repeats, options.threads)


def _shipped() -> Path:
    from gliomask.model.file import find_model

    return find_model(None)


def _phantom(place: Path) -> Path:
    code = "import sys; from gliomask import write_phantoms; write_phantoms(sys.argv[1], 1, size=240)"
    subprocess.run([sys.executable, "-c", code, str(place / "phantom")], check=True)
    return next(path for path in (place / "phantom").iterdir() if path.is_dir())


def _report(case: Path, model: Path, place: Path, repeats: int, threads: int | None) -> None:
    shared = ["--case", str(case), "--model", str(model), *(["--threads", str(threads)] if threads else [])]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {case.name}")
    told = subprocess.run(
        [sys.executable, __file__, "--only", "stages", *shared], check=True, capture_output=True, text=True
    )
    what, figures = told.stdout.strip().splitlines()
    print(what)
    for name, (wall, cpu) in json.loads(figures).items():
        print(f"  {name:<26}{wall:>7.2f} s{cpu:>7.2f} s of CPU time")
    ours = [
        "-m",
        "gliomask",
        "predict",
        "-m",
        str(model),
        "-i",
        str(case),
        "-o",
        str(place / "ours"),
        "--overwrite",
        "-d",
        "cpu",
    ]
    theirs = [__file__, "--only", "plain", *shared, "--output", str(place / "plain.nii.gz")]
    rounds = [(whole_process(ours), whole_process(theirs)) for _ in range(repeats)]
    for name, which in (("gliomask predict", 0), ("plain torch pipeline", 1)):
        wall, cpu, memory = (statistics.median(pair[which][kind] for pair in rounds) for kind in range(3))
        print(f"{name:<28}{wall:>7.2f} s{cpu:>7.2f} s of CPU time, peak {memory:.2f} GB")
    for name, kind in (("elapsed time", 0), ("CPU time", 1)):
        ratio = statistics.median(slow[kind] / quick[kind] for quick, slow in rounds)
        print(f"ratio of {name}: {ratio:.1f}")


if __name__ == "__main__":
    main()
