"""X, Hootsuite, Slack, Telegram, Discourse, Sprout: the rules that recorded pairs cannot show."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.ingest.adapters import discourse, hootsuite, signing, slack, sprout, telegram, x
from services.ingest.adapters.channel import (
    ChannelSettings,
    Delivery,
    MessageContent,
    Parsed,
    ParseError,
    Request,
)

NOW = datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)
ADDRESS = "https://in.example/v1/channels/any/main"


def delivery(
    body: Any, settings: ChannelSettings | None = None, headers: dict[str, str] | None = None
) -> Delivery:
    return Delivery(
        channel="any",
        account="main",
        body=json.dumps(body).encode(),
        received_at=NOW,
        headers=headers or {},
        settings=settings or ChannelSettings(),
    )


def one(parsed: Parsed) -> MessageContent:
    assert parsed.ignored is None
    assert len(parsed.messages) == 1
    return parsed.messages[0]


# ------------------------------------------------------------------------------------------------ X


def direct(sender: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "message_create",
        "id": "9001",
        "created_timestamp": "1767225600000",
        "message_create": {
            "target": {"recipient_id": "2222" if sender == "1111" else "1111"},
            "sender_id": sender,
            "message_data": {"text": "Hello"},
            **more,
        },
    }


def activity(kind: str, payload: Any) -> dict[str, Any]:
    return {"data": {"event_type": kind, "filter": {"user_id": "1111"}, "payload": payload}}


def test_no_challenge_makes_a_signature_that_a_delivery_could_bear() -> None:
    """The challenge is signed with the key of deliveries, so what looks like one is not signed."""
    secrets = {"secret": "x-consumer-secret-0003"}
    forged = b'{"for_user_id":"1","direct_message_events":[]}'
    for token in (forged.decode(), " " + forged.decode(), "[]", "a\n{}", '"a"'):
        query = "?crc_token=" + "".join(f"%{byte:02X}" for byte in token.encode())
        verdict = x.verify(Request("GET", ADDRESS + query, {}, b""), secrets, NOW)
        assert (verdict.accepted, verdict.reason) == (False, "malformed")
        assert signing.base64_hmac(b"x-consumer-secret-0003", token.encode()) not in repr(verdict)


def test_the_challenge_is_answered_with_the_new_secret_while_it_rotates() -> None:
    request = Request("GET", ADDRESS + "?crc_token=abc", {}, b"")
    verdict = x.verify(request, {"secret": "new", "previous_secret": "old"}, NOW)
    assert signing.base64_hmac(b"new", b"abc") in verdict.respond.body


def test_what_our_person_wrote_in_xs_own_app_is_our_side_and_what_our_app_sent_is_an_echo() -> None:
    settings = x.Settings(app_id="77")
    told = activity("dm.sent", {"direct_message_events": [direct("1111", source_app_id="258901")]})
    assert one(x.parse(delivery(told, settings))).direction == "outbound"
    for app in ({"source_app_id": "77"}, {}):
        told = activity("dm.sent", {"direct_message_events": [direct("1111", **app)]})
        assert x.parse(delivery(told, settings)).ignored == "echo"
    told = activity("dm.sent", {"direct_message_events": [direct("1111", source_app_id="258901")]})
    assert x.parse(delivery(told)).ignored == "echo"  # Without our app's id nobody can tell.


def test_a_conversation_of_two_has_one_name_whoever_writes() -> None:
    settings = x.Settings(app_id="77")
    theirs = one(
        x.parse(delivery(activity("dm.received", {"direct_message_events": [direct("2222")]})))
    )
    ours = activity("dm.sent", {"direct_message_events": [direct("1111", source_app_id="1")]})
    assert theirs.thread == one(x.parse(delivery(ours, settings))).thread == "1111-2222"


def test_the_older_api_can_be_refused() -> None:
    told = {"for_user_id": "1111", "direct_message_events": [direct("2222")]}
    assert one(x.parse(delivery(told))).text == "Hello"
    with pytest.raises(ParseError, match="account_activity"):
        x.parse(delivery(told, x.Settings(account_activity=False)))


def test_a_second_account_of_ours_is_known_by_its_id() -> None:
    post = {"id": "5", "text": "@us hi", "author_id": "4444"}
    told = activity("post.mention.create", post)
    assert one(x.parse(delivery(told))).visibility == "public"
    assert x.parse(delivery(told, x.Settings(own_ids=("4444",)))).ignored == "echo"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("dm.read", "receipt"),
        ("dm.indicate_typing", "typing"),
        ("chat.sent", "encrypted"),
        ("like.create", "not_a_message"),
        ("post.pinned", "unknown_event"),
        ("", "unknown_event"),
    ],
)
def test_events_of_x_that_say_nothing_are_named(kind: str, reason: str) -> None:
    assert x.parse(delivery(activity(kind, {"id": 1}))).ignored == reason


@pytest.mark.parametrize("body", [{}, [], {"data": []}, {"tweet": {}}, "post", None])
def test_a_body_of_neither_api_is_refused(body: Any) -> None:
    with pytest.raises(ParseError) as refused:
        x.parse(delivery(body))
    assert refused.value.field is not None


def test_an_event_without_a_type_is_unknown() -> None:
    assert x.parse(delivery({"data": {}})).ignored == "unknown_event"
    assert x.parse(delivery({"for_user_id": "1111", "new_events": []})).ignored == "unknown_event"


@pytest.mark.parametrize(
    ("told", "at"),
    [
        ("Thu Jan 01 00:00:00 +0000 2026", datetime(2026, 1, 1, tzinfo=UTC)),
        ("Thu Jan 01 02:00:00 +0200 2026", datetime(2026, 1, 1, tzinfo=UTC)),
        ("Thu Xyz 01 00:00:00 +0000 2026", NOW),
        ("Thu Feb 31 00:00:00 +0000 2026", NOW),
        ("Thu Jan 01 00:00:00 +9959 2026", NOW),
        (None, NOW),
    ],
)
def test_the_older_apis_times_are_read_and_nonsense_is_the_time_of_receipt(
    told: str | None, at: datetime
) -> None:
    post = {"id_str": "5", "text": "hi", "user": {"id_str": "3"}, "created_at": told}
    body = {"for_user_id": "1", "tweet_create_events": [post]}
    assert one(x.parse(delivery(body))).occurred_at == at


# ---------------------------------------------------------------------------------------- Hootsuite


def inbox(**more: Any) -> dict[str, Any]:
    data = {"conversationId": "0-1", "message": {"messageId": "m-1", "text": "Hi"}, **more}
    return {"type": "INBOUND_MESSAGE_RECEIVED", "timestamp": "2026-01-01T00:00:00Z", "data": data}


def test_a_test_contact_of_ours_is_left_out() -> None:
    told = inbox(contactProfile={"id": "cp-1"})
    assert one(hootsuite.parse(delivery(told))).sender.address == "cp-1"
    assert hootsuite.parse(delivery(told, hootsuite.Settings(own_ids=("cp-1",)))).ignored == "echo"


def test_a_conversation_that_starts_with_a_message_brings_it_and_the_id_keeps_it_single() -> None:
    started = {**inbox(), "type": "CONVERSATION_STARTED"}
    first, second = (one(hootsuite.parse(delivery(body))) for body in (started, inbox()))
    assert first.vendor_message_id == second.vendor_message_id == "m-1"


@pytest.mark.parametrize("missing", ["message", "conversationId"])
def test_a_hootsuite_message_without_its_ids_is_refused_by_field(missing: str) -> None:
    told = inbox()
    del told["data"][missing]
    with pytest.raises(ParseError) as refused:
        hootsuite.parse(delivery(told))
    assert missing in str(refused.value)


# -------------------------------------------------------------------------------------------- Slack


def event(**more: Any) -> dict[str, Any]:
    message = {"type": "message", "channel": "C1", "user": "U1", "ts": "1767225599.000200"}
    return {"type": "event_callback", "api_app_id": "A1", "event": {**message, "text": "x", **more}}


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("<@U1|ada> look", "@ada look"),
        ("<@U1>", "@U1"),
        ("<#C1|help>", "#help"),
        ("<!here> please", "@here please"),
        ("<!subteam^S1|@service>", "@service"),
        ("<!date^1767225600^{date}|1 Jan 2026>", "1 Jan 2026"),
        ("<mailto:ada@example.com|ada@example.com>", "ada@example.com"),
        ("<https://a.example/x?a=1&amp;b=2>", "https://a.example/x?a=1&b=2"),
        ("<https://a.example|https://a.example>", "https://a.example"),
        ("<https://a.example|here>", "here (https://a.example)"),
        ("1 &lt; 2 &amp;&amp; 3 &gt; 2", "1 < 2 && 3 > 2"),
        ("&amp;lt;", "&lt;"),
        ("<<a>", "<a"),
    ],
)
def test_slacks_marks_become_what_people_read(marked: str, plain: str) -> None:
    assert slack.plain(marked) == plain


def test_many_open_brackets_are_read_in_linear_time() -> None:
    assert slack.plain("<" * 200_000).startswith("<")


def test_our_bot_is_known_by_its_ids_its_app_and_the_user_the_event_was_sent_for() -> None:
    told = event(bot_id="B1")
    assert slack.parse(delivery(told, slack.Settings(own_ids=("B1",)))).ignored == "echo"
    assert slack.parse(delivery(event(bot_id="B9", app_id="A1"))).ignored == "echo"
    assert slack.parse(delivery(event(), slack.Settings(own_ids=("U1",)))).ignored == "echo"
    for_us = {**event(), "authorizations": [{"user_id": "U1", "is_bot": True}]}
    assert slack.parse(delivery(for_us)).ignored == "echo"
    for_a_person = {**event(), "authorizations": [{"user_id": "U1", "is_bot": False}]}
    assert one(slack.parse(delivery(for_a_person))).direction == "inbound"


def test_another_bot_speaks_as_a_machine() -> None:
    found = one(slack.parse(delivery(event(bot_id="B9", app_id="A9"))))
    assert (found.is_automatic, found.automatic_reason) == (True, "bot")


def test_what_our_people_write_in_a_customers_channel_is_our_side() -> None:
    settings = slack.Settings(agent_ids=("U1",))
    assert one(slack.parse(delivery(event(), settings))).direction == "outbound"
    assert one(slack.parse(delivery(event(user="U2"), settings))).direction == "inbound"


def test_a_mention_and_its_message_are_one_by_channel_and_time() -> None:
    as_message = one(slack.parse(delivery(event())))
    as_mention = one(slack.parse(delivery(event(type="app_mention"))))
    assert as_mention.vendor_message_id == as_message.vendor_message_id == "C1:1767225599.000200"


def test_a_removed_message_with_answers_is_removed() -> None:
    told = event(
        subtype="message_changed",
        message={"subtype": "tombstone", "user": "USLACKBOT", "ts": "1.1"},
        previous_message={"user": "U1", "text": "x", "ts": "1.1"},
    )
    found = one(slack.parse(delivery(told)))
    assert (found.change, found.sender.address, found.text) == ("deleted", "U1", "")


def test_a_removal_that_names_no_writer_cannot_be_placed() -> None:
    told = event(subtype="message_deleted", deleted_ts="1.1", user=None)
    assert slack.parse(delivery(told)).ignored == "deleted_unseen"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("payload=%7B%7D", "interaction"),
        ("command=%2Fhelp&text=x", "command"),
        ("ssl_check=1&token=x", "ping"),
    ],
)
def test_slacks_forms_are_let_in_and_left_out(body: str, reason: str) -> None:
    given = replace(delivery(None), body=body.encode())
    assert slack.parse(given).ignored == reason


@pytest.mark.parametrize("body", [b"", b"a=b", b"[]", b'"x"', b"{", b'{"type":"event_callback"}'])
def test_what_is_no_delivery_of_slack_is_refused(body: bytes) -> None:
    with pytest.raises(ParseError):
        slack.parse(replace(delivery(None), body=body))


def test_a_repeat_has_the_name_of_the_event_and_not_of_its_unsigned_headers() -> None:
    body = b'{"type":"event_callback","event_id":"Ev1","event":{}}'
    stamp = str(int(NOW.timestamp()))
    signed = "v0=" + signing.hex_hmac(b"s", b"v0:" + stamp.encode() + b":" + body)
    headers = {
        "x-slack-signature": signed,
        "x-slack-request-timestamp": stamp,
        "x-slack-retry-num": "2",
    }
    assert slack.verify(Request("POST", ADDRESS, headers, body), {"secret": "s"}, NOW).name == "Ev1"


# ----------------------------------------------------------------------------------------- Telegram


def chat_message(**more: Any) -> dict[str, Any]:
    person = {"id": 5, "is_bot": False, "first_name": "Noor"}
    message = {"message_id": 3, "date": 1767225600, "chat": {"id": 5, "type": "private"}}
    return {"update_id": 1, "message": {**message, "from": person, **more}}


@pytest.mark.parametrize(
    ("content", "text", "file"),
    [
        ({"voice": {"file_id": "v", "mime_type": "audio/ogg", "file_size": 9}}, "", "voice.ogg"),
        ({"document": {"file_id": "d", "file_name": "bill.pdf"}}, "", "bill.pdf"),
        ({"sticker": {"file_id": "s", "emoji": "👍"}}, "👍", "sticker.webp"),
        ({"video": {"file_id": "v"}, "caption": "see"}, "see", "video.mp4"),
        ({"animation": {"file_id": "a"}, "document": {"file_id": "a"}}, "", "animation.mp4"),
        ({"location": {"latitude": 41.0, "longitude": 29.0}}, "41.0,29.0", None),
        (
            {
                "venue": {"title": "Shop", "address": "High St 1"},
                "location": {"latitude": 1.5, "longitude": 2.5},
            },
            "Shop\nHigh St 1\n1.5,2.5",
            None,
        ),
        ({"poll": {"question": "Red or blue?"}}, "Red or blue?", None),
    ],
)
def test_each_kind_of_content_says_what_people_would_see(
    content: dict[str, Any], text: str, file: str | None
) -> None:
    found = one(telegram.parse(delivery(chat_message(**content))))
    assert found.text == text
    assert [part.name for part in found.attachments] == ([file] if file else [])
    assert all(part.url is None for part in found.attachments)


def test_only_ones_own_number_counts_as_ones_own() -> None:
    shared = {"phone_number": "+90 555", "first_name": "Cem", "user_id": 6}
    found = one(telegram.parse(delivery(chat_message(contact=shared))))
    assert found.text == "Cem +90 555"
    assert "phone" not in found.fields


@pytest.mark.parametrize("text", ["/start", "/start shop-17"])
def test_the_start_button_is_no_message_but_a_word_like_it_is(text: str) -> None:
    assert telegram.parse(delivery(chat_message(text=text))).ignored == "start"
    assert one(telegram.parse(delivery(chat_message(text="/starting? no"))))
    group = {"id": -5, "type": "group", "title": "Users"}
    assert one(telegram.parse(delivery(chat_message(text=text, chat=group))))


def test_our_people_in_a_group_are_our_side_and_our_bots_are_echoes() -> None:
    settings = telegram.Settings(agent_ids=("5",))
    assert one(telegram.parse(delivery(chat_message(text="x"), settings))).direction == "outbound"
    settings = telegram.Settings(own_ids=("5",))
    assert telegram.parse(delivery(chat_message(text="x"), settings)).ignored == "echo"


def test_a_live_location_that_moves_is_no_edit() -> None:
    moved = chat_message(location={"latitude": 1.0, "longitude": 2.0}, edit_date=1767225700)
    moved["edited_message"] = moved.pop("message")
    assert telegram.parse(delivery(moved)).ignored == "location"


def test_whoever_writes_as_a_group_is_the_group() -> None:
    group = {"id": -100, "type": "supergroup", "title": "Users"}
    told = chat_message(
        text="x",
        chat=group,
        sender_chat=group,
        **{"from": {"id": 1087968824, "is_bot": True, "first_name": "Group"}},
    )
    found = one(telegram.parse(delivery(told)))
    assert (found.sender.address, found.sender.name) == ("-100", "Users")
    assert not found.is_automatic


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("channel_post", "own_post"),
        ("callback_query", "interaction"),
        ("message_reaction", "reaction"),
        ("business_connection", "status"),
        ("brand_new_kind", "unknown_event"),
    ],
)
def test_updates_that_say_nothing_are_named(kind: str, reason: str) -> None:
    assert telegram.parse(delivery({"update_id": 1, kind: {"id": "1"}})).ignored == reason


# ---------------------------------------------------------------------------------------- Discourse


def post(**more: Any) -> dict[str, Any]:
    known = {"id": 812, "topic_id": 77, "username": "Maria", "user_id": 9, "raw": "Any update?"}
    return {"post": {**known, **more}}


def test_names_of_ours_count_in_any_case_and_as_numbers() -> None:
    for own in ("maria", "MARIA", "9"):
        settings = discourse.Settings(own_ids=(own,))
        assert discourse.parse(delivery(post(), settings)).ignored == "echo"
    settings = discourse.Settings(agent_ids=("maria",))
    assert one(discourse.parse(delivery(post(), settings))).direction == "outbound"


def test_staff_are_our_people_unless_the_forum_says_otherwise() -> None:
    assert one(discourse.parse(delivery(post(moderator=True)))).direction == "outbound"
    settings = discourse.Settings(staff_is_us=False)
    assert one(discourse.parse(delivery(post(moderator=True), settings))).direction == "inbound"


@pytest.mark.parametrize(
    ("marks", "event", "change"),
    [
        ({}, None, "new"),
        ({}, "post_created", "new"),
        ({"version": 2}, "post_created", "edited"),
        ({"version": 1}, "post_edited", "edited"),
        ({"deleted_at": "2026-01-01T00:00:00Z"}, "post_created", "deleted"),
        ({"user_deleted": True}, "post_edited", "deleted"),
        ({}, "post_destroyed", "deleted"),
        ({}, "post_recovered", "edited"),
    ],
)
def test_a_posts_own_signed_marks_count_before_the_events_name(
    marks: dict[str, Any], event: str | None, change: str
) -> None:
    headers = {"x-discourse-event": event} if event else {}
    assert one(discourse.parse(delivery(post(**marks), headers=headers))).change == change


def test_private_messages_and_private_categories_are_private() -> None:
    settings = discourse.Settings(private_categories=(5,))
    assert one(discourse.parse(delivery(post(category_id=5)))).visibility == "public"
    assert one(discourse.parse(delivery(post(category_id=5), settings))).visibility == "private"
    told = post(topic_archetype="private_message")
    found = one(discourse.parse(delivery(told)))
    assert (found.visibility, found.kind) == ("private", "message")


@pytest.mark.parametrize("kind", [2, 3])
def test_a_forums_small_actions_and_own_voices_are_status(kind: int) -> None:
    assert discourse.parse(delivery(post(post_type=kind))).ignored == "status"
    assert discourse.parse(delivery(post(user_id=-1, username="system"))).ignored == "status"


@pytest.mark.parametrize(
    ("base", "header", "url"),
    [
        ("https://forum.example", "https://evil.example", "https://forum.example/t/-/77"),
        ("", "https://forum.example/", "https://forum.example/t/-/77"),
        ("", "javascript:alert(1)", None),
        ("", "", None),
    ],
)
def test_links_lead_to_the_configured_forum_first(base: str, header: str, url: str | None) -> None:
    settings = discourse.Settings(base_url=base)
    found = discourse.parse(delivery(post(), settings, {"x-discourse-instance": header}))
    assert one(found).url == url


@pytest.mark.parametrize(
    ("raw", "fresh"),
    [
        ("> old\n\nnew", "new"),
        ('[quote="a, post:1"]\nold\n[/quote]\nnew', "new"),
        ("[quote]one line[/quote]\nnew", "new"),
        ("[quote]\n[quote]\na\n[/quote]\nb\n[/quote]\nnew", "new"),
        ("[quote]\nnever closed", "[quote]\nnever closed"),
        ("all new", "all new"),
    ],
)
def test_what_is_quoted_is_not_what_is_new(raw: str, fresh: str) -> None:
    found = one(discourse.parse(delivery(post(raw=raw))))
    assert (found.text, found.text_new) == (raw, fresh)


# ------------------------------------------------------------------------------------------- Sprout


def message(post_type: str, **more: Any) -> dict[str, Any]:
    known = {"guid": "g:1", "text": "x", "from": {"guid": "p:2"}, "profile_guid": "p:1"}
    return {**known, "post_type": post_type, **more}


@pytest.mark.parametrize(
    ("post_type", "visibility"),
    [
        ("TWEET", "public"),
        ("FACEBOOK_COMMENT", "public"),
        ("TWITTER_DIRECT_MESSAGE", "private"),
        ("WHATSAPP_MEDIA", "private"),
        ("SOMETHING_NEW", "private"),
        ("", "private"),
    ],
)
def test_what_is_not_known_to_be_public_is_private(post_type: str, visibility: str) -> None:
    assert one(sprout.parse(delivery(message(post_type)))).visibility == visibility


def test_the_visibility_of_a_post_type_can_be_set_by_hand() -> None:
    settings = sprout.Settings(public_types=("SOMETHING_NEW",), private_types=("TWEET",))
    for post_type, visibility in (("SOMETHING_NEW", "public"), ("TWEET", "private")):
        found = one(sprout.parse(delivery(message(post_type), settings)))
        assert found.visibility == visibility


def test_a_profile_of_ours_is_known_by_its_id() -> None:
    settings = sprout.Settings(own_ids=("p:2",))
    assert one(sprout.parse(delivery(message("TWEET"), settings))).direction == "outbound"
    assert one(sprout.parse(delivery(message("TWEET", profile_guid="p:2")))).direction == "outbound"


@pytest.mark.parametrize(
    ("ratings", "stars"),
    [
        ([{"value": 4, "scale": 5}], 4.0),
        ([{"value": 6, "scale": 5}], None),
        ([{"value": True, "scale": 0}], None),
        ([{"4": "5"}], None),
        ("five", None),
    ],
)
def test_stars_are_read_where_they_are_clear(ratings: Any, stars: float | None) -> None:
    found = one(sprout.parse(delivery(message("FACEBOOK_REVIEW", review_ratings=ratings))))
    assert found.kind == "review"
    assert found.review is not None
    assert found.review.rating == stars
