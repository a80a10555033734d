"""HubSpot, Freshdesk, Zoho Desk and Intercom through their APIs: what a hint becomes once it is read back, and trouble."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from schemas.messages import MessageContent
from services.ingest import adapters
from services.ingest.adapters import freshdesk, hubspot, intercom, zoho
from services.ingest.adapters.api import ApiProblem, VendorApi
from services.ingest.adapters.channel import (
    FETCHED,
    Channel,
    ChannelSettings,
    Delivery,
    Fetched,
    Page,
    Parsed,
)
from tests.fakes import desk
from tests.fakes import freshdesk as freshdesk_fake
from tests.fakes import hubspot as hubspot_fake
from tests.fakes import intercom as intercom_fake
from tests.fakes import zoho as zoho_fake

NOW = datetime(2026, 11, 20, 9, 15, 30, tzinfo=UTC)


def delivery(channel: Channel, body: Any, settings: ChannelSettings) -> Delivery:
    return Delivery(
        channel.name, "main", json.dumps(body).encode(), NOW, verified=True, settings=settings
    )


def messages(channel: Channel, items: Any, settings: ChannelSettings) -> list[MessageContent]:
    """Return what fetched things become, each taken in as a delivery of its own."""
    found: list[MessageContent] = []
    for item in items:
        assert isinstance(item, Fetched)
        parsed = channel.parse(
            Delivery(
                channel.name, "main", item.body, NOW,
                headers={FETCHED: item.kind}, verified=True, settings=settings,
            )
        )  # fmt: skip
        assert parsed.verified
        found += parsed.messages
    return found


# ----------------------------------------------------------------------------------------- HubSpot

HUBSPOT = hubspot.Settings(
    api_url=desk.BASE, access_token="env:HUBSPOT_TOKEN", app_id="2438486", own_ids=("A-777",)
)
HUBSPOT_OAUTH = hubspot.Settings(
    api_url=desk.BASE,
    secret="env:HUBSPOT_SECRET",
    client_id="hubspot-client",
    refresh_token="env:HUBSPOT_REFRESH",
)


def hubspot_event(message: str, kind: str = "MESSAGE", attempt: int = 0) -> dict[str, Any]:
    return {
        "eventId": 1, "subscriptionType": "conversation.newMessage", "portalId": 23428445,
        "objectId": 6065362089, "messageId": message, "messageType": kind, "attemptNumber": attempt,
    }  # fmt: skip


def hubspot_message(message: str, text: str, **more: Any) -> dict[str, Any]:
    return {
        "id": message, "type": "MESSAGE", "conversationsThreadId": "6065362089",
        "createdAt": "2026-11-20T09:14:59Z", "createdBy": "V-501", "direction": "INCOMING",
        "senders": [{"actorId": "V-501", "name": "Ada",
                     "deliveryIdentifier": {"type": "HS_EMAIL_ADDRESS", "value": "ada@example.com"}}],
        "text": text, "truncationStatus": "NOT_TRUNCATED", **more,
    }  # fmt: skip


def hubspot_account(*held: dict[str, Any]) -> hubspot_fake.HubSpot:
    fake = hubspot_fake.HubSpot()
    fake.messages = {("6065362089", one["id"]): one for one in held}
    return fake


def hubspot_api(
    fake: hubspot_fake.HubSpot, settings: hubspot.Settings = HUBSPOT, **secrets: str
) -> VendorApi:
    given = secrets or {"access_token": fake.access_token}
    return VendorApi(settings, given, desk.client(fake.server()))


async def test_hubspot_each_message_of_a_batch_is_read_once() -> None:
    fake = hubspot_account(
        hubspot_message("m1", "Where is my parcel?"), hubspot_message("m2", "Hello?")
    )
    body = [hubspot_event("m1"), hubspot_event("m2"), hubspot_event("m1", attempt=1)]
    given = delivery(hubspot.CHANNEL, body, HUBSPOT)
    assert adapters.wants_read_back(hubspot.CHANNEL, given, hubspot.parse(given))
    items = await hubspot.read_back(hubspot_api(fake), given)
    assert len(fake.asked) == 2
    found = messages(hubspot.CHANNEL, items, HUBSPOT)
    assert [one.text for one in found] == ["Where is my parcel?", "Hello?"]
    assert {one.thread for one in found} == {"6065362089"}


async def test_hubspot_a_retry_brings_the_same_inputs() -> None:
    fake = hubspot_account(hubspot_message("m1", "Hello?", status={"statusType": "RECEIVED"}))
    first = await hubspot.read_back(
        hubspot_api(fake), delivery(hubspot.CHANNEL, [hubspot_event("m1")], HUBSPOT)
    )
    fake.messages["6065362089", "m1"]["status"] = {"statusType": "READ"}
    again = await hubspot.read_back(
        hubspot_api(fake), delivery(hubspot.CHANNEL, [hubspot_event("m1", attempt=3)], HUBSPOT)
    )
    assert first == again


async def test_hubspot_what_was_cut_is_read_whole() -> None:
    fake = hubspot_account(hubspot_message("m1", "A long", truncationStatus="TRUNCATED"))
    fake.originals["m1"] = {"text": "A long story about a parcel.", "richText": None}
    items = await hubspot.read_back(
        hubspot_api(fake), delivery(hubspot.CHANNEL, [hubspot_event("m1")], HUBSPOT)
    )
    assert [one.text for one in messages(hubspot.CHANNEL, items, HUBSPOT)] == [
        "A long story about a parcel."
    ]


async def test_hubspot_what_was_cut_and_has_no_original_is_kept_as_it_is() -> None:
    fake = hubspot_account(hubspot_message("m1", "A long", truncationStatus="TRUNCATED"))
    items = await hubspot.read_back(
        hubspot_api(fake), delivery(hubspot.CHANNEL, [hubspot_event("m1")], HUBSPOT)
    )
    assert [one.text for one in messages(hubspot.CHANNEL, items, HUBSPOT)] == ["A long"]


async def test_hubspot_our_own_replies_never_come_back() -> None:
    by_app = hubspot_message(
        "m1", "We are on it.", direction="OUTGOING",
        client={"clientType": "INTEGRATION", "integrationAppId": 2438486},
    )  # fmt: skip
    by_actor = hubspot_message("m2", "Sent.", direction="OUTGOING", createdBy="A-777")
    by_staff = hubspot_message("m3", "I am Sam.", direction="OUTGOING", createdBy="A-11")
    fake = hubspot_account(by_app, by_actor, by_staff)
    body = [hubspot_event("m1"), hubspot_event("m2"), hubspot_event("m3")]
    items = await hubspot.read_back(hubspot_api(fake), delivery(hubspot.CHANNEL, body, HUBSPOT))
    found = messages(hubspot.CHANNEL, items, HUBSPOT)
    assert [(one.text, one.direction) for one in found] == [("I am Sam.", "outbound")]


async def test_hubspot_a_message_that_is_gone_holds_up_no_other() -> None:
    fake = hubspot_account(hubspot_message("m2", "Hello?"))
    body = [hubspot_event("m1"), hubspot_event("m2")]
    items = await hubspot.read_back(hubspot_api(fake), delivery(hubspot.CHANNEL, body, HUBSPOT))
    assert [one.name for one in items] == ["message:m2"]


async def test_hubspot_a_token_is_had_for_the_refresh_token_and_kept() -> None:
    fake = hubspot_account(hubspot_message("m1", "Hello?"))
    api = hubspot_api(fake, HUBSPOT_OAUTH, secret=fake.client[1], refresh_token=fake.refresh_token)
    given = delivery(hubspot.CHANNEL, [hubspot_event("m1")], HUBSPOT_OAUTH)
    await hubspot.read_back(api, given)
    await hubspot.read_back(api, given)
    assert fake.tokens_given == 1


async def test_hubspot_events_of_another_portal_are_left_out() -> None:
    settings = HUBSPOT.model_copy(update={"portal_id": "1"})
    given = delivery(hubspot.CHANNEL, [hubspot_event("m1")], settings)
    assert hubspot.parse(given) == Parsed(ignored="other_account", verified=True)
    assert await hubspot.read_back(hubspot_api(hubspot_account(), settings), given) == ()


# --------------------------------------------------------------------------------------- Freshdesk

FRESHDESK = freshdesk.Settings(
    api_url=desk.BASE, api_key="env:FRESHDESK_KEY", own_ids=("777", "bot@shop.example")
)


def freshdesk_conversation(number: int, at: str, text: str, **more: Any) -> dict[str, Any]:
    return {
        "id": number, "body": f"<div>{text}</div>", "body_text": text, "incoming": True,
        "private": False, "source": 0, "user_id": 8, "created_at": at, "attachments": [], **more,
    }  # fmt: skip


def freshdesk_ticket(number: int, at: str, updated: str, text: str) -> dict[str, Any]:
    return {
        "id": number, "subject": "Parcel never arrived", "description": f"<div>{text}</div>",
        "description_text": text, "source": 1, "requester_id": 8, "created_at": at,
        "updated_at": updated, "spam": False,
        "requester": {"id": 8, "name": "Ada", "email": "ada@example.com"},
    }  # fmt: skip


def freshdesk_account() -> freshdesk_fake.Freshdesk:
    fake = freshdesk_fake.Freshdesk()
    fake.tickets["4242"] = freshdesk_ticket(
        4242, "2026-11-18T08:00:00Z", "2026-11-20T09:15:00Z", "Where is my parcel?"
    )
    fake.conversations["4242"] = [
        freshdesk_conversation(1, "2026-11-18T09:00:00Z", "Hello?"),
        freshdesk_conversation(
            2, "2026-11-20T09:00:00Z", "We look into it.", incoming=False, user_id=9
        ),
        freshdesk_conversation(
            3, "2026-11-20T09:01:00Z", "Carrier says lost",
            incoming=False, private=True, source=2, user_id=9,
        ),
        freshdesk_conversation(
            4, "2026-11-20T09:02:00Z", "We are on it.", incoming=False, user_id=777
        ),
        freshdesk_conversation(5, "2026-11-20T09:15:00Z", "Still waiting"),
    ]  # fmt: skip
    return fake


def freshdesk_api(fake: freshdesk_fake.Freshdesk, **secrets: str) -> VendorApi:
    given = secrets or {"api_key": fake.api_key}
    return VendorApi(FRESHDESK, given, desk.client(fake.server()))


FRESHDESK_CALL = {
    "freshdesk_webhook": {
        "ticket_id": "INC-4242",
        "ticket_latest_public_comment": "Ada : <div>Forged</div>",
        "ticket_contact_name": "Ada",
        "ticket_contact_email": "ada@example.com",
    }
}


async def test_freshdesk_a_call_is_not_believed_but_read_back() -> None:
    given = delivery(freshdesk.CHANNEL, FRESHDESK_CALL, FRESHDESK)
    assert adapters.wants_read_back(freshdesk.CHANNEL, given, freshdesk.parse(given))
    items = await freshdesk.read_back(freshdesk_api(freshdesk_account()), given)
    found = messages(freshdesk.CHANNEL, items, FRESHDESK)
    assert [(one.vendor_message_id, one.direction, one.text) for one in found] == [
        ("2", "outbound", "We look into it."),
        ("5", "inbound", "Still waiting"),
    ]
    assert found[1].sender.address == "ada@example.com"


async def test_freshdesk_a_new_ticket_is_its_description() -> None:
    fake = freshdesk_account()
    fake.tickets["7"] = freshdesk_ticket(
        7, "2026-11-20T09:15:00Z", "2026-11-20T09:15:00Z", "Where is order 1001?"
    )
    given = delivery(freshdesk.CHANNEL, {"ticket_id": 7}, FRESHDESK)
    found = messages(
        freshdesk.CHANNEL, await freshdesk.read_back(freshdesk_api(fake), given), FRESHDESK
    )
    assert [(one.vendor_message_id, one.text) for one in found] == [
        ("ticket:7", "Where is order 1001?")
    ]


async def test_freshdesk_conversations_are_read_page_by_page() -> None:
    fake = freshdesk_account()
    fake.conversations["4242"] = [
        freshdesk_conversation(number, "2026-11-18T09:00:00Z", "old") for number in range(100)
    ] + [freshdesk_conversation(500, "2026-11-20T09:15:00Z", "new")]
    given = delivery(freshdesk.CHANNEL, {"ticket_id": 4242}, FRESHDESK)
    items = await freshdesk.read_back(freshdesk_api(fake), given)
    assert [one.name for one in items] == ["conversation:500"]


async def test_freshdesk_a_ticket_that_is_gone_is_said_to_be_missing() -> None:
    given = delivery(freshdesk.CHANNEL, {"ticket_id": 1}, FRESHDESK)
    with pytest.raises(ApiProblem) as told:
        await freshdesk.read_back(freshdesk_api(freshdesk_account()), given)
    assert (told.value.reason, told.value.is_final) == ("missing", True)


async def all_of(api: VendorApi, cursor: str | None) -> tuple[list[Fetched], str | None]:
    """Poll until nothing more waits; a poll that never ends is a mistake."""
    items: list[Fetched] = []
    for _ in range(50):
        page: Page = await freshdesk.poll(api, cursor, NOW)
        items += page.items
        cursor = page.cursor
        if not page.more:
            return items, cursor
    raise AssertionError("the poll never ends")


async def test_freshdesk_a_first_look_takes_nothing_and_the_next_one_what_is_new() -> None:
    fake = freshdesk_account()
    page = await freshdesk.poll(freshdesk_api(fake), None, NOW - timedelta(minutes=2))
    assert page.items == ()
    assert not page.more
    fake.conversations["4242"].append(
        freshdesk_conversation(6, "2026-11-20T09:15:20Z", "Anybody there?")
    )
    fake.tickets["4242"]["updated_at"] = "2026-11-20T09:15:20Z"
    items, cursor = await all_of(freshdesk_api(fake), page.cursor)
    assert [one.name for one in items] == ["conversation:5", "conversation:6"]
    again, _ = await all_of(freshdesk_api(fake), cursor)
    assert again == items, "what comes twice is the same input"


async def test_freshdesk_many_tickets_of_one_second_are_all_read() -> None:
    fake = freshdesk_fake.Freshdesk()
    at = "2026-11-20T09:15:00Z"
    for number in range(1, 38):
        fake.tickets[str(number)] = freshdesk_ticket(number, at, at, f"question {number}")
    start = await freshdesk.poll(freshdesk_api(fake), None, NOW - timedelta(minutes=1))
    items, _ = await all_of(freshdesk_api(fake), start.cursor)
    assert len({one.name for one in items}) == 37


async def test_freshdesk_everything_there_is_can_be_taken() -> None:
    fake = freshdesk_account()
    settings = FRESHDESK.model_copy(update={"start": "all"})
    api = VendorApi(settings, {"api_key": fake.api_key}, desk.client(fake.server()))
    items, _ = await all_of(api, None)
    assert [one.name for one in items] == [
        "ticket:4242", "conversation:1", "conversation:2", "conversation:5"
    ]  # fmt: skip


async def test_freshdesk_a_wrong_key_is_told_and_no_secret_as_well() -> None:
    given = delivery(freshdesk.CHANNEL, {"ticket_id": 4242}, FRESHDESK)
    for key, reason in (("wrong", "unauthorized"), ("", "no_secret")):
        with pytest.raises(ApiProblem) as told:
            await freshdesk.read_back(freshdesk_api(freshdesk_account(), api_key=key), given)
        assert told.value.reason == reason


# -------------------------------------------------------------------------------------------- Zoho

ZOHO = zoho.Settings(
    api_url=desk.BASE, accounts_url=desk.BASE, org_id="2389290", client_id="1000.client",
    client_secret="env:ZOHO_CLIENT_SECRET", refresh_token="env:ZOHO_REFRESH", own_ids=("777",),
)  # fmt: skip
TICKET = "231057000000341092"


def zoho_thread(number: str, text: str, **more: Any) -> dict[str, Any]:
    return {
        "id": number, "channel": "EMAIL", "direction": "in", "visibility": "public",
        "contentType": "text/html", "content": f"<div>{text}</div>", "summary": text[:10],
        "author": {"type": "END_USER", "id": "8", "name": "Ada", "email": "ada@example.com"},
        "createdTime": f"2026-11-20T09:{int(number):02}:00.000Z", **more,
    }  # fmt: skip


def zoho_account() -> zoho_fake.Zoho:
    fake = zoho_fake.Zoho()
    fake.tickets[TICKET] = {
        "id": TICKET, "ticketNumber": "101", "subject": "Parcel never arrived", "email": "ada@example.com",
        "contactId": "8", "contact": {"id": "8", "firstName": "Ada", "email": "ada@example.com"},
    }  # fmt: skip
    by_us = {"direction": "out", "author": {"type": "AGENT", "id": "777", "name": "Signalbox"}}
    by_sam = {"direction": "out", "author": {"type": "AGENT", "id": "9", "name": "Sam"}}
    fake.threads[TICKET] = [
        zoho_thread("1", "Where is order 1001?"),
        zoho_thread("2", "We look into it.", **by_sam),
        zoho_thread("3", "We are on it.", **by_us),
        zoho_thread("4", "Still waiting for my parcel"),
    ]
    return fake


def zoho_api(fake: zoho_fake.Zoho, **changed: str) -> VendorApi:
    secrets = {"client_secret": fake.client[1], "refresh_token": fake.refresh_token, **changed}
    return VendorApi(ZOHO, secrets, desk.client(fake.server()))


def zoho_events(*threads: str, kind: str = "Ticket_Thread_Add") -> list[dict[str, Any]]:
    return [
        {"eventType": kind, "eventTime": "1763630100000", "orgId": "2389290",
         "payload": {"id": one, "ticketId": TICKET, "direction": "in", "content": "<b>Forged</b>"}}
        for one in threads
    ]  # fmt: skip


async def test_zoho_a_thread_is_not_believed_but_read_back() -> None:
    given = delivery(zoho.CHANNEL, zoho_events("2", "3", "4"), ZOHO)
    assert adapters.wants_read_back(zoho.CHANNEL, given, zoho.parse(given))
    fake = zoho_account()
    items = await zoho.read_back(zoho_api(fake), given)
    found = messages(zoho.CHANNEL, items, ZOHO)
    assert [(one.direction, one.text, one.subject) for one in found] == [
        ("outbound", "We look into it.", "Parcel never arrived"),
        ("inbound", "Still waiting for my parcel", "Parcel never arrived"),
    ]
    assert [path for path, _ in fake.asked].count(f"/api/v1/tickets/{TICKET}") == 1


async def test_zoho_a_new_ticket_and_its_first_thread_are_one_message() -> None:
    event = zoho_events(TICKET, kind="Ticket_Add")[0]
    event["payload"] = {"id": TICKET, "description": "<div>Where is order 1001?</div>"}
    both = [event, *zoho_events("1")]
    items = await zoho.read_back(zoho_api(zoho_account()), delivery(zoho.CHANNEL, both, ZOHO))
    found = messages(zoho.CHANNEL, items, ZOHO)
    assert [(one.vendor_message_id, one.text) for one in found] == [("1", "Where is order 1001?")]


async def test_zoho_a_ticket_without_threads_is_its_description() -> None:
    fake = zoho_account()
    fake.threads[TICKET] = []
    fake.tickets[TICKET]["description"] = "<p>Called about a lamp</p>"
    event = zoho_events(TICKET, kind="Ticket_Add")[0]
    event["payload"] = {"id": TICKET, "subject": "Lamp"}
    items = await zoho.read_back(zoho_api(fake), delivery(zoho.CHANNEL, [event], ZOHO))
    found = messages(zoho.CHANNEL, items, ZOHO)
    assert [(one.vendor_message_id, one.text) for one in found] == [
        (f"ticket:{TICKET}", "Called about a lamp")
    ]


async def test_zoho_what_is_gone_holds_up_no_other() -> None:
    events = [*zoho_events("99"), *zoho_events("4")]
    items = await zoho.read_back(zoho_api(zoho_account()), delivery(zoho.CHANNEL, events, ZOHO))
    assert [one.name for one in items] == ["thread:4"]


async def test_zoho_a_refresh_token_that_is_refused_with_a_200_is_a_problem() -> None:
    given = delivery(zoho.CHANNEL, zoho_events("4"), ZOHO)
    with pytest.raises(ApiProblem) as told:
        await zoho.read_back(zoho_api(zoho_account(), refresh_token="revoked"), given)
    assert told.value.reason == "bad_answer"


def test_zoho_without_credentials_what_is_told_counts_but_is_never_verified() -> None:
    given = delivery(zoho.CHANNEL, zoho_events("4"), zoho.Settings(org_id="2389290"))
    parsed = zoho.parse(given)
    assert [one.text for one in parsed.messages] == ["Forged"]
    assert not parsed.verified


# ---------------------------------------------------------------------------------------- Intercom

INTERCOM = intercom.Settings(
    api_url=desk.BASE, access_token="env:INTERCOM_TOKEN", own_ids=("777",), app_id="abc123"
)


def intercom_note(topic: str, **item: Any) -> dict[str, Any]:
    return {
        "type": "notification_event", "app_id": "abc123", "topic": topic, "id": "notif_1",
        "created_at": 1763630100, "data": {"item": {"type": "conversation", "id": "5501", **item}},
    }  # fmt: skip


def intercom_part(number: str, at: int, text: str, author: str = "u1") -> dict[str, Any]:
    kind = "user" if author == "u1" else "admin"
    return {
        "id": number, "part_type": "comment", "body": f"<p>{text}</p>", "created_at": at,
        "author": {"type": kind, "id": author, "email": f"{author}@example.test"}, "attachments": [],
    }  # fmt: skip


def intercom_account() -> intercom_fake.Intercom:
    fake = intercom_fake.Intercom()
    fake.conversations["5501"] = {
        "type": "conversation", "id": "5501", "created_at": 1763600000, "state": "open",
        "source": {"id": "s1", "body": "<p>Invoice?</p>", "author": {"type": "user", "id": "u1"}},
        "conversation_parts": {"conversation_parts": [
            intercom_part("p1", 1763600100, "An old one"),
            intercom_part("p2", 1763630000, "Here is the number"),
            intercom_part("p3", 1763630050, "We are on it.", "777"),
        ]},
    }  # fmt: skip
    return fake


def intercom_api(fake: intercom_fake.Intercom) -> VendorApi:
    secrets = {"access_token": fake.access_token}
    return VendorApi(INTERCOM, secrets, desk.client(fake.server()))


async def test_intercom_a_reply_that_came_without_its_text_is_read_back() -> None:
    given = delivery(intercom.CHANNEL, intercom_note("conversation.user.replied"), INTERCOM)
    assert adapters.wants_read_back(intercom.CHANNEL, given, intercom.parse(given))
    items = await intercom.read_back(intercom_api(intercom_account()), given)
    found = messages(intercom.CHANNEL, items, INTERCOM)
    assert [(one.vendor_message_id, one.text) for one in found] == [("p2", "Here is the number")]


async def test_intercom_a_beginning_that_came_without_its_text_is_read_back() -> None:
    given = delivery(intercom.CHANNEL, intercom_note("conversation.user.created"), INTERCOM)
    assert intercom.parse(given).ignored == "hint"
    items = await intercom.read_back(intercom_api(intercom_account()), given)
    found = messages(intercom.CHANNEL, items, INTERCOM)
    assert [(one.vendor_message_id, one.text) for one in found] == [("s1", "Invoice?")]


async def test_intercom_a_change_of_the_conversation_leaves_the_same_input() -> None:
    fake = intercom_account()
    given = delivery(intercom.CHANNEL, intercom_note("conversation.user.replied"), INTERCOM)
    first = await intercom.read_back(intercom_api(fake), given)
    fake.conversations["5501"]["state"] = "closed"
    assert await intercom.read_back(intercom_api(fake), given) == first


def test_intercom_what_came_whole_is_not_read_again() -> None:
    parts = {"conversation_parts": [intercom_part("p9", 1763630100, "Here it is")]}
    note = intercom_note("conversation.user.replied", conversation_parts=parts)
    given = delivery(intercom.CHANNEL, note, INTERCOM)
    parsed = intercom.parse(given)
    assert [one.text for one in parsed.messages] == ["Here it is"]
    assert not adapters.wants_read_back(intercom.CHANNEL, given, parsed)


def test_intercom_our_own_admin_is_an_echo_and_another_workspace_is_none_of_ours() -> None:
    parts = {"conversation_parts": [intercom_part("p9", 1763630100, "We are on it.", "777")]}
    note = intercom_note("conversation.admin.replied", conversation_parts=parts)
    assert intercom.parse(delivery(intercom.CHANNEL, note, INTERCOM)).ignored == "echo"
    other = {**note, "app_id": "other"}
    parsed = intercom.parse(delivery(intercom.CHANNEL, other, INTERCOM))
    assert parsed.ignored == "other_account"


# ------------------------------------------------------------------------------------------- trouble

CALLS: dict[str, tuple[Any, Any, Any]] = {
    "hubspot": (hubspot.CHANNEL, lambda: hubspot_account(hubspot_message("m1", "Hello?")),
                ([hubspot_event("m1")], HUBSPOT, {"access_token": "pat-na1-token"})),
    "freshdesk": (freshdesk.CHANNEL, freshdesk_account,
                  ({"ticket_id": 4242}, FRESHDESK, {"api_key": "freshdesk-api-key"})),
    "zoho": (zoho.CHANNEL, zoho_account,
             (zoho_events("4"), ZOHO,
              {"client_secret": "zoho-client-secret", "refresh_token": "1000.refresh-token"})),
    "intercom": (intercom.CHANNEL, intercom_account,
                 (intercom_note("conversation.user.replied"), INTERCOM,
                  {"access_token": "intercom-access-token"})),
}  # fmt: skip


@pytest.mark.parametrize("vendor", sorted(CALLS))
@pytest.mark.parametrize(
    ("status", "body", "headers", "reason", "retry_after"),
    [
        (429, "", {"retry_after": "7"}, "throttled", 7.0),
        (503, "", {}, "failed", None),
        (500, "<html>oops</html>", {}, "failed", None),
        (401, "", {}, "unauthorized", None),
        (200, "<html>maintenance</html>", {}, "bad_answer", None),
        (200, '"a text"', {}, "bad_answer", None),
        (200, '{"id": {"deep": []}}', {}, "bad_answer", None),
    ],
)
async def test_trouble_of_an_api_is_told_with_when_to_try_again(
    vendor: str,
    status: int,
    body: str,
    headers: dict[str, str],
    reason: str,
    retry_after: float | None,
) -> None:
    channel, account, (hint, settings, secrets) = CALLS[vendor]
    fake = account()
    fake.misbehave(status, body, **headers)
    api = VendorApi(settings, secrets, desk.client(fake.server()))
    given = delivery(channel, hint, settings)
    with pytest.raises(ApiProblem) as told:
        await channel.read_back(api, given)
    assert (told.value.reason, told.value.retry_after) == (reason, retry_after)
    assert not told.value.is_final
    assert await channel.read_back(api, given), "and the next time it works"


@pytest.mark.parametrize("vendor", sorted(CALLS))
async def test_an_api_that_cannot_be_reached_is_asked_again_later(vendor: str) -> None:
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    channel, _, (hint, settings, secrets) = CALLS[vendor]
    client = httpx.AsyncClient(transport=httpx.MockTransport(gone))
    with pytest.raises(ApiProblem) as told:
        await channel.read_back(
            VendorApi(settings, secrets, client), delivery(channel, hint, settings)
        )
    assert (told.value.reason, told.value.is_final) == ("unreachable", False)
