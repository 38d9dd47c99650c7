"""The metrics in words, for figures and tables."""

from __future__ import annotations

_NAMES = {
    "dice": "Dice",
    "hd95_pooled_mm": "95 % Hausdorff distance (mm)",
    "hd95_surface_mm": "95 % Hausdorff distance, area-weighted (mm)",
    "nsd_0.5mm": "normalized surface Dice, 0.5 mm",
    "nsd_1mm": "normalized surface Dice, 1 mm",
    "nsd_one_voxel": "normalized surface Dice, one voxel",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "voxel_accuracy": "voxel accuracy",
    "voxel_accuracy_of_nothing": "voxel accuracy of an empty mask",
    "truth_pieces": "true components",
    "prediction_pieces": "predicted components",
    "iou": "intersection over union",
    "truth_ml": "true volume (mL)",
    "prediction_ml": "predicted volume (mL)",
    "volume_difference_ml": "predicted minus true volume (mL)",
    "detection_f1": "F1 of lesion detection",
}


def metric_name(metric: str) -> str:
    """Return a column of the score tables in words: for `hd95_pooled_mm` "95 % Hausdorff distance (mm)"."""
    base = metric.removeprefix("lesion_")
    if base == metric or base not in _NAMES:
        return _NAMES.get(metric, metric)
    return f"lesion-wise {_NAMES[base]}"
