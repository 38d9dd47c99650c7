"""The page that lists the cases of a folder: their reports, volumes and warnings, and where their tumours lie."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gliomask.cohort import Row, read_row
from gliomask.errors import InputError
from gliomask.files import write_text
from gliomask.report.case_content import resample_case, stills
from gliomask.report.page import render
from gliomask.report.prediction import MeasuredCase

# Of the small pictures of the list.
_EDGE_MM = 2.0

_REGIONS = ("WT", "TC", "ET", "RC")
_EDGES_ML = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_IS_LIST = 'id="cases-data"'
_DATA = re.compile(r'<script type="application/json" id="cases-data">(.*?)</script>', re.DOTALL)
_MOST_STATIC = 200


@dataclass(frozen=True)
class IndexEntry:
    """What the list shows of one case."""

    row: Row
    """See `cohort.read_row`; the case and the volumes at least."""
    picture: str
    """A data URL; empty if there is none."""
    links: tuple[tuple[str, str], ...] = ()
    """What can be opened, such as `report`, and the name of its file, which is beside the list."""
    warning_texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class AtlasPicture:
    """Where the tumours lie in the space of an atlas."""

    atlas: str
    cases: int
    most: float
    """The largest share of the cases whose tumour covers one place."""
    slices: tuple[tuple[str, str], ...]
    """A data URL and the position in words, from below to above."""


def index_entry(measured: MeasuredCase, page: Path) -> IndexEntry:
    """Return the entry of a case whose report is in the folder of the list.

    Args:
        measured: The case.
        page: The file of its report.
    """
    name, image = next(iter(measured.images.items()))
    small = resample_case({name: image}, measured.regions, {}, brain=measured.brain, finest_mm=_EDGE_MM)
    row: Row = {
        **(read_row(dict(measured.facts)) or {}),
        "case": measured.case.id,
        **{f"{region}_ml": found.volume_ml for region, found in measured.measures.items()},
        **{f"{region}_lesions": found.lesions for region, found in measured.measures.items()},
    }
    return IndexEntry(
        row, stills(small)[0]["source"], (("report", page.name),), tuple(measured.facts.get("warnings", []))
    )


def write_index(
    entries: Sequence[IndexEntry],
    path: Path,
    *,
    atlas: AtlasPicture | None = None,
    failed: Sequence[tuple[str, str]] = (),
    tables: Sequence[str] = (),
) -> None:
    """Write a page that lists cases, whose files are in the same folder.

    Args:
        entries: The cases.
        path: The page.
        atlas: Where the tumours lie.
        failed: Cases that could not be predicted, and why.
        tables: The names of tables beside the page.

    Raises:
        InputError: The file cannot be written, or one of this name exists that gliomask did not write.
    """
    if path.exists() and not _is_list(path):
        raise InputError(f"{path}: exists already and is not a list that gliomask wrote. Move it away, or choose -o.")
    kinds = Counter(kind for entry in entries for kind in {warning_kind(text) for text in entry.warning_texts})
    order = {kind: number for number, (kind, _) in enumerate(kinds.most_common())}
    shown = [region for region in _REGIONS if any(f"{region}_ml" in entry.row for entry in entries)]
    content = {
        "regions": shown,
        "kinds": [[kind, kinds[kind]] for kind in order],
        "cases": [_plain(entry, order) for entry in entries],
    }
    write_text(
        path,
        render(
            "index.html",
            ("index.js",),
            title=f"{len(entries)} case{'' if len(entries) == 1 else 's'}",
            data=_script_json(content),
            entries=[(entry, _links(entry)) for entry in entries[:_MOST_STATIC]],
            count=len(entries),
            regions=shown,
            histograms=[_histogram(entries, region) for region in shown],
            atlas=atlas,
            failed=failed,
            tables=[(name, quote(name)) for name in tables],
        ),
    )


def old_pictures(path: Path) -> dict[str, str]:
    """Return the pictures in a list that was written before, by the SHA-256 of the mask that they show."""
    try:
        found = _DATA.search(path.read_text("utf-8"))
        cases = json.loads(found[1])["cases"] if found else []
        return {case["mask"]: case["picture"] for case in cases if case.get("mask") and _is_picture(case["picture"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def warning_kind(text: str) -> str:
    """Return what warnings of one kind have in common: what precedes the first colon or full stop, without numbers."""
    start = re.split(r"[:;]|\.(?=\s|$)", text, maxsplit=1)[0]
    return re.sub(r"(?<![A-Za-z0-9])\d+(?:\.\d+)?", "…", start)[:90].strip() or "other"


def _plain(entry: IndexEntry, kinds: Mapping[str, int]) -> dict[str, Any]:
    row = entry.row
    return {
        "case": row["case"],
        "patient": row.get("patient", ""),
        "timepoint": row.get("timepoint", ""),
        "ml": {region: row[f"{region}_ml"] for region in _REGIONS if f"{region}_ml" in row},
        "lesions": row.get("WT_lesions"),
        "dice": row.get("WT_dice_estimate"),
        "texts": list(entry.warning_texts),
        "kinds": sorted({kinds[warning_kind(text)] for text in entry.warning_texts}),
        "picture": entry.picture,
        "mask": row.get("mask_sha256", ""),
        "links": [list(link) for link in _links(entry)],
    }


def _links(entry: IndexEntry) -> list[tuple[str, str]]:
    # A name may hold bytes that are no text. A colon is quoted too: no name is read as an address with a scheme.
    return [(what, quote(os.fsencode(name))) for what, name in entry.links]


def _script_json(content: object) -> str:
    """Return JSON that can stand in a page: no character of it ends the script element."""
    text = json.dumps(content, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _is_list(path: Path) -> bool:
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        return False
    return _IS_LIST in text or "Each entry shows the axial slice with most of the tumour" in text  # until 0.2


def _is_picture(text: object) -> bool:
    return isinstance(text, str) and re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", text) is not None


def _histogram(entries: Sequence[IndexEntry], region: str) -> dict[str, Any]:
    """Return how many cases have how much of a region, in classes whose limits grow by about three."""
    volumes = [float(value) for entry in entries if (value := entry.row.get(f"{region}_ml")) is not None]
    counts = [0] * (len(_EDGES_ML) + 2)
    for volume in volumes:
        counts[0 if volume == 0 else 1 + sum(volume >= edge for edge in _EDGES_ML)] += 1
    limits = [f"{edge:g}" for edge in _EDGES_ML]
    names = ["none", f"< {limits[0]}", *(f"{low}–{high}" for low, high in pairwise(limits))]
    names.append(f"≥ {limits[-1]}")
    most = max(counts) or 1
    ordered = sorted(volumes)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2 if ordered else math.nan
    return {
        "region": region,
        "median": middle,
        "cases": len(volumes),
        "bars": [(name, count, 100 * count / most) for name, count in zip(names, counts, strict=True)],
    }
