"""What is stored of agents and work is read as it was written, and what is told unchecked is what would have been checked."""

from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from schemas import payload
from schemas.payload import trusted
from schemas.routing import DecisionRecord, Requirement, TicketQueued, WorkReleased
from services.router.core.assignment import assign, explain
from services.router.core.assignment.capacity import Agent
from services.router.core.assignment.records import Work
from services.router.core.assignment.stored import Profile, StoredReader
from services.router.store import agent_of
from tests.unit.router.duel import duel
from tests.unit.router.stories import Desk, at


def test_work_is_read_as_it_was_written_and_shares_what_it_asks() -> None:
    asked = {"language": "en", "skills": [{"skill": "x", "level": 2, "relax_after_seconds": 60}]}
    desk = Desk().asks("a", "09:00", requirement=asked).asks("b", "09:01", requirement=asked)
    reader = StoredReader()
    written = [desk.domain.works[f"w-{name}"] for name in "ab"]
    read = [reader.work(msgspec.json.encode(work)) for work in written]
    assert read == written
    assert [type(work) for work in read] == [Work, Work]
    assert [msgspec.json.encode(work) for work in read] == list(map(msgspec.json.encode, written))
    assert read[0].requirement is read[1].requirement is read[1].effective


def test_agents_of_a_team_share_the_names_of_its_queues() -> None:
    reader = StoredReader()
    profile = Profile(("alpha", "beta"), {"x": 3}, {"en": 5}, {"chat": 2}, 7)
    text = msgspec.json.encode(profile).decode()
    row = {
        "agent_id": "ada", "name": "Ada", "presence": "available", "capacity": 100, "load": 20,
        "ceiling": 100, "last_assigned_at": at("09:00"), "misses": 1, "profile": text, "duty": "{}",
    }  # fmt: skip
    ada, bo = agent_of(row, reader), agent_of({**row, "agent_id": "bo"}, reader)
    assert ada == Agent(
        "ada", "Ada", ("alpha", "beta"), {"x": 3}, {"en": 5}, 100, "available", 20, 100,
        at("09:00"), 1, {"chat": 2}, 7,
    )  # fmt: skip
    assert ada.queues is bo.queues
    assert type(reader.profile(text)) is Profile


@pytest.mark.parametrize("field", ["requirement", "effective"])
def test_stored_work_that_asks_nonsense_is_refused(field: str) -> None:
    desk = Desk().asks("a", "09:00")
    stored = msgspec.json.decode(msgspec.json.encode(desk.domain.works["w-a"]))
    stored[field] = {"skills": 5}
    with pytest.raises(msgspec.ValidationError, match="skills"):
        StoredReader().work(msgspec.json.encode(stored))


def test_whatever_the_engine_tells_unchecked_is_what_a_check_would_have_returned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, int] = {}

    def checked(kind: type[BaseModel], fields: dict[str, Any]) -> BaseModel:
        told, held = trusted(kind, fields), kind.model_validate(fields)
        assert told == held
        assert told.model_fields_set == held.model_fields_set
        assert told.model_dump_json() == held.model_dump_json()
        assert kind.model_validate_json(told.model_dump_json()) == held
        seen[kind.__name__] = seen.get(kind.__name__, 0) + 1
        return told

    monkeypatch.setattr(assign, "trusted", checked)
    monkeypatch.setattr(explain, "trusted", checked)
    for seed in range(60):
        duel(seed, 60)
    assert seen.keys() >= {
        "DecisionRecord", "Excluded", "OfferMade", "TicketQueued", "TicketAssigned", "TicketRequeued",
        "OfferWithdrawn", "OfferAnswerRefused", "WorkReleased", "RequirementRelaxed",
        "AssignmentExhausted", "QueueOverloaded", "TransferRefused",
    }  # fmt: skip


def test_a_field_that_is_missing_or_that_there_is_none_of_is_named() -> None:
    names = {"ticket_id": "t", "conversation_id": "c", "work_id": "w"}
    with pytest.raises(TypeError, match="WorkReleased: unknown or missing: agent_id"):
        trusted(WorkReleased, {**names, "reason": "solved", "at": at("09:00")})
    with pytest.raises(TypeError, match="DecisionRecord: unknown or missing: colour"):
        trusted(DecisionRecord, {"queue": "q", "requirement": Requirement(), "colour": "red"})


def test_a_model_whose_defaults_are_made_anew_each_time_is_not_built_unchecked() -> None:
    class Basket(payload.Part):
        things: list[str] = payload.Field(default_factory=list)

    with pytest.raises(TypeError, match="the defaults of things cannot be shared"):
        trusted(Basket, {})


def test_what_is_told_unchecked_cannot_be_changed() -> None:
    desk = Desk().asks("t", "09:00")
    with pytest.raises(ValueError, match="frozen"):
        desk.one(TicketQueued).queue = "other"  # type: ignore[misc]
