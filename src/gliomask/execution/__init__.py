"""One way of working through cases: in threads or processes of this machine, or on the workers of a Dask cluster.

Every command that treats many cases, and every function that treats some at a time, calls `map_cases` or `ahead`. No
other room has a pool of threads or processes (`tests/test_floors.py`).
"""

from gliomask.execution.cores import given_cores, usable_cores
from gliomask.execution.mapping import map_cases
from gliomask.execution.outcome import ClusterLostError
from gliomask.execution.processes import ended_in_order
from gliomask.execution.threads import Stopped, ahead, asked_to_stop, stop_if_asked
from gliomask.execution.where import HERE, Where

__all__ = [
    "HERE",
    "ClusterLostError",
    "Stopped",
    "Where",
    "ahead",
    "asked_to_stop",
    "ended_in_order",
    "given_cores",
    "map_cases",
    "stop_if_asked",
    "usable_cores",
]
