"""The commands, code, links, paths and tables in the documentation are correct."""

from __future__ import annotations

import ast
import os
import re
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from typer.main import get_command

from gliomask.cli import app
from gliomask.inference.loading import new_model, save_model
from gliomask.model.plan import Plan, TypicalTumour
from test_floors import FLOORS

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "src" / "gliomask"
DESIGN = ROOT / "docs" / "design.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
LINKED = [*PAGES, ROOT / "recipes" / "README.md", ROOT / "benchmarks" / "README.md", ROOT / "MODEL_CARD.md"]


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


def _commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in _blocks(page, "sh"):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(page.name, line.split("#")[0]) for line in lines if line.startswith("gliomask ")]
    return found


def _rows(page: Path, columns: int) -> list[list[str]]:
    """Return the cells of the rows of all tables with so many columns, without the header rows and rules."""
    lines = page.read_text("utf-8").splitlines()
    following = [*lines[1:], ""]
    tables = [line for line, after in zip(lines, following, strict=True) if line[:2] == "| " and after[:2] != "|-"]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in tables]
    return [row for row in rows if len(row) == columns]


def _names(file: Path) -> set[str]:
    """Return the functions and classes that a module defines, and its classes' methods as `Class.method`."""
    found = set()
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return found


@pytest.mark.parametrize(("page", "line"), _commands())
def test_every_command_shown_is_understood(page: str, line: str) -> None:
    """The command's name, its options and their values can be parsed; the command is not run."""
    _, name, *words = shlex.split(line)
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    command.make_context(name, words)


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """The example runs from the phantoms to the scores and writes the files that it names."""
    monkeypatch.chdir(tmp_path)
    for block in _blocks(ROOT / "README.md", "python"):
        exec(compile(block, "README.md", "exec"), {})
    assert re.search(r"^WT +\d\.\d+ ", capsys.readouterr().out, re.MULTILINE)
    assert {path.name for path in (tmp_path / "predictions").iterdir()} == {"first.nii.gz", "first.json", "first.png"}


def test_every_link_of_the_documents_leads_somewhere() -> None:
    """Files and pictures that the pages link to exist, and so does every heading that a link names."""
    for page in LINKED:
        for target, anchor in re.findall(r"\]\(([^)#:]*)(#[^)]*)?\)", page.read_text("utf-8")):
            file = page.parent / target if target else page
            assert file.exists(), f"{page.name}: {target}"
            assert not anchor or anchor[1:] in _anchors(file), f"{page.name}: {target}{anchor}"


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_table_of_rooms_is_that_of_the_floors() -> None:
    """docs/design.md lists every room once, on the floor that the tests hold it to."""
    listed = [(int(floor), room.strip("`")) for floor, room, _ in _rows(DESIGN, 3) if floor.isdigit()]
    assert sorted(listed) == sorted((floor, room) for floor, rooms in FLOORS.items() for room in rooms)


def test_the_ways_of_a_case_and_of_a_training_step_name_what_is_there() -> None:
    """Every function in the tables of docs/design.md is defined in the file beside it."""
    rows = [row for row in _rows(DESIGN, 3) if row[0].endswith(".py`")]
    assert len(rows) >= 30
    for file, name, _ in rows:
        assert name.strip("`") in _names(HOUSE / file.strip("`")), f"{file}: {name}"


def test_the_way_of_a_case_is_in_the_order_of_the_calls(gliomask, folder_of, tmp_path: Path) -> None:
    """`predict` calls the functions in the table of docs/design.md for the first time in the table's order."""
    any_tumour = TypicalTumour(cases=1, piece_mm3=1, least_ml=0, most_pieces=10**6, least_share=0)
    plan = Plan(modalities=("t2f",), can_miss=True, network="fcn", patch_size=(16, 16, 16), typical=any_tumour)
    model = new_model(plan)
    save_model(model, tmp_path / "model.safetensors")
    words = (
        "-m",
        tmp_path / "model.safetensors",
        "-i",
        folder_of(1),
        "-o",
        tmp_path / "masks",
        "--picture",
        "-d",
        "cpu",
    )
    with first_calls() as calls:
        status, printed = gliomask("predict", *words)
    assert status == 0, printed
    assert in_order(listed("The way of a case"), calls)


def test_the_way_of_a_training_step_is_in_the_order_of_the_calls(gliomask, folder_of, tmp_path: Path) -> None:
    """`train` calls the functions in the tables of docs/design.md for the first time in the tables' order."""
    words = (folder_of(3), "-o", tmp_path / "run", "--network", "fcn", "--patch-size", 16, "--epochs", 1)
    with first_calls() as calls:
        status, printed = gliomask("train", *words)
    assert status == 0, printed
    assert in_order(listed("The way of a training step"), calls)


def listed(section: str) -> list[tuple[str, str]]:
    """Return the files and functions in the tables of a section of docs/design.md; classes are left out."""
    text = DESIGN.read_text("utf-8").partition(f"## {section}")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\S+\.py)` \| `(\S+)` \|", text, re.MULTILINE)
    return [(file, name.rpartition(".")[2]) for file, name in rows if not name[0].isupper() or "." in name]


@contextmanager
def first_calls() -> Iterator[list[tuple[str, str]]]:
    """Collect the package's functions that are called in any thread, as (file, name), in the order of first calls."""
    calls: dict[tuple[str, str], None] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(f"{HOUSE}{os.sep}"):
            calls.setdefault((Path(path).relative_to(HOUSE).as_posix(), frame.f_code.co_name))

    found: list[tuple[str, str]] = []
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    found += calls


def in_order(names: list[tuple[str, str]], calls: list[tuple[str, str]]) -> bool:
    """Return whether all names were called, and first in this order."""
    places = [calls.index(name) for name in names]
    return places == sorted(places)


@pytest.mark.parametrize("page", [DESIGN, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_every_module_that_a_page_names_exists(page: Path) -> None:
    """Paths such as `cases/find.py` are given from the package's folder or from the repository's."""
    paths = re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|toml|txt|json))`", page.read_text("utf-8"))
    assert paths
    missing = [path for path in paths if not ((HOUSE / path).exists() or (ROOT / path).exists())]
    assert not missing


def test_research_use_is_said_plainly() -> None:
    """The README and the help say that gliomask is not a medical device."""
    assert "Not a medical device" in (ROOT / "README.md").read_text("utf-8")
    assert "not a medical device" in str(get_command(app).help)


def _messages() -> str:
    """Return the texts of the package's string literals, a line each, with `{}` for inserted values."""
    found = []
    for path in sorted(HOUSE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


@pytest.mark.parametrize("page", ["data.md", "predicting.md"])
def test_the_messages_that_a_page_quotes_are_printed(page: str) -> None:
    """At least a third of the sequences of three words in every quoted message are in a message of the package."""
    cells = [row[0] for columns in (2, 3) for row in _rows(ROOT / "docs" / page, columns)]
    quoted = [quote for cell in cells for quote in re.findall(r"`([^`]+)`", cell) if len(_words(quote)) >= 4]
    assert len(quoted) >= 10
    printed = {three for message in _messages() for three in _threes(message)}
    unlike = [quote for quote in quoted if len(_threes(quote) & printed) < len(_threes(quote)) / 3]
    assert not unlike


def _messages() -> list[str]:
    """Return the string literals of the package, with a bar for each inserted value."""
    found = []
    for path in sorted(HOUSE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "|" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def _words(text: str) -> list[str]:
    """Return the words of a text, and a bar for each value in it: a number, a name, or what is in parentheses."""
    values = r"\(.*?\)|-?\d[\d.]*%?|\b(?:t1n|t1c|t2w|t2f|ED|NCR|ET|msd)\b"
    return re.findall(r"[a-z]+|\|", re.sub(values, "|", text), re.IGNORECASE)


def _threes(text: str) -> set[tuple[str, ...]]:
    words = _words(text)
    threes = zip(words, words[1:], words[2:], strict=False)
    return {three for three in threes if "|" not in three}
