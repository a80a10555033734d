"""iCalendar feeds over HTTP: fetched politely, in bounds, and never from where the policy did not allow.

What is sent: `GET` with `If-None-Match` and `If-Modified-Since` (RFC 9110, 13.1) of the last good answer. What is taken:
200 with a calendar's type, or 304. Redirections are followed by hand, three at most, to https only: an address out in the
world must not lead to a server on this machine. Nothing here names the address: it may be the key to a private calendar.
"""

import asyncio
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin

import httpx

from hours.file import Feed, is_allowed
from hours.ical import BYTES_MAX
from services.sla.core.feeds import FailureReason

REDIRECTS_MAX: Final = 3
SECONDS_MAX: Final = 30.0
"""For the whole of it; a feed of a megabyte is there in one."""
CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 10.0

TYPES: Final = ("text/calendar", "text/plain", "application/ics", "application/octet-stream", "")
"""What servers call a calendar. A page that asks one to log in is `text/html`."""

_MOVED: Final = (301, 302, 303, 307, 308)
_HEADERS: Final = {
    "Accept": "text/calendar, text/plain;q=0.5",
    # What is counted is then what was sent: no small answer becomes a large one here.
    "Accept-Encoding": "identity",
    "User-Agent": "signalbox-sla",
}


class FetchFailed(Exception):
    """The feed was not taken. `reason` is for the metric, the message a sentence without the address."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason: FailureReason = reason


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole answer."""

    body: bytes
    etag: str | None
    modified: str | None


class Fetcher:
    """Fetches feeds, one request at a time; `seconds` bounds each with its redirections."""

    def __init__(self, seconds: float = SECONDS_MAX) -> None:
        self._seconds = seconds
        self._client = httpx.AsyncClient(
            headers=_HEADERS,
            follow_redirects=False,
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def fetch(
        self, feed: Feed, etag: str | None = None, modified: str | None = None
    ) -> Fetched | None:
        """Return what the address gives; None: what it gave last still holds.

        Raises:
            FetchFailed: it gives nothing that can be taken.
        """
        if feed.url is None:
            raise ValueError(f"feed {feed.name} has no address")
        known = {"If-None-Match": etag, "If-Modified-Since": modified}
        headers = {name: value for name, value in known.items() if value is not None}
        try:
            async with asyncio.timeout(self._seconds):
                return await self._follow(feed.url, headers)
        except (TimeoutError, httpx.TimeoutException):
            raise FetchFailed(
                "timeout", f"did not answer in full within {self._seconds:g} s"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Without its own words, which quote the address.
            raise FetchFailed(
                "unreachable", f"cannot be reached ({type(error).__name__})"
            ) from None

    async def _follow(self, url: str, headers: dict[str, str]) -> Fetched | None:
        is_local = not url.startswith("https:")
        for _ in range(REDIRECTS_MAX + 1):
            async with self._client.stream("GET", url, headers=headers) as answer:
                if answer.status_code not in _MOVED:
                    return await _take(answer, has_known=bool(headers))
                url = urljoin(url, answer.headers.get("location", ""))
            if not is_allowed(url) or (url.startswith("http:") and not is_local):
                raise FetchFailed("redirect", "leads to an address that is not https")
        raise FetchFailed(
            "redirect", f"leads from address to address more than {REDIRECTS_MAX} times"
        )


async def _take(answer: httpx.Response, *, has_known: bool) -> Fetched | None:
    if answer.status_code == 304 and has_known:
        return None
    if answer.status_code != 200:
        raise FetchFailed("status", f"answered {answer.status_code}")
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in TYPES:
        raise FetchFailed("wrong_type", f"is {kind[:60]!r}, not a calendar")
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise FetchFailed("wrong_type", "is compressed, which was not asked for")
    body = bytearray()
    async for part in answer.aiter_raw():
        body += part
        if len(body) > BYTES_MAX:
            raise FetchFailed("too_large", f"has more than {BYTES_MAX} bytes")
    return Fetched(bytes(body), answer.headers.get("etag"), answer.headers.get("last-modified"))
