"""Customers that turn out to be one, or not: what a message adds to the evidence, and what a person of ours decides.

A merge lets one customer lead to another; both keep their ids, their addresses and what they said. Taking it back lets
them go, and whatever came meanwhile stays with whoever wrote it. Only evidence between the two that a message speaks of is
looked at: a merge never sets off another.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from schemas import ids
from schemas.customers import (
    CustomerDescribed,
    CustomerErased,
    CustomerEvent,
    CustomerLinkSuggested,
    CustomerMerged,
    CustomerUnmerged,
    Evidence,
    EvidenceKind,
)
from schemas.messages import MessageContent
from services.ingest.core import linking
from services.ingest.core.context import Description, described
from services.ingest.core.identity import (
    PROVED,
    Identified,
    claims_of,
    fold_name,
    members_of,
    orders_of,
    root_of,
)
from services.ingest.core.state import (
    AddressKey,
    AddressRow,
    BasisRow,
    ClaimRow,
    CommandKind,
    Directory,
    EraseRow,
    IdentityCommand,
    LinkRow,
    LinkStatus,
    MergeRow,
    ParseError,
    Quality,
    QualityRow,
    Row,
    UnmergeRow,
)

CHANNEL: Final = "identity"
"""The channel by which a person's decisions come in; no account may be on it."""

METHOD: Final = "COMMAND"
"""How such a delivery is marked. The gateway marks none so, whatever it is sent."""

SIGNALBOX: Final = "signalbox"
"""Who decided, where no person did."""

MESSAGE_IDS_MAX: Final = 2_000
"""Ids of messages in one event; a conversation with more is told of in several."""


WORD_MAX: Final = 100
"""Characters of a tier or a contract."""


class Changed(NamedTuple):
    """What is told and written, and a command's result, a name of a closed set."""

    events: tuple[CustomerEvent, ...] = ()
    rows: tuple[Row, ...] = ()
    result: str = ""


class _Wire(msgspec.Struct, forbid_unknown_fields=True):
    do: CommandKind
    by: str
    customer_id: str = ""
    other_id: str = ""
    merge_id: str = ""
    tier: str = ""
    contract: str = ""


_DECODER: Final = msgspec.json.Decoder(_Wire)


def encode_command(command: IdentityCommand) -> bytes:
    """Return a command as the body of a delivery."""
    return msgspec.json.encode(command)


def read_command(body: bytes) -> IdentityCommand:
    """Read what `encode_command` wrote.

    Raises:
        ParseError: it is no command.
    """
    try:
        told = _DECODER.decode(body)
    except msgspec.MsgspecError as error:
        raise ParseError("invalid_command", str(error)[:200], "body") from None
    if not told.by.strip() or len(told.by) > 100 or not told.by.isprintable():
        raise ParseError("invalid_command", "by: must name who decides", "by")
    for name, word in (("tier", told.tier), ("contract", told.contract)):
        if not is_word(word):
            raise ParseError(
                "invalid_command", f"{name}: must be a word of at most {WORD_MAX} characters", name
            )
    return IdentityCommand(
        told.do,
        told.by,
        told.customer_id,
        told.other_id,
        told.merge_id,
        told.tier,
        told.contract,
    )


def is_word(word: str) -> bool:
    """Whether a tier or a contract may be called so; the empty word takes it away."""
    return len(word) <= WORD_MAX and word.isprintable() and word == word.strip()


# ---------------------------------------------------------------------------- what a message adds


def learn(
    directory: Directory,
    workspace: str,
    content: MessageContent,
    who: Identified,
    conversation_id: str,
    now: datetime,
    region: str = "",
) -> Changed:
    """Note what a message tells of its writer, and follow what that makes likely. Changes `directory`."""
    if not who.key[1]:
        return Changed()
    made = _Making(directory, workspace, conversation_id, SIGNALBOX, now)
    known = directory.addresses[who.key]
    is_proved = known.proof in PROVED
    found: dict[str, list[_Found]] = {}
    for claim in claims_of(content, region):
        is_attested = claim.is_attested and is_proved
        _compare_claim(directory, who, claim.key, is_attested, content.channel, found)
        _keep_claim(made, who.origin_id, claim.key, is_attested, content.channel)
    for other in directory.claims.get(who.key, ()):
        proved = other.is_attested and is_proved
        kind, how = _kind_of(who.key, other.is_attested)
        detail = (
            f"{other.channel} {how} {linking.masked(who.key)}, which writes by {content.channel}"
        )
        piece = linking.evidence(kind, detail, is_proved=proved)
        found.setdefault(other.customer_id, []).append(_Found(piece, who.key))
    for number in orders_of(content):
        _compare_order(directory, number, fold_name(content.sender.name), found)
    for other_id in sorted(found):
        if root_of(directory, other_id) != root_of(directory, who.origin_id):
            made.consider(who.origin_id, other_id, found[other_id])
    return Changed(tuple(made.events), tuple(made.rows))


class _Found(NamedTuple):
    piece: Evidence
    through: AddressKey


def _kind_of(key: AddressKey, is_attested: bool) -> tuple[EvidenceKind, str]:
    if key[0] == "email":
        return ("attested_mail", "attests") if is_attested else ("claimed_mail", "was told")
    return ("attested_phone", "attests") if is_attested else ("claimed_phone", "was told")


def _compare_claim(
    directory: Directory,
    who: Identified,
    key: AddressKey,
    is_attested: bool,
    channel: str,
    found: dict[str, list[_Found]],
) -> None:
    owner = directory.addresses.get(key)
    if owner is not None:
        kind, how = _kind_of(key, is_attested)
        proof = f", proved by {owner.proof}" if owner.proof in PROVED else ", which nothing proves"
        detail = f"{channel} {how} {linking.masked(key)}{proof}"
        piece = linking.evidence(kind, detail, is_proved=is_attested and owner.proof in PROVED)
        found.setdefault(owner.customer_id, []).append(_Found(piece, key))
    for other in directory.claims.get(key, ()):
        if other.customer_id != who.origin_id:
            detail = f"{channel} and {other.channel} were both told {linking.masked(key)}"
            piece = linking.evidence("same_claim", detail)
            found.setdefault(other.customer_id, []).append(_Found(piece, key))


def _keep_claim(
    made: "_Making", origin_id: str, key: AddressKey, is_attested: bool, channel: str
) -> None:
    """An attested address that nobody has becomes the customer's own; all others are kept as told."""
    directory = made.directory
    owner = directory.addresses.get(key)
    if owner is None and is_attested:
        made.add(AddressRow(*key, origin_id, True, made.now, "vendor_verified"))
        return
    if owner is not None and owner.customer_id == origin_id:
        return
    known = [one for one in directory.claims.get(key, ()) if one.customer_id == origin_id]
    if not known or (is_attested and not known[0].is_attested):
        made.add(ClaimRow(*key, origin_id, is_attested, channel, made.now))


def _compare_order(
    directory: Directory, number: str, name: str, found: dict[str, list[_Found]]
) -> None:
    for order in directory.orders_numbered(number):
        for key in order.addresses:
            owner = directory.addresses.get(key)
            if owner is None:
                continue
            is_same = bool(name) and name in owner.names
            detail = f"both speak of order {number}" + (" under the same name" if is_same else "")
            piece = linking.evidence("order_and_name" if is_same else "same_order", detail)
            found.setdefault(owner.customer_id, []).append(_Found(piece, key))


class _Making:
    """What one input changes, step by step: each row is applied at once."""

    def __init__(
        self, directory: Directory, workspace: str, conversation_id: str, by: str, now: datetime
    ) -> None:
        self.directory = directory
        self.workspace = workspace
        self.conversation_id = conversation_id
        self.by = by
        self.now = now
        self.rows: list[Row] = []
        self.events: list[CustomerEvent] = []

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self.directory.apply((row,))

    def rest_on(self, *customer_ids: str) -> None:
        """What follows stands only if these customers stand as they are known."""
        for customer_id in dict.fromkeys(customer_ids):
            self.rows.append(BasisRow(customer_id, self.directory.customers[customer_id].version))

    def consider(self, one: str, other: str, found: list[_Found]) -> None:
        """Add evidence between two customers, and do what it comes to."""
        directory = self.directory
        low, high = linking.pair(one, other)
        link = directory.links.get((low, high))
        before = link.evidence if link is not None else ()
        pieces = linking.combine(
            (*before, *(each.piece for each in found), *self._name(one, other))
        )
        if link is not None and pieces == before:
            return
        roots = root_of(directory, one), root_of(directory, other)
        groups = [members_of(directory, root) for root in roots]
        shared = any(
            linking.is_shared(each.through, _names(directory, each.through)) for each in found
        )
        judged = linking.judge(
            pieces,
            is_refused=is_refused(directory, *groups),
            is_shared=shared,
            members=len(groups[0]) + len(groups[1]),
        )
        self.rest_on(*groups[0], *groups[1], one, other)
        status = link.status if link is not None else "noted"
        if status != "refused" and judged.verdict == "merge":
            self.link(low, high, "merged", judged.score, pieces)
            into, gone = _older_first(directory, *roots)
            self.merge(into, gone, judged.score, pieces, cause=f"{low}/{high}")
            return
        if judged.verdict == "suggest" and status == "noted":
            self.link(low, high, "suggested", judged.score, pieces)
            self.events.append(
                CustomerLinkSuggested(
                    conversation_id=self.conversation_id,
                    customer_id=roots[0],
                    other_id=roots[1],
                    score=judged.score,
                    evidence=pieces,
                    objection=judged.objection,
                    by=self.by,
                    at=self.now,
                )
            )
            return
        self.link(low, high, status, judged.score, pieces)

    def _name(self, one: str, other: str) -> Iterable[Evidence]:
        names = [
            {name for key in self.directory.addresses_of.get(customer_id, ()) for name in _names(self.directory, key)}
            | {fold_name(self.directory.customers[customer_id].name)} - {""}
            for customer_id in (one, other)
        ]  # fmt: skip
        if names[0] & names[1]:
            yield linking.evidence("same_name", "they give the same name")

    def link(
        self,
        low: str,
        high: str,
        status: LinkStatus,
        score: float,
        pieces: tuple[Evidence, ...],
    ) -> None:
        self.add(LinkRow(low, high, status, score, pieces, self.by, self.now))

    def merge(
        self, into: str, gone: str, score: float, pieces: tuple[Evidence, ...], *, cause: str
    ) -> None:
        """Let `gone`, who leads to nobody, lead to `into`, who does neither; tell each conversation of it."""
        members = members_of(self.directory, gone)
        conversations = _conversations(self.directory, members)
        before = self.said_of(into, gone)
        merge_id = ids.derive("merge", self.workspace, into, gone, cause, self.now.isoformat())
        self.add(
            MergeRow(
                merge_id,
                into,
                gone,
                score,
                pieces,
                self.by,
                self.now,
                members,
                frozenset(conversations),
            )
        )
        self.events.extend(
            CustomerMerged(
                conversation_id=conversation_id,
                merge_id=merge_id,
                customer_id=into,
                merged_id=gone,
                members=members,
                score=score,
                evidence=pieces,
                by=self.by,
                at=self.now,
            )
            for conversation_id in conversations
        )
        self.describe(before)

    def said_of(self, *customer_ids: str) -> dict[str, Description]:
        """Return what is said of these customers and of all who lead to them, by their ids."""
        said: dict[str, Description] = {}
        for customer_id in customer_ids:
            members = members_of(self.directory, customer_id)
            said.update(dict.fromkeys(members, described(self.directory, members)))
        return said

    def describe(self, before: dict[str, Description]) -> None:
        """Tell the conversations of customers of whom something else is said than `before`."""
        directory = self.directory
        for root in dict.fromkeys(root_of(directory, one) for one in before):
            members = members_of(directory, root)
            now = described(directory, members)
            changed = [one for one in members if before.get(one, now) != now]
            self.events.extend(
                CustomerDescribed(
                    conversation_id=conversation_id,
                    customer_id=root,
                    members=members,
                    tier=now.tier,
                    contract=now.contract,
                    by=self.by,
                    at=self.now,
                )
                for conversation_id in _conversations(directory, changed)
            )


def _names(directory: Directory, key: AddressKey) -> tuple[str, ...]:
    known = directory.addresses.get(key)
    return known.names if known is not None else ()


def _conversations(directory: Directory, members: Iterable[str]) -> list[str]:
    return sorted({c for member in members for c in directory.conversations.get(member, ())})


def _older_first(directory: Directory, one: str, other: str) -> tuple[str, str]:
    """Return the two with the one first who was there first; the other will lead to them."""
    age = [(directory.customers[each].at, each) for each in (one, other)]
    return (one, other) if age[0] <= age[1] else (other, one)


def is_refused(directory: Directory, members: Iterable[str], others: Iterable[str]) -> bool:
    """Whether a person said of any two of them that they are not the same."""
    others = tuple(others)
    return any(
        (link := directory.links.get(linking.pair(one, other))) is not None
        and link.status == "refused"
        for one in members
        for other in others
    )


# ------------------------------------------------------------------------ what a person decides


def obey(directory: Directory, workspace: str, command: IdentityCommand, now: datetime) -> Changed:
    """Do what a person of ours decided; `result` says what came of it. Changes `directory`."""
    made = _Making(directory, workspace, "", command.by, now)
    match command.do:
        case "undo":
            result = _undo(made, command.merge_id)
        case "erase":
            result = _erase(made, command.customer_id)
        case "tier":
            result = _describe(made, command.customer_id, "tier", command.tier)
        case "contract":
            result = _describe(made, command.customer_id, "contract", command.contract)
        case _:
            result = _of_two(made, command)
    return Changed(tuple(made.events), tuple(made.rows), result)


def _describe(made: _Making, customer_id: str, what: Quality, word: str) -> str:
    """Say it of everybody who is one with them now, so that it stays true of both if they are parted again."""
    directory = made.directory
    if customer_id not in directory.customers:
        return "refused_unknown_customer"
    root = root_of(directory, customer_id)
    members = members_of(directory, root)
    made.rest_on(*members)
    before = made.said_of(root)
    made.add(QualityRow(members, what, word, made.by, made.now))
    made.describe(before)
    return f"customer_{what}_set" if word else f"customer_{what}_removed"


def _of_two(made: _Making, command: IdentityCommand) -> str:
    directory = made.directory
    asked = (command.customer_id, command.other_id)
    if not all(one in directory.customers for one in asked):
        return "refused_unknown_customer"
    into, gone = (root_of(directory, one) for one in asked)
    if into == gone:
        return "refused_already_one" if command.do != "link" else "customers_already_one"
    groups = members_of(directory, into), members_of(directory, gone)
    low, high = linking.pair(*asked)
    link = directory.links.get((low, high))
    before = link.evidence if link is not None else ()
    made.rest_on(*groups[0], *groups[1])
    if command.do == "unlink":
        made.link(low, high, "refused", linking.score(before), before)
        return "customers_parted"
    said = linking.evidence("operator", f"{command.by} says so", is_proved=True)
    pieces = linking.combine((*before, said))
    if command.do == "link":
        _lift_refusals(made, groups)
        made.link(low, high, "suggested", linking.score(pieces), pieces)
        return "customers_linked"
    if is_refused(directory, *groups):
        return "refused_not_the_same"
    made.link(low, high, "merged", 1.0, pieces)
    made.merge(into, gone, 1.0, pieces, cause=f"by {command.by}")
    return "customers_merged"


def _lift_refusals(made: _Making, groups: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    for one in groups[0]:
        for other in groups[1]:
            low, high = linking.pair(one, other)
            link = made.directory.links.get((low, high))
            if link is not None and link.status == "refused":
                made.link(low, high, "noted", linking.score(link.evidence), link.evidence)


def _undo(made: _Making, merge_id: str) -> str:
    directory = made.directory
    merge = directory.merges.get(merge_id)
    if merge is None:
        return "refused_unknown_merge"
    if not merge.is_live:
        return "refused_already_undone"
    members = members_of(directory, merge.from_id)
    root = root_of(directory, merge.into_id)
    made.rest_on(*members_of(directory, root))
    conversations = _conversations(directory, members)
    before = made.said_of(root)
    made.add(
        UnmergeRow(
            merge_id,
            merge.into_id,
            merge.from_id,
            made.by,
            made.now,
            members,
            frozenset(conversations),
        )
    )
    low, high = linking.pair(merge.into_id, merge.from_id)
    link = directory.links.get((low, high))
    pieces = link.evidence if link is not None else ()
    made.link(low, high, "refused", linking.score(pieces), pieces)
    made.events.extend(
        CustomerUnmerged(
            conversation_id=conversation_id,
            merge_id=merge_id,
            customer_id=merge.from_id,
            left_id=root,
            members=members,
            by=made.by,
            at=made.now,
        )
        for conversation_id in conversations
    )
    made.describe(before)
    return "customers_unmerged"


def _erase(made: _Making, customer_id: str) -> str:
    directory = made.directory
    if customer_id not in directory.customers:
        return "refused_unknown_customer"
    root = root_of(directory, customer_id)
    members = members_of(directory, root)
    made.rest_on(*members)
    messages: dict[str, list[str]] = {}
    for member in members:
        for conversation_id, found in directory.conversations.get(member, {}).items():
            messages.setdefault(conversation_id, []).extend(found)
    sessions = {
        address.rsplit("/", 1)[-1]
        for member in members
        for kind, address in directory.addresses_of.get(member, ())
        if kind == "vendor_id" and address.startswith("webchat/")
    }
    files = {one for member in members for one in directory.files.get(member, ())}
    made.add(
        EraseRow(
            ids.derive("erasure", made.workspace, root, made.now.isoformat()),
            root,
            members,
            frozenset(messages),
            sum(map(len, messages.values())),
            tuple(sorted(files)),
            tuple(sorted(sessions)),
            made.by,
            made.now,
        )
    )
    for conversation_id, found in sorted(messages.items()):
        for start in range(0, max(len(found), 1), MESSAGE_IDS_MAX):
            made.events.append(
                CustomerErased(
                    conversation_id=conversation_id,
                    customer_id=root,
                    members=members,
                    message_ids=tuple(found[start : start + MESSAGE_IDS_MAX]),
                    by=made.by,
                    at=made.now,
                )
            )
    return "customer_erased"
