"""What the normaliser knows while it decides a batch, and the rows that it asks the store to write.

The `Directory` is the batch's common view of the shared tables. It is read once, set by set, and changed in place by
each decision, so that a record sees what the ones before it in the same batch have claimed. What was decided on an old
view is refused by the tables' constraints, and then the batch is read and decided again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

from schemas.customers import Evidence, Proof
from schemas.messages import DeliveryWord, MessageContent, Sender

AddressKey = tuple[str, str]
"""Kind and address, both normalised: `("email", "ada@example.com")`, `("phone", "+905321234567")`,
`("vendor_id", "telegram/bot/4711")`."""

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
class Receipt:
    """What a vendor or a mail server says became of a message of ours.

    `vendor_message_id` is what the provider called it, `recipient` whom it was for, `thread` the vendor's thread it stands
    in, where that is told. `is_permanent`: the address is the reason.
    """

    channel: str
    account: str
    vendor_message_id: str
    what: DeliveryWord
    recipient: Sender
    occurred_at: datetime
    thread: str | None = None
    detail: str = ""
    is_permanent: bool = False


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
    command: "IdentityCommand | None" = None
    """What a person of ours decided about customers."""
    receipts: tuple["Receipt", ...] = ()
    """What became of messages of ours."""


CommandKind = Literal["merge", "undo", "link", "unlink", "erase", "tier", "contract"]

Quality = Literal["tier", "contract"]
"""What the company says of a customer, in its own words: how important they are to it, and what they bought of its service."""


@dataclass(frozen=True, slots=True)
class IdentityCommand:
    """What a person of ours decided about customers, and who it was.

    `merge`: `other_id` leads to `customer_id` from now on. `undo`: the merge `merge_id` is taken back. `link`: the two may
    be one (this lifts an earlier "not the same"). `unlink`: they are not the same. `erase`: `customer_id` is forgotten.
    `tier`: `customer_id`, and all who are one with them, are of that `tier`; an empty one takes it away. `contract`: likewise.
    """

    do: CommandKind
    by: str
    customer_id: str = ""
    other_id: str = ""
    merge_id: str = ""
    tier: str = ""
    contract: str = ""


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
    """An address belongs to a customer; the primary key decides races.

    `is_verified` only ever becomes true, and `proof` stronger. `names` are those given by messages from it, folded.
    """

    kind: str
    address: str
    customer_id: str
    is_verified: bool
    at: datetime
    proof: Proof = "none"
    names: tuple[str, ...] = ()

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


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """A customer wrote, or a vendor told of them, an address beside the one they wrote from."""

    kind: str
    address: str
    customer_id: str
    is_attested: bool
    channel: str
    at: datetime


@dataclass(frozen=True, slots=True)
class InteractionRow:
    """What a customer said, in short, for the context of later messages and for finding all that is theirs."""

    customer_id: str
    message_id: str
    conversation_id: str
    input_id: str
    channel: str
    account: str
    language: str | None
    words: str
    body_ref: str | None
    files: tuple[str, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class BasisRow:
    """A decision that rests on where a customer leads: it stands only while their row is of this version."""

    customer_id: str
    version: int


LinkStatus = Literal["noted", "suggested", "merged", "refused"]


@dataclass(frozen=True, slots=True)
class LinkRow:
    """What speaks for two customers being one, and what came of it. `low_id` is the smaller of the two ids."""

    low_id: str
    high_id: str
    status: LinkStatus
    score: float
    evidence: tuple[Evidence, ...]
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class MergeRow:
    """`from_id` leads to `into_id`. `members` and `conversations` are those of `from_id` that the decision knew."""

    merge_id: str
    into_id: str
    from_id: str
    score: float
    evidence: tuple[Evidence, ...]
    by: str
    at: datetime
    members: tuple[str, ...]
    conversations: frozenset[str]


@dataclass(frozen=True, slots=True)
class UnmergeRow:
    """The merge is taken back: `from_id` leads to nobody."""

    merge_id: str
    into_id: str
    from_id: str
    by: str
    at: datetime
    members: tuple[str, ...]
    conversations: frozenset[str]


@dataclass(frozen=True, slots=True)
class QualityRow:
    """What the company says of `members` from now on; an empty `word`: nothing of the kind."""

    members: tuple[str, ...]
    what: Quality
    word: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class EraseRow:
    """All that is kept of `members` is removed; `sessions` are their web chats."""

    erasure_id: str
    customer_id: str
    members: tuple[str, ...]
    conversations: frozenset[str]
    messages: int
    files: tuple[str, ...]
    sessions: tuple[str, ...]
    by: str
    at: datetime


Row = (
    SeenRow
    | ThreadRow
    | ParticipantRow
    | CustomerRow
    | AddressRow
    | ClaimRow
    | InteractionRow
    | BasisRow
    | LinkRow
    | MergeRow
    | UnmergeRow
    | QualityRow
    | EraseRow
    | ReadBackRow
    | OrderRow
    | OutcomeRow
)


class Known(NamedTuple):
    """What is known of an address: whose it was from the beginning, whether it was ever proved, how, and its names."""

    customer_id: str
    is_verified: bool
    proof: Proof = "none"
    names: tuple[str, ...] = ()


class Customer(NamedTuple):
    """A customer's row: when they were first seen, whom they lead to, of which version that is, and what is said of them."""

    at: datetime
    name: str = ""
    merged_into: str | None = None
    version: int = 0
    tier: str = ""
    contract: str = ""


class Claim(NamedTuple):
    """Who claims an address, whether a vendor vouches for that, and on which channel it was told."""

    customer_id: str
    is_attested: bool
    channel: str


class Link(NamedTuple):
    """What speaks for two customers being one, and how that stands."""

    status: LinkStatus
    evidence: tuple[Evidence, ...] = ()


class Merge(NamedTuple):
    """A merge that was made, and whether it still stands."""

    into_id: str
    from_id: str
    is_live: bool


class Said(NamedTuple):
    """One thing a customer said, in short."""

    message_id: str
    conversation_id: str
    channel: str
    language: str | None
    words: str
    at: datetime


class OrderSeen(NamedTuple):
    """An order as the shop told it last, and the addresses it was placed with."""

    number: str
    status: str
    total: str
    currency: str
    placed_at: datetime
    addresses: tuple[AddressKey, ...]


SAID_MAX = 20
"""How many of a customer's latest messages are known while a batch is decided."""


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

    Everything about customers is by their own id, before any merge: `customers` with whom each leads to, `children` with
    who leads to each, `kinds` with the kinds of their addresses, `said` (oldest first) and `conversation_counts` for the
    context, and `conversations` with all their conversations and messages, for those only who may be merged or forgotten.
    `files` are attachments that nobody but the forgotten has.
    """

    parsed: Mapping[str, Parsed | ParseError] = field(default_factory=dict)
    outcomes: dict[str, OutcomeKind] = field(default_factory=dict)
    seen: dict[SeenKey, str] = field(default_factory=dict)
    threads: dict[str, str] = field(default_factory=dict)
    participants: dict[str, list[Participant]] = field(default_factory=dict)
    addresses: dict[AddressKey, Known] = field(default_factory=dict)
    automatic: dict[str, list[datetime]] = field(default_factory=dict)
    customers: dict[str, Customer] = field(default_factory=dict)
    children: dict[str, list[str]] = field(default_factory=dict)
    claims: dict[AddressKey, list[Claim]] = field(default_factory=dict)
    links: dict[tuple[str, str], Link] = field(default_factory=dict)
    merges: dict[str, Merge] = field(default_factory=dict)
    addresses_of: dict[str, list[AddressKey]] = field(default_factory=dict)
    said: dict[str, list[Said]] = field(default_factory=dict)
    conversation_counts: dict[str, int] = field(default_factory=dict)
    conversations: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    orders: list[OrderSeen] = field(default_factory=list)
    _by_address: dict[AddressKey, list[OrderSeen]] = field(default_factory=dict)
    _by_number: dict[str, list[OrderSeen]] = field(default_factory=dict)
    _indexed: int = 0

    def _index_orders(self) -> None:
        for order in self.orders[self._indexed :]:
            self._by_number.setdefault(order.number.lstrip("#"), []).append(order)
            for key in order.addresses:
                self._by_address.setdefault(key, []).append(order)
        self._indexed = len(self.orders)

    def orders_of(self, keys: Iterable[AddressKey]) -> set[OrderSeen]:
        """Return the orders placed with any of these addresses."""
        self._index_orders()
        return {order for key in keys for order in self._by_address.get(key, ())}

    def orders_numbered(self, number: str) -> Sequence[OrderSeen]:
        """Return the orders of a number, which several shops may use; a leading `#` does not count."""
        self._index_orders()
        return self._by_number.get(number, ())

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
                    count = self.conversation_counts.get(row.customer_id, 0)
                    self.conversation_counts[row.customer_id] = count + 1
                case OutcomeRow():
                    self.outcomes.setdefault(row.input_id, row.outcome)
                    if row.is_automatic and row.conversation_id is not None:
                        self.automatic.setdefault(row.conversation_id, []).append(row.at)
                case ReadBackRow() | OrderRow() | BasisRow():
                    pass  # Nothing is decided by these.
                case _:
                    self._apply_customer(row)

    def _apply_customer(
        self,
        row: CustomerRow
        | AddressRow
        | ClaimRow
        | InteractionRow
        | LinkRow
        | MergeRow
        | UnmergeRow
        | QualityRow
        | EraseRow,
    ) -> None:
        match row:
            case CustomerRow():
                self.customers.setdefault(row.customer_id, Customer(row.at, row.name))
            case AddressRow():
                if row.key not in self.addresses:
                    self.addresses_of.setdefault(row.customer_id, []).append(row.key)
                self.addresses[row.key] = Known(
                    row.customer_id, row.is_verified, row.proof, row.names
                )
            case ClaimRow():
                claims = self.claims.setdefault((row.kind, row.address), [])
                claims[:] = [one for one in claims if one.customer_id != row.customer_id]
                claims.append(Claim(row.customer_id, row.is_attested, row.channel))
            case InteractionRow():
                said = self.said.setdefault(row.customer_id, [])
                said.append(
                    Said(
                        row.message_id,
                        row.conversation_id,
                        row.channel,
                        row.language,
                        row.words,
                        row.at,
                    )
                )
                del said[:-SAID_MAX]
                of = self.conversations.setdefault(row.customer_id, {})
                of.setdefault(row.conversation_id, []).append(row.message_id)
            case LinkRow():
                self.links[row.low_id, row.high_id] = Link(row.status, row.evidence)
                self._touch((row.low_id, row.high_id), {})
            case MergeRow():
                self._touch((row.into_id, row.from_id), {row.from_id: row.into_id})
                self.children.setdefault(row.into_id, []).append(row.from_id)
                self.merges[row.merge_id] = Merge(row.into_id, row.from_id, is_live=True)
            case UnmergeRow():
                self._touch((row.into_id, row.from_id), {row.from_id: None})
                self.children[row.into_id].remove(row.from_id)
                self.merges[row.merge_id] = Merge(row.into_id, row.from_id, is_live=False)
            case QualityRow():
                for member in row.members:
                    known = self.customers[member]
                    if row.what == "tier":
                        self.customers[member] = known._replace(tier=row.word)
                    else:
                        self.customers[member] = known._replace(contract=row.word)
            case EraseRow():
                self._forget(row)

    def _touch(self, ids: Sequence[str], leads: Mapping[str, str | None]) -> None:
        """Raise the versions of customers whose standing to others changed; some lead to somebody else now."""
        for customer_id in ids:
            one = self.customers[customer_id]
            into = leads.get(customer_id, one.merged_into)
            self.customers[customer_id] = one._replace(merged_into=into, version=one.version + 1)

    def _forget(self, row: EraseRow) -> None:
        gone = set(row.members)
        self._touch(row.members, dict.fromkeys(row.members))
        self.addresses = {k: v for k, v in self.addresses.items() if v.customer_id not in gone}
        for claims in self.claims.values():
            claims[:] = [one for one in claims if one.customer_id not in gone]
        for known in self.participants.values():
            known[:] = [one for one in known if one.customer_id not in gone]
        self.links = {k: v for k, v in self.links.items() if not gone & set(k)}
        self.merges = {
            k: v for k, v in self.merges.items() if v.into_id not in gone and v.from_id not in gone
        }
        for member in gone:
            self.customers[member] = self.customers[member]._replace(name="", tier="", contract="")
            self.children.pop(member, None)
            self.addresses_of.pop(member, None)
            self.said.pop(member, None)
            self.conversation_counts.pop(member, None)
            self.conversations.pop(member, None)
            self.files.pop(member, None)
        self.threads = {
            reference: conversation_id
            for reference, conversation_id in self.threads.items()
            if conversation_id not in row.conversations
        }


@dataclass(frozen=True, slots=True)
class Questions:
    """What has to be read before a batch can be decided."""

    input_ids: frozenset[str] = frozenset()
    seen: frozenset[SeenKey] = frozenset()
    references: frozenset[str] = frozenset()
    conversations: frozenset[str] = frozenset()
    addresses: frozenset[AddressKey] = frozenset()
    """Whose they are is asked: of those who write, and of those that are claimed."""
    claimed: frozenset[AddressKey] = frozenset()
    """Addresses told beside the one a message came from."""
    claimers: frozenset[AddressKey] = frozenset()
    """Addresses that such messages came from."""
    orders: frozenset[str] = frozenset()
    """Numbers of orders that messages name."""
    customers: frozenset[str] = frozenset()
    """Customers that a person of ours decides about."""
    erased: frozenset[str] = frozenset()
    """Those of them who are to be forgotten."""
    merges: frozenset[str] = frozenset()
    """Merges to be taken back."""
