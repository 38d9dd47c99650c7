"""The documentation in the package and its site: pages, links, quoted messages, and the commands of the tutorial."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import gliomask as package
from gliomask.errors import InputError
from gliomask.manual import GROUPS, NOT_RUN, find_pages, page_source, write_manual
from test_readme import ROOT, _blocks, _messages

HAS_MKDOCS = all(importlib.util.find_spec(name) is not None for name in ("mkdocs", "mkdocstrings", "material"))


class _Links(HTMLParser):
    """Collect the ids, links and loaded files of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.ids |= {given["id"]} if "id" in given else set()
        self.links += [given["href"]] if tag == "a" else []
        self.loaded += [given[name] for name in ("src",) if name in given] + ([given["href"]] if tag == "link" else [])


def _links(page: Path) -> _Links:
    found = _Links()
    found.feed(page.read_text("utf-8"))
    return found


def test_the_copy_in_the_package_is_whole(tmp_path: Path) -> None:
    """Every page is written; its links lead to pages and headings, and it loads only the pictures beside it."""
    written = write_manual(tmp_path)
    assert list(written) == list(find_pages())
    for path in written.values():
        page = _links(path)
        assert all((tmp_path / source).is_file() for source in page.loaded)
        for link in page.links:
            file, _, anchor = link.partition("#")
            if "://" in link:
                continue
            target = tmp_path / file if file else path
            assert target.is_file(), f"{path.name}: {link}"
            assert not anchor or anchor in _links(target).ids, f"{path.name}: {link}"


def test_links_to_files_outside_of_the_package_become_text(tmp_path: Path) -> None:
    """The name of a file that the package does not contain is still there to read."""
    page = write_manual(tmp_path)["model_card"].with_name("training.html").read_text("utf-8")
    assert "recipes/README.md</a>" not in page
    assert "recipes/README.md" in page


def test_pages_with_commands_say_whether_a_test_runs_them(tmp_path: Path) -> None:
    """Only the tutorial, whose commands a test runs, lacks the remark."""
    written = write_manual(tmp_path)
    remarks = {name for name, path in written.items() if NOT_RUN in path.read_text("utf-8")}
    assert remarks == {name for name in written if "```sh" in page_source(name).read_text("utf-8")} - {"tutorial"}


def test_docs_prints_a_path(gliomask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`gliomask docs PAGE --print` writes the pages; hyphens and underscores are the same; names are suggested."""
    monkeypatch.setattr("gliomask.manual.default_folder", lambda: tmp_path)
    assert gliomask("docs", "model-card", "--print") == (0, f"{tmp_path / 'model_card.html'}\n")
    status, printed = gliomask("docs", "trainig", "--print")
    assert status == 2
    assert "did you mean 'training'?" in printed


def test_docs_uses_a_temporary_folder_where_the_cache_cannot_be_written(
    gliomask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only home folder does not keep the pages from being shown."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("gliomask.manual.default_folder", lambda: tmp_path / "file" / "docs")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    status, printed = gliomask("docs", "--print")
    assert status == 0
    assert Path(printed.strip()).is_file()


def test_an_installation_without_pages_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message says how to get them."""
    monkeypatch.setattr("gliomask.manual.pages.__file__", str(tmp_path / "a" / "b" / "c" / "d" / "pages.py"))
    with pytest.raises(InputError, match="Install gliomask from a wheel"):
        find_pages()


def test_messages_name_pages_and_no_files() -> None:
    """No text of the program names a file of `docs`, which a wheel does not have; the pages that it names exist."""
    texts = "\n".join(_messages())
    assert not re.findall(r"docs/\w+\.md", texts)
    named = set(re.findall(r"gliomask docs ([a-z_]+)", texts))
    assert {"predicting", "scores", "serving"} <= named <= set(find_pages())


def test_the_site_has_the_pages_of_the_package() -> None:
    """mkdocs.yml lists every page of `GROUPS` and every Markdown file of docs; only mkdocs can render `api`."""
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    listed = re.findall(r"^ +- .*: (\w+)\.md$", text[text.index("\nnav:") :], re.MULTILINE)
    assert len(listed) == len(set(listed))
    pages = {name for names in GROUPS.values() for name in names}
    files = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages | files <= set(listed)
    assert files - {"api"} <= pages


def test_every_public_name_is_in_the_reference() -> None:
    """docs/api.md documents all names of `gliomask.__all__`."""
    documented = re.findall(r"^::: gliomask\.(\w+)$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(documented) == sorted(package.__all__)


def test_every_message_in_troubleshooting_can_be_printed() -> None:
    """The literal parts of each quoted message are, in this order, in one text of the package."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    quoted: list[str] = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(quoted) >= 40
    texts = _messages()
    unknown = []
    for quote in quoted:
        parts = [re.escape(part) for part in quote.split("...") if part.strip(" .:|")]
        assert parts, quote
        if not any(re.search(".*".join(parts), text, re.DOTALL) for text in texts):
            unknown.append(quote)
    assert not unknown


@pytest.mark.slow
def test_the_commands_of_the_tutorial_run(gliomask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of the tutorial is done without an error, in the order of the page."""
    monkeypatch.chdir(tmp_path)
    lines = [line for block in _blocks(page_source("tutorial"), "sh") for line in block.splitlines()]
    assert len(lines) >= 10
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "gliomask"
        status, printed = gliomask(*words)
        assert status == 0, f"{line}: {printed}"
    for name in ("masks", "scores.csv", "scores.png", "run/best.safetensors", "my_scores.csv"):
        assert (tmp_path / name).exists()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_MKDOCS, reason="needs mkdocs-material and mkdocstrings: pip install '.[docs]'")
def test_the_site_is_built_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """`mkdocs build --strict` has no warning, such as of a link that leads nowhere, and no page needs a network."""
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    check = [sys.executable, "docs/check_site.py", str(tmp_path / "site")]
    assert subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False).stdout == ""
    reference = (tmp_path / "site" / "api.html").read_text("utf-8")
    assert all(f'id="gliomask.{name}"' in reference for name in package.__all__)


def test_what_a_page_loads_from_elsewhere_is_found(tmp_path: Path) -> None:
    """Scripts, styles, pictures and fonts with an address are found; links to read are not."""
    (tmp_path / "page.html").write_text(
        '<a href="https://a"></a><script src="//b/x.js"></script><link rel="stylesheet" href="https://c/x.css">'
        '<img src="pictures/d.png"><link rel="canonical" href="https://e">'
    )
    (tmp_path / "style.css").write_text("@import 'https://f/x.css'; p { src: url(https://g/x.woff) url(h.woff) }")
    check = [sys.executable, str(ROOT / "docs" / "check_site.py"), str(tmp_path)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert [line.rpartition(" ")[2] for line in done.stdout.splitlines()] == [
        "//b/x.js",
        "https://c/x.css",
        "https://f/x.css",
        "https://g/x.woff",
    ]
