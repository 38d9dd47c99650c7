"""Metrics of boolean masks, and the table of the scoring protocols of each year of BraTS."""

from gliomask.metrics.lesions import LesionRule, Lesions, components, find_lesions
from gliomask.metrics.lesionwise import Matching, MatchingInput, match_by_dilation, match_one_to_one
from gliomask.metrics.masks import Mask, Spacing, joint_box
from gliomask.metrics.measures import METRICS, Metric, Pair, make_pair
from gliomask.metrics.mistakes import Mistake, find_mistakes
from gliomask.metrics.names import metric_name
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
from gliomask.metrics.protocols import PROTOCOLS, Protocol, family_of, get_protocol
from gliomask.metrics.scoring import score_case, score_missing
from gliomask.metrics.surface import hausdorff_95_pooled, hausdorff_95_surface, surface_dice

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "LesionRule",
    "Lesions",
    "Mask",
    "Matching",
    "MatchingInput",
    "Metric",
    "Mistake",
    "Overlap",
    "Pair",
    "Protocol",
    "Spacing",
    "accuracy",
    "components",
    "count_overlap",
    "dice",
    "family_of",
    "find_lesions",
    "find_mistakes",
    "get_protocol",
    "hausdorff_95_pooled",
    "hausdorff_95_surface",
    "iou",
    "joint_box",
    "make_pair",
    "match_by_dilation",
    "match_one_to_one",
    "mean_iou",
    "metric_name",
    "score_case",
    "score_missing",
    "sensitivity",
    "specificity",
    "surface_dice",
    "volume_ml",
]
