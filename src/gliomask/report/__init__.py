"""Reports: self-contained HTML pages of a prediction, a training run, or score tables.

Those of raw studies are in `report.raw`, which takes longer to import.
"""

from gliomask.report.cohort import INDEX, write_cohort_page
from gliomask.report.index import IndexEntry, index_entry, write_index
from gliomask.report.mesh import MESH_FORMATS, mesh_bytes, write_meshes
from gliomask.report.prediction import find_mask, measure_case, prediction_page, write_prediction_report
from gliomask.report.scores import write_scores_report
from gliomask.report.training import write_run_report

__all__ = [
    "INDEX",
    "MESH_FORMATS",
    "IndexEntry",
    "find_mask",
    "index_entry",
    "measure_case",
    "mesh_bytes",
    "prediction_page",
    "write_cohort_page",
    "write_index",
    "write_meshes",
    "write_prediction_report",
    "write_run_report",
    "write_scores_report",
]
