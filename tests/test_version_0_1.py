"""Models, run folders and caches written by version 0.1 (commit b9dd3d9) can be loaded, and its runs resumed."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gliomask.cases import find_cases
from gliomask.inference.loading import load_model
from gliomask.inference.prediction import predict
from gliomask.training.cache import cache_plan, open_cache
from gliomask.training.config import make_config
from gliomask.training.loop import train
from gliomask.training.run import load_run

ARCHIVE = Path(__file__).parent / "data" / "version_0_1.zip"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with three phantoms and a run of two epochs that version 0.1 trained on them."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["best", "last"])
@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_its_models_predict(old: Path, name: str, engine: str) -> None:
    """Both engines load the model and return a mask on the grid of the images."""
    case = find_cases(old / "phantoms")[0]
    model = load_model(old / "run" / f"{name}.safetensors", engine=engine, device="cpu")  # type: ignore[arg-type]
    prediction = predict(model, case)
    assert prediction.labels.data.shape == (1, 32, 32, 21)
    assert model.plan.modalities == ("t2f", "t1c", "t2w")


def test_its_cache_opens(old: Path) -> None:
    """All cases are found, and their images can be read."""
    cache = old / "run" / "cache"
    cases = open_cache(cache, cache_plan(cache))
    assert [case.id for case in cases] == [f"BraTS2021_0000{number}" for number in (1, 2, 3)]
    assert all(np.asarray(case.image()).any() for case in cases)


def test_its_run_goes_on(old: Path) -> None:
    """Training continues from the checkpoint: the rows of the log are kept, and the third epoch ends at step 6."""
    before = load_run(old / "run").rows()
    fields = json.loads((old / "run" / "config.json").read_text("utf-8")) | {"epochs": 3, "cases": None}
    run = train(find_cases(old / "phantoms"), old / "run", make_config(**fields), resume=True)
    rows = run.rows()
    assert rows[:2] == before
    assert (len(rows), rows[2]["step"]) == (3, 6)


def test_its_run_goes_on_from_its_cache_alone(old: Path, tmp_path: Path) -> None:
    """A cache in another place, without the original cases, is sufficient to resume."""
    cache = shutil.move(old / "run" / "cache", tmp_path / "moved")
    fields = json.loads((old / "run" / "config.json").read_text("utf-8")) | {"epochs": 3, "cases": None}
    assert len(train(Path(cache), old / "run", make_config(**fields), resume=True).rows()) == 3
