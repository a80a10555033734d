"""When hours or promises change: T18 (policy versions), T20, and T22 for merges; and what `diff` shows before."""
# ruff: noqa: N802 — T18 is the id of a promise, and written as elsewhere.

from collections import Counter
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.routing import TicketAssigned
from schemas.sla import (
    BreachRetracted,
    TargetAtRisk,
    TargetBreached,
    TargetCancelled,
    TargetMet,
    TargetPaused,
    TargetResumed,
    TargetRetargeted,
    TimeAttributed,
)
from schemas.tickets import (
    TicketAbsorbed,
    TicketAnswered,
    TicketClosed,
    TicketCustomerDescribed,
    TicketMessageAdded,
    TicketNoteAdded,
    TicketOpened,
    TicketReopened,
    TicketSolved,
    TicketSplitOff,
    TicketStatusChanged,
)
from services.sla.core.book import Ignored
from services.sla.core.policy import Policy
from services.sla.core.recount import Recount, moves, revision
from tests.unit.sla.clockwork import OFFICE, Story, at, make_policy, told

STANDARD: dict[str, Any] = {
    "calendar": "office",
    "warn_at": 0.5,
    "first_response": {"within": "4h"},
    "resolution": {"within": "12h", "warn_at": None, "pauses": ["pending"]},
}
WEDNESDAY_OFF = OFFICE | {"holidays": ["2026-11-25"]}
AFTERNOON_OFF = OFFICE | {"closures": [["2026-11-24T12:00", "2026-11-24T14:00"]]}
LONGER = OFFICE | {"dates": {"2026-11-24": [["06:00", "17:00"]]}}


def policy_of(calendar: dict[str, Any] = OFFICE, version: str = "v1", **more: Any) -> Policy:
    return make_policy({"standard": STANDARD | more}, version, office=calendar)


BEFORE = policy_of()
HOLIDAY = policy_of(WEDNESDAY_OFF, "v2")
CLOSED = policy_of(AFTERNOON_OFF, "v2")


def opened(when: str = "09:00:00", policy: Policy = BEFORE) -> Story:
    return Story(policy).then(told(TicketOpened, at(when)))


def test_T20_a_holiday_added_afterwards_moves_open_deadlines_and_tells_the_difference() -> None:
    story = opened().recount(at("10:00:00"), policy=HOLIDAY)
    (moved,) = story.told
    assert isinstance(moved, TargetRetargeted)
    assert (moved.target, moved.reason) == ("resolution", "calendar_changed")
    assert moved.before_due_at == at("2026-11-25T13:00:00+00:00")
    assert moved.due_at == at("2026-11-26T13:00:00+00:00")
    assert (moved.at, moved.started_at, moved.seconds) == (
        at("10:00:00"),
        at("09:00:00"),
        12 * 3600,
    )
    assert moved.policy_version == "v1"  # Its promise is the one that it was started with.
    assert story.target("first_response").due_at == at("13:00:00")


def test_T20_recounting_twice_tells_it_once() -> None:
    story = opened().recount(at("10:00:00"), policy=HOLIDAY)
    before = story.state
    story.recount(at("10:00:01"))
    assert (story.told, story.last.ignored) == ((), Ignored.NOTHING_MOVED)
    assert story.state == before


def test_T20_a_breach_that_stands_keeps_its_verdict() -> None:
    story = opened().tick(at("11:00:00")).tick(at("13:00:00"))
    assert story.kinds() == [TargetBreached]
    story.recount(at("13:30:00"), policy=CLOSED)
    assert [one.target for one in story.told if isinstance(one, TargetRetargeted)] == ["resolution"]
    assert story.target("first_response").breach is not None
    assert story.target("first_response").due_at == at("13:00:00")


def test_T20_a_deadline_that_passed_before_anybody_looked_was_missed() -> None:
    """Its timer was late, and the calendar it passed under was another one."""
    story = opened().recount(at("13:00:00.5"), policy=CLOSED)
    assert story.kinds() == [TargetBreached, TargetRetargeted]
    breach = story.told[0]
    assert isinstance(breach, TargetBreached)
    assert breach.breached_at == at("13:00:00")


def test_T20_an_ordered_recomputation_takes_back_what_would_be_no_breach() -> None:
    story = opened().tick(at("11:00:00")).tick(at("13:00:00"))
    story.recount(at("13:30:00"), Recount(includes_breaches=True), CLOSED)
    assert story.kinds() == [BreachRetracted, TargetRetargeted, TargetRetargeted]
    taken_back, moved, _ = story.told
    assert isinstance(taken_back, BreachRetracted)
    assert (taken_back.reason, taken_back.breached_at) == ("calendar_changed", at("13:00:00"))
    assert isinstance(moved, TargetRetargeted)
    assert (moved.before_due_at, moved.due_at) == (at("13:00:00"), at("15:00:00"))
    story.recount(at("13:31:00"), Recount(includes_breaches=True))
    assert story.told == ()


def test_T20_a_promise_that_was_kept_late_was_kept_in_time_by_the_right_hours() -> None:
    morning_off = policy_of(OFFICE | {"closures": [["2026-11-24T09:00", "2026-11-24T11:00"]]}, "v2")
    story = opened().tick(at("13:00:00")).then(told(TicketAnswered, at("14:00:00")))
    assert story.target("first_response").breach is not None
    story.recount(at("14:30:00"), policy=morning_off)
    assert BreachRetracted not in story.kinds()
    story.recount(at("14:31:00"), Recount(includes_breaches=True))
    retracted, attributed = story.told
    assert isinstance(retracted, BreachRetracted)
    kept = story.target("first_response")
    assert (kept.status, kept.breach, kept.due_at) == ("met", None, at("15:00:00"))
    # The time that it took is by the right hours too, and so is where it went.
    assert kept.elapsed == timedelta(hours=3)
    assert isinstance(attributed, TimeAttributed)
    assert (attributed.was_breached, attributed.queue_ms) == (False, 3 * 3_600_000)


def test_T20_a_promise_that_was_kept_was_broken_by_the_right_hours() -> None:
    story = opened("05:00:00").then(told(TicketAnswered, at("11:00:00")))
    longer = policy_of(LONGER, "v2")
    story.recount(at("12:00:00"), policy=longer)
    assert TargetBreached not in story.kinds()
    story.recount(at("12:01:00"), Recount(includes_breaches=True))
    broken, attributed = story.told
    assert isinstance(broken, TargetBreached)
    assert (broken.breached_at, broken.detected_at) == (at("10:00:00"), at("12:01:00"))
    target = story.target("first_response")
    assert (target.status, target.due_at) == ("met", at("10:00:00"))
    assert isinstance(attributed, TimeAttributed)
    assert attributed.was_breached is True
    story.recount(at("12:02:00"), Recount(includes_breaches=True))
    assert story.told == ()


def test_T20_a_breach_at_another_instant_is_told_as_of_that() -> None:
    story = opened("05:00:00").tick(at("13:00:00")).recount(at("14:00:00"))
    story.recount(at("14:00:00"), Recount(includes_breaches=True), policy_of(LONGER, "v2"))
    kinds = [kind for kind in story.kinds() if kind is not TargetRetargeted]
    assert kinds == [BreachRetracted, TargetBreached]
    breach = story.target("first_response").breach
    assert breach is not None
    assert breach.breached_at == at("10:00:00")


def test_T20_hours_that_put_a_deadline_into_the_past_break_it_at_once_as_of_its_instant() -> None:
    story = opened("05:00:00").recount(at("12:00:00"), policy=policy_of(LONGER, "v2"))
    moved = [one for one in story.told if isinstance(one, TargetRetargeted)]
    broken = [one for one in story.told if isinstance(one, TargetBreached)]
    assert [one.due_at for one in moved if one.target == "first_response"] == [at("10:00:00")]
    assert [(one.breached_at, one.detected_at) for one in broken] == [
        (at("10:00:00"), at("12:00:00"))
    ]


def test_T20_a_closed_ticket_never_changes() -> None:
    story = opened().tick(at("13:00:00")).then(told(TicketClosed, at("14:00:00")))
    story.recount(at("15:00:00"), Recount(includes_breaches=True), CLOSED)
    assert (story.state, story.told, story.last.changed) == (None, (), ())


def test_an_order_is_carried_out_once_and_only_for_tickets_that_were_open_then() -> None:
    order = Recount(includes_breaches=True, order=3, ordered_at=at("13:20:00"))
    story = opened().tick(at("13:00:00")).recount(at("13:30:00"), order)
    assert story.told == ()
    assert story.state is not None
    assert story.state.recounted == 3
    # The calendar changes later, and the order is an old one: the breach is history.
    story.recount(at("13:40:00"), order, CLOSED)
    assert BreachRetracted not in story.kinds()
    younger = opened("13:25:00").tick(at("2026-11-25T09:25:00+00:00"))
    younger.recount(at("2026-11-25T10:00:00+00:00"), order, CLOSED)
    assert BreachRetracted not in younger.kinds()


def test_a_warning_of_a_deadline_that_moved_is_told_again_for_the_new_one() -> None:
    story = opened().tick(at("11:00:00"))
    assert story.kinds() == [TargetAtRisk]
    morning_off = policy_of(OFFICE | {"closures": [["2026-11-24T09:00", "2026-11-24T12:00"]]}, "v2")
    story.recount(at("11:30:00"), policy=morning_off)
    assert story.target("first_response").due_at == at("16:00:00")
    assert story.next_due == at("14:00:00")
    assert story.tick(at("14:00:00")).kinds() == [TargetAtRisk]


def test_a_clock_that_stands_is_due_by_the_new_hours_when_it_runs_on() -> None:
    story = opened().then(
        told(TicketAnswered, at("09:30:00")),
        told(TicketStatusChanged, at("10:00:00"), before="assigned", status="pending"),
    )
    story.recount(at("10:30:00"), policy=HOLIDAY)
    assert story.told == ()
    story.then(told(TicketStatusChanged, at("11:00:00"), before="pending", status="queued"))
    (resumed,) = (one.due_at for one in story.all if isinstance(one, TargetResumed))
    assert resumed == at("2026-11-26T14:00:00+00:00")


def test_T18_a_pinned_policy_leaves_running_clocks_as_they_were() -> None:
    shorter = policy_of(version="v2", first_response={"within": "1h"})
    story = opened().recount(at("09:30:00"), policy=shorter)
    assert story.told == ()
    assert story.target("first_response").policy_version == "v1"


def test_T18_a_policy_that_retargets_keeps_the_time_spent_and_the_clock() -> None:
    shorter = policy_of(version="v2", first_response={"within": "2h"}, policy_change="retarget")
    story = opened()
    identity = story.target("first_response").target_id
    story.recount(at("10:00:00"), policy=shorter)
    moved = story.told[0]
    assert isinstance(moved, TargetRetargeted)
    assert (moved.target_id, moved.reason) == (identity, "policy_changed")
    assert (moved.before_due_at, moved.due_at) == (at("13:00:00"), at("11:00:00"))
    assert (moved.policy_version, moved.before_policy_version) == ("v2", "v1")
    story.recount(at("10:01:00"))
    assert story.told == ()


def test_T18_a_shorter_promise_that_is_past_already_is_broken_as_of_its_instant() -> None:
    shorter = policy_of(version="v2", first_response={"within": "30m"}, policy_change="retarget")
    story = opened().recount(at("10:00:00"), policy=shorter)
    story.tick(at("10:00:00"))
    breaches = [one for one in story.all if isinstance(one, TargetBreached)]
    assert [one.breached_at for one in breaches] == [at("09:30:00")]


def test_T18_what_a_policy_promises_no_more_ends() -> None:
    none = policy_of(version="v2", resolution=None, policy_change="retarget")
    story = opened().recount(at("10:00:00"), policy=none)
    assert story.kinds() == [TargetCancelled, TimeAttributed]
    (ended, _) = story.told
    assert isinstance(ended, TargetCancelled)
    assert (ended.target, ended.reason) == ("resolution", "policy_changed")


def test_T18_another_calendar_by_policy_keeps_the_time_spent_however_often_it_is_edited() -> None:
    calendars = {
        "late": OFFICE | {"hours": {"tue": [["12:00", "20:00"]], "wed": [["12:00", "20:00"]]}}
    }

    def edited(version: str, **more: Any) -> Policy:
        standard = STANDARD | {"policy_change": "retarget"} | more
        return make_policy({"standard": standard}, version, **calendars)

    story = opened(policy=edited("v1"))
    story.recount(at("11:00:00"), policy=edited("v2", calendar="late"))
    assert story.target("first_response").due_at == at("14:00:00")  # Two hours were spent.
    story.recount(at("13:00:00"), policy=edited("v3", calendar="late", reopen="restart"))
    assert story.target("first_response").due_at == at("14:00:00")
    assert story.told == ()


def test_T18_a_policy_edit_leaves_breaches_and_settled_clocks_alone() -> None:
    story = opened().tick(at("13:00:00"))
    shorter = policy_of(version="v2", first_response={"within": "9h"}, policy_change="retarget")
    story.recount(at("13:30:00"), policy=shorter)
    assert story.told == ()
    story.then(told(TicketAnswered, at("14:00:00")))
    assert [one.was_breached for one in story.all if isinstance(one, TargetMet)] == [True]


def test_T18_pausing_and_resuming_keep_one_clock_and_its_history() -> None:
    story = opened().then(told(TicketAnswered, at("09:10:00")))
    identity = story.target("resolution").target_id
    for hour in ("10", "11", "12"):
        story.then(
            told(TicketStatusChanged, at(f"{hour}:00:00"), before="assigned", status="pending"),
            told(TicketStatusChanged, at(f"{hour}:30:00"), before="pending", status="assigned"),
        )
    story.then(told(TicketSolved, at("13:00:00")))
    of_clock = [
        one
        for one in story.all
        if isinstance(one, TargetPaused | TargetResumed) and one.target == "resolution"
    ]
    assert len(of_clock) == 6
    assert {one.target_id for one in of_clock} == {identity}
    target = story.target("resolution")
    assert (target.target_id, target.status, len(target.watch.spans)) == (identity, "met", 3)


def test_what_a_recount_tells_is_what_another_policy_folder_shows_before() -> None:
    story = opened()
    assert story.state is not None
    (move,) = moves(story.state, at("10:00:00"), HOLIDAY)
    assert (move.target, move.ends, move.is_past) == ("resolution", False, False)
    assert move.before is not None
    assert move.after is not None
    assert move.after - move.before == timedelta(days=1)
    assert moves(story.state, at("10:00:00"), BEFORE) == ()


def test_what_would_be_past_at_once_or_end_is_shown_before() -> None:
    story = opened("05:00:00")
    assert story.state is not None
    longer = policy_of(LONGER, "v2", resolution=None, policy_change="retarget")
    found = {move.target: move for move in moves(story.state, at("12:00:00"), longer)}
    assert found["first_response"].is_past
    assert found["resolution"].ends


def test_a_deadline_whose_timer_is_late_is_no_move() -> None:
    story = opened()
    assert story.state is not None
    assert [one.target for one in moves(story.state, at("13:00:00"), CLOSED)] == ["resolution"]


def test_a_revision_names_the_content_that_deadlines_depend_on() -> None:
    assert revision(BEFORE) == revision(policy_of(version="v9"))
    assert revision(BEFORE) != revision(HOLIDAY)
    pinned = policy_of(first_response={"within": "1h"})
    assert revision(BEFORE) == revision(pinned)
    retargets = policy_of(policy_change="retarget")
    changed = policy_of(policy_change="retarget", first_response={"within": "1h"})
    assert len({revision(BEFORE), revision(retargets), revision(changed)}) == 3


@pytest.mark.parametrize("includes_breaches", [False, True])
def test_a_conversation_that_nobody_knows_has_nothing_to_recount(includes_breaches: bool) -> None:
    story = Story(BEFORE).recount(at("09:00:00"), Recount(includes_breaches))
    assert (story.state, story.last.ignored) == (None, Ignored.NOTHING_MOVED)


def test_marks_of_where_a_ticket_stood_are_kept_through_a_recount() -> None:
    story = opened().then(
        told(TicketAssigned, at("09:10:00")), told(TicketNoteAdded, at("09:11:00"))
    )
    story.recount(at("10:00:00"), policy=HOLIDAY)
    assert story.state is not None
    assert len(story.state.tickets[0].timeline.marks) == 1


MERGE: dict[str, Any] = {"merge_id": "m1", "from_conversation_id": "c9", "from_ticket_id": "t9"}


def with_older_case(policy: Policy = BEFORE) -> Story:
    """Ticket `t1` of ten o'clock has taken in a case of nine o'clock."""
    older = MERGE | {
        "priority": 3,
        "other_opened_at": at("09:00:00"),
        "waiting_since": at("09:00:00"),
    }
    story = opened("10:00:00", policy)
    return story.then(told(TicketAbsorbed, at("10:30:00"), **older))


def split_off(story: Story, when: str) -> Story:
    return story.then(told(TicketSplitOff, at(when), **(MERGE | {"priority": 3})))


def test_T22_the_earliest_promise_of_a_merge_survives_other_hours_and_a_split_restores_both() -> (
    None
):
    story = with_older_case()
    assert story.target("resolution").due_at == at("2026-11-25T13:00:00+00:00")
    story.recount(at("10:45:00"), policy=HOLIDAY)
    assert story.target("resolution").due_at == at("2026-11-26T13:00:00+00:00")
    identity = story.target("resolution").target_id
    split_off(story, "11:00:00")
    restored = story.target("resolution")
    assert (restored.target_id, restored.due_at) == (identity, at("2026-11-26T14:00:00+00:00"))
    story.recount(at("11:01:00"))
    assert story.told == ()


def test_T22_a_breach_of_the_merged_promise_is_taken_back_by_the_split_and_not_told_by_a_recount() -> (
    None
):
    story = with_older_case().tick(at("13:00:00"))
    assert TargetBreached in story.kinds()
    split_off(story, "13:10:00")
    assert BreachRetracted in story.kinds()
    story.recount(at("13:20:00"), Recount(includes_breaches=True))
    assert story.told == ()
    assert story.target("first_response").due_at == at("14:00:00")


def test_T22_a_customer_merge_brings_the_better_promise_and_a_split_gives_the_own_one_back() -> (
    None
):
    gold = STANDARD | {"first_response": {"within": "1h"}}
    rules = {"rules": [{"when": {"customer_tier": "gold"}, "policy": "gold"}]}
    policy = make_policy({"standard": STANDARD, "gold": gold}, more=rules)
    story = opened(policy=policy)
    identity = story.target("first_response").target_id
    story.then(told(TicketCustomerDescribed, at("09:10:00"), tier="gold"))
    better = story.target("first_response")
    assert (better.target_id, better.due_at, better.policy) == (identity, at("10:00:00"), "gold")
    story.then(told(TicketCustomerDescribed, at("09:20:00"), tier=None))
    own = story.target("first_response")
    assert (own.target_id, own.due_at, own.policy) == (identity, at("13:00:00"), "standard")


def test_T18_a_persons_promise_is_moved_by_no_policy_and_no_calendar() -> None:
    story = opened().then(told(TicketAnswered, at("09:10:00"), next_update_by=at("15:00:00")))
    promised = story.target("periodic_update")
    assert (promised.is_promise, promised.due_at) == (True, at("15:00:00"))
    other = policy_of(AFTERNOON_OFF, "v2", policy_change="retarget")
    story.recount(at("10:00:00"), policy=other)
    assert story.target("periodic_update") == promised


POLICIES = [
    policy_of(hours, f"v{number}", policy_change=change)
    for number, (hours, change) in enumerate(
        product(
            [OFFICE, WEDNESDAY_OFF, AFTERNOON_OFF, LONGER, OFFICE | {"timezone": "Asia/Kathmandu"}],
            ["pin", "retarget"],
        )
    )
]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["answer", "write", "pending", "open", "tick", "solve", "reopen"]),
        st.integers(min_value=1, max_value=5 * 3600),
        st.sampled_from(POLICIES),
        st.booleans(),
    ),
    max_size=25,
)


def _act(story: Story, what: str, now: datetime) -> None:
    match what:
        case "answer":
            story.then(told(TicketAnswered, now))
        case "write":
            story.then(told(TicketMessageAdded, now, status="queued"))
        case "pending":
            story.then(told(TicketStatusChanged, now, before="assigned", status="pending"))
        case "open":
            story.then(told(TicketStatusChanged, now, before="pending", status="assigned"))
        case "solve":
            story.then(told(TicketSolved, now))
        case "reopen":
            story.then(told(TicketReopened, now))
        case _:
            story.tick(now)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_T20_however_hours_change_nothing_is_told_twice_and_deadlines_are_those_of_the_hours(
    steps: list[tuple[str, int, Policy, bool]],
) -> None:
    now = at("08:00:00")
    story = opened("08:00:00")
    for what, seconds, policy, judges in steps:
        now += timedelta(seconds=seconds)
        _act(story, what, now)
        order = Recount(includes_breaches=judges)
        story.recount(now, order, policy)
        assert story.state is not None
        for target in story.state.tickets[0].targets:
            if target.is_open and target.breach is None:
                due_at = target.watch.due_at(policy.calendar(target.calendar), target.allowed)
                assert target.due_at == due_at
        story.recount(now, order)
        assert story.told == ()
    standing: Counter[str] = Counter()
    for event in story.all:
        if isinstance(event, TargetBreached):
            standing[event.target_id] += 1
        elif isinstance(event, BreachRetracted):
            standing[event.target_id] -= 1
        assert set(standing.values()) <= {0, 1}
