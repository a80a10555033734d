"""Conversations as documents, notices as rows: the state the rules need, and the table people count."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from chassis.ledger import DocumentStore
from chassis.stage import Change, Connection
from schemas.messages import DeliveryWord
from schemas.notifications import (
    AnyNoticeEvent,
    NoticeDeferred,
    NoticeDeliveryReported,
    NoticeFailed,
    NoticeRequested,
    NoticeResendDecided,
    NoticeSent,
    NoticeSuppressed,
    NoticeUnknown,
)
from schemas.tickets import ConversationErased
from services.notifier.consent_store import ConsentStore, FoundDead, WishSaid
from services.notifier.core.audience import recipient_key
from services.notifier.core.known import MAIL_PROVIDERS, Known
from services.notifier.core.reason import Suppression, category_of
from services.notifier.core.settle import with_deliveries
from services.notifier.core.state import Conversation, Notice, Settled
from services.notifier.metrics import NOTICES, SUPPRESSED

STAGE: Final = "notifier"

Ended = NoticeSent | NoticeFailed | NoticeUnknown | NoticeSuppressed
"""What a notice ends with."""

_DEFERRED: Final = """
INSERT INTO notice AS o (notice_id, ticket_id, conversation_id, occasion, status, reason, category, deferred_until)
SELECT DISTINCT ON (n.id) n.id, n.ticket, n.conversation, n.occasion, 'deferred', n.reason, n.category, n.until
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[]) WITH ORDINALITY
       AS n(id, ticket, conversation, occasion, reason, category, until, position)
 ORDER BY n.id, n.position DESC
    ON CONFLICT (notice_id) DO UPDATE SET deferred_until = excluded.deferred_until, reason = excluded.reason
 WHERE o.status IN ('deferred', 'requested')
"""
"""One that was asked for already (its account has trouble) stays so, and only its time is noted."""

_REQUESTED: Final = """
INSERT INTO notice AS o (notice_id, ticket_id, conversation_id, occasion, status, recipient_hash, requested_at,
                         to_unverified, provider, account, category)
SELECT n.id, n.ticket, n.conversation, n.occasion, 'requested', n.recipient, n.at, n.to_unverified, n.provider, n.account,
       n.category
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::boolean[], $8::text[],
              $9::text[], $10::text[])
       AS n(id, ticket, conversation, occasion, recipient, at, to_unverified, provider, account, category)
    ON CONFLICT (notice_id) DO UPDATE
   SET status = CASE o.status WHEN 'deferred' THEN 'requested' ELSE 'twice' END, occasion = excluded.occasion,
       recipient_hash = excluded.recipient_hash, requested_at = excluded.requested_at, reason = NULL,
       to_unverified = excluded.to_unverified, provider = excluded.provider, account = excluded.account,
       category = excluded.category, deferred_until = NULL
"""
"""A second intent for one cause is a bug and must not pass: no row may be `twice`. The batch fails on it, and after three
tries the chassis parks the input that brought it about, with the bytes and the reason."""

_SETTLED: Final = """
UPDATE notice AS n
   SET status = s.status, reason = s.reason, attempts = greatest(n.attempts, s.attempts), settled_at = s.at,
       deferred_until = NULL, message_id = coalesce(s.message_id, n.message_id),
       provider = coalesce(s.provider, n.provider), account = coalesce(s.account, n.account)
  FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::timestamptz[], $6::text[], $7::text[], $8::text[])
       AS s(id, status, reason, attempts, at, message_id, provider, account)
 WHERE n.notice_id = s.id AND n.status IN ('requested', 'deferred')
"""
"""What has ended stays as it ended. The way is the one that it went last."""

_REPORTED: Final = """
UPDATE notice AS n SET delivery = s.what
  FROM unnest($1::text[], $2::text[]) AS s(id, what) WHERE n.notice_id = s.id
"""

_PUT_OFF: Final = """
UPDATE notice AS n SET deferred_until = s.until
  FROM unnest($1::text[], $2::timestamptz[]) AS s(id, until)
 WHERE n.notice_id = s.id AND n.status = 'requested'
"""

_RESEND: Final = """
INSERT INTO notice_resend (command_id, notice_id, conversation_id, agent_id, at, outcome, reason)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::text[])
    ON CONFLICT (command_id) DO NOTHING
"""
_OPENED_ANEW: Final = """
UPDATE notice AS n
   SET status = CASE WHEN s.is_anew THEN 'deferred' ELSE 'requested' END, reason = NULL, settled_at = NULL, delivery = NULL,
       message_id = NULL
  FROM unnest($1::text[], $2::boolean[]) AS s(id, is_anew)
 WHERE n.notice_id = s.id AND n.status IN ('sent', 'failed', 'unknown')
"""
"""One whose words are made anew is asked for anew in the same transaction. The same message was asked for already."""

_NEVER_REQUESTED: Final = """
INSERT INTO notice (notice_id, ticket_id, conversation_id, occasion, status, reason, settled_at, category)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::text[])
    ON CONFLICT (notice_id) DO NOTHING
"""

_BY_MESSAGE_ID: Final = """
SELECT notice_id, ticket_id, conversation_id, occasion, status, message_id, provider, account, delivery, recipient_hash
  FROM notice WHERE message_id = ANY($1::text[]) AND status = 'sent'
"""

_REPORTS_OF = """
SELECT notice_id, delivery FROM notice WHERE notice_id = ANY($1::text[]) AND delivery IS NOT NULL
"""

# What a server said of a failure may name the address. The keyed hash of a recipient stays: caps are counted by it.
_ERASE: Final = """
UPDATE notice SET reason = 'customer_erased'
 WHERE conversation_id = ANY($1::text[]) AND status IN ('failed', 'unknown')
"""
_ERASE_PARKED: Final = """
UPDATE parked SET value = NULL, is_cut = true WHERE state_key = ANY($1::text[])
"""


@dataclass(frozen=True, slots=True)
class PutOff:
    """When a notice that was asked for is tried again after its account's trouble; None: it has been handed over."""

    notice_id: str
    until: datetime | None


Row = AnyNoticeEvent | ConversationErased | WishSaid | FoundDead | PutOff
"""What an outcome has for the tables."""


@dataclass(slots=True)
class Loaded:
    """A conversation with what its batch knows of recipients. All states of a batch share one `known`.

    `reported` has, by a message's id, the conversation and the notice that reports without a conversation are about.
    """

    conversation: Conversation
    known: Known
    reported: Mapping[str, tuple[str, Conversation]] = field(default_factory=dict)


class NoticeStore(DocumentStore[Conversation]):
    """Writes notices' rows from the events that tell of them, in the transaction that publishes these."""

    def __init__(self, workspace: str) -> None:
        super().__init__(STAGE, Conversation)
        self._workspace = workspace
        self.consent = ConsentStore(workspace)

    async def reported(
        self, connection: Connection, message_ids: Sequence[str]
    ) -> dict[str, tuple[str, Conversation]]:
        """Return which notices messages were, by their ids: the conversation's id, and a conversation of that notice alone."""
        if not message_ids:
            return {}
        found = {}
        for row in await connection.fetch(_BY_MESSAGE_ID, list(message_ids)):
            notice = Settled(
                row["ticket_id"],
                row["occasion"],
                row["status"],
                row["message_id"],
                row["provider"],
                row["account"],
                row["delivery"] or "",
                row["recipient_hash"] or "",
            )
            alone = Conversation(notices={row["notice_id"]: notice})
            found[row["message_id"]] = (row["conversation_id"], alone)
        return found

    async def with_reports(
        self, connection: Connection, found: Mapping[str, Conversation]
    ) -> dict[str, Conversation]:
        """Return the conversations with what reports have said of their notices that named no conversation.

        Those are decided by themselves, wherever the message's id leads, and stand in the table alone. Mail needs no look: what is
        believed of it names its conversation.
        """
        asked = [
            notice_id
            for conversation in found.values()
            for notice_id, one in conversation.notices.items()
            if _may_be_reported(one)
        ]
        if not asked:
            return dict(found)
        rows = await connection.fetch(_REPORTS_OF, asked)
        heard: dict[str, DeliveryWord] = {row["notice_id"]: row["delivery"] for row in rows}
        return {key: with_deliveries(one, heard) for key, one in found.items()}

    async def save_rows(self, connection: Connection, rows: Sequence[tuple[int, Row]]) -> None:
        """Write notices: what is sent again, put off and asked for, then what became of earlier ones, then what was heard of them.

        Nobody asks for one to be sent again before its end has been written, so no batch has the two the other way round.
        """
        erased = [row.conversation_id for _, row in rows if isinstance(row, ConversationErased)]
        wishes = [row for _, row in rows if isinstance(row, WishSaid)]
        dead = [row for _, row in rows if isinstance(row, FoundDead)]
        put_off = {row.notice_id: row.until for _, row in rows if isinstance(row, PutOff)}
        events: list[AnyNoticeEvent] = [
            row
            for _, row in rows
            if not isinstance(row, ConversationErased | WishSaid | FoundDead | PutOff)
        ]
        await _write_resends(connection, events)
        await self._write_intents(connection, events)
        await _write_ends(connection, [one for one in events if isinstance(one, Ended)])
        if put_off:
            await connection.execute(_PUT_OFF, list(put_off), list(put_off.values()))
        reported = [one for one in events if isinstance(one, NoticeDeliveryReported)]
        if reported:
            latest = {one.notice_id: one.what for one in reported}
            await connection.execute(_REPORTED, list(latest), list(latest.values()))
        if wishes or dead:
            await self.consent.save(connection, wishes, dead)
        if erased:
            await connection.execute(_ERASE, erased)
            await connection.execute(_ERASE_PARKED, erased)
        _count(events)

    async def _write_intents(
        self, connection: Connection, events: Sequence[AnyNoticeEvent]
    ) -> None:
        deferred = [event for event in events if isinstance(event, NoticeDeferred)]
        requested = [event for event in events if isinstance(event, NoticeRequested)]
        if deferred:
            await connection.execute(
                _DEFERRED,
                [event.notice_id for event in deferred],
                [event.ticket_id for event in deferred],
                [event.conversation_id for event in deferred],
                [event.occasion for event in deferred],
                [event.reason for event in deferred],
                [event.category for event in deferred],
                [event.until for event in deferred],
            )
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
                [event.provider for event in requested],
                [event.account for event in requested],
                [event.category for event in requested],
            )


def _may_be_reported(notice: Notice) -> bool:
    return (
        isinstance(notice, Settled)
        and notice.status == "sent"
        and notice.provider not in MAIL_PROVIDERS
        and notice.delivery != "read"
    )


async def _write_resends(connection: Connection, events: Sequence[AnyNoticeEvent]) -> None:
    decided = [event for event in events if isinstance(event, NoticeResendDecided)]
    if not decided:
        return
    await connection.execute(
        _RESEND,
        [event.command_id for event in decided],
        [event.notice_id for event in decided],
        [event.conversation_id for event in decided],
        [event.agent_id for event in decided],
        [event.at for event in decided],
        [event.outcome for event in decided],
        [event.reason for event in decided],
    )
    resent = [event for event in decided if event.outcome == "resent"]
    if resent:
        await connection.execute(
            _OPENED_ANEW,
            [event.notice_id for event in resent],
            [event.is_anew for event in resent],
        )


async def _write_ends(connection: Connection, settled: Sequence[Ended]) -> None:
    if settled:
        await connection.execute(
            _SETTLED,
            [event.notice_id for event in settled],
            [status_of(event) for event in settled],
            [None if isinstance(event, NoticeSent) else event.reason for event in settled],
            [0 if isinstance(event, NoticeSuppressed) else event.attempts for event in settled],
            [event.at for event in settled],
            [
                event.provider_message_id if isinstance(event, NoticeSent) else None
                for event in settled
            ],
            [None if isinstance(event, NoticeSuppressed) else event.provider for event in settled],
            [None if isinstance(event, NoticeSuppressed) else event.account for event in settled],
        )
    # What was rehearsed had been asked for, so its row is there.
    refused = [
        event
        for event in settled
        if isinstance(event, NoticeSuppressed | NoticeFailed) and status_of(event) != "dry_run"
    ]
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
            [category_of(event.occasion) for event in refused],
        )


class LoadedStore:
    """`NoticeStore` for states that carry what their batch shares; the shared part is not stored."""

    def __init__(self, notices: NoticeStore, workspace: str) -> None:
        self.notices = notices
        self._workspace = workspace

    async def load(
        self, connection: Connection, task: int, keys: Sequence[str]
    ) -> dict[str, Loaded]:
        """Return the conversations of those of `keys` that exist, with nothing known of recipients."""
        known = Known(self._workspace)
        found = await self.notices.load(connection, task, keys)
        return {key: Loaded(conversation, known) for key, conversation in found.items()}

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
        case NoticeDeferred():
            return "deferred"
        case NoticeRequested():
            return "requested"
        case NoticeSent():
            return "sent"
        case NoticeFailed():
            return "failed"
        case NoticeUnknown():
            return "unknown"
        case NoticeSuppressed():
            return "dry_run" if event.reason == Suppression.DRY_RUN else "suppressed"
        case NoticeDeliveryReported():
            return event.what
        case NoticeResendDecided():
            return "resent" if event.outcome == "resent" else "resend_refused"


def _count(events: Sequence[AnyNoticeEvent]) -> None:
    """Count what this transaction says. One that is rolled back is counted again: rates, not books."""
    for event in events:
        NOTICES.labels(event.occasion, status_of(event)).inc()
        if isinstance(event, NoticeSuppressed):
            SUPPRESSED.labels(event.reason).inc()
