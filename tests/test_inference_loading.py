"""Laws of model files: saving and loading keep a model, and damaged files are refused."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from gliomask.errors import InputError
from gliomask.inference.loading import Model, load_model, load_torch_model, load_weights, new_model, save_model
from gliomask.inference.windows import Inference
from gliomask.model.file import model_digest, read_plan, read_training
from gliomask.model.plan import Plan, plan_to_dict

PLAN = Plan(
    modalities=("t2f", "t1c"), patch_size=(32, 32, 32), network="unet", network_arguments={"channels": [4, 6, 8, 8, 8]}
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_model(new_model(PLAN, seed=3), tmp_path / "model.safetensors", training={"epoch": 7})
    return tmp_path / "model.safetensors"


def test_saving_then_loading_predicts_the_same_bits(file: Path) -> None:
    """The weights are exactly the same."""
    images = torch.randn(1, 2, 32, 32, 32)
    first, second = new_model(PLAN, seed=3).network.eval(), load_torch_model(file).network
    with torch.inference_mode():
        assert torch.equal(first(images), second(images))


def test_plan_and_training_facts_are_read_without_weights(file: Path) -> None:
    """They are in the header."""
    assert read_plan(file) == PLAN
    assert read_training(file) == {"epoch": 7}


def test_the_seed_determines_the_weights_and_torchs_generator_is_unchanged() -> None:
    """The same seed gives the same weights, and the global random state stays the same."""
    before = torch.get_rng_state()
    one, same, other = (new_model(PLAN, seed=seed).network.state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def _cut_in_weights(path: Path) -> None:
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


def _of_a_newer_version(path: Path) -> None:
    newer = json.dumps({"plan": plan_to_dict(PLAN) | {"format": 2}})
    save_file({"weight": np.zeros(3, np.float32)}, path, metadata={"gliomask": newer})


def _with_record(path: Path, record: str) -> None:
    tensors = {key: value.numpy() for key, value in load_torch_model(path).network.state_dict().items()}
    save_file(tensors, path, metadata={"gliomask": record})


def _deeply_nested(path: Path) -> None:
    _with_record(path, '{"plan": ' + "[" * 100_000 + "]" * 100_000 + "}")


def _nested_training(path: Path) -> None:
    _with_record(path, json.dumps({"plan": plan_to_dict(PLAN), "training": json.loads("[" * 200 + "]" * 200)}))


def _record_is_a_list(path: Path) -> None:
    _with_record(path, "[1, 2]")


def _plan_is_a_list(path: Path) -> None:
    _with_record(path, '{"plan": [1, 2]}')


def _training_is_a_number(path: Path) -> None:
    _with_record(path, json.dumps({"plan": plan_to_dict(PLAN), "training": 7}))


def _huge_network(path: Path) -> None:
    wide = PLAN.model_copy(update={"network_arguments": {"channels": [10**7] * 5}})
    _with_record(path, json.dumps({"plan": plan_to_dict(wide)}))


def _wrong_arguments(path: Path) -> None:
    wrong = PLAN.model_copy(update={"network_arguments": {"name": "unet", "in_channels": 2}})
    _with_record(path, json.dumps({"plan": plan_to_dict(wrong)}))


def _set_weight(path: Path, value: float) -> None:
    tensors = {key: tensor.numpy() for key, tensor in load_torch_model(path).network.state_dict().items()}
    next(iter(tensors.values())).flat[0] = value
    save_file(tensors, path, metadata={"gliomask": json.dumps({"plan": plan_to_dict(PLAN)})})


def _nan_weight(path: Path) -> None:
    _set_weight(path, np.nan)


def _infinite_weight(path: Path) -> None:
    _set_weight(path, -np.inf)


@pytest.mark.parametrize(
    "damage",
    [
        *(_cut_in_weights, _cut_in_header, _foreign, _random_bytes, _pickle, _another_plan, _of_a_newer_version),
        *(_deeply_nested, _nested_training, _record_is_a_list, _plan_is_a_list, _training_is_a_number),
        *(_huge_network, _wrong_arguments, _nan_weight, _infinite_weight),
    ],
)
def test_a_damaged_model_file_is_refused_by_name(file: Path, damage) -> None:
    """The message names a file that is cut, foreign or has another plan."""
    damage(file)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_model(file)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    """The message distinguishes a missing file from a damaged one."""
    with pytest.raises(InputError, match="no such model file"):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="is a folder"):
        load_model(tmp_path)


def test_a_failed_save_keeps_the_older_model(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is full, the older file stays as it was."""
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gliomask.files.whole.os.fsync", full)
    with pytest.raises(InputError, match="No space left"):
        save_model(new_model(PLAN, seed=4), file)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def fresh(*modalities: str, seed: int = 0, network: str = "fcn") -> Model:
    return new_model(Plan(modalities=modalities, network=network), seed=seed)


@pytest.mark.parametrize("network", ["fast", "fcn", "unet"])
def test_weights_are_copied_to_other_sequences_by_name(tmp_path: Path, network: str) -> None:
    """With another order, and with a new sequence whose weights are zero, the logits are the same."""
    old = fresh("t2f", "t1c", network=network)
    save_model(old, tmp_path / "old.safetensors")
    image = torch.randn(1, 2, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    swapped = fresh("t1c", "t2f", seed=1, network=network)
    load_weights(swapped, tmp_path / "old.safetensors")
    extended = fresh("t1n", "t2f", "t1c", seed=2, network=network)
    load_weights(extended, tmp_path / "old.safetensors")
    with torch.inference_mode():
        expected = old.network.eval()(image)
        torch.testing.assert_close(swapped.network.eval()(image.flip(1)), expected)
        three = torch.cat([torch.randn(1, 1, 16, 16, 16), image], dim=1)
        torch.testing.assert_close(extended.network.eval()(three), expected)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """The message names both networks; a damaged file is refused as by `load_model`."""
    save_model(fresh("t2f"), tmp_path / "old.safetensors")
    with pytest.raises(InputError, match="network 'fcn', not 'unet'"):
        load_weights(fresh("t2f", network="unet"), tmp_path / "old.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "old.safetensors").read_bytes()[:-100])
    with pytest.raises(InputError, match="not a whole model file"):
        load_weights(fresh("t2f"), tmp_path / "cut.safetensors")


def test_a_loaded_model_knows_the_digest_of_its_file(file: Path) -> None:
    """Both engines use it to tell whether a prediction was made by the same model; a new model has none."""
    expected = hashlib.sha256(file.read_bytes()).hexdigest()
    assert model_digest(file) == load_torch_model(file).digest == expected
    assert new_model(PLAN).digest == ""
    with pytest.raises(InputError, match="cannot be read"):
        model_digest(file.parent)


def test_a_model_can_be_pickled(file: Path) -> None:
    """The copy has the same plan and gives the same logits."""
    model = load_torch_model(file)
    copy = pickle.loads(pickle.dumps(model))
    assert (copy.plan, copy.name, copy.digest) == (model.plan, model.name, model.digest)
    data = np.random.default_rng(0).normal(size=(2, 32, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(copy.run(data, Inference())[0], model.run(data, Inference())[0])
