"""The plan: every choice that a model file must carry to be used years later."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gliomask.cases import get_modality
from gliomask.errors import InputError, unknown_name
from gliomask.labels import REGIONS, get_convention
from gliomask.model.choices import Normalization


class RegionRule(BaseModel):
    """How one region's logits become a mask; as it stands, by a probability above one half."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Logits are divided by it, so that probabilities are shares of what is true."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """A voxel belongs to the region from above this probability."""
    least_mm3: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Smaller pieces (26-connected) fall to the region around."""
    least_probability: float = Field(default=0.0, ge=0, lt=1)
    """Pieces of a smaller mean probability fall to the region around."""


class Postprocessing(BaseModel):
    """What is done to a network's answer; as it stands, nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    regions: dict[str, RegionRule] = Field(default_factory=dict)
    """By region; one that is not named has `RegionRule()`."""
    least_et_mm3: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Enhancing tumour of less than this, all pieces together, is taken for none: its voxels stay core (NCR)."""
    tc_threshold_without_et: float | None = Field(default=None, gt=0, lt=1)
    """The threshold of TC in a case of which no ET is left: a network that has learned the core chiefly as what lies
    within enhancement is unsure of one that does not enhance."""

    @field_validator("regions")
    @classmethod
    def _known_regions(cls, rules: dict[str, RegionRule]) -> dict[str, RegionRule]:
        _check_regions(rules)
        return rules

    def rule(self, region: str) -> RegionRule:
        """Return what is done to one region."""
        return self.regions.get(region, _NO_RULE)

    def given(self, modalities: Iterable[str]) -> Postprocessing:
        """Return the rules for an examination with these sequences.

        Contrast is seen in t1c alone. Without it every piece of TC and ET is a doubtful one, and a least probability
        that was fitted with it would leave none: then no piece goes for that.
        """
        if "t1c" in modalities:
            return self
        inner = {name: rule for name, rule in self.regions.items() if name in ("TC", "ET")}
        kept = {name: rule.model_copy(update={"least_probability": 0.0}) for name, rule in inner.items()}
        return self.model_copy(update={"regions": self.regions | kept})


_NO_RULE = RegionRule()


class Plan(BaseModel):
    """What goes into the network, what comes out, and how the one and the other are made.

    Raises:
        InputError: A sequence, region or convention is unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    modalities: tuple[str, ...] = Field(min_length=1)
    """The network's input channels, in order; inside names."""
    can_miss: bool = False
    """Trained with sequences left out, so that an absent one (zeros) is something it knows."""
    regions: tuple[str, ...] = ("WT", "TC", "ET")
    """The network's output channels, in order; a sigmoid each."""
    convention: str = "brats2021"
    """The label convention in which answers are written unless another is asked for."""
    axes: str = "LPS"
    """The orientation the network sees."""
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """The voxel size the network sees."""
    normalization: Normalization = "zscore"
    """`zscore`: over each sequence's non-zero voxels, zero stays zero; `minmax`: the least to the most -> 0 to 1."""
    patch_size: tuple[int, int, int] = (128, 128, 128)
    """The size of the patches it was trained on, and of the sliding window."""
    whole_brain: bool = False
    """Trained on whole brains, each in its own box, so that one pass over the box is what it knows."""
    network: str = "unet"
    network_arguments: dict[str, Any] = Field(default_factory=dict)
    postprocessing: Postprocessing = Field(default_factory=Postprocessing)
    """How probabilities become masks."""

    @field_validator("modalities")
    @classmethod
    def _inside_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        inside = tuple(get_modality(name) for name in names)
        if len(set(inside)) < len(inside):
            raise InputError(f"modalities: {', '.join(names)} name one sequence twice.")
        return inside

    @field_validator("regions")
    @classmethod
    def _known_regions(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        _check_regions(names)
        return names

    @field_validator("convention")
    @classmethod
    def _known_convention(cls, name: str) -> str:
        return get_convention(name).name


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """Return the plan as plain values, ready for JSON."""
    return plan.model_dump(mode="json")


def plan_from_dict(fields: object, where: str) -> Plan:
    """Return the plan that `plan_to_dict` described.

    Args:
        fields: The values.
        where: The file they came from, for the message.

    Raises:
        InputError: Something is missing, unknown (a newer gliomask's, say), or not a plan at all.
    """
    try:
        return Plan.model_validate(fields)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise InputError(f"{where}: its plan does not fit this gliomask ({wrong}). Update it?") from error
    except InputError as error:
        raise InputError(f"{where}: its plan does not fit this gliomask: {error}") from error


def _check_regions(names: Iterable[str]) -> None:
    for name in names:
        if name not in REGIONS:
            raise unknown_name("region", name, REGIONS)
