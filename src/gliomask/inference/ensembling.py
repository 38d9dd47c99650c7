"""Several models -> one model whose answer is the mean of theirs, in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gliomask.errors import InputError
from gliomask.inference.loading import Model, load_torch_model, new_model
from gliomask.model.plan import Plan
from gliomask.networks.ensemble import Member

# What the models must agree on: the images that they take, and what their logits mean.
_ALIKE = ("modalities", "can_miss", "regions", "convention", "axes", "spacing_mm", "normalization")


def join_models(paths: Sequence[Path | str]) -> Model:
    """Return a model whose network is the `Ensemble` of those in some files; one that is an ensemble gives its members.

    The first one's plan names the rest, post-processing among it, which is best fitted anew; the model takes whole
    brains in one pass where all do. It can be saved, exported, trained on and predicts in either engine, as any other.

    Raises:
        InputError: There are fewer than two, one cannot be loaded, or they differ in the images that they take or the
            regions that they find.
    """
    models = [load_torch_model(path) for path in paths]
    if len(models) < 2:
        raise InputError("joining takes two models or more.")
    plan = models[0].plan
    for model in models[1:]:
        for name in _ALIKE:
            if getattr(model.plan, name) != getattr(plan, name):
                raise InputError(
                    f"{model.name}: {name} is {getattr(model.plan, name)}, in {models[0].name} {getattr(plan, name)}. "
                    "Only models of the same images and regions can be joined."
                )
    members: list[Member] = []
    weights: dict[str, Any] = {}
    for model in models:
        own = model.network.state_dict()
        for place, member in enumerate(_members(model.plan)):
            before = f"members.{place}." if model.plan.network == "ensemble" else ""
            after = f"members.{len(members)}."
            weights |= {after + name[len(before) :]: value for name, value in own.items() if name.startswith(before)}
            members.append(member)
    joined = plan.model_copy(
        update={
            "network": "ensemble",
            "network_arguments": {"members": [[name, dict(arguments)] for name, arguments in members]},
            "whole_brain": all(model.plan.whole_brain for model in models),
        }
    )
    model = new_model(joined, name=" + ".join(model.name for model in models))
    model.network.load_state_dict(weights)
    model.network.eval()
    return model


def _members(plan: Plan) -> list[Member]:
    if plan.network == "ensemble":
        return [(name, arguments) for name, arguments in plan.network_arguments["members"]]
    return [(plan.network, plan.network_arguments)]
