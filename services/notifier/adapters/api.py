"""One account's API as a provider's module gets it, and what came of each call in the notifier's words.

`chassis.vendor_api` makes the calls; here stands what their ends mean for a message. A send may take several calls (a token, a
look, the message): each send has an `Errand` of its own, which remembers whether the call that makes the message was begun, so
that a send that runs out of time before it is tried again and one that runs out of time after it is not.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final, NoReturn

import httpx

from chassis.clock import monotonic
from chassis.secrets import read_secret
from chassis.vendor_api import RETRY_AFTER_MAX, Failure, VendorApi, VendorFailure, new_client
from chassis.vendor_api import Answer as HttpAnswer
from chassis.vendor_guard import Guard
from services.notifier.adapters.provider import (
    Answer,
    Explain,
    Problem,
    Provider,
    refuse,
)
from services.notifier.core.accounts import AccountSettings
from services.notifier.core.delivery import Attempted, Delivered, Failed, Unknown
from services.notifier.core.post import Trouble

SLOTS: Final = 8
"""Sends an account has under way at once, so that one that hangs leaves the others room."""

ReadSecret = Callable[[str], str | None]
"""Returns the secret that a reference leads to; None where there is none."""

_BREAKS_ON: Final = (Failure.TIMEOUT, Failure.UNREACHABLE, Failure.BROKEN, Failure.TOO_LARGE)


def client(seconds: float, guard: Guard) -> httpx.AsyncClient:
    """Return a client for one account."""
    return new_client(seconds, agent="signalbox-notifier", connections=SLOTS, guard=guard)


class AccountApi:
    """One account: its settings, its client, its tokens, and whether it is left alone."""

    def __init__(
        self,
        settings: AccountSettings,
        http: httpx.AsyncClient,
        secrets: ReadSecret = read_secret,
        *,
        seconds: float = 20.0,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self.settings = settings
        self.secrets = secrets
        self.http = VendorApi(
            http,
            seconds=seconds,
            slots=SLOTS,
            breaks_on=_BREAKS_ON,
            breaks_on_5xx=True,
            now=now,
        )

    @property
    def is_retired(self) -> bool:
        """Whether nobody else may use it."""
        return self.http.is_retired

    async def retire(self) -> None:
        """Close the client as soon as no send needs it."""
        await self.http.retire()

    async def send(self, provider: Provider, message: Any, *, is_last: bool = False) -> Attempted:
        """Send once. Every way it can end is an answer, unless the provider's module has a bug. `is_last` retires it with that."""
        errand = Errand(self)
        try:
            delivered = await self.http.work(
                lambda: provider.send(errand, message), is_last=is_last
            )
        except Problem as problem:
            if errand.has_sent and isinstance(problem.outcome, Failed):
                return Unknown(f"a part of it was sent, and then: {problem.outcome.reason}")
            return problem.outcome
        except VendorFailure as failure:
            return _meaning(failure, is_making=errand.is_made)
        return delivered

    async def find(
        self, provider: Provider, message: Any, *, is_last: bool = False
    ) -> Attempted | None:
        """Look an interrupted send up: what was sent, or None where surely nothing was.

        `Failed` and `Unknown` say that it could not be told, now or ever.
        """
        find = provider.find
        if find is None:
            return Unknown("the provider cannot be asked")
        errand = Errand(self)
        try:
            found: Delivered | None = await self.http.work(
                lambda: find(errand, message), is_last=is_last
            )
        except Problem as problem:
            return problem.outcome
        except VendorFailure as failure:
            return _meaning(failure, is_making=False)
        return found


class Errand:
    """The `Api` of one send."""

    def __init__(self, account: AccountApi) -> None:
        self._account = account
        self.is_made = False
        """Whether a call that makes a message was begun."""
        self.has_sent = False
        """Whether one has succeeded, without a key that would let it be repeated."""

    @property
    def settings(self) -> Any:
        """The account's settings."""
        return self._account.settings

    def secret(self, field: str) -> str:
        """Return the secret that a field of the settings refers to.

        Raises:
            Problem: there is none, or one that cannot stand in a header.
        """
        reference = getattr(self._account.settings, field)
        found = self._account.secrets(reference) if isinstance(reference, str) else None
        if found is None:
            refuse(Trouble.ACCOUNT, f"the secret of {field} is missing or empty")
        if not found.isprintable():
            refuse(Trouble.ACCOUNT, f"the secret of {field} has a control character")
        return found

    async def call(
        self,
        method: str,
        url: str,
        *,
        is_making: bool = False,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        basic: tuple[str, str] | None = None,
        explain: Explain | None = None,
        reads_answer: bool = True,
    ) -> Answer:
        """Call, and return an answer below 300; see `provider.Api`.

        Raises:
            Problem: what else came of it.
        """
        given = {
            "json": json,
            "data": dict(form) if form is not None else None,
            "content": content,
            "params": dict(params) if params else None,
            "headers": dict(headers) if headers else None,
            "auth": basic,
        }
        options = {name: value for name, value in given.items() if value is not None}
        _check(headers or {})
        self.is_made |= is_making
        try:
            answer = await self._account.http.call(method, url, reads=reads_answer, **options)
        except VendorFailure as failure:
            if failure.status == 503 and failure.retry_after is not None:
                self._rest(timedelta(seconds=failure.retry_after), Failure.STATUS)
            self._explained(failure, explain)
            _end(failure, is_making=is_making)
        ours = _ours(answer)
        refused = explain(ours) if explain is not None else None
        if refused is not None:  # Some refuse with 200 and say so in the body only (Slack).
            self._refused(refused)
        self.has_sent |= is_making
        return ours

    def _explained(self, failure: VendorFailure, explain: Explain | None) -> None:
        """Let the provider say what a refusal means.

        Raises:
            Problem: it does.
        """
        if explain is None or failure.answer is None or failure.status < 300:
            return
        outcome = explain(_ours(failure.answer))
        if outcome is not None:
            self._refused(outcome)

    def _refused(self, outcome: Failed | Unknown) -> NoReturn:
        """End the send; a wish for patience, wherever in an answer it stood, is one to the whole account.

        Raises:
            Problem: always.
        """
        if isinstance(outcome, Failed) and outcome.trouble is Trouble.PROVIDER:
            self._rest(outcome.retry_after, Failure.THROTTLED)
        raise Problem(outcome)

    def _rest(self, wish: timedelta | None, because: Failure) -> None:
        if wish is not None:
            self._account.http.leave_alone(min(wish.total_seconds(), RETRY_AFTER_MAX), because)

    async def token(
        self, url: str, form: Mapping[str, str], *, basic: tuple[str, str] | None = None
    ) -> str:
        """Return an OAuth access token, kept until shortly before it expires.

        Raises:
            Problem: it could not be had.
        """
        try:
            return await self._account.http.token(url, form, basic=basic)
        except VendorFailure as failure:
            if failure.failure is Failure.STATUS and failure.status < 500 and failure.status != 408:
                # However a token is refused, it says that what we show is no good.
                refuse(Trouble.ACCOUNT, f"no token was given ({failure.status})")
            body = failure.answer.body if failure.answer is not None else None
            if failure.failure is Failure.NOT_JSON and isinstance(body, dict) and "error" in body:
                # Some refuse a token with 200, and say so in the body only (Zoho).
                refuse(Trouble.ACCOUNT, f"no token was given ({failure.status})")
            _end(failure, is_making=False)


def _ours(answer: HttpAnswer) -> Answer:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return Answer(answer.status, headers, answer.body)


def _check(headers: Mapping[str, str]) -> None:
    """Do nothing where headers can be written; what they hold comes from the settings and the secrets.

    Raises:
        Problem: one has a character that is not ASCII.
    """
    for name, value in headers.items():
        if not value.isascii():
            refuse(
                Trouble.ACCOUNT,
                f"the header {name} cannot be written: its secret or setting is not plain ASCII",
            )


def _end(failure: VendorFailure, *, is_making: bool) -> NoReturn:
    """End a send by what came of one of its calls.

    Raises:
        Problem: always.
    """
    raise Problem(_meaning(failure, is_making=is_making))


def _meaning(failure: VendorFailure, *, is_making: bool) -> Failed | Unknown:
    status = failure.status
    match failure.failure:
        case Failure.INNER_HOST:
            return Failed(str(failure), is_recoverable=True, trouble=Trouble.ACCOUNT)
        case Failure.ADDRESS:
            return Failed("the request cannot be written", is_recoverable=False)
        case Failure.STATUS if status < 500 and status not in (408, 423, 425):
            return _refused(status)
    if is_making and failure.may_have_acted:
        return Unknown(f"the vendor's answer was lost: {failure}")
    wish = None if failure.retry_after is None else timedelta(seconds=failure.retry_after)
    return Failed(_WORDS.get(failure.failure, "the vendor failed") + _shown(status), True, wish, Trouble.PROVIDER)  # fmt: skip


_WORDS: Final = {
    Failure.BUSY: "earlier messages of this account are still under way",
    Failure.LEFT_ALONE: "the account is left alone for a while",
    Failure.UNREACHABLE: "the vendor cannot be reached",
    Failure.TIMEOUT: "the vendor did not answer in time",
    Failure.BROKEN: "the vendor closed the connection",
    Failure.TOO_LARGE: "the vendor's answer is too large",
    Failure.NOT_JSON: "the vendor's answer makes no sense",
    Failure.THROTTLED: "the vendor asks for patience",
}


def _shown(status: int) -> str:
    return f" ({status})" if status else ""


def _refused(status: int) -> Failed:
    """What a status means that no body explains."""
    if status in (401, 403):
        return Failed(f"the vendor refuses our credentials ({status})", True, None, Trouble.ACCOUNT)
    if status < 400:
        return Failed(f"the account's address leads elsewhere ({status})", True, None, Trouble.ACCOUNT)  # fmt: skip
    if status in (404, 410):
        # As a rule the account's own address is wrong. Where the path holds a recipient or a thread, the module says so itself:
        # a recipient that is called dead is left alone for good.
        return Failed(f"there is nothing at the account's address ({status})", True, None, Trouble.ACCOUNT)  # fmt: skip
    return Failed(f"the vendor refuses the message ({status})", False, None, Trouble.MESSAGE)
