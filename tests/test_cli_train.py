"""gliomask train on the command line: options, lengths, resuming, starting from a model, folds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import Field
from typer.main import get_command
from typer.testing import CliRunner

from gliomask.cases import find_cases, get_modality
from gliomask.cli.train import train as train_command
from gliomask.cli.train_options import add_options
from gliomask.errors import InputError
from gliomask.inference.loading import load_torch_model
from gliomask.training.cache import build_cache
from gliomask.training.config import TrainConfig, make_config
from gliomask.training.loop import train
from gliomask.training.options import Option, Panel, flag_of
from gliomask.training.run import load_run, make_plan

TINY = ("--network", "fcn", "--patch-size", "16", "--lr", "3e-3", "--precision", "fp32")


# Fields that are set in Python or by a flag of another meaning (`--fold 0,2` names several).
NOT_OPTIONS = {"cases", "network_arguments", "fold"}


def options(command: Callable[..., None]) -> dict[str, Any]:
    """The parameters of a command, by name, as Typer makes them."""
    app = typer.Typer()
    app.command()(command)
    return {option.name: option for option in get_command(app).params}


def test_every_field_of_the_config_is_an_option_with_a_help() -> None:
    """Its flag, help and default are those that the field states."""
    shown = options(train_command)
    for name, field in TrainConfig.model_fields.items():
        if name in NOT_OPTIONS:
            continue
        assert name in shown, f"annotate the field {name!r} of TrainConfig with an Option"
        assert flag_of(name, field) in shown[name].opts
        assert shown[name].help.strip()
        if name != "modalities":
            assert shown[name].default == field.default, name
    assert make_config(modalities=tuple(map(get_modality, shown["modalities"].default.split(",")))) == TrainConfig()


def test_a_new_field_is_all_that_a_new_option_takes() -> None:
    """Its type, range, default, help and panel reach the command line."""

    class Longer(TrainConfig):
        warm_up: Annotated[int, Field(ge=1, le=9), Option("Steps at a rising rate.", Panel.LEARNING)] = 5
        shape: Annotated[Literal["round", "square"] | None, Option("Of something.", flag="--form")] = None

    def command(output: Path, **settings: Any) -> None:
        seen.update(settings, output=output)

    seen: dict[str, Any] = {}
    add_options(command, Longer.model_fields)
    assert options(command)["warm_up"].rich_help_panel == Panel.LEARNING.value
    app = typer.Typer()
    app.command()(command)
    runner = CliRunner()
    assert runner.invoke(app, ["there", "--warm-up", "7", "--form", "round", "--budget", "2h"]).exit_code == 0
    assert (seen["warm_up"], seen["shape"], seen["budget_seconds"], seen["output"]) == (7, "round", "2h", Path("there"))
    assert runner.invoke(app, ["there"]).exit_code == 0
    assert (seen["warm_up"], seen["shape"], seen["epochs"]) == (5, None, None)
    assert runner.invoke(app, ["there", "--warm-up", "10"]).exit_code == 2


def test_a_run_is_resumed_without_repeating_its_settings(gliomask, folder_of, tmp_path: Path) -> None:
    """The run has its cases and settings; a new length is accepted, another setting is refused."""
    run = tmp_path / "run"
    assert gliomask("train", folder_of(4), "-o", run, *TINY, "--steps", 4)[0] == 0
    status, said = gliomask("train", "-o", run, "--resume", "--epochs", 3)
    assert status == 0, said
    assert load_run(run).rows()[-1]["epoch"] == 3
    assert load_run(run).config.network == "fcn"
    status, said = gliomask("train", "-o", run, "--resume", "--lr", "1e-5")
    assert (status, "lr was 0.003" in said) == (2, True)


def test_a_resumed_run_keeps_the_numbers_of_its_masks(gliomask, folder_of, tmp_path: Path) -> None:
    """`--labels` is one of its settings; what an older run did not record is asked for; nothing is prepared anew."""
    run, folder = tmp_path / "run", folder_of(4, "brats2023")
    words = ("train", folder, "-o", run, *TINY, "--labels", "msd")
    assert gliomask(*words, "--steps", 1)[0] == 0
    before = (run / "cache").rglob("case.json")
    facts = {path: path.read_bytes() for path in before}
    assert b'"msd"' in next(iter(facts.values()))
    status, said = gliomask("train", "-o", run, "--resume", "--steps", 2)
    assert status == 0, said
    assert load_torch_model(run / "last.safetensors").plan.convention == "msd"
    status, said = gliomask("train", "-o", run, "--resume", "--steps", 3, "--labels", "brats2023")
    assert (status, "in the numbers of msd" in said) == (2, True), said
    settings = json.loads((run / "config.json").read_text())
    del settings["labels"]  # as versions before it was a setting wrote it
    (run / "config.json").write_text(json.dumps(settings))
    status, said = gliomask("train", "-o", run, "--resume", "--steps", 3)
    assert (status, "Resume with --labels msd" in said) == (2, True), said
    status, said = gliomask("train", "-o", run, "--resume", "--steps", 3, "--labels", "msd")
    assert status == 0, said
    assert {path: path.read_bytes() for path in facts} == facts


def test_a_run_whose_cases_have_moved_continues_from_its_cache(gliomask, folder_of, tmp_path: Path) -> None:
    """It says so; a folder that is named and does not exist is still refused."""
    run, folder = tmp_path / "run", folder_of(4)
    assert gliomask("train", folder, "-o", run, *TINY, "--steps", 2)[0] == 0
    folder.rename(tmp_path / "elsewhere")
    status, said = gliomask("train", "-o", run, "--resume", "--steps", 3)
    assert status == 0, said
    assert "no longer exists" in said
    assert load_run(run).rows()[-1]["step"] == 3
    assert gliomask("train", folder, "-o", run, "--resume", "--steps", 4)[0] == 2


@pytest.mark.parametrize("kind", ["cases", "cache"])
def test_a_run_started_in_python_is_resumed_in_a_terminal(gliomask, folder_of, tmp_path: Path, kind: str) -> None:
    """Whether it was given cases or a cache; if no cases are prepared any more, their folder is asked for."""
    cases = find_cases(folder_of(4))
    settings = TrainConfig(network="fcn", patch_size=16, epochs=1, precision="fp32")
    plan = make_plan(settings, cases)
    if kind == "cache":
        build_cache(cases, tmp_path / "prepared", plan)
    train(tmp_path / "prepared" if kind == "cache" else cases, tmp_path / "run", settings)
    status, said = gliomask("train", "-o", tmp_path / "run", "--resume", "--epochs", 2)
    assert status == 0, said
    assert len(load_run(tmp_path / "run").rows()) == 2
    if kind == "cases":
        shutil.rmtree(tmp_path / "run" / "cache")
        status, said = gliomask("train", "-o", tmp_path / "run", "--resume", "--epochs", 3)
        assert (status, "name the folder of cases" in said) == (2, True)


def test_a_budget_is_kept(folder_of, tmp_path: Path) -> None:
    """A real process told to take 12 seconds: it has trained, validated and ended in time."""
    words = ["train", folder_of(4), "-o", tmp_path / "run", *TINY, "--budget", "12s", "--patches-per-case", "2"]
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "gliomask", *map(str, words)], check=True, capture_output=True)
    rows = load_run(tmp_path / "run").rows()
    assert "val_dice" in rows[-1]
    assert rows[-1]["step"] >= 1
    assert 9 < 3600 * rows[-1]["hours"] < 60  # with other work on the machine the last validation may take long
    assert rows[-1]["learning_rate"] < 1e-3
    assert time.monotonic() - started > 9


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("1.5h", 5400), ("2 h 5 min", 7500)],
)
def test_times_are_read_in_common_notations(text: str, seconds: float) -> None:
    """With units; a bare number is refused because it could mean any unit."""
    assert make_config(budget_seconds=text).budget_seconds == seconds
    with pytest.raises(InputError, match="--budget"):
        make_config(budget_seconds=text + "7")


def test_a_model_can_be_tuned_on_other_sequences(gliomask, folder_of, tmp_path: Path) -> None:
    """The network and its weights are those of the model; another network is refused."""
    folder = folder_of(4)
    assert gliomask("train", folder, "-o", tmp_path / "old", *TINY, "--steps", 3)[0] == 0
    model = tmp_path / "old" / "last.safetensors"
    tuned = ("train", folder, "-o", tmp_path / "new", "--from", model, *TINY[2:], "--modalities", "t1,flair,t1ce")
    status, said = gliomask(*tuned, "--steps", 1, "--lr", "1e-9", "--schedule", "constant")
    assert status == 0, said
    before, after = load_torch_model(model), load_torch_model(tmp_path / "new" / "last.safetensors")
    assert after.plan.network == "fcn"
    assert after.plan.modalities == ("t1n", "t2f", "t1c")
    first = [next(iter(m.network.state_dict().values())) for m in (before, after)]
    assert first[1][:, 0].abs().max() < 1e-6
    assert (first[1][:, 1] - first[0][:, 0]).abs().max() < 1e-6
    status, said = gliomask("train", folder, "-o", tmp_path / "other", "--from", model, "--network", "unet")
    assert (status, "network 'fcn', not 'unet'" in said) == (2, True)


def test_folds_are_trained_and_averaged(gliomask, folder_of, tmp_path: Path) -> None:
    """One command trains all folds, and their models predict together as an ensemble."""
    folder, cv = folder_of(4), tmp_path / "cv"
    status, said = gliomask("train", folder, "-o", cv, *TINY, "--steps", 2, "--folds", 2, "--fold", "1")
    assert status == 0, said
    status, said = gliomask("train", "-o", cv, "--resume", "--fold", "all")
    assert status == 0, said
    assert "fold0: best epoch" in said
    models = sorted(cv.glob("fold*/best.safetensors"))
    assert len(models) == 2
    status, said = gliomask("predict", "-i", folder, "-o", tmp_path / "out", "-m", *models)
    assert status == 0, said
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 4


def test_fold_names_a_split_of_a_file(gliomask, folder_of, tmp_path: Path) -> None:
    """That split is trained and is kept when the run is resumed; a number that the file does not have is refused."""
    folder, file = folder_of(4), tmp_path / "splits.json"
    ids = sorted(path.name for path in folder.iterdir())
    splits = [{"train": ids[:2], "val": ids[2:]}, {"train": ids[1:], "val": ids[:1]}]
    file.write_text(json.dumps(splits))
    words = ("train", folder, *TINY, "--steps", 1, "--split", file)
    status, said = gliomask(*words, "-o", tmp_path / "run", "--fold", 1)
    assert status == 0, said
    assert "split 1 of 2 is used" in said
    assert load_run(tmp_path / "run").split() == splits[1]
    status, said = gliomask("train", "-o", tmp_path / "run", "--resume", "--steps", 2)
    assert status == 0, said
    assert load_run(tmp_path / "run").config.fold == 1
    assert gliomask(*words, "-o", tmp_path / "first")[0] == 0
    assert load_run(tmp_path / "first").split() == splits[0]
    for more, word in ((("--fold", 2), "--fold 2 is asked for"), (("--fold", "0,1"), "one split at a time")):
        status, said = gliomask(*words, "-o", tmp_path / "no", *more)
        assert (status, word in said) == (2, True), said
    status, said = gliomask("train", folder, "-o", tmp_path / "none", "--fold", 1)
    assert (status, "--folds or the splits of --split" in said) == (2, True)


def test_patience_stops_a_training_early(gliomask, folder_of, tmp_path: Path) -> None:
    """With a learning rate near zero no validation improves on the first, so training ends after the third."""
    status, said = gliomask(
        "train", folder_of(4), "-o", tmp_path / "run", *TINY[:4], "--lr", "1e-12", "--epochs", 50, "--patience", 2
    )
    assert status == 0, said
    assert len(load_run(tmp_path / "run").rows()) == 3


def test_the_log_is_also_written_for_tensorboard(gliomask, folder_of, tmp_path: Path) -> None:
    """As a file of events; if TensorBoard is not installed, the message names it before any work is done."""
    status, said = gliomask("train", folder_of(4), "-o", tmp_path / "run", *TINY, "--steps", 1, "--tensorboard")
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        assert (status, "pip install tensorboard" in said) == (2, True)
        assert not (tmp_path / "run" / "last.safetensors").exists()
        return
    assert status == 0, said
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


_FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.argv = ["gliomask", *sys.argv[1:]]
from gliomask.cli import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs the file size limits of Unix")
def test_a_full_disk_leaves_the_last_checkpoint_intact(gliomask, folder_of, tmp_path: Path) -> None:
    """Wherever in the file the disk fills up: an error message, status 1, and the run can be resumed."""
    run = tmp_path / "run"
    assert gliomask("train", folder_of(4), "-o", run, *TINY, "--epochs", 1)[0] == 0
    kept = {path.name: path.read_bytes() for path in run.iterdir() if path.suffix in (".pt", ".safetensors")}
    size = (run / "checkpoint.pt").stat().st_size
    for limit in (size // 10, size // 2, size - 1):
        words = [sys.executable, "-c", _FULL.format(limit=limit), "train", "-o", str(run), "--resume", "--epochs", "2"]
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
        assert ended.returncode == 1, ended.stderr
        assert "free some space" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert (run / "checkpoint.pt").read_bytes() == kept["checkpoint.pt"]
        assert not list(run.glob(".partial-*"))
    status, said = gliomask("train", "-o", run, "--resume", "--epochs", 2)
    assert status == 0, said
    assert len(load_run(run).rows()) == 2
