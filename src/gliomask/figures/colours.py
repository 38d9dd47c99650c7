"""The colours of tissues and regions.

Told apart with full, red-blind and green-blind sight, and from every grey of the brain below: a test simulates both
(Machado, Oliveira and Fernandes 2009). The first three are from Okabe and Ito's palette (2008).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# Painted in this order, a later region over an earlier one: what stays visible of each is its tissue.
PAINT_ORDER = ("WT", "TC", "ET", "RC")

# Over a grey image on black.
OVERLAY_COLOURS: Mapping[str, str] = MappingProxyType(
    {"WT": "#56B4E9", "TC": "#D55E00", "ET": "#F0E442", "RC": "#7B2FF2"}
)

# The same hues, darker, for lines and dots on white.
CHART_COLOURS: Mapping[str, str] = MappingProxyType(
    {"WT": "#0072B2", "TC": "#C84A00", "ET": "#E0A000", "RC": "#7B2FF2"}
)

REGION_NAMES: Mapping[str, str] = MappingProxyType(
    {"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour", "RC": "resection cavity"}
)
