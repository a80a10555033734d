"""Trustpilot: service and product reviews by webhook, completed and reconciled through the API.

Sources: Trustpilot's support page on webhooks (events, body, that no mail address is included) and integrations for the
API (private reviews, OAuth, replies).

Nothing is signed: an `x-trustpilot-signature` is mentioned somewhere "for future use" and is not looked at. The account's
secret stands in the address (or as the password in it) and `verified` stays false. With API credentials each review that
a webhook tells of is read back, and a poll finds what the webhooks lost, for no retry policy was found.

One delivery may hold several events. Believed and not confirmed: names of events but `service-review-created`, the
paths of the private API, its field names beside the documented ones (such as the reply's `authorBusinessUserId`),
that client credentials are enough for it. The address of a review for people is not in the event; it is made from a
pattern (`review_url`). A writer goes by their consumer id throughout, and a mail address that the API knows is told
in `fields`. Nothing was tried against a live account.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Literal
from urllib.parse import quote

import msgspec
from pydantic import Field

from schemas.messages import Change, MessageContent, Sender
from schemas.messages import Review as Stars
from services.ingest.adapters import addresses, lookback, reading, signing
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
    Request,
    SecretReference,
    Verdict,
    settings_of,
)

PAGE_SIZE: Final = 100
"""Reviews a page, the most the API gives (integrations)."""
EVENTS_MAX: Final = 500
"""Events of one delivery that are read."""
READ_BACK_MAX: Final = 50
"""Reviews of one delivery that are asked for; more come by the poll."""
_CHANGES: Final[dict[str, Change]] = {
    "created": "new",
    "updated": "edited",
    "deleted": "deleted",
}


class Consumer(reading.Struct, frozen=True, rename="camel"):
    """Who wrote a review."""

    id: str | None = None
    name: str | None = None
    display_name: str | None = None


class Tag(reading.Struct, frozen=True, rename="camel"):
    """A tag of a review."""

    group: str | None = None
    value: str | None = None


class Reply(reading.Struct, frozen=True, rename="camel"):
    """The company's public reply."""

    text: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    author_business_user_id: str | None = None


class TrustpilotReview(reading.Struct, frozen=True, rename="camel"):
    """A review, as an event or the API tells of it."""

    id: str | None = None
    consumer: Consumer | None = None
    language: str | None = None
    title: str | None = None
    text: str | None = None
    content: str | None = None
    stars: float | None = None
    reference_id: str | None = None
    referral_email: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    is_verified: bool | None = None
    location_id: str | None = None
    tags: tuple[Tag, ...] | None = None
    company_reply: Reply | None = None


class Event(reading.Struct, frozen=True, rename="camel"):
    """One event of a delivery."""

    event_name: str
    event_data: TrustpilotReview | None = None


class Delivered(reading.Struct, frozen=True, rename="camel"):
    """A delivery: any number of events."""

    events: tuple[Event, ...]


class ReviewPage(reading.Struct, frozen=True, rename="camel"):
    """A page of the private list."""

    reviews: tuple[TrustpilotReview, ...] = ()


class Told(reading.Struct, frozen=True, rename="camel"):
    """What we keep of something that we fetched: a review with what happened to it, or the company's reply to it."""

    review: TrustpilotReview
    change: Change = "new"


class Settings(ChannelSettings):
    """A business unit. `secret` is the token in the address that is registered.

    `own_ids` are the business users in whose name we reply by the API: their replies are echoes.
    """

    business_unit_id: str | None = None
    """The business unit whose reviews are polled; none: no poll."""
    api_key: str | None = None
    """The API key of the application."""
    api_secret: SecretReference | None = None
    """The application's secret."""
    replies: Literal["take", "ours"] = "take"
    """What a reply is that is seen under a review: taken as a person's answer, or our own because all are written by us."""
    start: Literal["new", "all"] = "new"
    """Whether a first look takes the reviews there are already."""
    poll_seconds: int = Field(default=900, ge=60, le=86_400)
    """Seconds between looks. A quarter of an hour is enough to find what webhooks lost."""
    lookback_days: int = Field(default=7, ge=1, le=60)
    """How far back each look goes, for edits, replies and reviews that appear late."""
    api_url: str = "https://api.trustpilot.com"
    """The API's address."""
    token_path: str = "/v1/oauth/oauth-business-users-for-applications/accesstoken"  # noqa: S105
    """Where access tokens are had, under `api_url`."""
    review_url: str = "https://www.trustpilot.com/reviews/{id}"
    """Where people find a review (a pattern that is not in Trustpilot's API)."""


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Return whether the account's token was shown; Trustpilot signs nothing."""
    del now
    return signing.only(request, "POST") or signing.by_token(request, secrets)


def _change_of(name: str) -> Change | None:
    """Return what an event did to a review; None where it is about something else."""
    what, _, happened = name.rpartition("-")
    return _CHANGES.get(happened) if what.endswith("review") else None


def _sender(review: TrustpilotReview) -> Sender:
    consumer = review.consumer or Consumer()
    name = consumer.display_name or consumer.name or ""
    if not consumer.id:
        return Sender(name=name, address="", kind="none")
    return Sender(
        name=name, address=reading.identifier(consumer.id, "consumer.id"), kind="vendor_id"
    )


def _url(delivery: Delivery, review_id: str) -> str | None:
    pattern = settings_of(delivery, Settings).review_url
    return reading.link(pattern.replace("{id}", quote(review_id, safe="")))


def _review(delivery: Delivery, review: TrustpilotReview, change: Change) -> MessageContent:
    review_id = reading.identifier(review.id, "id")
    is_gone = change == "deleted"
    text = "" if is_gone else reading.text_of(review.text) or reading.text_of(review.content)
    email = (review.referral_email or "").strip()
    tags = [f"{tag.group}: {tag.value}" for tag in review.tags or () if tag.group and tag.value]
    return reading.content(
        delivery,
        review_id,
        _sender(review),
        text,
        text_new=text,
        subject="" if is_gone else review.title or "",
        declared_language=review.language,
        occurred_at=review.updated_at if change == "edited" else review.created_at,
        thread=review_id,
        kind="review",
        visibility="public",
        change=change,
        review=None if is_gone else Stars(rating=review.stars),
        url=_url(delivery, review_id),
        fields={
            "order": review.reference_id or "",
            "email": email if addresses.is_address(email) else "",
            "location": review.location_id or "",
            "is_verified_purchase": {True: "yes", False: "no", None: ""}[review.is_verified],
            "tags": ", ".join(tags),
        },
    )


def _reply(delivery: Delivery, review: TrustpilotReview) -> Parsed:
    """Return the company's reply as what our side wrote in public."""
    review_id = reading.identifier(review.id, "id")
    reply = review.company_reply or Reply()
    text = reading.text_of(reply.text)
    if not text:
        return Parsed(ignored="not_a_message", verified=delivery.fetched is not None)
    settings = settings_of(delivery, Settings)
    if settings.replies == "ours" or reply.author_business_user_id in settings.own_ids:
        return Parsed(ignored="echo", verified=delivery.fetched is not None)
    customer = _sender(review)
    made = reading.content(
        delivery,
        f"{review_id}/reply",
        Sender(address=delivery.account, kind="vendor_id"),
        text,
        text_new=text,
        occurred_at=reply.updated_at or reply.created_at,
        thread=review_id,
        in_reply_to=review_id,
        kind="review",
        visibility="public",
        direction="outbound",
        recipients=(customer.address,) if customer.address else (),
        url=_url(delivery, review_id),
    )
    return Parsed((made,), verified=delivery.fetched is not None)


def parse(delivery: Delivery) -> Parsed:
    """Read a delivery's events, or what we fetched.

    Raises:
        ParseError: it is no delivery of events, or a review has no id.
    """
    if delivery.fetched == "reply":
        return _reply(delivery, reading.json_as(delivery.body, Told).review)
    if delivery.fetched in ("review", "unread"):
        told = reading.json_as(delivery.body, Told)
        made = _review(delivery, told.review, told.change)
        return Parsed((made,), verified=delivery.fetched == "review")
    delivered = reading.json_as(delivery.body, Delivered)
    messages: list[MessageContent] = []
    for event in delivered.events[:EVENTS_MAX]:
        change = _change_of(event.event_name)
        if change is None or event.event_data is None:
            continue
        messages.append(_review(delivery, event.event_data, change))
    if messages:
        return Parsed(tuple(messages), verified=delivery.verified)
    return Parsed(
        ignored="unknown_event" if delivered.events else "ping", verified=delivery.verified
    )


def _fetched(review: TrustpilotReview, change: Change, kind: str = "review") -> Fetched:
    told = Told(review=msgspec.structs.replace(review, company_reply=None), change=change)
    version = review.updated_at or review.created_at or ""
    return Fetched(
        kind,
        f"{review.id}@{change}@{version}"[:200],
        msgspec.json.encode(told),
        (review.consumer or Consumer()).id or review.id or "",
    )


def _fetched_reply(review: TrustpilotReview) -> Fetched:
    reply = review.company_reply or Reply()
    return Fetched(
        "reply",
        f"{review.id}/reply@{reply.updated_at or reply.created_at or ''}"[:200],
        msgspec.json.encode(Told(review=review)),
        (review.consumer or Consumer()).id or review.id or "",
    )


def _items(reviews: Sequence[TrustpilotReview], now: datetime) -> list[lookback.Item]:
    """Return a page's reviews and replies; each counts at its review's time, by which the list is ordered."""
    items: list[lookback.Item] = []
    for review in reviews:
        if not review.id:
            continue
        at = reading.instant(review.created_at, now)
        is_edited = bool(review.updated_at and review.updated_at != review.created_at)

        def as_review(
            _: bool, review: TrustpilotReview = review, is_edited: bool = is_edited
        ) -> Fetched:
            return _fetched(review, "edited" if is_edited else "new")

        def as_reply(_: bool, review: TrustpilotReview = review) -> Fetched:
            return _fetched_reply(review)

        items.append(lookback.Item(review.id, review.updated_at or "", at, as_review))
        reply = review.company_reply
        if reply is not None and reply.text:
            version = f"{reply.updated_at or reply.created_at}/{reply.text}"
            items.append(lookback.Item(f"{review.id}/reply", version, at, as_reply))
    return items


async def _headers(api: Api) -> dict[str, str]:
    settings: Settings = api.settings
    token = await api.token(
        f"{settings.api_url}{settings.token_path}",
        {"grant_type": "client_credentials"},
        basic=(settings.api_key or "", api.secrets.get("api_secret", "")),
    )
    return {"Authorization": f"Bearer {token}"}


async def read_back(api: Api, delivery: Delivery) -> tuple[Fetched, ...]:
    """Return the reviews that a delivery tells of, as the API has them; a removal counts where the review is gone.

    Raises:
        ApiProblem: the API gave no answer.
        ParseError: the delivery cannot be read.
    """
    settings: Settings = api.settings
    delivered = reading.json_as(delivery.body, Delivered)
    headers = await _headers(api)
    found: list[Fetched] = []
    for event in delivered.events[:READ_BACK_MAX]:
        change = _change_of(event.event_name)
        if change is None or event.event_data is None:
            continue
        review_id = reading.identifier(event.event_data.id, "eventData.id")
        path = "product-reviews" if event.event_name.startswith("product") else "reviews"
        url = f"{settings.api_url}/v1/private/{path}/{quote(review_id, safe='')}"
        document = await api.get(url, headers=headers, missing=True)
        if document is None:
            # A removal is proved by the review's absence; anything else counts as it was told, unproved.
            kind = "review" if change == "deleted" else "unread"
            found.append(_fetched(event.event_data, change, kind))
            continue
        if change != "deleted":
            review = shaped(document, TrustpilotReview)
            found.append(_fetched(review, change))
            if review.company_reply is not None and review.company_reply.text:
                found.append(_fetched_reply(review))
    return tuple(found)


async def poll(api: Api, cursor: str | None, now: datetime) -> Page:
    """Look at a page of the business unit's reviews, by creation, the newest first.

    Raises:
        ApiProblem: the API gave no answer.
    """
    settings: Settings = api.settings

    async def ask(unit: str, page: str) -> tuple[Sequence[lookback.Item], str]:
        number = int(page) if page.isdigit() and len(page) < 7 else 1
        document = await api.get(
            f"{settings.api_url}/v1/private/business-units/{quote(unit, safe='')}/reviews",
            params={
                "orderBy": "createdat.desc",
                "page": str(number),
                "perPage": str(PAGE_SIZE),
            },
            headers=await _headers(api),
        )
        found = shaped(document, ReviewPage)
        is_full = len(found.reviews) >= PAGE_SIZE
        return _items(found.reviews, now), str(number + 1) if is_full else ""

    units = [settings.business_unit_id] if settings.business_unit_id else []
    return await lookback.look(
        cursor, units, ask, start=settings.start, days=settings.lookback_days
    )


def _reads_back(settings: Settings) -> bool:
    return bool(settings.api_key and settings.api_secret)


CHANNEL = Channel(
    name="trustpilot",
    parse=parse,
    settings=Settings,
    verify=verify,
    read_back=read_back,
    reads_back=_reads_back,
    poll=poll,
    polls=lambda settings: _reads_back(settings) and bool(settings.business_unit_id),
    capability=Capability(
        can_reply=True, is_public=True, proof="shared token in the address, read back by API"
    ),
)
