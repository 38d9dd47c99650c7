"""Laws of MONAI's networks with our interface: same values as MONAI's, trained and saved like ours."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gliomask.errors import InputError
from gliomask.inference.loading import load_torch_model, new_model, save_model
from gliomask.model.plan import Plan
from gliomask.networks import build_network
from gliomask.networks.blocks import InstanceNorm
from gliomask.networks.monai_networks import guard

pytestmark = pytest.mark.skipif(
    find_spec("monai") is None or find_spec("einops") is None, reason="needs gliomask[monai]"
)

LAST = torch.channels_last_3d
SMALL: dict[str, dict[str, Any]] = {
    "dynunet": {"channels": (4, 8, 8, 16)},
    "mednext": {},
    "segresnet": {"init_filters": 8, "blocks_down": (1, 1, 2)},
    "swin_unetr": {"feature_size": 12},
}
DIVISOR = {"dynunet": 8, "mednext": 16, "segresnet": 4, "swin_unetr": 32}
every_network = pytest.mark.parametrize("name", SMALL)


def small(name: str, seed: int = 0, **arguments: Any) -> Any:
    """Return the named network, as small as possible, for two sequences and three regions."""
    torch.manual_seed(seed)
    return build_network(name, 2, 3, **{**SMALL[name], **arguments})


def noise(*size: int, batch: int = 1) -> Tensor:
    """Return an image of two channels of noise."""
    return torch.randn(batch, 2, *size, generator=torch.Generator().manual_seed(1))


def image(network: Any) -> Tensor:
    """Return noise on a grid that has more than one voxel at the coarsest level."""
    return noise(2 * network.divisor, network.divisor, network.divisor)


def parts(output: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return output if isinstance(output, tuple) else (output,)


def gradients(network: nn.Module, output: Tensor | tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Return each parameter's gradient of a weighted sum of all outputs."""
    draw = torch.Generator().manual_seed(2)
    network.zero_grad()
    sum((part.float() * torch.randn(part.shape, generator=draw)).sum() for part in parts(output)).backward()
    return {name: p.grad.clone() for name, p in network.named_parameters()}


def test_monai_is_loaded_when_a_network_is_built() -> None:
    """Importing the module and naming its networks does not import MONAI."""
    code = "import sys, gliomask.networks.monai_networks as m; print(bool(m.dynunet), 'monai' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["True", "False"]


@pytest.mark.parametrize(("name", "module"), [("mednext", "monai.networks.nets.mednext"), ("swin_unetr", "einops")])
def test_without_monai_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, name: str, module: str) -> None:
    """MONAI and einops are installed by the extra `monai`."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"pip install .*\[monai\]"):
        small(name)


@every_network
def test_logits_have_the_images_grid_and_gradient_reaches_every_parameter(name: str) -> None:
    """In training mode logits of half, a quarter ... of the grid may follow; in evaluation mode there is one grid."""
    network = small(name)
    assert (network.divisor, network.in_channels) == (DIVISOR[name], 2)
    x = image(network)
    answers = parts(network(x))
    count = {"dynunet": 2, "mednext": 5}.get(name, 1)
    assert [a.shape for a in answers] == [(1, 3, *(n // 2**depth for n in x.shape[2:])) for depth in range(count)]
    untouched = [key for key, gradient in gradients(network, answers).items() if not gradient.abs().max() > 0]
    assert untouched == []
    assert network.eval()(x).shape == (1, 3, *x.shape[2:])


@pytest.mark.parametrize(("levels", "answers"), [(3, 2), (4, 2), (5, 3), (6, 4)])
def test_a_dynunet_supervises_all_but_the_two_coarsest(levels: int, answers: int) -> None:
    """As in nnU-Net; without deep supervision there is one output and no further head."""
    network = small("dynunet", channels=(2,) * levels)
    assert len(network(image(network))) == answers
    plain = small("dynunet", channels=(2,) * levels, deep_supervision=False)
    assert isinstance(plain(image(plain)), Tensor)
    assert not [key for key in plain.state_dict() if "heads" in key]


@every_network
def test_a_size_that_does_not_fit_is_refused(name: str) -> None:
    """The message is the same as that of our networks."""
    network = small(name)
    n = network.divisor
    with pytest.raises(InputError, match=rf"multiples of {n}; got \({n}, {n + 1}, {n}\)"):
        network(torch.zeros(1, 2, n, n + 1, n))
    with pytest.raises(InputError, match=rf"\(B, 2, X, Y, Z\); got \(1, 4, {n}, {n}, {n}\)"):
        network(torch.zeros(1, 4, n, n, n))


@every_network
def test_the_smallest_grid_trains_in_bfloat16(name: str) -> None:
    """A cube of `divisor` voxels has one voxel at the coarsest level, whose variance is zero."""
    network = small(name).to(memory_format=LAST)
    with torch.autocast("cpu", torch.bfloat16):
        answers = network(noise(*[network.divisor] * 3, batch=2).to(memory_format=LAST))
    assert all(gradient.isfinite().all() for gradient in gradients(network, answers).values())


@every_network
def test_a_seed_gives_the_same_network_and_logits_start_near_the_prior(name: str) -> None:
    """Construction uses torch's generator; the logits of every grid predict background for most voxels."""
    one, other = small(name, seed=3), small(name, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    for answer in parts(one(image(one))):
        assert 0.02 < answer.sigmoid().mean() < 0.4


@every_network
def test_a_saved_model_predicts_the_same_bits(name: str, tmp_path: Path) -> None:
    """The file holds each weight once, and the network's arguments survive JSON."""
    plan = Plan(modalities=("t1c", "t2f"), network=name, network_arguments=SMALL[name])
    model = new_model(plan, seed=1)
    save_model(model, tmp_path / "m.safetensors")
    loaded = load_torch_model(tmp_path / "m.safetensors")
    x = image(model.network)
    with torch.inference_mode():
        assert torch.equal(loaded.network(x), model.network.eval()(x))


@every_network
def test_shapes_are_known_without_weights(name: str) -> None:
    """On torch's meta device the network has the names and shapes of the real one."""
    with torch.device("meta"):
        shapes = small(name).state_dict()
    assert all(value.is_meta for value in shapes.values())
    assert {key: value.shape for key, value in small(name).state_dict().items()} == {
        key: value.shape for key, value in shapes.items()
    }


def monais(name: str) -> Any:
    """Return the network that MONAI itself builds from the arguments in `SMALL`."""
    nets = import_module("monai.networks.nets")
    if name == "segresnet":
        return nets.SegResNet(init_filters=8, in_channels=2, out_channels=3, blocks_down=(1, 1, 2), blocks_up=(1, 1))
    if name == "swin_unetr":
        return nets.SwinUNETR(2, 3, feature_size=12)
    if name == "mednext":
        return nets.MedNeXtS(in_channels=2, out_channels=3, deep_supervision=True)
    return nets.DynUNet(3, 2, 3, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=(4, 8, 8, 16), deep_supervision=True)


@every_network
def test_the_logits_are_monais(name: str) -> None:
    """With the same weights and names, in training and evaluation mode; ours keeps coarser grids coarse."""
    ours, theirs = small(name), monais(name)
    weights = {key.removeprefix("body."): value for key, value in ours.state_dict().items()}
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(key.startswith("skip_layers.") for key in missing)  # the second names of the dynunet's weights
    x = image(ours)
    expected, answers = theirs(x), parts(ours(x))
    if name == "dynunet":
        answers = (torch.stack([F.interpolate(answer, x.shape[2:]) for answer in answers], dim=1),)
    torch.testing.assert_close(answers, parts(expected), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["dynunet", "mednext", "swin_unetr"])
def test_instance_norms_are_ours(name: str) -> None:
    """No instance norm of torch's is left, and no group norm of single channels; with batch norm there is neither."""
    kinds = {type(module) for module in small(name).modules()}
    assert not {nn.InstanceNorm3d, nn.GroupNorm} & kinds
    assert any(issubclass(kind, InstanceNorm) for kind in kinds)
    if name != "mednext":
        kinds = {type(module) for module in small(name, norm="batch").modules()}
        assert nn.BatchNorm3d in kinds
        assert not any(issubclass(kind, InstanceNorm) for kind in kinds)


@pytest.mark.parametrize("kind", [nn.Conv3d, nn.ConvTranspose3d])
@pytest.mark.parametrize("groups", [1, 32])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_guarded_convolutions_give_the_right_gradient_in_bfloat16(
    kind: Any, groups: int, kernel: int, stride: int
) -> None:
    """Where an axis is shorter than the kernel, gradients equal those of float32 up to rounding."""
    torch.manual_seed(0)
    layer = kind(32, 32, kernel, stride=stride, padding=kernel // 2, groups=groups).to(memory_format=LAST)
    guard(layer)
    for size in range(1, kernel + 1):
        x = torch.randn(1, 32, size, 8, 6).to(memory_format=LAST)
        expected = layer(x)
        back = torch.randn(expected.shape)
        right = torch.autograd.grad(expected, list(layer.parameters()), back)
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(x)
        found = torch.autograd.grad(out, list(layer.parameters()), back.to(out.dtype))
        for gradient, wanted in zip(found, right, strict=True):
            torch.testing.assert_close(gradient, wanted, rtol=0, atol=0.03 * wanted.abs().max().item())


def test_guarding_changes_no_name_and_no_value() -> None:
    """The layers are subclasses of what they were; a second call changes nothing."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.ConvTranspose3d(4, 2, 2, stride=2))
    before, weights, x = [type(m) for m in network], network.state_dict(), noise(4, 4, 4)
    expected = network(x)
    guard(network)
    kinds = [type(layer) for layer in network]
    guard(network)
    assert [type(layer) for layer in network] == kinds != before
    assert all(issubclass(kind, old) for kind, old in zip(kinds, before, strict=True))
    assert list(network.state_dict()) == list(weights)
    assert torch.equal(network(x), expected)


@every_network
def test_a_patch_of_32_has_the_gradient_of_float32_in_bfloat16(name: str) -> None:
    """The coarsest level is smaller than the kernels; every weight's gradient has the direction of that in float32."""
    five_levels = {"dynunet": {"channels": (4, 8, 8, 16, 16)}, "segresnet": {"blocks_down": (1, 1, 1, 1, 1)}}
    network = small(name, **five_levels.get(name, {})).to(memory_format=LAST)
    x = noise(32, 32, 32).to(memory_format=LAST)
    right = gradients(network, network(x))
    with torch.autocast("cpu", torch.bfloat16):
        answers = network(x)
    found = gradients(network, answers)
    largest = max(gradient.norm() for gradient in right.values())
    for key, wanted in right.items():
        assert (found[key] - wanted).norm() < 0.5 * wanted.norm() + 0.01 * largest, key


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("segresnet", {"init_filters": 12}, "init_filters must be a multiple of 8; got 12"),
        ("segresnet", {"blocks_down": (1,)}, "two or more levels"),
        ("segresnet", {"blocks_down": (1, 0)}, r"blocks_down\[1\] must be a whole number of at least 1; got 0"),
        ("segresnet", {"init_filters": 8 * 10**6}, "init_filters may be at most 16384"),
        ("segresnet", {"blocks_down": (1, 10**9)}, r"blocks_down\[1\] may be at most"),
        ("segresnet", {"blocks_down": (1, 101)}, "up to 100 blocks"),
        ("segresnet", {"dropout": 1}, r"dropout must be a number in \[0, 1\); got 1"),
        ("segresnet", {"norm": "instance"}, "unknown segresnet argument 'norm'"),
        ("swin_unetr", {"feature_size": 16}, "multiple of 12; got 16"),
        ("swin_unetr", {"norm": None}, "unknown norm 'None'"),
        ("dynunet", {"channels": (8, 16)}, "three levels or more; got \\(8, 16\\)"),
        ("dynunet", {"deep_supervision": 1}, "deep_supervision must be true or false; got 1"),
        ("dynunet", {"norm": "layer"}, r"unknown norm 'layer' \(known: batch, instance\)"),
        ("mednext", {"size": "XL"}, "unknown size of mednext 'XL'"),
        ("mednext", {"kernel": 7}, "kernel must be 3 or 5; got 7"),
        ("mednext", {"in_channels": 0}, "in_channels must be a whole number of at least 1; got 0"),
    ],
)
def test_a_bad_value_is_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    """Values are checked when the network is built."""
    with pytest.raises(InputError, match=message):
        build_network(name, **{"in_channels": 2, "out_channels": 3, **arguments})
