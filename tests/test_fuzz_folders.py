"""Damaged caches and run folders are refused by name; the whole fuzzer is benchmarks/fuzz_folders.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

FUZZER = Path(__file__).parents[1] / "benchmarks" / "fuzz_folders.py"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # of a damaged checkpoint
def test_damaged_folders_are_refused_by_name(tmp_path: Path) -> None:
    """Every damage is refused with an InputError that names a file of the folder, or changes nothing that matters."""
    spec = importlib.util.spec_from_file_location("fuzz_folders", FUZZER)
    assert spec is not None
    assert spec.loader is not None
    fuzzer = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_folders"] = fuzzer
    spec.loader.exec_module(fuzzer)
    outcomes, faults = fuzzer.fuzz(fuzzer.make_folder(tmp_path), 100, seed=7)
    assert not faults, "\n".join(faults)
    assert outcomes["refused"] > 50
