"""How masks are computed: the options of `predict` that concern the models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gliomask.cli.console import note
from gliomask.cli.options import choose
from gliomask.cli.predict_case import Models

if TYPE_CHECKING:
    from gliomask.inference.record import Wanted
    from gliomask.inference.windows import Inference
    from gliomask.model.plan import Plan


@dataclass(frozen=True)
class How:
    """How masks are computed, as the options say."""

    paths: tuple[Path | None, ...]
    window: str
    mirror: bool
    precision: str
    device: str
    engine: str
    threads: int | None
    cross_check: bool
    model_changed: str = "redo"

    def inference(self) -> Inference:
        from gliomask.inference.windows import Inference

        window, precision = choose("--window", self.window), choose("--precision", self.precision)
        return Inference(window, self.mirror, precision, self.cross_check)  # type: ignore[arg-type]

    def models(self, wanted: Wanted) -> Models:
        from gliomask.model.file import SHIPPED

        names = tuple(SHIPPED if path is None else str(path) for path in self.paths)
        engine = choose("--engine", self.engine)
        digests = tuple(wanted.settings["models"])
        return Models(self.paths, names, digests, self.inference(), self.device, engine, self.threads)

    def note_mirrors(self, plans: Sequence[Plan]) -> None:
        """Say what a program that made a network would do by default, where it is not done here."""
        # Only nnU-Net mirrors windows, and does it by default; MONAI does not mirror.
        made_elsewhere = [plan for plan in plans if plan.origin is not None and plan.windows.mirror_windows]
        counts = {2 ** len(plan.mirror_axes) for plan in made_elsewhere if plan.mirror_axes}
        if counts and not self.mirror:
            note(
                f"the program that trained this network averages over {max(counts)} mirror images by default, which "
                f"takes {max(counts)} times as long. For the same, add --tta."
            )

    def wanted(self, labels: str | None, *, probabilities: bool, picture: bool = False, redraw: bool = False) -> Wanted:
        """Return what makes an existing mask the right one; reads the model files, but no weights."""
        from gliomask.foreign import find_model, model_digest, read_plan
        from gliomask.inference.record import Wanted, describe_settings
        from gliomask.labels import get_convention

        inference, files = self.inference(), [find_model(path) for path in self.paths]
        plans = [read_plan(file) for file in files]
        self.note_mirrors(plans)
        convention = get_convention(labels or plans[0].convention).name
        modalities = tuple(dict.fromkeys(name for plan in plans for name in plan.modalities))
        settings = describe_settings([model_digest(file) for file in files], inference, convention)
        any_model = choose("--model-changed", self.model_changed) == "keep"
        return Wanted(settings, modalities, probabilities, picture, redraw, any_model)
