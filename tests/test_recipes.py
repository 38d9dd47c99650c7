"""The recipes run as documented, from cases to the model card, and all scripts import names that exist."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from gliomask.inference.ensembling import split_model
from gliomask.inference.loading import load_torch_model
from gliomask.model.file import read_plan, read_training
from gliomask.phantom import write_phantoms
from gliomask.training.run import load_run

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "recipes"
SCRIPTS = sorted(path for folder in ("benchmarks", "docs", "recipes") for path in (ROOT / folder).glob("*.py"))
CASES = 6
HELD_OUT = 3


def recipe(name: str, *arguments: object) -> str:
    """Run a script and return its stdout."""
    command = [sys.executable, str(RECIPES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{name}: {done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_recipes_lead_from_cases_to_a_shipped_model_and_its_card(tmp_path: Path) -> None:
    """Each script works on what the previous one wrote, on small phantoms and networks trained for a step or two."""
    cases, out = tmp_path / "cases", tmp_path / "out"
    write_phantoms(cases, CASES, size=48)
    recipe("default_model.py", cases, "-o", out, "--hours", 0.0003, "--val-fraction", 0.5)
    cache = out / "fast" / "patches" / "cache"
    split = out / "fast" / "patches" / "splits_final.json"
    held_out = json.loads(split.read_text())[0]["val"]
    assert len(held_out) == HELD_OUT
    model, fitted = out / "held_out.safetensors", tmp_path / "fitted.safetensors"
    results, cleaned, rules = (tmp_path / f"{name}.json" for name in ("results", "cleaned", "rules"))
    recipe("predict_out_of_fold.py", cases, "-m", model, "--split", split, "-o", tmp_path / "oof")
    assert sorted(path.stem for path in (tmp_path / "oof").iterdir()) == sorted(held_out)
    recipe("fit_postprocessing.py", tmp_path / "oof", "-o", rules, "--model", model, "--write", fitted)
    assert read_plan(fitted).postprocessing.model_dump() == json.loads(rules.read_text())["postprocessing"]

    quality = tmp_path / "quality.json"
    said = recipe("fit_quality.py", f"t1n+t1c+t2w+t2f={tmp_path / 'oof'}", "-o", quality, "--model", fitted)
    assert json.loads(quality.read_text()) == {}  # two cases say nothing
    assert said.count("are too few") == 3

    windows = ("--windows", "whole", "sliding", "mirrors")
    recipe("score_model.py", model, cache, "--split", split, "-o", results, "--subsets", "full", *windows)
    recipe("score_model.py", fitted, cache, "--split", split, "-o", cleaned)
    rows = json.loads(cleaned.read_text())["rows"]
    assert len(rows) == 15 * HELD_OUT
    assert {row["case"] for row in rows} == set(held_out)

    averaged = tmp_path / "averaged.safetensors"
    recipe("average_weights.py", model, out / "joined.safetensors", "--share", 0, "-o", averaged)
    ours, theirs = (load_torch_model(path).network.state_dict() for path in (averaged, model))
    assert all(torch.equal(weights, theirs[name]) for name, weights in ours.items())

    shipped, card = tmp_path / "shipped.safetensors", tmp_path / "card.md"
    typical, robustness = tmp_path / "typical.json", tmp_path / "robustness.json"
    recipe("fit_plausibility.py", cache, "-o", typical)
    recipe("measure_robustness.py", fitted, cache, "--split", split, "-o", robustness)
    assert len(json.loads(robustness.read_text())["rows"]) == 9 * HELD_OUT
    further = tmp_path / "further"
    options = ("--start", out / "joined.safetensors", "--split", split, "--threads", 1, "--stop-before", "whole")
    recipe("default_model.py", cache, "-o", further, "--hours", 0.0003, *options)
    for network, before in zip(("fast", "fast_sides"), split_model(out / "joined.safetensors"), strict=True):
        start = load_torch_model(further / f"start_{network}.safetensors").network.state_dict()
        assert all(torch.equal(start[name], value) for name, value in before.network.state_dict().items())
        run = load_run(further / network / "patches")
        assert run.config.start_from == str(further / f"start_{network}.safetensors")
        assert run.split()["val"] == held_out

    note = "trained in a test"
    options = ("--rules", rules, "--results", cleaned, "--typical", typical, "--before", model, "--note", note)
    recipe("ship.py", out, *options, "-o", shipped)
    assert read_training(shipped)["note"] == note
    assert read_plan(shipped).typical is not None
    assert read_plan(shipped).postprocessing == read_plan(fitted).postprocessing
    assert f"on {HELD_OUT} cases before the last stage" in read_training(shipped)["held out"]
    recipe("card.py", shipped, results, cleaned, rules, "--robustness", robustness, "-o", card)
    assert all(name in card.read_text("utf-8") for name in held_out)  # in the table of the worst
    lines = recipe("measure_contrast.py", cache, "--results", cleaned).splitlines()
    assert len(lines) == CASES + 2
    assert sum(line.count(", ") == 2 for line in lines[1:]) == HELD_OUT


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_a_script_imports_from_gliomask_exists(script: Path) -> None:
    """Scripts that only run on real cases or for minutes are held to the current names too."""
    for node in ast.walk(ast.parse(script.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "gliomask":
            module = import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name) or find_spec(f"{node.module}.{alias.name}"), alias.name
