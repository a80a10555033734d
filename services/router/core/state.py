"""A conversation and its cases: the open (or solved) ticket in full, the closed ones in short.

Where a ticket stands is a type, which holds what that standing needs and nothing else: only a ticket that waits for
someone, or is held, has a `work_id`; only a solved one has an instant at which it closes.
"""

from datetime import datetime
from typing import ClassVar, Literal

from msgspec import Struct

from schemas import tickets as wire
from services.router.core.requirement import Requirement

SEEN_MAX = 50
"""How many ids of commands and messages a conversation remembers, to know a repeat."""

PAST_MAX = 20
"""How many closed tickets a conversation remembers."""


class Queued(Struct, frozen=True, tag=True):
    """Waits for someone; `work_id` names the request for a person."""

    work_id: str
    status: ClassVar[wire.TicketStatus] = "queued"


class Offered(Struct, frozen=True, tag=True):
    """Reserved for `agent_id`, who has not taken it yet."""

    work_id: str
    agent_id: str
    reservation_id: str
    status: ClassVar[wire.TicketStatus] = "offered"


class Assigned(Struct, frozen=True, tag=True):
    """Held by `agent_id`, whose capacity it takes."""

    work_id: str
    agent_id: str
    status: ClassVar[wire.TicketStatus] = "assigned"


class Pending(Struct, frozen=True, tag=True):
    """Waits for the customer. `agent_id` answered last and may go on; nobody's capacity is taken."""

    agent_id: str
    status: ClassVar[wire.TicketStatus] = "pending"


class Solved(Struct, frozen=True, tag=True):
    """Done; a customer's message before `close_at` reopens it."""

    agent_id: str
    solved_at: datetime
    close_at: datetime
    status: ClassVar[wire.TicketStatus] = "solved"


Standing = Queued | Offered | Assigned | Pending | Solved


class Contact(Struct, frozen=True):
    """Where the customer can be answered.

    `origin_id` is the customer whose address that is, before any merge; empty in what was stored before it was kept.
    """

    customer_id: str
    name: str
    address: str
    address_kind: Literal["email", "phone", "vendor_id", "none"]
    channel: str
    account: str
    language: str | None
    is_verified: bool
    origin_id: str = ""

    @property
    def own_id(self) -> str:
        """The id that the address itself stands for."""
        return self.origin_id or self.customer_id

    def to_wire(self) -> wire.Contact:
        """Return the contact as events carry it."""
        return wire.Contact(
            customer_id=self.customer_id,
            name=self.name,
            address=self.address,
            address_kind=self.address_kind,
            channel=self.channel,
            account=self.account,
            language=self.language,
            is_verified=self.is_verified,
        )


class Ticket(Struct, frozen=True):
    """A case. `works` counts its requests for a person, `entered_at` is when the present wait began.

    `domain` and `relax_from` are those of the latest request: where it went, so where it is withdrawn, and from when
    the patience of its requirement counts (None: from `entered_at`).
    `rule` and `policy_version` are those that decided queue, priority, requirement and targets when it opened.
    """

    ticket_id: str
    number: int
    reference: str
    version: int
    standing: Standing
    queue: str
    desk: wire.Desk
    domain: str
    priority: int
    sla_policy: str
    rule: str
    policy_version: str
    cost: int
    requirement: Requirement
    contact: Contact
    subject: str
    opened_at: datetime
    entered_at: datetime
    updated_at: datetime
    works: int = 0
    relax_from: datetime | None = None
    last_agent_id: str | None = None
    answers: int = 0
    reopen_count: int = 0
    tags: tuple[str, ...] = ()
    facts: dict[str, str] = {}
    cause: str | None = None
    customer_wrote_at: datetime | None = None
    """When the customer wrote last, by the channel's own time."""

    @property
    def work_id(self) -> str | None:
        """The request for a person that is alive, if any."""
        match self.standing:
            case Queued(work_id=work_id) | Offered(work_id=work_id) | Assigned(work_id=work_id):
                return work_id
            case _:
                return None

    @property
    def assignee_id(self) -> str | None:
        """Who holds the ticket, or answered last while the customer is waited for."""
        match self.standing:
            case Assigned(agent_id=agent_id) | Pending(agent_id=agent_id):
                return agent_id
            case _:
                return None


class Past(Struct, frozen=True):
    """What is kept in memory of a closed ticket. `contact` is where it was answered; conversations stored before it
    was kept have none.
    """

    ticket_id: str
    number: int
    last_agent_id: str | None
    closed_at: datetime
    contact: Contact | None = None


class Conversation(Struct, frozen=True):
    """One customer's thread. `seen` holds the latest ids of messages and commands, oldest first."""

    conversation_id: str
    ticket: Ticket | None = None
    past: tuple[Past, ...] = ()
    seen: tuple[str, ...] = ()
