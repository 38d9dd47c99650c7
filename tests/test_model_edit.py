"""Laws of replacing the plan in a model file: the weights stay the same, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gliomask.errors import InputError
from gliomask.inference.loading import Model, load_model, new_model, save_model
from gliomask.model.edit import replace_plan
from gliomask.model.file import read_plan, read_training
from gliomask.model.plan import Plan, Postprocessing, RegionRule

PLAN = Plan(modalities=("t2f", "t1c"), network="fcn")
RULES = Postprocessing(regions={"ET": RegionRule(least_mm3=50, temperature=1.3)}, least_et_mm3=100)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_model(new_model(PLAN, seed=3), tmp_path / "model.safetensors", training={"epoch": 7, "note": "ü"})
    return tmp_path / "model.safetensors"


def test_only_the_plan_changes(file: Path, tmp_path: Path) -> None:
    """The file equals the one that saving the model with the new plan gives."""
    plan = PLAN.model_copy(update={"postprocessing": RULES})
    replace_plan(file, plan, tmp_path / "new.safetensors")
    assert read_plan(tmp_path / "new.safetensors") == plan
    assert read_training(tmp_path / "new.safetensors") == {"epoch": 7, "note": "ü"}
    old, new = (load_model(path).network.state_dict() for path in (file, tmp_path / "new.safetensors"))
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)
    model = load_model(file)
    save_model(Model(plan, model.network, "new"), tmp_path / "saved.safetensors", training=read_training(file))
    assert (tmp_path / "saved.safetensors").read_bytes() == (tmp_path / "new.safetensors").read_bytes()


def test_changing_the_plan_back_gives_the_same_file(file: Path) -> None:
    """The file is replaced in place and ends byte for byte the same."""
    before = file.read_bytes()
    replace_plan(file, PLAN.model_copy(update={"postprocessing": RULES}), file)
    assert file.read_bytes() != before
    replace_plan(file, PLAN, file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("changes", [{"modalities": ("t1c", "t2f")}, {"regions": ("WT",)}, {"network": "unet"}])
def test_a_plan_for_other_weights_is_refused(file: Path, changes: dict[str, object]) -> None:
    """The order of the sequences matters too, because the weights depend on it."""
    before = file.read_bytes()
    with pytest.raises(InputError, match=f"another plan .{next(iter(changes))} differ"):
        replace_plan(file, PLAN.model_copy(update=changes), file)
    assert file.read_bytes() == before


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """The message names the file, and nothing is written."""
    (tmp_path / "x.safetensors").write_bytes(b"no model at all")
    with pytest.raises(InputError, match=r"x\.safetensors"):
        replace_plan(tmp_path / "x.safetensors", PLAN, tmp_path / "y.safetensors")
    assert not (tmp_path / "y.safetensors").exists()


def test_onnx_is_refused(tmp_path: Path) -> None:
    """Only the plan of a safetensors file can be replaced."""
    (tmp_path / "x.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="export again"):
        replace_plan(tmp_path / "x.onnx", PLAN, tmp_path / "y.onnx")
