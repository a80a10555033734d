"""The JSON Schema of each event type, as the world gets it."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from schemas.registry import REGISTRY, Payload
from schemas.topics import Topic

DIALECT = "https://json-schema.org/draft/2020-12/schema"
BASE = "https://signalbox.example/schemas/"
"""Where the schemas' names begin. A name, not an address: nothing is served there."""


class _WithoutFieldTitles(GenerateJsonSchema):
    """A field's title would only say its name again."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        del schema
        return False


def json_schema(kind: type[Payload]) -> dict[str, Any]:
    """Return the schema of an event type: what a writer must send. Unknown fields are allowed, and ignored."""
    made = kind.model_json_schema(schema_generator=_WithoutFieldTitles)
    definitions = made.pop("$defs", {})
    for part in definitions.values():
        part["description"] = _paragraphs(part["description"])
    return {
        "$schema": DIALECT,
        "$id": f"{BASE}{kind.TYPE}.json",
        "title": made.pop("title"),
        "description": _paragraphs(made.pop("description")),
        **made,
        **({"$defs": definitions} if definitions else {}),
        "examples": [kind.EXAMPLE],
    }


def types_of(topic: str) -> tuple[type[Payload], ...]:
    """Return the event types of a topic, in the order in which they are declared."""
    return tuple(kind for kind in REGISTRY.values() if topic == kind.TOPIC)


def writers_of(topic: Topic) -> tuple[str, ...]:
    """Return the stages that write to a topic: its own writer, then those of types that others add to it."""
    added = [kind.WRITER for kind in types_of(topic.name) if kind.WRITER]
    return tuple(dict.fromkeys((topic.writer, *added)))


def prose(text: str | None) -> str:
    """Return a docstring as one line."""
    return " ".join((text or "").split())


def _paragraphs(text: str) -> str:
    return "\n\n".join(prose(paragraph) for paragraph in text.split("\n\n"))
