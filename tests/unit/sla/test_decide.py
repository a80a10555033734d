"""The life of a ticket's clocks: T13 to T19 as far as they need no broker, and properties."""
# ruff: noqa: N802 — T13 is the id of a promise, and written as elsewhere.

from collections import Counter, defaultdict
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.policy import parse
from hours.calendar import CalendarError
from hours.file import CalendarsFile
from schemas.ids import derive
from schemas.payload import Payload
from schemas.routing import TicketAssigned
from schemas.sla import (
    BreachRetracted,
    SlaEvent,
    TargetAtRisk,
    TargetBreached,
    TargetCancelled,
    TargetMet,
    TargetPaused,
    TargetResumed,
    TargetRetargeted,
    TargetStarted,
)
from schemas.tickets import (
    TicketAbsorbed,
    TicketAnswered,
    TicketClosed,
    TicketEscalated,
    TicketEvent,
    TicketMerged,
    TicketMessageAdded,
    TicketNoteAdded,
    TicketOpened,
    TicketPrioritised,
    TicketReopened,
    TicketSolved,
    TicketSplitOff,
    TicketStatusChanged,
    TicketTagged,
    TicketUnmerged,
)
from services.sla.core.book import BROKEN_MAX, Changed, Decision, Ignored, Remark, Tick
from services.sla.core.decide import decide, next_due
from services.sla.core.policy import Policy, SlaFile, build
from services.sla.core.responses import WAITING_MAX
from services.sla.core.state import Conversation, Target

E = TypeVar("E", bound=SlaEvent)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CALENDARS = {
    "calendars": {
        "always": {"timezone": "UTC", "hours": {day: [["00:00", "24:00"]] for day in DAYS}},
        "office": {"timezone": "UTC", "hours": {day: [["09:00", "17:00"]] for day in DAYS[:5]}},
    }
}
STANDARD = {
    "calendar": "always",
    "warn_at": 0.8,
    "first_response": {"within": "1h"},
    "next_response": {"within": "30m"},
    "resolution": {"within": "8h", "warn_at": None, "pauses": ["pending"]},
}


def make_policy(
    version: str = "v1", calendars: dict[str, Any] | None = None, **more: Any
) -> Policy:
    sla = {"default": "standard", "policies": {"standard": STANDARD | more}}
    return build(
        {
            "sla.yaml": parse("sla.yaml", sla, SlaFile),
            "calendars.yaml": parse("calendars.yaml", calendars or CALENDARS, CalendarsFile),
        },
        Path("policy"),
        version,
    )


POLICY = make_policy()


def at(text: str) -> datetime:
    """An instant of Tuesday, 24 November 2026, in UTC; or one with its own date."""
    return datetime.fromisoformat(text if "T" in text else f"2026-11-24T{text}+00:00")


def ticket_event(kind: type[TicketEvent], when: datetime, /, **fields: Any) -> TicketEvent:
    """An event of ticket `t1` that was told at `when`, and happened then if it says so."""
    data = kind.EXAMPLE | {"ticket_id": "t1", "conversation_id": "c1", "at": when}
    if "occurred_at" in kind.model_fields:
        data["occurred_at"] = when
    return kind.model_validate(data | fields)


class Story:
    """A conversation as it goes on; `told` are the events of the last step, `all` those of all."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.policy = policy
        self.state: Conversation | None = None
        self.told: tuple[SlaEvent, ...] = ()
        self.all: list[SlaEvent] = []
        self.decision = Decision(None)
        self.board: dict[str, Target] = {}

    def apply(self, event: Payload | Tick, now: datetime) -> Self:
        self.decision = decide(self.state, event, now, self.policy)
        again = decide(self.state, event, now, self.policy)
        assert again == self.decision
        self.state = self.decision.state
        if self.state is not None:
            stored = msgspec.json.encode(self.state)
            assert msgspec.json.decode(stored, type=Conversation) == self.state
        # Where the time went is told beside the clocks' own events, and tested apart.
        self.told = tuple(one for one in self.decision.events if isinstance(one, SlaEvent))
        self.all += self.told
        self.board |= {target.target_id: target for _, target, _ in self.decision.changed}
        return self

    def when(
        self, kind: type[TicketEvent], when: str, heard: str | None = None, /, **fields: Any
    ) -> Self:
        """A thing happens at `when`; the router and we hear of it at `heard`."""
        happened, now = at(when), at(heard or when)
        if heard is not None and "occurred_at" in kind.model_fields:
            fields = {"occurred_at": happened} | fields
            return self.apply(ticket_event(kind, now, **fields), now)
        return self.apply(ticket_event(kind, happened, **fields), now)

    def opened(self, when: str = "09:00", **fields: Any) -> Self:
        return self.when(TicketOpened, when, **fields)

    def wrote(self, when: str, heard: str | None = None, **fields: Any) -> Self:
        return self.when(TicketMessageAdded, when, heard, **fields)

    def answered(self, when: str, heard: str | None = None) -> Self:
        return self.when(TicketAnswered, when, heard)

    def solved(self, when: str, heard: str | None = None, **fields: Any) -> Self:
        return self.when(TicketSolved, when, heard, **({"with_answer": False} | fields))

    def reopened(self, when: str) -> Self:
        return self.when(TicketReopened, when)

    def pending(self, when: str, heard: str | None = None) -> Self:
        return self.when(TicketStatusChanged, when, heard, before="assigned", status="pending")

    def back(self, when: str, heard: str | None = None) -> Self:
        return self.when(TicketStatusChanged, when, heard, before="pending", status="queued")

    def tick(self, when: str) -> Self:
        return self.apply(Tick(), at(when))

    def tells(self, *kinds: type[SlaEvent]) -> Self:
        assert tuple(type(event) for event in self.told) == kinds
        return self

    def ignores(self, reason: Ignored) -> Self:
        assert (self.told, self.decision.ignored) == ((), reason)
        assert self.decision.changed == ()
        return self

    def the(self, kind: type[E], target: str | None = None) -> E:
        """The one event of its kind among those told last."""
        found = [e for e in self.told if isinstance(e, kind) and target in (None, e.target)]
        assert len(found) == 1
        return found[0]


# ------------------------------------------------------------------------------- the first response


def test_a_ticket_starts_its_first_response_and_its_resolution() -> None:
    story = Story().opened("09:00").tells(TargetStarted, TargetStarted)
    first = story.the(TargetStarted, "first_response")
    assert first == TargetStarted(
        ticket_id="t1",
        conversation_id="c1",
        target_id=derive("target", "t1", "first_response", "1"),
        target="first_response",
        policy="standard",
        policy_version="v1",
        started_at=at("09:00"),
        due_at=at("10:00"),
        warn_at=at("09:48"),
        seconds=3600.0,
        queue="service",
        channel="email",
        priority=3,
    )
    resolution = story.the(TargetStarted, "resolution")
    assert (resolution.due_at, resolution.warn_at) == (at("17:00"), None)
    assert next_due(story.state) == at("09:48")


def test_the_clock_starts_when_the_customer_wrote_not_when_we_heard() -> None:
    story = Story().when(TicketOpened, "09:00", "09:20")
    assert story.the(TargetStarted, "first_response").due_at == at("10:00")


def test_a_clock_runs_by_its_calendar() -> None:
    story = Story(make_policy(first_response={"within": "1h", "calendar": "office"}))
    story.opened("2026-11-27T16:30+00:00")
    assert story.the(TargetStarted, "first_response").due_at == at("2026-11-30T09:30+00:00")


def test_the_priority_chooses_the_length() -> None:
    policy = make_policy(priorities={1: {"first_response": {"seconds": 90}}})
    assert Story(policy).opened(priority=1).the(TargetStarted, "first_response").seconds == 90
    assert Story(policy).opened(priority=2).the(TargetStarted, "first_response").seconds == 3600


def test_T13_an_answer_at_the_deadline_keeps_the_promise() -> None:
    story = Story().opened("09:00").answered("10:00").tells(TargetMet)
    met = story.the(TargetMet)
    assert (met.met_at, met.elapsed_seconds, met.was_breached) == (at("10:00"), 3600.0, False)


def test_T13_an_answer_a_millisecond_later_breaks_it() -> None:
    story = Story().opened("09:00").answered("10:00:00.001").tells(TargetBreached, TargetMet)
    breached = story.the(TargetBreached)
    assert (breached.breached_at, breached.detected_at) == (at("10:00"), at("10:00:00.001"))
    met = story.the(TargetMet)
    assert (met.elapsed_seconds, met.was_breached) == (3600.001, True)


def test_T13_a_microsecond_decides_as_well() -> None:
    Story().opened("09:00").answered("10:00:00.000001").tells(TargetBreached, TargetMet)


def test_T13_what_is_no_answer_does_not_count() -> None:
    story = Story().opened("09:00")
    story.wrote("09:05", is_automatic=True, kind="auto_reply").ignores(Ignored.AUTOMATIC)
    story.when(TicketNoteAdded, "09:10").ignores(Ignored.PRIVATE_NOTE)
    story.wrote("09:20", kind="bounce", is_automatic=True).ignores(Ignored.AUTOMATIC)
    story.tick("10:00").tells(TargetBreached)


def test_T13_a_note_of_the_customer_starts_the_next_response() -> None:
    story = Story().opened("09:00").answered("09:10").wrote("09:20", kind="comment")
    assert story.the(TargetStarted, "next_response").started_at == at("09:20")


def test_a_second_answer_is_no_news() -> None:
    Story().opened("09:00").answered("09:10").answered("09:20").tells()


# ------------------------------------------------------------------------------ warning and breach


def test_a_warning_is_told_at_its_instant_and_once() -> None:
    story = Story().opened("09:00")
    story.tick("09:47:59.999").ignores(Ignored.NOTHING_DUE)
    risk = story.tick("09:48").the(TargetAtRisk)
    assert (risk.at, risk.due_at) == (at("09:48"), at("10:00"))
    assert next_due(story.state) == at("10:00")
    story.tick("09:59:59.999").ignores(Ignored.NOTHING_DUE)


def test_a_breach_is_told_at_its_instant_and_once() -> None:
    story = Story().opened("09:00").tick("09:48")
    breached = story.tick("10:00").the(TargetBreached)
    assert (breached.breached_at, breached.detected_at) == (at("10:00"), at("10:00"))
    story.tick("10:01").ignores(Ignored.NOTHING_DUE)
    assert next_due(story.state) == at("17:00")
    assert story.board[breached.target_id].status == "breached"


def test_a_clock_found_late_is_broken_without_a_warning() -> None:
    Story().opened("09:00").tick("10:00").tells(TargetBreached)


def test_T17_a_hundred_deadlines_missed_in_a_standstill_are_dated_at_their_deadlines() -> None:
    stories = []
    for number in range(100):
        opened = at("09:00") + timedelta(seconds=4 * number)
        story = Story().apply(ticket_event(TicketOpened, opened, ticket_id=f"t{number}"), opened)
        stories.append((opened + timedelta(hours=1), story))
    found = at("10:07")
    for due_at, story in stories:
        told = story.apply(Tick(), found).the(TargetBreached)
        assert (told.breached_at, told.detected_at) == (due_at, found)
        story.apply(Tick(), found).ignores(Ignored.NOTHING_DUE)
    assert len({story.all[-1].target_id for _, story in stories}) == 100


def test_an_answer_after_the_breach_meets_late() -> None:
    story = Story().opened("09:00").tick("10:00").answered("10:30").tells(TargetMet)
    assert story.the(TargetMet).was_breached is True
    assert story.board[story.the(TargetMet).target_id].status == "met"


def test_nothing_is_noticed_before_it_happens() -> None:
    """The router's clock is a little ahead of ours, by less than makes a future."""
    event = ticket_event(TicketAnswered, at("10:00:00.5"))
    story = Story().opened("09:00").apply(event, at("09:59:59.9"))
    story.tells(TargetBreached, TargetMet)
    assert story.the(TargetBreached).detected_at == at("10:00")


# ------------------------------------------------------------------------------------- retractions


def test_T16_an_answer_in_time_that_arrives_late_takes_the_breach_back_once() -> None:
    story = Story().opened("09:00").tick("09:48").tick("10:00")
    story.answered("09:58", heard="10:08").tells(BreachRetracted, TargetMet)
    back = story.the(BreachRetracted)
    assert (back.breached_at, back.answered_at, back.at) == (at("10:00"), at("09:58"), at("10:08"))
    met = story.the(TargetMet)
    assert (met.met_at, met.elapsed_seconds, met.was_breached) == (at("09:58"), 3480.0, False)
    assert story.board[met.target_id].breach is None
    story.answered("09:57", heard="10:09").ignores(Ignored.NOTHING_RUNS)
    story.tick("10:10").ignores(Ignored.NOTHING_DUE)


@pytest.mark.parametrize(
    ("given_at", "kinds"),
    [("10:00", (BreachRetracted, TargetMet)), ("10:00:00.000001", (TargetMet,))],
)
def test_T16_the_deadline_itself_is_in_time_for_a_late_arrival_too(
    given_at: str, kinds: tuple[type[SlaEvent], ...]
) -> None:
    Story().opened("09:00").tick("10:00").answered(given_at, heard="10:08").tells(*kinds)


def test_T16_an_earlier_answer_heard_after_a_later_one_takes_the_breach_back() -> None:
    story = Story().opened("09:00").tick("10:00").answered("10:02")
    story.answered("09:58", heard="10:08").tells(BreachRetracted)
    target = story.board[story.the(BreachRetracted).target_id]
    assert (target.status, target.breach, target.settled_at) == ("met", None, at("09:58"))
    story.answered("09:57", heard="10:09").ignores(Ignored.NOTHING_RUNS)


def test_T16_a_next_response_is_retracted_after_a_later_one_has_started() -> None:
    story = Story().opened("09:00").answered("09:05").wrote("09:10").tick("09:40")
    story.answered("09:45").wrote("09:50").answered("09:38", heard="09:55").tells(BreachRetracted)
    assert story.the(BreachRetracted).breached_at == at("09:40")


def test_a_pause_heard_after_the_breach_takes_it_back_and_the_clock_may_break_again() -> None:
    story = Story().opened("09:00").answered("09:01").tick("17:00").tells(TargetBreached)
    # The router said so in time; only we were late.
    paused = ticket_event(TicketStatusChanged, at("16:30"), before="assigned", status="pending")
    story.apply(paused, at("17:05")).tells(BreachRetracted, TargetPaused)
    assert next_due(story.state) is None
    assert story.back("18:00").the(TargetResumed).due_at == at("18:30")
    assert story.tick("18:30").the(TargetBreached).breached_at == at("18:30")


def test_a_solution_in_time_that_is_heard_late_takes_the_breach_back() -> None:
    story = Story().opened("09:00").answered("09:01").tick("17:00")
    story.solved("16:59", heard="17:10").tells(BreachRetracted, TargetMet)
    assert story.the(TargetMet).was_breached is False


# ----------------------------------------------------------------------------------- next response


def test_T14_three_messages_run_one_clock_from_the_first() -> None:
    story = Story().opened("09:00").answered("09:10")
    started = story.wrote("09:20").the(TargetStarted)
    assert (started.target, started.started_at) == ("next_response", at("09:20"))
    story.wrote("09:25").tells().wrote("09:30").tells()
    met = story.answered("09:50").the(TargetMet)
    assert (met.target_id, met.elapsed_seconds, met.was_breached) == (
        started.target_id,
        1800.0,
        False,
    )


def test_T14_solving_stops_it() -> None:
    story = Story().opened("09:00").answered("09:10").wrote("09:20")
    story.solved("09:40").tells(TargetCancelled, TargetMet)
    cancelled = story.the(TargetCancelled)
    assert (cancelled.target, cancelled.reason) == ("next_response", "solved")
    story.tick("23:00").ignores(Ignored.NOTHING_DUE)


def test_T14_a_thank_you_that_reopens_starts_a_response_by_the_policy() -> None:
    story = Story().opened("09:00").answered("09:10").solved("09:10", with_answer=True)
    story.wrote("09:20", status="solved").ignores(Ignored.TICKET_SOLVED)
    story.reopened("09:20").tells(TargetStarted, TargetStarted)
    assert story.the(TargetStarted, "next_response").due_at == at("09:50")


def test_T14_a_policy_without_that_target_promises_nothing() -> None:
    story = Story(make_policy(next_response=None)).opened("09:00").answered("09:10")
    story.wrote("09:20").tells()
    story.solved("09:30").reopened("09:40")
    assert [event.target for event in story.told] == ["resolution"]


def test_T15_a_next_response_never_runs_while_the_first_is_owed() -> None:
    story = Story().opened("09:00").wrote("09:10").tells().wrote("09:20").tells()
    story.tick("10:00").tells(TargetBreached).wrote("10:10").tells()
    assert story.answered("10:20").the(TargetMet).target == "first_response"


def test_T15_a_message_that_crossed_the_first_answer_waits_for_the_next() -> None:
    """Written at 09:10, before we heard that somebody had answered at 09:05."""
    story = Story().opened("09:00").wrote("09:10")
    story.answered("09:05", heard="09:11").tells(TargetMet, TargetStarted)
    assert story.the(TargetStarted).started_at == at("09:10")


def test_an_answer_given_before_the_message_does_not_answer_it() -> None:
    story = Story().opened("09:00").answered("09:05").wrote("09:20")
    story.answered("09:19", heard="09:21").tells()
    story.answered("09:20", heard="09:22").tells(TargetMet)


def test_an_answer_leaves_the_later_message_waiting_with_a_clock_of_its_own() -> None:
    story = Story().opened("09:00").answered("09:05").wrote("09:20").wrote("09:30")
    story.answered("09:25", heard="09:31").tells(TargetMet, TargetStarted)
    assert story.the(TargetMet).elapsed_seconds == 300.0
    started = story.the(TargetStarted)
    assert (started.started_at, started.due_at) == (at("09:30"), at("10:00"))
    assert started.target_id == derive("target", "t1", "next_response", "2")


def test_a_message_older_than_its_ticket_is_taken_as_of_the_opening() -> None:
    story = Story().opened("09:00").answered("08:30", heard="09:05").wrote("08:00", heard="09:20")
    assert story.the(TargetStarted).started_at == at("09:00")


def test_unanswered_messages_are_remembered_up_to_a_bound() -> None:
    story = Story().opened("09:00")
    for second in range(WAITING_MAX + 50):
        event = ticket_event(TicketMessageAdded, at("09:10") + timedelta(seconds=second))
        story.apply(event, event.at)
    assert story.state is not None
    waiting = story.state.tickets[0].waiting
    assert len(waiting) == WAITING_MAX
    assert waiting[0] == at("09:10")
    assert waiting[-1] == at("09:10") + timedelta(seconds=WAITING_MAX + 49)


def test_broken_clocks_are_remembered_up_to_a_bound() -> None:
    story = Story(make_policy(next_response={"seconds": 1})).opened("09:00").answered("09:01")
    for minute in range(2, 2 + BROKEN_MAX + 10):
        story.wrote(f"09:{minute:02}").answered(f"09:{minute:02}:30")
    assert story.state is not None
    assert len(story.state.tickets[0].targets) == BROKEN_MAX + 3


# ------------------------------------------------------------------------- pauses and the resolution


def test_T18_a_clock_keeps_its_identity_through_pause_and_resume() -> None:
    story = Story().opened("09:00").answered("09:00")
    target_id = derive("target", "t1", "resolution", "1")
    paused = story.pending("10:00").the(TargetPaused)
    assert (paused.target_id, paused.paused_at, paused.cause) == (target_id, at("10:00"), "pending")
    assert next_due(story.state) is None
    assert story.board[target_id].status == "paused"
    story.tick("18:00").ignores(Ignored.NOTHING_DUE)
    resumed = story.back("19:00:00.250").the(TargetResumed)
    assert (resumed.target_id, resumed.due_at) == (target_id, at("2026-11-25T02:00:00.250+00:00"))
    met = story.solved("20:00:00.250").the(TargetMet, "resolution")
    assert (met.target_id, met.elapsed_seconds) == (target_id, 7200.0)


def test_T18_a_new_policy_leaves_running_clocks_as_they_were_started() -> None:
    story = Story().opened("09:00")
    story.policy = make_policy(
        "v2", first_response={"within": "10m"}, next_response={"within": "5m"}
    )
    met = story.answered("09:30").the(TargetMet)
    assert (met.was_breached, met.policy_version) == (False, "v1")
    started = story.wrote("09:40").the(TargetStarted)
    assert (started.policy_version, started.due_at) == ("v2", at("09:45"))
    assert story.solved("09:41").the(TargetMet).policy_version == "v1"


def test_T19_a_ticket_solved_straight_from_pending_has_its_pause_subtracted() -> None:
    story = Story().opened("09:00").answered("09:00").pending("10:00")
    met = story.solved("20:00").tells(TargetMet).the(TargetMet)
    assert (met.elapsed_seconds, met.was_breached) == (3600.0, False)
    story.when(TicketStatusChanged, "20:00", before="pending", status="solved").tells()


def test_T19_the_same_with_the_status_told_first() -> None:
    story = Story().opened("09:00").answered("09:00").pending("10:00")
    story.when(TicketStatusChanged, "20:00", before="pending", status="solved")
    met = story.tells().solved("20:00").the(TargetMet)
    assert met.elapsed_seconds == 3600.0


def test_pending_twice_is_told_once() -> None:
    story = Story().opened("09:00").answered("09:00").pending("10:00").pending("11:00")
    story.tells()
    assert story.back("12:00").the(TargetResumed).due_at == at("19:00")


def test_a_deadline_just_before_the_pause_is_broken_and_one_after_it_is_not() -> None:
    policy = make_policy(resolution={"within": "1h", "warn_at": None, "pauses": ["pending"]})
    late = Story(policy).opened("09:00").answered("09:01").pending("10:00:00.001")
    assert late.tick("10:00:01").the(TargetBreached).breached_at == at("10:00")
    assert late.back("10:30").the(TargetResumed).due_at == at("10:00")
    in_time = Story(policy).opened("09:00").answered("09:01").pending("09:59:59.999")
    in_time.tick("11:00").ignores(Ignored.NOTHING_DUE)
    assert in_time.back("11:00").the(TargetResumed).due_at == at("11:00:00.001")


def test_a_warning_that_is_due_while_the_clock_stands_is_told_when_it_runs_on() -> None:
    policy = make_policy(resolution={"within": "10h", "warn_at": 0.5, "pauses": ["pending"]})
    story = Story(policy).opened("09:00").answered("09:01")
    story.pending("14:30").tick("15:00").ignores(Ignored.NOTHING_DUE)
    assert story.back("15:30").the(TargetResumed).warn_at == at("14:00")
    assert story.tick("15:30").the(TargetAtRisk).due_at == at("20:00")
    assert story.pending("15:40").back("15:50").the(TargetResumed).warn_at is None


def test_only_the_targets_that_say_so_pause() -> None:
    story = Story().opened("09:00").pending("09:10").tells(TargetPaused)
    assert story.the(TargetPaused).target == "resolution"
    story.tick("10:00").tells(TargetBreached)


def test_a_clock_started_while_the_ticket_is_held_stands_at_once() -> None:
    policy = make_policy(next_response={"within": "30m", "pauses": ["pending"]})
    story = Story(policy).opened("09:00").answered("09:10").pending("09:10")
    story.wrote("10:00", status="pending").tells(TargetStarted, TargetPaused)
    story.back("10:00:01").tells(TargetResumed, TargetResumed)
    assert story.the(TargetResumed, "next_response").due_at == at("10:30:01")


def test_reopening_continues_with_what_was_left() -> None:
    story = Story().opened("09:00").answered("09:05").solved("12:00").reopened("20:00")
    started = story.the(TargetStarted, "resolution")
    assert started.target_id == derive("target", "t1", "resolution", "2")
    assert (started.seconds, started.due_at) == (5 * 3600.0, at("2026-11-25T01:00+00:00"))
    again = story.solved("21:00").reopened("22:00").the(TargetStarted, "resolution")
    assert again.seconds == 4 * 3600.0


def test_reopening_restarts_where_the_policy_says_so() -> None:
    story = Story(make_policy(reopen="restart")).opened("09:00").answered("09:05")
    started = story.solved("12:00").reopened("13:00").the(TargetStarted, "resolution")
    assert (started.seconds, started.due_at) == (8 * 3600.0, at("21:00"))


def test_a_promise_that_was_broken_is_not_broken_again_by_reopening() -> None:
    story = Story().opened("09:00").answered("09:05").tick("17:00").solved("18:00")
    story.reopened("19:00").tells(TargetStarted)
    assert story.the(TargetStarted).target == "next_response"


def test_a_promise_kept_to_the_last_moment_has_nothing_left() -> None:
    story = Story().opened("09:00").answered("09:05").solved("17:00").reopened("19:00")
    started = story.the(TargetStarted, "resolution")
    assert (started.seconds, started.due_at) == (0.0, at("19:00"))


# ------------------------------------------------------------------------- solved, closed, reopened


def test_solving_without_an_answer_cancels_the_first_response() -> None:
    story = Story().opened("09:00").solved("09:30").tells(TargetCancelled, TargetMet)
    assert story.the(TargetCancelled).target == "first_response"
    assert story.the(TargetMet).target == "resolution"


def test_solving_with_an_answer_meets_it() -> None:
    story = Story().opened("09:00").solved("09:30", with_answer=True).tells(TargetMet, TargetMet)
    assert story.the(TargetMet, "first_response").elapsed_seconds == 1800.0


@pytest.mark.parametrize(
    ("solved_at", "kinds"),
    [
        ("10:00", (TargetCancelled, TargetMet)),
        ("10:00:00.001", (TargetBreached, TargetCancelled, TargetMet)),
    ],
)
def test_solving_too_late_does_not_hide_that_nobody_answered(
    solved_at: str, kinds: tuple[type[SlaEvent], ...]
) -> None:
    Story().opened("09:00").solved(solved_at).tells(*kinds)


def test_after_a_solution_without_an_answer_a_reopening_owes_the_next_one() -> None:
    story = Story().opened("09:00").solved("09:30").reopened("09:40")
    assert story.the(TargetStarted, "next_response").started_at == at("09:40")


def test_a_closed_ticket_is_forgotten_and_its_clocks_are_cancelled() -> None:
    story = Story().opened("09:00").when(TicketClosed, "09:30")
    story.tells(TargetCancelled, TargetCancelled)
    assert {event.reason for event in story.told if isinstance(event, TargetCancelled)} == {
        "closed"
    }
    assert {target.status for target in story.board.values()} == {"cancelled"}
    assert story.state is None
    assert next_due(story.state) is None
    story.answered("09:40").ignores(Ignored.TICKET_UNKNOWN)
    story.tick("09:50").ignores(Ignored.NOTHING_DUE)


def test_two_tickets_of_a_conversation_have_clocks_of_their_own() -> None:
    story = Story().opened("09:00").answered("09:05").solved("09:10")
    second = {"ticket_id": "t2", "number": 2, "follows": "t1"}
    story.opened("09:30", **second).tells(TargetStarted, TargetStarted)
    story.when(TicketClosed, "09:40").tells()
    assert story.state is not None
    assert [ticket.ticket_id for ticket in story.state.tickets] == ["t2"]
    assert story.tick("10:30").the(TargetBreached).ticket_id == "t2"


# -------------------------------------------------------------------------- refusals and oddities


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (TicketNoteAdded, Ignored.PRIVATE_NOTE),
        (TicketOpened, Ignored.ALREADY_OPEN),
    ],
)
def test_what_moves_no_clock_says_why(kind: type[TicketEvent], reason: Ignored) -> None:
    story = Story().opened("09:00")
    before = story.state
    story.when(kind, "09:10").ignores(reason)
    assert story.state == before


@pytest.mark.parametrize("kind", [TicketEscalated, TicketTagged, TicketStatusChanged])
def test_what_the_rules_make_no_difference_of_is_remembered_and_told_to_nobody(
    kind: type[TicketEvent],
) -> None:
    story = Story().opened("09:00").when(kind, "09:10").tells()
    assert next_due(story.state) == at("09:48")


def test_what_a_person_is_asked_moves_no_clock_that_was_not_promised() -> None:
    event = TicketAssigned.model_validate(
        TicketAssigned.EXAMPLE | {"ticket_id": "t1", "conversation_id": "c1"}
    )
    Story().opened("09:00").apply(event, at("09:10")).tells()


def test_an_unknown_ticket_is_said_to_be_unknown() -> None:
    Story().answered("09:10").ignores(Ignored.TICKET_UNKNOWN)
    Story().opened("09:00").when(TicketAnswered, "09:10", ticket_id="another").ignores(
        Ignored.TICKET_UNKNOWN
    )


def test_an_instant_in_the_future_counts_as_now_and_is_remarked() -> None:
    story = Story().opened("09:00")
    event = ticket_event(TicketAnswered, at("09:30"), occurred_at=at("2062-01-01T00:00+00:00"))
    met = story.apply(event, at("09:31")).the(TargetMet)
    assert met.met_at == at("09:31")
    assert story.decision.remarks == (Remark.FUTURE_INSTANT,)
    assert Story().opened("09:00").decision.remarks == ()


def test_an_unknown_policy_is_served_by_the_default_and_remarked() -> None:
    story = Story().opened("09:00", sla_policy="gold")
    assert {event.policy for event in story.told} == {"standard"}
    assert story.decision.remarks == (Remark.UNKNOWN_POLICY,)


def test_a_calendar_that_is_gone_is_always_open_and_remarked() -> None:
    policy = make_policy(calendar="office")
    story = Story(policy).opened("09:00").answered("09:01").pending("10:00")
    story.policy = make_policy("v2", {"calendars": {"always": CALENDARS["calendars"]["always"]}})
    story.back("20:00")
    assert story.the(TargetResumed).due_at == at("2026-11-25T03:00+00:00")
    assert story.decision.remarks == (Remark.UNKNOWN_CALENDAR,)


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00+14:00", "1776-07-04T12:00:00+00:00"])
def test_an_instant_that_no_calendar_covers_is_refused_by_name(when: str) -> None:
    event = ticket_event(TicketOpened, at("09:00"), occurred_at=when)
    with pytest.raises(CalendarError):
        decide(None, event, at("09:00"), POLICY)


def test_instants_are_kept_in_utc_whatever_offset_they_came_with() -> None:
    story = Story().opened("2026-11-24T12:00:00+03:00")
    assert story.state is not None
    assert story.state.tickets[0].opened_at.utcoffset() == timedelta(0)
    assert msgspec.json.encode(story.state) == msgspec.json.encode(Story().opened("09:00").state)


def test_what_changed_is_reported_for_the_board() -> None:
    story = Story().opened("09:00").answered("09:10")
    changed = story.decision.changed
    assert [(c.ticket_id, c.target.kind, c.target.status) for c in changed] == [
        ("t1", "first_response", "met")
    ]
    assert isinstance(changed[0], Changed)


# -------------------------------------------------------------------------------------- properties

_ACTS = st.sampled_from(
    ("wrote", "answered", "pending", "back", "solved", "solved with", "reopened", "tick", "note")
)
_STEPS = st.lists(
    st.tuples(_ACTS, st.integers(1, 4_000), st.one_of(st.just(0), st.integers(0, 5_000))),
    max_size=30,
)


ACTS: dict[str, tuple[type[TicketEvent], dict[str, Any]]] = {
    "wrote": (TicketMessageAdded, {}),
    "answered": (TicketAnswered, {}),
    "solved": (TicketSolved, {"with_answer": False}),
    "solved with": (TicketSolved, {"with_answer": True}),
    "reopened": (TicketReopened, {}),
}


def live(steps: list[tuple[str, int, int]], is_prompt: bool) -> Story:
    """A random life: each step comes `gap` seconds after the one before, about a thing that
    happened `lag` seconds earlier. Timers fire when they are due, or else only at a tick.
    """
    policy = make_policy(
        next_response={"within": "30m", "pauses": ["pending"]},
        resolution={"within": "3h", "warn_at": 0.5, "pauses": ["pending"]},
    )
    story = Story(policy).opened("09:00")
    now = at("09:00")
    for act, gap, lag in steps:
        before, now = now, now + timedelta(seconds=gap)
        while is_prompt and (due_at := next_due(story.state)) is not None and due_at <= now:
            story.apply(Tick(), max(due_at, before))
        happened = max(now - timedelta(seconds=lag), at("09:00"))
        match act:
            case "tick":
                story.apply(Tick(), now)
            case "pending":
                event = ticket_event(
                    TicketStatusChanged, happened, before="assigned", status="pending"
                )
                story.apply(event, now)
            case "back":
                event = ticket_event(
                    TicketStatusChanged, happened, before="pending", status="queued"
                )
                story.apply(event, now)
            case "note":
                story.apply(ticket_event(TicketNoteAdded, now), now)
            case _:
                kind, fields = ACTS[act]
                story.apply(ticket_event(kind, now, occurred_at=happened, **fields), now)
    return story


@settings(max_examples=150, deadline=None)
@given(steps=_STEPS, is_prompt=st.booleans())
def test_nothing_is_told_twice_and_every_end_has_a_beginning(
    steps: list[tuple[str, int, int]], is_prompt: bool
) -> None:
    story = live(steps, is_prompt)
    lives: defaultdict[str, list[SlaEvent]] = defaultdict(list)
    for event in story.all:
        lives[event.target_id].append(event)
    for events in lives.values():
        kinds = Counter(type(event) for event in events)
        assert isinstance(events[0], TargetStarted)
        assert kinds[TargetStarted] == 1
        assert kinds[TargetAtRisk] <= 1
        assert kinds[TargetMet] + kinds[TargetCancelled] <= 1
        verdicts = [e for e in events if isinstance(e, TargetBreached | BreachRetracted)]
        assert all(type(one) is not type(two) for one, two in pairwise(verdicts))
        assert not verdicts or isinstance(verdicts[0], TargetBreached)
        stood = [e for e in events if isinstance(e, TargetPaused | TargetResumed)]
        assert all(type(one) is not type(two) for one, two in pairwise(stood))
        target = story.board[events[0].target_id]
        assert (target.breach is not None) == (kinds[TargetBreached] > kinds[BreachRetracted])


@settings(max_examples=150, deadline=None)
@given(steps=_STEPS, is_prompt=st.booleans())
def test_one_clock_of_a_kind_runs_and_no_next_response_while_the_first_is_owed(
    steps: list[tuple[str, int, int]], is_prompt: bool
) -> None:
    running: set[str] = set()
    for event in live(steps, is_prompt).all:
        if isinstance(event, TargetStarted):
            assert event.target not in running
            running.add(event.target)
        elif isinstance(event, TargetMet | TargetCancelled):
            running.remove(event.target)
        assert not {"first_response", "next_response"} <= running


@settings(max_examples=150, deadline=None)
@given(steps=_STEPS, is_prompt=st.booleans())
def test_a_verdict_is_what_the_instants_say(
    steps: list[tuple[str, int, int]], is_prompt: bool
) -> None:
    """Met late means longer than allowed, and the other way round; pauses are left out exactly."""
    story = live(steps, is_prompt)
    allowed = {e.target_id: e.seconds for e in story.all if isinstance(e, TargetStarted)}
    for event in story.all:
        if isinstance(event, TargetMet):
            assert event.was_breached == (event.elapsed_seconds > allowed[event.target_id])
            watch = story.board[event.target_id].watch
            if story.board[event.target_id].settled_at == event.met_at:
                whole = event.met_at - watch.started_at
                paused = watch.paused_time(event.met_at)
                assert event.elapsed_seconds == (whole - paused).total_seconds()


@settings(max_examples=150, deadline=None)
@given(steps=_STEPS, is_prompt=st.booleans())
def test_after_a_tick_nothing_is_due_any_more(
    steps: list[tuple[str, int, int]], is_prompt: bool
) -> None:
    story = live(steps, is_prompt)
    now = at("09:00") + timedelta(days=3)
    story.apply(Tick(), now)
    due_at = next_due(story.state)
    assert due_at is None or due_at > now
    for target in story.board.values():
        assert not target.is_open or target.status in ("breached", "paused")


# ------------------------------------------------------------------ on hold, spam, merged and unmerged


def test_a_third_party_holds_the_clocks_that_the_policy_says_and_no_others() -> None:
    held = {"within": "8h", "warn_at": None, "pauses": ["pending", "on_hold"]}
    story = Story(make_policy(resolution=held)).opened("09:00").answered("09:00")
    story.when(TicketStatusChanged, "10:00", before="assigned", status="on_hold")
    assert story.the(TargetPaused).cause == "on_hold"
    story.when(TicketStatusChanged, "12:00", before="on_hold", status="queued")
    assert story.the(TargetResumed).due_at == at("19:00")
    story = Story().opened("09:00").answered("09:00")
    story.when(TicketStatusChanged, "10:00", before="assigned", status="on_hold").tells()
    assert next_due(story.state) == at("17:00")


def test_a_snoozed_tickets_clocks_run_on() -> None:
    story = (
        Story()
        .opened("09:00")
        .when(TicketStatusChanged, "09:30", before="assigned", status="snoozed")
        .tells()
    )
    assert next_due(story.state) == at("09:48")


def test_from_the_customer_to_a_third_party_the_clock_stands_as_if_nothing_had_been() -> None:
    held = {"within": "8h", "warn_at": None, "pauses": ["pending", "on_hold"]}
    story = Story(make_policy(resolution=held)).opened("09:00").answered("09:00").pending("10:00")
    story.when(TicketStatusChanged, "11:00", before="pending", status="on_hold").tells()
    story.when(TicketStatusChanged, "12:00", before="on_hold", status="queued")
    assert story.the(TargetResumed).due_at == at("19:00")
    only = make_policy(resolution=held | {"pauses": ["pending"]})
    story = Story(only).opened("09:00").answered("09:00").pending("10:00")
    story.when(TicketStatusChanged, "11:00", before="pending", status="on_hold")
    assert story.the(TargetResumed).due_at == at("18:00")


@pytest.mark.parametrize("reason", ["spam", "merged"])
def test_T22_what_was_set_aside_owes_nothing_and_restored_its_clocks_are_the_same(
    reason: str,
) -> None:
    story = Story().opened("09:00").answered("09:10").wrote("09:20")
    target_id = derive("target", "t1", "next_response", "1")
    if reason == "spam":
        story.when(TicketStatusChanged, "09:30", before="queued", status="spam")
    else:
        story.when(TicketMerged, "09:30")
    story.tells(TargetCancelled, TargetCancelled)
    assert {event.reason for event in story.told if isinstance(event, TargetCancelled)} == {reason}
    assert next_due(story.state) is None
    if reason == "spam":
        story.when(TicketStatusChanged, "09:40", before="spam", status="queued")
    else:
        story.when(TicketUnmerged, "09:40")
    resumed = story.the(TargetResumed, "next_response")
    assert (resumed.target_id, resumed.due_at) == (target_id, at("09:50"))
    assert story.the(TargetResumed, "resolution").due_at == at("17:00")
    assert story.tick("09:50").the(TargetBreached).breached_at == at("09:50")


def test_a_ticket_that_is_unmerged_from_a_standing_clock_runs_on() -> None:
    story = Story().opened("09:00").answered("09:00").pending("10:00").when(TicketMerged, "11:00")
    story.when(TicketUnmerged, "12:00")
    assert story.the(TargetResumed, "resolution").due_at == at("19:00")


def test_an_absorbed_tickets_oldest_unanswered_words_start_the_next_response() -> None:
    story = Story().opened("09:00").answered("09:10")
    story.when(TicketAbsorbed, "09:40", waiting_since=at("09:20"))
    started = story.the(TargetStarted)
    assert (started.target, started.started_at) == ("next_response", at("09:20"))
    story = Story().opened("09:00").answered("09:10")
    young = {"waiting_since": None, "other_opened_at": at("09:20"), "priority": 3}
    assert story.when(TicketAbsorbed, "09:40", **young).told == ()


# --------------------------------------------------------------------- other terms: merged, split, priority

MERGE = {"merge_id": "m1", "from_conversation_id": "c9", "from_ticket_id": "t9"}


def absorbed(story: Story, when: str, **fields: Any) -> Story:
    """Another case comes in that is no more urgent; `since` and `opened` are its instants."""
    known: dict[str, Any] = MERGE | {"priority": 3}
    return story.when(TicketAbsorbed, when, **(known | fields))


def split(story: Story, when: str, **fields: Any) -> Story:
    known: dict[str, Any] = MERGE | {"priority": 3}
    return story.when(TicketSplitOff, when, **(known | fields))


def older_case(**more: Any) -> dict[str, Any]:
    """A case of nine o'clock that waits for its first answer."""
    return {"other_opened_at": at("09:00"), "waiting_since": at("09:00")} | more


def test_T22_the_earliest_promise_survives_a_merge_for_the_response_and_for_the_resolution() -> (
    None
):
    story = absorbed(Story().opened("09:30"), "09:40", **older_case())
    told = story.tells(TargetRetargeted, TargetRetargeted).the(TargetRetargeted, "first_response")
    assert told.target_id == derive("target", "t1", "first_response", "1")
    assert (told.reason, told.started_at, told.seconds) == ("absorbed", at("09:00"), 3600.0)
    assert (told.before_due_at, told.due_at) == (at("10:30"), at("10:00"))
    assert story.the(TargetRetargeted, "resolution").due_at == at("17:00")
    assert next_due(story.state) == at("09:48")
    breach = story.tick("10:00").the(TargetBreached)
    assert breach.breached_at == at("10:00")
    met = story.answered("10:12").the(TargetMet)
    assert (met.elapsed_seconds, met.was_breached) == (4320.0, True)


def test_T22_a_younger_case_leaves_the_promises_of_the_older_as_they_are() -> None:
    young = {"other_opened_at": at("09:20"), "waiting_since": at("09:20")}
    story = absorbed(Story().opened("09:00"), "09:40", **young)
    assert story.told == ()
    assert next_due(story.state) == at("09:48")


def test_T22_the_other_ones_own_deadlines_are_kept_whatever_its_policy_and_its_pauses() -> None:
    dues: dict[str, Any] = {"first_response": at("09:50"), "resolution": at("19:30")}
    story = absorbed(Story().opened("09:30"), "09:40", **older_case(dues=dues))
    told = story.tells(TargetRetargeted).the(TargetRetargeted)
    assert (told.target, told.due_at, told.seconds) == ("first_response", at("09:50"), 3000.0)
    assert story.tick("09:50").the(TargetBreached).breached_at == at("09:50")


def test_T22_a_resolution_that_stood_lends_no_deadline() -> None:
    case: dict[str, Any] = {
        "other_opened_at": at("2026-11-03T09:00:00+00:00"),
        "waiting_since": None,
        "dues": {},
    }
    story = absorbed(Story().opened("09:30"), "09:40", **case)
    assert story.told == ()
    assert next_due(story.state) == at("10:18")


def test_T22_a_split_gives_the_old_deadlines_back_on_the_same_clocks() -> None:
    story = absorbed(Story().opened("09:30"), "09:40", **older_case())
    split(story, "09:45").tells(TargetRetargeted, TargetRetargeted)
    told = story.the(TargetRetargeted, "first_response")
    assert told.target_id == derive("target", "t1", "first_response", "1")
    assert (told.reason, told.started_at, told.due_at) == ("split_off", at("09:30"), at("10:30"))
    assert story.the(TargetRetargeted, "resolution").due_at == at("17:30")
    assert story.tick("10:18").the(TargetAtRisk).due_at == at("10:30")


def test_T22_a_breach_that_was_the_other_ones_is_taken_back_when_it_is_split_off() -> None:
    story = absorbed(Story().opened("09:30"), "09:40", **older_case()).tick("10:00")
    story.the(TargetBreached)
    split(story, "10:05").tells(BreachRetracted, TargetRetargeted, TargetRetargeted)
    assert story.the(BreachRetracted).answered_at == at("10:00")
    assert story.tick("10:30").the(TargetBreached).breached_at == at("10:30")


def test_T22_answered_words_of_another_case_are_owed_by_nobody_after_a_split() -> None:
    story = Story().opened("09:00").answered("09:10")
    absorbed(story, "09:40", waiting_since=at("09:20"), other_opened_at=at("09:20"))
    assert story.the(TargetStarted).started_at == at("09:20")
    told = split(story, "09:45").tells(TargetCancelled).the(TargetCancelled)
    assert (told.target, told.reason) == ("next_response", "split_off")
    assert next_due(story.state) == at("17:00")
    story.tick("09:50").ignores(Ignored.NOTHING_DUE)


def test_T22_a_next_response_that_broke_for_the_other_ones_words_alone_is_taken_back() -> None:
    story = Story().opened("09:00").answered("09:10")
    absorbed(story, "09:40", waiting_since=at("09:20"), other_opened_at=at("09:20")).tick("09:50")
    split(story, "09:55").tells(BreachRetracted, TargetCancelled)


def test_T22_after_a_split_the_clock_counts_from_the_tickets_own_oldest_words() -> None:
    story = Story().opened("09:00").answered("09:10")
    absorbed(story, "09:22", waiting_since=at("09:20"), other_opened_at=at("09:20"))
    story.wrote("09:25", from_conversation_id="c9").wrote("09:35")
    told = split(story, "09:40").the(TargetRetargeted)
    assert (told.started_at, told.due_at) == (at("09:35"), at("10:05"))
    assert story.tick("10:05").the(TargetBreached).breached_at == at("10:05")


def test_T22_of_two_cases_the_one_that_stays_keeps_its_promise() -> None:
    story = absorbed(Story().opened("09:30"), "09:40", **older_case())
    other = {"merge_id": "m2", "from_conversation_id": "c8", "from_ticket_id": "t8"}
    case: dict[str, Any] = {"other_opened_at": at("09:15"), "waiting_since": at("09:15")}
    absorbed(story, "09:41", **other, **case)
    told = split(story, "09:45").the(TargetRetargeted, "first_response")
    assert told.due_at == at("10:15")
    split(story, "09:46", **other)
    assert story.the(TargetRetargeted, "first_response").due_at == at("10:30")


def test_T22_an_answer_to_both_pays_what_was_owed_for_the_other() -> None:
    story = absorbed(Story().opened("09:30"), "09:40", **older_case()).answered("09:50")
    told = split(story, "09:55").tells(TargetRetargeted).the(TargetRetargeted)
    assert (told.target, told.due_at) == ("resolution", at("17:30"))


def test_T22_what_was_written_while_a_ticket_was_merged_is_owed_by_it_after_an_unmerge() -> None:
    story = Story().opened("09:00").answered("09:10").when(TicketMerged, "09:30")
    story.when(TicketUnmerged, "09:50", waiting_since=at("09:40"))
    started = story.the(TargetStarted)
    assert (started.target, started.started_at, started.due_at) == (
        "next_response",
        at("09:40"),
        at("10:10"),
    )
    story = Story().opened("09:00").answered("09:10").when(TicketMerged, "09:30")
    story.when(TicketUnmerged, "09:50", waiting_since=None).tells(TargetResumed)


def test_T22_what_a_merged_ticket_lost_meanwhile_it_does_not_owe_when_it_stands_again() -> None:
    story = Story().opened("09:00").answered("09:10")
    absorbed(story, "09:40", waiting_since=at("09:20"), other_opened_at=at("09:20"))
    story.when(TicketMerged, "09:41", merge_id="m7")
    split(story, "09:42")
    story.when(TicketUnmerged, "09:45", waiting_since=None)
    assert story.the(TargetCancelled).reason == "split_off"
    assert next_due(story.state) == at("17:00")


def test_T22_a_case_told_again_with_less_owes_less() -> None:
    story = absorbed(Story().opened("09:30"), "09:40", **older_case())
    case = {"other_opened_at": at("09:15"), "waiting_since": at("09:15")}
    told = absorbed(story, "09:45", **case).the(TargetRetargeted, "first_response")
    assert (told.before_due_at, told.due_at) == (at("10:00"), at("10:15"))


URGENT: dict[str, Any] = {
    "priorities": {1: {"first_response": {"within": "20m"}, "resolution": {"within": "2h"}}}
}


def test_T18_another_priority_holds_the_same_clock_to_another_target_with_the_time_spent_kept() -> (
    None
):
    story = Story(make_policy(**URGENT)).opened("09:00", priority=3)
    story.policy = make_policy("v2", **URGENT)
    story.when(TicketPrioritised, "09:05", before=3, priority=1)
    told = story.tells(TargetRetargeted, TargetRetargeted).the(TargetRetargeted, "first_response")
    assert told.target_id == derive("target", "t1", "first_response", "1")
    assert (told.before_due_at, told.due_at, told.warn_at) == (
        at("10:00"),
        at("09:20"),
        at("09:16"),
    )
    assert (told.reason, told.policy_version, told.started_at) == (
        "priority_changed",
        "v2",
        at("09:00"),
    )
    assert story.answered("09:30").the(TargetMet).was_breached
    story.when(TicketPrioritised, "09:40", before=1, priority=3)
    told = story.tells(TargetRetargeted).the(TargetRetargeted)
    assert (told.before_due_at, told.due_at) == (at("11:00"), at("17:00"))


def test_T18_a_target_that_is_past_already_is_broken_at_once_as_of_its_instant() -> None:
    story = Story(make_policy(**URGENT)).opened("09:00", priority=3)
    story.when(TicketPrioritised, "09:30", before=3, priority=1)
    breach = story.tick("09:30").the(TargetBreached)
    assert (breach.breached_at, breach.detected_at) == (at("09:20"), at("09:30"))
    story.when(TicketPrioritised, "09:40", before=1, priority=3)
    assert all(event.target == "resolution" for event in story.told), "a breach is history"


def test_T18_a_deadline_that_passed_before_the_priority_changed_is_broken_however_late_the_timer() -> (
    None
):
    story = Story(make_policy(**URGENT)).opened("09:00", priority=1)
    story.when(TicketPrioritised, "09:30", before=1, priority=3)
    assert story.the(TargetBreached).breached_at == at("09:20")


def test_T18_pauses_are_left_out_under_the_new_target_too() -> None:
    story = Story(make_policy(**URGENT)).opened("09:00", priority=3).answered("09:00")
    story.pending("09:30").when(TicketPrioritised, "10:30", before=3, priority=1)
    told = story.the(TargetRetargeted)
    assert (told.target, told.before_due_at, told.due_at) == ("resolution", None, None)
    assert story.back("11:00").the(TargetResumed).due_at == at("12:30")


def test_T18_another_calendar_of_the_new_priority_keeps_the_open_time_that_was_spent() -> None:
    office: dict[str, Any] = {
        "priorities": {4: {"resolution": {"within": "9h", "calendar": "office"}}}
    }
    story = Story(make_policy(**office)).opened("07:00", priority=3).answered("07:00")
    told = story.when(TicketPrioritised, "10:00", before=3, priority=4).the(TargetRetargeted)
    assert told.due_at == at("16:00"), "three of nine hours were spent by ten o'clock"
    assert story.decision.remarks == ()


def test_T18_what_the_new_priority_does_not_promise_ends_and_comes_back_as_the_same_clock() -> None:
    story = Story(make_policy(**URGENT))
    story.policy = only_urgent()
    story.opened("09:00", priority=3)
    assert story.told == ()
    first = story.when(TicketPrioritised, "09:05", before=3, priority=1).the(
        TargetStarted, "first_response"
    )
    assert (first.started_at, first.due_at) == (at("09:00"), at("09:20"))
    story.when(TicketPrioritised, "09:06", before=1, priority=3)
    story.tells(TargetCancelled, TargetCancelled)
    assert story.the(TargetCancelled, "resolution").reason == "priority_changed"
    assert next_due(story.state) is None
    story.when(TicketPrioritised, "09:07", before=3, priority=1)
    assert story.the(TargetResumed, "first_response").target_id == first.target_id
    assert story.tick("09:20").the(TargetBreached).breached_at == at("09:20")


def only_urgent() -> Policy:
    sla = {
        "default": "standard",
        "policies": {"standard": {"calendar": "always", **URGENT}},
    }
    return build(
        {
            "sla.yaml": parse("sla.yaml", sla, SlaFile),
            "calendars.yaml": parse("calendars.yaml", CALENDARS, CalendarsFile),
        },
        Path("policy"),
        "v1",
    )


def test_T18_a_ticket_that_is_done_with_takes_no_new_targets() -> None:
    story = Story(make_policy(**URGENT)).opened("09:00", priority=3).solved("09:30")
    story.when(TicketPrioritised, "09:40", before=3, priority=1)
    assert story.told == ()


def test_T22_a_breach_noticed_late_is_taken_back_once_every_case_it_came_from_is_split_off() -> (
    None
):
    """The timer was late, and another merge noticed the breach; that one is split off first."""
    story = Story().opened("09:00:10")
    for number, merge in (("09:00:11", "n"), ("10:00:10", "m")):
        other = MERGE | {"merge_id": merge, "from_conversation_id": merge, "priority": 3}
        story.when(
            TicketAbsorbed, number, **other, waiting_since=at("09:00"), other_opened_at=at("09:00")
        )
    assert story.the(TargetBreached).breached_at == at("10:00")
    for number, merge in (("10:00:11", "m"), ("10:00:12", "n")):
        other = MERGE | {"merge_id": merge, "from_conversation_id": merge, "priority": 3}
        story.when(TicketSplitOff, number, **other)
    assert story.the(BreachRetracted).breached_at == at("10:00")
    assert story.tick("10:00:13").the(TargetBreached).breached_at == at("10:00:10")


_MERGING = st.sampled_from(
    ("wrote", "carried", "answered", "absorbed", "split", "pending", "back", "tick")
)


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(
        st.tuples(_MERGING, st.integers(1, 4_000), st.integers(0, 3_000), st.sampled_from("mn")),
        max_size=25,
    )
)
def test_T22_however_cases_come_and_go_a_ticket_without_them_is_held_to_its_own_promises(
    steps: list[tuple[str, int, int, str]],
) -> None:
    policy = make_policy(**URGENT, resolution={"within": "8h", "pauses": ["pending"]})
    story = Story(policy).opened("09:00", priority=3)
    alone = Story(policy).opened("09:00", priority=3)
    now = at("09:00")
    for act, gap, lag, merge in [*steps, ("split", 1, 0, "m"), ("split", 1, 0, "n")]:
        now += timedelta(seconds=gap)
        known = MERGE | {"merge_id": merge, "from_conversation_id": merge, "priority": 3}
        since = now - timedelta(seconds=lag)
        both: TicketEvent | Tick | None = None
        match act:
            case "absorbed":
                event = ticket_event(
                    TicketAbsorbed, now, **known, waiting_since=since, other_opened_at=since
                )
                story.apply(event, now)
            case "split":
                story.apply(ticket_event(TicketSplitOff, now, **known), now)
            case "carried" if any(
                one.conversation_id == merge
                for one in story.state.tickets[0].sources  # type: ignore[union-attr]
            ):
                event = ticket_event(TicketMessageAdded, now, from_conversation_id=merge)
                story.apply(event, now)
            case "wrote":
                both = ticket_event(TicketMessageAdded, now)
            case "answered":
                both = ticket_event(TicketAnswered, now)
            case "pending":
                both = ticket_event(TicketStatusChanged, now, before="queued", status="pending")
            case "back":
                both = ticket_event(TicketStatusChanged, now, before="pending", status="queued")
            case _:
                both = Tick()
        if both is not None:
            story.apply(both, now)
            alone.apply(both, now)
    now += timedelta(seconds=1)
    story.apply(Tick(), now)
    alone.apply(Tick(), now)
    assert story.state is not None
    assert alone.state is not None
    for kind in ("first_response", "resolution", "next_response"):
        mine = story.state.tickets[0].open_target(kind)
        other = alone.state.tickets[0].open_target(kind)
        assert (mine is None) == (other is None)
        if mine is not None and other is not None:
            assert (mine.phase, mine.terms, mine.own) == (other.phase, other.terms, None)
            assert mine.breach is None or other.breach is not None
