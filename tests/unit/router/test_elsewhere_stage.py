"""The glue: events in, calls out, results back through the effect table, and which calls may simply be made again."""

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any, cast

import httpx
import pytest
from structlog.testing import capture_logs

from chassis.policy import PolicyHolder
from chassis.stage import Effect, EffectDone, EffectResult, Received, Tick
from chassis.testing.instants import at
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.tickets import TicketOpened
from services.router import elsewhere
from services.router.adapters.api import PlaceApi, Problem, Vendor
from services.router.core.elsewhere.calls import Call
from services.router.core.elsewhere.decide import Done, NotDone, Unknown
from services.router.core.elsewhere.policy import Places
from services.router.core.elsewhere.state import Conversation, Reason, Resting
from services.router.elsewhere import UNDERSTOOD, ElsewhereStage
from services.router.elsewhere_store import ItemRow, LetGoRow, SupersededRow
from tests.unit.router.elsewhere_kit import (
    CONVERSATION,
    DESK,
    TEAM,
    TICKET,
    assigned,
    closed,
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


class Waiting(Scripted):
    """A vendor that answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()
        self.is_asked = asyncio.Event()

    async def tell(self, api: PlaceApi, call: Call) -> Done:
        self.is_asked.set()
        await self.may_answer.wait()
        return await super().tell(api, call)


class Loop:
    """What the loop does with a stage, one input at a time."""

    def __init__(self, elsewhere: Places, vendor: Scripted) -> None:
        self.holder = Holder(elsewhere)
        self.clients: list[httpx.AsyncClient] = []
        vendors = {
            name: Vendor(name, type(place.settings), vendor.tell)
            for place in elsewhere.places.values()
            for name in (place.vendor,)
        }
        self.stage = ElsewhereStage(
            cast("PolicyHolder[Any]", self.holder), self._client, vendors=vendors
        )
        self.state: Conversation | None = None
        self.effects: list[Effect] = []
        self.rows: list[Any] = []
        self.events: list[Payload] = []
        self.timers: dict[str, datetime | None] = {}

    def _client(self) -> httpx.AsyncClient:
        self.clients.append(httpx.AsyncClient())
        return self.clients[-1]

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


async def test_the_row_of_a_call_that_ends_after_its_ticket_says_how_it_ended() -> None:
    loop = Loop(places(desk=DESK), Scripted())
    loop.hear(opened(), at("09:00"))
    loop.hear(assigned(), at("09:01"))
    loop.hear(closed(), at("09:30"))
    loop.rows.clear()
    await loop.perform(at("09:30:01"))
    item, _, gone = loop.rows
    assert item.item.standing == Resting()
    assert item.item.shown.agent_id == "ada"
    assert gone == LetGoRow(TICKET, at("09:30:01"))
    assert loop.state is None


async def test_a_wish_and_a_place_without_room_come_through_the_effect_table() -> None:
    vendor = Scripted(
        Unknown(Reason.FAILED, "503", timedelta(seconds=40)),
        NotDone(Reason.TIMEOUT, True, timedelta(seconds=30), is_begun=False),
    )
    loop = Loop(places(desk=DESK), vendor)
    loop.hear(opened(), at("09:00"))
    loop.hear(assigned(), at("09:01"))
    await loop.perform(at("09:01"))
    assert loop.timers == {"retry": at("09:01:40")}
    for now, due in (("09:01:40", "09:02:10"), ("09:02:10", None)):
        loop.take(Tick(CONVERSATION, "retry", at(now)), at(now))
        await loop.perform(at(now))
        assert loop.timers == {"retry": due and at(due)}


async def test_a_place_that_hangs_lets_another_be_told() -> None:
    slow, quick = Waiting(), Scripted()
    loop = Loop(places(desk=DESK, team=TEAM), quick)
    loop.stage._vendors = {
        "zendesk": Vendor("zendesk", type(DESK), slow.tell),
        "slack": Vendor("slack", type(TEAM), quick.tell),
    }
    loop.hear(opened(), at("09:00"))
    loop.hear(assigned(), at("09:01"))
    hanging = [asyncio.create_task(loop.stage.perform(loop.effects[0])) for _ in range(3)]
    await slow.is_asked.wait()
    loop.hear(offered(), at("09:00:45"))
    assert (await loop.stage.perform(loop.effects[1])).status == "done"
    assert len(loop.clients) == 2, "each place has its own connections"
    slow.may_answer.set()
    assert {(await one).status for one in hanging} == {"done"}


@pytest.mark.parametrize("how", ["stop", "leave"])
async def test_a_client_is_closed_only_when_its_last_call_has_ended(how: str) -> None:
    vendor = Waiting()
    loop = Loop(places(desk=DESK), vendor)
    loop.hear(opened(), at("09:00"))
    loop.hear(assigned(), at("09:01"))
    calling = asyncio.create_task(loop.stage.perform(loop.effects[0]))
    await vendor.is_asked.wait()
    (client,) = loop.clients
    if how == "stop":
        await loop.stage.stop()
    else:
        loop.holder.elsewhere = places(team=TEAM)
        await loop.stage.follow_policy()
    assert not client.is_closed
    vendor.may_answer.set()
    assert (await calling).status == "done"
    assert client.is_closed


async def test_a_call_that_begins_while_the_service_stops_is_made_and_leaves_no_connection() -> (
    None
):
    loop = Loop(places(desk=DESK), Scripted())
    loop.hear(opened(), at("09:00"))
    loop.hear(assigned(), at("09:01"))
    await loop.stage.stop()
    assert (await loop.perform(at("09:01"))).status == "done"
    assert [client.is_closed for client in loop.clients] == [True]


async def test_without_places_there_is_no_stage_and_a_first_place_is_said_to_need_a_restart() -> (
    None
):
    holder = Holder(Places())
    none, follower = elsewhere.stages(cast("PolicyHolder[Any]", holder), 20.0)
    assert none == ()
    with capture_logs() as said:
        await follower.follow()
        assert said == []
        holder.elsewhere = places(desk=DESK)
        for _ in range(3):
            await follower.follow()
    assert [(one["event"], one["places"]) for one in said] == [("places_need_a_restart", ["desk"])]
    (made,), _ = elsewhere.stages(cast("PolicyHolder[Any]", holder), 20.0)
    assert made.name == "router.elsewhere"


def test_when_its_last_place_is_gone_no_event_is_even_read() -> None:
    loop = Loop(places(desk=DESK), Scripted())
    assert loop.stage.understands_type("tickets", TicketOpened.TYPE)
    assert not loop.stage.understands_type("routing", "assignment_elsewhere.done.v1")
    loop.holder.elsewhere = Places()
    for kind in UNDERSTOOD:
        assert not loop.stage.understands_type(kind.TOPIC, kind.TYPE)
