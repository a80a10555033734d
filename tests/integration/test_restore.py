"""A service's database is set back to an earlier hour, and nobody downstream counts anything twice."""

import pytest

from chassis.clock import SystemClock
from chassis.restore import begin_incarnation
from tests.faults.pipeline import StageA, StageB
from tests.integration.kit import (
    Database,
    MakeTopic,
    driving,
    looking,
    make_settings,
    make_topics,
    read_topic,
    running,
    until,
)

TABLES = ("lease", "state", "timer", "outbox", "effect", "parked", "superseded", "history")
BEFORE, AFTER = 12, 9


async def back_up(db: Database) -> None:
    """Copy the schema's tables aside, as a dump does."""
    for table in TABLES:
        await db.connection.execute(f"CREATE TABLE saved_{table} AS TABLE {table}")


async def restore(db: Database) -> None:
    """Put the copies in place of what is there."""
    for table in TABLES:
        await db.connection.execute(f"TRUNCATE {table}")
        await db.connection.execute(f"INSERT INTO {table} SELECT * FROM saved_{table}")


@pytest.mark.timeout(120)
async def test_a_restored_source_tells_again_under_a_new_name_and_its_reader_drops_it(
    bootstrap: str, database: str, topic_prefix: str, make_topic: MakeTopic
) -> None:
    await make_topics(make_topic)
    settings = make_settings(bootstrap, database, topic_prefix)
    async with (
        driving(settings) as driver,
        looking(settings.dsn, "pipeline_a") as a,
        looking(settings.dsn, "pipeline_b") as b,
        running(StageB(), settings),
    ):

        async def b_has(inputs: int) -> bool:
            seen = await b.value("SELECT count(*) FROM history WHERE name LIKE 'counted %'")
            return bool(seen == inputs)

        async def relayed() -> bool:
            return not await a.value("SELECT count(*) FROM outbox")

        async with running(StageA(), settings):
            for n in range(1, 1 + BEFORE):
                await driver.given(n, key=f"k{n % 3}", timer_seconds=3600)
            await until("B has counted the first inputs", lambda: b_has(BEFORE))
            await until("all is relayed", relayed)
        await back_up(a)
        async with running(StageA(), settings):
            for n in range(1 + BEFORE, 1 + BEFORE + AFTER):
                await driver.given(n, key=f"k{n % 3}", timer_seconds=3600)
            await until("B has counted all inputs", lambda: b_has(BEFORE + AFTER))
            await until("all is relayed", relayed)

        history = await b.rows("SELECT name, count FROM history ORDER BY name")
        before = await b.counts()
        await restore(a)
        begun = await begin_incarnation(settings.dsn, "pipeline_a", SystemClock().now())
        assert {one.stage for one in begun} == {"pipeline_a"}
        async with running(StageA(), settings):

            async def told_again() -> bool:
                told = [
                    envelope
                    for topic in ("messages", "commands")
                    for envelope, _, _ in await read_topic(settings, topic)
                    if "#" in envelope.source
                ]
                counts = await b.counts()
                return len(told) >= AFTER and (
                    counts["duplicate"] - before["duplicate"] == len(told)
                )

            await until("B has dropped all that was told again", told_again, seconds=60)
            await driver.given(999, key="k1", timer_seconds=3600)
            await until("what is new is counted", lambda: b_has(BEFORE + AFTER + 1))
        assert [
            row
            for row in await b.rows("SELECT name, count FROM history ORDER BY name")
            if not row["name"].endswith(" 999")
        ] == history
        assert (await b.counts())["parked"] == 0
        assert not await b.value("SELECT count(*) FROM lease WHERE halted IS NOT NULL")
