"""The tags that say why: what `causes.yaml` may hold, and what a command with a name that it lacks comes to."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from chassis.errors import PolicyError
from chassis.policy import parse
from schemas import commands
from schemas import tickets as wire
from services.router.core.policy.policy import Policy
from services.router.core.policy.policy import build as build_policy
from services.router.core.policy.policy_model import PolicyMistake
from services.router.core.tickets.causes import CAUSES_FILE, CausesModel, build, find_in_causes
from tests.unit.router.stories import FOLDER, ROUTING_YAML, Case, message, parsed

CAUSES_YAML = """
require_cause: false
causes:
  delivery: {description: {en: Delivery, tr: Teslimat, ru: Доставка}, desk: service}
  late_by_shipper: {description: {en: Late, tr: Geç, ru: Поздно}, parent: delivery}
  lost_parcel: {description: {en: Lost, tr: Kayıp, ru: Потеряна}, parent: delivery}
tags: {angry: The customer is angry}
"""


def model(text: str = CAUSES_YAML) -> CausesModel:
    return parse(CAUSES_FILE, yaml.safe_load(text), CausesModel)


def policy(text: str = CAUSES_YAML, routing: str = ROUTING_YAML) -> Policy:
    return build_policy(parsed(routing) | {CAUSES_FILE: model(text)}, FOLDER, "v1")


def held(text: str = CAUSES_YAML) -> Case:
    return Case(policy(text)).hears(message(), "09:00").held_by("ada")


def told(case: Case) -> str:
    return case.one(wire.CommandRefused).reason


def test_an_unknown_cause_is_refused_with_the_nearest_known_ones() -> None:
    case = held().commands(commands.SolveTicket, "09:10", cause="late_by_shiper")
    assert told(case) == "cause_unknown: late_by_shiper; nearest known: late_by_shipper"
    case.commands(commands.SolveTicket, "09:11", cause="late_by_shipper")
    assert case.status == "solved"


def test_an_unknown_tag_is_refused_with_the_nearest_and_a_known_one_is_not() -> None:
    case = held().commands(commands.TagTicket, "09:10", add=["angri"])
    assert told(case) == "tag_unknown: angri; nearest known: angry"
    case.commands(commands.TagTicket, "09:11", add=["angry", "lost_parcel"])
    assert case.ticket.tags == ("angry", "lost_parcel")


def test_a_name_that_is_near_to_none_is_told_some_that_there_are() -> None:
    case = held().commands(commands.TagTicket, "09:10", add=["zzz"])
    assert told(case) == "tag_unknown: zzz; nearest known: angry, delivery, late_by_shipper"


def test_a_tag_that_the_policy_lost_can_still_be_taken_away() -> None:
    case = Case().hears(message(), "09:00").commands(commands.TagTicket, "09:01", add=["gone"])
    case.policy = policy()
    case.commands(commands.TagTicket, "09:02", add=["angry"], remove=["gone"])
    assert case.ticket.tags == ("angry",)


def test_a_tag_is_no_cause() -> None:
    case = held().commands(commands.SolveTicket, "09:10", cause="angry")
    assert told(case).startswith("cause_unknown: angry")


REQUIRED = CAUSES_YAML.replace("require_cause: false", "require_cause: true")


@pytest.mark.parametrize(
    ("kind", "fields"),
    [(commands.SolveTicket, {}), (commands.ReplyToCustomer, {"text": "Done.", "solves": True})],
)
def test_a_case_is_not_solved_without_a_cause_where_one_is_required(
    kind: type[commands.Command], fields: dict[str, Any]
) -> None:
    case = held(REQUIRED).commands(kind, "09:10", **fields)
    assert (told(case), case.status, len(case.told)) == ("cause_required", "assigned", 1)
    case.commands(kind, "09:11", **fields, cause="lost_parcel")
    assert case.one(wire.TicketSolved).cause == "lost_parcel"


def test_a_cause_among_the_tags_is_one() -> None:
    case = held(REQUIRED).commands(commands.TagTicket, "09:10", add=["lost_parcel"])
    assert case.commands(commands.SolveTicket, "09:11").status == "solved"
    case = held(REQUIRED).commands(commands.TagTicket, "09:10", add=["angry"])
    assert told(case.commands(commands.SolveTicket, "09:11")) == "cause_required"


def test_a_reply_that_does_not_solve_needs_no_cause() -> None:
    case = held(REQUIRED).commands(commands.ReplyToCustomer, "09:10", text="Soon.")
    assert case.status == "pending"


def test_a_cause_knows_those_above_it() -> None:
    causes = build(model())
    assert causes.with_parents("lost_parcel") == ("lost_parcel", "delivery")
    assert causes.desk_of("lost_parcel") == "service"


@pytest.mark.parametrize(
    ("old", "new", "path", "allowed"),
    [
        ("parent: delivery}\n  lost", "parent: delivry}\n  lost", "causes.late_by_shipper.parent", "'delivery' meant"),
        ("desk: service}", "desk: service, parent: lost_parcel}", "causes.delivery.parent", "in a circle"),
        ("angry:", "lost_parcel:", "tags.lost_parcel", "a cause already"),
        ("desk: service", "desk: sales", "causes.delivery.desk", "service"),
        ("{en: Lost, tr: Kayıp, ru: Потеряна}", "{}", "causes.lost_parcel.description", "at least 1"),
        ("causes:", "reasons:", "causes", "required"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_work_is_refused_by_its_path(
    old: str, new: str, path: str, allowed: str
) -> None:
    with pytest.raises((PolicyMistake, PolicyError)) as raised:
        build(model(CAUSES_YAML.replace(old, new, 1)))
    assert raised.value.path == path
    assert allowed in raised.value.allowed


def test_a_cause_without_words_in_a_language_we_answer_in_is_found() -> None:
    found = find_in_causes(build(model(CAUSES_YAML.replace(", ru: Поздно", ""))), policy().routing)
    assert [(one.level, one.path) for one in found] == [
        ("warning", "causes.late_by_shipper.description")
    ]


def test_an_escalation_for_a_cause_that_there_is_not_is_refused() -> None:
    routing = ROUTING_YAML.replace("on_exhausted: true", "on_causes: [lost_parcels]")
    with pytest.raises(PolicyMistake) as raised:
        policy(routing=routing)
    assert raised.value.path == "escalation.on_causes.0"
    assert "'lost_parcel' meant" in raised.value.allowed


def test_the_example_policy_has_words_for_all_languages() -> None:
    folder = Path(__file__).parents[3] / "policy"
    causes = build(model((folder / CAUSES_FILE).read_text("utf-8")))
    assert list(find_in_causes(causes, policy().routing)) == []
