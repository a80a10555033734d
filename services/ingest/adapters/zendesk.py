"""Zendesk Support: what customers and staff write in tickets, by webhook, completed through the API.

Sources: Zendesk's developer pages on webhooks, webhook event types (ticket events), verifying webhooks and ticket
comments. Two kinds of webhook exist and cannot be turned into each other. An *event subscription* has a fixed envelope
with the comment's text, but without the author's mail address and without files. A webhook called by a *trigger* has a body
of our own template, which holds ids only, since Zendesk puts placeholders into the JSON text unescaped.

Verified: `X-Zendesk-Webhook-Signature` is base64 of HMAC-SHA256 over the timestamp header followed by the raw body, no
separator. An older edition of the page had them the other way round; that order is refused. So is the public secret which
Zendesk signs with before a webhook is created. The account and invocation headers are not signed and not looked at.

With API credentials every proved delivery is only a hint and the comment is read back, with author, mail address and
files. Without them, or where it could not be read, an event's own text becomes the message, and its author is known by
Zendesk's user id alone.

Believed and not confirmed: the tolerance of the timestamp (we take 300 s), that `ticket.comment_added` is sent for a
ticket's first comment as well (`first_comment`), which fields a redaction carries, the retry rules (409, at most three
times), query names of the comments endpoint. Nothing was tried against a live account.
"""

import base64
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, Literal
from urllib.parse import quote

import msgspec
from pydantic import Field

from schemas.messages import Attachment, Change, Sender
from services.ingest.adapters import addresses, reading, signing
from services.ingest.adapters.api import ApiProblem, shaped
from services.ingest.adapters.channel import (
    Answer,
    Api,
    Capability,
    Channel,
    ChannelSettings,
    Delivery,
    Fetched,
    Parsed,
    ParseError,
    Request,
    SecretReference,
    Verdict,
    settings_of,
)
from services.ingest.core.normalise import clean_value

SIGNATURE: Final = "x-zendesk-webhook-signature"
TIMESTAMP: Final = "x-zendesk-webhook-signature-timestamp"
WINDOW_SECONDS: Final = 300
"""Zendesk documents no tolerance; five minutes is what integrations use."""

TEST_SECRET: Final = "dGhpc19zZWNyZXRfaXNfZm9yX3Rlc3Rpbmdfb25seQ=="  # noqa: S105 - public, and refused
"""Zendesk's page names it for testing a webhook that does not exist yet: everybody can sign with it."""

COMMENTS_PAGE: Final = 100
"""Comments a page of the API, the most there are (cursor pagination)."""
PAGES_MAX: Final = 5
COMMENTS_MAX: Final = 50
"""Comments taken over for one trigger call; the newest."""

EVENT: Final = "zen:event-type:"
_WITH_COMMENT: Final = frozenset({"ticket.comment_added", "ticket.comment_redacted"})
_NOT_MESSAGES: Final = frozenset({
    "agent_assignment_changed", "attachment_linked_to_comment", "attachment_redacted_from_comment", "brand_changed",
    "comment_made_private", "csat_received", "csat_requested", "custom_field_changed", "custom_status_changed",
    "description_changed", "email_ccs_changed", "external_id_changed", "followers_changed", "form_changed",
    "group_assignment_changed", "marked_as_spam", "merged", "next_sla_breach_changed", "ola_policy_changed",
    "organization_changed", "permanently_deleted", "priority_changed", "problem_link_changed", "requester_changed",
    "schedule_changed", "sla_policy_changed", "soft_deleted", "status_changed", "subject_changed",
    "submitter_changed", "tags_changed", "task_due_at_changed", "type_changed", "undeleted",
})  # fmt: skip
_STAFF: Final = frozenset({"agent", "admin"})


class Via(reading.Struct, frozen=True):
    """The way a ticket or comment came into Zendesk."""

    channel: str | None = None


class Detail(reading.Struct, frozen=True):
    """The ticket as an event tells of it."""

    id: str | int | None = None
    subject: str | None = None
    description: str | None = None
    requester_id: str | int | None = None
    submitter_id: str | int | None = None
    is_public: bool | None = None
    via: Via | None = None
    created_at: str | None = None


class EventAuthor(reading.Struct, frozen=True):
    """Who wrote a comment, as an event tells of it."""

    id: str | int | None = None
    is_staff: bool = False
    name: str | None = None


class EventComment(reading.Struct, frozen=True):
    """A comment in an event. A redaction may come without its text."""

    id: str | int | None = None
    body: str | None = None
    is_public: bool = True
    author: EventAuthor | None = None


class TicketChange(reading.Struct, frozen=True):
    """What happened, as far as comments are concerned."""

    comment: EventComment | None = None


class File(reading.Struct, frozen=True):
    """A comment's file in the API. `content_url` may ask for a login."""

    file_name: str | None = None
    content_type: str | None = None
    content_url: str | None = None
    size: int | None = None


class Comment(reading.Struct, frozen=True):
    """A comment as the API returns it."""

    id: str | int | None = None
    author_id: str | int | None = None
    body: str | None = None
    plain_body: str | None = None
    html_body: str | None = None
    public: bool = True
    created_at: str | None = None
    attachments: tuple[File, ...] | None = ()
    via: Via | None = None


class User(reading.Struct, frozen=True):
    """A user as the API returns it. `verified`: Zendesk has proved one of the user's addresses."""

    id: str | int | None = None
    name: str | None = None
    email: str | None = None
    role: str | None = None
    verified: bool | None = None


class Ticket(reading.Struct, frozen=True):
    """A ticket as the API returns it."""

    id: str | int | None = None
    subject: str | None = None
    requester_id: str | int | None = None
    via: Via | None = None


class Incoming(reading.Struct, frozen=True):
    """Either kind of body: an event's envelope (`type`), or our trigger template (`ticket_id`)."""

    id: str | int | None = None
    type: str | None = None
    time: str | None = None
    detail: Detail | None = None
    event: TicketChange | None = None
    ticket_id: str | int | None = None
    comment_id: str | int | None = None
    updated_at: str | None = None
    requester_email: str | None = None
    subject: str | None = None
    comment: str | None = None
    via: str | None = None


class Kept(reading.Struct, frozen=True):
    """A comment that we read back: the fields we use, and nothing that changes by itself."""

    ticket: Ticket
    comment: Comment
    author: User | None = None
    requester: User | None = None
    change: Change = "new"


class Settings(ChannelSettings):
    """A Zendesk account. `secret` is the webhook's signing secret; `own_ids` are user ids under which we write.

    `subdomain` is the account's (`https://<subdomain>.zendesk.com`); `api_url` takes its place where it differs. API
    credentials are either an OAuth client (`client_id`, `client_secret`) or an API token (`email`, `api_token`), which
    Zendesk is withdrawing. `look_back_hours` is how old a comment may be, when a trigger tells of its ticket, to be taken
    as missed. `first_comment` says which event brings a ticket's first comment where nothing can be read back.
    """

    subdomain: str = Field(default="", pattern=r"^(?:[a-z0-9][a-z0-9-]{0,62})?$")
    api_url: str = ""
    client_id: str = ""
    client_secret: SecretReference | None = None
    email: str = ""
    api_token: SecretReference | None = None
    look_back_hours: int = Field(default=24, ge=1, le=720)
    first_comment: Literal["comment_added", "created"] = "comment_added"

    @property
    def base(self) -> str:
        """The address of the account, without a slash at its end; empty where none is named."""
        given = self.api_url or (f"https://{self.subdomain}.zendesk.com" if self.subdomain else "")
        return given.rstrip("/")

    @property
    def can_read(self) -> bool:
        """Whether comments can be read back."""
        has_token = bool(self.email) and self.api_token is not None
        has_client = bool(self.client_id) and self.client_secret is not None
        return bool(self.base) and (has_token or has_client)


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Prove the signature over timestamp and body, then the timestamp's age. Zendesk's test secret counts as none.

    A trigger's webhook may be set to any method; GET and DELETE have no body, and then the timestamp alone is signed
    and nothing came to be stored.
    """
    wrong = signing.only(request, "POST", "PUT", "PATCH", "GET", "DELETE")
    if wrong is not None:
        return wrong
    keys = [key for key in signing.secrets_of(secrets) if not signing.same(key, TEST_SECRET)]
    if not keys:
        return signing.refused("no_secret")
    given = request.headers.get(SIGNATURE, "").strip()
    stamp = request.headers.get(TIMESTAMP, "").strip()
    if not given or not stamp:
        return signing.refused("missing_signature")
    said = stamp.encode("latin-1", "replace") + request.body
    if not signing.signed_by_any(given, keys, lambda key: signing.base64_hmac(key, said)):
        return signing.refused("bad_signature")
    at = _stamp(stamp)
    if at is None or abs((now - at).total_seconds()) > WINDOW_SECONDS:
        return signing.refused("stale")
    return replace(signing.proved(_name_of(request.body)), is_delivery=bool(request.body.strip()))


def _stamp(text: str) -> datetime | None:
    """Return the signed time; only ISO 8601 with an offset is one."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _name_of(body: bytes) -> str | None:
    """Return what a retry repeats: the event's id, or for a trigger the ticket and when it changed; all of it signed."""
    try:
        said = reading.json_as(body, Incoming)
        if said.id is not None:
            return reading.identifier(said.id, "id")
        ticket, at = _given(said.ticket_id), _given(said.updated_at)
        return reading.identifier(f"{ticket}@{at}", "id") if ticket and at else None
    except ParseError:
        return None


def _given(value: str | int | None) -> str:
    """Return a template's value as text; empty where Zendesk left the placeholder in place."""
    text = str(value if value is not None else "").strip()
    return "" if ("{{" in text and "}}" in text) else text


def parse(delivery: Delivery) -> Parsed:
    """Read an event, a trigger's call, or a comment that we read back.

    Raises:
        ParseError: the body is no JSON object of these, or an id is missing; `field` names it.
    """
    if delivery.fetched == "comment":
        return _of_kept(delivery, reading.json_as(delivery.body, Kept))
    said = reading.json_as(delivery.body, Incoming)
    if said.type is None:
        return _of_trigger(delivery, said)
    if not said.type.startswith(EVENT):
        return Parsed(ignored="unknown_event", verified=delivery.verified)
    return _of_event(delivery, said, said.type.removeprefix(EVENT))


def _of_event(delivery: Delivery, said: Incoming, kind: str) -> Parsed:
    settings = settings_of(delivery, Settings)
    if kind == "ticket.created":
        if _is_hint(delivery) or settings.first_comment != "created":
            return Parsed(ignored="hint", verified=delivery.verified)
        return _of_first(delivery, said, settings)
    if kind not in _WITH_COMMENT:
        area, _, what = kind.partition(".")
        is_known = area != "ticket" or what in _NOT_MESSAGES
        return Parsed(ignored="status" if is_known else "unknown_event", verified=delivery.verified)
    comment = said.event.comment if said.event is not None else None
    if comment is None:
        raise ParseError("invalid_field", "event.comment: is missing", "event.comment")
    if not comment.is_public:
        return Parsed(ignored="internal_note", verified=delivery.verified)
    author = comment.author or EventAuthor()
    if author.id is not None and str(author.id) in settings.own_ids:
        return Parsed(ignored="echo", verified=delivery.verified)
    if _is_hint(delivery):
        return Parsed(ignored="hint", verified=delivery.verified)
    is_redaction = kind == "ticket.comment_redacted"
    if is_redaction and (comment.body is None or author.id is None):
        return Parsed(ignored="redaction", verified=delivery.verified)
    return _of_kept(delivery, _kept_of(said, comment, "edited" if is_redaction else "new"))


def _is_hint(delivery: Delivery) -> bool:
    """Whether the comment is read back. One that could not be comes here again, without its proof, and counts as it is."""
    return delivery.verified and settings_of(delivery, Settings).can_read


def _kept_of(said: Incoming, comment: EventComment, change: Change) -> Kept:
    """Return an event's comment in the form in which we keep those of the API."""
    detail, author = said.detail or Detail(), comment.author or EventAuthor()
    return Kept(
        ticket=Ticket(
            id=detail.id, subject=detail.subject, requester_id=detail.requester_id, via=detail.via
        ),
        comment=Comment(
            id=comment.id,
            author_id=author.id,
            body=comment.body,
            public=comment.is_public,
            created_at=said.time,
        ),
        author=User(
            id=author.id, name=author.name, role="agent" if author.is_staff else "end-user"
        ),
        change=change,
    )


def _of_first(delivery: Delivery, said: Incoming, settings: Settings) -> Parsed:
    """Read a new ticket's description, which is its first comment; it has no id of its own there."""
    detail = said.detail or Detail()
    ticket = reading.identifier(detail.id, "detail.id")
    if detail.is_public is False:
        return Parsed(ignored="internal_note", verified=delivery.verified)
    writer = detail.submitter_id or detail.requester_id
    if writer is not None and str(writer) in settings.own_ids:
        return Parsed(ignored="echo", verified=delivery.verified)
    is_theirs = str(writer) == str(detail.requester_id)
    kept = Kept(
        ticket=Ticket(
            id=ticket, subject=detail.subject, requester_id=detail.requester_id, via=detail.via
        ),
        comment=Comment(
            id=f"ticket:{ticket}",
            author_id=writer,
            body=detail.description,
            created_at=detail.created_at or said.time,
        ),
        author=User(id=writer, role="end-user" if is_theirs else "agent"),
    )
    return _of_kept(delivery, kept)


def _of_trigger(delivery: Delivery, said: Incoming) -> Parsed:
    """Read our template's call: a hint, unless it holds the text and nothing can be read back."""
    ticket = reading.identifier(_given(said.ticket_id), "ticket_id")
    text, email, at = _given(said.comment), _given(said.requester_email), _given(said.updated_at)
    is_whole = bool(text) and addresses.is_address(email)
    if _is_hint(delivery) or not is_whole:
        return Parsed(ignored="hint", verified=delivery.verified)
    content = reading.content(
        delivery,
        reading.identifier(_given(said.comment_id) or f"{ticket}@{at}", "updated_at"),
        Sender(address=email, kind="email"),
        text,
        subject=_given(said.subject),
        occurred_at=at,
        thread=ticket,
        fields={"via": _given(said.via)},
    )
    return Parsed(messages=(content,), verified=delivery.verified)


def _of_kept(delivery: Delivery, kept: Kept) -> Parsed:
    """Read one comment, whoever wrote it."""
    settings = settings_of(delivery, Settings)
    comment, ticket = kept.comment, kept.ticket
    author = kept.author or User(id=comment.author_id)
    is_verified = delivery.verified or delivery.fetched is not None
    if not comment.public:
        return Parsed(ignored="internal_note", verified=is_verified)
    author_id = reading.identifier(comment.author_id, "comment.author_id")
    if author_id in settings.own_ids:
        return Parsed(ignored="echo", verified=is_verified)
    is_staff = author.role in _STAFF
    ticket_id = reading.identifier(ticket.id, "ticket.id")
    content = reading.content(
        delivery,
        reading.identifier(comment.id, "comment.id"),
        _sender(author, author_id),
        reading.text_of(comment.plain_body or comment.body, comment.html_body),
        subject=ticket.subject or "",
        occurred_at=comment.created_at,
        attachments=_files(comment.attachments),
        direction="outbound" if is_staff else "inbound",
        recipients=_customer(kept) if is_staff else (),
        change=kept.change,
        thread=ticket_id,
        url=_page(settings, ticket_id),
        fields={"via": (comment.via or ticket.via or Via()).channel or ""},
    )
    # Zendesk files mail under whoever its From field names; it says itself which addresses it has proved.
    is_proved = content.sender.kind != "email" or author.verified is not False
    return Parsed(messages=(content,), verified=is_verified and is_proved)


def _sender(user: User, user_id: str) -> Sender:
    if user.email and addresses.is_address(user.email):
        return Sender(name=user.name or "", address=user.email, kind="email")
    return Sender(name=user.name or "", address=user_id, kind="vendor_id")


def _customer(kept: Kept) -> tuple[str, ...]:
    email = kept.requester.email if kept.requester is not None else None
    told = clean_value(str(email or kept.ticket.requester_id or ""), 320)
    return (told,) if told else ()


def _files(files: tuple[File, ...] | None) -> tuple[Attachment, ...]:
    return tuple(
        reading.attachment(file.file_name, file.content_type, file.size, file.content_url)
        for file in files or ()
    )


def _page(settings: Settings, ticket_id: str) -> str | None:
    return f"{settings.base}/agent/tickets/{quote(ticket_id, safe='')}" if settings.base else None


# ------------------------------------------------------------------------------------------ reading back


class Comments(reading.Struct, frozen=True):
    """A page of comments, newest first, with their authors."""

    comments: tuple[Comment, ...] = ()
    users: tuple[User, ...] = ()
    meta: "Meta | None" = None


class Meta(reading.Struct, frozen=True):
    """Where the next page begins."""

    has_more: bool = False
    after_cursor: str | None = None


class TicketAnswer(reading.Struct, frozen=True):
    """A ticket with the users it names."""

    ticket: Ticket
    users: tuple[User, ...] = ()


async def read_back(api: Api, delivery: Delivery) -> tuple[Fetched, ...]:
    """Read the comment a delivery names, or the newest of its ticket, with authors and files.

    Where the API says that it will never give it (the ticket is gone), an event's own text is taken instead.

    Raises:
        ApiProblem: the API could not be asked now.
    """
    said = reading.json_as(delivery.body, Incoming)
    kind = (said.type or "").removeprefix(EVENT)
    if said.type is not None and kind not in _WITH_COMMENT | {"ticket.created"}:
        return ()
    comment = said.event.comment if said.event is not None else None
    if comment is not None and not comment.is_public:
        return ()
    detail = said.detail or Detail()
    ticket_id = reading.identifier(
        detail.id if said.type is not None else _given(said.ticket_id), "ticket_id"
    )
    change: Change = "edited" if kind == "ticket.comment_redacted" else "new"
    wanted = str(comment.id) if comment is not None else _given(said.comment_id)
    try:
        return await _comments(api, delivery, ticket_id, wanted, said, change)
    except ApiProblem as problem:
        if not problem.is_final or comment is None or comment.body is None:
            raise
        return (_fetched(_kept_of(said, comment, change)),)


async def _comments(
    api: Api, delivery: Delivery, ticket_id: str, wanted: str, said: Incoming, change: Change
) -> tuple[Fetched, ...]:
    settings: Settings = api.settings
    headers = await _authorisation(api)
    path = f"{settings.base}/api/v2/tickets/{quote(ticket_id, safe='')}"
    about = shaped(
        await api.get(f"{path}.json", params={"include": "users"}, headers=headers), TicketAnswer
    )
    users = {str(user.id): user for user in about.users}
    since = _since(delivery, said, settings)
    found: list[Comment] = []
    params = {"page[size]": str(COMMENTS_PAGE), "sort": "-created_at", "include": "users"}
    for _ in range(PAGES_MAX):
        answer = await api.get(f"{path}/comments.json", params=params, headers=headers)
        page = shaped(answer, Comments)
        users |= {str(user.id): user for user in page.users}
        found += [
            comment
            for comment in page.comments
            if (str(comment.id) == wanted if wanted else _is_since(comment, since, delivery))
        ]
        is_enough = bool(found) if wanted else len(found) < len(page.comments)
        cursor = page.meta.after_cursor if page.meta is not None and page.meta.has_more else None
        if is_enough or not cursor:
            break
        params = {**params, "page[after]": cursor}
    kept = (
        Kept(
            ticket=about.ticket,
            comment=comment,
            author=users.get(str(comment.author_id)),
            requester=users.get(str(about.ticket.requester_id)),
            change=change,
        )
        for comment in reversed(found[:COMMENTS_MAX])
        if comment.public
    )
    return tuple(_fetched(one) for one in kept)


def _since(delivery: Delivery, said: Incoming, settings: Settings) -> datetime:
    told = reading.instant(_given(said.updated_at) or said.time, delivery.received_at)
    return told - timedelta(hours=settings.look_back_hours)


def _is_since(comment: Comment, since: datetime, delivery: Delivery) -> bool:
    return reading.instant(comment.created_at, delivery.received_at) >= since


def _fetched(kept: Kept) -> Fetched:
    name = f"comment:{kept.comment.id}"
    return Fetched(
        kind="comment",
        name=name if kept.change == "new" else f"{name}:{kept.change}",
        body=msgspec.json.encode(kept),
        correspondent=str(kept.ticket.requester_id or kept.comment.author_id or ""),
    )


async def _authorisation(api: Api) -> dict[str, str]:
    """Return the header that opens the API: a short-lived OAuth token where a client is configured."""
    settings: Settings = api.settings
    if settings.client_id and api.secrets.get("client_secret"):
        token = await api.token(
            f"{settings.base}/oauth/tokens",
            {
                "grant_type": "client_credentials",
                "client_id": settings.client_id,
                "client_secret": api.secrets["client_secret"],
                "scope": "read",
            },
        )
        return {"Authorization": f"Bearer {token}"}
    if not api.secrets.get("api_token"):
        raise ApiProblem("no_secret", is_final=False)
    pair = f"{settings.email}/token:{api.secrets['api_token']}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}


CHANNEL = Channel(
    name="zendesk",
    parse=parse,
    settings=Settings,
    verify=verify,
    read_back=read_back,
    reads_back=lambda settings: isinstance(settings, Settings) and settings.can_read,
    # A 5xx without a short Retry-After is outside of what Zendesk repeats; 409 is repeated up to three times.
    unavailable=Answer(409, {"Retry-After": "5"}),
    capability=Capability(
        supports_attachments=True, proof="HMAC-SHA256 over the timestamp and the body"
    ),
)
