"""Compare a forward pass and a training step of gliomask's networks with those of a plain U-Net.

The plain U-Net uses float32, PyTorch's default layout, `nn.InstanceNorm3d`, transposed convolutions, and the default
memory allocation. The networks of gliomask run as in `gliomask train`: in bfloat16 if the CPU computes in it natively,
and in float32. Each network has its own process, so that memory can be measured; they run alternately, one at a time.
Images, loss, gradient clipping and optimizer are the same.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from itertools import pairwise
from multiprocessing.connection import Connection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gliomask.execution.memory import keep_memory
from gliomask.inference.torch_engine import autocast
from gliomask.model.choices import Precision
from gliomask.networks import NETWORKS, build_network
from gliomask.training.losses import build_loss, supervised

SEQUENCES, REGIONS = 3, 3
LEVELS = (16, 32, 64, 128, 256)


class PlainUNet(nn.Module):
    """The U-Net of `gliomask.networks.unet`, made of PyTorch's own layers, without optimisations for speed."""

    def __init__(self) -> None:
        super().__init__()
        levels = list(pairwise((SEQUENCES, *LEVELS)))
        self.encoder = nn.ModuleList(_double_conv(inputs, outputs) for inputs, outputs in levels)
        self.up = nn.ModuleList(nn.ConvTranspose3d(coarse, fine, 2, stride=2) for fine, coarse in pairwise(LEVELS))
        self.decoder = nn.ModuleList(_double_conv(2 * width, width) for width in LEVELS[:-1])
        self.score = nn.Conv3d(LEVELS[0], REGIONS, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for number, level in enumerate(self.encoder):
            x = level(F.max_pool3d(x, 2) if number else x)
            skips.append(x)
        skips.pop()
        for up, level in zip(reversed(self.up), reversed(self.decoder), strict=True):
            x = level(torch.cat([skips.pop(), up(x)], dim=1))
        return self.score(x)


def _double_conv(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for coming in (inputs, outputs):
        layers += [nn.Conv3d(coming, outputs, 3, padding=1), nn.InstanceNorm3d(outputs, affine=True), nn.ReLU()]
    return nn.Sequential(*layers)


class Contender:
    """A network in its own process; `run` measures a forward pass and a training step."""

    def __init__(self, name: str, precision: Precision, edge: int) -> None:
        self.name = name
        self.precision = precision
        self.rounds: list[tuple[float, float]] = []
        self.memory_gb = 0.0
        self._pipe, other = multiprocessing.Pipe()
        multiprocessing.Process(target=work, args=(name, precision, edge, other), daemon=True).start()
        other.close()

    def run(self) -> None:
        """Measure a forward pass and a training step, and store their seconds and the peak memory."""
        self._pipe.send("go")
        forward, step, self.memory_gb = self._pipe.recv()
        self.rounds.append((forward, step))


def work(name: str, precision: Precision, edge: int, pipe: Connection) -> None:
    """Answer each message with the seconds of a forward pass and of a step, and the peak memory so far in GB."""
    torch.manual_seed(0)
    images = torch.randn(1, SEQUENCES, edge, edge, edge)
    targets = torch.rand(1, REGIONS, edge, edge, edge) > 0.9
    if name == "plain":
        network: nn.Module = PlainUNet()
    else:
        keep_memory()
        network = build_network(name, SEQUENCES, REGIONS).to(memory_format=torch.channels_last_3d)
        images = images.contiguous(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4)
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        seconds = forward(network, images, precision), step(network, optimizer, images, targets, precision)
        pipe.send((*seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9))


def forward(network: nn.Module, images: Tensor, precision: Precision) -> float:
    """Run a forward pass and return the seconds that it took."""
    network.eval()
    started = time.perf_counter()
    with torch.inference_mode(), autocast(images.device, precision):
        network(images)
    return time.perf_counter() - started


def step(
    network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, targets: Tensor, precision: Precision
) -> float:
    """Take a training step and return the seconds that it took."""
    network.train()
    started = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    with autocast(images.device, precision):
        outputs = network(images)
    supervised(build_loss("dice+ce"), outputs, targets).backward()
    nn.utils.clip_grad_norm_(network.parameters(), 12.0)
    optimizer.step()
    return time.perf_counter() - started


def main() -> None:
    """Print a table of the median seconds and of the median ratios to the plain U-Net."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--edge", type=int, default=128)
    parser.add_argument("--networks", nargs="+", choices=sorted(NETWORKS), default=["unet", "fast"])
    options = parser.parse_args()
    entries: list[tuple[str, Precision]] = [("plain", "fp32")]
    entries += [(name, precision) for name in options.networks for precision in ("fp32", "auto")]
    multiprocessing.set_start_method("spawn")
    contenders = [Contender(name, precision, options.edge) for name, precision in entries]
    for _ in range(options.repeats + 1):  # the first round warms up
        for contender in contenders:
            contender.run()
    print(f"{options.edge}^3, batch 1, {torch.get_num_threads()} threads, median of {options.repeats}")
    print(f"{'network':<16}{'precision':<10}{'forward s':>10}{'ratio':>7}{'step s':>10}{'ratio':>7}{'peak GB':>9}")
    for contender in contenders:
        columns = ""
        for kind in range(2):
            seconds = [taken[kind] for taken in contender.rounds[1:]]
            plain = [taken[kind] for taken in contenders[0].rounds[1:]]
            ratio = statistics.median(slow / quick for slow, quick in zip(plain, seconds, strict=True))
            columns += f"{statistics.median(seconds):>10.2f}{ratio:>7.2f}"
        print(f"{contender.name:<16}{contender.precision:<10}{columns}{contender.memory_gb:>9.2f}")


if __name__ == "__main__":
    main()
