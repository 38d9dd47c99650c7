"""Odd paths on the command line: every command that takes one ends with a message, and prints the path harmlessly."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from gliomask.cli import app

COMMANDS: dict[str, tuple[str, ...]] = {
    "check": ("check", "{path}"),
    "preprocess": ("preprocess", "{path}", "-o", "{tmp}/out"),
    "prepare": ("prepare", "{path}", "-o", "{tmp}/out"),
    "train": ("train", "{path}", "-o", "{tmp}/out"),
    "train from": ("train", "{tmp}/empty", "-o", "{tmp}/out", "--from", "{path}"),
    "resume": ("train", "-o", "{path}", "--resume"),
    "predict a folder": ("predict", "-i", "{path}", "-o", "{tmp}/out"),
    "predict a file": ("predict", "--flair", "{path}", "-o", "{tmp}/out"),
    "predict raw": ("predict", "--raw", "-i", "{path}", "-o", "{tmp}/out"),
    "predict with": ("predict", "-m", "{path}", "--flair", "{tmp}/none", "-o", "{tmp}/out"),
    "evaluate": ("evaluate", "{path}", "{path}"),
    "compare": ("compare", "{path}", "-o", "{tmp}/out"),
    "compare-scores": ("compare-scores", "{path}", "{path}"),
    "report a case": ("report", "{path}", "{path}"),
    "report a run": ("report", "{path}"),
    "report scores": ("report", "{path}.csv"),
    "view": ("view", "{path}", "--no-browser"),
    "view a file": ("view", "--flair", "{path}", "--no-browser"),
    "serve": ("serve", "--store", "{tmp}/store", "--token-file", "{path}"),
    "export": ("export", "-m", "{path}", "-o", "{tmp}/out.onnx"),
    "join": ("join", "{path}", "{path}", "-o", "{tmp}/out.safetensors"),
    "info": ("info", "{path}"),
    "rank": ("rank", "{path}"),
    "table": ("table", "{path}"),
    "tune": ("tune", "{path}", "-o", "{tmp}/out.safetensors"),
    "convert": ("convert", "{path}", "-o", "{tmp}/out", "--layout", "msd"),
    "import": ("import", "{path}", "-o", "{tmp}/out.safetensors"),
    "docs": ("docs", "{path}", "--print"),
}

NAMES: dict[str, str] = {
    "closing markup": "[/b]",
    "markup": "[red]x[bold]",
    "escape codes": "\x1b[31m\x1b]0;title\x07",
    "line breaks": "a\nb\rc",
    "reversed text": "\u202ezii.nii",
    "emoji code": ":smile:",
    "format codes": "%s{0}{x}%",
    "bytes that are no text": os.fsdecode(b"\xff\xfe.nii.gz"),
    "one dash": "-dash",
    "two dashes": "--dashes",
    "too long": "n" * 300,
    "a space": " ",
    "backslashes": "\\x1b\\",
}


def _make(kind: str, path: Path) -> None:
    try:
        if kind == "a folder":
            path.mkdir(parents=True)
            (path / "x_t1.nii.gz").write_bytes(b"\x1f\x8b\xff")
            (path / "config.json").write_bytes(b"{\xff")
        elif kind == "a file":
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"\x1f\x8b\xff\x00")
    except (OSError, ValueError, UnicodeError):
        pytest.skip("this file system has no such name")


def test_every_command_that_reads_a_path_is_tried() -> None:
    """The others only write."""
    tried = {words[0] for words in COMMANDS.values()}
    assert tried == set(get_command(app).commands) - {"demo", "phantom"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["nothing", "a file", "a folder"])
def test_an_odd_path_is_a_message(gliomask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, kind: str):
    """For every name: exit status 1 or 2, no traceback, no fault, and no character that acts on a terminal."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for number, name in enumerate(NAMES.values()):
        place = tmp_path / str(number)
        place.mkdir()
        monkeypatch.chdir(place)
        if len(name) < 255 and not (sys.platform != "linux" and not name.isprintable()):
            _make(kind, place / name)
        path = name if name.startswith("-") else str(place / name)  # a dash first, as a shell's * gives it
        status, said = gliomask(*(word.format(path=path, tmp=tmp_path) for word in COMMANDS[command]))
        assert status in (1, 2), (name, said)
        assert "Traceback" not in said
        assert "fault of gliomask" not in said, (name, said)
        assert all(character.isprintable() or character in "\n " for character in said), (name, said)
        assert len(said.splitlines()) <= 12, (name, said)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that takes any bytes as a name")
def test_odd_case_ids_go_all_the_way(gliomask, model_file: Path, tmp_path: Path) -> None:
    """Every command that reads cases or writes their ids does so, and prints nothing that acts on a terminal."""
    data, masks = tmp_path / "odd", tmp_path / "masks"
    for number, case in enumerate(("P\udcff\udce9", "=[b]\x1b[31m$\\x{}"), 1):
        (data / case).mkdir(parents=True)
        for path in (tmp_path / "data" / f"BraTS2021_0000{number}").iterdir():
            path.rename(data / case / path.name.replace(f"BraTS2021_0000{number}", case))
    train = ("--network", "fcn", "--patch-size", 16, "--steps", 2, "--labels", "brats2021", "--val-fraction", 0.5)
    for words in (
        ("check", data, "-v", "--labels", "brats2021"),
        ("check", data, "--json", "--labels", "brats2021"),
        ("prepare", data, "-o", tmp_path / "cache", "--labels", "brats2021"),
        ("train", data, "-o", tmp_path / "run", *train),
        ("predict", "-m", model_file, "-i", data, "-o", masks, "--picture"),
        ("evaluate", masks, data, "-o", tmp_path / "a.csv", "-o", tmp_path / "c.json", "--truth-labels", "brats2021"),
        ("compare-scores", tmp_path / "a.csv", tmp_path / "c.json", "-o", tmp_path / "b.csv"),
        ("report", data, masks, "--labels", "brats2021"),
        ("report", tmp_path / "a.csv"),
        ("report", tmp_path / "run"),
    ):
        status, said = gliomask(*words)
        assert status == 0, (words, said)
        assert all(character.isprintable() or character in "\n " for character in said), (words, said)
    for path in (*tmp_path.glob("*.csv"), *tmp_path.glob("*.json"), *tmp_path.rglob("*.html")):
        assert path.read_text("utf-8")
