"""Laws of the plan: JSON keeps it, and unknown or invalid fields are refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from gliomask.errors import InputError
from gliomask.model.plan import (
    DiceEstimate,
    Plan,
    Postprocessing,
    RegionRule,
    TypicalTumour,
    plan_from_dict,
    plan_to_dict,
)
from gliomask.model.sampling import Origin, Resampling, Spline, Windows

ADDED: dict[str, Any] = {
    "classes": ("", "WT", "RC"),
    "channel_normalization": ("zscore_brain", "rescale"),
    "crop": False,
    "resampling": Resampling(image=Spline(order=2, separate=False), native_axes=(0,)),
    "windows": Windows(sigma=None, placement="fixed"),
    "mirror_axes": (0, 2),
    "dice_estimates": {
        "WT": DiceEstimate(cases=9, rank_correlation=0.7, low=-0.2, high=0.1, sequences=(("t1c", "t2f"), ("t2f",)))
    },
    "origin": Origin(made_with="nnU-Net", license="CC BY 4.0", cite="doi:10/1"),
}
"""Fields that were added after the first version, none with its default."""


def some_plan(**changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "modalities": ("t1c", "t2f"),
        "can_miss": True,
        "regions": ("WT", "RC"),
        "convention": "brats2024",
        "axes": "RAS",
        "spacing_mm": (1.0, 0.97, 1.2),
        "normalization": "minmax",
        "patch_size": (64, 80, 96),
        "whole_brain": True,
        "network": "vnet",
        "network_arguments": {"channels": [16, 32], "norm": None},
        "postprocessing": Postprocessing(
            regions={
                "WT": RegionRule(temperature=1.2, threshold=0.4, least_mm3=50, least_probability=0.6, kept_mm3=900)
            },
            least_et_mm3=200,
        ),
        "typical": TypicalTumour(cases=7, piece_mm3=500, least_ml=7.5, most_pieces=3, least_share=0.5),
    }
    return Plan(**(fields | changes))


def test_json_keeps_a_plan() -> None:
    """Every field is the same after conversion to text and back, tuples included."""
    plan = some_plan(**ADDED)
    assert all(
        getattr(plan, name) != field.get_default() for name, field in Plan.model_fields.items() if name != "format"
    )
    assert plan_from_dict(json.loads(json.dumps(plan_to_dict(plan))), "model.safetensors") == plan


def test_a_plan_of_the_first_format_has_no_new_fields() -> None:
    """Fields that were added later are left out where they have their default, so that old versions read the file."""
    added = ADDED.keys() | {"typical"}
    plain = plan_to_dict(Plan(modalities=("t1c",)))
    assert not added & plain.keys()
    assert added <= plan_to_dict(some_plan(**ADDED)).keys()
    rules = {name: RegionRule(kept_mm3=size).model_dump() for name, size in (("old", None), ("new", 900))}
    assert "kept_mm3" not in rules["old"]
    assert rules["new"] == rules["old"] | {"kept_mm3": 900}
    assert plan_from_dict(plain, "old.safetensors") == Plan(modalities=("t1c",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("ED", "ET")}, "background"),
        ({"classes": ("", "tumour")}, "any of NCR"),
        ({"classes": ("", "ED"), "regions": ("WT", "ET")}, "belongs to ET"),
        ({"channel_normalization": ("none",)}, "1 for 2 sequences"),
    ],
)
def test_classes_and_normalizations_must_fit(changes: dict[str, Any], message: str) -> None:
    """The first class is the background, each region has a class, and each sequence has one normalization."""
    with pytest.raises(InputError, match=message):
        some_plan(**changes)


def test_a_plan_without_rules_gets_the_defaults() -> None:
    """Old model files load and keep their meaning."""
    fields = plan_to_dict(some_plan())
    del fields["postprocessing"]
    assert plan_from_dict(fields, "old.safetensors") == some_plan(postprocessing=Postprocessing())
    assert Postprocessing().rule("ET") == RegionRule(temperature=1, threshold=0.5, least_mm3=0, least_probability=0)


def test_sequences_are_stored_by_their_standard_names() -> None:
    """All spellings are accepted; the order is kept, because it is that of the channels."""
    assert some_plan(modalities=("FLAIR", "t1ce", "T2")).modalities == ("t2f", "t1c", "t2w")


def test_a_plan_is_immutable() -> None:
    """Fields cannot be assigned."""
    with pytest.raises(ValidationError, match="frozen"):
        some_plan().axes = "LPS"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modalities": ["t1", "t1n"]}, "t1, t1n name the same sequence twice"),
        ({"modalities": ["t3"]}, "unknown modality 't3'"),
        ({"modalities": []}, "modalities: "),
        ({"regions": ["WT", "NCR"]}, "unknown region 'NCR'"),
        ({"convention": "brats2020"}, "unknown label convention 'brats2020'"),
        ({"normalization": "robust"}, "normalization: "),
        ({"format": 2}, "format: "),
        ({"spacing_mm": [1, 1]}, "spacing_mm.2: "),
        ({"spacing_mm": [1, 1, "fine"]}, "spacing_mm.2: "),
        ({"spacing_mm": [1, 1, 0]}, "spacing_mm.2: "),
        ({"spacing_mm": [1, 1e-9, 1]}, "spacing_mm.1: "),
        ({"spacing_mm": [1e9, 1, 1]}, "spacing_mm.0: "),
        ({"spacing_mm": [1, 1, math.nan]}, "spacing_mm.2: "),
        ({"spacing_mm": [1, 1, math.inf]}, "spacing_mm.2: "),
        ({"patch_size": [0, 64, 64]}, "patch_size.0: "),
        ({"patch_size": [64, -1, 64]}, "patch_size.1: "),
        ({"patch_size": [64, 64, 10**9]}, "patch_size.2: "),
        ({"axes": "XYZ"}, "axes: 'XYZ'"),
        ({"axes": "lps"}, "axes: 'lps'"),
        ({"axes": "LLS"}, "axes: 'LLS'"),
        ({"axes": "LPSR"}, "axes: 'LPSR'"),
        ({"axes": ""}, "axes: ''"),
        ({"regions": ["WT", "TC", "WT"]}, "WT, TC, WT name the same region twice"),
        ({"regions": []}, "regions: "),
        ({"patch_size": [64, 64, 64.5]}, "patch_size.2: "),
        ({"deep_supervision": True}, "deep_supervision: "),
        ({"postprocessing": {"regions": {"ED": {}}}}, "unknown region 'ED'"),
        ({"postprocessing": {"regions": {"ET": {"threshold": 1.5}}}}, "postprocessing.regions.ET.threshold: "),
        ({"postprocessing": {"regions": {"ET": {"threshold": math.nan}}}}, "postprocessing.regions.ET.threshold: "),
        ({"postprocessing": {"regions": {"ET": {"least_probability": math.nan}}}}, "least_probability: "),
        ({"postprocessing": {"tc_threshold_without_et": math.nan}}, "tc_threshold_without_et: "),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    """The message names the file and the field; the plan may be from a newer version or edited by hand."""
    fields = json.loads(json.dumps(plan_to_dict(some_plan()))) | changes
    with pytest.raises(InputError) as caught:
        plan_from_dict(fields, "model.safetensors")
    assert str(caught.value).startswith("model.safetensors: its plan is not valid for this version of gliomask")
    assert message in str(caught.value)


@pytest.mark.parametrize("fields", [None, [], "plan", 7, {}, {"axes": "LPS"}])
def test_values_that_are_no_plan_are_refused(fields: object) -> None:
    """They may come from a file of another program."""
    with pytest.raises(InputError, match=r"^model\.safetensors: its plan is not valid"):
        plan_from_dict(fields, "model.safetensors")


@pytest.mark.parametrize("axes", ["LPS", "RAS", "PIR", "SAL", "ILA"])
def test_every_orientation_is_accepted(axes: str) -> None:
    """One direction of each anatomical axis, in any order."""
    assert some_plan(axes=axes).axes == axes


def test_regions_need_contrast_only_if_the_network_expects_it() -> None:
    """TC and ET cannot be judged where t1c is missing; a network without t1c was trained to do without it."""
    plan = some_plan(modalities=("t1c", "t2f"), regions=("WT", "TC", "ET"))
    assert plan.needs_contrast(("t2f",)) == ("TC", "ET")
    assert plan.needs_contrast(("t1c", "t2f")) == ()
    assert some_plan(modalities=("t2f",), regions=("WT", "ET")).needs_contrast(("t2f",)) == ()
    assert some_plan(regions=("WT", "RC")).needs_contrast(("t2f",)) == ()
