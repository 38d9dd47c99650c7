"""Whose model made the masks that are scored, as the JSON files beside them say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gliomask.evaluation.pairs import mask_stem


def find_makers(masks: Iterable[Path]) -> dict[str, int]:
    """Return how many of some masks each model made, most first.

    A model is described by its file, and by where it comes from if gliomask did not train it. Masks without a JSON file
    that `predict` wrote beside them are not counted, as nothing is known about them.
    """
    found = Counter(filter(None, map(_maker, masks)))
    return dict(found.most_common())


def _maker(mask: Path) -> str | None:
    try:
        facts = json.loads(mask.with_name(f"{mask_stem(mask)}.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(facts, Mapping) or not isinstance(facts.get("model"), str) or "volumes_ml" not in facts:
        return None
    made_with = _text(facts.get("origin"), "made_with") or "gliomask"
    terms = _text(facts.get("origin"), "license")
    return f"{facts['model']}, made with {made_with}" + (f", license {terms}" if terms else "")


def _text(facts: Any, name: str) -> str:
    value = facts.get(name) if isinstance(facts, Mapping) else None
    return value if isinstance(value, str) else ""
