"""How the fields of a training's configuration are offered on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from pydantic.fields import FieldInfo


class Panel(Enum):
    """The groups of options in the help of `gliomask train`, in the order in which they are shown."""

    TASK = "Task"
    LENGTH = "Length"
    HELD_OUT = "Held-out cases"
    LEARNING = "Learning"
    RESOURCES = "Speed and memory"


@dataclass(frozen=True)
class Option:
    """The command-line option of a field of `TrainConfig`. Type, range and default are those of the field itself."""

    help: str
    panel: Panel | None = None
    """The group in the help; None: among the general options."""
    flag: str = ""
    """By default the name of the field: `--batch-size` for `batch_size`."""
    names: Callable[[], Sequence[str]] | None = None
    """The values that a shell completes; those of a `Literal` need not be given."""
    metavar: str | None = None
    """The kind of value shown in the help; by default the field's type."""
    as_text: bool = False
    """The value is typed in a form of its own (`2h`), which a validator of the field reads."""


def option_of(field: FieldInfo) -> Option | None:
    """Return the command-line option that a field is annotated with; None for a field that has none."""
    return next((item for item in field.metadata if isinstance(item, Option)), None)


def flag_of(name: str, field: FieldInfo | None) -> str:
    """Return the flag under which a user knows a field, such as `--batch-size`; `field` is None for unknown names."""
    option = None if field is None else option_of(field)
    return option.flag if option and option.flag else "--" + name.replace("_", "-")
