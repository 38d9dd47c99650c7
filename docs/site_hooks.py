"""What mkdocs does in addition while it builds the site (see mkdocs.yml).

Pages that are elsewhere in the repository are added, the reference of the commands is written from the commands
themselves, and links between the files of the repository are turned into links between the pages of the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from typer.main import get_command

from gliomask.cli import app
from gliomask.manual import NOT_RUN, shows_commands

ROOT = Path(__file__).parent.parent
ELSEWHERE = {
    "model_card.md": "MODEL_CARD.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "measurements.md": "benchmarks/README.md",
    "recipes.md": "recipes/README.md",
}
COPIED = ("CITATION.cff", "LICENSE", "examples/brats_in_ten_minutes.ipynb")
"""Files that pages link to, and that are part of the site as they are."""

_LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)]*)?\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and files that are not in the folder of the site's sources."""
    for name, source in ELSEWHERE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text("utf-8")))
    for source in COPIED:
        files.append(File.generated(config, Path(source).name, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, "commands.md", content=commands_page()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links between files of the repository to the pages, and say which commands no test runs."""
    name = page.file.src_uri
    source = ELSEWHERE.get(name, f"docs/{name}")
    text = _LINK.sub(lambda match: match[1] + _target(match[2], source) + match[3], markdown)
    stem = name.removesuffix(".md")
    return f"{text}\n\n*{NOT_RUN}*\n" if shows_commands(stem, markdown) else text


def _target(link: str, source: str) -> str:
    """Return the link of a page of the site, for a link of a file of the repository."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if path == "README.md":
        return "index.md"
    names = {repository: name for name, repository in ELSEWHERE.items()} | {one: Path(one).name for one in COPIED}
    return names.get(path, path.removeprefix("docs/"))


def commands_page() -> str:
    """Return the reference of the commands as Markdown: usage, arguments, options and examples of each."""
    group = get_command(app)
    parts = ["# Commands", str(group.help), "`gliomask COMMAND -h` prints the same. " + _exit_status(str(group.epilog))]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        context = command.make_context(name, ["--help"], resilient_parsing=True)
        parts += [f"## {name}", f"`gliomask {' '.join([name, *command.collect_usage_pieces(context)])}`"]
        parts.append(str(command.help))
        for heading, kind in (("argument", "argument"), ("option", "option")):
            rows = [_row(parameter, context) for parameter in command.params if parameter.param_type_name == kind]
            if rows:
                parts.append("\n".join([f"| {heading} | |", "|---|---|", *rows]))
        parts.append(str(command.epilog).strip())
    return "\n\n".join(parts) + "\n"


def _exit_status(epilog: str) -> str:
    return epilog.partition("\n\n")[2]


def _row(parameter: Any, context: Any) -> str:
    name, text = parameter.get_help_record(context) or (parameter.opts[0], parameter.help or "")
    cells = [f"`{name}`", " ".join(re.sub(r"([\\[*|])", r"\\\1", text).split())]
    return f"| {cells[0].replace('|', '/')} | {cells[1]} |"
