"""Measure peak memory and CPU time of training steps with and without recomputed activations, with a batch of 1.

Each measurement has its own process. It takes two steps, because only the second one has everything in memory at the
same time (weights, gradients, AdamW's moments, activations). The memory that the process used before the network was
built is subtracted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from multiprocessing.connection import Connection

import torch

from gliomask.inference.torch_engine import autocast
from gliomask.networks import build_network
from gliomask.networks.checkpointing import recompute
from gliomask.training.losses import build_loss, supervised


def measure(name: str, edge: int, bf16: bool, low_memory: bool, answer: Connection) -> None:
    """Take two steps, and send the peak memory in bytes and the CPU seconds of the second step."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, edge, edge, edge, generator=generator).contiguous(memory_format=torch.channels_last_3d)
    targets = torch.rand(1, 3, edge, edge, edge, generator=generator) > 0.9
    loss_of = build_loss("dice+ce")
    build_network(name, 3, 3)  # imports what it needs, before the memory is measured
    before = _peak()
    torch.manual_seed(0)
    network = build_network(name, 3, 3).to(memory_format=torch.channels_last_3d)
    if low_memory:
        recompute(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(2):
        started = time.process_time()
        with autocast(images.device, "bf16" if bf16 else "fp32"):
            logits = network(images)
        loss = supervised(loss_of, logits, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    answer.send((_peak() - before, time.process_time() - started))


def main() -> None:
    """Print a line for each network and precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=["fast", "unet"])
    parser.add_argument("--edge", type=int, default=128)
    options = parser.parse_args()
    for name in options.networks:
        for bf16 in (False, True):
            plain, saving = (_in_a_process(name, options.edge, bf16, low_memory) for low_memory in (False, True))
            print(f"{name}, {options.edge}^3, batch 1, {'bf16' if bf16 else 'fp32'}:", end=" ")
            print(f"plain {plain[0] / 1e9:.2f} GB, recomputed {saving[0] / 1e9:.2f} GB,", end=" ")
            print(
                f"ratio {plain[0] / saving[0]:.2f}; CPU time {saving[1] / plain[1]:.2f} of the plain step's", flush=True
            )


def _in_a_process(name: str, edge: int, bf16: bool, low_memory: bool) -> tuple[int, float]:
    """Return the peak memory in bytes and the CPU seconds of a step, measured in a new process."""
    context = multiprocessing.get_context("spawn")  # a forked process would start with the peak memory of its parent
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(name, edge, bf16, low_memory, sender))
    process.start()
    sender.close()
    peak, seconds = receiver.recv()
    process.join()
    return peak, seconds


def _peak() -> int:
    """Return the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
