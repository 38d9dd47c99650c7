"""Paths near a model: the folder around it, a part of it, or a copy that lacks a part; messages say what to name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from gliomask.errors import InputError
from gliomask.foreign.monai import is_monai
from gliomask.foreign.monai_config import CONFIGS
from gliomask.foreign.nnunet import is_nnunet

KINDS = (
    "A model is a file of gliomask (.safetensors, .onnx), a folder of nnU-Net v2 (with plans.json, dataset.json and "
    "fold_*) or one of its folds, a MONAI bundle (a folder with configs/metadata.json, configs/inference.json and "
    "models/model.pt), or a zip archive of either."
)

_PLANS = ("plans.json", "plans.pkl")
_METADATA = Path("configs") / "metadata.json"
_CHECKPOINT = "checkpoint_*.pth"


def refuse_near_misses(path: Path) -> None:
    """Refuse a path that is not a model but near one, and say which path is.

    Raises:
        InputError: It is a checkpoint, a missing fold or another part of a model, lacks a part of one, or is a folder
            or a zip archive that is no model.
    """
    _refuse_parts_of_nnunet(path)
    if is_nnunet(path) or is_monai(path):
        return
    if path.is_dir():
        raise _no_model(path)
    if path.suffix.lower() == ".zip" and path.is_file():
        raise InputError(f"{path}: is a zip archive without a model in it. {KINDS}")


def _refuse_parts_of_nnunet(path: Path) -> None:
    model = _model_around(path)
    if path.match(_CHECKPOINT) and path.is_file():
        model = _model_around(path.parent)
        if model is None:
            raise _without_plans(path)
        raise InputError(
            f"{path}: is a checkpoint of nnU-Net, which needs the files around it. Name its folder: {path.parent} for "
            f"this fold, or {model} for the mean of all."
        )
    if model is not None and not path.exists() and re.fullmatch(r"fold_\w+", path.name):
        there = sorted(fold.name for fold in model.glob("fold_*") if fold.is_dir())
        raise InputError(f"{path}: no such fold (there: {', '.join(there) or 'none'}).")


def _no_model(folder: Path) -> InputError:
    """Return the error for a folder that is no model."""
    whole = _model_around(folder) or (folder.parent if is_monai(folder.parent) else None)
    if whole is not None:
        return InputError(f"{folder}: is a part of a model. Name the whole: {whole}")
    if any(folder.glob(_CHECKPOINT)) or any(folder.glob(f"fold_*/{_CHECKPOINT}")):
        return _without_plans(folder)
    if (folder / _METADATA).is_file() or any((folder / name).is_file() for name in CONFIGS):
        missing = _METADATA if not (folder / _METADATA).is_file() else f"{CONFIGS[0]} (or .yaml)"
        return InputError(f"{folder}: is a MONAI bundle without {missing}. Download it completely.")
    below = sorted(each for each in (*folder.glob("*"), *folder.glob("*/*")) if each.is_dir() and _is_model(each))
    files = sorted(each for each in folder.glob("*") if each.suffix.lower() in (".safetensors", ".onnx"))
    if below or files:
        return _around([*files, *below], folder)
    return InputError(f"{folder}: is a folder without a model. {KINDS}")


def _around(models: Sequence[Path], folder: Path) -> InputError:
    count, name = ("a model", "it") if len(models) == 1 else (f"{len(models)} models", "one")
    return InputError(f"{folder}: is a folder with {count} in it. Name {name}: {', '.join(map(str, models[:5]))}")


def _without_plans(path: Path) -> InputError:
    return InputError(
        f"{path}: a checkpoint of nnU-Net without its plans.json. Copy the whole folder that nnU-Net wrote, with "
        "plans.json, dataset.json and fold_*, or use the archive of nnUNetv2_export_model_to_zip."
    )


def _model_around(part: Path) -> Path | None:
    """Return the folder of the nnU-Net model that a fold or another part lies in, or None if there is none."""
    return part.parent if any((part.parent / name).is_file() for name in _PLANS) else None


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (*_PLANS, _METADATA))
