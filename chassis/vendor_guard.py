"""Which addresses a call to the outside may reach, decided when it connects and for the very address it connects to.

A name that is looked up, found harmless and looked up again may lead elsewhere the second time. So there is one look-up a
connection, its addresses are judged, and one of just these is connected to; TLS still proves the name.

Refused is everything that is not public by IANA's registries of special addresses (RFC 6890 and its successors, as Python's
`ipaddress` has them): this machine, private networks, link-local ones with the clouds' metadata services, multicast. An IPv6
address that stands for an IPv4 one (mapped, NAT64, 6to4, Teredo) is judged as both. Hosts that an operator names may lead
anywhere.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

_NAT64: Final = (
    IPv6Network("64:ff9b::/96"),  # RFC 6052: the well-known prefix.
    IPv6Network("64:ff9b:1::/48"),  # RFC 8215: prefixes of a site's own.
)
_SPECIAL: Final = (
    IPv4Network("168.63.129.16/32"),  # Azure's metadata service.
    IPv4Network("192.0.0.0/24"),  # RFC 6890; Oracle's metadata service is 192.0.0.192.
    IPv4Network("192.88.99.0/24"),  # RFC 7526: relays of 6to4, of the past.
    IPv6Network("fec0::/10"),  # RFC 3879: of one site, of the past.
    IPv6Network("3fff::/20"),  # RFC 9637: documentation.
    IPv6Network("5f00::/16"),  # RFC 9602: within a network's own routing.
)
"""Networks that `ipaddress` may count as public, depending on Python's version, and that lead into somebody's own machinery."""

LOOK_UPS: Final = 2
"""Look-ups that a client has under way at once."""
LOOK_UP_SECONDS: Final = 5.0
"""After which one has failed, before anything has gone out."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Looks a name up for a port, and returns its addresses; raises `OSError` where it has none."""


class InnerAddress(OSError):
    """A host leads to an address that is not public. The message names the host and never the address."""

    def __init__(self, host: str) -> None:
        super().__init__(f"{host} leads to an inner address; SIGNALBOX_INNER_HOSTS would allow it")
        self.host = host


class Guard:
    """Looks names up and refuses inner addresses, but for the hosts named in `inner_hosts`."""

    def __init__(self, inner_hosts: Iterable[str] = (), resolve: Resolve | None = None) -> None:
        self._allowed = frozenset(_bare(host) for host in inner_hosts)
        self._given = resolve
        self._look_ups = _LookUps()
        self._resolve = resolve or self._look_ups

    def for_client(self) -> "Guard":
        """Return a guard with the same rules whose look-ups hold up nobody else's. Whoever asks for it closes it."""
        return Guard(self._allowed, self._given)

    def close(self) -> None:
        """Begin no more look-ups; one that hangs is not waited for."""
        self._look_ups.close()

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses that `host` may be connected to, in the order of the look-up.

        Raises:
            InnerAddress: one of them is not public. Nobody needs a name with both kinds but an attacker.
            OSError: the name has no address, or nobody said in time which.
        """
        literal = _literal(host)
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                found = [literal] if literal is not None else list(await self._resolve(host, port))
        except TimeoutError:
            raise OSError(f"{host} was not looked up in time") from None
        if _bare(host) not in self._allowed and any(is_inner(address) for address in found):
            raise InnerAddress(host)
        return found


def is_inner(address: str) -> bool:
    """Whether an address is not public, or is no address at all."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return True
    if parsed in _NAT64[0]:
        return any(_is_special(one) for one in _meant(parsed))
    return any(_is_special(one) for one in (parsed, *_meant(parsed)))


def _is_special(address: IPv4Address | IPv6Address) -> bool:
    return (
        not address.is_global
        or address.is_multicast
        or address.is_reserved
        or any(address in network for network in _SPECIAL)
    )


def _meant(address: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address stands for."""
    if isinstance(address, IPv4Address):
        return []
    meant = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    is_compatible = address.packed[:12] == bytes(12)  # RFC 4291, 2.5.5.1: of the past.
    if is_compatible or any(address in network for network in _NAT64):
        meant.append(IPv4Address(address.packed[-4:]))
    return [one for one in meant if one is not None]


def _literal(host: str) -> str | None:
    """Return an address that is written in the place of a name, also in the ways that only `inet_aton` reads."""
    bare = _bare(host)
    try:
        return str(ip_address(bare))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(bare)) if bare[:1].isdigit() else None
    except (OSError, UnicodeError):
        return None


def _bare(host: str) -> str:
    return host.strip().strip("[]").rstrip(".").lower()


class _LookUps:
    """The system's look-ups, a few at once in threads of their own.

    The system cannot be told to give up, and the event loop's threads are everybody's: a vendor's name server that hangs would
    take them all.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOK_UPS, thread_name_prefix="names")

    async def __call__(self, host: str, port: int) -> list[str]:
        ask = partial(
            socket.getaddrinfo, host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        try:
            asked = asyncio.get_running_loop().run_in_executor(self._threads, ask)
        except RuntimeError:
            raise OSError("the client is closed") from None
        found = await asked
        return [str(entry[4][0]) for entry in found]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
