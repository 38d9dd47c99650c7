"""Post-processing of a network's logits: calibrated probabilities, then cleaned, nested masks."""

from gliomask.inference.postprocessing.clean import (
    class_masks,
    clean,
    region_probabilities,
    softmax,
    to_probabilities,
)

__all__ = ["class_masks", "clean", "region_probabilities", "softmax", "to_probabilities"]
