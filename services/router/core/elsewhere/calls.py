"""What a place is asked to show, in no vendor's words: who has the helpdesk's ticket, a message, a card.

Every call says how things shall be, never what to change, so that doing it twice is doing it once.
"""

from datetime import UTC, datetime

import msgspec

from services.router.core.elsewhere.policy import (
    Board,
    Desk,
    Messenger,
    Places,
    PlaceSettings,
)
from services.router.core.elsewhere.state import Item, Reason, Saying, Ticket

SUBJECT_LENGTH_MAX = 120


class Assign(msgspec.Struct, frozen=True, tag=True):
    """The helpdesk's ticket `thread` is `user`'s (empty: nobody's; None: whose it is) and its group is `group`."""

    thread: str
    user: str | None
    group: str | None


class Message(msgspec.Struct, frozen=True, tag=True):
    """The message marked `marker` to `recipient` reads `text`. `handle` names it where it is there already.

    With `look_from` it may be there without our knowing its name, and not from before that instant: look first.
    """

    recipient: str
    text: str
    marker: str
    handle: str
    look_from: datetime | None


class Card(msgspec.Struct, frozen=True, tag=True):
    """The card marked `marker` lies in `list_id`, and of our agents' members it has `member` alone (empty: none).

    `ours` are the members that are agents'; others are people's own business. `handle` and `look_from` as with a message.
    """

    list_id: str
    member: str
    ours: tuple[str, ...]
    name: str
    text: str
    marker: str
    handle: str
    look_from: datetime | None


Call = Assign | Message | Card


class Cannot(msgspec.Struct, frozen=True):
    """There is no call that would say it. `instead` takes away what is shown, where that would be wrong now."""

    reason: Reason
    instead: Call | None = None


def call_for(
    policy: Places, place: PlaceSettings, item_id: str, item: Item, ticket: Ticket
) -> Call | Cannot | None:
    """Return the call that makes `place` show what is wanted of `item`; None where it shows nothing of that kind."""
    saying = item.wanted
    look_from = item.made_from if item.is_doubtful else None
    match place:
        case Desk():
            return _assign(place, ticket, item)
        case Messenger():
            recipient = place.to if place.to != "agent" else place.agents.get(saying.agent_id, "")
            if not recipient:
                return Cannot(Reason.AGENT_UNMAPPED)
            text = message_text(policy, place, ticket, item.ticket_id, saying)
            return Message(recipient, text, item_id, item.handle, look_from)
        case Board():
            return _card(policy, place, item_id, item, ticket, look_from)
        case _:
            raise TypeError(f"{type(place).__name__} is no kind of place")


def _assign(place: Desk, ticket: Ticket, item: Item) -> Assign | Cannot | None:
    saying = item.wanted
    if not ticket.thread:
        return Cannot(Reason.NO_THREAD)
    group = place.groups.get(saying.queue)
    if saying.what == "assigned":
        user = place.agents.get(saying.agent_id)
        if user is not None:
            return Assign(ticket.thread, user, group)
        # Whoever had it before has it no more.
        is_wrong = place.unassign and saying.serial > 1
        return Cannot(Reason.AGENT_UNMAPPED, Assign(ticket.thread, "", group) if is_wrong else None)
    if not place.unassign and group is None:
        return None
    return Assign(ticket.thread, "" if place.unassign else None, group)


def _card(
    policy: Places,
    place: Board,
    item_id: str,
    item: Item,
    ticket: Ticket,
    look_from: datetime | None,
) -> Card | Cannot | None:
    saying = item.wanted
    list_id = place.lists.of(saying.what)
    if list_id is None:
        return None
    member = place.agents.get(saying.agent_id, "") if saying.what == "assigned" else ""
    if saying.what == "solved":
        # Who solved it stays on the card.
        member = place.agents.get(saying.agent_id, "")
    is_unmapped = saying.what == "assigned" and not member
    if is_unmapped and not (item.handle or item.is_doubtful):
        return Cannot(Reason.AGENT_UNMAPPED)
    subject = _subject(ticket) if place.show_subject else ""
    lines = [
        f"{ticket.reference}, priority {ticket.priority}, by {ticket.channel} ({ticket.account})",
        *([link] if (link := policy.link_to(ticket.reference, item.ticket_id)) else []),
        "",
        f"signalbox:{item_id}",
    ]
    card = Card(
        list_id=list_id,
        member=member,
        ours=tuple(sorted(set(place.agents.values()))),
        name=f"{ticket.reference} {subject}".strip(),
        text="\n".join(lines),
        marker=item_id,
        handle=item.handle,
        look_from=look_from,
    )
    return Cannot(Reason.AGENT_UNMAPPED, card) if is_unmapped else card


def message_text(
    policy: Places, place: Messenger, ticket: Ticket, ticket_id: str, saying: Saying
) -> str:
    """Return a message's text in Slack's markup: `&`, `<` and `>` of what people wrote are escaped."""
    link = policy.link_to(ticket.reference, ticket_id)
    name = f"<{link}|{ticket.reference}>" if link else ticket.reference
    subject = f": {escape(_subject(ticket))}" if place.show_subject and ticket.subject else ""
    whose = place.agents.get(saying.agent_id, "")
    is_mention = place.to != "agent" and whose[:1] in ("U", "W") and "@" not in whose
    who = f"<@{whose}>" if is_mention else escape(saying.agent_id)
    about = f"{escape(saying.queue or ticket.queue)}, priority {ticket.priority}"
    return f"*{name}*{subject}\n{_sentence(saying, who)} ({about})"


def _sentence(saying: Saying, who: str) -> str:
    match saying.what:
        case "offered" if saying.until is not None:
            until = saying.until.astimezone(UTC)
            shown = f"<!date^{int(until.timestamp())}^{{time_secs}}|{until:%H:%M:%S} UTC>"
            return f"Offered to {who} until {shown}"
        case "offered":
            return f"Offered to {who}"
        case "assigned":
            return f"{who} has it"
        case "solved":
            return f"Solved by {who}" if who else "Solved"
        case _:
            why = f": {escape(saying.why.replace('_', ' '))}" if saying.why else ""
            return f"Not with {who} any more{why}" if who else f"Waits for somebody{why}"


def escape(text: str) -> str:
    """Return text that Slack shows as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _subject(ticket: Ticket) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in ticket.subject).split())
    return line if len(line) <= SUBJECT_LENGTH_MAX else f"{line[: SUBJECT_LENGTH_MAX - 1]}…"
