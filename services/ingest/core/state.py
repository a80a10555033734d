"""What the normaliser knows while it decides a batch, and the rows that it asks the store to write.

The `Directory` is the batch's common view of the shared tables. It is read once, set by set, and changed in place by
each decision, so that a record sees what the ones before it in the same batch have claimed. What was decided on an old
view is refused by the tables' constraints, and then the batch is read and decided again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from schemas.messages import MessageContent

AddressKey = tuple[str, str]
"""Kind and address, both normalised: `("email", "ada@example.com")`."""

SeenKey = tuple[str, str, str]
"""Channel, account and the name a message goes by there (see `dedupe.name_of`)."""

OutcomeKind = Literal["message", "duplicate", "ignored"]


class ParseError(ValueError):
    """A delivery is no message. `problem` is a name from a closed set, `detail` a sentence without content."""

    def __init__(self, problem: str, detail: str, field: str | None = None) -> None:
        super().__init__(f"{problem}: {detail}")
        self.problem = problem
        self.detail = detail
        self.field = field
        self.part = b""
        """The bytes of the part that cannot be read, where the rest of the delivery can."""


@dataclass(frozen=True, slots=True)
class Order:
    """An order as a shop tells of it. `addresses` are kinds and addresses of the customer; `total` is in `currency`."""

    vendor_order_id: str
    number: str
    addresses: tuple[tuple[str, str], ...]
    status: str
    placed_at: datetime
    updated_at: datetime
    total: str = ""
    currency: str = ""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What an adapter made of a delivery: its messages, or the reason why it means nothing here."""

    messages: tuple[MessageContent, ...] = ()
    ignored: str | None = None
    verified: bool = False
    addressed_to: tuple[str, ...] = ()
    """Addresses it was delivered to, beyond those the writer named: a reply token may stand in one."""
    unread: tuple[tuple[str, bytes], ...] = ()
    """Updates of a delivery that cannot be read while others can: why, and their bytes. Each is parked by itself."""
    orders: tuple["Order", ...] = ()
    """What a shop told about orders: known of a customer, and no message."""


@dataclass(frozen=True, slots=True)
class SeenRow:
    """A message's name at its channel is taken; the primary key decides races."""

    channel: str
    account: str
    name: str
    message_id: str
    input_id: str
    at: datetime

    @property
    def key(self) -> SeenKey:
        """The row's place in the table."""
        return (self.channel, self.account, self.name)


@dataclass(frozen=True, slots=True)
class ThreadRow:
    """A reference (a Message-ID, a vendor's id) leads to a conversation."""

    reference: str
    conversation_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ParticipantRow:
    """An address takes part in a conversation, for a customer."""

    conversation_id: str
    kind: str
    address: str
    customer_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class CustomerRow:
    """A customer, as first seen."""

    customer_id: str
    name: str
    at: datetime


@dataclass(frozen=True, slots=True)
class AddressRow:
    """An address belongs to a customer; the primary key decides races. `is_verified` only ever becomes true."""

    kind: str
    address: str
    customer_id: str
    is_verified: bool
    at: datetime

    @property
    def key(self) -> AddressKey:
        """The row's place in the table."""
        return (self.kind, self.address)


@dataclass(frozen=True, slots=True)
class ReadBackRow:
    """A delivery whose content is to be read through the vendor's API; `delivery` is the event's JSON."""

    input_id: str
    channel: str
    account: str
    delivery: str
    at: datetime


@dataclass(frozen=True, slots=True)
class OrderRow:
    """An order as a shop told of it; an older state never replaces a newer one."""

    channel: str
    account: str
    order: Order


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """What became of an input: exactly one row for each that was accepted and not parked."""

    input_id: str
    outcome: OutcomeKind
    reason: str | None
    message_id: str | None
    conversation_id: str | None
    is_automatic: bool
    at: datetime


Row = (
    SeenRow
    | ThreadRow
    | ParticipantRow
    | CustomerRow
    | AddressRow
    | ReadBackRow
    | OrderRow
    | OutcomeRow
)


@dataclass(frozen=True, slots=True)
class Participant:
    """Who takes part in a conversation under which address."""

    kind: str
    address: str
    customer_id: str


@dataclass(slots=True)
class Directory:
    """The shared tables, as far as the batch asks about them. Changed in place by `apply`.

    `parsed` holds what became of each delivery when it was read, by the input's cause. `automatic` has, for each
    conversation, when automatic messages joined it lately.
    """

    parsed: Mapping[str, Parsed | ParseError] = field(default_factory=dict)
    outcomes: dict[str, OutcomeKind] = field(default_factory=dict)
    seen: dict[SeenKey, str] = field(default_factory=dict)
    threads: dict[str, str] = field(default_factory=dict)
    participants: dict[str, list[Participant]] = field(default_factory=dict)
    addresses: dict[AddressKey, tuple[str, bool]] = field(default_factory=dict)
    automatic: dict[str, list[datetime]] = field(default_factory=dict)

    def apply(self, rows: Sequence[Row]) -> None:
        """Take a decision's rows over, as if they had been read."""
        for row in rows:
            match row:
                case SeenRow():
                    self.seen.setdefault(row.key, row.message_id)
                case ThreadRow():
                    self.threads.setdefault(row.reference, row.conversation_id)
                case ParticipantRow():
                    known = self.participants.setdefault(row.conversation_id, [])
                    known.append(Participant(row.kind, row.address, row.customer_id))
                case AddressRow():
                    self.addresses[row.key] = (row.customer_id, row.is_verified)
                case OutcomeRow():
                    self.outcomes.setdefault(row.input_id, row.outcome)
                    if row.is_automatic and row.conversation_id is not None:
                        self.automatic.setdefault(row.conversation_id, []).append(row.at)
                case CustomerRow() | ReadBackRow() | OrderRow():
                    pass  # Nothing is decided by these.


@dataclass(frozen=True, slots=True)
class Questions:
    """What has to be read before a batch can be decided."""

    input_ids: frozenset[str] = frozenset()
    seen: frozenset[SeenKey] = frozenset()
    references: frozenset[str] = frozenset()
    conversations: frozenset[str] = frozenset()
    addresses: frozenset[AddressKey] = frozenset()
