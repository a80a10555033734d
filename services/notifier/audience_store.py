"""Whom an announcement concerns: read from the conversations as they stand, and from the notices that were made of it."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

import msgspec

from chassis.stage import Connection
from services.notifier.core.announce import (
    ANY,
    NO_RECORD,
    Announcement,
    Filters,
    Place,
    Record,
    Why,
    place_in,
    why_concerned,
)
from services.notifier.core.policy import OutageAudience
from services.notifier.core.state import Conversation

PAGE: Final = 500

_PAGE_AFTER: Final = """
SELECT task, key, value FROM state
 WHERE stage = $1 AND (task, key) > ($2, $3)
 ORDER BY task, key LIMIT $4
"""
_NOTICES: Final = """
SELECT notice_id, conversation_id, CASE delivery WHEN 'bounced' THEN 'bounced' ELSE status END AS status,
       coalesce(requested_at, settled_at, deferred_until) AS at
  FROM notice WHERE occasion = $1
"""

_DECODER: Final = msgspec.json.Decoder(Conversation)


@dataclass(slots=True)
class Concerned:
    """The conversations that matter: those that it concerns, and those in which it was told or might be.

    `unheard_of` are recipients who were handed over and of whom the notifier knows nothing yet, `outages` the names of all
    outages that were told of, with how many conversations heard of each.
    """

    places: list[Place] = field(default_factory=list)
    unheard_of: dict[str, str] = field(default_factory=dict)
    outages: Counter[str] = field(default_factory=Counter)


async def recorded(
    connection: Connection, announcement: Announcement, handed: Mapping[str, str]
) -> Record:
    """Return what the notices' rows have of an announcement, with who was `handed` over (conversations by recipient)."""
    statuses = {}
    began_at = None
    for row in await connection.fetch(_NOTICES, announcement.occasion):
        is_this = announcement.occasion == "security" or row["notice_id"] == announcement.notice_id(
            row["conversation_id"], ""
        )
        if not is_this:
            continue
        statuses[row["notice_id"]] = row["status"]
        began_at = row["at"] if began_at is None else min(began_at, row["at"])
    return Record(statuses, handed, began_at)


async def concerned(
    connection: Connection,
    stage: str,
    announcement: Announcement,
    audience: OutageAudience,
    now: datetime,
    filters: Filters = ANY,
    *,
    known: Record = NO_RECORD,
    done: Record = NO_RECORD,
    named: Set[str] = frozenset(),
    since: datetime | None = None,
) -> Concerned:
    """Return the conversations that matter for an announcement.

    `known` is the record of the outage's being known, for one that is over: whoever was told so is told this too, and of the
    others only who came `since`. `done` is the record of this very announcement, `named` are persons of a file.

    Only who they are is held in memory, not what they wrote. Reading takes a second for some ten thousand conversations.
    """
    found = Concerned()
    before = announcement.as_known()
    seen = set()
    handed = set(known.handed.values())
    async for key, conversation in _conversations(connection, stage):
        found.outages.update(_outages_in(conversation))
        if key in handed:
            seen.add(key)
        why = why_concerned(audience, conversation, now, filters, since)
        place = place_in(announcement.workspace, key, conversation, why)
        if place is None:
            continue
        if known.was_told(before.notice_id(key, place.recipient), key, place.recipient):
            place = replace(place, why=Why.TOLD)
        is_done = done.is_decided(announcement.notice_id(key, place.recipient), place.recipient)
        if place.why is not None or place.person in named or is_done:
            found.places.append(place)
    found.unheard_of = {
        recipient: key for recipient, key in known.handed.items() if key not in seen
    }
    return found


def _outages_in(conversation: Conversation) -> set[str]:
    """Return the names of the outages that a conversation was told of, as far as it remembers them."""
    return {
        one.cause_id
        for one in conversation.notices.values()
        if one.occasion == "outage_known" and one.cause_id
    }


async def _conversations(
    connection: Connection, stage: str
) -> AsyncIterator[tuple[str, Conversation]]:
    task, key = -1, ""
    while rows := await connection.fetch(_PAGE_AFTER, stage, task, key, PAGE):
        for row in rows:
            yield row["key"], _DECODER.decode(row["value"])
        task, key = rows[-1]["task"], rows[-1]["key"]
