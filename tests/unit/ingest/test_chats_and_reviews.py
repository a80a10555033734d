"""Chats, the shop and reviews: what each vendor's rules make of a delivery, at both sides of each edge."""

import gzip
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.adapters import (
    apple_messages,
    chatra,
    google_reviews,
    livechat,
    lookback,
    olark,
    shopify,
    tidio,
    trustpilot,
    yelp,
)
from services.ingest.adapters.api import ApiProblem
from services.ingest.adapters.channel import (
    Channel,
    ChannelSettings,
    Delivery,
    Fetched,
    Page,
    Parsed,
    ParseError,
    Request,
)
from services.ingest.core.dedupe import name_of

NOW = datetime(2026, 1, 10, 12, 0, tzinfo=UTC)


def parse(
    channel: Channel,
    body: Any,
    settings: ChannelSettings | None = None,
    **headers: str,
) -> Parsed:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return channel.parse(
        Delivery(
            channel.name, "shop", raw, NOW, headers=named, settings=settings or channel.settings()
        )
    )


def problem(channel: Channel, body: Any, **headers: str) -> str:
    with pytest.raises(ParseError) as error:
        parse(channel, body, None, **headers)
    return error.value.problem


# --------------------------------------------------------------------------------------------- Apple


def apple(**more: Any) -> dict[str, Any]:
    return {"type": "text", "id": "a-1", "sourceId": "urn:mbid:A", "body": "Hello"} | more


def test_a_compressed_body_is_read_up_to_its_bound_and_refused_beyond() -> None:
    room = apple_messages.BODY_BYTES_MAX - len(json.dumps(apple(body="")))
    fits = gzip.compress(json.dumps(apple(body="a" * room)).encode())
    bomb = gzip.compress(json.dumps(apple(body="a" * (room + 1))).encode())
    assert len(parse(apple_messages.CHANNEL, fits, content_encoding="gzip").messages) == 1
    assert problem(apple_messages.CHANNEL, bomb, content_encoding="gzip") == "too_large"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: body[:-4],
        lambda body: body + b"more",
        lambda body: body[:20] + b"\x00\xff" + body[22:],
        lambda body: body + body,
    ],
)
def test_a_damaged_compressed_body_is_refused(spoil: Any) -> None:
    body = spoil(gzip.compress(json.dumps(apple()).encode()))
    assert problem(apple_messages.CHANNEL, body, content_encoding="gzip") == "invalid_gzip"


def test_a_body_that_somebody_decompressed_on_the_way_is_read_as_it_is() -> None:
    (message,) = parse(apple_messages.CHANNEL, apple(), content_encoding="gzip").messages
    assert message.text == "Hello"


def test_the_key_of_a_file_at_apple_stays_out_of_the_message() -> None:
    file = {"name": "a.png", "mime-type": "image/png", "key": "00canary", "size": "7"}
    (message,) = parse(apple_messages.CHANNEL, apple(attachments=[file])).messages
    assert "canary" not in message.model_dump_json()
    assert message.attachments[0].media_type == "image/png"


def test_what_we_sent_to_a_customer_of_apple_does_not_come_back() -> None:
    ours = apple_messages.Settings(own_ids=("urn:mbid:A",))
    assert parse(apple_messages.CHANNEL, apple(), ours).ignored == "echo"


# ------------------------------------------------------------------------------- Olark and Chatra


def test_a_transcript_that_comes_again_longer_repeats_the_names_of_its_lines() -> None:
    line = {"kind": "MessageToOperator", "timestamp": "1767225600.1", "body": "Hello"}
    chat = {"id": "c1", "visitor": {"id": "v1"}, "items": [line]}
    longer = chat | {"items": [line, line | {"body": "Anybody?"}]}
    first = parse(olark.CHANNEL, chat).messages
    again = parse(olark.CHANNEL, longer).messages
    assert [name_of(one) for one in first] == [name_of(one) for one in again[:1]]
    assert len({name_of(one) for one in again}) == 2


def test_a_form_without_the_field_that_holds_the_chat_is_refused_by_its_name() -> None:
    with pytest.raises(ParseError) as error:
        parse(olark.CHANNEL, b"other=1", content_type="application/x-www-form-urlencoded")
    assert error.value.field == "data"


def test_a_robot_of_ours_in_a_chat_of_olark_is_an_echo() -> None:
    line = {"kind": "MessageToVisitor", "timestamp": "1", "body": "Hi", "operatorId": "bot"}
    chat = {"id": "c1", "visitor": {"id": "v1"}, "items": [line]}
    assert parse(olark.CHANNEL, chat, olark.Settings(own_ids=("bot",))).ignored == "echo"


def chat_of(*lines: dict[str, Any], **client: Any) -> dict[str, Any]:
    about = {"id": "cli", "chatId": "chat1", "displayedName": "Rosa"} | client
    return {"eventName": "chatFragment", "client": about, "messages": list(lines)}


def test_a_line_of_chatra_is_the_same_message_before_and_after_its_writer_gives_an_address() -> (
    None
):
    line = {"type": "client", "message": "Hello", "createdAt": 1767225600000}
    before = parse(chatra.CHANNEL, chat_of(line)).messages[0]
    after = parse(
        chatra.CHANNEL,
        chat_of(line, email="rosa@example.test") | {"eventName": "chatTranscript"},
    ).messages[0]
    assert name_of(before) == name_of(after)
    assert after.fields["email"] == "rosa@example.test"


def test_the_same_words_at_another_time_are_another_message() -> None:
    lines = [{"type": "client", "message": "?", "createdAt": 1767225600000 + n} for n in (0, 1)]
    found = parse(chatra.CHANNEL, chat_of(*lines)).messages
    assert len({name_of(one) for one in found}) == 2


def test_what_we_push_into_a_chat_of_chatra_is_an_echo_and_a_colleagues_line_is_outbound() -> None:
    ours = chatra.Settings(own_ids=("agt_push",))
    pushed = {"type": "agent", "agentId": "agt_push", "message": "Hi", "createdAt": 1767225600000}
    typed = pushed | {"agentId": "agt_kim"}
    assert parse(chatra.CHANNEL, chat_of(pushed), ours).ignored == "echo"
    (message,) = parse(chatra.CHANNEL, chat_of(pushed, typed), ours).messages
    assert (message.direction, message.recipients) == ("outbound", ("cli",))


# --------------------------------------------------------------------------------------------- Tidio


@given(st.binary(max_size=60), st.text(max_size=60))
def test_no_header_of_tidio_is_ever_right_by_chance_or_raises(body: bytes, header: str) -> None:
    request = Request("POST", "https://gate.example/x", {"x-tidio-signature": header}, body)
    verdict = tidio.verify(request, {"secret": "s"}, NOW)
    assert not verdict.accepted


def test_tidios_name_of_a_delivery_is_the_signed_one() -> None:
    body = b'{"topic":"ticket.replied","webhook_id":"w-1"}'
    stamp = str(int(NOW.timestamp()))
    signature = tidio.signature_of(b"s", body, stamp)
    headers = {"x-tidio-signature": f"t={stamp},s={signature}"}
    verdict = tidio.verify(Request("POST", "", headers, body), {"secret": "s"}, NOW)
    assert (verdict.accepted, verdict.name) == (True, "w-1")


def test_an_operator_of_ours_at_tidio_is_an_echo() -> None:
    message = {"message_id": "m", "author_type": "operator", "author_id": "op", "message_content": "Hi"}  # fmt: skip
    event = {"topic": "ticket.operator_replied", "content": {"id": 1, "contact_id": "c", "message": message}}  # fmt: skip
    assert parse(tidio.CHANNEL, event, tidio.Settings(own_ids=("op",))).ignored == "echo"
    assert parse(tidio.CHANNEL, event).messages[0].direction == "outbound"


# ------------------------------------------------------------------------------------------ LiveChat


@pytest.mark.parametrize(
    "body",
    [
        b'{"secret_key":"canary","action":"x","payload":{}}',
        b'{"secret_key":"first-canary","action":"x","secret_key":"canary"}',
        b'{"secret\\u005fkey":"canary","action":"x"}',
        b' {\n "action": "x",\n "secret_key": "canary"\n}',
    ],
)
def test_the_key_of_livechat_is_out_of_the_body_before_it_is_stored(body: bytes) -> None:
    kept = livechat.scrub(body)
    assert b"canary" not in kept
    assert json.loads(kept)["action"] == "x"


def test_scrubbing_keeps_every_other_value_as_it_was() -> None:
    body = b'{"secret_key":"k","payload":{"n":12345678901234567890,"t":"\\u0131"},"a":1.50}'
    assert livechat.scrub(body) == b'{"payload":{"n":12345678901234567890,"t":"\\u0131"},"a":1.50}'


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'"secret_key"', b"[" * 5_000])
def test_scrubbing_what_is_no_object_changes_nothing(body: bytes) -> None:
    assert livechat.scrub(body) == body


def test_a_customer_cannot_pass_for_our_echo_by_a_mark() -> None:
    event = {
        "id": "e1", "type": "message", "author_id": "91c40a77-0000-4000-8000-0000000000c1",
        "custom_id": "signalbox-1", "text": "Read me",
    }  # fmt: skip
    body = {"action": "incoming_event", "payload": {"chat_id": "c", "event": event}}
    assert parse(livechat.CHANNEL, body).messages[0].text == "Read me"


# ------------------------------------------------------------------------------------------- Shopify


def order(**more: Any) -> Any:
    body = {"id": 820982911946154508, "name": "#1001", "total_price": "39.90"} | more
    (made,) = parse(shopify.CHANNEL, body, x_shopify_topic="orders/updated").orders
    return made


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({}, "open"),
        ({"financial_status": "paid"}, "paid"),
        ({"financial_status": "paid", "fulfillment_status": "fulfilled"}, "fulfilled"),
        ({"financial_status": "refunded", "fulfillment_status": "fulfilled"}, "refunded"),
        ({"financial_status": "refunded", "cancelled_at": "2026-01-01T00:00:00Z"}, "cancelled"),
    ],
)
def test_an_orders_status_is_the_word_that_says_most(more: dict[str, Any], status: str) -> None:
    assert order(**more).status == status


def test_an_orders_addresses_are_those_beyond_doubt_and_each_once() -> None:
    made = order(
        email="Ada@Example.com",
        phone="+90 (532) 000-00-01",
        customer={"email": "ada@example.com", "phone": "0532 000 00 01"},
    )
    assert made.addresses == (("email", "ada@example.com"), ("phone", "+905320000001"))


def test_an_order_without_its_times_has_those_of_the_delivery() -> None:
    made = order()
    assert made.placed_at == made.updated_at == NOW


def test_nothing_of_a_privacy_request_is_kept() -> None:
    for topic in sorted(shopify.PRIVACY_TOPICS):
        parsed = parse(shopify.CHANNEL, {"id": 1, "total_price": "1"}, x_shopify_topic=topic)
        assert (parsed.ignored, parsed.orders, parsed.messages) == ("privacy_request", (), ())


def test_a_retry_of_shopify_repeats_its_name_and_another_shop_has_another() -> None:
    def name(shop: str) -> str | None:
        headers = {"x-shopify-webhook-id": "w1", "x-shopify-shop-domain": shop}
        signature = "gsuEBco4M+WYGARunQWpacPNq9OoFwDvTqiNg6cjLlA="
        body = b'{"id":820982911946154508,"email":"ada@example.com","total_price":"39.90"}'
        request = Request("POST", "", headers | {"x-shopify-hmac-sha256": signature}, body)
        return shopify.verify(request, {"secret": "omnitick-shopify-secret"}, NOW).name

    assert name("a.myshopify.com") == name("a.myshopify.com")
    assert name("a.myshopify.com") != name("b.myshopify.com")


# ------------------------------------------------------------------------------------------- reviews


def test_reviews_are_public_whoever_tells_of_them() -> None:
    event = {"eventName": "service-review-created", "eventData": {"id": "r1"}}
    update = {"event_type": "NEW_REVIEW_EVENT", "review_id": "Rv1"}
    found = [
        *parse(trustpilot.CHANNEL, {"events": [event]}).messages,
        *parse(yelp.CHANNEL, {"data": {"id": "b", "updates": [update]}}).messages,
        *parse(
            google_reviews.CHANNEL, {"review": {"reviewId": "x"}}, x_signalbox_fetched="review"
        ).messages,
    ]
    assert len(found) == 3
    assert {(one.kind, one.visibility) for one in found} == {("review", "public")}


@pytest.mark.parametrize("data", ["%%%", "eyJ", "W10=", "bnVsbA==", "A" * 70_000])
def test_a_push_with_spoiled_data_is_refused(data: str) -> None:
    assert problem(google_reviews.CHANNEL, {"message": {"data": data}})


def test_a_review_keeps_its_name_when_the_api_knows_a_mail_address() -> None:
    review = {"id": "r1", "consumer": {"id": "c1", "name": "R. Lund"}, "text": "Late"}
    event = {"eventName": "service-review-created", "eventData": review}
    (pushed,) = parse(trustpilot.CHANNEL, {"events": [event]}).messages
    known = {"review": review | {"referralEmail": "lund@example.test"}}
    (read,) = parse(trustpilot.CHANNEL, known, x_signalbox_fetched="review").messages
    assert name_of(pushed) == name_of(read)
    assert read.fields["email"] == "lund@example.test"


def test_a_review_of_yelp_keeps_its_writer_whether_its_text_could_be_read_or_not() -> None:
    update = {"event_type": "NEW_REVIEW_EVENT", "review_id": "Rv1", "user_id": "Us1"}
    body = {"data": {"id": "b", "updates": [update]}}
    (hinted,) = parse(yelp.CHANNEL, body).messages
    told = {"update": update, "business_id": "b", "review": {"id": "Rv1", "user": {"id": "other"}}}
    (read,) = parse(yelp.CHANNEL, told, x_signalbox_fetched="review").messages
    assert name_of(hinted) == name_of(read)


# ------------------------------------------------------------------------------------- looking back


def item(name: str, version: str, at: datetime) -> lookback.Item:
    def make(is_known: bool) -> Fetched:
        return Fetched("x", f"{name}@{version}", b"edited" if is_known else b"new")

    return lookback.Item(name, version, at, make)


async def looked(
    cursor: str | None, pages: dict[str, tuple[list[lookback.Item], str]], *, days: int = 7
) -> Page:
    async def ask(_: str, page: str) -> tuple[list[lookback.Item], str]:
        return pages[page]

    return await lookback.look(cursor, ["s"], ask, start="all", days=days)


async def test_the_floor_is_where_the_look_back_ends_to_the_microsecond() -> None:
    newest = item("a", "1", datetime(2026, 1, 8, tzinfo=UTC))
    page = await looked(None, {"": ([newest], "")})
    at_floor = item("b", "1", datetime(2026, 1, 1, tzinfo=UTC))
    below = item("c", "1", datetime(2025, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))
    page = await looked(page.cursor, {"": ([newest, at_floor, below], "")})
    assert [one.name for one in page.items] == ["b@1"]


async def test_a_vendor_whose_next_page_is_the_same_page_does_not_hold_us() -> None:
    first = item("a", "1", NOW)
    page = await looked(None, {"": ([first], "p"), "p": ([first], "p")})
    assert page.more
    page = await looked(page.cursor, {"": ([first], "p"), "p": ([first], "p")})
    assert not page.more


async def test_a_cursor_that_is_none_of_ours_is_said_and_not_guessed_at() -> None:
    with pytest.raises(ApiProblem) as told:
        await looked("junk", {"": ([], "")})
    assert told.value.reason == "bad_cursor"


async def test_what_a_cursor_remembers_is_bounded() -> None:
    many = [item(f"r{n}", "1", NOW) for n in range(lookback.SHOWN_MAX + 500)]
    page = await looked(None, {"": (many, "")})
    assert page.cursor is not None
    assert len(page.cursor) < 100 * lookback.SHOWN_MAX


async def test_a_source_that_was_taken_out_of_the_settings_is_forgotten() -> None:
    async def ask(source: str, _: str) -> tuple[list[lookback.Item], str]:
        return [item(f"{source}1", "1", NOW)], ""

    cursor = None
    for sources in (["a", "b"], ["a", "b"], ["a"]):
        page = await lookback.look(cursor, sources, ask, start="new", days=7)
        cursor = page.cursor
    assert cursor is not None
    assert list(json.loads(cursor)["marks"]) == ["a"]
