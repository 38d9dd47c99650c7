"""Laws of prediction: the mask is on the images' grid, its JSON describes it, and missing input is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gliomask.cases import Case, Source, find_cases
from gliomask.errors import InputError
from gliomask.inference.loading import Model, new_model
from gliomask.inference.prediction import predict, predict_cases
from gliomask.inference.preprocessing import common_spacing
from gliomask.inference.windows import Inference
from gliomask.model.plan import Plan, Postprocessing, RegionRule
from gliomask.volume import Volume, read_volume, reorient, write_volume

SMALL = {"channels": (4, 6, 8, 8, 8)}


@pytest.fixture
def case(folder_of: Callable[..., Path]) -> Case:
    return find_cases(folder_of(1))[0]


def model_for(case: Case, *, can_miss: bool = False) -> Model:
    plan = Plan(
        modalities=("t2f", "t1c", "t2w"),
        spacing_mm=common_spacing([case], "LPS"),
        patch_size=(16, 16, 16),
        network_arguments=SMALL,
        can_miss=can_miss,
    )
    return new_model(plan, seed=1)


def test_the_mask_has_the_inputs_grid_and_header(case: Case, tmp_path: Path) -> None:
    """Shape, affine, qform, sform, their codes and the spacing are the same."""
    predict(model_for(case), case).save(tmp_path / "mask.nii.gz")
    mask = nib.load(tmp_path / "mask.nii.gz")
    image = nib.load(case.images["t2f"].path)
    assert mask.shape == image.shape
    assert mask.get_data_dtype() == np.uint8
    for form in ("get_qform", "get_sform"):
        (one, code), (other, other_code) = (getattr(i.header, form)(coded=True) for i in (mask, image))
        np.testing.assert_array_equal(one, other)
        assert code == other_code
    np.testing.assert_array_equal(mask.affine, image.affine)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SAL"])
def test_the_mask_does_not_depend_on_the_orientation_of_the_file(case: Case, tmp_path: Path, axes: str) -> None:
    """The same images stored in another orientation give the same mask, stored in that orientation."""
    images = {}
    for modality, source in case.images.items():
        write_volume(tmp_path / f"{modality}.nii", reorient(read_volume(source.path), axes))
        images[modality] = Source(tmp_path / f"{modality}.nii")
    first = predict(model_for(case), case)
    reoriented = predict(model_for(case), Case("reoriented", images))
    assert reoriented.labels.grid.axes == axes
    back = reorient(reoriented.labels, first.labels.grid.axes)
    np.testing.assert_array_equal(back.data, first.labels.data)
    np.testing.assert_allclose(back.affine, first.labels.affine, atol=1e-6)


def test_conventions_differ_in_numbers_only(case: Case) -> None:
    """ET is 4 in brats2021 and 3 in brats2023, and the volumes are the same."""
    old, new = (predict(model_for(case), case, convention=name) for name in ("brats2021", "brats2023"))
    np.testing.assert_array_equal(np.where(old.labels.data == 4, 3, old.labels.data), new.labels.data)
    assert old.volumes_ml() == new.volumes_ml()
    with pytest.raises(InputError, match=r"did you mean 'brats2023'"):
        predict(model_for(case), case, convention="brats2023x")


def test_volumes_are_the_number_of_voxels_times_their_volume(case: Case) -> None:
    """Volumes are in mL, and those of the tissues add up to those of the regions."""
    found = predict(model_for(case), case)
    volumes = found.volumes_ml()
    voxel_ml = abs(np.linalg.det(found.labels.affine[:3, :3])) / 1000  # the axes are not exactly orthogonal
    assert volumes["WT"] == pytest.approx(np.count_nonzero(found.labels.data) * voxel_ml, abs=0.002)
    assert volumes["WT"] == pytest.approx(volumes["NCR"] + volumes["ED"] + volumes["ET"], abs=0.003)
    assert volumes["TC"] == pytest.approx(volumes["NCR"] + volumes["ET"], abs=0.002)


def test_the_json_describes_the_prediction(case: Case, tmp_path: Path) -> None:
    """It has volumes, model, versions, the sequences used and the time needed."""
    predict(model_for(case), case).save(tmp_path / "out" / "x.nii.gz", probabilities=True)
    facts = json.loads((tmp_path / "out" / "x.json").read_text())
    assert set(facts["volumes_ml"]) == {"NCR", "ED", "ET", "WT", "TC"}
    assert facts["case"] == case.id
    assert facts["sequences"] == {"t2f": True, "t1c": True, "t2w": True}
    assert facts["labels"]["convention"] == "brats2021"
    assert facts["versions"]["gliomask"]
    assert facts["seconds"] >= 0
    probabilities = read_volume(tmp_path / "out" / "x_probabilities.nii.gz")
    assert len(probabilities.data) == 3
    assert 0 <= probabilities.data.min() <= probabilities.data.max() <= 1


def test_the_mask_is_the_probabilities_above_one_half(case: Case) -> None:
    """WT is every voxel above .5 in any region, and ET those above .5 in its own."""
    found = predict(model_for(case), case)
    over = found.probabilities.data > 0.5
    np.testing.assert_array_equal(found.labels.data[0] != 0, over.any(axis=0))
    np.testing.assert_array_equal(found.labels.data[0] == 4, over[2])


def test_the_plans_rules_determine_the_mask_and_are_in_the_facts(case: Case) -> None:
    """Temperatures change probabilities, thresholds the mask, and regions that are too small are removed."""
    plain = model_for(case)
    bare = predict(plain, case)

    def under(**rules: object) -> tuple[np.ndarray, dict[str, object], np.ndarray]:
        plan = plain.plan.model_copy(update={"postprocessing": Postprocessing(**rules)})
        found = predict(Model(plan, plain.network, plain.name), case)
        return found.labels.data[0], found.facts(), found.probabilities.data

    labels, facts, probabilities = under(regions={"WT": RegionRule(temperature=2.0, threshold=0.52)})
    box = bare.probabilities.data[0] > 0
    logits = np.log(bare.probabilities.data[0][box] / (1 - bare.probabilities.data[0][box]))
    np.testing.assert_allclose(probabilities[0][box], 1 / (1 + np.exp(-logits / 2)), atol=1e-5)
    np.testing.assert_array_equal(probabilities[1:], bare.probabilities.data[1:])
    expected = (probabilities[0] > 0.52) | (probabilities[1:] > 0.5).any(axis=0)
    np.testing.assert_array_equal(labels != 0, expected)
    assert facts["postprocessing"]["regions"]["WT"]["threshold"] == 0.52
    assert bare.facts()["postprocessing"] == {
        "regions": {},
        "least_et_mm3": 0.0,
        "tc_threshold_without_et": None,
    }

    assert (bare.labels.data == 4).any()
    labels, facts, _ = under(least_et_mm3=1e9)
    assert not (labels == 4).any()
    np.testing.assert_array_equal(labels != 0, bare.labels.data[0] != 0)
    assert facts["volumes_ml"]["ET"] == 0
    labels, _, _ = under(regions={"WT": RegionRule(least_mm3=1e9)})
    assert not labels.any()


def test_unusual_images_are_reported(case: Case, tmp_path: Path) -> None:
    """Warnings are in the prediction and its JSON, once for several models."""
    one = read_volume(case.images["t2f"].path)
    write_volume(tmp_path / "flair.nii", Volume(one.data + 7, one.affine))
    images = {**case.images, "t2f": Source(tmp_path / "flair.nii")}
    found = predict([model_for(case), model_for(case)], Case(case.id, images))
    assert len(found.warnings) == 1
    assert "t2f (flair.nii): the background is 7" in found.warnings[0]
    found.save(tmp_path / "out.nii.gz")
    assert json.loads((tmp_path / "out.json").read_text())["warnings"] == list(found.warnings)


def test_without_contrast_the_prediction_warns(case: Case) -> None:
    """Without t1c a model keeps uncertain enhancement, and warns; the facts have the rules that were applied."""
    model = model_for(case, can_miss=True)
    rules = Postprocessing(regions={"ET": RegionRule(threshold=0.3, least_probability=0.99)})
    plan = model.plan.model_copy(update={"postprocessing": rules})
    model = replace(model, plan=plan)
    whole = predict(model, case)
    assert whole.facts()["postprocessing"]["regions"]["ET"]["least_probability"] == 0.99
    without = predict(model, Case(case.id, {m: s for m, s in case.images.items() if m != "t1c"}))
    assert [text.partition(":")[0] for text in without.warnings if text not in whole.warnings] == ["no t1c"]
    assert without.facts()["postprocessing"]["regions"]["ET"]["least_probability"] == 0


def test_a_missing_sequence_is_refused(case: Case) -> None:
    """Unless the model was trained with missing sequences; then the facts name the missing ones."""
    without = Case(case.id, {m: s for m, s in case.images.items() if m != "t1c"})
    with pytest.raises(InputError, match=r"missing: t1c.*--drop-modalities"):
        predict(model_for(case), without)
    found = predict(model_for(case, can_miss=True), without)
    assert found.missing == ["t1c"]
    assert found.facts()["sequences"]["t1c"] is False
    nothing = Case(case.id, {"t1n": case.images["t1n"]})
    with pytest.raises(InputError, match="missing"):
        predict(model_for(case, can_miss=True), nothing)


def test_an_extra_sequence_changes_nothing(case: Case) -> None:
    """Only the sequences in the plan are read."""
    without = Case(case.id, {m: s for m, s in case.images.items() if m != "t1n"})
    one, other = (predict(model_for(case), c) for c in (case, without))
    np.testing.assert_array_equal(one.labels.data, other.labels.data)


def test_other_spacings_are_resampled_and_restored(case: Case) -> None:
    """The mask of a model for 2 mm voxels is on the input's anisotropic grid."""
    plan = model_for(case).plan.model_copy(update={"spacing_mm": (2.0, 2.0, 2.0)})
    found = predict(new_model(plan, seed=1), case, inference=Inference(window="whole"))
    assert found.labels.grid.difference(read_volume(case.images["t2f"].path).grid) is None
    assert isinstance(found.labels, Volume)


def test_the_probabilities_of_several_models_are_averaged(case: Case) -> None:
    """The mean is taken for each voxel; the facts have the names and the sequences of all models."""
    one = model_for(case)
    plan = one.plan.model_copy(update={"modalities": ("t1c", "t1n"), "normalization": "minmax"})
    other = new_model(plan, seed=2, name="other")
    alone = [predict(model, case).probabilities.data for model in (one, other)]
    both = predict([one, other], case)
    np.testing.assert_allclose(both.probabilities.data, (alone[0] + alone[1]) / 2, atol=1e-6)
    assert both.facts()["model"] == "untrained, other"
    assert list(both.facts()["sequences"]) == ["t2f", "t1c", "t2w", "t1n"]
    fractions: list[float] = []
    predict([one, other], case, on_part=fractions.append)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_models_that_cannot_be_averaged_are_refused(case: Case) -> None:
    """Models with different regions, and no model at all."""
    one = model_for(case)
    other = new_model(one.plan.model_copy(update={"regions": ("WT",)}), name="other")
    with pytest.raises(InputError, match="other: predicts WT"):
        predict([one, other], case)
    with pytest.raises(InputError, match="no model"):
        predict([], case)


def test_many_cases_are_predicted_in_order_like_each_alone(folder_of: Callable[..., Path]) -> None:
    """Reading ahead changes nothing; a bad case gives an error in its place."""
    cases = find_cases(folder_of(3))
    model = model_for(cases[0])
    cases[1].images["t1c"].path.write_bytes(b"no NIfTI")
    shares: list[tuple[int, float]] = []
    first, bad, last = predict_cases(model, cases, on_part=lambda number, share: shares.append((number, share)))
    assert isinstance(bad, InputError)
    assert cases[1].id in str(bad)
    for found, case in ((first, cases[0]), (last, cases[2])):
        assert not isinstance(found, InputError)
        assert found.case == case
        np.testing.assert_array_equal(found.labels.data, predict(model, case).labels.data)
    assert shares == sorted(shares)
    assert {number for number, share in shares if share == 1} == {0, 2}
    with pytest.raises(InputError, match="did you mean"):
        list(predict_cases(model, cases, convention="brats2023x"))
    assert list(predict_cases(model, [])) == []


def test_a_folder_with_one_case_may_be_given(folder_of: Callable[..., Path]) -> None:
    """Its path stands for the case; with several cases in it, the message says what to do."""
    folder = folder_of(2)
    first, second = find_cases(folder)
    model = model_for(first)
    alone = next(iter(first.images.values())).path.parent
    assert np.array_equal(predict(model, alone).labels.data, predict(model, first).labels.data)
    with pytest.raises(InputError, match=r"holds 2 cases.*find_cases"):
        predict(model, str(folder))
    assert second.id != first.id
