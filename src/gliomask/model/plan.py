"""The plan: every setting that a model file must carry so that the model can be used years later."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from gliomask.cases import get_modality
from gliomask.errors import InputError, unknown_name
from gliomask.labels import REGIONS, TISSUES, get_convention
from gliomask.model.choices import ChannelNormalization, Normalization
from gliomask.model.sampling import Axis, Origin, Resampling, Windows

# The two directions of each anatomical axis.
_DIRECTIONS = ("LR", "AP", "IS")

# Regions that are recognised by their contrast enhancement, which only t1c shows.
_NEED_CONTRAST = ("TC", "ET")

# Fields that were added after the first version.
_ADDED = (
    *("typical", "classes", "channel_normalization", "crop", "resampling", "windows", "mirror_axes", "dice_estimates"),
    "origin",
)

_Millimetres = Annotated[float, Field(ge=0.05, le=50, allow_inf_nan=False)]
_Edge = Annotated[int, Field(ge=1, le=1024)]


class RegionRule(BaseModel):
    """How a mask is made from one region's logits; by default the voxels with a probability above one half."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """The logits are divided by it to calibrate the probabilities."""
    threshold: float = Field(default=0.5, gt=0, lt=1, allow_inf_nan=False)
    """A voxel belongs to the region if its probability is above this value."""
    least_mm3: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Components (26-connected) that are smaller become part of the surrounding region."""
    least_probability: float = Field(default=0.0, ge=0, lt=1, allow_inf_nan=False)
    """Components with a smaller mean probability become part of the surrounding region."""
    kept_mm3: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Components of at least this size are kept, however low their mean probability; None: no size is enough."""

    @model_serializer(mode="wrap")
    def _without_added(self, fields_of: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `kept_mm3` where it is None, so that versions of gliomask without it can read the rule."""
        fields: dict[str, Any] = fields_of(self)
        return fields if self.kept_mm3 is not None else {k: v for k, v in fields.items() if k != "kept_mm3"}


class Postprocessing(BaseModel):
    """The rules that turn a network's logits into masks; by default thresholds of one half and nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    regions: dict[str, RegionRule] = Field(default_factory=dict)
    """The rule of each region; regions without an entry have the default `RegionRule()`."""
    least_et_mm3: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """If all enhancing tumour together is smaller than this, it is removed: its voxels become core (NCR)."""
    tc_threshold_without_et: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)
    """The threshold of TC in a case whose mask has no ET. A network that has mostly learned the core as what lies
    within enhancement gives low probabilities to a core that does not enhance."""

    @field_validator("regions")
    @classmethod
    def _known_regions(cls, rules: dict[str, RegionRule]) -> dict[str, RegionRule]:
        _check_regions(rules)
        return rules

    def rule(self, region: str) -> RegionRule:
        """Return the rule of one region."""
        return self.regions.get(region, _DEFAULT_RULE)

    def given(self, modalities: Iterable[str]) -> Postprocessing:
        """Return the rules for an examination with these sequences.

        Without t1c, which alone shows contrast enhancement, all components of TC and ET have low probabilities, and a
        `least_probability` that was fitted with t1c would remove all of them. It is set to 0 for these regions.
        """
        if "t1c" in modalities:
            return self
        changed = {
            name: rule.model_copy(update={"least_probability": 0.0})
            for name, rule in self.regions.items()
            if name in _NEED_CONTRAST
        }
        return self.model_copy(update={"regions": self.regions | changed})


_DEFAULT_RULE = RegionRule()


class TypicalTumour(BaseModel):
    """The limits of whole tumours in a set of true masks. `predict` warns of a result beyond them.

    A piece is a 26-connected component of at least `piece_mm3`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cases: int = Field(gt=0)
    """The number of masks that the limits were measured on."""
    piece_mm3: float = Field(gt=0, allow_inf_nan=False)
    least_ml: float = Field(ge=0, allow_inf_nan=False)
    """The smallest volume of all pieces together."""
    most_pieces: int = Field(ge=1)
    least_share: float = Field(ge=0, le=1)
    """The smallest share of this volume that the largest piece has."""


class DiceEstimate(BaseModel):
    """How well the Dice of a region can be estimated from its probabilities, measured on cases that the model has not
    learned from; see `inference.quality`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cases: int = Field(gt=0)
    """The number of cases."""
    rank_correlation: float = Field(ge=-1, le=1)
    """Spearman's correlation of estimated and true Dice."""
    low: float = Field(ge=-1, le=1)
    """The lower end of the interval of true minus estimated Dice that holds for four cases of five."""
    high: float = Field(ge=-1, le=1)
    """The upper end of this interval."""
    sequences: tuple[tuple[str, ...], ...] = Field(min_length=1)
    """The sets of sequences that the cases had; with other sequences no estimate is made."""


class Plan(BaseModel):
    """A network's input and output, and how they are made from images and turned into masks.

    Raises:
        InputError: A sequence, region or convention is unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    modalities: tuple[str, ...] = Field(min_length=1)
    """The sequences in the order of the network's input channels: `t1n t1c t2w t2f`."""
    can_miss: bool = False
    """Whether the network was trained with sequences left out, so that missing ones (zeros) are allowed."""
    regions: tuple[str, ...] = Field(default=("WT", "TC", "ET"), min_length=1)
    """The regions in the order of the network's output channels, each with a sigmoid of its own, unless the network has
    `classes`."""
    classes: tuple[str, ...] = ()
    """For a network whose output channels are classes with a softmax: the tissue of each channel. The first one is the
    background, an empty string. A voxel gets the most probable class."""
    convention: str = "brats2021"
    """The label convention in which masks are written by default."""
    axes: str = "LPS"
    """The orientation of the network's input: the anatomical directions in which X, Y and Z increase."""
    spacing_mm: tuple[_Millimetres, _Millimetres, _Millimetres] = (1.0, 1.0, 1.0)
    """The voxel size of the network's input."""
    normalization: Normalization = "zscore"
    """`zscore`: zero mean and unit variance over each sequence's non-zero voxels, zero stays zero. `minmax`: linear
    from each sequence's minimum and maximum to 0 and 1."""
    channel_normalization: tuple[ChannelNormalization, ...] = ()
    """The normalization of each sequence, where it is not the same for all. In addition to those above: `zscore_brain`
    uses all voxels that are not zero in some sequence, and what they enclose, and leaves the others unchanged;
    `zscore_box` uses all voxels of the brain's bounding box; `rescale` is linear from the minimum and maximum in the
    box to 0 and 1, zero included; `none` changes nothing."""
    crop: bool = True
    """Whether the images are cropped to the bounding box of the brain."""
    resampling: Resampling | None = None
    """How images are brought to `spacing_mm`; None: linear interpolation before they are cropped and normalized, and of
    the probabilities on the way back."""
    patch_size: tuple[_Edge, _Edge, _Edge] = (128, 128, 128)
    """The size of the training patches, which is also that of the sliding window."""
    windows: Windows = Field(default_factory=Windows)
    """Where sliding windows lie and how they are weighted."""
    mirror_axes: tuple[Axis, ...] = (0, 1, 2)
    """The axes of the network's input along which it may be mirrored for test-time augmentation."""
    whole_brain: bool = False
    """Whether the network was trained on whole brains, each cropped to its bounding box, so that one pass over the box
    is how it should be used."""
    network: str = "unet"
    network_arguments: dict[str, Any] = Field(default_factory=dict)
    postprocessing: Postprocessing = Field(default_factory=Postprocessing)
    """How masks are made from the network's logits."""
    typical: TypicalTumour | None = None
    """What the whole tumours of the training data are like; None: `predict` does not compare with them."""
    dice_estimates: dict[str, DiceEstimate] = Field(default_factory=dict)
    """The regions whose Dice can be estimated without a true mask; empty: `predict` estimates none."""
    origin: Origin | None = None
    """Where the network comes from; None: gliomask trained it."""

    @field_validator("modalities")
    @classmethod
    def _standard_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        standard = tuple(get_modality(name) for name in names)
        if len(set(standard)) < len(standard):
            raise InputError(f"modalities: {', '.join(names)} name the same sequence twice.")
        return standard

    @field_validator("regions")
    @classmethod
    def _known_regions(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        _check_regions(names)
        if len(set(names)) < len(names):
            raise InputError(f"regions: {', '.join(names)} name the same region twice.")
        return names

    @field_validator("convention")
    @classmethod
    def _known_convention(cls, name: str) -> str:
        return get_convention(name).name

    @field_validator("axes")
    @classmethod
    def _anatomical_axes(cls, axes: str) -> str:
        used = [next((pair for pair in _DIRECTIONS if letter in pair), None) for letter in axes]
        if len(axes) != 3 or set(used) != set(_DIRECTIONS):
            raise InputError(
                f"axes: {axes!r} is no orientation: one letter each of L or R, A or P, I or S, such as LPS."
            )
        return axes

    @field_validator("mirror_axes")
    @classmethod
    def _different_axes(cls, axes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(axes)))

    @model_validator(mode="after")
    def _matching_channels(self) -> Plan:
        if self.channel_normalization and len(self.channel_normalization) != len(self.modalities):
            raise InputError(
                f"channel_normalization: {len(self.channel_normalization)} for {len(self.modalities)} sequences."
            )
        if self.classes:
            _check_classes(self.classes, self.regions)
        return self

    @property
    def output_channels(self) -> int:
        """The number of channels of the network's output."""
        return len(self.classes or self.regions)

    @property
    def normalizations(self) -> tuple[ChannelNormalization, ...]:
        """The normalization of each sequence."""
        return self.channel_normalization or (self.normalization,) * len(self.modalities)

    def needs_contrast(self, modalities: Iterable[str]) -> tuple[str, ...]:
        """Return the regions that cannot be predicted reliably because t1c, which the network expects, is missing."""
        if "t1c" not in self.modalities or "t1c" in modalities:
            return ()
        return tuple(region for region in self.regions if region in _NEED_CONTRAST)


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """Return the plan as plain values, ready for JSON.

    Fields that the first format did not have are left out where they have their default, so that versions of gliomask
    without them can read the plan.
    """
    unchanged = {
        name for name in _ADDED if getattr(plan, name) == Plan.model_fields[name].get_default(call_default_factory=True)
    }
    return plan.model_dump(mode="json", exclude=unchanged)


def plan_from_dict(fields: object, where: str) -> Plan:
    """Return the plan from the values that `plan_to_dict` returned.

    Args:
        fields: The values.
        where: The file they came from, for the message.

    Raises:
        InputError: A field is missing, unknown (from a newer gliomask, for example) or invalid, or the values are no
            plan at all.
    """
    try:
        return Plan.model_validate(fields)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise InputError(
            f"{where}: its plan is not valid for this version of gliomask ({wrong}). Was it written by a newer one?"
        ) from error
    except InputError as error:
        raise InputError(f"{where}: its plan is not valid for this version of gliomask: {error}") from error


def _check_regions(names: Iterable[str]) -> None:
    for name in names:
        if name not in REGIONS:
            raise unknown_name("region", name, REGIONS)


def _check_classes(classes: tuple[str, ...], regions: tuple[str, ...]) -> None:
    """Refuse classes that are unknown, do not begin with the background, or leave a region without a class."""
    if len(classes) < 2 or classes[0] or any(tissue not in TISSUES for tissue in classes[1:]):
        raise InputError(
            f"classes: {list(classes)} must be '' for the background and then any of {', '.join(TISSUES)}."
        )
    empty = [region for region in regions if not REGIONS[region] & set(classes)]
    if empty:
        raise InputError(f"classes: none of {', '.join(classes[1:])} belongs to {', '.join(empty)}.")
