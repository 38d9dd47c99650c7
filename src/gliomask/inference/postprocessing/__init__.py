"""Post-processing of a network's logits: calibrated probabilities, then cleaned, nested masks.

`predict` uses the functions exported here. The modules `calibration`, `fitting` and `out_of_fold` fit the rules of
post-processing to cases that the model was not trained on.
"""

from gliomask.inference.postprocessing.clean import (
    class_masks,
    clean,
    region_probabilities,
    softmax,
    to_probabilities,
)

__all__ = ["class_masks", "clean", "region_probabilities", "softmax", "to_probabilities"]
