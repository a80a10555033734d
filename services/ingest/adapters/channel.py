"""What every channel's adapter is given and gives back.

An adapter module stands in this order: docstring with the sources of its facts, limits, `Settings`, `verify`, `parse`,
then `read_back` and `poll` where the channel has them, and one `CHANNEL`. `verify` and `parse` are pure. `verify` looks at
raw bytes before anything is parsed and never raises; `parse` raises `ParseError` and nothing else for what cannot be read.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict

from schemas.inbound import InboundReceived
from schemas.messages import MessageContent
from services.ingest.core.policy import SecretReference
from services.ingest.core.state import Order, Parsed, ParseError, Receipt

__all__ = [
    "Answer",
    "Api",
    "Capability",
    "Channel",
    "ChannelSettings",
    "Delivery",
    "Fetched",
    "MessageContent",
    "Order",
    "Page",
    "ParseError",
    "Parsed",
    "Receipt",
    "Request",
    "SecretReference",
    "Verdict",
    "delivery_of",
    "settings_of",
]

FETCHED: Final = "x-signalbox-fetched"
"""The header of a delivery that we fetched ourselves; its value says what it is (`ticket`, `message`, …). The gateway
never keeps a header of that name from outside."""

QUERY_PAIRS_MAX: Final = 200


class ChannelSettings(BaseModel):
    """What stands under an account in `channels.yaml`. Secrets are references; each adapter adds its own fields.

    `secret` proves the origin: a signing secret, or the token that a vendor who signs nothing has to show.
    `previous_secret` counts as well while it rotates. `own_ids` are the ids under which we write there ourselves (bots,
    pages, staff): what they write never comes back as a customer's message.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    secret: SecretReference | None = None
    previous_secret: SecretReference | None = None
    own_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request as it came. Header names in lower case; `url` is the whole public address with its query.

    `headers` holds each value as Latin-1 text, which loses no byte. Where a header stands twice, the values are joined
    by a comma, as RFC 9110 has it.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def query(self) -> dict[str, str]:
        """The query's pairs, percent-decoded; the first of a name counts."""
        found: dict[str, str] = {}
        try:
            pairs = parse_qsl(
                urlsplit(self.url).query, keep_blank_values=True, max_num_fields=QUERY_PAIRS_MAX
            )
        except ValueError:
            return {}
        for name, value in pairs:
            found.setdefault(name, value)
        return found

    @property
    def path(self) -> str:
        """The path of the address, as it came."""
        try:
            return urlsplit(self.url).path
        except ValueError:
            return ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the gateway says to a vendor."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request is let in, why, and what is answered.

    `reason` is `verified` (the origin is proved), `shown` (a shared token was shown, nothing is signed), `handshake`
    (answered, nothing to store), or the refusal's: `missing_signature`, `bad_signature`, `stale`, `bad_token`,
    `no_secret` (none is configured), `wrong_method`, `malformed`, `unsupported_type`. `respond` is what is answered once
    the delivery is durable, or at once for handshakes and refusals. `name` is the vendor's own id of this delivery, where
    a retry repeats it.
    """

    accepted: bool
    reason: str
    respond: Answer = field(default_factory=Answer)
    verified: bool = False
    is_delivery: bool = True
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Capability:
    """What can be done on a channel, for whoever answers (`None`: not limited, or not known)."""

    can_reply: bool = True
    reply_window_seconds: int | None = None
    is_public: bool = False
    reply_characters_max: int | None = None
    supports_attachments: bool = False
    proof: str = "none"
    """How the origin is proved, for people: `HMAC-SHA256 over the body`, `shared token`, …"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery as it came: raw bytes, how they arrived, and what we know of ourselves there.

    `own_addresses` are our mailboxes, in lower case: what they send is ours and no customer's. `trusted_servers` are
    the names of receiving servers whose Authentication-Results count. `settings` are the account's; all of these may be
    empty (offline use).
    """

    channel: str
    account: str
    body: bytes
    received_at: datetime
    method: str = "POST"
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    verified: bool = False
    input_id: str = ""
    envelope_from: str | None = None
    envelope_to: tuple[str, ...] = ()
    own_addresses: frozenset[str] = frozenset()
    trusted_servers: frozenset[str] = frozenset()
    settings: ChannelSettings = field(default_factory=ChannelSettings)

    @property
    def fetched(self) -> str | None:
        """What was fetched, where we fetched this delivery ourselves; else None."""
        return self.headers.get(FETCHED)


@dataclass(frozen=True, slots=True)
class Fetched:
    """Something that we fetched from a vendor, to be taken in as a delivery of its own.

    `kind` goes into the `FETCHED` header. `name` names it for ever within the account: the same name and body are the
    same input. `correspondent` keeps one person's things in order.
    """

    kind: str
    name: str
    body: bytes
    correspondent: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """What one look brought: deliveries, the cursor to store with them, and whether more waits already."""

    items: tuple[Fetched, ...]
    cursor: str | None
    more: bool = False


class Api(Protocol):
    """A vendor's API, as adapters see it: bounded in time and size, never followed to another host with credentials.

    All raise `api.ApiProblem`, which says whether to try again and when.
    """

    settings: Any
    secrets: Mapping[str, str]

    async def get(
        self,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        missing: bool = False,
    ) -> Any:
        """Return the JSON at `url`; with `missing`, None for a 404 instead of an error."""
        ...

    async def post(
        self,
        url: str,
        *,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Return the JSON that answers a POST."""
        ...

    async def token(
        self, url: str, form: Mapping[str, str], *, basic: tuple[str, str] | None = None
    ) -> str:
        """Return an OAuth access token, asked for at `url` and kept until shortly before it expires."""
        ...


ReadBack = Callable[[Api, Delivery], Awaitable[tuple[Fetched, ...]]]
"""Read through the vendor's API what a delivery only hints at (or cannot prove)."""

Poll = Callable[[Api, str | None, datetime], Awaitable[Page]]
"""Look for what is new since a cursor (None: never looked). Called again at once while `more`."""

S = TypeVar("S", bound=ChannelSettings)


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel: its name in every event, how its requests are proved and its deliveries read.

    `verify` is None where nothing comes by HTTP. `secrets` that `verify` is given hold, by field name, each secret of the
    settings that is there (resolved) and each plain text of the settings; `jwks` holds the keys of `keys_url`.
    `reads_back` tells by the settings whether `read_back` can be done (credentials are there). `scrub` takes secrets out
    of a body before it is stored. `headers_kept` are stored with a delivery. `unavailable` is answered when nothing can be
    stored now.
    """

    name: str
    parse: Callable[[Delivery], Parsed]
    settings: type[ChannelSettings] = ChannelSettings
    verify: Callable[[Request, Mapping[str, str], datetime], Verdict] | None = None
    read_back: ReadBack | None = None
    reads_back: Callable[[Any], bool] = lambda _: False
    poll: Poll | None = None
    polls: Callable[[Any], bool] = lambda _: False
    keys_url: Callable[[Any], str | None] = lambda _: None
    scrub: Callable[[bytes], bytes] = lambda body: body
    headers_kept: frozenset[str] = frozenset()
    media_types: frozenset[str] = frozenset({"application/json"})
    unavailable: Answer = Answer(503, {"Retry-After": "5"})
    capability: Capability = Capability()


@lru_cache(maxsize=256)
def _defaults(kind: type[S]) -> S:
    return kind()


def settings_of(delivery: Delivery, kind: type[S]) -> S:
    """Return a delivery's settings as the adapter's own; the defaults where they are of another channel."""
    return delivery.settings if isinstance(delivery.settings, kind) else _defaults(kind)


def delivery_of(
    received: InboundReceived,
    stored: bytes | None = None,
    *,
    own_addresses: frozenset[str] = frozenset(),
    trusted_servers: frozenset[str] = frozenset(),
    settings: ChannelSettings | None = None,
) -> Delivery:
    """Return the delivery that an event tells of; `stored` is the body where the event only refers to it.

    Raises:
        ParseError: the body is no base64, or was stored apart and is not there any more.
    """
    if received.body_ref is not None:
        if stored is None:
            raise ParseError(
                "body_missing", f"the stored body {received.body_ref[:12]}… is gone", "body_ref"
            )
        body = stored
    else:
        try:
            body = base64.b64decode(received.body_base64, validate=True)
        except (binascii.Error, ValueError):
            raise ParseError("invalid_base64", "is not base64", "body_base64") from None
    return Delivery(
        channel=received.channel,
        account=received.account,
        body=body,
        received_at=received.received_at,
        method=received.method,
        url=received.url,
        headers=received.headers,
        verified=received.verified,
        input_id=received.input_id,
        envelope_from=received.envelope_from,
        envelope_to=received.envelope_to,
        own_addresses=own_addresses,
        trusted_servers=trusted_servers,
        settings=settings or ChannelSettings(),
    )
