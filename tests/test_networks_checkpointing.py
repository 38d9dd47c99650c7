"""Laws of gradient checkpointing: it stores fewer activations and changes nothing else."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from gliomask.networks import NETWORKS, build_network, checkpointing
from gliomask.networks.checkpointing import recompute

MONAI: dict[str, dict[str, Any]] = {
    "dynunet": {"channels": (4, 8, 8, 8)},
    "mednext": {},
    "monai": {"arguments": {"init_filters": 8, "blocks_down": (1, 1, 2), "blocks_up": (1, 1)}},
    "segresnet": {"init_filters": 8, "blocks_down": (1, 1, 2)},
    "swin_unetr": {"feature_size": 12},
}
SMALL = MONAI | {"ensemble": {"members": [("fast", {"channels": (4, 8)}), ("unet", {"channels": (4, 8)})]}}
without_monai = pytest.mark.skipif(
    find_spec("monai") is None or find_spec("einops") is None, reason="needs gliomask[monai]"
)
every_network = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=without_monai) if name in MONAI else name for name in NETWORKS]
)


def pair(name: str, **arguments: Any) -> tuple[Any, Any]:
    """Return a small network for two sequences and three regions, and a copy of it that recomputes."""
    torch.manual_seed(0)
    small = SMALL.get(name, {"channels": (4, 8, 16, 16)})
    plain = build_network(name, 2, 3, **{**small, **arguments})
    saving = copy.deepcopy(plain)
    recompute(saving)
    return plain, saving


def image(network: Any) -> Tensor:
    edge = max(8, network.divisor)
    return torch.randn(2, 2, edge, edge, edge, generator=torch.Generator().manual_seed(1))


def step(network: nn.Module, x: Tensor, *, bf16: bool = False) -> list[Tensor]:
    """Return the logits, the gradients and the buffers after a training step."""
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = network(x)
    answers = output if isinstance(output, tuple) else (output,)
    sum((answer.float() * torch.randn(answer.shape)).sum() for answer in answers).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert len(gradients) == len(list(network.parameters()))
    return [*answers, *gradients, *network.buffers()]


def assert_same_bits(one: list[Tensor], other: list[Tensor]) -> None:
    assert len(one) == len(other)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@every_network
def test_a_step_is_the_same_to_the_bit(name: str) -> None:
    """Logits (also those of deep supervision) and gradients; the weights keep their names."""
    plain, saving = pair(name)
    x = image(plain)
    assert_same_bits(step(plain, x), step(saving, x))
    assert list(saving.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("name", ["unet", "attention_unet", "vnet"])
def test_a_step_in_bfloat16_is_the_same_to_the_bit(name: str) -> None:
    """The recomputation uses the precision of the first pass."""
    plain, saving = pair(name)
    x = image(plain)
    assert_same_bits(step(plain, x, bf16=True), step(saving, x, bf16=True))


@pytest.mark.parametrize("arguments", [{"norm": "batch"}, {"norm": None, "dropout": 0.3}])
def test_batches_are_counted_once_and_dropout_is_the_same(arguments: dict[str, Any]) -> None:
    """Running statistics after two steps and dropout masks equal those of the plain network."""
    plain, saving = pair("unet", **arguments)
    x = image(plain)
    for _ in range(2):
        assert_same_bits(step(plain, x), step(saving, x))
    drawn = torch.rand(1)
    step(plain, x)
    assert torch.equal(torch.rand(1), drawn)  # the generator's state is the same too


@every_network
def test_fewer_activations_are_stored(name: str) -> None:
    """Less than half of what the plain network stores for the backward pass."""
    plain, saving = pair(name)
    x = image(plain)
    assert kept_bytes(saving, x) < 0.5 * kept_bytes(plain, x)


def kept_bytes(network: nn.Module, x: Tensor) -> int:
    """Return the size in bytes of what a forward pass stores for the backward pass, without the weights."""
    weights = {p.data_ptr() for p in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network(x)
    assert output is not None  # and alive until here, so that no storage came twice
    return sum(kept.values())


def test_nothing_is_recomputed_without_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation mode, and training mode without gradients, run the network without checkpointing."""
    plain, saving = pair("unet")
    x = image(plain)
    with torch.no_grad():
        monkeypatch.delattr(checkpointing, "checkpoint")
        assert torch.equal(saving(x), plain(x))
    assert torch.equal(saving.eval()(x), plain.eval()(x))
    with pytest.raises(NameError):
        saving.train()(x)


def test_a_second_call_and_a_copy_change_nothing() -> None:
    """Blocks are not run three times, and a copy uses its own weights."""
    plain, saving = pair("unet")
    recompute(saving)
    x = image(plain)
    twin = copy.deepcopy(saving)
    assert_same_bits(step(plain, x), step(twin, x))
    for parameter in saving.parameters():
        nn.init.zeros_(parameter)
    assert_same_bits(step(copy.deepcopy(plain), x), step(copy.deepcopy(twin), x))
    calls: list[int] = []
    saving.encoder[0].register_forward_pre_hook(lambda *_: calls.append(0))
    saving.encoder[0][0].register_forward_pre_hook(lambda *_: calls.append(1))
    step(saving, x)
    assert calls == [0, 1, 1]


@pytest.fixture
def alone() -> Iterator[None]:
    """Initialise a process group of this process alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_it_trains_in_a_group_of_processes() -> None:
    """Under DistributedDataParallel each gradient is reduced once and is the same."""
    plain, saving = pair("unet", norm="batch")
    x = image(plain)
    assert_same_bits(step(plain, x), step(DistributedDataParallel(saving), x))
