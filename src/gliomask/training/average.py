"""A moving average of a network's weights, which is validated and saved in place of the weights themselves."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(network: nn.Module, decay: float, *, learned: bool = False) -> AveragedModel:
    """Return a network whose weights are an exponential moving average of another one's, starting from its weights.

    Update it with `follow` after every step. While few steps have been averaged, the decay is smaller. For a network
    that has learned already (a run that starts from a model), the average is the mean of all weights so far, until the
    decay takes over. The first weights of an untrained network soon become outdated: after `n` weights its decay is at
    most `n / (n + 9)`. Buffers, such as the running statistics of a batch norm, are copied.

    Args:
        network: Its weights are copied.
        decay: The weight of the average in each update, in [0, 1), once enough steps have been averaged.
        learned: Whether the network has been trained before.

    Source: Polyak and Juditsky 1992, doi:10.1137/0330046; Izmailov et al. 2018, arXiv:1803.05407, for the mean of all;
        the start of an untrained network as in TensorFlow's `ExponentialMovingAverage`.
    """
    offset = 1 if learned else 9

    def update(averages: Sequence[Tensor], weights: Sequence[Tensor], count: Tensor | int) -> None:
        share = 1 - min(decay, int(count) / (int(count) + offset))
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight, share)

    average = AveragedModel(network, multi_avg_fn=update)
    average.requires_grad_(False)
    return average


def follow(average: AveragedModel, network: nn.Module, step: int) -> None:
    """Move an average towards the network's weights after step number `step`, counted from 0.

    The step also tells how many weights have been averaged, so a checkpoint needs only `average.module`.
    """
    average.n_averaged.fill_(step + 1)  # the weights before the first step count as one
    average.update_parameters(network)
