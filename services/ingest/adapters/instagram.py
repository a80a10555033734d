"""Instagram: direct messages and comments, by Meta's callback for the object `instagram`.

Facts: Instagram Platform, webhook notification examples, and Messenger Platform for Instagram (story mentions and
replies). Direct messages have Messenger's shape, and echoes come in the same field. Comments stand under `changes` for
apps with Facebook Login and on the entry itself for apps with Instagram Login; both are documented, and one sample
names the id `comment_id`. That the test button sends direct messages as changes, and the flags `is_deleted`,
`is_unsupported` and `is_self`, are what several programs rely on. Believed and unconfirmed: 1000 bytes to a reply; that
apps with Instagram Login sign with the Instagram app secret and not with Facebook's.

What is proved is the origin: Meta signed the body (see `meta`). A comment carries no time of its own here, so the time
at which Meta sent it stands in. Instagram tells nothing of edited or removed comments. A mention (`mentions`) names
only a media object or comment and no text: it is left out with `hint`.
"""

from collections.abc import Iterator
from typing import Final

from schemas.messages import MessageContent, Sender
from services.ingest.adapters import meta
from services.ingest.adapters.channel import (
    Capability,
    Channel,
    Delivery,
    Parsed,
    settings_of,
)
from services.ingest.adapters.reading import Struct, content, identifier

OBJECT: Final = "instagram"
COMMENTS: Final = frozenset({"comments", "live_comments"})
REPLY_CHARACTERS_MAX: Final = 1_000
"""Bytes of a reply, in truth. Believed, not found in the vendor's pages."""


class From(Struct, frozen=True):
    """Who commented. `self_ig_scoped_id` stands where the account commented itself."""

    id: meta.Id | None = None
    username: str | None = None
    self_ig_scoped_id: meta.Id | None = None


class Media(Struct, frozen=True):
    """What the comment stands under."""

    id: meta.Id | None = None
    media_product_type: str | None = None
    ad_id: meta.Id | None = None
    ad_title: str | None = None


class Comment(Struct, frozen=True, rename={"from_": "from"}):
    """A comment, or an answer to one (`parent_id`)."""

    id: meta.Id | None = None
    comment_id: meta.Id | None = None
    text: str | None = None
    from_: From | None = None
    media: Media | None = None
    parent_id: meta.Id | None = None


class Settings(meta.DirectSettings):
    """An Instagram account. `page_id` is the professional account's id, as it stands in `entry[].id`."""


verify = meta.verify


def parse(delivery: Delivery) -> Parsed:
    """Read a callback: each direct message is private, each comment public.

    Raises:
        ParseError: the body is no callback, or its only message or comment lacks its id or its writer.
    """
    settings = settings_of(delivery, Settings)

    def read(entry: meta.Entry) -> Iterator[meta.Outcome]:
        yield from meta.directs(delivery, settings, entry)
        yield from meta.each_of(
            _changes(entry),
            meta.Change,
            "changes",
            lambda change: [_changed(delivery, settings, entry, change)],
        )

    return meta.concluded(delivery, meta.each(delivery, OBJECT, settings.page_id, read))


def _changes(entry: meta.Entry) -> Iterator[object]:
    yield from entry.changes or ()
    if entry.field is not None:
        for value in entry.value if isinstance(entry.value, list) else [entry.value]:
            yield {"field": entry.field, "value": value}


def _changed(
    delivery: Delivery, settings: Settings, entry: meta.Entry, change: meta.Change
) -> meta.Outcome:
    if change.field in COMMENTS:
        comment = meta.shaped(change.value, Comment, "value")
        writer = comment.from_ or From()
        if writer.self_ig_scoped_id is not None or meta.is_own(
            writer.id, entry, settings.page_id, *settings.own_ids
        ):
            return "echo"
        return _commented(delivery, entry, change.field, comment)
    if change.field == "mentions":
        return "hint"
    if change.field == "message_reactions":
        return "reaction"
    if meta.is_direct(change):
        return meta.in_change(delivery, settings, entry, change)
    return "unknown_event"


def _commented(
    delivery: Delivery, entry: meta.Entry, field: str, comment: Comment
) -> MessageContent:
    name = identifier(comment.id if comment.id is not None else comment.comment_id, "value.id")
    writer, media = comment.from_ or From(), comment.media or Media()
    parent = identifier(comment.parent_id, "value.parent_id") if comment.parent_id else None
    text = comment.text or ""
    return content(
        delivery,
        name,
        Sender(
            name=writer.username or "",
            address=identifier(writer.id, "value.from.id"),
            kind="vendor_id",
        )
        if writer.id is not None
        else Sender(name=writer.username or "", address="", kind="none"),
        text,
        text_new=text,
        occurred_at=entry.time,
        fields=meta.told(
            media_id=media.id,
            media_product_type=media.media_product_type,
            ad_id=media.ad_id,
            ad_title=media.ad_title,
            live="true" if field == "live_comments" else None,
        ),
        kind="comment",
        visibility="public",
        thread=parent or name,
        in_reply_to=parent,
    )


CHANNEL = Channel(
    name="instagram",
    parse=parse,
    settings=Settings,
    verify=verify,
    capability=Capability(
        reply_window_seconds=meta.REPLY_WINDOW_SECONDS,
        reply_characters_max=REPLY_CHARACTERS_MAX,
        supports_attachments=True,
        proof=meta.PROOF,
    ),
)
