"""The files of a run folder: logs are valid JSON, and damaged files are named."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from gliomask.errors import InputError
from gliomask.training.config import make_config
from gliomask.training.record import best_row, read_config, read_log, read_run_split, write_log

ROW = {
    **{"epoch": 1, "step": 5, "hours": 0.1, "learning_rate": 1e-3, "train_loss": 0.5},
    **{"train_seconds": 2.0, "peak_memory_gb": 1.5, "val_dice": 0.25},
}


def strict(text: str) -> object:
    """Parse JSON by the standard, which knows neither NaN nor Infinity."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def test_a_log_is_json_whatever_the_numbers(tmp_path: Path) -> None:
    """Values that are not finite become null and are read back as NaN; the others come back unchanged."""
    rows = [ROW, {**ROW, "epoch": 2, "peak_memory_gb": math.nan, "train_loss": math.inf}]
    write_log(tmp_path, rows)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert strict(lines[0]) == ROW
    assert strict(lines[1]) == {**rows[1], "peak_memory_gb": None, "train_loss": None}
    read = read_log(tmp_path)
    assert read[0] == ROW
    assert all(math.isnan(read[1][key]) for key in ("peak_memory_gb", "train_loss"))
    (tmp_path / "log.jsonl").write_text(json.dumps({**ROW, "train_loss": math.nan}) + "\n")  # as version 0.1 wrote it
    assert math.isnan(read_log(tmp_path)[0]["train_loss"])


def test_the_best_epoch_has_the_highest_dice() -> None:
    """An epoch whose Dice is not a number is never the best; without validation the last epoch is."""
    rows = [{**ROW, "val_dice": dice} for dice in (math.nan, 0.25, 0.75, 0.5)]
    assert best_row(rows) is rows[2]
    assert best_row(rows[:1]) is rows[0]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("{", "line 2"),
        ("[1]", "an object"),
        (json.dumps({**ROW, "epoch": None}), "'epoch'"),
        (json.dumps({**ROW, "step": "5"}), "'step'"),
        (json.dumps({**ROW, "train_loss": True}), "'train_loss'"),
        (json.dumps({key: value for key, value in ROW.items() if key != "hours"}), "'hours'"),
        ("[" * 100_000, "nested|recursion"),
        ("\x00", "line 2"),
    ],
)
def test_a_damaged_log_is_named_with_its_line(tmp_path: Path, line: str, cause: str) -> None:
    """Wherever the damage is."""
    (tmp_path / "log.jsonl").write_text(f"{json.dumps(ROW)}\n{line}\n")
    with pytest.raises(InputError, match=rf"log\.jsonl: cannot be read: .*{cause}"):
        read_log(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"[{}]", b'[{"train": "a", "val": []}]', b'[{"train": ["a"], "val": ["a"]}]', b"\xff\xfe", b"7"],
)
def test_a_damaged_split_is_named(tmp_path: Path, content: bytes) -> None:
    """It is the file that decides which cases are trained on."""
    (tmp_path / "splits_final.json").write_bytes(content)
    with pytest.raises(InputError, match=r"splits_final\.json: cannot be read"):
        read_run_split(tmp_path, 0)
    (tmp_path / "splits_final.json").write_text('[{"train": ["a"], "val": ["b"]}]')
    assert read_run_split(tmp_path, 0) == {"train": ["a"], "val": ["b"]}
    with pytest.raises(InputError, match="fold 1 is needed"):
        read_run_split(tmp_path, 1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'"text"',
        b'{"network": 5}',
        b'{"unknown": 1}',
        b"\xff",
        b'{"network": "unte"}',
        b'{"loss": "\\u0000"}',
        b'{"modalities": ["flare"]}',
    ],
)
def test_a_damaged_config_is_named(tmp_path: Path, content: bytes) -> None:
    """Whatever it holds instead."""
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json: "):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text(make_config(epochs=3).model_dump_json())
    assert read_config(tmp_path) == make_config(epochs=3)
