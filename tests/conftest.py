"""Fixtures that every layer above unit shares: a real Kafka, a real PostgreSQL, fresh names in both.

The servers start when the first test asks for one, and stop at the end of the session. Those that
`SIGNALBOX_KAFKA` and `SIGNALBOX_DATABASE_URL` name are used as they are.
"""

import gc
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from hypothesis import settings

from chassis.local import Platform, start_platform

# The same examples on every run, and no time limit for one: the machine is shared.
settings.register_profile("signalbox", derandomize=True, deadline=None)
settings.load_profile("signalbox")

MakeTopic = Callable[..., Awaitable[str]]


def pytest_collection_finish() -> None:
    """What stands until the session ends (modules, tests) is left out of every collection of garbage that follows.

    Thousands of tests make a heap that costs tenths of a second each time it is walked, and tests that ask for a full
    collection, to measure memory say, are many.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """Kafka and PostgreSQL, shared by the session: never stop or freeze these."""
    data_dir = Path(tempfile.mkdtemp(prefix="signalbox-test-"))
    data_dir.chmod(0o755)  # Run as root, PostgreSQL has to reach its data as another user.
    try:
        running = start_platform(data_dir)
        try:
            yield running
        finally:
            running.remove()
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)


@pytest.fixture
def bootstrap(platform: Platform) -> str:
    """The broker's address."""
    return platform.kafka.bootstrap


@pytest.fixture
def database(platform: Platform) -> Iterator[str]:
    """The connection URL of an empty database of the test's own, dropped at its end."""
    name = f"test_{secrets.token_hex(6)}"
    yield platform.postgres.create_database(name)
    platform.postgres.drop_database(name)


@pytest.fixture
def topic_prefix() -> str:
    """A prefix for topics, groups and transactional ids that no other test has, with its dot."""
    return f"test-{secrets.token_hex(5)}."


@pytest.fixture
async def make_topic(bootstrap: str, topic_prefix: str) -> AsyncIterator[MakeTopic]:
    """`await make_topic("tickets", partitions=4, config={…})` gives the full name of a new topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    made: list[str] = []

    async def make(
        name: str, *, partitions: int = 1, config: Mapping[str, str] | None = None
    ) -> str:
        topic = NewTopic(
            name=topic_prefix + name,
            num_partitions=partitions,
            replication_factor=1,
            topic_configs=dict(config or {}),
        )
        await admin.create_topics([topic])
        made.append(topic.name)
        return str(topic.name)

    try:
        yield make
        if made:
            await admin.delete_topics(made)
    finally:
        await admin.close()
