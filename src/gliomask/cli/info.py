"""gliomask info: what is in a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomask.cli.console import out

EXAMPLES = """
**Examples**

`gliomask info`  (the model that comes with gliomask)

`gliomask info run/best.safetensors`
"""


def info(
    model: Annotated[
        Path | None, typer.Argument(help="A model file, .safetensors or .onnx; by default the one inside.")
    ] = None,
) -> None:
    """Show the plan that a model file carries, and how it was trained; loads no weight."""
    import json

    from gliomask.model.file import SHIPPED, read_plan, read_training
    from gliomask.model.plan import plan_to_dict

    facts = {"model": str(model or SHIPPED), "plan": plan_to_dict(read_plan(model)), "training": read_training(model)}
    out.print_json(json.dumps(facts))
