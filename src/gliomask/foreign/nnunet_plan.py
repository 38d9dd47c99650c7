"""The configuration in nnU-Net's `plans.json`, translated to the fields of our plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gliomask.errors import InputError
from gliomask.model.choices import ChannelNormalization
from gliomask.model.sampling import Resampling, Spline

_NETWORKS = {
    "PlainConvUNet": ("plain_conv_unet", "convs", "n_conv_per_stage"),
    "ResidualEncoderUNet": ("residual_encoder_unet", "blocks", "n_blocks_per_stage"),
}
_RESAMPLING = "resample_data_or_seg_to_shape"
# Readers that keep the voxels as they are stored, and readers that turn them to RAS first.
_STORED, _TURNED = ("SimpleITKIO", "NibabelIO"), ("NibabelIOWithReorient", "SimpleITKIOWithReorient")


@dataclass(frozen=True)
class Configuration:
    """A configuration, with three axes in the order of the network's."""

    name: str
    network: str
    network_arguments: dict[str, Any]
    normalization: tuple[ChannelNormalization, ...]
    resampling: Resampling
    spacing_mm: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    transpose: tuple[int, int, int]
    turned: bool
    """Whether nnU-Net turns images to RAS; else it takes them as they are stored."""
    flat: int
    """1 for a 2-D network, whose windows are single slices across the first axis, else 0."""

    def axes(self, stored: str) -> str:
        """Return the orientation of the network's input, if the images it was trained on were stored in one."""
        seen = "RAS" if self.turned else stored
        return "".join(seen[2 - axis] for axis in self.transpose)  # its arrays have the axes z, y, x


def read_configuration(plans: Mapping[str, Any], name: str, where: str) -> Configuration:
    """Return a configuration of the plans, in their old or new form.

    Args:
        plans: The content of `plans.json`.
        name: The configuration; if there is only one, any name will do.
        where: The file, for messages.

    Raises:
        InputError: There is no such configuration, or it uses something that is not supported.
    """
    configurations = plans.get("configurations")
    if not isinstance(configurations, Mapping) or not configurations:
        raise InputError(f"{where}: has no configurations. Is it of nnU-Net v2?")
    if name not in configurations and len(configurations) == 1:
        name = next(iter(configurations))
    found = _inherited(configurations, name, where)
    if found.get("previous_stage") or "cascade" in name:
        raise InputError(
            f"{where}: {name} is the second stage of a cascade, which is not supported. Use 3d_fullres or 3d_lowres."
        )
    try:
        return _translated(plans, found, name, where)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise InputError(f"{where}: {name} is not a configuration of nnU-Net v2 ({what}).") from error


def _inherited(configurations: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """Return a configuration with what it inherits from others."""
    chain: list[Mapping[str, Any]] = []
    wanted: object = name
    while wanted is not None:
        found = configurations.get(wanted) if isinstance(wanted, str) else None
        if not isinstance(found, Mapping) or len(chain) > len(configurations):
            raise InputError(f"{where}: has no configuration {wanted!r} (there: {', '.join(configurations)}).")
        chain.append(found)
        wanted = found.get("inherits_from")
    merged: dict[str, Any] = {}
    for part in reversed(chain):
        merged |= part
    return merged


def _translated(plans: Mapping[str, Any], found: Mapping[str, Any], name: str, where: str) -> Configuration:
    flat = int(len(found["patch_size"]) == 2)
    network, arguments = _network(found, flat, where)
    reader = str(plans.get("image_reader_writer", "SimpleITKIO"))
    if reader not in (*_STORED, *_TURNED):
        raise InputError(f"{where}: its images are read by {reader}, which is not supported.")
    spacing = [float(mm) for mm in found["spacing"]]
    median = plans.get("original_median_spacing_after_transp", [1.0, 1.0, 1.0])
    z, y, x = (*([float(median[0])] if flat else []), *spacing)
    first, second, third = (*([1] if flat else []), *map(int, found["patch_size"]))
    a, b, c = map(int, plans.get("transpose_forward", (0, 1, 2)))
    if sorted((a, b, c)) != [0, 1, 2]:
        raise InputError(f"{where}: transpose_forward must order three axes; got {[a, b, c]}.")
    return Configuration(
        name=name,
        network=network,
        network_arguments=arguments,
        normalization=_normalization(found, where),
        resampling=Resampling(
            image=_spline(found, "resampling_fn_data", 3, where),
            output=_spline(found, "resampling_fn_probabilities", 1, where),
            native_axes=(0,) if flat else (),
        ),
        spacing_mm=(z, y, x),
        patch_size=(first, second, third),
        transpose=(a, b, c),
        turned=reader in _TURNED,
        flat=flat,
    )


def _normalization(found: Mapping[str, Any], where: str) -> tuple[ChannelNormalization, ...]:
    by_scheme: dict[tuple[str, bool], ChannelNormalization] = {
        ("ZScoreNormalization", True): "zscore_brain",
        ("ZScoreNormalization", False): "zscore_box",
        ("RescaleTo01Normalization", False): "rescale",
        ("NoNormalization", False): "none",
    }
    rules = []
    for scheme, masked in zip(found["normalization_schemes"], found["use_mask_for_norm"], strict=True):
        rule = by_scheme.get((scheme, bool(masked) and scheme == "ZScoreNormalization"))
        if rule is None:
            raise InputError(f"{where}: the normalization {scheme} is not supported (it is not made for MRI).")
        rules.append(rule)
    return tuple(rules)


def _spline(found: Mapping[str, Any], function: str, order: int, where: str) -> Spline:
    name, arguments = found.get(function, _RESAMPLING), dict(found.get(f"{function}_kwargs", {}))
    if name != _RESAMPLING:
        raise InputError(f"{where}: {function} is {name}, which is not supported (only {_RESAMPLING}).")
    return Spline(
        order=arguments.get("order", order),
        thick_order=arguments.get("order_z", 0),
        separate=arguments.get("force_separate_z"),
    )


def _network(found: Mapping[str, Any], flat: int, where: str) -> tuple[str, dict[str, Any]]:
    architecture = found["architecture"] if "architecture" in found else _old_architecture(found)
    given = architecture["arch_kwargs"]
    kind = str(architecture["network_class_name"]).rpartition(".")[2]
    if kind not in _NETWORKS:
        raise InputError(f"{where}: the network {kind} is not supported (only {', '.join(_NETWORKS)}).")
    network, count, theirs = _NETWORKS[kind]
    levels = int(given["n_stages"])
    norm = _norm(given, where)
    features = given["features_per_stage"]
    return network, {
        "channels": [features] * levels if isinstance(features, int) else list(features),
        "kernels": _axes(given["kernel_sizes"], levels, flat),
        "strides": _axes(given["strides"], levels, flat),
        count: given[theirs],
        "decoder_convs": given["n_conv_per_stage_decoder"],
        "norm": norm,
    }


def _norm(given: Mapping[str, Any], where: str) -> str | None:
    """Return the norm; refuse layers that our networks do not have."""
    norm = None if given.get("norm_op") is None else str(given["norm_op"]).rpartition(".")[2]
    names: dict[str | None, str | None] = {
        None: None,
        **{f"InstanceNorm{n}d": "instance" for n in (2, 3)},
        **{f"BatchNorm{n}d": "batch" for n in (2, 3)},
    }
    nonlinearity = str(given.get("nonlin")).rpartition(".")[2]
    norm_arguments, slope = (
        dict(given.get("norm_op_kwargs") or {}),
        (given.get("nonlin_kwargs") or {}).get("negative_slope"),
    )
    unsupported = [
        *([f"norm {norm}"] if norm not in names else []),
        *(["a norm with another eps"] if norm_arguments.get("eps", 1e-5) != 1e-5 else []),
        *(["a norm without scale and shift"] if norm and not norm_arguments.get("affine", norm != "instance") else []),
        *([f"nonlinearity {nonlinearity}"] if nonlinearity != "LeakyReLU" else []),
        *([f"a slope of {slope}"] if slope not in (None, 0.01) else []),
        *(
            f"{name} {given[name]}"
            for name in ("nonlin_first", "block", "bottleneck_channels", "stem_channels")
            if given.get(name)
        ),
        *(["convolutions without bias"] if not given.get("conv_bias", False) else []),
    ]
    if unsupported:
        raise InputError(f"{where}: the network has what is not supported: {', '.join(unsupported)}.")
    return names[norm]


def _axes(given: Any, levels: int, flat: int) -> list[list[int]]:
    """Return three numbers for each level; a 2-D network has 1 for the first axis."""
    by_level = [given] * levels if isinstance(given, int) else list(given)
    dims = 3 - flat
    return [
        [1] * flat + ([step] * dims if isinstance(step, int) else [int(edge) for edge in step]) for step in by_level
    ]


def _old_architecture(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the architecture that plans of nnU-Net before 2.4 describe."""
    counts = found["n_conv_per_stage_encoder"]
    kind = found["UNet_class_name"]
    features = [
        min(int(found["UNet_base_num_features"]) * 2**level, int(found["unet_max_num_features"]))
        for level in range(len(counts))
    ]
    return {
        "network_class_name": kind,
        "arch_kwargs": {
            "n_stages": len(counts),
            "features_per_stage": features,
            "kernel_sizes": found["conv_kernel_sizes"],
            "strides": found["pool_op_kernel_sizes"],
            _NETWORKS[kind][2] if kind in _NETWORKS else "n_conv_per_stage": counts,
            "n_conv_per_stage_decoder": found["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": "InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "LeakyReLU",
        },
    }
