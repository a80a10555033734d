"""How httpx reaches the outside: over aiohttp, guarded, with every error named by whether the request may have arrived.

httpx' own transport costs 2.5–2.9 ms of CPU a small POST over a kept connection on the machine of `docs/performance.md`, its
client over aiohttp 0.7–0.9 ms (1,600 calls, eight at once, three runs each: 286–359 and 1,008–1,211 calls a second). The
published transport that joins the two is not used: it calls a connection that the server closed under a request that is already
out a time-out of connecting, which a sender reads as "surely not sent".

    httpx.ConnectError, ConnectTimeout, PoolTimeout, LocalProtocolError    nothing went out
    httpx.ReadTimeout, ReadError, RemoteProtocolError                      it may have arrived
"""

import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from chassis.vendor_guard import Guard, InnerAddress

CHUNK_BYTES: Final = 16 * 1024
KEEP_SECONDS: Final = 10.0
"""How long an idle connection is kept: less than most servers do, so that it is we who close it."""


class InnerHost(httpx.ConnectError):
    """The host leads to an inner address; nothing was connected to."""


class _Resolver(AbstractResolver):
    """The guard as aiohttp asks it."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses that may be connected to.

        Raises:
            OSError: there are none.
        """
        found = await self._guard.addresses(host, port)
        results = [_result(host, address, port) for address in found]
        wanted = [one for one in results if family in (socket.AF_UNSPEC, one["family"])]
        if not wanted:
            raise OSError(f"{host} has no address of the wanted kind")
        return wanted

    async def close(self) -> None:
        """Hold nothing."""


def _result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return {
        "hostname": host, "host": address, "port": port, "family": family, "proto": 0, "flags": flags,
    }  # fmt: skip


class _Stream(httpx.AsyncByteStream):
    """The body of an answer as it comes."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _named(is_out=True):
            async for chunk in self._response.content.iter_chunked(CHUNK_BYTES):
                yield chunk

    async def aclose(self) -> None:
        """Give the connection back if all was read, else end it."""
        self._response.release()


class VendorTransport(httpx.AsyncBaseTransport):
    """Calls the outside over a few connections of its own. No proxies, no cookies, no redirects."""

    def __init__(
        self,
        guard: Guard,
        *,
        connections: int,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = guard.for_client()
        self._connections = connections
        self._verify = verify
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and return the answer's beginning; its body comes as it is read.

        Raises:
            httpx.TransportError: what came of it instead; see the module.
        """
        timeout = request.extensions.get("timeout", {})
        host, port = request.url.host, request.url.port
        with _named(is_out=False):
            # A host that is written as an address is never looked up, so it is judged here.
            await self._judge_literal(host, port or 443)
        # As it is: an escape that is rewritten is another path.
        url = URL(str(request.url), encoded=True)
        with _named(is_out=True):
            response = await self._open().request(
                request.method,
                url,
                headers=[
                    (name, value)
                    for name, value in request.headers.multi_items()
                    if name not in ("host", "transfer-encoding")
                ],
                data=await request.aread() or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    connect=timeout.get("pool"),
                    sock_connect=timeout.get("connect"),
                    sock_read=timeout.get("read"),
                ),
            )
        return httpx.Response(
            response.status,
            headers=[*response.raw_headers],
            stream=_Stream(response),
            request=request,
        )

    async def _judge_literal(self, host: str, port: int) -> None:
        if host[-1:].isdigit() or ":" in host:
            await self._guard.addresses(host, port)

    def _open(self) -> aiohttp.ClientSession:
        if self._is_closed:
            raise httpx.ConnectError("the client is closed")
        if self._session is None:
            tls: dict[str, Any] = {} if self._verify is None else {"ssl": self._verify}
            connector = aiohttp.TCPConnector(
                limit=self._connections,
                resolver=_Resolver(self._guard),
                use_dns_cache=False,
                keepalive_timeout=KEEP_SECONDS,
                family=socket.AF_UNSPEC,
                **tls,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                skip_auto_headers=("User-Agent", "Content-Type", "Accept-Encoding"),
            )
            # Else it silently repeats a PUT or a DELETE whose connection ends without an answer, and a vendor that took the
            # first writes the message twice. Only whoever sent it knows whether it may be repeated.
            self._session._retry_connection = False  # noqa: SLF001 - there is no other way
        return self._session

    async def aclose(self) -> None:
        """Close all connections."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()
        self._guard.close()


@contextmanager
def _named(*, is_out: bool) -> Iterator[None]:
    """Name what aiohttp and the system raise as httpx does. `is_out`: the request may be on its way."""
    try:
        yield
    except InnerAddress as error:
        raise InnerHost(str(error)) from error
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, InnerAddress):
            raise InnerHost(str(error.os_error)) from error
        raise httpx.ConnectError(type(error).__name__) from error
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx.ConnectTimeout("no connection in time") from error
    except aiohttp.ServerTimeoutError as error:
        raise httpx.ReadTimeout("no answer in time") from error
    except aiohttp.InvalidURL as error:
        raise httpx.LocalProtocolError("the address cannot be called") from error
    except aiohttp.ClientError as error:
        raise httpx.RemoteProtocolError(type(error).__name__) from error
    except ValueError as error:
        # A header that cannot stand in a request; aiohttp finds it before it writes.
        raise httpx.LocalProtocolError("the request cannot be written") from error
    except OSError as error:
        kind = httpx.ReadError if is_out else httpx.ConnectError
        raise kind(type(error).__name__) from error
