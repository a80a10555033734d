"""Gmail by its API: our mail, sent from a mailbox there, and found again among what the mailbox has sent.

Source: Google's reference of the Gmail API: `users.messages.send` (`raw` is the mail in base64url; `threadId`), `messages.list`
(`q`, `labelIds`, pages) and `messages.get` (`format=metadata` with the headers), and Gmail's search operators (`rfc822msgid:`,
`after:`). Sending needs the scope `gmail.send`, looking up `gmail.readonly` (or `gmail.modify` for both).

Gmail takes no key. Every mail has a Message-ID of ours, and a mail that may have been sent is looked for by it among those sent
since. Whether Gmail keeps a Message-ID that it is given is not documented; so a sent mail with the same recipient and subject, but
another id, leaves a doubt, and a doubt is never repeated.

Gmail groups a mailbox's mails by `threadId`: it is looked up by the Message-ID that the mail answers. A customer's program goes by
In-Reply-To and References alone, so a thread that is not found costs only the grouping in our own mailbox. Gmail puts the account's
own address in the envelope, so bounces come into its inbox.

Believed and not confirmed: 403 with `rateLimitExceeded` or `userRateLimitExceeded` for too many calls, `dailyLimitExceeded` and
the sending caps (500 a day for a consumer's mailbox, 2,000 for one of Workspace); that a mail with `threadId` joins the thread only
with matching headers and subject. Nothing was tried against a live account.
"""

import base64
from datetime import timedelta
from typing import Any, ClassVar, Final, TypeVar
from urllib.parse import quote

import msgspec
from pydantic import Field

from services.notifier.adapters.provider import (
    Answer,
    Api,
    Problem,
    Provider,
    later,
    refuse,
    unknown,
)
from services.notifier.adapters.smtp import UnsafeHeader, render
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed
from services.notifier.core.post import Traits, Trouble
from services.notifier.core.state import Mail

T = TypeVar("T")

MAIL_BYTES_MAX: Final = 5 * 1024 * 1024
"""Bytes of a mail in one call; larger ones need the upload address (believed)."""
LOOK_BACK: Final = timedelta(minutes=10)
"""How much earlier than the notice a mail of it may be dated: their clock is not ours."""
PAGE: Final = "50"
PAGES_MAX: Final = 4
"""Pages of sent mails that are looked through: 200 mails."""

_THROTTLED: Final = ("rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED")
_DAY_OVER: Final = ("dailyLimitExceeded", "quotaExceeded")
THROTTLED_FOR: Final = timedelta(minutes=1)
DAY_OVER_FOR: Final = timedelta(hours=1)


class Settings(AccountSettings):
    """A Gmail mailbox that sends. The sender's address in `senders` must be the mailbox's, or an alias of it there."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "client_id": "1234.apps.googleusercontent.com",
        "client_secret": "env:GMAIL_CLIENT_SECRET",
        "refresh_token": "env:GMAIL_REFRESH_TOKEN",
    }

    client_id: str = Field(min_length=1)
    """The OAuth client's id."""
    client_secret: SecretReference
    """The OAuth client's secret."""
    refresh_token: SecretReference
    """A refresh token of the mailbox for that client."""
    user: str = "me"
    """Whose mailbox: `me` is the token's own."""
    api_url: ApiAddress = "https://gmail.googleapis.com"
    """Google's API."""
    token_url: ApiAddress = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
    """Where access tokens are given."""

    @property
    def base(self) -> str:
        """The mailbox in the API."""
        return f"{self.api_url}/gmail/v1/users/{quote(self.user, safe='@')}"


class _Sent(msgspec.Struct, frozen=True):
    id: str
    threadId: str = ""  # noqa: N815 - Google's name


class _Listed(msgspec.Struct, frozen=True):
    messages: tuple[_Sent, ...] | None = None
    resultSizeEstimate: int | None = None  # noqa: N815 - Google's name
    nextPageToken: str = ""  # noqa: N815 - Google's name


class _Header(msgspec.Struct, frozen=True):
    name: str
    value: str = ""


class _Payload(msgspec.Struct, frozen=True):
    headers: tuple[_Header, ...] = ()


class _Kept(msgspec.Struct, frozen=True):
    id: str
    payload: _Payload = _Payload()

    def header(self, name: str) -> str:
        """Return a header's value, folded lines joined; empty where there is none."""
        for one in self.payload.headers:
            if one.name.lower() == name:
                return " ".join(one.value.split())
        return ""


async def send(api: Api, mail: Mail) -> Delivered:
    """Send the mail, in the mailbox's thread where that is known.

    Raises:
        Problem: it was not sent, or nobody knows.
    """
    settings: Settings = api.settings
    try:
        content = render(mail)
    except UnsafeHeader as error:
        refuse(Trouble.MESSAGE, f"the mail cannot be built: {error}")
    if len(content) > MAIL_BYTES_MAX:
        refuse(Trouble.MESSAGE, f"the mail is larger than {MAIL_BYTES_MAX} bytes")
    headers = await _login(api)
    body = {"raw": base64.urlsafe_b64encode(content).decode()}
    thread = await _thread(api, mail, headers)
    if thread:
        body["threadId"] = thread
    answer = await api.call(
        "POST",
        f"{settings.base}/messages/send",
        is_making=True,
        json=body,
        headers=headers,
        explain=_explain,
    )
    try:
        sent = msgspec.convert(answer.body, _Sent)
    except msgspec.ValidationError:
        unknown("Gmail's answer makes no sense")
    return Delivered("sent by Gmail", sent.id)


async def _thread(api: Api, mail: Mail, headers: dict[str, str]) -> str:
    """Return the mailbox's thread of the mail that this one answers; empty where it has none, or does not say."""
    if mail.in_reply_to is None:
        return ""
    settings: Settings = api.settings
    params = {"q": f"rfc822msgid:{mail.in_reply_to.strip('<>')}", "maxResults": "1"}
    try:
        answer = await api.call(
            "GET", f"{settings.base}/messages", params=params, headers=headers, explain=_explain
        )
        listed = msgspec.convert(answer.body, _Listed)
    except msgspec.ValidationError:
        return ""
    except Problem as problem:
        if isinstance(problem.outcome, Failed) and problem.outcome.trouble in (
            Trouble.ADDRESS,
            Trouble.MESSAGE,
        ):
            return ""  # The look-up is refused as such; the mail need not be.
        raise
    return listed.messages[0].threadId if listed.messages else ""


async def find(api: Api, mail: Mail) -> Delivered | None:
    """Look for the mail among those sent since shortly before it was written.

    Raises:
        Problem: it could not be told.
    """
    settings: Settings = api.settings
    headers = await _login(api)
    since = int((mail.date - LOOK_BACK).timestamp())
    params = {"labelIds": "SENT", "q": f"after:{since}", "maxResults": PAGE}
    is_doubtful = False
    for _ in range(PAGES_MAX):
        answer = await api.call(
            "GET", f"{settings.base}/messages", params=params, headers=headers, explain=_explain
        )
        listed = _shaped(answer, _Listed)
        if listed.messages is None and listed.resultSizeEstimate is None:
            later("Gmail's answer says nothing of the sent mails")
        for one in listed.messages or ():
            kept = await _kept(api, one.id, headers)
            if kept is None:
                continue
            if kept.header("message-id") == mail.message_id:
                return Delivered("found among the sent mails", kept.id)
            is_doubtful |= _is_alike(kept, mail)
        if not listed.nextPageToken:
            if is_doubtful:
                unknown("Gmail has sent a mail that may be this one under another id")
            return None
        params["pageToken"] = listed.nextPageToken
    return unknown("Gmail has sent more mails since than are looked through")


async def _kept(api: Api, mail_id: str, headers: dict[str, str]) -> _Kept | None:
    """Return a mail's headers; None where it has been deleted meanwhile."""
    settings: Settings = api.settings
    url = f"{settings.base}/messages/{quote(mail_id, safe='')}"
    try:
        answer = await api.call(
            "GET", url, params={"format": "metadata"}, headers=headers, explain=_explain_mail
        )
    except Problem as problem:
        if isinstance(problem.outcome, Failed) and problem.outcome.trouble is Trouble.ADDRESS:
            return None
        raise
    return _shaped(answer, _Kept)


def _is_alike(kept: _Kept, mail: Mail) -> bool:
    """Whether a sent mail could be this one with an id of Gmail's own: the same recipient, and nothing that speaks against it."""
    known = kept.header("message-id")
    is_ours = known.endswith(mail.message_id.rpartition("@")[2])
    return not is_ours and mail.to_address.lower() in kept.header("to").lower()


def _shaped(answer: Answer, kind: type[T]) -> T:
    try:
        return msgspec.convert(answer.body, kind)
    except msgspec.ValidationError:
        return later("Gmail's answer makes no sense")


async def _login(api: Api) -> dict[str, str]:
    settings: Settings = api.settings
    form = {
        "grant_type": "refresh_token",
        "refresh_token": api.secret("refresh_token"),
        "client_id": settings.client_id,
        "client_secret": api.secret("client_secret"),
    }
    return {"Authorization": f"Bearer {await api.token(settings.token_url, form)}"}


def _explain(answer: Answer) -> Failed | None:
    """What Google's `errors[].reason` says where the status is ambiguous."""
    if answer.status not in (403, 429):
        return None
    reasons = _reasons(answer.body)
    if any(reason in _THROTTLED for reason in reasons):
        return Failed("Gmail asks for patience", True, THROTTLED_FOR, Trouble.PROVIDER)
    if any(reason in _DAY_OVER for reason in reasons):
        return Failed("Gmail's daily limit is used up", True, DAY_OVER_FOR, Trouble.PROVIDER)
    return None


def _explain_mail(answer: Answer) -> Failed | None:
    """What a refusal means of a call whose address names a mail."""
    if answer.status in (404, 410):
        return Failed("the mail has been deleted", False, None, Trouble.ADDRESS)
    return _explain(answer)


def _reasons(body: Any) -> list[str]:
    error = body.get("error") if isinstance(body, dict) else None
    errors = error.get("errors") if isinstance(error, dict) else None
    found = errors if isinstance(errors, list) else []
    return [str(one.get("reason")) for one in found if isinstance(one, dict)]


PROVIDER: Final = Provider(
    name="gmail",
    settings=Settings,
    traits=Traits(
        channels=frozenset({"gmail"}),
        form="mail",
        addressing="address",
        can_find=True,
        text_max=1_000_000,
    ),
    send=send,
    find=find,
    renew=(
        "the refresh token (an OAuth client in testing gets ones that end after seven days), the client's secret, and the scopes"
        " gmail.send and gmail.readonly"
    ),
)
