"""The options of `gliomask train`, built from the fields of `TrainConfig`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from gliomask.training.options import Option, Panel, flag_of, option_of

_PANELS = [None, *Panel]


def add_options(command: Callable[..., None], fields: Mapping[str, FieldInfo]) -> None:
    """Give a command the options of a configuration's fields, in place of its `**settings`.

    Options appear in the help by panel, in the order of the fields; the command's own ones come first in their panel.
    Fields without an `Option` are left out.

    Args:
        command: Its other parameters are annotated as Typer reads them. Its signature is replaced.
        fields: By name, as pydantic lists them.
    """
    own = inspect.signature(command, eval_str=True).parameters.values()
    explicit = [parameter for parameter in own if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    made = [_parameter(name, field, option) for name, field in fields.items() if (option := option_of(field))]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*explicit, *made)]
    ordered = sorted(parameters, key=_place)
    command.__signature__ = inspect.Signature(ordered, return_annotation=None)  # type: ignore[attr-defined]


def _parameter(name: str, field: FieldInfo, option: Option) -> inspect.Parameter:
    kind, choices = (str, ()) if option.as_text else _plain_type(field.annotation)
    names = option.names or (lambda: choices)
    declared = typer.Option(
        flag_of(name, field),
        help=option.help,
        min=_bound(field, "ge"),
        max=_bound(field, "le"),
        metavar=option.metavar,
        autocompletion=lambda: list(names()),
        rich_help_panel=option.panel.value if option.panel else None,
    )
    optional = NoneType in get_args(field.annotation)
    annotation = Annotated[kind | None if optional else kind, declared]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)


def _plain_type(annotation: Any) -> tuple[type, tuple[str, ...]]:
    """Return the type that the command line reads, and the values of a `Literal`; `| None` is left out."""
    if get_origin(annotation) in (UnionType, Union):
        annotation = next(part for part in get_args(annotation) if part is not NoneType)
    return (str, get_args(annotation)) if get_origin(annotation) is Literal else (annotation, ())


def _bound(field: FieldInfo, name: str) -> float | None:
    """Return an inclusive bound of a field's range; exclusive ones are left to the field's own validation."""
    return next((getattr(item, name) for item in field.metadata if hasattr(item, name)), None)


def _place(parameter: inspect.Parameter) -> int:
    """Return the position of a parameter's panel in the help."""
    declared = next((item for item in get_args(parameter.annotation)[1:] if hasattr(item, "rich_help_panel")), None)
    panel = declared.rich_help_panel if declared else None
    return [each.value if each else None for each in _PANELS].index(panel)
