"""One stage on a real Kafka and a real PostgreSQL: what comes in is applied once, and every way out has a name."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
import structlog

import chassis.cutting
import chassis.pump
import chassis.relay
import chassis.task
from chassis import metrics
from chassis.batch import TaskState, partition_of
from chassis.clock import SystemClock
from chassis.deadletters import Reason
from chassis.errors import Conflict
from chassis.kafka_access import KafkaAccess
from chassis.lanes import EFFECTS_AT_ONCE
from chassis.ledger import DocumentStore, resume
from chassis.settings import Settings
from chassis.stage import (
    Connection,
    Effect,
    EffectDone,
    EffectResult,
    Input,
    Outcome,
    Received,
    Stage,
    Tick,
)
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.topics import INBOUND, TICKETS
from tests.faults.pipeline import Counted, Given, StageA, StageB, Tally, TallyStore
from tests.integration.kit import (
    PARTITIONS,
    Database,
    Driver,
    MakeTopic,
    crash,
    driving,
    looking,
    make_settings,
    make_topics,
    read_topic,
    running,
    until,
)


@pytest.fixture(autouse=True)
def quick_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chassis.pump, "REPLAY_SECONDS", 0.05)


@pytest.fixture(autouse=True)
def plain_tracebacks() -> Iterator[None]:
    """Drawn with all their variables they would hold up the event loop for seconds, and heartbeats with it."""
    renderer = structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback
    )
    structlog.configure(processors=[structlog.processors.add_log_level, renderer])
    yield
    structlog.reset_defaults()


@pytest.fixture
async def settings(
    bootstrap: str, database: str, topic_prefix: str, make_topic: MakeTopic
) -> Settings:
    await make_topics(make_topic)
    return make_settings(bootstrap, database, topic_prefix)


@pytest.fixture
async def driver(settings: Settings) -> AsyncIterator[Driver]:
    async with driving(settings) as one:
        yield one


@pytest.fixture
async def a(settings: Settings) -> AsyncIterator[Database]:
    async with looking(settings.dsn, "pipeline_a") as one:
        yield one


@pytest.fixture
async def b(settings: Settings) -> AsyncIterator[Database]:
    async with looking(settings.dsn, "pipeline_b") as one:
        yield one


async def settled(db: Database, records: int) -> None:
    """Wait until that many records are accounted for and everything emitted is published."""

    async def holds() -> bool:
        return sum((await db.counts()).values()) >= records and not await db.value(
            "SELECT count(*) FROM outbox"
        )

    await until(f"{records} records are settled in {db.schema}", holds)


async def test_records_become_states_rows_and_events_in_order(
    settings: Settings, driver: Driver, a: Database
) -> None:
    for n in range(1, 31):
        await driver.given(n, f"k{n % 4}", timer_seconds=3600)
    async with running(StageA(), settings):
        await settled(a, 30)
    assert await a.counts() == {"applied": 30, "duplicate": 0, "ignored": 0, "parked": 0}
    assert await a.value("SELECT count(*) FROM history") == 30
    assert await a.value("SELECT sum((value->>'count')::int) FROM state") == 30
    assert await a.value("SELECT count(*) FROM timer") == 6
    assert await a.value("SELECT sum(v::int) FROM lease, jsonb_each_text(offsets) AS o(k, v)") == 30
    events = await read_topic(settings, "messages")
    for key in ("k0", "k1", "k2", "k3"):
        mine = [event for _, event, _ in events if isinstance(event, Counted) and event.key == key]
        assert [event.count for event in mine] == list(range(1, len(mine) + 1))
    for number in range(PARTITIONS):
        sequences = [e.sequence for e, _, r in events if r.partition == number]
        assert sequences == list(range(1, len(sequences) + 1))
    assert {e.source for e, _, _ in events} <= {f"signalbox/pipeline_a/{n}" for n in range(2)}


async def test_a_second_worker_goes_on_where_the_first_one_stopped(
    settings: Settings, driver: Driver, a: Database
) -> None:
    await driver.given(1)
    async with running(StageA(), settings):
        await settled(a, 1)
    await driver.given(2)
    async with running(StageA(), settings) as worker:
        await settled(a, 2)
        assert all(task.epoch == 2 for task in worker.tasks.values())
    assert [row["count"] for row in await a.rows("SELECT count FROM history ORDER BY name")] == [
        1,
        2,
    ]


def own(n: int, sequence: int, key: str = "k1") -> tuple[Envelope, Counted]:
    """Event number `n` of stage A, as its relay would publish it."""
    envelope = Envelope(
        type=Counted.TYPE,
        source=f"signalbox/pipeline_a/{partition_of(key, PARTITIONS)}",
        id=f"e{n}",
        time=datetime.fromisoformat("2026-11-24T09:00:00+00:00"),
        partitionkey=key,
        sequence=sequence,
    )
    return envelope, Counted(key=key, n=n, count=n)


async def test_a_sequence_that_was_applied_is_a_duplicate_however_late_it_comes(
    settings: Settings, driver: Driver, b: Database
) -> None:
    async with running(StageB(), settings):
        for n, sequence in ((1, 1), (2, 2), (2, 2), (3, 3), (1, 1)):
            await driver.event("messages", *own(n, sequence))
        await settled(b, 5)
    assert await b.counts() == {"applied": 3, "duplicate": 2, "ignored": 0, "parked": 0}
    assert [event.n for _, event, _ in await read_topic(settings, "tickets")] == [1, 2, 3]  # type: ignore[attr-defined]


async def test_a_gap_stops_the_task_and_says_so_until_somebody_lets_it_go_on(
    settings: Settings, driver: Driver, b: Database
) -> None:
    number = partition_of("k1", PARTITIONS)
    other = next(f"k{n}" for n in range(9) if partition_of(f"k{n}", PARTITIONS) != number)
    async with running(StageB(), settings) as worker:
        await driver.event("messages", *own(1, 1))
        await driver.event("messages", *own(3, 3))
        await driver.event("messages", *own(4, 4))
        await until("the task is halted", lambda: worker.tasks[number].state is TaskState.HALTED)
        halted = await b.value("SELECT halted::text FROM lease WHERE task = $1", number)
        assert '"reason": "sequence_gap"' in halted
        assert '"last": 1' in halted
        assert '"got": 3' in halted
        gauge = metrics.HALTED.labels("pipeline_b", str(number))
        assert gauge._value.get() == 1
        await driver.event("messages", *own(5, 1, other))  # The neighbour goes on.
        await settled(b, 2)
        what = await resume(b.connection, "pipeline_b", number)
        assert what is not None
        assert what["reason"] == "sequence_gap"
        assert await resume(b.connection, "pipeline_b", number) is None
        await settled(b, 4)
        assert gauge._value.get() == 0
    applied = {row["name"] for row in await b.rows("SELECT name FROM history")}
    assert applied == {"counted 1", "counted 3", "counted 4", "counted 5"}


async def test_a_task_that_stood_at_a_gap_stands_there_after_a_restart(
    settings: Settings, driver: Driver, b: Database
) -> None:
    number = partition_of("k1", PARTITIONS)
    for _ in range(2):
        async with running(StageB(), settings) as worker:
            await driver.event("messages", *own(2, 2))
            await until("it is halted", lambda: worker.tasks[number].state is TaskState.HALTED)
    assert await b.value("SELECT count(*) FROM history") == 0


NUL_VALUE = b'{"key": "k1", "n": 77, "padding": "a\\u0000b"}'
CE = (
    ("ce_specversion", b"1.0"),
    ("ce_source", b"test/driver"),
    ("ce_time", b"2026-11-24T09:00:00Z"),
)
GIVEN_TYPE = ("ce_type", Given.TYPE.encode())
KEY = ("ce_partitionkey", b"k1")
POISON: dict[str, tuple[str, dict[str, Any]]] = {
    "no headers, no value": (Reason.INVALID_ENVELOPE, {"key": b"k1", "value": None}),
    "null header": (
        Reason.INVALID_ENVELOPE,
        {"value": b"{}", "headers": [*CE, ("ce_type", None), ("ce_id", b"p")]},
    ),
    "header not UTF-8": (
        Reason.INVALID_ENVELOPE,
        {"value": b"{}", "headers": [*CE, GIVEN_TYPE, ("ce_id", b"\xff\xfe")]},
    ),
    "no JSON": (
        Reason.INVALID_PAYLOAD,
        {"value": b"\x00junk", "headers": [*CE, GIVEN_TYPE, KEY, ("ce_id", b"1")]},
    ),
    "deep": (
        Reason.INVALID_PAYLOAD,
        {"value": b"[" * 100_000, "headers": [*CE, GIVEN_TYPE, KEY, ("ce_id", b"2")]},
    ),
    "NUL in a text": (
        Reason.INVALID_PAYLOAD,
        {"value": NUL_VALUE, "headers": [*CE, GIVEN_TYPE, KEY, ("ce_id", b"3")]},
    ),
    "NUL in the partition key": (
        Reason.INVALID_ENVELOPE,
        {
            "value": b'{"key": "k1", "n": 78}',
            "headers": [*CE, GIVEN_TYPE, ("ce_partitionkey", b"k\x00"), ("ce_id", b"4")],
        },
    ),
    "NUL in the source": (
        Reason.INVALID_ENVELOPE,
        {
            "value": b"{}",
            "headers": [
                CE[0],
                ("ce_source", b"signalbox/\x00/1"),
                CE[2],
                GIVEN_TYPE,
                KEY,
                ("ce_id", b"5"),
                ("ce_sequence", b"1"),
            ],
        },
    ),
    "an endless key": (
        Reason.INVALID_PAYLOAD,
        {
            "value": b'{"key": "' + b"k" * 100_000 + b'", "n": 79}',
            "headers": [*CE, GIVEN_TYPE, KEY, ("ce_id", b"6")],
        },
    ),
    "an endless id": (
        Reason.INVALID_ENVELOPE,
        {
            "value": b'{"key": "k1", "n": 80}',
            "headers": [*CE, GIVEN_TYPE, KEY, ("ce_id", b"7" * 900_000)],
        },
    ),
    "an endless record key": (
        Reason.INVALID_ENVELOPE,
        {"key": b"\x00" * 300_000, "value": b"x" * 600_000},
    ),
    "a type nobody knows": (
        Reason.UNKNOWN_TYPE,
        {"value": b"{}", "headers": [*CE, ("ce_type", b"test.unheard.v1"), KEY, ("ce_id", b"8")]},
    ),
    "an injected reply_to": (
        Reason.INVALID_ENVELOPE,
        {"value": b"{}", "headers": [("reply_to", b"messages"), ("correlation_id", b"x")]},
    ),
}


async def test_poison_is_parked_with_its_reason_and_its_neighbours_are_applied(
    settings: Settings, driver: Driver, a: Database
) -> None:
    async with running(StageA(), settings) as worker:
        await driver.given(1)
        home = partition_of("k1", PARTITIONS)
        expected: Counter[str] = Counter()
        for reason, record in POISON.values():
            await driver.raw("inbound", partition=home, **record)
            expected[reason] += 1
        await driver.given(2)
        await settled(a, 2 + len(POISON))
        assert worker.tasks[home].epoch == 1, "no poison may cost the task its lease"
    found = await a.rows("SELECT reason, error, state_key, log_offset FROM parked")
    assert Counter(row["reason"] for row in found) == expected
    assert (await a.counts())["applied"] == 2
    told = await read_topic(settings, "dead-letters")
    assert len(told) == len(POISON)
    second = [e for e, event, _ in await read_topic(settings, "messages") if event.n == 2]  # type: ignore[attr-defined]
    assert second[0].afterparked in await _parked_ids(a, "k1")


async def _parked_ids(db: Database, key: str) -> list[str]:
    rows = await db.rows("SELECT id FROM parked WHERE state_key = $1", key)
    return [row["id"] for row in rows]


class Mended(StageA):
    """Fails on input 2 until somebody mends it."""

    is_mended = False
    tries = 0

    def decide(self, state: Tally | None, item: Input, now: datetime) -> Outcome[Tally]:
        if isinstance(item, Received) and isinstance(item.event, Given) and item.event.n == 2:
            self.tries += 1
            if not self.is_mended:
                raise RuntimeError("not mended yet")
        return super().decide(state, item, now)


async def test_a_record_that_keeps_failing_is_parked_and_a_replay_tries_it_anew(
    settings: Settings, driver: Driver, a: Database
) -> None:
    stage = Mended()
    for n in (1, 2, 3):
        await driver.given(n)
    async with running(stage, settings):
        await settled(a, 3)
        assert stage.tries == 3
        (parked,) = await a.rows("SELECT id, reason FROM parked")
        assert parked["reason"] == Reason.HANDLER_FAILED
        await a.connection.execute("UPDATE parked SET replay_requested_at = clock_timestamp()")

        async def refused() -> bool:
            return bool(
                await a.value("SELECT attempts = 2 AND replay_requested_at IS NULL FROM parked")
            )

        await until("the replay has failed and is parked again", refused)
        assert stage.tries == 6
        stage.is_mended = True
        await a.connection.execute("UPDATE parked SET replay_requested_at = clock_timestamp()")

        async def resolved() -> bool:
            return bool(await a.value("SELECT resolved_at IS NOT NULL FROM parked"))

        await until("the replay is resolved", resolved)
    assert await a.counts() == {"applied": 3, "duplicate": 0, "ignored": 0, "parked": 0}
    assert await a.value("SELECT resolution FROM parked") == "replayed"


def huge(n: int) -> Given:
    """An input that Python reads and no index of PostgreSQL holds: only the commit shows what is wrong with it."""
    return Given(key="k1", n=random.Random(n).randrange(10**3999, 10**4000))


async def test_inputs_that_cannot_be_stored_one_behind_the_other_cost_no_lease_and_few_moments(
    settings: Settings, driver: Driver, a: Database
) -> None:
    async with running(StageA(), settings) as worker:
        home = partition_of("k1", PARTITIONS)
        before = worker.tasks[home]
        for n in range(1, 41):
            if n in (10, 11, 12, 30):
                await driver.event("inbound", foreign(f"huge-{n}"), huge(n))
            elif n in (13, 20):
                await driver.event("inbound", foreign(f"bad-{n}"), Given(key="k1", n=n, blow_up=1))
            else:
                await driver.given(n)
        await settled(a, 40)
        assert worker.tasks[home] is before
        assert before.epoch == 1
    assert await a.counts() == {"applied": 34, "duplicate": 0, "ignored": 0, "parked": 6}
    good = [n for n in range(1, 41) if n not in (10, 11, 12, 13, 20, 30)]
    rows = await a.rows("SELECT name FROM history WHERE name LIKE 'input%' ORDER BY count")
    assert [row["name"] for row in rows] == [f"input {n}" for n in good]
    told = [e for _, e, _ in await read_topic(settings, "messages") if isinstance(e, Counted)]
    assert [(event.n, event.count) for event in told] == [(n, i + 1) for i, n in enumerate(good)]
    errors = await a.rows("SELECT error FROM parked ORDER BY log_offset")
    assert ["could not be stored" in row["error"] for row in errors] == [True] * 3 + [
        False,
        False,
        True,
    ]
    assert "ProgramLimitExceededError, sqlstate 54000" in errors[0]["error"]


def foreign(identity: str) -> Envelope:
    return Envelope(
        type=Given.TYPE,
        source="driver",
        id=identity,
        time=datetime.fromisoformat("2026-11-24T09:00:00+00:00"),
        partitionkey="k1",
    )


class Contended(TallyStore):
    """Input 3 meets a conflict until it is free: in the store's words, or in the server's own."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("pipeline_a", Tally)
        self.sqlstate = sqlstate
        self.is_free = False
        self.tries = 0

    async def save_rows(self, connection: Connection, rows: Sequence[tuple[int, Any]]) -> None:
        if not self.is_free and any(row.name == "input 3" for _, row in rows):
            self.tries += 1
            if self.sqlstate is None:
                raise Conflict("two tasks want one row")
            await connection.execute(
                f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{self.sqlstate}'; END $$"
            )
        await super().save_rows(connection, rows)


@pytest.mark.parametrize(
    ("sqlstate", "said"),
    [(None, "Conflict"), ("40001", "SerializationError"), ("40P01", "DeadlockDetectedError")],
)
async def test_a_record_that_conflicts_for_ever_is_parked_and_the_task_keeps_its_lease(
    settings: Settings,
    driver: Driver,
    a: Database,
    monkeypatch: pytest.MonkeyPatch,
    sqlstate: str | None,
    said: str,
) -> None:
    monkeypatch.setattr(chassis.cutting, "CONTEST_SECONDS", 1.0)
    stage = StageA()
    stage.store = Contended(sqlstate)
    async with running(stage, settings) as worker:
        for n in range(1, 7):
            await driver.given(n)
        await settled(a, 6)
        assert worker.tasks[partition_of("k1", PARTITIONS)].epoch == 1
    assert await a.counts() == {"applied": 5, "duplicate": 0, "ignored": 0, "parked": 1}
    assert said in await a.value("SELECT error FROM parked")
    assert stage.store.tries <= 20


async def test_a_record_that_meets_conflicts_for_a_second_and_more_is_applied_in_its_place(
    settings: Settings, driver: Driver, a: Database
) -> None:
    stage = StageA()
    store = stage.store = Contended(None)
    home = partition_of("k1", PARTITIONS)
    other = next(f"k{n}" for n in range(9) if partition_of(f"k{n}", PARTITIONS) != home)
    async with running(stage, settings) as worker:
        for n in range(1, 5):
            await driver.given(n)
        await driver.given(9, other)

        async def is_other_done() -> bool:
            done = await a.value("SELECT count(*) FROM history WHERE key = $1", other)
            return bool(done and store.tries >= 6)

        await until("the other task has gone on", is_other_done)
        assert not await a.value("SELECT count(*) FROM history WHERE name = 'input 3'")
        store.is_free = True
        await settled(a, 5)
        assert worker.tasks[home].epoch == 1
    assert await a.counts() == {"applied": 5, "duplicate": 0, "ignored": 0, "parked": 0}
    told = [e for _, e, _ in await read_topic(settings, "messages") if isinstance(e, Counted)]
    assert [event.n for event in told if event.key == "k1"] == [1, 2, 3, 4]


async def test_each_of_two_parked_records_of_one_key_can_be_replayed(
    settings: Settings, driver: Driver, a: Database
) -> None:
    class Twice(Mended):
        def decide(self, state: Tally | None, item: Input, now: datetime) -> Outcome[Tally]:
            if not self.is_mended and isinstance(item, Received):
                return Outcome(park=(Reason.INVALID_PAYLOAD, "n: not today"))
            return super().decide(state, item, now)

    stage = Twice()
    async with running(stage, settings):
        await driver.given(1)
        await driver.given(2)
        await settled(a, 2)
        stage.is_mended = True
        await driver.given(3)
        await settled(a, 3)
        for offset in (0, 1):
            await a.connection.execute(
                "UPDATE parked SET replay_requested_at = clock_timestamp() WHERE log_offset = $1",
                offset,
            )

            async def resolved(n: int = offset + 1) -> bool:
                done = await a.value("SELECT count(*) FROM parked WHERE resolved_at IS NOT NULL")
                return bool(done == n)

            await until(f"the record at {offset} is replayed", resolved)
        await driver.given(4)
        await settled(a, 4)
    marks = {
        event.n: envelope.afterparked
        for envelope, event, _ in await read_topic(settings, "messages")
        if isinstance(event, Counted)
    }
    assert marks[3] is not None
    assert marks[2] is None
    assert marks[4] is None


async def test_timers_fire_once_and_never_early(
    settings: Settings, driver: Driver, a: Database
) -> None:
    for n in (5, 10, 15, 20):
        await driver.given(n, f"k{n}", timer_seconds=0.2 + n / 100)
    async with running(StageA(), settings):

        async def all_fired() -> bool:
            return bool(await a.value("SELECT count(*) = 4 FROM history WHERE name LIKE 'timer%'"))

        await until("all four timers have fired", all_fired)
    late = [
        row["late_ms"]
        for row in await a.rows("SELECT late_ms FROM history WHERE late_ms IS NOT NULL")
    ]
    assert len(late) == 4
    assert min(late) >= 0
    assert await a.value("SELECT count(*) FROM timer") == 0


async def test_a_timer_that_fell_due_while_nobody_ran_fires_at_the_start(
    settings: Settings, driver: Driver, a: Database
) -> None:
    await driver.given(5, timer_seconds=3600)
    async with running(StageA(), settings):
        await settled(a, 1)
    await a.connection.execute("UPDATE timer SET due_at = clock_timestamp() - interval '1 hour'")
    async with running(StageA(), settings):

        async def fired() -> bool:
            return bool(await a.value("SELECT late_ms > 3500000 FROM history WHERE late_ms > 0"))

        await until("it has fired", fired)


class Sent(Payload):
    TYPE: ClassVar[str] = "test.delivered.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {"key": "k1", "status": "done", "detail": "", "attempt": 1}

    key: str
    status: str
    detail: str
    attempt: int


@dataclass
class Provider:
    """What the outside does with effects."""

    answers: dict[int, list[EffectResult]]
    begun: list[tuple[str, int]]
    hangs: bool = False
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def let_go(self) -> None:
        """What hangs is done now, and nothing hangs from now on."""
        self.hangs = False
        self.released.set()


class Sender(Stage[Tally]):
    """Asks for an effect per input; tries again what failed recoverably."""

    name = "pipeline_a"
    topics = (INBOUND,)
    understands = frozenset({Given.TYPE})

    def __init__(self, provider: Provider) -> None:
        self.store = DocumentStore(self.name, Tally)
        self.provider = provider

    def key(self, envelope: Envelope, event: Payload) -> str:
        return envelope.partitionkey

    def partition_key(self, event: Payload) -> str:
        return str(event.key)  # type: ignore[attr-defined]

    def decide(self, state: Tally | None, item: Input, now: datetime) -> Outcome[Tally]:
        match item:
            case Received(event=Given() as event):
                effect = Effect(f"send-{event.n}", item.key, {"n": event.n})
                return Outcome(Tally(event.n), effects=(effect,))
            case EffectDone(effect=effect, result=result):
                told = Sent(
                    key=item.key,
                    status=result.status,
                    detail=result.detail,
                    attempt=effect.attempt,
                )
                again = (
                    (replace(effect, attempt=effect.attempt + 1),) if result.is_recoverable else ()
                )
                return Outcome(state, events=(told,), effects=again)
            case _:
                raise TypeError("no timers here")

    async def perform(self, effect: Effect) -> EffectResult:
        self.provider.begun.append((effect.id, effect.attempt))
        if self.provider.hangs:
            await self.provider.released.wait()
        waiting = self.provider.answers.get(int(effect.payload["n"]), [])
        return waiting.pop(0) if waiting else EffectResult("done")


async def test_effects_are_done_once_tried_again_and_told(
    settings: Settings, driver: Driver, a: Database
) -> None:
    provider = Provider({1: [EffectResult("failed", "busy", True)]}, [])
    provider.answers[2] = [EffectResult("failed", "no such mailbox")]
    async with running(Sender(provider), settings):
        for n in (1, 2, 3):
            await driver.given(n, f"k{n}")

        async def none_open() -> bool:
            return bool(
                len(provider.begun) == 4 and await a.value("SELECT count(*) = 0 FROM effect")
            )

        await until("all effects are settled", none_open)
        await settled(a, 3)
    assert sorted(provider.begun) == [("send-1", 1), ("send-1", 2), ("send-2", 1), ("send-3", 1)]
    told = sorted(
        (event.key, event.attempt, event.status)
        for _, event, _ in await read_topic(settings, "tickets")
        if isinstance(event, Sent)
    )
    assert told == [("k1", 1, "failed"), ("k1", 2, "done"), ("k2", 1, "failed"), ("k3", 1, "done")]


async def test_an_effect_that_a_crash_cut_off_is_unknown_and_not_done_again(
    settings: Settings, driver: Driver, a: Database
) -> None:
    provider = Provider({}, [], hangs=True)
    async with running(Sender(provider), settings) as worker:
        await driver.given(1)
        await until("the effect is under way", lambda: provider.begun)
        await crash(worker)
    provider.hangs = False
    async with running(Sender(provider), settings):

        async def settled_once() -> bool:
            return bool(
                await a.value("SELECT count(*) = 0 FROM effect")
                and await a.value("SELECT count(*) = 0 FROM outbox")
            )

        await until("the effect is settled", settled_once)
    assert provider.begun == [("send-1", 1)]
    (told,) = [event for _, event, _ in await read_topic(settings, "tickets")]
    assert told == Sent(key="k1", status="unknown", detail="interrupted", attempt=1)


async def test_effects_of_one_key_keep_their_order(
    settings: Settings, driver: Driver, a: Database
) -> None:
    provider = Provider({}, [])
    for n in range(1, 13):
        await driver.given(n, "k1")
    async with running(Sender(provider), settings):

        async def none_open() -> bool:
            return bool(
                len(provider.begun) == 12 and await a.value("SELECT count(*) = 0 FROM effect")
            )

        await until("all effects are settled", none_open)
    assert provider.begun == [(f"send-{n}", 1) for n in range(1, 13)]


class ChangingItsMind(Sender):
    """The ninth input withdraws what the second asked for."""

    def decide(self, state: Tally | None, item: Input, now: datetime) -> Outcome[Tally]:
        if isinstance(item, Received) and isinstance(item.event, Given) and item.event.n == 9:
            return Outcome(Tally(9), withdrawn=("send-2",))
        return super().decide(state, item, now)


@pytest.mark.parametrize("is_taken_over", [False, True])
async def test_an_effect_that_is_withdrawn_before_its_turn_is_never_done_whoever_has_the_task_then(
    settings: Settings, driver: Driver, a: Database, is_taken_over: bool
) -> None:
    provider = Provider({}, [], hangs=True)
    stage = ChangingItsMind(provider)

    async def is_withdrawn() -> bool:
        return bool(
            await a.value("SELECT count(*) = 1 FROM effect WHERE withdrawn_at > '-infinity'")
        )

    async def are_settled() -> bool:
        return bool(
            await a.value("SELECT count(*) = 0 FROM effect")
            and await a.value("SELECT count(*) = 0 FROM outbox")
        )

    async with running(stage, settings) as worker:
        await driver.given(1)
        await until("the first is under way", lambda: provider.begun)
        for n in (2, 3, 9):
            await driver.given(n, "k1")
        await until("the second is withdrawn", is_withdrawn)
        if is_taken_over:
            await crash(worker)
        else:
            provider.let_go()
            await until("all are settled", are_settled)
    provider.hangs = False
    async with running(ChangingItsMind(provider), settings):
        await until("all are settled", are_settled)
    assert provider.begun == [("send-1", 1), ("send-3", 1)]
    told = [event for _, event, _ in await read_topic(settings, "tickets")]
    first = ("unknown", "interrupted") if is_taken_over else ("done", "")
    assert [(one.status, one.detail) for one in told if isinstance(one, Sent)] == [
        first,
        ("withdrawn", ""),
        ("done", ""),
    ]


class TooLate(Sender):
    """Two seconds after it was asked for, the message is withdrawn. Its provider may be asked again under the same key."""

    def is_repeatable(self, effect: Effect) -> bool:
        return True

    def decide(self, state: Tally | None, item: Input, now: datetime) -> Outcome[Tally]:
        if isinstance(item, Tick):
            return Outcome(Tally(9), withdrawn=("send-1",))
        outcome = super().decide(state, item, now)
        if isinstance(item, Received) and isinstance(item.event, Given):
            return replace(outcome, timers={"late": now + timedelta(seconds=2)})
        return outcome


async def test_an_effect_that_was_begun_by_whomever_is_never_told_as_withdrawn(
    settings: Settings, driver: Driver, a: Database
) -> None:
    """The process that began it died, and the provider may have it: it is done again under its key, and that is told."""
    first, second = Provider({}, [], hangs=True), Provider({}, [])

    async def is_due() -> bool:
        return bool(
            await a.value("SELECT count(*) = 1 FROM timer WHERE due_at < clock_timestamp()")
        )

    async def are_settled() -> bool:
        return bool(
            await a.value("SELECT count(*) = 0 FROM effect")
            and await a.value("SELECT count(*) = 0 FROM outbox")
        )

    async with running(TooLate(first), settings) as worker:
        await driver.given(1)
        await until("the effect is under way", lambda: first.begun)
        await crash(worker)
    await until("it is to be withdrawn", is_due)
    async with running(TooLate(second), settings):
        await until("all are settled", are_settled)
    assert (first.begun, second.begun) == ([("send-1", 1)], [("send-1", 1)])
    told = [event for _, event, _ in await read_topic(settings, "tickets")]
    assert [(one.status, one.detail) for one in told if isinstance(one, Sent)] == [("done", "")]


class LanedSender(Sender):
    """Its uneven effects go to an account that hangs, its even ones to one that works."""

    def lane(self, effect: Effect) -> str:
        return "hangs" if int(effect.payload["n"]) % 2 else "works"

    async def perform(self, effect: Effect) -> EffectResult:
        self.provider.begun.append((effect.id, effect.attempt))
        if self.provider.hangs and self.lane(effect) == "hangs":
            await asyncio.Event().wait()
        return EffectResult("done")


async def test_a_lane_that_hangs_does_not_hold_up_the_others(
    settings: Settings, driver: Driver, a: Database
) -> None:
    """Forty effects of an account that never answers, forty of one that does, each of a key of its own."""
    provider = Provider({}, [], hangs=True)
    async with running(LanedSender(provider), settings) as worker:
        for n in range(1, 81):
            await driver.given(n, f"k{n}")

        async def others_are_done() -> bool:
            return bool(await a.value("SELECT count(*) = 40 FROM effect"))

        await until("all effects of the other lane are settled", others_are_done)
        for task in worker.tasks.values():
            assert len(task.effects_running) == EFFECTS_AT_ONCE
        await crash(worker)


async def test_a_long_outbox_pauses_the_input_and_a_short_one_lets_it_go_on(
    settings: Settings, driver: Driver, a: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.relay, "QUEUE_ROWS_MAX", 40)
    monkeypatch.setattr(chassis.relay, "QUEUE_ROWS_RESUME", 10)
    is_away = True
    made = chassis.relay.make_producer

    def make_producer(kafka: KafkaAccess, client_id: str) -> Any:
        if is_away:
            raise OSError("the broker is away")
        return made(kafka, client_id)

    monkeypatch.setattr(chassis.relay, "make_producer", make_producer)
    home = partition_of("k1", PARTITIONS)
    for n in range(1, 301):
        await driver.given(n, timer_seconds=3600)
    async with running(StageA(), settings.model_copy(update={"batch_records": 20})) as worker:
        await until("the input is paused", lambda: worker.tasks[home].is_throttled)
        read = (await a.counts())["applied"]
        assert read < 300
        is_away = False
        await settled(a, 300)
        await until("it is not paused any more", lambda: not worker.tasks[home].is_throttled)
    events = [e for _, e, _ in await read_topic(settings, "messages") if isinstance(e, Counted)]
    assert [event.n for event in events] == list(range(1, 301))


async def test_tasks_move_to_a_worker_that_joins_and_nothing_is_applied_twice(
    settings: Settings, driver: Driver, a: Database
) -> None:
    async with running(StageA(), settings) as first:
        for n in range(1, 11):
            await driver.given(n, f"k{n}", timer_seconds=3600)
        pool = first.ledger._pool
        second = chassis.task.Worker(StageA(), settings, pool, SystemClock())
        try:
            await second.start()

            def is_shared() -> bool:
                owned = [
                    [n for n, task in worker.tasks.items() if task.state is TaskState.OWNED]
                    for worker in (first, second)
                ]
                return sorted(len(one) for one in owned) == [1, 1]

            await until("each has one task", is_shared)
            for n in range(11, 21):
                await driver.given(n, f"k{n}", timer_seconds=3600)
            await settled(a, 20)
        finally:
            await second.stop()
    assert await a.counts() == {"applied": 20, "duplicate": 0, "ignored": 0, "parked": 0}


async def test_a_process_that_is_told_to_stop_finishes_and_leaves_with_0(
    settings: Settings, driver: Driver, a: Database
) -> None:
    environment = {
        **os.environ,
        "SIGNALBOX_KAFKA": settings.kafka,
        "SIGNALBOX_DATABASE_URL": settings.dsn,
        "SIGNALBOX_PARTITIONS": str(PARTITIONS),
        "SIGNALBOX_TOPIC_PREFIX": settings.topic_prefix,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.pipeline", "a"],
        env=environment,
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
    )
    try:
        for n in range(1, 6):
            await driver.given(n, timer_seconds=3600)
        await settled(a, 5)
        process.send_signal(signal.SIGTERM)
        _, said = await asyncio.wait_for(asyncio.to_thread(process.communicate), 20)
    finally:
        process.kill()
    assert process.returncode == 0, said.decode()
    assert b'"event": "stopped"' in said
    assert len(await read_topic(settings, "messages")) == 5
    assert len(await read_topic(settings, "commands")) == 1


async def test_a_surprise_in_the_pump_costs_the_task_its_memory_and_nothing_else(
    settings: Settings, driver: Driver, a: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = Provider({}, [])
    async with running(Sender(provider), settings) as worker:
        surprises = [ValueError("nobody thought of it")]
        settle = worker.cutting.settle

        async def settle_or_fail(parcels: Any) -> None:
            items = [item for parcel in parcels for item in parcel.items]
            if surprises and any(isinstance(item, Effect) for item in items):
                raise surprises.pop()
            await settle(parcels)

        monkeypatch.setattr(worker.cutting, "settle", settle_or_fail)
        await driver.given(1)

        async def all_done() -> bool:
            return bool(
                provider.begun == [("send-1", 1)]
                and await a.value("SELECT count(*) = 0 FROM effect")
            )

        await until("the effect is done all the same", all_done)
    assert surprises == []
