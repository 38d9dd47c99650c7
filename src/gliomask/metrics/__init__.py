"""Scores on plain boolean arrays, the truth before the prediction; no torch, no files."""

from gliomask.metrics.overlap import Counts, count, dice, iou, sensitivity, specificity, volume_ml
from gliomask.metrics.protocols import PROTOCOLS, Protocol, get_protocol, score_case
from gliomask.metrics.surface import hausdorff_95_pooled

__all__ = [
    "PROTOCOLS",
    "Counts",
    "Protocol",
    "count",
    "dice",
    "get_protocol",
    "hausdorff_95_pooled",
    "iou",
    "score_case",
    "sensitivity",
    "specificity",
    "volume_ml",
]
