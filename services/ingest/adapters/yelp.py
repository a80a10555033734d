"""Yelp reviews, by webhook; for official partners of Yelp only.

Sources: Yelp's pages on webhooks and on review webhooks (setup by a GET with `verification`, body, event types), and of
the public API (`/v3/businesses/{id}/reviews`).

Nothing is signed: the account's secret stands in the address that Yelp's representative registers, and `verified` stays
false. The GET is answered at that address and at the one without the secret, for its answer tells nothing. A webhook holds the rating, and no text. With an API key the review's text is read back; the public
API gives at most three excerpts of a business, so what is not among them counts as it was told: a review with stars and
no text. A removal cannot be read back.

Believed and not confirmed: the form of the answer to the GET (JSON with the same string), the path for partners
(`reviews_path`), which fields a removal carries. Leads (`NEW_EVENT`) have no documented text and are left out. Everybody
else routes the owner's notification mails through the mail channel, see the page. Nothing was tried against a live account.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import msgspec

from schemas.messages import Change, MessageContent, Sender
from schemas.messages import Review as Stars
from services.ingest.adapters import reading, signing
from services.ingest.adapters.api import shaped
from services.ingest.adapters.channel import (
    Answer,
    Api,
    Capability,
    Channel,
    ChannelSettings,
    Delivery,
    Fetched,
    Parsed,
    Request,
    SecretReference,
    Verdict,
)

VERIFICATION: Final = "verification"
VERIFICATION_LENGTH_MAX: Final = 500
UPDATES_MAX: Final = 200
"""Updates of one delivery that are read."""
_CHANGES: Final[dict[str, Change]] = {
    "NEW_REVIEW_EVENT": "new",
    "REVIEW_EDITED_EVENT": "edited",
    "REVIEW_REMOVED_EVENT": "deleted",
}
_LEAD: Final = "NEW_EVENT"
_TOKEN_IN_PATH: Final = re.compile(r"/v1/channels/[^/]+/[^/]+/[^/]")


class Update(reading.Struct, frozen=True):
    """One thing that happened to a business."""

    event_type: str
    review_id: str | None = None
    rating: float | None = None
    language: str | None = None
    user_id: str | None = None


class Data(reading.Struct, frozen=True):
    """A business, and what happened to it."""

    id: str | None = None
    updates: tuple[Update, ...] = ()


class Delivered(reading.Struct, frozen=True):
    """A webhook's body."""

    data: Data
    time: str | None = None
    object: str | None = None


class User(reading.Struct, frozen=True):
    """Who wrote a review, as the API tells."""

    id: str | None = None
    name: str | None = None


class ApiReview(reading.Struct, frozen=True):
    """A review, as the API gives it; `text` may be an excerpt."""

    id: str | None = None
    url: str | None = None
    text: str | None = None
    rating: float | None = None
    time_created: str | None = None
    user: User | None = None


class Reviews(reading.Struct, frozen=True):
    """The API's list."""

    reviews: tuple[ApiReview, ...] = ()


class Told(reading.Struct, frozen=True):
    """What we keep of an update that was read back: the update, and the review where the API had it."""

    update: Update
    business_id: str
    time: str | None = None
    review: ApiReview | None = None


class Settings(ChannelSettings):
    """A partner's webhook. `secret` is the token in the address that Yelp's representative registers."""

    api_key: SecretReference | None = None
    """The key of Yelp's API; without it reviews come with their stars and no text."""
    api_url: str = "https://api.yelp.com"
    """The API's address; partners may have another."""
    reviews_path: str = "/v3/businesses/{business_id}/reviews"
    """Where a business's reviews are read."""


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Return whether the account's token was shown; a GET with `verification` is answered with the same string.

    The GET needs no token, but one that stands in the address must be right.
    """
    del now
    refused = signing.only(request, "POST", "GET")
    if refused is not None:
        return refused
    if request.method.upper() == "POST" or _TOKEN_IN_PATH.match(request.path):
        shown = signing.by_token(request, secrets)
        if not shown.accepted or request.method.upper() == "POST":
            return shown
    given = request.query.get(VERIFICATION, "")
    if not given or len(given) > VERIFICATION_LENGTH_MAX:
        return signing.refused("malformed", 400)
    return signing.handshake(
        Answer(
            200,
            {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"},
            json.dumps({VERIFICATION: given}, separators=(",", ":")),
        )
    )


def _message(
    delivery: Delivery,
    update: Update,
    business: str,
    told_at: str | None,
    review: ApiReview | None,
) -> MessageContent:
    change = _CHANGES[update.event_type]
    review_id = reading.identifier(update.review_id, "data.updates.review_id")
    user = (review.user if review is not None else None) or User()
    # The webhook's id comes first: whether the text could be read must not change who wrote.
    writer = update.user_id or user.id
    text = reading.text_of(review.text) if review is not None and change != "deleted" else ""
    rating = review.rating if review is not None and review.rating is not None else update.rating
    return reading.content(
        delivery,
        review_id,
        Sender(name=user.name or "", address=writer, kind="vendor_id")
        if writer
        else Sender(name=user.name or "", address="", kind="none"),
        text,
        text_new=text,
        declared_language=update.language,
        occurred_at=told_at,
        thread=review_id,
        kind="review",
        visibility="public",
        change=change,
        review=None if change == "deleted" else Stars(rating=rating),
        url=reading.link(review.url) if review is not None else None,
        fields={
            "business": business,
            "text_missing": "" if text or change == "deleted" else "Yelp gave no text",
        },
    )


def parse(delivery: Delivery) -> Parsed:
    """Read a webhook's updates, or an update that was read back.

    Raises:
        ParseError: it is no webhook of Yelp, or a review has no id.
    """
    if delivery.fetched in ("review", "unread"):
        told = reading.json_as(delivery.body, Told)
        if told.update.event_type not in _CHANGES:
            return Parsed(ignored="unknown_event")
        made = _message(delivery, told.update, told.business_id, told.time, told.review)
        return Parsed((made,), verified=delivery.fetched == "review")
    delivered = reading.json_as(delivery.body, Delivered)
    updates = delivered.data.updates[:UPDATES_MAX]
    messages = tuple(
        _message(delivery, update, delivered.data.id or "", delivered.time, None)
        for update in updates
        if update.event_type in _CHANGES
    )
    if messages:
        return Parsed(messages, verified=delivery.verified)
    if any(update.event_type == _LEAD for update in updates):
        return Parsed(ignored="lead", verified=delivery.verified)
    return Parsed(ignored="unknown_event" if updates else "ping", verified=delivery.verified)


async def read_back(api: Api, delivery: Delivery) -> tuple[Fetched, ...]:
    """Return each update with its review where the API has it; the others as they were told.

    Raises:
        ApiProblem: the API gave no answer.
        ParseError: the delivery cannot be read.
    """
    settings: Settings = api.settings
    delivered = reading.json_as(delivery.body, Delivered)
    business = reading.identifier(delivered.data.id, "data.id")
    path = settings.reviews_path.replace("{business_id}", quote(business, safe=""))
    document: Any = await api.get(
        f"{settings.api_url}{path}",
        headers={"Authorization": f"Bearer {api.secrets.get('api_key', '')}"},
        missing=True,
    )
    known: dict[str, ApiReview] = {}
    if document is not None:
        found = shaped(document, Reviews)
        known = {review.id: review for review in found.reviews if review.id}
    items: list[Fetched] = []
    for update in delivered.data.updates[:UPDATES_MAX]:
        if update.event_type not in _CHANGES:
            continue
        is_gone = _CHANGES[update.event_type] == "deleted"
        review = None if is_gone else known.get(update.review_id or "")
        told = Told(update=update, business_id=business, time=delivered.time, review=review)
        items.append(
            Fetched(
                "unread" if review is None else "review",
                f"{update.review_id}@{update.event_type}@{delivered.time or ''}"[:200],
                msgspec.json.encode(told),
                update.user_id or update.review_id or "",
            )
        )
    return tuple(items)


CHANNEL = Channel(
    name="yelp",
    parse=parse,
    settings=Settings,
    verify=verify,
    read_back=read_back,
    reads_back=lambda settings: bool(settings.api_key),
    capability=Capability(
        can_reply=True, is_public=True, proof="shared token in the address, read back by API"
    ),
)
