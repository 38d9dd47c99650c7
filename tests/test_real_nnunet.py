"""The answers of nnU-Net 2.8.1 on real cases: pytest tests/test_real_nnunet.py -m real --real-cases=FOLDER/cases.

The folder beside the cases, `nnunet`, holds two models that nnU-Net trained and its own answers: masks, and the
probabilities of listed voxels.
"""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest

from gliomask.cases import find_cases
from gliomask.inference.loading import load_model
from gliomask.inference.prediction import predict
from gliomask.inference.windows import Inference
from gliomask.labels import get_convention, to_regions
from gliomask.metrics import joint_box
from gliomask.volume import read_volume

pytestmark = pytest.mark.real

MODELS = {"plain": "nnUNetPlans", "resenc": "nnUNetResEncUNetMPlans"}
COLUMNS = ("whole_tumor", "tumor_core", "enhancing_tumor")


# These are run by CI; all others take up to ten minutes each on two cores and have the mark `slow`.
QUICK = {
    ("BraTS2021_00000", "plain", False, "openvino"),
    ("BraTS2021_00000", "resenc", False, "torch"),
    ("BraTS2021_00005", "resenc", False, "openvino"),
    ("BraTS2021_00005", "resenc", True, "openvino"),
}
TRIALS = [
    pytest.param(*trial, marks=() if trial in QUICK else pytest.mark.slow)
    for trial in itertools.product(("BraTS2021_00000", "BraTS2021_00005"), MODELS, (False, True), ("torch", "openvino"))
]


@pytest.mark.parametrize(("name", "kind", "mirror", "engine"), TRIALS)
def test_the_answer_is_nnunets(real_cases: Path, name: str, kind: str, mirror: bool, engine: str) -> None:
    """Labels in the tumours' boxes, Dice of each region and probabilities agree, in float32."""
    folder = real_cases.parent / "nnunet"
    if not folder.is_dir():
        pytest.skip("needs the folder nnunet beside the cases")
    model = load_model(folder / f"nnUNetTrainerBrief__{MODELS[kind]}__3d_fullres", engine=engine, device="cpu")
    (case,) = [case for case in find_cases(real_cases) if case.id == name]
    found = predict(model, case, inference=Inference(mirror=mirror, precision="fp32"))
    answers = folder / "expected" / (f"{kind}_mirror" if mirror else kind)
    truth, prediction = read_volume(answers / f"{name}.nii.gz", mask=True).data[0], found.labels.data[0]
    box = joint_box(truth > 0, prediction > 0)
    same = float((truth[box] == prediction[box]).mean())
    convention = get_convention(found.convention)
    pairs = zip(to_regions(truth, convention), to_regions(prediction, convention), strict=True)
    dice = [2 * np.count_nonzero(a & b) / max(1, np.count_nonzero(a) + np.count_nonzero(b)) for a, b in pairs]
    with (answers / "probabilities.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["case"] == name]
    places = tuple(np.array([[int(row[axis]) for row in rows] for axis in "xyz"]))
    expected = np.array([[float(row[column]) for row in rows] for column in COLUMNS])
    differences = np.abs(found.probabilities.data[:, places[0], places[1], places[2]] - expected).max(axis=0)
    close = float((differences <= 0.01).mean())
    print(f"{kind} {name} mirror={mirror} {model.engine}: labels {same:.5f}, Dice {dice}, within .01: {close:.4f}")
    assert same >= 0.999
    assert min(dice) >= 0.995
    assert close >= 0.99
