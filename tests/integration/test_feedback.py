"""Answers to surveys and wishes about notices, from the link to the rows, on a real PostgreSQL."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import httpx
import pytest
from typer.testing import CliRunner

from chassis.errors import InvalidEvent, Unavailable
from chassis.stage import Change, Received, Tick
from cli import feedback as report_command
from schemas.envelope import Envelope
from schemas.feedback import ContactOptedIn, ContactOptedOut, FeedbackGiven, feedback_id, survey_id
from schemas.notifications import (
    NoticeDeliveryReported,
    NoticeFailed,
    NoticeRequested,
    NoticeSent,
)
from schemas.payload import Payload
from schemas.tickets import (
    ConversationErased,
    TicketAnswered,
    TicketOpened,
    TicketReopened,
    TicketSolved,
)
from services.ingest import feedback
from services.notifier.core import feedback as figures
from services.notifier.feedback_stage import FORGET, FeedbackStage
from tests.integration.feedback_kit import (
    CONVERSATION,
    NOW,
    RECIPIENT,
    TICKET,
    Door,
    door,
    survey_path,
    wish_path,
)

ROOT = Path(__file__).parents[2]
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def gateway(database: str) -> AsyncIterator[Door]:
    async with door(database) as made:
        yield made


@pytest.fixture
async def client(gateway: Door) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=gateway.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://in.example") as made:
        yield made


def answer(score: int | str, **fields: str) -> dict[str, str]:
    return {"score": str(score), **fields}


# ----------------------------------------------------------------------------------------------- the gateway


async def test_an_answer_becomes_one_event_keyed_by_its_conversation(
    gateway: Door, client: httpx.AsyncClient
) -> None:
    said = answer(2, comment="Three mails\r\nfor one lamp.", share="yes")
    response = await client.post(survey_path(), data=said)
    assert response.status_code == 200
    assert "sorry that it was not better" in response.text
    (event,) = await gateway.events()
    assert event == FeedbackGiven(
        feedback_id=feedback_id(survey_id(TICKET, "csat"), 1),
        survey_id=survey_id(TICKET, "csat"),
        conversation_id=CONVERSATION,
        ticket_id=TICKET,
        kind="csat",
        score=2,
        comment="Three mails\nfor one lamp.",
        language="en",
        asked_at=NOW,
        occurred_at=NOW,
        may_share=True,
    )
    assert await gateway.keys() == {CONVERSATION}


@pytest.mark.parametrize("path", [survey_path(), survey_path(None, "nps"), wish_path()])
async def test_a_scanner_that_follows_every_link_changes_nothing(
    gateway: Door, client: httpx.AsyncClient, path: str
) -> None:
    for method in ("GET", "HEAD", "GET"):
        response = await client.request(method, path)
        assert response.status_code == 200
        assert "script" not in response.text
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["referrer-policy"] == "no-referrer"
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "script-src" not in policy
    for method in ("PUT", "DELETE", "OPTIONS"):
        assert (await client.request(method, path)).status_code == 405
    assert await gateway.events() == []
    assert await gateway.rows() == []


async def test_one_survey_has_one_answer_however_many_post_at_once(
    gateway: Door, client: httpx.AsyncClient
) -> None:
    """Twenty times the same click, on a survey that twenty connections have never seen: one row, one event."""
    path = survey_path(4)
    responses = await asyncio.gather(
        *(client.post(path, data=answer(4, comment="fine")) for _ in range(20))
    )
    assert {response.status_code for response in responses} == {200}
    (row,) = await gateway.rows()
    assert (row["revision"], row["score"]) == (1, 4)
    assert len(await gateway.events()) == 1


async def test_different_answers_at_once_leave_one_last_word_and_no_gap(
    gateway: Door, client: httpx.AsyncClient
) -> None:
    await asyncio.gather(
        *(client.post(survey_path(score), data=answer(score)) for score in (1, 2, 3, 4, 5))
    )
    events = [event for event in await gateway.events() if isinstance(event, FeedbackGiven)]
    assert sorted(event.revision for event in events) == [1, 2, 3, 4, 5]
    (row,) = await gateway.rows()
    last = max(events, key=lambda event: event.revision)
    assert (row["revision"], row["score"]) == (5, last.score)
    for event in events:
        before = feedback_id(event.survey_id, event.revision - 1)
        assert event.corrects == (before if event.revision > 1 else None)


async def test_a_mind_may_change_for_a_day_and_then_the_answer_stands(
    gateway: Door, client: httpx.AsyncClient
) -> None:
    await client.post(survey_path(2), data=answer(2))
    gateway.pass_time(timedelta(hours=23, minutes=59))
    shown = await client.get(survey_path(5))
    assert "You may change it until 2026-11-26 08:00" in shown.text
    assert re.search(r"value=5 [^>]*checked", shown.text)
    changed = await client.post(survey_path(5), data=answer(5))
    assert changed.status_code == 200
    gateway.pass_time(timedelta(minutes=1))
    late = await client.post(survey_path(1), data=answer(1))
    assert late.status_code == 409
    assert "answered already" in late.text
    assert "<form" not in (await client.get(survey_path(1))).text
    same = await client.post(survey_path(5), data=answer(5))
    assert same.status_code == 200
    events = await gateway.events()
    assert [event.score for event in events if isinstance(event, FeedbackGiven)] == [2, 5]


async def test_a_survey_answered_when_the_spool_was_away_is_told_once_it_is_sent_again(
    gateway: Door, client: httpx.AsyncClient
) -> None:
    class Away:
        async def put(self, item: Any) -> Any:
            raise Unavailable("the gateway", retry_after=2.0)

    spool, gateway.feedback.spool = gateway.feedback.spool, Away()
    refused = await client.post(survey_path(), data=answer(3))
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert "try again" in refused.text
    gateway.feedback.spool = spool
    gateway.pass_time(timedelta(minutes=5))
    assert (await client.post(survey_path(), data=answer(3))).status_code == 200
    (event,) = await gateway.events()
    assert isinstance(event, FeedbackGiven)
    assert (event.score, event.revision, event.occurred_at) == (3, 1, NOW)


async def test_links_that_are_forged_cut_off_or_over_open_nothing(
    gateway: Door, client: httpx.AsyncClient
) -> None:
    path = survey_path()
    for wrong in (path[:-1], path[:-2] + "AA", "/v1/feedback/x", path + "x"):
        for method in ("GET", "POST"):
            response = await client.request(method, wrong, headers=FORM, content=b"score=1")
            assert response.status_code == 404
            assert "not complete" in response.text
    # A way out is no survey, and the other way round.
    assert (await client.get(path.replace("feedback", "unsubscribe"))).status_code == 404
    assert (await client.post(wish_path().replace("unsubscribe", "feedback"))).status_code == 404
    gateway.pass_time(timedelta(days=180))
    assert (await client.get(path)).status_code == 410
    assert (await client.post(path, data=answer(1))).status_code == 410
    assert (await client.get(wish_path())).status_code == 200
    assert await gateway.events() == []


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"score=6", FORM["content-type"], 422),
        (b"score=0", FORM["content-type"], 422),
        (b"score=2.5", FORM["content-type"], 422),
        ("score=٣".encode(), FORM["content-type"], 422),
        (b"comment=no+number", FORM["content-type"], 422),
        (b"score=2&comment=%FF", FORM["content-type"], 422),
        (b"score=2&comment=" + b"x" * 4_001, FORM["content-type"], 422),
        (b"score=2&comment=" + b"x" * 70_000, FORM["content-type"], 413),
        (b'{"score": 2}', "application/json", 415),
        (b"score=2" + b"&a=1" * 30, FORM["content-type"], 422),
    ],
)
async def test_what_cannot_be_read_is_refused_with_a_page_and_stored_nowhere(
    gateway: Door, client: httpx.AsyncClient, body: bytes, content_type: str, status: int
) -> None:
    headers = {"content-type": content_type, "accept-language": "tr-TR,tr;q=0.9"}
    response = await client.post(survey_path(), content=body, headers=headers)
    assert response.status_code == status
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert await gateway.events() == []
    assert await gateway.rows() == []


async def test_a_comment_without_a_number_is_not_lost_and_cannot_write_html(
    client: httpx.AsyncClient,
) -> None:
    response = await client.post(survey_path(), data={"comment": "</textarea><b>loud & clear"})
    assert response.status_code == 422
    assert "choose a number first" in response.text
    assert "&lt;/textarea&gt;&lt;b&gt;loud &amp; clear</textarea>" in response.text
    assert "Lantern &amp; Oak &lt;Lamps&gt;" in response.text


@pytest.mark.parametrize("language", ["en", "tr", "ru"])
async def test_pages_speak_the_language_of_the_notice(
    client: httpx.AsyncClient, language: str
) -> None:
    words = {"en": "How satisfied", "tr": "ne kadar memnunsunuz", "ru": "Насколько вы довольны"}
    page = (await client.get(survey_path(language=language))).text
    assert words[language] in page
    assert f'<html lang="{language}">' in page
    assert page.count("type=radio") == 5
    assert (await client.get(survey_path(10, "nps", language))).text.count("type=radio") == 11


async def test_one_click_of_a_mail_program_suffices_in_both_encodings(
    gateway: Door, client: httpx.AsyncClient
) -> None:
    """RFC 8058 section 3.1: a POST whose body is `List-Unsubscribe=One-Click`, as a form of either kind, without cookies."""
    plain = await client.post(wish_path(), content=b"List-Unsubscribe=One-Click", headers=FORM)
    assert plain.status_code == 200
    parts = {"List-Unsubscribe": (None, "One-Click")}
    assert (await client.post(wish_path("outage"), files=parts)).status_code == 200
    events = await gateway.events()
    assert [type(event) for event in events] == [ContactOptedOut, ContactOptedOut]
    assert all(not isinstance(event, FeedbackGiven) for event in events)
    wishes = [event for event in events if isinstance(event, ContactOptedOut)]
    assert [(one.category, one.source, one.recipient) for one in wishes] == [
        ("follow_up", "one_click", RECIPIENT),
        ("outage", "one_click", RECIPIENT),
    ]
    assert wishes[0].conversation_id == CONVERSATION


async def test_a_person_stops_notices_by_the_button_and_takes_it_back(
    gateway: Door, client: httpx.AsyncClient
) -> None:
    shown = await client.get(wish_path(language="ru"))
    assert "name=wish value=out" in shown.text
    stopped = await client.post(wish_path(language="ru"), data={"wish": "out"})
    assert "больше не придут" in stopped.text
    assert "name=wish value=in" in stopped.text
    back = await client.post(wish_path(language="ru"), data={"wish": "in"})
    assert "снова будут приходить" in back.text
    events = await gateway.events()
    assert [type(event) for event in events] == [ContactOptedOut, ContactOptedIn]
    assert [event.source for event in events if not isinstance(event, FeedbackGiven)] == [
        "link",
        "link",
    ]


async def test_who_asks_too_often_is_told_when_to_come_again(
    gateway: Door, client: httpx.AsyncClient
) -> None:
    codes = [
        (await client.post(wish_path(), content=b"", headers=FORM)).status_code
        for _ in range(feedback.PER_LINK + 1)
    ]
    assert codes == [200] * feedback.PER_LINK + [429]
    assert len(await gateway.events()) == feedback.PER_LINK


# --------------------------------------------------------------------------------------- the notifier's rows


class Rows:
    """The stage of surveys on a real schema: told events one after the other, each in one transaction, as the loop does."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.stage = FeedbackStage()

    async def told(self, *events: Payload, now: datetime = NOW) -> None:
        for event in events:
            key = str(getattr(event, "conversation_id", CONVERSATION))
            envelope = Envelope(type=event.TYPE, source="signalbox/test/0", id="e", time=now)
            self.stage.decode(envelope, event.to_json())
            await self.put(key, Received(envelope, event, key, "tickets", "e"), now)

    async def put(self, key: str, item: Any, now: datetime = NOW) -> None:
        async with self.connection.transaction():
            states = await self.stage.store.load(self.connection, 0, [key])
            outcome = self.stage.decide(states.get(key), item, now)
            changes = [Change(0, key, outcome.state)] if outcome.is_changed else []
            await self.stage.store.save(
                self.connection, changes, [(0, row) for row in outcome.rows]
            )


@pytest.fixture
async def rows(database: str) -> AsyncIterator[Rows]:
    connected = await asyncpg.connect(database)
    await connected.execute("CREATE SCHEMA notifier; SET search_path TO notifier")
    for script in sorted((ROOT / "chassis/sql").glob("*.sql")):
        await connected.execute(script.read_text("utf-8"))
    await connected.execute((ROOT / "services/notifier/sql/0005_feedback.sql").read_text("utf-8"))
    yield Rows(connected)
    await connected.close()


def of_ticket(kind: type[Payload], **changes: Any) -> Payload:
    return kind.model_validate(
        {**kind.EXAMPLE, "ticket_id": TICKET, "conversation_id": CONVERSATION, **changes}
    )


def requested(**changes: Any) -> NoticeRequested:
    return NoticeRequested.model_validate(
        {
            **NoticeRequested.EXAMPLE,
            "notice_id": "n-1",
            "ticket_id": TICKET,
            "conversation_id": CONVERSATION,
            "occasion": "survey",
            "language": "tr",
            "survey_kind": "csat",
            "survey_probability": 0.25,
            "at": NOW,
            **changes,
        }
    )


def given_feedback(score: int = 2, **changes: Any) -> FeedbackGiven:
    kind = changes.get("kind", "csat")
    survey = survey_id(changes.get("ticket_id", TICKET), kind)
    revision = changes.get("revision", 1)
    return FeedbackGiven.model_validate(
        {
            **FeedbackGiven.EXAMPLE,
            "feedback_id": feedback_id(survey, revision),
            "survey_id": survey,
            "ticket_id": TICKET,
            "conversation_id": CONVERSATION,
            "score": score,
            "asked_at": NOW,
            "occurred_at": NOW + timedelta(hours=2),
            **changes,
        }
    )


async def test_who_was_asked_is_kept_with_their_chance_and_how_their_case_went(rows: Rows) -> None:
    await rows.told(
        of_ticket(TicketOpened, queue="billing"),
        of_ticket(TicketAnswered),
        of_ticket(TicketSolved, cause="refund_due"),
        of_ticket(TicketReopened, queue="billing"),
        of_ticket(TicketAnswered),
        requested(),
        requested(),
        requested(notice_id="n-2", occasion="received"),
        NoticeSent(**{**NoticeSent.EXAMPLE, "notice_id": "n-1", "occasion": "survey"}),
    )
    (row,) = await rows.connection.fetch("SELECT * FROM survey")
    found = {name: row[name] for name in ("queue", "channel", "language", "outcome", "cause")}
    assert found == {
        "queue": "billing",
        "channel": "email",
        "language": "tr",
        "outcome": "reopened",
        "cause": "refund_due",
    }
    assert (row["probability"], row["status"], row["kind"]) == (0.25, "sent", "csat")


async def test_a_question_that_bounced_was_not_asked(rows: Rows) -> None:
    about = {"notice_id": "n-1", "occasion": "survey"}
    sent = NoticeSent.model_validate({**NoticeSent.EXAMPLE, **about})
    read = NoticeDeliveryReported.model_validate(
        {**NoticeDeliveryReported.EXAMPLE, **about, "what": "read"}
    )
    bounced = NoticeDeliveryReported.model_validate({**NoticeDeliveryReported.EXAMPLE, **about})
    await rows.told(of_ticket(TicketOpened), requested(), sent, read)
    assert await rows.connection.fetchval("SELECT status FROM survey") == "sent"
    await rows.told(bounced)
    assert await rows.connection.fetchval("SELECT status FROM survey") == "failed"


async def test_a_survey_has_one_row_and_the_last_word_counts_in_whatever_order(rows: Rows) -> None:
    first = given_feedback(1, occurred_at=NOW + timedelta(hours=1))
    changed = given_feedback(5, revision=2, corrects=first.feedback_id)
    await rows.told(first, changed, first, changed)
    (row,) = await rows.connection.fetch("SELECT * FROM feedback")
    assert (row["score"], row["revision"]) == (5, 2)
    assert (row["first_at"], row["given_at"]) == (first.occurred_at, changed.occurred_at)
    await rows.connection.execute("DELETE FROM feedback")
    await rows.told(changed, first)
    (row,) = await rows.connection.fetch("SELECT * FROM feedback")
    assert (row["score"], row["revision"]) == (5, 2)


async def test_another_score_without_words_leaves_the_words_and_takes_the_last_consent(
    rows: Rows,
) -> None:
    first = given_feedback(2, comment="Three mails for one lamp.", may_share=True)
    moved = given_feedback(3, revision=2, corrects=first.feedback_id, comment="")
    await rows.told(first, moved.model_copy(update={"may_share": False}))
    (row,) = await rows.connection.fetch("SELECT score, comment, may_share FROM feedback")
    assert tuple(row) == (3, "Three mails for one lamp.", False)
    await rows.told(given_feedback(4, revision=3, corrects=moved.feedback_id, comment="Two."))
    assert await rows.connection.fetchval("SELECT comment FROM feedback") == "Two."


async def test_a_late_answer_is_kept_and_marked(rows: Rows) -> None:
    await rows.told(
        given_feedback(occurred_at=NOW + timedelta(days=14)),
        given_feedback(kind="nps", occurred_at=NOW + timedelta(days=14, seconds=1)),
    )
    late = {row["kind"]: row["is_late"] for row in await rows.connection.fetch("TABLE feedback")}
    assert late == {"csat": False, "nps": True}


async def test_an_answer_that_is_not_that_of_its_ticket_is_parked(rows: Rows) -> None:
    wrong = given_feedback().model_copy(update={"survey_id": "somebody else's"})
    with pytest.raises(InvalidEvent, match="survey_id"):
        await rows.told(wrong)


async def test_an_erased_customer_leaves_a_score_and_no_words(rows: Rows) -> None:
    await rows.told(of_ticket(TicketOpened), given_feedback(comment="I am Ada, Lamp Street 1"))
    await rows.told(
        ConversationErased.model_validate(
            {**ConversationErased.EXAMPLE, "conversation_id": CONVERSATION}
        )
    )
    (row,) = await rows.connection.fetch("SELECT score, comment FROM feedback")
    assert tuple(row) == (2, "")
    assert await rows.connection.fetchval("SELECT count(*) FROM state") == 0


async def test_a_conversation_that_nobody_can_be_asked_about_is_forgotten(rows: Rows) -> None:
    await rows.told(of_ticket(TicketOpened))
    assert await rows.connection.fetchval("SELECT count(*) FROM state") == 1
    await rows.put(CONVERSATION, Tick(CONVERSATION, FORGET, NOW))
    assert await rows.connection.fetchval("SELECT count(*) FROM state") == 0


async def test_the_report_reads_what_arrived_and_what_was_answered(rows: Rows) -> None:
    """Three asked by mail: one gave 2, one is silent, one never got the question. One more answered what nobody knows was asked."""
    tickets = [f"3c59dc04-8e88-5024-9be8-079a5c74d0{n:02}" for n in range(4)]
    for number, ticket in enumerate(tickets[:3]):
        await rows.told(
            of_ticket(TicketOpened, ticket_id=ticket),
            requested(notice_id=f"n-{number}", ticket_id=ticket),
        )
    settled = {**NoticeSent.EXAMPLE, "occasion": "survey"}
    await rows.told(
        NoticeSent.model_validate({**settled, "notice_id": "n-0"}),
        NoticeSent.model_validate({**settled, "notice_id": "n-1"}),
        NoticeFailed.model_validate(
            {**NoticeFailed.EXAMPLE, "occasion": "survey", "notice_id": "n-2"}
        ),
        given_feedback(2, ticket_id=tickets[0], comment="The carrier was late"),
        given_feedback(5, ticket_id=tickets[3]),
    )
    since, until = NOW - timedelta(days=1), NOW + timedelta(days=1)
    found = await rows.connection.fetch(report_command._SURVEYS, since, until, "", "")
    known = report_command._causes(ROOT / "policy")
    surveys = [report_command.survey_of(row, ZoneInfo("UTC"), known) for row in found]
    made = figures.report(surveys, since, until, "UTC", "queue")
    (total,) = made.totals
    assert (total.asked, total.answered, total.levels["low"]) == (2, 1, 1)
    assert [(one.cause, one.low) for one in made.causes] == [("late_by_shipper", 1)]
    lines = report_command.table(made, "")
    assert any(line.startswith("all") and "50%" in line for line in lines)
    data = json.loads(report_command.written(made, report_command.Format.JSON, "", until))
    assert data["totals"][0]["scores"] == {"1": 0, "2": 1, "3": 0, "4": 0, "5": 0}
    page = report_command.written(made, report_command.Format.HTML, "", until)
    assert "late by shipper" in page
    assert "<script" not in page
    csv_text = report_command.written(made, report_command.Format.CSV, "", until)
    assert csv_text.splitlines()[0].startswith("queue,kind,asked,answered")
    answers = await rows.connection.fetch(report_command._ANSWERS, since, until, "", "")
    assert {one["score"] for one in map(report_command.answer_of, answers)} == {2, 5}
    assert datetime.fromisoformat(data["made_at"]).tzinfo == UTC


def test_the_commands_say_what_there_is_and_nothing_where_nobody_was_asked(
    database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def fill() -> None:
        connection = await asyncpg.connect(database)
        try:
            await connection.execute("CREATE SCHEMA notifier; SET search_path TO notifier")
            for folder in ("chassis/sql", "services/notifier/sql"):
                for script in sorted((ROOT / folder).glob("*.sql")):
                    if folder.startswith("chassis") or script.name.startswith("0005"):
                        await connection.execute(script.read_text("utf-8"))
            rows = Rows(connection)
            await rows.told(
                of_ticket(TicketOpened),
                requested(),
                NoticeSent.model_validate(
                    {**NoticeSent.EXAMPLE, "occasion": "survey", "notice_id": "n-1"}
                ),
                given_feedback(1, comment="Rude\x1b[2J on the phone", may_share=False),
            )
        finally:
            await connection.close()

    asyncio.run(fill())
    monkeypatch.setenv("SIGNALBOX_DATABASE_URL", database)
    monkeypatch.setenv("SIGNALBOX_KAFKA", "127.0.0.1:1")
    run = CliRunner().invoke
    days = ["--from", "2026-11-25", "--to", "2026-11-25"]
    told = run(report_command.app, ["report", *days, "--policy", str(ROOT / "policy")])
    assert told.exit_code == 0, told.output
    assert "csat" in told.output
    assert "* Only 1 answers: too few to compare with" in told.output
    listed = run(report_command.app, ["answers", *days, "--low"])
    assert "csat 1/5" in listed.output
    assert "(not for the agent): Rude [2J on the phone" in listed.output
    assert "\x1b" not in listed.output
    page = tmp_path / "page.html"
    written = run(report_command.app, ["report", *days, "--format", "html", "--output", str(page)])
    assert (written.exit_code, page.read_text("utf-8")[:15]) == (0, "<!doctype html>")
    empty = run(report_command.app, ["report", "--from", "2026-01-01", "--to", "2026-01-02"])
    assert "Nobody was asked in these days." in empty.output
