"""Small models as nnU-Net v2 writes them, with random weights, for the tests of `foreign`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gliomask.networks import build_network

REGIONS = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}
CLASSES = {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3}
CHANNELS = ("T1", "T1ce", "T2", "Flair")
STRIDES = [[1, 1, 1], [2, 2, 2], [1, 2, 2]]


def write_model(
    folder: Path,
    *,
    folds: Sequence[int | str] = (0,),
    residual: bool = False,
    labels: Mapping[str, Any] = REGIONS,
    channels: Sequence[str] = CHANNELS,
    dataset: Mapping[str, Any] | None = None,
    plans: Mapping[str, Any] | None = None,
    configuration: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model's folder and return it.

    Args:
        folder: Where its folder is made.
        folds: The folds, each with other weights.
        residual: Whether it is a ResidualEncoderUNet.
        labels, channels: Those of `dataset.json`.
        dataset, plans, configuration: What else these files contain; it replaces what they would contain.
        more: What else the checkpoints contain.
    """
    model = folder / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    model.mkdir(parents=True, exist_ok=True)
    described = {
        "channel_names": {str(n): name for n, name in enumerate(channels)},
        "labels": labels,
        **({"regions_class_order": [1, 2, 3]} if labels == REGIONS else {}),
        "file_ending": ".nii.gz",
    }
    (model / "dataset.json").write_text(json.dumps({**described, **(dataset or {})}))
    known = {**a_configuration(len(channels), residual=residual), **(configuration or {})}
    written = {
        "dataset_name": "Dataset137_Test",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "transpose_forward": [0, 1, 2],
        "configurations": {"3d_fullres": known},
    }
    (model / "plans.json").write_text(json.dumps({**written, **(plans or {})}))
    outputs = 3 if labels == REGIONS else len(labels)
    for number, fold in enumerate(folds):
        checkpoint = {
            "network_weights": weights(len(channels), outputs, residual=residual, seed=number),
            "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01}]},
            "logging": {"mean_fg_dice": [np.float32(0.5), np.float64(0.25)]},
            "_best_ema": np.float32(0.5),
            "init_args": {"configuration": "3d_fullres", "fold": fold},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": (0, 1, 2),
            **(more or {}),
        }
        (model / f"fold_{fold}").mkdir(exist_ok=True)
        torch.save(checkpoint, model / f"fold_{fold}" / "checkpoint_final.pth")
    return model


def network(channels: int = 4, outputs: int = 3, *, residual: bool = False, seed: int = 0) -> Any:
    """Return the network of these models, with random weights that give uneven logits."""
    torch.manual_seed(seed)
    kind, counts = ("residual_encoder_unet", {"blocks": [1, 2, 1]}) if residual else ("plain_conv_unet", {})
    return build_network(kind, channels, outputs, channels=[4, 6, 8], strides=STRIDES, **counts)


def weights(channels: int, outputs: int, *, residual: bool, seed: int) -> dict[str, Any]:
    """Return the weights with all the names that nnU-Net stores them under."""
    found = network(channels, outputs, residual=residual, seed=seed).state_dict()
    twice = {
        name.replace(".conv.", ".all_modules.0.").replace(".norm.", ".all_modules.1."): value
        for name, value in found.items()
        if ".conv." in name or ".norm." in name
    }
    both = {**found, **twice}
    return both | {f"decoder.{name}": value for name, value in both.items() if name.startswith("encoder.")}


def a_configuration(channels: int, *, residual: bool = False) -> dict[str, Any]:
    """Return a configuration in the form of nnU-Net 2.4 and later."""
    counts = {"n_blocks_per_stage": [1, 2, 1]} if residual else {"n_conv_per_stage": [2, 2, 2]}
    return {
        "patch_size": [16, 16, 16],
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [True] * channels,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet."
            + ("ResidualEncoderUNet" if residual else "PlainConvUNet"),
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": [4, 6, 8],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3]] * 3,
                "strides": STRIDES,
                **counts,
                "n_conv_per_stage_decoder": [1, 1] if residual else [2, 2],
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }


def an_old_configuration(channels: int) -> dict[str, Any]:
    """Return a configuration in the form of nnU-Net 2.0 to 2.3, with powers of two as features."""
    known = a_configuration(channels)
    del known["architecture"]
    return known | {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
        "conv_kernel_sizes": [[3, 3, 3]] * 3,
        "pool_op_kernel_sizes": STRIDES,
    }
