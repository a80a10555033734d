"""Discourse: posts in a forum's topics, and private messages, by the forum's own webhooks.

Facts from Discourse's source (the job that sends webhooks, the serializer of a webhook's post and its specification) and
its page on webhooks. The body is `{"<type>": {…}}`, JSON also where the webhook is set to a form's content type.

Proved: HMAC-SHA256 over the raw body, in hex after `sha256=`. Discourse signs only where the webhook has a secret; what
comes unsigned is refused. The signature covers the body and nothing else: the event's name stands in a header
(`X-Discourse-Event`) that is not signed, and no time is. So a body's own marks (`deleted_at`, `user_deleted`, `version`)
count whatever the header says. `X-Discourse-Event-Id` is new on every attempt and names nothing; a post's id and what it
became tell a repeat.

Private messages (`topic_archetype` is `private_message`) are private; posts of topics are public, but in the categories
that the settings call private. Whispers are our side's notes and left out.

Believed, not confirmed: that staff flags of a post (`staff`, `moderator`, `admin`) mean one of our people; the setting
`staff_is_us` turns it off where moderators are volunteers. Topic events bring no text: a topic's first post comes as a
post. `post_number` names the post that is answered, whose id Discourse does not tell.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

from schemas.messages import MessageContent, Sender
from services.ingest.adapters import reading, signing
from services.ingest.adapters.channel import (
    Capability,
    Channel,
    ChannelSettings,
    Delivery,
    Parsed,
    ParseError,
    Request,
    Verdict,
    settings_of,
)
from services.ingest.adapters.reading import Struct
from services.ingest.core.normalise import clean_value

SIGNATURE_HEADER: Final = "x-discourse-event-signature"
EVENT_HEADER: Final = "x-discourse-event"
INSTANCE_HEADER: Final = "x-discourse-instance"

REGULAR, MODERATOR_ACTION, SMALL_ACTION, WHISPER = 1, 2, 3, 4
"""A post's types (`Post.types` in Discourse)."""

OTHER_TYPES: Final = frozenset(
    {
        "topic",
        "user",
        "group",
        "category",
        "tag",
        "reviewable",
        "notification",
        "solved",
        "assign",
        "user_badge",
        "group_user",
        "like",
        "user_promoted",
        "topic_voting",
    }
)
"""What else a webhook may tell of: nothing that somebody wrote to us."""

QUOTE_BEGINS: Final = re.compile(r"^\s*\[quote(?:=[^\]]{0,500})?\]", re.IGNORECASE)
QUOTE_ENDS: Final = re.compile(r"\[/quote\]\s*$", re.IGNORECASE)

Id = int | str | None


class Post(Struct, frozen=True):
    """A post, as a webhook tells of it."""

    id: Id = None
    topic_id: Id = None
    topic_slug: str | None = None
    topic_title: str | None = None
    topic_archetype: str | None = None
    category_id: Id = None
    category_slug: str | None = None
    post_number: Id = None
    post_type: int | None = None
    reply_to_post_number: Id = None
    username: str | None = None
    name: str | None = None
    user_id: Id = None
    raw: str | None = None
    cooked: str | None = None
    version: int | None = None
    created_at: str | None = None
    updated_at: str | None = None
    deleted_at: str | None = None
    user_deleted: bool | None = None
    moderator: bool | None = None
    admin: bool | None = None
    staff: bool | None = None


class Body(Struct, frozen=True):
    """The body of a delivery that tells of a post."""

    post: Post


class Settings(ChannelSettings):
    """A Discourse forum. `secret` is the webhook's secret (Discourse asks for at least 12 characters).

    `own_ids` are usernames (or user ids) that we post under by the API: their posts are echoes. `agent_ids` are usernames
    of our people: what they post is our side of the conversation, as are posts of the forum's staff while `staff_is_us`.
    `base_url` is the forum's address, for links; where it is empty, the address that came along is used. `private_categories`
    are the ids of categories that not everybody may read.
    """

    agent_ids: tuple[str, ...] = ()
    staff_is_us: bool = True
    base_url: str = ""
    private_categories: tuple[int, ...] = ()


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Prove a delivery by its HMAC-SHA256 over the raw body."""
    del now  # Discourse signs no time.
    if (wrong := signing.only(request, "POST")) is not None:
        return wrong
    return signing.by_body_hmac(request, secrets, SIGNATURE_HEADER, prefix="sha256=")


def parse(delivery: Delivery) -> Parsed:
    """Read a webhook of any type; only posts become messages.

    Raises:
        ParseError: no JSON, not an object, or a post of the wrong shape.
    """
    whole: Any = reading.json_of(delivery.body)
    if not isinstance(whole, dict):
        raise ParseError("invalid_field", "body: must be an object", "body")
    found: MessageContent | str
    if "post" in whole:
        found = _message(delivery, reading.json_as(delivery.body, Body).post)
    elif "ping" in whole:
        found = "ping"
    else:
        found = "not_a_message" if OTHER_TYPES & set(whole) else "unknown_event"
    if isinstance(found, str):
        return Parsed(ignored=found, verified=delivery.verified)
    return Parsed((found,), verified=delivery.verified)


def _message(delivery: Delivery, post: Post) -> MessageContent | str:
    """Return what a post says, or the reason why it says nothing to us."""
    settings = settings_of(delivery, Settings)
    if post.post_type == WHISPER:
        return "internal_note"
    if post.post_type not in (REGULAR, None):
        return "status"
    user = _text(post.user_id)
    username = post.username or ""
    if user.startswith("-"):
        return "status"  # Discourse's own voices: system, discobot.
    names = {username.lower(), user} - {""}
    if names & {own.lower() for own in settings.own_ids}:
        return "echo"
    key = reading.identifier(post.id, "post.id")
    topic = reading.identifier(post.topic_id, "post.topic_id")
    sender = reading.identifier(user or username, "post.username")
    change = _change_of(delivery, post)
    is_ours = bool(names & {agent.lower() for agent in settings.agent_ids}) or (
        settings.staff_is_us and bool(post.staff or post.admin or post.moderator)
    )
    is_private = post.topic_archetype == "private_message" or (
        _text(post.category_id) in map(str, settings.private_categories)
    )
    text = "" if change == "deleted" else reading.text_of(post.raw, post.cooked)
    return reading.content(
        delivery,
        key,
        Sender(name=post.name or username, address=sender, kind="vendor_id"),
        text,
        text_new=without_quotes(text),
        kind="message" if post.topic_archetype == "private_message" else "comment",
        visibility="private" if is_private else "public",
        direction="outbound" if is_ours else "inbound",
        change=change,
        subject=post.topic_title or "",
        thread=topic,
        occurred_at={
            "new": post.created_at,
            "edited": post.updated_at,
            "deleted": post.deleted_at or post.updated_at,
        }[change],
        url=_url_of(delivery, settings, post, topic),
        fields={
            "username": username,
            "post_number": _text(post.post_number),
            "reply_to_post_number": _text(post.reply_to_post_number),
            "category": post.category_slug or _text(post.category_id),
        },
    )


def _change_of(delivery: Delivery, post: Post) -> Literal["new", "edited", "deleted"]:
    """Return what happened to a post: by its own signed marks first, then by the event's name."""
    event = delivery.headers.get(EVENT_HEADER, "")
    if post.deleted_at or post.user_deleted or event == "post_destroyed":
        return "deleted"
    if (post.version or 1) > 1 or event in ("post_edited", "post_recovered"):
        return "edited"
    return "new"


def _url_of(delivery: Delivery, settings: Settings, post: Post, topic: str) -> str | None:
    base = reading.link(settings.base_url or delivery.headers.get(INSTANCE_HEADER))
    if base is None:
        return None
    slug = post.topic_slug if re.fullmatch(r"[\w-]{1,300}", post.topic_slug or "") else "-"
    number = _text(post.post_number)
    return reading.link(
        f"{base.rstrip('/')}/t/{slug}/{topic}" + (f"/{number}" if number.isdigit() else "")
    )


def without_quotes(text: str) -> str:
    """Return a post's Markdown without `[quote]` blocks and `>` lines: what its writer added.

    A block that is never closed is none; Discourse shows it as written.
    """
    lines = [line for line in text.split("\n") if not line.lstrip().startswith(">")]
    kept: list[str] = []
    depth = 0
    for line in lines:
        depth += 1 if QUOTE_BEGINS.match(line) else 0
        if depth == 0:
            kept.append(line)
        if depth and QUOTE_ENDS.search(line[-100:]):
            depth -= 1
    return "\n".join(lines if depth else kept).strip()


def _text(value: Id) -> str:
    return "" if value is None else clean_value(str(value), reading.ID_LENGTH_MAX)


CHANNEL = Channel(
    name="discourse",
    parse=parse,
    settings=Settings,
    verify=verify,
    headers_kept=frozenset({EVENT_HEADER, INSTANCE_HEADER}),
    media_types=frozenset({"application/json", "application/x-www-form-urlencoded"}),
    capability=Capability(
        can_reply=True,
        is_public=True,
        proof="HMAC-SHA256 over the body",
    ),
)
