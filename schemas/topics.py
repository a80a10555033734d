"""Each topic once: its name, its key, who writes it, who reads it, how long it is kept.

All topics have the same number of partitions and the same partitioner (murmur2 over the key, as Kafka's own clients
do), so partition n of each belongs together and task n of a service reads partition n of all its topics.
"""

from dataclasses import dataclass
from datetime import timedelta

DEFAULT_PARTITIONS = 24
"""Partitions of each topic in an installation; fixed for its life."""

LAPTOP_PARTITIONS = 4
"""Partitions where one machine runs everything (demo, tests)."""

VALUE_BYTES_MAX = 900_000
"""The largest value we write, below a broker's default of 1,048,588 bytes a batch with room for headers."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A Kafka topic. `is_open` ones accept events of foreign systems, which carry no sequence of ours.

    `writer` is the stage whose word the topic is; types that another stage adds to it name that stage themselves.
    """

    name: str
    key: str
    writer: str
    readers: tuple[str, ...]
    retention: timedelta
    is_open: bool = False


INBOUND = Topic(
    "inbound",
    "channel account + sender or thread",
    "ingest.gateway",
    ("ingest.normaliser",),
    timedelta(days=7),
    is_open=True,
)
MESSAGES = Topic(
    "messages",
    "conversation id",
    "ingest.normaliser",
    ("router.tickets", "notifier"),
    timedelta(days=14),
)
COMMANDS = Topic(
    "commands",
    "conversation id",
    "ingest.gateway",
    ("router.tickets", "notifier", "notifier.feedback"),
    timedelta(days=14),
)
ROSTER = Topic(
    "roster", "routing domain", "ingest.gateway", ("router.assignment",), timedelta(days=14)
)
ROUTING_WORK = Topic(
    "routing-work", "routing domain", "router.tickets", ("router.assignment",), timedelta(days=14)
)
TICKETS = Topic(
    "tickets",
    "conversation id",
    "router.tickets",
    (
        "sla",
        "notifier",
        "notifier.feedback",
        "ingest.webchat",
        "ingest.tickets",
        "router.elsewhere",
    ),
    timedelta(days=30),
)
ROUTING = Topic(
    "routing",
    "conversation id",
    "router.assignment",
    ("router.tickets", "sla", "notifier", "ingest.tickets", "router.elsewhere"),
    timedelta(days=30),
)
SLA = Topic("sla", "conversation id", "sla", ("router.tickets", "notifier"), timedelta(days=30))
NOTIFICATIONS = Topic(
    "notifications",
    "conversation id",
    "notifier",
    ("router.tickets", "notifier.feedback"),
    timedelta(days=30),
)
DEAD_LETTERS = Topic(
    "dead-letters", "origin's key", "all", ("signalbox deadletters",), timedelta(days=30)
)

TOPICS: tuple[Topic, ...] = (
    INBOUND,
    MESSAGES,
    COMMANDS,
    ROSTER,
    ROUTING_WORK,
    TICKETS,
    ROUTING,
    SLA,
    NOTIFICATIONS,
    DEAD_LETTERS,
)
BY_NAME: dict[str, Topic] = {topic.name: topic for topic in TOPICS}
