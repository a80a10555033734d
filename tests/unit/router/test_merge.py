"""Two tickets of different conversations become one, and two again, over tasks that hear of each other late and twice."""

from collections import defaultdict
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Self, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from chassis.batch import partition_of
from chassis.policy import PolicyHolder
from chassis.testing import World
from schemas import commands, customers, merging, routing
from schemas import tickets as wire
from schemas.messages import MessageRevised
from schemas.notifications import NoticeFailed
from schemas.payload import Payload
from schemas.topics import COMMANDS, TICKETS
from services.router.core.tickets import decide
from services.router.core.tickets.decide import CloseDue, MergeDue, timers
from services.router.core.tickets.merge import HELD_MAX, PATIENCE
from services.router.core.tickets.rows import ErasedRow, MessageRow, MovedRow
from services.router.core.tickets.state import Conversation, Merged, Pending, Solved, Ticket
from services.router.handlers import POLICY as ROUTING
from services.router.handlers import TicketsStage
from services.sla.core import decide as sla
from services.sla.handlers import POLICY as CLOCKS
from tests.unit.router.stories import POLICY, at, message, one

EXAMPLES = Path(__file__).parents[3] / "policy"

P = TypeVar("P", bound=Payload)


class Threads:
    """Conversations of several tasks. What one tells another waits in its way until it is delivered, in order."""

    def __init__(self, *names: str) -> None:
        self.states: dict[str, Conversation | None] = {}
        self.told: dict[str, list[Payload]] = defaultdict(list)
        self.ways: dict[tuple[str, str], list[merging.MergeEvent]] = defaultdict(list)
        self.rows: dict[str, tuple[str | None, str]] = {}
        self.erased: list[ErasedRow] = []
        self.last: tuple[Payload, ...] = ()
        self.now = at("09:00")
        self._n = 0
        for name in names:
            self.writes(name)

    def hears(self, name: str, event: decide.Event, now: datetime | None = None) -> Self:
        self.now = max(self.now + timedelta(seconds=1), now or self.now)
        before = self.states.get(name)
        if before is not None:
            assert msgspec.json.decode(msgspec.json.encode(before), type=Conversation) == before
        decision = decide.decide(before, event, self.now, POLICY, self.now)
        assert decide.decide(before, event, self.now, POLICY, self.now) == decision
        self.states[name] = decision.state
        self.last = decision.events
        self.told[name] += decision.events
        for told in decision.events:
            if isinstance(told, merging.MergeEvent):
                self.ways[name, told.conversation_id].append(told)
        for row in decision.messages:
            self._store(row)
        return self

    def _store(self, row: Any) -> None:
        match row:
            case MessageRow():
                assert row.message_id not in self.rows, "a message is counted once"
                self.rows[row.message_id] = (row.ticket_id, row.outcome)
            case MovedRow():
                for message_id in row.message_ids:
                    _, outcome = self.rows[message_id]
                    self.rows[message_id] = (row.ticket_id, outcome)
            case ErasedRow():
                self.erased.append(row)

    def writes(self, name: str, message_id: str = "", **fields: Any) -> str:
        self._n += 1
        message_id = message_id or f"{name}{self._n}"
        written = message(message_id, conversation_id=name, occurred_at=self.now, **fields)
        self.hears(name, written)
        return message_id

    def commands(self, name: str, kind: type[commands.Command], **fields: Any) -> Self:
        self._n += 1
        known = {
            "command_id": f"k{self._n}",
            "conversation_id": name,
            "ticket_id": self.ticket(name).ticket_id,
            "agent_id": "ada",
        }
        event: Any = kind.model_validate(known | fields)
        return self.hears(name, event)

    def merges(self, name: str, into: str, **fields: Any) -> Self:
        return self.commands(
            name,
            commands.MergeTicket,
            into_conversation_id=into,
            into_ticket_id=self.ticket(into).ticket_id,
            **fields,
        )

    def delivers(self, rng: Random | None = None, *, twice: bool = False) -> Self:
        """Deliver all that waits; with `rng` the ways take turns by chance, and with `twice` each thing comes again."""
        while ways := sorted(way for way, waiting in self.ways.items() if waiting):
            way = rng.choice(ways) if rng is not None else ways[0]
            event = self.ways[way].pop(0)
            for _ in range(2 if twice else 1):
                self.hears(way[1], event)
        return self

    def held_by(self, name: str, agent: str = "ada") -> Self:
        known = {"ticket_id": self.ticket(name).ticket_id, "conversation_id": name}
        known |= {"work_id": self.ticket(name).work_id or "", "agent_id": agent}
        event = routing.TicketAssigned.model_validate(routing.TicketAssigned.EXAMPLE | known)
        return self.hears(name, event)

    def ticket(self, name: str) -> Ticket:
        state = self.states[name]
        assert state is not None
        assert state.ticket is not None
        return state.ticket

    def status(self, name: str) -> str:
        return self.ticket(name).standing.status

    def one(self, name: str, kind: type[P]) -> P:
        return one(self.told[name], kind)

    def all(self, name: str, kind: type[P]) -> list[P]:
        return [event for event in self.told[name] if isinstance(event, kind)]


def merged() -> Threads:
    return Threads("a", "b").held_by("a").merges("a", "b").delivers()


def test_a_merged_ticket_needs_nobody_and_says_where_it_goes_on() -> None:
    world = Threads("a", "b").held_by("a").merges("a", "b")
    assert world.status("a") == "assigned", "until the answer it is what it was"
    world.delivers()
    told = world.one("a", wire.TicketMerged)
    assert (told.into_conversation_id, told.into_ticket_id) == ("b", world.ticket("b").ticket_id)
    assert (told.before, told.into_reference) == ("assigned", world.ticket("b").reference)
    assert told.command_id == told.merge_id
    assert world.all("a", routing.WorkWithdrawn)[-1].reason == "merged"
    assert world.status("a") == "merged"


def test_t22_the_target_is_as_old_and_as_urgent_as_the_older_and_the_more_urgent() -> None:
    world = Threads("a")
    world.commands("a", commands.PrioritiseTicket, priority=1, reason="x")
    world.commands("a", commands.TagTicket, add=["late"])
    world.now = at("11:00")
    world.writes("b")
    world.commands("b", commands.TagTicket, add=["angry"])
    world.merges("a", "b").delivers()
    told = world.one("b", wire.TicketAbsorbed)
    assert told.opened_at == told.other_opened_at == world.ticket("a").opened_at
    assert (told.priority, told.tags) == (1, ("angry", "late"))
    assert told.waiting_since == at("09:00")
    ticket = world.ticket("b")
    assert (ticket.opened_at, ticket.entered_at) == (told.opened_at, told.opened_at)
    work = world.all("b", routing.WorkRequested)[-1]
    assert (work.entered_at, work.priority, work.reason) == (told.opened_at, 1, "absorbed")


def test_facts_of_both_are_kept_and_the_targets_own_come_first() -> None:
    facts = {"tried": "two browsers", "impact": "cannot order"}
    world = Threads("a", "b")
    world.commands("a", commands.EscalateTicket, reason="x", facts=facts | {"order": "1007"})
    world.commands("b", commands.EscalateTicket, reason="x", facts=facts | {"order": "1"})
    world.merges("a", "b").delivers()
    assert world.ticket("b").facts == facts | {"order": "1"}


def test_what_rests_wakes_where_the_other_ones_customer_waits_for_us() -> None:
    world = Threads("a", "b").held_by("b")
    world.commands("b", commands.ReplyToCustomer, text="Soon.")
    world.merges("a", "b").delivers()
    assert world.status("b") == "queued"
    assert world.all("b", wire.TicketStatusChanged)[-1].reason == "absorbed"


def test_what_rests_rests_on_where_nobody_waits_for_us() -> None:
    world = Threads("a", "b").held_by("a").held_by("b")
    for name in "ab":
        world.commands(name, commands.ReplyToCustomer, text="Soon.")
    world.merges("a", "b").delivers()
    assert isinstance(world.ticket("b").standing, Pending)


def test_a_message_in_a_merged_conversation_is_carried_both_tell_it_and_it_is_counted_once() -> (
    None
):
    world = merged()
    name = world.writes("a")
    carried = world.one("a", wire.TicketMessageCarried)
    assert (carried.message_id, carried.into_conversation_id) == (name, "b")
    world.delivers()
    added = world.one("b", wire.TicketMessageAdded)
    assert (added.message_id, added.from_conversation_id, added.contact) == (name, "a", None)
    assert world.rows[name] == (world.ticket("b").ticket_id, "carried")


def test_a_carried_message_leaves_where_answers_go() -> None:
    world = merged()
    sender = {"kind": "email", "address": "work@example.com", "name": "Ada"}
    world.writes("a", sender=sender)
    world.delivers()
    assert world.ticket("b").contact.address == "ada@example.com"


def test_a_bounce_is_carried_too_and_wakes_nobody() -> None:
    world = merged().held_by("b")
    world.commands("b", commands.ReplyToCustomer, text="Soon.")
    world.writes("a", kind="bounce", is_automatic=True)
    world.delivers()
    assert world.one("b", wire.TicketMessageAdded).kind == "bounce"
    assert world.status("b") == "pending"


def test_a_carried_message_reopens_a_solved_target() -> None:
    world = merged().held_by("b")
    world.commands("b", commands.SolveTicket)
    name = world.writes("a")
    world.delivers()
    assert world.one("b", wire.TicketReopened).message_id == name
    assert world.rows[name] == (world.ticket("b").ticket_id, "carried")


def test_an_answer_given_elsewhere_in_a_merged_conversation_answers_the_target() -> None:
    world = merged()
    world.now += timedelta(hours=1)
    world.writes("a", direction="outbound")
    world.delivers()
    assert world.one("b", wire.TicketAnsweredElsewhere).channel == "email"
    assert world.status("b") == "pending"


def test_what_comes_while_the_answer_is_out_is_the_sources_and_carried_after_it() -> None:
    world = Threads("a", "b").merges("a", "b")
    name = world.writes("a")
    assert world.rows[name][1] == "added"
    world.delivers()
    assert [event.message_id for event in world.all("b", wire.TicketMessageAdded)] == [name]
    assert world.rows[name] == (world.ticket("b").ticket_id, "added")


def test_so_many_messages_are_carried_after_it_and_more_stay_with_the_source() -> None:
    world = Threads("a", "b").merges("a", "b")
    for _ in range(HELD_MAX + 1):
        world.writes("a")
    world.delivers()
    assert len(world.all("b", wire.TicketMessageAdded)) == HELD_MAX


def test_while_the_answer_is_out_only_words_and_priorities_are_taken() -> None:
    world = Threads("a", "b").held_by("a").merges("a", "b")
    world.commands("a", commands.SolveTicket)
    assert one(world.last, wire.CommandRefused).reason == "merge_underway"
    world.commands("a", commands.AddNote, text="x")
    assert one(world.last, wire.TicketNoteAdded)


def refusal(world: Threads, name: str = "a") -> wire.CommandRefused:
    world.delivers()
    refused = world.one(name, wire.CommandRefused)
    assert refused.command == "command.merge.v1"
    assert world.ticket(name).merging is None
    return refused


def test_a_ticket_is_not_merged_into_itself() -> None:
    world = Threads("a").merges("a", "a")
    assert refusal(world).reason == "same_ticket"


def test_a_target_that_never_was_is_refused_and_no_conversation_is_made_for_it() -> None:
    world = Threads("a")
    world.commands("a", commands.MergeTicket, into_conversation_id="x", into_ticket_id="t")
    refused = refusal(world)
    assert (refused.reason, refused.state) == ("target_unknown", "queued")
    assert world.states["x"] is None


def test_a_closed_target_is_refused_by_name_also_within_the_conversation() -> None:
    world = Threads("a", "b")
    gone = world.ticket("b").ticket_id
    world.commands("b", commands.SolveTicket)
    world.hears("b", CloseDue(), at("2026-11-28T09:00:00"))
    world.commands("a", commands.MergeTicket, into_conversation_id="b", into_ticket_id=gone)
    assert refusal(world).reason == "target_closed"
    world.writes("b")
    world.commands("b", commands.MergeTicket, into_conversation_id="b", into_ticket_id=gone)
    assert refusal(world, "b").reason == "target_closed"


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        (commands.SolveTicket, {}, "target_solved"),
        (commands.MarkTicketAsSpam, {"reason": "x"}, "target_spam"),
    ],
)
def test_a_target_that_is_done_with_takes_nobody_in(
    kind: type[commands.Command], fields: dict[str, str], reason: str
) -> None:
    world = Threads("a", "b").commands("b", kind, **fields).merges("a", "b")
    assert refusal(world).reason == reason


def other_customer(**fields: Any) -> Threads:
    world = Threads("a")
    stranger = message("z1", conversation_id="b").model_copy(update={"customer_id": "k2"})
    return world.hears("b", stranger).merges("a", "b", **fields)


def test_tickets_of_different_customers_are_merged_only_by_who_says_so() -> None:
    assert refusal(other_customer()).reason == "other_customer"
    assert other_customer(allow_other_customer=True).delivers().status("a") == "merged"


def test_a_merge_into_a_merged_ticket_goes_to_the_end_of_the_chain() -> None:
    world = Threads("a", "b", "c").merges("b", "c").delivers().merges("a", "b").delivers()
    told = world.one("a", wire.TicketMerged)
    assert (told.into_conversation_id, told.into_reference) == ("c", world.ticket("c").reference)
    name = world.writes("a")
    world.delivers()
    assert world.one("c", wire.TicketMessageAdded).message_id == name


def test_messages_go_down_a_chain_that_was_made_from_its_far_end() -> None:
    world = Threads("a", "b", "c").merges("a", "b").delivers().merges("b", "c").delivers()
    name = world.writes("a")
    world.delivers()
    assert world.one("c", wire.TicketMessageAdded).message_id == name
    assert world.rows[name] == (world.ticket("c").ticket_id, "carried")


def test_a_merge_that_would_go_round_is_refused() -> None:
    world = Threads("a", "b").merges("a", "b").delivers().merges("b", "a")
    assert refusal(world, "b").reason == "merge_cycle"


def test_merges_that_would_go_round_at_the_same_time_are_all_refused() -> None:
    world = Threads("a", "b", "c").merges("a", "b").merges("b", "c").merges("c", "a")
    for way in ("ab", "bc", "ca"):
        world.hears(way[1], world.ways[way[0], way[1]].pop())
    world.delivers()
    for name in "abc":
        assert world.one(name, wire.CommandRefused).reason == "target_merge_underway"


def test_every_step_may_come_twice() -> None:
    world = Threads("a", "b").merges("a", "b").delivers(twice=True)
    assert world.status("a") == "merged"
    assert len(world.ticket("b").absorbed) == 1
    world.one("b", wire.TicketAbsorbed)
    name = world.writes("a")
    world.delivers(twice=True)
    assert world.one("b", wire.TicketMessageAdded).message_id == name
    world.commands("a", commands.UnmergeTicket).delivers(twice=True)
    world.one("b", wire.TicketSplitOff)


# ------------------------------------------------------------------------------------------- unmerging


def test_t22_an_unmerge_restores_both() -> None:
    world = Threads("a")
    world.commands("a", commands.PrioritiseTicket, priority=1, reason="x")
    world.commands("a", commands.TagTicket, add=["late"])
    world.now = at("11:00")
    world.writes("b")
    world.commands("b", commands.TagTicket, add=["angry"])
    a, b = world.ticket("a"), world.ticket("b")
    world.held_by("a").merges("a", "b").delivers()
    name = world.writes("a")
    world.delivers().commands("a", commands.UnmergeTicket)
    told = world.one("a", wire.TicketUnmerged)
    assert (told.message_ids, told.opened_at, told.waiting_since) == (
        (name,),
        a.opened_at,
        at("09:00"),
    )
    assert world.rows[name] == (a.ticket_id, "carried")
    work = world.all("a", routing.WorkRequested)[-1]
    assert (work.reason, work.preferred_agent_id, work.entered_at) == (
        "unmerged",
        "ada",
        a.entered_at,
    )
    world.delivers()
    split = world.one("b", wire.TicketSplitOff)
    assert (split.priority, split.tags, split.opened_at) == (3, ("angry",), b.opened_at)
    assert world.ticket("b").absorbed == ()


def test_an_unmerge_leaves_what_the_target_has_of_others_and_of_itself() -> None:
    world = Threads("a", "b", "c")
    for name, tag in (("a", "late"), ("c", "vip")):
        world.commands(name, commands.TagTicket, add=[tag])
    world.commands("a", commands.PrioritiseTicket, priority=2, reason="x")
    world.commands("c", commands.PrioritiseTicket, priority=1, reason="x")
    world.merges("a", "b").delivers().merges("c", "b").delivers()
    world.commands("a", commands.UnmergeTicket).delivers()
    assert (world.ticket("b").tags, world.ticket("b").priority) == (("vip",), 1)


def test_a_ticket_that_was_unmerged_can_be_merged_again() -> None:
    world = merged().commands("a", commands.UnmergeTicket).delivers().merges("a", "b").delivers()
    assert world.status("a") == "merged"
    assert len(world.ticket("b").absorbed) == 1


def test_a_message_on_its_way_at_an_unmerge_reaches_the_target_and_the_next_stays() -> None:
    world = merged()
    first = world.writes("a")
    world.commands("a", commands.UnmergeTicket)
    second = world.writes("a")
    world.delivers()
    assert [e.message_id for e in world.all("b", wire.TicketMessageAdded)] == [first]
    assert world.all("a", wire.TicketMessageAdded)[-1].message_id == second


def test_a_merged_ticket_closes_with_its_target_and_a_later_message_is_its_own_follow_up() -> None:
    world = Threads("a", "b", "c").merges("a", "b").delivers().merges("b", "c").delivers()
    first = world.ticket("a").ticket_id
    world.commands("c", commands.SolveTicket)
    standing = world.ticket("c").standing
    assert isinstance(standing, Solved)
    world.hears("c", CloseDue(), standing.close_at).delivers()
    for name in "abc":
        assert world.one(name, wire.TicketClosed)
        assert timers(world.states[name]) == {}
    world.writes("a")
    assert world.all("a", wire.TicketOpened)[-1].follows == first


def test_t22_a_split_gives_the_target_its_rest_back_where_only_the_other_one_waited() -> None:
    world = Threads("b").held_by("b")
    world.commands("b", commands.ReplyToCustomer, text="Soon.")
    rested = world.ticket("b")
    world.writes("a")
    world.merges("a", "b").delivers()
    assert (world.status("b"), world.ticket("b").unanswered) == ("queued", 1)
    world.commands("a", commands.UnmergeTicket).delivers()
    after = world.ticket("b")
    assert after.standing == rested.standing
    assert (after.waiting_since, after.unanswered, after.entered_at) == (None, 0, rested.entered_at)
    assert world.all("b", routing.WorkWithdrawn)[-1].reason == "split_off"


def test_t22_a_split_leaves_the_target_its_own_words_and_its_own_age() -> None:
    world = Threads("a")
    world.now = at("11:00")
    world.writes("b")
    before = world.ticket("b")
    world.merges("a", "b").delivers()
    world.writes("a")
    world.delivers()
    assert (world.ticket("b").unanswered, world.ticket("b").waiting_since) == (3, at("09:00"))
    world.commands("a", commands.UnmergeTicket).delivers()
    after = world.ticket("b")
    assert (after.unanswered, after.waiting_since) == (1, before.waiting_since)
    assert after.entered_at == before.entered_at
    work = world.all("b", routing.WorkRequested)[-1]
    assert (work.reason, work.entered_at) == ("split_off", before.entered_at)


def test_t22_words_that_were_answered_in_the_target_are_not_given_back_at_a_split() -> None:
    world = Threads("a", "b").merges("a", "b").delivers().held_by("b")
    world.commands("b", commands.ReplyToCustomer, text="Soon.")
    world.now = at("12:00")
    world.writes("b")
    world.commands("a", commands.UnmergeTicket).delivers()
    assert (world.ticket("b").waiting_since, world.ticket("b").unanswered) == (at("12:00"), 1)


def test_t22_what_was_written_while_merged_is_owed_by_the_source_again() -> None:
    world = Threads("a", "b").held_by("a")
    world.commands("a", commands.ReplyToCustomer, text="Soon.")
    world.merges("a", "b").delivers()
    world.now = at("12:00")
    world.writes("a")
    world.writes("a", kind="bounce", is_automatic=True)
    world.delivers().commands("a", commands.UnmergeTicket).delivers()
    ticket = world.ticket("a")
    assert (ticket.waiting_since, ticket.unanswered) == (at("12:00"), 1)
    assert (ticket.entered_at, world.one("a", wire.TicketUnmerged).waiting_since) == (
        at("12:00"),
        at("12:00"),
    )
    assert world.ticket("b").unanswered == 1


def test_the_present_wait_counts_and_not_the_age_of_a_case_that_was_answered() -> None:
    world = Threads("a").held_by("a")
    world.commands("a", commands.ReplyToCustomer, text="Soon.")
    world.now = at("2026-12-20T09:00:00")
    world.writes("a")
    world.writes("b")
    world.merges("a", "b").delivers()
    assert world.ticket("b").entered_at == at("2026-12-20T09:00:00")
    assert world.ticket("b").opened_at == world.ticket("a").opened_at


# --------------------------------------------------------------- own and brought, with others beside them


def urgent(world: Threads, **priorities: int) -> Threads:
    for name, priority in priorities.items():
        world.commands(name, commands.PrioritiseTicket, priority=priority, reason="x")
    return world


def unmerges(world: Threads, name: str) -> Threads:
    return world.commands(name, commands.UnmergeTicket).delivers()


def test_a_ticket_is_as_urgent_as_itself_and_those_that_are_left() -> None:
    world = urgent(Threads("a", "b", "c"), a=2, c=1)
    world.merges("c", "b").delivers().merges("a", "b").delivers()
    assert world.ticket("b").priority == 1
    assert unmerges(world, "c").ticket("b").priority == 2
    assert unmerges(world, "a").ticket("b").priority == 3


def test_a_ticket_that_became_urgent_itself_stays_that_when_another_leaves() -> None:
    world = urgent(Threads("a", "b"), a=2).merges("a", "b").delivers()
    urgent(world, b=1)
    assert unmerges(world, "a").ticket("b").priority == 1


def test_a_ticket_that_somebody_made_less_urgent_stays_that_when_another_leaves() -> None:
    world = urgent(Threads("a", "b"), a=1).merges("a", "b").delivers()
    urgent(world, b=4)
    assert unmerges(world, "a").ticket("b").priority == 4


def test_a_tag_that_two_bring_goes_with_the_second() -> None:
    world = Threads("a", "b", "c")
    for name in "ac":
        world.commands(name, commands.TagTicket, add=["late"])
    world.merges("a", "b").delivers().merges("c", "b").delivers()
    assert unmerges(world, "a").ticket("b").tags == ("late",)
    assert unmerges(world, "c").ticket("b").tags == ()


def test_a_fact_that_two_bring_is_the_others_when_one_leaves() -> None:
    known = {"tried": "two browsers", "impact": "cannot order"}
    world = Threads("a", "b", "c")
    world.commands("a", commands.EscalateTicket, reason="x", facts=known | {"order": "1"})
    world.commands("c", commands.EscalateTicket, reason="x", facts=known | {"order": "2"})
    world.merges("a", "b").delivers().merges("c", "b").delivers()
    assert world.ticket("b").facts["order"] == "1"
    assert unmerges(world, "a").ticket("b").facts["order"] == "2"
    assert unmerges(world, "c").ticket("b").facts == {}


def test_an_unmerge_at_the_near_end_of_a_chain_reaches_its_far_end() -> None:
    world = urgent(Threads("a", "b", "c"), a=1)
    world.commands("a", commands.TagTicket, add=["late"])
    world.merges("a", "b").delivers().merges("b", "c").delivers()
    assert (world.ticket("c").priority, world.ticket("c").tags) == (1, ("late",))
    unmerges(world, "a")
    assert (world.ticket("c").priority, world.ticket("c").tags) == (3, ())
    assert world.ticket("c").unanswered == 2, "its own words and those of the ticket between"
    told = world.all("c", wire.TicketAbsorbed)[-1]
    assert (told.from_conversation_id, told.priority) == ("b", 3)
    assert unmerges(world, "b").ticket("c").absorbed == ()


# ------------------------------------------------------------------------- what nobody answers, and what is too much


def test_a_merge_that_nobody_answers_is_given_up_and_a_late_yes_is_undone() -> None:
    world = Threads("a", "b").held_by("a").merges("a", "b")
    asked_at = world.now
    assert timers(world.states["a"])["merge"] == asked_at + PATIENCE
    world.hears("a", MergeDue(), asked_at + PATIENCE)
    refused = one(world.last, wire.CommandRefused)
    assert (refused.reason, refused.state) == ("merge_unanswered", "assigned")
    assert "merge" not in timers(world.states["a"])
    world.commands("a", commands.ReplyToCustomer, text="Soon.")
    assert world.status("a") == "pending"
    world.delivers(twice=True)
    assert (world.status("a"), world.ticket("b").absorbed) == ("pending", ())
    world.one("b", wire.TicketSplitOff)


def test_a_yes_for_a_ticket_that_is_closed_meanwhile_is_undone_too() -> None:
    world = Threads("a", "b").merges("a", "b")
    world.hears("a", MergeDue(), world.now + PATIENCE).commands("a", commands.SolveTicket)
    standing = world.ticket("a").standing
    assert isinstance(standing, Solved)
    world.hears("a", CloseDue(), standing.close_at).delivers()
    assert world.ticket("b").absorbed == ()


def test_a_merge_timer_that_comes_too_early_or_too_late_changes_nothing() -> None:
    world = Threads("a", "b").merges("a", "b")
    world.hears("a", MergeDue())
    assert world.last == ()
    world.delivers().hears("a", MergeDue(), world.now + PATIENCE)
    assert (world.last, world.status("a")) == ((), "merged")


def test_a_note_says_that_more_messages_came_than_are_carried_after_a_merge() -> None:
    world = Threads("a", "b").merges("a", "b")
    for _ in range(HELD_MAX + 2):
        world.writes("a")
    note = world.one("a", wire.TicketNoteAdded)
    assert (note.agent_id, "stay with this ticket" in note.text) == ("signalbox", True)


def knowing(world: Threads, name: str, **facts: str) -> Threads:
    """Give a ticket facts, however large."""
    state = world.states[name]
    assert state is not None
    ticket = structs.replace(world.ticket(name), facts=facts)
    world.states[name] = structs.replace(state, ticket=ticket)
    return world


def test_a_question_that_would_be_too_large_is_refused_by_name() -> None:
    world = knowing(Threads("a", "b"), "a", log="x" * merging.ASKED_BYTES_MAX)
    assert refusal(world.merges("a", "b")).reason == "merge_too_large"


def test_a_target_takes_nobody_in_whose_facts_would_make_it_too_large() -> None:
    half = "x" * (merging.ASKED_BYTES_MAX * 2 // 3)
    world = knowing(knowing(Threads("a", "b"), "a", log=half), "b", trace=half)
    assert refusal(world.merges("a", "b")).reason == "merge_too_large"


def test_a_chain_that_messages_could_not_go_down_is_refused() -> None:
    names = [f"t{n:02}" for n in range(merging.HOPS_MAX + 3)]
    world = Threads(*names)
    for name, into in pairwise(names[:-1]):
        world.merges(name, into).delivers()
        assert world.status(name) == "merged"
    world.merges(names[-2], names[-1])
    assert refusal(world, names[-2]).reason == "merge_chain_too_long"
    name = world.writes(names[0])
    world.delivers()
    assert world.all(names[-2], wire.TicketMessageAdded)[-1].message_id == name


# ------------------------------------------------------------------------------- carried into what is gone


def closed_first() -> tuple[Threads, str]:
    """The target closes, and before that is heard the source's customer writes."""
    world = merged()
    world.commands("b", commands.SolveTicket)
    standing = world.ticket("b").standing
    assert isinstance(standing, Solved)
    world.hears("b", CloseDue(), standing.close_at)
    return world, world.writes("a")


def test_a_message_that_finds_its_target_closed_opens_a_follow_up_where_it_was_written() -> None:
    world, name = closed_first()
    first = world.ticket("a").ticket_id
    world.delivers(twice=True)
    told = world.all("a", wire.TicketOpened)
    assert (len(told), told[-1].follows, told[-1].message_id) == (2, first, name)
    assert world.rows[name] == (world.ticket("a").ticket_id, "carried")
    assert len(world.all("b", wire.TicketOpened)) == 1


def test_it_is_the_same_where_the_target_has_a_follow_up_of_its_own_already() -> None:
    world, name = closed_first()
    world.writes("b")
    world.delivers()
    assert not world.all("b", wire.TicketMessageAdded)
    assert world.all("a", wire.TicketOpened)[-1].message_id == name


def test_it_is_the_same_where_the_timer_of_the_target_is_late() -> None:
    world = merged().commands("b", commands.SolveTicket)
    standing = world.ticket("b").standing
    assert isinstance(standing, Solved)
    world.now = standing.close_at
    name = world.writes("a")
    world.delivers()
    assert world.one("b", wire.TicketClosed)
    assert world.all("a", wire.TicketOpened)[-1].message_id == name


def test_a_message_that_comes_back_down_a_chain_goes_to_where_it_was_written() -> None:
    world = Threads("a", "b", "c").merges("a", "b").delivers().merges("b", "c").delivers()
    world.commands("c", commands.SolveTicket)
    standing = world.ticket("c").standing
    assert isinstance(standing, Solved)
    world.hears("c", CloseDue(), standing.close_at)
    name = world.writes("a")
    world.hears("b", world.ways["a", "b"].pop(0)).delivers()
    assert world.all("a", wire.TicketOpened)[-1].message_id == name
    assert not world.all("b", wire.TicketMessageAdded)


def test_a_message_that_comes_back_to_a_ticket_that_stands_alone_again_is_added_to_it() -> None:
    world, name = closed_first()
    del world.ways["b", "a"][:]
    world.commands("a", commands.UnmergeTicket).delivers()
    assert world.one("a", wire.TicketMessageAdded).message_id == name
    assert world.rows[name] == (world.ticket("a").ticket_id, "carried")


# ---------------------------------------------------------------------------------- what else is carried on


def test_an_edit_in_a_merged_conversation_is_told_where_the_case_goes_on() -> None:
    world = Threads("a", "b", "c").merges("a", "b").delivers().merges("b", "c").delivers()
    example = MessageRevised.EXAMPLE | {"conversation_id": "a", "message_id": "a1"}
    event = MessageRevised.model_validate(example)
    world.hears("a", event).delivers(twice=True)
    for name in "ac":
        assert world.one(name, wire.TicketMessageRevised).message_id == "a1"


def test_a_notice_of_a_merged_ticket_that_failed_is_noted_where_the_case_goes_on() -> None:
    world = merged()
    known = {"conversation_id": "a", "ticket_id": world.ticket("a").ticket_id}
    event = NoticeFailed.model_validate(NoticeFailed.EXAMPLE | known)
    world.hears("a", event).delivers(twice=True)
    for name in "ab":
        assert "did not reach the customer" in world.one(name, wire.TicketNoteAdded).text


def test_a_merge_of_the_same_name_from_another_ticket_is_no_repeat() -> None:
    world = Threads("a", "b", "c").merges("a", "b")
    asked = world.ways["a", "b"][0]
    assert isinstance(asked, merging.MergeAsked)
    other = {"from_conversation_id": "c", "from_ticket_id": world.ticket("c").ticket_id}
    world.delivers().hears("b", asked.model_copy(update=other))
    one(world.last, merging.MergeAnswered)
    assert [taken.conversation_id for taken in world.ticket("b").absorbed] == ["a", "c"]


# ------------------------------------------------------------------------------------------ with the clocks


def test_t22_the_clocks_of_both_keep_the_earliest_promise_and_are_their_own_after_a_split() -> None:
    world = Threads("a")
    world.now = at("09:30")
    world.writes("b")
    clocks = Clocks(world)
    a, b = clocks.tells("first_response", "a"), clocks.tells("first_response", "b")
    assert a < b
    world.now = at("09:40")
    world.merges("a", "b").delivers()
    assert clocks.tells("first_response", "b") == a
    assert world.ticket("b").dues["first_response"] == a
    assert clocks.tells("resolution", "b") == clocks.was["resolution", "a"]
    unmerges(world, "a")
    assert (clocks.tells("first_response", "a"), clocks.tells("first_response", "b")) == (a, b)
    assert world.ticket("b").dues["first_response"] == b


class Clocks:
    """The clocks of all conversations, fed with what the router tells; the router hears of them in turn."""

    def __init__(self, world: Threads) -> None:
        self.policy = PolicyHolder(EXAMPLES, CLOCKS).current
        self.world = world
        self.states: dict[str, Any] = {}
        self.heard: dict[str, int] = defaultdict(int)
        self.due: dict[tuple[str, str], datetime | None] = {}
        self.was: dict[tuple[str, str], datetime | None] = {}

    def tells(self, target: str, name: str) -> Any:
        """Return when a clock of a conversation is due, as was told of it last."""
        for thread in sorted(self.world.told):
            while self.heard[thread] < len(self.world.told[thread]):
                event = self.world.told[thread][self.heard[thread]]
                self.heard[thread] += 1
                done = sla.decide(self.states.get(thread), event, self.world.now, self.policy)
                self.states[thread] = done.state
                for told in done.events:
                    key = told.target, thread
                    self.was[key] = self.due.get(key) or self.was.get(key)
                    self.due[key] = getattr(told, "due_at", None)
                    self.world.hears(thread, told)
        return self.due[target, name]


# --------------------------------------------------------------------------------------------- persons


def test_an_erasure_in_a_merged_conversation_goes_on_to_what_the_target_took_over() -> None:
    facts = {"tried": "two browsers", "impact": "cannot order"}
    world = Threads("a", "b")
    world.commands("a", commands.EscalateTicket, reason="x", facts=facts)
    world.merges("a", "b").delivers()
    assert world.ticket("b").facts == facts
    event = customers.CustomerErased(
        conversation_id="a", by="ada", at=at("12:00"), customer_id="k1", members=("k1",)
    )
    world.hears("a", event).delivers()
    assert world.ticket("b").facts == {}
    assert world.ticket("b").contact.address == "ada@example.com", (
        "the target's own has its own event"
    )
    assert [(row.conversation_id, row.sources) for row in world.erased] == [
        ("a", ()),
        ("b", ("a",)),
    ]
    assert world.one("a", wire.ConversationErased)
    assert not world.all("b", wire.ConversationErased)


def erases(world: Threads, name: str = "a") -> Threads:
    event = customers.CustomerErased(
        conversation_id=name, by="ada", at=at("12:00"), customer_id="k1", members=("k1",)
    )
    return world.hears(name, event).delivers(twice=True)


def told_facts() -> Threads:
    facts = {"tried": "two browsers", "impact": "cannot order"}
    world = Threads("a", "b", "c")
    return world.commands("a", commands.EscalateTicket, reason="x", facts=facts)


def test_an_erasure_while_the_question_is_out_overtakes_no_facts() -> None:
    world = erases(told_facts().merges("a", "b"))
    assert (world.status("a"), world.ticket("b").facts) == ("merged", {})
    assert [(row.conversation_id, row.sources) for row in world.erased] == [
        ("a", ()),
        ("b", ("a",)),
    ]


def test_an_erasure_after_an_unmerge_reaches_what_the_target_told_of_the_case() -> None:
    world = unmerges(told_facts().merges("a", "b").delivers(), "a")
    assert [row.conversation_id for row in erases(world).erased] == ["a", "b"]


def test_an_erasure_reaches_a_closed_target_of_a_closed_ticket() -> None:
    world = told_facts().merges("a", "b").delivers().commands("b", commands.SolveTicket)
    standing = world.ticket("b").standing
    assert isinstance(standing, Solved)
    world.hears("b", CloseDue(), standing.close_at).delivers()
    assert [row.conversation_id for row in erases(world).erased] == ["a", "b"]


def test_an_erasure_goes_down_a_chain_and_takes_what_came_through_it() -> None:
    world = told_facts().merges("a", "b").delivers().merges("b", "c").delivers()
    assert world.ticket("c").facts
    assert [(row.conversation_id, row.sources) for row in erases(world).erased] == [
        ("a", ()),
        ("b", ("a",)),
        ("c", ("b", "a")),
    ]
    assert world.ticket("c").facts == {}


def test_erased_facts_do_not_come_back_when_another_case_leaves() -> None:
    facts = {"tried": "two browsers", "impact": "cannot order"}
    world = told_facts()
    world.commands("c", commands.EscalateTicket, reason="x", facts=facts)
    world.merges("a", "b").delivers().merges("c", "b").delivers()
    assert unmerges(erases(world), "c").ticket("b").facts == {}


def test_a_merge_of_customers_reaches_a_merged_ticket_too() -> None:
    world = merged()
    event = customers.CustomerMerged(
        conversation_id="a",
        by="signalbox",
        at=at("12:00"),
        merge_id="m",
        customer_id="k9",
        merged_id="k1",
        members=("k1",),
        score=1,
    )
    world.hears("a", event)
    assert world.ticket("a").contact.customer_id == "k9"
    assert world.status("a") == "merged"


# -------------------------------------------------------------------------------------- what must hold


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["write", "merge", "unmerge", "solve", "deliver", "note"]),
            st.sampled_from("abcd"),
            st.sampled_from("abcd"),
        ),
        max_size=40,
    ),
    seed=st.integers(0, 2**16),
    twice=st.booleans(),
)
def test_however_merges_cross_no_message_is_lost_or_counted_twice_and_no_circle_comes_of_it(
    steps: list[tuple[str, str, str]], seed: int, twice: bool
) -> None:
    rng = Random(seed)
    world = Threads(*"abcd")
    written = ["a1", "b2", "c3", "d4"]
    for what, name, other in steps:
        match what:
            case "write":
                written.append(world.writes(name))
            case "merge":
                world.merges(name, other)
            case "unmerge":
                world.commands(name, commands.UnmergeTicket)
            case "solve":
                world.commands(name, commands.SolveTicket)
            case "note":
                world.commands(name, commands.AddNote, text="x")
            case _:
                way = rng.choice(sorted(world.ways) or [("", "")])
                if world.ways[way]:
                    world.hears(way[1], world.ways[way].pop(0))
    world.delivers(rng, twice=twice)
    assert sorted(world.rows) == sorted(written)
    live = {world.ticket(name).ticket_id for name in "abcd" if world.status(name) != "merged"}
    for name in "abcd":
        ticket = world.ticket(name)
        assert ticket.merging is None, "every question is answered"
        seen = [name]
        while isinstance(ticket.standing, Merged):
            assert ticket.standing.into_conversation_id not in seen, "no circle"
            seen.append(ticket.standing.into_conversation_id)
            ticket = world.ticket(seen[-1])
        versions = [e.version for e in world.told[name] if isinstance(e, wire.TicketEvent)]
        assert versions == list(range(1, len(versions) + 1))
    for message_id in written:
        ticket_id, outcome = world.rows[message_id]
        if outcome == "carried":
            holders = {world.ticket(name).ticket_id for name in "abcd"}
            assert ticket_id in holders
    assert live, "something is left to answer"


# ------------------------------------------------------------------------------------- over the loop


def _names(n: int) -> list[str]:
    """Names of `n` conversations, each of another task."""
    found: dict[int, str] = {}
    for k in range(1000):
        found.setdefault(partition_of(f"thread-{k}", 4), f"thread-{k}")
    return [found[task] for task in sorted(found)][:n]


def test_a_merge_goes_from_task_to_task_by_the_loop_and_repeated_records_change_nothing() -> None:
    stage = TicketsStage(PolicyHolder(EXAMPLES, ROUTING))
    world = World([stage], start=at("09:00"))
    a, b = _names(2)
    for name in (a, b):
        world.accept(message(f"m-{name}", conversation_id=name), key=name)
    world.run_until_idle()
    tickets = {name: world.states(stage)[name].ticket for name in (a, b)}
    command = commands.MergeTicket(
        command_id="k1",
        conversation_id=a,
        ticket_id=tickets[a].ticket_id,
        agent_id="ada",
        into_conversation_id=b,
        into_ticket_id=tickets[b].ticket_id,
    )
    world.accept(command, key=a)
    world.run_until_idle()
    assert isinstance(world.states(stage)[a].ticket.standing, Merged)
    world.accept(message("m3", conversation_id=a), key=a)
    world.run_until_idle()
    for record in world.log(COMMANDS):
        world.repeat(record)
    world.run_until_idle()
    assert (world.parked, world.halted) == ([], {})
    assert world.counts(stage).duplicate == len(world.log(COMMANDS)) / 2
    (added,) = world.events(TICKETS, wire.TicketMessageAdded)
    assert (added.message_id, added.conversation_id) == ("m3", b)
    (told,) = world.events(TICKETS, wire.TicketMerged)
    assert told.conversation_id == a


def test_a_question_that_was_answered_and_comes_again_later_changes_nothing() -> None:
    world = Threads("a", "b").merges("a", "b")
    asked = world.ways["a", "b"][0]
    world.delivers().commands("a", commands.UnmergeTicket).delivers()
    before = world.ticket("b")
    world.hears("b", asked)
    assert (world.last, world.ticket("b")) == ((), before)
