"""Laws of the networks: what holds for all of them, and the properties that define each paper's architecture."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gliomask.errors import InputError
from gliomask.inference.torch_engine import computes_in_bf16
from gliomask.networks import NETWORKS, build_network
from gliomask.networks.attention_unet import AttentionGate, AttentionUNet
from gliomask.networks.blocks import InstanceNorm, SameConv, UpConv, down_conv
from gliomask.networks.segnet import SegNet, unpool
from gliomask.networks.unet import UNet
from gliomask.networks.vnet import ResidualStage

CHANNELS = (4, 8, 16)
LAST = torch.channels_last_3d
# MONAI's networks and the ensemble are tested in their own files
OURS = [name for name, place in NETWORKS.items() if "monai" not in place and name != "ensemble"]
every_network = pytest.mark.parametrize("name", OURS)


def small(name: str, seed: int = 0, **arguments: Any) -> Any:
    """Return the named network with three narrow levels, for two sequences and three regions."""
    torch.manual_seed(seed)
    return build_network(name, 2, 3, **{"channels": CHANNELS, **arguments})


def image(network: Any, batch: int = 1) -> Tensor:
    """Return noise on a grid with axes of different length that the network accepts."""
    x, y, z = (factor * network.divisor for factor in (2, 1, 3))
    return torch.randn(batch, 2, x, y, z, generator=torch.Generator().manual_seed(1))


def parts(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the logits of every grid that a network returns, the full grid first."""
    return outputs if isinstance(outputs, tuple) else (outputs,)


def test_names_are_there_without_torch() -> None:
    """Networks and losses can be listed, and unknown names refused, without importing torch."""
    code = (
        "import sys; from gliomask.errors import InputError; from gliomask.training.losses import LOSSES\n"
        "from gliomask.networks import NETWORKS, build_network\n"
        "try: build_network('unte', 4, 3)\n"
        "except InputError as error: print(error)\n"
        "print(len(NETWORKS) > 5, sorted(LOSSES), 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "unknown network 'unte'; did you mean 'unet'?" in out
    assert "True ['dice+ce', 'dice+focal'] False" in out
    theirs = {"plain_conv_unet", "residual_encoder_unet"}
    assert {"attention_unet", "fast", "fast_large", "fast_sides", "fcn", "segnet", "unet", "vnet"} | theirs == set(OURS)


@every_network
@pytest.mark.parametrize("norm", ["instance", "batch", None])
def test_logits_have_the_images_grid_and_gradient_reaches_every_parameter(name: str, norm: str | None) -> None:
    """(B, C, X, Y, Z) becomes (B, R, X, Y, Z), and every parameter gets a gradient."""
    network = small(name, norm=norm)
    x = image(network, batch=2)
    outputs = parts(network(x))
    assert outputs[0].shape == (2, 3, *x.shape[2:])
    # a plain sum would have no gradient through a norm, which centres its output
    sum((logits * torch.randn(logits.shape)).sum() for logits in outputs).backward()
    untouched = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert untouched == []


@every_network
def test_a_size_that_does_not_fit_is_refused(name: str) -> None:
    """The message names the given shape and the multiple required; a wrong number of channels is refused too."""
    network = small(name)
    n = network.divisor
    with pytest.raises(InputError, match=rf"multiples of {n}; got \({n}, {n + 1}, {n}\)"):
        network(torch.zeros(1, 2, n, n + 1, n))
    with pytest.raises(InputError, match=rf"\(B, 2, X, Y, Z\); got \(1, 4, {n}, {n}, {n}\)"):
        network(torch.zeros(1, 4, n, n, n))
    with pytest.raises(InputError, match="B, 2, X, Y, Z"):
        network(torch.zeros(2, n, n, n))


@every_network
def test_the_smallest_grid_is_the_divisor(name: str) -> None:
    """A cube of `divisor` voxels, which has one voxel at the coarsest level, can be trained on."""
    network = small(name)
    outputs = parts(network(torch.randn(1, 2, *[network.divisor] * 3)))
    sum(logits.sum() for logits in outputs).backward()
    assert all(logits.isfinite().all() for logits in outputs)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@every_network
def test_weights_saved_and_loaded_predict_the_same_bits(name: str) -> None:
    """`load_state_dict` makes two networks with different weights equal."""
    one, other = small(name, seed=1).eval(), small(name, seed=2).eval()
    x = image(one)
    with torch.inference_mode():
        assert not torch.equal(one(x), other(x))
        other.load_state_dict(one.state_dict())
        assert torch.equal(one(x), other(x))


@every_network
def test_a_seed_gives_the_same_network(name: str) -> None:
    """Construction uses torch's random generator and no other."""
    one, other = small(name, seed=3), small(name, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@every_network
def test_a_batch_is_its_samples_one_by_one(name: str) -> None:
    """In evaluation mode the samples of a batch do not influence each other."""
    network = small(name).eval()
    x = image(network, batch=2)
    with torch.inference_mode():
        together, apart = network(x), torch.cat([network(sample) for sample in x.split(1)])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


@every_network
@pytest.mark.parametrize("norm", ["instance", None])
def test_bfloat16_in_the_fast_layout_comes_near_float32(name: str, norm: str | None) -> None:
    """Under CPU autocast with channels_last_3d logits are close, gradients are finite and the layout is kept.

    On a processor without bfloat16 units torch's convolutions choose their own layout, also in float32.
    """
    network = small(name, norm=norm, **({"dropout": 0} if norm is None and "unet" in name else {}))
    x = image(network)
    expected = parts(network(x))
    network.to(memory_format=LAST)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = parts(network(x.to(memory_format=LAST)))
    sum(logits.float().square().mean() for logits in outputs).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    if computes_in_bf16(torch.device("cpu")):
        assert all(logits.is_contiguous(memory_format=LAST) for logits in outputs)
    for logits, right in zip(outputs, expected, strict=True):
        # loose, because SegNet's maxima change position where two are nearly equal
        assert (logits - right).abs().mean() < 0.3 * right.std()


@every_network
def test_logits_start_near_the_prior(name: str) -> None:
    """A freshly initialised network predicts background for most voxels."""
    network = small(name)
    for logits in parts(network(image(network))):
        assert 0.02 < logits.sigmoid().mean() < 0.4


@every_network
def test_an_unknown_argument_is_named_with_the_accepted_ones(name: str) -> None:
    """Each unknown argument is named, with the nearest known one as a hint."""
    with pytest.raises(InputError, match=rf"(?s)unknown {name} argument 'chanels'; did you mean 'channels'.*'depht'"):
        build_network(name, 2, 3, chanels=(4, 8), depht=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "layer"}, "unknown norm 'layer'"),
        ({"channels": [16]}, "two or more levels"),
        ({"channels": [16, 0]}, "above 0"),
        ({"channels": [16, 10**9]}, "up to 16384 features"),
        ({"channels": [16] * 11}, "10 levels"),
        ({"channels": 16}, "two or more levels"),
        ({"channels": "16,32"}, "two or more levels"),
        ({"channels": [4, 8], "dropout": [0.1]}, r"2 of them, one for each level; got \[0.1\]"),
        ({"dropout": 1.0}, "in \\[0, 1\\)"),
        ({"in_channels": 0}, "in_channels must be a whole number of at least 1; got 0"),
        ({"out_channels": True}, "out_channels must be a whole number"),
    ],
)
def test_a_bad_value_is_refused(arguments: dict[str, Any], message: str) -> None:
    """Values are checked when the network is built."""
    with pytest.raises(InputError, match=message):
        build_network("unet", **{"in_channels": 2, "out_channels": 3, **arguments})


def test_the_plain_unet_has_the_expected_number_of_parameters() -> None:
    """Three sequences, four outputs and no norm make exactly 5,645,828 parameters."""
    plain = build_network("unet", 3, 4, norm=None)
    assert sum(p.numel() for p in plain.parameters()) == 5_645_828
    assert plain.divisor == 16


def test_the_unets_dropout_follows_its_norm() -> None:
    """Without a norm the default rates are .1 .1 .2 .2 .3 in the encoder, mirrored in the decoder; with a norm 0."""

    def rates(**arguments: Any) -> list[list[float]]:
        network = UNet(2, 3, channels=(2, 2, 2, 2, 2), **arguments)
        halves = (network.encoder, network.decoder)
        return [[m.p for m in half.modules() if isinstance(m, nn.Dropout)] for half in halves]

    assert rates(norm=None) == [pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3]), pytest.approx([0.1, 0.1, 0.2, 0.2])]
    assert rates() == rates(norm=None, dropout=0) == [[], []]
    assert rates(dropout=0.5) == [[0.5] * 5, [0.5] * 4]


def test_dropout_is_inactive_in_evaluation() -> None:
    """Two passes differ in training mode and agree in evaluation mode."""
    network = small("unet", norm=None)
    x = image(network)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


def test_attention_coefficients_lie_between_0_and_1() -> None:
    """A gate computes a coefficient for each voxel on the skip connection's grid, and multiplies by it."""
    gate = AttentionGate(4, 8)
    skip, gating = torch.randn(2, 4, 8, 4, 6), torch.randn(2, 8, 4, 2, 3)
    alpha = gate.coefficients(skip, gating)
    assert alpha.shape == (2, 1, 8, 4, 6)
    assert 0 < alpha.min() < alpha.max() < 1
    assert torch.equal(gate(skip, gating), skip * alpha)


def test_a_closed_attention_gate_lets_nothing_through() -> None:
    """With a bias far below zero the gated skip connections contribute nothing; the finest has no gate."""
    network = small("attention_unet")
    assert isinstance(network, AttentionUNet)
    assert len(network.gates) == len(CHANNELS) - 2
    x = image(network)
    for gate in network.gates:
        gate.psi.bias.data.fill_(-200.0)
    closed = network(x)
    network.select = lambda level, skip, coarser: skip if level == 0 else torch.zeros_like(skip)
    assert torch.equal(network(x), closed)


def test_fcn_logits_are_the_sum_of_all_levels_scores() -> None:
    """The score maps of the levels, each upsampled by itself, add up to the logits."""
    network = small("fcn")
    x = image(network)
    taken = {}
    for depth, score in enumerate(network.scores):
        score.register_forward_hook(lambda module, inputs, output, depth=depth: taken.__setitem__(depth, output))
    logits = network(x)
    total = torch.zeros_like(logits)
    for depth, scores in taken.items():
        assert scores.shape == (1, 3, *(size // 2**depth for size in x.shape[2:]))
        for _ in range(depth):
            scores = F.interpolate(scores, scale_factor=2, mode="trilinear")
        assert scores.std() > 0
        total += scores
    torch.testing.assert_close(logits, total)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_unpooling_puts_maxima_back_where_they_were(dtype: torch.dtype, layout: torch.memory_format) -> None:
    """After unpooling only the maxima are non-zero, at their original positions; the layout is kept."""
    numbers = torch.randperm(2 * 4 * 2 * 2 * 2, generator=torch.Generator().manual_seed(0)) + 1.0  # no ties, no zeros
    features = numbers.reshape(1, 2, 4, 2, 4)[..., :4].to(dtype).contiguous(memory_format=layout)
    maxima, where = F.max_pool3d(features, 2, return_indices=True)
    maxima.requires_grad_()
    fine = unpool(maxima, where)
    back = torch.randn(fine.shape).to(dtype)
    fine.backward(back)
    assert torch.equal(maxima.grad, back.flatten(2).gather(2, where.flatten(2)).view_as(maxima))
    is_maximum = features == F.interpolate(maxima.float(), scale_factor=2).to(dtype)
    assert is_maximum.sum() == maxima.numel()
    assert torch.equal(fine, features * is_maximum)
    assert fine.is_contiguous(memory_format=layout)


def test_segnet_passes_only_positions_to_the_decoder() -> None:
    """With zero features at the coarsest level the output is independent of the image, unlike in a U-Net."""

    def is_independent_of_the_image(network: Any, last: nn.Conv3d) -> bool:
        nn.init.zeros_(last.weight)
        x = image(network)
        return torch.equal(network(x), network(-x))

    segnet, unet = small("segnet", norm=None), small("unet", norm=None, dropout=0)
    assert isinstance(segnet, SegNet)
    assert is_independent_of_the_image(segnet, segnet.encoder[-1][-1][0])
    assert not is_independent_of_the_image(unet, unet.encoder[-1][-1][0])


@pytest.mark.parametrize("inputs", [6, 3])
@pytest.mark.parametrize("norm", ["instance", "batch", None])
def test_a_vnet_stage_is_residual(inputs: int, norm: Any) -> None:
    """With zero convolution weights a stage is the PReLU of its input, repeated in turn where it has fewer channels."""
    stage = ResidualStage(inputs, 6, 2, norm)
    for layer in stage.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.zeros_(layer.weight)
    x = torch.randn(1, inputs, 4, 4, 4)
    expected = F.prelu(x.repeat(1, 6 // inputs, 1, 1, 1), torch.full((6,), 0.25))
    torch.testing.assert_close(stage(x), expected)


def test_vnet_downsamples_by_convolutions_and_has_kernels_of_5(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no pooling; stages have 1, 2, 3 convolutions of 5x5x5 in encoder and decoder; resampling is 2x2x2."""

    def refuse(*arguments: Any, **named: Any) -> None:
        raise AssertionError("pooled")

    for pool in ("max_pool3d", "avg_pool3d", "adaptive_avg_pool3d", "interpolate"):
        monkeypatch.setattr(F, pool, refuse)
    network = small("vnet", channels=(4, 4, 4, 4))
    network(image(network))
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv3d) and m is not network.score]
    wide = [m for m in convolutions if m.kernel_size == (5, 5, 5) and m.stride == (1, 1, 1)]
    halving = [m for m in convolutions if m.kernel_size == m.stride == (2, 2, 2)]
    assert (len(wide), len(halving), len(convolutions)) == (1 + 2 + 3 + 3 + 3 + 2 + 1, 3, 18)
    assert not any(isinstance(m, nn.ReLU) for m in network.modules())


def test_vnet_needs_a_first_stage_as_wide_as_the_image() -> None:
    """Otherwise some sequences would not be added to the first stage."""
    with pytest.raises(InputError, match=r"must start with 4 .* got \(2, 4\)"):
        build_network("vnet", 4, 3, channels=(2, 4))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_instance_norm_is_torchs_and_keeps_the_layout(batch: int, layout: torch.memory_format) -> None:
    """Values and the gradients of input, weight and bias are those of nn.InstanceNorm3d."""
    torch.manual_seed(0)
    runs = []
    x = (torch.randn(batch, 3, 4, 5, 6) * 7 + 3).contiguous(memory_format=layout)
    weight, bias, back = torch.randn(3), torch.randn(3), torch.randn(x.shape)
    for norm in (InstanceNorm(3), nn.InstanceNorm3d(3, affine=True)):
        norm.load_state_dict({"weight": weight, "bias": bias})
        taken = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        out = norm(taken)
        out.backward(back)
        runs.append(SimpleNamespace(out=out, gradients=[taken.grad, norm.weight.grad, norm.bias.grad]))
    own, torchs = runs
    torch.testing.assert_close(own.out, torchs.out)
    torch.testing.assert_close(own.gradients, torchs.gradients)
    assert own.out.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_small_grids_give_the_right_gradient_in_bfloat16(kernel: int, size: int) -> None:
    """Where an axis is shorter than the kernel, gradients equal those of float32 up to rounding."""
    torch.manual_seed(0)
    layer = SameConv(32, 32, kernel, bias=True).to(memory_format=LAST)
    x, back = torch.randn(1, 32, size, 4, 6).to(memory_format=LAST), torch.randn(1, 32, size, 4, 6)
    expected = torch.autograd.grad(layer(x), list(layer.parameters()), back)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    gradients = torch.autograd.grad(out, list(layer.parameters()), back.to(out.dtype))
    for gradient, right in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, right, rtol=0, atol=0.03 * right.abs().max().item())


@pytest.mark.parametrize("inputs", [2, 32])
@pytest.mark.parametrize("size", [2, 4, 6])
def test_halving_small_grids_gives_the_right_gradient_in_bfloat16(inputs: int, size: int) -> None:
    """A 2x2x2 convolution of stride 2 needs no workaround: its kernel is never longer than an axis."""
    torch.manual_seed(0)
    layer = down_conv(inputs, 32).to(memory_format=LAST)
    x, back = torch.randn(1, inputs, size, 4, 6).to(memory_format=LAST), torch.randn(1, 32, size // 2, 2, 3)
    expected = torch.autograd.grad(layer(x), list(layer.parameters()), back)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    gradients = torch.autograd.grad(out, list(layer.parameters()), back.to(out.dtype))
    for gradient, right in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, right, rtol=0, atol=0.03 * right.abs().max().item())


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_up_conv_is_torchs_transposed_convolution(batch: int, bias: bool, layout: torch.memory_format) -> None:
    """The weights are interchangeable; values and gradients are the same."""
    torch.manual_seed(0)
    torchs = nn.ConvTranspose3d(3, 4, 2, stride=2, bias=bias)
    own = UpConv(3, 4, bias=bias)
    own.load_state_dict(torchs.state_dict())
    x = torch.randn(batch, 3, 2, 1, 3).contiguous(memory_format=layout).requires_grad_()
    back = torch.randn(batch, 4, 4, 2, 6)
    torch.testing.assert_close(own(x), torchs(x))
    for one, other in zip(
        *(torch.autograd.grad(up(x), [x, *up.parameters()], back) for up in (own, torchs)), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_instance_norm_of_one_voxel_is_its_bias(dtype: torch.dtype) -> None:
    """The variance of a single voxel is zero: the output is the learned shift, in the dtype of the input."""
    norm = InstanceNorm(2)
    norm.bias.data = torch.tensor([1.5, -2.0])
    out = norm(torch.randn(3, 2, 1, 1, 1).to(dtype))
    assert out.dtype == dtype
    assert torch.equal(out.flatten(1).float(), torch.tensor([[1.5, -2.0]] * 3))
