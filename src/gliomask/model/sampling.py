"""How a network's images are resampled and cut into windows; parts of the plan."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Axis = Annotated[int, Field(ge=0, le=2)]

Order = Literal[0, 1, 2, 3, 4, 5]


class Spline(BaseModel):
    """Interpolation by a spline: 0 takes the nearest voxel, 1 is linear, 3 is cubic."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: Order = 3
    thick_order: Order = 0
    """The order along the axis of thick slices, if that axis is resampled separately."""
    separate: bool | None = None
    """Whether the axis of thick slices is resampled separately, after each slice. None: if the voxels before or after
    are more than three times as long along one axis as along the shortest."""


class Resampling(BaseModel):
    """Resampling by splines, after the images were cropped to the brain and normalized.

    The logits are resampled back before they become probabilities.

    Source: nnU-Net, `resample_data_or_seg_to_shape`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: Spline = Field(default_factory=Spline)
    output: Spline = Field(default_factory=lambda: Spline(order=1))
    """For the logits."""
    native_axes: tuple[Axis, ...] = ()
    """The axes along which the images keep their own voxel size, as the slices of a 2-D network do."""


class Windows(BaseModel):
    """Where sliding windows lie and how their logits are weighted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    overlap: float = Field(default=0.5, ge=0, lt=1)
    """The part of a window's edge by which neighbours overlap at least."""
    placement: Literal["even", "fixed"] = "even"
    """`even`: all windows are equally far apart, to the nearest voxel. `fixed`: only the last window of an axis is
    nearer to the one before it than the overlap asks for."""
    sigma: float | None = Field(default=1 / 8, gt=0, allow_inf_nan=False)
    """The Gaussian that weights the voxels of a window, in parts of its edge; None gives all voxels the same weight."""
    centre: Literal["middle", "voxel"] = "middle"
    """`middle`: the largest weight is in the middle of the window. `voxel`: it is that of voxel `edge // 2`."""
    least_weight: float = Field(default=1e-4, gt=0, le=1)
    """Smaller weights are raised to it, because some voxels lie in the corner of one window only."""
    mirror_windows: bool = False
    """Mirror each window for test-time augmentation, instead of the whole volume before it is cut into windows."""


class Origin(BaseModel):
    """Where a network comes from that was not trained by gliomask, or not by it alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    made_with: str = Field(max_length=500)
    """The program that trained it, and the names under which it was trained."""
    license: str = Field(default="", max_length=500)
    """The terms under which it may be used; empty if not known."""
    cite: str = Field(default="", max_length=2000)
    """What to cite in a publication; may be empty."""
