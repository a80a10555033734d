"""Pages: which facts fire and end alerts, and when a receiver is told what."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.routing import AssignmentExhausted, QueueOverloaded, TicketAssigned, TicketQueued
from schemas.sla import (
    BreachRetracted,
    TargetAtRisk,
    TargetBreached,
    TargetCancelled,
    TargetMet,
    TargetPaused,
)
from schemas.tickets import (
    TicketMerged,
    TicketOwnerForced,
    TicketPaged,
    TicketSolved,
    TicketStatusChanged,
    TicketUnmerged,
)
from services.sla.core import alerts, page_text, paging
from services.sla.core.alerts import Alert, Change, End, Fire
from services.sla.core.pages import Pages, PagesFile, PagesMistake, build, group_key
from services.sla.core.paging import AlertState, Page, Rule, Saying

NOON = datetime.fromisoformat("2026-11-24T12:00:00+00:00")
SECOND = timedelta(seconds=1)


def rules(*routes: dict[str, Any], **receivers: dict[str, Any]) -> Pages:
    known = receivers or {"desk": {"kind": "slack", "channel": "C0123", "token": "env:T"}}
    return build({"pages.yaml": PagesFile.model_validate({"receivers": known, "routes": routes})})


BREACHES = {
    "name": "breaches",
    "when": {"event": "breached"},
    "severity": "critical",
    "receivers": ["desk"],
}
RISKS = {
    "name": "risks",
    "when": {"event": "at_risk"},
    "severity": "warning",
    "receivers": ["desk"],
}
TICKETS = {"name": "tickets", "severity": "error", "receivers": ["desk"], "group_by": ["queue"]}
PAGES = rules(BREACHES, RISKS, TICKETS)


def clock_facts(*facts: Any) -> tuple[Change, ...]:
    return alerts.changes(PAGES, None, facts, None, NOON)


def ticket_facts(event: Any) -> tuple[Change, ...]:
    return alerts.changes(PAGES, event, (), None, NOON)


def example(kind: Any, **more: Any) -> Any:
    return kind.model_validate(kind.EXAMPLE | more)


# ------------------------------------------------------------------------------ facts and alerts


def test_a_breach_fires_with_its_deadline_as_its_beginning() -> None:
    (fired,) = clock_facts(example(TargetBreached))
    assert isinstance(fired, Fire)
    assert fired.alert.alert_key == "t-1"
    assert (fired.alert.event, fired.alert.severity) == ("breached", "critical")
    assert fired.alert.since == NOON
    assert fired.alert.group == {"queue": "service", "target": "first_response"}


def test_a_risk_that_becomes_a_breach_is_one_alert_that_got_worse() -> None:
    risk, breach = clock_facts(example(TargetAtRisk), example(TargetBreached))
    at_risk = paging.fold(None, risk, 1)
    broken = paging.fold(at_risk, breach, 2)
    assert at_risk is not None
    assert broken is not None
    assert at_risk.alert.group_key == broken.alert.group_key
    assert (broken.alert.severity, broken.is_firing, broken.fired_seq) == ("critical", True, 2)
    late = paging.fold(broken, risk, 3)
    assert late is broken  # A warning that is heard of after the breach says nothing new.


def test_t16_a_retracted_breach_ends_its_alert_and_says_why() -> None:
    """T16: the page that went out is followed by a correction."""
    (ended,) = clock_facts(example(BreachRetracted))
    assert ended == End(
        alert_key="t-1", at=NOON, note="retracted: answered in time at 2026-11-24 11:58:00 UTC"
    )


def test_the_first_reason_for_an_end_is_the_one_that_is_told() -> None:
    told = clock_facts(example(BreachRetracted), example(TargetMet))
    (last,) = alerts.settled(told)
    assert isinstance(last, End)
    assert last.note.startswith("retracted")


def test_a_target_that_is_met_late_or_not_owed_any_more_ends_its_alert() -> None:
    met, cancelled = clock_facts(example(TargetMet, was_breached=True), example(TargetCancelled))
    assert met.note == "kept at 2026-11-24 08:12:00 UTC, late"  # type: ignore[union-attr]
    assert cancelled.note == "not owed any more: solved"  # type: ignore[union-attr]


def test_a_pause_ends_a_risk_and_leaves_a_breach() -> None:
    (risk,), (breach,) = clock_facts(example(TargetAtRisk)), clock_facts(example(TargetBreached))
    (pause,) = clock_facts(example(TargetPaused))
    held = paging.fold(paging.fold(None, risk, 1), pause, 2)
    assert held is not None
    assert not held.is_firing
    broken = paging.fold(None, breach, 1)
    assert paging.fold(broken, pause, 2) is broken


def folded(state: AlertState | None, changes: Iterable[Change]) -> tuple[Any, ...] | None:
    for change in changes:
        state = paging.fold(state, change, 1 if state is None else state.seq + 1)
    return None if state is None else (state.alert, state.is_firing, state.note, state.ended_at)


CHANGES: tuple[Change, ...] = (
    *clock_facts(example(TargetBreached, target_id="t-1")),
    *clock_facts(example(TargetAtRisk, target_id="t-1")),
    *clock_facts(example(BreachRetracted, target_id="t-1")),
    *clock_facts(example(TargetMet, target_id="t-1")),
    *clock_facts(example(TargetPaused, target_id="t-1")),
    alerts.Return(alert_key="t-1", at=NOON, ended_by="kept at 2026-11-24 08:12:00 UTC"),
)


def test_what_is_left_of_a_batchs_changes_comes_to_the_same_as_all_of_them() -> None:
    """Every batch of up to three changes of an alert, from every state that up to two lead to."""
    befores = [one for length in range(3) for one in product(CHANGES, repeat=length)]
    batches = [one for length in range(4) for one in product(CHANGES, repeat=length)]
    for before in befores:
        state: AlertState | None = None
        for number, change in enumerate(before):
            state = paging.fold(state, change, number + 1)
        for batch in batches:
            assert folded(state, alerts.settled(batch)) == folded(state, batch)


def test_a_call_for_a_ticket_comes_back_when_its_merge_or_its_spam_is_undone() -> None:
    """And not if something else had ended it before."""
    paged = example(TicketPaged)
    ticket = {"ticket_id": paged.ticket_id}
    spam = example(TicketStatusChanged, status="spam", before="assigned", **ticket)
    no_spam = example(TicketStatusChanged, status="assigned", before="spam", **ticket)
    merged, unmerged = example(TicketMerged, **ticket), example(TicketUnmerged, **ticket)
    solved = example(TicketSolved, **ticket)

    def is_firing(*events: Any) -> bool:
        state: AlertState | None = None
        number = 0
        for event in events:
            for change in ticket_facts(event):
                number += 1
                if change.alert_key == f"{paged.ticket_id}/paged":
                    state = paging.fold(state, change, number)
        assert state is not None
        return state.is_firing

    assert not is_firing(paged, spam)
    assert is_firing(paged, spam, no_spam)
    assert not is_firing(paged, merged)
    assert is_firing(paged, merged, unmerged)
    assert not is_firing(paged, solved, spam, no_spam)


def test_a_risk_ends_when_its_breach_goes_to_no_route() -> None:
    only_risks = rules(RISKS)
    (risk,) = alerts.changes(only_risks, None, (example(TargetAtRisk),), None, NOON)
    (end,) = alerts.changes(only_risks, None, (example(TargetBreached),), None, NOON)
    state = paging.fold(paging.fold(None, risk, 1), end, 2)
    assert state is not None
    assert (state.is_firing, state.note) == (False, "broken by now; no route tells of that")


@pytest.mark.parametrize(
    ("event", "key"),
    [
        (example(TicketPaged), "paged"),
        (example(TicketOwnerForced), "owner_forced"),
        (example(AssignmentExhausted), "exhausted"),
        (example(QueueOverloaded), "overloaded"),
        (example(TicketQueued, is_matchable=False), "unmatchable"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_a_ticket_that_needs_a_person_fires_and_is_over_when_it_is_solved(
    event: Any, key: str
) -> None:
    (fired,) = [one for one in ticket_facts(event) if isinstance(one, Fire)]
    assert fired.alert.alert_key == f"{event.ticket_id}/{key}"
    assert fired.alert.labels["queue"]
    state = paging.fold(None, fired, 1)
    for end in ticket_facts(example(TicketSolved, ticket_id=event.ticket_id)):
        state = paging.fold(state, end, 2) if end.alert_key == fired.alert_key else state
    assert state is not None
    assert (state.is_firing, state.note) == (False, "solved")


def test_waiting_work_is_no_alarm_any_more_when_somebody_has_it() -> None:
    ended = {one.alert_key.rpartition("/")[2] for one in ticket_facts(example(TicketAssigned))}
    assert ended == {"exhausted", "overloaded", "unmatchable"}
    spam = ticket_facts(example(TicketStatusChanged, status="spam"))
    assert {one.alert_key.rpartition("/")[2] for one in spam} == {*alerts.OF_TICKETS}


def test_what_no_route_takes_fires_nothing() -> None:
    silent = rules({**BREACHES, "when": {"event": "breached", "queue": ["billing"]}})
    told = alerts.changes(silent, None, (example(TargetBreached),), None, NOON)
    assert not [one for one in told if isinstance(one, Fire)]


# --------------------------------------------------------------------------------------- the file


@pytest.mark.parametrize(
    ("routes", "path"),
    [
        (({**BREACHES, "receivers": ["nobody"]},), "routes.0.receivers.0"),
        (({**BREACHES, "receivers": ["desk", "desk"]},), "routes.0.receivers.1"),
        ((BREACHES, BREACHES), "routes.1.name"),
        ((TICKETS, BREACHES), "routes.0.when"),
    ],
)
def test_a_route_that_cannot_work_is_refused_with_its_path(routes: Any, path: str) -> None:
    with pytest.raises(PagesMistake) as caught:
        rules(*routes)
    assert caught.value.path == path
    assert caught.value.allowed


# ------------------------------------------------------------------------------------- the machine

RULE = Rule(timedelta(seconds=30), timedelta(minutes=5), timedelta(hours=4))


def breach(number: int, at: datetime = NOON) -> Fire:
    (fired,) = clock_facts(example(TargetBreached, target_id=f"t-{number}", breached_at=at))
    assert isinstance(fired, Fire)
    return fired


class Desk:
    """One receiver, a clock, and all that it was told; what the store and the sender do, without them."""

    def __init__(self, rule: Rule = RULE) -> None:
        self.rule = rule
        self.now = NOON
        self.seq = 0
        self.alerts: dict[str, AlertState] = {}
        self.page: Page | None = None
        self.told: list[tuple[datetime, Saying, paging.Seen]] = []
        self.answers: list[str] = []
        self.meanwhile: list[list[Change]] = []
        """What is heard while the next messages are on their way, three seconds each."""
        self.looks = 0

    def hear(self, *changes: Change) -> None:
        for change in changes:
            self.seq += 1
            before = self.alerts.get(change.alert_key)
            after = paging.fold(before, change, self.seq)
            if after is None or after is before:
                continue
            self.alerts[change.alert_key] = after
            known = {} if self.page is None else {(self.page.group_key, "desk"): self.page}
            (page,) = paging.pages_of(after.alert, known)
            self.page = paging.touched(page, self.rule, self.now, after.alert.severity)

    def until(self, at: datetime) -> None:
        """Let time pass, and do what falls due."""
        while self.page is not None and self.page.due_at is not None and self.page.due_at <= at:
            self.now = max(self.now, self.page.due_at)
            self.look()
        self.now = max(self.now, at)

    def look(self) -> None:
        assert self.page is not None
        self.looks += 1
        seen = paging.seen_of(self.page, self.alerts.values())
        act = paging.look(self.page, seen, self.rule, self.now)
        if act.saying is None:
            assert act.page.due_at is None or act.page.due_at > self.now, "it would spin"
            self.page = act.page
            return
        before, self.page = self.page, paging.begun(act.page, self.now)
        answer = self.answers.pop(0) if self.answers else "delivered"
        if answer in ("delivered", "lost"):
            self.told.append((self.now, act.saying, seen))
        if self.meanwhile:
            self.now += SECOND
            self.hear(*self.meanwhile.pop(0))
            self.now += 2 * SECOND
        if answer == "delivered":
            self.page = paging.delivered(self.page, act.saying, seen, self.rule, self.now, "ref")
        elif answer == "refused":
            self.page = paging.refused(self.page, act.saying, seen, self.rule, self.now, "no")
        elif answer != "crash":
            self.page = paging.failed(
                self.page,
                self.now,
                "away",
                is_unknown=answer == "lost",
                was_begun=before.is_begun,
            )

    @property
    def said(self) -> list[str]:
        return [saying.value for _, saying, _ in self.told]


def test_a_group_is_told_once_its_wait_is_over_with_all_that_came_meanwhile() -> None:
    desk = Desk()
    desk.hear(breach(1))
    desk.until(NOON + 29 * SECOND)
    assert desk.said == []
    desk.hear(*(breach(number) for number in range(2, 1_000)))
    desk.until(NOON + 30 * SECOND)
    assert desk.said == ["trigger"]
    assert desk.told[0][2].firing == 999


def test_what_is_over_before_it_was_told_is_never_told() -> None:
    desk = Desk()
    desk.hear(breach(1))
    desk.until(NOON + 20 * SECOND)
    desk.hear(*clock_facts(example(BreachRetracted)))
    desk.until(NOON + timedelta(days=1))
    assert desk.said == []


def test_changes_are_told_no_sooner_than_the_interval_and_together() -> None:
    desk = Desk()
    desk.hear(breach(1))
    desk.until(NOON + 60 * SECOND)
    desk.hear(breach(2))
    desk.until(NOON + 90 * SECOND)
    desk.hear(breach(3))
    desk.until(NOON + timedelta(minutes=5, seconds=29))
    assert desk.said == ["trigger"]
    desk.until(NOON + timedelta(minutes=5, seconds=30))
    assert desk.said == ["trigger", "update"]
    assert desk.told[1][2].firing == 3


def test_what_gets_worse_does_not_wait_for_the_interval() -> None:
    desk = Desk()
    desk.hear(*clock_facts(example(TargetAtRisk)))
    desk.until(NOON + 60 * SECOND)
    desk.hear(breach(1))
    desk.until(NOON + 90 * SECOND)
    assert desk.said == ["trigger", "update"]
    assert [seen.severity for _, _, seen in desk.told] == ["warning", "critical"]


def test_a_group_without_news_is_told_again_after_repeat_interval() -> None:
    desk = Desk()
    desk.hear(breach(1))
    desk.until(NOON + timedelta(hours=8, minutes=1))
    assert [at - NOON for at, _, _ in desk.told] == [
        timedelta(seconds=30),
        timedelta(hours=4, seconds=30),
        timedelta(hours=8, seconds=30),
    ]


def test_t16_the_end_tells_the_retraction_to_whoever_was_told_of_the_breach() -> None:
    """T16: a reply in time that arrives late."""
    desk = Desk()
    desk.hear(breach(1))
    desk.until(NOON + timedelta(minutes=10))
    desk.hear(*clock_facts(example(BreachRetracted)))
    desk.until(NOON + timedelta(minutes=11))
    assert desk.said == ["trigger", "resolve"]
    seen = desk.told[1][2]
    assert desk.page is not None
    words = page_text.message(
        Saying.RESOLVE, desk.page, seen, desk.now, workspace="w", console_url="", runbook=""
    ).notice
    assert words.title == "[RESOLVED] targets: queue service, target first response"
    assert "retracted: answered in time at 2026-11-24 11:58:00 UTC" in words.text


@pytest.mark.parametrize("answer", ["delivered", "lost", "failed", "refused", "crash"])
def test_a_breach_that_is_heard_of_while_a_message_is_on_its_way_is_told(answer: str) -> None:
    desk = Desk()
    desk.answers, desk.meanwhile = [answer], [[breach(2)]]
    desk.hear(breach(1))
    desk.until(NOON + timedelta(minutes=10))
    assert desk.told[-1][2].firing == 2


def test_a_breach_that_is_heard_of_while_an_end_is_on_its_way_begins_anew() -> None:
    desk = Desk()
    desk.hear(breach(1))
    desk.until(NOON + timedelta(minutes=10))
    desk.meanwhile = [[breach(2)]]
    desk.hear(*clock_facts(example(TargetMet)))
    desk.until(NOON + timedelta(minutes=20))
    assert desk.said == ["trigger", "resolve", "trigger"]


@pytest.mark.parametrize("refusals", [0, 1, 3])
def test_an_alertmanager_hears_of_what_fires_before_it_takes_it_for_over(refusals: int) -> None:
    """Also where group_interval is longer than an alert stands there without a word."""
    hour = timedelta(hours=1)
    desk = Desk(Rule(timedelta(minutes=2), hour, 12 * hour, keepalive=paging.KEEPALIVE))
    desk.hear(breach(1))
    desk.until(NOON + timedelta(minutes=20))
    desk.answers = ["refused"] * refusals
    desk.hear(breach(2))
    desk.until(NOON + timedelta(minutes=40))
    desk.hear(*clock_facts(example(TargetMet)))
    desk.until(NOON + timedelta(minutes=40, seconds=1))
    desk.hear(breach(1, NOON + timedelta(minutes=40)))
    desk.until(NOON + 2 * hour)
    times = [at for at, saying, _ in desk.told if saying is not Saying.RESOLVE]
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) < paging.LIFE
    assert times[-1] > NOON + 2 * hour - paging.LIFE


def test_a_storm_on_a_group_that_was_told_needs_few_looks_at_it() -> None:
    desk = Desk()
    desk.hear(breach(0))
    desk.until(NOON + timedelta(minutes=1))
    looks = desk.looks
    for number in range(1, 200):
        desk.hear(breach(number))
        desk.until(desk.now + SECOND)
    desk.until(NOON + timedelta(minutes=6))
    assert desk.told[-1][2].firing == 200
    assert desk.looks - looks <= 4


SPLIT = rules(
    {**BREACHES, "receivers": ["duty"]},
    RISKS,
    desk={"kind": "slack", "channel": "C0123", "token": "env:T"},
    duty={"kind": "pagerduty", "routing_key": "env:K"},
)


def test_a_risk_that_becomes_somebody_elses_breach_is_not_told_as_resolved() -> None:
    (risk,) = alerts.changes(SPLIT, None, (example(TargetAtRisk),), None, NOON)
    (broken,) = alerts.changes(SPLIT, None, (example(TargetBreached),), None, NOON)
    desk = Desk()
    desk.hear(risk)
    desk.until(NOON + timedelta(minutes=1))
    assert desk.said == ["trigger"]
    after = paging.fold(desk.alerts["t-1"], broken, 2)
    assert after is not None
    assert desk.page is not None
    desk.alerts["t-1"] = after
    desk.page = paging.touched(desk.page, RULE, desk.now, "critical")
    desk.until(NOON + timedelta(minutes=10))
    assert desk.said == ["trigger", "resolve"]
    (_, saying, seen) = desk.told[-1]
    assert desk.page is not None
    words = page_text.message(
        saying, desk.page, seen, desk.now, workspace="w", console_url="", runbook=""
    ).notice
    assert words.title.startswith("[MOVED]")
    assert "now broken, told to duty" in words.text
    assert "Nothing of it stands" not in words.text
    desk.until(NOON + timedelta(days=1))
    assert desk.said == ["trigger", "resolve"]


def test_a_receiver_that_wants_no_ends_hears_of_none_and_of_the_next_breach_anew() -> None:
    desk = Desk(RULE._replace(send_resolved=False))
    desk.hear(breach(1))
    desk.until(NOON + timedelta(minutes=1))
    desk.hear(*clock_facts(example(TargetMet)))
    desk.until(NOON + timedelta(hours=1))
    desk.hear(breach(2))
    desk.until(NOON + timedelta(hours=2))
    assert desk.said == ["trigger", "trigger"]


def test_after_a_lost_answer_the_page_is_told_again_and_ended_even_if_it_is_over_by_then() -> None:
    desk = Desk()
    desk.answers = ["lost"]
    desk.hear(breach(1))
    desk.until(NOON + 31 * SECOND)
    desk.hear(*clock_facts(example(TargetMet)))
    desk.until(NOON + timedelta(hours=1))
    assert desk.said == ["trigger", "resolve"]


def test_a_sender_that_dies_while_it_sends_leaves_a_page_that_is_sent_again() -> None:
    desk = Desk()
    desk.answers = ["crash"]
    desk.hear(breach(1))
    desk.until(NOON + timedelta(minutes=5))
    assert desk.said == ["trigger"]
    assert desk.told[0][0] == NOON + timedelta(seconds=30) + paging.ATTEMPT


def test_failures_are_retried_later_each_time_and_what_the_receiver_says_is_believed() -> None:
    page = Page(group_key="g", receiver="r", family="sla", group={}, route="x")
    pauses = []
    for _ in range(8):
        page = paging.failed(page, NOON, "away", is_unknown=False, was_begun=False)
        assert page.due_at is not None
        pauses.append((page.due_at - NOON).total_seconds())
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300]
    for seconds, pause in ((420, 420), (7, 300), (0, 300), (10_000, 3_600)):
        told = paging.failed(
            page, NOON, "429", is_unknown=False, was_begun=False, retry_after=seconds * SECOND
        )
        assert told.due_at == NOON + pause * SECOND


def test_what_a_receiver_refuses_for_good_is_not_sent_again_before_the_reminder() -> None:
    desk = Desk()
    desk.answers = ["refused"]
    desk.hear(breach(1))
    desk.until(NOON + timedelta(hours=3))
    assert desk.said == []
    assert desk.page is not None
    assert desk.page.problem == "no"
    desk.until(NOON + timedelta(hours=5))
    assert desk.said == ["trigger"]
    assert desk.page.problem == ""


def test_a_storm_is_one_message_of_bounded_length() -> None:
    desk = Desk()
    desk.hear(*(breach(number) for number in range(3_000)))
    desk.until(NOON + timedelta(minutes=1))
    (_, saying, seen) = desk.told[0]
    assert desk.page is not None
    message = page_text.message(
        saying,
        desk.page,
        seen,
        desk.now,
        workspace="w",
        console_url="https://console.example/",
        runbook="https://runbooks.example/x",
    )
    assert "3000 targets broken" in message.notice.title
    assert "… and 2990 more." in message.notice.text
    assert len(message.notice.text) < 4_000
    assert "https://console.example/tickets/" in message.notice.text


steps = st.lists(
    st.tuples(
        st.sampled_from(("fire", "risk", "end", "retract", "wait")),
        st.integers(0, 3),
        st.integers(0, 400),
        st.sampled_from(("delivered", "delivered", "delivered", "failed", "lost", "crash")),
        st.booleans(),
    ),
    max_size=40,
)


def change_of(what: str, number: int, now: datetime) -> Iterable[Change]:
    facts = {
        "fire": (TargetBreached, {"breached_at": now}),
        "risk": (TargetAtRisk, {"at": now}),
        "end": (TargetMet, {"met_at": now}),
        "retract": (BreachRetracted, {}),
    }
    if what not in facts:
        return ()
    kind, more = facts[what]
    told = example(kind, target_id=f"t-{number}", **more)
    return alerts.changes(PAGES, None, (told,), None, now)


@settings(max_examples=300)
@given(steps, st.booleans())
def test_whatever_happens_each_episode_is_told_ends_once_and_nothing_is_said_twice(
    story: list[tuple[str, int, int, str, bool]], is_reliable: bool
) -> None:
    """Every told group ends resolved exactly once; the same words come again only as a reminder; nothing is told too soon."""
    desk = Desk()
    for what, number, seconds, answer, is_meanwhile in story:
        if not is_reliable and answer != "delivered":
            desk.answers.append(answer)
        heard = list(change_of(what, number, desk.now))
        if is_meanwhile:
            desk.meanwhile.append(heard)
        else:
            desk.hear(*heard)
        desk.until(desk.now + timedelta(seconds=seconds))
    desk.answers, desk.meanwhile = [], []
    desk.until(desk.now + timedelta(minutes=20))
    if desk.page is not None:
        known = paging.seen_of(desk.page, desk.alerts.values())
        assert not known.news, "what fires is told"
    for number in range(4):
        desk.hear(*change_of("end", number, desk.now))
    desk.until(desk.now + timedelta(days=1))
    assert desk.page is None or not (desk.page.is_told or desk.page.is_begun)
    assert desk.page is None or desk.page.due_at is None
    if desk.said:
        assert desk.said[-1] == "resolve", "it ends"
    is_open, last = False, None
    for at, saying, seen in desk.told:
        if saying is Saying.RESOLVE:
            assert is_open or not is_reliable, "an end of nothing"
            is_open, last = False, None
            continue
        assert (saying is not Saying.TRIGGER) or not is_open or not is_reliable
        if last is not None and is_reliable:
            is_same = paging.content_of(seen) == paging.content_of(last[1])
            assert not is_same or at - last[0] >= RULE.repeat
            is_soon = at - last[0] < RULE.interval
            assert not is_soon or paging.is_worse(seen.severity, last[1].severity)
        is_open, last = True, (at, seen)


def test_a_groups_name_depends_on_its_labels_and_not_on_their_order() -> None:
    found = {
        group_key("sla", {"queue": "a", "target": "b"}),
        group_key("sla", {"target": "b", "queue": "a"}),
    }
    assert len(found) == 1
    assert group_key("paged", {"queue": "a", "target": "b"}) not in found
    assert isinstance(breach(1).alert, Alert)
