"""What goes to people on call, as the vendors take it: strict fakes that misbehave on demand, and a real SMTP server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from aiosmtpd.smtp import SMTP
from aiosmtplib import SMTPAuthenticationError
from msgspec.structs import replace

from services.sla.adapters import SENDERS, alertmanager, slack
from services.sla.adapters.sending import Attempted, Delivered, Failed, Outside, Refused
from services.sla.core import paging
from services.sla.core.page_text import Message, Notice
from services.sla.core.pages import PagesFile, Receiver
from services.sla.core.paging import Page, Saying
from tests.fakes import desk
from tests.fakes.alertmanager import Alertmanager
from tests.fakes.pagerduty import PagerDuty
from tests.fakes.slack import Slack

NOON = datetime.fromisoformat("2026-11-24T12:00:00+00:00")
KEY = "R" * 32
TOKEN = "xoxb-bot-token"

PAGE = Page(
    group_key="0123456789abcdef0123456789abcdef",
    receiver="r",
    family="sla",
    group={"queue": "billing", "target": "first_response", "tier": ""},
    route="breaches",
    changed_at=NOON,
)
TOLD = replace(PAGE, is_told=True, number=1, severity="warning")


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGERDUTY_KEY", KEY)
    monkeypatch.setenv("SLACK_TOKEN", TOKEN)
    monkeypatch.setenv("ALERTMANAGER_TOKEN", "am-token")


def receiver(**fields: Any) -> Receiver:
    return PagesFile.model_validate({"receivers": {"r": fields}}).receivers["r"]


PAGERDUTY = receiver(
    kind="pagerduty", routing_key="env:PAGERDUTY_KEY", url=f"{desk.BASE}/v2/enqueue"
)
ALERTMANAGER = receiver(kind="alertmanager", urls=[desk.BASE], token="env:ALERTMANAGER_TOKEN")
SLACK = receiver(kind="slack", channel="C0123", token="env:SLACK_TOKEN", url=f"{desk.BASE}/api")


def said(
    saying: Saying = Saying.TRIGGER,
    page: Page = PAGE,
    severity: Any = "critical",
    *,
    title: str = "[CRITICAL] 2 targets broken: queue billing, target first response",
    **more: Any,
) -> Message:
    return Message(
        saying=saying,
        page=page,
        severity=None if saying is Saying.RESOLVE else severity,
        since=NOON,
        now=NOON + timedelta(minutes=1),
        firing=0 if saying is Saying.RESOLVE else 2,
        notice=Notice(title, ("- #12: broken <now> & here",), "https://c.example/tickets/1", ""),
        workspace="lantern",
        **more,
    )


async def send(message: Message, to: Any, app: Any) -> Attempted:
    async with desk.client(app) as client:
        return await SENDERS[to.kind](message, to, Outside(client))


# ------------------------------------------------------------------------------------------- all of them

FAKES: dict[str, tuple[Receiver, Callable[[], Any]]] = {
    "pagerduty": (PAGERDUTY, PagerDuty),
    "alertmanager": (ALERTMANAGER, lambda: Alertmanager(token="am-token")),
    "slack": (SLACK, lambda: Slack(channels={"C0123": []}, now=NOON.timestamp())),
}


@pytest.fixture(params=FAKES)
def vendor(request: pytest.FixtureRequest) -> tuple[Receiver, Any]:
    to, make = FAKES[request.param]
    return to, make()


async def test_a_page_is_taken_and_so_is_its_end(vendor: tuple[Receiver, Any]) -> None:
    to, fake = vendor
    first = await send(said(), to, fake.server())
    assert isinstance(first, Delivered), first
    page = replace(TOLD, ref=first.ref, severity="critical")
    assert isinstance(await send(said(Saying.RESOLVE, page), to, fake.server()), Delivered)


async def test_patience_is_asked_for_and_kept(vendor: tuple[Receiver, Any]) -> None:
    to, fake = vendor
    fake.refuse_write(429, Retry_After="7")
    failed = await send(said(), to, fake.server())
    assert failed == Failed("asks for patience (429)", retry_after=timedelta(seconds=7))


async def test_patience_may_be_asked_for_by_a_date(vendor: tuple[Receiver, Any]) -> None:
    to, fake = vendor
    at = datetime.now(UTC) + timedelta(seconds=100)
    fake.refuse_write(429, Retry_After=format_datetime(at, usegmt=True))
    failed = await send(said(), to, fake.server())
    assert isinstance(failed, Failed)
    assert failed.retry_after is not None
    assert timedelta(seconds=90) < failed.retry_after <= timedelta(seconds=100)


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_servers_own_trouble_passes(vendor: tuple[Receiver, Any], status: int) -> None:
    to, fake = vendor
    fake.refuse_write(status)
    failed = await send(said(), to, fake.server())
    assert isinstance(failed, Failed)
    assert failed.is_unknown


async def test_an_answer_that_is_lost_leaves_the_outcome_unknown_and_a_repeat_adds_nothing(
    vendor: tuple[Receiver, Any],
) -> None:
    to, fake = vendor
    fake.lose_answer()
    failed = await send(said(), to, fake.server())
    assert isinstance(failed, Failed)
    assert failed.is_unknown
    again = said(page=replace(PAGE, is_begun=True, attempts=1), is_retry=True)
    assert isinstance(await send(again, to, fake.server()), Delivered)
    match fake:
        case PagerDuty():
            assert fake.incidents == 1
        case Alertmanager():
            assert len(fake.alerts) == 1
        case Slack():
            assert len(fake.messages()) == 1


async def test_a_wrong_secret_is_said_with_a_cure_and_never_shown(
    vendor: tuple[Receiver, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    to, fake = vendor
    wrong = "W" * 32
    for name in ("PAGERDUTY_KEY", "SLACK_TOKEN", "ALERTMANAGER_TOKEN"):
        monkeypatch.setenv(name, wrong)
    refused = await send(said(), to, fake.server())
    assert isinstance(refused, Refused)
    assert refused.cure
    assert wrong not in repr(refused)


async def test_a_secret_that_is_not_there_yet_is_waited_for(
    vendor: tuple[Receiver, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    to, fake = vendor
    for name in ("PAGERDUTY_KEY", "SLACK_TOKEN", "ALERTMANAGER_TOKEN"):
        monkeypatch.delenv(name)
    failed = await send(said(), to, fake.server())
    assert isinstance(failed, Failed)
    assert "env:" in failed.reason


# ---------------------------------------------------------------------------------------------- PagerDuty


async def test_a_page_is_one_incident_through_its_life() -> None:
    fake = PagerDuty()
    await send(said(page=PAGE, severity="warning"), PAGERDUTY, fake.server())
    await send(said(Saying.UPDATE, TOLD), PAGERDUTY, fake.server())
    await send(said(Saying.RESOLVE, TOLD), PAGERDUTY, fake.server())
    assert (fake.incidents, fake.open) == (1, {})
    assert [one["payload"]["severity"] for one in fake.events] == ["warning", "critical", "warning"]
    assert {one["dedup_key"] for one in fake.events} == {f"signalbox/lantern/{PAGE.group_key}"}


async def test_a_long_summary_is_cut_to_what_pagerduty_takes() -> None:
    fake = PagerDuty()
    assert isinstance(await send(said(title="x" * 5_000), PAGERDUTY, fake.server()), Delivered)


async def test_what_pagerduty_says_of_a_bad_key_does_not_repeat_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PAGERDUTY_KEY", "too-short-key")
    refused = await send(said(), PAGERDUTY, PagerDuty().server())
    assert isinstance(refused, Refused)
    assert "should be 32 characters" in refused.reason
    assert "too-short-key" not in refused.reason


# ------------------------------------------------------------------------------------------- Alertmanager


async def test_a_change_of_severity_ends_the_alert_as_it_was_in_the_same_request() -> None:
    fake = Alertmanager(token="am-token")
    now = NOON + timedelta(minutes=1)
    await send(said(severity="warning"), ALERTMANAGER, fake.server())
    assert [one["severity"] for one in fake.firing(now)] == ["warning"]
    await send(said(Saying.UPDATE, TOLD), ALERTMANAGER, fake.server())
    assert [one["severity"] for one in fake.firing(now)] == ["critical"]
    assert len(fake.told[1]) == 2
    await send(
        said(Saying.RESOLVE, replace(TOLD, severity="critical")), ALERTMANAGER, fake.server()
    )
    assert fake.firing(now) == []


async def test_an_alert_stands_longer_than_the_next_repetition_takes() -> None:
    fake = Alertmanager(token="am-token")
    await send(said(), ALERTMANAGER, fake.server())
    now = NOON + timedelta(minutes=1)
    assert fake.firing(now + 3 * paging.KEEPALIVE)
    assert not fake.firing(now + timedelta(minutes=30))


async def test_an_end_of_a_message_that_nobody_confirmed_ends_whichever_it_was() -> None:
    fake = Alertmanager(token="am-token")
    await send(said(), ALERTMANAGER, fake.server())
    await send(said(Saying.RESOLVE, replace(PAGE, is_begun=True)), ALERTMANAGER, fake.server())
    assert fake.firing(NOON + timedelta(minutes=1)) == []


async def test_alertmanagers_that_hang_do_not_keep_the_others_from_being_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three of four accept and never answer; each has a limit of its own, all at once."""
    monkeypatch.setattr(alertmanager, "SERVER_SECONDS", 0.2)
    fake, hung = Alertmanager(token="am-token"), asyncio.Event()

    class Hanging(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await hung.wait()
            raise AssertionError("nobody lets it go on")

    mounts: dict[str, Any] = {f"http://hangs-{n}.invalid": Hanging() for n in range(3)}
    mounts[desk.BASE] = httpx.ASGITransport(app=fake.server())
    urls = (*(f"http://hangs-{n}.invalid" for n in range(3)), desk.BASE)
    cluster = ALERTMANAGER.model_copy(update={"urls": urls})
    async with httpx.AsyncClient(mounts=mounts) as client, asyncio.timeout(10):
        told = await SENDERS["alertmanager"](said(), cluster, Outside(client))
        assert told == Delivered()
        assert fake.firing(NOON + timedelta(minutes=1))
        none = ALERTMANAGER.model_copy(update={"urls": urls[:3]})
        lost = await SENDERS["alertmanager"](said(), none, Outside(client))
    assert lost == Failed("gave no answer in time", is_unknown=True)


async def test_one_alertmanager_of_a_cluster_is_enough() -> None:
    fake = Alertmanager(token="am-token")
    both = ALERTMANAGER.model_copy(update={"urls": (f"{desk.BASE}/old", desk.BASE)})
    assert isinstance(await send(said(), both, fake.server()), Delivered)


# -------------------------------------------------------------------------------------------------- Slack


async def test_a_page_is_one_message_that_changes_and_what_got_worse_is_said_aloud() -> None:
    fake = Slack(channels={"C0123": []})
    first = await send(said(severity="warning"), SLACK, fake.server())
    assert isinstance(first, Delivered)
    told = replace(TOLD, ref=first.ref)
    await send(said(Saying.UPDATE, told, "warning", title="[WARNING] 3"), SLACK, fake.server())
    assert [one["text"][:13] for one in fake.messages()] == ["*[WARNING] 3*"]
    await send(said(Saying.UPDATE, told, "critical"), SLACK, fake.server())
    assert [one.get("thread_ts") for one in fake.messages()] == [None, first.ref]
    await send(said(Saying.RESOLVE, told, title="[RESOLVED] x"), SLACK, fake.server())
    assert fake.messages()[0]["text"].startswith("*[RESOLVED] x*")
    assert len(fake.messages()) == 2


async def test_marks_of_slacks_own_are_escaped_and_a_long_text_is_cut() -> None:
    fake = Slack(channels={"C0123": []})
    await send(said(), SLACK, fake.server())
    assert "&lt;now&gt; &amp; here" in fake.messages()[0]["text"]
    assert len(slack.text(said(title="x" * 10_000))) <= slack.TEXT_MAX


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("internal_error", Failed),
        ("ratelimited", Failed),
        ("is_archived", Refused),
        ("odd", Refused),
    ],
)
async def test_slacks_errors_pass_or_stay_by_their_names(error: str, kind: Any) -> None:
    fake = Slack(channels={"C0123": []}, errors=[error])
    assert isinstance(await send(said(), SLACK, fake.server()), kind)


async def test_a_message_that_cannot_be_changed_any_more_is_said_anew() -> None:
    fake = Slack(channels={"C0123": []})
    again = await send(said(Saying.UPDATE, replace(TOLD, ref="1.2")), SLACK, fake.server())
    assert isinstance(again, Delivered)
    assert again.ref not in ("", "1.2")


async def test_what_is_said_aloud_is_not_doubled_after_its_answer_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the answer to the second write of an update is lost: the message was changed, the reply posted."""
    fake = Slack(channels={"C0123": []}, now=NOON.timestamp())
    first = await send(said(severity="warning"), SLACK, fake.server())
    assert isinstance(first, Delivered)
    told = replace(TOLD, ref=first.ref)
    plain = fake._post

    async def lost(request: Any) -> Any:
        answer = await plain(request)
        fake.lose_answer()
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(fake, "_post", lost)
        assert isinstance(await send(said(Saying.UPDATE, told), SLACK, fake.server()), Failed)
    assert len(fake.messages()) == 2
    again = said(Saying.UPDATE, replace(told, is_begun=True, attempts=1), is_retry=True)
    assert await send(again, SLACK, fake.server()) == Delivered(first.ref)
    assert len(fake.messages()) == 2
    later = replace(told, number=2, severity="error")
    await send(said(Saying.UPDATE, later, is_retry=True), SLACK, fake.server())
    assert len(fake.messages()) == 3  # Another message of the page's is no repeat.


@pytest.mark.parametrize("chatter", [0, 150, 1_000])
async def test_an_end_finds_a_message_that_nobody_confirmed_or_says_so_itself(chatter: int) -> None:
    """Behind a hundred other messages it is found; behind a thousand the end is a message of its own."""
    fake = Slack(channels={"C0123": []}, now=NOON.timestamp())
    fake.lose_answer()
    await send(said(), SLACK, fake.server())
    fake.channels["C0123"] += [
        {"type": "message", "ts": f"{NOON.timestamp() + n:.6f}", "text": "…"}
        for n in range(chatter)
    ]
    over = said(
        Saying.RESOLVE,
        replace(PAGE, is_begun=True, attempts=1),
        is_retry=True,
        title="[RESOLVED] x",
    )
    assert isinstance(await send(over, SLACK, fake.server()), Delivered)
    ends = [one for one in fake.messages() if one["text"].startswith("*[RESOLVED] x*")]
    assert len(ends) == 1
    assert (ends[0] is fake.messages()[0]) == (chatter < 1_000)


async def test_an_end_that_may_not_look_says_so_itself() -> None:
    """Without the scope channels:history."""
    fake = Slack(channels={"C0123": []}, now=NOON.timestamp())
    fake.lose_answer()
    await send(said(), SLACK, fake.server())
    over = said(Saying.RESOLVE, replace(PAGE, is_begun=True), is_retry=True, title="[RESOLVED] x")
    fake.errors = ["missing_scope"]
    assert isinstance(await send(over, SLACK, fake.server()), Delivered)
    assert fake.messages()[-1]["text"].startswith("*[RESOLVED] x*")


async def test_an_end_of_what_surely_never_arrived_says_nothing() -> None:
    fake = Slack(channels={"C0123": []}, now=NOON.timestamp())
    over = said(Saying.RESOLVE, replace(PAGE, is_begun=True), is_retry=True)
    assert await send(over, SLACK, fake.server()) == Delivered()
    assert fake.messages() == []


# --------------------------------------------------------------------------------------------------- mail


class Mailbox:
    """What a real server took; `answers` are given instead, in order."""

    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.answers: list[str] = []

    async def handle_DATA(  # noqa: N802 - the name is aiosmtpd's
        self, server: Any, session: Any, envelope: Any
    ) -> str:
        if self.answers:
            return self.answers.pop(0)
        self.mails.append(message_from_bytes(envelope.content, policy=default))
        return "250 2.0.0 taken"

    async def handle_RCPT(  # noqa: N802 - the name is aiosmtpd's
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        if address.startswith("gone@"):
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"


@pytest.fixture
async def mailbox() -> AsyncIterator[tuple[Mailbox, int]]:
    kept = Mailbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(kept, hostname="mx.shop.example", loop=loop), "127.0.0.1", 0
    )
    try:
        yield kept, server.sockets[0].getsockname()[1]
    finally:
        server.close()


def people(port: int, *to: str) -> Receiver:
    return receiver(
        kind="email",
        to=list(to),
        sender="pages@shop.example",
        host="127.0.0.1",
        port=port,
        tls="none",
    )


async def test_a_pages_mails_are_one_thread_and_its_end_answers_to_the_first(
    mailbox: tuple[Mailbox, int],
) -> None:
    kept, port = mailbox
    to = people(port, "ada@shop.example")
    begun = await send(said(), to, None)
    assert isinstance(begun, Delivered)
    told = replace(TOLD, ref=begun.ref)
    for message in (said(Saying.UPDATE, told), said(Saying.RESOLVE, replace(told, number=2))):
        assert await send(message, to, None) == begun
    first, second, last = kept.mails
    assert second["In-Reply-To"] == last["In-Reply-To"] == first["Message-ID"]
    assert len({one["Message-ID"] for one in kept.mails}) == 3
    assert first["Auto-Submitted"] == "auto-generated"
    assert "broken <now> & here" in first.get_content()


async def test_a_mail_that_is_sent_again_has_the_same_name(mailbox: tuple[Mailbox, int]) -> None:
    kept, port = mailbox
    to = people(port, "ada@shop.example")
    await send(said(), to, None)
    await send(said(is_retry=True), to, None)
    assert len({one["Message-ID"] for one in kept.mails}) == 1


async def test_the_end_of_a_mail_that_nobody_confirmed_is_another_mail_of_its_thread(
    mailbox: tuple[Mailbox, int],
) -> None:
    kept, port = mailbox
    to, lost = people(port, "ada@shop.example"), replace(PAGE, is_begun=True, attempts=1)
    await send(said(), to, None)
    await send(said(Saying.RESOLVE, lost, is_retry=True, title="[RESOLVED] x"), to, None)
    await send(said(page=lost, is_retry=True, title="[CRITICAL] 3 targets broken"), to, None)
    assert len({one["Message-ID"] for one in kept.mails}) == 3
    assert len({one["References"] for one in kept.mails}) == 1
    assert kept.mails[1]["In-Reply-To"] in kept.mails[0]["References"]


async def test_a_login_that_cannot_be_checked_for_now_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for code, kind in ((454, Failed), (535, Refused)):

        async def refuse(*_: Any, code: int = code, **__: Any) -> None:
            raise SMTPAuthenticationError(code, "no")

        monkeypatch.setattr("aiosmtplib.send", refuse)
        assert isinstance(await send(said(), people(25, "ada@shop.example"), None), kind)


async def test_a_mail_that_is_put_off_holds_up_no_other(mailbox: tuple[Mailbox, int]) -> None:
    kept, port = mailbox
    for answer, is_alone in (("451 4.3.0 not now", True), ("421 4.3.2 shutting down", False)):
        kept.answers = [answer]
        failed = await send(said(), people(port, "ada@shop.example"), None)
        assert isinstance(failed, Failed)
        assert failed.is_of_message is is_alone


@pytest.mark.parametrize(
    ("answer", "kind"), [("451 4.3.0 not now", Failed), ("554 5.7.1 never", Refused)]
)
async def test_a_mail_servers_refusals_pass_or_stay_by_their_codes(
    mailbox: tuple[Mailbox, int], answer: str, kind: Any
) -> None:
    kept, port = mailbox
    kept.answers = [answer]
    assert isinstance(await send(said(), people(port, "ada@shop.example"), None), kind)


async def test_an_address_that_is_gone_keeps_nobody_else_from_being_told(
    mailbox: tuple[Mailbox, int],
) -> None:
    kept, port = mailbox
    told = await send(said(), people(port, "gone@shop.example", "ada@shop.example"), None)
    assert isinstance(told, Delivered)
    assert told.remark == "1 of 2 addresses refused"
    assert len(kept.mails) == 1
    assert isinstance(await send(said(), people(port, "gone@shop.example"), None), Refused)


async def test_a_mail_server_that_is_away_is_tried_again() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    failed = await send(said(), people(port, "ada@shop.example"), None)
    assert isinstance(failed, Failed)
    assert not failed.is_unknown
