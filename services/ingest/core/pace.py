"""How much one sender may ask in a minute: token buckets in memory, as many as fit, the least used forgotten first.

Each process counts for itself and forgets with its end: this keeps one sender from crowding out the others, and is no
account of anything.
"""

from collections import OrderedDict
from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address
from typing import Final

SENDERS_MAX: Final = 10_000
"""Senders kept in mind. One that is forgotten begins anew with a full bucket."""


class Pace:
    """At most `per_minute` for each sender, at once or spread; refilled steadily. Times are seconds on any one clock."""

    def __init__(self, per_minute: int, senders_max: int = SENDERS_MAX) -> None:
        self._per_minute = per_minute
        self._senders_max = senders_max
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """How many senders are kept in mind."""
        return len(self._buckets)

    def wait(self, sender: Hashable, now: float) -> float:
        """Return the seconds until `sender` may ask again, 0 for at once. Takes nothing."""
        return max(0.0, (1.0 - self._left(sender, now)) * 60.0 / self._per_minute)

    def take(self, sender: Hashable, now: float) -> float:
        """Count one request of `sender` where it may ask; else return the seconds until it may."""
        wait = self.wait(sender, now)
        if wait == 0.0:
            self._buckets[sender] = (self._left(sender, now) - 1.0, now)
            self._buckets.move_to_end(sender)
            if len(self._buckets) > self._senders_max:
                self._buckets.popitem(last=False)
        return wait

    def _left(self, sender: Hashable, now: float) -> float:
        full = float(self._per_minute)
        left, since = self._buckets.get(sender, (full, now))
        # A clock that was set back refills nothing.
        return min(full, left + max(0.0, now - since) * self._per_minute / 60.0)


def network_of(address: str) -> str:
    """Return what a client address is counted as: itself, or an IPv6 address's /64, which one sender has whole."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped) if mapped is not None else parsed.exploded[:19]
    return str(parsed)
