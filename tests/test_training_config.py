"""The config: one length, consistent settings, and errors that name the option."""

from __future__ import annotations

import pytest

from gliomask.errors import InputError
from gliomask.training.config import FREE, TrainConfig, make_config


def test_a_training_has_one_length() -> None:
    """The default is twenty epochs; two lengths are refused."""
    assert TrainConfig().epochs == 20
    assert make_config(steps=7).epochs is None
    assert make_config(budget_seconds=60.0).epochs is None
    with pytest.raises(InputError, match="epochs and steps"):
        make_config(epochs=2, steps=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": -1.0}, "--lr: "),
        ({"lr": float("inf")}, "--lr: "),
        ({"budget_seconds": float("inf")}, "--budget: "),
        ({"seed": 10**13}, "--seed: "),
        ({"patch_size": 10**30}, "--patch-size"),
        ({"patch_size": 8}, "--patch-size: "),
        ({"schedule": "cosin"}, "--schedule: "),
        ({"batch_size": 3, "accumulate": 2}, "equal parts"),
        ({"folds": 5, "fold": 5}, "no fold 5 of 5"),
        ({"fold": 1}, "no fold 1"),
        ({"nonsense": 1}, "--nonsense"),
    ],
)
def test_wrong_values_are_named(values: dict[str, object], message: str) -> None:
    """By the flag of the option."""
    with pytest.raises(InputError, match=message):
        make_config(**values)


def test_a_config_can_be_written_and_read() -> None:
    """As the JSON file in a run folder."""
    config = make_config(budget_seconds=90.0, folds=5, fold=2, norm="batch", modalities=("t1c",))
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


def test_a_resumed_run_may_change_only_what_leaves_the_result_alone() -> None:
    """The settings that shape the result are not among the free ones."""
    assert TrainConfig.model_fields.keys() >= FREE
    assert not FREE & {"network", "lr", "seed", "batch_size", "augment", "patch_size", "precision"}


def test_augmentation_may_be_true_or_false() -> None:
    """As in the configs of older runs; the meaning is 1 and 0."""
    assert make_config(augment=True) == make_config(augment=1.0)
    assert make_config(augment=False).augment == 0
