"""The twin: the same work done the way most services do it, one handler call and one transaction a message.

FastStream with its own per-message handler, the same PostgreSQL, the same durability: fence, state and outbox row in one
transaction, then a confirmed publish, then the acknowledgement. It is what the batch loop is compared with.
"""

import asyncio
import sys

import asyncpg
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from bench.hop_stage import BenchCounted, BenchGiven
from chassis.settings import Settings, load_settings


async def serve(settings: Settings) -> None:
    """Handle messages one by one until terminated."""
    pool = await asyncpg.create_pool(
        settings.dsn, min_size=1, max_size=4, server_settings={"search_path": "bench"}
    )
    await pool.execute(
        "CREATE TABLE IF NOT EXISTS twin (key text PRIMARY KEY, count int NOT NULL);"
        "CREATE TABLE IF NOT EXISTS twin_outbox (n int PRIMARY KEY, value bytea NOT NULL);"
        "CREATE TABLE IF NOT EXISTS twin_lease (task int PRIMARY KEY, n bigint NOT NULL);"
        "INSERT INTO twin_lease VALUES (0, 0) ON CONFLICT DO NOTHING"
    )
    broker = KafkaBroker(
        settings.kafka,
        logger=None,
        allow_auto_create_topics=False,
        acks="all",
        enable_idempotence=True,
    )

    @broker.subscriber(
        settings.topic("inbound"),
        group_id=settings.topic("twin"),
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.NACK_ON_ERROR,
        no_reply=True,
    )
    async def handle(message: KafkaMessage) -> None:
        event = BenchGiven.model_validate_json(message.body)
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("UPDATE twin_lease SET n = n + 1 WHERE task = 0")
            count = await connection.fetchval(
                "INSERT INTO twin VALUES ($1, 1) ON CONFLICT (key) DO UPDATE SET count = twin.count + 1 RETURNING count",
                event.key,
            )
            answer = BenchCounted(
                key=event.key, n=event.n, sent_at=event.sent_at, count=count, text=event.text
            )
            value = answer.to_json()
            await connection.execute(
                "INSERT INTO twin_outbox VALUES ($1, $2) ON CONFLICT DO NOTHING", event.n, value
            )
        await broker.publish(value, settings.topic("notifications"), key=event.key.encode())

    await broker.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(serve(load_settings(Settings)))
    except KeyboardInterrupt:
        sys.exit(0)
