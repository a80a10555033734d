"""The testing tools themselves: sentences that hold and sentences that fail, and a world that counts like the loop."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple

import pytest

from chassis.deadletters import Reason
from chassis.stage import Effect, EffectDone, EffectResult, Input, Outcome, Received, Stage, Tick
from chassis.testing import Counts, FakeClock, LogRecord, World, WorldError, at, given
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.tickets import TicketOpened
from schemas.topics import COMMANDS, DEAD_LETTERS, INBOUND, MESSAGES, TICKETS
from tests.faults.pipeline import Counted, Fired, Given, StageA, StageB, Summed, Tally, Thirded


class Poked(NamedTuple):
    by: str


class Told(NamedTuple):
    by: str
    at: datetime


@dataclass(frozen=True)
class Count:
    value: int = 0


class Decision(NamedTuple):
    state: Count
    events: tuple[Told, ...] = ()
    ignored: str | None = None


def decide(state: Count, event: Poked, now: datetime, shy: str = "") -> Decision:
    if event.by == shy:
        return Decision(state, ignored="shy")
    return Decision(Count(state.value + 1), (Told(event.by, now),))


def decide_in_pairs(state: Count, event: Poked, now: datetime) -> tuple[Count, tuple[Told, ...]]:
    return decide(state, event, now)[:2]


@pytest.mark.parametrize("core", [decide, decide_in_pairs])
def test_a_chain_reads_like_a_story(core: Any) -> None:
    (
        given(core, Count())
        .when(Poked("ada"), now=at("09:00:30"))
        .then(Told("ada", at("09:00:30")))
        .then_state(Count(1))
        .when(Poked("eva"), now=at("09:00:31"))
        .then(Told("eva", at("09:00:31")))
        .then_state(value=2)
    )


def test_context_goes_to_the_core_by_name_and_may_change_on_the_way() -> None:
    (
        given(decide, Count(), shy="ada")
        .when(Poked("ada"), now=at("09:00"))
        .then_nothing()
        .then_decision(ignored="shy")
        .when(Poked("ada"), now=at("09:00"), shy="eva")
        .then(Told("ada", at("09:00")))
    )


def test_a_core_that_changes_its_state_in_place_needs_no_state_in_its_answer() -> None:
    class Answer(NamedTuple):
        events: tuple[Told, ...] = ()

    def append(state: list[str], event: Poked, now: datetime) -> Answer:
        state.append(event.by)
        return Answer()

    case = given(append, []).when(Poked("ada"), now=at("09:00")).then().then_state(["ada"])
    with pytest.raises(AssertionError, match="the state changed"):
        case.then_nothing()


def test_a_sentence_that_does_not_hold_shows_both_sides() -> None:
    case = given(decide, Count()).when(Poked("ada"), now=at("09:00:30"))
    with pytest.raises(AssertionError, match=r"Poked at 2026-11-24T09:00:30") as caught:
        case.then(Told("eva", at("09:00:30")))
    assert "- Told(by='eva'" in str(caught.value)
    assert "+ Told(by='ada'" in str(caught.value)
    with pytest.raises(AssertionError, match="nothing"):
        case.then_nothing()
    with pytest.raises(AssertionError, match="the state differs"):
        case.then_state(Count(7))
    with pytest.raises(AssertionError, match="another value"):
        case.then_state(value=7)
    with pytest.raises(AssertionError, match="no field 'valeu'"):
        case.then_state(valeu=1)


def test_a_then_without_a_when_is_a_mistake_of_the_test() -> None:
    with pytest.raises(AssertionError, match="comes before"):
        given(decide, Count()).then_nothing()


def test_an_answer_without_events_is_refused_by_its_type() -> None:
    def wrong(state: Count, event: Poked, now: datetime) -> Count:
        return state

    with pytest.raises(TypeError, match="decide answered Count"):
        given(wrong, Count()).when(Poked("ada"), now=at("09:00"))


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("09:00", "2026-11-24T09:00:00+00:00"),
        ("09:00:30", "2026-11-24T09:00:30+00:00"),
        ("09:00:30.25", "2026-11-24T09:00:30.250000+00:00"),
        ("2026-03-29T02:30:00+02:00", "2026-03-29T00:30:00+00:00"),
        ("2026-03-29T02:30:00Z", "2026-03-29T02:30:00+00:00"),
    ],
)
def test_an_instant_is_written_as_people_write_it(text: str, iso: str) -> None:
    assert at(text).isoformat() == iso


@pytest.mark.parametrize("text", ["", "noon", "25:00", "2026-11-24", "2026-11-24T09:00:00"])
def test_an_instant_that_leaves_something_open_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"instant|offset"):
        at(text)


def test_the_fake_clock_moves_when_told_and_never_back() -> None:
    clock = FakeClock(at("09:00"))
    assert clock.now() == clock.now() == at("09:00")
    assert clock.move(by=timedelta(seconds=30)) == at("09:00:30")
    assert clock.move(to=at("09:00:30")) == at("09:00:30")
    with pytest.raises(ValueError, match="go back"):
        clock.move(to=at("09:00:29"))
    with pytest.raises(ValueError, match="not both"):
        clock.move()


# -- the world ---------------------------------------------------------------------------------------------------------


def pipeline(**options: Any) -> World:
    return World([StageA(), StageB()], start=at("09:00"), **options)


def drive(world: World, n: int, key: str = "k1", **fields: Any) -> LogRecord:
    envelope = Envelope(
        type=Given.TYPE,
        source="test/driver",
        id=str(n),
        time=world.clock.now(),
        partitionkey=key,
    )
    return world.publish(INBOUND, envelope, Given(key=key, n=n, **fields))


def test_records_go_through_both_stages_and_every_one_is_accounted_for() -> None:
    world = pipeline()
    for n in range(1, 8):
        drive(world, n, f"k{n % 2}")
    world.run_until_idle()
    assert world.states("pipeline_a") == {"k0": Tally(3), "k1": Tally(4)}
    assert [e.n for e in world.events(MESSAGES, Counted) if e.key == "k1"] == [1, 3, 5, 7]
    assert [e.count for e in world.events(COMMANDS, Thirded)] == [3, 3]
    assert len(world.events(TICKETS, Summed)) == 9
    assert world.counts("pipeline_a") == Counts(7, 7, 0, 0, 0)
    assert world.counts("pipeline_b") == Counts(9, 9, 0, 0, 0)


def test_sequences_count_without_gaps_per_source_and_partition() -> None:
    world = pipeline()
    for n in range(40):
        drive(world, n, f"k{n}")
    world.run_until_idle()
    seen: dict[str, list[int | None]] = {}
    for envelope, _ in world.read(MESSAGES):
        seen.setdefault(envelope.source, []).append(envelope.sequence)
    assert len(seen) == 4
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in seen.values())


def test_the_same_calls_give_the_same_world_to_the_byte() -> None:
    def run() -> list[LogRecord]:
        world = pipeline()
        for n in range(25):
            drive(world, n, f"k{n % 6}")
        world.advance(by=timedelta(minutes=1))
        return [record for topic in (MESSAGES, COMMANDS, TICKETS) for record in world.log(topic)]

    assert run() == run()


def test_a_timer_fires_exactly_when_it_is_due_and_once() -> None:
    world = pipeline()
    drive(world, 5, timer_seconds=2.0)
    world.advance(to=at("09:00:01"))
    assert world.timers("pipeline_a") == {("k1", "fire-5"): at("09:00:02")}
    assert world.events(MESSAGES, Fired) == []
    world.advance(to=at("09:00:10"))
    assert world.events(MESSAGES, Fired) == [Fired(key="k1", n=5, late_ms=0.0)]
    assert world.timers("pipeline_a") == {}
    assert world.clock.now() == at("09:00:10")


def test_timers_of_all_stages_fire_in_the_order_they_are_due() -> None:
    world = pipeline()
    drive(world, 5, "slow", timer_seconds=30.0)
    drive(world, 10, "quick", timer_seconds=3.0)
    world.advance(by=timedelta(minutes=1))
    assert [event.key for event in world.events(MESSAGES, Fired)] == ["quick", "slow"]
    times = [e.time for e, payload in world.read(MESSAGES) if isinstance(payload, Fired)]
    assert times == [at("09:00:03"), at("09:00:30")]


def test_a_repeated_record_is_counted_and_changes_nothing() -> None:
    world = pipeline()
    drive(world, 1)
    world.run_until_idle()
    world.repeat(world.log(MESSAGES)[0])
    world.run_until_idle()
    assert world.states("pipeline_b") == {"k1": Tally(1)}
    assert world.counts("pipeline_b") == Counts(2, 1, 1, 0, 0)


def test_a_gap_halts_the_task_until_it_is_told_to_go_on() -> None:
    world = World([StageB()], start=at("09:00"))
    first = world.accept(Counted(key="k1", n=1, count=1), key="k1")
    world.accept(Counted(key="k1", n=2, count=2), key="k1")
    lost = replace(first, sequence=4, id="later")
    world.publish(MESSAGES, lost, Counted(key="k1", n=4, count=4))
    world.run_until_idle()
    ((where, halted),) = world.halted.items()
    assert where[0] == "pipeline_b"
    assert halted == {
        "topic": "messages",
        "source": first.source,
        "last": 2,
        "got": 4,
        "offset": 2,
        "reason": "sequence_gap",
    }
    assert world.states("pipeline_b") == {"k1": Tally(2)}
    world.resume(*where)
    world.run_until_idle()
    assert world.halted == {}
    assert world.states("pipeline_b") == {"k1": Tally(3)}
    assert world.counts("pipeline_b").is_complete


def test_what_cannot_be_read_is_parked_with_its_reason_and_neighbours_go_on() -> None:
    world = pipeline()
    drive(world, 1)
    key = b"k1"
    world.publish_raw(INBOUND, key=key, headers=(), value=b"junk", partition=2)
    world.publish_raw(INBOUND, key=None, headers=(("ce_id", b"\xff"),), value=None)
    unknown = Envelope("test.unheard.v1", "test/driver", "u", at("09:00"), partitionkey="k1")
    world.publish(INBOUND, unknown, Given(key="k1", n=9))
    drive(world, 2)
    world.run_until_idle()
    assert sorted((one.reason, one.state_key or "") for one in world.parked) == [
        (Reason.INVALID_ENVELOPE, ""),
        (Reason.INVALID_ENVELOPE, "k1"),
        (Reason.UNKNOWN_TYPE, "k1"),
    ]
    assert world.states("pipeline_a") == {"k1": Tally(2)}
    assert len(world.events(DEAD_LETTERS)) == 3
    assert world.counts("pipeline_a") == Counts(5, 2, 0, 0, 3)
    after = [e.afterparked for e, _ in world.read(MESSAGES)]
    assert after[0] is None
    assert after[1] is not None


def test_types_that_are_known_and_meant_for_others_are_ignored_not_parked() -> None:
    world = World([StageB()], start=at("09:00"))
    world.accept(Counted(key="k1", n=1, count=1), key="k1")
    opened = TicketOpened.model_validate(TicketOpened.EXAMPLE)
    first = world.read(MESSAGES)[0][0]
    world.publish(MESSAGES, replace(first, type=TicketOpened.TYPE, sequence=2), opened)
    world.run_until_idle()
    assert world.parked == []
    assert world.counts("pipeline_b") == Counts(2, 1, 0, 1, 0)


def test_a_decision_that_raises_is_raised_in_a_test_that_did_not_ask_for_it() -> None:
    world = pipeline()
    drive(world, 1, blow_up=1)
    with pytest.raises(RuntimeError, match="the input says so"):
        world.run_until_idle()


def test_a_decision_that_keeps_failing_is_parked_and_its_neighbours_are_applied_once() -> None:
    world = pipeline(is_strict=False)
    drive(world, 1)
    drive(world, 2, blow_up=1)
    drive(world, 3)
    world.run_until_idle()
    assert [one.reason for one in world.parked] == [Reason.HANDLER_FAILED]
    assert world.states("pipeline_a") == {"k1": Tally(2)}
    assert world.counts("pipeline_a") == Counts(3, 2, 0, 0, 1)


def test_a_failed_record_may_be_replayed_and_is_really_tried_again() -> None:
    calls: list[int] = []

    class Mended(StageA):
        def decide(self, state: Tally | None, item: Input, now: datetime) -> Outcome[Tally]:
            if isinstance(item, Received) and item.event.n == 2:  # type: ignore[attr-defined]
                calls.append(2)
                if len(calls) <= 3:
                    raise RuntimeError("not yet mended")
            return super().decide(state, item, now)

    world = World([Mended(), StageB()], start=at("09:00"), is_strict=False)
    for n in (1, 2, 3):
        drive(world, n)
    world.run_until_idle()
    (parked,) = world.parked
    world.replay(parked.id)
    world.run_until_idle()
    assert world.parked == []
    assert len(calls) == 4
    assert world.states("pipeline_a") == {"k1": Tally(3)}
    assert world.counts("pipeline_a") == Counts(3, 3, 0, 0, 0)
    with pytest.raises(WorldError, match="no record is parked"):
        world.replay(parked.id)


class Sent(Payload):
    TYPE: ClassVar[str] = "test.sent.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {"key": "k1", "status": "done", "attempt": 1}

    key: str
    status: str
    attempt: int


class Sender(Stage[Tally]):
    """Sends something for each input, and once more where that failed recoverably."""

    name = "sender"
    topics = (INBOUND,)
    understands = frozenset({Given.TYPE})

    def key(self, envelope: Envelope, event: Payload) -> str:
        return envelope.partitionkey

    def partition_key(self, event: Payload) -> str:
        return str(event.key)  # type: ignore[attr-defined]

    def decide(self, state: Tally | None, item: Input, now: datetime) -> Outcome[Tally]:
        match item:
            case Received(event=Given() as event):
                effect = Effect(f"send-{event.n}", item.key, {"n": event.n})
                return Outcome(Tally(1), effects=(effect,))
            case EffectDone(effect=effect, result=result):
                told = Sent(key=item.key, status=result.status, attempt=effect.attempt)
                if result.is_recoverable:
                    again = replace(effect, attempt=effect.attempt + 1)
                    return Outcome(state, events=(told,), effects=(again,))
                return Outcome(state, events=(told,))
            case _:
                raise TypeError("no timers here")

    async def perform(self, effect: Effect) -> EffectResult:
        return EffectResult("done")


def test_effects_are_done_and_their_results_come_back_as_inputs() -> None:
    world = World([Sender()], start=at("09:00"))
    drive(world, 1)
    world.run_until_idle()
    assert world.events(TICKETS) == [Sent(key="k1", status="done", attempt=1)]


def test_a_fake_may_stand_in_for_a_provider() -> None:
    def fail_once(effect: Effect) -> EffectResult:
        return EffectResult("done") if effect.attempt > 1 else EffectResult("failed", "busy", True)

    world = World([Sender()], start=at("09:00"), perform={"sender": fail_once})
    drive(world, 1)
    world.run_until_idle()
    assert [(e.status, e.attempt) for e in world.events(TICKETS, Sent)] == [
        ("failed", 1),
        ("done", 2),
    ]


def test_a_state_may_come_from_a_loader_that_sees_the_rows_written_so_far() -> None:
    world = World(
        [StageA()],
        start=at("09:00"),
        loaders={
            "pipeline_a": lambda memory, task, inputs, missing: {
                key: Tally(100 + sum(row.key == key for _, row in memory.rows)) for key in missing
            }
        },
    )
    drive(world, 1)
    world.run_until_idle()
    drive(world, 2)
    world.run_until_idle()
    assert [e.count for e in world.events(MESSAGES, Counted)] == [101, 102]
    assert [row.name for row in world.rows("pipeline_a")] == ["input 1", "input 2"]


def test_stages_that_feed_themselves_for_ever_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chassis.testing.world.STEPS_MAX", 50)

    class Restless(StageA):
        def decide(self, state: Tally | None, item: Input, now: datetime) -> Outcome[Tally]:
            return Outcome(state or Tally(), timers={"again": now})

    world = World([Restless()], start=at("09:00"))
    drive(world, 1)
    with pytest.raises(WorldError, match="no rest"):
        world.run_until_idle()


def test_a_too_large_event_is_set_aside_before_it_could_stop_the_relay() -> None:
    world = pipeline()
    drive(world, 1, padding="x" * 950_000)
    drive(world, 2)
    world.run_until_idle()
    assert [one.reason for one in world.parked] == [Reason.TOO_LARGE]
    assert world.parked[0].is_cut
    assert [e.n for e in world.events(MESSAGES, Counted)] == [2]


SENT = EffectResult("done")
MISUSES: dict[str, Callable[[World], Any]] = {
    "no topic is called massages": lambda world: world.log("massages"),
    "no stage is called router": lambda world: world.states("router"),
    "an event needs a key": lambda world: world.publish(
        INBOUND, Envelope("test.given.v1", "test/driver", "1", at("09:00")), Given(key="k", n=1)
    ),
    "where to or by how much": lambda world: world.advance(),
    "does not stand at a gap": lambda world: world.resume("pipeline_a", 0),
    "no stage is called sla": lambda _: World([StageA()], perform={"sla": lambda _: SENT}),
    "the same name": lambda _: World([StageA(), StageA()]),
}


@pytest.mark.parametrize("sentence", MISUSES)
def test_misuse_is_named(sentence: str) -> None:
    with pytest.raises(WorldError, match=sentence):
        MISUSES[sentence](pipeline())


def test_a_perform_that_really_waits_is_refused() -> None:
    class Waiting(Sender):
        async def perform(self, effect: Effect) -> EffectResult:
            await asyncio.sleep(1)
            return EffectResult("done")

    world = World([Waiting()], start=at("09:00"))
    drive(world, 1)
    with pytest.raises(WorldError, match="waits for something outside"):
        world.run_until_idle()


def test_a_tick_in_the_world_names_its_timer() -> None:
    seen: list[Tick] = []

    class Watching(StageA):
        def decide(self, state: Tally | None, item: Input, now: datetime) -> Outcome[Tally]:
            if isinstance(item, Tick):
                seen.append(item)
            return super().decide(state, item, now)

    world = World([Watching()], start=at("09:00"))
    drive(world, 5)
    world.advance(by=timedelta(seconds=2))
    assert seen == [Tick("k1", "fire-5", at("09:00:02"))]
