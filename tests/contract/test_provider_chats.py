"""Providers of chats and telephones beyond what all share, and what comes back of our own messages by the vendors' webhooks."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree as Xml

import pytest
from msgspec import structs

from services.ingest.adapters import apple_messages as apple_channel
from services.ingest.adapters import chatra as chatra_channel
from services.ingest.adapters import livechat as livechat_channel
from services.ingest.adapters import slack as slack_channel
from services.ingest.adapters import telegram as telegram_channel
from services.ingest.adapters import tidio as tidio_channel
from services.ingest.adapters import twilio_sms as sms_channel
from services.ingest.adapters import twilio_voice as voice_channel
from services.ingest.adapters.channel import Channel, ChannelSettings, Delivery, Parsed, Request
from services.notifier.adapters import slack, telegram, twilio_sms, twilio_voice
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Trouble
from tests.contract.providers import (
    KEY,
    OTHER_KEY,
    apple_messages,
    chatra,
    livechat,
    tidio,
    webchat,
)
from tests.contract.providers import slack as slack_case
from tests.contract.providers import telegram as telegram_case
from tests.contract.providers import twilio_sms as sms_case
from tests.contract.providers import twilio_voice as voice_case
from tests.contract.test_providers import World
from tests.fakes import desk
from tests.fakes.telegram import TOKEN
from tests.fakes.twilio import Twilio

NOW = datetime(2026, 11, 24, 8, 0, 10, tzinfo=UTC)


def came(
    channel: Channel, settings: ChannelSettings, body: Any, *, is_form: bool = False
) -> Parsed:
    """What the channel makes of a webhook of its vendor."""
    data = urlencode(body).encode() if is_form else json.dumps(body).encode()
    return channel.parse(
        Delivery(
            channel=channel.name,
            account="desk",
            body=data,
            received_at=NOW,
            verified=True,
            settings=settings,
        )
    )


# ------------------------------------------------------------------------------------- Twilio, messages


async def test_a_customer_of_whatsapp_by_twilio_is_answered_by_whatsapp() -> None:
    world = World(sms_case.CASE)
    post = structs.replace(sms_case.CASE.post, thread="whatsapp:+905321234567")
    assert isinstance(await world.send(post), Delivered)
    (message,) = world.fake.messages
    assert (message["to"], message["from"]) == ("whatsapp:+905321234567", "whatsapp:+15550100200")


def test_what_a_customer_writes_by_whatsapp_keeps_the_network_in_its_thread() -> None:
    form = {
        "MessageSid": "SM1",
        "From": "whatsapp:+905321234567",
        "To": "whatsapp:+1555",
        "Body": "a",
    }
    (message,) = came(sms_channel.CHANNEL, sms_channel.Settings(), form, is_form=True).messages
    assert (message.sender.address, message.thread) == ("+905321234567", "whatsapp:+905321234567")
    form["From"] = "+905321234567"
    (message,) = came(sms_channel.CHANNEL, sms_channel.Settings(), form, is_form=True).messages
    assert (message.sender.address, message.thread) == ("+905321234567", None)


async def test_a_messaging_service_and_an_api_key_send_too() -> None:
    world = World(sms_case.CASE)
    world.secrets["env:TOKEN"] = Twilio.api_secret
    settings = twilio_sms.Settings(
        account_sid=Twilio.account_sid,
        api_key=Twilio.api_key,
        secret="env:TOKEN",
        messaging_service_sid=Twilio.services[0],
        url=desk.BASE,
    )
    world.case = structs_replaced(sms_case.CASE, settings)
    world.connect()
    assert isinstance(await world.send(), Delivered)
    assert world.fake.messages[0]["from"] == Twilio.services[0]


def structs_replaced(case: Any, settings: Any) -> Any:
    """Return a case with other settings."""
    fields = {name: getattr(case, name) for name in case.__dataclass_fields__}
    return type(case)(**{**fields, "settings": settings})


def test_a_sender_is_named_once() -> None:
    given: dict[str, Any] = {"account_sid": Twilio.account_sid, "secret": "env:TOKEN"}
    for wrong in ({}, {"from_number": "+15550100200", "messaging_service_sid": Twilio.services[0]}):
        with pytest.raises(ValueError, match="from_number or messaging_service_sid"):
            twilio_sms.Settings(**given, **wrong)


async def test_an_address_without_a_number_is_refused_before_anything_leaves() -> None:
    for case in (sms_case.CASE, voice_case.CASE):
        world = World(case)
        for to in ("ada@example.com", "05321234567", "+90 532", ""):
            outcome = await world.send(structs.replace(case.post, to=to))
            assert isinstance(outcome, Failed)
            assert (outcome.trouble, outcome.is_recoverable) == (Trouble.ADDRESS, False)
        assert world.fake.tried == 0


async def test_an_older_message_with_the_same_words_is_not_taken_for_ours() -> None:
    world = World(sms_case.CASE)
    world.fake.sent_at = "Mon, 23 Nov 2026 08:00:05 +0000"
    await world.send()
    assert await world.find() is None


@pytest.mark.parametrize("status", ["failed", "undelivered", "canceled"])
async def test_a_message_that_twilio_could_not_deliver_is_for_a_person_to_see(status: str) -> None:
    world = World(sms_case.CASE)
    await world.send()
    world.fake.messages[0]["status"] = status
    assert isinstance(await world.find(), Unknown)
    world.fake.messages.append({**world.fake.messages[0], "sid": "SM2", "status": "sent"})
    found = await world.find()
    assert isinstance(found, Delivered)
    assert found.message_id == "SM2"


async def test_the_same_words_of_a_moment_before_leave_it_to_a_person() -> None:
    world = World(sms_case.CASE)
    world.fake.sent_at = "Tue, 24 Nov 2026 07:55:00 +0000"
    await world.send()
    assert isinstance(await world.find(), Unknown)


async def test_words_that_are_nearly_ours_leave_it_to_a_person() -> None:
    world = World(sms_case.CASE)
    await world.send()
    world.fake.messages[0]["body"] = "From your shop: " + world.fake.messages[0]["body"][:-1] + "."
    assert isinstance(await world.find(), Unknown)


async def test_so_many_messages_that_ours_may_be_below_them_say_nothing() -> None:
    world = World(sms_case.CASE)
    for n in range(twilio_sms.LOOKED_AT):
        world.fake.messages.append(
            {
                "sid": f"SM{n}",
                "to": "+905321234567",
                "body": f"Number {n}",
                "direction": "outbound-api",
                "date_created": world.fake.sent_at,
            }
        )
    assert isinstance(await world.find(), Unknown)


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        ("delivered", "", ("delivered", "", False)),
        ("read", "", ("read", "", False)),
        ("undelivered", "30005", ("bounced", "30005", True)),
        ("undelivered", "30003", ("bounced", "30003", False)),
        ("failed", "21610", ("bounced", "21610", True)),
        ("failed", "<script>", ("bounced", "", False)),
        ("sent", "", None),
        ("queued", "", None),
    ],
)
async def test_twilios_callback_about_our_message_is_a_report_and_no_message(
    status: str, code: str, told: tuple[str, str, bool] | None
) -> None:
    world = World(sms_case.CASE)
    outcome = await world.send()
    assert isinstance(outcome, Delivered)
    ours = world.fake.messages[0]
    form = {
        "MessageSid": ours["sid"], "MessageStatus": status, "From": ours["from"], "To": ours["to"],
        "ErrorCode": code,
    }  # fmt: skip
    parsed = came(sms_channel.CHANNEL, sms_channel.Settings(), form, is_form=True)
    assert (parsed.messages, parsed.ignored) == ((), "receipt")
    found = [(one.what, one.detail, one.is_permanent) for one in parsed.receipts]
    assert found == ([told] if told is not None else [])
    for receipt in parsed.receipts:
        assert receipt.vendor_message_id == outcome.message_id
        assert receipt.recipient.address == sms_case.CASE.post.to


def test_a_callback_that_nobody_signed_reports_nothing() -> None:
    form = {
        "MessageSid": "SM1",
        "MessageStatus": "delivered",
        "From": "+1555",
        "To": "+905321234567",
    }
    delivery = Delivery("twilio_sms", "desk", urlencode(form).encode(), NOW)
    assert sms_channel.parse(delivery).receipts == ()


# ------------------------------------------------------------------------------------- Twilio, calls


async def test_a_call_rings_our_line_and_the_customer_is_dialled_once_somebody_presses_a_key() -> (
    None
):
    world = World(voice_case.CASE)
    assert isinstance(await world.send(), Delivered)
    (call,) = world.fake.placed
    assert (call["To"], call["From"]) == ("+15550100300", "+15550100200")
    gather = Xml.fromstring(call["Twiml"]).find("Gather")
    assert gather is not None
    action = gather.get("action", "")
    form = {
        "CallSid": "CA1", "CallStatus": "in-progress", "Direction": "outbound-api", "From": call["From"],
        "To": call["To"], "Digits": "1",
    }  # fmt: skip
    dial = Xml.fromstring(pressed(action, form)).find("Dial")
    assert dial is not None
    assert (dial.findtext("Number"), dial.get("callerId")) == ("+905321234567", "+15550100200")
    parsed = came(voice_channel.CHANNEL, VOICE, form, is_form=True)
    assert (parsed.messages, parsed.ignored) == ((), "echo"), "our own key is no wish of a customer"
    silent = {**form, "Digits": ""}
    assert Xml.fromstring(pressed(action, silent)).find("Dial") is None
    elsewhere = action.partition("?")[0] + "?connect=%2B49123456789%22/%3E"
    assert Xml.fromstring(pressed(elsewhere, form)).find("Dial") is None


VOICE = voice_channel.Settings(greeting="Hello", callback_digit="1")


def pressed(address: str, form: dict[str, str]) -> str:
    """What the gateway answers to a key, at an address that Twilio signed."""
    secrets = {"secret": "tw-auth-token", "greeting": "Hello", "callback_digit": "1"}
    said = address + "".join(name + form[name] for name in sorted(form))
    mac = hmac.new(b"tw-auth-token", said.encode(), hashlib.sha1).digest()
    headers = {"x-twilio-signature": base64.b64encode(mac).decode()}
    request = Request("POST", address, headers, urlencode(form).encode())
    verdict = voice_channel.verify(request, secrets, NOW)
    assert verdict.accepted, verdict.reason
    return verdict.respond.body


def test_a_key_that_a_customer_presses_still_asks_for_a_call_back() -> None:
    form = {"CallSid": "CA2", "CallStatus": "in-progress", "Direction": "inbound", "Digits": "1"}
    (message,) = came(
        voice_channel.CHANNEL, VOICE, {**form, "From": "+905321234567"}, is_form=True
    ).messages
    assert message.kind == "callback"


async def test_nobody_is_called_for_an_automatic_notice() -> None:
    world = World(voice_case.CASE)
    post = structs.replace(voice_case.CASE.post, occasion="received", is_automatic=True)
    outcome = await world.send(post)
    assert isinstance(outcome, Failed)
    assert (outcome.trouble, outcome.is_recoverable) == (Trouble.MESSAGE, False)
    assert world.fake.tried == 0


async def test_marks_that_make_the_words_too_long_for_a_call_are_refused_and_not_cut() -> None:
    world = World(voice_case.CASE)
    outcome = await world.send(structs.replace(voice_case.CASE.post, text="&" * 1_500))
    assert isinstance(outcome, Failed)
    assert outcome.trouble is Trouble.MESSAGE
    assert world.fake.tried == 0


def test_the_words_of_a_call_are_spoken_in_the_customers_language_and_never_obeyed() -> None:
    for language, voice in (("tr", "tr-TR"), ("ru", "ru-RU"), ("en", "en-US"), ("de", "en-US")):
        twiml = twilio_voice.instructions("</Say><Dial>+1900</Dial>", language, "+905", "https://x")
        said = Xml.fromstring(twiml).findall("Gather/Say")
        assert [one.get("language") for one in said] == [voice, voice]
        assert said[0].text == "</Say><Dial>+1900</Dial>"
        assert "<Dial>" not in twiml


# ------------------------------------------------------------------------------------- Telegram


@pytest.mark.parametrize(
    ("thread", "answers", "more"),
    [
        ("55501", "55501:31", {}),
        (
            "-100200",
            "-100200:44",
            {"reply_parameters": {"message_id": 44, "allow_sending_without_reply": True}},
        ),
        (
            "-100200:7",
            "-100200:44",
            {
                "message_thread_id": 7,
                "reply_parameters": {"message_id": 44, "allow_sending_without_reply": True},
            },
        ),
        ("bizConn01:55501", "bizConn01:55501:8", {"business_connection_id": "bizConn01"}),
    ],
)
async def test_telegrams_answer_stands_in_the_customers_own_place(
    thread: str, answers: str, more: dict[str, Any]
) -> None:
    world = World(telegram_case.CASE)
    outcome = await world.send(
        structs.replace(telegram_case.CASE.post, thread=thread, answers=answers)
    )
    assert isinstance(outcome, Delivered)
    (sent,) = world.fake.sent
    (body,) = world.fake.bodies
    assert sent.to == thread
    for name in ("chat_id", "text", "link_preview_options"):
        body.pop(name)
    assert body == more


@pytest.mark.parametrize("thread", ["", "55501:7:8:9", "a b:55501", "../55501", "@noor", "conn:"])
async def test_a_thread_that_is_none_of_telegrams_goes_nowhere(thread: str) -> None:
    world = World(telegram_case.CASE)
    outcome = await world.send(structs.replace(telegram_case.CASE.post, thread=thread, to=""))
    assert isinstance(outcome, Failed)
    assert outcome.trouble is Trouble.ADDRESS
    assert world.fake.tried == 0


async def test_telegrams_wish_for_patience_stands_in_the_body() -> None:
    world = World(telegram_case.CASE)
    body = '{"ok":false,"error_code":429,"description":"Too Many","parameters":{"retry_after":13}}'
    world.fake.refuse_write(429, body)
    outcome = await world.send()
    assert isinstance(outcome, Failed)
    assert outcome.retry_after == timedelta(seconds=13)


async def test_the_bots_token_is_shown_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    world = World(telegram_case.CASE)
    world.fake.lose_answer()
    outcome = await world.send()
    assert TOKEN not in f"{outcome!r}{caplog.text}{telegram.PROVIDER!r}"


def test_telegram_tells_our_own_message_back_as_an_echo() -> None:
    message = {
        "message_id": 101, "date": 1_795_507_205, "chat": {"id": 55501, "type": "private"},
        "from": {"id": 1, "is_bot": False}, "business_connection_id": "bizConn01",
        "sender_business_bot": {"id": 4242, "is_bot": True}, "text": "Hello Ada",
    }  # fmt: skip
    update = {"update_id": 1, "business_message": message}
    parsed = came(telegram_channel.CHANNEL, telegram_channel.Settings(), update)
    assert (parsed.messages, parsed.ignored) == ((), "echo")


# ------------------------------------------------------------------------------------- Slack


async def test_slacks_marks_in_our_words_are_words() -> None:
    world = World(slack_case.CASE)
    words = "*not bold* <!channel> <@U0DDD4> a & b &amp; <https://x.example|y>"
    assert isinstance(
        await world.send(structs.replace(slack_case.CASE.post, text=words)), Delivered
    )
    assert world.fake.sent[0].text == words
    posted = world.fake.wrote[-1][2]
    assert posted["mrkdwn"] is False
    assert "<" not in posted["text"]


async def test_a_direct_conversation_at_slack_has_no_thread() -> None:
    world = World(slack_case.CASE)
    world.fake.channels["D0DDD4"] = []
    post = structs.replace(slack_case.CASE.post, thread="D0DDD4")
    assert isinstance(await world.send(post), Delivered)
    assert "thread_ts" not in world.fake.wrote[-1][2]
    assert isinstance(await world.find(post), Delivered)


async def test_a_message_at_slack_is_found_behind_many_others() -> None:
    world = World(slack_case.CASE)
    world.fake.page_max = 2
    root = slack_case.ROOT
    for n in range(7):
        stamp = f"{slack_case.AT + n}.000900"
        world.fake.channels["C0CCC3"].append({"ts": stamp, "text": "more", "thread_ts": root})
    await world.send()
    assert isinstance(await world.find(), Delivered)
    assert await world.find(structs.replace(slack_case.CASE.post, key=OTHER_KEY)) is None


@pytest.mark.parametrize(
    ("wish", "wait"),
    [
        ("120", timedelta(seconds=120)),
        ("9" * 20, timedelta(days=1)),
        ("9" * 5_000, timedelta(days=1)),
        ("soon", None),
    ],
)
async def test_slacks_wish_to_wait_is_obeyed_for_a_day_at_most(
    wish: str, wait: timedelta | None
) -> None:
    world = World(slack_case.CASE)
    world.fake.refuse_write(200, '{"ok": false, "error": "ratelimited"}', retry_after=wish)
    outcome = await world.send()
    assert isinstance(outcome, Failed), outcome
    assert (outcome.trouble, outcome.retry_after) == (Trouble.PROVIDER, wait)


async def test_slacks_escapes_count_and_nothing_is_cut() -> None:
    world = World(slack_case.CASE)
    outcome = await world.send(structs.replace(slack_case.CASE.post, text="&" * 30_000))
    assert isinstance(outcome, Failed)
    assert outcome.trouble is Trouble.MESSAGE
    assert world.fake.sent == []


@pytest.mark.parametrize("thread", ["", "C0CCC3:1", "c0ccc3", "C0CCC3:1.2:3", "../C0CCC3"])
async def test_a_thread_that_is_none_of_slacks_goes_nowhere(thread: str) -> None:
    world = World(slack_case.CASE)
    outcome = await world.send(structs.replace(slack_case.CASE.post, thread=thread))
    assert isinstance(outcome, Failed)
    assert outcome.trouble is Trouble.ADDRESS
    assert world.fake.tried == 0


async def test_slack_tells_our_own_message_back_as_an_echo() -> None:
    world = World(slack_case.CASE)
    outcome = await world.send()
    assert isinstance(outcome, Delivered)
    channel, _, stamp = outcome.message_id.partition(":")
    event = {
        "type": "message", "channel": channel, "channel_type": "channel", "user": "U0BOT", "bot_id": "B0BOT",
        "app_id": "A0BBB2", "text": world.fake.wrote[-1][2]["text"], "ts": stamp,
        "thread_ts": slack_case.ROOT,
    }  # fmt: skip
    body = {"type": "event_callback", "api_app_id": "A0BBB2", "event_id": "Ev1", "event": event}
    parsed = came(slack_channel.CHANNEL, slack_channel.Settings(), body)
    assert (parsed.messages, parsed.ignored) == ((), "echo")
    assert slack.PROVIDER.traits.channels == {slack_channel.CHANNEL.name}


# ------------------------------------------------------------------------------------- Apple


async def test_apple_is_told_what_no_person_wrote() -> None:
    world = World(apple_messages.CASE)
    await world.send()
    automatic = structs.replace(apple_messages.CASE.post, key=OTHER_KEY, is_automatic=True)
    await world.send(automatic)
    assert world.fake.automatic == [False, True]
    assert [one.key for one in world.fake.sent] == [KEY, OTHER_KEY]


async def test_nobody_writes_to_a_customer_who_ended_the_conversation_at_apple() -> None:
    world = World(apple_messages.CASE)
    world.fake.closed.add(apple_messages.CUSTOMER)
    outcome = await world.send()
    assert isinstance(outcome, Failed)
    assert (outcome.trouble, outcome.is_recoverable) == (Trouble.ADDRESS, False)


async def test_an_apple_id_that_would_break_a_header_is_refused() -> None:
    world = World(apple_messages.CASE)
    for to in ("", "urn:mbid:a\r\nX-Evil: 1", "urn mbid"):
        outcome = await world.send(structs.replace(apple_messages.CASE.post, to=to))
        assert isinstance(outcome, Failed)
        assert outcome.trouble is Trouble.ADDRESS
    assert world.fake.tried == 0


def test_a_message_of_our_own_business_at_apple_is_an_echo() -> None:
    body = {
        "type": "text", "id": KEY, "sourceId": "a884eddf", "destinationId": "a884eddf", "body": "Hello Ada", "v": 1,
    }  # fmt: skip
    parsed = came(apple_channel.CHANNEL, apple_channel.Settings(), body)
    assert (parsed.messages, parsed.ignored) == ((), "echo")


# ------------------------------------------------------------------------------------- other chats


@pytest.mark.parametrize("names_agent", [True, False])
async def test_chatra_tells_our_own_push_back_as_an_echo(*, names_agent: bool) -> None:
    world = World(chatra.CASE)
    await world.send()
    pushed = world.fake.wrote[-1][2]
    line = {"type": "agent", "message": pushed["text"], "createdAt": 1_795_507_205_000}
    body = {
        "eventName": "chatFragment",
        "client": {"id": pushed["clientId"], "chatId": "chat_0099"},
        "agents": [{"id": pushed["agentId"], "name": "Support"}],
        "messages": [{**line, "agentId": pushed["agentId"]} if names_agent else line],
    }
    settings = chatra_channel.Settings(own_ids=("agt_signalbox",))
    parsed = came(chatra_channel.CHANNEL, settings, body)
    assert (parsed.messages, parsed.ignored) == ((), "echo")


async def test_livechat_tells_our_own_event_back_as_an_echo() -> None:
    world = World(livechat.CASE)
    await world.send()
    (event,) = world.fake.chats["QX7LCHAT01"][0]["events"]
    body = {
        "action": "incoming_event",
        "secret_key": "lc-secret",
        "payload": {"chat_id": "QX7LCHAT01", "thread_id": "QX7THREAD9", "event": event},
    }
    parsed = came(livechat_channel.CHANNEL, livechat_channel.Settings(), body)
    assert (parsed.messages, parsed.ignored) == ((), "echo")
    other = {**event, "custom_id": "another"}
    body["payload"] = {"chat_id": "QX7LCHAT01", "event": other}
    (message,) = came(livechat_channel.CHANNEL, livechat_channel.Settings(), body).messages
    assert message.direction == "outbound", "what an agent of ours typed there is told"


async def test_an_event_at_livechat_is_found_in_an_earlier_thread_too() -> None:
    world = World(livechat.CASE)
    await world.send()
    world.fake.chats["QX7LCHAT01"].append(
        {"id": "T2", "active": True, "created_at": "2026-11-24T09:00:00.000000Z", "events": None}
    )
    assert isinstance(await world.find(), Delivered)


async def test_tidio_tells_our_own_reply_back_as_an_echo() -> None:
    world = World(tidio.CASE)
    await world.send()
    (message,) = world.fake.tickets["5158"]
    body = {
        "topic": "ticket.operator_replied",
        "content": {"id": 5158, "contact_id": "6b1d8c2e", "message": message},
    }
    settings = tidio_channel.Settings(own_ids=(message["author_id"],))
    parsed = came(tidio_channel.CHANNEL, settings, body)
    assert (parsed.messages, parsed.ignored) == ((), "echo")


async def test_an_operator_who_wrote_other_words_at_tidio_is_not_us() -> None:
    world = World(tidio.CASE)
    world.fake.tickets["5158"].append(
        {
            "message_id": "msg-9",
            "author_type": "operator",
            "author_id": world.fake.operators[0],
            "message_content": "We close at six today.",
            "created_at": "2026-11-24T08:00:07+00:00",
        }
    )
    assert await world.find() is None


# ------------------------------------------------------------------------------------- our own chat


async def test_the_chat_shows_an_agents_answer_by_itself() -> None:
    world = World(webchat.CASE)
    post = structs.replace(webchat.CASE.post, occasion="answered", is_automatic=False)
    outcome = await world.send(post)
    assert isinstance(outcome, Delivered)
    assert world.fake.sent == []


@pytest.mark.parametrize("thread", ["", "0123", "g" * 32, "../" + "0" * 29])
async def test_a_session_that_is_none_goes_nowhere(thread: str) -> None:
    world = World(webchat.CASE)
    outcome = await world.send(structs.replace(webchat.CASE.post, thread=thread))
    assert isinstance(outcome, Failed)
    assert outcome.trouble is Trouble.ADDRESS
    assert world.fake.tried == 0
