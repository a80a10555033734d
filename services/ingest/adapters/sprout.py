"""Sprout Social: messages of a company's social profiles, fetched every so often. There are no webhooks.

Facts from Sprout's public API documentation (api.sproutsocial.com/docs): the messages endpoint, its filters, fields, paging
and limits. Reading needs an account with API access and a token of it; TLS and that token vouch for the origin.

Not offered by Sprout, and therefore not here: pushes, answers by API (people answer in Sprout, where each message's `url`
leads), and data of Yelp, Trustpilot, TripAdvisor and Glassdoor. Google reviews reach back 30 days. Media of direct messages
cannot be fetched, so files are not told.

How it looks: a window of creation time, oldest first, one page of at most 100 a call, the window's end at most a day after
its beginning. The next window begins `overlap_minutes` before the last one ended, for Sprout hears of some messages late;
what is seen twice counts once, by its `guid`. Sprout ends a search at 10,000 results; a window that comes near is left, and
a new one begins at the last message seen.

Believed, not confirmed (and so to be set): that one of our profiles wrote a message where `from.guid` is its `profile_guid`
(the documentation says so of `profile_guid`); that times in filters are UTC and take no `Z`; which `post_type`s are private,
where only names ending in known words are told to be public and everything else is taken to be private; the inner names of
`review_ratings`. An unknown field makes Sprout refuse the whole request, so `fields` can be shortened.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import Field, StringConstraints

from schemas.messages import MessageContent, Review, Sender
from services.ingest.adapters import reading
from services.ingest.adapters.api import ApiProblem
from services.ingest.adapters.channel import (
    Api,
    Capability,
    Channel,
    ChannelSettings,
    Delivery,
    Fetched,
    Page,
    Parsed,
    SecretReference,
    settings_of,
)
from services.ingest.adapters.reading import Struct
from services.ingest.core.normalise import clean_value

PAGE_SIZE: Final = 100
"""Messages on a page (Sprout's maximum)."""
RESULTS_MAX: Final = 9_900
"""Results after which a window is left; Sprout gives no more than 10,000."""
WINDOW: Final = timedelta(days=1)
RETRY_SECONDS: Final = 30.0
"""How long to wait where Sprout answers that it is not ready (202); it names no time."""
HTTP_BAD_REQUEST: Final = 400
"""What Sprout answers to a page's cursor that it does not know."""
TIME: Final = "%Y-%m-%dT%H:%M:%S"

FIELDS: Final = (
    "guid",
    "network",
    "created_time",
    "post_category",
    "post_type",
    "perma_link",
    "inbox_permalink",
    "text",
    "from.guid",
    "from.name",
    "from.screen_name",
    "profile_guid",
    "customer_profile_id",
    "internal.sent_by.first_name",
    "internal.sent_by.last_name",
    "language_code",
    "case_id",
    "review_ratings",
)
"""What is asked for, by the documentation's table of message fields."""

PUBLIC_WORDS: Final = ("TWEET", "POST", "COMMENT", "MENTION", "MEDIA", "REVIEW", "REPLY", "VIDEO")
PRIVATE_WORDS: Final = ("DIRECT", "MESSAGE", "PRIVATE", "WHATSAPP")

Id = int | str | None
Stamp = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_]{1,100}$")]


class Author(Struct, frozen=True):
    """The profile that published a message."""

    guid: str | None = None
    name: str | None = None
    screen_name: str | None = None


class SentBy(Struct, frozen=True):
    """The person of ours who sent it in Sprout."""

    first_name: str | None = None
    last_name: str | None = None


class Internal(Struct, frozen=True):
    """What Sprout knows of a message besides."""

    sent_by: SentBy | None = None


class Message(Struct, frozen=True, rename={"from_": "from"}):
    """A message, as far as we ask for it."""

    guid: str
    network: str | None = None
    created_time: str | None = None
    post_category: str | None = None
    post_type: str | None = None
    perma_link: str | None = None
    inbox_permalink: str | None = None
    text: str | None = None
    from_: Author | None = None
    profile_guid: str | None = None
    customer_profile_id: Id = None
    internal: Internal | None = None
    language_code: str | None = None
    case_id: Id = None
    review_ratings: Any = None


class Answer(Struct, frozen=True):
    """A page as Sprout answers it; offline, a whole answer can be read at once."""

    data: tuple[msgspec.Raw, ...]


class Cursor(Struct, frozen=True):
    """Where the last look ended: all before `since` is read. With `page`, the window `since`…`until` is half read."""

    since: datetime
    until: datetime | None = None
    page: str | None = None
    results: int = 0


class Settings(ChannelSettings):
    """A Sprout customer. Sprout pushes nothing, so there is no `secret`; `api_token` is the token we ask with.

    `customer_id`, `group_id` and `profile_ids` say what to read; the profiles must belong to the group. `post_types` takes
    only these (none: all). `start` says what the first look takes: `new` messages from then on, or `all` of the last
    `history_days`. `overlap_minutes` is how far each look goes back behind the last one. `public_types` and `private_types`
    are post types whose visibility is set by hand. `fields` are asked for; `base_url` is where.
    """

    api_token: SecretReference | None = None
    customer_id: Annotated[str, StringConstraints(pattern=r"^[0-9]{0,20}$")] = ""
    group_id: int | None = Field(default=None, ge=1)
    profile_ids: tuple[int, ...] = ()
    post_types: tuple[Stamp, ...] = ()
    public_types: tuple[Stamp, ...] = ()
    private_types: tuple[Stamp, ...] = ()
    fields: tuple[str, ...] = FIELDS
    start: Literal["new", "all"] = "new"
    history_days: int = Field(default=30, ge=1, le=365)
    overlap_minutes: int = Field(default=10, ge=0, le=720)
    base_url: str = "https://api.sproutsocial.com"


def parse(delivery: Delivery) -> Parsed:
    """Read a message that was fetched, or (offline) a whole page of them.

    Raises:
        ParseError: no JSON, or not of that shape.
    """
    whole = reading.json_of(delivery.body)
    is_page = isinstance(whole, dict) and "data" in whole
    items = (
        [bytes(raw) for raw in reading.json_as(delivery.body, Answer).data]
        if is_page
        else [delivery.body]
    )
    found = [_message(delivery, reading.json_as(item, Message)) for item in items]
    messages = tuple(one for one in found if not isinstance(one, str))
    reasons = [one for one in found if isinstance(one, str)]
    ignored = None if messages else (reasons[0] if reasons else "not_a_message")
    verified = delivery.verified or delivery.fetched is not None
    return Parsed(messages, ignored=ignored, verified=verified)


def _message(delivery: Delivery, message: Message) -> MessageContent | str:
    """Return what a message says, or the reason why it is none to us."""
    settings = settings_of(delivery, Settings)
    author = message.from_ or Author()
    is_ours = _is_ours(settings, message)
    if is_ours and message.post_category == "POST":
        return "own_post"  # What we published ourselves answers nobody.
    kind = message.post_type or ""
    visibility = _visibility(settings, kind)
    is_review = "REVIEW" in kind or bool(message.review_ratings)
    text = message.text or ""
    return reading.content(
        delivery,
        reading.identifier(message.guid, "guid"),
        Sender(
            name=_name(message),
            address=reading.identifier(author.guid, "from.guid"),
            kind="vendor_id",
        ),
        text,
        text_new=text,
        kind="review" if is_review else "comment" if visibility == "public" else "message",
        visibility=visibility,
        direction="outbound" if is_ours else "inbound",
        recipients=()
        if is_ours or not message.profile_guid
        else (clean_value(message.profile_guid),),
        occurred_at=message.created_time,
        declared_language=message.language_code if message.language_code != "un" else None,
        review=_review(message.review_ratings) if is_review else None,
        url=reading.link(message.inbox_permalink) or reading.link(message.perma_link),
        fields={
            "network": message.network or "",
            "post_type": kind,
            "screen_name": author.screen_name or "",
            "perma_link": reading.link(message.perma_link) or "",
            "case_id": "" if message.case_id is None else str(message.case_id),
        },
    )


def _is_ours(settings: Settings, message: Message) -> bool:
    guid = message.from_.guid if message.from_ else None
    return guid is not None and (guid == message.profile_guid or guid in settings.own_ids)


def _name(message: Message) -> str:
    author = message.from_ or Author()
    sent_by = (message.internal.sent_by if message.internal else None) or SentBy()
    person = " ".join(part for part in (sent_by.first_name, sent_by.last_name) if part)
    return person or author.name or author.screen_name or ""


def _visibility(settings: Settings, post_type: str) -> Literal["public", "private"]:
    """Return who may read it. What is not known to be public is private: that mistake shows nothing to strangers."""
    if post_type in settings.public_types:
        return "public"
    if post_type in settings.private_types or any(word in post_type for word in PRIVATE_WORDS):
        return "private"
    return "public" if any(word in post_type for word in PUBLIC_WORDS) else "private"


def _review(ratings: object) -> Review:
    """Return a review's stars, where they stand as `value` and `scale`; a review without stars else."""
    first = ratings[0] if isinstance(ratings, list) and ratings else ratings
    if not isinstance(first, dict):
        return Review()
    value, scale = first.get("value"), first.get("scale")
    if isinstance(value, bool) or isinstance(scale, bool):
        return Review()
    if not isinstance(value, (int, float)) or not isinstance(scale, int):
        return Review()
    if not 0 <= value <= scale or not 0 < scale <= 100:
        return Review()
    return Review(rating=float(value), rating_max=scale)


def polls(settings: Settings) -> bool:
    """Whether there is enough to look with."""
    return bool(
        settings.api_token
        and settings.customer_id
        and settings.group_id is not None
        and settings.profile_ids
    )


async def poll(api: Api, cursor: str | None, now: datetime) -> Page:
    """Return the next page of messages: at most 100, and `more` while the window or the time up to now is not read.

    Raises:
        ApiProblem: Sprout did not answer, or not with a page (then the cursor stays, and the same is asked again).
    """
    settings: Settings = api.settings
    now = now.astimezone(UTC).replace(microsecond=0)
    at = _cursor_of(cursor)
    if at is None and settings.start == "new":
        return Page((), _text_of(Cursor(since=now)))
    if at is None:
        at = Cursor(since=now - timedelta(days=settings.history_days))
    if at.page is None or at.until is None:
        overlap = timedelta(minutes=settings.overlap_minutes if cursor else 0)
        begins = min(at.since - overlap, now)
        at = Cursor(since=begins, until=min(now, begins + WINDOW))
    until = at.until or now
    try:
        answer = await _ask(api, settings, at.since, until, at.page)
    except ApiProblem as problem:
        if at.page is None or problem.status != HTTP_BAD_REQUEST:
            raise
        # Sprout knows the page no more: the window is begun anew, and not at once, lest it be asked for ever.
        return Page((), _text_of(_from(at.since, settings)))
    items = tuple(_fetched(item) for item in answer["data"])
    results = at.results + len(items)
    following = _next_page(answer)
    if following is not None and results < RESULTS_MAX:
        return Page(
            items,
            _text_of(Cursor(since=at.since, until=until, page=following, results=results)),
            more=True,
        )
    if following is None:
        return Page(items, _text_of(Cursor(since=until)), more=until < now)
    return Page(items, _text_of(_left(at.since, until, answer["data"], settings)), more=True)


def _left(since: datetime, until: datetime, data: list[Any], settings: Settings) -> Cursor:
    """Return where to begin anew in a window that holds too much: at the last message seen, and later than before."""
    last = data[-1] if data else {}
    created = last.get("created_time") if isinstance(last, dict) else None
    reached = max(reading.instant(created, since), since + timedelta(seconds=1))
    return _from(min(reached, until), settings)


def _from(begins: datetime, settings: Settings) -> Cursor:
    """Return where to begin a window just there: the overlap is taken off again when it begins."""
    return Cursor(since=begins + timedelta(minutes=settings.overlap_minutes))


async def _ask(
    api: Api, settings: Settings, since: datetime, until: datetime, page: str | None
) -> dict[str, Any]:
    filters = [
        f"group_id.eq({settings.group_id})",
        f"customer_profile_id.eq({','.join(map(str, settings.profile_ids))})",
        f"created_time.in({since.strftime(TIME)}..{until.strftime(TIME)})",
    ]
    if settings.post_types:
        filters.append(f"post_type.eq({','.join(settings.post_types)})")
    body: dict[str, Any] = {
        "filters": filters,
        "fields": list(settings.fields),
        "sort": ["created_time:asc"],
        "limit": PAGE_SIZE,
        "timezone": "UTC",
    }
    if page is not None:
        body["page_cursor"] = page
    token = api.secrets.get("api_token", "")
    if not token:
        raise ApiProblem("no_secret", is_final=True)
    answer = await api.post(
        f"{settings.base_url.rstrip('/')}/v1/{settings.customer_id}/messages",
        json=body,
        headers={"Authorization": f"Bearer {token}"},
    )
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        raise ApiProblem("bad_answer", retry_after=RETRY_SECONDS)
    return answer


def _next_page(answer: dict[str, Any]) -> str | None:
    paging = answer.get("paging")
    following = paging.get("next_cursor") if isinstance(paging, dict) else None
    return following if isinstance(following, str) and following else None


def _fetched(item: Any) -> Fetched:
    body = msgspec.json.encode(item, order="sorted")
    known = item if isinstance(item, dict) else {}
    guid, author = known.get("guid"), known.get("from")
    who = author.get("guid") if isinstance(author, dict) else None
    return Fetched(
        kind="message",
        # What has no id is taken in as well, and parked where people see it.
        name=guid if isinstance(guid, str) and guid else hashlib.sha256(body).hexdigest(),
        body=body,
        correspondent=who if isinstance(who, str) else "",
    )


def _cursor_of(text: str | None) -> Cursor | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Cursor)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ApiProblem("bad_cursor", is_final=True) from None


def _text_of(cursor: Cursor) -> str:
    return msgspec.json.encode(cursor).decode()


CHANNEL = Channel(
    name="sprout",
    parse=parse,
    settings=Settings,
    poll=poll,
    polls=polls,
    capability=Capability(can_reply=False, proof="fetched with our token"),
)
