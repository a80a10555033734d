"""Who is told elsewhere that a ticket is somebody's, what is told when a place cannot be, and that nothing is told twice."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.testing.instants import at
from schemas.elsewhere import AssignmentElsewhereDone, AssignmentElsewhereFailed
from services.router.core.elsewhere.calls import Assign, Card, Message
from services.router.core.elsewhere.decide import (
    RETRY_AFTER_MAX,
    Ask,
    Done,
    NotDone,
    Unknown,
    item_name,
    next_due,
)
from services.router.core.elsewhere.policy import Board, Desk, Lists, Messenger, Places
from services.router.core.elsewhere.state import Conversation, Reason, Resting, Waiting
from tests.unit.router.elsewhere_kit import (
    ALL,
    BOARD,
    CONVERSATION,
    DESK,
    TEAM,
    TICKET,
    Story,
    assigned,
    closed,
    erased,
    escalated,
    merged,
    offered,
    opened,
    places,
    prioritised,
    queued,
    released,
    reopened,
    requeued,
    solved,
    taken,
    unmerged,
    withdrawn,
)

LATER = NotDone(Reason.FAILED, is_recoverable=True, detail="503")
NEVER = NotDone(Reason.MISSING, is_recoverable=False, detail="404")


def desk_story(**changes: Any) -> Story:
    """A ticket of the helpdesk, opened at nine."""
    policy = places(desk=DESK.model_copy(update=changes))
    return Story(policy).when(opened(), at("09:00"))


# ------------------------------------------------------------------------------------- helpdesks


def test_a_helpdesk_is_told_who_has_its_ticket_and_says_that_it_shows_it() -> None:
    story = desk_story().when(assigned(), at("09:01"))
    assert story.calls() == [Assign("5158", "256", None)]
    story.settle(Done(), at("09:01:01"))
    assert story.decision.events == (
        AssignmentElsewhereDone(
            ticket_id=TICKET, conversation_id=CONVERSATION, place="desk", vendor="zendesk",
            says="assigned", agent_id="ada", attempts=1, at=at("09:01:01"), is_changed=True,
        ),
    )  # fmt: skip


def test_an_opened_and_an_offered_ticket_are_no_news_for_a_helpdesk() -> None:
    story = desk_story()
    assert story.calls() == []
    assert story.when(offered(), at("09:00:30")).decision.ignored == "no_place"
    event = assigned(status="offered", before="queued")
    assert story.when(event, at("09:00:30")).decision.ignored == "no_news"


def test_a_ticket_that_is_taken_away_is_nobodys_there_too() -> None:
    story = desk_story().when(assigned(), at("09:01")).settle(Done(), at("09:01:01"))
    assert story.when(queued(), at("09:02")).calls() == [Assign("5158", "", None)]


def test_without_unassign_the_last_one_stays() -> None:
    story = desk_story(unassign=False).when(assigned(), at("09:01")).settle(Done(), at("09:01:01"))
    assert story.when(queued(), at("09:02")).calls() == []
    assert story.when(escalated(), at("09:03")).calls() == [Assign("5158", None, "31")]


def test_an_escalated_ticket_is_the_groups_and_told_once() -> None:
    story = desk_story().when(assigned(), at("09:01")).settle(Done(), at("09:01:01"))
    assert story.when(escalated(), at("09:03")).calls() == [Assign("5158", "", "31")]
    again = queued(reason="escalated", queue="technical", when="09:03")
    assert story.when(again, at("09:03")).decision.ignored == "told_by_the_escalation"
    story.settle(Done(), at("09:03:01"))
    taken_up = assigned("grace", "09:04", queue="technical")
    assert story.when(taken_up, at("09:04")).calls() == [Assign("5158", "257", "31")]


def test_the_customers_reply_leaves_the_helpdesk_with_whoever_answered_last() -> None:
    story = desk_story().when(assigned(), at("09:01")).settle(Done(), at("09:01:01"))
    event = queued("pending", reason="customer_replied")
    assert story.when(event, at("09:02")).decision.ignored == "no_place"


def test_a_ticket_that_nobody_ever_had_is_not_unassigned() -> None:
    story = desk_story().when(queued(), at("09:02"))
    assert (story.calls(), story.decision.ignored) == ([], "nobody_was_shown")


@pytest.mark.parametrize(
    ("changes", "channel"),
    [({"account": "other"}, "zendesk"), ({"account": "desk"}, "email")],
)
def test_a_ticket_of_another_account_or_channel_is_no_business_of_the_helpdesk(
    changes: dict[str, str], channel: str
) -> None:
    contact = opened().contact.model_copy(update={"channel": channel, **changes})
    story = Story(places(desk=DESK)).when(opened(contact=contact), at("09:00"))
    assert story.when(assigned(), at("09:01")).decision.ignored == "no_place"


def test_an_agent_without_a_user_there_is_a_failure_with_a_name_and_no_call() -> None:
    story = desk_story().when(assigned("olga"), at("09:01"))
    assert story.calls() == []
    (said,) = story.decision.events
    assert isinstance(said, AssignmentElsewhereFailed)
    assert (said.reason, said.agent_id, said.attempts) == ("agent_unmapped", "olga", 0)
    assert story.when(assigned("ada", "09:02"), at("09:02")).calls() == [
        Assign("5158", "256", None)
    ]


def test_a_ticket_whose_message_named_no_ticket_of_theirs_fails_by_name() -> None:
    story = Story(places(desk=DESK)).when(opened(vendor_thread=""), at("09:00"))
    (said,) = story.when(assigned(), at("09:01")).decision.events
    assert isinstance(said, AssignmentElsewhereFailed)
    assert said.reason == "no_thread"


def test_the_same_news_again_is_no_news() -> None:
    story = desk_story().when(assigned(), at("09:01"))
    assert story.when(assigned(when="09:01:05"), at("09:01:05")).decision.ignored == "already_told"
    assert story.when(opened(), at("09:01")).decision.ignored == "already_known"


# ------------------------------------------------------------------------------------- the latest wins


def test_a_newer_assignment_waits_for_the_call_under_way_and_then_takes_its_place() -> None:
    story = desk_story().when(assigned("ada"), at("09:01"))
    story.when(assigned("grace", "09:02"), at("09:02"))
    assert (story.calls(), story.decision.superseded) == ([], ("zendesk",))
    story.settle(Done(), at("09:02:01"))
    assert [said.agent_id for said in story.decision.events] == ["ada"]
    assert story.calls() == [Assign("5158", "257", None)]


def test_a_call_that_was_overtaken_before_it_began_is_not_made() -> None:
    story = desk_story().when(assigned("ada"), at("09:01"))
    story.when(assigned("grace", "09:02"), at("09:02"))
    story.settle(NotDone(Reason.SUPERSEDED, is_recoverable=True), at("09:02:01"))
    assert story.decision.events == ()
    assert story.calls() == [Assign("5158", "257", None)]


def test_a_failure_of_what_is_overtaken_is_nobodys_news() -> None:
    for result in (LATER, NEVER):
        story = desk_story().when(assigned("ada"), at("09:01"))
        story.when(assigned("grace", "09:02"), at("09:02")).settle(result, at("09:02:01"))
        assert story.decision.events == ()
        assert story.calls() == [Assign("5158", "257", None)]


def test_a_retry_that_waits_is_overtaken_at_once() -> None:
    story = desk_story().when(assigned("ada"), at("09:01")).settle(LATER, at("09:01:01"))
    story.when(assigned("grace", "09:01:02"), at("09:01:02"))
    assert story.calls() == [Assign("5158", "257", None)]
    assert next_due(story.state) is None
    assert story.tick(at("09:01:10")).decision.ignored == "nothing_due"


def test_whoever_asked_us_to_wait_is_waited_for_even_with_newer_news() -> None:
    throttled = NotDone(Reason.THROTTLED, True, timedelta(seconds=30), "429")
    story = desk_story().when(assigned("ada"), at("09:01")).settle(throttled, at("09:01:01"))
    assert next_due(story.state) == at("09:01:31")
    assert story.when(assigned("grace", "09:01:02"), at("09:01:02")).calls() == []
    assert story.tick(at("09:01:30")).calls() == []
    assert story.tick(at("09:01:31")).calls() == [Assign("5158", "257", None)]


# ------------------------------------------------------------------------------------- failures


def test_a_call_that_fails_for_now_is_made_again_by_the_schedule_until_the_limit() -> None:
    story = desk_story().when(assigned(), at("09:01")).settle(LATER, at("09:01"))
    now, attempts = at("09:01"), 1
    while (due := next_due(story.state)) is not None:
        assert due - now == timedelta(seconds=2 if attempts == 1 else 10)
        assert story.tick(due - timedelta(seconds=1)).calls() == []
        assert story.tick(due).calls() == [Assign("5158", "256", None)]
        attempts += 1
        assert story.asks[-1].attempt == attempts
        assert story.asks[-1].name == story.asks[0].name
        now = due
        story.settle(LATER, now)
    assert at("09:03:50") < now <= at("09:04")
    (said,) = story.told
    assert isinstance(said, AssignmentElsewhereFailed)
    assert (said.reason, said.detail, said.attempts) == ("failed", "503", attempts)


def test_a_refusal_ends_at_once_by_its_name() -> None:
    story = desk_story().when(assigned(), at("09:01")).settle(NEVER, at("09:01:01"))
    (said,) = story.decision.events
    assert isinstance(said, AssignmentElsewhereFailed)
    assert (said.reason, said.detail, said.attempts) == ("missing", "404", 1)
    assert next_due(story.state) is None
    (item,) = story.state.items.values()
    assert item.standing == Resting("missing")


def test_the_vendors_wish_counts_where_it_is_longer_and_is_bounded() -> None:
    for wish, due in (
        (timedelta(seconds=1), at("09:01:02")),
        (timedelta(seconds=90), at("09:02:30")),
    ):
        result = NotDone(Reason.FAILED, True, wish)
        story = desk_story().when(assigned(), at("09:01")).settle(result, at("09:01"))
        assert next_due(story.state) == due
    lost = Unknown(Reason.FAILED, "503", timedelta(seconds=90))
    story = desk_story().when(assigned(), at("09:01")).settle(lost, at("09:01"))
    assert next_due(story.state) == at("09:02:30")
    endless = NotDone(Reason.THROTTLED, True, timedelta(days=365))
    policy = replace(places(desk=DESK), give_up_after=timedelta(days=7))
    story = Story(policy).when(opened(), at("09:00")).when(assigned(), at("09:01"))
    assert next_due(story.settle(endless, at("09:01")).state) == at("09:01") + RETRY_AFTER_MAX


def test_an_answer_that_nobody_waits_for_changes_nothing() -> None:
    story = desk_story().when(assigned(), at("09:01"))
    ask = story.asks[-1]
    story.settle(Done(), at("09:01:01"))
    assert story.settle(Done(), at("09:01:02"), ask).decision.ignored == "not_awaited"
    assert story.settle(NEVER, at("09:01:02"), replace(ask, attempt=2)).decision.events == ()


def test_a_place_that_left_the_policy_ends_its_retries_by_name() -> None:
    story = desk_story().when(assigned(), at("09:01")).settle(LATER, at("09:01"))
    story.policy = places(team=TEAM)
    (said,) = story.tick(at("09:01:02")).decision.events
    assert isinstance(said, AssignmentElsewhereFailed)
    assert said.reason == "place_gone"


@pytest.mark.parametrize(("hours", "is_told"), [(24, True), (25, False)])
def test_old_news_is_told_to_nobody(hours: int, is_told: bool) -> None:
    story = desk_story()
    now = at("09:01") + timedelta(hours=hours)
    assert bool(story.when(assigned(), now).calls()) is is_told


def test_those_who_were_sent_away_together_do_not_come_back_together() -> None:
    """The vendor's wish is stretched like our own delays are."""
    dues = set()
    for number in range(20):
        policy = replace(places(desk=DESK), jitter=0.2)
        ticket = f"ticket-{number}"
        story = Story(policy).when(opened(ticket_id=ticket), at("09:00"))
        story.when(assigned(ticket_id=ticket), at("09:01"))
        story.settle(NotDone(Reason.THROTTLED, True, timedelta(seconds=100)), at("09:01"))
        due = next_due(story.state)
        assert due is not None
        assert timedelta(seconds=100) <= due - at("09:01") <= timedelta(seconds=120)
        dues.add(due)
    assert len(dues) == 20


def test_a_call_that_found_no_room_is_put_off_by_no_more_than_one_first_delay() -> None:
    busy = NotDone(Reason.THROTTLED, True, detail="busy", is_begun=False)
    story = desk_story().when(assigned(), at("09:01"))
    now = at("09:01")
    for _ in range(5):
        due = next_due(story.settle(busy, now).state)
        assert due == now + timedelta(seconds=2)
        now = due
        story.tick(now)
    assert story.told == []


def test_newer_news_does_not_press_a_place_that_has_no_room() -> None:
    left_alone = NotDone(Reason.TIMEOUT, True, timedelta(seconds=30), is_begun=False)
    story = desk_story().when(assigned("ada"), at("09:01"))
    story.when(assigned("grace", "09:01:01"), at("09:01:01")).settle(left_alone, at("09:01:01"))
    assert (story.calls(), next_due(story.state)) == ([], at("09:01:31"))
    assert story.tick(at("09:01:31")).calls() == [Assign("5158", "257", None)]


# ------------------------------------------------------------------------------------- the wrong person


@pytest.mark.parametrize("status", ["pending", "on_hold", "snoozed"])
def test_a_resting_ticket_that_is_given_to_a_colleague_is_theirs_in_every_place(
    status: str,
) -> None:
    story = Story(places(desk=DESK, board=BOARD)).when(opened(), at("09:00"))
    story.settle(Done("card-1"), at("09:00:01")).when(assigned(), at("09:01"))
    for ask in story.asks[-2:]:
        story.settle(Done("card-1" if ask.place == "board" else ""), at("09:01:01"), ask)
    event = assigned(
        "grace", "09:05", before=status, status=status, reason="reassigned", queue="technical"
    )
    board, desk = story.when(event, at("09:05")).calls()
    assert desk == Assign("5158", "257", "31")
    assert (board.list_id, board.member) == ("l-assigned", "gracehopper")


def test_a_resting_ticket_that_is_nobodys_follows_its_queue() -> None:
    story = desk_story().when(assigned(), at("09:01")).settle(Done(), at("09:01:01"))
    event = queued(
        "on_hold", when="09:05", status="on_hold", reason="reassigned", queue="technical"
    )
    assert story.when(event, at("09:05")).calls() == [Assign("5158", "", "31")]


def test_a_helpdesk_does_not_go_on_showing_who_had_it_before_an_agent_without_a_user() -> None:
    story = desk_story().when(assigned("ada"), at("09:01")).settle(Done(), at("09:01:01"))
    story.when(assigned("olga", "09:02"), at("09:02"))
    assert (story.calls(), story.decision.events) == ([Assign("5158", "", None)], ())
    story.settle(LATER, at("09:02:01")).tick(at("09:02:03"))
    assert story.calls() == [Assign("5158", "", None)]
    (said,) = story.settle(Done(), at("09:02:04")).decision.events
    assert isinstance(said, AssignmentElsewhereFailed)
    assert (said.reason, said.agent_id) == ("agent_unmapped", "olga")
    (item,) = story.state.items.values()
    assert (item.standing, item.shown) == (Resting("agent_unmapped"), None)
    story.when(assigned("ada", "09:03"), at("09:03"))
    assert story.calls() == [Assign("5158", "256", None)]


def test_without_unassign_an_agent_without_a_user_changes_nothing_there() -> None:
    story = desk_story(unassign=False).when(assigned("ada"), at("09:01"))
    story.settle(Done(), at("09:01:01")).when(assigned("olga", "09:02"), at("09:02"))
    assert story.calls() == []
    (said,) = story.decision.events
    assert isinstance(said, AssignmentElsewhereFailed)
    assert said.reason == "agent_unmapped"


def test_a_card_loses_the_member_who_has_its_ticket_no_more() -> None:
    story = board_story().settle(Done("card-1"), at("09:00:01"))
    story.when(assigned("ada"), at("09:01")).settle(Done("card-1"), at("09:01:01"))
    (call,) = story.when(assigned("olga", "09:02"), at("09:02")).calls()
    assert (call.handle, call.list_id, call.member) == ("card-1", "l-assigned", "")
    (said,) = story.settle(Done("card-1"), at("09:02:01")).decision.events
    assert isinstance(said, AssignmentElsewhereFailed)
    assert said.reason == "agent_unmapped"


# ------------------------------------------------------------------------------------- messages


def team_story(**changes: Any) -> Story:
    policy = places(team=TEAM.model_copy(update=changes))
    return Story(policy).when(opened(), at("09:00"))


def test_an_offer_is_a_message_and_what_becomes_of_it_changes_that_message() -> None:
    story = team_story().when(offered(), at("09:00:30"))
    (call,) = story.calls()
    assert isinstance(call, Message)
    assert (call.recipient, call.handle, call.look_from) == ("U0ADA", "", None)
    assert call.text == (
        "*SB-4K7TQ2M*\nOffered to ada until "
        f"<!date^{int(at('09:01').timestamp())}^{{time_secs}}|09:01:00 UTC> (service, priority 3)"
    )
    story.settle(Done("D0ADA/1.2"), at("09:00:31"))
    (changed,) = story.when(taken(), at("09:00:40")).calls()
    assert (changed.handle, changed.text) == (
        "D0ADA/1.2",
        "*SB-4K7TQ2M*\nada has it (service, priority 3)",
    )


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (requeued(reason="offer_declined"), "Not with ada any more: offer declined"),
        (requeued(reason="offer_expired"), "Not with ada any more: offer expired"),
        (withdrawn("ada", "r1"), "Not with ada any more: taken by other"),
        (released(reason="reassigned"), "Not with ada any more: reassigned"),
        (released(reason="solved"), "Solved by ada"),
    ],
)
def test_each_end_of_an_offer_is_said_in_its_message(event: Any, line: str) -> None:
    story = team_story().when(offered(), at("09:00:30")).settle(Done("D/1"), at("09:00:31"))
    (call,) = story.when(event, at("09:03")).calls()
    assert call.text.splitlines()[1].startswith(line)


def test_two_offers_of_one_ticket_are_two_messages_and_the_loser_is_told() -> None:
    story = team_story().when(offered("ada", "r1"), at("09:00:30"))
    story.settle(Done("DA/1"), at("09:00:31"))
    story.when(offered("grace", "r2"), at("09:00:31")).settle(Done("DG/1"), at("09:00:32"))
    story.when(taken("ada", "r1"), at("09:00:40")).settle(Done("DA/1"), at("09:00:41"))
    (call,) = story.when(withdrawn("grace", "r2"), at("09:00:42")).calls()
    assert (call.recipient, call.handle) == ("U0GRACE", "DG/1")


def test_an_offer_that_has_ended_meanwhile_is_not_told() -> None:
    story = team_story()
    assert story.when(offered(), at("09:00:59.999")).calls() != []
    story = team_story()
    assert story.when(offered(), at("09:01")).decision.ignored == "offer_over"


def test_an_assignment_without_an_offer_is_a_message_of_its_own() -> None:
    story = team_story().when(taken(), at("09:00:40"))
    assert [call.text.splitlines()[1] for call in story.calls()] == [
        "ada has it (service, priority 3)"
    ]


def test_what_a_place_does_not_tell_it_does_not_tell() -> None:
    story = team_story(tell=("assigned",))
    assert story.when(offered(), at("09:00:30")).decision.ignored == "nobody_was_told"
    assert story.when(requeued(), at("09:01")).decision.ignored == "nobody_was_told"
    assert len(story.when(taken(), at("09:00:40")).calls()) == 1


def test_in_a_channel_the_agent_is_mentioned_and_a_stranger_is_named() -> None:
    for agent, who in (("ada", "<@U0ADA>"), ("olga", "olga")):
        story = team_story(to="C0TEAM").when(taken(agent), at("09:00:40"))
        (call,) = story.calls()
        assert call.recipient == "C0TEAM"
        assert call.text.splitlines()[1] == f"{who} has it (service, priority 3)"


def test_what_a_customer_wrote_breaks_out_of_no_message() -> None:
    policy = places(team=TEAM.model_copy(update={"show_subject": True}))
    event = opened(subject="<!channel> & <https://evil.example|click>\nnow")
    story = Story(policy).when(event, at("09:00")).when(taken(), at("09:00:40"))
    (call,) = story.calls()
    assert call.text.splitlines()[0] == (
        "*SB-4K7TQ2M*: &lt;!channel&gt; &amp; &lt;https://evil.example|click&gt; now"
    )


def test_an_offer_heard_before_its_ticket_is_told_when_the_ticket_is_known() -> None:
    """`tickets` and `routing` have no order between them."""
    story = Story(places(team=TEAM)).when(offered(), at("09:00:30"))
    assert story.calls() == []
    story.when(opened(), at("09:00:31"))
    assert [call.recipient for call in story.calls()] == ["U0ADA"]
    assert story.state.early == {}


def test_a_message_that_may_have_been_posted_is_looked_for() -> None:
    story = team_story().when(offered(), at("09:00:30"))
    story.settle(Unknown(Reason.TIMEOUT), at("09:00:50"))
    (call,) = story.tick(at("09:00:52")).calls()
    assert call.look_from == at("09:00:30")
    # Whatever is said next looks as well, until the message is known.
    story.settle(NotDone(Reason.FAILED, True), at("09:00:53"))
    (call,) = story.when(taken(when="09:00:54"), at("09:00:54")).calls()
    assert (call.look_from, call.text.splitlines()[1]) == (
        at("09:00:30"),
        "ada has it (service, priority 3)",
    )
    story.settle(Done("D/1"), at("09:00:55"))
    (call,) = story.when(released(), at("09:03")).calls()
    assert (call.handle, call.look_from) == ("D/1", None)


def test_a_change_whose_answer_was_lost_is_simply_made_again() -> None:
    story = team_story().when(offered(), at("09:00:30")).settle(Done("D/1"), at("09:00:31"))
    story.when(taken(), at("09:00:40")).settle(Unknown(Reason.INTERRUPTED), at("09:00:41"))
    (call,) = story.tick(at("09:00:43")).calls()
    assert (call.handle, call.look_from) == ("D/1", None)


@pytest.mark.parametrize(
    ("changes", "is_told"),
    [
        ({}, True),
        ({"queues": ("service",)}, True),
        ({"queues": ("technical",)}, False),
        ({"accounts": ("desk",)}, True),
        ({"accounts": ("support",)}, False),
    ],
)
def test_a_place_is_told_of_its_queues_and_accounts_alone(
    changes: dict[str, Any], is_told: bool
) -> None:
    assert bool(team_story(**changes).when(taken(), at("09:00:40")).calls()) is is_told


# ------------------------------------------------------------------------------------- cards


def board_story(**changes: Any) -> Story:
    return Story(places(board=BOARD.model_copy(update=changes))).when(opened(), at("09:00"))


def test_a_card_is_made_with_its_ticket_and_follows_it_through_the_lists() -> None:
    story = board_story()
    (made,) = story.calls()
    assert isinstance(made, Card)
    assert (made.list_id, made.member, made.handle) == ("l-waiting", "", "")
    assert made.name == "SB-4K7TQ2M My lamp never arrived"
    assert made.text.splitlines()[-1] == f"signalbox:{made.marker}"
    story.settle(Done("card-1"), at("09:00:01"))
    steps: list[tuple[Any, str, str]] = [
        (assigned(), "l-assigned", "adalovelace"),
        (escalated(), "l-waiting", ""),
        (assigned("grace", "09:04", queue="technical"), "l-assigned", "gracehopper"),
        (solved(agent="grace"), "l-solved", "gracehopper"),
        (reopened(), "l-waiting", ""),
    ]
    for event, list_id, member in steps:
        (call,) = story.when(event, event.at).calls()
        assert (call.list_id, call.member, call.handle) == (list_id, member, "card-1")
        story.settle(Done("card-1"), event.at)


def test_a_card_of_a_merged_or_unwanted_ticket_is_out_of_the_way_until_it_stands_again() -> None:
    for out, back in (
        (merged(), unmerged()),
        (queued(status="spam", when="09:10"), queued("spam", reason="restored", when="09:20")),
    ):
        story = board_story().settle(Done("card-1"), at("09:00:01"))
        story.when(assigned(), at("09:01")).settle(Done("card-1"), at("09:01:01"))
        assert [call.list_id for call in story.when(out, at("09:10")).calls()] == ["l-solved"]
        story.settle(Done("card-1"), at("09:10:01"))
        assert [call.list_id for call in story.when(back, at("09:20")).calls()] == ["l-waiting"]


@pytest.mark.parametrize("before", ["pending", "on_hold", "snoozed"])
def test_a_ticket_that_wakes_waits_on_the_board_and_stays_whose_it_was_at_the_helpdesk(
    before: str,
) -> None:
    story = Story(places(desk=DESK, board=BOARD)).when(opened(), at("09:00"))
    story.settle(Done("card-1"), at("09:00:01")).when(assigned(), at("09:01"))
    for ask in story.asks[-2:]:
        story.settle(Done("card-1" if ask.place == "board" else ""), at("09:01:01"), ask)
    story.when(queued(before), at("09:02"))
    assert [ask.place for ask in story.decision.asks] == ["board"]


def test_what_is_said_later_says_the_new_priority() -> None:
    story = team_story().when(prioritised(1), at("09:00:20"))
    (call,) = story.when(taken(), at("09:00:40")).calls()
    assert call.text.endswith("(service, priority 1)")


def test_without_a_list_for_waiting_a_card_is_made_when_somebody_has_it() -> None:
    story = board_story(lists=Lists(assigned="l-assigned"))
    assert (story.calls(), story.decision.ignored) == ([], None)
    (made,) = story.when(assigned(), at("09:01")).calls()
    assert (made.list_id, made.handle) == ("l-assigned", "")
    story.settle(Done("card-1"), at("09:01:01"))
    assert story.when(solved(), at("09:10")).calls() == []


def test_a_link_leads_to_the_ticket() -> None:
    policy = replace(places(board=BOARD, team=TEAM), link="https://desk.example/{reference}")
    story = Story(policy).when(opened(), at("09:00"))
    (card,) = story.calls()
    assert card.text.splitlines()[1] == "https://desk.example/SB-4K7TQ2M"
    (message,) = story.when(taken(), at("09:00:40")).calls()
    assert message.text.startswith("*<https://desk.example/SB-4K7TQ2M|SB-4K7TQ2M>*")


# ------------------------------------------------------------------------------------- what is kept


def test_a_closed_ticket_is_forgotten_when_nothing_is_under_way() -> None:
    story = desk_story().when(assigned(), at("09:01"))
    story.when(closed(), at("09:30"))
    assert TICKET in story.state.tickets
    story.settle(Done(), at("09:30:01"))
    assert story.state == Conversation()
    assert story.decision.let_go == (TICKET,)


def test_early_news_of_a_ticket_that_was_never_told_goes_with_its_end() -> None:
    story = Story(places(team=TEAM)).when(offered(), at("09:00:30"))
    assert story.state.early != {}
    assert story.when(closed(), at("09:30")).state == Conversation()


def test_an_erased_customers_words_are_kept_nowhere() -> None:
    story = board_story()
    assert "lamp" in str(msgspec.json.encode(story.state))
    story.when(erased(), at("09:40"))
    assert "lamp" not in str(msgspec.json.encode(story.state))


def test_words_are_kept_only_where_a_place_shows_them() -> None:
    story = desk_story()
    assert "lamp" not in str(msgspec.json.encode(story.state))


def test_with_no_place_nothing_is_kept() -> None:
    story = Story(Places()).when(opened(), at("09:00"))
    assert (story.state, story.decision.ignored) == (Conversation(), "no_place")
    assert story.when(assigned(), at("09:01")).decision.ignored == "ticket_unknown"


def test_an_unknown_tickets_news_means_nothing_to_a_helpdesk() -> None:
    story = Story(places(desk=DESK)).when(assigned(), at("09:01"))
    assert story.decision.ignored == "ticket_unknown"


# ------------------------------------------------------------------------------------- at large


class World:
    """Places that do what they are told or fail, and remember what was made."""

    def __init__(self) -> None:
        self.shown: dict[str, Any] = {}
        self.made: dict[str, int] = {}

    def answer(self, ask: Ask, how: str) -> Done | NotDone | Unknown:
        call = ask.call
        if how == "refused":
            return LATER
        if how == "busy":
            return NotDone(Reason.THROTTLED, True, is_begun=False)
        is_there = ask.item_id in self.made
        if how == "lost":
            return Unknown(Reason.TIMEOUT)
        if isinstance(call, Message | Card) and not call.handle:
            finds = call.look_from is not None and is_there
            self.made[ask.item_id] = self.made.get(ask.item_id, 0) + (0 if finds else 1)
        self.shown[ask.item_id] = ask.serial
        if how == "answer_lost":
            return Unknown(Reason.TIMEOUT)
        return Done("" if isinstance(call, Assign) else f"made-{ask.item_id}")


NEWS = st.sampled_from(
    [
        assigned("ada"), assigned("grace"), assigned("olga"), queued(), escalated(), solved(), reopened(),
        offered("ada", "r1"), offered("grace", "r2"), taken("ada", "r1"), taken("grace", "r2"),
        requeued("ada"), requeued("grace"), withdrawn("grace", "r2"), released("ada"),
    ]
)  # fmt: skip
STEP = st.one_of(
    st.tuples(st.just("news"), NEWS),
    st.tuples(
        st.just("answer"), st.sampled_from(["done", "refused", "busy", "lost", "answer_lost"])
    ),
    st.tuples(st.just("wait"), st.integers(min_value=1, max_value=20)),
)


@settings(max_examples=300)
@given(st.lists(STEP, max_size=40))
def test_whatever_happens_places_end_with_what_was_said_last_and_nothing_is_made_twice(
    steps: list[tuple[str, Any]],
) -> None:
    story, world, now = Story(ALL), World(), at("09:00")
    story.when(opened(), now)
    pending: list[Ask] = list(story.asks)

    def settle(how: str) -> None:
        ask = pending.pop(0)
        story.settle(world.answer(ask, how), now, ask)

    for kind, what in steps:
        # The state is stored and read again between any two inputs.
        raw = msgspec.json.encode(story.state)
        story.state = msgspec.json.decode(raw, type=Conversation)
        before = len(story.asks)
        match kind:
            case "news":
                field = {"offered_at": now, "expires_at": now + timedelta(seconds=30)}
                update = field if hasattr(what, "offered_at") else {"at": now, "assigned_at": now}
                story.when(what.model_copy(update=update), now)
            case "answer" if pending:
                settle(what)
            case _:
                now += timedelta(seconds=what if isinstance(what, int) else 1)
                story.tick(now)
        pending += story.asks[before:]
        names = [ask.item_id for ask in pending]
        assert len(names) == len(set(names)), "one call at a time for each item"
    for _ in range(60):
        before = len(story.asks)
        if pending:
            settle("done")
        elif (due := next_due(story.state)) is not None:
            now = max(now, due)
            story.tick(now)
        else:
            break
        pending += story.asks[before:]
    for key, item in story.state.items.items():
        if item.standing == Resting():
            assert world.shown.get(key) == item.wanted.serial or item.shown is None
        assert not isinstance(item.standing, Waiting)
    assert all(count == 1 for count in world.made.values())


def test_the_kinds_of_places_are_those_that_the_policy_knows() -> None:
    assert {type(place.settings) for place in ALL.places.values()} == {Desk, Messenger, Board}
    assert item_name(CONVERSATION, "desk", TICKET) != item_name(CONVERSATION, "desk", TICKET, "r1")
