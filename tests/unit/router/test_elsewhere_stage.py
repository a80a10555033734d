"""The glue: events in, calls out, results back through the effect table, and which calls may simply be made again."""

import json
from datetime import datetime, timedelta
from typing import Any, cast

import httpx
import pytest

from chassis.policy import PolicyHolder
from chassis.stage import Effect, EffectDone, EffectResult, Received, Tick
from chassis.testing.instants import at
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.tickets import TicketOpened
from services.router.adapters.api import PlaceApi, Problem, Vendor
from services.router.core.elsewhere.calls import Call
from services.router.core.elsewhere.decide import Done, NotDone, Unknown
from services.router.core.elsewhere.policy import Places
from services.router.core.elsewhere.state import Conversation, Reason
from services.router.elsewhere import UNDERSTOOD, ElsewhereStage
from services.router.elsewhere_store import ItemRow, SupersededRow
from tests.unit.router.elsewhere_kit import (
    CONVERSATION,
    DESK,
    TEAM,
    assigned,
    offered,
    opened,
    places,
    queued,
)


class Holder:
    """A policy with places and nothing else."""

    def __init__(self, elsewhere: Places) -> None:
        self.current = self
        self.elsewhere = elsewhere


class Scripted:
    """A vendor that answers as it is told."""

    def __init__(self, *answers: Done | NotDone | Unknown) -> None:
        self.answers = list(answers)
        self.calls: list[Call] = []

    async def tell(self, api: PlaceApi, call: Call) -> Done:
        self.calls.append(call)
        answer = self.answers.pop(0) if self.answers else Done()
        if isinstance(answer, Done):
            return answer
        raise Problem(answer)


class Loop:
    """What the loop does with a stage, one input at a time."""

    def __init__(self, elsewhere: Places, vendor: Scripted) -> None:
        self.holder = Holder(elsewhere)
        vendors = {
            name: Vendor(name, type(place.settings), vendor.tell)
            for place in elsewhere.places.values()
            for name in (place.vendor,)
        }
        self.stage = ElsewhereStage(
            cast("PolicyHolder[Any]", self.holder), httpx.AsyncClient(), vendors=vendors
        )
        self.state: Conversation | None = None
        self.effects: list[Effect] = []
        self.rows: list[Any] = []
        self.events: list[Payload] = []
        self.timers: dict[str, datetime | None] = {}

    def take(self, item: Any, now: datetime) -> Any:
        outcome = self.stage.decide(self.state, item, now)
        self.state = outcome.state
        self.effects += [_through_json(effect) for effect in outcome.effects]
        self.rows += outcome.rows
        self.events += outcome.events
        self.timers |= outcome.timers
        return outcome

    def hear(self, event: Any, now: datetime) -> Any:
        return self.take(received(event), now)

    async def perform(self, now: datetime) -> EffectResult:
        effect = self.effects.pop(0)
        result = await self.stage.perform(effect)
        self.take(EffectDone(effect, result), now)
        return result


def received(event: Any) -> Received:
    envelope = Envelope(
        type=event.TYPE, source="signalbox/router.tickets/0", id="e-1", time=at("09:00"),
        partitionkey=CONVERSATION,
    )  # fmt: skip
    return Received(envelope, event, CONVERSATION, event.TOPIC, "e-1")


def _through_json(effect: Effect) -> Effect:
    payload = json.loads(json.dumps(effect.payload))
    return Effect(effect.id, effect.key, payload, effect.attempt)


async def test_an_assignment_goes_out_and_its_result_comes_back() -> None:
    vendor = Scripted(Done(is_changed=False))
    loop = Loop(places(desk=DESK), vendor)
    loop.hear(opened(), at("09:00"))
    loop.hear(assigned(), at("09:01"))
    assert (await loop.perform(at("09:01:01"))).status == "done"
    (said,) = loop.events
    assert (said.TYPE, said.is_changed) == ("assignment_elsewhere.done.v1", False)  # type: ignore[attr-defined]
    items = [row.item for row in loop.rows if isinstance(row, ItemRow)]
    assert [type(item.standing).__name__ for item in items] == ["Calling", "Resting"]


async def test_not_now_sets_a_timer_and_the_timer_calls_again_under_the_same_name() -> None:
    wish = timedelta(seconds=30)
    vendor = Scripted(NotDone(Reason.THROTTLED, True, wish, "429"))
    loop = Loop(places(desk=DESK), vendor)
    loop.hear(opened(), at("09:00"))
    loop.hear(assigned(), at("09:01"))
    first = loop.effects[0]
    await loop.perform(at("09:01"))
    assert loop.timers == {"retry": at("09:01:30")}
    loop.take(Tick(CONVERSATION, "retry", at("09:01:30")), at("09:01:30"))
    assert loop.timers == {"retry": None}
    assert (loop.effects[0].id, loop.effects[0].attempt) == (first.id, 2)
    await loop.perform(at("09:01:31"))
    assert vendor.calls[0] == vendor.calls[1]


async def test_a_call_that_is_overtaken_before_it_begins_is_not_made() -> None:
    vendor = Scripted()
    loop = Loop(places(desk=DESK), vendor)
    for event in (opened(), assigned("ada"), queued(), assigned("grace", "09:03")):
        loop.hear(event, at("09:03"))
    assert len(loop.effects) == 1
    result = await loop.perform(at("09:03:01"))
    assert (result.status, vendor.calls) == ("failed", [])
    await loop.perform(at("09:03:02"))
    assert [call.user for call in vendor.calls] == ["257"]  # type: ignore[union-attr]
    assert len([row for row in loop.rows if isinstance(row, SupersededRow)]) == 2
    assert [said.agent_id for said in loop.events] == ["grace"]  # type: ignore[attr-defined]


async def test_a_decision_that_was_never_committed_costs_one_idle_turn() -> None:
    """The newer saying that overtook a call may be gone with its batch: the call is then asked for again."""
    vendor = Scripted()
    loop = Loop(places(desk=DESK), vendor)
    loop.hear(opened(), at("09:00"))
    loop.hear(assigned("ada"), at("09:01"))
    committed = loop.state
    loop.hear(assigned("grace", "09:02"), at("09:02"))
    loop.state = committed
    await loop.perform(at("09:02:01"))
    await loop.perform(at("09:02:02"))
    assert [call.user for call in vendor.calls] == ["256"]  # type: ignore[union-attr]


def test_what_makes_something_is_not_simply_repeated_and_everything_else_is() -> None:
    loop = Loop(places(desk=DESK, team=TEAM), Scripted())
    loop.hear(opened(), at("09:00"))
    loop.hear(assigned(), at("09:01"))
    (desk,) = loop.effects
    assert loop.stage.is_repeatable(desk)
    loop.effects.clear()
    loop.hear(offered(), at("09:00:30"))
    (making,) = loop.effects
    assert not loop.stage.is_repeatable(making)
    loop.effects.clear()
    loop.take(EffectDone(making, EffectResult("unknown", "interrupted")), at("09:00:40"))
    due = loop.timers["retry"]
    assert due is not None
    loop.take(Tick(CONVERSATION, "retry", due), due)
    (looking,) = loop.effects
    assert loop.stage.is_repeatable(looking)


@pytest.mark.parametrize(
    ("detail", "reason"),
    [("interrupted", "interrupted"), ("the provider failed: KeyError", "bug")],
)
def test_the_loops_own_words_become_ours(detail: str, reason: str) -> None:
    loop = Loop(places(desk=DESK), Scripted())
    loop.hear(opened(), at("09:00"))
    loop.hear(assigned(), at("09:01"))
    loop.take(EffectDone(loop.effects[0], EffectResult("unknown", detail)), at("09:02"))
    assert loop.state is not None
    (item,) = loop.state.items.values()
    assert getattr(item.standing, "reason", None) == reason


async def test_a_place_that_left_the_policy_is_not_called() -> None:
    vendor = Scripted()
    loop = Loop(places(desk=DESK), vendor)
    loop.hear(opened(), at("09:00"))
    loop.hear(assigned(), at("09:01"))
    loop.holder.elsewhere = places(team=TEAM)
    await loop.perform(at("09:01:01"))
    assert vendor.calls == []
    assert [said.reason for said in loop.events] == ["place_gone"]  # type: ignore[attr-defined]


def test_without_places_no_event_is_even_read() -> None:
    loop = Loop(places(desk=DESK), Scripted())
    assert loop.stage.understands_type("tickets", TicketOpened.TYPE)
    assert not loop.stage.understands_type("routing", "assignment_elsewhere.done.v1")
    loop.holder.elsewhere = Places()
    for kind in UNDERSTOOD:
        assert not loop.stage.understands_type(kind.TOPIC, kind.TYPE)
