"""A run that starts from a model goes on as it began after that model was moved or replaced."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from gliomask.cases import Case, find_cases, resolve_conventions
from gliomask.errors import InputError
from gliomask.inference.loading import load_torch_model, new_model, save_model
from gliomask.model.plan import Plan
from gliomask.model.sampling import Origin
from gliomask.training.config import TrainConfig, make_config
from gliomask.training.cross_validation import cross_validate
from gliomask.training.loop import train
from gliomask.training.run import START, open_run

ORIGIN = Origin(made_with="another program", license="CC BY 4.0", cite="Somebody 2020")


@pytest.fixture
def cases(folder_of: Callable[..., Path]) -> list[Case]:
    return resolve_conventions(find_cases(folder_of(5)))


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """Return a model of another program, which sees the head from another side than gliomask's own."""
    plan = Plan(modalities=("t2f", "t1c", "t2w"), network="fcn", axes="RAS", patch_size=(16, 16, 16), origin=ORIGIN)
    model = new_model(plan)
    save_model(model, tmp_path / "start.safetensors")
    return tmp_path / "start.safetensors"


def config(start: Path, steps: int, **more: object) -> TrainConfig:
    plan = load_torch_model(start).plan if start.exists() else None
    modalities = plan.modalities if plan else ("t2f", "t1c", "t2w")
    return make_config(
        network="fcn",
        modalities=modalities,
        patch_size=16,
        precision="fp32",
        threads=1,
        start_from=str(start),
        steps=steps,
        **{"val_fraction": 0.4} | more,
    )


@pytest.mark.parametrize("kept", [True, False])
def test_a_resumed_run_keeps_what_its_start_said(cases: list[Case], tmp_path: Path, start: Path, kept: bool) -> None:
    """Orientation, license and citation; also a run of a version that kept no plan of the start."""
    run = train(cases, tmp_path / "run", config(start, 1))
    before = load_torch_model(run.last).plan
    assert before.axes == "RAS"
    assert before.origin == replace_made_with("another program, trained further with gliomask")
    start.unlink()
    if not kept:
        (run.folder / START).unlink()
    resumed = train(cases, run.folder, config(start, 2), resume=True)
    assert load_torch_model(resumed.last).plan == before


def replace_made_with(text: str) -> Origin:
    return ORIGIN.model_copy(update={"made_with": text})


def test_another_model_at_its_place_changes_nothing(cases: list[Case], tmp_path: Path, start: Path) -> None:
    """Its plan is not that of the weights which the run continues."""
    run = train(cases, tmp_path / "run", config(start, 1))
    before = load_torch_model(run.last).plan
    other = load_torch_model(start)
    save_model(replace(other, plan=other.plan.model_copy(update={"axes": "LPS", "origin": None})), start)
    resumed = train(cases, run.folder, config(start, 2), resume=True)
    assert load_torch_model(resumed.last).plan == before


def test_folds_too(cases: list[Case], tmp_path: Path, start: Path) -> None:
    """The fold that begins after the model was moved as well as the one that is resumed."""
    settings = {"val_fraction": 0.2, "folds": 2}
    (run,) = cross_validate(cases, tmp_path / "cv", config(start, 1, **settings), folds=[0])
    before = load_torch_model(run.last).plan
    moved = start.rename(tmp_path / "moved.safetensors")
    with pytest.raises(InputError, match=r"start\.safetensors"):  # its weights are needed
        cross_validate(cases, tmp_path / "cv", config(start, 1, **settings), folds=[0, 1], resume=True)
    moved.rename(start)
    first, second = cross_validate(cases, tmp_path / "cv", config(start, 2, **settings), resume=True)
    assert load_torch_model(first.last).plan == load_torch_model(second.last).plan == before


def test_a_start_that_is_gone_before_the_first_epoch_is_named(cases: list[Case], tmp_path: Path, start: Path) -> None:
    """Without a checkpoint its weights are needed, and nothing is written."""
    settings = config(start, 1)
    start.unlink()
    with pytest.raises(InputError, match=r"start\.safetensors"):
        train(cases, tmp_path / "run", settings)
    assert not (tmp_path / "run").exists()


def test_a_run_that_ended_before_its_first_step_can_be_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with the folder for TensorBoard, which is made first; one that has a log cannot."""

    def events(folder: Path) -> ExitStack:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "events.1").touch()
        return ExitStack()

    monkeypatch.setattr("gliomask.training.run._event_writer", events)
    wanted = TrainConfig(steps=1, tensorboard=True)
    for _ in range(2):
        open_run(tmp_path / "run", wanted, None, resume=False)
    (tmp_path / "run" / "log.jsonl").touch()
    with pytest.raises(InputError, match="already exists and is not empty"):
        open_run(tmp_path / "run", wanted, None, resume=False)
