"""What the README tells people to type works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from gliomask.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


def _commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in _blocks(page, "sh"):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(page.name, line.split("#")[0]) for line in lines if line.startswith("gliomask ")]
    return found


@pytest.mark.parametrize(("page", "line"), _commands())
def test_every_command_shown_is_understood(page: str, line: str) -> None:
    """Its name, its options and their values parse; it is not run."""
    _, name, *words = shlex.split(line)
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    command.make_context(name, words)


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """From phantoms to scores."""
    monkeypatch.chdir(tmp_path)
    for block in _blocks(ROOT / "README.md", "python"):
        exec(compile(block, "README.md", "exec"), {})
    assert "dice_mean" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "predictions").iterdir()} == {"first.nii.gz", "first.json", "first.png"}


def test_every_link_of_the_documents_leads_somewhere() -> None:
    """Files and pictures named in the pages exist."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_research_use_is_said_plainly() -> None:
    """In the README, the help and the pictures."""
    assert "Not a medical device" in (ROOT / "README.md").read_text("utf-8")
    assert "not a medical device" in str(get_command(app).help)
