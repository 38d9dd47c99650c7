"""A small run of the fuzzer of score tables, prediction folders and CASE.json."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from fuzz_tables import fuzz


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_accepted_or_refused(tmp_path: Path) -> None:
    """No damaged input raises anything but an InputError, or takes long."""
    said: list[str] = []
    assert not fuzz(tmp_path, 160, 7, said.append), "\n".join(said)
