"""What became of a ticket's notices, from the notifier's tables: each with its reason in words, and what is still to come.

Owns the reading and the wording. It never shows what a notice said, and an address only where it is asked for.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from cli.errors import CommandError

if TYPE_CHECKING:
    from services.notifier.core.state import Contact, Conversation, Notice

_NOTICES: Final = """
SELECT * FROM notifier.notice WHERE ticket_id = ANY($1::text[])
 ORDER BY coalesce(requested_at, settled_at, deferred_until), notice_id
"""
_DEAD: Final = "SELECT recipient_hash, at, until FROM notifier.undeliverable WHERE recipient_hash = ANY($1::text[])"
_RESENDS: Final = (
    "SELECT * FROM notifier.notice_resend WHERE conversation_id = $1 ORDER BY at, command_id"
)
_STATE: Final = (
    "SELECT value::text FROM notifier.state WHERE stage = 'notifier' AND key = $1 LIMIT 1"
)
_EVENTS: Final = (
    "SELECT type, at, data FROM router.ticket_event WHERE ticket_id = $1 ORDER BY version"
)
_REFERENCE: Final = "SELECT reference FROM router.ticket WHERE ticket_id = $1"
_NAMED: Final = """
SELECT DISTINCT ticket_id, conversation_id FROM notifier.notice
 WHERE ticket_id = $1 OR conversation_id = $1 OR (length($1) >= 4 AND notice_id LIKE replace($1, '%', '') || '%') LIMIT 20
"""

_ADDRESS: Final = re.compile(r"[^\s<>\"'(),;:]+@[^\s<>\"'(),;:]+|\+\d[\d ()-]{5,}\d")

CAUSES: Final[Mapping[str, str]] = {
    "received": "the ticket was opened",
    "after_hours": "the ticket was opened while we were closed",
    "voicemail": "the customer left a message on the telephone",
    "escalated": "the ticket went to somebody who can",
    "need_info": "it is the customer's turn, and no answer had said so",
    "still_on_it": "what was promised was about to pass",
    "delayed": "what was promised had passed",
    "answered": "an agent answered",
    "solved": "the ticket was solved without an answer going out with it",
    "reopened": "the customer came back to a solved ticket",
    "outage_known": "somebody said that something is broken",
    "outage_over": "somebody said that it works again",
    "callback_booked": "a call was promised",
    "callback_missed": "a call reached nobody",
    "security": "somebody said that the customer has to know",
    "next_issue": "the ticket was solved, and this usually comes next",
    "recovery": "the customer rated us low",
    "check_in": "the ticket was solved some days ago",
    "survey": "the ticket was solved",
    "digest": "several notices of the day could wait",
    "help": "the customer wrote HELP",
}
"""What brings each occasion about, in words."""

_EVENT_NAMES: Final[Mapping[str, str]] = {
    "ticket.answered.v1": "answered",
    "ticket.answered_elsewhere.v1": "answered_elsewhere",
    "ticket.solved.v1": "solved",
    "ticket.reopened.v1": "reopened",
    "ticket.merged.v1": "merged",
    "ticket.called.v1": "called",
    "ticket.message_added.v1": "wrote",
}
_HAPPENED: Final[Mapping[str, str]] = {
    "answered": "an agent's answer",
    "answered_elsewhere": "an answer by the channel's own means",
    "solved": "the ticket's solution",
    "reopened": "the customer's coming back",
    "merged": "the ticket's merging into another",
    "spam": "the ticket's being set aside",
    "called": "a call that reached them",
    "wrote": "the customer's writing",
}


@dataclass(frozen=True, slots=True)
class Found:
    """One ticket's notices, as the tables have them. `state` is None where the notifier remembers nothing any more.

    `dead` are the rows of dead addresses, by their name in that table.
    """

    ticket_id: str
    conversation_id: str
    reference: str
    notices: Sequence[Mapping[str, Any]]
    resends: Sequence[Mapping[str, Any]] = ()
    events: Sequence[Mapping[str, Any]] = ()
    state: "Conversation | None" = None
    dead: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PolicyText:
    """`notify.yaml` as it is written, for pointing at its lines."""

    text: str = ""
    name: str = "notify.yaml"
    _root: list[Any] = field(default_factory=list)

    def line(self, path: str) -> str:
        """Return `notify.yaml:101 caps.automatic_between_human: 3`; empty where the path is empty or the file is not there."""
        if not path or not self.text:
            return ""
        found = _locate(self._node(), path.split("."))
        if found is None:
            return f"{self.name} {path} (left out: the built-in value counts)"
        line, value = found
        return f"{self.name}:{line} {path}{f': {value}' if value else ''}"

    def _node(self) -> Any:
        if not self._root:
            import yaml

            self._root.append(yaml.compose(self.text, Loader=yaml.SafeLoader))
        return self._root[0]


def _locate(node: Any, path: Sequence[str]) -> tuple[int, str] | None:
    """Return the line (from 1) of a path's key, and its value where that is short; None where it is not there."""
    import yaml

    key = None
    for name in path:
        if not isinstance(node, yaml.MappingNode):
            return None
        found = [(k, v) for k, v in node.value if k.value == name]
        if not found:
            return None
        key, node = found[0]
    if key is None:
        return None
    value = node.value if isinstance(node, yaml.ScalarNode) else ""
    return key.start_mark.line + 1, str(value)


# --------------------------------------------------------------------------------------------- reading


async def read(connection: Any, named: str) -> list[Found]:
    """Return what is known of the notices of a ticket: by reference, id or its beginning, conversation or notice.

    Raises:
        CommandError: nothing, or several conversations, are named so.
    """
    from cli.ticket import FIND

    rows = await connection.fetch(FIND, named)
    if not rows:
        rows = await connection.fetch(_NAMED, named)
    if not rows:
        raise CommandError(f"There is no ticket and no notice {named}.")
    conversations = {row["conversation_id"] for row in rows}
    if len(conversations) > 1:
        raise CommandError(f"{named} names several tickets; give more of the id.")
    (conversation_id,) = conversations
    state = await _state(connection, conversation_id)
    notices = await connection.fetch(
        _NOTICES, [*{row["ticket_id"] for row in rows}, conversation_id]
    )
    dead = await connection.fetch(_DEAD, [_dead_name(row) for row in notices])
    resends = await connection.fetch(_RESENDS, conversation_id)
    # What is told of no ticket (an outage) goes by the conversation's id, and stands with each.
    names = list(dict.fromkeys(row["ticket_id"] for row in rows))
    return [
        Found(
            name,
            conversation_id,
            await connection.fetchval(_REFERENCE, name) or "",
            [row for row in notices if row["ticket_id"] in (name, conversation_id)],
            resends,
            await connection.fetch(_EVENTS, name),
            state,
            {row["recipient_hash"]: row for row in dead},
        )
        for name in names
    ]


async def _state(connection: Any, conversation_id: str) -> "Conversation | None":
    import msgspec

    from services.notifier.core.state import Conversation

    value = await connection.fetchval(_STATE, conversation_id)
    return None if value is None else msgspec.json.decode(value, type=Conversation)


# --------------------------------------------------------------------------------------------- telling


def told(
    found: Found, policy: PolicyText, workspace: str = "", *, show_recipient: bool = False
) -> list[dict[str, Any]]:
    """Return each notice of the ticket, in the order of time, with its reason in words."""
    return [_notice(found, row, policy, workspace, show_recipient) for row in found.notices]


def _notice(
    found: Found,
    row: Mapping[str, Any],
    policy: PolicyText,
    workspace: str,
    show_recipient: bool,
) -> dict[str, Any]:
    known = found.state.notices.get(row["notice_id"]) if found.state is not None else None
    why, path = _why(row)
    said: dict[str, Any] = {
        "notice_id": row["notice_id"],
        "occasion": row["occasion"],
        "because": CAUSES.get(row["occasion"], row["occasion"]),
        "cause_id": getattr(known, "cause_id", "") or "",
        "status": row["status"],
        "requested_at": row["requested_at"],
        "deferred_until": row["deferred_until"],
        "settled_at": row["settled_at"],
        "provider": row["provider"],
        "account": row["account"],
        "message_id": row["message_id"],
        "delivery": row["delivery"],
        "attempts": row["attempts"],
        "category": row["category"],
        "reason": without_addresses(row["reason"] or "") if not show_recipient else row["reason"],
        "why": why,
        "policy": policy.line(path),
        "superseded_by": superseded_by(row, found.notices, found.events),
        "articles": [one.title for one in _articles(known)],
        "resends": [
            {name: one[name] for name in ("at", "agent_id", "outcome", "reason")}
            for one in found.resends
            if one["notice_id"] == row["notice_id"]
        ],
        "address_is_dead": _dead(found.dead.get(_dead_name(row))),
        "person": _person(row),
    }
    if show_recipient:
        contact = found.state.contact if found.state is not None else None
        said["recipient"] = recipient(row, contact, workspace)
    return said


def _why(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return why it was not sent, or not yet, in words, and which line of the policy decides it."""
    from services.notifier.core.explain import why_deferred, why_suppressed

    reason = row["reason"] or ""
    if row["status"] in ("suppressed", "dry_run"):
        why = why_suppressed(reason, row["occasion"])
        return why.words, why.path
    if row["deferred_until"] is not None and reason:
        why = why_deferred(reason)
        return why.words, why.path
    return "", ""


def _person(row: Mapping[str, Any]) -> str:
    """Return what a person can do about it; empty where there is nothing to do."""
    short = row["notice_id"][:8]
    if row["status"] == "unknown":
        return f"look at {row['provider'] or 'the provider'} whether it arrived; if it did not: signalbox notify resend {short}"
    if row["status"] == "failed":
        return f"mend what stands in its way, then: signalbox notify resend {short}"
    if row["delivery"] == "bounced":
        return (
            "find an address that works, or have this one tried again (signalbox notify suppressed clear), then:"
            f" signalbox notify resend {short}"
        )
    return ""


def _dead_name(row: Mapping[str, Any]) -> str:
    """Return what the table of dead addresses calls a notice's recipient; empty where it has none."""
    from services.notifier.core.known import dead_name

    name = row["recipient_hash"]
    return "" if name is None else dead_name(row["provider"], name)


def _dead(row: Mapping[str, Any] | None) -> str:
    """Return that nothing is sent to the address any more, and since when; empty where something is."""
    from cli.story import utc

    if row is None:
        return ""
    until = row["until"]
    if until is not None and until <= datetime.now(UTC):
        return ""
    how_long = "for good" if until is None else f"until {utc(until)}"
    return f"since {utc(row['at'])}, {how_long}"


def _articles(notice: "Notice | None") -> tuple[Any, ...]:
    matter = getattr(notice, "matter", None)
    return () if matter is None else matter.articles


def without_addresses(text: str) -> str:
    """Return what a server or vendor said, without mail addresses and telephone numbers."""
    return _ADDRESS.sub("(address)", text)


def recipient(row: Mapping[str, Any], contact: "Contact | None", workspace: str) -> str | None:
    """Return the address that a notice went to, where it is the one that is known now; only its name in the tables is kept."""
    from services.notifier.core.audience import mail_address, recipient_key

    if row["recipient_hash"] is None:
        return None
    if contact is not None:
        address = mail_address(contact) or contact.address
        for name in (address, f"{row['account']}:{address}"):
            if recipient_key(workspace, name) == row["recipient_hash"]:
                return address
    return f"another address than the one that is known now ({row['recipient_hash'][:8]})"


def superseded_by(
    row: Mapping[str, Any],
    notices: Iterable[Mapping[str, Any]],
    events: Iterable[Mapping[str, Any]],
) -> str:
    """Return what made a notice stale, as far as the tables show it: the latest thing before its end that does so to its kind."""
    from cli.story import utc
    from services.notifier.core.reason import SUPERSEDES

    if row["reason"] != "superseded" or row["settled_at"] is None:
        return ""
    found: list[tuple[datetime, int, str]] = []
    for other in notices:
        began = other["requested_at"] or other["settled_at"]
        if other["notice_id"] == row["notice_id"] or began is None:
            continue
        if row["occasion"] in SUPERSEDES[other["occasion"]]:
            found.append((began, 1, f"the notice “{other['occasion']}” of {utc(began)}"))
    for event in events:
        name = _EVENT_NAMES.get(event["type"], "")
        if event["type"] == "ticket.status_changed.v1" and '"spam"' in str(event["data"]):
            name = "spam"
        if name and row["occasion"] in SUPERSEDES[name]:
            found.append((event["at"], 0, f"{_HAPPENED[name]} at {utc(event['at'])}"))
    before = [one for one in found if one[0] <= row["settled_at"]]
    return max(before)[2] if before else ""


# ------------------------------------------------------------------------------------ what is to come


def coming(found: Found) -> list[dict[str, Any]]:
    """Return what is under way or still to come of the ticket, the earliest first."""
    if found.state is None:
        return []
    names = {found.ticket_id, found.conversation_id}
    lines = [
        {"notice_id": notice_id, "occasion": one.occasion, "at": at, "what": what}
        for notice_id, one in found.state.notices.items()
        if one.ticket_id in names
        for at, what in _next(one)
    ]
    return sorted(lines, key=lambda line: (line["at"] is not None, line["at"], line["notice_id"]))


def _next(notice: "Notice") -> Iterable[tuple[datetime | None, str]]:
    from services.notifier.core.explain import why_deferred
    from services.notifier.core.state import Deferred, Doubted, Held, Planned, Sending, Waiting

    match notice:
        case Planned():
            yield notice.due_at, "planned, unless it is stale by then"
        case Held():
            yield notice.until, "waits so long at most for what can be promised"
        case Deferred():
            yield notice.until, f"put off: {why_deferred(notice.reason).words}"
        case Waiting():
            yield (
                notice.retry_at,
                f"attempt {notice.attempt + 1}, after “not now” from {notice.provider}",
            )
        case Doubted(look_at=None):
            yield None, f"{notice.provider} is being asked whether it arrived"
        case Doubted():
            yield notice.look_at, f"{notice.provider} is asked whether it arrived"
        case Sending(is_superseded=True):
            yield None, "under way; stale by now, so it is not tried again"
        case Sending():
            yield None, f"attempt {notice.attempt} is under way"
        case _:
            return
