"""The JSON files that `predict` writes beside masks: whether there is one, and whose model made the mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gliomask.errors import InputError
from gliomask.evaluation.pairs import mask_stem
from gliomask.inference.record import read_facts


def record_of(mask: Path | None) -> dict[str, Any] | None:
    """Return the content of the JSON that `predict` wrote beside a mask; None if there is no JSON or no mask."""
    return None if mask is None else _read(mask.with_name(f"{mask_stem(mask)}.json"))


def refuse_records(outputs: Iterable[Path]) -> None:
    """Refuse to write over the JSON that `predict` wrote beside a mask.

    Raises:
        InputError: One of the outputs is such a file.
    """
    for path in outputs:
        if _read(path) is not None:
            raise InputError(f"{path}: predict wrote this file to describe a mask. Choose another name for the output.")


def _read(path: Path) -> dict[str, Any] | None:
    facts = read_facts(path)
    return facts if facts is not None and {"model", "volumes_ml", "versions"} <= facts.keys() else None


def find_makers(masks: Iterable[Path]) -> dict[str, int]:
    """Return how many of some masks each model made, most first.

    A model is described by its file, and by where it comes from if gliomask did not train it. Masks without a JSON file
    that `predict` wrote beside them are not counted, as nothing is known about them.
    """
    return count_makers(filter(None, map(record_of, masks)))


def count_makers(records: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many of some masks each model made, as `find_makers` does, from the content of their JSON files."""
    found = Counter(filter(None, map(_maker, records)))
    return dict(found.most_common())


def _maker(facts: Mapping[str, Any]) -> str | None:
    if not isinstance(facts.get("model"), str):
        return None
    made_with = _text(facts.get("origin"), "made_with") or "gliomask"
    terms = _text(facts.get("origin"), "license")
    return f"{facts['model']}, made with {made_with}" + (f", license {terms}" if terms else "")


def _text(facts: Any, name: str) -> str:
    value = facts.get(name) if isinstance(facts, Mapping) else None
    return value if isinstance(value, str) else ""
