"""`chassis.testing.World` and the real loop tell the same story of the same inputs."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from chassis.batch import partition_of
from chassis.testing import World
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.tickets import TicketOpened
from tests.faults.pipeline import Counted, Fired, Given, StageA, StageB, Summed, Tally, Thirded
from tests.integration.kit import (
    PARTITIONS,
    Database,
    Driver,
    MakeTopic,
    driving,
    foreign,
    looking,
    make_settings,
    make_topics,
    read_topic,
    running,
    until,
)

KEYS = [f"k{n}" for n in range(5)]
INPUTS = 60
JUNK = (
    {"key": b"k0", "value": None, "headers": ()},
    {"key": b"k0", "value": b"{", "headers": (("ce_specversion", b"1.0"),)},
    {
        "key": b"k1",
        "value": b"\xff",
        "headers": (("content-type", b"application/cloudevents+json"),),
    },
)


@dataclass
class Story:
    """What can be compared: everything but times, and the order of what no promise orders."""

    tallies: dict[str, dict[str, int]] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    rows: dict[str, Counter[Any]] = field(default_factory=dict)
    parked: Counter[Any] = field(default_factory=Counter)
    ids: set[str] = field(default_factory=set)
    facts: Counter[Any] = field(default_factory=Counter)
    per_key: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    sequences: dict[Any, list[int]] = field(default_factory=lambda: defaultdict(list))

    def tell(self, topic: str, partition: int, envelope: Envelope, event: Payload) -> None:
        assert envelope.sequence is not None
        self.sequences[topic, partition, envelope.source].append(envelope.sequence)
        match event:
            case Fired():
                self.facts["fired", event.key, event.n] += 1  # Its id and lateness are the clock's.
            case Summed():
                self.facts["summed", event.key, event.kind, event.n] += (
                    1  # B's two topics interleave.
                )
            case Counted():
                self.per_key[event.key].append((event.n, event.count))
                self.ids.add(envelope.id)
                assert envelope.causationid == str(event.n)
                assert envelope.partitionkey == event.key
            case Thirded():
                self.facts["thirded", event.key, event.n] += 1
                self.ids.add(envelope.id)
            case _:
                self.facts[event.TYPE] += 1


def inputs() -> list[tuple[Envelope, Payload]]:
    """The driver's events: counted, timed, one too large to pass on, one meant for others, one that nobody knows."""
    found: list[tuple[Envelope, Payload]] = []
    for n in range(INPUTS):
        key = KEYS[n * 7 % len(KEYS)]
        padding = "x" * 950_000 if n == 30 else ""
        found.append((foreign(n, key), Given(key=key, n=n, timer_seconds=0.4, padding=padding)))
    opened = TicketOpened.model_validate(TicketOpened.EXAMPLE)
    for kind, name in ((TicketOpened.TYPE, "others"), ("test.unheard.v1", "nobody")):
        envelope = Envelope(kind, "test/driver", name, foreign(0, "k1").time, partitionkey="k1")
        found.append((envelope, opened))
    return found


async def in_reality(bootstrap: str, dsn: str, prefix: str, make_topic: MakeTopic) -> Story:
    await make_topics(make_topic)
    settings = make_settings(bootstrap, dsn, prefix)
    async with (
        looking(dsn, "pipeline_a") as a,
        looking(dsn, "pipeline_b") as b,
        driving(settings) as driver,
        running(StageA(), settings),
        running(StageB(), settings),
    ):
        for envelope, payload in inputs():
            await driver.event("inbound", envelope, payload)
        for junk in JUNK:
            await driver.raw("inbound", **junk)
        await _come_to_rest(a, INPUTS + 2 + len(JUNK), INPUTS // 5)
        await _repeat_one(settings, driver)
        await until("B has met the repeated one", lambda: _duplicate(b))
        await until("B is at rest", lambda: _all_read(settings, b))
        story = Story()
        for name, db in (("pipeline_a", a), ("pipeline_b", b)):
            states = await db.rows("SELECT key, value FROM state")
            story.tallies[name] = {row["key"]: json.loads(row["value"])["count"] for row in states}
            story.counts[name] = await db.counts()
            history = await db.rows("SELECT name, key FROM history")
            story.rows[name] = Counter((row["name"], row["key"]) for row in history)
            parked = await db.rows("SELECT id, reason, error, state_key, is_cut FROM parked")
            story.parked += Counter(tuple(row.values()) for row in parked)
    for topic in ("messages", "commands", "tickets", "dead-letters"):
        for envelope, event, record in await read_topic(settings, topic):
            if (
                topic == "messages"
                and envelope.sequence in story.sequences[topic, record.partition, envelope.source]
            ):
                continue  # The repeated one.
            story.tell(topic, record.partition, envelope, event)
    return story


async def _come_to_rest(db: Database, records: int, timers: int) -> None:
    async def holds() -> bool:
        fired = await db.value("SELECT count(*) FROM history WHERE name LIKE 'timer%'")
        return (
            sum((await db.counts()).values()) >= records
            and fired >= timers
            and not await db.value("SELECT count(*) FROM outbox")
        )

    await until(f"{db.schema} is at rest", holds)


async def _repeat_one(settings: Any, driver: Driver) -> None:
    _, _, record = (await read_topic(settings, "messages"))[0]
    await driver.raw(
        "messages",
        record.value,
        key=record.key,
        headers=record.headers,
        partition=record.partition,
    )


async def _duplicate(db: Database) -> bool:
    return (await db.counts())["duplicate"] == 1


async def _all_read(settings: Any, db: Database) -> bool:
    there = len(await read_topic(settings, "messages")) + len(
        await read_topic(settings, "commands")
    )
    return sum((await db.counts()).values()) == there and not await db.value(
        "SELECT count(*) FROM outbox"
    )


def in_the_world() -> Story:
    world = World([StageA(), StageB()], partitions=PARTITIONS)
    for envelope, payload in inputs():
        world.publish("inbound", envelope, payload)
    for junk in JUNK:
        world.publish_raw("inbound", **junk)
    world.advance(by=timedelta(seconds=1))
    repeated = next(r for r in world.log("messages") if r.partition == 0)
    world.repeat(repeated)
    world.run_until_idle()
    story = Story()
    for name in ("pipeline_a", "pipeline_b"):
        tallies: dict[str, Tally] = world.states(name)
        story.tallies[name] = {key: tally.count for key, tally in tallies.items()}
        counts = world.counts(name)
        assert counts.is_complete
        story.counts[name] = {
            "applied": counts.applied,
            "duplicate": counts.duplicate,
            "ignored": counts.ignored,
            "parked": counts.parked,
        }
        story.rows[name] = Counter((row.name, row.key) for row in world.rows(name))
    story.parked = Counter(
        (one.id, one.reason, one.error, one.state_key, one.is_cut) for one in world.parked
    )
    for topic in ("messages", "commands", "tickets", "dead-letters"):
        for envelope, event in world.read(topic)[: -1 if topic == "messages" else None]:
            partition = partition_of(envelope.partitionkey, PARTITIONS)
            story.tell(topic, partition, envelope, event)
    return story


async def test_the_world_tells_the_same_story_as_kafka_and_postgresql(
    bootstrap: str,
    database: str,
    topic_prefix: str,
    make_topic: MakeTopic,
) -> None:
    real = await in_reality(bootstrap, database, topic_prefix, make_topic)
    simulated = in_the_world()
    assert simulated.tallies == real.tallies
    assert simulated.counts == real.counts
    assert simulated.rows == real.rows
    assert {p[1:] for p in simulated.parked} == {p[1:] for p in real.parked}
    assert simulated.per_key == real.per_key
    assert simulated.facts == real.facts
    assert len(real.ids) == len(simulated.ids)
    assert simulated.ids == real.ids
    assert simulated.sequences.keys() == real.sequences.keys()
    for where, numbers in simulated.sequences.items():
        assert sorted(numbers) == sorted(real.sequences[where])
    assert real.counts["pipeline_a"]["parked"] == 1 + len(JUNK)
    assert real.counts["pipeline_a"]["ignored"] == 1
    assert {row[1] for row in real.parked} == {
        "too_large",
        "unknown_type",
        "invalid_envelope",
    }
