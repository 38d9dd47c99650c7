"""The model in the package: its size, its record, and predictions from any subset of the sequences."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gliomask import load_model, predict
from gliomask.cases import MODALITIES, Case, find_cases
from gliomask.model.file import find_model, read_plan, read_training
from gliomask.phantom import write_phantoms
from gliomask.training.config import make_config

SUBSETS = [kept for count in range(1, 5) for kept in combinations(MODALITIES, count)]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, 1, size=64)
    (case,) = find_cases(folder)
    return case


def test_it_is_small_and_says_where_it_comes_from() -> None:
    """It has at most 15 MB and states its data, licence, citations, training and scores on held-out cases."""
    assert find_model(None).stat().st_size <= 15e6
    record = read_training()
    assert record["license"] == "Apache-2.0"
    assert all(name in str(record["cite"]) for name in ("Menze 2015", "Bakas 2017", "Bakas 2018", "Baid 2021"))
    assert all(f"BraTS {year}" in str(record["data"]) for year in (2018, 2019, 2021))
    assert "mean Dice WT" in str(record["held out"])
    assert "research only" in str(record["use"])


def test_its_plan_is_one_pass_over_any_sequences() -> None:
    """It takes all four sequences, each may be missing, and it was trained on whole brains."""
    plan = read_plan()
    assert set(plan.modalities) == set(MODALITIES)
    assert (plan.can_miss, plan.whole_brain, plan.regions) == (True, True, ("WT", "TC", "ET"))


@pytest.mark.parametrize("kept", SUBSETS, ids="+".join)
def test_it_answers_from_every_subset(case: Case, kept: tuple[str, ...]) -> None:
    """One pass gives nested regions, and probabilities in [0, 1]."""
    given = Case(case.id, {name: case.images[name] for name in kept})
    found = predict(load_model(engine="openvino"), given)
    assert found.window == "whole"
    assert sorted(found.missing) == sorted(set(MODALITIES) - set(kept))
    assert np.isfinite(found.probabilities.data).all()
    assert 0 <= found.probabilities.data.min() <= found.probabilities.data.max() <= 1
    volumes = found.volumes_ml()
    assert volumes["WT"] >= volumes["TC"] >= volumes["ET"] >= 0


def test_the_card_has_a_row_for_every_subset() -> None:
    """The numbers are scores between 0 and 1, and no placeholder of the template is left."""
    card = (Path(__file__).parents[1] / "MODEL_CARD.md").read_text("utf-8")
    names = {"t1n": "t1", "t1c": "t1ce", "t2w": "t2", "t2f": "flair"}
    for kept in SUBSETS:
        (row,) = [line for line in card.splitlines() if line.startswith(f"| {', '.join(names[m] for m in kept)} |")]
        scores = [column.split()[0] for column in row.split("|")[3:6]]  # the mean stands before its interval
        assert all(0 <= float(score) <= 1 for score in scores)
    assert "{" not in card


def test_the_recipes_stages_are_trainings(recipe: Callable[[str], object]) -> None:
    """Each stage is a valid config with a duration, and only the last one holds out no patients."""
    module: Any = recipe("default_model")
    assert list(module.STAGES)[-1] == "everyone"
    for network in module.NETWORKS:
        for name, stage in module.STAGES.items():
            values = module.COMMON | {"network": network, "val_fraction": 0.19} | stage
            assert values.pop("minutes") > 0
            config = make_config(**values, budget_seconds=60)
            assert (config.val_fraction == 0) == (name == "everyone")


@pytest.fixture
def recipe() -> Callable[[str], object]:
    def load(name: str) -> object:
        path = Path(__file__).parents[1] / "recipes" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
