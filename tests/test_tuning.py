"""Laws of `gliomask tune`: only the rules change, they help cases left out or are not used, and honesty about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.special import expit

from gliomask.cases import Case, find_cases, read_mask, resolve_conventions
from gliomask.errors import InputError
from gliomask.inference.loading import load_model, load_torch_model
from gliomask.inference.prediction import predict
from gliomask.inference.windows import Inference
from gliomask.labels import get_convention, to_regions
from gliomask.model.edit import replace_plan
from gliomask.model.file import read_metadata, read_plan
from gliomask.model.plan import Postprocessing, RegionRule
from gliomask.tuning import fit_tuning, predict_logits, store_logits
from gliomask.tuning.fit import with_temperatures
from gliomask.tuning.out_of_fold import OutOfFold, masks_by_rule, save_out_of_fold
from nnunet_models import CLASSES, write_model

REGIONS = ("WT", "TC", "ET")


def logits_of(number: int, *, shift: float = 0.0, factor: float = 1.0, islands: int = 0) -> OutOfFold:
    """Return a case with nested boxes whose logits fall linearly with the distance from their surface."""
    centre = 11 + number % 3
    grid = np.stack(np.meshgrid(*(np.arange(24) - centre,) * 3, indexing="ij"))
    distance = np.abs(grid).max(axis=0)
    radii = np.array((8, 6, 4))[:, None, None, None]
    logits = (radii + 0.5 - distance) * factor + shift
    logits[0, 0:2, 0:2, 0 : 3 * islands] = 3
    noise = np.random.default_rng(number).normal(0, 0.2 * factor, logits.shape)
    truth = radii >= distance
    return OutOfFold(f"case{number}", (logits + noise).astype(np.float16), truth, (1.0, 1.0, 1.0))


def store(folder: Path, cases: list[OutOfFold]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{case.id}.npz" for case in cases]
    for path, case in zip(paths, cases, strict=True):
        save_out_of_fold(path, case)
    return paths


def tuned(folder: Path, cases: list[OutOfFold], present: Postprocessing, patients: list[str] | None = None):
    paths = store(folder, cases)
    return fit_tuning(paths, patients or [case.id for case in cases], REGIONS, present)


def test_a_threshold_that_is_off_is_found(tmp_path: Path) -> None:
    """The left-out patients gain too, so that the new rules are used; the regions of their masks are nested."""
    off = Postprocessing(regions={name: RegionRule(threshold=0.95) for name in REGIONS})
    cases = [logits_of(number) for number in range(6)]
    found = tuned(tmp_path, cases, off)
    assert found.is_better
    assert found.rules == found.chosen
    assert "better than before on 6 patients left out in turn" in found.verdict
    assert found.tests["mean"].first > 0.99 > 0.9 > found.tests["mean"].second
    for case in cases:
        whole, core, enhancing = masks_by_rule(case, REGIONS, found.rules)
        assert not (enhancing & ~core).any()
        assert not (core & ~whole).any()


def test_rules_that_do_not_help_others_are_not_used(tmp_path: Path) -> None:
    """Where every patient has a fault of its own, what is chosen on all does not help those left out."""
    cases = [logits_of(number, shift=(-1.6, 1.6)[number % 2]) for number in range(6)]
    found = tuned(tmp_path, cases, Postprocessing())
    assert not found.is_better
    assert "the masks stay as they are" in found.verdict
    for case in cases:
        np.testing.assert_array_equal(
            masks_by_rule(case, REGIONS, found.rules), masks_by_rule(case, REGIONS, Postprocessing())
        )


def test_temperatures_alone_leave_every_mask_as_it_was(tmp_path: Path) -> None:
    """Overconfident logits get a temperature; thresholds move with it."""
    present = Postprocessing(
        regions={"WT": RegionRule(threshold=0.6), "TC": RegionRule(temperature=2.0)}, tc_threshold_without_et=0.3
    )
    generator = np.random.default_rng(0)
    cases = []
    for number in range(6):
        case = logits_of(number, factor=4)
        wrong = generator.random(case.truth.shape) < 0.05
        cases.append(OutOfFold(case.id, np.where(wrong, -case.logits, case.logits), case.truth, case.spacing_mm))
    found = tuned(tmp_path, cases, present)
    assert found.calibration["WT"].is_better
    start = with_temperatures(present, {"WT": 3.0, "TC": 1.3, "ET": 0.7})
    assert start.rule("WT").temperature == 3.0
    assert 0.5 < start.rule("WT").threshold < 0.6
    for case in cases:
        np.testing.assert_array_equal(masks_by_rule(case, REGIONS, start), masks_by_rule(case, REGIONS, present))


def test_few_patients_show_nothing(tmp_path: Path) -> None:
    """Under five no change is used, under three nothing is fitted; time points are no patients."""
    off = Postprocessing(regions={name: RegionRule(threshold=0.95) for name in REGIONS})
    cases = [logits_of(number) for number in range(6)]
    found = tuned(tmp_path, cases, off, ["a", "a", "b", "b", "c", "c"])
    assert found.tests["mean"].cases == 3
    assert "3 patients left out in turn are too few to show" in found.verdict
    assert found.rules == off
    with pytest.raises(InputError, match=r"6 cases of 2 patients; fitting rules needs at least 3 patients"):
        tuned(tmp_path, cases, off, ["a", "a", "a", "b", "b", "b"])


def test_several_processes_find_the_same(tmp_path: Path) -> None:
    """And every setting of every fit is counted for the progress bar."""
    paths = store(tmp_path, [logits_of(number, islands=number % 2) for number in range(4)])
    steps: list[tuple[int, int]] = []
    one = fit_tuning(paths, "abcd", REGIONS, Postprocessing(), on_step=lambda *step: steps.append(step))
    two = fit_tuning(paths, "abcd", REGIONS, Postprocessing(), jobs=2)
    assert one == two
    assert steps == [(n, 50) for n in range(1, 51)]  # 10 settings, of all and without each of four


@pytest.fixture
def cases(folder_of: Callable[..., Path]) -> list[Case]:
    return resolve_conventions(find_cases(folder_of(3)))


@pytest.mark.parametrize("kind", ["regions", "classes"])
def test_the_masks_by_stored_logits_are_those_of_predict(tmp_path: Path, cases: list[Case], kind: str) -> None:
    """Also of a network with classes, whose masks are the most probable ones, and with rules."""
    files = write_model(tmp_path / "model", **({"labels": CLASSES} if kind == "classes" else {}))
    model = load_torch_model(files)
    case = cases[0]
    stored = predict_logits(model, case, Inference(precision="fp32"))
    rules = Postprocessing()
    if kind == "regions":  # thresholds between the probabilities, as those of an untrained network are all alike
        middle = [float(expit(np.quantile(logits.astype(float), 0.8) / 1.5)) for logits in stored.logits]
        each = {n: RegionRule(threshold=t, temperature=1.5) for n, t in zip(REGIONS, middle, strict=True)}
        rules = Postprocessing(regions=each)
    with_rules = replace(model, plan=model.plan.model_copy(update={"postprocessing": rules}))
    found = predict(with_rules, case, inference=Inference(precision="fp32"))
    assert (stored.decided is not None) == (kind == "classes")
    masks = masks_by_rule(stored, REGIONS, rules)
    expected = to_regions(found.labels.data[0], get_convention(found.convention), REGIONS)
    truth = to_regions(read_mask(case).data[0], get_convention(case.convention or ""), REGIONS)
    sizes = [np.count_nonzero(mask) for mask in masks]
    np.testing.assert_allclose(sizes, [np.count_nonzero(mask) for mask in expected], rtol=0.01)  # float16
    assert sum(sizes)
    common = [np.count_nonzero(a & b) for a, b in zip(masks, stored.truth, strict=True)]
    np.testing.assert_allclose(
        common, [np.count_nonzero(a & b) for a, b in zip(expected, truth, strict=True)], rtol=0.01
    )


def test_stored_logits_are_kept_until_something_changes(tmp_path: Path, cases: list[Case], model_file: Path) -> None:
    """A second run computes nothing; another mask, model or option computes again. A bad case does not stop others."""
    model = load_model(model_file, device="cpu")
    computed: list[int] = []

    def run(*, mirror: bool = False) -> int:
        computed.clear()
        done, problems = store_logits(
            model, cases, tmp_path / "kept", inference=Inference(mirror=mirror), on_part=lambda n, _: computed.append(n)
        )
        assert len(done) + len(problems) == len(cases)
        return len(set(computed))

    assert run() == 3
    assert run() == 0
    assert run(mirror=True) == 3
    assert cases[1].mask is not None
    cases[1].mask.write_bytes(b"no mask")
    assert run(mirror=True) == 1


def _with_threshold(path: Path, threshold: float) -> None:
    plan = read_plan(path)
    rules = Postprocessing(regions={name: RegionRule(threshold=threshold) for name in plan.regions})
    replace_plan(path, plan.model_copy(update={"postprocessing": rules}), path)


def test_a_tuned_file_is_the_original_but_for_its_rules(
    tmp_path: Path, folder_of: Callable[..., Path], model_file: Path, gliomask: Callable[..., tuple[int, str]]
) -> None:
    """The weights and the rest of the record are equal, and nothing but the file and the report is left."""
    _with_threshold(model_file, 0.99)
    folder, target = folder_of(6), tmp_path / "out" / "tuned.safetensors"
    before = model_file.read_bytes()
    status, said = gliomask("tune", model_file, folder, "-o", target, "--report", target.with_name("report.json"))
    assert status == 0, said
    assert sorted(path.name for path in target.parent.iterdir()) == ["report.json", "tuned.safetensors"]
    assert model_file.read_bytes() == before
    old, new = load_file(model_file), load_file(target)
    assert old.keys() == new.keys()
    assert all(np.array_equal(old[name], new[name]) for name in old)
    left_out = {"postprocessing"}
    one, other = (read_plan(path).model_dump(exclude=left_out) for path in (model_file, target))
    assert one == other
    assert {**read_metadata(model_file), "gliomask": ""} == {**read_metadata(target), "gliomask": ""}
    report = json.loads(target.with_name("report.json").read_text())
    assert report["patients"] == 6
    assert report["verdict"] in said
    assert (read_plan(target).postprocessing == Postprocessing.model_validate(report["chosen"])) == report["is_better"]
    assert "6 patients are few" in said


def test_a_damaged_case_is_listed_and_the_others_are_used(
    tmp_path: Path, folder_of: Callable[..., Path], model_file: Path, gliomask: Callable[..., tuple[int, str]]
) -> None:
    """With status 1."""
    folder = folder_of(4)
    case = find_cases(folder)[2]
    case.images["t1c"].path.write_bytes(b"no image")
    status, said = gliomask("tune", model_file, folder, "-o", tmp_path / "tuned.safetensors")
    assert status == 1, said
    assert "1 failed, 3 done" in said
    assert (tmp_path / "tuned.safetensors").is_file()
    (tmp_path / "tuned.safetensors").unlink()
    for other in find_cases(folder):
        other.images["t1c"].path.write_bytes(b"no image")
    status, said = gliomask("tune", model_file, folder, "-o", tmp_path / "tuned.safetensors")
    assert status == 2, said
    assert "needs at least 3 patients" in said
    assert said.count("not a NIfTI file") == 4


def test_cases_that_the_model_learned_from_are_left_out(
    tmp_path: Path, folder_of: Callable[..., Path], model_file: Path, gliomask: Callable[..., tuple[int, str]]
) -> None:
    """The split beside the model tells; if too few others are left, nothing is written."""
    folder, run = folder_of(5), tmp_path / "run"
    run.mkdir()
    model = model_file.rename(run / "best.safetensors")
    ids = [case.id for case in find_cases(folder)]
    (run / "config.json").write_text('{"fold": 0}')
    (run / "splits_final.json").write_text(json.dumps([{"train": ids[:3], "val": ids[3:]}]))
    status, said = gliomask("tune", model, folder, "-o", tmp_path / "tuned.safetensors")
    assert status == 2
    assert "the model was trained on it" in said
    assert "2 usable cases of 2 patients; fitting rules needs at least 3 patients" in said
    assert not (tmp_path / "tuned.safetensors").exists()
    (run / "config.json").unlink()
    status, said = gliomask("tune", model, folder, "-o", tmp_path / "tuned.safetensors")
    assert status == 2
    assert "missing or damaged, so that it is not known" in said


def test_an_imported_model_can_be_tuned(
    tmp_path: Path, folder_of: Callable[..., Path], gliomask: Callable[..., tuple[int, str]]
) -> None:
    """So can the folder of nnU-Net itself, which stays as it is; the license is kept, and the weights are the same."""
    model, folder, target = write_model(tmp_path / "model"), folder_of(3), tmp_path / "tuned.safetensors"
    before = {path: path.stat().st_mtime_ns for path in model.rglob("*")}
    status, said = gliomask("tune", model, folder, "-o", target)
    assert status == 0, said
    theirs, ours = load_torch_model(model), load_torch_model(target)
    changed = {"postprocessing", "dice_estimates"}
    assert ours.plan.model_dump(exclude=changed) == theirs.plan.model_dump(exclude=changed)
    for name, value in theirs.network.state_dict().items():
        np.testing.assert_array_equal(ours.network.state_dict()[name].numpy(), value.numpy())
    assert before == {path: path.stat().st_mtime_ns for path in model.rglob("*")}
    assert gliomask("import", model, "-o", tmp_path / "imported.safetensors", "--license", "CC0")[0] == 0
    status, said = gliomask("tune", tmp_path / "imported.safetensors", folder, "-o", target)
    assert status == 0, said
    origin = read_plan(target).origin
    assert origin is not None
    assert origin.license == "CC0"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["CASES", "MODEL", "-o", "a.safetensors"], "is no folder of cases. Write the model first"),
        (["MODEL", "CASES", "-o", "a.onnx"], r"ending .safetensors"),
        (["MODEL", "CASES", "-o", "MODEL"], "is a file of the input"),
        (["MODEL", "CASES", "-o", "a.safetensors", "--report", "a.csv"], "written as .json"),
        (["MODEL", "MODEL", "CASES", "-o", "a.safetensors"], "3 arguments"),
        (["MODEL", "NOWHERE", "-o", "a.safetensors"], "no such folder"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    tmp_path: Path,
    folder_of: Callable[..., Path],
    model_file: Path,
    gliomask: Callable[..., tuple[int, str]],
    words: list[str],
    message: str,
) -> None:
    """With status 2 and nothing written."""
    names = {"MODEL": model_file, "CASES": folder_of(3), "NOWHERE": tmp_path / "nowhere"}
    output = tmp_path / "out"
    output.mkdir()
    status, said = gliomask("tune", *(names.get(word, output / word if "." in word else word) for word in words))
    assert status == 2
    assert message in said
    assert not list(output.iterdir())
