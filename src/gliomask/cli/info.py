"""gliomask info: what a model file says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomask.cli.console import out

EXAMPLES = """
**Examples**

`gliomask info`  (the built-in model)

`gliomask info run/best.safetensors`
"""


def info(
    model: Annotated[
        Path | None, typer.Argument(help="A model file, .safetensors or .onnx; default: the built-in model.")
    ] = None,
) -> None:
    """Print the plan of a model file and how the model was trained, as JSON. Its weights are not read."""
    from gliomask.model.file import SHIPPED, read_plan, read_training
    from gliomask.model.plan import plan_to_dict

    facts = {"model": str(model or SHIPPED), "plan": plan_to_dict(read_plan(model)), "training": read_training(model)}
    out.print_json(data=facts, ensure_ascii=True)
