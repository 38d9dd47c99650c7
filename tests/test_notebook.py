"""The notebook's outputs belong to its code, it runs, and it contains no traces of the machine that ran it."""

from __future__ import annotations

import base64
import json
import re
import shlex
import struct
import sys
from pathlib import Path

import pytest
from nbformat import NotebookNode
from typer.main import get_command

from gliomask.cli import app

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

from make_notebook import NOTEBOOK, digest, execute, read, tidy  # noqa: E402 (needs the path above)

_MOST_BYTES = 1_000_000
_OF_A_MACHINE = r"(?<![\w.])/(home|root|tmp|usr|work|Users|var|opt|private)/|[A-Z]:\\|20\d\d-\d\d-\d\dT|\d\d:\d\d:\d\d"


@pytest.fixture(scope="module")
def notebook() -> NotebookNode:
    return read()


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: NotebookNode) -> list[str]:
    """Return the types of the outputs of a cell, such as `image/png` and `stdout`."""
    return [kind for output in cell.outputs for kind in sorted(output.get("data", {output.get("name", "error"): None}))]


def test_its_outputs_are_those_of_its_cells(notebook: NotebookNode) -> None:
    """All cells were executed in order and none has been changed since then; otherwise, run `make notebook`."""
    assert notebook.metadata.executed == digest(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    pictures = sum(kinds(cell).count("image/png") for cell in cells)
    assert pictures >= 5
    assert sum(kinds(cell).count("stdout") for cell in cells) >= 5


def test_a_changed_cell_is_noticed(notebook: NotebookNode) -> None:
    """The digest depends on the code only, so the text can be edited without executing the notebook again."""
    other = NotebookNode(cells=[NotebookNode(cell) for cell in notebook.cells])
    other.cells[0] = NotebookNode({**other.cells[0], "source": "# Other words"})
    assert digest(other) == digest(notebook)
    place = next(n for n, cell in enumerate(other.cells) if cell.cell_type == "code")
    other.cells[place] = NotebookNode({**other.cells[place], "source": "1 + 1"})
    assert digest(other) != digest(notebook)


def test_it_is_small_and_says_nothing_of_a_machine(notebook: NotebookNode) -> None:
    """It contains no absolute paths, times of day or warnings, and is small."""
    assert NOTEBOOK.stat().st_size < _MOST_BYTES
    texts = [json.dumps({**cell.metadata}) for cell in notebook.cells] + [json.dumps(notebook.metadata)]
    for cell in code_cells(notebook):
        for output in cell.outputs:
            assert output.get("name") != "stderr", output
            texts.append("".join(output.get("text", "")))
            texts += [text for kind, text in output.get("data", {}).items() if kind != "image/png"]
    assert not [text for text in texts if re.search(_OF_A_MACHINE, text)]


def test_every_command_in_it_is_understood(notebook: NotebookNode) -> None:
    """The commands, their options and values can be parsed; they are not run."""
    lines = []
    for cell in notebook.cells:
        for block in re.findall(r"```sh\n(.*?)```", cell.source, re.DOTALL):
            lines += [line for line in block.replace("\\\n", " ").splitlines() if line.startswith("gliomask ")]
    assert len(lines) >= 10
    for line in lines:
        _, name, *words = shlex.split(line)
        get_command(app).commands[name].make_context(name, words)  # type: ignore[attr-defined]


def test_every_link_in_it_leads_somewhere(notebook: NotebookNode) -> None:
    """The pages that the text links to exist."""
    for cell in notebook.cells:
        for target in re.findall(r"\]\(([^)#:]+)\)", cell.source):
            assert (NOTEBOOK.parent / target).exists(), target


@pytest.mark.slow
def test_it_runs(notebook: NotebookNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder, every cell gives outputs of the same types as before, with pictures of the same size."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):  # nothing is left in the home folder
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    (tmp_path / "here").mkdir()
    done = tidy(execute(read(), tmp_path / "here"))
    for cell, kept in zip(code_cells(done), code_cells(notebook), strict=True):
        assert cell.source == kept.source
        assert kinds(cell) == kinds(kept), cell.source
        for output, other in zip(cell.outputs, kept.outputs, strict=True):
            if "image/png" in output.get("data", {}):
                assert size_of(output) == pytest.approx(size_of(other), rel=0.1)
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["ten_minutes"]


def size_of(output: NotebookNode) -> tuple[int, int]:
    """Return the width and height of a picture in pixels."""
    width, height = struct.unpack(">II", base64.b64decode(output.data["image/png"])[16:24])
    return width, height
