"""The feeds of `calendars.yaml`: fetched by one process, read by all, laid over the policy that clocks run by.

Owns the table `calendar_feed`. `FedPolicies` is what the stage decides by: the policy of the folder with the last good
content of each feed. An address that fails, or gives what nobody can read, changes nothing but a metric, a log line and
what `signalbox sla calendars` shows; one that never succeeded leaves the calendar as the file has it.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final, Protocol

import asyncpg

from chassis import logs
from chassis.clock import Clock, pause
from chassis.ledger import ACQUIRE_SECONDS, DRIVER_ERRORS
from chassis.lifecycle import Runtime
from chassis.policy import PolicyHolder
from chassis.stage import Connection
from hours.file import Feed
from hours.ical import FeedContent, FeedError, horizon, read_feed
from services.sla import metrics
from services.sla.adapters.ical_feed import Fetched, Fetcher, FetchFailed
from services.sla.core.feeds import FeedState, is_due, next_check
from services.sla.core.policy import Policy

READ_SECONDS: Final = 3.0
"""Between two looks at the table. A look is one query over as many short rows as there are feeds."""

_COLUMNS: Final = "feed AS name, source, digest, etag, modified, fetched_at, changed_at, failed_at, failures, error, next_at"
_STATES: Final = f"SELECT {_COLUMNS} FROM calendar_feed WHERE feed = ANY($1::text[])"  # noqa: S608 - a constant
_CONTENT: Final = "SELECT content FROM calendar_feed WHERE feed = $1 AND digest = $2"
_LOCK: Final = (
    "SELECT pg_try_advisory_lock(hashtextextended('calendar feeds of ' || current_schema(), 0))"
)
_UNLOCK: Final = (
    "SELECT pg_advisory_unlock(hashtextextended('calendar feeds of ' || current_schema(), 0))"
)
_PUT_CONTENT: Final = """
INSERT INTO calendar_feed AS known
    (feed, source, content, digest, etag, modified, fetched_at, changed_at, next_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8)
ON CONFLICT (feed) DO UPDATE SET
    source = excluded.source, content = excluded.content, digest = excluded.digest,
    etag = excluded.etag, modified = excluded.modified,
    fetched_at = greatest(known.fetched_at, excluded.fetched_at),
    changed_at = CASE WHEN known.digest = excluded.digest THEN known.changed_at
                      ELSE excluded.changed_at END,
    failures = 0, error = NULL, next_at = excluded.next_at
"""
_PUT_SAME: Final = """
UPDATE calendar_feed SET fetched_at = greatest(fetched_at, $2), failures = 0, error = NULL, next_at = $3
WHERE feed = $1
"""
_PUT_FAILURE: Final = """
INSERT INTO calendar_feed AS known (feed, source, failed_at, failures, error, next_at)
VALUES ($1, $2, $3, 1, $4, $5)
ON CONFLICT (feed) DO UPDATE SET
    source = excluded.source, failed_at = excluded.failed_at, failures = known.failures + 1,
    error = excluded.error, next_at = excluded.next_at,
    etag = CASE WHEN known.source = excluded.source THEN known.etag END,
    modified = CASE WHEN known.source = excluded.source THEN known.modified END
"""


log = logs.get("calendar_feeds")


class Policies(Protocol):
    """Whoever has the policy in force: a folder's, or one with what feeds say."""

    @property
    def current(self) -> Policy:
        """The policy in force, replaced as a whole."""
        ...


class FedPolicies:
    """The folder's policy with what its calendars' feeds say. `current` is replaced as a whole, between two decisions."""

    def __init__(self, holder: PolicyHolder[Policy]) -> None:
        self._holder = holder
        self._contents: Mapping[str, FeedContent] = {}
        self._has_read = False
        self._made_of = holder.current
        self._made = holder.current

    @property
    def current(self) -> Policy:
        """The policy in force."""
        bare = self._holder.current
        if bare is not self._made_of:
            self._made_of, self._made = bare, bare.with_feeds(self._contents)
        return self._made

    @property
    def feeds(self) -> Mapping[str, Feed]:
        """The feeds with an address, by name."""
        return self._holder.current.book.feeds

    def revision(self) -> str | None:
        """The version that decisions are made under, calendars included; None until the feeds have been read once.

        A process that has just started must not take the folder's hours for the whole truth, and count everything anew
        twice.
        """
        if not self._has_read and self.feeds:
            return None
        return self.current.version

    def take(self, contents: Mapping[str, FeedContent]) -> bool:
        """Decide by these contents from now on; return whether the policy changed."""
        self._has_read = True
        if contents == self._contents:
            return False
        before = self.current.version
        self._contents = dict(contents)
        self._made_of, self._made = self._holder.current, self._holder.current.with_feeds(contents)
        return self._made.version != before


class FeedReader:
    """Reads the table every few seconds, and gives what is new to `FedPolicies`."""

    def __init__(self, policies: FedPolicies) -> None:
        self._policies = policies
        self._read: dict[str, tuple[str, date, FeedContent]] = {}
        self._shown: set[str] = set()

    async def read_calendar_feeds(self, runtime: Runtime) -> None:
        """Look until the service stops. While the database does not answer, what was read last holds."""
        while not runtime.stopping.is_set():
            try:
                await self.look(runtime.pool, runtime.clock.now())
            except DRIVER_ERRORS as error:
                log.warning("calendar_feeds_unread", error=type(error).__name__)
            await pause(runtime.stopping, READ_SECONDS)

    async def look(self, pool: asyncpg.Pool, now: datetime) -> bool:
        """Look once; return whether the policy changed."""
        feeds = self._policies.feeds
        found: dict[str, FeedState] = {}
        if feeds:
            async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                found = await states(connection, sorted(feeds))
                for name, state in found.items():
                    await self._take(connection, name, state)
        self._show(feeds, found, now)
        contents = {name: self._read[name][2] for name in feeds if name in self._read}
        is_new = self._policies.take(contents)
        if is_new:
            log.info("calendar_feeds_taken", version=self._policies.current.version)
        return is_new

    async def _take(self, connection: Connection, name: str, state: FeedState) -> None:
        """Read one feed's content if it is another than the one at hand."""
        if state.digest is None or state.fetched_at is None:
            return
        until = horizon(state.fetched_at.date())
        known = self._read.get(name)
        if known is not None and known[:2] == (state.digest, until):
            return
        raw = await connection.fetchval(_CONTENT, name, state.digest)
        if raw is None:
            return  # Replaced since: the next look has the new one.
        try:
            content = await asyncio.to_thread(read_feed, raw, until)
        except FeedError as error:
            # Whoever fetched it could read it; another release may read otherwise.
            log.error("calendar_feed_unreadable", feed=name, problem=str(error))  # noqa: TRY400 - a sentence is enough
            metrics.FEED_FAILURES.labels(name, "unreadable").inc()
            content = known[2] if known is not None else FeedContent()
        self._read[name] = (state.digest, until, content)

    def _show(
        self, feeds: Mapping[str, Feed], found: Mapping[str, FeedState], now: datetime
    ) -> None:
        for name in self._shown - feeds.keys():
            metrics.FEED_AGE.remove(name)
        self._shown = set(feeds)
        for name in feeds:
            state = found.get(name)
            at = state.fetched_at if state is not None else None
            age = float("inf") if at is None else max(0.0, (now - at).total_seconds())
            metrics.FEED_AGE.labels(name).set(age)


class FeedFetcher:
    """Fetches what is due, while it holds the lock; at any time at most one process of an installation does."""

    def __init__(self, policies: FedPolicies, fetcher: Fetcher | None = None) -> None:
        self._policies = policies
        self._fetcher = fetcher

    async def fetch_calendar_feeds(self, runtime: Runtime) -> None:
        """Look for due feeds until the service stops."""
        fetcher = self._fetcher or Fetcher()
        try:
            while not runtime.stopping.is_set():
                try:
                    await self.fetch_due(runtime.pool, runtime.clock, fetcher)
                except DRIVER_ERRORS as error:
                    log.warning("calendar_feeds_not_fetched", error=type(error).__name__)
                await pause(runtime.stopping, READ_SECONDS)
        finally:
            if fetcher is not self._fetcher:
                await fetcher.close()

    async def fetch_due(self, pool: asyncpg.Pool, clock: Clock, fetcher: Fetcher) -> int:
        """Fetch what is due, one feed after the other; return how many were asked for. 0 where another process does it."""
        feeds = self._policies.feeds
        if not feeds:
            return 0
        async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await states(connection, sorted(feeds))
            if not _due(feeds, found, clock.now()) or not await connection.fetchval(_LOCK):
                return 0
            try:
                # Again, behind the lock: whoever held it until now may have been here.
                found = await states(connection, sorted(feeds))
                due = _due(feeds, found, clock.now())
                for feed in due:
                    await _fetch(connection, feed, found.get(feed.name), clock, fetcher)
                return len(due)
            finally:
                if not connection.is_closed():
                    await connection.execute(_UNLOCK)


def _due(
    feeds: Mapping[str, Feed], found: Mapping[str, FeedState], now: datetime
) -> Sequence[Feed]:
    return [feed for _, feed in sorted(feeds.items()) if is_due(feed, found.get(feed.name), now)]


async def _fetch(
    connection: Connection, feed: Feed, state: FeedState | None, clock: Clock, fetcher: Fetcher
) -> None:
    is_known = state is not None and state.source == feed.source and state.digest is not None
    etag, modified = (
        (state.etag, state.modified) if is_known and state is not None else (None, None)
    )
    try:
        fetched = await fetcher.fetch(feed, etag, modified)
        if fetched is not None:
            await _check(fetched, clock.now())
    except FetchFailed as error:
        now = clock.now()
        failures = 1 if state is None else state.failures + 1
        again = next_check(feed, failures, now)
        await connection.execute(_PUT_FAILURE, feed.name, feed.source, now, str(error), again)
        metrics.FEED_FAILURES.labels(feed.name, error.reason).inc()
        kept = (
            state.fetched_at.isoformat() if state is not None and state.fetched_at else "none yet"
        )
        log.error(  # noqa: TRY400 - a sentence is enough
            "calendar_feed_failed",
            feed=feed.name,
            reason=error.reason,
            problem=str(error),
            failures=failures,
            last_good=kept,
            again_at=again.isoformat(),
        )
        return
    now = clock.now()
    again = next_check(feed, 0, now)
    if fetched is None:
        await connection.execute(_PUT_SAME, feed.name, now, again)
        return
    digest = hashlib.sha256(fetched.body).hexdigest()
    await connection.execute(
        _PUT_CONTENT,
        feed.name,
        feed.source,
        fetched.body,
        digest,
        fetched.etag,
        fetched.modified,
        now,
        again,
    )
    if state is None or state.digest != digest:
        log.info("calendar_feed_changed", feed=feed.name)


async def _check(fetched: Fetched, now: datetime) -> None:
    """Read the feed once, so that nothing is stored that cannot be read."""
    try:
        await asyncio.to_thread(read_feed, fetched.body, horizon(now.date()))
    except FeedError as error:
        raise FetchFailed("unreadable", str(error)) from error


async def states(connection: Connection, names: Sequence[str]) -> dict[str, FeedState]:
    """Return what is known of feeds, by name; those that nobody has asked for yet are missing."""
    rows: Sequence[Any] = await connection.fetch(_STATES, list(names))
    return {row["name"]: FeedState(**dict(row)) for row in rows}


async def stored(connection: Connection, found: Mapping[str, FeedState]) -> dict[str, FeedContent]:
    """Return the last good contents of feeds, by name, for a command that shows them.

    Raises:
        FeedError: one that this release cannot read.
    """
    contents = {}
    for name, state in found.items():
        if state.digest is None or state.fetched_at is None:
            continue
        raw = await connection.fetchval(_CONTENT, name, state.digest)
        if raw is not None:
            contents[name] = read_feed(raw, horizon(state.fetched_at.date()))
    return contents
