"""The AsyncAPI 3.0.0 document: every topic, who writes and who reads it, every message with its headers.

Sources of the outside facts: the AsyncAPI specification 3.0.0 and its Kafka binding 0.5.0.
"""

from collections.abc import Iterator
from typing import Any

from schemas import ids
from schemas.envelope import CONTENT_TYPE, SPEC_VERSION, Envelope, parse_time
from schemas.json_schema import prose, types_of, writers_of
from schemas.registry import REGISTRY, Payload
from schemas.submissions import MessageSubmitted
from schemas.topics import BY_NAME, DEFAULT_PARTITIONS, TOPICS, VALUE_BYTES_MAX, Topic

ASYNCAPI_VERSION = "3.0.0"
BINDING_VERSION = "0.5.0"
EXAMPLE_TIME = "2026-11-24T08:00:01Z"

EVERY_STAGE = "all"
"""What `Topic.writer` says where every stage writes."""

OTHERS = "other-systems"
OTHERS_TYPES = frozenset({MessageSubmitted.TYPE})
"""What other systems publish, and no stage of ours does."""

_DESCRIPTION = prose("""
Signalbox's events on Kafka. CloudEvents 1.0, Kafka binding: binary mode is written, binary and structured mode are
read. Delivery is at least once; `ce_sequence` counts without gaps for each source, topic and partition, so that a
reader can drop repeats and notice a loss. docs/events.md says how. A reader ignores fields it does not know.
""")


def stages() -> tuple[str, ...]:
    """Return the stages of all services, as the topics name them, in the order of a message's way."""
    found: dict[str, None] = {}
    for topic in TOPICS:
        if topic.writer != EVERY_STAGE:
            found.update(dict.fromkeys(writers_of(topic)))
            found.update(dict.fromkeys(topic.readers))
    return tuple(found)


def document(version: str) -> dict[str, Any]:
    """Return the whole document for release `version`."""
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {
            "title": "Signalbox",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "description": "The installation's broker: SIGNALBOX_KAFKA.",
                "variables": {"bootstrap": {"default": "localhost:9092"}},
            }
        },
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": dict(_operations()),
        "components": {
            "messages": {name: _message(kind) for name, kind in REGISTRY.items()},
            "schemas": {"headers": _headers()},
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    days = topic.retention.days
    note = " Other systems may publish here, without `ce_sequence`." if topic.is_open else ""
    return {
        "address": topic.name,
        "description": f"Keyed by {topic.key}; kept {days} days.{note}",
        "servers": [{"$ref": "#/servers/kafka"}],
        "messages": {
            kind.TYPE: {"$ref": f"#/components/messages/{kind.TYPE}"}
            for kind in types_of(topic.name)
        },
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": DEFAULT_PARTITIONS,
                "topicConfiguration": {
                    "cleanup.policy": ["delete"],
                    "retention.ms": int(topic.retention.total_seconds() * 1000),
                },
                "bindingVersion": BINDING_VERSION,
            }
        },
        "x-signalbox-key": topic.key,
        "x-signalbox-writer": topic.writer,
        "x-signalbox-readers": list(topic.readers),
        "x-signalbox-is-open": topic.is_open,
        "x-signalbox-value-bytes-max": VALUE_BYTES_MAX,
    }


def _operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for topic in TOPICS:
        kinds = types_of(topic.name)
        types = [kind.TYPE for kind in kinds]
        for writer in stages() if topic.writer == EVERY_STAGE else writers_of(topic):
            ours = [
                kind.TYPE
                for kind in kinds
                if kind.TYPE not in OTHERS_TYPES
                and (topic.writer == EVERY_STAGE or (kind.WRITER or topic.writer) == writer)
            ]
            yield _operation(writer, "send", topic, ours)
        if topic.is_open:
            yield _operation(OTHERS, "send", topic, [n for n in types if n in OTHERS_TYPES])
        for reader in topic.readers:
            yield _operation(reader, "receive", topic, types)


def _operation(
    actor: str, action: str, topic: Topic, types: list[str]
) -> tuple[str, dict[str, Any]]:
    return f"{actor.replace(' ', '-')}.{action}.{topic.name}", {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "summary": f"{actor} {'writes' if action == 'send' else 'reads'} `{topic.name}`.",
        "messages": [{"$ref": f"#/channels/{topic.name}/messages/{name}"} for name in types],
    }


def _message(kind: type[Payload]) -> dict[str, Any]:
    return {
        "name": kind.TYPE,
        "title": kind.__name__,
        "summary": prose(kind.__doc__),
        "contentType": CONTENT_TYPE,
        "headers": {
            "allOf": [
                {"$ref": "#/components/schemas/headers"},
                {"type": "object", "properties": {"ce_type": {"const": kind.TYPE}}},
            ]
        },
        "payload": {"$ref": f"./{kind.TYPE}.json"},
        "correlationId": {"location": "$message.header#/ce_correlationid"},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": BY_NAME[kind.TOPIC].key},
                "bindingVersion": BINDING_VERSION,
            }
        },
        "examples": [
            {"name": "as written", "headers": example_headers(kind), "payload": kind.EXAMPLE}
        ],
    }


def example_headers(kind: type[Payload]) -> dict[str, str]:
    """Return the headers that the type's example would travel with, as text."""
    topic = BY_NAME[kind.TOPIC]
    writer = kind.WRITER or ("router.tickets" if topic.writer == EVERY_STAGE else topic.writer)
    is_ours = kind.TYPE not in OTHERS_TYPES
    story = str(kind.EXAMPLE.get("conversation_id", kind.EXAMPLE.get("input_id", "")))
    envelope = Envelope(
        type=kind.TYPE,
        source=f"signalbox/{writer}/3" if is_ours else "shop.example/kiosk",
        id=ids.event_id(writer, "example", 0, kind.TYPE) if is_ours else "1001",
        time=parse_time(EXAMPLE_TIME),
        partitionkey=str(kind.EXAMPLE.get("domain", story)),
        correlationid=story,
        causationid=ids.derive("example", "cause") if is_ours else "",
        sequence=812 if is_ours else None,
    )
    return {name: value.decode() for name, value in envelope.to_headers()}


def _headers() -> dict[str, Any]:
    def text(description: str, **more: str) -> dict[str, str]:
        return {"type": "string", "description": description, **more}

    return {
        "type": "object",
        "description": "CloudEvents attributes in binary mode, and ours; all values are UTF-8 text.",
        "required": ["ce_specversion", "ce_type", "ce_source", "ce_id", "ce_time"],
        "properties": {
            "ce_specversion": {"type": "string", "const": SPEC_VERSION},
            "ce_type": text("The fact and its version."),
            "ce_source": text(
                "The writer: signalbox/STAGE/TASK, with #N behind it from the second incarnation on; "
                "or another system's own name."
            ),
            "ce_id": text("Stays the same over retries."),
            "ce_time": text(
                "When it happened, RFC 3339 with an offset from UTC.", format="date-time"
            ),
            "ce_subject": text("What the event is about, where that is not the key."),
            "content-type": {"type": "string", "const": CONTENT_TYPE},
            "ce_workspace": text("The installation: SIGNALBOX_WORKSPACE."),
            "ce_partitionkey": text("The record's key: decides the partition."),
            "ce_correlationid": text("The whole story, as a rule the conversation's id."),
            "ce_causationid": text("The id of the event before, or what names the cause."),
            "ce_traceparent": text("W3C Trace Context of the writer."),
            "ce_sequence": text(
                "Counts from 1 without gaps for each source, topic and partition. Events of other "
                "systems have none.",
                pattern="^[1-9][0-9]{0,18}$",
            ),
            "ce_continues": text(
                "On the first event of a new incarnation: incarnation:sequence of the last old one.",
                pattern="^[0-9]{1,18}:[0-9]{1,18}$",
            ),
            "ce_afterparked": text(
                "The dead letter's id, where an earlier record of the same key is set aside."
            ),
        },
    }
