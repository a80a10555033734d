"""Which policy a ticket goes by, and what happens to its clocks when it is another than it was. T18, T19."""
# ruff: noqa: N802 — T18 is the id of a promise, and written as elsewhere.

from datetime import timedelta
from typing import Any

import pytest

from chassis.errors import PolicyError
from schemas.payload import Payload
from schemas.sla import (
    SlaEvent,
    TargetBreached,
    TargetCancelled,
    TargetMet,
    TargetPaused,
    TargetResumed,
    TargetRetargeted,
    TargetStarted,
)
from schemas.tickets import (
    TicketAnswered,
    TicketClosed,
    TicketCustomerDescribed,
    TicketEscalated,
    TicketMessageAdded,
    TicketOpened,
    TicketPrioritised,
    TicketSolved,
    TicketStatusChanged,
    TicketTagged,
)
from services.sla.core.book import Ignored
from services.sla.core.policy import Policy, PolicyMistake, named_queues, unreachable_rules
from services.sla.core.state import Facts
from tests.unit.sla.clockwork import OFFICE, Story, at, make_policy, told

ALWAYS = {
    "timezone": "UTC",
    "hours": {
        day: [["00:00", "24:00"]] for day in ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    },
}
STANDARD: dict[str, Any] = {
    "calendar": "24/7",
    "warn_at": None,
    "first_response": {"within": "4h"},
    "resolution": {"within": "24h", "pauses": ["pending", "on_hold"]},
}
GOLD = STANDARD | {"first_response": {"within": "1h"}, "resolution": {"within": "8h"}}


def policy_of(*rules: tuple[dict[str, Any], str], version: str = "v1", **more: Any) -> Policy:
    said = [{"when": when, "policy": name} for when, name in rules]
    return make_policy(
        {"standard": STANDARD, "gold": GOLD} | more.pop("policies", {}),
        version,
        more={"rules": said} | more,
        lab=ALWAYS,
    )


def opened(policy: Policy, **fields: Any) -> Story:
    return Story(policy).then(told(TicketOpened, at("09:00:00"), **fields))


def moved(when: str, status: str, before: str = "assigned", **fields: Any) -> Payload:
    return told(TicketStatusChanged, at(when), before=before, status=status, **fields)


def described(when: str, tier: str | None = None, contract: str | None = None) -> Payload:
    return told(TicketCustomerDescribed, at(when), tier=tier, contract=contract)


def retargeted(story: Story) -> dict[str, TargetRetargeted]:
    return {one.target: one for one in story.told if isinstance(one, TargetRetargeted)}


def kinds(story: Story) -> list[type[SlaEvent]]:
    return [type(one) for one in story.told if isinstance(one, SlaEvent)]


# ------------------------------------------------------------------------------------- which policy


@pytest.mark.parametrize(
    ("when", "facts", "fits"),
    [
        ({}, {}, True),
        ({"queue": "service"}, {"queue": "service"}, True),
        ({"queue": ["technical", "lab"]}, {"queue": "lab"}, True),
        ({"queue": ["technical", "lab"]}, {"queue": "service"}, False),
        ({"priority": [1, 2]}, {}, False),
        ({"priority": 3}, {}, True),
        ({"channel": "voip", "language": "tr"}, {"channel": "voip", "language": "tr"}, True),
        ({"channel": "voip", "language": "tr"}, {"channel": "voip", "language": "en"}, False),
        ({"account": "resellers"}, {"account": "resellers"}, True),
        ({"customer_tier": "gold"}, {"customer_tier": "gold"}, True),
        ({"customer_tier": "gold"}, {}, False),
        ({"contract": "premium"}, {"contract": "premium"}, True),
        ({"desk": "technical"}, {"desk": "service"}, False),
        ({"tag": ["vip", "press"]}, {"tags": ("orders", "press")}, True),
        ({"tag": ["vip", "press"]}, {"tags": ("orders",)}, False),
    ],
)
def test_a_rule_fits_a_ticket_that_is_all_it_asks_for(
    when: dict[str, Any], facts: dict[str, Any], fits: bool
) -> None:
    chosen = policy_of((when, "gold")).select("standard", Facts(**facts), 3)
    assert chosen.name == ("gold" if fits else "standard")


def test_the_first_rule_that_fits_wins_over_what_routing_named_and_that_over_the_default() -> None:
    policy = policy_of(({"queue": "a"}, "standard"), ({"queue": ["a", "b"]}, "gold"))
    assert policy.select("gold", Facts(queue="a"), 3).name == "standard"
    assert policy.select("standard", Facts(queue="b"), 3).name == "gold"
    assert policy.select("gold", Facts(queue="c"), 3).name == "gold"
    assert policy.select("unheard of", Facts(queue="c"), 3).name == "standard"


def test_a_clock_names_the_policy_that_its_rule_chose() -> None:
    story = opened(policy_of(({"channel": "email"}, "gold")))
    assert {(one.policy, one.queue, one.channel, one.priority) for one in story.told} == {  # type: ignore[attr-defined]
        ("gold", "service", "email", 3)
    }


def test_a_rule_that_no_ticket_comes_to_is_found() -> None:
    policy = policy_of(
        ({"queue": ["service", "technical"]}, "gold"),
        ({"queue": "service", "priority": 1}, "standard"),
        ({"priority": 1}, "standard"),
        ({}, "gold"),
        ({"tag": "vip"}, "gold"),
    )
    assert [path for path, _ in unreachable_rules(policy)] == ["rules.1", "rules.4"]
    assert "rules.0" in dict(unreachable_rules(policy))["rules.1"]


def test_the_queues_that_the_file_names_are_listed_with_their_paths() -> None:
    lab = STANDARD | {"calendars": {"by_queue": {"lab": "office"}}}
    policy = policy_of(
        ({"queue": "service"}, "gold"), policies={"lab": lab}, tiers={"front": ["service"]}
    )
    assert set(named_queues(policy)) == {
        ("rules.0.when.queue", "service"),
        ("tiers.front", "service"),
        ("policies.lab.calendars.by_queue", "lab"),
    }


# ---------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("more", "path", "allowed"),
    [
        ({"rules": [{"when": {}, "policy": "silver"}]}, "rules.0.policy", "one of gold, standard"),
        (
            {"tiers": {"front": ["a"], "back": ["b", "a"]}},
            "tiers.back",
            "is in the tier front already",
        ),
        (
            {"policies": {"x": STANDARD | {"tiers": {"front": "1h"}}}},
            "policies.x.tiers.front",
            "there are none yet",
        ),
        (
            {
                "tiers": {"front": ["a"], "back": ["b"]},
                "policies": {"x": STANDARD | {"tiers": {"front": "20h", "back": "5h"}}},
            },
            "policies.x.tiers",
            "together at most the 1 day",
        ),
        (
            {
                "tiers": {"front": ["a"]},
                "policies": {
                    "x": STANDARD
                    | {"tiers": {"front": "2h"}, "priorities": {1: {"tiers": {"front": "25h"}}}}
                },
            },
            "policies.x.priorities.1.tiers",
            "at priority 1",
        ),
        (
            {
                "tiers": {"front": ["a"]},
                "policies": {"x": {"calendar": "office", "tiers": {"front": {"share": 0.5}}}},
            },
            "policies.x.tiers.front.share",
            "a share of",
        ),
        (
            {"policies": {"x": STANDARD | {"calendars": {"by_queue": {"lab": "moon"}}}}},
            "policies.x.calendars.by_queue.lab",
            "one of calendars.yaml",
        ),
        (
            {"policies": {"x": STANDARD | {"later_response": {"within": "1h"}}}},
            "policies.x.later_response",
            "needs `next_response`",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_its_path(
    more: dict[str, Any], path: str, allowed: str
) -> None:
    policies = {"standard": STANDARD, "gold": GOLD} | more.get("policies", {})
    rest = {name: value for name, value in more.items() if name != "policies"}
    with pytest.raises(PolicyMistake) as caught:
        make_policy(policies, more=rest)
    assert (caught.value.file, caught.value.path) == ("sla.yaml", path)
    assert allowed in caught.value.allowed


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ({"rules": [{"when": {"colour": "red"}, "policy": "gold"}]}, "rules.0.when.colour"),
        ({"rules": [{"when": {"queue": []}, "policy": "gold"}]}, "rules.0.when.queue"),
        ({"rules": [{"when": {"priority": 5}, "policy": "gold"}]}, "rules.0.when.priority.0"),
        ({"tiers": {"front": []}}, "tiers.front"),
    ],
)
def test_what_the_file_may_not_say_is_refused_with_its_path(
    said: dict[str, Any], path: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        make_policy({"standard": STANDARD, "gold": GOLD}, more=said)
    assert (caught.value.file, caught.value.path) == ("sla.yaml", path)


@pytest.mark.parametrize(
    "said",
    [
        {"tiers": {"front": "0h"}},
        {"tiers": {"front": {"within": "1h", "share": 0.5}}},
        {"callback": {"within": "1h"}},
        {"callback": {"counts": []}},
        {"time_to_offer": {"seconds": 0}},
    ],
)
def test_a_target_that_is_none_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(PolicyError) as caught:
        make_policy({"standard": STANDARD | said}, more={"tiers": {"front": ["a"]}})
    assert caught.value.path.startswith("policies.standard.")


def test_calendar_time_needs_no_calendar_and_none_may_take_its_name() -> None:
    rule = policy_of().target("standard", 3, "first_response")
    assert rule is not None
    assert rule.calendar == "24/7"
    assert opened(policy_of()).last.remarks == ()
    with pytest.raises((PolicyMistake, PolicyError)):
        make_policy({"standard": STANDARD}, "v1", None, **{"24/7": OFFICE})


# ----------------------------------------------------------------------------- other people's hours


def test_a_queue_has_the_hours_of_its_team_and_the_spent_time_is_kept() -> None:
    policy = policy_of(
        policies={
            "standard": STANDARD | {"calendar": "office", "calendars": {"by_queue": {"lab": "lab"}}}
        }
    )
    story = opened(policy)
    assert story.target("first_response").calendar == "office"
    story.then(told(TicketEscalated, at("11:00:00"), from_queue="service", to_queue="lab"))
    moved_to = retargeted(story)["resolution"]
    assert (moved_to.reason, moved_to.queue) == ("queue_changed", "lab")
    assert moved_to.due_at == at("2026-11-25T09:00:00+00:00")
    assert story.target("resolution").calendar == "lab"


def test_a_target_with_a_calendar_of_its_own_keeps_it_in_every_queue() -> None:
    own = {"first_response": {"within": "1h", "calendar": "office"}}
    policy = policy_of(
        policies={"standard": STANDARD | own | {"calendars": {"by_queue": {"lab": "lab"}}}}
    )
    assert opened(policy, queue="lab").target("first_response").calendar == "office"


# ------------------------------------------------------------------------------ T18: another ticket


def test_T18_a_queue_that_is_promised_more_keeps_the_spent_time_and_shows_the_old_target() -> None:
    story = opened(policy_of(({"queue": "technical"}, "gold")))
    first = story.target("first_response").target_id
    story.then(told(TicketEscalated, at("09:30:00"), from_queue="service", to_queue="technical"))
    found = retargeted(story)
    one = found["first_response"]
    assert (one.target_id, one.reason) == (first, "queue_changed")
    assert (one.before_policy, one.policy) == ("standard", "gold")
    assert (one.before_seconds, one.seconds) == (14400.0, 3600.0)
    assert (one.before_due_at, one.due_at) == (at("13:00:00"), at("10:00:00"))
    assert found["resolution"].due_at == at("17:00:00")
    story.then(told(TicketAnswered, at("09:45:00")))
    met = next(one for one in story.told if isinstance(one, TargetMet))
    assert met.elapsed_seconds == 2700.0


def test_T18_a_customer_who_becomes_more_important_is_promised_more_from_the_same_clock() -> None:
    story = opened(policy_of(({"customer_tier": "gold"}, "gold")))
    story.then(described("09:30:00", tier="gold"))
    one = retargeted(story)["first_response"]
    assert (one.reason, one.started_at, one.due_at) == (
        "customer_changed",
        at("09:00:00"),
        at("10:00:00"),
    )
    story.then(described("09:40:00"))
    back = retargeted(story)["first_response"]
    assert (back.before_due_at, back.due_at, back.policy) == (
        at("10:00:00"),
        at("13:00:00"),
        "standard",
    )


def test_T18_a_contract_counts_from_the_opening() -> None:
    policy = policy_of(({"contract": "premium"}, "gold"))
    story = opened(policy, context={"contract": "premium"})
    assert story.target("first_response").policy == "gold"
    assert story.target("first_response").due_at == at("10:00:00")


def test_T18_a_breach_stands_whatever_the_ticket_becomes() -> None:
    story = opened(policy_of(({"customer_tier": "gold"}, "gold")))
    story.tick(at("13:00:00")).then(described("13:30:00", tier="gold"))
    assert set(retargeted(story)) == {"resolution"}
    breach = story.target("first_response").breach
    assert breach is not None
    assert breach.breached_at == at("13:00:00")


def test_T18_a_target_that_is_past_already_is_broken_at_once_as_of_its_instant() -> None:
    story = opened(policy_of(({"customer_tier": "gold"}, "gold")))
    story.then(described("11:30:00", tier="gold"))
    assert retargeted(story)["first_response"].due_at == at("10:00:00")
    story.tick(at("11:30:00.004"))
    breached = next(one for one in story.told if isinstance(one, TargetBreached))
    assert (breached.breached_at, breached.detected_at) == (at("10:00:00"), at("11:30:00.004"))


def test_T18_priority_chooses_the_policy_too() -> None:
    story = opened(policy_of(({"priority": 1}, "gold")))
    story.then(told(TicketPrioritised, at("09:30:00"), before=3, priority=1))
    one = retargeted(story)["first_response"]
    assert (one.reason, one.policy, one.priority) == ("priority_changed", "gold", 1)


def test_T18_a_tag_chooses_the_policy_too_and_taken_off_it_does_not() -> None:
    story = opened(policy_of(({"tag": "vip"}, "gold")))
    story.then(told(TicketTagged, at("09:30:00"), tags=["vip"]))
    assert retargeted(story)["first_response"].reason == "tags_changed"
    story.then(told(TicketTagged, at("09:40:00"), tags=[]))
    assert retargeted(story)["first_response"].due_at == at("13:00:00")


def test_T18_a_clock_that_is_promised_no_more_ends_and_comes_back_as_the_same_one() -> None:
    less = {"calendar": "24/7", "first_response": {"within": "4h"}}
    story = opened(policy_of(({"queue": "slow"}, "less"), policies={"less": less}))
    first = story.target("resolution").target_id
    story.then(moved("10:00:00", "queued", queue="slow"))
    ended = next(one for one in story.told if isinstance(one, TargetCancelled))
    assert (ended.target, ended.reason) == ("resolution", "queue_changed")
    story.then(moved("11:00:00", "queued", queue="service"))
    resolution = story.target("resolution")
    assert (resolution.target_id, resolution.is_open) == (first, True)
    assert resolution.due_at == at("2026-11-25T09:00:00+00:00")


def test_T18_what_was_answered_meanwhile_does_not_come_back() -> None:
    less = {name: value for name, value in STANDARD.items() if name != "first_response"}
    story = opened(policy_of(({"queue": "slow"}, "less"), policies={"less": less}))
    story.then(moved("10:00:00", "queued", queue="slow"), told(TicketAnswered, at("10:30:00")))
    story.then(moved("11:00:00", "queued", queue="service"))
    assert story.target("first_response").status == "cancelled"
    assert kinds(story) == []


def test_T18_an_edited_policy_moves_no_clock_where_the_change_of_the_ticket_makes_no_difference() -> (
    None
):
    story = opened(policy_of())
    shorter = STANDARD | {"first_response": {"within": "10m"}}
    story.policy = policy_of(version="v2", policies={"standard": shorter})
    story.then(told(TicketTagged, at("09:30:00"), tags=["vip"]))
    story.then(moved("09:31:00", "queued", queue="technical"))
    assert kinds(story) == []
    assert story.target("first_response").policy_version == "v1"
    story.then(told(TicketAnswered, at("09:40:00")))
    assert TargetBreached not in kinds(story)


def test_T18_a_closed_ticket_is_not_rewritten() -> None:
    story = opened(policy_of(({"customer_tier": "gold"}, "gold")))
    story.then(told(TicketSolved, at("10:00:00")), told(TicketClosed, at("11:00:00")))
    story.then(described("12:00:00", tier="gold"))
    assert story.last.ignored == Ignored.TICKET_UNKNOWN
    assert kinds(story) == []


def test_a_solved_ticket_is_held_to_what_it_is_when_it_is_reopened() -> None:
    story = opened(policy_of(({"customer_tier": "gold"}, "gold")))
    story.then(told(TicketSolved, at("10:00:00")), described("11:00:00", tier="gold"))
    assert kinds(story) == []


# ------------------------------------------------------------------------------------ T19: pauses


@pytest.mark.parametrize(
    ("pauses", "waiting_on", "cause"),
    [
        (["on_hold"], "carrier", "third_party"),
        (["on_hold"], "Colleague", "hold"),
        (["on_hold"], "", "on_hold"),
        (["third_party"], "carrier", "third_party"),
        (["third_party"], "team", None),
        (["hold"], "team", "hold"),
        (["hold"], "carrier", None),
        (["third_party", "hold"], "", None),
    ],
)
def test_a_hold_for_somebody_outside_and_for_one_of_us_are_told_apart(
    pauses: list[str], waiting_on: str, cause: str | None
) -> None:
    held = {"resolution": {"within": "24h", "pauses": pauses}}
    story = opened(policy_of(policies={"standard": STANDARD | held}))
    story.then(moved("10:00:00", "on_hold", waiting_on=waiting_on))
    assert [one.cause for one in story.told if isinstance(one, TargetPaused)] == (
        [cause] if cause else []
    )
    story.then(moved("12:00:00", "queued", before="on_hold"))
    expected = at("2026-11-25T11:00:00+00:00") if cause else at("2026-11-25T09:00:00+00:00")
    assert story.target("resolution").due_at == expected


def test_who_is_one_of_us_is_the_files_to_say() -> None:
    held = {"resolution": {"within": "24h", "pauses": ["third_party"]}}
    policy = policy_of(policies={"standard": STANDARD | held}, internal_waits=["warehouse"])
    story = opened(policy).then(moved("10:00:00", "on_hold", waiting_on="warehouse"))
    assert kinds(story) == []


def test_customer_is_another_word_for_pending() -> None:
    held = {"resolution": {"within": "24h", "pauses": ["customer", "pending"]}}
    rule = policy_of(policies={"standard": STANDARD | held}).target("standard", 3, "resolution")
    assert rule is not None
    assert rule.pauses_on == ("pending",)


def test_T19_pauses_from_two_causes_that_follow_each_other_late_count_once() -> None:
    """The carrier is waited for from ten; that the customer had been since half past nine is heard of after."""
    story = opened(policy_of())
    story.then(moved("10:00:00", "on_hold", waiting_on="carrier"))
    story.heard(moved("09:30:00", "pending"), at("10:00:01"))
    story.then(moved("11:00:00", "queued", before="pending"))
    resolution = story.target("resolution")
    assert resolution.watch.paused_time(at("23:00:00")) == timedelta(hours=1, minutes=30)
    assert resolution.due_at == at("2026-11-25T10:30:00+00:00")


def test_T19_a_pause_is_subtracted_to_the_microsecond() -> None:
    story = opened(policy_of()).then(
        moved("10:00:00.000250", "pending"), moved("10:00:00.500001", "queued", before="pending")
    )
    assert [type(one) for one in story.told if isinstance(one, SlaEvent)] == [TargetResumed]
    assert story.target("resolution").due_at == at("2026-11-25T09:00:00.499751+00:00")


def test_T14_three_messages_unanswered_count_from_the_first_also_where_later_replies_differ() -> (
    None
):
    later = {"next_response": {"within": "2h"}, "later_response": {"within": "3h"}}
    story = opened(policy_of(policies={"standard": STANDARD | later}))
    story.then(told(TicketAnswered, at("09:10:00")), told(TicketMessageAdded, at("09:20:00")))
    story.then(told(TicketAnswered, at("09:30:00")))
    for when in ("09:40:00", "09:50:00", "09:55:00"):
        story.then(told(TicketMessageAdded, at(when)))
    started = [one for one in story.all if isinstance(one, TargetStarted)]
    assert [one.target for one in started][2:] == ["next_response", "later_response"]
    assert story.target("later_response").due_at == at("12:40:00")
    story.then(told(TicketSolved, at("10:00:00"), with_answer=False))
    assert story.target("later_response").status == "cancelled"
