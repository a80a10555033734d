"""Would the comparison with the oracle notice a mistake? Mistakes that are easily made are planted one at a time.

An engine that says something else, and one that stops on a broken assertion, are noticed both. How rare each mistake shows is
why there are so many worlds: the rarest here is seen in about one of a hundred.
"""

from collections.abc import Callable
from typing import Any

import pytest

from services.router.core.assignment import (
    assign,
    bits,
    index,
    matching,
)
from services.router.core.assignment.domain import Domain, Work, WorkKey
from services.router.core.assignment.records import _PRESUMED
from services.router.core.assignment.terms import Terms
from services.router.core.assignment.times import micros
from tests.unit.router.duel import duel

Patch = Callable[[pytest.MonkeyPatch], None]

RARE = (40_134, 40_124, 40_119, 40_064, 40_045)
SEEDS = (134, 1_283, *RARE, *range(40_000, 40_400))
"""First come worlds that show errors which few worlds show (the first two: one in 2,000), which spares a long search."""
EVENTS = 60


def declines_unknown_on_the_agents_side(patch: pytest.MonkeyPatch) -> None:
    def first(domain: Domain, agent: Any, max_declines: int) -> Any:
        people = domain.people
        fits = 0
        for kind in people.kinds.values():
            fits |= kind.buckets if not kind.state[agent.place] else 0
        entry = domain.heads.first(domain.slots(agent) & fits)
        return entry.key if entry is not None else None

    patch.setattr(matching, "best_work", first)


def ties_by_place(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(index, "_idle_key", lambda agent: (agent.place,))


def no_id_in_the_idle_key(patch: pytest.MonkeyPatch) -> None:
    good = index._idle_key
    patch.setattr(index, "_idle_key", lambda agent: (good(agent)[0], agent.place))


def counted_before_tried(patch: pytest.MonkeyPatch) -> None:
    good = assign._Turn._settle

    def settle(turn: Any) -> None:
        turn._turn_switches()
        good(turn)

    patch.setattr(assign._Turn, "_settle", settle)


def candidates_kept_after_a_change_of_skills(patch: pytest.MonkeyPatch) -> None:
    good = index.People._flip

    def flip(people: Any, place: int, changed: int) -> None:
        if people.agents[place] is None or people.agents[place].last_assigned_at is None:
            good(people, place, changed)

    patch.setattr(index.People, "_flip", flip)


def slots_kept_after_a_change_of_skills(patch: pytest.MonkeyPatch) -> None:
    good = Domain.set_agent

    def set_agent(domain: Domain, agent: Any) -> None:
        kept = domain._slots.get(agent.place)
        good(domain, agent)
        if kept is not None:
            domain._slots[agent.place] = kept

    patch.setattr(Domain, "set_agent", set_agent)


def a_hold_ignores_capacity(patch: pytest.MonkeyPatch) -> None:
    good = matching.takers

    def takers(domain: Domain, work: Work, bucket: Any, max_declines: int) -> Any:
        if bucket.held_for is not None:
            return matching.Takers(1 << domain.agents[bucket.held_for].place, "home")
        return good(domain, work, bucket, max_declines)

    patch.setattr(matching, "takers", takers)


def a_declined_head_hides_its_bucket(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(matching, "_first_open", lambda *args: None)


def a_declined_head_hides_its_bucket_in_a_sweep(patch: pytest.MonkeyPatch) -> None:
    def first(domain: Domain, bucket: Any, max_declines: int) -> Any:
        key = bucket.keys.first
        if key is None:
            return None
        work = domain.works[key.work_id]
        return key if matching.takers(domain, work, bucket, max_declines).places else None

    patch.setattr(matching, "first_takeable", first)
    patch.setattr(assign, "SWEEP_ABOVE", -1)


def no_hysteresis(patch: pytest.MonkeyPatch) -> None:
    good = assign._Turn._turn_switches

    def turn_switches(turn: Any) -> bool:
        domain = turn.domain
        for queue, lending in turn.terms.lending.items():
            if domain.n_matchable.get(queue, 0) < lending.open_at:
                domain.switches.spilling.discard(queue)
        return good(turn)

    patch.setattr(assign._Turn, "_turn_switches", turn_switches)


def relaxed_work_is_not_offered(patch: pytest.MonkeyPatch) -> None:
    good = assign._Turn._wait_on

    def wait_on(turn: Any, work: Work) -> bool:
        told = good(turn, work)
        turn._open_works.discard(work.work_id)
        return told

    patch.setattr(assign._Turn, "_wait_on", wait_on)


def a_new_priority_without_a_new_key(patch: pytest.MonkeyPatch) -> None:
    def reprioritise(domain: Domain, work: Work, priority: int, due_at: Any) -> None:
        work.priority, work.due_at = priority, due_at
        domain.touch_work(work.work_id)

    patch.setattr(Domain, "reprioritise", reprioritise)


def forbidden_skills_forgotten_on_the_agents_side(patch: pytest.MonkeyPatch) -> None:
    good = index.Needs.add

    def add(needs: Any, number: int, asked: Any) -> None:
        good(needs, number, asked)
        needs._forbids.clear()

    patch.setattr(index.Needs, "add", add)


def spilling_opens_and_the_idle_are_not_asked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Domain, "own_buckets", lambda domain, queue: [])


def spilling_never_closes(patch: pytest.MonkeyPatch) -> None:
    good = Domain.switch

    def switch(domain: Domain, queue: str, **to: Any) -> None:
        if to.get("spilling") is not False:
            good(domain, queue, **to)

    patch.setattr(Domain, "switch", switch)


def lent_buckets_kept_after_a_switch(patch: pytest.MonkeyPatch) -> None:
    good = Domain.switch

    def switch(domain: Domain, queue: str, **to: Any) -> None:
        good(domain, queue, **to)
        domain._switched -= 1

    patch.setattr(Domain, "switch", switch)


def a_guard_lifts_and_its_people_are_not_asked(patch: pytest.MonkeyPatch) -> None:
    good = assign._Turn._turn_switches

    def turn_switches(turn: Any) -> bool:
        is_more = good(turn)
        turn._open_agents.clear()
        return is_more

    patch.setattr(assign._Turn, "_turn_switches", turn_switches)


def unmatchable_work_counts(patch: pytest.MonkeyPatch) -> None:
    good = assign._Turn._turn_switches

    def turn_switches(turn: Any) -> bool:
        domain = turn.domain
        kept = dict(domain.n_matchable)
        domain.n_matchable.update(domain.n_waiting())
        is_more = good(turn)
        domain.n_matchable.clear()
        domain.n_matchable.update(kept)
        return is_more

    patch.setattr(assign._Turn, "_turn_switches", turn_switches)


def whoever_is_held_for_leaves_and_it_goes_on_waiting(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(assign._Turn, "_review_agent", lambda turn, agent_id: turn._review_drain())


def held_work_is_not_looked_at_when_skills_change(patch: pytest.MonkeyPatch) -> None:
    good = Domain.hold_stands

    def hold_stands(domain: Domain, work: Work, now: Any) -> bool:
        if work.work_id in domain._where:
            agent = domain.agents.get(work.preferred_agent_id or "")
            return agent is not None and agent.is_available
        return good(domain, work, now)

    patch.setattr(Domain, "hold_stands", hold_stands)


def head_ties_by_bucket(patch: pytest.MonkeyPatch) -> None:
    def first(domain: Domain, agent: Any, max_declines: int) -> WorkKey | None:
        slots = domain.slots(agent)
        heads = []
        for kind in domain.people.kinds.values():
            if not kind.state[agent.place]:
                for number in bits.members(slots & kind.buckets):
                    bucket = domain.bucket_at(number)
                    for key in bucket.keys:
                        if not domain.works[key.work_id].is_barred(agent.agent_id, max_declines):
                            heads.append((key[:3], number, key))
                            break
        if domain.people.draining == agent.place:
            return matching._own_big_work(domain, agent, max_declines)
        return min(heads)[2] if heads else None

    patch.setattr(matching, "best_work", first)


def the_strategy_is_not_asked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Terms, "strategy_of", lambda terms, queue: "longest_idle")


def levels_lose_their_lowest_bit(patch: pytest.MonkeyPatch) -> None:
    good = bits.from_thermometer
    patch.setattr(bits, "from_thermometer", lambda rows: good(rows)[1:])
    patch.setattr(matching, "FEW", 0)


def sums_forget_the_carry(patch: pytest.MonkeyPatch) -> None:
    def add(left: list[int], right: list[int]) -> list[int]:
        size = max(len(left), len(right))
        left, right = left + [0] * (size - len(left)), right + [0] * (size - len(right))
        return [a ^ b for a, b in zip(left, right, strict=True)]

    patch.setattr(bits, "add", add)
    patch.setattr(matching, "FEW", 0)


def a_promotion_keeps_the_old_target(patch: pytest.MonkeyPatch) -> None:
    good = Work.key.fget  # type: ignore[attr-defined]

    def key(work: Work) -> WorkKey:
        found: WorkKey = good(work)
        if work.promoted_at is None:
            return found
        due = micros(work.due_at) if work.due_at else found.entered + _PRESUMED
        return found._replace(due=due)

    patch.setattr(Work, "key", property(key))


def whoever_is_kept_free_takes_other_work(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(index, "DRAINING", 0)


def wrap_up_is_not_counted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Domain, "_hold_for_wrap_up", lambda domain, work, sign: None)


def channels_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Domain, "_count_channel", lambda domain, agent, work, sign: None)


def steps_begin_anew_after_an_offer(patch: pytest.MonkeyPatch) -> None:
    good = Domain.give_back

    def give_back(domain: Domain, work: Work, now: Any, *, is_missed: bool) -> Any:
        work.relax_from = now
        return good(domain, work, now, is_missed=is_missed)

    patch.setattr(Domain, "give_back", give_back)


def a_missed_offer_takes_no_step(patch: pytest.MonkeyPatch) -> None:
    good = Domain.give_back

    def give_back(domain: Domain, work: Work, now: Any, *, is_missed: bool) -> Any:
        return good(domain, work, now, is_missed=False)

    patch.setattr(Domain, "give_back", give_back)


def stale_openings_are_believed(patch: pytest.MonkeyPatch) -> None:
    good = assign._Turn._openings

    def openings(turn: Any) -> Any:
        heap = good(turn)
        turn.domain.stamp = 0
        return [(*opening[:4], 0) for opening in heap]

    def offer(turn: Any, work: Work) -> None:
        turn.domain.stamp = 0
        good_offer(turn, work)

    good_offer = assign._Turn._offer
    patch.setattr(assign._Turn, "_openings", openings)
    patch.setattr(assign._Turn, "_offer", offer)


def offers_of_the_vanished_stay(patch: pytest.MonkeyPatch) -> None:
    good = assign._Turn._return_offers

    def return_offers(turn: Any, agent: Any, reason: Any) -> None:
        if reason != "agent_vanished":
            good(turn, agent, reason)

    patch.setattr(assign._Turn, "_return_offers", return_offers)


def what_the_vanished_accepted_never_waits_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Domain, "_return_at", lambda domain, agent: None)


def an_answer_is_no_sign_of_life(patch: pytest.MonkeyPatch) -> None:
    good = assign._Turn.answer

    def answer(turn: Any, event: Any) -> Any:
        heard = turn._heard
        turn._heard = lambda agent: None
        try:
            return good(turn, event)
        finally:
            turn._heard = heard

    patch.setattr(assign._Turn, "answer", answer)


def silence_is_noticed_when_it_was_first_expected(patch: pytest.MonkeyPatch) -> None:
    good = Domain.hear

    def hear(domain: Domain, agent: Any, now: Any) -> None:
        if agent.agent_id not in domain._silent_at:
            good(domain, agent, now)

    patch.setattr(Domain, "hear", hear)


def the_start_of_a_shift_asks_nobody(patch: pytest.MonkeyPatch) -> None:
    good = assign._Turn._turn_shift

    def turn_shift(turn: Any, agent: Any) -> None:
        was_open = agent.agent_id in turn._open_agents
        good(turn, agent)
        if not was_open:
            turn._open_agents.discard(agent.agent_id)

    patch.setattr(assign._Turn, "_turn_shift", turn_shift)


def the_end_of_a_shift_leaves_offers_where_they_are(patch: pytest.MonkeyPatch) -> None:
    good = assign._Turn._return_offers

    def return_offers(turn: Any, agent: Any, reason: Any) -> None:
        if reason != "shift_ended":
            good(turn, agent, reason)

    patch.setattr(assign._Turn, "_return_offers", return_offers)


def losers_are_free_and_nothing_is_offered_to_them(patch: pytest.MonkeyPatch) -> None:
    good = assign._Turn._assign

    def give(turn: Any, work: Work, agent: Any, how: Any) -> None:
        kept = set(turn._open_agents)
        good(turn, work, agent, how)
        turn._open_agents = kept

    patch.setattr(assign._Turn, "_assign", give)


def of_several_only_the_first_misses(patch: pytest.MonkeyPatch) -> None:
    good = assign._Turn._count_decline

    def count(turn: Any, work: Work, agent: Any) -> None:
        if not work.others or work.agent_id == agent.agent_id:
            good(turn, work, agent)

    patch.setattr(assign._Turn, "_count_decline", count)


def what_is_laid_aside_still_counts(patch: pytest.MonkeyPatch) -> None:
    def room(people: Any, agent: Any, channel: str) -> int:
        costs = people.costs.get(agent.place, {})
        carried = sum(costs.values()) if people.interrupted_by else agent.load
        return int(agent.capacity - carried)

    patch.setattr(index.People, "room", room)


def what_interrupts_does_not_count(patch: pytest.MonkeyPatch) -> None:
    def room(people: Any, agent: Any, channel: str) -> int:
        costs = people.costs.get(agent.place, {})
        own = sum(cost for other, cost in costs.items() if other == channel)
        return int(agent.capacity - (own if people.interrupted_by else agent.load))

    patch.setattr(index.People, "room", room)


def patience_for_the_known_does_not_fade(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(assign, "faded", lambda patience, age, half_life: patience)


def who_knows_the_customer_is_told_by_the_first_ticket(patch: pytest.MonkeyPatch) -> None:
    good = Domain.remember

    def remember(domain: Domain, work: Work, now: Any) -> None:
        if work.customer_id not in domain.known:
            good(domain, work, now)

    patch.setattr(Domain, "remember", remember)


def a_target_comes_near_and_nobody_looks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Domain, "see_risks", lambda domain, now: False)


def targets_of_the_hopeless_count(patch: pytest.MonkeyPatch) -> None:
    good = Domain._watch_target

    def watch(domain: Domain, work: Work, bucket: Any) -> None:
        kept, bucket.is_hopeless = bucket.is_hopeless, False
        domain.targets.drop(bucket.queue, work.work_id)
        good(domain, work, bucket)
        bucket.is_hopeless = kept

    patch.setattr(Domain, "_watch_target", watch)


def a_length_that_goes_up_and_down_says_it_each_time(patch: pytest.MonkeyPatch) -> None:
    good = Domain.switch

    def switch(domain: Domain, queue: str, **to: Any) -> None:
        if "overloaded" not in to:
            good(domain, queue, **to)

    patch.setattr(Domain, "switch", switch)


def force_is_never_overfull(patch: pytest.MonkeyPatch) -> None:
    good = Domain.reserve

    def reserve(domain: Domain, work: Work, *what: Any, **how: Any) -> None:
        good(domain, work, *what, **how)
        work.is_overfull = False

    patch.setattr(Domain, "reserve", reserve)


PLANTED: tuple[Patch, ...] = (
    offers_of_the_vanished_stay,
    what_the_vanished_accepted_never_waits_again,
    an_answer_is_no_sign_of_life,
    silence_is_noticed_when_it_was_first_expected,
    the_start_of_a_shift_asks_nobody,
    the_end_of_a_shift_leaves_offers_where_they_are,
    losers_are_free_and_nothing_is_offered_to_them,
    of_several_only_the_first_misses,
    what_is_laid_aside_still_counts,
    what_interrupts_does_not_count,
    patience_for_the_known_does_not_fade,
    who_knows_the_customer_is_told_by_the_first_ticket,
    a_target_comes_near_and_nobody_looks,
    targets_of_the_hopeless_count,
    a_length_that_goes_up_and_down_says_it_each_time,
    force_is_never_overfull,
    declines_unknown_on_the_agents_side,
    ties_by_place,
    no_id_in_the_idle_key,
    counted_before_tried,
    candidates_kept_after_a_change_of_skills,
    slots_kept_after_a_change_of_skills,
    a_hold_ignores_capacity,
    a_declined_head_hides_its_bucket,
    a_declined_head_hides_its_bucket_in_a_sweep,
    no_hysteresis,
    relaxed_work_is_not_offered,
    a_new_priority_without_a_new_key,
    forbidden_skills_forgotten_on_the_agents_side,
    spilling_opens_and_the_idle_are_not_asked,
    spilling_never_closes,
    lent_buckets_kept_after_a_switch,
    a_guard_lifts_and_its_people_are_not_asked,
    unmatchable_work_counts,
    whoever_is_held_for_leaves_and_it_goes_on_waiting,
    held_work_is_not_looked_at_when_skills_change,
    head_ties_by_bucket,
    the_strategy_is_not_asked,
    levels_lose_their_lowest_bit,
    sums_forget_the_carry,
    a_promotion_keeps_the_old_target,
    whoever_is_kept_free_takes_other_work,
    wrap_up_is_not_counted,
    channels_are_not_counted,
    steps_begin_anew_after_an_offer,
    a_missed_offer_takes_no_step,
    stale_openings_are_believed,
)


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_error_is_noticed(plant: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for seed in SEEDS:
        try:
            duel(seed, EVENTS)
        except (AssertionError, KeyError, IndexError):
            return
    pytest.fail(f"no world of {len(SEEDS)} notices that {plant.__name__.replace('_', ' ')}")
