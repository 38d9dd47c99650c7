"""gliomask info: what a model file says about itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomask.cli.console import out

if TYPE_CHECKING:
    from gliomask.model.plan import Plan

EXAMPLES = """
**Examples**

About the built-in model:

`gliomask info`

`gliomask info run/best.safetensors`

Everything that the file records, for other programs:

`gliomask info run/best.safetensors --json`
"""

_LONGEST_LIST = 5


def info(
    model: Annotated[
        Path | None, typer.Argument(help="A model file, or a model of nnU-Net or MONAI; default: the built-in one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole record as JSON.")] = False,
) -> None:
    """Print what a model takes and returns, and how it was trained. Its weights are not read."""
    from rich.table import Table

    from gliomask.foreign import find_model, read_plan, read_training
    from gliomask.model.file import SHIPPED
    from gliomask.model.plan import plan_to_dict

    plan, training = read_plan(model), read_training(model)
    if as_json:
        facts = {"model": str(model or SHIPPED), "plan": plan_to_dict(plan), "training": training}
        out.print_json(data=facts, ensure_ascii=True)
        return
    size_mb = _size(find_model(model)) / 1e6
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in (("model", f"{model or SHIPPED} ({size_mb:.1f} MB)"), *_plan_rows(plan), *_rows(training)):
        table.add_row(name, value)
    out.print(table)


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _plan_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    yield "sequences", ", ".join(plan.modalities) + (" (some may be missing)" if plan.can_miss else "")
    yield "regions", ", ".join(plan.regions)
    if plan.classes:
        yield "classes", ", ".join(name or "background" for name in plan.classes)
    if plan.origin is not None:
        yield "made with", plan.origin.made_with
        yield "license", plan.origin.license or "not known: ask those who trained it"
        if plan.origin.cite:
            yield "cite", plan.origin.cite
    yield "labels written", plan.convention
    yield "voxels", f"{' x '.join(f'{mm:g}' for mm in plan.spacing_mm)} mm, axes {plan.axes}"
    yield "intensities", ", ".join(dict.fromkeys(plan.normalizations))
    members = plan.network_arguments.get("members")
    yield "network", f"{plan.network} of {', '.join(str(name) for name, _ in members)}" if members else plan.network
    window = "the whole brain in one pass" if plan.whole_brain else f"{' x '.join(map(str, plan.patch_size))} voxels"
    yield "window", window
    thresholds = (f"{region} {plan.postprocessing.rule(region).threshold:g}" for region in plan.regions)
    yield "thresholds", ", ".join(thresholds)


def _rows(facts: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the facts about the training, one row each; of a long list its length only."""
    for name, value in facts.items():
        label = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _rows(value, f"{label}: ")
        elif isinstance(value, list) and len(value) > _LONGEST_LIST:
            yield label, f"{len(value)} (listed by --json)"
        elif isinstance(value, list):
            yield label, ", ".join(map(str, value))
        else:
            yield label, _shown(value)


def _shown(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
