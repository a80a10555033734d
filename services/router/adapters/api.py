"""A vendor's API over HTTPS, for writing: bounded in time and size, tokens kept while they last, and outcomes told apart.

What matters to a writer is whether a call may have had an effect. A refusal and a connection that never came about had
none; an answer that never came may have had one. Addresses are built from the place's settings and never from a vendor's
answer, and redirects are not followed, so credentials go to no other host. TLS is verified by httpx' defaults; the proxy
variables of the environment are not used. No answer's words are kept: they may quote what people wrote.

Places share nothing: each has a client of its own, few calls at once, and a deadline for each call and for all that
telling it once takes. One that lets several calls in a row run out of time is left alone for a while.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import quote

import httpx
import msgspec
from pydantic import BaseModel

from chassis.clock import monotonic, now_seconds
from chassis.secrets import read_secret
from services.router.core.elsewhere.calls import Assign, Call
from services.router.core.elsewhere.decide import Done, NotDone, Unknown
from services.router.core.elsewhere.policy import SECRET_REFERENCE, PlaceSettings
from services.router.core.elsewhere.state import Reason

T = TypeVar("T")
Login = dict[str, Any]
"""The options of a call that show who calls."""

ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024
CONNECT_SECONDS: Final = 5.0
TOKEN_SPARE_SECONDS: Final = 60.0
TOKEN_SECONDS: Final = 300.0
"""How long a token is kept whose life its issuer does not tell."""
THROTTLED_SECONDS: Final = 30.0
"""How long a place is left alone that says "too many" and not for how long."""
RETRY_AFTER_MAX: Final = 6 * 3600.0
KNOWN_MAX: Final = 10_000
"""Looked-up names that are kept a place."""
KNOWN_SECONDS: Final = 3600.0
"""How long: an address may become somebody else's."""
SLOTS: Final = 3
"""How many things a place is told at once, so that one that hangs leaves the others room."""
PATIENCE_SECONDS: Final = 2.0
"""How old the calls under way may be for another to wait for their end; behind slower ones nobody waits."""
BREAK_AFTER: Final = 3
"""Calls in a row that run out of time until a place is left alone. The next is a single one."""
BREAK_SECONDS: Final = 30.0
"""For how long then."""
TELL_SHARE: Final = 1.5
"""How long telling a place once may take, its logging in and looking included, in waits for one answer."""

_REFUSALS: Final = {
    401: Reason.UNAUTHORIZED,
    403: Reason.FORBIDDEN,
    404: Reason.MISSING,
    405: Reason.CLOSED,
    409: Reason.CONFLICT,
    410: Reason.MISSING,
}
_AGAIN: Final = frozenset({Reason.UNAUTHORIZED, Reason.CONFLICT, Reason.NO_SECRET})
"""Refusals that may end by themselves within the limit of trying: a token is renewed, a secret mounted, a rival done."""


class Problem(Exception):
    """A call was not answered as hoped; `outcome` says what that means."""

    def __init__(self, outcome: NotDone | Unknown) -> None:
        super().__init__(outcome.reason.value)
        self.outcome = outcome


def refuse(reason: Reason, detail: str = "") -> NoReturn:
    """End a call that would never be done.

    Raises:
        Problem: always.
    """
    raise Problem(NotDone(reason, is_recoverable=reason in _AGAIN, detail=detail))


def later(reason: Reason, detail: str = "", seconds: float | None = None) -> NoReturn:
    """End a call that had no effect, and may have one later.

    Raises:
        Problem: always.
    """
    wish = None if seconds is None else timedelta(seconds=seconds)
    raise Problem(NotDone(reason, is_recoverable=True, retry_after=wish, detail=detail))


def unknown(reason: Reason, detail: str = "", seconds: float | None = None) -> NoReturn:
    """End a call that may have had an effect.

    Raises:
        Problem: always.
    """
    wish = None if seconds is None else timedelta(seconds=seconds)
    raise Problem(Unknown(reason, detail, wish))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a vendor answered with a status below 400: the status, the headers, the JSON (None: an empty body)."""

    status: int
    headers: Mapping[str, str]
    body: Any


def new_client(seconds: float) -> httpx.AsyncClient:
    """Return a client as one place is called with; `seconds` bound the wait for a part of an answer."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)),
        follow_redirects=False,
        trust_env=False,
        limits=httpx.Limits(max_connections=SLOTS, max_keepalive_connections=SLOTS),
        headers={"User-Agent": "signalbox-router", "Accept": "application/json"},
    )


class Secrets:
    """Secrets by reference: `env:NAME`, or `file:/path`, which is read again whenever it is asked for."""

    def get(self, reference: str) -> str | None:
        """Return a secret without surrounding space; None where it is missing, empty or no text."""
        return read_secret(reference)


class PlaceApi:
    """One place's API: its settings, its secrets, its tokens while they last, and when it asked to be left alone.

    It owns `client`. `seconds` bound each call from its beginning to the last byte of its answer.
    """

    def __init__(
        self,
        settings: PlaceSettings,
        client: httpx.AsyncClient,
        secrets: Secrets,
        *,
        seconds: float = 20.0,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self.settings = settings
        self._client = client
        self._secrets = secrets
        self._seconds = seconds
        self._now = now
        self._tokens: dict[str, tuple[str, float]] = {}
        self._known: dict[str, tuple[str, float]] = {}
        self._free_at = 0.0
        self._free_reason = Reason.THROTTLED
        self._timeouts = 0
        """Calls in a row that ran out of time."""
        self._began: list[float] = []
        """When what is being told now began."""
        self._slot_freed = asyncio.Condition()
        self._inside = 0
        """Those being told and those who wait for a slot."""
        self._is_retired = False

    @property
    def is_retired(self) -> bool:
        """Whether nobody else may use it: its client closes with the last call."""
        return self._is_retired

    async def retire(self) -> None:
        """Close the client as soon as no call needs it; new ones are for another object."""
        self._is_retired = True
        if not self._inside:
            await self._client.aclose()

    async def told(self, vendor: "Vendor", call: Call, *, is_last: bool = False) -> Done:
        """Tell the place, if it has room and wants to hear, within the time that telling it once may take.

        `is_last` retires it with this call.

        Raises:
            Problem: it could not be told, and what that means.
        """
        self._inside += 1
        self._is_retired |= is_last
        try:
            await self._wait_for_slot()
            began = self._now()
            self._began.append(began)
            try:
                async with asyncio.timeout(self._seconds * TELL_SHARE):
                    done: Done = await vendor.tell(self, call)
            except TimeoutError:
                self._ran_out()
                is_making = not isinstance(call, Assign) and not call.handle
                (unknown if is_making else later)(Reason.TIMEOUT, "deadline")
            finally:
                self._began.remove(began)
                async with self._slot_freed:
                    self._slot_freed.notify_all()
            return done
        finally:
            self._inside -= 1
            if self._is_retired and not self._inside:
                await self._client.aclose()

    async def _wait_for_slot(self) -> None:
        """Come back with room for another call.

        Raises:
            Problem: there is none, and whoever has it is slow; or the place is left alone.
        """
        while True:
            self._leave_alone(is_begun=False)
            slots = 1 if self._timeouts >= BREAK_AFTER else SLOTS
            if len(self._began) < slots:
                return
            patience = PATIENCE_SECONDS - (self._now() - min(self._began))
            if patience <= 0:
                raise Problem(
                    NotDone(Reason.THROTTLED, is_recoverable=True, detail="busy", is_begun=False)
                )
            try:
                async with asyncio.timeout(patience), self._slot_freed:
                    await self._slot_freed.wait()
            except TimeoutError:
                continue

    def _leave_alone(self, *, is_begun: bool) -> None:
        wait = self._free_at - self._now()
        if wait > 0:
            wish = timedelta(seconds=wait)
            raise Problem(NotDone(self._free_reason, True, wish, is_begun=is_begun))

    def _ran_out(self) -> None:
        """Count a call that ran out of time, and leave the place alone after several."""
        self._timeouts += 1
        if self._timeouts >= BREAK_AFTER:
            self._free_at = max(self._free_at, self._now() + BREAK_SECONDS)
            self._free_reason = Reason.TIMEOUT

    def secret(self, field: str) -> str:
        """Return the secret that a field of the settings refers to.

        Raises:
            Problem: there is none.
        """
        reference = getattr(self.settings, field)
        found = self._secrets.get(reference) if isinstance(reference, str) else None
        if found is None:
            refuse(Reason.NO_SECRET, field)
        return found

    async def get(self, url: str, **options: Any) -> Answer:
        """Read.

        Raises:
            Problem: it could not be had.
        """
        return await self.call("GET", url, **options)

    async def call(
        self,
        method: str,
        url: str,
        *,
        is_making: bool = False,
        redirects: bool = False,
        **options: Any,
    ) -> Answer:
        """Call, and return an answer below 400 (below 300 unless `redirects`).

        `is_making` marks a call that makes something anew: where its answer is lost or a server failed half-way, it may
        have been made. Any other call says how things shall be and can be repeated.

        Raises:
            Problem: what else came of it.
        """
        self._leave_alone(is_begun=True)
        lost = unknown if is_making else later
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._client.stream(method, url, **options) as response,
            ):
                body = await self._body(response)
        except httpx.ConnectTimeout:
            self._ran_out()
            later(Reason.UNREACHABLE)
        except (httpx.ConnectError, httpx.PoolTimeout):
            later(Reason.UNREACHABLE)
        except httpx.InvalidURL:
            refuse(Reason.REFUSED, "address")
        except (httpx.TimeoutException, TimeoutError):
            self._ran_out()
            lost(Reason.TIMEOUT)
        except httpx.HTTPError:
            lost(Reason.UNREACHABLE)
        self._timeouts = 0
        status = response.status_code
        if status >= (400 if redirects else 300):
            self._refused(status, response.headers, lost)
        if not body.strip():
            return Answer(status, response.headers, None)
        try:
            return Answer(status, response.headers, msgspec.json.decode(body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            lost(Reason.BAD_ANSWER, str(status))

    async def _body(self, response: httpx.Response) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if size > ANSWER_BYTES_MAX:
                raise httpx.ReadError("too large")
            chunks.append(chunk)
        return b"".join(chunks)

    def _refused(
        self, status: int, headers: Mapping[str, str], lost: Callable[..., NoReturn]
    ) -> NoReturn:
        detail, wish = str(status), retry_after(headers)
        if status == 401:
            self.forget_tokens()
        if status == 429:
            self.throttled(wish)
        if status >= 500 or status == 408:
            # A gateway says "later" for a server behind it that may have done it: the wish is kept, the doubt as well.
            lost(Reason.FAILED, detail, wish)
        if status in (423, 425):
            later(Reason.FAILED, detail, wish)
        refuse(_REFUSALS.get(status, Reason.REFUSED), detail)

    def throttled(self, seconds: float | None) -> NoReturn:
        """Leave the place alone for as long as it wishes, and the call that it refused as well.

        Raises:
            Problem: always.
        """
        wait = THROTTLED_SECONDS if seconds is None else seconds
        self._free_at = max(self._free_at, self._now() + wait)
        self._free_reason = Reason.THROTTLED
        later(Reason.THROTTLED, "429", wait)

    async def token(
        self, url: str, form: Mapping[str, str], *, basic: tuple[str, str] | None = None
    ) -> str:
        """Return an OAuth access token, asked for at `url` and kept until shortly before it expires.

        Raises:
            Problem: it could not be had.
        """
        kept = self._tokens.get(url)
        if kept is not None and kept[1] > self._now():
            return kept[0]
        try:
            answer = await self.call("POST", url, data=dict(form), auth=basic)
        except Problem as problem:
            reason = problem.outcome.reason
            if reason in (Reason.REFUSED, Reason.FORBIDDEN, Reason.MISSING):
                # However a token is refused, it says that what we show is no good.
                later(Reason.UNAUTHORIZED, problem.outcome.detail)
            raise
        found = answer.body if isinstance(answer.body, dict) else {}
        access, life = found.get("access_token"), found.get("expires_in")
        if not isinstance(access, str) or not access:
            later(Reason.BAD_ANSWER)
        seconds = float(life) if isinstance(life, (int, float)) else TOKEN_SECONDS
        self._tokens[url] = (access, self._now() + max(0.0, seconds - TOKEN_SPARE_SECONDS))
        return access

    def forget_tokens(self) -> None:
        """Ask for new tokens next time."""
        self._tokens.clear()

    def known(self, name: str) -> str | None:
        """Return what a name was found to stand for, not too long ago."""
        value, until = self._known.get(name, ("", 0.0))
        return value if until > self._now() else None

    def learn(self, name: str, value: str) -> str:
        """Keep what a name stands for, and return it."""
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[name] = (value, self._now() + KNOWN_SECONDS)
        return value


@dataclass(frozen=True, slots=True)
class Vendor:
    """An adapter as the stage sees it: the settings of its places, and how one is told."""

    name: str
    settings: type[PlaceSettings]
    tell: Callable[[PlaceApi, Call], Any]
    """Makes the place show what the call says; returns `Done` or raises `Problem`. Repeating it changes nothing."""


def shaped(answer: Answer, kind: type[T]) -> T:
    """Return what an API answered as `kind`; whole numbers count as texts.

    Raises:
        Problem: it has another shape. Reading it had no effect.
    """
    try:
        return msgspec.convert(_texts(answer.body), kind)
    except msgspec.ValidationError:
        later(Reason.BAD_ANSWER, str(answer.status))


def _texts(value: Any) -> Any:
    """Return JSON with its whole numbers as texts: vendors write ids either way, and change their minds."""
    match value:
        case bool():
            return value
        case int():
            return str(value)
        case list():
            return [_texts(one) for one in value]
        case dict():
            return {name: _texts(one) for name, one in value.items()}
        case _:
            return value


def setting(api: PlaceApi, kind: type[T]) -> T:
    """Return the place's settings as what they are."""
    assert isinstance(api.settings, kind), f"{type(api.settings).__name__} is not {kind.__name__}"
    return api.settings


def called(call: Call, kind: type[T]) -> T:
    """Return a call as what a vendor of this kind gets."""
    assert isinstance(call, kind), f"{type(call).__name__} is not {kind.__name__}"
    return call


def bearer(token: str) -> dict[str, str]:
    """Return the header that shows a token."""
    return {"Authorization": f"Bearer {token}"}


def segment(text: str) -> str:
    """Return an id as one segment of an address, whatever stands in it."""
    return quote(text, safe="")


def number(text: str) -> int | str:
    """Return an id as the number it is where a vendor wants one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text


def is_address(user: str) -> bool:
    """Whether a user is named by a mail address, and has to be looked up."""
    return "@" in user


async def user_id(
    api: PlaceApi, user: str, find: Callable[[], Awaitable[Iterable[tuple[str, str | None]]]]
) -> str:
    """Return a user's id; one named by a mail address is looked up once, by `find`, which returns ids with addresses.

    Raises:
        Problem: nobody has that address.
    """
    if not is_address(user):
        return user
    known = api.known(user)
    if known is not None:
        return known
    theirs = [key for key, address in await find() if (address or "").lower() == user.lower()]
    return api.learn(user, theirs[0]) if theirs else refuse(Reason.USER_UNKNOWN)


def references_of(settings: BaseModel) -> list[str]:
    """Return the references to secrets that settings hold."""
    values = (getattr(settings, name) for name in type(settings).model_fields)
    return [one for one in values if isinstance(one, str) and SECRET_REFERENCE.match(one)]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an answer asks us to wait: `Retry-After`, or a vendor's header for the same, bounded."""
    for name in ("retry-after", "x-ratelimit-retry-after"):
        value = headers.get(name, "").strip()
        if value.isascii() and value.replace(".", "", 1).isdigit() and len(value) < 10:
            return min(float(value), RETRY_AFTER_MAX)
        if value:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - now_seconds()
            except (ValueError, OverflowError):
                continue
            return min(max(0.0, seconds), RETRY_AFTER_MAX)
    return None


UNCHANGED: Final = Done(is_changed=False)
CHANGED: Final = Done()
