"""A model file: what goes in comes out, and nothing else is let in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from gliomask.errors import InputError
from gliomask.inference.loading import Model, load_model, load_torch_model, load_weights, new_model, save_model
from gliomask.model.file import read_plan, read_training
from gliomask.model.plan import Plan, plan_to_dict

PLAN = Plan(
    modalities=("t2f", "t1c"), patch_size=(32, 32, 32), network="unet", network_arguments={"channels": [4, 6, 8, 8, 8]}
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_model(new_model(PLAN, seed=3), tmp_path / "model.safetensors", training={"epoch": 7})
    return tmp_path / "model.safetensors"


def test_saving_then_loading_predicts_the_same_bits(file: Path) -> None:
    """The weights survive exactly."""
    images = torch.randn(1, 2, 32, 32, 32)
    first, second = new_model(PLAN, seed=3).network.eval(), load_torch_model(file).network
    with torch.inference_mode():
        assert torch.equal(first(images), second(images))


def test_plan_and_training_facts_are_read_without_weights(file: Path) -> None:
    """The header alone says what the model is."""
    assert read_plan(file) == PLAN
    assert read_training(file) == {"epoch": 7}


def test_the_seed_decides_the_weights_and_leaves_torchs_generator_alone() -> None:
    """Same seed, same weights; nobody else's random numbers change."""
    before = torch.get_rng_state()
    one, same, other = (new_model(PLAN, seed=seed).network.state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _cut_in_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _foreign(path: Path) -> None:
    save_file({"weight": np.zeros(3, np.float32)}, path)


def _random_bytes(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def _pickle(path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, path)


def _another_plan(path: Path) -> None:
    wider = PLAN.model_copy(update={"network_arguments": {"channels": [8, 8, 8, 8, 8]}})
    tensors = {key: value.numpy() for key, value in load_torch_model(path).network.state_dict().items()}
    save_file(tensors, path, metadata={"gliomask": json.dumps({"plan": plan_to_dict(wider)})})


def _from_the_future(path: Path) -> None:
    newer = json.dumps({"plan": plan_to_dict(PLAN) | {"format": 2}})
    save_file({"weight": np.zeros(3, np.float32)}, path, metadata={"gliomask": newer})


@pytest.mark.parametrize(
    "spoil", [_cut, _cut_in_header, _foreign, _random_bytes, _pickle, _another_plan, _from_the_future]
)
def test_a_spoilt_model_file_is_refused_by_name(file: Path, spoil) -> None:
    """Cut, foreign, of another plan: the message names the file."""
    spoil(file)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_model(file)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    """A typo in the name is told from a damaged file."""
    with pytest.raises(InputError, match="no such model file"):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="is a folder"):
        load_model(tmp_path)


def test_a_failed_save_keeps_the_older_model(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk loses nothing that was there."""
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gliomask.files.os.fsync", full)
    with pytest.raises(InputError, match="No space left"):
        save_model(new_model(PLAN, seed=4), file)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def fresh(*modalities: str, seed: int = 0, network: str = "fcn") -> Model:
    return new_model(Plan(modalities=modalities, network=network), seed=seed)


@pytest.mark.parametrize("network", ["fast", "fcn", "unet"])
def test_weights_go_over_to_other_sequences_by_name(tmp_path: Path, network: str) -> None:
    """In another order, and with a new one that counts for nothing yet, the answers are the same."""
    old = fresh("t2f", "t1c", network=network)
    save_model(old, tmp_path / "old.safetensors")
    image = torch.randn(1, 2, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    swapped = fresh("t1c", "t2f", seed=1, network=network)
    load_weights(swapped, tmp_path / "old.safetensors")
    grown = fresh("t1n", "t2f", "t1c", seed=2, network=network)
    load_weights(grown, tmp_path / "old.safetensors")
    with torch.inference_mode():
        expected = old.network.eval()(image)
        torch.testing.assert_close(swapped.network.eval()(image.flip(1)), expected)
        three = torch.cat([torch.randn(1, 1, 16, 16, 16), image], dim=1)
        torch.testing.assert_close(grown.network.eval()(three), expected)


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    """With what the two are; a damaged file as everywhere."""
    save_model(fresh("t2f"), tmp_path / "old.safetensors")
    with pytest.raises(InputError, match="network 'fcn', not 'unet'"):
        load_weights(fresh("t2f", network="unet"), tmp_path / "old.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "old.safetensors").read_bytes()[:-100])
    with pytest.raises(InputError, match="not a whole model file"):
        load_weights(fresh("t2f"), tmp_path / "cut.safetensors")
