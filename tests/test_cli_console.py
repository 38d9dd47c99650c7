"""What every command prints with: plain text, failures of the output, faults of the program."""

from __future__ import annotations

import ast
import builtins
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

import gliomask
from gliomask import __main__
from gliomask.cli import console
from gliomask.errors import InputError, describe

COMMAND_LINE = Path(gliomask.__file__).parent / "cli"
HOSTILE = "a[/b][red]\x1b[31m\n\r\u202e\u200b:smile:\udcff\x9b\\[bold]"
needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full (Linux)")


def printed(action: Callable[[], object]) -> str:
    """What an action prints, on both streams."""
    stream = io.StringIO()
    with redirect_stdout(stream), redirect_stderr(stream):
        action()
    return stream.getvalue()


@given(st.text(st.characters(codec=None)))
@example(HOSTILE)
@example("")
def test_visible_text_has_nothing_that_acts_on_a_terminal(text: str) -> None:
    """Each character prints or is a space, text that was so stays as it is, and every encoding's escapes are ASCII."""
    shown = console.visible(text)
    assert all(character.isprintable() or character.isspace() for character in shown)
    assert not set(shown) & set("\n\r\t\v\f\x1c\x1d\x1e\x1f\x85\u2028\u2029")
    assert console.visible(shown) == shown
    if text.isprintable():
        assert shown == text


@given(st.text(st.characters(codec=None)).filter(lambda text: "\t" not in text))
@example(HOSTILE)
def test_whatever_is_printed_arrives_as_it_is_in_one_line(text: str) -> None:
    """By each of the ways to print: nothing is read as markup, as an emoji code, or as a control of the terminal."""
    shown = console.visible(text)
    for action, before in (
        (console.out.print, ""),
        (console.err.print, ""),
        (console.fail, "error: "),
        (console.warn, "warning: "),
        (console.note, ""),
        (lambda text: console.out.print(console.line("x: ", (text, "red"))), "x: "),
    ):
        assert printed(lambda action=action: action(text)) == f"{before}{shown}\n"


def test_tables_bars_and_texts_are_plain_too() -> None:
    """A cell, the description of a progress bar, and a `Text` made elsewhere."""
    table = Table(box=None)
    table.add_column(HOSTILE, no_wrap=True)
    table.add_row(HOSTILE)
    shown = console.visible(HOSTILE)
    assert [text.strip() for text in printed(lambda: console.out.print(table)).splitlines()] == [shown, shown]
    with Progress(console.text_column("{task.description}"), console=console.err, disable=True) as bar:
        bar.add_task(HOSTILE)
        assert str(bar.columns[0](bar.tasks[0])) == shown
    said = printed(lambda: console.out.print(Text(HOSTILE)))
    assert "\x1b" not in said
    assert "[red]" in said


@pytest.mark.parametrize("path", sorted(COMMAND_LINE.glob("*.py")), ids=lambda path: path.name)
def test_no_command_prints_around_the_console(path: Path) -> None:
    """No markup in any string, no import of what reads it, and no printing but through `console`."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not re.search(r"\[/?(bold|dim|red|green|yellow|blue|italic)\b[^\]]*\]", node.value), node.value
        if isinstance(node, ast.ImportFrom | ast.Import):
            names = {node.module or ""} if isinstance(node, ast.ImportFrom) else {each.name for each in node.names}
            assert not {name for name in names if name.startswith("rich.markup")}
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "typer.echo", "typer.secho", "Text.from_markup", "sys.stdout.write")
            assert not {each.arg for each in node.keywords} & {"markup"} or path.name == "console.py"


def run_python(*words: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "gliomask", *words], check=False, stderr=subprocess.PIPE, **options)


@needs_dev_full
@pytest.mark.parametrize("words", [["-h"], ["--version"], ["info"], ["check"], ["check", "--json"]], ids=" ".join)
def test_a_full_disk_behind_the_output_is_one_line_and_status_1(words: list[str], folder_of) -> None:
    """And not a traceback, whatever the command."""
    words = [*words, str(folder_of(1))] if words[0] == "check" else words
    with Path("/dev/full").open("w") as full:
        done = run_python(*words, stdout=full)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == ["error: cannot write to standard output: No space left on device."]


@pytest.mark.parametrize("words", [["-h"], ["info"]], ids=" ".join)
def test_a_closed_pipe_behind_the_output_is_one_line_and_status_1(words: list[str]) -> None:
    """As of `| head -1`, on every system: no signal is relied on."""
    reader, writer = os.pipe()
    os.close(reader)
    done = run_python(*words, stdout=writer)
    os.close(writer)
    assert done.returncode == 1
    [said] = done.stderr.decode().splitlines()
    assert said.startswith("error: cannot write to standard output: ")


@needs_dev_full
def test_a_full_disk_behind_stderr_changes_nothing(folder_of) -> None:
    """What was asked for is still done."""
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "gliomask", "check", "-v", str(folder_of(1))]
        done = subprocess.run(words, check=False, stdout=subprocess.PIPE, stderr=full)
    assert done.returncode == 0
    assert b"1 case can be used" in done.stdout


def test_the_work_goes_on_when_the_output_is_closed() -> None:
    """A stream that fails once drops what comes after it, and keeps the first failure for the exit status."""

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    stream = console.Stream(Full())
    assert stream.write("one") == 3
    assert stream.write("two") == 3
    stream.flush()
    assert stream.failure is not None
    assert stream.failure.errno == 28


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that takes any bytes as a name")
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_encoding_of_the_output_will_do(encoding: str, tmp_path: Path) -> None:
    """Characters that it lacks, and bytes of names that are no text, are shown as escapes."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xc3\xbcller \xff\xe2\x80\xae"))
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "gliomask", "check", folder], check=False, capture_output=True, env=environment
    )
    assert done.returncode == 2
    said = done.stderr.decode(encoding)
    assert "Traceback" not in said
    assert "no case found" in said
    assert "\\xff\\u202e" in said
    assert ("M\\xfcller" if encoding == "ascii" else "Müller") in said


def _raise(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_ctrl_c_is_one_line_and_status_130(gliomask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In any command."""
    monkeypatch.setattr("gliomask.cases.survey", _raise(KeyboardInterrupt()))
    assert gliomask("check", tmp_path) == (130, "error: stopped by Ctrl-C.\n")


def test_ctrl_c_while_modules_are_imported_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands take a part of a second to import, on a busy computer two seconds."""
    found = builtins.__import__

    def interrupted(name: str, *words: object) -> object:
        if name == "gliomask.cli":
            raise KeyboardInterrupt
        return found(name, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "error: stopped by Ctrl-C.\n")


def test_a_fault_of_ours_is_one_line_that_says_so(gliomask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Status 3 and no traceback, which `-v` adds, before or after the command's name."""
    monkeypatch.setattr("gliomask.cases.survey", _raise(ZeroDivisionError("two\nlines")))
    status, said = gliomask("check", tmp_path)
    assert status == 3
    assert said == f"error: {describe(ZeroDivisionError('two lines'))}\n"
    for words in (("-v", "check", tmp_path), ("check", tmp_path, "-v"), ("check", "--verbose", tmp_path)):
        status, said = gliomask(*words)
        assert status == 3
        assert "Traceback" in said
    assert "Traceback" not in gliomask("check", tmp_path)[1]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b: Permission denied."),
        (OSError(28, "No space left on device"), "No space left on device."),
        (MemoryError("Unable to allocate 2 TiB"), "not enough memory (Unable to allocate 2 TiB)."),
        (InputError("a.nii: is cut."), "a.nii: is cut."),
    ],
)
def test_what_the_system_refuses_is_no_fault_of_ours(error: Exception, line: str) -> None:
    """It is described by what was refused, and where."""
    assert describe(error).startswith(line)
    assert "fault" not in describe(error)


def test_quiet_leaves_results_and_errors(gliomask, folder_of) -> None:
    """Remarks and warnings are not printed, before or after the command's name."""
    folder = folder_of(1)
    other = folder / "BraTS2021_00001" / "other.nii.gz"
    other.write_bytes(next(folder.rglob("*_t2.nii.gz")).read_bytes())
    assert "1 file or folder passed over" in gliomask("check", folder)[1]
    for words in (("-q", "check", folder), ("check", folder, "-q")):
        status, said = gliomask(*words)
        assert status == 0
        assert "passed over" not in said
        assert "1 case can be used" in said


def test_a_warning_from_any_room_looks_like_those_of_the_commands() -> None:
    """Without the name of a module; what libraries log keeps theirs. The handler is set once in a process."""
    code = (
        "import logging; from gliomask.cli import console; console.set_verbosity(0); "
        "logging.getLogger('gliomask.execution.clusters').warning('no worker %s', 'yet'); "
        "logging.getLogger('library').warning('other'); "
        "console.set_verbosity(-1); logging.getLogger('gliomask.execution').warning('not shown')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["warning: no worker yet", "WARNING library: other"]
