"""A brake on wrong tokens: each client address may try only so many."""

from __future__ import annotations

import ipaddress
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from gliomask.service.limits import RefusedError

log = logging.getLogger(__name__)

_MOST_ADDRESSES = 4096

_Value = TypeVar("_Value")


class Brake:
    """Count wrong tokens by client address, and refuse further tokens from an address that sent too many.

    The count of an address decreases by one every `seconds` seconds. Other addresses, and browsers that are signed in,
    are not affected. Addresses of IPv6 count by their network of 64 bits, which one client can use as a whole.

    The right token is still accepted from an address from which it came before, and from loopback addresses, which may
    be a proxy for all clients. So nobody can lock out the users behind the same address.
    """

    def __init__(self, most: int = 10, seconds: float = 6.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._counts: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._known: OrderedDict[str, None] = OrderedDict()

    def admits(self, address: str, matches: Callable[[], bool]) -> bool:
        """Return whether a token is right.

        Args:
            address: The client's.
            matches: Compares the token; not called while all tokens from this address are refused.

        Raises:
            RefusedError: 429, too many wrong tokens came from this address, and this one is wrong or was not compared.
        """
        network = _network(address)
        refuses = self._count(network) > self._most - 1
        if (not refuses or network in self._known or _is_loopback(network)) and matches():
            _put(self._known, network, None)
            return True
        if refuses:
            raise RefusedError(429, "Too many wrong tokens came from this address. Wait a minute, then try again.")
        _put(self._counts, network, (self._count(network) + 1, self._clock()))
        if self._count(network) > self._most - 1:
            log.warning("too many wrong tokens from %s: further tokens are refused for some seconds", network)
        return False

    def _count(self, network: str) -> float:
        count, moment = self._counts.get(network, (0.0, 0.0))
        return max(0.0, count - (self._clock() - moment) / self._seconds)


def _put(table: OrderedDict[str, _Value], key: str, value: _Value) -> None:
    table[key] = value
    table.move_to_end(key)
    while len(table) > _MOST_ADDRESSES:
        table.popitem(last=False)


def _is_loopback(address: str) -> bool:
    return address == "::/64" or address.startswith("127.")


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))
