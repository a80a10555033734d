"""Sprout's poll against a fake that refuses what Sprout refuses: nothing is missed, and trouble keeps the cursor."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.ingest.adapters import sprout
from services.ingest.adapters.api import ApiProblem, VendorApi
from services.ingest.adapters.channel import FETCHED, Delivery, Page, ParseError
from tests.fakes.sprout import BASE, TOKEN, Sprout

NOW = datetime(2026, 1, 10, 12, 0, tzinfo=UTC)


def settings(**more: Any) -> sprout.Settings:
    return sprout.Settings(
        api_token="env:SPROUT_TOKEN",
        customer_id="805215",
        group_id=7001,
        profile_ids=(111, 222),
        base_url=BASE,
        **more,
    )


def api_of(fake: Sprout, token: str = TOKEN, **more: Any) -> VendorApi:
    return VendorApi(settings(**more), {"api_token": token}, fake.client())


async def all_of(
    api: VendorApi, cursor: str | None, now: datetime, pages_max: int = 60
) -> tuple[list[str], str | None]:
    """Look until nothing more waits; the names that came, in order, and the cursor to store."""
    names: list[str] = []
    for _ in range(pages_max):
        page: Page = await sprout.poll(api, cursor, now)
        names += [item.name for item in page.items]
        cursor = page.cursor
        if not page.more:
            return names, cursor
    raise AssertionError("the look does not end")


async def test_the_first_look_takes_nothing_and_the_next_takes_what_came_since() -> None:
    fake = Sprout()
    fake.add("idm:1", "2026-01-10T11:00:00Z")
    api = api_of(fake)
    names, cursor = await all_of(api, None, NOW)
    assert names == []
    fake.add("idm:2", "2026-01-10T12:01:00Z")
    names, _ = await all_of(api, cursor, NOW + timedelta(minutes=2))
    assert names == ["idm:2"]


async def test_a_message_that_sprout_hears_of_late_is_still_found() -> None:
    """Each look begins ten minutes before the last one ended; what is seen again has the same name and body."""
    fake = Sprout()
    api = api_of(fake)
    _, cursor = await all_of(api, None, NOW)
    fake.add("idm:late", "2026-01-10T11:50:00Z")
    names, cursor = await all_of(api, cursor, NOW + timedelta(minutes=1))
    assert names == ["idm:late"]
    fake.add("idm:too-late", "2026-01-10T11:50:59Z")
    names, _ = await all_of(api, cursor, NOW + timedelta(minutes=2))
    assert names == []


async def test_history_is_read_from_its_beginning_in_windows_of_a_day_and_in_order() -> None:
    fake = Sprout()
    for day in range(1, 11):
        fake.add(f"idm:{day}", f"2026-01-{day:02}T09:00:00Z")
    names, cursor = await all_of(api_of(fake, start="all", history_days=5), None, NOW)
    assert names == ["idm:6", "idm:7", "idm:8", "idm:9", "idm:10"]
    assert len(fake.asked) == 6  # Each later window begins ten minutes before the last one ended.
    again, _ = await all_of(api_of(fake), cursor, NOW + timedelta(minutes=1))
    assert again == []


async def test_a_window_of_many_pages_is_read_page_by_page() -> None:
    fake = Sprout()
    for number in range(250):
        fake.add(f"idm:{number:03}", f"2026-01-10T11:{30 + number // 25:02}:00Z")
    api = api_of(fake, start="all", history_days=1)
    page = await sprout.poll(api, None, NOW)
    assert len(page.items) == 100
    assert page.more
    rest, _ = await all_of(api, page.cursor, NOW)
    assert [item.name for item in page.items] + rest == [f"idm:{n:03}" for n in range(250)]
    assert [asked.get("page_cursor") for asked in fake.asked] == [None, "page-100==", "page-200=="]


async def test_more_messages_than_sprout_gives_in_one_search_are_all_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sprout, "RESULTS_MAX", 200)
    fake = Sprout(results_max=250)
    for number in range(700):
        fake.add(f"idm:{number:03}", f"2026-01-10T11:{number // 60:02}:{number % 60:02}Z")
    names, _ = await all_of(api_of(fake, start="all", history_days=1), None, NOW)
    assert sorted(set(names)) == [f"idm:{number:03}" for number in range(700)]


async def test_what_is_asked_for_is_what_the_settings_say() -> None:
    fake = Sprout()
    api = api_of(fake, post_types=("TWEET", "FACEBOOK_COMMENT"), fields=("guid", "text"))
    _, cursor = await all_of(api, None, NOW)
    await all_of(api, cursor, NOW + timedelta(seconds=61))
    assert fake.asked == [
        {
            "filters": [
                "group_id.eq(7001)",
                "customer_profile_id.eq(111,222)",
                "created_time.in(2026-01-10T11:50:00..2026-01-10T12:01:01)",
                "post_type.eq(TWEET,FACEBOOK_COMMENT)",
            ],
            "fields": ["guid", "text"],
            "sort": ["created_time:asc"],
            "limit": 100,
            "timezone": "UTC",
        }
    ]


async def test_what_is_fetched_reads_as_a_proved_message() -> None:
    fake = Sprout()
    fake.add("idm:1", "2026-01-10T11:00:00Z")
    page = await sprout.poll(api_of(fake, start="all", history_days=1), None, NOW)
    item = page.items[0]
    assert (item.kind, item.name, item.correspondent) == ("message", "idm:1", "ig:2222")
    parsed = sprout.parse(Delivery("sprout", "main", item.body, NOW, headers={FETCHED: item.kind}))
    assert parsed.verified
    assert parsed.messages[0].text == "text of idm:1"


async def test_the_same_message_fetched_twice_has_the_same_bytes() -> None:
    fake = Sprout()
    fake.add("idm:1", "2026-01-10T11:00:00Z")
    api = api_of(fake, start="all", history_days=1)
    once = (await sprout.poll(api, None, NOW)).items
    assert (await sprout.poll(api, None, NOW)).items == once


async def test_a_message_without_an_id_is_handed_on_to_be_parked() -> None:
    fake = Sprout()
    fake.add("idm:1", "2026-01-10T11:00:00Z")
    del fake.messages[0]["guid"]
    page = await sprout.poll(api_of(fake, start="all", history_days=1), None, NOW)
    assert len(page.items[0].name) == 64
    with pytest.raises(ParseError, match="guid"):
        sprout.parse(Delivery("sprout", "main", page.items[0].body, NOW))


@pytest.mark.parametrize(
    ("status", "body", "headers", "reason", "is_final"),
    [
        (429, "", {"Retry_After": "7"}, "throttled", False),
        (500, "", {}, "failed", False),
        (503, "", {}, "failed", False),
        (404, "", {}, "missing", True),
        (200, "{", {}, "bad_answer", False),
        (200, "[]", {}, "bad_answer", False),
        (200, '{"data": {}}', {}, "bad_answer", False),
        (202, "", {}, "bad_answer", False),
        (202, '{"message": "not ready"}', {}, "bad_answer", False),
        (302, "", {"Location": "https://elsewhere.invalid/"}, "refused", True),
    ],
)
async def test_trouble_is_told_and_the_same_page_can_be_asked_for_again(
    status: int, body: str, headers: dict[str, str], reason: str, is_final: bool
) -> None:
    fake = Sprout()
    fake.add("idm:1", "2026-01-10T11:00:00Z")
    api = api_of(fake, start="all", history_days=1)
    fake.misbehave(status, body, **headers)
    with pytest.raises(ApiProblem) as problem:
        await sprout.poll(api, None, NOW)
    assert (problem.value.reason, problem.value.is_final) == (reason, is_final)
    assert TOKEN not in repr(problem.value)
    assert [item.name for item in (await sprout.poll(api, None, NOW)).items] == ["idm:1"]


async def test_a_wrong_token_and_a_missing_one_are_told_apart() -> None:
    fake = Sprout()
    cursor = (await sprout.poll(api_of(fake), None, NOW)).cursor
    with pytest.raises(ApiProblem, match="unauthorized"):
        await sprout.poll(api_of(fake, token="old"), cursor, NOW)
    with pytest.raises(ApiProblem, match="no_secret"):
        await sprout.poll(api_of(fake, token=""), cursor, NOW)


async def test_a_page_that_sprout_no_longer_knows_begins_its_window_anew() -> None:
    fake = Sprout()
    fake.add("idm:1", "2026-01-10T11:00:00Z")
    cursor = json.dumps(
        {"since": "2026-01-10T11:00:00Z", "until": "2026-01-10T12:00:00Z", "page": "stale"}
    )
    page = await sprout.poll(api_of(fake), cursor, NOW)
    assert (page.items, page.more) == ((), False)
    names, _ = await all_of(api_of(fake), page.cursor, NOW)
    assert names == ["idm:1"]


async def test_a_request_that_sprout_refuses_from_the_first_page_on_is_told() -> None:
    api = api_of(Sprout(), fields=("guid", "sentiment"), start="all")
    with pytest.raises(ApiProblem, match="refused"):
        await sprout.poll(api, None, NOW)


@pytest.mark.parametrize("cursor", ["", "yesterday", "{}", '{"since": 5}'])
async def test_a_cursor_that_is_none_of_ours_is_refused(cursor: str) -> None:
    with pytest.raises(ApiProblem, match="bad_cursor"):
        await sprout.poll(api_of(Sprout()), cursor, NOW)


async def test_a_clock_that_went_back_asks_for_no_window_the_wrong_way_round() -> None:
    fake = Sprout()
    api = api_of(fake)
    cursor = (await sprout.poll(api, None, NOW)).cursor
    page = await sprout.poll(api, cursor, NOW - timedelta(hours=1))
    assert not page.items


def test_polling_needs_a_token_a_customer_a_group_and_profiles() -> None:
    assert sprout.polls(settings())
    assert not sprout.polls(sprout.Settings())
    for name in ("api_token", "customer_id", "group_id", "profile_ids"):
        given = settings().model_dump() | {name: sprout.Settings().model_dump()[name]}
        assert not sprout.polls(sprout.Settings.model_validate(given))
