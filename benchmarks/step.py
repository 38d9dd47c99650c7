"""One training step of our `unet` against the same U-Net written plainly, in turn, in one run; 128^3, batch 1.

Plain: float32, torch's default layout, `nn.InstanceNorm3d`. Ours: bfloat16 where the processor computes in it, the
channels-last layout, our instance norm. The weights, the loss and the optimizer are the same.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn

from gliomask.engine import autocast
from gliomask.losses import build_loss
from gliomask.networks import build_network
from gliomask.networks.blocks import InstanceNorm


def plain_unet() -> nn.Module:
    """Return our U-Net with torch's own instance norm in place of ours."""
    torch.manual_seed(0)
    network = build_network("unet", 3, 3)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, InstanceNorm):
                norm = nn.InstanceNorm3d(len(child.weight), affine=True)
                norm.load_state_dict(child.state_dict())
                setattr(module, name, norm)
    return network


def step(network: nn.Module, optimizer: torch.optim.Optimizer, edge: int, *, ours: bool) -> float:
    """Take a step and return its seconds."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, edge, edge, edge, generator=generator)
    targets = torch.rand(1, 3, edge, edge, edge, generator=generator) > 0.9
    if ours:
        images = images.contiguous(memory_format=torch.channels_last_3d)
    started = time.perf_counter()
    with autocast(images.device, "auto" if ours else "fp32"):
        logits = network(images)
    loss = build_loss("dice+ce")(logits, targets)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return time.perf_counter() - started


def main() -> None:
    """Print the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--edge", type=int, default=128)
    options = parser.parse_args()
    torch.manual_seed(0)
    own = build_network("unet", 3, 3).to(memory_format=torch.channels_last_3d)
    contenders = [(plain_unet(), False), (own, True)]
    optimizers = [torch.optim.AdamW(network.parameters(), lr=1e-3) for network, _ in contenders]
    seconds: list[list[float]] = [[], []]
    for _ in range(options.repeats + 1):
        for number, ((network, ours), optimizer) in enumerate(zip(contenders, optimizers, strict=True)):
            seconds[number].append(step(network, optimizer, options.edge, ours=ours))
    plain, ours_s = (statistics.median(column[1:]) for column in seconds)  # the first warms up
    print(f"unet, {options.edge}^3, batch 1, one step: plain {plain:.2f} s, gliomask {ours_s:.2f} s,", end=" ")
    print(f"ratio {plain / ours_s:.2f}")


if __name__ == "__main__":
    main()
