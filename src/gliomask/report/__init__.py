"""Reports: one page each, complete in one file, of a prediction, of a run, or of scores."""

from gliomask.report.prediction import find_mask, prediction_page, read_answer, write_prediction_report
from gliomask.report.scores import write_scores_report
from gliomask.report.training import write_run_report

__all__ = [
    "find_mask",
    "prediction_page",
    "read_answer",
    "write_prediction_report",
    "write_run_report",
    "write_scores_report",
]
