"""One row for each predicted case, from the JSON beside its mask."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from gliomask.cases import SEQUENCE_NAMES
from gliomask.labels import REGIONS, TISSUES

Value = str | int | float
Row = dict[str, Value]

_IDENTITY: dict[str, type] = {"case": str, "patient": str, "timepoint": str, "sequences": str}
# Regions from the outside in, and then the tissues that are no regions themselves.
_VOLUMES: dict[str, type] = {
    f"{name}_ml": float for name in (*REGIONS, *(tissue for tissue in TISSUES if tissue not in REGIONS))
}
_LESIONS: dict[str, type] = {f"{name}_lesions": int for name in REGIONS}
_WARNINGS: dict[str, type] = {"warnings": int, "warning_text": str}
_ESTIMATES: dict[str, type] = {f"{name}_dice_{part}": float for name in REGIONS for part in ("estimate", "low", "high")}
_ORIGIN: dict[str, type] = {
    "space": str,
    "seconds": float,
    "seconds_prepare": float,
    "model": str,
    "model_sha256": str,
    "made_with": str,
    "license": str,
    "network": str,
    "window": str,
    "labels": str,
    "gliomask": str,
    "engine": str,
    "mask_sha256": str,
}
_BETWEEN = " | "
"""What stands between the warnings of a case in `warning_text`."""
_NAME = re.compile(r"[A-Za-z0-9_]{1,40}")
_LARGEST = 2**53
"""The largest number of which every program that reads a table takes the same value."""


def columns_of(rows: Iterable[Mapping[str, Value]]) -> dict[str, type]:
    """Return the columns of a table of these rows, with their types, in order.

    They are the same for every table, but for the measures of raw studies (`quality_...`), of which there are those
    that at least one row has.
    """
    measured = sorted({column for row in rows for column in row if column.startswith("quality_")})
    quality: dict[str, type] = dict.fromkeys(measured, float)
    return {**_IDENTITY, **_VOLUMES, **_LESIONS, **_WARNINGS, **_ESTIMATES, **quality, **_ORIGIN}


def read_row(facts: Mapping[str, Any]) -> Row | None:
    """Return the row of a case from the content of its JSON, or None for a JSON that `predict` did not write.

    A value that the JSON lacks, because an older gliomask wrote it or it does not apply, is not in the row. Numbers
    have six decimals at most, and of a model's path there are the last two parts, because folders may be called like
    people.
    """
    if not isinstance(facts.get("case"), str) or not {"model", "volumes_ml", "versions"} <= facts.keys():
        return None
    settings, versions = _mapping(facts.get("settings")), _mapping(facts.get("versions"))
    origin = _mapping(facts.get("origin"))
    warnings = [one for one in _list(facts.get("warnings")) if isinstance(one, str)]
    used = [name for name, there in _mapping(facts.get("sequences")).items() if there is True]
    engine = next((f"{name} {version}" for name, version in versions.items() if name not in ("gliomask", "numpy")), "")
    model = str(facts["model"])
    found: dict[str, object] = {
        "case": facts["case"],
        "patient": facts.get("patient"),
        "timepoint": facts.get("timepoint"),
        "sequences": " ".join(name for name in SEQUENCE_NAMES if name in used),
        **{f"{name}_ml": value for name, value in _mapping(facts["volumes_ml"]).items()},
        **{f"{name}_lesions": value for name, value in _mapping(facts.get("lesions")).items()},
        "warnings": len(warnings),
        "warning_text": _BETWEEN.join(warnings),
        **_estimates(_mapping(facts.get("estimated_dice"))),
        **{f"quality_{name}": value for name, value in _mapping(facts.get("quality")).items() if _NAME.fullmatch(name)},
        "space": facts.get("space"),
        "seconds": facts.get("seconds"),
        "seconds_prepare": _total(_mapping(facts.get("seconds_prepare"))),
        "model": ", ".join("/".join(PurePath(name).parts[-2:]) for name in model.split(", ")),
        "model_sha256": " ".join(str(digest) for digest in _list(settings.get("models"))),
        "made_with": origin.get("made_with"),
        "license": origin.get("license"),
        "network": facts.get("network"),
        "window": facts.get("window"),
        "labels": _mapping(facts.get("labels")).get("convention"),
        "gliomask": versions.get("gliomask"),
        "engine": engine,
        "mask_sha256": facts.get("mask"),
    }
    return _typed(found)


def _typed(found: Mapping[str, object]) -> Row:
    """Return the values that have the type of their column; what else a JSON may hold is left out."""
    row: Row = {}
    for column, kind in columns_of([dict.fromkeys(found, 0.0)]).items():
        value = found.get(column)
        if kind is str and isinstance(value, str):
            row[column] = value
        elif isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
            continue
        elif kind is float:
            row[column] = round(float(value), 6)
        elif kind is int and isinstance(value, int):
            row[column] = value
    return row


def _estimates(by_region: Mapping[str, Any]) -> dict[str, object]:
    named = (("estimate", "dice"), ("low", "low"), ("high", "high"))
    return {
        f"{region}_dice_{column}": _mapping(values).get(key)
        for region, values in by_region.items()
        for column, key in named
    }


def _total(seconds: Mapping[str, Any]) -> float | None:
    values = [value for value in seconds.values() if isinstance(value, int | float)]
    return float(sum(values)) if values else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
