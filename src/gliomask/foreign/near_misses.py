"""Paths near a model of another program: the folder around it, its checkpoint, or a fold that is not there."""

from __future__ import annotations

import re
from pathlib import Path

from gliomask.errors import InputError

_PLANS = ("plans.json", "plans.pkl")
_METADATA = Path("configs") / "metadata.json"


def refuse_near_misses(path: Path) -> None:
    """Refuse a path that is not a model but near one, and say which path is.

    Raises:
        InputError: It is a checkpoint or a missing fold in a folder of nnU-Net, or a folder with models below it.
    """
    if path.suffix.lower() == ".pth" and path.is_file() and (model := _model_around(path.parent)):
        raise InputError(
            f"{path}: is a checkpoint of nnU-Net, which needs the files around it. Name its folder: {path.parent} for "
            f"this fold, or {model} for the mean of all."
        )
    if not path.exists() and re.fullmatch(r"fold_\w+", path.name) and (model := _model_around(path)):
        there = sorted(fold.name for fold in model.glob("fold_*") if fold.is_dir())
        raise InputError(f"{path}: no such fold (there: {', '.join(there) or 'none'}).")
    if path.is_dir() and not _is_model(path) and _model_around(path) is None:
        below = sorted(each for each in (*path.glob("*"), *path.glob("*/*")) if each.is_dir() and _is_model(each))
        if below:
            raise InputError(
                f"{path}: is a folder with {'a model' if len(below) == 1 else f'{len(below)} models'} in it. Name "
                f"{'it' if len(below) == 1 else 'one'}: {', '.join(map(str, below[:5]))}"
            )


def _model_around(fold: Path) -> Path | None:
    """Return the folder of the nnU-Net model that a fold's folder belongs to, or None if there is none."""
    return fold.parent if any((fold.parent / name).is_file() for name in _PLANS) else None


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (*_PLANS, _METADATA))
