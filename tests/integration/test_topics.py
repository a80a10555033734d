"""Topics on a real broker: made once, never changed, and what is wrong is named with its cure."""

from collections.abc import AsyncIterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from chassis.settings import Settings
from chassis.topics import apply_topics, check_topics, describe
from schemas.topics import TOPICS
from tests.integration.kit import make_settings, until


@pytest.fixture
async def settings(bootstrap: str, topic_prefix: str) -> AsyncIterator[Settings]:
    one = make_settings(bootstrap, "postgresql://unused", topic_prefix)
    yield one
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.delete_topics([one.topic(name) for name in await describe(one)])
    await admin.close()


async def test_missing_topics_are_named_with_the_cure(settings: Settings) -> None:
    findings = await check_topics(settings)
    assert [finding.topic for finding in findings] == [topic.name for topic in TOPICS]
    assert {finding.cure for finding in findings} == {"run `signalbox topics apply`"}


async def test_topics_are_made_once_with_the_same_number_of_partitions(settings: Settings) -> None:
    made = await apply_topics(settings)
    assert [(change.name, change.partitions, change.is_new) for change in made] == [
        (topic.name, 2, True) for topic in TOPICS
    ]
    assert not any(change.is_new for change in await apply_topics(settings))
    await until("the broker tells of all topics", lambda: _are_all_there(settings))
    assert await check_topics(settings) == []
    other = settings.model_copy(update={"partitions": 3})
    assert not any(change.is_new for change in await apply_topics(other)), "never changed"
    findings = await check_topics(other)
    assert len(findings) == len(TOPICS)
    assert "has 2 partitions, SIGNALBOX_PARTITIONS is 3" in findings[0].problem
    assert "SIGNALBOX_PARTITIONS" in findings[0].cure


async def _are_all_there(settings: Settings) -> bool:
    return await describe(settings) == {topic.name: settings.partitions for topic in TOPICS}


async def test_a_topics_retention_is_what_the_contract_says(
    settings: Settings, bootstrap: str
) -> None:
    await apply_topics(settings)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        for topic in TOPICS[:2]:
            resource = ConfigResource(ConfigResourceType.TOPIC, settings.topic(topic.name))
            (answer,) = await admin.describe_configs([resource])
            values = {entry[0]: entry[1] for entry in answer.resources[0][4]}
            assert int(values["retention.ms"]) == topic.retention.total_seconds() * 1000
            assert values["cleanup.policy"] == "delete"
    finally:
        await admin.close()
