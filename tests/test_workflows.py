"""The Snakemake rule in docs/cluster.md works as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gliomask.cases import find_cases

PAGE = Path(__file__).parent.parent / "docs" / "cluster.md"
SNAKEMAKE = shutil.which("snakemake")


@pytest.mark.skipif(SNAKEMAKE is None, reason="Snakemake is not installed (.ci/run installs it)")
def test_snakemake_predicts_every_case_once(folder_of: Callable[..., Path], model_file: Path, tmp_path: Path) -> None:
    """Each case has a mask and its record; a second run finds nothing to do."""
    folder_of(3).rename(tmp_path / "cases")
    rule = re.findall(r"```snakemake\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[0]
    command = f"{shlex.quote(sys.executable)} -m gliomask predict -m {shlex.quote(str(model_file))}"
    (tmp_path / "Snakefile").write_text(rule.replace("gliomask predict", command))

    def run() -> str:
        words = [
            str(SNAKEMAKE),
            "--cores",
            "1",
            "--directory",
            str(tmp_path),
            "--snakefile",
            str(tmp_path / "Snakefile"),
        ]
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "caches")}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "rule predict" in run()
    ids = sorted(case.id for case in find_cases(tmp_path / "cases"))
    assert len(ids) == 3
    assert sorted(path.name for path in (tmp_path / "masks").glob("*.nii.gz")) == [f"{name}.nii.gz" for name in ids]
    assert "Nothing to be done" in run()
