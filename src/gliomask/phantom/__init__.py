"""Synthetic glioma examinations: a simplified brain with a tumour whose outline is known exactly.

They are used in the demo, in the tests, and to try commands before access to real data is granted. They contain no
patient's data: the anatomy consists of geometric shapes and noise, all drawn from a seed.
"""

from __future__ import annotations

from gliomask.phantom.examination import ANATOMY, Phantom, make_phantom
from gliomask.phantom.tumour import KINDS, Kind
from gliomask.phantom.write import write_phantoms

__all__ = ["ANATOMY", "KINDS", "Kind", "Phantom", "make_phantom", "write_phantoms"]
