"""The pages of the documentation: their order, and where their sources are."""

from __future__ import annotations

from pathlib import Path

from gliomask.errors import InputError, unknown_name

GROUPS = {
    "Begin": ("index", "tutorial"),
    "How to": ("data", "predicting", "training", "viewing", "correcting", "clinical", "serving", "cohort", "cluster"),
    "Understand": ("scores", "glossary", "design"),
    "Look up": ("troubleshooting", "model_card", "changelog"),
}
"""The names of the pages by the heading that they are listed under, in the order of reading."""

NOT_RUN = "A test checks the options of the commands on this page. It does not run them, as they name files of yours."
"""The remark at the end of pages with commands, except the tutorial, whose commands a test runs."""

_AT_THE_ROOT = {"model_card": "MODEL_CARD.md", "changelog": "CHANGELOG.md"}


def find_pages() -> dict[str, Path]:
    """Return the Markdown file of each page by name, in the order of `GROUPS`.

    A wheel contains the pages (`hatch_build.py`); in a copy of the repository they are in `docs`. In both, links
    between the files are the same.

    Raises:
        InputError: This installation has no pages.
    """
    root = _root()
    names = [name for group in GROUPS.values() for name in group]
    return {name: root / _AT_THE_ROOT.get(name, f"docs/{name}.md") for name in names}


def page_source(name: str) -> Path:
    """Return the Markdown file of a page.

    Raises:
        InputError: There is no page of this name, or this installation has no pages.
    """
    pages = find_pages()
    if name not in pages:
        raise unknown_name("page", name, pages)
    return pages[name]


def shows_commands(name: str, text: str) -> bool:
    """Tell whether a page, given as Markdown, shows commands that no test runs (see `NOT_RUN`)."""
    return name != "tutorial" and "```sh" in text


def _root() -> Path:
    """Return the folder that contains `docs`: in the package, or else the copy of the repository around it."""
    package = Path(__file__).parent
    for root in (package / "pages", package.parents[2]):
        if (root / "docs" / "index.md").is_file():
            return root
    raise InputError(
        "the documentation is not part of this installation. Install gliomask from a wheel or from a copy of its "
        "repository, which contains it in the folder docs."
    )
