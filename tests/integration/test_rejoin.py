"""A client that died, a log that was cut: the stage joins anew, or stands and says so; nothing is skipped in silence."""

from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from chassis.batch import TaskState
from tests.faults.pipeline import StageA
from tests.integration.kit import (
    MakeTopic,
    driving,
    looking,
    make_settings,
    make_topics,
    running,
    until,
)


async def test_a_stage_whose_client_died_goes_on_with_a_new_one(
    bootstrap: str, database: str, topic_prefix: str, make_topic: MakeTopic
) -> None:
    await make_topics(make_topic)
    settings = make_settings(bootstrap, database, topic_prefix)
    async with (
        looking(database, "pipeline_a") as a,
        driving(settings) as driver,
        running(StageA(), settings) as worker,
    ):
        dead = worker.consumer
        assert dead is not None
        dead._coordinator._coordination_task.cancel()
        await until("its polls fail", lambda: dead.failing_seconds > 0)
        await driver.given(1)
        await worker.rejoin()

        async def is_applied() -> bool:
            return (await a.counts())["applied"] == 1

        await until("the new one has read it", is_applied)
        assert worker.consumer is not dead
        await until(
            "all tasks are acquired anew",
            lambda: all(task.epoch == 2 for task in worker.tasks.values()),
        )


async def test_a_log_that_was_cut_under_a_reader_halts_its_task_instead_of_skipping(
    bootstrap: str, database: str, topic_prefix: str, make_topic: MakeTopic
) -> None:
    await make_topics(make_topic)
    settings = make_settings(bootstrap, database, topic_prefix)
    async with (
        looking(database, "pipeline_a") as a,
        driving(settings) as driver,
        running(StageA(), settings) as worker,
    ):
        consumer = worker.consumer
        assert consumer is not None
        await driver.given(1)

        async def is_applied() -> bool:
            return (await a.counts())["applied"] == 1

        await until("the first one is applied", is_applied)
        inbound = [p for p in consumer.assignment() if p.topic == settings.topic("inbound")]
        consumer.pause(*inbound)  # A reader that is behind.
        for n in range(2, 6):
            await driver.given(n)
        ends = await consumer.end_offsets(inbound)
        last = max(inbound, key=lambda p: ends[p])
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        try:
            await admin.delete_records({last: RecordsToDelete(before_offset=ends[last] - 1)})
        finally:
            await admin.close()
        consumer.seek(last, worker.tasks[last.partition].position.offsets["inbound"])
        consumer.resume(*inbound)
        await until(
            "the task stands",
            lambda: worker.tasks[last.partition].state is TaskState.HALTED,
        )
        halted = worker.tasks[last.partition].position.halted
        assert halted is not None
        assert halted["reason"] == "below_log_start"
