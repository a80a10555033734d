"""The part of `routing.yaml` about presence, offers, capacity and overload: what it becomes, and what is refused."""

import pytest

from chassis.errors import PolicyError
from services.router.core.assignment.terms import Guard, Overload
from services.router.core.policy.policy_model import PolicyMistake
from tests.unit.router.stories import ROUTING_YAML, read_policy

OFFERS = "offers: {seconds: 30, max_declines: 3, away_after_misses: 2}"


def with_offers(more: str) -> str:
    assert OFFERS in ROUTING_YAML
    return ROUTING_YAML.replace(OFFERS, OFFERS[:-1] + ", " + more + "}")


def with_assignment(text: str) -> str:
    return ROUTING_YAML + f"assignment: {{{text}}}\n"


def with_presence(text: str) -> str:
    return ROUTING_YAML + f"presence: {{{text}}}\n"


def test_what_is_said_becomes_the_terms() -> None:
    terms = read_policy(with_offers("auto_accept: [labs], parallel: {technical: 3}")).terms
    assert (terms.auto_accept, terms.parallel) == (("labs",), {"technical": 3})
    terms = read_policy(
        with_assignment(
            "overload: {service: {at: 100, clear_below: 80}}, "
            "interruptible: {email: {interrupted_by: [voice]}}, "
            "guards: {technical: {risk_seconds: 600, clear_seconds: 900}, labs: {on_at: 3}}"
        )
    ).terms
    assert terms.overload == {"service": Overload(100, 80)}
    assert terms.interrupted_by == {"email": ("voice",)}
    assert terms.guards == {"technical": Guard(None, 0, 600, 900), "labs": Guard(3, 0, None, 0)}
    terms = read_policy(
        with_presence("heartbeat_seconds: 30, return_assigned_after_seconds: 300")
    ).terms
    assert (terms.heartbeat, terms.return_assigned) == (30, 300)


def test_nothing_of_it_is_on_where_nothing_is_said() -> None:
    terms = read_policy().terms
    assert (terms.heartbeat, terms.return_assigned, terms.auto_accept) == (None, None, ())
    assert (terms.parallel, terms.overload, terms.interrupted_by) == ({}, {}, {})


def test_a_guard_by_time_alone_clears_where_it_begins_unless_it_says_otherwise() -> None:
    terms = read_policy(with_assignment("guards: {technical: {risk_seconds: 600}}")).terms
    assert terms.guards["technical"] == Guard(None, 0, 600, 600)


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        (with_offers("auto_accept: [attic]"), "offers.auto_accept.attic", "no such queue"),
        (with_offers("parallel: {attic: 2}"), "offers.parallel.attic", "no such queue"),
        (
            with_offers("auto_accept: [labs], parallel: {labs: 2}"),
            "offers.parallel.labs",
            "nobody is asked",
        ),
        (
            with_assignment("overload: {attic: {at: 1, clear_below: 1}}"),
            "assignment.overload.attic",
            "no such queue",
        ),
        (
            with_assignment("interruptible: {email: {interrupted_by: [email]}}"),
            "assignment.interruptible.email.interrupted_by",
            "the channel itself",
        ),
    ],
)
def test_names_that_cannot_be_meant_are_refused_with_their_path(
    text: str, path: str, says: str
) -> None:
    with pytest.raises(PolicyMistake) as caught:
        read_policy(text)
    assert caught.value.path == path
    assert says in caught.value.allowed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (with_offers("parallel: {labs: 6}"), "less than or equal to 5"),
        (with_offers("parallel: {labs: 1}"), "greater than or equal to 2"),
        (with_assignment("overload: {labs: {at: 80, clear_below: 100}}"), "try at: 100"),
        (with_assignment("guards: {labs: {}}"), "guards nothing"),
        (
            with_assignment("guards: {labs: {risk_seconds: 600, clear_seconds: 60}}"),
            "clear_seconds must be risk_seconds or more",
        ),
        (
            with_assignment("guards: {labs: {on_at: 2, clear_seconds: 60}}"),
            "clear_seconds must be risk_seconds or more",
        ),
        (with_assignment("interruptible: {email: {interrupted_by: []}}"), "at least 1 item"),
        (with_presence("return_assigned_after_seconds: 60"), "without heartbeats"),
        (with_presence("heartbeat_seconds: 0.5"), "greater than or equal to 1"),
    ],
)
def test_values_that_cannot_work_are_refused_with_what_would(text: str, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        read_policy(text)
