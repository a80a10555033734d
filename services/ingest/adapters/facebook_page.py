"""Comments on a Facebook Page's posts, and mentions of the Page: Meta's callback for the object `page`.

Facts: Meta for Developers, webhook reference of the Page object (fields `feed` and `mention`), which gives no full
samples any more; the fields read here stand in several programs that work with them. `item`, `comment_id` and the
private reply's seven days are documented. Believed and unconfirmed: `from` is missing where the app lacks the
permission for people's content (the comment then comes without a writer); a visitor's own post comes as item `post` or
`status` with the same fields; a removed comment still names its writer.

What is proved is the origin: Meta signed the body (see `meta`). Comments are public. A conversation is a top comment
with its answers, one for each person who writes there.
"""

from collections.abc import Iterator
from typing import Final

from pydantic import Field

from schemas.messages import MessageContent, Sender
from services.ingest.adapters import meta
from services.ingest.adapters.channel import (
    Capability,
    Channel,
    Delivery,
    Parsed,
    settings_of,
)
from services.ingest.adapters.reading import Struct, content, identifier, link

OBJECT: Final = "page"
FIELDS: Final = frozenset({"feed", "mention"})
POSTS: Final = frozenset({"post", "status"})
EDITS: Final = frozenset({"edit", "edited"})
REMOVALS: Final = frozenset({"remove", "delete"})


class From(Struct, frozen=True):
    """Who wrote."""

    id: meta.Id | None = None
    name: str | None = None


class Feed(Struct, frozen=True, rename={"from_": "from"}):
    """What happened on the Page. A mention elsewhere names its writer by `sender_id` and `sender_name`."""

    item: str = ""
    verb: str = ""
    comment_id: meta.Id | None = None
    post_id: meta.Id | None = None
    parent_id: meta.Id | None = None
    from_: From | None = None
    sender_id: meta.Id | None = None
    sender_name: str | None = None
    message: str | None = None
    created_time: meta.Id | None = None
    permalink_url: str | None = None
    photo: str | None = None
    video: str | None = None


class Settings(meta.MetaSettings):
    """A Page's comments."""

    page_id: str | None = Field(
        default=None,
        pattern=r"^\d{1,40}$",
        description="Id of the Page. Entries for another are left out.",
    )


verify = meta.verify


def parse(delivery: Delivery) -> Parsed:
    """Read a callback: each comment, visitor's post and mention is a public message, edits and removals change it.

    Raises:
        ParseError: the body is no callback, or its only comment lacks its id.
    """
    settings = settings_of(delivery, Settings)

    def read(entry: meta.Entry) -> Iterator[meta.Outcome]:
        own = (settings.page_id, *settings.own_ids)
        yield from meta.each_of(
            entry.changes,
            meta.Change,
            "changes",
            lambda change: [changed(delivery, own, entry, change)],
        )
        if entry.messaging or entry.standby:
            yield "other_channel"

    return meta.concluded(delivery, meta.each(delivery, OBJECT, settings.page_id, read))


def changed(
    delivery: Delivery, own: tuple[str | None, ...], entry: meta.Entry, change: meta.Change
) -> meta.Outcome:
    """Return what one change of a Page comes to; `own` are further ids under which we write ourselves.

    Raises:
        ParseError: a comment or post without its id, or of another shape.
    """
    if change.field not in FIELDS:
        return "other_channel" if meta.is_direct(change) else "unknown_event"
    feed = meta.shaped(change.value, Feed, "value")
    if feed.item in ("reaction", "like"):
        return "reaction"
    if feed.item != "comment" and feed.item not in POSTS:
        return "unknown_event"
    if feed.verb in ("hide", "unhide"):
        return "not_a_message"
    if feed.verb not in ("", "add") and feed.verb not in EDITS | REMOVALS:
        return "unknown_event"
    writer = feed.from_ or From(id=feed.sender_id, name=feed.sender_name)
    if meta.is_own(writer.id, entry, *own):
        return "echo"
    return _written(delivery, entry, change, feed, writer)


def _written(
    delivery: Delivery, entry: meta.Entry, change: meta.Change, feed: Feed, writer: From
) -> MessageContent:
    is_comment = feed.item == "comment"
    name = (
        identifier(feed.comment_id, "value.comment_id")
        if is_comment
        else identifier(feed.post_id, "value.post_id")
    )
    parent = str(feed.parent_id or "")
    above = parent if is_comment and parent not in ("", str(feed.post_id), name) else None
    is_removed = feed.verb in REMOVALS
    text = "" if is_removed else feed.message or ""
    return content(
        delivery,
        name,
        Sender(
            name=writer.name or "", address=identifier(writer.id, "value.from.id"), kind="vendor_id"
        )
        if writer.id is not None
        else Sender(name=writer.name or "", address="", kind="none"),
        text,
        text_new=text,
        occurred_at=feed.created_time or entry.time,
        attachments=()
        if is_removed
        else tuple(
            meta.file(kind, url)
            for kind, url in (("photo", feed.photo), ("video", feed.video))
            if link(url)
        ),
        fields=meta.told(
            post_id=feed.post_id, mention="true" if change.field == "mention" else None
        ),
        kind="comment" if is_comment else "message",
        visibility="public",
        change="deleted" if is_removed else "edited" if feed.verb in EDITS else "new",
        thread=identifier(above, "value.parent_id") if above else name,
        in_reply_to=above,
        url=link(feed.permalink_url),
    )


CHANNEL = Channel(
    name="facebook_page",
    parse=parse,
    settings=Settings,
    verify=verify,
    capability=Capability(is_public=True, proof=meta.PROOF),
)
