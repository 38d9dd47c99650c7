"""What the numbers in each mask mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from gliomask.cases import candidates_of, dataset_convention, layout_of
from gliomask.errors import InputError
from gliomask.evaluation.pairs import mask_stem
from gliomask.labels import LabelConvention, detect_convention, get_convention, label_values
from gliomask.volume import read_volume


def find_conventions(masks: Mapping[str, Path], asked: str | None) -> dict[str, LabelConvention]:
    """Return each mask's convention: the one asked for, told by the JSON beside it, its id or dataset.json, or proved.

    Proved by the numbers of all the masks together that nothing tells of.

    Args:
        masks: By case id.
        asked: A convention's name, or None.

    Raises:
        InputError: A name is unknown, or the numbers fit several conventions or none.
    """
    if asked is not None:
        return dict.fromkeys(masks, get_convention(asked))
    told = {case: _told(case, path) for case, path in masks.items()}
    unknown = [masks[case] for case, convention in told.items() if convention is None]
    values: set[int] = set()
    for path in unknown:
        with suppress(InputError):  # a damaged mask proves nothing; what is wrong with it is said when it is scored
            values.update(label_values(read_volume(path, mask=True).data))
    where = f"{unknown[0]} and {len(unknown) - 1} more" if len(unknown) > 1 else str(next(iter(unknown), ""))
    candidates = candidates_of(masks)
    proved = (detect_convention(values, where, candidates) if unknown else None) or get_convention("brats2021")
    return {case: convention or proved for case, convention in told.items()}


def _told(case: str, path: Path) -> LabelConvention | None:
    beside = path.with_name(f"{mask_stem(path)}.json")
    try:
        name = json.loads(beside.read_text("utf-8"))["labels"]["convention"]
    except (OSError, ValueError, KeyError, TypeError):
        name = None
    if not isinstance(name, str):  # no such file, or not one that `predict` wrote
        layout = layout_of(case)
        name = layout.convention if layout else dataset_convention(path.parent.parent)
        return get_convention(name) if name else None
    try:
        return get_convention(name)
    except InputError as error:
        raise InputError(f"{beside}: {error}. Mend it, or choose with --labels.") from error
