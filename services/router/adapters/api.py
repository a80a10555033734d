"""One place's API, and what came of each call in the router's words.

`chassis.vendor_api` makes the calls, bounded in time, size and number; here stands what their ends mean for what a place is
told. Addresses are built from the place's settings and never from a vendor's answer. A place that lets several tellings in a row
run out of time is left alone for a while.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import quote

import httpx
import msgspec
from pydantic import BaseModel

from chassis import vendor_api
from chassis.clock import monotonic
from chassis.secrets import read_secret
from chassis.vendor_api import Answer, Failure, VendorApi, VendorFailure
from services.router.core.elsewhere.calls import Assign, Call
from services.router.core.elsewhere.decide import Done, NotDone, Unknown
from services.router.core.elsewhere.policy import SECRET_REFERENCE, PlaceSettings
from services.router.core.elsewhere.state import Reason

T = TypeVar("T")
Login = dict[str, Any]
"""The options of a call that show who calls."""

KNOWN_MAX: Final = 10_000
"""Looked-up names that are kept a place."""
KNOWN_SECONDS: Final = 3600.0
"""How long: an address may become somebody else's."""
SLOTS: Final = 3
"""How many things a place is told at once, so that one that hangs leaves the others room."""

_REFUSALS: Final = {
    401: Reason.UNAUTHORIZED,
    403: Reason.FORBIDDEN,
    404: Reason.MISSING,
    405: Reason.CLOSED,
    409: Reason.CONFLICT,
    410: Reason.MISSING,
}
_NO_TOKEN: Final = (Reason.REFUSED, Reason.FORBIDDEN, Reason.MISSING)
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


def new_client(seconds: float) -> httpx.AsyncClient:
    """Return a client as one place is called with; `seconds` bound the wait for a part of an answer."""
    return vendor_api.new_client(seconds, agent="signalbox-router", connections=SLOTS)


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
        self.http = VendorApi(client, seconds=seconds, slots=SLOTS, now=now)
        self._secrets = secrets
        self._now = now
        self._known: dict[str, tuple[str, float]] = {}

    @property
    def is_retired(self) -> bool:
        """Whether nobody else may use it: its client closes with the last call."""
        return self.http.is_retired

    async def retire(self) -> None:
        """Close the client as soon as no call needs it; new ones are for another object."""
        await self.http.retire()

    async def told(self, vendor: "Vendor", call: Call, *, is_last: bool = False) -> Done:
        """Tell the place, if it has room and wants to hear, within the time that telling it once may take.

        `is_last` retires it with this call.

        Raises:
            Problem: it could not be told, and what that means.
        """
        try:
            done: Done = await self.http.work(lambda: vendor.tell(self, call), is_last=is_last)
        except VendorFailure as failure:
            if failure.failure is Failure.TIMEOUT:
                is_making = not isinstance(call, Assign) and not call.handle
                (unknown if is_making else later)(Reason.TIMEOUT, "deadline")
            raise Problem(_not_begun(failure, is_begun=False)) from None
        return done

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
        try:
            return await self.http.call(method, url, below=400 if redirects else 300, **options)
        except VendorFailure as failure:
            _end(failure, is_making=is_making)

    def throttled(self, seconds: float | None) -> NoReturn:
        """Leave the place alone for as long as it wishes, and the call that it refused as well.

        Raises:
            Problem: always.
        """
        _end(self.http.throttled(seconds), is_making=False)

    async def token(
        self, url: str, form: Mapping[str, str], *, basic: tuple[str, str] | None = None
    ) -> str:
        """Return an OAuth access token, asked for at `url` and kept until shortly before it expires.

        Raises:
            Problem: it could not be had.
        """
        try:
            return await self.http.token(url, form, basic=basic)
        except VendorFailure as failure:
            if failure.failure is Failure.STATUS and _reason(failure.status) in _NO_TOKEN:
                # However a token is refused, it says that what we show is no good.
                later(Reason.UNAUTHORIZED, str(failure.status))
            if failure.failure is Failure.NOT_JSON:
                later(Reason.BAD_ANSWER)
            _end(failure, is_making=False)

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


def _not_begun(failure: VendorFailure, *, is_begun: bool) -> NotDone:
    """What it means that a place is left alone, or has no room."""
    if failure.failure is Failure.BUSY:
        return NotDone(Reason.THROTTLED, is_recoverable=True, detail="busy", is_begun=False)
    reason = Reason.TIMEOUT if failure.because is Failure.TIMEOUT else Reason.THROTTLED
    wish = timedelta(seconds=failure.retry_after or 0.0)
    return NotDone(reason, True, wish, is_begun=is_begun)


def _end(failure: VendorFailure, *, is_making: bool) -> NoReturn:
    """End a call by what came of it.

    Raises:
        Problem: always.
    """
    lost = unknown if is_making and failure.may_have_acted else later
    status = failure.status
    match failure.failure:
        case Failure.LEFT_ALONE | Failure.BUSY:
            raise Problem(_not_begun(failure, is_begun=True))
        case Failure.ADDRESS | Failure.INNER_HOST:
            refuse(Reason.REFUSED, "address")
        case Failure.TIMEOUT:
            lost(Reason.TIMEOUT)
        case Failure.NOT_JSON:
            lost(Reason.BAD_ANSWER, str(status))
        case Failure.THROTTLED:
            later(Reason.THROTTLED, "429", failure.retry_after)
        case Failure.STATUS if failure.may_have_acted or status in (423, 425):
            # A gateway says "later" for a server behind it that may have done it: the wish is kept, the doubt as well.
            lost(Reason.FAILED, str(status), failure.retry_after)
        case Failure.STATUS:
            refuse(_reason(status), str(status))
        case _:
            lost(Reason.UNREACHABLE)


def _reason(status: int) -> Reason:
    return _REFUSALS.get(status, Reason.REFUSED)


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


UNCHANGED: Final = Done(is_changed=False)
CHANGED: Final = Done()
