"""Damaged model files are refused or load: a few of those that `benchmarks/fuzz_models.py` tries."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "fuzz_models.py"


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_models", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_damaged_model_files_are_refused_or_load(fuzz: ModuleType, tmp_path: Path) -> None:
    """No exception but an InputError, no crash, nothing slow; most of the damage is found."""
    fuzz.make_models(tmp_path)
    results, peak_gb = fuzz.run_batch(tmp_path, 0, 120, seed=1)
    assert len(results) == 120
    assert [result for result in results if result["result"] not in ("loaded", "refused")] == []
    assert max(result["s"] for result in results) < fuzz.SLOW
    assert Counter(result["result"] for result in results)["refused"] > 60
    assert peak_gb < 2
