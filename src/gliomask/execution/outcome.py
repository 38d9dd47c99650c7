"""Any exception as a value: what became of an item that failed."""

from __future__ import annotations

import logging

from gliomask.errors import InputError, describe

log = logging.getLogger(__name__)


class ClusterLostError(InputError):
    """The scheduler of a cluster is gone: no other item can be done, and what was done is kept."""


def as_error(error: Exception) -> InputError:
    """Return an exception as an `InputError` with one line for the user; the log has the traceback of a fault."""
    if isinstance(error, InputError):
        return error
    log.info("an item failed", exc_info=error)
    found = InputError(describe(error))
    found.__cause__ = error
    return found
