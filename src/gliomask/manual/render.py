"""Render the pages of the documentation as HTML files that load nothing and run no scripts."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from markdown_it import MarkdownIt
from markdown_it.token import Token

from gliomask.files import write_bytes, write_text
from gliomask.manual.pages import GROUPS, NOT_RUN, find_pages, shows_commands
from gliomask.version import VERSION


def default_folder() -> Path:
    """Return the folder for the rendered pages, in the place that the operating system has for a user's caches."""
    if sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "gliomask" / f"docs-{VERSION}"


def write_manual(folder: Path) -> dict[str, Path]:
    """Write every page and the pictures on it to a folder, and return the HTML files by the name of the page.

    Links between pages, also to headings, lead to the HTML files. Links to files that are not part of the package
    become plain text. Files that are there already are replaced.

    Raises:
        InputError: This installation has no pages, or a file cannot be written.
    """
    sources = find_pages()
    texts = {name: path.read_text("utf-8") for name, path in sources.items()}
    titles = {name: _title(text) for name, text in texts.items()}
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    written = {}
    for name, path in sources.items():
        tokens = markdown.parse(texts[name])
        _set_anchors(tokens)
        for picture in _set_links(tokens, path, sources):
            write_bytes(folder / "pictures" / picture.name, picture.read_bytes())
        body = markdown.renderer.render(tokens, markdown.options, {})
        if shows_commands(name, texts[name]):
            body += f'<p class="note">{escape(NOT_RUN)}</p>\n'
        written[name] = folder / f"{name}.html"
        write_text(written[name], _page(name, titles, body))
    return written


def heading_anchor(heading: str) -> str:
    """Return the anchor of a heading as code hosts make it: lower case, no punctuation, hyphens for blanks."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _title(text: str) -> str:
    """Return the text of the first heading."""
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    return found[1] if found else ""


def _set_anchors(tokens: list[Token]) -> None:
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", heading_anchor(tokens[place + 1].content))


def _set_links(tokens: list[Token], page: Path, sources: Mapping[str, Path]) -> list[Path]:
    """Point the links and pictures of a page to the files beside its HTML, and return the pictures."""
    names = {path.resolve(): name for name, path in sources.items()}
    pictures = []
    for token in [child for parent in tokens for child in parent.children or []]:
        if token.type == "image":
            picture = (page.parent / str(token.attrs["src"])).resolve()
            pictures.append(picture)
            token.attrSet("src", f"pictures/{picture.name}")
        elif token.type == "link_open":
            token.attrSet("href", _target(str(token.attrs["href"]), page, names))
    for parent in tokens:
        _drop_empty_links(parent.children or [])
    return pictures


def _target(href: str, page: Path, names: Mapping[Path, str]) -> str:
    """Return where a link leads in the HTML: elsewhere unchanged, to a page, or nowhere, as an empty text."""
    if "://" in href or href.startswith(("#", "mailto:")):
        return href
    file, hash_sign, anchor = href.partition("#")
    name = names.get((page.parent / file).resolve())
    return f"{name}.html{hash_sign}{anchor}" if name else ""


def _drop_empty_links(inline: list[Token]) -> None:
    """Turn links that lead nowhere into their text."""
    inside_empty = False
    for token in inline:
        if token.type == "link_open" and not token.attrs["href"]:
            inside_empty = True
        elif not (token.type == "link_close" and inside_empty):
            continue
        else:
            inside_empty = False
        token.type, token.content = "text", ""


def _page(name: str, titles: Mapping[str, str], body: str) -> str:
    rows = []
    for heading, members in GROUPS.items():
        links = "".join(
            f'<li><a href="{member}.html"{_current(member == name)}>{escape(_short(titles[member]))}</a></li>'
            for member in members
        )
        rows.append(f"<h2>{escape(heading)}</h2><ul>{links}</ul>")
    template = Template((files("gliomask.manual") / "template.html").read_text("utf-8"))
    return template.substitute(title=escape(titles[name]), pages="\n".join(rows), body=body, version=VERSION)


def _current(is_shown: bool) -> str:
    return ' aria-current="page"' if is_shown else ""


def _short(title: str) -> str:
    """Return the part of a title before its first colon or comma, for the list of pages."""
    return re.split(r"[:,]", title)[0]
