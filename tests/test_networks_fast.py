"""Laws of the fast network: its resolutions, its outputs in training, and its initialisation."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gliomask.errors import InputError
from gliomask.networks import build_network
from gliomask.networks.blocks import shuffle_up
from gliomask.networks.fast import Fast, ResidualBlock
from gliomask.training.losses import build_loss, supervised

LAST = torch.channels_last_3d
both = pytest.mark.parametrize("name", ["fast", "fast_large"])


def built(name: str = "fast", **arguments: Any) -> Fast:
    """Return the network with default arguments for four sequences and three regions."""
    torch.manual_seed(0)
    network = build_network(name, 4, 3, **arguments)
    assert isinstance(network, Fast)
    return network


def noise(*size: int) -> Tensor:
    return torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(1))


@both
def test_training_returns_several_grids_and_evaluation_one(name: str) -> None:
    """Training returns the full grid, a quarter and an eighth of it; evaluation returns the same full grid alone."""
    network = built(name)
    x = noise(32, 16, 48)
    outputs = network(x)
    assert isinstance(outputs, tuple)
    assert [tuple(logits.shape) for logits in outputs] == [(1, 3, 32, 16, 48), (1, 3, 8, 4, 12), (1, 3, 4, 2, 6)]
    alone = network.eval()(x)
    assert torch.equal(alone, outputs[0])


@both
def test_nothing_is_computed_at_full_resolution(name: str) -> None:
    """Every convolution's output has half resolution or less; all but the scores have 32 features or more."""
    network = built(name)
    grids: dict[nn.Conv3d, int] = {}
    for layer in network.modules():
        assert not isinstance(layer, nn.ConvTranspose3d)
        if isinstance(layer, nn.Conv3d):
            assert layer.groups == 1
            layer.register_forward_hook(lambda conv, _, output: grids.__setitem__(conv, output.shape[2]))
    network(noise(32, 32, 32))
    assert set(grids.values()) == {16, 8, 4, 2}
    scores = {network.head, *network.scores}
    assert min(conv.out_channels for conv in grids.keys() - scores) >= 32


def test_the_large_one_is_larger() -> None:
    """It has more features and blocks at each level, and the same divisor."""
    small, large = built("fast"), built("fast_large")
    parameters, blocks = (
        [sum(p.numel() for p in network.parameters()) for network in (small, large)],
        [sum(isinstance(m, ResidualBlock) for m in network.modules()) for network in (small, large)],
    )
    assert parameters[1] > 3 * parameters[0]
    assert blocks[1] > blocks[0]
    assert small.divisor == large.divisor == 16


def test_the_eight_voxels_of_a_score_start_alike() -> None:
    """The logits within each 2x2x2 voxels are equal at first, and differ after one training step."""
    network = built()
    x = noise(16, 16, 16)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    def spread() -> float:
        logits = network(x)[0].unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2).flatten(5)
        return (logits.amax(-1) - logits.amin(-1)).max().item()

    assert spread() == 0
    supervised(build_loss("dice+ce"), network(x), torch.rand(1, 3, 16, 16, 16) > 0.5).backward()
    optimizer.step()
    assert spread() > 0


@pytest.mark.parametrize("norm", ["instance", "batch", None])
def test_a_block_starts_by_changing_little(norm: Any) -> None:
    """The convolutions' initial contribution is a tenth of the input, so that deep networks start stably."""
    torch.manual_seed(0)
    block = ResidualBlock(32, norm)
    x = torch.randn(1, 32, 8, 8, 8)
    assert block.residual(x).std() < 0.3 * x.std()
    torch.testing.assert_close(block(x), torch.relu(x + block.residual(x)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_shuffling_up_lays_channels_out(layout: torch.memory_format) -> None:
    """Channel (4i + 2j + k) C + c is voxel (2x + i, 2y + j, 2z + k) of channel c, in channels_last_3d."""
    x = torch.randn(2, 8 * 3, 2, 1, 3).contiguous(memory_format=layout)
    fine = shuffle_up(x)
    assert fine.shape == (2, 3, 4, 2, 6)
    assert fine.is_contiguous(memory_format=LAST)
    for place in range(8):
        i, j, k = place // 4, place // 2 % 2, place % 2
        assert torch.equal(fine[:, :, i::2, j::2, k::2], x[:, 3 * place : 3 * place + 3])


def test_patches_of_32_give_the_right_gradient_in_bfloat16() -> None:
    """At full width, down to two voxels, each parameter's gradient has the direction of that in float32."""
    x, target = noise(32, 32, 32), torch.rand(1, 3, 32, 32, 32, generator=torch.Generator().manual_seed(2)) > 0.7
    found = []
    for half in (False, True):
        network = built().to(memory_format=LAST)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            outputs = network(x.to(memory_format=LAST))
        supervised(build_loss("dice+ce"), outputs, target).backward()
        found.append({name: p.grad.flatten() for name, p in network.named_parameters()})
    for name, right in found[0].items():
        assert torch.cosine_similarity(found[1][name], right, dim=0) > 0.9, name


@pytest.mark.parametrize("blocks", [(1, 1), (1, 1, 1, -1), (1, 1, 1, 1.0), (1, 1, 1, True), -1, 10**9, None, "1111"])
def test_bad_blocks_are_refused(blocks: Any) -> None:
    """Blocks are one whole number for all levels or one for each."""
    message = f"blocks must be a whole number from 0 to 100, or 4 of them, one for each level; got {blocks!r}"
    with pytest.raises(InputError, match=re.escape(message)):
        built(blocks=blocks)


def test_a_level_may_have_no_block() -> None:
    """Such a level consists of the convolution that halves the grid."""
    network = built(blocks=(0, 1, 2, 3))
    assert [len(level) for level in network.encoder] == [1, 2, 3, 4]
    assert network.eval()(noise(16, 16, 16)).shape == (1, 3, 16, 16, 16)
