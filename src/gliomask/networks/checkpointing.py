"""Less memory in training: activations that are computed again on the way back instead of being kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute(network: nn.Module) -> None:
    """Make the network keep in training only what enters its blocks, and compute what is inside again for gradients.

    Logits, gradients, dropout and the running statistics of batch norms are those of the network as it was, to the bit
    on a CPU; a step takes about a forward pass longer. Blocks are the largest parts that hold several layers and no
    `nn.ModuleList`: the levels of our networks, the stages of MONAI's. The network is changed in place; the names of
    its weights are not, evaluation is not, and a second call changes nothing.

    Source: Chen et al. 2016, arXiv:1604.06174.
    """
    for block in _blocks(network):
        # On the object and not around it: a wrapper would put its name into that of each weight.
        block.forward = partial(_run, block)


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    for child in network.children():
        if any(isinstance(part, nn.ModuleList | nn.ModuleDict) for part in child.modules()):
            yield from _blocks(child)
        elif sum(not list(part.children()) for part in child.modules()) > 1:
            yield child


def _run(block: nn.Module, *inputs: Any) -> Any:
    forward = partial(type(block).forward, block)
    if not (block.training and torch.is_grad_enabled()):
        return forward(*inputs)
    if not any(isinstance(part, _BatchNorm) for part in block.modules()):
        return checkpoint(forward, *inputs, use_reentrant=False)
    # torch.compile takes no context_fn, so only those who need one get it
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=partial(_contexts, block))


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the first pass through a block, and the second one."""
    return nullcontext(), _resting_statistics(block)


@contextmanager
def _resting_statistics(block: nn.Module) -> Iterator[None]:
    """Let batch norms count the batch into copies of their running statistics, which have counted it already."""
    norms = [part for part in block.modules() if isinstance(part, _BatchNorm)]
    counted = [(norm, name, buffer) for norm in norms for name, buffer in norm.named_buffers(recurse=False)]
    for norm, name, buffer in counted:
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, name, buffer in counted:
            setattr(norm, name, buffer)
