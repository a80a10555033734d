"""Gmail by its API: a Pub/Sub push wakes us, the mailbox's history says what came, and each mail is read raw.

Sources: Google's pages on Gmail push notifications, `users.history.list`, `users.messages`, `users.getProfile` and
synchronisation, and Google Cloud's page on authenticated push subscriptions.

Verified: a push carries an OIDC token in `Authorization: Bearer` (RS256, Google's published keys); its signature, issuer,
audience, expiry and the service account's address are checked. The token does not cover the body, so a push is only a
hint: it names a mailbox and nothing of it becomes a message. A mail's sender is proved as everywhere by DMARC, here in the
`Authentication-Results` that Gmail itself writes on top (`trusted_servers`); that we fetched it proves nothing about it.

Two ways, better both:

- *Polling* keeps the history id in its cursor and asks for what was added since. An id that Gmail does not know any more
  (404; they live a week or more, sometimes hours) leads to a full look: all mails since the last look less two days, and a
  new history id that was taken before.
- A *push* cannot say since when (its history id is the newest), so it looks at the mails of the last minutes. Mails that
  both ways bring have the same name and are one input.

A mail becomes what the `email` adapter makes of it. Mails with the labels `SENT` or `DRAFT` are ours and left out. A mail
too large for one answer of the API is kept as its header and snippet, with a word on where the rest is.

`watch` must be renewed at least each seven days; this adapter does not, see the channel's page. Believed and not confirmed:
the address of Google's keys, the default audience, `messages.get` fields beyond `raw`, `after:` with seconds in a list's `q`,
quota figures. Nothing was tried against a live account.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec
from pydantic import Field

from services.ingest.adapters import email, google_push, reading
from services.ingest.adapters.api import ApiProblem, shaped
from services.ingest.adapters.channel import (
    Api,
    Capability,
    Channel,
    ChannelSettings,
    Delivery,
    Fetched,
    Page,
    Parsed,
    ParseError,
    Request,
    SecretReference,
    Verdict,
    settings_of,
)
from services.ingest.core.normalise import clean_value

KEYS_URL: Final = "https://www.googleapis.com/oauth2/v3/certs"
"""Google's published keys as a JWKS (believed)."""
HISTORY_PAGE: Final = 50
"""History records asked for at a time; each may add several mails."""
LIST_PAGE: Final = 25
HINT_PAGES_MAX: Final = 4
"""Pages of mails that one push may lead to: a hundred mails; polling brings what is more."""
DATA_LENGTH_MAX: Final = 65_536
"""Characters of a notification's `data`; a real one has about a hundred."""
SKEW: Final = timedelta(minutes=1)
OVERLAP: Final = timedelta(days=2)
"""How far a full look goes back before the last look, as with IMAP."""
OURS: Final = frozenset({"SENT", "DRAFT"})
HEADERS_KEPT: Final = frozenset({
    "from", "to", "cc", "reply-to", "sender", "subject", "date", "message-id", "in-reply-to", "references",
    "auto-submitted", "list-id", "list-unsubscribe", "precedence", "return-path", "authentication-results",
    "delivered-to",
})  # fmt: skip
TOO_LARGE: Final = "[This mail is too large to be fetched here. All of it is in the Gmail mailbox.]"


class Push(reading.Struct, frozen=True):
    """A Pub/Sub message. `data` is base64 of a `Notice`."""

    data: str | None = None
    messageId: str | int | None = None  # noqa: N815 - Google's name
    publishTime: str | None = None  # noqa: N815 - Google's name


class Wrapped(reading.Struct, frozen=True):
    """The wrapped form of a push."""

    message: Push | None = None
    subscription: str | None = None


class Notice(reading.Struct, frozen=True):
    """What a notification says: whose mailbox, and its newest history id."""

    emailAddress: str | None = None  # noqa: N815 - Google's name
    historyId: str | int | None = None  # noqa: N815 - Google's name


class Kept(reading.Struct, frozen=True):
    """A mail as we fetched it: Gmail's ids, and the raw mail in base64url. Labels change, so they are not kept."""

    id: str
    raw: str
    threadId: str | None = None  # noqa: N815 - Google's name


class Ref(reading.Struct, frozen=True):
    """A mail in a list."""

    id: str
    threadId: str | None = None  # noqa: N815 - Google's name
    labelIds: tuple[str, ...] | None = None  # noqa: N815 - Google's name


class Added(reading.Struct, frozen=True):
    """A mail that was added to the mailbox."""

    message: Ref


class Record(reading.Struct, frozen=True):
    """One record of the history."""

    messagesAdded: tuple[Added, ...] | None = None  # noqa: N815 - Google's name


class History(reading.Struct, frozen=True):
    """A page of the history."""

    history: tuple[Record, ...] | None = None
    nextPageToken: str | None = None  # noqa: N815 - Google's name
    historyId: str | int | None = None  # noqa: N815 - Google's name


class Listed(reading.Struct, frozen=True):
    """A page of mails."""

    messages: tuple[Ref, ...] | None = None
    nextPageToken: str | None = None  # noqa: N815 - Google's name


class Cursor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where polling stands. `since` (seconds since 1970) is set while a full look is under way, with its page."""

    history: str
    at: int
    page: str = ""
    since: int | None = None


class Settings(ChannelSettings):
    """A Gmail mailbox. `secret` is a token for subscriptions without authentication, shown in their address; it counts
    only where neither `audience` nor `service_account` is set.

    `address` is the mailbox's; notices of others are not taken. `audience` is the push subscription's, `service_account`
    the address that its tokens must be of. `keys_url` publishes Google's keys. Reading needs `client_id`, `client_secret`
    and `refresh_token` of an OAuth client with the scope `gmail.readonly`; `token_url` and `api_url` are Google's.
    `user` is whose mailbox the API is asked about. `label` is the label whose mails are taken, empty for all.
    `trusted_servers` are whose Authentication-Results count. `start` says what the first look takes: `new` mail from then
    on, or `all` there is. `hint_minutes` is how far back a push looks. `poll` switches polling off; `poll_seconds` is the
    pause between looks.
    """

    address: str = ""
    audience: str = ""
    service_account: str = ""
    keys_url: str = KEYS_URL
    client_id: str = ""
    client_secret: SecretReference | None = None
    refresh_token: SecretReference | None = None
    token_url: str = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
    api_url: str = "https://gmail.googleapis.com"
    user: str = "me"
    label: str = Field(default="INBOX", pattern=r"^[A-Za-z0-9_/ -]{0,100}$")
    trusted_servers: tuple[str, ...] = ("mx.google.com",)
    start: Literal["new", "all"] = "new"
    hint_minutes: int = Field(default=15, ge=1, le=1_440)
    poll: Literal["yes", "no"] = "yes"
    poll_seconds: int | None = Field(default=None, ge=1, le=3_600)

    @property
    def can_read(self) -> bool:
        """Whether mails can be read."""
        return bool(self.client_id) and self.refresh_token is not None

    @property
    def base(self) -> str:
        """The mailbox in the API, without a slash at its end."""
        return f"{self.api_url.rstrip('/')}/gmail/v1/users/{quote(self.user, safe='@')}"


# ---------------------------------------------------------------------------------------------- proof


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Prove the token that came with a push; without published keys, the account's own token must be shown."""
    return google_push.verify(request, secrets, now, name=_push_name, names_shown=True)


def _push_name(body: bytes) -> str | None:
    try:
        push = reading.json_as(body, Wrapped).message
        return reading.identifier(push.messageId, "message.messageId") if push else None
    except ParseError:
        return None


# ---------------------------------------------------------------------------------------------- parse


def parse(delivery: Delivery) -> Parsed:
    """Read a push (a hint), a mail that we fetched, or a bare mail (offline).

    Raises:
        ParseError: it is none of these.
    """
    settings = settings_of(delivery, Settings)
    if delivery.fetched == "message":
        kept = reading.json_as(delivery.body, Kept)
        return _of_mail(delivery, _raw(kept.raw), settings, kept)
    if delivery.body.lstrip()[:1] != b"{":
        return _of_mail(delivery, delivery.body, settings, None)
    push = reading.json_as(delivery.body, Wrapped).message
    if push is None:
        return Parsed(ignored="unknown_event", verified=delivery.verified)
    notice = _notice(push.data)
    about = (notice.emailAddress or "").strip().lower()
    if settings.address and about and about != settings.address.strip().lower():
        return Parsed(ignored="other_mailbox", verified=delivery.verified)
    return Parsed(ignored="hint", verified=delivery.verified)


def _notice(data: str | None) -> Notice:
    if not data or len(data) > DATA_LENGTH_MAX:
        raise ParseError("invalid_field", "message.data: is missing or too long", "message.data")
    return reading.json_as(_decoded(data, "message.data"), Notice)


def _raw(text: str) -> bytes:
    return _decoded(text, "raw")


def _decoded(text: str, field: str) -> bytes:
    """Return the bytes of base64 in either alphabet, with or without padding."""
    bare = "".join(text.split()).rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ParseError("invalid_base64", f"{field}: is not base64", field) from None


def _of_mail(delivery: Delivery, raw: bytes, settings: Settings, kept: Kept | None) -> Parsed:
    """Read a mail as `email` does. A bare one came from nobody knows where: no server's word counts in it."""
    own = {one.strip().lower() for one in (settings.address, *settings.own_ids) if one}
    servers = {name.lower() for name in settings.trusted_servers} if kept is not None else set()
    parsed = email.parse(
        replace(
            delivery,
            body=raw,
            verified=False,
            own_addresses=delivery.own_addresses | own,
            trusted_servers=frozenset(servers),
        )
    )
    if kept is None:
        return parsed
    ids = {
        "gmail_id": clean_value(kept.id, 200),
        "gmail_thread": clean_value(kept.threadId or "", 200),
    }
    messages = tuple(
        one.model_copy(update={"fields": {**one.fields, **{k: v for k, v in ids.items() if v}}})
        for one in parsed.messages
    )
    return replace(parsed, messages=messages)


# -------------------------------------------------------------------------------------------- fetching


async def _headers(api: Api) -> dict[str, str]:
    settings: Settings = api.settings
    refresh, secret = api.secrets.get("refresh_token", ""), api.secrets.get("client_secret", "")
    if not refresh or (settings.client_secret is not None and not secret):
        raise ApiProblem("no_secret")
    form = {
        "grant_type": "refresh_token",
        "refresh_token": refresh,
        "client_id": settings.client_id,
    }
    if secret:
        form["client_secret"] = secret
    return {"Authorization": f"Bearer {await api.token(settings.token_url, form)}"}


async def _get(api: Api, path: str, params: Mapping[str, str], *, missing: bool = False) -> Any:
    settings: Settings = api.settings
    kept = {name: value for name, value in params.items() if value}
    return await api.get(
        f"{settings.base}{path}", params=kept, headers=await _headers(api), missing=missing
    )


async def _mails(api: Api, refs: Iterable[Ref]) -> tuple[Fetched, ...]:
    """Fetch mails one after another, in order and each once; ours and those deleted meanwhile are left out."""
    items: list[Fetched] = []
    seen: set[str] = set()
    for ref in refs:
        if ref.id in seen or OURS & set(ref.labelIds or ()):
            continue
        seen.add(ref.id)
        item = await _mail(api, ref)
        if item is not None:
            items.append(item)
    return tuple(items)


async def _mail(api: Api, ref: Ref) -> Fetched | None:
    path = f"/messages/{quote(ref.id, safe='')}"
    try:
        told = await _get(api, path, {"format": "raw"}, missing=True)
    except ApiProblem as problem:
        if problem.reason != "too_large":
            raise
        told = await _get(api, path, {"format": "metadata"}, missing=True)
        if isinstance(told, dict):
            told = {**told, "raw": _stub(told)}
    if told is None:
        return None
    if not isinstance(told, dict) or not isinstance(told.get("raw"), str):
        raise ApiProblem("bad_answer")
    labels = told.get("labelIds")
    if isinstance(labels, list) and any(one == label for one in OURS for label in labels):
        return None
    thread = told.get("threadId")
    kept = Kept(
        id=ref.id,
        threadId=thread if isinstance(thread, str) else ref.threadId,
        raw=told["raw"],
    )
    try:
        about = email.sender_address(_raw(kept.raw))
    except ParseError:
        raise ApiProblem("bad_answer") from None
    return Fetched("message", ref.id, msgspec.json.encode(kept), about)


def _stub(told: Mapping[str, Any]) -> str:
    """Return a mail made of a large one's header and snippet, in base64url."""
    payload = told.get("payload")
    listed = payload.get("headers") if isinstance(payload, dict) else None
    lines: list[str] = []
    for one in listed if isinstance(listed, list) else ():
        if not isinstance(one, dict):
            continue
        name, value = one.get("name"), one.get("value")
        if isinstance(name, str) and isinstance(value, str) and name.lower() in HEADERS_KEPT:
            lines.append(f"{name}: {clean_value(value, 10_000)}")
    snippet = told.get("snippet")
    lines += [
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "",
        clean_value(snippet, 2_000) if isinstance(snippet, str) else "",
        "",
        TOO_LARGE,
        "",
    ]
    return base64.urlsafe_b64encode("\r\n".join(lines).encode("utf-8", "replace")).decode()


async def read_back(api: Api, delivery: Delivery) -> tuple[Fetched, ...]:
    """Fetch the mails of the last minutes before a push, oldest first."""
    settings: Settings = api.settings
    push = reading.json_as(delivery.body, Wrapped).message
    at = reading.instant(push.publishTime if push is not None else None, delivery.received_at)
    since = int((at - timedelta(minutes=settings.hint_minutes)).timestamp())
    refs: list[Ref] = []
    page = ""
    for _ in range(HINT_PAGES_MAX):
        listed = await _list(api, since, page)
        refs += listed.messages or ()
        page = listed.nextPageToken or ""
        if not page:
            break
    return await _mails(api, reversed(refs))


async def _list(api: Api, since: int | None, page: str) -> Listed:
    """Return a page of mails, newest first, as Gmail lists them; `since` in seconds since 1970."""
    settings: Settings = api.settings
    params = {
        "maxResults": str(LIST_PAGE),
        "labelIds": settings.label,
        "q": f"after:{since}" if since else "",
        "pageToken": page,
    }
    listed: Listed = shaped(await _get(api, "/messages", params), Listed)
    return listed


# --------------------------------------------------------------------------------------------- polling


async def poll(api: Api, cursor: str | None, now: datetime) -> Page:
    """Fetch what was added since the cursor's history id; look at all mails where that is too old.

    The first look takes the newest history id as its baseline and, with `start: all`, all mails there are.
    """
    settings: Settings = api.settings
    if cursor is None:
        baseline = Cursor(await _newest(api), int(now.timestamp()))
        if settings.start == "new":
            return Page((), _written(baseline))
        return await _full_look(api, msgspec.structs.replace(baseline, since=0))
    at = _read(cursor)
    if at.since is not None:
        return await _full_look(api, at)
    return await _history(api, at, now)


def _read(cursor: str) -> Cursor:
    try:
        return msgspec.json.decode(cursor, type=Cursor)
    except (msgspec.MsgspecError, ValueError):
        raise ApiProblem("bad_answer", is_final=True) from None


def _written(cursor: Cursor) -> str:
    return msgspec.json.encode(cursor).decode()


async def _newest(api: Api) -> str:
    told = await _get(api, "/profile", {})
    found = told.get("historyId") if isinstance(told, dict) else None
    if not isinstance(found, (str, int)) or not str(found):
        raise ApiProblem("bad_answer")
    return str(found)


async def _history(api: Api, at: Cursor, now: datetime) -> Page:
    settings: Settings = api.settings
    params = {
        "startHistoryId": at.history,
        "historyTypes": "messageAdded",
        "labelId": settings.label,
        "maxResults": str(HISTORY_PAGE),
        "pageToken": at.page,
    }
    try:
        told = await _get(api, "/history", params, missing=True)
    except ApiProblem as problem:
        if (
            at.page and problem.status == 400
        ):  # The page's name is too old: from the beginning again.
            return Page((), _written(msgspec.structs.replace(at, page="")), more=True)
        raise
    if told is None:
        since = max(0, at.at - int(OVERLAP.total_seconds()))
        fresh = Cursor(await _newest(api), int(now.timestamp()), since=since)
        return Page((), _written(fresh), more=True)
    found: History = shaped(told, History)
    refs = [added.message for record in found.history or () for added in record.messagesAdded or ()]
    items = await _mails(api, refs)
    if found.nextPageToken:
        return Page(
            items, _written(msgspec.structs.replace(at, page=found.nextPageToken)), more=True
        )
    history = str(found.historyId) if found.historyId else at.history
    return Page(items, _written(Cursor(history, int((now - SKEW).timestamp()))))


async def _full_look(api: Api, at: Cursor) -> Page:
    """Fetch a page of all mails since a time; the history goes on from the id that was taken before it."""
    try:
        listed = await _list(api, at.since, at.page)
    except ApiProblem as problem:
        if at.page and problem.status == 400:
            return Page((), _written(msgspec.structs.replace(at, page="")), more=True)
        raise
    items = await _mails(api, listed.messages or ())
    if listed.nextPageToken:
        page = msgspec.structs.replace(at, page=listed.nextPageToken)
        return Page(items, _written(page), more=True)
    return Page(items, _written(Cursor(at.history, at.at)), more=True)


CHANNEL = Channel(
    name="gmail",
    parse=parse,
    settings=Settings,
    verify=verify,
    read_back=read_back,
    reads_back=lambda settings: settings.can_read,
    poll=poll,
    polls=lambda settings: settings.can_read and settings.poll == "yes",
    keys_url=lambda settings: (
        settings.keys_url if settings.service_account or settings.audience else None
    ),
    capability=Capability(
        can_reply=True,
        supports_attachments=True,
        proof="OIDC token of the push (RS256); the sender by DMARC as Gmail checked it",
    ),
)
