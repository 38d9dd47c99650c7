"""Reports: self-contained HTML pages of a prediction, a training run, or score tables.

Those of raw studies are in `report.raw`, which takes longer to import.
"""

from gliomask.report.mesh import MESH_FORMATS, mesh_bytes, write_meshes
from gliomask.report.prediction import find_mask, measure_case, prediction_page, write_prediction_report
from gliomask.report.scores import write_scores_report
from gliomask.report.training import write_run_report

__all__ = [
    "MESH_FORMATS",
    "find_mask",
    "measure_case",
    "mesh_bytes",
    "prediction_page",
    "write_meshes",
    "write_prediction_report",
    "write_run_report",
    "write_scores_report",
]
