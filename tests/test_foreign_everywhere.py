"""Models of other programs are taken by every command that takes a model, as our own are."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gliomask.cases import find_cases
from gliomask.errors import InputError
from gliomask.foreign import read_plan as read_any_plan
from gliomask.inference.loading import load_model, load_torch_model, load_weights, new_model
from gliomask.inference.windows import Inference
from gliomask.model.file import read_plan
from gliomask.report.prediction import describe_case, measure_case
from gliomask.training.config import make_config
from gliomask.training.run import make_plan
from gliomask.volume import read_volume
from nnunet_models import write_model
from test_foreign_monai import write_bundle

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
    status, said = gliomask("evaluate", tmp_path / "theirs", folder, "--compare-protocols", "--ignore-extra")
    assert f"masks by {theirs}, made with nnU-Net v2 (nnUNetTrainer" in said
    assert f"masks by {theirs}, made with nnU-Net v2 (nnUNetTrainer" in gliomask("rank", tmp_path / "theirs")[1]
    assert gliomask("table", tmp_path / "theirs")[0] == 0
    assert "nnU-Net v2 (nnUNetTrainer" in (tmp_path / "theirs" / "volumes.csv").read_text("utf-8")
    rows = describe_case(measure_case(find_cases(folder)[0], tmp_path / "theirs" / f"{case}.nii.gz"))
    assert rows["made with"].startswith("nnU-Net v2 (nnUNetTrainer")


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


def test_every_command_says_the_same_about_a_path_near_a_model(
    folder_of: Callable[..., Path], tmp_path: Path, theirs: Path, gliomask: Command
) -> None:
    """The folder around it, its checkpoint, a part, a copy without plans, an archive or folder without a model."""
    cases, out = folder_of(3), tmp_path / "out"
    lonely, archive = tmp_path / "lonely", tmp_path / "notes.zip"
    shutil.copytree(theirs / "fold_0", lonely / "fold_0")
    (theirs / "crossval_results").mkdir()
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("notes.txt", "no model")
    commands: tuple[Callable[[Path], tuple[object, ...]], ...] = (
        lambda path: ("info", path),
        lambda path: ("predict", "-m", path, "-i", cases, "-o", out),
        lambda path: ("serve", "-m", path, "--store", tmp_path / "store", "--port", 0),
        lambda path: ("export", "-m", path, "-o", out / "a.onnx"),
        lambda path: ("join", path, path, "-o", out / "a.safetensors"),
        lambda path: ("tune", path, cases, "-o", out / "a.safetensors"),
        lambda path: ("import", path, "-o", out / "a.safetensors"),
        lambda path: ("train", cases, "--from", path, "-o", out, "--steps", 1),
    )
    for path, message in (
        (theirs.parent, f"with a model in it. Name it: {theirs}"),
        (theirs / "fold_0" / "checkpoint_final.pth", f"Name its folder: {theirs / 'fold_0'} for this fold"),
        (theirs / "fold_3", "no such fold (there: fold_0)"),
        (theirs / "crossval_results", f"is a part of a model. Name the whole: {theirs}"),
        (lonely / "fold_0", "a checkpoint of nnU-Net without its plans.json"),
        (archive, "is a zip archive without a model in it. A model is"),
        (cases, "is a folder without a model. A model is"),
    ):
        for command in commands:
            status, said = gliomask(*command(path), columns=2000)
            assert (status, message in said) == (2, True), (command(path), said)
            assert not [file for file in out.rglob("*") if file.is_file()]


def test_a_network_that_is_trained_further_sees_the_head_as_before(
    folder_of: Callable[..., Path], tmp_path: Path, theirs: Path
) -> None:
    """`--from` keeps orientation and weights, and the model still says whose it was; ONNX is no beginning."""
    cases, start = find_cases(folder_of(3)), read_any_plan(theirs)
    config = make_config(
        start_from=str(theirs),
        modalities=start.modalities,
        network=start.network,
        network_arguments=start.network_arguments,
    )
    plan = make_plan(config, cases)
    assert plan.axes == start.axes != "LPS"
    assert plan.origin is not None
    assert start.origin is not None
    assert plan.origin.made_with == f"{start.origin.made_with}, trained further with gliomask"
    model = new_model(plan)
    load_weights(model, theirs)
    for name, value in load_torch_model(theirs).network.state_dict().items():
        np.testing.assert_array_equal(model.network.state_dict()[name].numpy(), value.numpy())
    with pytest.raises(InputError, match="for another network: axes 'SPL', not 'LPS'"):
        load_weights(replace(model, plan=plan.model_copy(update={"axes": "LPS"})), theirs)
    (tmp_path / "a.onnx").write_bytes(b"onnx")
    with pytest.raises(InputError, match="cannot be trained further"):
        load_weights(model, tmp_path / "a.onnx")


def test_a_joined_model_says_whose_its_members_are(tmp_path: Path, gliomask: Command) -> None:
    """With the terms of each, in the order of the models."""
    for name in ("A", "B"):
        model = write_model(tmp_path / name, plans={"dataset_name": name})
        assert (
            gliomask("import", model, "-o", tmp_path / f"{name}.safetensors", "--license", f"terms of {name}")[0] == 0
        )
    target = tmp_path / "both.safetensors"
    assert gliomask("join", tmp_path / "A.safetensors", tmp_path / "B.safetensors", "-o", target)[0] == 0
    origin = read_plan(target).origin
    assert origin is not None
    assert origin.license == "terms of A; terms of B"
    assert [part.rpartition(" ")[2] for part in origin.made_with.split("; ")] == ["A", "B"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty. Copy or download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", r"is a pointer of git-lfs.*git lfs pull"),
        (b"<!DOCTYPE html><title>Log in</title>", "is a web page, not the file itself"),
    ],
    ids=["empty", "pointer", "page"],
)
def test_what_lies_in_the_place_of_a_model_is_named(
    tmp_path: Path, theirs: Path, model_file: Path, content: bytes, message: str
) -> None:
    """Whichever file of a model of any kind was not fetched."""
    bundle = write_bundle(tmp_path / "bundle")
    places = {
        **{file: file for file in (tmp_path / "model.zip", model_file, tmp_path / "a.onnx", tmp_path / "model.pt")},
        **{theirs / name: theirs for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth")},
        **{bundle / name: bundle for name in ("configs/metadata.json", "configs/inference.json", "models/model.pt")},
    }
    for file, model in places.items():
        whole = file.read_bytes() if file.exists() else b""
        file.write_bytes(content)
        with pytest.raises(InputError, match=message) as refused:
            load_model(model, device="cpu")
        assert str(refused.value).startswith(f"{file}: ")
        file.write_bytes(whole)
