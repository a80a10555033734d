"""Gmail and Twilio through their APIs: what a hint and a look bring, how a cursor goes on, and what trouble does."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.ingest.adapters import gmail, twilio_voice
from services.ingest.adapters.api import ApiProblem, VendorApi
from services.ingest.adapters.channel import FETCHED, Delivery, Fetched, Page
from tests.fakes import desk
from tests.fakes.gmail import Gmail, Mail
from tests.fakes.twilio import Twilio

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
AT = int(NOW.timestamp())
SETTINGS = gmail.Settings(
    address="support@example.com",
    client_id="gm-client",
    client_secret="env:GM_SECRET",
    refresh_token="env:GM_REFRESH",
    token_url=f"{desk.BASE}/token",
    api_url=desk.BASE,
)
SECRETS = {"client_secret": "gm-client-secret", "refresh_token": "gm-refresh"}


def raw(number: int, sender: str = "ada@example.com") -> bytes:
    return (
        f"Authentication-Results: mx.google.com; dmarc=pass header.from=example.com\r\n"
        f"From: Ada <{sender}>\r\nTo: support@example.com\r\nSubject: Order {number}\r\n"
        f"Message-ID: <{number}@example.com>\r\n\r\nWhere is order {number}?"
    ).encode()


def mail(number: int, **more: Any) -> Mail:
    return Mail(f"m{number}", raw(number), more.pop("at", AT - 60), **more)


def api(fake: Gmail, settings: gmail.Settings = SETTINGS) -> VendorApi:
    return VendorApi(settings, SECRETS, desk.client(fake.server()))


def push(at: datetime = NOW) -> Delivery:
    data = base64.b64encode(b'{"emailAddress":"support@example.com","historyId":"1234"}').decode()
    message = {"data": data, "messageId": "1", "publishTime": at.isoformat()}
    body = json.dumps({"message": message, "subscription": "s"}).encode()
    return Delivery("gmail", "main", body, NOW, verified=True, settings=SETTINGS)


def taken_in(item: Fetched, settings: gmail.Settings = SETTINGS) -> Any:
    return gmail.parse(
        Delivery(
            "gmail", "main", item.body, NOW, headers={FETCHED: item.kind}, verified=True,
            settings=settings,
        )
    )  # fmt: skip


async def all_pages(fake: Gmail, cursor: str | None, settings: gmail.Settings = SETTINGS) -> Page:
    """Look until nothing more waits; bounded, for a look that never ends is a mistake."""
    items: tuple[Fetched, ...] = ()
    one = api(fake, settings)
    for _ in range(50):
        page = await gmail.poll(one, cursor, NOW)
        items += page.items
        cursor = page.cursor
        if not page.more:
            return Page(items, cursor)
    raise AssertionError("the look never ends")


def names(items: tuple[Fetched, ...]) -> list[str]:
    return [item.name for item in items]


# --------------------------------------------------------------------------------------------- polling


async def test_the_first_look_takes_nothing_old() -> None:
    fake = Gmail()
    fake.add(mail(1))
    page = await all_pages(fake, None)
    assert page.items == ()
    fake.add(mail(2))
    assert names((await all_pages(fake, page.cursor)).items) == ["m2"]


async def test_the_first_look_takes_all_there_is_where_that_is_asked_for() -> None:
    fake = Gmail(page_size=2)
    for number in range(5):
        fake.add(mail(number, at=AT - 86_400 * 300 - number))
    settings = SETTINGS.model_copy(update={"start": "all"})
    page = await all_pages(fake, None, settings)
    assert sorted(names(page.items)) == ["m0", "m1", "m2", "m3", "m4"]
    fake.add(mail(9))
    assert names((await all_pages(fake, page.cursor, settings)).items) == ["m9"]


async def test_history_of_many_pages_is_read_to_its_end() -> None:
    fake = Gmail(page_size=2)
    cursor = (await all_pages(fake, None)).cursor
    for number in range(5):
        fake.add(mail(number))
    page = await all_pages(fake, cursor)
    assert names(page.items) == ["m0", "m1", "m2", "m3", "m4"]
    assert (await all_pages(fake, page.cursor)).items == ()


async def test_what_comes_while_pages_are_read_is_not_lost() -> None:
    fake = Gmail(page_size=1)
    cursor = (await all_pages(fake, None)).cursor
    fake.add(mail(1))
    fake.add(mail(2))
    one = api(fake)
    first = await gmail.poll(one, cursor, NOW)
    assert first.more
    fake.add(mail(3))
    rest = await all_pages(fake, first.cursor)
    assert {*names(first.items), *names(rest.items)} == {"m1", "m2", "m3"}


async def test_a_history_that_is_too_old_leads_to_a_full_look_and_goes_on_after_it() -> None:
    fake = Gmail(page_size=2)
    cursor = (await all_pages(fake, None)).cursor
    fake.add(mail(0, at=AT - 86_400 * 3))
    for number in (1, 2, 3):
        fake.add(mail(number, at=AT - 600 * number))
    fake.oldest = fake.newest + 1
    fake.newest += 5
    page = await all_pages(fake, cursor)
    assert sorted(names(page.items)) == ["m1", "m2", "m3"]
    fake.add(mail(4))
    assert names((await all_pages(fake, page.cursor)).items) == ["m4"]


async def test_a_page_whose_name_is_too_old_is_begun_again() -> None:
    fake = Gmail(page_size=1)
    cursor = (await all_pages(fake, None)).cursor
    fake.add(mail(1))
    fake.add(mail(2))
    first = await gmail.poll(api(fake), cursor, NOW)
    fake.stale_pages.add("p1")
    again = await gmail.poll(api(fake), first.cursor, NOW)
    assert again.items == ()
    assert again.more
    fake.stale_pages.clear()
    assert names((await all_pages(fake, again.cursor)).items) == ["m1", "m2"]


async def test_what_we_sent_and_drafts_are_left_out() -> None:
    fake = Gmail()
    settings = SETTINGS.model_copy(update={"label": ""})
    cursor = (await all_pages(fake, None, settings)).cursor
    fake.add(mail(1, labels=("SENT",)))
    fake.add(mail(2, labels=("DRAFT",)))
    fake.add(mail(3, labels=("SENT", "INBOX")))
    fake.add(mail(4, labels=("CATEGORY_UPDATES",)))
    assert names((await all_pages(fake, cursor, settings)).items) == ["m4"]


async def test_a_mail_deleted_meanwhile_is_passed_over() -> None:
    fake = Gmail()
    cursor = (await all_pages(fake, None)).cursor
    fake.add(mail(1, is_gone=True))
    fake.add(mail(2))
    assert names((await all_pages(fake, cursor)).items) == ["m2"]


async def test_a_mail_too_large_for_an_answer_is_kept_as_its_header_and_snippet() -> None:
    fake = Gmail()
    cursor = (await all_pages(fake, None)).cursor
    fake.add(mail(1, is_large=True))
    (item,) = (await all_pages(fake, cursor)).items
    (content,) = taken_in(item).messages
    assert content.subject == "Order 1"
    assert content.sender.address == "ada@example.com"
    assert content.vendor_message_id == "<1@example.com>"
    assert "see the pictures" in content.text
    assert "too large" in content.text


# ----------------------------------------------------------------------------------------------- hints


async def test_a_push_fetches_the_mails_of_the_last_minutes_oldest_first() -> None:
    fake = Gmail(page_size=1)
    fake.add(mail(1, at=AT - 3600))
    fake.add(mail(2, at=AT - 120))
    fake.add(mail(3, at=AT - 60))
    assert names(await gmail.read_back(api(fake), push())) == ["m2", "m3"]


async def test_a_mail_by_push_and_by_poll_is_the_same_input() -> None:
    fake = Gmail()
    cursor = (await all_pages(fake, None)).cursor
    fake.add(mail(1))
    by_push = await gmail.read_back(api(fake), push())
    fake.mails["m1"].labels = ("INBOX",)  # Somebody has read it in between.
    assert by_push == (await all_pages(fake, cursor)).items


async def test_a_late_push_looks_at_the_time_it_was_sent() -> None:
    fake = Gmail()
    fake.add(mail(1, at=AT - 60))
    late = replace(push(), received_at=datetime(2026, 11, 25, 9, 0, tzinfo=UTC))
    assert names(await gmail.read_back(api(fake), late)) == ["m1"]


# ------------------------------------------------------------------------------------------ what it says


async def test_a_fetched_mail_is_proved_by_dmarc_and_not_by_being_fetched() -> None:
    fake = Gmail()
    fake.add(mail(1))
    forged = raw(2, "ada@bank.example")
    fake.add(Mail("m2", forged, AT - 30))
    first, second = await gmail.read_back(api(fake), push())
    assert taken_in(first).verified
    assert not taken_in(second).verified
    assert taken_in(first).messages[0].fields["gmail_id"] == "m1"


async def test_our_own_mailbox_writes_no_customers_messages() -> None:
    fake = Gmail()
    fake.add(Mail("m1", raw(1, "support@example.com"), AT - 30))
    (item,) = await gmail.read_back(api(fake), push())
    assert taken_in(item).ignored == "loop"


def test_a_notice_about_another_mailbox_is_not_looked_after() -> None:
    other = SETTINGS.model_copy(update={"address": "sales@example.com"})
    assert gmail.parse(replace(push(), settings=other)).ignored == "other_mailbox"
    assert gmail.parse(push()).ignored == "hint"


def test_a_bare_mail_brings_no_proof_with_it() -> None:
    bare = replace(push(), body=raw(1), trusted_servers=frozenset({"mx.google.com"}))
    parsed = gmail.parse(bare)
    assert parsed.messages
    assert not parsed.verified


# --------------------------------------------------------------------------------------------- trouble


@pytest.mark.parametrize(
    ("status", "body", "headers", "reason"),
    [
        (401, "", {}, "unauthorized"),
        (403, '{"error":"rateLimitExceeded"}', {}, "forbidden"),
        (429, "", {"retry_after": "7"}, "throttled"),
        (500, "", {}, "failed"),
        (503, "", {"retry_after": "3"}, "failed"),
        (200, "{", {}, "bad_answer"),
        (200, "[1]", {}, "bad_answer"),
    ],
)
async def test_trouble_moves_no_cursor_and_another_time_helps(
    status: int, body: str, headers: dict[str, str], reason: str
) -> None:
    fake = Gmail()
    cursor = (await all_pages(fake, None)).cursor
    fake.add(mail(1))
    fake.misbehave(status, body, **headers)
    with pytest.raises(ApiProblem) as problem:
        await gmail.poll(api(fake), cursor, NOW)
    assert problem.value.reason == reason
    wait = headers.get("retry_after")
    assert problem.value.retry_after == (float(wait) if wait else None)
    assert names((await all_pages(fake, cursor)).items) == ["m1"]


async def test_trouble_with_one_mail_brings_all_of_them_again() -> None:
    fake = Gmail()
    fake.add(mail(1, at=AT - 90))
    fake.add(mail(2))
    one = api(fake)
    listed = one.get

    async def troubled(url: str, **more: Any) -> Any:
        if url.endswith("/m2"):
            fake.misbehave(500)
        return await listed(url, **more)

    one.get = troubled  # type: ignore[method-assign]
    with pytest.raises(ApiProblem):
        await gmail.read_back(one, push())
    assert names(await gmail.read_back(api(fake), push())) == ["m1", "m2"]


async def test_secrets_that_are_wrong_or_missing_are_said_and_not_told() -> None:
    fake = Gmail()
    for secrets, reason in (
        ({**SECRETS, "refresh_token": "canary-wrong"}, "unauthorized"),
        ({"client_secret": "gm-client-secret"}, "no_secret"),
        ({"refresh_token": "gm-refresh"}, "no_secret"),
    ):
        with pytest.raises(ApiProblem) as problem:
            await gmail.poll(VendorApi(SETTINGS, secrets, desk.client(fake.server())), None, NOW)
        assert problem.value.reason == reason
        assert "canary" not in repr(problem.value)


async def test_a_cursor_that_is_none_is_refused() -> None:
    with pytest.raises(ApiProblem):
        await gmail.poll(api(Gmail()), "not a cursor", NOW)


async def test_one_access_token_serves_a_whole_look() -> None:
    fake = Gmail()
    for number in range(3):
        fake.add(mail(number))
    one = api(fake)
    await gmail.read_back(one, push())
    await gmail.poll(one, None, NOW)
    assert fake.tokens_given == 1


# ----------------------------------------------------------------------------------------------- Twilio

VOICE = twilio_voice.Settings(
    secret="env:TW_TOKEN", account_sid="AC" + "0" * 31 + "1", api_url=desk.BASE
)
RECORDED = (
    b"CallSid=CA1&AccountSid=AC1&RecordingSid=RE1&RecordingStatus=completed&RecordingDuration=12"
    b"&RecordingUrl=https%3A%2F%2Fapi.twilio.com%2FRecordings%2FRE1&RecordingSource=RecordVerb"
)


def recorded() -> Delivery:
    return Delivery("twilio_voice", "main", RECORDED, NOW, verified=True, settings=VOICE)


def voice_api(fake: Twilio, token: str = "tw-auth-token") -> VendorApi:
    return VendorApi(VOICE, {"secret": token}, desk.client(fake.server()))


async def test_a_recording_is_completed_with_who_called() -> None:
    assert twilio_voice.parse(recorded()).ignored == "hint"
    fake = Twilio(
        calls={"CA1": {"from": "+15550107788", "to": "+15550100200", "direction": "inbound"}}
    )
    (item,) = await twilio_voice.read_back(voice_api(fake), recorded())
    parsed = twilio_voice.parse(
        replace(recorded(), body=item.body, headers={FETCHED: item.kind}, verified=False)
    )
    (content,) = parsed.messages
    assert content.kind == "voicemail"
    assert content.vendor_message_id == "RE1"
    assert (content.sender.kind, content.sender.address) == ("phone", "+15550107788")
    assert parsed.verified


async def test_a_call_that_is_gone_leaves_a_voicemail_of_nobody_known() -> None:
    (item,) = await twilio_voice.read_back(voice_api(Twilio()), recorded())
    (content,) = twilio_voice.parse(
        replace(recorded(), body=item.body, headers={FETCHED: item.kind})
    ).messages
    assert content.sender.kind == "none"
    assert content.thread == "CA1"


async def test_trouble_with_twilio_is_said() -> None:
    for problem_of, reason in (
        (voice_api(Twilio(), "wrong"), "unauthorized"),
        (VendorApi(VOICE, {}, desk.client(Twilio().server())), "no_secret"),
    ):
        with pytest.raises(ApiProblem) as problem:
            await twilio_voice.read_back(problem_of, recorded())
        assert problem.value.reason == reason
