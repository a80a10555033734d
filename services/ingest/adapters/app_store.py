"""Reviews in app stores: Google Play and App Store Connect, by poll. Optional: much of it is believed only.

Sources: Google's Android Publisher reference (reviews.list: path, `token`, `maxResults`, `tokenPagination`), Apple's App
Store Connect clients (customerReviews, attributes, the included response, tokens).

Nothing comes in by itself, so there is nothing to verify: what is polled is as true as the stores' APIs, which are asked over
TLS with the account's own credentials. Google Play lists only reviews with text that were written or changed within a
week, in no promised order, and tells one time only: what we showed before in another version is an edit. App Store
Connect lists the newest first. Writers have no id in either store, so a review's own id stands for its writer.

Believed and not confirmed: most names of Play's fields, that App Store Connect gives an edited review a new
`createdDate`, quotas (about 200 reads an hour at Play). Nothing was tried against a live account.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, Literal
from urllib.parse import parse_qsl, quote, urlsplit

import jwt
import msgspec
from pydantic import Field, StringConstraints

from schemas.messages import Change, Sender
from schemas.messages import Review as Stars
from services.ingest.adapters import lookback, reading
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
    SecretReference,
)

PLAY_PAGE: Final = 100
APPLE_PAGE: Final = 200
"""Reviews a page; the most that App Store Connect gives."""
TOKEN_SECONDS: Final = 600
"""How long a token for App Store Connect lasts; it takes 1,200 at most."""
APPLE_AUDIENCE: Final = "appstoreconnect-v1"
PLAY_REPLY_CHARACTERS_MAX: Final = 350

Package = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)+$")]
AppId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}$")]


class Moment(reading.Struct, frozen=True, rename="camel"):
    """A time of Play's."""

    seconds: str | int | None = None


class UserComment(reading.Struct, frozen=True, rename="camel"):
    """What a user wrote at Play."""

    text: str | None = None
    last_modified: Moment | None = None
    star_rating: int | None = None
    reviewer_language: str | None = None
    app_version_name: str | None = None


class DeveloperComment(reading.Struct, frozen=True, rename="camel"):
    """The developer's public reply at Play."""

    text: str | None = None
    last_modified: Moment | None = None


class PlayComment(reading.Struct, frozen=True, rename="camel"):
    """One of a review's comments: the user's, or the developer's."""

    user_comment: UserComment | None = None
    developer_comment: DeveloperComment | None = None


class PlayReview(reading.Struct, frozen=True, rename="camel"):
    """A review at Play."""

    review_id: str | None = None
    author_name: str | None = None
    comments: tuple[PlayComment, ...] = ()


class TokenPagination(reading.Struct, frozen=True, rename="camel"):
    """Where Play's next page is."""

    next_page_token: str | None = None


class PlayPage(reading.Struct, frozen=True, rename="camel"):
    """A page of Play's list."""

    reviews: tuple[PlayReview, ...] = ()
    token_pagination: TokenPagination | None = None


class Attributes(reading.Struct, frozen=True, rename="camel"):
    """A review's or a response's attributes at App Store Connect."""

    rating: int | None = None
    title: str | None = None
    body: str | None = None
    reviewer_nickname: str | None = None
    created_date: str | None = None
    territory: str | None = None
    response_body: str | None = None
    last_modified_date: str | None = None
    state: str | None = None


class ResourceName(reading.Struct, frozen=True, rename="camel"):
    """The name of a resource of App Store Connect."""

    type: str | None = None
    id: str | None = None


class Relation(reading.Struct, frozen=True, rename="camel"):
    """A relation to one resource."""

    data: ResourceName | None = None


class Relations(reading.Struct, frozen=True, rename="camel"):
    """A review's relations."""

    response: Relation | None = None


class Resource(reading.Struct, frozen=True, rename="camel"):
    """A resource of App Store Connect."""

    id: str | None = None
    type: str | None = None
    attributes: Attributes | None = None
    relationships: Relations | None = None


class Links(reading.Struct, frozen=True, rename="camel"):
    """Links of a page."""

    next: str | None = None


class ApplePage(reading.Struct, frozen=True, rename="camel"):
    """A page of App Store Connect's list, with the responses included."""

    data: tuple[Resource, ...] = ()
    included: tuple[Resource, ...] = ()
    links: Links | None = None


class Told(reading.Struct, frozen=True, rename="camel"):
    """What we keep of a review or a reply, in words that both stores share."""

    store: Literal["google_play", "app_store"]
    app: str
    review_id: str
    name: str | None = None
    title: str | None = None
    text: str | None = None
    stars: float | None = None
    language: str | None = None
    version: str | None = None
    territory: str | None = None
    at: str | int | None = None
    change: Change = "new"
    reply_id: str | None = None


class Saved(reading.Struct, frozen=True, rename="camel"):
    """What a body is by its names: one of ours (`store`), Play's page (`reviews`), or App Store Connect's (`data`)."""

    store: str | None = None
    reviews: tuple[PlayReview, ...] | None = None
    data: tuple[Resource, ...] | None = None
    included: tuple[Resource, ...] = ()


class Settings(ChannelSettings):
    """The apps that are looked at, and the credentials of each store."""

    play_packages: tuple[Package, ...] = ()
    """Apps at Google Play, by package, as `com.example.shop`."""
    play_client_id: str | None = None
    """The OAuth client, for the scope `https://www.googleapis.com/auth/androidpublisher`."""
    play_client_secret: SecretReference | None = None
    """The OAuth client's secret."""
    play_refresh_token: SecretReference | None = None
    """The refresh token of somebody who may read reviews in the Play Console."""
    apple_apps: tuple[AppId, ...] = ()
    """Apps at App Store Connect, by their number."""
    apple_issuer_id: str | None = None
    """The issuer of the API key."""
    apple_key_id: str | None = None
    """The API key's id."""
    apple_private_key: SecretReference | None = None
    """The API key itself (the `.p8` file's text)."""
    start: Literal["new", "all"] = "new"
    """Whether a first look takes the reviews there are already."""
    poll_seconds: int = Field(default=1800, ge=60, le=86_400)
    """Seconds between looks. Play allows some 200 reads an hour (believed)."""
    lookback_days: int = Field(default=14, ge=1, le=60)
    """How far back each look goes, for edits, replies and reviews that appear late."""
    play_url: str = "https://androidpublisher.googleapis.com"
    """The address of Play's API."""
    play_token_url: str = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
    """Where access tokens for Play are had."""
    apple_url: str = "https://api.appstoreconnect.apple.com"
    """The address of App Store Connect's API."""


def parse(delivery: Delivery) -> Parsed:
    """Read a review or a reply that we fetched, or a page of a store's own list, as somebody saved it.

    Raises:
        ParseError: it is none.
    """
    if delivery.fetched is not None:
        return _of_told(delivery, reading.json_as(delivery.body, Told))
    saved = reading.json_as(delivery.body, Saved)
    if saved.store is not None:
        return _of_told(delivery, reading.json_as(delivery.body, Told))
    at = delivery.received_at
    if saved.reviews is not None:
        items = [item for one in saved.reviews for item in _play_items("", one, at)]
    elif saved.data is not None:
        items = _apple_items("", ApplePage(data=saved.data, included=saved.included), at)
    else:
        raise ParseError("invalid_field", "store: is missing", "store")
    found = [_of_told(delivery, reading.json_as(one.make(False).body, Told)) for one in items]
    messages = tuple(message for one in found for message in one.messages)
    return Parsed(messages, ignored=None if messages else "empty")


def _of_told(delivery: Delivery, told: Told) -> Parsed:
    is_fetched = delivery.fetched is not None
    review_id = reading.identifier(told.review_id, "review_id")
    text = reading.text_of(told.text)
    if told.reply_id is not None:
        if not text:
            return Parsed(ignored="not_a_message", verified=is_fetched)
        reply = reading.content(
            delivery,
            reading.identifier(told.reply_id, "reply_id"),
            Sender(address=told.app or "app", kind="vendor_id"),
            text,
            text_new=text,
            occurred_at=told.at,
            thread=review_id,
            in_reply_to=review_id,
            kind="review",
            visibility="public",
            direction="outbound",
            recipients=(review_id,),
            fields={"store": told.store, "app": told.app},
        )
        return Parsed((reply,), verified=is_fetched)
    review = reading.content(
        delivery,
        review_id,
        Sender(name=told.name or "", address=review_id, kind="vendor_id"),
        text,
        text_new=text,
        subject=told.title or "",
        declared_language=told.language,
        occurred_at=told.at,
        thread=review_id,
        kind="review",
        visibility="public",
        change=told.change,
        review=Stars(rating=told.stars),
        fields={
            "store": told.store,
            "app": told.app,
            "app_version": told.version or "",
            "territory": told.territory or "",
        },
    )
    return Parsed((review,), verified=is_fetched)


def _fetched(told: Told) -> Fetched:
    is_reply = told.reply_id is not None
    name = f"{told.store}/{told.reply_id or told.review_id}@{told.change}@{told.at or ''}"
    return Fetched(
        "reply" if is_reply else "review", name[:200], msgspec.json.encode(told), told.review_id
    )


def _item(told: Told, version: str, at: datetime) -> lookback.Item:
    def make(is_known: bool) -> Fetched:
        is_edit = is_known and told.reply_id is None
        return _fetched(msgspec.structs.replace(told, change="edited" if is_edit else "new"))

    return lookback.Item(told.reply_id or told.review_id, version, at, make)


# ---------------------------------------------------------------------------------------- Google Play


def _play_items(app: str, review: PlayReview, now: datetime) -> list[lookback.Item]:
    if not review.review_id:
        return []
    items: list[lookback.Item] = []
    written = next((one.user_comment for one in review.comments if one.user_comment), None)
    answered = next(
        (one.developer_comment for one in review.comments if one.developer_comment), None
    )
    at = now
    if written is not None:
        moment = (written.last_modified or Moment()).seconds
        at = reading.instant(moment, now)
        told = Told(
            store="google_play",
            app=app,
            review_id=review.review_id,
            name=review.author_name,
            text=written.text,
            stars=written.star_rating,
            language=written.reviewer_language,
            version=written.app_version_name,
            at=moment,
        )
        items.append(_item(told, f"{moment}/{written.star_rating}/{written.text}", at))
    if answered is not None and answered.text:
        moment = (answered.last_modified or Moment()).seconds
        told = Told(
            store="google_play",
            app=app,
            review_id=review.review_id,
            text=answered.text,
            at=moment,
            reply_id=f"{review.review_id}/reply",
        )
        items.append(_item(told, f"{moment}/{answered.text}", at))
    return items


async def _ask_play(
    api: Api, app: str, page: str, now: datetime
) -> tuple[Sequence[lookback.Item], str]:
    settings: Settings = api.settings
    token = await api.token(
        settings.play_token_url,
        {
            "grant_type": "refresh_token",
            "client_id": settings.play_client_id or "",
            "client_secret": api.secrets.get("play_client_secret", ""),
            "refresh_token": api.secrets.get("play_refresh_token", ""),
        },
    )
    params = {"maxResults": str(PLAY_PAGE)}
    if page:
        params["token"] = page
    document = await api.get(
        f"{settings.play_url}/androidpublisher/v3/applications/{quote(app, safe='')}/reviews",
        params=params,
        headers={"Authorization": f"Bearer {token}"},
    )
    found = shaped(document, PlayPage)
    items = [item for review in found.reviews for item in _play_items(app, review, now)]
    return items, (found.token_pagination or TokenPagination()).next_page_token or ""


# ---------------------------------------------------------------------------------- App Store Connect


def apple_token(issuer: str, key_id: str, private_key: str, now: datetime) -> str:
    """Return a token for App Store Connect: ES256, for ten minutes.

    Raises:
        ApiProblem: `no_secret`, where the private key is none.
    """
    made_at = int(now.timestamp())
    claims = {
        "iss": issuer,
        "iat": made_at,
        "exp": made_at + TOKEN_SECONDS,
        "aud": APPLE_AUDIENCE,
    }
    try:
        return jwt.encode(claims, private_key, algorithm="ES256", headers={"kid": key_id})
    except (jwt.PyJWTError, ValueError, TypeError):
        raise ApiProblem("no_secret") from None


def _apple_items(app: str, page: ApplePage, now: datetime) -> list[lookback.Item]:
    responses = {
        one.id: one.attributes
        for one in page.included
        if one.type == "customerReviewResponses" and one.id and one.attributes is not None
    }
    items: list[lookback.Item] = []
    for resource in page.data:
        if not resource.id:
            continue
        said = resource.attributes or Attributes()
        at = reading.instant(said.created_date, now)
        told = Told(
            store="app_store",
            app=app,
            review_id=resource.id,
            name=said.reviewer_nickname,
            title=said.title,
            text=said.body,
            stars=said.rating,
            territory=said.territory,
            at=said.created_date,
        )
        version = f"{said.created_date}/{said.rating}/{said.title}/{said.body}"
        items.append(_item(told, version, at))
        relation = (resource.relationships or Relations()).response or Relation()
        response_id = relation.data.id if relation.data is not None else None
        response = responses.get(response_id) if response_id else None
        if response_id and response is not None and response.response_body:
            reply = Told(
                store="app_store",
                app=app,
                review_id=resource.id,
                text=response.response_body,
                at=response.last_modified_date,
                reply_id=response_id,
            )
            version = f"{response.last_modified_date}/{response.response_body}"
            items.append(_item(reply, version, at))
    return items


def _apple_next(links: Links | None) -> str:
    """Return the cursor out of the next page's link. The link itself is not followed: it is the answer's, not ours."""
    try:
        query = urlsplit((links.next if links is not None else None) or "").query
        pairs = dict(parse_qsl(query, max_num_fields=50))
    except ValueError:
        return ""
    return pairs.get("cursor", "")


async def _ask_apple(
    api: Api, app: str, page: str, now: datetime
) -> tuple[Sequence[lookback.Item], str]:
    settings: Settings = api.settings
    token = apple_token(
        settings.apple_issuer_id or "",
        settings.apple_key_id or "",
        api.secrets.get("apple_private_key", ""),
        now,
    )
    params = {"sort": "-createdDate", "include": "response", "limit": str(APPLE_PAGE)}
    if page:
        params["cursor"] = page
    document = await api.get(
        f"{settings.apple_url}/v1/apps/{quote(app, safe='')}/customerReviews",
        params=params,
        headers={"Authorization": f"Bearer {token}"},
    )
    found = shaped(document, ApplePage)
    return _apple_items(app, found, now), _apple_next(found.links)


# --------------------------------------------------------------------------------------------- both


def _sources(settings: Settings) -> list[str]:
    """Return what is looked at: an app counts only where its store's credentials are set."""
    has_play = (
        settings.play_client_id and settings.play_client_secret and settings.play_refresh_token
    )
    has_apple = settings.apple_issuer_id and settings.apple_key_id and settings.apple_private_key
    play = [f"google_play/{app}" for app in settings.play_packages] if has_play else []
    return play + ([f"app_store/{app}" for app in settings.apple_apps] if has_apple else [])


async def poll(api: Api, cursor: str | None, now: datetime) -> Page:
    """Look at a page of one app's reviews in one store.

    Raises:
        ApiProblem: the API gave no answer. An app that is gone stops the look, until it is taken out of the settings.
    """
    settings: Settings = api.settings

    async def ask(source: str, page: str) -> tuple[Sequence[lookback.Item], str]:
        store, _, app = source.partition("/")
        if store == "google_play":
            return await _ask_play(api, app, page, now)
        return await _ask_apple(api, app, page, now)

    return await lookback.look(
        cursor,
        _sources(settings),
        ask,
        start=settings.start,
        days=settings.lookback_days,
        is_ordered=lambda source: source.startswith("app_store/"),
    )


CHANNEL = Channel(
    name="app_store",
    parse=parse,
    settings=Settings,
    poll=poll,
    polls=lambda settings: bool(_sources(settings)),
    capability=Capability(
        can_reply=True,
        is_public=True,
        reply_characters_max=PLAY_REPLY_CHARACTERS_MAX,
        proof="polled over the stores' APIs",
    ),
)
