"""Reviews through their APIs: what a hint becomes once it is read back, what polls find, and what trouble does."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.ingest.adapters import app_store, google_reviews, trustpilot, yelp
from services.ingest.adapters.api import ApiProblem, VendorApi
from services.ingest.adapters.channel import (
    FETCHED,
    Channel,
    ChannelSettings,
    Delivery,
    Fetched,
    Page,
    Parsed,
    ParseError,
)
from services.ingest.core.dedupe import name_of
from tests.fakes import desk
from tests.fakes.app_stores import AppStores
from tests.fakes.google_reviews import GoogleReviews
from tests.fakes.trustpilot import Trustpilot
from tests.fakes.yelp import Yelp

NOW = datetime(2026, 1, 10, 12, 0, tzinfo=UTC)
PLACE = "accounts/1/locations/2"
APPLE_KEY = ec.derive_private_key(123456789, ec.SECP256R1())

GOOGLE = google_reviews.Settings(
    client_id="client",
    client_secret="env:A",
    refresh_token="env:B",
    locations=(PLACE, "accounts/1/locations/3"),
    api_url=desk.BASE,
    token_url=f"{desk.BASE}/token",
)
GOOGLE_SECRETS = {"client_secret": "client-secret", "refresh_token": "refresh-token"}
TRUSTPILOT = trustpilot.Settings(
    business_unit_id="unit1", api_key="api-key", api_secret="env:A", api_url=desk.BASE
)
YELP = yelp.Settings(api_key="env:A", api_url=desk.BASE)
STORES = app_store.Settings(
    play_packages=("com.example.shop",),
    play_client_id="client",
    play_client_secret="env:A",
    play_refresh_token="env:B",
    apple_apps=("1234567890",),
    apple_issuer_id="issuer-1",
    apple_key_id="KEY1",
    apple_private_key="env:C",
    play_url=desk.BASE,
    play_token_url=f"{desk.BASE}/token",
    apple_url=desk.BASE,
)


def apple_secrets() -> dict[str, str]:
    pem = APPLE_KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    return {
        "play_client_secret": "play-secret",
        "play_refresh_token": "play-refresh",
        "apple_private_key": pem,
    }


def google_api(fake: GoogleReviews, settings: google_reviews.Settings = GOOGLE) -> VendorApi:
    return VendorApi(settings, GOOGLE_SECRETS, desk.client(fake.server()))


def trustpilot_api(fake: Trustpilot, settings: trustpilot.Settings = TRUSTPILOT) -> VendorApi:
    return VendorApi(settings, {"api_secret": "api-secret"}, desk.client(fake.server()))


def yelp_api(fake: Yelp) -> VendorApi:
    return VendorApi(YELP, {"api_key": "yelp-key"}, desk.client(fake.server()))


def stores_api(fake: AppStores, settings: app_store.Settings = STORES) -> VendorApi:
    fake.public_key, fake.now = APPLE_KEY.public_key(), NOW.timestamp()
    return VendorApi(settings, apple_secrets(), desk.client(fake.server()))


def delivery(channel: Channel, body: Any, settings: ChannelSettings) -> Delivery:
    return Delivery(channel.name, "shop", json.dumps(body).encode(), NOW, settings=settings)


def taken_in(channel: Channel, item: Fetched) -> Parsed:
    """Return what a fetched thing becomes, taken in as a delivery of its own."""
    return channel.parse(
        Delivery(channel.name, "shop", item.body, NOW, headers={FETCHED: item.kind}, verified=True)
    )


def told(channel: Channel, items: tuple[Fetched, ...]) -> list[tuple[str, str, str]]:
    """Return id, change and text of what was found; our side's own words are marked."""
    return [
        (
            message.vendor_message_id,
            "ours" if message.direction == "outbound" else message.change,
            message.text,
        )
        for item in items
        for message in taken_in(channel, item).messages
    ]


async def look(
    channel: Channel, api: VendorApi, cursor: str | None, now: datetime = NOW
) -> tuple[list[tuple[str, str, str]], str | None]:
    """Look until nothing waits any more; returns what was found and the cursor."""
    found: list[tuple[str, str, str]] = []
    assert channel.poll is not None
    for _ in range(50):
        page: Page = await channel.poll(api, cursor, now)
        found += told(channel, page.items)
        cursor = page.cursor
        if not page.more:
            return found, cursor
    raise AssertionError("the look has no end")


# ------------------------------------------------------------------------------- Google: reading back


def push(kind: str = "NEW_REVIEW", name: str = f"{PLACE}/reviews/Ab1") -> dict[str, Any]:
    notice = json.dumps({"notificationType": kind, "reviewName": name}).encode()
    return {"message": {"messageId": "1", "data": base64.b64encode(notice).decode()}}


async def test_a_push_of_google_becomes_the_review_that_it_names() -> None:
    fake = GoogleReviews()
    fake.write(f"{PLACE}/reviews/Ab1", "Lamba kırık geldi.", "2026-01-09T10:00:00.123456Z")
    hint = delivery(google_reviews.CHANNEL, push(), GOOGLE)
    items = await google_reviews.read_back(google_api(fake), hint)
    assert told(google_reviews.CHANNEL, items) == [("Ab1", "new", "Lamba kırık geldi.")]
    assert taken_in(google_reviews.CHANNEL, items[0]).verified


async def test_an_updated_review_is_an_edit_and_the_reply_comes_as_ours() -> None:
    fake = GoogleReviews()
    reply = {"comment": "Özür dileriz.", "updateTime": "2026-01-09T12:00:00Z"}
    fake.write(f"{PLACE}/reviews/Ab1", "Değişti.", "2026-01-09T10:00:00Z", reviewReply=reply)
    hint = delivery(google_reviews.CHANNEL, push("UPDATED_REVIEW"), GOOGLE)
    items = await google_reviews.read_back(google_api(fake), hint)
    assert told(google_reviews.CHANNEL, items) == [
        ("Ab1", "edited", "Değişti."),
        ("Ab1/reply", "ours", "Özür dileriz."),
    ]
    assert all(
        message.visibility == "public"
        for item in items
        for message in taken_in(google_reviews.CHANNEL, item).messages
    )


async def test_a_review_that_is_gone_before_it_is_read_says_so() -> None:
    hint = delivery(google_reviews.CHANNEL, push(), GOOGLE)
    with pytest.raises(ApiProblem) as problem:
        await google_reviews.read_back(google_api(GoogleReviews()), hint)
    assert problem.value.reason == "missing"


@pytest.mark.parametrize(
    "name",
    ["../../v1/secrets", f"{PLACE}/reviews/../../x", f"{PLACE}/reviews/a?b=1", "", "reviews/Ab1"],
)
async def test_a_push_cannot_lead_us_to_another_address_of_google(name: str) -> None:
    fake = GoogleReviews()
    with pytest.raises(ParseError):
        await google_reviews.read_back(
            google_api(fake), delivery(google_reviews.CHANNEL, push(name=name), GOOGLE)
        )
    assert fake.asked == []


# ------------------------------------------------------------------------------------ Google: polling


async def test_a_first_look_takes_the_baseline_and_the_next_what_is_new() -> None:
    fake = GoogleReviews()
    fake.write(f"{PLACE}/reviews/old", "Eski", "2026-01-01T00:00:00Z")
    found, cursor = await look(google_reviews.CHANNEL, google_api(fake), None)
    assert found == []
    fake.write(f"{PLACE}/reviews/new", "Yeni", "2026-01-10T11:00:00Z")
    found, cursor = await look(google_reviews.CHANNEL, google_api(fake), cursor)
    assert found == [("new", "new", "Yeni")]
    assert (await look(google_reviews.CHANNEL, google_api(fake), cursor))[0] == []


async def test_the_very_first_review_of_a_new_place_is_found() -> None:
    fake = GoogleReviews()
    _, cursor = await look(google_reviews.CHANNEL, google_api(fake), None)
    fake.write("accounts/1/locations/3/reviews/first", "İlk", "2026-01-10T11:00:00Z")
    assert (await look(google_reviews.CHANNEL, google_api(fake), cursor))[0] == [
        ("first", "new", "İlk")
    ]


async def test_a_review_that_appears_late_with_an_earlier_time_is_found() -> None:
    fake = GoogleReviews()
    fake.write(f"{PLACE}/reviews/a", "A", "2026-01-09T10:00:00Z")
    _, cursor = await look(google_reviews.CHANNEL, google_api(fake), None)
    fake.write(f"{PLACE}/reviews/held", "Held for moderation", "2026-01-08T10:00:00Z")
    assert (await look(google_reviews.CHANNEL, google_api(fake), cursor))[0] == [
        ("held", "new", "Held for moderation")
    ]


async def test_an_edit_and_a_reply_are_found_and_only_once() -> None:
    fake = GoogleReviews()
    fake.write(f"{PLACE}/reviews/a", "A", "2026-01-09T10:00:00Z")
    _, cursor = await look(google_reviews.CHANNEL, google_api(fake), None)
    fake.reviews[f"{PLACE}/reviews/a"] |= {
        "comment": "A, better",
        "updateTime": "2026-01-10T09:00:00Z",
    }
    found, cursor = await look(google_reviews.CHANNEL, google_api(fake), cursor)
    assert found == [("a", "edited", "A, better")]
    fake.reviews[f"{PLACE}/reviews/a"]["reviewReply"] = {
        "comment": "Thank you",
        "updateTime": "2026-01-10T10:00:00Z",
    }
    found, cursor = await look(google_reviews.CHANNEL, google_api(fake), cursor)
    assert found == [("a/reply", "ours", "Thank you")]
    assert (await look(google_reviews.CHANNEL, google_api(fake), cursor))[0] == []


async def test_all_there_is_is_taken_where_the_settings_say_so_page_by_page() -> None:
    fake = GoogleReviews()
    for number in range(120):
        at = (NOW - timedelta(hours=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
        fake.write(f"{PLACE}/reviews/r{number}", f"text {number}", at)
    api = google_api(fake, GOOGLE.model_copy(update={"start": "all"}))
    found, _ = await look(google_reviews.CHANNEL, api, None)
    assert [one[0] for one in found] == [f"r{number}" for number in range(120)]
    assert fake.tokens == 1


async def test_a_look_goes_no_further_back_than_it_must() -> None:
    fake = GoogleReviews()
    for number in range(500):
        at = (NOW - timedelta(hours=6 * number)).strftime("%Y-%m-%dT%H:%M:%SZ")
        fake.write(f"{PLACE}/reviews/r{number}", "text", at)
    api = google_api(fake, GOOGLE.model_copy(update={"locations": (PLACE,)}))
    _, cursor = await look(google_reviews.CHANNEL, api, None)
    fake.asked.clear()
    await look(google_reviews.CHANNEL, api, cursor)
    assert len(fake.asked) == 1
    assert cursor is not None
    assert len(cursor) < 4_000


async def test_a_page_that_google_has_forgotten_begins_the_walk_anew() -> None:
    fake = GoogleReviews(old_pages={"from-50"})
    for number in range(60):
        at = (NOW - timedelta(minutes=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
        fake.write(f"{PLACE}/reviews/r{number:02}", "text", at)
    api = google_api(fake, GOOGLE.model_copy(update={"start": "all", "locations": (PLACE,)}))
    found, cursor = await look(google_reviews.CHANNEL, api, None)
    assert len(found) == 50
    fake.old_pages.clear()
    found, _ = await look(google_reviews.CHANNEL, api, cursor)
    assert sorted(one[0] for one in found) == [f"r{number}" for number in range(50, 60)]


# ----------------------------------------------------------------------------------------- Trustpilot


def event(name: str, review: str, **data: Any) -> dict[str, Any]:
    consumer = {"id": f"c-{review}", "name": "R. Lund"}
    return {"eventName": name, "eventData": {"id": review, "consumer": consumer, **data}}


async def test_what_a_webhook_of_trustpilot_tells_is_read_back_and_then_it_is_proved() -> None:
    fake = Trustpilot()
    fake.write("r1", "Two weeks late.", "2026-01-09T10:00:00.000Z")
    fake.product_reviews["p1"] = {"id": "p1", "consumer": {"id": "c-p1"}, "content": "Bright"}
    body = {
        "events": [
            event("service-review-created", "r1", text="forged"),
            event("product-review-created", "p1"),
            event("invitation-created", "x"),
        ]
    }
    items = await trustpilot.read_back(
        trustpilot_api(fake), delivery(trustpilot.CHANNEL, body, TRUSTPILOT)
    )
    assert told(trustpilot.CHANNEL, items) == [
        ("r1", "new", "Two weeks late."),
        ("p1", "new", "Bright"),
    ]
    assert all(taken_in(trustpilot.CHANNEL, item).verified for item in items)


async def test_a_removal_counts_where_the_review_is_gone_and_not_where_it_stands() -> None:
    fake = Trustpilot()
    fake.write("r1", "Still here", "2026-01-09T10:00:00.000Z")
    body = {
        "events": [event("service-review-deleted", "r1"), event("service-review-deleted", "r2")]
    }
    items = await trustpilot.read_back(
        trustpilot_api(fake), delivery(trustpilot.CHANNEL, body, TRUSTPILOT)
    )
    assert told(trustpilot.CHANNEL, items) == [("r2", "deleted", "")]


async def test_a_review_that_cannot_be_found_counts_as_told_and_unproved() -> None:
    body = {"events": [event("service-review-created", "r9", text="Late")]}
    (item,) = await trustpilot.read_back(
        trustpilot_api(Trustpilot()), delivery(trustpilot.CHANNEL, body, TRUSTPILOT)
    )
    parsed = taken_in(trustpilot.CHANNEL, item)
    assert (parsed.messages[0].text, parsed.verified) == ("Late", False)


async def test_the_poll_finds_what_the_webhooks_lost_under_the_same_name() -> None:
    fake = Trustpilot()
    fake.write("r0", "Before", "2026-01-01T10:00:00.000Z")
    api = trustpilot_api(fake)
    _, cursor = await look(trustpilot.CHANNEL, api, None)
    fake.write("r1", "Two weeks late.", "2026-01-10T10:00:00.000Z")
    assert trustpilot.CHANNEL.poll is not None
    page = await trustpilot.CHANNEL.poll(api, cursor, NOW)
    (polled,) = taken_in(trustpilot.CHANNEL, page.items[0]).messages
    pushed = trustpilot.parse(
        delivery(
            trustpilot.CHANNEL,
            {"events": [event("service-review-created", "r1", text="Two weeks late.")]},
            TRUSTPILOT,
        )
    ).messages[0]
    assert name_of(polled) == name_of(pushed)


async def test_numbered_pages_that_shift_under_a_walk_lose_nothing() -> None:
    fake = Trustpilot()
    for number in range(150):
        fake.write(f"r{number:03}", "t", (NOW - timedelta(minutes=number)).isoformat())
    api = trustpilot_api(fake, TRUSTPILOT.model_copy(update={"start": "all"}))
    page = await trustpilot.poll(api, None, NOW)
    assert page.more
    first = told(trustpilot.CHANNEL, page.items)
    fake.write("late", "t", (NOW + timedelta(seconds=1)).isoformat())
    rest, cursor = await look(trustpilot.CHANNEL, api, page.cursor)
    assert sorted(one[0] for one in first + rest) == [f"r{number:03}" for number in range(150)]
    assert [one[0] for one in (await look(trustpilot.CHANNEL, api, cursor))[0]] == ["late"]


# ---------------------------------------------------------------------------------------------- Yelp


def yelp_body(*updates: dict[str, Any]) -> dict[str, Any]:
    return {"time": "2026-01-10T11:00:00", "object": "business", "data": {"id": "Biz1", "updates": updates}}  # fmt: skip


async def test_a_review_among_yelps_excerpts_gets_its_text_and_one_beyond_them_its_stars() -> None:
    shown = [{"id": f"Rv{n}", "text": f"Text {n}", "rating": n, "user": {"id": f"Us{n}"}} for n in range(1, 5)]  # fmt: skip
    fake = Yelp(businesses={"Biz1": shown})
    body = yelp_body(
        {"event_type": "NEW_REVIEW_EVENT", "review_id": "Rv1", "rating": 1.0, "user_id": "Us1"},
        {"event_type": "REVIEW_EDITED_EVENT", "review_id": "Rv4", "rating": 4.0, "user_id": "Us4"},
        {"event_type": "REVIEW_REMOVED_EVENT", "review_id": "Rv9", "user_id": "Us9"},
    )
    items = await yelp.read_back(yelp_api(fake), delivery(yelp.CHANNEL, body, YELP))
    assert told(yelp.CHANNEL, items) == [
        ("Rv1", "new", "Text 1"),
        ("Rv4", "edited", ""),
        ("Rv9", "deleted", ""),
    ]
    assert [taken_in(yelp.CHANNEL, item).verified for item in items] == [True, False, False]
    review = taken_in(yelp.CHANNEL, items[1]).messages[0].review
    assert review is not None
    assert review.rating == 4.0


async def test_a_business_that_yelp_does_not_know_loses_no_review() -> None:
    body = yelp_body({"event_type": "NEW_REVIEW_EVENT", "review_id": "Rv1", "user_id": "Us1"})
    items = await yelp.read_back(yelp_api(Yelp()), delivery(yelp.CHANNEL, body, YELP))
    assert told(yelp.CHANNEL, items) == [("Rv1", "new", "")]


# ---------------------------------------------------------------------------------------- app stores


async def test_both_stores_are_looked_at_and_their_reviews_found_once() -> None:
    fake = AppStores()
    api = stores_api(fake)
    _, cursor = await look(app_store.CHANNEL, api, None)
    fake.write_play("gp1", "Не открывается", int(NOW.timestamp()) - 60)
    fake.write_apple("875", "The cart empties itself.", "2026-01-10T04:00:00-07:00", "Fixed.")
    found, cursor = await look(app_store.CHANNEL, api, cursor)
    assert found == [
        ("gp1", "new", "Не открывается"),
        ("875", "new", "The cart empties itself."),
        ("rsp-875", "ours", "Fixed."),
    ]
    assert (await look(app_store.CHANNEL, api, cursor))[0] == []


async def test_a_review_at_play_that_changed_is_an_edit() -> None:
    fake = AppStores()
    api = stores_api(fake)
    fake.write_play("gp1", "Не открывается", int(NOW.timestamp()) - 7_200)
    _, cursor = await look(app_store.CHANNEL, api, None)
    fake.write_play("gp1", "Исправили", int(NOW.timestamp()) - 60)
    assert (await look(app_store.CHANNEL, api, cursor))[0] == [("gp1", "edited", "Исправили")]


async def test_plays_list_has_no_order_and_is_read_to_its_end() -> None:
    fake = AppStores(play_page=2)
    api = stores_api(fake, STORES.model_copy(update={"start": "all", "apple_apps": ()}))
    for number, age in enumerate((5, 400_000, 3, 500_000, 1)):
        fake.write_play(f"gp{number}", f"t{number}", int(NOW.timestamp()) - age)
    found, _ = await look(app_store.CHANNEL, api, None)
    assert sorted(one[0] for one in found) == ["gp0", "gp1", "gp2", "gp3", "gp4"]


async def test_apples_next_page_is_asked_for_at_our_address_whatever_the_link_says() -> None:
    fake = AppStores()
    for number in range(250):
        at = (NOW - timedelta(minutes=number)).isoformat()
        fake.write_apple(f"{number:03}", "text", at)
    api = stores_api(fake, STORES.model_copy(update={"start": "all", "play_packages": ()}))
    found, _ = await look(app_store.CHANNEL, api, None)
    assert len(found) == 250
    assert {path for path, _ in fake.asked} == {"/v1/apps/1234567890/customerReviews"}


async def test_a_private_key_that_is_none_is_said_and_asks_nobody() -> None:
    fake = AppStores()
    settings = STORES.model_copy(update={"play_packages": ()})
    api = VendorApi(settings, {"apple_private_key": "no key"}, desk.client(fake.server()))
    with pytest.raises(ApiProblem) as problem:
        await app_store.poll(api, None, NOW)
    assert (problem.value.reason, fake.asked) == ("no_secret", [])


def test_an_app_without_its_stores_credentials_is_not_looked_at() -> None:
    assert not app_store.CHANNEL.polls(app_store.Settings(play_packages=("com.example.shop",)))
    assert not app_store.CHANNEL.polls(app_store.Settings())
    assert app_store.CHANNEL.polls(STORES)


# ------------------------------------------------------------------------------------------- trouble

Polled = tuple[Channel, desk.Desk, VendorApi]


def polled_google() -> Polled:
    fake = GoogleReviews()
    return google_reviews.CHANNEL, fake, google_api(fake)


def polled_trustpilot() -> Polled:
    fake = Trustpilot()
    return trustpilot.CHANNEL, fake, trustpilot_api(fake)


def polled_stores() -> Polled:
    fake = AppStores()
    return app_store.CHANNEL, fake, stores_api(fake)


@pytest.mark.parametrize("make", [polled_google, polled_trustpilot, polled_stores])
@pytest.mark.parametrize(
    ("status", "body", "headers", "reason", "retry_after"),
    [
        (401, "", {}, "unauthorized", None),
        (403, "", {}, "forbidden", None),
        (404, "", {}, "missing", None),
        (429, "", {"Retry_After": "17"}, "throttled", 17.0),
        (500, "", {}, "failed", None),
        (503, "", {"Retry_After": "5"}, "failed", 5.0),
        (200, "{", {}, "bad_answer", None),
        (200, "[]", {}, "bad_answer", None),
        (200, '{"reviews": 7, "data": 7}', {}, "bad_answer", None),
    ],
)
async def test_trouble_is_told_by_its_name_and_the_next_look_goes_on(
    make: Callable[[], Polled],
    status: int,
    body: str,
    headers: dict[str, str],
    reason: str,
    retry_after: float | None,
) -> None:
    channel, fake, api = make()
    assert channel.poll is not None
    fake.misbehave(status, body, **headers)
    with pytest.raises(ApiProblem) as problem:
        await channel.poll(api, None, NOW)
    assert (problem.value.reason, problem.value.retry_after) == (reason, retry_after)
    await look(channel, api, None)


async def test_no_token_of_ours_goes_anywhere_but_to_the_vendor() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if request.url.path.endswith("/token"):
            return httpx.Response(200, json={"access_token": "t", "expires_in": 60})
        return httpx.Response(302, headers={"Location": "https://elsewhere.invalid/"})

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer), follow_redirects=False)
    with pytest.raises(ApiProblem):
        await google_reviews.poll(VendorApi(GOOGLE, GOOGLE_SECRETS, client), None, NOW)
    assert {request.url.host for request in asked} == {"desk.invalid"}
