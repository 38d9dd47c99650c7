"""Reports: self-contained HTML pages of a prediction, a training run, or score tables."""

from gliomask.report.prediction import find_mask, measure_case, prediction_page, write_prediction_report
from gliomask.report.scores import write_scores_report
from gliomask.report.training import write_run_report

__all__ = [
    "find_mask",
    "measure_case",
    "prediction_page",
    "write_prediction_report",
    "write_run_report",
    "write_scores_report",
]
