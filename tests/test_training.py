"""Training: it learns, writes what it promises, and can be stopped and resumed without loss."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gliomask.cases import Case, find_cases, resolve_conventions
from gliomask.errors import InputError
from gliomask.inference.loading import load_model, load_torch_model
from gliomask.inference.prediction import predict
from gliomask.inference.preprocessing import common_spacing
from gliomask.inference.windows import Inference
from gliomask.metrics import dice
from gliomask.model.file import read_training
from gliomask.model.plan import Plan
from gliomask.training.cache import build_cache
from gliomask.training.config import TrainConfig
from gliomask.training.loop import train
from gliomask.training.patches import repeated
from gliomask.training.run import load_run
from gliomask.training.watcher import Moment, Watcher
from gliomask.volume import read_volume

TINY = {"network": "fcn", "patch_size": 16, "epochs": 2, "val_fraction": 0.25, "lr": 3e-3, "precision": "fp32"}


# Keys of the log that depend on the machine.
MEASURED = {"train_seconds", "val_seconds", "wait_seconds", "hours", "peak_memory_gb"}


class StopAfter(Watcher):
    """Request a stop after some steps, as Ctrl-C does."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.rows: list[Mapping[str, float]] = []

    def on_step(self, moment: Moment) -> None:
        self.steps -= 1

    def on_epoch(self, row: Mapping[str, float]) -> None:
        self.rows.append(row)

    def should_stop(self) -> bool:
        return self.steps <= 0


@pytest.fixture
def cases(folder_of: Callable[..., Path]) -> list[Case]:
    return resolve_conventions(find_cases(folder_of(4)))


def config(**changes: object) -> TrainConfig:
    return TrainConfig.model_validate({**TINY, **changes})


def test_a_run_folder_holds_all_that_is_promised(cases: list[Case], tmp_path: Path) -> None:
    """Config, split, log, curves, models and checkpoint, and nothing half-written."""
    run = train(cases, tmp_path / "run", config())
    names = {path.name for path in run.folder.iterdir()}
    promised = {"config.json", "splits_final.json", "log.jsonl", "curves.png", "best.safetensors", "last.safetensors"}
    assert names == {*promised, "checkpoint.pt", "finished.json", "cache"}
    rows = run.rows()
    assert [row["epoch"] for row in rows] == [1, 2]
    keys = {"train_loss", "val_loss", "train_accuracy", "val_accuracy", "all_background_accuracy", "val_mean_iou"}
    assert keys | {"val_dice_WT", "val_dice_TC", "val_dice_ET", "learning_rate"} <= rows[0].keys()
    assert load_run(run.folder).config == run.config
    assert (run._repr_png_() or b"").startswith(b"\x89PNG")  # a notebook shows the curves
    best = max(rows, key=lambda row: row["val_dice"])
    assert read_training(run.best)["epoch"] == best["epoch"]
    assert read_training(run.last)["epoch"] == 2


def test_every_patient_is_on_one_side_of_the_split(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """Two time points of one patient are never trained and validated on."""
    folder = folder_of(3, "brats2023")
    for path in sorted(folder.glob("*/*")):
        later = Path(str(path).replace("-000", "-001"))
        later.parent.mkdir(exist_ok=True)
        later.write_bytes(path.read_bytes())
    cases = resolve_conventions(find_cases(folder))
    assert len(cases) == 6
    split = train(cases, tmp_path / "run", config(epochs=1)).split()
    train_patients, val_patients = ({case_id[:-4] for case_id in split[side]} for side in ("train", "val"))
    assert not train_patients & val_patients
    assert len(split["train"]) + len(split["val"]) == 6


def test_the_same_seed_gives_the_same_run(cases: list[Case], tmp_path: Path) -> None:
    """And another one another."""
    runs = [train(cases, tmp_path / name, config(seed=seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    losses = [[row["train_loss"] for row in run.rows()] for run in runs]
    assert losses[0] == losses[1] != losses[2]
    assert runs[0].last.read_bytes() == runs[1].last.read_bytes()


@pytest.mark.parametrize(
    ("steps", "more"),
    [
        (1, {"network": "unet"}),
        (3, {"network": "unet"}),
        (5, {"ema": 0.9}),
        (2, {"whole_brain": True, "transplant": 0.5}),
    ],
)
def test_a_resumed_run_equals_one_that_was_not_stopped(
    cases: list[Case], tmp_path: Path, steps: int, more: dict[str, object]
) -> None:
    """Bitwise: weights, their average, log and scores, stopped within an epoch or at its end."""
    changes = {"drop_modalities": 0.2, "batch_size": 1} | more
    whole = train(cases, tmp_path / "whole", config(**changes))
    train(cases, tmp_path / "parts", config(**changes), watcher=StopAfter(steps))
    assert len(load_run(tmp_path / "parts").rows()) < 2
    parts = train(cases, tmp_path / "parts", config(**changes), resume=True)
    assert parts.last.read_bytes() == whole.last.read_bytes()
    assert parts.best.read_bytes()[-1000:] == whole.best.read_bytes()[-1000:]

    def timeless(rows: list[dict[str, float]]) -> list[dict[str, float]]:
        return [{key: value for key, value in row.items() if key not in MEASURED} for row in rows]

    assert timeless(parts.rows()) == timeless(whole.rows())


def test_a_stop_is_obeyed_at_a_validation(cases: list[Case], tmp_path: Path) -> None:
    """One that is asked for before it, which is left to the resumed run, and one during it: no further step is taken.

    The checkpoint before a validation is that of all steps, so that a run killed there loses none.
    """
    whole = train(cases, tmp_path / "whole", config())

    class During(StopAfter):
        def __init__(self) -> None:
            super().__init__(0)
            self.stop, self.checkpoints = False, list[int]()

        def on_validated(self, case: str) -> None:
            saved = torch.load(tmp_path / "during" / "checkpoint.pt", weights_only=True)["state"]
            self.stop = True
            self.checkpoints.append(saved["step"])

        def should_stop(self) -> bool:
            return self.stop

    during = During()
    run = train(cases, tmp_path / "during", config(), watcher=during)
    assert during.checkpoints == [3]
    assert [row["step"] for row in run.rows()] == [3]
    before = StopAfter(3)
    run = train(cases, tmp_path / "before", config(), watcher=before)
    assert (before.rows, run.rows()) == ([], [])
    assert not run.last.exists()
    for name in ("during", "before"):
        resumed = train(cases, tmp_path / name, config(), resume=True)
        assert resumed.last.read_bytes() == whole.last.read_bytes()
        assert [row["learning_rate"] for row in resumed.rows()] == [row["learning_rate"] for row in whole.rows()]
    run = train(cases, tmp_path / "longer", config(epochs=1), watcher=StopAfter(3))
    run = train(cases, tmp_path / "longer", config(epochs=3), resume=True)
    assert [row["step"] for row in run.rows()] == [3, 6, 9]


def test_whole_brains_are_trained_on_one_at_a_time(cases: list[Case], tmp_path: Path) -> None:
    """Brains differ in size, so a larger batch is refused before anything is written, also in parts."""
    for parts in (1, 2):
        with pytest.raises(InputError, match="--batch-size must be 1, not 2"):
            train(cases, tmp_path / "run", config(whole_brain=True, batch_size=2, accumulate=parts))
    assert not (tmp_path / "run").exists()


def test_a_finished_run_can_be_continued(cases: list[Case], tmp_path: Path) -> None:
    """A larger number of epochs is not another run."""
    train(cases, tmp_path / "run", config())
    run = train(cases, tmp_path / "run", config(epochs=3), resume=True)
    assert [row["epoch"] for row in run.rows()] == [1, 2, 3]


def test_what_would_damage_a_run_is_refused(cases: list[Case], tmp_path: Path) -> None:
    """A folder with a run, nothing to resume, another config, and a damaged checkpoint are refused."""
    run = train(cases, tmp_path / "run", config(epochs=1))
    with pytest.raises(InputError, match="--resume"):
        train(cases, run.folder, config(epochs=1))
    with pytest.raises(InputError, match="nothing to resume"):
        train(cases, tmp_path / "other", config(), resume=True)
    with pytest.raises(InputError, match=r"lr was 0\.003"):
        train(cases, run.folder, config(lr=1e-4), resume=True)
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be read"):
        train(cases, run.folder, config(epochs=2), resume=True)


def test_training_from_a_cache_is_training_from_the_cases(cases: list[Case], tmp_path: Path) -> None:
    """`gliomask prepare` does the same preparation as training."""
    plan = Plan(modalities=("t2f", "t1c", "t2w"), spacing_mm=common_spacing(cases, "LPS"))
    build_cache(cases, tmp_path / "cache", plan)
    one = train(cases, tmp_path / "one", config(epochs=1))
    other = train(tmp_path / "cache", tmp_path / "other", config(epochs=1))
    assert one.last.read_bytes() == other.last.read_bytes()


def test_without_validation_the_best_epoch_is_the_last(cases: list[Case], tmp_path: Path) -> None:
    """The log has no validation keys then."""
    run = train(cases, tmp_path / "run", config(val_fraction=0))
    assert run.split()["val"] == []
    assert "val_dice" not in run.rows()[0]
    assert read_training(run.best)["epoch"] == 2


def test_small_tumours_are_left_out_of_training_only(cases: list[Case], tmp_path: Path) -> None:
    """Below the fraction of a patch; if no case is left, the run is refused."""
    met: dict[str, int] = {}

    class Note(Watcher):
        def on_start(self, run, config, train, val) -> None:
            met.update(train=len(train), val=len(val))

    sizes = sorted(int((read_volume(case.mask, mask=True).data > 0).sum()) for case in cases)
    share = (sizes[0] + 1) / 16**3
    train(cases, tmp_path / "run", config(epochs=1, val_fraction=0, min_tumour=share), watcher=Note())
    assert met == {"train": sum(size >= sizes[0] + 1 for size in sizes), "val": 0}
    assert met["train"] < 4
    with pytest.raises(InputError, match="Lower --min-tumour"):
        train(cases, tmp_path / "none", config(min_tumour=0.99))


def test_cases_that_cannot_be_trained_on_are_all_named(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """A missing sequence and a missing mask in one message; with --drop-modalities a sequence may be missing.

    It is the same from a cache, where a missing sequence is zero.
    """
    folder = folder_of(4)
    next(folder.glob("*1/*_t1ce.nii.gz")).unlink()
    cases = resolve_conventions(find_cases(folder))
    with pytest.raises(InputError, match=r"00001 lacks t1c"):
        train(cases, tmp_path / "run", config())
    run = train(cases, tmp_path / "dropping", config(epochs=1, drop_modalities=0.3))
    assert load_model(run.best).plan.can_miss
    with pytest.raises(InputError, match=r"00001 lacks t1c"):
        train(run.folder / "cache", tmp_path / "cached", config())
    train(run.folder / "cache", tmp_path / "cached", config(epochs=1, drop_modalities=0.3))
    next(folder.glob("*2/*_seg.nii.gz")).unlink()
    with pytest.raises(InputError, match=r"00001 lacks t1c; BraTS2021_00002 has no mask"):
        train(resolve_conventions(find_cases(folder)), tmp_path / "no", config())


def test_a_run_that_a_bad_case_ended_can_be_started_again(cases: list[Case], tmp_path: Path) -> None:
    """With the corrected case and the same command; the good cases are not prepared again."""
    path = cases[1].images["t2w"].path
    good = path.read_bytes()
    path.write_bytes(good[:500])
    with pytest.raises(InputError, match="BraTS2021_00002"):
        train(cases, tmp_path / "run", config())
    prepared = (tmp_path / "run" / "cache" / "BraTS2021_00001" / "image.npy").stat().st_mtime_ns
    path.write_bytes(good)
    run = train(cases, tmp_path / "run", config(epochs=1))
    assert len(run.rows()) == 1
    assert (run.folder / "cache" / "BraTS2021_00001" / "image.npy").stat().st_mtime_ns == prepared


def test_one_process_at_a_time_trains_into_a_folder(cases: list[Case], tmp_path: Path) -> None:
    """A second training is refused with the process and the time, and the first one is not disturbed."""
    refused: list[str] = []

    class Second(Watcher):
        def on_step(self, moment: Moment) -> None:
            with pytest.raises(InputError, match=rf"process {os.getpid()} on .*since") as error:
                train(cases, tmp_path / "run", config(), resume=True)
            refused.append(str(error.value))

    run = train(cases, tmp_path / "run", config(epochs=1), watcher=Second())
    assert len(refused) == run.rows()[-1]["step"]
    assert str(tmp_path / "run") in refused[0]
    assert not list(run.folder.glob(".writing*")) or sys.platform == "win32"


def test_a_run_is_not_resumed_with_fewer_cases(cases: list[Case], tmp_path: Path) -> None:
    """The cases of its split must all be there, because a resumed run equals one that was not stopped."""
    run = train(cases, tmp_path / "run", config(epochs=1))
    with pytest.raises(InputError, match=r"splits_final\.json: 1 case\(s\) of the run's split"):
        train(cases[1:], run.folder, config(epochs=2), resume=True)


def test_too_few_patients_are_refused(cases: list[Case], tmp_path: Path) -> None:
    """A single patient cannot be split."""
    with pytest.raises(InputError, match="too few"):
        train(cases[:1], tmp_path / "run", config())


def test_an_infinite_loss_stops_the_run(cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the step, the case and a remedy, and no model with NaN is written."""
    monkeypatch.setattr("gliomask.training.learner.build_loss", lambda _: lambda z, t, known: z.sum() * float("nan"))
    with pytest.raises(InputError, match=r"step 1, on BraTS2021_0000\d.*--lr"):
        train(cases, tmp_path / "run", config())
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_the_validation_dice_is_that_of_predict(cases: list[Case], tmp_path: Path) -> None:
    """Predicting the validation case from its files gives the Dice in the log."""
    run = train(cases, tmp_path / "run", config())
    held_out = next(case for case in cases if case.id in run.split()["val"])
    found = predict(load_model(run.last), held_out, inference=Inference(precision="fp32"))
    truth = read_volume(held_out.mask, mask=True).data[0]
    scored = dice(truth > 0, found.labels.data[0] > 0)
    assert run.rows()[-1]["val_dice_WT"] == pytest.approx(scored, abs=1e-6)


def test_the_patch_size_is_rounded_up_for_the_network(cases: list[Case], tmp_path: Path) -> None:
    """A patch of 20 voxels becomes 32 for a network that halves the resolution four times."""
    run = train(cases, tmp_path / "run", config(patch_size=20, epochs=1))
    assert load_model(run.last).plan.patch_size == (32, 32, 32)


def test_two_phantoms_are_learned(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """Training lowers the loss, and the model is better on its training cases than an empty or a full mask."""
    cases = resolve_conventions(find_cases(folder_of(2)))
    changes = {"network": "unet", "patch_size": 32, "patches_per_case": 4, "augment": False, "precision": "auto"}
    settings = config(epochs=8, val_fraction=0, **changes)
    run = train(cases, tmp_path / "run", settings)
    losses = [row["train_loss"] for row in run.rows()]
    assert losses[-1] < losses[0] / 2
    truth = read_volume(cases[0].mask, mask=True).data[0] > 0
    brain = read_volume(cases[0].images["t2f"].path).data[0] > 0
    found = predict(load_model(run.best), cases[0]).labels.data[0] > 0
    assert dice(truth, found) > max(dice(truth, brain), dice(truth, np.zeros_like(truth))) + 0.2
    assert json.loads((run.folder / "config.json").read_text())["network"] == "unet"
    assert torch.isfinite(next(load_torch_model(run.best).network.parameters())).all()


def test_cases_that_hardly_enhance_are_used_more_often(cases: list[Case], tmp_path: Path) -> None:
    """Cases whose ET is smaller than a fiftieth of their TC, or absent, also without TC; the epoch becomes longer."""
    plan = Plan(modalities=("t2f", "t1c", "t2w"), spacing_mm=common_spacing(cases, "LPS"), patch_size=(16, 16, 16))
    prepared, _ = build_cache(cases, tmp_path / "cache", plan)
    counts = [{"TC": 1000, "ET": 0}, {"TC": 1000, "ET": 19}, {"TC": 1000, "ET": 20}, {"TC": 0, "ET": 0}]
    told = [replace(case, voxels=voxels) for case, voxels in zip(prepared, counts, strict=True)]
    ids = [case.id for case in told]
    assert [case.id for case in repeated(told, 3)] == [ids[0]] * 3 + [ids[1]] * 3 + [ids[2]] + [ids[3]] * 3
    assert repeated(told, 1) == told
    run = train(cases, tmp_path / "run", config(epochs=1, repeat_faint=2, lesion_contrast=0.5))
    assert run.rows()[-1]["step"] == 3
