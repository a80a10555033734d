"""Google Business Profile reviews: a Pub/Sub push names a review, the API gives it.

Sources: Google's Business Profile pages on notification settings (types and the fields `reviewName`, `locationName`) and
on `accounts.locations.reviews` (get, list), and Google Cloud's pages on authenticated push subscriptions.

Verified: the push carries an OIDC token in `Authorization: Bearer` (RS256, Google's published keys); its signature,
issuer, audience, expiry and the service account's address are checked. The token does not cover the body, so the body is a
hint only and the review is read back. A subscription without authentication can show a token in its address instead
(`secret`); then nothing is proved, and what is read back is as true as the API.

Names of the inner fields are seen in two styles (`reviewName`, `review_name`): both are read. Believed and not
confirmed: the address of Google's keys, the default audience, the field list of a review. A review's writer has no id at
Google, so the review's own id stands for them. Nothing was tried against a live account.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from pydantic import Field, StringConstraints

from schemas.messages import Change, MessageContent, Sender
from schemas.messages import Review as Stars
from services.ingest.adapters import google_push, lookback, reading
from services.ingest.adapters.api import shaped
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

KEYS_URL: Final = "https://www.googleapis.com/oauth2/v3/certs"
"""Google's published keys as a JWKS (believed)."""
PAGE_SIZE: Final = 50
"""Reviews a page, the most the list gives."""
REPLY_CHARACTERS_MAX: Final = 4_096
"""Characters of a public reply (integrations; not on Google's page)."""
STARS: Final = {"ONE": 1, "TWO": 2, "THREE": 3, "FOUR": 4, "FIVE": 5}
DATA_LENGTH_MAX: Final = 65_536
"""Characters of a notification's `data`; a real one has some hundred."""

_REVIEW: Final = re.compile(
    r"accounts/[A-Za-z0-9_-]{1,100}/locations/[A-Za-z0-9_-]{1,100}/reviews/[A-Za-z0-9_=-]{1,200}"
)
Location = Annotated[
    str,
    StringConstraints(pattern=r"^accounts/[A-Za-z0-9_-]{1,100}/locations/[A-Za-z0-9_-]{1,100}$"),
]


class PubSubMessage(reading.Struct, frozen=True, rename={"camel_id": "messageId"}):
    """A Pub/Sub message; `data` is base64 of the notification. Its id comes in two styles."""

    data: str = ""
    camel_id: str | None = None
    message_id: str | None = None


class Push(reading.Struct, frozen=True):
    """What a push subscription posts."""

    message: PubSubMessage
    subscription: str | None = None


class Notice(
    reading.Struct,
    frozen=True,
    rename={"camel_type": "notificationType", "camel_review": "reviewName"},
):
    """A notification, in either style of names."""

    camel_type: str | None = None
    notification_type: str | None = None
    camel_review: str | None = None
    review_name: str | None = None

    @property
    def kind(self) -> str:
        """What happened, such as `NEW_REVIEW`."""
        return self.camel_type or self.notification_type or ""

    @property
    def review(self) -> str:
        """The review's resource name."""
        return self.camel_review or self.review_name or ""


class Reviewer(reading.Struct, frozen=True, rename="camel"):
    """Who wrote a review, as far as Google says."""

    display_name: str | None = None
    is_anonymous: bool = False


class Reply(reading.Struct, frozen=True, rename="camel"):
    """The business's public reply."""

    comment: str | None = None
    update_time: str | None = None


class GoogleReview(reading.Struct, frozen=True, rename="camel"):
    """A review, as the API gives it."""

    name: str | None = None
    review_id: str | None = None
    reviewer: Reviewer | None = None
    star_rating: str | None = None
    comment: str | None = None
    create_time: str | None = None
    update_time: str | None = None
    review_reply: Reply | None = None

    @property
    def id(self) -> str:
        """The review's id, out of its resource name where the field is not there."""
        return self.review_id or (self.name or "").rpartition("/")[2]

    @property
    def is_edited(self) -> bool:
        """Whether it was changed after it was written."""
        return bool(self.create_time and self.update_time and self.create_time != self.update_time)


class ReviewPage(reading.Struct, frozen=True, rename="camel"):
    """A page of the list."""

    reviews: tuple[GoogleReview, ...] = ()
    next_page_token: str | None = None


class Told(reading.Struct, frozen=True, rename="camel"):
    """What we keep of something that we fetched: a review with what happened to it, or the reply to it."""

    review: GoogleReview
    change: Change = "new"


class Settings(ChannelSettings):
    """An account: one Pub/Sub subscription, and the locations that are looked at."""

    service_account: str | None = None
    """The service account that the push subscription signs with; its address must be in the token."""
    audience: str | None = None
    """The audience set on the push subscription; Google's default is the address it pushes to."""
    keys_url: str = KEYS_URL
    """Where the keys are published."""
    client_id: str | None = None
    """The OAuth client, for the scope `https://www.googleapis.com/auth/business.manage`."""
    client_secret: SecretReference | None = None
    """The OAuth client's secret."""
    refresh_token: SecretReference | None = None
    """The refresh token of somebody who manages the locations."""
    locations: tuple[Location, ...] = ()
    """Locations to look at besides the pushes, as `accounts/1/locations/2`; none: pushes only."""
    replies: Literal["take", "ours"] = "take"
    """What a reply is that is seen under a review: taken as a person's answer, or our own because all are written by us."""
    start: Literal["new", "all"] = "new"
    """Whether a first look takes the reviews there are already."""
    poll_seconds: int = Field(default=900, ge=60, le=86_400)
    """Seconds between looks. Reviews are no emergencies, and pushes come in between."""
    lookback_days: int = Field(default=7, ge=1, le=60)
    """How far back each look goes, for edits, replies and reviews that appear late."""
    api_url: str = "https://mybusiness.googleapis.com"
    """The API's address."""
    token_url: str = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
    """Where access tokens are had."""


def _push_name(body: bytes) -> str | None:
    try:
        message = msgspec.json.decode(body, type=Push, strict=False).message
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # What is no push is refused by `parse`, with its reason.
    name = message.camel_id or message.message_id
    return name if name and len(name) <= reading.ID_LENGTH_MAX and name.isprintable() else None


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Prove the token that came with a push; without published keys, the account's own token must be shown."""
    return google_push.verify(request, secrets, now, name=_push_name)


def _notice(body: bytes) -> Notice:
    """Return the notification inside a push.

    Raises:
        ParseError: it is no push, or its `data` is no base64 of JSON.
    """
    data = reading.json_as(body, Push).message.data
    if len(data) > DATA_LENGTH_MAX:
        raise ParseError("too_large", "message.data: is too long", "message.data")
    try:
        decoded = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise ParseError("invalid_base64", "message.data: is not base64", "message.data") from None
    return reading.json_as(decoded, Notice) if decoded.strip() else Notice()


def _writer(review: GoogleReview, review_id: str) -> Sender:
    """Return the writer, by the review's id: Google gives people no id of their own."""
    reviewer = review.reviewer or Reviewer()
    return Sender(name=reviewer.display_name or "", address=review_id, kind="vendor_id")


def _location(review: GoogleReview) -> str:
    return (review.name or "").partition("/reviews/")[0]


def _content(delivery: Delivery, told: Told) -> MessageContent:
    review = told.review
    review_id = reading.identifier(review.id, "review.review_id")
    text = reading.text_of(review.comment)
    return reading.content(
        delivery,
        review_id,
        _writer(review, review_id),
        text,
        text_new=text,
        occurred_at=review.create_time if told.change == "new" else review.update_time,
        thread=review_id,
        kind="review",
        visibility="public",
        change=told.change,
        review=Stars(rating=STARS.get(review.star_rating or "")),
        fields={"location": _location(review)},
    )


def _reply(delivery: Delivery, review: GoogleReview) -> Parsed:
    review_id = reading.identifier(review.id, "review.review_id")
    reply = review.review_reply or Reply()
    text = reading.text_of(reply.comment)
    if not text:
        return Parsed(ignored="not_a_message", verified=True)
    if settings_of(delivery, Settings).replies == "ours":
        return Parsed(ignored="echo", verified=True)
    made = reading.content(
        delivery,
        f"{review_id}/reply",
        Sender(address=_location(review) or delivery.account, kind="vendor_id"),
        text,
        text_new=text,
        occurred_at=reply.update_time,
        thread=review_id,
        in_reply_to=review_id,
        kind="review",
        visibility="public",
        direction="outbound",
        recipients=(review_id,),
    )
    return Parsed((made,), verified=True)


def parse(delivery: Delivery) -> Parsed:
    """Read a push (a hint, to be read back), or a review or reply that we fetched.

    Raises:
        ParseError: it is no push, or what was fetched is no review.
    """
    if delivery.fetched == "review":
        told = reading.json_as(delivery.body, Told)
        return Parsed((_content(delivery, told),), verified=True)
    if delivery.fetched == "reply":
        return _reply(delivery, reading.json_as(delivery.body, Told).review)
    notice = _notice(delivery.body)
    if notice.kind not in ("NEW_REVIEW", "UPDATED_REVIEW"):
        reason = "not_a_message" if notice.kind else "unknown_event"
        return Parsed(ignored=reason, verified=delivery.verified)
    if not _REVIEW.fullmatch(notice.review):
        raise ParseError("invalid_field", "reviewName: is no name of a review", "reviewName")
    return Parsed(ignored="hint", verified=delivery.verified)


def _fetched(review: GoogleReview, change: Change) -> Fetched:
    told = Told(review=msgspec.structs.replace(review, review_reply=None), change=change)
    return Fetched(
        "review",
        f"{review.id}@{change}@{review.update_time or ''}"[:200],
        msgspec.json.encode(told),
        review.id,
    )


def _fetched_reply(review: GoogleReview) -> Fetched:
    reply = review.review_reply or Reply()
    return Fetched(
        "reply",
        f"{review.id}/reply@{reply.update_time or ''}"[:200],
        msgspec.json.encode(Told(review=review)),
        review.id,
    )


def _items(reviews: Sequence[GoogleReview], now: datetime) -> list[lookback.Item]:
    """Return a page's reviews and replies; each counts at its review's time, by which the list is ordered."""
    items: list[lookback.Item] = []
    for review in reviews:
        if not review.id:
            continue
        at = reading.instant(review.update_time or review.create_time, now)

        def as_review(_: bool, review: GoogleReview = review) -> Fetched:
            return _fetched(review, "edited" if review.is_edited else "new")

        def as_reply(_: bool, review: GoogleReview = review) -> Fetched:
            return _fetched_reply(review)

        items.append(lookback.Item(review.id, review.update_time or "", at, as_review))
        reply = review.review_reply
        if reply is not None and reply.comment:
            version = f"{reply.update_time}/{reply.comment}"
            items.append(lookback.Item(f"{review.id}/reply", version, at, as_reply))
    return items


async def _headers(api: Api) -> dict[str, str]:
    settings: Settings = api.settings
    token = await api.token(
        settings.token_url,
        {
            "grant_type": "refresh_token",
            "client_id": settings.client_id or "",
            "client_secret": api.secrets.get("client_secret", ""),
            "refresh_token": api.secrets.get("refresh_token", ""),
        },
    )
    return {"Authorization": f"Bearer {token}"}


async def read_back(api: Api, delivery: Delivery) -> tuple[Fetched, ...]:
    """Return the review that a push names, and the reply to it where there is one.

    Raises:
        ApiProblem: the API gave no answer; `missing` where the review is not there any more.
        ParseError: the delivery cannot be read.
    """
    settings: Settings = api.settings
    notice = _notice(delivery.body)
    if not _REVIEW.fullmatch(notice.review):
        raise ParseError("invalid_field", "reviewName: is no name of a review", "reviewName")
    document = await api.get(f"{settings.api_url}/v4/{notice.review}", headers=await _headers(api))
    review = shaped(document, GoogleReview)
    review = msgspec.structs.replace(review, name=review.name or notice.review)
    found = [_fetched(review, "edited" if notice.kind == "UPDATED_REVIEW" else "new")]
    if review.review_reply is not None and review.review_reply.comment:
        found.append(_fetched_reply(review))
    return tuple(found)


async def poll(api: Api, cursor: str | None, now: datetime) -> Page:
    """Look at a page of a location's reviews, by their last change, the newest first.

    Raises:
        ApiProblem: the API gave no answer. A location that is gone stops the look, until it is taken out of the settings.
    """
    settings: Settings = api.settings

    async def ask(location: str, page: str) -> tuple[Sequence[lookback.Item], str]:
        params = {"pageSize": str(PAGE_SIZE), "orderBy": "updateTime desc"}
        if page:
            params["pageToken"] = page
        document = await api.get(
            f"{settings.api_url}/v4/{location}/reviews", params=params, headers=await _headers(api)
        )
        found = shaped(document, ReviewPage)
        return _items(found.reviews, now), found.next_page_token or ""

    return await lookback.look(
        cursor, settings.locations, ask, start=settings.start, days=settings.lookback_days
    )


def _reads_back(settings: Settings) -> bool:
    return bool(settings.client_id and settings.client_secret and settings.refresh_token)


CHANNEL = Channel(
    name="google_reviews",
    parse=parse,
    settings=Settings,
    verify=verify,
    read_back=read_back,
    reads_back=_reads_back,
    poll=poll,
    polls=lambda settings: _reads_back(settings) and bool(settings.locations),
    keys_url=lambda settings: (
        settings.keys_url if settings.service_account or settings.audience else None
    ),
    capability=Capability(
        can_reply=True,
        is_public=True,
        reply_characters_max=REPLY_CHARACTERS_MAX,
        proof="OIDC token of the push (RS256), read back by API",
    ),
)
