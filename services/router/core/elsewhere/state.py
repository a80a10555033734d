"""What is remembered of telling other systems who has a ticket: the tickets, what each place is to show, what it shows.

A *place* is a helpdesk, a chat tool or a board of `elsewhere.yaml`. An *item* is the one thing of ours in a place: the
helpdesk's own ticket, the message about one offer, the card of a ticket. It is driven towards what was said last.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

from schemas.elsewhere import Saying as What


class Reason(StrEnum):
    """Why a place was not told, for good or for now."""

    AGENT_UNMAPPED = "agent_unmapped"
    """The agent has no user at that place in `elsewhere.yaml`."""
    USER_UNKNOWN = "user_unknown"
    """The vendor knows no user of that id or address."""
    NO_THREAD = "no_thread"
    """The message did not say which of the vendor's tickets it stands in."""
    NO_TICKET = "no_ticket"
    """The vendor's conversation has no ticket that could have an owner."""
    PLACE_GONE = "place_gone"
    """`elsewhere.yaml` does not name the place any more."""
    NO_SECRET = "no_secret"  # noqa: S105 - the name of a reason
    """A secret that the place needs is not there."""
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    MISSING = "missing"
    """The thing to change is not there any more."""
    CLOSED = "closed"
    """The vendor lets nothing about it be changed any more."""
    REFUSED = "refused"
    CONFLICT = "conflict"
    """Somebody changed it at the same time."""
    THROTTLED = "throttled"
    FAILED = "failed"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    BAD_ANSWER = "bad_answer"
    INTERRUPTED = "interrupted"
    """The call was begun, and the process ended before the answer."""
    SUPERSEDED = "superseded"
    """There was something newer to say before the call began."""
    BUG = "bug"


class Saying(msgspec.Struct, frozen=True):
    """What a place is to show. `serial` counts the sayings of an item; `until` is when an offer ends.

    `why` is why nobody has it, or why an offer ended, in the words of the event that said so.
    """

    what: What
    queue: str
    at: datetime
    serial: int
    agent_id: str = ""
    until: datetime | None = None
    why: str = ""


class Resting(msgspec.Struct, frozen=True, tag=True):
    """Nothing is under way. With a reason the place could not be told."""

    reason: str = ""


class Calling(msgspec.Struct, frozen=True, tag=True):
    """A call is recorded or under way: `saying` is what it says.

    With `instead_of` (a reason) there is no call that would say it, and this one takes away what would be wrong.
    """

    saying: Saying
    attempt: int
    instead_of: str = ""


class Waiting(msgspec.Struct, frozen=True, tag=True):
    """The last call came to nothing, the next is due at `retry_at`."""

    attempt: int
    retry_at: datetime
    reason: str


Standing = Resting | Calling | Waiting


class Item(msgspec.Struct, frozen=True):
    """Our one thing in a place. `slot` tells the messages about one ticket apart: the reservation; empty elsewhere.

    `handle` is the vendor's name for what we made there. `made_from` is when it was first tried to be made, `is_doubtful`
    that it may have been made without our knowing: then it is looked for before it is made. `since` is when what is
    wanted was first tried; the limit of trying counts from there.
    """

    place: str
    vendor: str
    ticket_id: str
    slot: str
    wanted: Saying
    since: datetime
    standing: Standing = Resting()
    shown: Saying | None = None
    handle: str = ""
    made_from: datetime | None = None
    is_doubtful: bool = False


class Ticket(msgspec.Struct, frozen=True):
    """What places show of a ticket. `subject` is kept only where a place shows it."""

    reference: str
    channel: str
    account: str
    thread: str
    queue: str
    priority: int
    subject: str = ""
    is_closed: bool = False


class Heard(msgspec.Struct, frozen=True):
    """An offer's news from assignment, kept until its ticket is known: the two topics have no order between them."""

    what: What
    agent_id: str
    at: datetime
    queue: str = ""
    slot: str = ""
    until: datetime | None = None
    why: str = ""


class Conversation(msgspec.Struct, frozen=True):
    """One conversation: tickets by id, items by id, early news by ticket."""

    tickets: dict[str, Ticket] = {}
    items: dict[str, Item] = {}
    early: dict[str, tuple[Heard, ...]] = {}
