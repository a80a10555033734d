"""A walk through a stage's keys attacked: killed about its commits again and again, no key is left out and none comes twice."""

import json
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import SecretStr

from chassis.batch import partition_of
from chassis.migrate import migrate
from chassis.settings import Settings
from chassis.topics import apply_topics
from schemas.envelope import read_record
from schemas.topics import MESSAGES
from tests.faults.conftest import keep
from tests.faults.harness import FAILPOINT_SECONDS, PARTITIONS, SESSION_SECONDS, Member, Servers
from tests.faults.pipeline import REVISION, SQL, visit
from tests.integration.kit import until

pytestmark = [pytest.mark.faults, pytest.mark.slow]

N_KEYS = 6_000
N_KILLS = 4


async def test_a_walk_that_is_killed_about_its_commits_visits_every_key_once(
    servers: Servers, seed: str
) -> None:
    name, dice = "revisits", random.Random(f"{seed}/revisits")
    directory = servers.directory / "runs" / name
    directory.mkdir(parents=True)
    settings = Settings(
        kafka=servers.kafka.bootstrap,
        database_url=SecretStr(servers.postgres.create_database(name)),
        partitions=PARTITIONS,
        topic_prefix=f"{name}.",
    )
    await apply_topics(settings)
    await migrate(settings.dsn, "pipeline_a", [SQL])
    connection = await asyncpg.connect(settings.dsn, server_settings={"search_path": "pipeline_a"})
    keys = [f"k{n:05}" for n in range(N_KEYS)]
    await connection.copy_records_to_table(
        "state",
        columns=("stage", "task", "key", "value"),
        records=[
            ("pipeline_a", partition_of(key, PARTITIONS), key, '{"count": 3}') for key in keys
        ],
    )
    member: Member | None = None
    try:
        for n in range(N_KILLS):
            point = dice.choice(("in_txn", "before_commit", "after_commit"))
            member = _start(servers, settings, directory, n, f"{point}=kill:{dice.randint(2, 6)}")
            await until("it is killed at its point", _is_gone(member), FAILPOINT_SECONDS)
            assert member.exit_code == -signal.SIGKILL
        done = await connection.fetchval("SELECT count(*) FROM history")
        assert done < N_KEYS, f"seed {seed}: the walk was over before the last kill"
        member = _start(servers, settings, directory, N_KILLS, "")

        async def is_over() -> bool:
            walks = await connection.fetchval(
                "SELECT count(*) FROM revisit WHERE done_at IS NOT NULL"
            )
            left = await connection.fetchval("SELECT count(*) FROM outbox")
            return bool(walks == PARTITIONS and left == 0)

        await until("the walk is over and told", is_over, 120)
        rows = await connection.fetch("SELECT name FROM history")
    finally:
        if member is not None:
            member.send(signal.SIGKILL)
        await connection.close()
        keep(directory, name)
    assert Counter(row["name"] for row in rows) == Counter(visit(key, "two", 1) for key in keys)
    # Told at least once, and whatever was told twice under the same number: who reads drops it.
    told = await _told(settings)
    assert Counter(key for _, _, key in told) == Counter(keys), f"seed {seed}"
    for number in range(PARTITIONS):
        sequences = sorted(at for partition, at, _ in told if partition == number)
        assert sequences == list(range(1, len(sequences) + 1))


def _start(
    servers: Servers, settings: Settings, directory: Path, n: int, failpoints: str
) -> Member:
    environment = {
        "SIGNALBOX_KAFKA": settings.kafka,
        "SIGNALBOX_DATABASE_URL": settings.dsn,
        "SIGNALBOX_PARTITIONS": str(settings.partitions),
        "SIGNALBOX_TOPIC_PREFIX": settings.topic_prefix,
        "SIGNALBOX_SESSION_TIMEOUT_SECONDS": str(SESSION_SECONDS),
        "SIGNALBOX_FAILPOINTS": failpoints,
        "SIGNALBOX_FAILPOINT_LOG": str(directory / "failpoints.log"),
        REVISION: "two",
    }
    return Member(servers.nursery, "a", "one", n + 1, environment, directory)


def _is_gone(member: Member) -> Callable[[], bool]:
    return lambda: member.exit_code is not None


async def _told(settings: Settings) -> set[tuple[int, int, str]]:
    """Every event on the topic: its partition, its number there and its key."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    found: set[tuple[int, int, str]] = set()
    try:
        partitions = [TopicPartition(settings.topic(MESSAGES.name), n) for n in range(PARTITIONS)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        for partition in partitions:
            while await consumer.position(partition) < ends[partition]:
                for records in (await consumer.getmany(partition, timeout_ms=500)).values():
                    for record in records:
                        envelope, data = read_record(record.headers, record.value)
                        assert envelope.sequence is not None
                        key = json.loads(data)["key"]
                        found.add((record.partition, envelope.sequence, key))
    finally:
        await consumer.stop()
    return found
