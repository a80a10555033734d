"""What is each helpdesk's own: where an answer goes, what it leaves alone, how it is found again, and that it never comes
back as a message.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from msgspec import structs
from starlette.responses import JSONResponse

from schemas.messages import MessageContent
from services.ingest.adapters import edesk as edesk_channel
from services.ingest.adapters import freshdesk as freshdesk_channel
from services.ingest.adapters import gorgias as gorgias_channel
from services.ingest.adapters import helpscout as helpscout_channel
from services.ingest.adapters import hubspot as hubspot_channel
from services.ingest.adapters import intercom as intercom_channel
from services.ingest.adapters import zendesk as zendesk_channel
from services.ingest.adapters import zoho as zoho_channel
from services.ingest.adapters.api import VendorApi
from services.ingest.adapters.channel import FETCHED, Channel, ChannelSettings, Delivery
from services.notifier.adapters import helpdesk
from services.notifier.adapters.api import AccountApi
from services.notifier.adapters.provider import Problem
from services.notifier.core.accounts import AccountSettings
from services.notifier.core.delivery import Attempted, Delivered, Failed, Unknown
from services.notifier.core.post import Post, Trouble
from tests.contract.providers import (
    WORDS,
    ProviderCase,
    edesk,
    freshdesk,
    gorgias,
    helpscout,
    hubspot,
    intercom,
    zendesk,
    zoho,
)
from tests.fakes import desk

NOW = datetime(2026, 11, 24, 8, 0, 10, tzinfo=UTC)


class Office:
    """A provider's account at its fake."""

    def __init__(self, case: ProviderCase, **changes: Any) -> None:
        self.case = case
        self.fake = case.fake()
        settings = case.settings.model_copy(update=changes)
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app=self.fake.server()))
        self.api = AccountApi(settings, client, lambda reference: case.secrets.get(reference))

    def post(self, **changes: Any) -> Post:
        made: Post = structs.replace(self.case.post, **changes)
        return made

    async def send(self, **changes: Any) -> Attempted:
        return await self.api.send(self.case.provider, self.post(**changes))

    async def find(self, **changes: Any) -> Attempted | None:
        return await self.api.find(self.case.provider, self.post(**changes))

    @property
    def wrote(self) -> Any:
        """The body of the last write."""
        return self.fake.wrote[-1][2]


def trouble(outcome: Attempted | None) -> Trouble:
    assert isinstance(outcome, Failed), outcome
    return outcome.trouble


# ------------------------------------------------------------------------------- nothing comes back


@dataclass(frozen=True)
class Echo:
    """How a vendor tells the gateway of what we wrote, and the settings by which it is known for ours."""

    case: ProviderCase
    channel: Channel
    told: Callable[[Any, desk.Sent], Any]
    ours: ChannelSettings
    strangers: ChannelSettings
    secrets: dict[str, str]
    headers: dict[str, str]


def _zendesk(fake: Any, sent: desk.Sent) -> Any:
    return {
        "id": "event-1", "type": "zen:event-type:ticket.comment_added", "time": "2026-11-24T08:00:06Z",
        "detail": {"id": sent.to, "subject": "My lamp", "requester_id": "84473"},
        "event": {"comment": {
            "id": sent.id, "body": WORDS, "is_public": True,
            "author": {"id": "777", "is_staff": True, "name": "Signalbox"},
        }},
    }  # fmt: skip


def _helpscout(fake: Any, sent: desk.Sent) -> Any:
    return {**fake.conversations[sent.to], "_embedded": {"threads": fake.threads[sent.to][-1:]}}


def _hubspot(fake: Any, sent: desk.Sent) -> Any:
    return [{
        "subscriptionType": "conversation.newMessage", "objectId": int(sent.to), "messageId": sent.id,
        "messageType": "MESSAGE", "portalId": 1, "occurredAt": 1795507206000, "eventId": 1,
    }]  # fmt: skip


def _zoho(fake: Any, sent: desk.Sent) -> Any:
    thread = {**fake.threads[sent.to][-1], "ticketId": sent.to}
    return [{"eventType": "Ticket_Thread_Add", "eventTime": "1795507206000", "payload": thread}]


def _intercom(fake: Any, sent: desk.Sent) -> Any:
    return {
        "type": "notification_event", "topic": "conversation.admin.replied", "id": "notif_1",
        "created_at": 1795507206, "data": {"item": fake.conversations[sent.to]},
    }  # fmt: skip


ECHOES = (
    Echo(
        zendesk.CASE, zendesk_channel.CHANNEL, _zendesk,
        zendesk_channel.Settings(
            api_url=desk.BASE, email="bot@shop.example", api_token="env:T", own_ids=("777",)
        ),
        zendesk_channel.Settings(api_url=desk.BASE, email="bot@shop.example", api_token="env:T"),
        {"api_token": "zd-api-token"}, {},
    ),
    Echo(
        helpscout.CASE, helpscout_channel.CHANNEL, _helpscout,
        helpscout_channel.Settings(own_ids=("256",)), helpscout_channel.Settings(),
        {}, {"x-helpscout-event": "convo.agent.reply.created"},
    ),
    Echo(
        gorgias.CASE, gorgias_channel.CHANNEL,
        lambda fake, sent: {"trigger": "ticket-message-created", "ticket_id": sent.to},
        gorgias_channel.Settings(api_url=desk.BASE, api_user="bot@shop.example", api_key="env:K"),
        gorgias_channel.Settings(
            api_url=desk.BASE, api_user="bot@shop.example", api_key="env:K", own_prefix="another:"
        ),
        {"api_key": "gorgias-api-key"}, {},
    ),
    Echo(
        edesk.CASE, edesk_channel.CHANNEL,
        lambda fake, sent: {"ticket_id": sent.to, "message_id": sent.id.partition(":")[2]},
        edesk_channel.Settings(api_url=f"{desk.BASE}/v1", api_token="env:T", own_ids=("4711",)),
        edesk_channel.Settings(api_url=f"{desk.BASE}/v1", api_token="env:T"),
        {"api_token": "edesk-api-token"}, {},
    ),
    Echo(
        hubspot.CASE, hubspot_channel.CHANNEL, _hubspot,
        hubspot_channel.Settings(api_url=desk.BASE, access_token="env:T", own_ids=("A-777",)),
        hubspot_channel.Settings(api_url=desk.BASE, access_token="env:T"),
        {"access_token": "pat-na1-token"}, {},
    ),
    Echo(
        freshdesk.CASE, freshdesk_channel.CHANNEL,
        lambda fake, sent: {"freshdesk_webhook": {"ticket_id": sent.to}},
        freshdesk_channel.Settings(api_url=desk.BASE, api_key="env:K", own_ids=("43",)),
        freshdesk_channel.Settings(api_url=desk.BASE, api_key="env:K"),
        {"api_key": "freshdesk-api-key"}, {},
    ),
    Echo(
        zoho.CASE, zoho_channel.CHANNEL, _zoho,
        zoho_channel.Settings(own_ids=("777",)), zoho_channel.Settings(), {}, {},
    ),
    Echo(
        intercom.CASE, intercom_channel.CHANNEL, _intercom,
        intercom_channel.Settings(own_ids=("880123",)), intercom_channel.Settings(), {}, {},
    ),
)  # fmt: skip


async def outbound(
    echo: Echo, fake: Any, sent: desk.Sent, settings: ChannelSettings
) -> list[MessageContent]:
    """Return what the gateway takes for messages of our side, out of what the vendor tells of `sent`."""
    channel, name = echo.channel, echo.channel.name
    raw = json.dumps(echo.told(fake, sent)).encode()
    told = Delivery(name, "desk", raw, NOW, headers=echo.headers, verified=True, settings=settings)
    found = list(channel.parse(told).messages)
    if channel.read_back is not None and channel.reads_back(settings):
        api = VendorApi(settings, echo.secrets, desk.client(fake.server()))
        for item in await channel.read_back(api, told):
            read = Delivery(
                name, "desk", item.body, NOW, headers={FETCHED: item.kind}, verified=True,
                settings=settings,
            )  # fmt: skip
            found += channel.parse(read).messages
    return [one for one in found if one.direction == "outbound"]


@pytest.mark.parametrize("echo", ECHOES, ids=lambda echo: echo.case.name)
async def test_what_we_write_at_a_helpdesk_never_comes_back_as_a_message(echo: Echo) -> None:
    office = Office(echo.case)
    assert isinstance(await office.send(), Delivered)
    (sent,) = office.fake.sent
    assert await outbound(echo, office.fake, sent, echo.ours) == []
    (strange,) = await outbound(echo, office.fake, sent, echo.strangers)
    assert strange.text.split() == WORDS.split()


# -------------------------------------------------------------------------------------- shared words


def test_plain_words_become_paragraphs_and_lines_and_links_and_nothing_else() -> None:
    text = "Hello Ada & Bob,\n\nsee https://shop.example/a?b=1&c=2.\nIt costs <5 €>.\n"
    assert helpdesk.html_of(text) == (
        "<p>Hello Ada &amp; Bob,</p>"
        '<p>see <a href="https://shop.example/a?b=1&amp;c=2">https://shop.example/a?b=1&amp;c=2</a>.'
        "<br>It costs &lt;5 €&gt;.</p>"
    )


@pytest.mark.parametrize(
    "text",
    ["<b>not bold</b> & \"'", "one\n\n\ntwo", "a  b\tc", "Привет, Анна!", "soft\u00adhyphen 🛋️"],
)
def test_a_reader_sees_the_same_in_the_html_as_in_the_words(text: str) -> None:
    assert helpdesk.compact(helpdesk.html_of(text), is_html=True) == helpdesk.compact(
        text, is_html=False
    )


LONG = "Your lamp left our house this morning, and the carrier will bring it to you by Friday noon."


@pytest.mark.parametrize(
    ("shown", "is_ours"),
    [
        (f"<div><p>{LONG}</p></div>", True),
        (f"<p>{LONG}</p><p>--<br>Lantern &amp; Oak</p>", True),
        (f"<p>Sam wrote: {LONG}</p>", None),
        (f"<p>{LONG.replace('Friday', 'Monday')}</p>", None),
        ("<p>We have your money back on its way.</p>", False),
        ("", False),
    ],
)
def test_the_same_words_are_found_and_nearly_the_same_leave_a_doubt(
    shown: str, is_ours: bool | None
) -> None:
    post = structs.replace(zendesk.CASE.post, text=LONG)
    written = [helpdesk.Written("7", NOW, shown)]
    if is_ours is None:
        with pytest.raises(Problem) as caught:
            helpdesk.sought(post, written, "Desk")
        assert isinstance(caught.value.outcome, Unknown)
    else:
        found = helpdesk.sought(post, written, "Desk")
        assert (found.message_id if found else None) == ("7" if is_ours else None)


def test_a_short_answer_is_not_found_in_a_longer_one_that_begins_with_it() -> None:
    post = structs.replace(zendesk.CASE.post, text="Yes, it is.")
    written = [helpdesk.Written("7", NOW, "<p>Yes, it is. And there is a second lamp for you.</p>")]
    with pytest.raises(Problem):
        helpdesk.sought(post, written, "Desk")


def test_the_same_words_of_an_hour_before_are_another_message() -> None:
    written = [
        helpdesk.Written("7", datetime(2026, 11, 24, 7, 0, tzinfo=UTC), f"<p>{WORDS}</p>"),
        helpdesk.Written("8", datetime(2026, 11, 24, 7, 51, tzinfo=UTC), f"<p>{WORDS}</p>"),
    ]
    assert helpdesk.sought(zendesk.CASE.post, written[:1], "Desk") is None
    with pytest.raises(Problem) as caught:
        helpdesk.sought(zendesk.CASE.post, written, "Desk")
    assert isinstance(caught.value.outcome, Unknown), "the vendor's clock may be ten minutes behind"
    after = helpdesk.Written("9", datetime(2026, 11, 24, 8, 0, tzinfo=UTC), f"<p>{WORDS}</p>")
    found = helpdesk.sought(zendesk.CASE.post, [*written, after], "Desk")
    assert found is not None
    assert found.message_id == "9"


def test_a_vendor_that_tells_whole_seconds_shows_ours_in_the_second_it_was_made() -> None:
    made = datetime(2026, 11, 24, 8, 0, 0, 700_000, tzinfo=UTC)
    post = structs.replace(zendesk.CASE.post, date=made)
    written = [helpdesk.Written("7", datetime(2026, 11, 24, 8, 0, tzinfo=UTC), f"<p>{WORDS}</p>")]
    assert helpdesk.sought(post, written, "Desk") is not None


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ("2026-11-24T08:00:10Z", NOW),
        ("2026-11-24 08:00:10", NOW),
        ("2026-11-24T11:00:10+03:00", NOW),
        (1795507210, NOW),
        ("1795507210000", NOW),
        ("yesterday", None),
        (None, None),
        (True, None),
        (10**30, None),
        (10**400, None),
        ("9" * 5_000, None),
        ("0001-01-01T00:00:00+14:00", None),
    ],
)
def test_the_times_of_all_helpdesks_are_read(said: Any, at: datetime | None) -> None:
    assert helpdesk.instant(said) == at


@pytest.mark.parametrize("thread", ["", "abc", "51/58", "5158?x=1", "../5158", "٥١٥٨", "1" * 21])
@pytest.mark.parametrize("case", [echo.case for echo in ECHOES], ids=lambda case: case.name)
async def test_a_thread_that_is_no_number_is_refused_before_anything_is_asked(
    case: ProviderCase, thread: str
) -> None:
    office = Office(case)
    assert trouble(await office.send(thread=thread)) is Trouble.MESSAGE
    assert (office.fake.tried, office.fake.asked) == (0, [])


@pytest.mark.parametrize("case", [echo.case for echo in ECHOES], ids=lambda case: case.name)
async def test_a_thread_that_is_gone_is_over_and_the_customer_can_be_reached_otherwise(
    case: ProviderCase,
) -> None:
    office = Office(case)
    outcome = await office.send(thread="404404", answers="")
    assert trouble(outcome) in (Trouble.WINDOW, Trouble.MESSAGE)
    assert office.fake.sent == []


@pytest.mark.parametrize("case", [echo.case for echo in ECHOES], ids=lambda case: case.name)
def test_settings_hold_references_and_no_secrets(case: ProviderCase) -> None:
    kind: type[AccountSettings] = case.provider.settings
    for name, value in kind.EXAMPLE.items():
        if name.endswith(("secret", "token", "key")):
            with pytest.raises(ValueError, match=name):
                kind.model_validate({**kind.EXAMPLE, name: "the-secret-itself"})
            assert value.startswith(("env:", "file:"))


# ------------------------------------------------------------------------------------------- Zendesk


async def test_a_comment_at_zendesk_is_found_by_its_mark_on_whatever_page() -> None:
    office = Office(zendesk.CASE)
    assert isinstance(await office.send(), Delivered)
    (ours,) = office.fake.audits["5158"]
    later = {**ours, "metadata": {"custom": {}, "system": {}}, "events": [], "id": 1}
    office.fake.audits["5158"] += [later] * 150
    found = await office.find()
    assert isinstance(found, Delivered)
    assert found.message_id == office.fake.sent[0].id
    other = "0197c3a0-5d1e-7c11-9a53-3f2b8c6d7e09"
    assert await office.find(key=other) is None, "the same words of another notice are another's"


async def test_a_ticket_with_more_changes_than_a_look_reads_leaves_it_unknown() -> None:
    office = Office(zendesk.CASE)
    change = {"id": 1, "created_at": "2026-11-24T08:00:05Z", "metadata": None, "events": []}
    office.fake.audits["5158"] = [change] * 1_001
    assert isinstance(await office.find(), Unknown)
    office.fake.audits["5158"] = [{**change, "created_at": "2026-11-20T08:00:05Z"}] * 1_001
    assert await office.find() is None, "all of them are older than the notice"


async def test_zendesk_is_told_the_notice_and_whether_a_machine_wrote_it() -> None:
    office = Office(zendesk.CASE, answered_status="pending")
    await office.send(is_automatic=True)
    assert office.wrote["ticket"]["metadata"] == {
        "signalbox_notice": zendesk.CASE.post.key,
        "signalbox_automatic": True,
    }
    assert "status" not in office.wrote["ticket"]
    await office.send(key="0197c3a0-5d1e-7c11-9a53-3f2b8c6d7e08")
    assert office.wrote["ticket"]["status"] == "pending"


async def test_a_closed_ticket_at_zendesk_takes_no_comment_and_says_so() -> None:
    office = Office(zendesk.CASE)
    office.fake.tickets["5158"]["status"] = "closed"
    outcome = await office.send()
    assert trouble(outcome) is Trouble.WINDOW
    assert isinstance(outcome, Failed)
    assert outcome.reason == "Zendesk: the ticket is closed and takes no more comments"


async def test_an_author_that_is_no_agent_is_the_accounts_trouble() -> None:
    office = Office(zendesk.CASE, author_id="84473")
    outcome = await office.send()
    assert trouble(outcome) is Trouble.ACCOUNT
    assert isinstance(outcome, Failed)
    assert "author_id" in outcome.reason


async def test_zendesk_takes_an_api_token_as_well() -> None:
    office = Office(
        zendesk.CASE, client_id="", client_secret=None, email="bot@shop.example", api_token="env:T"
    )
    office.api.secrets = {"env:T": office.fake.api_token}.get
    assert isinstance(await office.send(), Delivered)
    assert office.fake.tokens_given == 0


@pytest.mark.parametrize(
    ("case", "place", "mark"),
    [
        (zendesk.CASE, "tickets", {"via": {"channel": "twitter"}}),
        (freshdesk.CASE, "tickets", {"source": 6}),
        (gorgias.CASE, "tickets", {"channel": "facebook-comment"}),
        (intercom.CASE, "conversations", {"source": {"type": "twitter"}}),
    ],
    ids=["zendesk", "freshdesk", "gorgias", "intercom"],
)
async def test_what_others_may_read_is_never_written(
    case: ProviderCase, place: str, mark: dict[str, Any]
) -> None:
    office = Office(case)
    getattr(office.fake, place)["5158"].update(mark)
    assert trouble(await office.send()) is Trouble.WINDOW
    assert office.fake.tried == 0


@pytest.mark.parametrize(
    ("case", "place", "mark"),
    [
        (zendesk.CASE, "tickets", "via"),
        (freshdesk.CASE, "tickets", "source"),
        (gorgias.CASE, "tickets", "channel"),
        (edesk.CASE, "tickets", "channel_id"),
        (intercom.CASE, "conversations", "source"),
    ],
    ids=["zendesk", "freshdesk", "gorgias", "edesk", "intercom"],
)
async def test_nothing_is_written_where_it_is_not_told_who_may_read_it(
    case: ProviderCase, place: str, mark: str
) -> None:
    office = Office(case)
    del getattr(office.fake, place)["5158"][mark]
    outcome = await office.send()
    assert isinstance(outcome, Failed)
    assert outcome.trouble in (Trouble.PROVIDER, Trouble.WINDOW)
    assert office.fake.tried == 0


@pytest.mark.parametrize(
    ("case", "empty"),
    [
        (zendesk.CASE, {"audits": [], "next_page": None}),
        (gorgias.CASE, {"data": [], "meta": {"next_cursor": None}}),
        (hubspot.CASE, {"results": []}),
        (zoho.CASE, {"data": []}),
        (edesk.CASE, {"data": {"id": 5158, "messages_ids": []}}),
    ],
    ids=lambda value: value.name if isinstance(value, ProviderCase) else "",
)
async def test_a_thread_without_the_customers_message_is_not_shown_as_it_is(
    case: ProviderCase, empty: dict[str, Any]
) -> None:
    office = Office(case)
    office.fake.trouble.append(JSONResponse(empty))
    outcome = await office.find()
    assert isinstance(outcome, Unknown)
    assert "customer's message is missing" in outcome.reason


async def test_a_conversation_at_help_scout_without_threads_is_not_shown_as_it_is() -> None:
    office = Office(helpscout.CASE)
    office.fake.threads["5158"] = []
    assert isinstance(await office.find(), Unknown)


# ---------------------------------------------------------------------------------------- Help Scout


async def test_a_merged_conversation_is_answered_where_it_went() -> None:
    office = Office(helpscout.CASE)
    office.fake.merged["77"] = "5158"
    assert isinstance(await office.send(thread="77"), Delivered)
    assert office.fake.sent[0].to == "5158"
    assert isinstance(await office.find(thread="77"), Delivered)


async def test_a_place_elsewhere_that_a_merge_names_is_not_followed() -> None:
    office = Office(helpscout.CASE)
    office.fake.merged["77"] = "5158/../../secrets"
    assert trouble(await office.send(thread="77")) is Trouble.WINDOW


@pytest.mark.parametrize(
    ("status", "is_automatic", "becomes"),
    [("closed", True, "closed"), ("active", True, "active"), ("active", False, "pending")],
)
async def test_an_automatic_notice_never_wakes_a_conversation(
    status: str, is_automatic: bool, becomes: str
) -> None:
    office = Office(helpscout.CASE)
    office.fake.conversations["5158"]["status"] = status
    assert isinstance(await office.send(is_automatic=is_automatic), Delivered)
    assert office.fake.conversations["5158"]["status"] == becomes


async def test_a_reply_is_found_behind_a_page_of_others_and_drafts_are_none() -> None:
    office = Office(helpscout.CASE)
    await office.send()
    reply = office.fake.threads["5158"][-1]
    office.fake.threads["5158"] += [{**reply, "id": 1, "type": "note"}] * 30
    found = await office.find()
    assert isinstance(found, Delivered)
    assert found.message_id == office.fake.sent[0].id
    office.fake.threads["5158"] = [{**reply, "state": "draft"}]
    assert await office.find() is None
    office.fake.threads["5158"] = [{**reply, "createdBy": {"id": 999, "type": "user"}}]
    assert await office.find() is None, "another user's words"


async def test_a_locked_conversation_is_over() -> None:
    office = Office(helpscout.CASE)
    office.fake.locked.add("5158")
    assert trouble(await office.send()) is Trouble.WINDOW


# ------------------------------------------------------------------------------------------- Gorgias


async def test_an_answer_at_gorgias_stays_in_the_customers_mail_thread() -> None:
    office = Office(gorgias.CASE)
    await office.send()
    assert office.wrote["subject"] == "Re: My lamp"
    assert office.wrote["source"]["to"] == [{"address": "ada@example.com", "name": "Ada"}]
    assert office.wrote["external_id"] == f"signalbox:{gorgias.CASE.post.key}"
    assert "sent_datetime" not in office.wrote, "with it Gorgias would mail nothing"


async def test_a_chat_at_gorgias_is_not_answered_by_guesswork() -> None:
    office = Office(gorgias.CASE)
    office.fake.tickets["5158"]["channel"] = "chat"
    assert trouble(await office.send()) is Trouble.WINDOW
    assert office.fake.tried == 0
    office.fake.tickets["5158"]["customer"] = {"id": 8, "email": None}
    office.fake.tickets["5158"]["channel"] = "email"
    assert trouble(await office.send()) is Trouble.WINDOW
    assert office.fake.tried == 0


async def test_a_form_at_gorgias_is_answered_by_mail_where_the_settings_say_so() -> None:
    office = Office(gorgias.CASE, answered_by_mail=("email", "contact_form"))
    office.fake.tickets["5158"]["channel"] = "contact_form"
    assert isinstance(await office.send(), Delivered)


async def test_a_message_at_gorgias_is_found_behind_a_hundred_others() -> None:
    office = Office(gorgias.CASE)
    await office.send()
    office.fake.messages += [{**office.fake.messages[0], "id": 1, "external_id": None}] * 130
    for one in office.fake.messages[-130:]:
        one["created_datetime"] = "2026-11-24T08:10:00"
    found = await office.find()
    assert isinstance(found, Delivered)
    assert found.message_id == office.fake.sent[0].id


async def test_a_message_that_gorgias_could_not_mail_is_for_a_person_to_see() -> None:
    office = Office(gorgias.CASE)
    await office.send()
    office.fake.messages[-1]["failed_datetime"] = "2026-11-24T08:01:00"
    assert isinstance(await office.find(), Unknown)


# --------------------------------------------------------------------------------------------- eDesk


def test_edesks_channels_are_named_or_all_of_them_in_so_many_words() -> None:
    given: dict[str, Any] = {"api_token": "env:TOKEN"}
    kind = edesk.CASE.provider.settings
    for wrong in ({}, {"answered_channels": ()}, {"answered_channels": "some"}):
        with pytest.raises(ValueError, match="answered_channels"):
            kind.model_validate({**given, **wrong})
    kind.model_validate({**given, "answered_channels": "all"})


async def test_all_of_edesks_channels_are_answered_where_that_is_said() -> None:
    office = Office(edesk.CASE, answered_channels="all")
    office.fake.tickets["5158"]["channel_id"] = 14
    assert isinstance(await office.send(), Delivered)


async def test_only_the_named_channels_of_edesk_are_answered() -> None:
    office = Office(edesk.CASE, answered_channels=("12", "13"))
    office.fake.tickets["5158"]["channel_id"] = 14
    assert trouble(await office.send()) is Trouble.WINDOW
    assert office.fake.tried == 0
    office.fake.tickets["5158"]["channel_id"] = 13
    assert isinstance(await office.send(), Delivered)


async def test_a_message_at_edesk_is_sent_and_not_only_kept() -> None:
    office = Office(edesk.CASE)
    await office.send()
    assert (office.wrote["send"], office.wrote["direction"]) == (True, "Outgoing")


async def test_what_a_marketplace_finds_too_long_is_the_messages_trouble_with_edesks_code() -> None:
    office = Office(edesk.CASE)
    office.fake.channel_text_max = 20
    outcome = await office.send()
    assert trouble(outcome) is Trouble.MESSAGE
    assert isinstance(outcome, Failed)
    assert "4020" in outcome.reason


async def test_a_look_at_edesk_costs_few_calls_and_says_when_it_cannot_tell() -> None:
    office = Office(edesk.CASE)
    await office.send()
    ours = office.fake.messages[office.fake.sent[0].id.partition(":")[2]]
    for number in range(200_000, 200_020):
        office.fake.messages[str(number)] = {**ours, "id": number, "direction": "Incoming"}
        office.fake.tickets["5158"]["messages_ids"].append(number)
    asked = len(office.fake.asked)
    assert isinstance(await office.find(), Unknown)
    assert len(office.fake.asked) - asked == 13


# ------------------------------------------------------------------------------------------- HubSpot


async def test_an_answer_at_hubspot_takes_the_way_that_the_customer_came_by() -> None:
    office = Office(hubspot.CASE)
    await office.send()
    assert (office.wrote["channelId"], office.wrote["subject"]) == ("1002", "Re: My lamp")
    (recipient,) = office.wrote["recipients"]
    assert recipient["deliveryIdentifiers"] == [
        {"type": "HS_EMAIL_ADDRESS", "value": "ada@example.com"}
    ]


async def test_without_its_id_the_newest_message_that_came_in_is_answered() -> None:
    office = Office(hubspot.CASE)
    first = office.fake.messages[("5158", "9001")]
    way = {"type": "CHANNEL_SPECIFIC_OPAQUE_ID", "value": "chat-1"}
    office.fake.channel_accounts += (("1000", "5"),)
    office.fake.messages[("5158", "9002")] = {
        **first, "id": "9002", "createdAt": "2026-11-24T07:30:00Z", "channelId": "1000",
        "channelAccountId": "5", "senders": [{"actorId": "V-12", "deliveryIdentifier": way}],
    }  # fmt: skip
    assert isinstance(await office.send(answers=""), Delivered)
    assert office.wrote["channelId"] == "1000"
    assert "subject" not in office.wrote, "a chat has none"


async def test_a_long_answer_at_hubspot_is_found_by_its_whole_text() -> None:
    office = Office(hubspot.CASE)
    text = "word " * 2_000
    await office.send(text=text)
    assert isinstance(await office.find(text=text), Delivered)


async def test_a_message_that_hubspot_could_not_send_is_for_a_person_to_see() -> None:
    office = Office(hubspot.CASE)
    await office.send()
    (sent,) = office.fake.sent
    office.fake.messages[("5158", sent.id)]["status"] = {"statusType": "FAILED"}
    assert isinstance(await office.find(), Unknown)


# ----------------------------------------------------------------------------------------- Freshdesk


async def test_a_reply_at_freshdesk_is_found_on_the_last_page() -> None:
    office = Office(freshdesk.CASE)
    note = {
        "id": 1, "body": f"<p>{WORDS}</p>", "incoming": False, "private": True, "source": 2,
        "user_id": 43, "created_at": "2026-11-24T08:00:04Z",
    }  # fmt: skip
    office.fake.conversations["5158"] = [note] * 150
    assert await office.find() is None, "notes are none"
    await office.send()
    found = await office.find()
    assert isinstance(found, Delivered)
    assert found.message_id == office.fake.sent[0].id


async def test_a_ticket_that_is_spam_takes_no_reply() -> None:
    office = Office(freshdesk.CASE)
    office.fake.tickets["5158"]["spam"] = True
    assert trouble(await office.send()) is Trouble.WINDOW


# ---------------------------------------------------------------------------------------------- Zoho


async def test_a_ticket_without_a_mail_address_cannot_be_answered_at_zoho() -> None:
    office = Office(zoho.CASE)
    office.fake.tickets["5158"]["email"] = None
    assert trouble(await office.send()) is Trouble.WINDOW
    assert office.fake.tried == 0


async def test_a_reply_that_zoho_takes_and_cannot_mail_is_no_delivery_and_is_not_found() -> None:
    office = Office(zoho.CASE)
    office.fake.sent_as = "FAILED"
    outcome = await office.send()
    assert not isinstance(outcome, Delivered)
    assert await office.find() is None


async def test_at_zoho_a_reply_of_ours_that_is_shown_without_its_words_says_nothing() -> None:
    office = Office(zoho.CASE)
    await office.send()
    office.fake.threads["5158"][-1]["content"] = None
    assert isinstance(await office.find(), Failed)


async def test_at_zoho_the_same_words_of_another_agent_are_not_ours() -> None:
    office = Office(zoho.CASE)
    await office.send()
    office.fake.threads["5158"][-1]["responderId"] = "778"
    assert await office.find() is None
    del office.fake.threads["5158"][-1]["responderId"]
    assert isinstance(await office.find(), Delivered), "nobody is named, and it is our address"


# ------------------------------------------------------------------------------------------ Intercom


async def test_a_conversation_at_intercom_that_is_shown_in_part_says_nothing() -> None:
    office = Office(intercom.CASE)
    office.fake.conversations["5158"]["conversation_parts"]["total_count"] = 700
    assert isinstance(await office.find(), Unknown)


async def test_a_comment_at_intercom_is_plain_words_and_known_by_its_parts_id() -> None:
    office = Office(intercom.CASE)
    outcome = await office.send(text="First & <second>\n\nline")
    assert office.wrote["body"] == "First & <second>\n\nline"
    assert isinstance(outcome, Delivered)
    assert outcome.message_id == office.fake.sent[0].id
    found = await office.find(text="First & <second>\n\nline")
    assert isinstance(found, Delivered)
