"""The page that lists the reports of a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from gliomask.files import write_text
from gliomask.report.case_content import resample_case, stills
from gliomask.report.page import render
from gliomask.report.prediction import MeasuredCase

# Of the small pictures of the list.
_EDGE_MM = 2.0


@dataclass(frozen=True)
class IndexEntry:
    """What the list shows of one report."""

    case: str
    link: str
    """The address of the report, relative to the list."""
    volumes_ml: Mapping[str, float]
    warnings: int
    picture: str
    """A data URL."""


def index_entry(measured: MeasuredCase, page: Path) -> IndexEntry:
    """Return the entry of a case whose report is in the folder of the list.

    Args:
        measured: The case.
        page: The file of its report.
    """
    name, image = next(iter(measured.images.items()))
    small = resample_case({name: image}, measured.regions, {}, brain=measured.brain, finest_mm=_EDGE_MM)
    return IndexEntry(
        case=measured.case.id,
        link=quote(os.fsencode(page.name)),  # a name may hold bytes that are no text
        volumes_ml={region: found.volume_ml for region, found in measured.measures.items()},
        warnings=len(measured.facts.get("warnings", [])),
        picture=stills(small)[0]["source"],
    )


def write_index(entries: Sequence[IndexEntry], path: Path) -> None:
    """Write a page that lists reports, which are in the same folder.

    Raises:
        InputError: The file cannot be written.
    """
    write_text(path, render("index.html", title=f"Reports of {len(entries)} cases", entries=entries))
