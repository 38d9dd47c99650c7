"""The configuration of a MONAI bundle, of which only references, names and numbers are understood.

MONAI evaluates every text that begins with `$` as Python code, and calls whatever `_target_` names. Nothing of that is
done here: the parts that describe the network, the preprocessing and the windows are read as data, and anything in them
that is not data is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from gliomask.errors import InputError
from gliomask.foreign.source import Files

CONFIGS = tuple(f"configs/inference.{ending}" for ending in ("json", "yaml", "yml"))

_REFERENCE = re.compile(r"@([A-Za-z_]\w*(?:(?:#|::)\w+)*)")
_NUMBER = re.compile(r"-?\d+(\.\d*)?([eE][-+]?\d+)?")
_CONSTANTS: Mapping[str, bool | None] = {"True": True, "False": False, "None": None}
# Keys with a meaning of their own, beside `_target_`.
_REMARKS = frozenset({"_desc_", "_comment_"})
_LONGEST_CHAIN = 20


@dataclass(frozen=True)
class Config:
    """A configuration, with a description of its file for messages."""

    content: Mapping[str, Any]
    where: str

    def get(self, *names: str) -> Any:
        """Return the first of some top-level parts that is there, with its references resolved; else None.

        Raises:
            InputError: It has an expression that is not a reference, a name or a number.
        """
        name = next((name for name in names if name in self.content), None)
        return None if name is None else self._resolve(self.content[name], name, 0)

    def get_transforms(self, *names: str, arguments: Mapping[str, frozenset[str]]) -> Any:
        """Return a part like `get`, of which only the arguments of transforms that are read are resolved.

        The others may be functions, which serve the way back and saving; those that are expressions are left out.

        Args:
            names: The names of the part.
            arguments: The arguments that are read, by the name of the transform's class.

        Raises:
            InputError: One of these arguments, the list or a transform is an expression that is not a reference, a name
                or a number.
        """
        name = next((name for name in names if name in self.content), None)
        return None if name is None else self._resolve_transforms(self.content[name], name, 0, arguments)

    def _resolve_transforms(self, value: Any, place: str, depth: int, arguments: Mapping[str, frozenset[str]]) -> Any:
        self._check_depth(place, depth)
        if _is_expression(value):
            return self._resolve_transforms(*self._look_up(value, place), depth + 1, arguments)
        if isinstance(value, list):
            return [
                self._resolve_transforms(item, f"{place}.{number}", depth + 1, arguments)
                for number, item in enumerate(value)
            ]
        if not isinstance(value, Mapping):
            return value
        read = arguments.get(str(value.get("_target_")).rpartition(".")[2], frozenset())
        found = {}
        for key, item in value.items():
            if key == "transforms":
                found[key] = self._resolve_transforms(item, f"{place}.{key}", depth + 1, arguments)
            elif key in read:
                found[key] = self._resolve(item, f"{place}.{key}", depth + 1)
            elif not _is_expression(item):
                found[key] = item
        return found

    def _check_depth(self, place: str, depth: int) -> None:
        if depth > _LONGEST_CHAIN:
            raise InputError(f"{self.where}: {place} is nested too deeply, or refers to itself.")

    def _resolve(self, value: Any, place: str, depth: int) -> Any:
        self._check_depth(place, depth)
        if isinstance(value, Mapping):
            return {str(key): self._resolve(item, f"{place}.{key}", depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self._resolve(item, f"{place}.{number}", depth + 1) for number, item in enumerate(value)]
        if _is_expression(value):
            return self._resolve(*self._look_up(value, place), depth + 1)
        return value

    def _look_up(self, text: str, place: str) -> tuple[Any, str]:
        """Return what a reference or an expression of one name or number stands for, and where that is."""
        plain = text.removeprefix("$").strip()
        if plain in _CONSTANTS:
            return _CONSTANTS[plain], place
        if _NUMBER.fullmatch(plain):
            return float(plain) if re.search(r"[.eE]", plain) else int(plain), place
        found = _REFERENCE.fullmatch(plain)
        if found is None:
            raise InputError(
                f"{self.where}: {place} is the expression {text[:80]!r}. Expressions are never evaluated; write what "
                "it stands for."
            )
        target: Any = self.content
        for part in re.split(r"#|::", found[1]):
            known = isinstance(target, Mapping) and part in target
            listed = isinstance(target, list) and part.isdigit() and int(part) < len(target)
            if not known and not listed:
                raise InputError(f"{self.where}: {place} refers to {found[1]}, which is not there.")
            target = target[part] if known else target[int(part)]
        return target, found[1]


def _is_expression(value: Any) -> TypeGuard[str]:
    """Return whether MONAI would evaluate a value, or look up what it refers to."""
    return isinstance(value, str) and value.startswith(("$", "@", "%"))


def read_config(files: Files) -> Config:
    """Return the configuration of a bundle.

    Raises:
        InputError: It is missing or damaged, or is YAML and PyYAML is not installed.
    """
    name = next((name for name in CONFIGS if files.has(name)), CONFIGS[0])
    where = files.describe(name)
    return Config(files.json(name) if name.endswith(".json") else _from_yaml(files, name), where)


def _from_yaml(files: Files, name: str) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise InputError(
            f"{files.describe(name)}: reading YAML needs PyYAML: pip install pyyaml. Or write the file as JSON."
        ) from error
    try:
        found = yaml.safe_load(files.text(name))
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{files.describe(name)}: is no YAML: {' '.join(str(error).split())[:200]}.") from error
    if not isinstance(found, dict):
        raise InputError(f"{files.describe(name)}: must contain a mapping.")
    return found


def class_of(part: Any, where: str, package: str) -> tuple[str, dict[str, Any]]:
    """Return the name of the class that a part names, and its arguments.

    Args:
        part: A mapping with `_target_`.
        where: The file and the part, for messages.
        package: The package that the class must be from; a name without a package is one of MONAI's.

    Raises:
        InputError: The part is no such mapping, its class is from another package, or it has other instructions.
    """
    target = part.get("_target_") if isinstance(part, Mapping) else None
    if not isinstance(target, str):
        raise InputError(f"{where}: has no _target_, the name of a class.")
    home, _, name = target.rpartition(".")
    if home and home != package and not home.startswith(f"{package}."):
        raise InputError(f"{where}: _target_ is {target[:100]}, which is not from {package}. It is not executed.")
    orders = [key for key in part if key.startswith("_") and key != "_target_" and key not in _REMARKS]
    if orders:
        raise InputError(f"{where}: {', '.join(orders)} is not supported.")
    return name, {key: value for key, value in part.items() if not key.startswith("_")}


def steps_of(part: Any, where: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the class and the arguments of each transform in a list of them, or in a `Compose`.

    Raises:
        InputError: As for `class_of`.
    """
    if part is None:
        return []
    if isinstance(part, Mapping):
        name, arguments = class_of(part, where, "monai.transforms")
        if name != "Compose":
            return [(name, arguments)]
        part = arguments.get("transforms", [])
    if not isinstance(part, list):
        raise InputError(f"{where}: must be a list of transforms.")
    return [class_of(item, f"{where} {number}", "monai.transforms") for number, item in enumerate(part)]
