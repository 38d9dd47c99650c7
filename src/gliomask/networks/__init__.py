"""Networks by name: `build_network("unet", in_channels=4, out_channels=3)`.

The table can be read without torch, which is imported when a network is built.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING

from gliomask.errors import InputError, unknown_name

if TYPE_CHECKING:
    from torch import nn

NETWORKS = {
    "attention_unet": "gliomask.networks.attention_unet:AttentionUNet",
    "dynunet": "gliomask.networks.monai_networks:dynunet",
    "ensemble": "gliomask.networks.ensemble:Ensemble",
    "fast": "gliomask.networks.fast:Fast",
    "fast_large": "gliomask.networks.fast:fast_large",
    "fast_sides": "gliomask.networks.fast:fast_sides",
    "fcn": "gliomask.networks.fcn:FCN",
    "mednext": "gliomask.networks.monai_networks:mednext",
    "segnet": "gliomask.networks.segnet:SegNet",
    "segresnet": "gliomask.networks.monai_networks:segresnet",
    "swin_unetr": "gliomask.networks.monai_networks:swin_unetr",
    "unet": "gliomask.networks.unet:UNet",
    "vnet": "gliomask.networks.vnet:VNet",
}
"""Where each network's class is found, `module:class`. A new network is one file and one entry here."""


def build_network(name: str, in_channels: int, out_channels: int, **arguments: object) -> nn.Module:
    """Return a freshly initialised network, the same one for the same `torch.manual_seed`.

    Its `forward` takes images `(B, in_channels, X, Y, Z)` to logits `(B, out_channels, X, Y, Z)`; in training some
    return several, for deep supervision: the full grid first, then coarser ones. X, Y and Z must be multiples of its
    attribute `divisor`; who calls it pads. It works under bfloat16 autocast and keeps `torch.channels_last_3d`, the
    faster layout on a CPU.

    Args:
        name: A key of `NETWORKS`.
        in_channels, out_channels: Sequences in, regions out; at least 1 each.
        arguments: Those of the network's class, all optional: `channels`, the features of each level from the finest
            to the coarsest; `norm`, "instance", "batch" or None; `dropout` where the paper has it.

    Raises:
        InputError: The name, an argument or its value is not known; the message says what is.
    """
    if name not in NETWORKS:
        raise unknown_name("network", name, NETWORKS)
    module, _, cls = NETWORKS[name].partition(":")
    build = getattr(import_module(module), cls)
    accepted = [key for key in inspect.signature(build).parameters if key not in ("in_channels", "out_channels")]
    unknown = [str(unknown_name(f"{name} argument", key, accepted)) for key in arguments if key not in accepted]
    if unknown:
        raise InputError("\n".join(unknown))
    network: nn.Module = build(in_channels, out_channels, **arguments)
    return network
