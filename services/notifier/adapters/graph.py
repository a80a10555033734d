"""What the providers on Meta's Graph API share: the call, its proof, and what the codes of a refusal mean.

Sources: Meta for Developers, Graph API (errors, rate limits, securing calls), Messenger Platform (Send API, common
error codes, Conversations API). A refusal is JSON with a code and sometimes a subcode; the code decides, not the
status, which is 400 for most of them. Codes 1 and 2 are trouble of Meta's own, and at least one of their cases is
documented in which the message had been sent all the same: they leave a doubt. Meta knows no idempotency key.

Believed and not confirmed: that the token is taken in the `Authorization` header for Pages and Instagram as it is
for WhatsApp (in the address it would stand in logs), the minutes of `estimated_time_to_regain_access`, and which
status a code comes with.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec
from pydantic import Field

from services.notifier.adapters import helpdesk, public
from services.notifier.adapters.provider import Answer, Api, Explain, refuse
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Trouble, VendorTemplate

WINDOW: Final = timedelta(hours=24)
"""How long after a person's message we may write freely (documented, for Messenger, Instagram and WhatsApp alike)."""
ANSWER_WINDOW: Final = timedelta(days=7)
"""The same for what a person wrote, where the app has the Human Agent feature (documented)."""
DETAILS_MAX: Final = 20
"""Messages of a conversation that Meta gives the words of: the newest ones (documented)."""
METADATA_MAX: Final = 1_000
"""Characters of a message's metadata."""
PAUSE_MAX: Final = timedelta(hours=6)

OURS: Final = frozenset({3, 10, 102, 190, 230, 368, 3001})
"""Codes about our token, our permissions or our account (permissions also have all from 200 to 299)."""
TOO_MANY: Final = frozenset({4, 17, 32, 341, 613})
"""Codes of limits, which had no effect (limits of one use case have all from 80000 to 80099)."""
DOUBTFUL: Final = frozenset({1, 2})
"""Codes of trouble at Meta after which something may have been sent."""
NOT_SENT: Final = 1200
"""A passing failure to send."""
OUTSIDE_WINDOW: Final = frozenset({2018278, 2018065, 2534022})
"""Subcodes of code 10: the time in which the person may be written to is over."""
NOBODY: Final = 2018001
"""Subcode of code 100: no such person."""
NOT_SHOWN: Final = 33
"""Subcode of code 100: what the address names is not there, or our permissions do not reach it."""
NOT_AVAILABLE: Final = frozenset({1545041, 2018108})
"""Subcodes of a person who cannot be written to now: blocked, or left."""


class GraphSettings(AccountSettings):
    """What every account at Meta has."""

    access_token: SecretReference
    """The access token that does not expire: a Page's, of a system user, or of the Instagram account."""
    app_secret: SecretReference | None = None
    """The app's secret. With it every call proves that the token is ours (`appsecret_proof`)."""
    api_url: ApiAddress = "https://graph.facebook.com"
    """The Graph API's address."""
    version: str = Field(default="v25.0", pattern=r"^v[0-9]{1,3}\.[0-9]$")
    """The Graph API's version."""


class _Error(msgspec.Struct, frozen=True):
    code: int = 0
    error_subcode: int | None = None
    message: str | None = None


class _Refusal(msgspec.Struct, frozen=True):
    error: _Error


class Made(msgspec.Struct, frozen=True):
    """What Meta says of something that it made."""

    id: str | int | None = None
    message_id: str | None = None


class From(msgspec.Struct, frozen=True):
    """Who wrote."""

    id: str | int | None = None
    username: str | None = None


class Item(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """A message or comment, as Meta tells of it. Messages and comments name their words and time differently."""

    id: str | int | None = None
    message: str | None = None
    text: str | None = None
    created_time: str | None = None
    timestamp: str | None = None
    from_: From | None = None


class _Paging(msgspec.Struct, frozen=True):
    next: str | None = None


class Items(msgspec.Struct, frozen=True):
    """A page of messages or comments. It may be shorter than was asked for: only `paging.next` tells that there are more."""

    data: tuple[Item, ...]
    paging: _Paging = _Paging()


class _Conversation(msgspec.Struct, frozen=True):
    messages: Items | None = None


class _Conversations(msgspec.Struct, frozen=True):
    data: tuple[_Conversation, ...]
    paging: _Paging = _Paging()


def _error_of(answer: Answer) -> _Error:
    try:
        return msgspec.convert(answer.body, _Refusal, strict=False).error
    except msgspec.ValidationError:
        return _Error()


def code_of(answer: Answer) -> tuple[int, int]:
    """Return a refusal's code and subcode; zeros where it tells none."""
    error = _error_of(answer)
    return error.code, error.error_subcode or 0


def explain(answer: Answer) -> Failed | Unknown | None:
    """Return what a refusal of Messenger's, Instagram's or a Page's API means."""
    code, subcode = code_of(answer)
    reason = f"Meta: error {code}" + (f", subcode {subcode}" if subcode else "")
    shared = of_account(answer, code, reason)
    if code == 10 and subcode in OUTSIDE_WINDOW:
        return helpdesk.over(f"{reason}: the time in which they may be written to is over")
    if code == 551 or subcode in NOT_AVAILABLE:
        return Failed(f"{reason}: they cannot be reached there", False, None, Trouble.ADDRESS)
    if code == 100 and shared is None:
        if subcode == NOT_SHOWN:  # The address names our account alone.
            return Failed(reason, True, None, Trouble.ACCOUNT)
        trouble = Trouble.ADDRESS if subcode == NOBODY else Trouble.MESSAGE
        return Failed(reason, False, None, trouble)
    return shared


def explain_comment(answer: Answer) -> Failed | Unknown | None:
    """Return what a refusal means of a call whose address names a comment."""
    code, subcode = code_of(answer)
    is_gone = answer.status in (404, 410) and code == 0
    if is_gone or (code == 100 and subcode == NOT_SHOWN):
        return helpdesk.over("Meta: the comment is gone, or not shown to us")
    return explain(answer)


def of_account(answer: Answer, code: int, reason: str) -> Failed | Unknown | None:
    """Return what the codes mean that all of Meta's APIs share; None for a code of no such kind."""
    is_unproved = code == 100 and "appsecret_proof" in (_error_of(answer).message or "")
    if code in OURS or 200 <= code <= 299 or is_unproved:
        return Failed(reason, True, None, Trouble.ACCOUNT)
    if code in TOO_MANY or code == NOT_SENT or 80_000 <= code <= 80_099:
        return Failed(reason, True, pause_of(answer.headers), Trouble.PROVIDER)
    if code in DOUBTFUL:
        return Unknown(reason)
    return None


def pause_of(headers: Mapping[str, str]) -> timedelta | None:
    """Return how long Meta wants us to wait; None where it does not say."""
    try:
        told: Any = msgspec.json.decode(headers.get("x-business-use-case-usage", "").encode())
        uses = [use for of_one in told.values() for use in of_one]
        minutes = max(float(use["estimated_time_to_regain_access"]) for use in uses)
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None
    return timedelta(minutes=min(minutes, PAUSE_MAX.total_seconds() / 60)) if minutes > 0 else None


async def call(
    api: Api,
    method: str,
    path: str,
    *,
    json: Any = None,
    params: Mapping[str, str] | None = None,
    is_making: bool = False,
    explain: Explain = explain,
) -> Answer:
    """Call the Graph API at a path below its version, and return its answer.

    Raises:
        Problem: what else came of it.
    """
    settings = helpdesk.settings_of(api, GraphSettings)
    token = api.secret("access_token")
    query = dict(params or {})
    if settings.app_secret is not None:
        query["appsecret_proof"] = proof_of(token, api.secret("app_secret"))
    return await api.call(
        method,
        f"{settings.api_url}/{settings.version}/{path}",
        is_making=is_making,
        json=json,
        params=query or None,
        headers=helpdesk.bearer(token),
        explain=explain,
    )


def proof_of(token: str, app_secret: str) -> str:
    """Return what proves that whoever uses a token knows the app's secret: its HMAC-SHA256 in hex."""
    return hmac.new(app_secret.encode(), token.encode(), hashlib.sha256).hexdigest()


def number(value: str, vendor: str, what: str) -> str:
    """Return an id of Meta's, which has digits and at most underscores between them.

    Raises:
        Problem: it is none; the message can go nowhere.
    """
    parts = value.split("_")
    if not 0 < len(value) <= 120 or not all(one.isascii() and one.isdigit() for one in parts):
        refuse(Trouble.MESSAGE, f"{vendor}: {what} is not known by its id at Meta")
    return value


def mark(prefix: str, post: Post) -> str:
    """Return what a message's metadata says of us; our own reading of Meta's echoes knows it again."""
    return f"{prefix}:{post.key}"[:METADATA_MAX]


def direct(post: Post, text: str, metadata_prefix: str, vendor: str) -> dict[str, Any]:
    """Return the body of a direct message to the post's person, marked as ours unless the prefix is empty.

    Raises:
        Problem: the person is not known by their id.
    """
    message = {"text": text}
    if metadata_prefix:
        message["metadata"] = mark(metadata_prefix, post)
    return {"recipient": {"id": number(post.to, vendor, "the person")}, "message": message}


def template_of(template: VendorTemplate) -> dict[str, Any]:
    """Return an approved template with its places filled, as WhatsApp and Messenger alike take it: by position, in its body."""
    values = [{"type": "text", "text": " ".join(value.split())} for value in template.values]
    said: dict[str, Any] = {"name": template.name, "language": {"code": template.language}}
    return said | ({"components": [{"type": "body", "parameters": values}]} if values else {})


async def comment(api: Api, post: Post, *, edge: str, text_max: int, vendor: str) -> Delivered:
    """Answer in a comment's thread, where everybody reads; `edge` is what the platform calls the answers to a comment.

    Raises:
        Problem: it could not be written, and what that means.
    """
    public.check(post, vendor)
    text = helpdesk.fitting(post, vendor, text_max)
    thread = number(post.thread, vendor, "the comment")
    answer = await call(
        api,
        "POST",
        f"{thread}/{edge}",
        json={"message": text},
        is_making=True,
        explain=explain_comment,
    )
    return helpdesk.taken(answer, Made, lambda made: made.id)


async def find_comment(
    api: Api,
    post: Post,
    *,
    edge: str,
    params: Mapping[str, str],
    page_size: int,
    own: frozenset[str],
    vendor: str,
) -> Delivered | None:
    """Look for an answer among the newest in a comment's thread; None where it is surely not there.

    `params` ask for the fields of `Item`, in the platform's names. `own` are the ids that our comments come from.

    Raises:
        Problem: it could not be told.
    """
    thread = number(post.thread, vendor, "the comment")
    answer = await call(
        api,
        "GET",
        f"{thread}/{edge}",
        params={**params, "limit": str(page_size)},
        explain=explain_comment,
    )
    page = helpdesk.shaped(answer, Items, vendor)
    return sought(post, page.data, own, page_size, vendor, has_more=bool(page.paging.next))


async def find_direct(
    api: Api, post: Post, *, sender: str, own: frozenset[str], platform: str, vendor: str
) -> Delivered | None:
    """Look for a direct message among the newest of its conversation; None where it is surely not there.

    `sender` is the Page or account that sends, `own` are the ids that its messages come from.

    Raises:
        Problem: it could not be told.
    """
    answer = await call(
        api,
        "GET",
        f"{sender}/conversations",
        params={
            "platform": platform,
            "user_id": number(post.to, vendor, "the person"),
            "fields": f"messages.limit({DETAILS_MAX}){{id,created_time,from,message}}",
        },
    )
    page = helpdesk.shaped(answer, _Conversations, vendor)
    pages = [one.messages for one in page.data if one.messages is not None]
    items = [item for one in pages for item in one.data]
    if not items or len(pages) < len(page.data):
        raise helpdesk.not_shown(vendor)
    has_more = bool(page.paging.next) or any(one.paging.next for one in pages)
    return sought(post, items, own, DETAILS_MAX, vendor, has_more=has_more)


def sought(
    post: Post,
    items: Sequence[Item],
    own: frozenset[str],
    page_size: int,
    vendor: str,
    *,
    has_more: bool,
) -> Delivered | None:
    """Return the post among what we wrote; None where it is surely not there.

    An item that does not say who wrote it may be ours. `has_more` says that Meta has items which it did not show.

    Raises:
        Problem: it cannot be told.
    """
    written = [
        helpdesk.Written(
            helpdesk.id_of(item.id),
            helpdesk.instant(item.created_time or item.timestamp),
            item.message or item.text or "",
            is_html=False,
        )
        for item in items
        if item.from_ is None or helpdesk.id_of(item.from_.id) in own
    ]
    found = helpdesk.sought(post, written, vendor)
    times = [item.created_time or item.timestamp for item in items]
    has_more |= len(items) >= page_size
    if found is None and has_more and not helpdesk.is_done(times, post):
        raise helpdesk.not_told(vendor)
    return found
