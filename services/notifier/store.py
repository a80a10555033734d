"""Conversations as documents, notices as rows: the state the rules need, and the table people count."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from chassis.ledger import DocumentStore
from chassis.stage import Change, Connection
from schemas.notifications import (
    AnyNoticeEvent,
    NoticeFailed,
    NoticeRequested,
    NoticeSent,
    NoticeSuppressed,
    NoticeUnknown,
)
from schemas.tickets import ConversationErased
from services.notifier.core.audience import recipient_key
from services.notifier.core.state import Conversation
from services.notifier.metrics import NOTICES, SUPPRESSED

STAGE: Final = "notifier"

_REQUESTED: Final = """
INSERT INTO notice (notice_id, ticket_id, conversation_id, occasion, status, recipient_hash, requested_at, to_unverified)
SELECT n.id, n.ticket, n.conversation, n.occasion, 'requested', n.recipient, n.at, n.to_unverified
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::boolean[])
       AS n(id, ticket, conversation, occasion, recipient, at, to_unverified)
"""
"""No ON CONFLICT: a second intent for one cause is a bug and must not pass. The batch fails on it, and after three tries
the chassis parks the input that brought it about, with the bytes and the reason."""

_SETTLED: Final = """
UPDATE notice AS n
   SET status = s.status, reason = s.reason, attempts = greatest(n.attempts, s.attempts), settled_at = s.at
  FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::timestamptz[]) AS s(id, status, reason, attempts, at)
 WHERE n.notice_id = s.id AND n.status = 'requested'
"""
"""What has ended stays as it ended."""

_NEVER_REQUESTED: Final = """
INSERT INTO notice (notice_id, ticket_id, conversation_id, occasion, status, reason, settled_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
    ON CONFLICT (notice_id) DO NOTHING
"""

# What a server said of a failure may name the address. The keyed hash of a recipient stays: caps are counted by it.
_ERASE: Final = """
UPDATE notice SET reason = 'customer_erased'
 WHERE conversation_id = ANY($1::text[]) AND status IN ('failed', 'unknown')
"""
_ERASE_PARKED: Final = """
UPDATE parked SET value = NULL, is_cut = true WHERE state_key = ANY($1::text[])
"""

_RECENT: Final = """
SELECT wanted.hash AS recipient, told.requested_at
  FROM unnest($1::text[]) AS wanted(hash)
 CROSS JOIN LATERAL (
       SELECT requested_at FROM notice
        WHERE recipient_hash = wanted.hash AND occasion <> 'answered' AND requested_at IS NOT NULL
        ORDER BY requested_at DESC LIMIT $2
       ) AS told
 ORDER BY told.requested_at
"""

_RECENT_UNVERIFIED: Final = """
SELECT told.requested_at
  FROM (SELECT requested_at FROM notice
         WHERE to_unverified AND occasion <> 'answered' AND requested_at IS NOT NULL
         ORDER BY requested_at DESC LIMIT $1) AS told
 ORDER BY told.requested_at
"""

Recents = dict[str, list[datetime]]


@dataclass(slots=True)
class Loaded:
    """A conversation with what its batch knows of recipients. All states of a batch share one `recents`."""

    conversation: Conversation
    recents: Recents


class NoticeStore(DocumentStore[Conversation]):
    """Writes notices' rows from the events that tell of them, in the transaction that publishes these."""

    def __init__(self, workspace: str) -> None:
        super().__init__(STAGE, Conversation)
        self._workspace = workspace

    async def recents(
        self, connection: Connection, recipients: Sequence[str], limit: int
    ) -> Recents:
        """Return when the `limit` latest automatic notices to each of `recipients` were requested, oldest first."""
        found: Recents = {recipient: [] for recipient in recipients}
        if found and limit > 0:
            for row in await connection.fetch(_RECENT, list(found), limit):
                found[row["recipient"]].append(row["requested_at"])
        return found

    async def recent_unverified(self, connection: Connection, limit: int) -> list[datetime]:
        """Return when the `limit` latest automatic notices to unproved addresses were requested, oldest first."""
        if limit == 0:
            return []
        rows = await connection.fetch(_RECENT_UNVERIFIED, limit)
        return [row["requested_at"] for row in rows]

    async def save_rows(self, connection: Connection, rows: Sequence[tuple[int, Any]]) -> None:
        """Write notices: intents first, then what became of earlier ones."""
        erased = [row.conversation_id for _, row in rows if isinstance(row, ConversationErased)]
        events: list[AnyNoticeEvent] = [
            row for _, row in rows if not isinstance(row, ConversationErased)
        ]
        requested = [event for event in events if isinstance(event, NoticeRequested)]
        settled = [event for event in events if not isinstance(event, NoticeRequested)]
        if requested:
            await connection.execute(
                _REQUESTED,
                [event.notice_id for event in requested],
                [event.ticket_id for event in requested],
                [event.conversation_id for event in requested],
                [event.occasion for event in requested],
                [recipient_key(self._workspace, event.recipient) for event in requested],
                [event.at for event in requested],
                [not event.is_verified for event in requested],
            )
        if settled:
            await connection.execute(
                _SETTLED,
                [event.notice_id for event in settled],
                [status_of(event) for event in settled],
                [None if isinstance(event, NoticeSent) else event.reason for event in settled],
                [0 if isinstance(event, NoticeSuppressed) else event.attempts for event in settled],
                [event.at for event in settled],
            )
        refused = [event for event in settled if isinstance(event, NoticeSuppressed | NoticeFailed)]
        if refused:
            await connection.execute(
                _NEVER_REQUESTED,
                [event.notice_id for event in refused],
                [event.ticket_id for event in refused],
                [event.conversation_id for event in refused],
                [event.occasion for event in refused],
                [status_of(event) for event in refused],
                [event.reason for event in refused],
                [event.at for event in refused],
            )
        if erased:
            await connection.execute(_ERASE, erased)
            await connection.execute(_ERASE_PARKED, erased)
        _count(events)


class LoadedStore:
    """`NoticeStore` for states that carry what their batch shares; the shared part is not stored."""

    def __init__(self, notices: NoticeStore) -> None:
        self.notices = notices

    async def load(
        self, connection: Connection, task: int, keys: Sequence[str]
    ) -> dict[str, Loaded]:
        """Return the conversations of those of `keys` that exist, with nothing known of recipients."""
        recents: Recents = {}
        found = await self.notices.load(connection, task, keys)
        return {key: Loaded(conversation, recents) for key, conversation in found.items()}

    async def save(
        self,
        connection: Connection,
        changes: Sequence[Change[Loaded]],
        rows: Sequence[tuple[int, Any]],
    ) -> None:
        """Write the conversations and the notices' rows."""
        bare = [
            Change(change.task, change.key, change.state.conversation if change.state else None)
            for change in changes
        ]
        await self.notices.save(connection, bare, rows)


def status_of(event: AnyNoticeEvent) -> str:
    """Return what a notice is after `event`."""
    match event:
        case NoticeRequested():
            return "requested"
        case NoticeSent():
            return "sent"
        case NoticeFailed():
            return "failed"
        case NoticeUnknown():
            return "unknown"
        case NoticeSuppressed():
            return "suppressed"


def _count(events: Sequence[AnyNoticeEvent]) -> None:
    """Count what this transaction says. One that is rolled back is counted again: rates, not books."""
    for event in events:
        NOTICES.labels(event.occasion, status_of(event)).inc()
        if isinstance(event, NoticeSuppressed):
            SUPPRESSED.labels(event.reason).inc()
