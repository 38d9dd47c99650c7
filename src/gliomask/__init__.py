"""Find brain tumours in MRI: BraTS cases in, networks trained, masks, scores and pictures out.

The names below are the public interface. Each is imported when it is first used, so that importing gliomask is
quick and needs neither torch nor matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gliomask.version import VERSION

if TYPE_CHECKING:
    from gliomask import metrics
    from gliomask.cases import Case, find_cases, read_case, read_mask
    from gliomask.errors import InputError
    from gliomask.evaluation import evaluate
    from gliomask.inference.loading import Model, load_model
    from gliomask.inference.prediction import predict
    from gliomask.inference.windows import Inference
    from gliomask.labels import get_convention
    from gliomask.model.plan import Plan
    from gliomask.phantom import write_phantoms
    from gliomask.report.pictures import draw_case, draw_prediction
    from gliomask.training.config import TrainConfig
    from gliomask.training.cross_validation import cross_validate
    from gliomask.training.loop import train
    from gliomask.training.run_comparison import compare
    from gliomask.volume import Volume

__version__ = VERSION

_HOMES = {
    "Case": "cases",
    "Inference": "inference.windows",
    "InputError": "errors",
    "Model": "inference.loading",
    "Plan": "model.plan",
    "TrainConfig": "training.config",
    "Volume": "volume",
    "compare": "training.run_comparison",
    "cross_validate": "training.cross_validation",
    "draw_case": "report.pictures",
    "draw_prediction": "report.pictures",
    "evaluate": "evaluation",
    "find_cases": "cases",
    "get_convention": "labels",
    "load_model": "inference.loading",
    "metrics": "",
    "predict": "inference.prediction",
    "read_case": "cases",
    "read_mask": "cases",
    "train": "training.loop",
    "write_phantoms": "phantom",
}

__all__ = [
    "Case",
    "Inference",
    "InputError",
    "Model",
    "Plan",
    "TrainConfig",
    "Volume",
    "compare",
    "cross_validate",
    "draw_case",
    "draw_prediction",
    "evaluate",
    "find_cases",
    "get_convention",
    "load_model",
    "metrics",
    "predict",
    "read_case",
    "read_mask",
    "train",
    "write_phantoms",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gliomask' has no attribute {name!r}")
    home = _HOMES[name]
    return getattr(import_module(f"gliomask.{home}"), name) if home else import_module(f"gliomask.{name}")


def __dir__() -> list[str]:
    return __all__
