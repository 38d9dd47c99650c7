"""Find the label convention of each mask."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from gliomask.cases import candidates_of, dataset_convention, layout_of
from gliomask.cases.conventions import read_labels_file
from gliomask.errors import InputError
from gliomask.evaluation.pairs import mask_stem
from gliomask.labels import LabelConvention, detect_convention, get_convention, label_values
from gliomask.volume import read_volume


def find_conventions(masks: Mapping[str, Path], asked: str | None) -> dict[str, LabelConvention]:
    """Return the label convention of each mask.

    The requested convention applies to all masks. Otherwise it is taken, for each mask, from the JSON file beside it,
    from a `labels.txt` in its folder or the one above, from its id, or from dataset.json. For the masks about which
    none of these says anything, it is inferred from the values of all of them together.

    Args:
        masks: The files by case id.
        asked: The name of the requested convention, or None.

    Raises:
        InputError: A name is unknown, or the values fit several conventions or none.
    """
    if asked is not None:
        return dict.fromkeys(masks, get_convention(asked))
    declared = {case: _declared(case, path) for case, path in masks.items()}
    unknown = [masks[case] for case, convention in declared.items() if convention is None]
    values: set[int] = set()
    for path in unknown:
        with suppress(InputError):  # a damaged mask says nothing here; its error is reported when it is scored
            values.update(label_values(read_volume(path, mask=True).data))
    where = f"{unknown[0]} and {len(unknown) - 1} more" if len(unknown) > 1 else str(next(iter(unknown), ""))
    candidates = candidates_of(masks)
    inferred = (detect_convention(values, where, candidates) if unknown else None) or get_convention("brats2021")
    return {case: convention or inferred for case, convention in declared.items()}


def _declared(case: str, path: Path) -> LabelConvention | None:
    beside = path.with_name(f"{mask_stem(path)}.json")
    try:
        name = json.loads(beside.read_text("utf-8"))["labels"]["convention"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        name = None
    if not isinstance(name, str):  # no such file, or not one that `predict` wrote
        layout = layout_of(case)
        name = read_labels_file(path, path.parent.parent) or (
            layout.convention if layout else dataset_convention(path.parent.parent)
        )
        return get_convention(name) if name else None
    try:
        return get_convention(name)
    except InputError as error:
        raise InputError(f"{beside}: {error}. Correct it, or choose the convention with --labels.") from error
