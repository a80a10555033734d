"""Customers' tables: read set by set for a batch, written in its transaction, one statement a table.

What a batch decided about where customers lead rests on versions of their rows. Writing begins by locking these rows, in
the order of their ids, and comparing: another version means that somebody else decided meanwhile, and `Conflict` has the
batch read and decided again. Rows are locked for sharing where the batch only used them, so that messages of one customer
do not wait for each other.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec

from chassis.errors import Conflict
from chassis.stage import Connection
from schemas import ids
from schemas.customers import Evidence
from services.ingest.core.identity import members_of, root_of
from services.ingest.core.state import (
    SAID_MAX,
    AddressKey,
    AddressRow,
    BasisRow,
    Claim,
    ClaimRow,
    Customer,
    CustomerRow,
    Directory,
    EraseRow,
    InteractionRow,
    Known,
    Link,
    LinkRow,
    Merge,
    MergeRow,
    OrderSeen,
    Quality,
    QualityRow,
    Questions,
    Said,
    UnmergeRow,
)

ORDERS_MAX: Final = 5_000
"""Orders read for one batch, the newest first."""

COUNT_MAX: Final = 100

_ADDRESSES: Final = """
    SELECT a.kind, a.address, a.customer_id, a.is_verified, a.proof, a.names
      FROM unnest($2::text[], $3::text[]) AS asked (kind, address)
      JOIN customer_address a ON a.workspace = $1 AND (a.kind, a.address) = (asked.kind, asked.address)
"""
_ADDRESSES_OF: Final = """
    SELECT kind, address, customer_id, is_verified, proof, names FROM customer_address
     WHERE workspace = $1 AND customer_id = ANY($2::text[])
"""
_CLAIMS: Final = """
    SELECT c.kind, c.address, c.customer_id, c.is_attested, c.channel
      FROM unnest($2::text[], $3::text[]) AS asked (kind, address)
      JOIN customer_claim c ON c.workspace = $1 AND (c.kind, c.address) = (asked.kind, asked.address)
     ORDER BY c.kind, c.address, c.customer_id
"""
_CUSTOMERS: Final = """
    SELECT customer_id, name, at, merged_into, version, tier, contract FROM customer WHERE workspace = $1 AND customer_id = ANY($2::text[])
"""
_CHILDREN: Final = """
    SELECT customer_id, name, at, merged_into, version, tier, contract FROM customer WHERE workspace = $1 AND merged_into = ANY($2::text[])
"""
_SAID: Final = """
    SELECT said.* FROM unnest($2::text[]) AS asked (customer_id)
     CROSS JOIN LATERAL (
           SELECT customer_id, message_id, conversation_id, channel, language, words, at FROM customer_interaction
            WHERE workspace = $1 AND customer_id = asked.customer_id ORDER BY at DESC LIMIT $3) AS said
     ORDER BY said.at, said.message_id
"""
_COUNTS: Final = """
    SELECT asked.customer_id, (SELECT count(*) FROM (
           SELECT 1 FROM participant WHERE workspace = $1 AND customer_id = asked.customer_id LIMIT $3) AS counted) AS n
      FROM unnest($2::text[]) AS asked (customer_id)
"""
_ORDERS: Final = """
    SELECT number, status, total, currency, placed_at, addresses FROM customer_order
     WHERE workspace = $1 AND addresses && $2::text[] ORDER BY placed_at DESC LIMIT $3
"""
_ORDERS_BY_NUMBER: Final = """
    SELECT number, status, total, currency, placed_at, addresses FROM customer_order
     WHERE workspace = $1 AND number = ANY($2::text[]) ORDER BY placed_at DESC LIMIT $3
"""
_MERGES: Final = """
    SELECT merge_id, into_id, from_id, undone_at IS NULL AS is_live FROM customer_merge
     WHERE workspace = $1 AND merge_id = ANY($2::text[])
"""
_LINKS: Final = """
    SELECT low_id, high_id, status, evidence FROM customer_link
     WHERE workspace = $1 AND low_id = ANY($2::text[]) AND high_id = ANY($2::text[])
"""
_CONVERSATIONS: Final = """
    SELECT customer_id, conversation_id FROM customer_interaction WHERE workspace = $1 AND customer_id = ANY($2::text[])
     UNION
    SELECT customer_id, conversation_id FROM participant WHERE workspace = $1 AND customer_id = ANY($2::text[])
     ORDER BY 1, 2
"""
_MESSAGES: Final = """
    SELECT customer_id, conversation_id, message_id FROM customer_interaction
     WHERE workspace = $1 AND customer_id = ANY($2::text[]) ORDER BY at, message_id
"""
_FILES: Final = """
    SELECT DISTINCT mine.customer_id, file FROM customer_interaction mine CROSS JOIN unnest(mine.files) AS file
     WHERE mine.workspace = $1 AND mine.customer_id = ANY($2::text[])
       AND NOT EXISTS (SELECT 1 FROM customer_interaction other
                        WHERE other.workspace = $1 AND other.files <> '{}' AND other.files @> ARRAY[file]
                          AND other.customer_id <> ALL($2::text[]))
"""
_LOCK: Final = """
    SELECT customer_id, version FROM customer WHERE workspace = $1 AND customer_id = ANY($2::text[])
     ORDER BY customer_id FOR NO KEY UPDATE
"""
_SHARE: Final = """
    SELECT customer_id, version FROM customer WHERE workspace = $1 AND customer_id = ANY($2::text[])
     ORDER BY customer_id FOR SHARE
"""
_INSERT_CUSTOMERS: Final = """
    INSERT INTO customer (workspace, customer_id, name, at)
    SELECT $1, * FROM unnest($2::text[], $3::text[], $4::timestamptz[])
    ON CONFLICT (workspace, customer_id) DO UPDATE SET name = excluded.name, erased_at = NULL
     WHERE customer.erased_at IS NOT NULL
"""
_INSERT_ADDRESSES: Final = """
    INSERT INTO customer_address (workspace, kind, address, customer_id, is_verified, proof, proved_at, names, at)
    SELECT $1, kind, address, customer_id, is_verified, proof, CASE WHEN proof <> 'none' THEN at END,
           coalesce(string_to_array(names, E'\n'), '{}'), at
      FROM unnest($2::text[], $3::text[], $4::text[], $5::boolean[], $6::text[], $7::text[], $8::timestamptz[])
        AS told (kind, address, customer_id, is_verified, proof, names, at)
    ON CONFLICT (workspace, kind, address) DO UPDATE
       SET is_verified = customer_address.is_verified OR excluded.is_verified,
           proof = CASE WHEN excluded.proof = 'none' THEN customer_address.proof ELSE excluded.proof END,
           proved_at = CASE WHEN excluded.proof IN ('none', customer_address.proof) THEN customer_address.proved_at
                            ELSE excluded.proved_at END,
           names = CASE WHEN cardinality(excluded.names) > cardinality(customer_address.names) THEN excluded.names
                        ELSE customer_address.names END
    RETURNING kind, address, customer_id
"""
_INSERT_CLAIMS: Final = """
    INSERT INTO customer_claim (workspace, kind, address, customer_id, is_attested, channel, at)
    SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::boolean[], $6::text[], $7::timestamptz[])
    ON CONFLICT (workspace, kind, address, customer_id) DO UPDATE
       SET is_attested = customer_claim.is_attested OR excluded.is_attested, channel = excluded.channel
"""
_INSERT_INTERACTIONS: Final = """
    INSERT INTO customer_interaction
           (workspace, customer_id, message_id, conversation_id, input_id, channel, account, language, words, body_ref,
            files, at)
    SELECT $1, customer_id, message_id, conversation_id, input_id, channel, account, language, words, body_ref,
           coalesce(string_to_array(files, ' '), '{}'), at
      FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
                  $10::text[], $11::text[], $12::timestamptz[])
        AS told (customer_id, message_id, conversation_id, input_id, channel, account, language, words, body_ref, files,
                 at)
    ON CONFLICT (workspace, message_id) DO NOTHING
"""
_PUT_LINKS: Final = """
    INSERT INTO customer_link (workspace, low_id, high_id, status, score, evidence, by, at)
    SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::real[], $6::jsonb[], $7::text[], $8::timestamptz[])
    ON CONFLICT (workspace, low_id, high_id) DO UPDATE
       SET status = excluded.status, score = excluded.score, evidence = excluded.evidence, by = excluded.by,
           at = excluded.at
"""
_UNDO: Final = """
    UPDATE customer_merge AS m SET undone_by = told.by, undone_at = told.at
      FROM unnest($2::text[], $3::text[], $4::timestamptz[]) AS told (merge_id, by, at)
     WHERE m.workspace = $1 AND m.merge_id = told.merge_id AND m.undone_at IS NULL
"""
_INSERT_MERGES: Final = """
    INSERT INTO customer_merge (workspace, merge_id, into_id, from_id, score, evidence, by, at, undone_by, undone_at)
    SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::real[], $6::jsonb[], $7::text[], $8::timestamptz[],
                             $9::text[], $10::timestamptz[])
"""
_LEAD: Final = """
    UPDATE customer AS c SET merged_into = told.into_id
      FROM unnest($2::text[], $3::text[]) AS told (from_id, into_id)
     WHERE c.workspace = $1 AND c.customer_id = told.from_id
"""
_SET_QUALITY: Final[Mapping[Quality, str]] = {
    "tier": """
    UPDATE customer SET tier = $3, tier_by = $4, tier_at = $5 WHERE workspace = $1 AND customer_id = ANY($2::text[])
    """,
    "contract": """
    UPDATE customer SET contract = $3, contract_by = $4, contract_at = $5
     WHERE workspace = $1 AND customer_id = ANY($2::text[])
    """,
}
_VERSIONS: Final = """
    UPDATE customer AS c SET version = told.version
      FROM unnest($2::text[], $3::bigint[]) AS told (customer_id, version)
     WHERE c.workspace = $1 AND c.customer_id = told.customer_id
"""
_FORGET_INTERACTIONS: Final = "DELETE FROM customer_interaction WHERE at < $1"

_ERASE: Final = (
    # What leads to conversations: all of it where nobody else takes part, else what names the customer.
    """
    DELETE FROM thread_ref AS t USING unnest($3::text[]) AS c (conversation_id)
     WHERE t.workspace = $1 AND t.conversation_id = c.conversation_id
       AND (NOT EXISTS (SELECT 1 FROM participant p WHERE p.workspace = $1 AND p.conversation_id = c.conversation_id
                           AND p.customer_id <> ALL($2::text[]))
            OR EXISTS (SELECT 1 FROM unnest($4::text[]) AS a (address)
                        WHERE right(t.reference, length(a.address) + 1) = ':' || a.address))
    """,
    """
    DELETE FROM blob AS b USING customer_interaction mine
     WHERE mine.workspace = $1 AND mine.customer_id = ANY($2::text[]) AND b.ref = mine.body_ref
       AND $3::text[] IS NOT NULL AND $4::text[] IS NOT NULL
       AND NOT EXISTS (SELECT 1 FROM customer_interaction other WHERE other.workspace = $1 AND other.body_ref = b.ref
                          AND other.customer_id <> ALL($2::text[]))
    """,
    # Deliveries set aside that came from one of the addresses: what they were is kept, what they said is not.
    """
    UPDATE parked SET value = NULL, key = NULL, headers = '[]', state_key = NULL, is_cut = true
     WHERE EXISTS (SELECT 1 FROM unnest($4::text[]) AS a (address)
                    WHERE right(lower(state_key), length(a.address) + 1) = '/' || lower(a.address))
       AND $1::text IS NOT NULL AND $2::text[] IS NOT NULL AND $3::text[] IS NOT NULL
    """,
)
_ERASE_ORDERS: Final = "DELETE FROM customer_order WHERE workspace = $1 AND addresses && $2::text[]"
_ERASE_CHATS: Final = """
    DELETE FROM webchat_session WHERE workspace = $1 AND (session_id = ANY($2::text[]) OR session_id IN
           (SELECT session_id FROM webchat_conversation WHERE conversation_id = ANY($3::text[])))
"""
_ERASE_OF: Final = (
    "DELETE FROM customer_link WHERE workspace = $1 AND (low_id = ANY($2::text[]) OR high_id = ANY($2::text[]))",
    "DELETE FROM customer_merge WHERE workspace = $1 AND (into_id = ANY($2::text[]) OR from_id = ANY($2::text[]))",
    "DELETE FROM customer_claim WHERE workspace = $1 AND customer_id = ANY($2::text[])",
    "DELETE FROM customer_interaction WHERE workspace = $1 AND customer_id = ANY($2::text[])",
    "DELETE FROM participant WHERE workspace = $1 AND customer_id = ANY($2::text[])",
    "DELETE FROM customer_address WHERE workspace = $1 AND customer_id = ANY($2::text[])",
)
_ERASE_CUSTOMERS: Final = """
    UPDATE customer
       SET name = '', merged_into = NULL, tier = '', tier_by = '', tier_at = NULL,
           contract = '', contract_by = '', contract_at = NULL, erased_at = $3
     WHERE workspace = $1 AND customer_id = ANY($2::text[])
"""
_ERASED_FILES: Final = """
    SELECT e.erasure_id, array(SELECT f FROM unnest(e.files) AS f
                                WHERE NOT EXISTS (SELECT 1 FROM customer_interaction i
                                                   WHERE i.workspace = $1 AND i.files <> '{}' AND i.files @> ARRAY[f])) AS files
      FROM customer_erasure e WHERE e.workspace = $1 AND e.files <> '{}' ORDER BY e.at LIMIT 100
"""
_FILES_REMOVED: Final = (
    "UPDATE customer_erasure SET files = '{}' WHERE workspace = $1 AND erasure_id = $2"
)
_INSERT_ERASURE: Final = """
    INSERT INTO customer_erasure (workspace, erasure_id, customer_id, members, conversations, messages, files, by, at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""

R = TypeVar("R")
_EVIDENCE: Final = msgspec.json.Decoder(list[dict[str, Any]])


def _of(rows: Sequence[Any], kind: type[R]) -> list[R]:
    return [row for row in rows if isinstance(row, kind)]


def _columns(rows: Iterable[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Return rows as columns, for UNNEST."""
    made = [list(column) for column in zip(*rows, strict=True)]
    return made or [[] for _ in range(width)]


def _json(evidence: Sequence[Evidence]) -> str:
    return msgspec.json.encode([piece.model_dump() for piece in evidence]).decode()


def evidence_of(raw: str | bytes) -> tuple[Evidence, ...]:
    """Return evidence as it was stored."""
    return tuple(Evidence.model_validate(piece) for piece in _EVIDENCE.decode(raw))


def segments(rows: Sequence[Any]) -> list[list[Any]]:
    """Return a batch's rows in pieces that each end with an erasure: what comes after one is not erased by it."""
    made: list[list[Any]] = [[]]
    for row in rows:
        made[-1].append(row)
        if isinstance(row, EraseRow):
            made.append([])
    return made


class CustomerStore:
    """Reads what a batch asks about customers, and writes what it decided about them."""

    def __init__(self, workspace: str) -> None:
        self._workspace = workspace

    # --------------------------------------------------------------------------------------- reading

    async def read(self, connection: Connection, asked: Questions, made: Directory) -> None:
        """Fill in everything about customers; participants have been read."""
        keys = asked.addresses | asked.claimed
        await self._addresses(connection, keys, made)
        if keys:
            for row in await self._rows(connection, _CLAIMS, *_columns(sorted(keys), 2)):
                claim = Claim(row["customer_id"], row["is_attested"], row["channel"])
                made.claims.setdefault((row["kind"], row["address"]), []).append(claim)
        if asked.orders:
            numbers = sorted({*asked.orders, *(f"#{number}" for number in asked.orders)})
            await self._orders(connection, _ORDERS_BY_NUMBER, numbers, made)
            placed = {key for order in made.orders for key in order.addresses}
            await self._addresses(connection, placed - made.addresses.keys(), made)
        if asked.merges:
            for row in await self._rows(connection, _MERGES, sorted(asked.merges)):
                made.merges[row["merge_id"]] = Merge(row["into_id"], row["from_id"], row["is_live"])
        wanted = {known.customer_id for known in made.addresses.values()}
        wanted |= {claim.customer_id for claims in made.claims.values() for claim in claims}
        wanted |= {one.customer_id for some in made.participants.values() for one in some}
        wanted |= {one for merge in made.merges.values() for one in (merge.into_id, merge.from_id)}
        wanted |= asked.customers
        # Who was erased and comes back is known by no address, but by the id that it makes.
        wanted |= {
            ids.customer_id(self._workspace, *key)
            for key in asked.addresses
            if key not in made.addresses
        }
        await self._families(connection, wanted, made)
        if made.customers:
            await self._facts(connection, asked, made)
        elif asked.addresses:
            await self._orders(connection, _ORDERS, _order_keys(asked.addresses), made)

    async def _rows(self, connection: Connection, statement: str, *values: Any) -> list[Any]:
        return list(await connection.fetch(statement, self._workspace, *values))

    async def _addresses(
        self, connection: Connection, keys: Iterable[AddressKey], made: Directory
    ) -> None:
        wanted = sorted(keys)
        if wanted:
            for row in await self._rows(connection, _ADDRESSES, *_columns(wanted, 2)):
                made.addresses[row["kind"], row["address"]] = _known(row)

    async def _orders(
        self, connection: Connection, statement: str, wanted: Sequence[str], made: Directory
    ) -> None:
        known = set(made.orders)
        for row in await self._rows(connection, statement, wanted, ORDERS_MAX):
            order = OrderSeen(
                row["number"],
                row["status"],
                row["total"],
                row["currency"],
                row["placed_at"],
                tuple(_key(text) for text in row["addresses"]),
            )
            if order not in known:
                made.orders.append(order)

    async def _families(self, connection: Connection, wanted: set[str], made: Directory) -> None:
        """Read customers, all whom they lead to, and all who lead to these."""
        while wanted:
            rows = await self._rows(connection, _CUSTOMERS, sorted(wanted))
            made.customers.update({row["customer_id"]: _customer(row) for row in rows})
            leads = {row["merged_into"] for row in rows if row["merged_into"] is not None}
            wanted = leads - made.customers.keys()
        frontier = {root_of(made, customer_id) for customer_id in made.customers}
        while frontier:
            rows = await self._rows(connection, _CHILDREN, sorted(frontier))
            frontier = set()
            for row in rows:
                made.customers[row["customer_id"]] = _customer(row)
                made.children.setdefault(row["merged_into"], []).append(row["customer_id"])
                frontier.add(row["customer_id"])

    async def _facts(self, connection: Connection, asked: Questions, made: Directory) -> None:
        everybody = sorted(made.customers)
        for row in await self._rows(connection, _ADDRESSES_OF, everybody):
            key = (row["kind"], row["address"])
            made.addresses[key] = _known(row)
            made.addresses_of.setdefault(row["customer_id"], []).append(key)
        for row in await self._rows(connection, _SAID, everybody, SAID_MAX):
            made.said.setdefault(row["customer_id"], []).append(
                Said(
                    row["message_id"],
                    row["conversation_id"],
                    row["channel"],
                    row["language"],
                    row["words"],
                    row["at"],
                )
            )
        for row in await self._rows(connection, _COUNTS, everybody, COUNT_MAX):
            made.conversation_counts[row["customer_id"]] = row["n"]
        keys = {key for of in made.addresses_of.values() for key in of} | asked.addresses
        await self._orders(connection, _ORDERS, _order_keys(keys), made)
        await self._who_may_change(connection, asked, made)

    async def _who_may_change(
        self, connection: Connection, asked: Questions, made: Directory
    ) -> None:
        """Read the links and conversations of those who may be merged, parted or forgotten; of most there is nobody."""
        involved = {one for merge in made.merges.values() for one in (merge.into_id, merge.from_id)}
        involved |= asked.customers & made.customers.keys()
        involved |= {claim.customer_id for claims in made.claims.values() for claim in claims}
        linked = {*asked.claimed, *asked.claimers, *made.claims}
        if asked.orders:
            linked |= {key for order in made.orders for key in order.addresses}
        involved |= {made.addresses[key].customer_id for key in linked & made.addresses.keys()}
        if not involved:
            return
        members = sorted(
            {one for each in involved for one in members_of(made, root_of(made, each))}
        )
        for row in await self._rows(connection, _LINKS, members):
            link = Link(row["status"], evidence_of(row["evidence"]))
            made.links[row["low_id"], row["high_id"]] = link
        for row in await self._rows(connection, _CONVERSATIONS, members):
            of = made.conversations.setdefault(row["customer_id"], {})
            of.setdefault(row["conversation_id"], [])
        if asked.erased:
            gone = sorted(
                {
                    one
                    for each in asked.erased & made.customers.keys()
                    for one in members_of(made, root_of(made, each))
                }
            )
            for row in await self._rows(connection, _MESSAGES, gone):
                of = made.conversations.setdefault(row["customer_id"], {})
                of.setdefault(row["conversation_id"], []).append(row["message_id"])
            for row in await self._rows(connection, _FILES, gone):
                known = made.files.get(row["customer_id"], ())
                made.files[row["customer_id"]] = (*known, row["file"])

    # --------------------------------------------------------------------------------------- writing

    async def begin(self, connection: Connection, rows: Sequence[tuple[int, Any]]) -> None:
        """Write new customers, then hold those that the batch rests on.

        Raises:
            Conflict: one of them is not as it was when the batch was decided.
        """
        await self._save_customers(connection, [row for _, row in rows])
        expected: dict[str, dict[int, int]] = {}
        changing: dict[str, set[int]] = {}
        for task, row in rows:
            if isinstance(row, BasisRow):
                of = expected.setdefault(row.customer_id, {})
                of[task] = min(row.version, of.get(task, row.version))
            for customer_id in _touched(row):
                changing.setdefault(customer_id, set()).add(task)
        if not expected:
            return
        for customer_id, tasks in changing.items():
            if tasks != set(expected.get(customer_id, ())):
                raise Conflict("two tasks decide about one customer")
        statement = _LOCK if changing else _SHARE
        found = await self._rows(connection, statement, sorted(expected))
        there = {row["customer_id"]: row["version"] for row in found}
        for customer_id, versions in expected.items():
            if set(versions.values()) != {there.get(customer_id)}:
                raise Conflict("a customer was merged, parted or erased meanwhile")
        if changing:
            touches = Counter(one for _, row in rows for one in _touched(row))
            await connection.execute(
                _VERSIONS,
                self._workspace,
                *_columns([(one, there[one] + touches[one]) for one in sorted(changing)], 2),
            )

    async def save(
        self, connection: Connection, plain: Sequence[Any], *, is_after_erasure: bool = False
    ) -> None:
        """Write one segment's rows; participants have been written, and an erasure is the last of them.

        Raises:
            Conflict: an address was claimed, or somebody wrote in another conversation, since the batch was read.
        """
        if is_after_erasure:
            await self._save_customers(
                connection, plain
            )  # Of one who was erased, the row begins anew.
        await self._save_addresses(connection, _of(plain, AddressRow))
        claims = {(c.kind, c.address, c.customer_id): c for c in _of(plain, ClaimRow)}
        if claims:
            await connection.execute(
                _INSERT_CLAIMS,
                self._workspace,
                *_columns(
                    [(*key, c.is_attested, c.channel, c.at) for key, c in sorted(claims.items())], 6
                ),
            )
        interactions = {one.message_id: one for one in _of(plain, InteractionRow)}
        if interactions:
            await connection.execute(
                _INSERT_INTERACTIONS,
                self._workspace,
                *_columns(
                    [
                        (
                            one.customer_id,
                            one.message_id,
                            one.conversation_id,
                            one.input_id,
                            one.channel,
                            one.account,
                            one.language,
                            one.words,
                            one.body_ref,
                            " ".join(one.files) or None,
                            one.at,
                        )
                        for _, one in sorted(interactions.items())
                    ],
                    11,
                ),
            )
        await self._save_links(connection, _of(plain, LinkRow))
        await self._save_merges(connection, plain)
        for told in _of(plain, QualityRow):
            await connection.execute(
                _SET_QUALITY[told.what],
                self._workspace,
                list(told.members),
                told.word,
                told.by,
                told.at,
            )
        erased = _of(plain, EraseRow)
        changes: list[MergeRow | UnmergeRow | EraseRow] = [
            *_of(plain, MergeRow),
            *_of(plain, UnmergeRow),
            *erased,
        ]
        fresh = {one.conversation_id for one in interactions.values()}
        for change in changes:
            await self._none_missed(connection, change, fresh)
        for one in erased:
            await self._erase(connection, one)

    async def _save_customers(self, connection: Connection, plain: Sequence[Any]) -> None:
        known: dict[str, CustomerRow] = {}
        for row in _of(plain, CustomerRow):
            known.setdefault(row.customer_id, row)
        if known:
            await connection.execute(
                _INSERT_CUSTOMERS,
                self._workspace,
                *_columns([(c.customer_id, c.name, c.at) for _, c in sorted(known.items())], 3),
            )

    async def _save_addresses(self, connection: Connection, rows: Sequence[AddressRow]) -> None:
        wanted: dict[AddressKey, AddressRow] = {}
        for row in rows:
            before = wanted.get(row.key)
            if before is not None and before.customer_id != row.customer_id:
                raise Conflict("two tasks want one address for two customers")
            if before is None or _knows_more(row, before):
                wanted[row.key] = row
        if not wanted:
            return
        standing = await self._rows(
            connection,
            _INSERT_ADDRESSES,
            *_columns(
                [
                    (*key, a.customer_id, a.is_verified, a.proof, "\n".join(a.names) or None, a.at)
                    for key, a in sorted(wanted.items())
                ],
                7,
            ),
        )
        for there in standing:
            if wanted[there["kind"], there["address"]].customer_id != there["customer_id"]:
                raise Conflict("an address was given to another customer meanwhile")

    async def _save_links(self, connection: Connection, rows: Sequence[LinkRow]) -> None:
        last = {(row.low_id, row.high_id): row for row in rows}
        if last:
            await connection.execute(
                _PUT_LINKS,
                self._workspace,
                *_columns(
                    [
                        (*key, one.status, one.score, _json(one.evidence), one.by, one.at)
                        for key, one in sorted(last.items())
                    ],
                    7,
                ),
            )

    async def _save_merges(self, connection: Connection, plain: Sequence[Any]) -> None:
        made = {row.merge_id: row for row in _of(plain, MergeRow)}
        undone = {row.merge_id: row for row in _of(plain, UnmergeRow)}
        leads: dict[str, str | None] = {}
        for row in plain:
            if isinstance(row, MergeRow):
                leads[row.from_id] = row.into_id
            elif isinstance(row, UnmergeRow):
                leads[row.from_id] = None
        if undone:
            await connection.execute(
                _UNDO,
                self._workspace,
                *_columns([(key, one.by, one.at) for key, one in sorted(undone.items())], 3),
            )
        if made:
            ends: dict[str, tuple[str | None, datetime | None]] = {
                key: (undone[key].by, undone[key].at) if key in undone else (None, None)
                for key in made
            }
            await connection.execute(
                _INSERT_MERGES,
                self._workspace,
                *_columns(
                    [
                        (
                            key,
                            one.into_id,
                            one.from_id,
                            one.score,
                            _json(one.evidence),
                            one.by,
                            one.at,
                            *ends[key],
                        )
                        for key, one in sorted(made.items())
                    ],
                    9,
                ),
            )
        if leads:
            await connection.execute(
                _LEAD, self._workspace, *_columns(sorted(leads.items(), key=lambda i: i[0]), 2)
            )

    async def _none_missed(
        self, connection: Connection, change: MergeRow | UnmergeRow | EraseRow, fresh: set[str]
    ) -> None:
        """The customers are held now, so nobody writes as one of them any more: what they wrote before must be known."""
        rows = await self._rows(connection, _CONVERSATIONS, list(change.members))
        missed = {row["conversation_id"] for row in rows} - change.conversations - fresh
        if missed:
            raise Conflict("a customer wrote in another conversation meanwhile")

    async def _erase(self, connection: Connection, row: EraseRow) -> None:
        members = list(row.members)
        conversations = sorted(row.conversations)
        found = await self._rows(connection, _ADDRESSES_OF, members)
        keys = [(one["kind"], one["address"]) for one in found]
        bare = [address.rsplit("/", 1)[-1] if kind == "vendor_id" else address for kind, address in keys]  # fmt: skip
        bare += [address.removeprefix("+") for kind, address in keys if kind == "phone"]
        for statement in _ERASE:
            await connection.execute(
                statement, self._workspace, members, conversations, sorted(set(bare))
            )
        await connection.execute(_ERASE_ORDERS, self._workspace, _order_keys(keys))
        await connection.execute(_ERASE_CHATS, self._workspace, list(row.sessions), conversations)
        for statement in _ERASE_OF:
            await connection.execute(statement, self._workspace, members)
        await connection.execute(_ERASE_CUSTOMERS, self._workspace, members, row.at)
        await connection.execute(
            _INSERT_ERASURE,
            self._workspace,
            row.erasure_id,
            row.customer_id,
            members,
            len(conversations),
            row.messages,
            list(row.files),
            row.by,
            row.at,
        )

    async def erased_files(self, connection: Connection) -> list[tuple[str, tuple[str, ...]]]:
        """Return the erasures whose files are still to be deleted, and which these are: nobody has sent them since."""
        rows = await self._rows(connection, _ERASED_FILES)
        return [(row["erasure_id"], tuple(row["files"])) for row in rows]

    async def files_removed(self, connection: Connection, erasure_id: str) -> None:
        """Note that an erasure's files are gone."""
        await connection.execute(_FILES_REMOVED, self._workspace, erasure_id)

    async def forget(self, connection: Connection, before: datetime) -> None:
        """Delete what customers said longer ago than it is told to anybody."""
        await connection.execute(_FORGET_INTERACTIONS, before)


def _touched(row: Any) -> tuple[str, ...]:
    """Return the customers whose version a row raises; `Directory.apply` raises the same."""
    match row:
        case LinkRow():
            return (row.low_id, row.high_id)
        case MergeRow() | UnmergeRow():
            return (row.into_id, row.from_id)
        case EraseRow():
            return row.members
        case _:
            return ()


def _knows_more(row: AddressRow, before: AddressRow) -> bool:
    return (
        row.proof != before.proof
        or len(row.names) >= len(before.names)
        or (row.is_verified and not before.is_verified)
    )


def _known(row: Any) -> Known:
    return Known(row["customer_id"], row["is_verified"], row["proof"], tuple(row["names"]))


def _customer(row: Any) -> Customer:
    return Customer(
        row["at"], row["name"], row["merged_into"], row["version"], row["tier"], row["contract"]
    )


def _key(text: str) -> AddressKey:
    kind, _, address = text.partition(":")
    return (kind, address)


def _order_keys(keys: Iterable[AddressKey]) -> list[str]:
    return sorted(f"{kind}:{address}" for kind, address in keys)
