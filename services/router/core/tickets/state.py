"""A conversation and its cases: the open (or solved) ticket in full, the closed ones in short.

Where a ticket stands is a type, which holds what that standing needs and nothing else: only a ticket that waits for
someone, or is held, has a `work_id`; only a solved one has an instant at which it closes.
"""

from datetime import datetime, timedelta
from typing import ClassVar, Final, Literal

from msgspec import Struct

from schemas import tickets as wire
from services.router.core.assignment.requirement import Requirement

SEEN_MAX = 50
"""How many ids of commands and messages a conversation remembers, to know a repeat."""

PAST_MAX = 20
"""How many closed tickets a conversation remembers."""

CARRIED_MAX = 200
"""How many messages a merged ticket remembers to have carried; after an unmerge these are its own again."""

INTO_MAX = 50
"""How many tickets a conversation remembers that its own were merged into."""

ABSORBED_MAX = 50
"""How many other tickets one ticket takes in at most."""

ELSEWHERE: Final = "elsewhere"
"""Who answered, where nobody of the roster did: somebody at the channel itself. Nobody who could have a ticket."""


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


class OnHold(Struct, frozen=True, tag=True):
    """Waits for a third party, `until` at the longest (None: until somebody says so). `agent_id` looks after it."""

    agent_id: str
    waiting_on: str
    until: datetime | None = None
    status: ClassVar[wire.TicketStatus] = "on_hold"


class Snoozed(Struct, frozen=True, tag=True):
    """Put away by `agent_id` until an instant."""

    agent_id: str
    until: datetime
    status: ClassVar[wire.TicketStatus] = "snoozed"


class Spam(Struct, frozen=True, tag=True):
    """No customer's. Until `close_at` it can be restored, and what its sender writes is set aside.

    `waiting_since` and `unanswered` are the ticket's as it was set aside: a restore gives them back.
    """

    agent_id: str
    close_at: datetime
    waiting_since: datetime | None = None
    unanswered: int = 0
    status: ClassVar[wire.TicketStatus] = "spam"


class Merged(Struct, frozen=True, tag=True):
    """Goes on in another conversation's ticket, where its messages are `carried` (their ids, the latest last).

    What was written here since is owed an answer here again if the merge is undone.
    """

    agent_id: str
    merge_id: str
    into_conversation_id: str
    into_ticket_id: str
    carried: tuple[str, ...] = ()
    wrote_since: datetime | None = None
    """When the oldest words were written that the customer wrote here since it was merged."""
    wrote: int = 0
    """How many messages those are."""
    status: ClassVar[wire.TicketStatus] = "merged"


class Solved(Struct, frozen=True, tag=True):
    """Done; a customer's message before `close_at` reopens it."""

    agent_id: str
    solved_at: datetime
    close_at: datetime
    status: ClassVar[wire.TicketStatus] = "solved"


Standing = Queued | Offered | Assigned | Pending | OnHold | Snoozed | Solved | Spam | Merged

Resting = Pending | OnHold | Snoozed
"""The ticket waits for somebody or something else, and will be somebody's again."""


class Delegation(Struct, frozen=True):
    """A colleague does `task`; `owner_id` stays responsible."""

    owner_id: str
    task: str


class Merging(Struct, frozen=True):
    """The ticket has asked to be merged, and waits for the answer of the other conversation's task.

    `messages` came meanwhile, as JSON: they are carried after it if the answer is yes. `left` counts those that were too
    many for that, and stay here.
    """

    merge_id: str
    agent_id: str
    into_conversation_id: str
    into_ticket_id: str
    messages: tuple[str, ...] = ()
    left: int = 0
    asked_at: datetime | None = None


class Absorbed(Struct, frozen=True):
    """What another ticket brings that was merged into this one: all that it has and this one has not of itself.

    `priority` and `entered_at` count while they say something here: None where somebody has decided otherwise since, or
    nobody waits there. `waiting_since` and `unanswered` are what is owed for its messages. `depth` is through how many tickets
    its messages come at most.
    """

    merge_id: str
    conversation_id: str
    ticket_id: str
    reference: str
    opened_at: datetime
    tags: tuple[str, ...] = ()
    facts: dict[str, str] = {}
    priority: int | None = None
    entered_at: datetime | None = None
    waiting_since: datetime | None = None
    unanswered: int = 0
    depth: int = 0


class Own(Struct, frozen=True):
    """What a ticket is by itself, while others are merged into it. `rested` is where it stood when one of them woke it."""

    opened_at: datetime
    entered_at: datetime
    priority: int
    waiting_since: datetime | None = None
    unanswered: int = 0
    rested: Pending | OnHold | Snoozed | None = None


class Into(Struct, frozen=True):
    """A ticket that one of the conversation's tickets was merged into, or asked to be, at some time."""

    conversation_id: str
    ticket_id: str


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
    """A case. `works` counts its requests for a person, `entered_at` is when the present wait began, `moved_at` when it came
    to stand where it stands.

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
    excluded: tuple[str, ...] = ()
    """Who was not to be asked with the latest request."""
    rested: timedelta = timedelta()
    """How long the ticket rested since `entered_at`, without the rest that it has now."""
    last_agent_id: str | None = None
    last_agent_at: datetime | None = None
    """When `last_agent_id` had to do with the customer last."""
    asked: Requirement | None = None
    """What the rule itself asks, where the queue's preset asks more: the base for another queue's."""
    answers: int = 0
    reopen_count: int = 0
    tags: tuple[str, ...] = ()
    facts: dict[str, str] = {}
    cause: str | None = None
    customer_wrote_at: datetime | None = None
    """When the customer wrote last, by the channel's own time."""
    moved_at: datetime | None = None
    waiting_since: datetime | None = None
    """When the oldest words of the customer were written that nobody has answered; None: all are answered."""
    unanswered: int = 0
    """How many messages of the customer nobody has answered."""
    dues: dict[str, datetime] = {}
    """The deadlines of the response clocks that run, by kind."""
    asked_due_at: datetime | None = None
    """The deadline that assignment was told with the present request."""
    delegation: Delegation | None = None
    front_queue: str | None = None
    """The front line's queue that the ticket came from, while it is with technical support."""
    front_agent_id: str | None = None
    front_asked: Requirement | None = None
    """What the ticket itself asked there."""
    technical_agent_id: str | None = None
    """Who of technical support had it last."""
    returns: int = 0
    """How often technical support gave it back."""
    forced_owner_id: str | None = None
    rise_at: datetime | None = None
    """When time alone moves it up."""
    has_aged: bool = False
    """Whether time has moved it up already: it does so once."""
    paged: tuple[str, ...] = ()
    """The on-call levels that were paged for it while it is open."""
    merging: Merging | None = None
    absorbed: tuple[Absorbed, ...] = ()
    own: Own | None = None
    """What it is without those that it took in; None while it has none."""
    resolve_by: datetime | None = None
    """The deadline of the resolution clock, while that runs."""

    @property
    def due_at(self) -> datetime | None:
        """The earliest deadline of a response that is owed."""
        return min(self.dues.values(), default=None)

    @property
    def keeper_id(self) -> str | None:
        """Whose the ticket is: who delegated it, else who has it, else who had it last."""
        if self.delegation is not None:
            return self.delegation.owner_id
        return self.assignee_id or self.last_agent_id

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
        """Who holds the ticket, or looks after it while it rests; None also where somebody elsewhere answered."""
        match self.standing:
            case Pending(agent_id=agent_id) if agent_id == ELSEWHERE:
                return None
            case Assigned() | Pending() | OnHold() | Snoozed():
                return self.standing.agent_id
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
    last_agent_at: datetime | None = None
    reopen_count: int = 0


class Recovery(Struct, frozen=True):
    """Since `since` a person is to look at what made the customer unhappy, with a draft in `ticket_id`.

    `surveys` are those that were answered low and are behind it.
    """

    since: datetime
    ticket_id: str
    surveys: tuple[str, ...]


class Conversation(Struct, frozen=True):
    """One customer's thread. `seen` holds the latest ids of messages and commands, oldest first.

    `merged_into` is where its tickets went, also those that came back or are closed: what is to be forgotten of the customer
    is to be forgotten there too. `recovery` is what low answers to surveys have brought about last.
    """

    conversation_id: str
    ticket: Ticket | None = None
    past: tuple[Past, ...] = ()
    seen: tuple[str, ...] = ()
    merged_into: tuple[Into, ...] = ()
    recovery: Recovery | None = None
