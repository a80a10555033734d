"""The topics on the broker: made once, with the same number of partitions each, and checked ever after."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError

from chassis import logs
from chassis.settings import Settings
from schemas.topics import TOPICS

SECONDS = 15.0
COPIES = 3

log = logs.get("topics")


@dataclass(frozen=True, slots=True)
class TopicChange:
    """A topic that was made, or was there already (`is_new` false), with its partitions."""

    name: str
    partitions: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class TopicFinding:
    """Something wrong with a topic: what, and the cure."""

    topic: str
    problem: str
    cure: str

    def __str__(self) -> str:
        return f"{self.topic} {self.problem}: {self.cure}"


def report(findings: Sequence[TopicFinding]) -> None:
    """Write each finding to the log, for a service that cannot go on with it."""
    for one in findings:
        log.error("topic_wrong", topic=one.topic, problem=one.problem, cure=one.cure)


async def _client(settings: Settings) -> AIOKafkaAdminClient:
    client = AIOKafkaAdminClient(**settings.kafka_access.options(), client_id="signalbox topics")
    try:
        async with asyncio.timeout(SECONDS):
            await client.start()
    except BaseException:
        await client.close()
        raise
    return client


async def describe(settings: Settings) -> dict[str, int]:
    """Return the partitions of each of our topics that exists, by its plain name."""
    client = await _client(settings)
    try:
        names = {settings.topic(topic.name): topic.name for topic in TOPICS}
        existing = set(await client.list_topics()) & set(names)
        found = await client.describe_topics(sorted(existing)) if existing else []
        return {names[entry["topic"]]: len(entry["partitions"]) for entry in found}
    finally:
        await client.close()


async def apply_topics(settings: Settings, replication: int | None = None) -> list[TopicChange]:
    """Make the topics that are missing; never changes one that exists.

    `replication` is the number of copies of each; without it three, or as many as there are brokers.

    Raises:
        KafkaError, OSError, TimeoutError: the broker does not answer or refuses.
    """
    before = await describe(settings)
    client = await _client(settings)
    changes = []
    try:
        cluster = await client.describe_cluster()
        copies = replication or min(COPIES, max(1, len(cluster["brokers"])))
        for topic in TOPICS:
            if topic.name in before:
                changes.append(TopicChange(topic.name, before[topic.name], is_new=False))
                continue
            new = NewTopic(
                name=settings.topic(topic.name),
                num_partitions=settings.partitions,
                replication_factor=copies,
                topic_configs={
                    "retention.ms": str(int(topic.retention.total_seconds() * 1000)),
                    "cleanup.policy": "delete",
                },
            )
            try:
                is_new = _was_created(await client.create_topics([new]))
            except TopicAlreadyExistsError:
                is_new = False
            changes.append(TopicChange(topic.name, settings.partitions, is_new))
    finally:
        await client.close()
    return changes


def _was_created(response: object) -> bool:
    """Whether the topic is new; false where it exists already: somebody else was quicker, or the metadata slower."""
    for entry in getattr(response, "topic_errors", None) or []:
        name, code, *rest = entry
        if code == TopicAlreadyExistsError.errno:
            return False
        if code != 0:
            raise KafkaError(
                f"topic {name} was not created: error {code} {rest[0] if rest else ''}"
            )
    return True


async def check_topics(
    settings: Settings, needed: Collection[str] | None = None
) -> list[TopicFinding]:
    """Return what is wrong with the topics as they are: those of another size, and of `needed` (plain names; all of ours
    where it is None) those that do not exist.
    """
    return judge(await describe(settings), settings, needed)


def judge(
    found: Mapping[str, int], settings: Settings, needed: Collection[str] | None = None
) -> list[TopicFinding]:
    """Return what is wrong with the topics that were found (plain name → partitions)."""
    findings = []
    for topic in TOPICS:
        count = found.get(topic.name)
        if count is None:
            if needed is not None and topic.name not in needed:
                continue
            findings.append(
                TopicFinding(topic.name, "does not exist", "run `signalbox topics apply`")
            )
        elif count != settings.partitions:
            findings.append(
                TopicFinding(
                    topic.name,
                    f"has {count} partitions, SIGNALBOX_PARTITIONS is {settings.partitions}",
                    "the number is fixed for the life of an installation: set SIGNALBOX_PARTITIONS to what the topics have,"
                    " or begin with new topics under another SIGNALBOX_TOPIC_PREFIX",
                )
            )
    return findings
