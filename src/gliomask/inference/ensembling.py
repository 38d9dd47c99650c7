"""Several models joined into one model file whose network is their ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gliomask.errors import InputError
from gliomask.inference.averaging import common_origin
from gliomask.inference.loading import Model, load_torch_model, new_model
from gliomask.model.plan import Plan
from gliomask.networks.ensemble import Member

# The fields of the plans that must be equal: what describes the images and the meaning of the logits.
_EQUAL_FIELDS = (
    *("modalities", "can_miss", "regions", "classes", "convention", "axes", "spacing_mm", "normalization"),
    *("channel_normalization", "crop", "resampling"),
)


def join_models(paths: Sequence[Path | str]) -> Model:
    """Return a model whose network is the `Ensemble` of the networks in several model files.

    A file that holds an ensemble contributes its members. The origin in the plan is that of all models, and its other
    fields are those of the first one, including its post-processing rules, which should be fitted again. The joined
    model gets whole brains in one pass if all models do. It can be saved, exported, trained and used for prediction in
    both engines like any other model.

    Raises:
        InputError: There are fewer than two models, one cannot be loaded, or they differ in the images they need or the
            regions they predict.
    """
    models = [load_torch_model(path) for path in paths]
    if len(models) < 2:
        raise InputError("joining needs two models or more.")
    _check_compatible(models)
    members: list[Member] = []
    weights: dict[str, Any] = {}
    for model in models:
        own = model.network.state_dict()
        for number, member in enumerate(_members(model.plan)):
            old = f"members.{number}." if model.plan.network == "ensemble" else ""
            new = f"members.{len(members)}."
            weights |= {new + name[len(old) :]: value for name, value in own.items() if name.startswith(old)}
            members.append(member)
    joined = models[0].plan.model_copy(
        update={
            "network": "ensemble",
            "network_arguments": {
                "members": [[name, dict(arguments)] for name, arguments in members],
                **({} if all(map(_is_shifted, models)) else {"shift": False}),
            },
            "whole_brain": all(model.plan.whole_brain for model in models),
            "origin": common_origin(models),
            "dice_estimates": {},  # they were checked for the first model alone
        }
    )
    model = new_model(joined, name=" + ".join(model.name for model in models))
    model.network.load_state_dict(weights)
    model.network.eval()
    return model


def split_model(path: Path | str) -> list[Model]:
    """Return the networks in a model file as models of their own: those of an ensemble, otherwise the only one.

    The opposite of `join_models`. The models keep the joined model's plan except for the network, and no estimates of
    the Dice, which were checked for the ensemble.

    Raises:
        InputError: The file cannot be loaded.
    """
    joined = load_torch_model(path)
    if joined.plan.network != "ensemble":
        return [joined]
    weights = joined.network.state_dict()
    models = []
    for number, (network, arguments) in enumerate(_members(joined.plan)):
        update = {"network": network, "network_arguments": dict(arguments), "dice_estimates": {}}
        model = new_model(joined.plan.model_copy(update=update), name=f"{joined.name}, network {number}")
        start = f"members.{number}."
        own = {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}
        model.network.load_state_dict(own)
        model.network.eval()
        models.append(model)
    return models


def _check_compatible(models: Sequence[Model]) -> None:
    first, *others = models
    for model in others:
        for name in _EQUAL_FIELDS:
            if getattr(model.plan, name) != getattr(first.plan, name):
                raise InputError(
                    f"{model.name}: {name} is {getattr(model.plan, name)}, but {getattr(first.plan, name)} in "
                    f"{first.name}. Only models with the same images and regions can be joined; the "
                    "probabilities of others are averaged by gliomask predict with several -m."
                )


def _is_shifted(model: Model) -> bool:
    """Return whether an ensemble with this model shifts every second member; not if it was made elsewhere."""
    return model.plan.origin is None and model.plan.network_arguments.get("shift", True) is True


def _members(plan: Plan) -> list[Member]:
    if plan.network == "ensemble":
        return [(name, arguments) for name, arguments in plan.network_arguments["members"]]
    return [(plan.network, plan.network_arguments)]
