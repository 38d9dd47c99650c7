"""Rules of post-processing fitted to cases with true masks that a model was not trained on: `gliomask tune`."""

from gliomask.tuning.fit import ENOUGH_PATIENTS, LEAST_PATIENTS, Calibration, Tuning, fit_tuning
from gliomask.tuning.logits import predict_logits, store_logits
from gliomask.tuning.tune import Usable, choose_cases, write_tuned

__all__ = [
    "ENOUGH_PATIENTS",
    "LEAST_PATIENTS",
    "Calibration",
    "Tuning",
    "Usable",
    "choose_cases",
    "fit_tuning",
    "predict_logits",
    "store_logits",
    "write_tuned",
]
