"""HubSpot conversations: what customers and staff write in the inbox, hinted at by webhook and read through the API.

Sources: HubSpot's developer pages on webhooks, request validation and the conversations inbox and messages API; the test
data of HubSpot's own SDKs for signatures. A webhook holds up to a hundred events in one array, unordered, and never the
text: an event of type `conversation.newMessage` names a thread and a message, which we read. Without credentials no text
can be had.

Verified: `X-HubSpot-Signature-v3` is base64 of HMAC-SHA256 over method, address, body and the timestamp header, with the
app's client secret; the timestamp (milliseconds) may be 300 s away either way, though HubSpot itself refuses only the old
ones. The address is the public one, not what a proxy made of it. HubSpot's page says that twelve percent-escapes in it are
decoded first, its SDKs sign it as it is: either counts. The older signatures v1 (no address, no time) and v2 (no time) can
be replayed for ever and are refused unless the account asks for one of them and v3 is absent.

A retry counts up `attemptNumber`, so a delivery has no name of its own here; messages are known by their ids.

Believed and not confirmed: a message's longer text is read at `…/original-content` as `text` and `richText`; the token
endpoint for apps with OAuth. Nothing was tried against a live account.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Final, Literal
from urllib.parse import quote

import msgspec
from pydantic import Field

from schemas.messages import Attachment, MessageContent, Sender
from services.ingest.adapters import addresses, reading, signing
from services.ingest.adapters.api import ApiProblem, shaped
from services.ingest.adapters.channel import (
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

SIGNATURE: Final = "x-hubspot-signature-v3"
TIMESTAMP: Final = "x-hubspot-request-timestamp"
OLD_SIGNATURE: Final = "x-hubspot-signature"
OLD_VERSION: Final = "x-hubspot-signature-version"
WINDOW_SECONDS: Final = 300
"""HubSpot's own: refuse what is older than five minutes."""

EVENTS_MAX: Final = 1_000
"""Events taken from one delivery; HubSpot sends a hundred at most."""
MESSAGES_MAX: Final = 100
"""Messages read back for one delivery."""

_DECODED: Final = {
    "%3A": ":", "%2F": "/", "%3F": "?", "%40": "@", "%21": "!", "%24": "$",
    "%27": "'", "%28": "(", "%29": ")", "%2A": "*", "%2C": ",", "%3B": ";",
}  # fmt: skip
"""The escapes which HubSpot decodes in an address before it signs; every other one stays."""
_ESCAPE: Final = re.compile("|".join(_DECODED), re.IGNORECASE)

_AREAS: Final = frozenset(
    {"ticket", "contact", "company", "deal", "product", "line_item", "object", "conversation"}
)
_PHONE: Final = re.compile(r"\+[1-9][0-9]{6,14}")


class Event(reading.Struct, frozen=True, rename="camel"):
    """One event of a webhook. For conversations `objectId` is the thread's id."""

    subscription_type: str | None = None
    portal_id: str | int | None = None
    app_id: str | int | None = None
    object_id: str | int | None = None
    occurred_at: str | int | float | None = None
    message_id: str | int | None = None
    message_type: str | None = None
    change_source: str | None = None


class Client(reading.Struct, frozen=True, rename="camel"):
    """What wrote a message: HubSpot itself, or an app by its id."""

    client_type: str | None = None
    integration_app_id: str | int | None = None


class Identifier(reading.Struct, frozen=True, rename="camel"):
    """Where a message goes to or comes from: a mail address, a phone number, or something of the channel's own."""

    type: str | None = None
    value: str | None = None


class Actor(reading.Struct, frozen=True, rename="camel"):
    """A sender or a recipient."""

    actor_id: str | None = None
    name: str | None = None
    delivery_identifier: Identifier | None = None
    delivery_identifiers: tuple[Identifier, ...] | None = None

    @property
    def identifiers(self) -> tuple[Identifier, ...]:
        """All ways to reach the actor, the one that was used first."""
        first = (self.delivery_identifier,) if self.delivery_identifier is not None else ()
        return first + (self.delivery_identifiers or ())


class File(reading.Struct, frozen=True, rename="camel"):
    """An attachment: `fileId` names a file in HubSpot's file manager."""

    file_id: str | int | None = None
    type: str | None = None
    name: str | None = None
    url: str | None = None


class Status(reading.Struct, frozen=True, rename="camel"):
    """Whether a message of ours went out."""

    status_type: str | None = None


class Message(reading.Struct, frozen=True, rename="camel"):
    """A message as the API returns it."""

    id: str | int | None = None
    type: str | None = None
    conversations_thread_id: str | int | None = None
    created_at: str | int | float | None = None
    created_by: str | None = None
    client: Client | None = None
    senders: tuple[Actor, ...] | None = None
    recipients: tuple[Actor, ...] | None = None
    text: str | None = None
    rich_text: str | None = None
    attachments: tuple[File, ...] | None = None
    subject: str | None = None
    direction: str | None = None
    channel_id: str | int | None = None
    channel_account_id: str | int | None = None
    truncation_status: str | None = None
    in_reply_to_id: str | int | None = None
    status: Status | None = None


class Original(reading.Struct, frozen=True, rename="camel"):
    """A long message's whole text."""

    text: str | None = None
    rich_text: str | None = None


class Settings(ChannelSettings):
    """A HubSpot account. `secret` is the app's client secret; `own_ids` are actor ids (`A-…`) under which we write.

    `app_id` is our own app's: what it sends never comes back. The API is read with `access_token` (a private app's), or
    with `client_id`, `refresh_token` and the client secret. `portal_id` leaves out events of other portals where one app
    serves several. `older_signatures` lets v1, v2 or both in where v3 is absent; they prove no time, so leave it at `no`.
    `api_url` is the API's address.
    """

    app_id: str = Field(default="", pattern=r"^[0-9]{0,20}$")
    portal_id: str = Field(default="", pattern=r"^[0-9]{0,20}$")
    access_token: SecretReference | None = None
    client_id: str = ""
    refresh_token: SecretReference | None = None
    older_signatures: Literal["no", "v1", "v2", "both"] = "no"
    api_url: str = "https://api.hubapi.com"

    @property
    def base(self) -> str:
        """The API's address, without a slash at its end."""
        return self.api_url.rstrip("/")

    @property
    def can_read(self) -> bool:
        """Whether messages can be read."""
        has_client = bool(self.client_id) and self.refresh_token is not None
        return self.access_token is not None or (has_client and self.secret is not None)


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Prove signature v3 and its time; older signatures only where the account allows them and v3 is absent."""
    wrong = signing.only(request, "POST")
    if wrong is not None:
        return wrong
    keys = signing.secrets_of(secrets)
    if not keys:
        return signing.refused("no_secret")
    given = request.headers.get(SIGNATURE, "").strip()
    if not given:
        return _by_older(request, keys, secrets.get("older_signatures", "no"))
    stamp = request.headers.get(TIMESTAMP, "").strip()
    if not stamp:
        return signing.refused("missing_signature")
    # Both forms of the address are tried, always, whatever becomes of the first.
    is_right = False
    for url in (_decoded(request.url), request.url):
        said = _said(request, url) + stamp.encode("latin-1", "replace")
        is_right |= signing.signed_by_any(given, keys, partial(_signature, said))
    if not is_right:
        return signing.refused("bad_signature")
    if not signing.is_fresh(stamp, now, WINDOW_SECONDS, unit=1_000):
        return signing.refused("stale")
    return signing.proved()


def _signature(said: bytes, key: bytes) -> str:
    return signing.base64_hmac(key, said)


def _decoded(url: str) -> str:
    return _ESCAPE.sub(lambda found: _DECODED[found.group().upper()], url)


def _said(request: Request, url: str) -> bytes:
    return f"{request.method.upper()}{url}".encode("utf-8", "surrogatepass") + request.body


def _by_older(request: Request, keys: list[bytes], allowed: str) -> Verdict:
    """Return the verdict by the signatures of before v3: SHA-256 in hex, the secret in front of what is signed."""
    given = request.headers.get(OLD_SIGNATURE, "").strip()
    version = request.headers.get(OLD_VERSION, "").strip().lower()
    if not given or version not in ("v1", "v2") or allowed not in (version, "both"):
        return signing.refused("missing_signature")
    said = request.body if version == "v1" else _said(request, request.url)
    if not signing.signed_by_any(given, keys, lambda key: signing.sha256_hex(key + said)):
        return signing.refused("bad_signature")
    return signing.proved()


def parse(delivery: Delivery) -> Parsed:
    """Read a webhook's events (all of them are hints at most), or a message that we read back.

    Raises:
        ParseError: the body is no JSON of these shapes, or an id is missing; `field` names it.
    """
    if delivery.fetched == "message":
        return _of_message(delivery, reading.json_as(delivery.body, Message))
    events = _events(delivery.body)
    settings = settings_of(delivery, Settings)
    reasons = [_reason(event, settings) for event in events]
    for wanted in ("hint", "internal_note", "import", "status", "other_account"):
        if wanted in reasons:
            return Parsed(ignored=wanted, verified=delivery.verified)
    return Parsed(ignored="unknown_event" if reasons else "empty", verified=delivery.verified)


def _events(body: bytes) -> tuple[Event, ...]:
    if not body.lstrip().startswith(b"["):
        return (reading.json_as(body, Event),)
    events = reading.json_as(body, tuple[Event, ...])
    if len(events) > EVENTS_MAX:
        raise ParseError("too_many_events", f"body: has more than {EVENTS_MAX} events", "body")
    return events


def _reason(event: Event, settings: Settings) -> str:
    """Return what an event is: `hint`, or why it is none."""
    if settings.portal_id and str(event.portal_id) != settings.portal_id:
        return "other_account"
    kind = event.subscription_type or ""
    if kind == "conversation.newMessage":
        if event.message_type == "COMMENT":
            return "internal_note"
        reading.identifier(event.object_id, "objectId")
        reading.identifier(event.message_id, "messageId")
        return "hint"
    if kind.partition(".")[0] not in _AREAS:
        return "unknown_event"
    return "import" if event.change_source == "IMPORT" else "status"


def _of_message(delivery: Delivery, message: Message) -> Parsed:
    reason = _left_out(message, settings_of(delivery, Settings))
    if reason is not None:
        return Parsed(ignored=reason, verified=True)
    return Parsed(messages=(_content(delivery, message),), verified=True)


def _left_out(message: Message, settings: Settings) -> str | None:
    """Return why a message is none for us; None where it is one."""
    if message.type == "COMMENT":
        return "internal_note"
    if message.type != "MESSAGE":
        return "not_a_message"
    if message.direction != "OUTGOING":
        return None
    client = message.client or Client()
    is_own_app = bool(settings.app_id) and str(client.integration_app_id) == settings.app_id
    writers = {actor.actor_id for actor in message.senders or ()} | {message.created_by}
    if is_own_app or writers & set(settings.own_ids):
        return "echo"
    status = message.status.status_type if message.status is not None else None
    return "not_a_message" if status == "FAILED" else None


def _content(delivery: Delivery, message: Message) -> MessageContent:
    is_theirs = message.direction != "OUTGOING"
    thread = reading.identifier(message.conversations_thread_id, "conversationsThreadId")
    reply = message.in_reply_to_id
    return reading.content(
        delivery,
        reading.identifier(message.id, "id"),
        _sender(message),
        reading.text_of(message.text, message.rich_text),
        subject=message.subject or "",
        occurred_at=message.created_at,
        attachments=tuple(_file(one) for one in message.attachments or ()),
        direction="inbound" if is_theirs else "outbound",
        recipients=_recipients(message),
        thread=thread,
        in_reply_to=reading.identifier(reply, "inReplyToId") if reply else None,
        fields={
            "channel_id": str(message.channel_id or ""),
            "channel_account_id": str(message.channel_account_id or ""),
            "client": (message.client or Client()).client_type or "",
        },
    )


def _sender(message: Message) -> Sender:
    """Return who wrote, by mail address or phone number where the message came by one, else by HubSpot's actor id."""
    actor = next(iter(message.senders or ()), Actor(actor_id=message.created_by))
    name = actor.name or ""
    for one in actor.identifiers:
        if one.type == "HS_EMAIL_ADDRESS" and one.value and addresses.is_address(one.value):
            return Sender(name=name, address=one.value, kind="email")
        if one.type == "HS_PHONE_NUMBER" and one.value and _PHONE.fullmatch(one.value):
            return Sender(name=name, address=one.value, kind="phone")
    actor_id = actor.actor_id or message.created_by
    return Sender(
        name=name, address=reading.identifier(actor_id, "senders.actorId"), kind="vendor_id"
    )


def _recipients(message: Message) -> tuple[str, ...]:
    found = (
        next((one.value for one in actor.identifiers if one.value), actor.actor_id)
        for actor in message.recipients or ()
    )
    return tuple(one[:254] for one in found if one)[:50]


def _file(file: File) -> Attachment:
    return reading.attachment(file.name or str(file.file_id or ""), "", 0, file.url)


# ------------------------------------------------------------------------------------------ reading back


async def read_back(api: Api, delivery: Delivery) -> tuple[Fetched, ...]:
    """Read each message that a delivery names, once; one that is gone is left out.

    Raises:
        ApiProblem: the API could not be asked now.
    """
    settings: Settings = api.settings
    wanted = {
        (str(event.object_id), str(event.message_id)): None
        for event in _events(delivery.body)
        if _reason(event, settings) == "hint"
    }
    if not wanted:
        return ()
    headers = await _authorisation(api)
    found: list[Fetched] = []
    for thread, message_id in list(wanted)[:MESSAGES_MAX]:
        path = (
            f"{settings.base}/conversations/v3/conversations/threads/{quote(thread, safe='')}"
            f"/messages/{quote(message_id, safe='')}"
        )
        answer = await api.get(path, headers=headers, missing=True)
        if answer is None:
            continue
        message = shaped(answer, Message)
        if (message.truncation_status or "NOT_TRUNCATED") != "NOT_TRUNCATED":
            whole = await api.get(f"{path}/original-content", headers=headers, missing=True)
            message = _with_original(message, whole)
        if message.conversations_thread_id is None:
            message = msgspec.structs.replace(message, conversations_thread_id=thread)
        if _left_out(message, settings) is None:
            found.append(_fetched(message))
    return tuple(found)


def _with_original(message: Message, answer: object) -> Message:
    if answer is None:
        return message
    original = shaped(answer, Original)
    if original.text is None and original.rich_text is None:
        return message
    return msgspec.structs.replace(message, text=original.text, rich_text=original.rich_text)


def _fetched(message: Message) -> Fetched:
    # Whether it was sent yet changes by itself and says nothing: the same message stays the same input.
    kept = msgspec.structs.replace(message, status=None)
    return Fetched(
        kind="message",
        name=f"message:{message.id}",
        body=msgspec.json.encode(kept),
        correspondent=str(message.conversations_thread_id or ""),
    )


async def _authorisation(api: Api) -> dict[str, str]:
    """Return the header that opens the API: a private app's token, or one had for the app's refresh token."""
    settings: Settings = api.settings
    token = api.secrets.get("access_token", "")
    if not token and api.secrets.get("refresh_token") and settings.client_id:
        token = await api.token(
            f"{settings.base}/oauth/v1/token",
            {
                "grant_type": "refresh_token",
                "client_id": settings.client_id,
                "client_secret": api.secrets.get("secret", ""),
                "refresh_token": api.secrets["refresh_token"],
            },
        )
    if not token:
        raise ApiProblem("no_secret")
    return {"Authorization": f"Bearer {token}"}


CHANNEL = Channel(
    name="hubspot",
    parse=parse,
    settings=Settings,
    verify=verify,
    read_back=read_back,
    reads_back=lambda settings: isinstance(settings, Settings) and settings.can_read,
    capability=Capability(
        supports_attachments=True,
        proof="HMAC-SHA256 over method, address, body and timestamp; text read back",
    ),
)
