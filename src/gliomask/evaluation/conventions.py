"""Find the label convention of each mask."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from gliomask.cases import Problem, candidates_of, dataset_convention, layout_of
from gliomask.cases.conventions import read_labels_file, refuse_ones
from gliomask.errors import InputError
from gliomask.evaluation.pairs import mask_stem
from gliomask.labels import LabelConvention, detect_convention, get_convention, label_values
from gliomask.volume import read_volume


def find_conventions(
    masks: Mapping[str, Path], asked: str | None, problems: list[Problem] | None = None
) -> dict[str, LabelConvention]:
    """Return the label convention of each mask.

    The requested convention applies to all masks. Otherwise it is taken, for each mask, from the JSON file beside it,
    from a `labels.txt` or else a `dataset.json` in its folder or the one above, or from its id. For the masks about
    which none of these says anything, it is inferred from the values of all of them together.

    Args:
        masks: The files by case id.
        asked: The name of the requested convention, or None.
        problems: Where given, a mask whose JSON names an unknown convention is added to it and is not in the result.

    Raises:
        InputError: A name is unknown, the values fit several conventions or none, or no mask whose convention is that
            of its id holds another number than 1.
    """
    if asked is not None:
        return dict.fromkeys(masks, get_convention(asked))
    declared: dict[str, LabelConvention | None] = {}
    described = lru_cache(maxsize=None)(dataset_convention)
    assumed = []
    for case, path in masks.items():
        try:
            convention = _named_beside(path)
        except InputError as error:
            if problems is None:
                raise
            problems.append(Problem(case, str(error), (path,)))
            continue
        layout = layout_of(case)
        if convention is None:
            top = path.parent.parent
            name = read_labels_file(path, top) or described(path.parent) or described(top)
            if name is None and layout is not None and layout.convention:
                name = layout.convention
                assumed.append((case, path, name))
            convention = get_convention(name) if name else None
        declared[case] = convention
    refuse_ones(assumed)
    unknown = [masks[case] for case, convention in declared.items() if convention is None]
    values: set[int] = set()
    for path in unknown:
        with suppress(InputError):  # a damaged mask says nothing here; its error is reported when it is scored
            values.update(label_values(read_volume(path, mask=True).data))
    where = f"{unknown[0]} and {len(unknown) - 1} more" if len(unknown) > 1 else str(next(iter(unknown), ""))
    candidates = candidates_of(masks)
    inferred = (detect_convention(values, where, candidates) if unknown else None) or get_convention("brats2021")
    return {case: convention or inferred for case, convention in declared.items()}


def _named_beside(path: Path) -> LabelConvention | None:
    """Return the convention that the JSON file of `predict` beside a mask names, or None if there is no such file."""
    beside = path.with_name(f"{mask_stem(path)}.json")
    try:
        name = json.loads(beside.read_text("utf-8"))["labels"]["convention"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(name, str):
        return None
    try:
        return get_convention(name)
    except InputError as error:
        raise InputError(
            f"{beside}: {str(error).rstrip('.')}. Correct it, or choose the convention with --labels."
        ) from error
