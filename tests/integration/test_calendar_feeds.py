"""A calendar's feed, from its server through PostgreSQL into the hours that clocks run by."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from chassis.ledger import open_pool
from chassis.metrics import exposition
from chassis.migrate import migrate
from chassis.policy import PolicyHolder
from cli import sla_calendars
from hours.calendar import due, is_open
from hours.provenance import provenance, sentence
from services.sla.adapters.ical_feed import Fetcher
from services.sla.calendar_feeds import FedPolicies, FeedFetcher, FeedReader, states
from services.sla.handlers import POLICY
from tests.fakes.ical import IcalServer, calendar, holiday, serving

REPOSITORY = Path(__file__).parents[2]
SQL = REPOSITORY / "services" / "sla" / "sql"
HOUR = timedelta(hours=1)
NINE = datetime.fromisoformat("2026-06-08T09:00:00+00:00")
TUESDAY = datetime.fromisoformat("2026-06-09T09:00:00+00:00")


class Clock:
    """A clock that is set."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    await migrate(database, "sla", [SQL])
    made = await open_pool(database, "sla", 4, "test")
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def server() -> AsyncIterator[IcalServer]:
    async with serving(calendar(holiday("20260609", "Stocktaking", "stock"))) as one:
        yield one


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    one = Fetcher(seconds=2)
    yield one
    await one.close()


def folder(tmp_path: Path, url: str, name: str = "company") -> Path:
    """A policy with one calendar, 9 to 17 UTC on weekdays, that a feed closes."""
    days = "".join(
        f'      {day}: [["09:00", "17:00"]]\n' for day in ("mon", "tue", "wed", "thu", "fri")
    )
    (tmp_path / "calendars.yaml").write_text(
        "calendars:\n  office:\n    timezone: UTC\n    hours:\n"
        f"{days}    feeds:\n      - {{name: {name}, url: '{url}', closes: all, refresh: 1h}}\n"
    )
    (tmp_path / "sla.yaml").write_text(
        "default: standard\npolicies:\n  standard:\n    calendar: office\n"
        "    first_response: {within: 1h}\n"
    )
    return tmp_path


def fed(tmp_path: Path, url: str) -> FedPolicies:
    return FedPolicies(PolicyHolder(folder(tmp_path, url), POLICY))


async def row(pool: asyncpg.Pool, name: str = "company") -> Any:
    async with pool.acquire() as connection:
        return (await states(connection, [name])).get(name)


async def test_a_feed_closes_the_calendar_and_the_version_says_so(
    tmp_path: Path, pool: asyncpg.Pool, server: IcalServer, fetcher: Fetcher
) -> None:
    policies, clock = fed(tmp_path, server.url), Clock(NINE)
    reader = FeedReader(policies)
    bare = policies.current.version
    assert policies.revision() is None, "not before the table has been read"
    assert await FeedFetcher(policies).fetch_due(pool, clock, fetcher) == 1
    assert await reader.look(pool, NINE)
    office = policies.current.calendar("office")
    assert not is_open(office, TUESDAY)
    assert due(office, NINE, timedelta(hours=9)) == TUESDAY + 25 * HOUR
    assert policies.current.version.startswith(f"{bare}+")
    assert policies.revision() == policies.current.version
    told = provenance(policies.current.book.origins("office"), TUESDAY.date(), office.zone)
    assert [sentence(one) for one in told] == ["2026-06-09: Stocktaking, feed company (stock@fake)"]
    assert not await reader.look(pool, NINE), "nothing new the second time"
    assert 'signalbox_sla_calendar_feed_age_seconds{feed="company"} 0.0' in exposition().decode()


async def test_a_feed_that_has_not_changed_stays_fresh_and_changes_nothing(
    tmp_path: Path, pool: asyncpg.Pool, server: IcalServer, fetcher: Fetcher
) -> None:
    policies, clock = fed(tmp_path, server.url), Clock(NINE)
    fetching, reader = FeedFetcher(policies), FeedReader(policies)
    await fetching.fetch_due(pool, clock, fetcher)
    await reader.look(pool, NINE)
    version = policies.current.version
    clock.at = NINE + HOUR - timedelta(seconds=1)
    assert await fetching.fetch_due(pool, clock, fetcher) == 0
    clock.at = NINE + HOUR
    assert await fetching.fetch_due(pool, clock, fetcher) == 1
    assert server.statuses == [200, 304]
    assert not await reader.look(pool, clock.at)
    assert policies.current.version == version
    known = await row(pool)
    assert (known.fetched_at, known.changed_at) == (NINE + HOUR, NINE)


@pytest.mark.parametrize("trouble", ["broken", "500", "html", "silent"])
async def test_an_unreadable_feed_keeps_the_last_good_one_and_says_so(
    tmp_path: Path, pool: asyncpg.Pool, server: IcalServer, trouble: Any
) -> None:
    policies, clock = fed(tmp_path, server.url), Clock(NINE)
    fetching, reader, fetcher = FeedFetcher(policies), FeedReader(policies), Fetcher(seconds=0.5)
    await fetching.fetch_due(pool, clock, fetcher)
    await reader.look(pool, NINE)
    version = policies.current.version
    server.troubles.extend([trouble, trouble])
    for hours in (1, 2):
        clock.at = NINE + hours * HOUR
        assert await fetching.fetch_due(pool, clock, fetcher) == 1
        assert not await reader.look(pool, clock.at)
    assert policies.current.version == version
    assert not is_open(policies.current.calendar("office"), TUESDAY)
    known = await row(pool)
    assert known.failures == 2
    assert known.fetched_at == NINE
    assert known.next_at == clock.at + timedelta(minutes=2)
    assert known.error
    assert "secret" not in known.error
    assert 'feed_age_seconds{feed="company"} 7200.0' in exposition().decode()
    clock.at = known.next_at
    await fetching.fetch_due(pool, clock, fetcher)
    known = await row(pool)
    assert (known.failures, known.error) == (0, None)
    await fetcher.close()


async def test_a_feed_that_never_came_leaves_the_calendar_as_the_file_has_it(
    tmp_path: Path, pool: asyncpg.Pool, server: IcalServer, fetcher: Fetcher
) -> None:
    policies, clock = fed(tmp_path, server.url), Clock(NINE)
    server.troubles.append("500")
    await FeedFetcher(policies).fetch_due(pool, clock, fetcher)
    await FeedReader(policies).look(pool, NINE)
    assert is_open(policies.current.calendar("office"), TUESDAY)
    assert policies.revision() == policies.current.version
    assert "+" not in policies.current.version
    known = await row(pool)
    assert (known.fetched_at, known.failures, known.error) == (None, 1, "answered 500")
    assert 'feed_age_seconds{feed="company"} +Inf' in exposition().decode()


async def test_two_processes_fetch_a_feed_once(
    tmp_path: Path, pool: asyncpg.Pool, server: IcalServer, fetcher: Fetcher
) -> None:
    policies, clock = fed(tmp_path, server.url), Clock(NINE)
    asked = await asyncio.gather(
        *(FeedFetcher(policies).fetch_due(pool, clock, fetcher) for _ in range(3))
    )
    assert sum(asked) == 1
    assert len(server.asked) == 1


async def test_the_lock_is_free_again_after_a_failure(
    tmp_path: Path, pool: asyncpg.Pool, server: IcalServer, fetcher: Fetcher
) -> None:
    policies, clock = fed(tmp_path, server.url), Clock(NINE)
    server.troubles.append("closed")
    assert await FeedFetcher(policies).fetch_due(pool, clock, fetcher) == 1
    clock.at = NINE + timedelta(minutes=1)
    assert await FeedFetcher(policies).fetch_due(pool, clock, fetcher) == 1
    assert (await row(pool)).failures == 0


async def test_a_feed_that_moved_is_fetched_at_once_and_the_old_content_holds_until_then(
    tmp_path: Path, pool: asyncpg.Pool, server: IcalServer, fetcher: Fetcher
) -> None:
    policies, clock = fed(tmp_path, server.url), Clock(NINE)
    await FeedFetcher(policies).fetch_due(pool, clock, fetcher)
    moved = fed(tmp_path, server.url + "?moved")
    reader = FeedReader(moved)
    await reader.look(pool, NINE)
    assert not is_open(moved.current.calendar("office"), TUESDAY)
    server.troubles.append("500")
    assert await FeedFetcher(moved).fetch_due(pool, clock, fetcher) == 1
    assert not is_open(moved.current.calendar("office"), TUESDAY)
    server.change(calendar(holiday("20260610")))
    clock.at = NINE + timedelta(minutes=2)
    assert await FeedFetcher(moved).fetch_due(pool, clock, fetcher) == 1
    assert await reader.look(pool, clock.at)
    assert is_open(moved.current.calendar("office"), TUESDAY)
    assert not is_open(moved.current.calendar("office"), TUESDAY + 24 * HOUR)


async def test_a_policy_without_its_feed_opens_again(
    tmp_path: Path, pool: asyncpg.Pool, server: IcalServer, fetcher: Fetcher
) -> None:
    holder = PolicyHolder(folder(tmp_path, server.url), POLICY)
    policies = FedPolicies(holder)
    await FeedFetcher(policies).fetch_due(pool, Clock(NINE), fetcher)
    await FeedReader(policies).look(pool, NINE)
    assert not is_open(policies.current.calendar("office"), TUESDAY)
    text = (tmp_path / "calendars.yaml").read_text()
    (tmp_path / "calendars.yaml").write_text(text.partition("    feeds:")[0])
    assert holder.reload()
    assert is_open(policies.current.calendar("office"), TUESDAY)
    assert "+" not in policies.current.version


async def test_the_command_shows_a_failing_feed_and_what_it_closes(
    tmp_path: Path, database: str, pool: asyncpg.Pool, server: IcalServer, fetcher: Fetcher
) -> None:
    policies, clock = fed(tmp_path, server.url), Clock(NINE)
    await FeedFetcher(policies).fetch_due(pool, clock, fetcher)
    server.troubles.append("500")
    clock.at = NINE + HOUR
    await FeedFetcher(policies).fetch_due(pool, clock, fetcher)
    found, contents = await sla_calendars._read(database, ["company"])
    book = policies.current.book.with_feeds(contents)
    told = sla_calendars.describe(book, "office", found, NINE + 2 * HOUR)
    assert told["closed"] == ["2026-06-09: Stocktaking, feed company (stock@fake)"]
    assert [opening[0][:10] for opening in told["openings"]] == [
        "2026-06-08",
        "2026-06-10",
        "2026-06-11",
    ]
    assert told["feeds"][0]["state"] == (
        "FAILING, 1 times: answered 500; works by what was good 2h ago"
    )
    assert "secret" not in str(told)
