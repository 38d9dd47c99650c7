"""Where the brain is, and what is measured over it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def find_brain(image: Tensor) -> Tensor:
    """Return where any channel is not 0, `(X, Y, Z)` bool."""
    if image.device.type != "cpu":
        return (image != 0).any(0)
    channels = image.numpy()  # which compares and counts in a third of torch's time
    brain = channels[0] != 0
    for channel in channels[1:]:
        brain |= channel != 0
    return torch.from_numpy(brain)


def find_present(image: Tensor) -> list[int]:
    """Return which channels are there, that is, not 0 throughout."""
    if image.device.type != "cpu":
        return [index for index, there in enumerate((image != 0).flatten(1).any(1).tolist()) if there]
    return [index for index, channel in enumerate(image.numpy()) if channel.any()]


def inside(channel: Tensor, brain: Tensor) -> Tensor:
    """Return the channel with 0 outside the brain."""
    return torch.where(brain, channel, 0.0)


def moments(channel: Tensor, brain: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation over the brain, of a channel that is 0 outside it.

    Outside, each voxel adds the mean's square, which is taken off again: a third of the time of masking it out.
    """
    voxels = np.count_nonzero(brain.numpy()) if brain.device.type == "cpu" else brain.sum()
    count = max(int(voxels), 1)
    mean = _total(channel) / count
    squares = _total((channel - mean).square_()) - (brain.numel() - count) * mean**2
    return mean, math.sqrt(max(squares, 0.0) / count)


def _total(channel: Tensor) -> float:
    """The sum, an axis at a time: in one go its last bits would depend on the number of threads."""
    return float(channel.sum(-1).double().sum(-1).sum())
