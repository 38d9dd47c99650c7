"""Post-processing: a network's logits -> calibrated probabilities -> clean, nested masks; how its rules are found.

What predicting needs is here; `calibration`, `fitting` and `out_of_fold` are for those who fit rules.
"""

from gliomask.inference.postprocessing.clean import clean, to_probabilities

__all__ = ["clean", "to_probabilities"]
