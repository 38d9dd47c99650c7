"""Metrics: boolean masks -> numbers, and the table of how each year of BraTS scores."""

from gliomask.metrics.masks import Mask, Spacing
from gliomask.metrics.overlap import (
    Overlap,
    accuracy,
    count_overlap,
    dice,
    iou,
    mean_iou,
    sensitivity,
    specificity,
    volume_ml,
)
from gliomask.metrics.protocols import PROTOCOLS, Metric, Pair, Protocol, get_protocol, score_case
from gliomask.metrics.surface import hausdorff_95_pooled

__all__ = [
    "PROTOCOLS",
    "Mask",
    "Metric",
    "Overlap",
    "Pair",
    "Protocol",
    "Spacing",
    "accuracy",
    "count_overlap",
    "dice",
    "get_protocol",
    "hausdorff_95_pooled",
    "iou",
    "mean_iou",
    "score_case",
    "sensitivity",
    "specificity",
    "volume_ml",
]
