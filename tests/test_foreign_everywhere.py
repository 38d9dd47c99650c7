"""Models of other programs are taken by every command that takes a model, as our own are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gliomask.cases import find_cases
from gliomask.inference.loading import load_model
from gliomask.inference.windows import Inference
from gliomask.model.file import read_plan
from gliomask.volume import read_volume
from nnunet_models import write_model

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def test_an_ensemble_of_ours_and_theirs_is_their_mean(
    folder_of: Callable[..., Path], tmp_path: Path, model_file: Path, theirs: Path, gliomask: Command
) -> None:
    """Of different preparations and sequences; its JSON names both, also who trained them, and evaluate prints it."""
    folder = folder_of(1)
    found = {}
    for name, models in (("ours", [model_file]), ("theirs", [theirs]), ("both", [model_file, theirs])):
        words = [word for model in models for word in ("-m", model)]
        status, said = gliomask("predict", *words, "-i", folder, "-o", tmp_path / name, "--save-probabilities")
        assert status == 0, said
        case = find_cases(folder)[0].id
        found[name] = read_volume(tmp_path / name / f"{case}_probabilities.nii.gz").data
    np.testing.assert_allclose(found["both"], (found["ours"] + found["theirs"]) / 2, atol=3e-4)
    facts = json.loads((tmp_path / "both" / f"{case}.json").read_text())
    assert facts["origin"]["made_with"].startswith("gliomask; nnU-Net v2 (nnUNetTrainer")
    assert str(theirs) in facts["model"]
    status, said = gliomask("evaluate", tmp_path / "theirs", folder, "-o", tmp_path / "scores.json", "--ignore-extra")
    assert f"masks by {theirs}, made with nnU-Net v2 (nnUNetTrainer" in said
    (maker,) = json.loads((tmp_path / "scores.json").read_text())["made_by"].items()
    assert maker[0].endswith("made with nnU-Net v2 (nnUNetTrainer, nnUNetPlans, 3d_fullres), fold 0 on Dataset137_Test")
    assert maker[1] == 2  # the cases that the model was made for


def test_evaluate_says_nothing_about_masks_of_unknown_origin(
    folder_of: Callable[..., Path], tmp_path: Path, gliomask: Command
) -> None:
    """True masks scored against themselves have no JSON."""
    folder = folder_of(1)
    status, said = gliomask("evaluate", folder, folder, "-o", tmp_path / "scores.json")
    assert status == 0, said
    assert "masks by" not in said
    assert json.loads((tmp_path / "scores.json").read_text())["made_by"] == {}


def test_export_and_info_take_a_folder_of_nnunet(tmp_path: Path, theirs: Path, gliomask: Command) -> None:
    """The ONNX file has the folder's plan and answers as it does; info names the program and that terms are unknown."""
    pytest.importorskip("onnx")
    target = tmp_path / "exported.onnx"
    status, said = gliomask("export", "-o", target, "-m", theirs)
    assert status == 0, said
    assert read_plan(target).origin == load_model(theirs, device="cpu").plan.origin
    data = np.random.default_rng(0).normal(size=(4, 16, 16, 16)).astype(np.float32)
    once = Inference("sliding", precision="fp32")
    one, other = (load_model(path, device="cpu").run(data, once)[0] for path in (theirs, target))
    np.testing.assert_allclose(one, other, atol=2e-3 * np.abs(one).max())
    status, said = gliomask("info", theirs)
    assert status == 0, said
    assert "nnU-Net v2 (nnUNetTrainer" in said
    assert "not known: ask those who trained it" in said
