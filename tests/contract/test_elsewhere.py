"""Adapters that tell other places who has a ticket, against fakes that check every call as their vendors do."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.responses import Response

from chassis.vendor_api import retry_after
from services.router import metrics
from services.router.adapters import (
    KINDS,
    VENDORS,
    freshdesk,
    gorgias,
    helpscout,
    hubspot,
    intercom,
    slack,
    trello,
    zendesk,
)
from services.router.adapters.api import (
    SLOTS,
    PlaceApi,
    Problem,
    Secrets,
    Vendor,
)
from services.router.core.elsewhere.calls import Assign, Call, Card, Message
from services.router.core.elsewhere.decide import Done, NotDone, Unknown
from services.router.core.elsewhere.policy import Lists
from services.router.core.elsewhere.state import Reason
from tests.fakes import desk
from tests.fakes import freshdesk as freshdesk_fake
from tests.fakes import gorgias as gorgias_fake
from tests.fakes import helpscout as helpscout_fake
from tests.fakes import hubspot as hubspot_fake
from tests.fakes import intercom as intercom_fake
from tests.fakes import slack as slack_fake
from tests.fakes import trello as trello_fake
from tests.fakes import zendesk as zendesk_fake

NOW = datetime.fromtimestamp(slack_fake.NOW, UTC)
ADA, GRACE, TECHNICAL = "256", "257", "31"
ADDRESS = "grace@lantern-oak.example"


class KnownSecrets(Secrets):
    """Secrets of the test's own."""

    def __init__(self, known: dict[str, str]) -> None:
        self.known = known

    def get(self, reference: str) -> str | None:
        return self.known.get(reference)


class Time:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Case:
    """A helpdesk with one ticket, and how to look at whose it is there."""

    vendor: str
    fake: Any
    settings: Any
    secrets: dict[str, str]
    shown: Callable[[], tuple[str, str]]
    thread: str = "5158"
    has_groups: bool = True
    time: Time = field(default_factory=Time)

    def api(self, seconds: float = 20.0, secrets: dict[str, str] | None = None) -> PlaceApi:
        known = KnownSecrets(self.secrets | (secrets or {}))
        client = desk.client(self.fake.server())
        return PlaceApi(self.settings, client, known, seconds=seconds, now=self.time)

    def assign(self, user: str | None, group: str | None = None) -> Assign:
        return Assign(self.thread, user, group if self.has_groups else None)


def zendesk_case() -> Case:
    fake = zendesk_fake.Zendesk(scope="read write", agents=(256, 257), groups=(31,))
    fake.users = {257: {"id": 257, "name": "Grace", "email": ADDRESS}}
    fake.tickets["5158"] = {
        "id": 5158, "assignee_id": None, "group_id": None, "tags": ["vip"], "status": "open",
        "updated_at": "2026-11-24T08:00:00Z",
    }  # fmt: skip
    settings = zendesk.Settings(
        account="desk",
        url=desk.BASE,
        client_id="signalbox",
        client_secret="env:CLIENT",
        tag="signalbox",
    )

    def shown() -> tuple[str, str]:
        ticket = fake.tickets["5158"]
        return str(ticket["assignee_id"] or ""), str(ticket["group_id"] or "")

    return Case("zendesk", fake, settings, {"env:CLIENT": fake.client_secret}, shown)


def helpscout_case() -> Case:
    fake = helpscout_fake.HelpScout()
    fake.users = {
        256: {"id": 256, "email": "ada@lantern-oak.example"},
        257: {"id": 257, "email": ADDRESS},
        31: {"id": 31, "email": ""},
    }
    fake.conversations["5158"] = {"id": 5158, "status": "active"}
    settings = helpscout.Settings(
        account="desk", url=desk.BASE, client_id=fake.client_id, client_secret="env:CLIENT"
    )

    def shown() -> tuple[str, str]:
        found = fake.conversations["5158"].get("assignee", {"id": ""})["id"]
        return ("", "31") if found == 31 else (str(found), "")

    return Case("helpscout", fake, settings, {"env:CLIENT": fake.client_secret}, shown)


def gorgias_case() -> Case:
    fake = gorgias_fake.Gorgias(users={256: "ada@lantern-oak.example", 257: ADDRESS}, teams=(31,))
    fake.tickets["5158"] = {"id": 5158, "assignee_user": None, "assignee_team": None}
    settings = gorgias.Settings(
        account="desk", url=desk.BASE, api_user=fake.user, api_key="env:KEY"
    )

    def shown() -> tuple[str, str]:
        ticket = fake.tickets["5158"]
        user, team = ticket["assignee_user"] or {}, ticket["assignee_team"] or {}
        return str(user.get("id", "")), str(team.get("id", ""))

    return Case("gorgias", fake, settings, {"env:KEY": fake.api_key}, shown)


def hubspot_case() -> Case:
    fake = hubspot_fake.HubSpot(
        owners={"256": "ada@lantern-oak.example", "257": ADDRESS},
        ticket_of={"5158": "901"},
        tickets={"901": {"hubspot_owner_id": None}},
    )
    settings = hubspot.Settings(account="desk", url=desk.BASE, access_token="env:TOKEN")

    def shown() -> tuple[str, str]:
        return fake.tickets["901"]["hubspot_owner_id"] or "", ""

    secrets = {"env:TOKEN": fake.access_token}
    return Case("hubspot", fake, settings, secrets, shown, has_groups=False)


def freshdesk_case() -> Case:
    fake = freshdesk_fake.Freshdesk(
        agents={256: "ada@lantern-oak.example", 257: ADDRESS}, groups=(31,)
    )
    fake.tickets["5158"] = {"id": 5158, "responder_id": None, "group_id": None}
    settings = freshdesk.Settings(account="desk", url=desk.BASE, api_key="env:KEY")

    def shown() -> tuple[str, str]:
        ticket = fake.tickets["5158"]
        return str(ticket["responder_id"] or ""), str(ticket["group_id"] or "")

    return Case("freshdesk", fake, settings, {"env:KEY": fake.api_key}, shown)


def intercom_case() -> Case:
    fake = intercom_fake.Intercom(
        admins={"256": "ada@lantern-oak.example", "257": ADDRESS, "9": "bot@lantern-oak.example"},
        teams=("31",),
    )
    fake.conversations["5158"] = {"id": "5158", "admin_assignee_id": None, "team_assignee_id": None}
    settings = intercom.Settings(
        account="desk", url=desk.BASE, access_token="env:TOKEN", admin_id="9"
    )

    def shown() -> tuple[str, str]:
        found = fake.conversations["5158"]
        return str(found["admin_assignee_id"] or ""), str(found["team_assignee_id"] or "")

    return Case("intercom", fake, settings, {"env:TOKEN": fake.access_token}, shown)


CASES = (zendesk_case, helpscout_case, gorgias_case, hubspot_case, freshdesk_case, intercom_case)


@pytest.fixture(params=CASES, ids=lambda make: make.__name__.removesuffix("_case"))
def case(request: pytest.FixtureRequest) -> Case:
    made: Case = request.param()
    return made


async def until(what: str, holds: Callable[[], bool]) -> None:
    """Let others go on until a condition holds."""
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError(f"still not: {what}")


async def tell(api: PlaceApi, vendor: str, call: Call) -> Done | NotDone | Unknown:
    try:
        return await api.told(VENDORS[vendor], call)
    except Problem as problem:
        return problem.outcome


# ------------------------------------------------------------------------------------- every helpdesk


async def test_an_assignment_is_shown_and_told_again_writes_nothing(case: Case) -> None:
    api = case.api()
    assert await tell(api, case.vendor, case.assign(ADA)) == Done()
    assert case.shown()[0] == ADA
    assert len(case.fake.wrote) == 1
    assert await tell(api, case.vendor, case.assign(ADA)) == Done(is_changed=False)
    assert len(case.fake.wrote) == 1


async def test_another_agent_takes_the_place_of_the_first_and_then_nobody(case: Case) -> None:
    api = case.api()
    for user in (ADA, GRACE, ""):
        assert await tell(api, case.vendor, case.assign(user)) == Done()
        assert case.shown()[0] == user
    assert await tell(api, case.vendor, case.assign("")) == Done(is_changed=False)


async def test_an_agent_named_by_mail_address_is_looked_up_once(case: Case) -> None:
    api = case.api()
    assert await tell(api, case.vendor, case.assign(ADDRESS)) == Done()
    assert case.shown()[0] == GRACE
    looked = len(case.fake.asked)
    assert await tell(api, case.vendor, case.assign(ADDRESS)) == Done(is_changed=False)
    assert len(case.fake.asked) - looked <= 2, "the ticket is read, the user is known"


async def test_an_address_that_nobody_has_is_refused_by_name(case: Case) -> None:
    outcome = await tell(case.api(), case.vendor, case.assign("nobody@lantern-oak.example"))
    assert outcome == NotDone(Reason.USER_UNKNOWN, is_recoverable=False)
    assert case.fake.wrote == []


@pytest.mark.parametrize(
    "make", [make for make in CASES if make is not hubspot_case], ids=lambda make: make.__name__
)
async def test_an_escalated_ticket_is_its_groups_and_nobodys(make: Callable[[], Case]) -> None:
    case = make()
    api = case.api()
    await tell(api, case.vendor, case.assign(ADA))
    assert await tell(api, case.vendor, case.assign("", TECHNICAL)) == Done()
    assert case.shown() == ("", TECHNICAL)
    assert await tell(api, case.vendor, case.assign("", TECHNICAL)) == Done(is_changed=False)
    assert await tell(api, case.vendor, case.assign(ADA, TECHNICAL)) == Done()
    assert case.shown()[0] == ADA


async def test_too_many_calls_are_answered_with_the_vendors_wish_and_nobody_asks_meanwhile(
    case: Case,
) -> None:
    api = case.api()
    case.fake.refuse_write(429, retry_after="7")
    outcome = await tell(api, case.vendor, case.assign(ADA))
    assert isinstance(outcome, NotDone)
    assert (outcome.reason, outcome.is_recoverable) == (Reason.THROTTLED, True)
    assert outcome.retry_after == timedelta(seconds=7)
    asked = len(case.fake.asked)
    case.time.seconds += 6.9
    again = await tell(api, case.vendor, case.assign(ADA))
    assert isinstance(again, NotDone)
    assert again.reason is Reason.THROTTLED
    assert len(case.fake.asked) == asked
    case.time.seconds += 0.2
    assert await tell(api, case.vendor, case.assign(ADA)) == Done()


@pytest.mark.parametrize("status", [500, 502, 503, 504, None])
async def test_a_write_whose_answer_was_lost_is_found_done(case: Case, status: int | None) -> None:
    """Saying how things shall be can be repeated: the second look finds what the first one did."""
    api = case.api()
    case.fake.lose_answer(status)
    outcome = await tell(api, case.vendor, case.assign(ADA))
    assert isinstance(outcome, NotDone)
    assert outcome.is_recoverable
    assert outcome.reason is (Reason.TIMEOUT if status is None else Reason.FAILED)
    assert await tell(api, case.vendor, case.assign(ADA)) == Done(is_changed=False)
    assert len(case.fake.wrote) == 1


async def test_a_write_that_never_arrived_is_made_again(case: Case) -> None:
    api = case.api()
    case.fake.lose_write()
    outcome = await tell(api, case.vendor, case.assign(ADA))
    assert isinstance(outcome, NotDone)
    assert outcome.is_recoverable
    assert await tell(api, case.vendor, case.assign(ADA)) == Done()


@pytest.mark.parametrize(
    ("status", "reason", "is_recoverable"),
    [
        (400, Reason.REFUSED, False),
        (401, Reason.UNAUTHORIZED, True),
        (403, Reason.FORBIDDEN, False),
        (404, Reason.MISSING, False),
        (405, Reason.CLOSED, False),
        (409, Reason.CONFLICT, True),
        (410, Reason.MISSING, False),
        (422, Reason.REFUSED, False),
        (423, Reason.FAILED, True),
        (302, Reason.REFUSED, False),
    ],
)
async def test_each_refusal_has_a_name(
    case: Case, status: int, reason: Reason, is_recoverable: bool
) -> None:
    case.fake.refuse_write(status, "Ada Lovelace may not")
    outcome = await tell(case.api(), case.vendor, case.assign(ADA))
    assert outcome == NotDone(reason, is_recoverable, detail=str(status))


async def test_a_wrong_credential_and_a_missing_one_are_told_apart_and_shown_to_nobody(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    (reference,) = case.secrets
    wrong = await tell(case.api(secrets={reference: "not-it"}), case.vendor, case.assign(ADA))
    assert isinstance(wrong, NotDone)
    assert (wrong.reason, wrong.is_recoverable) == (Reason.UNAUTHORIZED, True)
    case.secrets.clear()
    missing = await tell(case.api(), case.vendor, case.assign(ADA))
    assert isinstance(missing, NotDone)
    assert (missing.reason, missing.is_recoverable) == (Reason.NO_SECRET, True)
    assert "not-it" not in f"{wrong!r}{missing!r}{caplog.text}"


async def test_a_ticket_that_is_not_there_is_refused_by_name(case: Case) -> None:
    case.thread = "77"
    outcome = await tell(case.api(), case.vendor, case.assign(ADA))
    assert isinstance(outcome, NotDone)
    assert (outcome.reason, outcome.is_recoverable) == (Reason.MISSING, False)


async def test_an_id_with_slashes_and_dots_leads_nowhere_else(case: Case) -> None:
    case.thread = "../5158"
    outcome = await tell(case.api(), case.vendor, case.assign(ADA))
    assert isinstance(outcome, NotDone)
    assert case.fake.wrote == []


async def test_an_answer_that_is_no_json_is_no_answer(case: Case) -> None:
    case.fake.misbehave(200, "<html>maintenance</html>")
    outcome = await tell(case.api(), case.vendor, case.assign(ADA))
    assert isinstance(outcome, NotDone)
    assert (outcome.reason, outcome.is_recoverable) == (Reason.BAD_ANSWER, True)
    assert case.fake.wrote == []


# ------------------------------------------------------------------------------------- single helpdesks


async def test_zendesk_keeps_the_tags_that_are_there_and_adds_ours_once() -> None:
    case = zendesk_case()
    api = case.api()
    await tell(api, "zendesk", case.assign(ADA))
    await tell(api, "zendesk", case.assign(GRACE))
    assert case.fake.tickets["5158"]["tags"] == ["vip", "signalbox"]
    assert "tags" not in case.fake.wrote[1][2]["ticket"]


async def test_zendesk_does_not_overwrite_what_somebody_changed_meanwhile() -> None:
    """The update carries the stamp of what was read; a ticket that moved on answers 409 and is read again."""
    case = zendesk_case()
    api, ticket = case.api(), case.fake.tickets["5158"]
    read = ticket | {"updated_at": "2026-11-24T07:59:00Z"}
    case.fake.tickets["5158"] = read
    case.fake.misbehave(
        200, '{"ticket": {"id": 5158, "updated_at": "2026-11-24T07:58:00Z", "tags": []}}'
    )
    outcome = await tell(api, "zendesk", case.assign(ADA))
    assert outcome == NotDone(Reason.CONFLICT, is_recoverable=True, detail="409")
    assert await tell(api, "zendesk", case.assign(ADA)) == Done()
    assert read["tags"] == ["vip", "signalbox"]


async def test_zendesk_a_closed_ticket_is_not_written_to() -> None:
    case = zendesk_case()
    case.fake.tickets["5158"]["status"] = "closed"
    outcome = await tell(case.api(), "zendesk", case.assign(ADA))
    assert outcome == NotDone(Reason.CLOSED, is_recoverable=False, detail="status")


async def test_zendesk_takes_an_api_token_as_well_and_its_tokens_are_kept() -> None:
    case = zendesk_case()
    api = case.api()
    await tell(api, "zendesk", case.assign(ADA))
    await tell(api, "zendesk", case.assign(GRACE))
    assert case.fake.tokens_given == 1
    case.settings = zendesk.Settings(
        account="desk", url=desk.BASE, email=case.fake.email, api_token="env:TOKEN"
    )
    case.secrets = {"env:TOKEN": case.fake.api_token}
    assert await tell(case.api(), "zendesk", case.assign(ADA)) == Done()


async def test_a_token_that_was_withdrawn_is_asked_for_anew() -> None:
    case = helpscout_case()
    api = case.api()
    await tell(api, "helpscout", case.assign(ADA))
    case.fake.access_token = "another"
    refused = await tell(api, "helpscout", case.assign(GRACE))
    assert isinstance(refused, NotDone)
    assert (refused.reason, refused.is_recoverable) == (Reason.UNAUTHORIZED, True)
    assert await tell(api, "helpscout", case.assign(GRACE)) == Done()
    assert case.fake.tokens_given == 2


async def test_helpscout_follows_a_merged_conversation_once() -> None:
    case = helpscout_case()
    case.fake.merged["40"] = "5158"
    case.thread = "40"
    assert await tell(case.api(), "helpscout", case.assign(ADA)) == Done()
    assert case.shown()[0] == ADA
    assert case.fake.wrote[0][1] == "/v2/conversations/5158"


async def test_hubspot_a_conversation_without_a_ticket_has_no_owner() -> None:
    case = hubspot_case()
    case.fake.ticket_of["5158"] = ""
    outcome = await tell(case.api(), "hubspot", case.assign(ADA))
    assert outcome == NotDone(Reason.NO_TICKET, is_recoverable=False)


async def test_freshdesk_a_ticket_marked_as_spam_is_closed_to_us() -> None:
    case = freshdesk_case()
    case.fake.tickets["5158"]["spam"] = True
    outcome = await tell(case.api(), "freshdesk", case.assign(ADA))
    assert outcome == NotDone(Reason.CLOSED, is_recoverable=False, detail="405")


async def test_intercom_sets_the_team_before_the_admin_whom_the_team_would_take_away() -> None:
    case = intercom_case()
    assert await tell(case.api(), "intercom", case.assign(ADA, TECHNICAL)) == Done()
    assert case.shown() == (ADA, TECHNICAL)
    assert [part["type"] for _, _, part in case.fake.wrote] == ["team", "admin"]


# ------------------------------------------------------------------------------------- room and time


async def test_a_call_that_is_never_answered_has_an_end_and_is_made_again(case: Case) -> None:
    api = case.api(seconds=0.2)
    case.fake.hang(is_done=True)
    outcome = await tell(api, case.vendor, case.assign(ADA))
    assert outcome == NotDone(Reason.TIMEOUT, is_recoverable=True)
    assert await tell(api, case.vendor, case.assign(ADA)) == Done(is_changed=False)


class Slow:
    """A vendor whose calls end when they are let."""

    def __init__(self) -> None:
        self.is_let = asyncio.Event()
        self.begun = 0

    async def tell(self, api: PlaceApi, call: Call) -> Done:
        del api, call
        self.begun += 1
        await self.is_let.wait()
        return Done()


def slow_place(seconds: float = 20.0) -> tuple[Slow, Vendor, PlaceApi, Time]:
    slow, time = Slow(), Time()
    settings = slack.Settings(token="env:TOKEN")
    client = desk.client(slack_fake.Slack(members={}).server())
    api = PlaceApi(settings, client, KnownSecrets({}), seconds=seconds, now=time)
    return slow, Vendor("slack", slack.Settings, slow.tell), api, time


@pytest.mark.parametrize(
    ("call", "outcome"),
    [
        (Assign("5158", ADA, None), NotDone(Reason.TIMEOUT, True, detail="deadline")),
        (Message("U0ADA", "x", "m", "D/1", None), NotDone(Reason.TIMEOUT, True, detail="deadline")),
        (Message("U0ADA", "x", "m", "", None), Unknown(Reason.TIMEOUT, "deadline")),
    ],
)
async def test_telling_a_place_once_has_an_end_however_many_calls_it_takes(
    call: Call, outcome: NotDone | Unknown
) -> None:
    _, vendor, api, _ = slow_place(seconds=0.01)
    with pytest.raises(Problem) as problem:
        await api.told(vendor, call)
    assert problem.value.outcome == outcome


async def test_a_place_is_told_three_things_at_once_and_behind_quick_ones_the_next_waits() -> None:
    slow, vendor, api, _ = slow_place()
    calls = [asyncio.create_task(api.told(vendor, message())) for _ in range(SLOTS + 2)]
    await until("three are under way", lambda: slow.begun == SLOTS)
    slow.is_let.set()
    assert [await one for one in calls] == [Done()] * (SLOTS + 2)


async def test_behind_slow_ones_nobody_waits_and_nothing_is_begun() -> None:
    slow, vendor, api, time = slow_place()
    calls = [asyncio.create_task(api.told(vendor, message())) for _ in range(SLOTS)]
    await until("three are under way", lambda: slow.begun == SLOTS)
    time.seconds += 2
    with pytest.raises(Problem) as problem:
        await api.told(vendor, message())
    assert problem.value.outcome == NotDone(Reason.THROTTLED, True, detail="busy", is_begun=False)
    assert slow.begun == SLOTS
    slow.is_let.set()
    assert [await one for one in calls] == [Done()] * SLOTS
    assert await api.told(vendor, message()) == Done()


async def test_a_place_that_runs_out_of_time_three_times_in_a_row_is_left_alone_and_then_tried_by_one() -> (
    None
):
    slow, vendor, api, time = slow_place(seconds=0.01)
    for _ in range(3):
        with pytest.raises(Problem):
            await api.told(vendor, message())
    with pytest.raises(Problem) as problem:
        await api.told(vendor, message())
    wish = timedelta(seconds=30)
    assert problem.value.outcome == NotDone(Reason.TIMEOUT, True, wish, is_begun=False)
    assert slow.begun == 3
    time.seconds += 30
    probe = asyncio.create_task(api.told(vendor, message()))
    await until("it is tried again", lambda: slow.begun == 4)
    time.seconds += 2
    with pytest.raises(Problem) as problem:
        await api.told(vendor, message())
    assert isinstance(problem.value.outcome, NotDone)
    assert problem.value.outcome.detail == "busy"
    with pytest.raises(Problem):
        await probe


async def test_an_answer_ends_the_count_of_those_that_never_came() -> None:
    case = zendesk_case()
    api = case.api(seconds=0.2)
    for _ in range(4):
        case.fake.hang(is_done=False)
        assert await tell(api, "zendesk", case.assign(ADA)) == NotDone(Reason.TIMEOUT, True)
        case.fake.misbehave(500)
        again = await tell(api, "zendesk", case.assign(ADA))
        assert again == NotDone(Reason.FAILED, True, detail="500")


async def test_an_address_is_looked_up_again_after_an_hour(case: Case) -> None:
    api = case.api()
    assert await tell(api, case.vendor, case.assign(ADDRESS)) == Done()
    assert api.known(ADDRESS) == GRACE
    case.time.seconds += 3599
    assert api.known(ADDRESS) == GRACE
    case.time.seconds += 1
    assert api.known(ADDRESS) is None


# ------------------------------------------------------------------------------------- Slack


def slack_place(**changes: Any) -> tuple[slack_fake.Slack, PlaceApi]:
    fake = slack_fake.Slack(
        members={"U0ADA": "ada@lantern-oak.example", "U0GRACE": ADDRESS}, channels={"C0TEAM": []}
    )
    settings = slack.Settings(url=f"{desk.BASE}/api", token="env:TOKEN", **changes)
    secrets = KnownSecrets({"env:TOKEN": fake.token})
    return fake, PlaceApi(settings, desk.client(fake.server()), secrets, now=Time())


def message(text: str = "Offered to ada", **changes: Any) -> Message:
    said = {"recipient": "U0ADA", "marker": "item-1", "handle": "", "look_from": None, **changes}
    return Message(text=text, **said)


@pytest.mark.parametrize(
    ("recipient", "channel"), [("U0ADA", "D0ADA"), (ADDRESS, "D0GRACE"), ("C0TEAM", "C0TEAM")]
)
async def test_slack_a_message_is_posted_and_then_changed(recipient: str, channel: str) -> None:
    fake, api = slack_place()
    first = await tell(api, "slack", message(recipient=recipient))
    assert isinstance(first, Done)
    assert first.handle.startswith(f"{channel}/")
    second = await tell(
        api, "slack", message("ada has it", recipient=recipient, handle=first.handle)
    )
    assert second == first
    assert [one["text"] for one in fake.channels[channel]] == ["ada has it"]
    assert fake.posts() == 1


@pytest.mark.parametrize("status", [500, 503, None])
async def test_slack_a_post_whose_answer_was_lost_is_looked_for_before_another(
    status: int | None,
) -> None:
    fake, api = slack_place()
    await tell(api, "slack", message("something else", marker="item-0"))
    fake.lose_answer(status)
    lost = await tell(api, "slack", message())
    assert lost == Unknown(
        Reason.TIMEOUT if status is None else Reason.FAILED, "" if status is None else str(status)
    )
    posted = fake.posts()
    found = await tell(api, "slack", message("ada has it", look_from=NOW))
    assert isinstance(found, Done)
    assert fake.posts() == posted
    assert [one["text"] for one in fake.messages()].count("ada has it") == 1


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
async def test_slack_a_post_that_is_answered_with_later_may_have_been_made_all_the_same(
    status: int,
) -> None:
    """Whoever says so may stand before the one that did it. The wish counts, and then it is looked for."""
    fake, api = slack_place()
    await tell(api, "slack", message("something else", marker="item-0"))
    fake.after_write.append(Response("", status, {"retry-after": "7"}))
    lost = await tell(api, "slack", message())
    assert lost == Unknown(Reason.FAILED, str(status), timedelta(seconds=7))
    posted = fake.posts()
    assert isinstance(await tell(api, "slack", message(look_from=NOW)), Done)
    assert fake.posts() == posted


@pytest.mark.parametrize("body", ["", "[]", "null"])
async def test_slack_a_post_whose_answer_makes_no_sense_may_have_been_made(body: str) -> None:
    fake, api = slack_place()
    await tell(api, "slack", message("something else", marker="item-0"))
    fake.after_write.append(Response(body, 200))
    assert await tell(api, "slack", message()) == Unknown(Reason.BAD_ANSWER, "200")


async def test_slack_a_post_that_is_never_answered_may_have_been_made() -> None:
    fake, api = slack_place()
    await tell(api, "slack", message("something else", marker="item-0"))
    api.http.seconds = 0.1
    fake.hang(is_done=True)
    assert await tell(api, "slack", message()) == Unknown(Reason.TIMEOUT)
    assert isinstance(await tell(api, "slack", message(look_from=NOW)), Done)
    assert len([one for one in fake.messages() if one["text"] == "Offered to ada"]) == 1


async def test_slack_a_post_that_never_arrived_is_not_found_and_made() -> None:
    fake, api = slack_place()
    await tell(api, "slack", message("something else", marker="item-0"))
    fake.lose_write()
    lost = await tell(api, "slack", message())
    assert lost == Unknown(Reason.TIMEOUT)
    assert isinstance(await tell(api, "slack", message(look_from=NOW)), Done)
    assert len([one for one in fake.messages() if one["text"] == "Offered to ada"]) == 1


async def test_slack_looks_through_all_pages_of_what_was_said_since() -> None:
    fake, api = slack_place()
    await tell(api, "slack", message())
    for number in range(40):
        await tell(api, "slack", message("noise", marker=f"noise-{number}"))
    fake.page_max = 15
    posted = fake.posts()
    assert isinstance(await tell(api, "slack", message("there", look_from=NOW)), Done)
    assert fake.posts() == posted


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        ("invalid_auth", NotDone(Reason.UNAUTHORIZED, True, detail="invalid_auth")),
        ("missing_scope", NotDone(Reason.FORBIDDEN, False, detail="missing_scope")),
        ("user_disabled", NotDone(Reason.USER_UNKNOWN, False, detail="user_disabled")),
        ("is_archived", NotDone(Reason.CLOSED, False, detail="is_archived")),
        ("something_new", NotDone(Reason.REFUSED, False, detail="something_new")),
        ("Ada may not!", NotDone(Reason.REFUSED, False, detail="")),
        ("internal_error", Unknown(Reason.FAILED, "internal_error")),
    ],
)
async def test_slack_failures_come_with_status_200_and_have_names(
    error: str, outcome: NotDone | Unknown
) -> None:
    fake, api = slack_place()
    await tell(api, "slack", message(marker="before"))
    fake.errors.append(error)
    assert await tell(api, "slack", message()) == outcome


async def test_slack_too_many_messages_are_answered_with_its_wish() -> None:
    fake, api = slack_place()
    await tell(api, "slack", message(marker="before"))
    fake.refuse_write(429, retry_after="30")
    assert await tell(api, "slack", message()) == NotDone(
        Reason.THROTTLED, True, timedelta(seconds=30), "429"
    )


async def test_slack_a_message_that_people_deleted_is_missing() -> None:
    fake, api = slack_place()
    told = await tell(api, "slack", message())
    assert isinstance(told, Done)
    fake.channels["D0ADA"].clear()
    assert await tell(api, "slack", message(handle=told.handle)) == NotDone(
        Reason.MISSING, False, detail="message_not_found"
    )


async def test_slack_an_address_that_nobody_has_is_refused_by_name() -> None:
    _, api = slack_place()
    outcome = await tell(api, "slack", message(recipient="nobody@lantern-oak.example"))
    assert outcome == NotDone(Reason.USER_UNKNOWN, False, detail="users_not_found")


# ------------------------------------------------------------------------------------- Trello

WAITING, ASSIGNED, SOLVED = (f"5f0aa1bb22cc33dd44ee550{n}" for n in (1, 2, 3))
MEMBER_ADA, MEMBER_GRACE, STRANGER = (f"5f0aa1bb22cc33dd44ee660{n}" for n in (1, 2, 3))


def trello_place(**secrets: str) -> tuple[trello_fake.Trello, PlaceApi]:
    fake = trello_fake.Trello(
        lists=(WAITING, ASSIGNED, SOLVED),
        members={MEMBER_ADA: "adalovelace", MEMBER_GRACE: "gracehopper", STRANGER: "somebody"},
    )
    settings = trello.Settings(
        url=desk.BASE, key="env:KEY", token="env:TOKEN", board=trello_fake.BOARD,
        lists=Lists(waiting=WAITING, assigned=ASSIGNED, solved=SOLVED),
    )  # fmt: skip
    known = KnownSecrets({"env:KEY": fake.key, "env:TOKEN": fake.token} | secrets)
    return fake, PlaceApi(settings, desk.client(fake.server()), known, now=Time())


def card(list_id: str = WAITING, **changes: Any) -> Card:
    said = {
        "member": "", "ours": ("adalovelace", MEMBER_GRACE), "name": "SB-1", "marker": "item-1",
        "text": "SB-1, priority 3\n\nsignalbox:item-1", "handle": "", "look_from": None, **changes,
    }  # fmt: skip
    return Card(list_id, **said)


async def test_trello_a_card_is_made_moved_and_given_to_whoever_has_the_ticket() -> None:
    fake, api = trello_place()
    made = await tell(api, "trello", card())
    assert isinstance(made, Done)
    steps = [
        (ASSIGNED, "adalovelace", [MEMBER_ADA]),
        (ASSIGNED, MEMBER_GRACE, [MEMBER_GRACE]),
        (WAITING, "", []),
        (SOLVED, "adalovelace", [MEMBER_ADA]),
    ]
    for list_id, member, members in steps:
        call = card(list_id, member=member, handle=made.handle)
        assert await tell(api, "trello", call) == Done(made.handle)
        assert await tell(api, "trello", call) == Done(made.handle, is_changed=False)
        assert (fake.cards[0]["idList"], fake.cards[0]["idMembers"]) == (list_id, members)
    assert len(fake.cards) == 1


async def test_trello_people_whom_we_do_not_know_stay_on_the_card() -> None:
    fake, api = trello_place()
    made = await tell(api, "trello", card(ASSIGNED, member="adalovelace"))
    assert isinstance(made, Done)
    fake.cards[0]["idMembers"].append(STRANGER)
    await tell(api, "trello", card(ASSIGNED, member=MEMBER_GRACE, handle=made.handle))
    assert fake.cards[0]["idMembers"] == [STRANGER, MEMBER_GRACE]


@pytest.mark.parametrize("status", [500, None])
@pytest.mark.parametrize("more", [0, 25])
async def test_trello_a_card_whose_answer_was_lost_is_looked_for_before_another(
    status: int | None, more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, api = trello_place()
    monkeypatch.setattr(trello, "PAGE", 10)
    fake.lose_answer(status)
    lost = await tell(api, "trello", card())
    assert isinstance(lost, Unknown)
    for number in range(more):
        await tell(api, "trello", card(text=f"signalbox:other-{number}"))
    found = await tell(api, "trello", card(ASSIGNED, look_from=NOW))
    assert found == Done(fake.cards[0]["id"])
    assert len(fake.cards) == 1 + more
    assert fake.cards[0]["idList"] == ASSIGNED


async def test_trello_a_card_that_was_never_made_is_not_found_and_made() -> None:
    fake, api = trello_place()
    fake.lose_write()
    assert await tell(api, "trello", card()) == Unknown(Reason.TIMEOUT)
    assert isinstance(await tell(api, "trello", card(look_from=NOW)), Done)
    assert len(fake.cards) == 1


async def test_trello_refusals_have_names() -> None:
    fake, api = trello_place()
    _, stranger = trello_place(**{"env:TOKEN": "wrong"})
    assert await tell(stranger, "trello", card()) == NotDone(
        Reason.UNAUTHORIZED, True, detail="401"
    )
    unknown = card(ASSIGNED, member="nobody_there")
    assert await tell(api, "trello", unknown) == NotDone(Reason.USER_UNKNOWN, False)
    gone = card(handle="66aa00000000000000000009")
    assert await tell(api, "trello", gone) == NotDone(Reason.MISSING, False, detail="404")
    fake.refuse_write(429)
    throttled = await tell(api, "trello", card())
    assert throttled == NotDone(Reason.THROTTLED, True, timedelta(seconds=30), "429")


# ------------------------------------------------------------------------------------- all of them


def test_every_adapter_is_counted_and_takes_no_setting_that_it_does_not_know() -> None:
    assert tuple(VENDORS) == metrics.ELSEWHERE_VENDORS
    for name, kind in KINDS.items():
        assert kind.model_config.get("extra") == "forbid", name


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "12"}, 12.0),
        ({"x-ratelimit-retry-after": "3"}, 3.0),
        ({"retry-after": "999999"}, 21_600.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_the_vendors_wish_is_read_and_bounded(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers) == seconds
