"""Post-processing: a network's logits -> calibrated probabilities -> clean, nested masks; how its rules are found."""

from gliomask.postprocessing.calibration import Tables, calibration_error, count_logits, fit_temperature, likelihood
from gliomask.postprocessing.clean import clean, to_probabilities
from gliomask.postprocessing.fitting import Fit, fit_rules, leave_one_out
from gliomask.postprocessing.out_of_fold import OutOfFold, read_out_of_fold, save_out_of_fold, score_rule

__all__ = [
    "Fit",
    "OutOfFold",
    "Tables",
    "calibration_error",
    "clean",
    "count_logits",
    "fit_rules",
    "fit_temperature",
    "leave_one_out",
    "likelihood",
    "read_out_of_fold",
    "save_out_of_fold",
    "score_rule",
    "to_probabilities",
]
