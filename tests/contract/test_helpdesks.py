"""Helpdesks through their APIs: what a hint becomes once it is read back, what a poll finds, and what trouble does."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.messages import MessageContent
from services.ingest.adapters import edesk, gorgias, helpscout, zendesk
from services.ingest.adapters.api import ApiProblem, VendorApi
from services.ingest.adapters.channel import (
    FETCHED,
    Channel,
    ChannelSettings,
    Delivery,
    Fetched,
    Page,
)
from services.ingest.core.dedupe import name_of
from tests.fakes import desk
from tests.fakes import edesk as edesk_fake
from tests.fakes import gorgias as gorgias_fake
from tests.fakes import helpscout as helpscout_fake
from tests.fakes import zendesk as zendesk_fake

NOW = datetime(2026, 11, 20, 9, 15, 30, tzinfo=UTC)


def delivery(
    channel: Channel, body: Any, settings: ChannelSettings, *, verified: bool, **headers: str
) -> Delivery:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    raw = json.dumps(body).encode()
    return Delivery(
        channel.name, "main", raw, NOW, headers=named, verified=verified, settings=settings
    )


def taken_in(channel: Channel, item: Fetched, settings: ChannelSettings) -> Any:
    """Return what a fetched thing becomes, taken in as a delivery of its own."""
    return channel.parse(
        Delivery(
            channel.name, "main", item.body, NOW,
            headers={FETCHED: item.kind}, verified=True, settings=settings,
        )
    )  # fmt: skip


def messages(channel: Channel, items: Any, settings: ChannelSettings) -> list[MessageContent]:
    found: list[MessageContent] = []
    for item in items:
        parsed = taken_in(channel, item, settings)
        assert parsed.verified
        found += parsed.messages
    return found


# ----------------------------------------------------------------------------------------- Zendesk

ZENDESK = zendesk.Settings(
    api_url=desk.BASE, email="bot@shop.example", api_token="env:ZENDESK_TOKEN", own_ids=("777",)
)
ZENDESK_OAUTH = zendesk.Settings(
    api_url=desk.BASE, client_id="signalbox", client_secret="env:ZENDESK_CLIENT_SECRET"
)


def zendesk_account() -> zendesk_fake.Zendesk:
    fake = zendesk_fake.Zendesk()
    fake.users = {
        84473: {"id": 84473, "name": "Ada", "email": "ada@example.com", "role": "end-user", "verified": True},
        84474: {"id": 84474, "name": "Eve", "email": "ceo@example.com", "role": "end-user", "verified": False},
        90001: {"id": 90001, "name": "Sam", "email": "sam@shop.example", "role": "agent", "verified": True},
        777: {"id": 777, "name": "Signalbox", "email": "bot@shop.example", "role": "agent", "verified": True},
    }  # fmt: skip
    fake.tickets["5158"] = {"id": 5158, "subject": "Parcel never arrived", "requester_id": 84473}
    fake.comments["5158"] = [
        zendesk_comment(1, 84473, "2026-11-18T08:00:00Z", "Where is my parcel?"),
        zendesk_comment(2, 90001, "2026-11-20T08:00:00Z", "We look into it."),
        zendesk_comment(3, 90001, "2026-11-20T08:01:00Z", "Carrier says lost", public=False),
        zendesk_comment(4, 777, "2026-11-20T08:02:00Z", "We are on it."),
        zendesk_comment(5, 84473, "2026-11-20T09:15:00Z", "Still waiting"),
    ]
    return fake


def zendesk_comment(
    number: int, author: int, at: str, text: str, *, public: bool = True
) -> dict[str, Any]:
    return {
        "id": number, "author_id": author, "body": text, "plain_body": text, "html_body": f"<p>{text}</p>",
        "public": public, "created_at": at, "attachments": [], "via": {"channel": "email"},
    }  # fmt: skip


def zendesk_event(number: int, author: int, text: str, kind: str = "comment_added") -> Any:
    return {
        "id": f"event-{number}", "type": f"zen:event-type:ticket.{kind}", "time": "2026-11-20T09:15:00.123456789Z",
        "detail": {"id": "5158", "subject": "Parcel never arrived", "requester_id": "84473"},
        "event": {"comment": {
            "id": str(number), "body": text, "is_public": True,
            "author": {"id": str(author), "is_staff": False, "name": "Ada"},
        }},
    }  # fmt: skip


TRIGGER = {"ticket_id": "5158", "updated_at": "2026-11-20T09:15:00Z"}


def zendesk_api(
    fake: zendesk_fake.Zendesk, settings: zendesk.Settings = ZENDESK, **secrets: str
) -> VendorApi:
    known = {"api_token": fake.api_token, "client_secret": fake.client_secret} | secrets
    return VendorApi(settings, known, desk.client(fake.server()))


async def test_an_event_with_credentials_is_read_back_with_address_and_author() -> None:
    fake = zendesk_account()
    hint = delivery(zendesk.CHANNEL, zendesk_event(5, 84473, "Still"), ZENDESK, verified=True)
    assert zendesk.parse(hint).ignored == "hint"
    found = messages(zendesk.CHANNEL, await zendesk.read_back(zendesk_api(fake), hint), ZENDESK)
    assert [(one.vendor_message_id, one.sender.address) for one in found] == [
        ("5", "ada@example.com")
    ]
    assert (found[0].text, found[0].url) == (
        "Still waiting",
        "https://desk.invalid/agent/tickets/5158",
    )


async def test_a_trigger_brings_what_was_written_within_a_day_and_no_notes_and_no_echo() -> None:
    fake = zendesk_account()
    hint = delivery(zendesk.CHANNEL, TRIGGER, ZENDESK, verified=True)
    items = await zendesk.read_back(zendesk_api(fake), hint)
    parsed = [taken_in(zendesk.CHANNEL, item, ZENDESK) for item in items]
    told = [(one.ignored, [m.vendor_message_id for m in one.messages]) for one in parsed]
    assert told == [(None, ["2"]), ("echo", []), (None, ["5"])]
    (staff,) = parsed[0].messages
    assert (staff.direction, staff.recipients) == ("outbound", ("ada@example.com",))


async def test_a_trigger_that_names_its_comment_brings_that_one_however_old() -> None:
    fake = zendesk_account()
    hint = delivery(zendesk.CHANNEL, {**TRIGGER, "comment_id": "1"}, ZENDESK, verified=True)
    found = messages(zendesk.CHANNEL, await zendesk.read_back(zendesk_api(fake), hint), ZENDESK)
    assert [one.vendor_message_id for one in found] == ["1"]


async def test_the_same_comment_by_event_and_by_trigger_is_one_message() -> None:
    fake = zendesk_account()
    names = set()
    for body in (zendesk_event(5, 84473, "Still"), {**TRIGGER, "comment_id": "5"}):
        hint = delivery(zendesk.CHANNEL, body, ZENDESK, verified=True)
        (item,) = await zendesk.read_back(zendesk_api(fake), hint)
        (found,) = messages(zendesk.CHANNEL, [item], ZENDESK)
        names |= {(item.name, item.body, name_of(found))}
    assert len(names) == 1


async def test_an_old_comment_is_found_on_a_later_page() -> None:
    fake = zendesk_account()
    fake.comments["5158"] += [
        zendesk_comment(number, 90001, "2026-11-20T09:16:00Z", "…") for number in range(100, 320)
    ]
    hint = delivery(zendesk.CHANNEL, {**TRIGGER, "comment_id": "5"}, ZENDESK, verified=True)
    found = messages(zendesk.CHANNEL, await zendesk.read_back(zendesk_api(fake), hint), ZENDESK)
    assert [one.vendor_message_id for one in found] == ["5"]
    assert len(fake.asked) == 4


async def test_a_sender_whose_address_zendesk_has_not_proved_is_not_verified() -> None:
    fake = zendesk_account()
    fake.comments["5158"].append(zendesk_comment(6, 84474, "2026-11-20T09:15:10Z", "Pay me"))
    hint = delivery(zendesk.CHANNEL, {**TRIGGER, "comment_id": "6"}, ZENDESK, verified=True)
    (item,) = await zendesk.read_back(zendesk_api(fake), hint)
    parsed = taken_in(zendesk.CHANNEL, item, ZENDESK)
    assert parsed.messages[0].sender.address == "ceo@example.com"
    assert not parsed.verified


async def test_a_redaction_is_read_back_as_an_edit_of_the_same_message() -> None:
    fake = zendesk_account()
    fake.comments["5158"][-1]["plain_body"] = "My card is ▇▇▇▇"
    event = zendesk_event(5, 84473, "", "comment_redacted")
    hint = delivery(zendesk.CHANNEL, event, ZENDESK, verified=True)
    (found,) = messages(zendesk.CHANNEL, await zendesk.read_back(zendesk_api(fake), hint), ZENDESK)
    assert (found.change, found.vendor_message_id, found.text) == ("edited", "5", "My card is ▇▇▇▇")


async def test_an_events_own_text_counts_where_its_ticket_is_gone() -> None:
    fake = zendesk_account()
    fake.tickets.clear()
    hint = delivery(zendesk.CHANNEL, zendesk_event(5, 84473, "Still"), ZENDESK, verified=True)
    (found,) = messages(zendesk.CHANNEL, await zendesk.read_back(zendesk_api(fake), hint), ZENDESK)
    assert (found.text, found.sender.address, found.sender.kind) == ("Still", "84473", "vendor_id")


async def test_an_event_that_could_not_be_read_back_counts_as_it_came() -> None:
    event = delivery(zendesk.CHANNEL, zendesk_event(5, 84473, "Still"), ZENDESK, verified=False)
    (found,) = zendesk.parse(event).messages
    assert found.text == "Still"


async def test_an_oauth_client_asks_for_one_token_and_keeps_it() -> None:
    fake = zendesk_account()
    api = zendesk_api(fake, ZENDESK_OAUTH)
    hint = delivery(zendesk.CHANNEL, {**TRIGGER, "comment_id": "5"}, ZENDESK_OAUTH, verified=True)
    for _ in range(2):
        assert len(await zendesk.read_back(api, hint)) == 1
    assert fake.tokens_given == 1


@pytest.mark.parametrize("kind", ["status_changed", "tags_changed", "merged"])
async def test_a_change_that_is_no_comment_asks_the_api_nothing(kind: str) -> None:
    fake = zendesk_account()
    hint = delivery(zendesk.CHANNEL, zendesk_event(5, 84473, "", kind), ZENDESK, verified=True)
    assert await zendesk.read_back(zendesk_api(fake), hint) == ()
    assert fake.asked == []


# -------------------------------------------------------------------------------------- Help Scout

HELPSCOUT = helpscout.Settings(
    api_url=desk.BASE, client_id="hs-client", client_secret="env:HS", own_ids=("900",)
)
ADA = {"id": 238604, "first": "Ada", "last": "Lovelace", "email": "ada@example.com"}


def helpscout_thread(number: int, kind: str, at: str, writer: Any = None) -> dict[str, Any]:
    return {
        "id": number, "type": kind, "state": "published", "body": f"<p>thread {number}</p>", "customer": ADA,
        "createdBy": writer or {"id": 238604, "type": "customer"}, "createdAt": at,
    }  # fmt: skip


def helpscout_account() -> helpscout_fake.HelpScout:
    fake = helpscout_fake.HelpScout()
    fake.conversations["501"] = {
        "id": 501, "number": 15473, "subject": "Parcel never arrived", "mailboxId": 85, "primaryCustomer": ADA,
    }  # fmt: skip
    sam = {"id": 256, "type": "user", "first": "Sam", "email": "sam@shop.example"}
    fake.threads["501"] = [
        helpscout_thread(1, "customer", "2025-01-01T08:00:00Z"),
        helpscout_thread(2, "customer", "2026-11-20T08:00:00Z"),
        helpscout_thread(3, "note", "2026-11-20T08:01:00Z", sam),
        helpscout_thread(4, "message", "2026-11-20T08:02:00Z", sam),
        helpscout_thread(5, "message", "2026-11-20T08:03:00Z", {"id": 900, "type": "user"}),
        helpscout_thread(6, "customer", "2026-11-20T09:15:00Z"),
    ]
    return fake


def helpscout_api(fake: helpscout_fake.HelpScout) -> VendorApi:
    return VendorApi(HELPSCOUT, {"client_secret": fake.client_secret}, desk.client(fake.server()))


def helpscout_hint(body: Any, event: str = "convo.customer.reply.created") -> Delivery:
    return delivery(helpscout.CHANNEL, body, HELPSCOUT, verified=True, x_helpscout_event=event)


async def test_a_conversation_without_threads_is_read_back_by_its_id_alone() -> None:
    fake = helpscout_account()
    hint = helpscout_hint({"id": 501})
    assert helpscout.parse(hint).ignored == "hint"
    found = messages(
        helpscout.CHANNEL, await helpscout.read_back(helpscout_api(fake), hint), HELPSCOUT
    )
    assert [(one.vendor_message_id, one.direction) for one in found] == [
        ("2", "inbound"), ("4", "outbound"), ("6", "inbound"),
    ]  # fmt: skip
    assert {one.subject for one in found} == {"Parcel never arrived"}
    assert found[1].recipients == ("ada@example.com",)


async def test_threads_embedded_and_read_back_are_the_same_messages() -> None:
    fake = helpscout_account()
    whole = {**fake.conversations["501"], "_embedded": {"threads": fake.threads["501"]}}
    at_once = helpscout.parse(helpscout_hint(whole)).messages
    later = messages(
        helpscout.CHANNEL,
        await helpscout.read_back(helpscout_api(fake), helpscout_hint(whole)),
        HELPSCOUT,
    )
    assert [name_of(one) for one in at_once] == [name_of(one) for one in later]


async def test_a_conversation_of_a_hundred_threads_is_read_page_by_page() -> None:
    fake = helpscout_account()
    fake.threads["501"] += [
        helpscout_thread(number, "customer", f"2026-11-20T09:16:{number % 60:02}Z")
        for number in range(100, 160)
    ]
    items = await helpscout.read_back(helpscout_api(fake), helpscout_hint({"id": 501}))
    assert len(items) == helpscout.THREADS_MAX
    assert [query.get("page") for path, query in fake.asked if path.endswith("/threads")] == [
        "1", "2", "3",
    ]  # fmt: skip


async def test_a_note_or_a_deletion_asks_the_api_nothing() -> None:
    fake = helpscout_account()
    for event in ("convo.note.created", "convo.deleted"):
        assert (
            await helpscout.read_back(helpscout_api(fake), helpscout_hint({"id": 501}, event)) == ()
        )
    assert (fake.asked, fake.tokens_given) == ([], 0)


# ----------------------------------------------------------------------------------------- Gorgias

GORGIAS = gorgias.Settings(
    api_url=desk.BASE, api_user="bot@shop.example", api_key="env:GORGIAS", own_ids=("93",)
)


def gorgias_message(number: int, at: datetime, **more: Any) -> dict[str, Any]:
    return {
        "id": number, "ticket_id": 4242, "public": True, "channel": "email", "via": "email",
        "sender": {"id": 8, "name": "Ada", "email": "ada@example.com"}, "from_agent": False, "subject": None,
        "body_text": f"message {number}", "attachments": [],
        "created_datetime": at.replace(tzinfo=None).isoformat(),
    } | more  # fmt: skip


def gorgias_account() -> gorgias_fake.Gorgias:
    fake = gorgias_fake.Gorgias()
    fake.tickets["4242"] = {
        "id": 4242, "subject": "Parcel never arrived", "channel": "email",
        "customer": {"id": 8, "email": "ada@example.com", "name": "Ada"},
    }  # fmt: skip
    sam = {"id": 94, "name": "Sam", "email": "sam@shop.example"}
    fake.messages = [
        gorgias_message(1, NOW - timedelta(days=30)),
        gorgias_message(2, NOW - timedelta(hours=2)),
        gorgias_message(3, NOW - timedelta(hours=1), public=False, channel="internal-note"),
        gorgias_message(4, NOW - timedelta(minutes=50), from_agent=True, sender=sam),
        gorgias_message(5, NOW - timedelta(minutes=40), from_agent=True, sender={"id": 93}),
        gorgias_message(6, NOW - timedelta(minutes=1)),
    ]
    return fake


def gorgias_api(
    fake: gorgias_fake.Gorgias, settings: gorgias.Settings = GORGIAS, key: str | None = None
) -> VendorApi:
    return VendorApi(settings, {"api_key": key or fake.api_key}, desk.client(fake.server()))


GORGIAS_HINT = delivery(
    gorgias.CHANNEL, {"trigger": "ticket-message-created", "ticket_id": "4242"}, GORGIAS,
    verified=False,
)  # fmt: skip


async def test_a_template_is_read_back_without_notes_and_echoes() -> None:
    items = await gorgias.read_back(gorgias_api(gorgias_account()), GORGIAS_HINT)
    found = messages(gorgias.CHANNEL, items, GORGIAS)
    assert [(one.vendor_message_id, one.direction) for one in found] == [
        ("2", "inbound"), ("4", "outbound"), ("6", "inbound"),
    ]  # fmt: skip
    assert found[1].recipients == ("ada@example.com",)


async def test_a_key_without_a_user_is_an_oauth_token() -> None:
    fake = gorgias_account()
    settings = GORGIAS.model_copy(update={"api_user": ""})
    api = gorgias_api(fake, settings, fake.access_token)
    assert len(await gorgias.read_back(api, GORGIAS_HINT)) == 3


async def polled(
    channel: Channel, api: VendorApi, cursor: str | None, now: datetime
) -> tuple[list[Fetched], str | None]:
    """Poll until nothing more waits."""
    assert channel.poll is not None
    items: list[Fetched] = []
    for _ in range(50):
        page: Page = await channel.poll(api, cursor, now)
        items += page.items
        cursor = page.cursor
        if not page.more:
            return items, cursor
    raise AssertionError("a poll does not end")


async def test_a_first_poll_takes_nothing_and_the_next_what_came_since() -> None:
    fake = gorgias_account()
    api = gorgias_api(fake)
    items, cursor = await polled(gorgias.CHANNEL, api, None, NOW)
    assert items == []
    fake.messages += [
        gorgias_message(number, NOW + timedelta(seconds=number)) for number in range(10, 260)
    ]
    items, cursor = await polled(gorgias.CHANNEL, api, cursor, NOW + timedelta(minutes=5))
    assert len(items) == 250
    later, _ = await polled(gorgias.CHANNEL, api, cursor, NOW + timedelta(minutes=30))
    assert {one.name for one in later} <= {one.name for one in items}


async def test_a_poll_of_all_takes_what_there_is() -> None:
    fake = gorgias_account()
    settings = GORGIAS.model_copy(update={"start": "all"})
    items, _ = await polled(gorgias.CHANNEL, gorgias_api(fake, settings), None, NOW)
    assert [one.name for one in items] == [f"message:{number}" for number in (1, 2, 4, 6)]


async def test_a_message_polled_and_read_back_is_one() -> None:
    fake = gorgias_account()
    settings = GORGIAS.model_copy(update={"start": "all"})
    by_poll, _ = await polled(gorgias.CHANNEL, gorgias_api(fake, settings), None, NOW)
    by_call = await gorgias.read_back(gorgias_api(fake), GORGIAS_HINT)
    polled_names = {name_of(one) for one in messages(gorgias.CHANNEL, by_poll, settings)}
    assert {name_of(one) for one in messages(gorgias.CHANNEL, by_call, GORGIAS)} <= polled_names


async def test_a_page_cursor_that_is_refused_begins_the_walk_again() -> None:
    fake = gorgias_account()
    since = (NOW - timedelta(hours=3)).isoformat()
    stuck = json.dumps({"since": since, "next_page": "expired", "reached": NOW.isoformat()})
    items, _ = await polled(gorgias.CHANNEL, gorgias_api(fake), stuck, NOW)
    assert [one.name for one in items] == ["message:2", "message:4", "message:6"]


# ------------------------------------------------------------------------------------------- eDesk

EDESK = edesk.Settings(api_url=f"{desk.BASE}/v1", api_token="env:EDESK", own_ids=("12",))


def edesk_message(
    fake: edesk_fake.EDesk, number: int, ticket: int, at: datetime, **more: Any
) -> None:
    stamp = at.strftime("%Y-%m-%d %H:%M:%S")
    fake.messages[str(number)] = {
        "id": number, "ticket_id": ticket, "type": "Message", "direction": "Incoming", "body": f"message {number}",
        "subject": None, "created_at": stamp, "from_consumer_id": 77, "from_user": None, "attachments": [],
    } | more  # fmt: skip
    known = fake.tickets.setdefault(
        str(ticket),
        {
            "id": ticket, "subject": f"Order of ticket {ticket}", "type": "OrderQuery", "contact_id": 77,
            "external_order_id": "406-1", "messages_ids": [], "time_left_to_reply": False,
        },
    )  # fmt: skip
    known["messages_ids"].append(number)
    known["last_updated_at"] = stamp


def edesk_account() -> edesk_fake.EDesk:
    fake = edesk_fake.EDesk()
    edesk_message(fake, 1, 456001, NOW - timedelta(days=9))
    edesk_message(fake, 2, 456001, NOW - timedelta(minutes=5))
    return fake


def edesk_api(fake: edesk_fake.EDesk, settings: edesk.Settings = EDESK) -> VendorApi:
    return VendorApi(settings, {"api_token": fake.token}, desk.client(fake.server()))


async def test_a_message_rule_is_read_back_with_its_order() -> None:
    fake = edesk_account()
    body = {"message_id": "2", "ticket_id": "456001", "email": "ada@example.com", "name": "Ada"}
    hint = delivery(edesk.CHANNEL, body, EDESK, verified=False)
    (found,) = messages(edesk.CHANNEL, await edesk.read_back(edesk_api(fake), hint), EDESK)
    assert (found.vendor_message_id, found.sender.address) == ("Message:2", "77")
    assert found.fields == {
        "order": "406-1",
        "ticket_type": "OrderQuery",
        "email": "ada@example.com",
    }


async def test_a_hint_at_a_note_or_at_our_own_reply_brings_nothing() -> None:
    fake = edesk_account()
    edesk_message(fake, 3, 456001, NOW, type="Note", direction="Outgoing", from_user=4)
    edesk_message(fake, 4, 456001, NOW, direction="Outgoing", from_user={"id": 12})
    for number in ("3", "4"):
        hint = delivery(edesk.CHANNEL, {"message_id": number}, EDESK, verified=False)
        assert await edesk.read_back(edesk_api(fake), hint) == ()


async def test_a_message_id_cannot_lead_to_another_address() -> None:
    fake = edesk_account()
    hint = delivery(edesk.CHANNEL, {"message_id": "../tickets/456001?x="}, EDESK, verified=False)
    with pytest.raises(ApiProblem):
        await edesk.read_back(edesk_api(fake), hint)
    assert all(not path.startswith("/v1/tickets/456001") for path, _ in fake.asked)


async def test_edesk_polled_brings_only_what_came_after_the_first_look() -> None:
    fake = edesk_account()
    api = edesk_api(fake)
    items, cursor = await polled(edesk.CHANNEL, api, None, NOW)
    assert (items, fake.asked) == ([], [])
    edesk_message(fake, 5, 456001, NOW + timedelta(minutes=1))
    edesk_message(fake, 6, 456002, NOW + timedelta(minutes=2), type="ExternalMessage")
    items, cursor = await polled(edesk.CHANNEL, api, cursor, NOW + timedelta(minutes=3))
    assert {one.name for one in items} == {"Message:5", "ExternalMessage:6"}
    assert [one.subject for one in messages(edesk.CHANNEL, items[:1], EDESK)] == [
        "Order of ticket 456002"
    ]
    again, cursor = await polled(edesk.CHANNEL, api, cursor, NOW + timedelta(hours=1))
    assert set(again) == set(items), "what is looked at twice is the same input"
    nothing, _ = await polled(edesk.CHANNEL, api, cursor, NOW + timedelta(hours=2))
    assert nothing == []


async def test_a_busy_edesk_account_is_read_within_the_quota_and_nothing_is_left_out() -> None:
    """Each look stays below 60 requests; the quota is filled up again before the next."""
    fake = edesk_account()
    api = edesk_api(fake)
    _, cursor = await polled(edesk.CHANNEL, api, None, NOW)
    for ticket in range(500_000, 500_040):
        for number in range(3):
            edesk_message(fake, ticket * 10 + number, ticket, NOW + timedelta(minutes=1))
    names: set[str] = set()
    for _ in range(30):
        fake.quota = 60
        page = await edesk.poll(api, cursor, NOW + timedelta(minutes=5))
        names |= {one.name for one in page.items}
        cursor = page.cursor
        if not page.more:
            break
    assert len(names) == 120


async def test_edesk_out_of_quota_waits_and_loses_nothing() -> None:
    fake = edesk_account()
    api = edesk_api(fake)
    _, cursor = await polled(edesk.CHANNEL, api, None, NOW)
    edesk_message(fake, 5, 456001, NOW + timedelta(minutes=1))
    fake.quota = 2
    with pytest.raises(ApiProblem) as problem:
        await edesk.poll(api, cursor, NOW + timedelta(minutes=2))
    assert (problem.value.reason, problem.value.is_final) == ("throttled", False)
    fake.quota = 60
    items, _ = await polled(edesk.CHANNEL, api, cursor, NOW + timedelta(minutes=3))
    assert [one.name for one in items] == ["Message:5"]


# --------------------------------------------------------------------------- trouble, for all of them

ASKED: list[Any] = [
    pytest.param(
        zendesk.CHANNEL, zendesk_account, zendesk_api,
        delivery(zendesk.CHANNEL, TRIGGER, ZENDESK, verified=True), id="zendesk",
    ),
    pytest.param(
        helpscout.CHANNEL, helpscout_account, helpscout_api, helpscout_hint({"id": 501}),
        id="helpscout",
    ),
    pytest.param(gorgias.CHANNEL, gorgias_account, gorgias_api, GORGIAS_HINT, id="gorgias"),
    pytest.param(
        edesk.CHANNEL, edesk_account, edesk_api,
        delivery(edesk.CHANNEL, {"message_id": "2"}, EDESK, verified=False), id="edesk",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("channel", "account", "api", "hint"), ASKED)
@pytest.mark.parametrize(
    ("status", "body", "headers", "reason", "is_final"),
    [
        (401, "", {}, "unauthorized", False),
        (403, "", {}, "forbidden", False),
        (404, "", {}, "missing", True),
        (429, "", {"retry_after": "7"}, "throttled", False),
        (500, "", {}, "failed", False),
        (503, "", {"retry_after": "3"}, "failed", False),
        (302, "", {"location": "https://evil.invalid/"}, "refused", True),
        (200, "{", {}, "bad_answer", False),
        (200, "[1]", {}, "bad_answer", False),
    ],
)
async def test_trouble_with_an_api_is_said_and_another_time_helps(
    channel: Channel,
    account: Any,
    api: Any,
    hint: Delivery,
    status: int,
    body: str,
    headers: dict[str, str],
    reason: str,
    is_final: bool,
) -> None:
    assert channel.read_back is not None
    fake = account()
    fake.misbehave(status, body, **headers)
    with pytest.raises(ApiProblem) as problem:
        await channel.read_back(api(fake), hint)
    assert (problem.value.reason, problem.value.is_final) == (reason, is_final)
    wait = headers.get("retry_after")
    assert problem.value.retry_after == (float(wait) if wait else None)
    assert await channel.read_back(api(fake), hint)


@pytest.mark.parametrize(("channel", "account", "api", "hint"), ASKED)
async def test_wrong_credentials_read_nothing_and_are_not_told(
    channel: Channel, account: Any, api: Any, hint: Delivery
) -> None:
    assert channel.read_back is not None
    right: VendorApi = api(account())
    wrong = dict.fromkeys(right.secrets, "wr0ng-canary")
    with pytest.raises(ApiProblem) as problem:
        await channel.read_back(
            VendorApi(right.settings, wrong, desk.client(account().server())), hint
        )
    assert problem.value.reason == "unauthorized"
    assert "canary" not in repr(problem.value)


@pytest.mark.parametrize(("channel", "account", "api", "hint"), ASKED)
async def test_a_secret_that_is_not_there_is_a_problem_of_ours(
    channel: Channel, account: Any, api: Any, hint: Delivery
) -> None:
    assert channel.read_back is not None
    right: VendorApi = api(account())
    with pytest.raises(ApiProblem) as problem:
        await channel.read_back(
            VendorApi(right.settings, {}, desk.client(account().server())), hint
        )
    assert problem.value.reason == "no_secret"


@pytest.mark.parametrize(("channel", "account", "api", "hint"), ASKED)
async def test_reading_back_twice_gives_the_same_bytes(
    channel: Channel, account: Any, api: Any, hint: Delivery
) -> None:
    """So that a repeated hint is a repeated input, and no second one."""
    assert channel.read_back is not None
    fake = account()
    assert await channel.read_back(api(fake), hint) == await channel.read_back(
        api(fake), replace(hint, received_at=NOW + timedelta(minutes=1))
    )
