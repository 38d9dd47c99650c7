"""The plan: goes into JSON and comes back the same, and refuses what it does not know."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from gliomask.errors import InputError
from gliomask.model.plan import Plan, Postprocessing, RegionRule, plan_from_dict, plan_to_dict


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
            regions={"WT": RegionRule(temperature=1.2, threshold=0.4, least_mm3=50, least_probability=0.6)},
            least_et_mm3=200,
        ),
    }
    return Plan(**(fields | changes))


def test_a_plan_comes_back_from_json_as_it_went() -> None:
    """Every field, through text; tuples are tuples again."""
    plan = some_plan()
    assert all(
        getattr(plan, name) != field.get_default() for name, field in Plan.model_fields.items() if name != "format"
    )
    assert plan_from_dict(json.loads(json.dumps(plan_to_dict(plan))), "model.safetensors") == plan


def test_a_plan_from_before_rules_has_none() -> None:
    """Old model files go on to load, and mean what they meant."""
    fields = plan_to_dict(some_plan())
    del fields["postprocessing"]
    assert plan_from_dict(fields, "old.safetensors") == some_plan(postprocessing=Postprocessing())
    assert Postprocessing().rule("ET") == RegionRule(temperature=1, threshold=0.5, least_mm3=0, least_probability=0)


def test_sequences_are_kept_by_their_inside_names() -> None:
    """In any spelling, in the order given: it is the order of the channels."""
    assert some_plan(modalities=("FLAIR", "t1ce", "T2")).modalities == ("t2f", "t1c", "t2w")


def test_a_plan_does_not_change() -> None:
    """Who holds it can rely on it."""
    with pytest.raises(ValidationError, match="frozen"):
        some_plan().axes = "LPS"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modalities": ["t1", "t1n"]}, "t1, t1n name one sequence twice"),
        ({"modalities": ["t3"]}, "unknown modality 't3'"),
        ({"modalities": []}, "modalities: "),
        ({"regions": ["WT", "NCR"]}, "unknown region 'NCR'"),
        ({"convention": "brats2020"}, "unknown label convention 'brats2020'"),
        ({"normalization": "robust"}, "normalization: "),
        ({"format": 2}, "format: "),
        ({"spacing_mm": [1, 1]}, "spacing_mm.2: "),
        ({"spacing_mm": [1, 1, "fine"]}, "spacing_mm.2: "),
        ({"patch_size": [64, 64, 64.5]}, "patch_size.2: "),
        ({"deep_supervision": True}, "deep_supervision: "),
        ({"postprocessing": {"regions": {"ED": {}}}}, "unknown region 'ED'"),
        ({"postprocessing": {"regions": {"ET": {"threshold": 1.5}}}}, "postprocessing.regions.ET.threshold: "),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    """With the file and the field: a newer gliomask's, or one edited by hand."""
    fields = json.loads(json.dumps(plan_to_dict(some_plan()))) | changes
    with pytest.raises(InputError) as caught:
        plan_from_dict(fields, "model.safetensors")
    assert str(caught.value).startswith("model.safetensors: its plan does not fit this gliomask")
    assert message in str(caught.value)


@pytest.mark.parametrize("fields", [None, [], "plan", {}, {"axes": "LPS"}])
def test_what_is_no_plan_is_refused(fields: object) -> None:
    """A file of another program, say."""
    with pytest.raises(InputError, match=r"^model\.safetensors: its plan does not fit"):
        plan_from_dict(fields, "model.safetensors")
