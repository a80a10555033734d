"""Fetching a calendar's feed: what is taken, what is not, and that its address is told to nobody."""

from datetime import datetime, timedelta

import pytest

from hours.file import Feed
from services.sla.adapters.ical_feed import Fetcher, FetchFailed
from services.sla.core.feeds import FeedState, is_due, next_check
from tests.fakes.ical import Trouble, calendar, holiday, serving


def at(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-06-01T{clock}:00+00:00")


CLOSED = calendar(holiday("20260609", "Stocktaking"))


async def test_a_feed_is_fetched_and_not_sent_twice_while_it_is_the_same() -> None:
    async with serving(CLOSED) as server:
        fetcher, feed = Fetcher(), Feed("company", server.url)
        try:
            first = await fetcher.fetch(feed)
            assert first is not None
            assert first.body.decode() == CLOSED
            assert await fetcher.fetch(feed, first.etag, first.modified) is None
            server.change(calendar())
            again = await fetcher.fetch(feed, first.etag, first.modified)
        finally:
            await fetcher.close()
        assert again is not None
        assert again.body.decode() == calendar()
        assert server.statuses == [200, 304, 200]


async def test_a_redirection_is_followed() -> None:
    async with serving(CLOSED) as server:
        fetcher = Fetcher()
        server.troubles.append("redirect")
        try:
            fetched = await fetcher.fetch(Feed("company", server.url))
        finally:
            await fetcher.close()
        assert fetched is not None
        assert [path for path, _ in server.asked][-1] == "/moved/holidays.ics"


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("500", "status"),
        ("slow", "timeout"),
        ("silent", "timeout"),
        ("huge", "too_large"),
        ("cut", "unreachable"),
        ("closed", "unreachable"),
        ("loop", "redirect"),
        ("away", "redirect"),
        ("html", "wrong_type"),
        ("gzip", "wrong_type"),
    ],
)
async def test_a_feed_that_misbehaves_is_refused_without_a_word_of_its_address(
    trouble: Trouble, reason: str
) -> None:
    async with serving(CLOSED) as server:
        fetcher = Fetcher(seconds=0.6)
        server.troubles.append(trouble)
        try:
            with pytest.raises(FetchFailed) as caught:
                await fetcher.fetch(Feed("company", server.url))
        finally:
            await fetcher.close()
    assert caught.value.reason == reason
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(Feed("company", server.url))


def state(**changes: object) -> FeedState:
    feed = Feed("company", "https://calendars.example.com/a.ics")
    known = {
        "name": "company",
        "source": feed.source,
        "digest": None,
        "etag": None,
        "modified": None,
        "fetched_at": None,
        "changed_at": None,
        "failed_at": None,
        "failures": 0,
        "error": None,
        "next_at": at("12:00"),
    }
    return FeedState(**(known | changes))  # type: ignore[arg-type]


def test_a_feed_is_due_when_it_is_new_moved_or_no_longer_fresh() -> None:
    feed = Feed("company", "https://calendars.example.com/a.ics")
    moved = Feed("company", "https://calendars.example.com/b.ics")
    sooner = Feed("company", "https://calendars.example.com/a.ics", refresh=timedelta(minutes=5))
    assert is_due(feed, None, at("09:00"))
    assert not is_due(feed, state(), at("11:59"))
    assert is_due(feed, state(), at("12:00"))
    assert is_due(moved, state(), at("11:59"))
    assert is_due(sooner, state(), at("11:54"))


@pytest.mark.parametrize(
    ("failures", "wait"),
    [
        (0, timedelta(hours=6)),
        (1, timedelta(minutes=1)),
        (2, timedelta(minutes=2)),
        (5, timedelta(minutes=16)),
        (10, timedelta(hours=6)),
        (4_000, timedelta(hours=6)),
    ],
)
def test_a_feed_that_fails_is_asked_less_and_less_often(failures: int, wait: timedelta) -> None:
    feed = Feed("company", "https://calendars.example.com/a.ics")
    assert next_check(feed, failures, at("09:00")) == at("09:00") + wait
