"""One account's API at a vendor, for writing: bounded in time, size and number of calls, and outcomes told apart.

What matters to a writer is whether a call may have had an effect: `VendorFailure.may_have_acted`. A refusal and a connection
that never came about had none; an answer that never came may have had one. Redirects are not followed, so credentials go to no
other host; the proxy variables of the environment are not used; no exception of a client ever leaves a call. No answer's words
get into a failure's text: they may quote what people wrote.

Accounts share nothing: each has a client of its own, few calls at once, and a deadline for each call and for all that one piece
of work takes. One that fails several times in a row is left alone for a while, and then tried by a single call.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

import httpx
import msgspec

from chassis.clock import monotonic, now_seconds
from chassis.vendor_guard import Guard
from chassis.vendor_transport import InnerHost, VendorTransport

T = TypeVar("T")

ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024
CONNECT_SECONDS: Final = 5.0
TOKEN_SPARE_SECONDS: Final = 60.0
TOKEN_SECONDS: Final = 300.0
"""How long a token is kept whose life its issuer does not tell."""
THROTTLED_SECONDS: Final = 30.0
"""How long an account is left alone that says "too many" and not for how long."""
RETRY_AFTER_MAX: Final = 6 * 3600.0
PATIENCE_SECONDS: Final = 2.0
"""How old the work under way may be for more to wait for its end; behind slower work nobody waits."""
BREAK_AFTER: Final = 3
"""Failures in a row until an account is left alone. The next call is a single one."""
BREAK_SECONDS: Final = 30.0
"""For how long then."""
WORK_SHARE: Final = 1.5
"""How long a piece of work may take, its logging in and looking included, in deadlines of one call."""


class Failure(StrEnum):
    """Why a call has no answer that can be used."""

    BUSY = "busy"
    """All slots are taken, and whoever has them is slow. Nothing was begun."""
    LEFT_ALONE = "left_alone"
    """The account asked for a pause, or failed too often. Nothing was begun."""
    UNREACHABLE = "unreachable"
    """No connection came about."""
    INNER_HOST = "inner_host"
    """The host leads to an address that is not public."""
    ADDRESS = "address"
    """It cannot be called: the address or a header is no good."""
    TIMEOUT = "timeout"
    """No answer in time."""
    BROKEN = "broken"
    """The connection ended before the answer did."""
    TOO_LARGE = "too_large"
    """The answer is larger than any that makes sense."""
    NOT_JSON = "not_json"
    """The answer's body is no JSON; its status was fine."""
    THROTTLED = "throttled"
    """429."""
    STATUS = "status"
    """A status that says no."""


class VendorFailure(Exception):
    """A call that did not succeed. The text is of our own words and the status."""

    def __init__(
        self,
        failure: Failure,
        *,
        may_have_acted: bool = False,
        retry_after: float | None = None,
        answer: "Answer | None" = None,
        because: Failure | None = None,
        detail: str = "",
    ) -> None:
        status = answer.status if answer is not None else 0
        super().__init__(f"{failure.value} ({status})" if status else detail or failure.value)
        self.failure = failure
        self.may_have_acted = may_have_acted
        self.retry_after = retry_after
        self.answer = answer
        self.status = status
        self.because = because
        """Why the account is left alone, where it is."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a vendor answered: the status, the headers (any case finds them), the JSON (None: an empty body, or none)."""

    status: int
    headers: Mapping[str, str]
    body: Any


def new_client(
    seconds: float, *, agent: str, connections: int, guard: Guard | None = None
) -> httpx.AsyncClient:
    """Return a client for one account; `seconds` bound the wait for a part of an answer.

    Without a guard any host may be called: for addresses that an operator alone writes.
    """
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    transport = (
        httpx.AsyncHTTPTransport(limits=limits, trust_env=False)
        if guard is None
        else VendorTransport(guard, connections=connections)
    )
    return httpx.AsyncClient(
        transport=transport,
        timeout=httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)),
        follow_redirects=False,
        trust_env=False,
        headers={
            "User-Agent": agent,
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
        },
    )


@dataclass(slots=True)
class _Job:
    """What a piece of work has met: an answer, and a failure that counts."""

    has_heard: bool = False
    failure: Failure | None = None


_JOB: ContextVar[_Job | None] = ContextVar("vendor_job", default=None)


class VendorApi:
    """One account's calls. It owns `client`; `seconds` bound each call from its beginning to its answer's last byte.

    `breaks_on` are the failures that count towards leaving the account alone, `breaks_on_5xx` says whether a server's own
    trouble does. A piece of work counts once, and one that met none ends the count. `slots` pieces go on at once.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        seconds: float = 20.0,
        slots: int = 3,
        breaks_on: Iterable[Failure] = (Failure.TIMEOUT,),
        breaks_on_5xx: bool = False,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._client = client
        self.seconds = seconds
        self._slots = slots
        self._breaks_on = frozenset(breaks_on)
        self._breaks_on_5xx = breaks_on_5xx
        self._now = now
        self._tokens: dict[str, tuple[str, float]] = {}
        self._free_at = 0.0
        self._free_because = Failure.THROTTLED
        self._failures = 0
        """Those in a row that count."""
        self._began: list[float] = []
        """When the work under way began."""
        self._slot_freed = asyncio.Condition()
        self._inside = 0
        """Work under way, and work that waits for a slot."""
        self._is_retired = False

    @property
    def is_retired(self) -> bool:
        """Whether nobody else may use it: its client closes with the last work."""
        return self._is_retired

    @property
    def is_open(self) -> bool:
        """Whether the account failed too often and is left alone."""
        return self._failures >= BREAK_AFTER

    async def retire(self) -> None:
        """Close the client as soon as no work needs it; what waits for a slot is not begun, new work is for another object."""
        self._is_retired = True
        async with self._slot_freed:
            self._slot_freed.notify_all()
        if not self._inside:
            await self._client.aclose()

    async def work(self, job: Callable[[], Awaitable[T]], *, is_last: bool = False) -> T:
        """Do a job of several calls, if there is room and the account wants to hear, within the time for it.

        `is_last` retires the account with it.

        Raises:
            VendorFailure: it was not begun (`BUSY`, `LEFT_ALONE`), or ran out of time (`TIMEOUT`: whether it may have acted,
                the job's owner knows).
        """
        self._inside += 1
        self._is_retired |= is_last
        try:
            await self._wait_for_slot()
            began = self._now()
            self._began.append(began)
            met = _Job()
            token = _JOB.set(met)
            try:
                async with asyncio.timeout(self.seconds * WORK_SHARE):
                    return await job()
            except TimeoutError:
                self._count(Failure.TIMEOUT)
                raise VendorFailure(
                    Failure.TIMEOUT, may_have_acted=True, detail="deadline"
                ) from None
            finally:
                _JOB.reset(token)
                self._learn_from(met)
                self._began.remove(began)
                async with self._slot_freed:
                    self._slot_freed.notify_all()
        finally:
            self._inside -= 1
            if self._is_retired and not self._inside:
                await self._client.aclose()

    async def _wait_for_slot(self) -> None:
        while True:
            self.check_left_alone()
            slots = 1 if self.is_open else self._slots
            if len(self._began) < slots:
                return
            if self._is_retired:  # Whoever retires it will not wait for what has not begun.
                raise VendorFailure(Failure.BUSY)
            patience = PATIENCE_SECONDS - (self._now() - min(self._began))
            if patience <= 0:
                raise VendorFailure(Failure.BUSY)
            try:
                async with asyncio.timeout(patience), self._slot_freed:
                    await self._slot_freed.wait()
            except TimeoutError:
                continue

    def check_left_alone(self) -> None:
        """Do nothing, unless the account is left alone.

        Raises:
            VendorFailure: it is: `LEFT_ALONE`, with the time that is left.
        """
        wait = self._free_at - self._now()
        if wait > 0:
            raise VendorFailure(Failure.LEFT_ALONE, retry_after=wait, because=self._free_because)

    def leave_alone(self, seconds: float, because: Failure) -> None:
        """Begin nothing for so long."""
        self._free_at = max(self._free_at, self._now() + seconds)
        self._free_because = because

    def _count(self, failure: Failure) -> None:
        job = _JOB.get()
        if job is not None and failure in self._breaks_on:
            job.failure = failure

    def _heard(self, status: int) -> None:
        """Note that there was an answer; a server's own trouble may count as a failure."""
        job = _JOB.get()
        if job is not None:
            job.has_heard = True
            if status >= 500 and self._breaks_on_5xx:
                job.failure = Failure.STATUS

    def _learn_from(self, job: _Job) -> None:
        if job.failure is not None:
            self._failures += 1
            if self._failures >= BREAK_AFTER:
                self.leave_alone(BREAK_SECONDS, job.failure)
        elif job.has_heard:
            self._failures = 0

    async def call(
        self, method: str, url: str, *, below: int = 300, reads: bool = True, **options: Any
    ) -> Answer:
        """Call, and return an answer whose status is below `below`. `options` are httpx'.

        Without `reads` a good status is all that counts, and the body is None where it is no JSON.

        Raises:
            VendorFailure: what else came of it; with the answer where there was one. After 429 the account is left alone,
                after 401 and 403 its tokens are forgotten.
        """
        self.check_left_alone()
        answer = await self._answer(method, url, **options)
        self._heard(answer.status)
        if answer.status < below:
            if answer.body is not _NOT_JSON:
                return answer
            plain = Answer(answer.status, answer.headers, None)
            if reads:
                raise VendorFailure(Failure.NOT_JSON, may_have_acted=True, answer=plain)
            return plain
        if answer.body is _NOT_JSON:
            answer = Answer(answer.status, answer.headers, None)
        if answer.status in (401, 403):
            self.forget_tokens()
        wish = retry_after(answer.headers)
        if answer.status == 429:
            raise self.throttled(wish, answer)
        # A gateway says "later" for a server behind it that may have done it: the wish is kept, the doubt as well.
        raise VendorFailure(
            Failure.STATUS,
            may_have_acted=answer.status >= 500 or answer.status == 408,
            retry_after=wish,
            answer=answer,
        )

    def throttled(self, seconds: float | None, answer: Answer | None = None) -> VendorFailure:
        """Leave the account alone for as long as it wishes, and return the failure to raise."""
        wait = THROTTLED_SECONDS if seconds is None else seconds
        self.leave_alone(wait, Failure.THROTTLED)
        return VendorFailure(Failure.THROTTLED, retry_after=wait, answer=answer)

    async def _answer(
        self, method: str, url: str, *, auth: Any = httpx.USE_CLIENT_DEFAULT, **options: Any
    ) -> Answer:
        if self._client.is_closed:  # The account was retired meanwhile.
            raise VendorFailure(Failure.BUSY)
        try:
            request = self._client.build_request(method, url, **options)
        except (httpx.InvalidURL, ValueError):
            # A header that is not ASCII, or words that no encoding has.
            raise VendorFailure(Failure.ADDRESS) from None
        try:
            async with asyncio.timeout(self.seconds):
                response = await self._client.send(request, auth=auth, stream=True)
                async with aclosing(response):
                    body = await _body(response)
        except InnerHost as error:
            raise VendorFailure(Failure.INNER_HOST, detail=str(error)) from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError):
            raise VendorFailure(Failure.ADDRESS) from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            late = isinstance(error, httpx.ConnectTimeout)
            self._count(Failure.TIMEOUT if late else Failure.UNREACHABLE)
            raise VendorFailure(Failure.UNREACHABLE) from None
        except (httpx.TimeoutException, TimeoutError):
            self._count(Failure.TIMEOUT)
            raise VendorFailure(Failure.TIMEOUT, may_have_acted=True) from None
        except _TooLarge:
            self._count(Failure.TOO_LARGE)
            raise VendorFailure(Failure.TOO_LARGE, may_have_acted=True) from None
        except httpx.HTTPError:
            self._count(Failure.BROKEN)
            raise VendorFailure(Failure.BROKEN, may_have_acted=True) from None
        return Answer(response.status_code, response.headers, _json(body))

    async def token(
        self, url: str, form: Mapping[str, str], *, basic: tuple[str, str] | None = None
    ) -> str:
        """Return an OAuth access token, asked for at `url` and kept until shortly before it expires.

        Raises:
            VendorFailure: it could not be had; `NOT_JSON` where the answer holds none.
        """
        kept = self._tokens.get(url)
        if kept is not None and kept[1] > self._now():
            return kept[0]
        answer = await self.call("POST", url, data=dict(form), auth=basic)
        found = answer.body if isinstance(answer.body, dict) else {}
        access, life = found.get("access_token"), found.get("expires_in")
        if not isinstance(access, str) or not access:
            raise VendorFailure(Failure.NOT_JSON, answer=answer)
        if isinstance(life, str) and life.isascii() and life.isdigit():
            life = float(life[:9])
        seconds = float(life) if isinstance(life, (int, float)) else TOKEN_SECONDS
        self._tokens[url] = (access, self._now() + max(0.0, seconds - TOKEN_SPARE_SECONDS))
        return access

    def forget_tokens(self) -> None:
        """Ask for new tokens next time."""
        self._tokens.clear()


_NOT_JSON: Final = object()


class _TooLarge(Exception):
    """An answer is larger than we take."""


async def _body(response: httpx.Response) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > ANSWER_BYTES_MAX:
            raise _TooLarge
        chunks.append(chunk)
    return b"".join(chunks)


def _json(body: bytes) -> Any:
    if not body.strip():
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _NOT_JSON


def retry_after(headers: Mapping[str, str], longest: float = RETRY_AFTER_MAX) -> float | None:
    """Return the seconds that an answer asks us to wait: `Retry-After` (seconds or an HTTP date, RFC 9110 10.2.3), or a
    vendor's header for the same; never more than `longest`. `headers` are found in any case, or have lower-case names.
    """
    for name in ("retry-after", "x-ratelimit-retry-after"):
        value = headers.get(name, "").strip()
        if value.isascii() and value.replace(".", "", 1).isdigit() and len(value) < 10:
            return min(float(value), longest)
        if value:
            try:
                at = parsedate_to_datetime(value)
                seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now_seconds()
            except (ValueError, OverflowError):
                continue
            return min(max(0.0, seconds), longest)
    return None
