"""A synthetic glioma examination: a cartoon of a brain with a tumour whose outline is known exactly.

For the demo, the tests and a rehearsal before access to data is granted. No patient's image has gone into it: the
anatomy is geometry and noise, and a seed says which.
"""

from __future__ import annotations

from gliomask.phantom.examination import ANATOMY, Phantom, make_phantom
from gliomask.phantom.tumour import KINDS, Kind
from gliomask.phantom.write import write_phantoms

__all__ = ["ANATOMY", "KINDS", "Kind", "Phantom", "make_phantom", "write_phantoms"]
