"""Whom an outage concerns beside those who are named."""

from datetime import UTC, datetime, timedelta

import pytest

from services.notifier.core.audience import is_concerned
from services.notifier.core.policy import OutageAudience
from services.notifier.core.state import Case, Contact, Conversation, Standing

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
WEEK = timedelta(days=7)
ADA = Contact("Ada", "ada@example.com", "email", "email", "support", "en", True)
NAMED, OPEN, RECENT = (
    OutageAudience("named", WEEK),
    OutageAudience("open", WEEK),
    OutageAudience("recent", WEEK),
)


def having(
    standing: Standing = "open",
    wrote_at: datetime | None = None,
    tags: tuple[str, ...] = (),
    cause: str = "",
    *,
    is_closed: bool = False,
) -> Conversation:
    case = Case("SB-1", NOW, standing=standing, tags=tags, cause=cause, is_closed=is_closed)
    return Conversation(contact=ADA, cases={"t1": case}, wrote_at=wrote_at)


@pytest.mark.parametrize("standing", ["open", "resting"])
def test_whoever_has_an_open_case_hears_of_it(standing: Standing) -> None:
    assert is_concerned(OPEN, having(standing), NOW)
    assert is_concerned(RECENT, having(standing), NOW)
    assert not is_concerned(NAMED, having(standing), NOW)


@pytest.mark.parametrize("standing", ["solved", "over"])
def test_whoever_has_none_hears_of_it_only_where_the_policy_looks_back(standing: Standing) -> None:
    lately = having(standing, NOW - WEEK + timedelta(seconds=1))
    long_ago = having(standing, NOW - WEEK)
    assert not is_concerned(OPEN, lately, NOW)
    assert is_concerned(RECENT, lately, NOW)
    assert not is_concerned(RECENT, long_ago, NOW)
    assert not is_concerned(RECENT, having(standing), NOW)


def test_a_closed_case_is_not_open() -> None:
    assert not is_concerned(OPEN, having(is_closed=True), NOW)


def test_with_tags_it_concerns_the_cases_that_have_one_of_them() -> None:
    tags = frozenset({"payments"})
    assert is_concerned(OPEN, having(tags=("payments", "vip")), NOW, tags)
    assert is_concerned(OPEN, having(cause="payments"), NOW, tags)
    assert not is_concerned(OPEN, having(tags=("vip",)), NOW, tags)
    lately = having("solved", NOW, tags=("vip",))
    assert not is_concerned(RECENT, lately, NOW, tags)


def test_nobody_is_told_where_there_is_nobody() -> None:
    assert not is_concerned(RECENT, Conversation(wrote_at=NOW), NOW)
