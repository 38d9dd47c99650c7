"""Pictures for people: a case in three planes, the curves of a training, the scores of an evaluation.

matplotlib is imported by the functions that draw, not by this room, and only its object-oriented side (`Figure`, Agg):
no window, no pyplot, no state shared between two pictures.
"""

from __future__ import annotations

from gliomask.figures.case import CaseView, case_figure
from gliomask.figures.curves import curves_figure
from gliomask.figures.png import png_bytes, save_figure
from gliomask.figures.scores import scores_figure

__all__ = ["CaseView", "case_figure", "curves_figure", "png_bytes", "save_figure", "scores_figure"]
