"""Laws of an ensemble: it is the mean of its members, is one file, runs in both engines, and can be trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from gliomask.errors import InputError
from gliomask.inference.ensembling import join_models, split_model
from gliomask.inference.loading import load_model, load_torch_model, new_model, save_model
from gliomask.inference.onnx_export import export_model
from gliomask.inference.windows import Inference
from gliomask.model.file import read_plan, read_training, read_weights
from gliomask.model.plan import Plan
from gliomask.networks import build_network
from gliomask.training.config import make_config
from gliomask.training.loop import train

EXACT = Inference("whole", precision="fp32")
FAST = ("fast", {"channels": [8, 12]})
SIDES = ("fast_sides", {"channels": [4, 6, 8]})


def saved(folder: Path, network: str, arguments: dict[str, Any], seed: int, **plan: Any) -> Path:
    """Save a model of that kind whose weights are not those of the initialisation."""
    made = Plan(
        modalities=("t2f", "t1c", "t2w"), patch_size=(16,) * 3, network=network, network_arguments=arguments, **plan
    )
    model = new_model(made, seed=seed)
    with torch.no_grad():
        for value in model.network.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(seed)))
    path = folder / f"{network}{seed}.safetensors"
    save_model(model, path)
    return path


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    return [saved(tmp_path, *FAST, seed=1, whole_brain=True), saved(tmp_path, *SIDES, seed=2, whole_brain=True)]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)


def logits(model: Any, data: np.ndarray) -> np.ndarray:
    return model.run(data, EXACT)[0]


def test_it_is_the_mean_of_its_members_with_the_second_shifted(two: list[Path]) -> None:
    """The second member gets the image shifted by a voxel along each axis, and its logits are shifted back."""
    first, second = (load_torch_model(path) for path in two)
    data = noise(32, 16, 24)
    moved = np.roll(logits(second, np.roll(data, 1, (1, 2, 3))), -1, (1, 2, 3))
    np.testing.assert_allclose(logits(join_models(two), data), (logits(first, data) + moved) / 2, atol=1e-4)


def test_splitting_is_the_opposite_of_joining(two: list[Path], tmp_path: Path) -> None:
    """Each network comes back with its own weights; a model of one network is returned as it is."""
    save_model(join_models(two), tmp_path / "joined.safetensors")
    data = noise(32, 16, 24)
    parts = split_model(tmp_path / "joined.safetensors")
    for part, path in zip(parts, two, strict=True):
        np.testing.assert_array_equal(logits(part, data), logits(load_torch_model(path), data))
    (same,) = split_model(two[0])
    assert same.plan == load_torch_model(two[0]).plan


def test_both_engines_and_onnx_give_the_same(two: list[Path], tmp_path: Path) -> None:
    """From one file, on a size that needs padding; ONNX at another size than that of the export."""
    joined = join_models(two)
    save_model(joined, tmp_path / "joined.safetensors")
    export_model(joined, tmp_path / "joined.onnx", half=False)
    data = noise(37, 30, 18)
    expected = logits(load_torch_model(tmp_path / "joined.safetensors"), data)
    for name in ("joined.safetensors", "joined.onnx"):
        found = logits(load_model(tmp_path / name, device="cpu", engine="openvino", threads=1), data)
        np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_an_ensemble_joined_again_gives_its_members(two: list[Path], tmp_path: Path) -> None:
    """(a, b) and c is (a, b, c)."""
    save_model(join_models(two), tmp_path / "joined.safetensors")
    third = saved(tmp_path, *FAST, seed=3, whole_brain=True)
    nested, flat = join_models([tmp_path / "joined.safetensors", third]), join_models([*two, third])
    assert nested.plan == flat.plan
    assert nested.plan.network_arguments == {"members": [list(FAST), list(SIDES), list(FAST)]}
    weights = flat.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in nested.network.state_dict().items())


def test_models_that_cannot_be_joined_are_refused(two: list[Path], tmp_path: Path) -> None:
    """A single model, models of different sequences, and members that are not networks."""
    with pytest.raises(InputError, match="two models or more"):
        join_models(two[:1])
    other = tmp_path / "other.safetensors"
    save_model(new_model(Plan(modalities=("t1c",), network="fast", network_arguments=FAST[1])), other)
    with pytest.raises(InputError, match=r"modalities is \('t1c',\)"):
        join_models([two[0], other])
    for members, words in (
        ((), "two or more members"),
        ([FAST, ("ensemble", {})], "must not be ensembles"),
        ([3, 4], "pairs"),
        ([FAST] * 101, "at most 100 members"),
    ):
        with pytest.raises(InputError, match=words):
            build_network("ensemble", 3, 3, members=members)


def test_a_weight_named_scale_is_kept(tmp_path: Path) -> None:
    """Only beside an 8-bit kernel is a tensor that kernel's scale; a counter stays a scalar."""
    weights = {"norm.scale": np.ones(3, np.float32), "norm.count": np.array(7)}
    save_file(weights, tmp_path / "w.safetensors")
    kept = read_weights(tmp_path / "w.safetensors")
    assert {name: value.shape for name, value in kept.items()} == {"norm.scale": (3,), "norm.count": ()}
    batch = new_model(
        Plan(modalities=("t1c",), network="fast", network_arguments={"channels": [4, 6], "norm": "batch"})
    )
    save_model(batch, tmp_path / "m.safetensors")
    shapes = {name: value.shape for name, value in read_weights(tmp_path / "m.safetensors").items()}
    assert shapes == {name: tuple(value.shape) for name, value in batch.network.state_dict().items()}


@pytest.mark.parametrize("bits", [8, 16])
def test_fewer_bits_make_a_smaller_file_and_nearly_the_same_answer(two: list[Path], tmp_path: Path, bits: int) -> None:
    """Only kernels are rounded; with 8 bits by at most 1/254 of the largest weight of the output channel."""
    joined = join_models(two)
    path = tmp_path / "small.safetensors"
    save_model(joined, path, bits=bits)  # type: ignore[arg-type]
    kept = read_weights(path)
    assert kept.keys() == joined.network.state_dict().keys()
    for name, value in joined.network.state_dict().items():
        exact = value.numpy()
        assert kept[name].dtype == np.float32
        largest = np.abs(exact).reshape(len(exact), -1).max(axis=1).reshape(-1, *[1] * (exact.ndim - 1))
        bound = 0 if exact.ndim == 1 else largest / (253 if bits == 8 else 1024)
        assert (np.abs(kept[name] - exact) <= bound).all()
    data = noise(32, 32, 32)
    one, other = logits(load_torch_model(path), data), logits(load_model(path, engine="openvino", threads=1), data)
    np.testing.assert_allclose(other, one, atol=1e-3 * np.abs(one).max())
    expected = logits(joined, data)
    assert np.corrcoef(one.ravel(), expected.ravel())[0, 1] > 0.999


def test_a_channel_of_zeros_survives_8_bits(tmp_path: Path) -> None:
    """A kernel of zeros has no largest weight to derive a scale from."""
    path = tmp_path / "m.safetensors"
    save_model(
        new_model(Plan(modalities=("t1c",), network="fast_sides", network_arguments={"channels": [4, 6]})), path, bits=8
    )
    assert not read_weights(path)["across.0.weight"].any()


def test_the_command_writes_one_file_that_names_its_members(
    two: list[Path], tmp_path: Path, gliomask: Callable[..., tuple[int, str]]
) -> None:
    """The plan names the members, and the training record holds those of both."""
    output = tmp_path / "joined.safetensors"
    assert gliomask("join", *two, "-o", output, "--bits", "8")[0] == 0
    assert [name for name, _ in read_plan(output).network_arguments["members"]] == ["fast", "fast_sides"]
    assert len(read_training(output)["joined"]) == 2  # type: ignore[arg-type]
    assert gliomask("join", *two, "-o", tmp_path / "joined.bin")[0] == 2
    assert gliomask("join", *two, "-o", output, "--bits", "9")[0] == 2
    assert gliomask("join", two[0], tmp_path / "none.safetensors", "-o", output)[0] == 2


def test_it_can_be_trained_on(two: list[Path], tmp_path: Path, folder_of: Callable[..., Path]) -> None:
    """`train --from` takes the network from the file, and every member's weights change."""
    from gliomask.cases import find_cases, resolve_conventions

    save_model(join_models(two), tmp_path / "joined.safetensors")
    plan = read_plan(tmp_path / "joined.safetensors")
    config = make_config(
        network=plan.network,
        network_arguments=plan.network_arguments,
        modalities=plan.modalities,
        start_from=str(tmp_path / "joined.safetensors"),
        steps=2,
        val_fraction=0,
        patch_size=16,
        device="cpu",
    )
    run = train(resolve_conventions(find_cases(folder_of(2))), tmp_path / "run", config)
    before, after = read_weights(tmp_path / "joined.safetensors"), read_weights(run.last)
    for member in ("members.0", "members.1"):
        assert any(not np.array_equal(before[name], after[name]) for name in before if name.startswith(member))


def test_the_two_sides_influence_each_other(tmp_path: Path) -> None:
    """Voxels far away on one side change the logits at the mirrored place, and nowhere else in addition."""
    network = build_network("fast_sides", 1, 1, channels=(4, 6), norm=None)
    image = torch.zeros(1, 1, 256, 8, 8)
    image[..., :8, :, :] = torch.rand(8, 8, 8)
    network.eval()
    with torch.no_grad():
        blind = network(image) - network(torch.zeros_like(image))
        network.across[0].weight.fill_(0.1)  # type: ignore[union-attr,index]
        seeing = network(image) - network(torch.zeros_like(image))
    assert not blind[..., 248:, :, :].any()
    assert seeing[..., 248:, :, :].any()
    assert not seeing[..., 120:136, :, :].any()


def test_the_help_says_what_join_does(gliomask: Callable[..., tuple[int, str]]) -> None:
    """The help contains the sentence about the mean."""
    assert "predicts their mean" in gliomask("join", "--help")[1]
