"""What a ticket asks of a person, as the policy says: requirements, presets of queues, known agents, and what opens."""

from datetime import timedelta
from typing import Any

import pytest
import yaml

from schemas import messages, routing
from schemas import tickets as wire
from schemas.commands import EscalateTicket, ReassignTicket, ReplyToCustomer, SolveTicket
from services.router.core.assignment.requirement import Requirement, SkillNeed, Step
from services.router.core.policy.policy import Policy, build
from services.router.core.tickets.known_agent import KnownAgent
from tests.unit.router.stories import (
    FOLDER,
    ROUTING_YAML,
    Case,
    Desk,
    at,
    message,
    parsed,
    read_policy,
)

FULL: dict[str, Any] = {
    "queue": "technical",
    "priority": 2,
    "sla_policy": "urgent",
    "tags": ["b", "a", "b"],
    "costs": {"email": 15, "voice": 100},
    "language": {"level": 3, "required": True},
    "skills": {
        "api": {"level": 6, "required": True},
        "orders": {"level": 4, "relax_after_seconds": 90},
    },
    "preferred": {"lamps": 2},
    "forbidden": ["trainee"],
    "also_queues": ["labs"],
    "moves_on_miss": True,
    "steps": [
        {"after_seconds": 60, "levels": {"orders": 2}},
        {"share_of_time_left": 0.5, "drop": ["orders"]},
    ],
}


def policy_with(then: dict[str, Any] | None = None, version: str = "v1", **more: Any) -> Policy:
    """The stories' policy with a rule for everything, and whatever else is given."""
    given = yaml.safe_load(ROUTING_YAML)
    given["skills"] = ["orders", "api", "lamps", "trainee"]
    if then is not None:
        given["rules"] = [{"name": "all", "then": then}]
    for path, value in more.items():
        at_path = given
        *parents, last = path.split("__")
        for name in parents:
            at_path = at_path[name]
        at_path[last] = value
    return build(parsed(yaml.safe_dump(given), None), FOLDER, version)


def opened(policy: Policy, **content: Any) -> Case:
    return Case(policy).hears(message(**content), "09:00")


# ---------------------------------------------------------------------------------------- requirements


def test_all_that_a_rule_asks_reaches_assignment() -> None:
    asked = opened(policy_with(FULL), language="tr").one(routing.WorkRequested)
    assert asked.requirement == routing.Requirement(
        language="tr",
        language_level=3,
        skills=(
            routing.SkillNeed(skill="api", level=6),
            routing.SkillNeed(skill="lamps", level=2, relax_after_seconds=5),
            routing.SkillNeed(skill="orders", level=4, relax_after_seconds=90),
        ),
        forbidden=("trainee",),
        also_queues=("labs",),
        steps=(
            routing.RelaxStep(after_seconds=60, levels={"orders": 2}),
            routing.RelaxStep(share_of_time_left=0.5, drop=("orders",)),
        ),
        moves_on_miss=True,
    )
    assert (asked.priority, asked.cost, asked.channel, asked.customer_id) == (2, 15, "email", "k1")
    assert (asked.rule, asked.policy_version) == ("all", "v1")


def test_a_channel_that_the_rule_has_no_price_for_costs_what_the_file_says() -> None:
    assert opened(policy_with(FULL), channel="chat").one(routing.WorkRequested).cost == 20
    free = policy_with({"queue": "service", "cost": 0})
    assert opened(free, channel="chat").one(routing.WorkRequested).cost == 0


def test_what_opens_says_which_conditions_held_what_was_observed_and_which_tags_it_has() -> None:
    from dataclasses import replace

    given = yaml.safe_load(ROUTING_YAML)
    given["rules"].insert(
        0,
        {
            "name": "crowded",
            "when": {"queue_length": {"queue": "service", "at_least": 100}, "contains": ["lamp"]},
            "then": {"queue": "labs", "tags": ["overflow"]},
        },
    )
    policy = read_policy(yaml.safe_dump(given))
    assert policy.watched == {"service"}
    crowded = opened(replace(policy, lengths={"service": 100}), text="my lamp")
    told = crowded.one(wire.TicketOpened)
    assert (told.rule, told.tags, told.queue) == ("crowded", ("overflow",), "labs")
    assert told.matched == ("queue_length service: 100 (at least 100)", "contains: lamp")
    assert told.observed == {"service": 100}
    assert crowded.ticket.tags == ("overflow",)
    again = opened(replace(policy, lengths=told.observed), text="my lamp")
    assert again.told == crowded.told
    calm = opened(replace(policy, lengths={"service": 99}), text="my lamp").one(wire.TicketOpened)
    assert (calm.rule, calm.observed) == ("everything else", {"service": 99})


def test_rules_know_the_conversations_history() -> None:
    given = yaml.safe_load(ROUTING_YAML)
    given["rules"].insert(
        0,
        {
            "name": "again and again",
            "when": {"previous_tickets": {"at_least": 1}, "reopens": {"at_least": 1}},
            "then": {"queue": "technical"},
        },
    )
    case = opened(read_policy(yaml.safe_dump(given)))
    assert case.ticket.rule == "everything else"
    case.held_by("ada").commands(SolveTicket, "09:10")
    case.hears(message("m2"), "09:20")
    case.held_by("ada", "09:21").commands(SolveTicket, "09:30")
    case.hears(message("m3"), "2026-12-24T09:00")
    assert (case.ticket.rule, case.ticket.number) == ("again and again", 2)


# --------------------------------------------------------------------------------------------- presets

PRESET = {
    "skills": {"api": {"level": 3, "required": True}, "orders": {"level": 9}},
    "forbidden": ["trainee"],
    "language": {"level": 4, "required": True},
    "also_queues": ["labs"],
    "steps": [
        {"after_seconds": 100, "levels": {"orders": 1}, "language": False},
        {"after_seconds": 200, "queues": ["labs"]},
    ],
}


def test_a_queues_preset_is_laid_under_what_a_rule_asks_and_the_rule_goes_first() -> None:
    rule = {
        "queue": "technical",
        "skills": {"orders": {"level": 2, "required": True}},
        "language": {"level": 2, "relax_after_seconds": 60},
    }
    case = opened(policy_with(rule, queues__technical__preset=PRESET))
    assert case.ticket.requirement == Requirement(
        language="en",
        language_level=4,
        language_relax_after=None,
        skills=(SkillNeed("api", 3), SkillNeed("orders", 2)),
        forbidden=("trainee",),
        queues=("labs",),
        # The first step would lower what the rule requires, so nothing is left of it.
        steps=(Step(200.0, queues=("labs",)),),
    )
    assert case.ticket.asked == Requirement(
        language="en", language_level=2, language_relax_after=60, skills=(SkillNeed("orders", 2),)
    )


def test_a_rules_own_steps_replace_those_of_the_preset() -> None:
    rule = {
        "queue": "technical",
        "skills": {"api": {"level": 9}},
        "steps": [{"after_seconds": 60, "levels": {"api": 1}}],
    }
    asked = opened(policy_with(rule, queues__technical__preset=PRESET)).ticket.requirement
    assert asked.steps == (Step(60.0, levels=(("api", 1),)),)


def test_a_ticket_that_moves_asks_what_its_new_queue_does_and_no_more_what_its_old_one_did() -> (
    None
):
    policy = policy_with(
        {"queue": "service", "skills": {"orders": {"level": 2}}},
        queues__service__preset={"skills": {"lamps": {"level": 1}}},
        queues__returns={"desk": "service", "preset": {"forbidden": ["trainee"]}},
        queues__billing={"desk": "service"},
    )
    case = opened(policy).held_by("ada")
    assert [need.skill for need in case.ticket.requirement.skills] == ["lamps", "orders"]
    case.commands(ReassignTicket, "09:05", queue="returns")
    asked = case.one(routing.WorkRequested).requirement
    assert ([need.skill for need in asked.skills], asked.forbidden) == (["orders"], ("trainee",))
    case.commands(ReassignTicket, "09:06", agent="bo", queue="billing")
    asked = case.one(routing.WorkRequested).requirement
    assert ([need.skill for need in asked.skills], asked.forbidden) == (["orders"], ())


def test_e1_an_escalated_ticket_keeps_its_skills_and_asks_what_the_upper_queue_does_as_well() -> (
    None
):
    policy = policy_with(
        {"queue": "service", "skills": {"orders": {"level": 2}}},
        queues__technical__preset={"skills": {"api": {"level": 5, "required": True}}},
    )
    case = opened(policy).held_by("ada")
    case.commands(EscalateTicket, "09:05", reason="a bug", facts={"tried": "x", "impact": "y"})
    asked = case.one(routing.WorkRequested).requirement
    assert [(need.skill, need.level) for need in asked.skills] == [("api", 5), ("orders", 2)]


# ---------------------------------------------------------------------------------------- known agents

KNOWN = {"patience_seconds": 120, "half_life_hours": 1, "at_least_seconds": 5}


@pytest.mark.parametrize(
    ("age", "hold"),
    [
        (timedelta(), 120.0),
        (timedelta(minutes=30), 84.853),
        (timedelta(hours=1), 60.0),
        (timedelta(hours=4), 7.5),
        (timedelta(seconds=16_505), 5.0),
        (timedelta(seconds=16_507), None),
        (timedelta(days=36_500), None),
        (-timedelta(seconds=5), 120.0),
    ],
)
def test_patience_for_a_known_agent_halves_with_each_half_life_down_to_its_floor(
    age: timedelta, hold: float | None
) -> None:
    known = KnownAgent(timedelta(seconds=120), timedelta(hours=1), timedelta(seconds=5))
    assert known.hold(at("09:00"), at("09:00") + age) == pytest.approx(hold, abs=0.002)
    assert known.hold(None, at("09:00")) is None


def asked_after_reply(policy: Policy, replied: str, back: str) -> routing.WorkRequested:
    case = opened(policy).held_by("ada")
    case.commands(ReplyToCustomer, replied, text="Which lamp?")
    return case.hears(message("m2", occurred_at=at(back)), back).one(routing.WorkRequested)


def test_a_customers_reply_waits_for_whoever_answered_and_the_less_the_later_it_comes() -> None:
    policy = policy_with(known_agent=KNOWN)
    soon = asked_after_reply(policy, "09:10", "09:10:36")
    assert (soon.preferred_agent_id, soon.hold_seconds) == ("ada", 119.171)
    assert asked_after_reply(policy, "09:10", "11:10").hold_seconds == 30
    late = asked_after_reply(policy, "09:10", "2026-11-25T09:10")
    assert (late.preferred_agent_id, late.hold_seconds) == ("ada", None)


def test_the_same_agent_is_known_on_other_channels_for_as_long_as_the_policy_says() -> None:
    asked = opened(policy_with(known_agent=KNOWN)).one(routing.WorkRequested)
    assert (asked.known_patience_seconds, asked.known_half_life_seconds) == (120, 3600)
    assert (asked.preferred_agent_id, asked.hold_seconds, asked.customer_id) == (None, None, "k1")
    off = opened(policy_with()).one(routing.WorkRequested)
    assert (off.known_patience_seconds, off.known_half_life_seconds) == (0, 0)


def test_a_rule_may_have_its_own_patience_or_none() -> None:
    mine = {"queue": "service", "known_agent": {"patience_seconds": 10, "half_life_hours": 1}}
    policy = policy_with(mine, known_agent=KNOWN)
    assert asked_after_reply(policy, "09:10", "09:10").hold_seconds == 10
    none = policy_with(
        {"queue": "service", "known_agent": {"patience_seconds": 0}}, known_agent=KNOWN
    )
    assert asked_after_reply(none, "09:10", "09:10").hold_seconds is None


def test_a_reopened_and_a_followed_up_case_wait_for_who_solved_it() -> None:
    policy = policy_with(known_agent=KNOWN | {"half_life_hours": 72})
    case = opened(policy).held_by("ada").commands(SolveTicket, "09:10")
    again = case.hears(message("m2"), "2026-11-25T09:10").one(routing.WorkRequested)
    assert (again.reason, again.preferred_agent_id) == ("reopened", "ada")
    assert again.hold_seconds == pytest.approx(120 * 0.5 ** (24 / 72), abs=0.001)
    case.held_by("ada", "2026-11-25T09:11").commands(SolveTicket, "2026-11-25T10:00")
    later = case.hears(message("m3"), "2026-11-28T10:00").one(routing.WorkRequested)
    assert (later.reason, later.preferred_agent_id, later.hold_seconds) == ("follow_up", "ada", 60)


def test_a_colleague_who_never_had_the_customer_is_not_waited_for() -> None:
    case = opened(policy_with(known_agent=KNOWN)).held_by("ada")
    asked = case.commands(ReassignTicket, "09:05", to_agent_id="bo").one(routing.WorkRequested)
    assert (asked.preferred_agent_id, asked.hold_seconds) == ("bo", None)


# --------------------------------------------------------------------------------------- policy changes


def after_change(on_change: str, then: dict[str, Any]) -> routing.WorkRequested:
    """A ticket of the first policy is answered under it, and its customer comes back under the second."""
    first = policy_with({"queue": "service", "skills": {"orders": {"level": 2}}})
    second = policy_with(then, "v2", assignment={"on_policy_change": on_change})
    case = opened(first, language="tr").held_by("ada").commands(ReplyToCustomer, "09:10", text="?")
    case.policy = second
    back = message("m2", occurred_at=at("09:20"))
    return case.hears(back, "09:20").one(routing.WorkRequested)


def test_r18_a_pinned_ticket_asks_what_it_did_and_names_the_policy_that_it_goes_by() -> None:
    asked = after_change("pin", {"queue": "service", "skills": {"lamps": {"level": 7}}})
    assert [need.skill for need in asked.requirement.skills] == ["orders"]
    assert asked.policy_version == "v1"


def test_r18_a_reevaluated_ticket_asks_what_its_rule_asks_now_and_names_that_policy() -> None:
    asked = after_change("reevaluate", {"queue": "service", "skills": {"lamps": {"level": 7}}})
    assert [(need.skill, need.level) for need in asked.requirement.skills] == [("lamps", 7)]
    assert (asked.requirement.language, asked.policy_version) == ("tr", "v2")


def test_r18_a_ticket_whose_rule_now_leads_elsewhere_keeps_what_it_asks() -> None:
    asked = after_change("reevaluate", {"queue": "labs", "skills": {"lamps": {"level": 7}}})
    assert [need.skill for need in asked.requirement.skills] == ["orders"]
    assert asked.policy_version == "v1"


def test_r18_a_ticket_that_was_handed_up_keeps_what_was_asked_for_it() -> None:
    first = policy_with({"queue": "service", "skills": {"orders": {"level": 2}}})
    case = opened(first).held_by("ada")
    case.policy = policy_with(
        {"queue": "service", "skills": {"lamps": {"level": 7}}},
        "v2",
        assignment={"on_policy_change": "reevaluate"},
    )
    case.commands(EscalateTicket, "09:05", reason="a bug", facts={"tried": "x", "impact": "y"})
    asked = case.one(routing.WorkRequested)
    assert [need.skill for need in asked.requirement.skills] == ["orders"]


def waiting_through_a_change(on_change: str, then: dict[str, Any], **content: Any) -> Desk:
    """A ticket of the first policy waits, since nobody is there, while the second one comes into force."""
    asked = opened(FIRST, **content).one(routing.WorkRequested)
    desk = Desk().hears(asked, "09:00")
    second = policy_with(then, "v2", assignment={"on_policy_change": on_change})
    desk.more = {"asks": second.terms.asks, "version": second.terms.version}
    return desk.tick("09:00:30")


FIRST = policy_with({"queue": "service", "skills": {"orders": {"level": 2}}})
NOW = {
    "queue": "service",
    "skills": {"lamps": {"level": 7}, "api": {"level": 1, "relax_after_seconds": 20}},
}


def test_r18_a_ticket_that_waits_is_pinned_by_default() -> None:
    desk = waiting_through_a_change("pin", NOW)
    assert desk.told == ()
    (work,) = desk.domain.works.values()
    assert (work.policy_version, [need.skill for need in work.requirement.skills]) == (
        "v1",
        ["orders"],
    )


def test_r18_a_ticket_that_waits_asks_what_its_rule_asks_now_and_says_by_which_policy() -> None:
    desk = waiting_through_a_change("reevaluate", NOW, language="tr")
    told = desk.one(routing.TicketQueued).record
    assert told is not None
    assert (told.policy_version, told.requirement.language) == ("v2", "tr")
    # Its patience counts from when it began to wait, so one need has fallen away already.
    assert [need.skill for need in told.requirement.skills] == ["lamps"]
    assert told.relaxed == ("api",)
    desk.agent("bo", "09:00:40", skills={"lamps": 8}, languages={"tr": 5})
    assert [ticket for ticket, _ in desk.offered_to()] == [desk.one(routing.OfferMade).ticket_id]
    assert desk.restart().tick("09:00:50").told == ()


def test_r18_a_ticket_that_waits_in_a_queue_that_is_not_its_rules_any_more_keeps_what_it_asks() -> (
    None
):
    desk = waiting_through_a_change("reevaluate", NOW | {"queue": "labs"})
    assert desk.told == ()


def test_r18_what_is_offered_meanwhile_asks_it_when_it_comes_back() -> None:
    asked = opened(FIRST).one(routing.WorkRequested)
    desk = Desk().agent("ada", skills={"orders": 5}).hears(asked, "09:00")
    assert len(desk.offered_to()) == 1
    second = policy_with(NOW, "v2", assignment={"on_policy_change": "reevaluate"})
    desk.more = {"asks": second.terms.asks, "version": second.terms.version}
    assert desk.tick("09:00:10").told == ()
    desk.tick("09:00:30")
    (work,) = desk.domain.works.values()
    assert (work.status, work.policy_version) == ("waiting", "v2")
    assert [need.skill for need in work.effective.skills] == ["lamps"]
    assert desk.offered_to() == []


def test_a_context_without_a_tier_reads_as_before() -> None:
    told = message().model_dump(mode="json")
    told["context"] = {"conversations": 2}
    assert messages.MessageReceived.model_validate(told).context is not None
