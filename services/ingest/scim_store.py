"""SCIM's tables: users, groups and who is in them, and the roster's share of every change.

One writer at a time in a domain (a lock of the transaction): what the roster is told then stands in the spool in the order in
which it came true, and it is stored in the transaction that changes the rows, or not at all. Only where a change is about
more users than one transaction has time for, it notes them as due; they are told of right behind it, and whatever ends in
between, whoever looks next goes on.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

import asyncpg
import msgspec

from chassis import logs
from chassis.errors import Unavailable
from chassis.ledger import ACQUIRE_SECONDS, DATABASE_ERRORS
from chassis.spool import SpoolItem
from chassis.stage import Connection
from schemas.payload import Payload
from schemas.roster import AgentRemoved, AgentSet
from services.ingest.adapters import intake
from services.ingest.core.policy import ScimDomain
from services.ingest.core.scim import (
    Document,
    Meaning,
    ScimRefused,
    agent_of,
    emails_of,
    folded,
    is_active,
    meaning_of,
)
from services.ingest.core.scim_query import Condition, Equal, Every, Never, Query

TOLD_AT_ONCE: Final = 200
"""Agents that the roster is told of in one transaction."""
CONNECTIONS_MAX: Final = 2
"""Connections of the pool that SCIM takes at a time: the rest is for everybody else, however much is provisioned."""
TURN_SECONDS: Final = 10.0
"""How long a request waits for its turn before it is told to come again; the longest answer in front of it is a matter of
some seconds."""

LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('scim/' || $1 || '/' || $2, 0))"
"""Makes the transaction the only one, in any process, that changes a workspace's domain."""

_USER_COLUMNS: Final = "scim_id, agent_id, external_id, document, version, created_at, updated_at, told IS NOT NULL AS is_told"
_GROUP_COLUMNS: Final = "scim_id, display_name, external_id, version, created_at, updated_at"
_USERS: Final = "FROM scim_user AS u WHERE u.workspace = $1 AND u.domain = $2"
_GROUPS: Final = "FROM scim_group AS g WHERE g.workspace = $1 AND g.domain = $2"
_TAKEN: Final = """
SELECT user_name = $3 AS by_name FROM scim_user
 WHERE workspace = $1 AND domain = $2 AND (user_name = $3 OR agent_id = $4) AND scim_id <> $5
 ORDER BY 1 DESC LIMIT 1
"""
_ADD_USER: Final = """
INSERT INTO scim_user (workspace, domain, scim_id, agent_id, user_name, external_id, is_active, document, emails, version,
                       created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $10, 1, $9, $9)
"""
_SET_USER: Final = """
UPDATE scim_user SET user_name = $4, external_id = $5, is_active = $6, document = $7, emails = $9, version = version + 1,
       updated_at = $8
 WHERE workspace = $1 AND domain = $2 AND scim_id = $3
"""
_ADD_GROUP: Final = """
INSERT INTO scim_group (workspace, domain, scim_id, display_name, name_key, external_id, version, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $7)
"""
_SET_GROUP: Final = """
UPDATE scim_group SET display_name = $4, name_key = $5, external_id = $6, version = version + 1, updated_at = $7
 WHERE workspace = $1 AND domain = $2 AND scim_id = $3
"""
_TOUCH_USERS: Final = """
UPDATE scim_user SET version = version + 1, updated_at = $4
 WHERE workspace = $1 AND domain = $2 AND scim_id = ANY($3::text[])
"""
_TOUCH_GROUPS: Final = """
UPDATE scim_group SET version = version + 1, updated_at = $4
 WHERE workspace = $1 AND domain = $2 AND scim_id = ANY($3::text[])
"""
_ADD_MEMBERS: Final = """
INSERT INTO scim_member (group_id, user_id) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING
"""
_DROP_MEMBERS: Final = """
DELETE FROM scim_member WHERE group_id = $1 AND user_id = ANY($2::text[])
"""
_MEMBER_NAMES: Final = """
SELECT m.group_id, u.scim_id, u.document ->> 'userName' AS name FROM scim_member AS m
  JOIN scim_user AS u ON u.scim_id = m.user_id
 WHERE m.group_id = ANY($1::text[])
 ORDER BY u.created_at, u.scim_id
"""
_GROUPS_OF: Final = """
SELECT m.user_id, g.scim_id, g.display_name FROM scim_member AS m
  JOIN scim_group AS g ON g.scim_id = m.group_id
 WHERE m.user_id = ANY($1::text[])
 ORDER BY g.name_key
"""
_AS_TOLD: Final = """
SELECT scim_id, agent_id, document, told FROM scim_user
 WHERE workspace = $1 AND domain = $2 AND scim_id = ANY($3::text[]) ORDER BY agent_id
"""
_NOTE_TOLD: Final = """
UPDATE scim_user AS u SET told = given.told, is_due = false
  FROM unnest($1::text[], $2::jsonb[]) AS given (scim_id, told)
 WHERE u.scim_id = given.scim_id
"""
_NOTE_DUE: Final = "UPDATE scim_user SET is_due = true WHERE scim_id = ANY($1::text[])"
_NOT_DUE: Final = "UPDATE scim_user SET is_due = false WHERE is_due AND scim_id = ANY($1::text[])"
_DUE: Final = (
    "SELECT scim_id FROM scim_user WHERE workspace = $1 AND domain = $2 AND is_due LIMIT $3"
)
_IS_THEIRS: Final = """
SELECT EXISTS (SELECT FROM scim_user WHERE workspace = $1 AND domain = $2 AND agent_id = $3 AND (told IS NOT NULL OR NOT $4))
"""
_PAGE_OF_IDS: Final = """
SELECT scim_id FROM scim_user WHERE workspace = $1 AND domain = $2 AND scim_id > $3 ORDER BY scim_id LIMIT $4
"""

log = logs.get("ingest.scim")


class SpoolWithin(Protocol):
    """Where roster events are stored within a transaction; `chassis.spool.Spool` is one."""

    stored: asyncio.Event

    async def put_within(self, connection: Connection, items: Sequence[SpoolItem]) -> None:
        """Store items in the caller's transaction."""
        ...


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user as stored."""

    scim_id: str
    agent_id: str
    external_id: str | None
    document: Document
    version: int
    created_at: datetime
    updated_at: datetime
    is_told: bool
    """Whether they are in the roster, as it was told last."""


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group as stored, without its members."""

    scim_id: str
    display_name: str
    external_id: str | None
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Named:
    """An id, and what to call whom it means."""

    scim_id: str
    name: str


class Reading:
    """What is stored of one domain, read over one connection."""

    def __init__(self, connection: Connection, workspace: str, domain: str) -> None:
        self._connection = connection
        self._of = (workspace, domain)

    async def user(self, scim_id: str) -> UserRow | None:
        """Return a user, or None."""
        rows = await self._connection.fetch(
            f"SELECT {_USER_COLUMNS} {_USERS} AND u.scim_id = $3",
            *self._of,
            scim_id,
        )
        return _user(rows[0]) if rows else None

    async def users(self, query: Query) -> tuple[int, list[UserRow]]:
        """Return how many users fit, and a page of them, the oldest first."""
        total, rows = await self._page("scim_user", _USER_COLUMNS, user_source, query)
        return total, [_user(row) for row in rows]

    async def group(self, scim_id: str) -> GroupRow | None:
        """Return a group, or None."""
        rows = await self._connection.fetch(
            f"SELECT {_GROUP_COLUMNS} {_GROUPS} AND g.scim_id = $3",
            *self._of,
            scim_id,
        )
        return GroupRow(**rows[0]) if rows else None

    async def groups(self, query: Query) -> tuple[int, list[GroupRow]]:
        """Return how many groups fit, and a page of them, the oldest first."""
        total, rows = await self._page("scim_group", _GROUP_COLUMNS, group_source, query)
        return total, [GroupRow(**row) for row in rows]

    async def members(self, group_ids: Sequence[str]) -> dict[str, list[Named]]:
        """Return the members of groups, the oldest first."""
        found: dict[str, list[Named]] = {group_id: [] for group_id in group_ids}
        for row in await self._connection.fetch(_MEMBER_NAMES, list(group_ids)):
            found[row["group_id"]].append(Named(row["scim_id"], row["name"]))
        return found

    async def has_due(self) -> bool:
        """Return whether the roster is to be told of anybody."""
        return bool(await self._connection.fetch(_DUE, *self._of, 1))

    async def user_ids_after(self, after: str, limit: int) -> list[str]:
        """Return the ids of users behind `after` in the order of ids."""
        rows = await self._connection.fetch(_PAGE_OF_IDS, *self._of, after, limit)
        return [row["scim_id"] for row in rows]

    async def groups_of(self, user_ids: Sequence[str]) -> dict[str, list[Named]]:
        """Return the groups that users are in."""
        found: dict[str, list[Named]] = {user_id: [] for user_id in user_ids}
        for row in await self._connection.fetch(_GROUPS_OF, list(user_ids)):
            found[row["user_id"]].append(Named(row["scim_id"], row["display_name"]))
        return found

    async def _page(
        self, table: str, columns: str, source: "_Source", query: Query
    ) -> tuple[int, list[asyncpg.Record]]:
        where, values = source(self._of, query.condition)
        total = await self._connection.fetchval(f"SELECT count(*) {where}", *values)
        if not query.count or query.start > total:
            return int(total), []
        # Which rows is asked of an index; whole rows, which are wide, are read for the page alone.
        order = "ORDER BY created_at, scim_id"
        page = f"SELECT scim_id {where} {order} LIMIT {query.count:d} OFFSET {query.start - 1:d}"
        rows = await self._connection.fetch(
            f"SELECT {columns} FROM {table} WHERE scim_id = ANY (ARRAY({page})) {order}",  # noqa: S608 - constants
            *values,
        )
        return int(total), rows


class Writing(Reading):
    """Changes to one domain, in one transaction and under its lock."""

    def __init__(
        self,
        connection: Connection,
        workspace: str,
        domain: str,
        spool: SpoolWithin,
        rules: ScimDomain,
        now: datetime,
    ) -> None:
        super().__init__(connection, workspace, domain)
        self._spool = spool
        self._rules = rules
        self._now = now
        self.has_told = False
        self.has_left = False
        """Whether some are still to be told of."""

    async def add_user(self, scim_id: str, agent_id: str, document: Document) -> None:
        """Add a user.

        Raises:
            ScimRefused: 409 `uniqueness`, another has the name or is that agent.
        """
        await self._check_free(scim_id, agent_id, document)
        await self._connection.execute(
            _ADD_USER,
            *self._of,
            scim_id,
            agent_id,
            folded(document["userName"]),
            document.get("externalId"),
            is_active(document),
            _json(document),
            self._now,
            emails_of(document),
        )
        await self.tell([scim_id])

    async def set_user(self, row: UserRow, document: Document) -> None:
        """Put a document in the place of a user's; the same again changes nothing.

        Raises:
            ScimRefused: 409 `uniqueness`, another has the name.
        """
        if document == row.document:
            return
        await self._check_free(row.scim_id, row.agent_id, document)
        await self._connection.execute(
            _SET_USER,
            *self._of,
            row.scim_id,
            folded(document["userName"]),
            document.get("externalId"),
            is_active(document),
            _json(document),
            self._now,
            emails_of(document),
        )
        await self.tell([row.scim_id])

    async def remove_user(self, row: UserRow) -> None:
        """Remove a user, and the agent with them."""
        groups = [one.scim_id for one in (await self.groups_of([row.scim_id]))[row.scim_id]]
        await self._connection.execute(_TOUCH_GROUPS, *self._of, groups, self._now)
        await self._connection.execute(
            "DELETE FROM scim_user WHERE workspace = $1 AND domain = $2 AND scim_id = $3",
            *self._of,
            row.scim_id,
        )
        if row.is_told:
            await self._put([AgentRemoved(domain=self._of[1], agent_id=row.agent_id)])

    async def add_group(
        self, scim_id: str, display_name: str, external_id: str | None, user_ids: Sequence[str]
    ) -> None:
        """Add a group with its members.

        Raises:
            ScimRefused: 409 `uniqueness`, another has the name; 400, a member is no user or the name means nothing.
        """
        meaning_of(display_name, self._rules)
        await self._check_group_free(scim_id, display_name)
        await self._connection.execute(
            _ADD_GROUP,
            *self._of,
            scim_id,
            display_name,
            folded(display_name),
            external_id,
            self._now,
        )
        await self._change_members(scim_id, frozenset(), frozenset(user_ids))

    async def set_group(
        self,
        row: GroupRow,
        display_name: str,
        external_id: str | None,
        before: frozenset[str],
        after: frozenset[str],
    ) -> None:
        """Give a group a name and members; the same again changes nothing.

        Raises:
            ScimRefused: 409 `uniqueness`, another has the name; 400, a member is no user or the name means nothing.
        """
        is_renamed = display_name != row.display_name
        if not is_renamed and external_id == row.external_id and before == after:
            return
        if is_renamed:
            meaning_of(display_name, self._rules)
            await self._check_group_free(row.scim_id, display_name)
        await self._connection.execute(
            _SET_GROUP,
            *self._of,
            row.scim_id,
            display_name,
            folded(display_name),
            external_id,
            self._now,
        )
        await self._change_members(row.scim_id, before, after)
        if is_renamed:
            stayed = sorted(before & after)
            await self._connection.execute(_TOUCH_USERS, *self._of, stayed, self._now)
            await self.tell(stayed)

    async def remove_group(self, row: GroupRow) -> None:
        """Remove a group; its members stay users."""
        user_ids = [one.scim_id for one in (await self.members([row.scim_id]))[row.scim_id]]
        await self._connection.execute(
            "DELETE FROM scim_group WHERE workspace = $1 AND domain = $2 AND scim_id = $3",
            *self._of,
            row.scim_id,
        )
        await self._connection.execute(_TOUCH_USERS, *self._of, user_ids, self._now)
        await self.tell(user_ids)

    async def member_ids(self, group_id: str) -> frozenset[str]:
        """Return who is in a group."""
        rows = await self._connection.fetch(
            "SELECT user_id FROM scim_member WHERE group_id = $1", group_id
        )
        return frozenset(row["user_id"] for row in rows)

    async def tell(self, user_ids: Sequence[str]) -> None:
        """Store for the roster what these users are now, where it differs from what it was told; of many, note that it is due."""
        if len(user_ids) <= TOLD_AT_ONCE:
            await self._tell(user_ids)
        else:
            await self._connection.execute(_NOTE_DUE, list(user_ids))
            self.has_left = True

    async def tell_due(self) -> bool:
        """Tell of some who are due; return whether there may be more."""
        rows = await self._connection.fetch(_DUE, *self._of, TOLD_AT_ONCE)
        await self._tell([row["scim_id"] for row in rows])
        return len(rows) == TOLD_AT_ONCE

    async def _tell(self, user_ids: Sequence[str]) -> None:
        rows = await self._connection.fetch(_AS_TOLD, *self._of, list(user_ids))
        groups = await self.groups_of(user_ids)
        events: list[Payload] = []
        noted: list[tuple[str, str | None]] = []
        for row in rows:
            event = agent_of(
                self._of[1],
                row["agent_id"],
                msgspec.json.decode(row["document"]),
                self._meanings(groups[row["scim_id"]]),
                self._rules,
            )
            told = AgentSet.model_validate_json(row["told"]) if row["told"] is not None else None
            if event == told:
                continue
            noted.append((row["scim_id"], event.to_json().decode() if event is not None else None))
            events.append(
                event
                if event is not None
                else AgentRemoved(domain=self._of[1], agent_id=row["agent_id"])
            )
        if noted:
            await self._connection.execute(
                _NOTE_TOLD, [one for one, _ in noted], [told for _, told in noted]
            )
            await self._put(events)
        await self._connection.execute(_NOT_DUE, list(user_ids))

    def _meanings(self, groups: Iterable[Named]) -> Iterable[Meaning]:
        for group in groups:
            try:
                yield meaning_of(group.name, self._rules)
            except ScimRefused as refused:
                # Its name meant something when it was stored; channels.yaml has changed since.
                log.warning("scim_group_means_nothing", group=group.scim_id, why=refused.detail)

    async def _put(self, events: Iterable[Payload]) -> None:
        workspace, domain = self._of
        await self._spool.put_within(
            self._connection,
            [
                intake.event_item(event, intake.new_id(), domain, workspace, self._now)
                for event in events
            ],
        )
        self.has_told = True

    async def _check_free(self, scim_id: str, agent_id: str, document: Document) -> None:
        row = await self._connection.fetchrow(
            _TAKEN, *self._of, folded(document["userName"]), agent_id, scim_id
        )
        if row is not None and row["by_name"]:
            raise ScimRefused(409, "uniqueness", "userName: another user has it")
        if row is not None:
            raise ScimRefused(
                409, "uniqueness", "agentId: another user is that agent; say another agentId"
            )

    async def _check_group_free(self, scim_id: str, display_name: str) -> None:
        taken = await self._connection.fetchval(
            "SELECT scim_id FROM scim_group WHERE workspace = $1 AND domain = $2 AND name_key = $3 AND scim_id <> $4",
            *self._of,
            folded(display_name),
            scim_id,
        )
        if taken is not None:
            raise ScimRefused(409, "uniqueness", "displayName: another group has it")

    async def _change_members(
        self, group_id: str, before: frozenset[str], after: frozenset[str]
    ) -> None:
        added, dropped = sorted(after - before), sorted(before - after)
        if added:
            known = await self._connection.fetch(
                f"SELECT scim_id {_USERS} AND u.scim_id = ANY($3::text[])",
                *self._of,
                added,
            )
            if len(known) < len(added):
                raise ScimRefused(
                    400, "invalidValue", f"members: {len(added) - len(known)} are no users here"
                )
            await self._connection.execute(_ADD_MEMBERS, group_id, added)
        if dropped:
            await self._connection.execute(_DROP_MEMBERS, group_id, dropped)
        await self._connection.execute(_TOUCH_USERS, *self._of, [*added, *dropped], self._now)
        await self.tell([*added, *dropped])


class ScimStore:
    """The door to SCIM's tables.

    Who waits, waits without a connection: of one domain's writers of this process one at a time asks the database for the
    domain's lock.
    """

    def __init__(self, pool: asyncpg.Pool, spool: SpoolWithin, workspace: str) -> None:
        self._pool = pool
        self._spool = spool
        self._workspace = workspace
        self._turns = asyncio.Semaphore(CONNECTIONS_MAX)
        self._writers: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By domain, of which there are as many as channels.yaml names."""

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        async with (
            _turn(self._turns),
            self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection,
        ):
            yield connection

    @asynccontextmanager
    async def reading(self, domain: str) -> AsyncIterator[Reading]:
        """Read a domain.

        Raises:
            Unavailable: the database does not answer.
        """
        with _translated():
            async with self._connected() as connection:
                yield Reading(connection, self._workspace, domain)

    @asynccontextmanager
    async def writing(
        self, domain: str, rules: ScimDomain, now: datetime
    ) -> AsyncIterator[Writing]:
        """Change a domain: all of it at the end, or nothing.

        Raises:
            Unavailable: the database does not answer; nothing may be assumed.
        """
        async with self._writing(domain, rules, now) as work:
            yield work
        if work.has_left:
            try:
                await self.tell_due(domain, rules, now)
            except Unavailable:
                # What was asked for is done, and noted is what is left: `follow_policy` comes by.
                log.warning("scim_left_due", domain=domain)

    async def tell_due(self, domain: str, rules: ScimDomain, now: datetime) -> None:
        """Tell the roster of all of a domain who are due.

        Raises:
            Unavailable: the database does not answer; they stay due.
        """
        is_more = True
        while is_more:
            async with self._writing(domain, rules, now) as work:
                is_more = await work.tell_due()

    @asynccontextmanager
    async def _writing(
        self, domain: str, rules: ScimDomain, now: datetime
    ) -> AsyncIterator[Writing]:
        with _translated():
            async with (
                _turn(self._writers[domain]),
                self._connected() as connection,
                connection.transaction(),
            ):
                await connection.execute(LOCK, self._workspace, domain)
                work = Writing(connection, self._workspace, domain, self._spool, rules, now)
                yield work
        if work.has_told:
            self._spool.stored.set()

    async def is_theirs(self, domain: str, agent_id: str, *, is_in: bool) -> bool:
        """Return whether an identity provider looks after an agent; with `is_in`, whether it also has them in the roster.

        Raises:
            Unavailable: the database does not answer.
        """
        with _translated():
            return bool(
                await self._pool.fetchval(
                    _IS_THEIRS, self._workspace, domain, agent_id, is_in, timeout=ACQUIRE_SECONDS
                )
            )

    async def has_due(self, domain: str) -> bool:
        """Return whether the roster is to be told of anybody.

        Raises:
            Unavailable: the database does not answer.
        """
        async with self.reading(domain) as work:
            return await work.has_due()

    async def tell_all(self, domain: str, rules: ScimDomain, now: datetime) -> None:
        """Tell the roster what channels.yaml has changed about a domain's agents since they were told of."""
        after = ""
        while True:
            async with self._writing(domain, rules, now) as work:
                user_ids = await work.user_ids_after(after, TOLD_AT_ONCE)
                await work.tell(user_ids)
            if len(user_ids) < TOLD_AT_ONCE:
                return
            after = user_ids[-1]


@asynccontextmanager
async def _turn(of: asyncio.Lock | asyncio.Semaphore) -> AsyncIterator[None]:
    """Wait for one's turn; a TimeoutError says that it did not come."""
    async with asyncio.timeout(TURN_SECONDS):
        await of.acquire()
    try:
        yield
    finally:
        of.release()


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what the database says into what a client is told."""
    try:
        yield
    except asyncpg.UniqueViolationError:
        raise ScimRefused(409, "uniqueness", "another has that name or id") from None
    except asyncpg.DataError as error:
        log.warning("scim_unstorable", error=type(error).__name__)
        raise ScimRefused(400, "invalidValue", "a value cannot be stored") from None
    except DATABASE_ERRORS as error:
        log.warning("scim_unavailable", error=type(error).__name__)
        raise Unavailable("the database") from None


def _user(row: asyncpg.Record) -> UserRow:
    return UserRow(**{**row, "document": msgspec.json.decode(row["document"])})


def _json(document: Document) -> str:
    return msgspec.json.encode(document).decode()


# --------------------------------------------------------------------------------------------- conditions

_Compare = Callable[[str], tuple[str, Callable[[Any], Any]]]
"""For a parameter's place, the comparison in SQL, and what the value becomes before it."""


def _plainly(sql: str) -> _Compare:
    return lambda place: (sql.format(place), lambda value: value)


def _without_case(sql: str) -> _Compare:
    return lambda place: (sql.format(place), folded)


_USER_SQL: Final[Mapping[str, _Compare]] = {
    "id": _plainly("u.scim_id = {}"),
    "agentId": _plainly("u.agent_id = {}"),
    "userName": _without_case("u.user_name = {}"),
    "externalId": _plainly("u.external_id = {}"),
    "active": _plainly("u.is_active = {}"),
    "displayName": _plainly("lower(u.document ->> 'displayName') = lower({})"),
    "emails.value": _without_case("u.emails @> ARRAY[{}::text]"),
}
_GROUP_SQL: Final[Mapping[str, _Compare]] = {
    "id": _plainly("g.scim_id = {}"),
    "displayName": _without_case("g.name_key = {}"),
    "externalId": _plainly("g.external_id = {}"),
    "members.value": _plainly(
        "EXISTS (SELECT FROM scim_member AS m WHERE m.group_id = g.scim_id AND m.user_id = {})"
    ),
}


def _sql(condition: Condition, known: Mapping[str, _Compare], values: list[Any]) -> str:
    """Return a condition in SQL; its values are added to `values`. What has no value equals nothing.

    SQL has a third answer, null, for that. As long as it is not turned round it leaves a row out as well as false does,
    and a bare comparison is one that an index knows; so only what stands under NOT is made to be one of the two.
    """
    match condition:
        case Equal(field=field, value=value):
            comparison, become = known[field](f"${len(values) + 1}")
            values.append(become(value))
            return comparison
        case Every(terms=terms, any=is_any):
            joined = f" {'OR' if is_any else 'AND'} ".join(
                _sql(term, known, values) for term in terms
            )
            return f"({joined})"
        case Never(term=term):
            return f"NOT coalesce({_sql(term, known, values)}, false)"


_Source = Callable[[tuple[str, str], Condition | None], tuple[str, list[Any]]]


def user_source(of: tuple[str, str], condition: Condition | None = None) -> tuple[str, list[Any]]:
    """Return which users fit, of a workspace and a domain: a statement from FROM on, and its values."""
    return _source(_USERS, _USER_SQL, of, condition)


def group_source(of: tuple[str, str], condition: Condition | None = None) -> tuple[str, list[Any]]:
    """Return which groups fit, of a workspace and a domain: a statement from FROM on, and its values."""
    return _source(_GROUPS, _GROUP_SQL, of, condition)


def _source(
    base: str,
    known: Mapping[str, _Compare],
    of: tuple[str, str],
    condition: Condition | None,
) -> tuple[str, list[Any]]:
    values: list[Any] = [*of]
    where = f"{base} AND {_sql(condition, known, values)}" if condition is not None else base
    return where, values
