"""The config: one length, sensible neighbours, errors by the option's name."""

from __future__ import annotations

import pytest

from gliomask.errors import InputError
from gliomask.training.config import FREE, TrainConfig, make_config


def test_a_training_has_one_length() -> None:
    """Twenty epochs where none is given; two are refused."""
    assert TrainConfig().epochs == 20
    assert make_config(steps=7).epochs is None
    assert make_config(budget_seconds=60.0).epochs is None
    with pytest.raises(InputError, match="epochs and steps"):
        make_config(epochs=2, steps=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": -1.0}, "--lr: "),
        ({"patch_size": 8}, "--patch-size: "),
        ({"schedule": "cosin"}, "--schedule: "),
        ({"batch_size": 3, "accumulate": 2}, "equal parts"),
        ({"folds": 5, "fold": 5}, "no fold 5 of 5"),
        ({"fold": 1}, "no fold 1"),
        ({"nonsense": 1}, "--nonsense"),
    ],
)
def test_wrong_values_are_named(values: dict[str, object], message: str) -> None:
    """By the option that a user gave."""
    with pytest.raises(InputError, match=message):
        make_config(**values)


def test_it_survives_being_written_and_read() -> None:
    """As a run keeps it."""
    config = make_config(budget_seconds=90.0, folds=5, fold=2, norm="batch", modalities=("t1c",))
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


def test_what_a_resumed_run_may_change_exists() -> None:
    """And the choices that shape the result are not among it."""
    assert TrainConfig.model_fields.keys() >= FREE
    assert not FREE & {"network", "lr", "seed", "batch_size", "augment", "patch_size", "precision"}


def test_a_run_from_when_augmentation_was_on_or_off_goes_on() -> None:
    """Its config says true or false, and means once and never."""
    assert make_config(augment=True) == make_config(augment=1.0)
    assert make_config(augment=False).augment == 0
