"""Masks that lie apart from the images that they belong to, or have another id, and the cases that get them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

from gliomask.cases.case import Problem
from gliomask.cases.identity import Key

Files = dict[str, list[tuple[int, Path]]]
"""The files of one case by role, each with its rank (see `naming.FileName`)."""

# The values of BIDS's entity `space` that mean the space of the images themselves.
_OWN_SPACE = re.compile(r"_space-(?:orig|individual|native|scanner|t1w|anat)(?=_|$)", re.IGNORECASE)


def adopt_masks(root: Path, groups: dict[Key, Files]) -> list[Problem]:
    """Give masks without images beside them to the cases that they belong to, and return what was decided.

    A mask with another id goes to the only case of its folder if that case has none (case 355 of BraTS 2020). A mask in
    another folder goes to the only case with its id (`images_segm` of UPENN-GBM, `derivatives` of BIDS). The groups
    are changed.
    """
    return [*_adopt_in_folder(groups), *_adopt_by_id(root, groups)]


def _adopt_in_folder(groups: dict[Key, Files]) -> list[Problem]:
    notes = []
    in_folder = Counter(folder for folder, _ in groups)
    for folder, name in _lone_masks(groups):
        if in_folder[folder] != 2:
            continue
        other = next(files for (place, other), files in groups.items() if place == folder and other != name)
        if "mask" not in other:
            other["mask"] = groups.pop((folder, name))["mask"]
            notes.append(Problem(str(other["mask"][0][1]), "taken as the mask of the only case beside it"))
    return notes


def _adopt_by_id(root: Path, groups: dict[Key, Files]) -> list[Problem]:
    by_id: dict[str, list[Key]] = defaultdict(list)
    for key, files in groups.items():
        if key[1] and set(files) != {"mask"}:
            by_id[key[1]].append(key)
    adopted: dict[Key, list[tuple[int, Path]]] = defaultdict(list)
    for key in _lone_masks(groups):
        owners = by_id[key[1]] or by_id[_OWN_SPACE.sub("", key[1])]
        if len(owners) == 1 and "mask" not in groups[owners[0]]:
            adopted[owners[0]] += groups.pop(key)["mask"]
    for key, masks in adopted.items():
        groups[key]["mask"] = masks
    if not adopted:
        return []
    example = next(iter(adopted.values()))[0][1].relative_to(root)
    which = f"the masks of {len(adopted)} cases lie" if len(adopted) > 1 else "the mask of a case lies"
    return [Problem(str(root), f"{which} in another folder than the images, told by the id ({example})")]


def _lone_masks(groups: dict[Key, Files]) -> list[Key]:
    return [key for key, files in groups.items() if set(files) == {"mask"}]
