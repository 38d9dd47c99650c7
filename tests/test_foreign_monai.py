"""Laws of MONAI's bundles: they give MONAI's own answers, and nothing in them is executed."""

from __future__ import annotations

import copy
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import nested_ellipsoids
from gliomask.cases import Case, Source
from gliomask.errors import InputError
from gliomask.foreign import Hints, is_foreign, read_foreign, read_plan
from gliomask.foreign.monai_config import Config
from gliomask.foreign.monai_steps import Decision, read_decision
from gliomask.inference.loading import load_model, load_torch_model
from gliomask.inference.prediction import predict
from gliomask.inference.preprocessing import prepare
from gliomask.inference.windows import Inference
from gliomask.networks import build_network
from gliomask.volume import Volume, write_volume

nets = pytest.importorskip("monai.networks.nets", reason="needs gliomask[monai]")

SEGRESNET = {"blocks_down": [1, 1], "blocks_up": [1], "init_filters": 8, "dropout_prob": 0.2}
# The small example of every network that a bundle may have, and the edge of an image that it takes.
NETWORKS = [
    ("SegResNet", SEGRESNET, 16),
    ("SegResNetDS", {"init_filters": 8, "blocks_down": [1, 2], "dsdepth": 2, "norm": "INSTANCE"}, 16),
    (
        "DynUNet",
        {
            **{"spatial_dims": 3, "kernel_size": [3, 3, 3], "strides": [1, 2, [2, 2, 1]], "deep_supervision": True},
            **{"upsample_kernel_size": [2, [2, 2, 1]], "filters": [4, 8, 8], "deep_supr_num": 1},
        },
        16,
    ),
    ("UNet", {"spatial_dims": 3, "channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 2}, 16),
    ("SwinUNETR", {"feature_size": 12, "depths": [1, 1, 1, 1]}, 32),
    ("UNETR", {"img_size": [16, 16, 16], "hidden_size": 24, "mlp_dim": 24, "num_heads": 2, "feature_size": 4}, 16),
    ("MedNeXt", {"init_filters": 2}, 16),
]
# A number of voxels that two windows along each axis cover.
SHAPE = (24, 28, 20)
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


def metadata(outputs: tuple[str, ...] = ("Tumor core", "Whole tumor", "Enhancing tumor")) -> dict[str, Any]:
    """Return metadata with the structure of those of MONAI's `brats_mri_segmentation`."""
    image = {"type": "image", "format": "magnitude", "modality": "MR", "num_channels": 4}
    return {
        "version": "0.5.3",
        "monai_version": "1.4.0",
        "name": "BraTS MRI segmentation",
        "eval_metrics": {"val_mean_dice": 0.8518},
        "network_data_format": {
            "inputs": {
                "image": {**image, "channel_def": {"0": "T1c", "1": "T1", "2": "T2", "3": "FLAIR"}},
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "num_channels": len(outputs),
                    "channel_def": {str(number): name for number, name in enumerate(outputs)},
                }
            },
        },
    }


def inference(kind: str = "SegResNet", arguments: dict[str, Any] = SEGRESNET, edge: int = 16) -> dict[str, Any]:
    """Return a configuration with the structure of that of MONAI's `brats_mri_segmentation`."""
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "edge": edge,
        "dataset_dir": "/workspace/data",
        "test_datalist": "$monai.data.load_decathlon_datalist(@bundle_root + '/configs/datalist.json')",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": {"_target_": kind, **arguments, "in_channels": 4, "out_channels": 3},
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True},
            ],
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": ["@edge", "@edge", "$@edge"],
            "sw_batch_size": 1,
            "overlap": 0.5,
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
                {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"},
                {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
                {"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: torch.where(x[[2]] > 0, 4, 0)"},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
            ],
        },
        "evaluator": {"_target_": "SupervisedEvaluator", "network": "@network", "amp": True},
    }


def their_network(kind: str, arguments: dict[str, Any]) -> torch.nn.Module:
    torch.manual_seed(3)
    return getattr(nets, kind)(in_channels=4, out_channels=3, **arguments).eval()


def write_bundle(folder: Path, config: dict[str, Any] | None = None, described: dict[str, Any] | None = None) -> Path:
    """Write a bundle as MONAI does: two JSON files, and the state of a network that MONAI made."""
    config = config or inference()
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps(described or metadata()))
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    torch.save(their_network("SegResNet", SEGRESNET).state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.fixture
def case(tmp_path: Path) -> Case:
    images, _ = nested_ellipsoids(1, SHAPE)
    for name, image in images.items():
        write_volume(tmp_path / "p1" / f"{name}.nii.gz", Volume(image[None], AFFINE))
    return Case("p1", {name: Source(tmp_path / "p1" / f"{name}.nii.gz") for name in images})


def test_the_answers_are_those_of_monai(tmp_path: Path, case: Case) -> None:
    """MONAI normalizes the channels in its own order, and cuts, runs and joins the windows; the logits are the same."""
    from monai.inferers import SlidingWindowInferer
    from monai.transforms import NormalizeIntensity

    images, _ = nested_ellipsoids(1, SHAPE)
    stacked = np.stack([images[name] for name in ("t1c", "t1n", "t2w", "t2f")]).astype(np.float32)
    normalized = NormalizeIntensity(nonzero=True, channel_wise=True)(torch.from_numpy(stacked))
    with torch.inference_mode():
        theirs = SlidingWindowInferer((16, 16, 16), overlap=0.5)(
            normalized[None], their_network("SegResNet", SEGRESNET)
        )
    model = load_torch_model(write_bundle(tmp_path / "bundle"), device="cpu")
    assert (model.plan.modalities, model.plan.regions) == (("t1c", "t1n", "t2w", "t2f"), ("TC", "WT", "ET"))
    prepared = prepare(Volume(stacked, AFFINE), model.plan)
    ours, _ = model.run(prepared.data, Inference(precision="fp32"))
    np.testing.assert_allclose(ours, theirs[0].numpy(), atol=2e-5)
    found = predict(model, case, inference=Inference(precision="fp32"))
    np.testing.assert_allclose(found.probabilities.data, torch.sigmoid(theirs[0]).numpy(), atol=2e-5)


def test_the_command_predicts_with_a_bundle(gliomask, tmp_path: Path, case: Case) -> None:
    """It says nothing of mirror images, which MONAI does not use, and the mask names the bundle."""
    words = ("-i", next(iter(case.images.values())).path.parent, "-o", tmp_path / "masks", "-d", "cpu")
    status, said = gliomask("predict", "-m", write_bundle(tmp_path / "bundle"), *words)
    assert (status, "mirror" in said) == (0, False), said
    assert "MONAI bundle BraTS MRI segmentation 0.5.3" in (tmp_path / "masks" / "p1.json").read_text()


@pytest.mark.parametrize(("kind", "arguments", "edge"), NETWORKS, ids=[name for name, *_ in NETWORKS])
def test_every_network_computes_what_monais_does(kind: str, arguments: dict[str, Any], edge: int) -> None:
    """With the same weights, in evaluation; the names of the weights are MONAI's."""
    theirs = their_network(kind, arguments)
    ours = build_network("monai", 4, 3, kind=kind, arguments=arguments).eval()
    state = {f"body.{key}": value for key, value in theirs.state_dict().items() if not key.startswith("skip_layers.")}
    ours.load_state_dict(state)
    length = edge if kind == "UNETR" else 2 * edge  # more than one voxel at the coarsest level
    image = torch.randn(1, 4, length, edge, edge, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted, got = theirs(image), ours(image)
    wanted = wanted[0] if isinstance(wanted, list | tuple) else wanted
    assert isinstance(got, torch.Tensor)
    np.testing.assert_allclose(got.numpy(), wanted.numpy(), atol=1e-5)


def test_a_bundle_is_recognised_as_a_folder_and_as_an_archive(tmp_path: Path) -> None:
    """An archive may have the bundle in a folder; both give the same plan and weights."""
    bundle = write_bundle(tmp_path / "bundle")
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        for file in bundle.rglob("*"):
            archive.write(file, f"brats/{file.relative_to(bundle)}")
    one, other = read_foreign(bundle), read_foreign(tmp_path / "bundle.zip")
    assert one.plan == other.plan
    assert one.plan.origin is not None
    assert one.plan.origin.made_with == "MONAI bundle BraTS MRI segmentation 0.5.3"
    assert one.facts["metrics"] == {"val_mean_dice": 0.8518}
    for name, array in one.read_weights().items():
        np.testing.assert_array_equal(array, other.read_weights()[name])
    assert is_foreign(bundle)
    assert not is_foreign(tmp_path)


def test_yaml_is_read_as_json_is(tmp_path: Path) -> None:
    """The two files say the same."""
    yaml = pytest.importorskip("yaml")
    bundle = write_bundle(tmp_path / "bundle")
    plan = read_plan(bundle)
    file = bundle / "configs" / "inference.json"
    (bundle / "configs" / "inference.yaml").write_text(yaml.safe_dump(json.loads(file.read_text())))
    file.unlink()
    assert read_plan(bundle) == plan


Change = Callable[[dict[str, Any]], object]


def transforms(config: dict[str, Any]) -> list[dict[str, Any]]:
    return config["preprocessing"]["transforms"]


def after(config: dict[str, Any]) -> list[dict[str, Any]]:
    return config["postprocessing"]["transforms"]


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        (lambda c: transforms(c).insert(1, {"_target_": "Orientationd", "axcodes": "RAS"}), "axes", "RAS"),
        (lambda c: transforms(c).insert(1, {"_target_": "Spacingd", "pixdim": [1, 1, 2]}), "spacing_mm", (1, 1, 2)),
        (lambda c: transforms(c)[1].update(nonzero=False), "channel_normalization", ("zscore_box",) * 4),
        (lambda c: transforms(c).insert(1, {"_target_": "CropForegroundd", "source_key": "image"}), "crop", True),
        (lambda c: c["inferer"].update(roi_size=[24, 16, 32]), "patch_size", (24, 16, 32)),
        (lambda c: c.update(inferer={"_target_": "monai.inferers.SimpleInferer"}), "whole_brain", True),
        (lambda c: c["network_def"].update(_target_="monai.networks.nets.SegResNet"), "network", "monai"),
        (lambda c: c.update(network_def="@mine", mine=c["network_def"]), "network", "monai"),
    ],
)
def test_the_plan_says_what_the_configuration_says(tmp_path: Path, change: Change, field: str, value: object) -> None:
    """References are followed, also to other parts."""
    config = copy.deepcopy(inference())
    change(config)
    assert getattr(read_plan(write_bundle(tmp_path / "bundle", config)), field) == value


def test_a_gaussian_and_a_threshold_are_kept(tmp_path: Path) -> None:
    """They belong to the windows and to the rules for masks."""
    config = inference()
    config["inferer"] |= {"mode": "gaussian", "sigma_scale": 0.25, "overlap": 0.25}
    config["postprocessing"]["transforms"][2]["threshold"] = 0.4
    plan = read_plan(write_bundle(tmp_path / "bundle", config))
    assert (plan.windows.sigma, plan.windows.overlap, plan.windows.placement) == (0.25, 0.25, "fixed")
    assert {plan.postprocessing.rule(region).threshold for region in plan.regions} == {0.4}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: after(c)[2].update(threshold="@mine"), Decision(threshold=0.3)),
        (lambda c: after(c)[2].update(threshold="$@mine"), Decision(threshold=0.3)),
        (lambda c: after(c)[2].update(threshold="$0.3"), Decision(threshold=0.3)),
        (lambda c: after(c)[2].update(threshold=[0.3]), Decision(threshold=0.3)),
        (lambda c: after(c)[2].update(threshold="$None"), Decision()),
        (lambda c: after(c)[2].update(argmax="@use"), Decision(softmax=True)),
        (lambda c: after(c)[0].update(softmax="@use", sigmoid="$False"), Decision(softmax=True)),
        (
            lambda c: c.update(last=after(c)[2] | {"threshold": "@mine"}) or after(c).append("@last"),
            Decision(False, 0.3),
        ),
        (lambda c: c["postprocessing"].update(transforms="@others"), Decision(False, 0.3)),
        (lambda c: c.update(postprocessing="@others"), Decision(False, 0.3)),
    ],
)
def test_references_decide_about_the_mask_as_numbers_do(change: Change, expected: Decision) -> None:
    """Thresholds, switches, transforms and lists of them; expressions in what is not read do no harm."""
    config = copy.deepcopy(inference())
    config |= {"mine": 0.3, "use": True, "others": [{**after(config)[2], "threshold": "@mine"}, after(config)[3]]}
    change(config)
    assert read_decision(Config(config, "inference.json")) == expected


def test_a_softmax_has_classes(tmp_path: Path) -> None:
    """The first is the background."""
    config = inference()
    config["network_def"]["out_channels"] = 4
    config["postprocessing"]["transforms"][0] = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
    described = metadata(("background", "edema", "non-enhancing tumor", "enhancing tumor"))
    plan = read_plan(write_bundle(tmp_path / "bundle", config, described))
    assert (plan.classes, plan.convention) == (("", "ED", "NCR", "ET"), "msd")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["network_def"].update(_target_="os.system"), "_target_ is os.system, which is not from monai"),
        (lambda c: c["network_def"].update(_target_="monai.networks.netsx.X"), "which is not from monai.networks.nets"),
        (lambda c: c["network_def"].update(_target_="VNet"), "unknown network of MONAI 'VNet'"),
        (lambda c: c["network_def"].update(_requires_="x"), "_requires_ is not supported"),
        (
            lambda c: c["network_def"].update(init_filters="$__import__('os').getpid()"),
            "Expressions are never evaluated",
        ),
        (lambda c: c["network_def"].update(init_filters="$2 * 8"), "network_def.init_filters is the expression"),
        (lambda c: c["network_def"].update(init_filters="@nothing"), "refers to nothing, which is not there"),
        (lambda c: c.update(network_def="@network_def"), "refers to itself"),
        (lambda c: c["network_def"].update(in_channels=3), "in_channels is 3, but the metadata name 4 channels"),
        (lambda c: transforms(c).append({"_target_": "ScaleIntensityd"}), "ScaleIntensityd is not supported"),
        (lambda c: transforms(c)[1].update(channel_wise=False), "without channel_wise is not supported"),
        (lambda c: transforms(c)[1].update(subtrahend=3), "with subtrahend is not supported"),
        (lambda c: transforms(c).append({"_target_": "builtins.eval"}), "builtins.eval, which is not from monai"),
        (lambda c: c["inferer"].update(mode="x"), "mode is 'x'"),
        (lambda c: c["inferer"].update(_target_="SliceInferer"), "SliceInferer is not supported"),
        (lambda c: c["inferer"].update(roi_size=[16, 16]), "roi_size is not three whole numbers"),
        (lambda c: c["inferer"].update(roi_size=[9999] * 3), "patch_size"),
        (lambda c: c.pop("network_def"), "network is the expression"),
        (
            lambda c: after(c)[2].update(threshold="$0.2 + 0.1"),
            "postprocessing.transforms.2.threshold is the expression '$0.2 . 0.1'. Expressions are never",
        ),
        (lambda c: after(c)[2].update(threshold="@nothing"), "threshold refers to nothing, which is not there"),
        (lambda c: after(c)[2].update(threshold="@device"), "device is the expression"),
        (lambda c: after(c)[2].update(threshold="half"), "threshold is 'half'. Write a number between 0 and 1"),
        (lambda c: after(c)[0].update(softmax="$not @use"), "postprocessing.transforms.0.softmax is the expression"),
        (lambda c: after(c)[0].update(sigmoid="yes"), "sigmoid is 'yes'. Write true or false"),
        (lambda c: c["postprocessing"].update(transforms="$make()"), "postprocessing.transforms is the expression"),
        (lambda c: c["postprocessing"].update(transforms="@postprocessing"), "refers to itself"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(tmp_path: Path, change: Change, message: str) -> None:
    """Nothing in a bundle is evaluated, called or imported."""
    config = copy.deepcopy(inference())
    change(config)
    with pytest.raises(InputError, match=message.replace("$", r"\$").replace("(", r"\(").replace(")", r"\)")):
        read_plan(write_bundle(tmp_path / "bundle", config))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init_filters": 10**9}, "at most"),
        ({"act": "a" * 100}, "neither a number nor a name"),
        ({"norm": ["GROUP", {"num_groups": [[[[[1]]]]]}]}, "nested too deeply"),
        ({"filters": 8}, "unknown SegResNet argument 'filters'; did you mean 'init_filters'"),
        ({"spatial_dims": 2}, "only networks for volumes"),
        ({"init_filters": 0}, "MONAI cannot build SegResNet"),
    ],
)
def test_arguments_that_no_network_has_are_refused(arguments: dict[str, Any], message: str) -> None:
    """Only plain values of a possible size reach MONAI."""
    with pytest.raises(InputError, match=message):
        build_network("monai", 4, 3, kind="SegResNet", arguments=arguments)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (("tumour", "b", "c"), "does not say what it is"),
        (("TC", "TC", "ET"), "two channels mean the same region"),
        (("TC", "WT"), "out_channels is 3, but the metadata name 2 channels"),
    ],
)
def test_channels_without_a_meaning_are_refused(tmp_path: Path, outputs: tuple[str, ...], message: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(InputError, match=message):
        read_plan(write_bundle(tmp_path / "bundle", None, metadata(outputs)))


def test_a_bundle_without_its_weights_is_said_to_be_that(tmp_path: Path) -> None:
    """git-lfs leaves a small text file; an incomplete download leaves nothing."""
    bundle = write_bundle(tmp_path / "bundle")
    weights = bundle / "models" / "model.pt"
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match=r"model\.pt: is a pointer of git-lfs.*git lfs pull"):
        load_model(bundle, device="cpu")
    weights.unlink()
    with pytest.raises(InputError, match=r"model\.pt: no such file"):
        read_plan(bundle)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """Their names or sizes differ."""
    bundle = write_bundle(tmp_path / "bundle")
    torch.save(
        their_network("SegResNet", SEGRESNET | {"init_filters": 16}).state_dict(), bundle / "models" / "model.pt"
    )
    with pytest.raises(InputError, match="do not fit"):
        load_model(bundle, device="cpu")


def test_weights_alone_are_read_with_what_the_user_says(gliomask, tmp_path: Path) -> None:
    """The command says what is missing, and writes a file that predicts as the network does."""
    file = tmp_path / "model.pt"
    torch.save({"state_dict": their_network("SegResNet", SEGRESNET).state_dict()}, file)
    with pytest.raises(InputError, match=r"contains weights only.*--network segresnet --channels .* --regions"):
        read_plan(file)
    hints = Hints(
        channels=("t1ce", "t1", "t2", "flair"), network="segresnet", arguments=SEGRESNET, regions=("TC", "WT", "ET")
    )
    plan = read_foreign(file, hints).plan
    assert (plan.modalities, plan.regions) == (("t1c", "t1n", "t2w", "t2f"), ("TC", "WT", "ET"))
    status, said = gliomask(
        *("import", file, "-o", tmp_path / "m.safetensors", "--bits", 32, "--network", "segresnet"),
        *("--arguments", json.dumps(SEGRESNET), "--channels", "t1ce,t1,t2,flair", "--regions", "TC,WT,ET"),
        *("--patch-size", 16),
    )
    assert status == 0, said
    model = load_torch_model(tmp_path / "m.safetensors", device="cpu")
    assert model.plan.patch_size == (16, 16, 16)
    image = torch.randn(1, 4, 16, 16, 16)
    with torch.inference_mode():
        theirs, ours = their_network("SegResNet", SEGRESNET)(image), model.network(image)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=2e-5)
