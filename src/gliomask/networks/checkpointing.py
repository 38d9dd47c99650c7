"""Gradient checkpointing: activations are recomputed in the backward pass instead of being stored, to save memory."""

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
    """Make the network store only the inputs of its blocks in training and recompute the rest in the backward pass.

    Logits, gradients, dropout and the running statistics of batch norms stay the same, on a CPU bit for bit; a training
    step takes longer by about one forward pass. A block is the largest submodule that holds several layers and no
    `nn.ModuleList`: a level of our networks, a stage of MONAI's. The network is changed in place. The names of its
    weights and its behaviour in evaluation mode do not change, and a second call has no effect.

    Source: Chen et al. 2016, arXiv:1604.06174.
    """
    for block in _blocks(network):
        # The method is replaced on the object: a wrapping module would change the names of the weights.
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
    # Only blocks with a batch norm get a context_fn, because torch.compile does not support it.
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=partial(_contexts, block))


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of the first pass through a block and of its recomputation."""
    return nullcontext(), _statistics_unchanged(block)


@contextmanager
def _statistics_unchanged(block: nn.Module) -> Iterator[None]:
    """Let batch norms update copies of their running statistics: the first pass has counted the batch already."""
    norms = [part for part in block.modules() if isinstance(part, _BatchNorm)]
    originals = [(norm, name, buffer) for norm in norms for name, buffer in norm.named_buffers(recurse=False)]
    for norm, name, buffer in originals:
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, name, buffer in originals:
            setattr(norm, name, buffer)
