"""Facebook Messenger: what people write to a Page, by Meta's callback for the object `page`.

Facts: Messenger Platform, webhook reference (`messages`, `messaging_postbacks`, `message_echoes`, `message_edits`,
`standby`). Ids, shapes, milliseconds, echoes with `app_id` and the 24 hours are documented. The seven days with the
human-agent tag are what operators tell. Believed and unconfirmed: 2000 characters to a reply.

What is proved is the origin: Meta signed the body (see `meta`). The person is a page-scoped id; the callback tells no
name, no mail address and no number.

An app has one callback for the object `page`, for messages and for comments alike. `comments_account` names the account
of channel `facebook_page` that comments in this callback belong to; without it they are left out.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from pydantic import Field

from services.ingest.adapters import facebook_page, meta
from services.ingest.adapters.channel import (
    Capability,
    Channel,
    Delivery,
    Parsed,
    settings_of,
)

OBJECT: Final = "page"
REPLY_CHARACTERS_MAX: Final = 2_000
"""Characters of a reply. Believed, not found in the vendor's pages."""


class Settings(meta.DirectSettings):
    """A Page's Messenger."""

    comments_account: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9_-]{0,63}$",
        description="The account of channel `facebook_page` that comments in this callback belong to.",
    )


verify = meta.verify


def parse(delivery: Delivery) -> Parsed:
    """Read a callback: each message, pressed button, edit, and message from Meta's inbox is one.

    Raises:
        ParseError: the body is no callback, or its only message lacks its id or its writer.
    """
    settings = settings_of(delivery, Settings)

    def read(entry: meta.Entry) -> Iterator[meta.Outcome]:
        yield from meta.directs(delivery, settings, entry)
        yield from meta.each_of(
            entry.changes,
            meta.Change,
            "changes",
            lambda change: [_changed(delivery, settings, entry, change)],
        )

    return meta.concluded(delivery, meta.each(delivery, OBJECT, settings.page_id, read))


def _changed(
    delivery: Delivery, settings: Settings, entry: meta.Entry, change: meta.Change
) -> meta.Outcome:
    if change.field in facebook_page.FIELDS:
        if settings.comments_account is None:
            return "other_channel"
        placed = replace(
            delivery, channel=facebook_page.CHANNEL.name, account=settings.comments_account
        )
        own = (settings.page_id, *settings.own_ids)
        return facebook_page.changed(placed, own, entry, change)
    if meta.is_direct(change):
        return meta.in_change(delivery, settings, entry, change)
    return "unknown_event"


CHANNEL = Channel(
    name="messenger",
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
