"""Networks by name: `build_network("unet", in_channels=4, out_channels=3)`.

The table of networks can be read without torch, which is imported only when a network is built.
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
    "monai": "gliomask.networks.monai_made:monai",
    "plain_conv_unet": "gliomask.networks.staged_unet:PlainConvUNet",
    "residual_encoder_unet": "gliomask.networks.staged_unet:ResidualEncoderUNet",
    "segnet": "gliomask.networks.segnet:SegNet",
    "segresnet": "gliomask.networks.monai_networks:segresnet",
    "swin_unetr": "gliomask.networks.monai_networks:swin_unetr",
    "unet": "gliomask.networks.unet:UNet",
    "vnet": "gliomask.networks.vnet:VNet",
}
"""Each network's name and where its class or function is defined, `module:name`.

To add a network, add one file and one entry here.
"""


def build_network(name: str, in_channels: int, out_channels: int, **arguments: object) -> nn.Module:
    """Return a freshly initialised network; the same `torch.manual_seed` gives the same weights.

    The network's `forward` maps images `(B, in_channels, X, Y, Z)` to logits `(B, out_channels, X, Y, Z)`. In training
    mode some networks return a tuple of logits for deep supervision, the full grid first and then coarser grids. X, Y
    and Z must be multiples of the network's attribute `divisor`; the caller pads the images. All networks run under
    bfloat16 autocast and keep the memory format `torch.channels_last_3d`, which is faster on a CPU.

    Args:
        name: A key of `NETWORKS`.
        in_channels, out_channels: The number of sequences and of regions, at least 1 each.
        arguments: Optional arguments of the network's class, such as `channels` (the features of each level, from the
            finest to the coarsest), `norm` ("instance", "batch" or None) and `dropout`.

    Raises:
        InputError: The network, an argument or its value is unknown; the message lists what is known.
    """
    if name not in NETWORKS:
        raise unknown_name("network", name, NETWORKS)
    module, _, cls = NETWORKS[name].partition(":")
    build = getattr(import_module(module), cls)
    accepted = [key for key in inspect.signature(build).parameters if key not in ("in_channels", "out_channels")]
    unknown = [str(unknown_name(f"{name} argument", key, accepted)) for key in arguments if key not in accepted]
    if unknown:
        raise InputError("; ".join(unknown))
    network: nn.Module = build(in_channels, out_channels, **arguments)
    return network
