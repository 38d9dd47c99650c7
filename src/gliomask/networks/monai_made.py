"""Networks that MONAI trained: any of the classes below, with the arguments that its own configuration gives it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gliomask.errors import InputError, unknown_name
from gliomask.networks.blocks import MOST_FEATURES, check_image
from gliomask.networks.monai_networks import DynUNet, MonaiNetwork, import_monai

Steps = tuple[int, int, int]

_MOST_ITEMS = 64
_DEEPEST = 4


def _halvings(count: int) -> Steps:
    return (2**count,) * 3


def _steps_of_strides(body: Any, arguments: Mapping[str, Any]) -> Steps:
    """Return the product of the strides of all levels along each axis."""
    product = [1, 1, 1]
    for stride in arguments["strides"]:
        for axis, step in enumerate([stride] * 3 if isinstance(stride, int) else stride):
            product[axis] *= step
    return product[0], product[1], product[2]


def _whole_image(body: Any, arguments: Mapping[str, Any]) -> Steps:
    """Return the size of the only image that the network takes."""
    edge = arguments["img_size"]
    x, y, z = [edge] * 3 if isinstance(edge, int) else edge
    return x, y, z


# For each class its module, and a function of the network and its arguments that returns what the edges of an image
# must be multiples of.
_KINDS: Mapping[str, tuple[str, Callable[[Any, Mapping[str, Any]], Steps]]] = {
    "DynUNet": ("dynunet", _steps_of_strides),
    "MedNeXt": ("mednext", lambda body, arguments: _halvings(4)),
    "SegResNet": ("segresnet", lambda body, arguments: _halvings(len(body.blocks_down) - 1)),
    "SegResNetDS": ("segresnet_ds", lambda body, arguments: tuple(body.shape_factor())),
    "SwinUNETR": ("swin_unetr", lambda body, arguments: _halvings(5)),
    "UNETR": ("unetr", _whole_image),
    "UNet": ("unet", _steps_of_strides),
}

# Arguments that take objects of Python, which a configuration cannot contain.
_OBJECTS = frozenset({"preprocess", "norm_layer"})


class MonaiMade(MonaiNetwork):
    """A network of MONAI with its own arguments; X, Y and Z have a divisor each."""

    def __init__(self, body: nn.Module, in_channels: int, divisors: Steps, *, one_size: bool) -> None:
        super().__init__(body, in_channels, max(divisors))
        self.divisors = divisors
        self.one_size = one_size

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:  # (B, C, X, Y, Z)
        check_image(image, self.in_channels, self.divisors)
        if self.one_size and tuple(image.shape[2:]) != self.divisors:
            raise InputError(f"the network takes images of {self.divisors} voxels only; got {tuple(image.shape[2:])}.")
        logits = self.compute(image)
        return tuple(logits) if isinstance(logits, list) else logits


class _MadeDynUNet(MonaiMade, DynUNet):
    """The same, with the forward pass of our DynUNet."""


def monai(
    in_channels: int, out_channels: int, kind: str = "SegResNet", arguments: Mapping[str, Any] | None = None
) -> MonaiMade:
    """Return a network of MONAI as MONAI itself builds it, without the changes that our trainable ones have.

    Args:
        in_channels, out_channels: The number of sequences, and of regions or classes.
        kind: The name of its class, one of `_KINDS`.
        arguments: The arguments of the class, plain values only. `spatial_dims` is 3; the number of channels is given
            by the two arguments above.

    Raises:
        InputError: MONAI is not installed, the class or an argument is unknown, or MONAI refuses their values.
    """
    if kind not in _KINDS:
        raise unknown_name("network of MONAI", str(kind), _KINDS)
    module, divisors_of = _KINDS[kind]
    made = getattr(import_monai(module), kind)
    given = _checked(kind, dict(arguments or {}), made)
    try:
        with torch.device("cpu"):  # some constructors read values of tensors, which the device "meta" has not
            body = made(in_channels=in_channels, out_channels=out_channels, **given)
        divisors = divisors_of(body, given)
    except InputError:
        raise
    except Exception as error:  # MONAI raises errors of many types for values that it cannot use
        raise InputError(f"MONAI cannot build {kind} with {given}: {' '.join(str(error).split())[:300]}.") from error
    body.to(torch.get_default_device())
    wrap = _MadeDynUNet if kind == "DynUNet" else MonaiMade
    return wrap(body, in_channels, divisors, one_size=kind == "UNETR")


def _checked(kind: str, arguments: dict[str, Any], made: Any) -> dict[str, Any]:
    """Return the arguments of a class with three spatial dimensions; refuse what is no plain value."""
    accepted = [name for name in inspect.signature(made).parameters if name not in ("in_channels", "out_channels")]
    if kind == "SwinUNETR":
        arguments.pop("img_size", None)  # before MONAI 1.5 it was wanted, and only checked
    for name, value in arguments.items():
        if name not in accepted:
            raise unknown_name(f"{kind} argument", str(name), accepted)
        if name in _OBJECTS and value is not None:
            raise InputError(f"{kind}: {name} is not supported.")
        _check_plain(f"{kind}: {name}", value)
    if arguments.setdefault("spatial_dims", 3) != 3:
        raise InputError(f"{kind}: spatial_dims is {arguments['spatial_dims']}; only networks for volumes can be used.")
    return arguments if "spatial_dims" in accepted else {n: v for n, v in arguments.items() if n != "spatial_dims"}


def _check_plain(where: str, value: Any, depth: int = 0) -> None:
    """Refuse a value that is not made of numbers and names, or is far too large for a network."""
    if isinstance(value, list | tuple | dict):
        if len(value) > _MOST_ITEMS or depth > _DEEPEST:
            raise InputError(f"{where} is too long or nested too deeply.")
        for item in [*value, *(value.values() if isinstance(value, dict) else ())]:
            _check_plain(where, item, depth + 1)
    elif isinstance(value, str):
        if not re.fullmatch(r"\w{0,40}", value):
            raise InputError(f"{where} is {value[:60]!r}, which is neither a number nor a name.")
    elif isinstance(value, int | float):
        if not abs(value) <= MOST_FEATURES:
            raise InputError(f"{where} is {value}; at most {MOST_FEATURES} is supported.")
    elif value is not None:
        raise InputError(f"{where} is neither a number nor a name.")
