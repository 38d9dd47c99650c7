"""Damaged NIfTI files: whatever happened to a file, it is read or refused by name."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "fuzz_nifti.py"


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    specification = importlib.util.spec_from_file_location("fuzz_nifti", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", [1, 2])
def test_no_damage_ends_in_another_error(fuzzer: ModuleType, tmp_path: Path, seed: int) -> None:
    """Nor in a warning; most files are refused, some are still good, and none takes long."""
    ends, faults, longest = fuzzer.fuzz(tmp_path, 150, seed)
    assert faults == []
    assert min(ends["image read"], ends["image refused"], ends["grid read"], ends["mask refused"]) > 10
    assert longest < 5


def test_files_that_are_not_damaged_are_read(fuzzer: ModuleType, tmp_path: Path) -> None:
    """The fuzzer starts from good files: what it refuses, it has damaged."""
    import numpy as np

    from gliomask.volume import read_volume

    for number, content in enumerate(fuzzer.good_files(np.random.default_rng(0))):
        path = tmp_path / f"{number}.nii"
        path.write_bytes(content)
        volume = read_volume(path)
        assert volume.data.shape[1:] == fuzzer.SHAPE
        assert volume.notes == ()
