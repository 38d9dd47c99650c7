"""Laws of models of nnU-Net v2: which plan they give, that their weights arrive, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gliomask.errors import InputError
from gliomask.foreign import Hints, is_foreign, model_digest, read_foreign, read_plan, read_weights
from gliomask.inference.loading import load_model, load_torch_model
from gliomask.inference.windows import Inference
from gliomask.model.plan import Plan
from gliomask.model.sampling import Resampling, Spline
from nnunet_models import CLASSES, a_configuration, an_old_configuration, network, write_model

ONCE = Inference("sliding", precision="fp32")


def images(channels: int = 4, edge: int = 20) -> np.ndarray:
    """Return noise on a grid that needs several windows of 16 voxels."""
    return np.random.default_rng(0).normal(size=(channels, edge, edge + 4, edge)).astype(np.float32)


def test_the_plan_says_what_the_files_say(tmp_path: Path) -> None:
    """Channels, regions, labels, orientation, normalization, resampling and windows are those of nnU-Net."""
    model = write_model(tmp_path)
    plan = read_plan(model)
    assert plan.modalities == ("t1n", "t1c", "t2w", "t2f")
    assert plan.regions == ("WT", "TC", "ET")
    assert plan.classes == ()
    assert plan.convention == "msd"  # 1 ED, 2 NCR, 3 ET
    assert plan.axes == "SPL"  # arrays are z, y, x of images that are stored as LPS
    assert plan.normalizations == ("zscore_brain",) * 4
    assert plan.resampling == Resampling(image=Spline(order=3), output=Spline(order=1))
    assert plan.windows.mirror_windows
    assert plan.mirror_axes == (0, 1, 2)
    assert plan.network == "plain_conv_unet"
    assert plan.origin is not None
    assert plan.origin.made_with == ("nnU-Net v2 (nnUNetTrainer, nnUNetPlans, 3d_fullres), fold 0 on Dataset137_Test")
    assert is_foreign(model)
    assert not is_foreign(tmp_path)


@pytest.mark.parametrize(
    ("transpose", "reader", "stored", "axes"),
    [
        ([1, 0, 2], "SimpleITKIO", "LPS", "PSL"),
        ([2, 0, 1], "NibabelIO", "RAS", "RSA"),
        ([0, 1, 2], "NibabelIOWithReorient", "LPS", "SAR"),
    ],
)
def test_the_orientation_follows_reader_and_transposition(
    tmp_path: Path, transpose: list[int], reader: str, stored: str, axes: str
) -> None:
    """Readers reverse the axes, and plans may order them anew."""
    model = write_model(tmp_path, plans={"transpose_forward": transpose, "image_reader_writer": reader})
    assert read_foreign(model, Hints(axes=stored)).plan.axes == axes


@pytest.mark.parametrize(
    ("labels", "classes", "regions", "convention"),
    [
        (CLASSES, ("", "ED", "NCR", "ET"), ("WT", "TC", "ET"), "msd"),
        ({"background": 0, "NCR": 1, "ED": 2, "ET": 3}, ("", "NCR", "ED", "ET"), ("WT", "TC", "ET"), "brats2023"),
        ({"background": 0, "whole_tumour": [1]}, ("", "WT"), ("WT",), "wt-only"),
        ({"background": 0, "Edema": 1, "enhancing": 2}, ("", "ED", "ET"), ("WT", "TC", "ET"), "hd-glio"),
    ],
)
def test_classes_get_their_tissue_by_name(
    tmp_path: Path, labels: Any, classes: Any, regions: Any, convention: str
) -> None:
    """In any order and spelling; masks are written in the network's own numbers where a convention has them."""
    plan = read_plan(write_model(tmp_path, labels=labels))
    assert (plan.classes, plan.regions, plan.convention) == (classes, regions, convention)


@pytest.mark.parametrize(
    "names",
    [
        ("T1w", "t1gd", "T2w", "FLAIR"),
        ("t1n", "t1c", "t2w", "t2f"),
        ("T1-weighted", "T1 post", "T2_weighted", "T2-FLAIR"),
    ],
)
def test_channels_are_known_in_all_spellings(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Case, blanks and signs do not matter."""
    assert read_plan(write_model(tmp_path, channels=names)).modalities == ("t1n", "t1c", "t2w", "t2f")


def test_channels_without_meaning_are_asked_for(tmp_path: Path) -> None:
    """The message names them and the option, which is then taken at its word."""
    model = write_model(tmp_path, channels=("MRI0", "MRI1"), dataset={}, configuration=None)
    with pytest.raises(InputError, match=r"'MRI0', 'MRI1'.*gliomask import .* --channels t1,t1ce\.") as caught:
        read_plan(model)
    assert f"gliomask import {model} -o imported.safetensors" in str(caught.value)
    assert read_foreign(model, Hints(("flair", "t1ce"))).plan.modalities == ("t2f", "t1c")
    with pytest.raises(InputError, match="2 channels"):
        read_foreign(model, Hints(("flair",)))


def test_old_plans_give_the_same_network(tmp_path: Path) -> None:
    """Plans before nnU-Net 2.4 describe it with other words."""
    new = a_configuration(4)
    new["architecture"]["arch_kwargs"]["features_per_stage"] = [4, 8, 8]
    plans = {"configurations": {"3d_fullres": new}}
    one = read_plan(write_model(tmp_path / "new", plans=plans))
    other = read_plan(write_model(tmp_path / "old", plans={"configurations": {"3d_fullres": an_old_configuration(4)}}))
    assert one == other


@pytest.mark.parametrize("residual", [False, True])
def test_both_engines_give_the_networks_logits(tmp_path: Path, residual: bool) -> None:
    """Weights arrive under nnU-Net's names, in PyTorch and OpenVINO, with strides that differ between axes."""
    model = write_model(tmp_path, residual=residual)
    data = images(edge=16)[:, :, :16]
    with torch.inference_mode():
        expected = network(residual=residual).eval()(torch.from_numpy(data[None]))[0].numpy()
    for loaded in (load_torch_model(model), load_model(model, device="cpu", engine="openvino", threads=1)):
        found, window = loaded.run(data, ONCE)
        assert window == "sliding"
        np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


def test_folds_are_averaged_and_can_be_chosen(tmp_path: Path) -> None:
    """The folder gives the mean of the folds' logits, a fold's folder that fold alone."""
    model = write_model(tmp_path, folds=(0, 1, "all"))
    data = images()
    zero, one, every, both = (
        load_torch_model(path).run(data, ONCE)[0]
        for path in (model / "fold_0", model / "fold_1", model / "fold_all", model)
    )
    np.testing.assert_allclose(both, (zero + one) / 2, atol=1e-5)
    assert np.abs(every - both).max() > 0.01
    fast = load_model(model, device="cpu", engine="openvino", threads=1).run(data, ONCE)[0]
    np.testing.assert_allclose(fast, both, atol=2e-4 * np.abs(both).max())
    assert len({model_digest(path) for path in (model / "fold_0", model / "fold_1", model)}) == 3


def test_an_archive_is_read_without_unpacking(tmp_path: Path) -> None:
    """The zip of nnUNetv2_export_model_to_zip contains folders; of several configurations 3d_fullres is taken."""
    model = write_model(tmp_path)
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for kind in ("3d_fullres", "3d_lowres"):
            for path in (path for path in model.rglob("*") if path.is_file()):
                file.write(path, f"Dataset137_Test/nnUNetTrainer__nnUNetPlans__{kind}/{path.relative_to(model)}")
    assert read_plan(archive) == read_plan(model)
    for name, value in read_weights(model).items():
        np.testing.assert_array_equal(read_weights(archive)[name], value)
    with pytest.raises(InputError, match=r"no configuration '2d' \(there: 3d_fullres, 3d_lowres\)"):
        read_foreign(archive, Hints(configuration="2d"))


def test_a_flat_network_sees_single_slices(tmp_path: Path) -> None:
    """A 2-D configuration becomes a 3-D network with kernels of one voxel along the first axis."""
    flat = a_configuration(4) | {"patch_size": [16, 16], "spacing": [1.0, 1.0]}
    arguments = flat["architecture"]["arch_kwargs"]
    arguments |= {"kernel_sizes": [[3, 3]] * 3, "strides": [[1, 1], [2, 2], [2, 2]], "conv_op": "Conv2d"}
    arguments["norm_op"] = "torch.nn.modules.instancenorm.InstanceNorm2d"
    model = write_model(tmp_path, plans={"configurations": {"2d": flat}}, more={"init_args": {"configuration": "2d"}})
    path = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    content["network_weights"] = {
        name: value[:, :, 1]
        if value.ndim == 5 and value.shape[2] == 3
        else value[:, :, 0]
        if value.ndim == 5
        else value
        for name, value in content["network_weights"].items()
    }
    content["network_weights"]["decoder.transpconvs.0.weight"] = torch.randn(8, 6, 2, 2)
    content["network_weights"]["decoder.transpconvs.1.weight"] = torch.randn(6, 4, 2, 2)
    content["inference_allowed_mirroring_axes"] = (0, 1)
    torch.save(content, path)
    plan = read_plan(model)
    assert (plan.patch_size, plan.mirror_axes, plan.resampling.native_axes) == ((1, 16, 16), (1, 2), (0,))  # type: ignore[union-attr]
    data = images(edge=16)[:, :5, :16]
    whole = load_torch_model(model).run(data, ONCE)[0]
    for number in range(5):
        alone = load_torch_model(model).run(np.ascontiguousarray(data[:, number : number + 1]), ONCE)[0]
        np.testing.assert_allclose(whole[:, number], alone[:, 0], atol=1e-5)


def test_import_writes_one_file_that_needs_nothing_else(
    tmp_path: Path, gliomask: Callable[..., tuple[int, str]]
) -> None:
    """It gives the original's logits, says the agreement, and keeps license and citation."""
    model, file = write_model(tmp_path, folds=(0, 1)), tmp_path / "big.safetensors"
    status, said = gliomask("import", model, "-o", file, "--bits", 32, "--license", "CC0", "--cite", "doi:10/x")
    assert status == 0, said
    assert "agreement with the original on a phantom: 100.00%" in said
    assert "nnU-Net averages over 8 mirror images by default" in said
    plan = read_plan(file)
    assert plan.origin is not None
    assert (plan.origin.license, plan.origin.cite) == ("CC0", "doi:10/x")
    data = images()
    one, other = load_torch_model(model).run(data, ONCE)[0], load_torch_model(file).run(data, ONCE)[0]
    np.testing.assert_array_equal(one, other)
    status, said = gliomask("info", file)
    assert "CC0" in said
    assert "plain_conv_unet, plain_conv_unet" in said


@pytest.mark.parametrize("bits", [8, 16])
def test_fewer_bits_make_a_smaller_file(tmp_path: Path, gliomask: Callable[..., tuple[int, str]], bits: int) -> None:
    """The file is smaller than that of 32 bits, and nothing but it is left in its folder."""
    model, file = write_model(tmp_path / "model"), tmp_path / "out" / "small.safetensors"
    assert gliomask("import", model, "-o", file, "--bits", bits)[0] == 0
    assert list(file.parent.iterdir()) == [file]
    stored = sum(value.nbytes for value in read_weights(model).values())
    assert file.stat().st_size < stored * (bits + 8) / 32 + 12_000


def test_a_folder_predicts_as_any_model(
    folder_of: Callable[..., Path], tmp_path: Path, gliomask: Callable[..., tuple[int, str]]
) -> None:
    """`predict -m FOLDER` writes masks in the network's numbers; without --tta it says what nnU-Net would do."""
    model, output = write_model(tmp_path / "model", labels=CLASSES), tmp_path / "masks"
    status, said = gliomask("predict", "-m", model, "-i", folder_of(1), "-o", output)
    assert status == 0, said
    assert "mirror images" in said
    (facts,) = [json.loads(path.read_text()) for path in output.glob("*.json")]
    assert facts["labels"]["convention"] == "msd"
    assert facts["origin"]["made_with"].startswith("nnU-Net v2")
    assert "kept" in gliomask("predict", "-m", model, "-i", folder_of(0), "-o", output)[1]


def test_a_path_near_a_model_leads_to_it(tmp_path: Path, gliomask: Callable[..., tuple[int, str]]) -> None:
    """The folder around it, its checkpoint, and a fold that is not there: the message names what to give instead."""
    model = write_model(tmp_path / "Dataset137_Test", folds=(0, 2))
    for path, message in (
        (tmp_path, f"with a model in it. Name it: {model}"),
        (model.parent, f"with a model in it. Name it: {model}"),
        (model / "fold_1", "no such fold (there: fold_0, fold_2)"),
        (model / "fold_0" / "checkpoint_final.pth", f"Name its folder: {model / 'fold_0'} for this fold, or {model}"),
    ):
        status, said = gliomask("info", path)
        assert status == 2
        assert message in said
        assert gliomask("import", path, "-o", tmp_path / "out" / "a.safetensors")[0] == 2
    assert not list((tmp_path / "out").glob("*"))


class _Runs:
    """What a malicious file could contain: unpickling it would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle that names a function is refused with the name."""
    monkeypatch.chdir(tmp_path)
    model = write_model(tmp_path, more={"logging": _Runs()})
    with pytest.raises(InputError, match=r"mkdir, which is no data and could execute code"):
        read_plan(model)
    (model / "fold_0" / "checkpoint_final.pth").write_bytes(pickle.dumps(_Runs()))
    with pytest.raises(
        InputError, match=r"checkpoint_final.*could execute code\. Such a file is not loaded"
    ) as refused:
        read_plan(model)
    assert "weights_only" not in str(refused.value)  # PyTorch's advice to load it all the same
    assert not (tmp_path / "executed").exists()


def test_a_fold_of_another_network_is_named(tmp_path: Path) -> None:
    """A file that was copied from another training does not fit the others."""
    model = write_model(tmp_path, folds=(0, 1))
    other = write_model(tmp_path / "other", residual=True)
    (other / "fold_0" / "checkpoint_final.pth").replace(model / "fold_1" / "checkpoint_final.pth")
    with pytest.raises(InputError, match=r"fold_1.checkpoint_final\.pth: its network is not that of fold_0/.*missing"):
        load_torch_model(model)


@pytest.mark.parametrize("left", [(), ("checkpoint_latest.pth",)], ids=["empty", "unfinished"])
def test_a_fold_without_its_checkpoint_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, left: tuple[str, ...]
) -> None:
    """The mean of the others is used, and a warning names it; asked for by name, it is refused."""
    model = write_model(tmp_path, folds=(0, 1))
    (model / "fold_1" / "checkpoint_final.pth").unlink()
    for name in left:
        (model / "fold_1" / name).write_bytes(b"unfinished")
    plan = read_plan(model)
    assert plan.origin is not None
    assert "fold 0 on" in plan.origin.made_with
    assert "fold_1 without checkpoint_final.pth; the others are used" in caplog.text
    with pytest.raises(InputError, match=r"fold_1: has no checkpoint_final\.pth"):
        read_plan(model / "fold_1")


def test_a_lack_of_memory_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch reports it in several ways."""
    model = write_model(tmp_path)
    for error in (MemoryError(), RuntimeError("unable to mmap 9 bytes: Cannot allocate memory (12)")):

        def fails(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr("torch.load", fails)
        with pytest.raises(InputError, match=r"checkpoint_final\.pth: not enough memory to read it"):
            load_torch_model(model)


def _cut(model: Path) -> None:
    path = model / "fold_0" / "checkpoint_final.pth"
    path.write_bytes(path.read_bytes()[:-2000])


def _pointer(model: Path) -> None:
    (model / "fold_0" / "checkpoint_final.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0")


def _without_fold(model: Path) -> None:
    (model / "fold_0" / "checkpoint_final.pth").unlink()


def _first_version(model: Path) -> None:
    (model / "plans.json").rename(model / "plans.pkl")


def _damaged_plans(model: Path) -> None:
    (model / "plans.json").write_text('{"configurations": ')


def _without_dataset(model: Path) -> None:
    (model / "dataset.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "cut short"),
        (_pointer, "git lfs pull"),
        (_without_fold, r"has no checkpoint_final.pth or checkpoint_best.pth \(in fold_0\)"),
        (_first_version, "nnU-Net v1"),
        (_damaged_plans, r"plans.json: is cut short or damaged"),
        (_without_dataset, r"dataset.json: no such file"),
    ],
)
def test_an_incomplete_model_is_refused(
    tmp_path: Path, gliomask: Callable[..., tuple[int, str]], damage: Callable[[Path], None], message: str
) -> None:
    """With status 2, the reason and what to do, and nothing is written."""
    model, file = write_model(tmp_path), tmp_path / "out" / "big.safetensors"
    damage(model)
    with pytest.raises(InputError, match=message):
        read_plan(model)
    assert gliomask("import", model, "-o", file)[0] == 2
    assert not list(file.parent.glob("*"))


def _changed(**arguments: Any) -> dict[str, Any]:
    """Return a configuration whose network has other arguments."""
    found = a_configuration(4)
    found["architecture"]["arch_kwargs"] |= arguments
    return found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"background": 0, "class 1": 1, "class 2": 2}}, "'class 1' does not say what it is.*whole tumor"),
        ({"labels": {"background": 0, "edema": 1, "oedema": 2}}, "two labels mean the same tissue"),
        ({"labels": {"background": 0, "edema": 2}}, "must be 0 for the background and then 1, 2"),
        ({"dataset": {"labels": {"background": 0, "whole tumor": [1], "tumor core": [1, 2]}}}, "part of the"),
        ({"dataset": {"labels": {"background": 0, "edema": 1}}}, "4 channels and 2 outputs.*4 and 3"),
        ({"dataset": {"channel_names": {"0": "T1"}}}, "names 1 channels, but the plans normalize 4"),
        ({"channels": ("T1", "t1w", "T2", "FLAIR")}, "name the same sequence"),
        ({"configuration": {"normalization_schemes": ["CTNormalization"] * 4}}, "CTNormalization is not supported"),
        ({"configuration": {"previous_stage": "3d_lowres"}}, "second stage of a cascade"),
        ({"configuration": {"resampling_fn_data": "resample_torch_fornnunet"}}, "resample_torch_fornnunet"),
        ({"configuration": {"inherits_from": "nothing"}}, "no configuration 'nothing'"),
        ({"plans": {"image_reader_writer": "Tiff3DIO"}}, "Tiff3DIO"),
        ({"plans": {"configurations": {}}}, "no configurations"),
        ({"plans": {"transpose_forward": [0, 0, 1]}}, "transpose_forward"),
        ({"configuration": {"architecture": {"network_class_name": "a.Primus", "arch_kwargs": {}}}}, "Primus"),
        ({"configuration": _changed(nonlin="torch.nn.ReLU")}, "nonlinearity ReLU"),
        ({"configuration": _changed(norm_op="torch.nn.GroupNorm")}, "norm GroupNorm"),
        ({"configuration": _changed(strides=[[2, 2, 2]] * 3)}, "first level keeps"),
        ({"configuration": _changed(features_per_stage=[4, 6, 10])}, "do not fit its plan"),
        ({"more": {"network_weights": None}}, "no network_weights"),
        ({"more": {"network_weights": {"a": 1}}}, "is no tensor"),
    ],
    ids=str,
)
def test_what_is_not_supported_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """No network is used with another meaning than it has."""
    model = write_model(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        load_torch_model(model)


def test_plans_of_two_kinds_can_be_averaged(tmp_path: Path, folder_of: Callable[..., Path], model_file: Path) -> None:
    """A network of nnU-Net with classes and one of ours with regions give one mask."""
    from gliomask.cases import find_cases
    from gliomask.inference.prediction import predict

    model = write_model(tmp_path / "model", labels=CLASSES)
    theirs, ours = load_torch_model(model), load_torch_model(model_file)
    case = find_cases(tmp_path / "data")[0]
    found = predict([theirs, ours], case)
    apart = [predict(one, case).probabilities.data for one in (theirs, ours)]
    np.testing.assert_allclose(found.probabilities.data, np.mean(apart, axis=0), atol=1e-5)
    assert isinstance(found.plan, Plan)


def test_what_takes_a_model_takes_an_imported_one(
    tmp_path: Path, folder_of: Callable[..., Path], gliomask: Callable[..., tuple[int, str]]
) -> None:
    """Joined, exported to ONNX, and its predictions scored."""
    model = write_model(tmp_path / "model", folds=(0, 1))
    for fold in (0, 1):
        assert gliomask("import", model / f"fold_{fold}", "-o", tmp_path / f"{fold}.safetensors", "--bits", 32)[0] == 0
    joined, exported = tmp_path / "both.safetensors", tmp_path / "both.onnx"
    status, said = gliomask("join", tmp_path / "0.safetensors", tmp_path / "1.safetensors", "-o", joined)
    assert status == 0, said
    assert not read_plan(joined).network_arguments["shift"]
    status, said = gliomask("export", "-m", joined, "-o", exported, "--full")
    assert status == 0, said
    assert read_plan(exported) == read_plan(joined)
    data = images()
    expected = load_torch_model(model).run(data, ONCE)[0]
    for file in (joined, exported):
        found = load_model(file, device="cpu", engine="openvino", threads=1).run(data, ONCE)[0]
        np.testing.assert_allclose(found, expected, atol=5e-4 * np.abs(expected).max())
    cases, masks = folder_of(1), tmp_path / "masks"
    status, said = gliomask("predict", "-m", exported, "-i", cases, "-o", masks, "--tta")
    assert status == 0, said
    status, said = gliomask("evaluate", masks, cases, "-o", tmp_path / "scores.csv")
    assert status == 0, said
