"""What may change in a released event type, and what may not.

A released type is a promise to readers we do not know and to records that lie in the log. New types, new optional
fields, new enum values and wider bounds are additions. A field that goes, a field that becomes required, a type, enum
or bound that shrinks, a topic that goes or is keyed otherwise: these need a new version of the type (`….v2`), written
beside the old one until nobody reads that any more. So does a field's type that widens (a null where there never was
one): readers out there decode what was promised.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from schemas.json_schema import json_schema
from schemas.registry import REGISTRY
from schemas.topics import TOPICS

Field = dict[str, Any]
"""What one field promises: `types`, `required`, and the bounds below that it has."""

LOWER_BOUNDS = ("minLength", "minimum", "exclusiveMinimum", "minItems", "minProperties")
UPPER_BOUNDS = ("maxLength", "maximum", "exclusiveMaximum", "maxItems", "maxProperties")
FORMS = ("pattern", "format", "multipleOf", "uniqueItems")
_BOUNDS = (*LOWER_BOUNDS, *UPPER_BOUNDS, *FORMS, "enum")
_STRUCTURE = frozenset(
    {"type", "const", "properties", "required", "items", "additionalProperties", "propertyNames"}
)
_PROSE = frozenset(
    {"$schema", "$id", "$defs", "title", "description", "default", "examples", "deprecated"}
)


class UnknownKeyword(ValueError):
    """A schema uses a keyword that the comparison does not know, so it could not tell what a change of it means."""


def snapshot(version: str) -> dict[str, Any]:
    """Return what release `version` promises: each topic's key, each type's fields by path."""
    return {
        "version": version,
        "topics": {topic.name: topic.key for topic in TOPICS},
        "types": {
            name: {"topic": kind.TOPIC, "fields": fields(json_schema(kind))}
            for name, kind in REGISTRY.items()
        },
    }


def fields(schema: Mapping[str, Any]) -> dict[str, Field]:
    """Return a schema's fields by path: `contact.address`, `skills[].level`, `facts{}` for a map's values.

    The empty path is the payload itself.

    Raises:
        UnknownKeyword: the schema says something that is not understood here.
    """
    return dict(_walk(schema, schema, "", is_required=True))


def _walk(
    root: Mapping[str, Any], schema: Mapping[str, Any], path: str, *, is_required: bool
) -> Iterator[tuple[str, Field]]:
    variants = list(_variants(root, schema, path))
    field: Field = {"types": sorted({str(v["type"]) for v in variants}), "required": is_required}
    if len(field["types"]) != len(variants):
        raise UnknownKeyword(f"{path}: two alternatives of one type cannot be compared")
    for variant in variants:
        field |= {name: variant[name] for name in _BOUNDS if name in variant}
        if "const" in variant:
            field["enum"] = [variant["const"]]
        if variant.get("additionalProperties") is False:
            field["is_closed"] = True
    yield path, field
    for variant in variants:
        required = variant.get("required", ())
        for name, child in variant.get("properties", {}).items():
            below = f"{path}.{name}" if path else name
            yield from _walk(root, child, below, is_required=name in required)
        for keyword, mark in (("items", "[]"), ("additionalProperties", "{}")):
            if isinstance(variant.get(keyword), Mapping):
                yield from _walk(root, variant[keyword], path + mark, is_required=True)
        if "propertyNames" in variant:
            names = {"type": "string", **variant["propertyNames"]}
            yield from _walk(root, names, path + "{name}", is_required=True)


def _variants(
    root: Mapping[str, Any], schema: Mapping[str, Any], path: str
) -> Iterator[Mapping[str, Any]]:
    if "$ref" in schema:
        target = root["$defs"][str(schema["$ref"]).removeprefix("#/$defs/")]
        yield from _variants(root, target, path)
    elif "anyOf" in schema:
        for alternative in schema["anyOf"]:
            yield from _variants(root, alternative, path)
    else:
        for keyword in schema:
            if keyword not in _STRUCTURE and keyword not in _BOUNDS and keyword not in _PROSE:
                raise UnknownKeyword(
                    f"{path or 'the schema'}: `{keyword}` is not known to schemas/compatibility.py; "
                    "teach it what a change of it means"
                )
        yield schema if "type" in schema else {**schema, "type": "any"}


def incompatibilities(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what `new` breaks of the promises of `old`, a sentence each; empty where nothing."""
    return [*_topics(old["topics"], new["topics"]), *_types(old["types"], new["types"])]


def _topics(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name, key in old.items():
        if name not in new:
            yield f"Topic {name} is gone; readers still wait on it."
        elif new[name] != key:
            yield f"Topic {name} is keyed by {new[name]} and was by {key}; order by key breaks."


def _types(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name, before in old.items():
        after = new.get(name)
        if after is None:
            yield f"{name} is gone; keep it while it may lie in a log or have a reader."
            continue
        if after["topic"] != before["topic"]:
            yield f"{name} moved from topic {before['topic']} to {after['topic']}; readers look there."
        for sentence in _fields(before["fields"], after["fields"]):
            yield f"{name}: {sentence}"


def _fields(old: Mapping[str, Field], new: Mapping[str, Field]) -> Iterator[str]:
    for path, before in old.items():
        if path in new:
            yield from _field(path, before, new[path])
        elif _parent(path) in new:
            yield f"field `{path}` is gone; keep it, or add a new version of the type."
    for path, after in new.items():
        if path in old or _parent(path) not in old:
            continue
        if path.endswith(_MARKS):
            yield f"field `{_parent(path)}` was free in what it holds and is not now: `{path}`."
        elif after["required"]:
            yield f"field `{path}` is new and required; older events lack it, so give it a default."


_MARKS = ("[]", "{}", "{name}")


def _parent(path: str) -> str:
    for mark in _MARKS:
        if path.endswith(mark):
            return path.removesuffix(mark)
    return path.rpartition(".")[0]


def _field(path: str, old: Field, new: Field) -> Iterator[str]:
    if new.get("is_closed") and not old.get("is_closed"):
        yield f"`{path or 'the payload'}` refuses unknown fields now; newer writers may send some."
    if new["required"] and not old["required"]:
        yield f"field `{path}` is required now; older events may lack it."
    lost, won = _wide(old) - _wide(new), _wide(new) - _wide(old)
    if lost:
        yield f"field `{path}` may no longer be {_listed(lost)}; older events may hold that."
    if won:
        yield f"field `{path}` may now be {_listed(won)}; readers do not expect that."
    yield from _enum(path, old.get("enum"), new.get("enum"))
    yield from _bounds(path, old, new)


def _wide(field: Field) -> set[str]:
    types = set(field["types"])
    return types | {"integer"} if "number" in types else types


def _listed(values: set[str]) -> str:
    return " or ".join(sorted(values))


def _enum(path: str, old: list[Any] | None, new: list[Any] | None) -> Iterator[str]:
    if new is None:
        return
    if old is None:
        yield f"field `{path}` was free and is now one of {new}; older events may hold others."
        return
    gone = [value for value in old if value not in new]
    if gone:
        yield f"field `{path}` no longer allows {gone}; older events may hold them."


def _bounds(path: str, old: Field, new: Field) -> Iterator[str]:
    for name in LOWER_BOUNDS:
        if name in new and (name not in old or new[name] > old[name]):
            yield f"field `{path}`: {name} rose from {old.get(name, 'none')} to {new[name]}."
    for name in UPPER_BOUNDS:
        if name in new and (name not in old or new[name] < old[name]):
            yield f"field `{path}`: {name} fell from {old.get(name, 'none')} to {new[name]}."
    for name in FORMS:
        if name in new and new[name] != old.get(name):
            yield f"field `{path}`: {name} changed from {old.get(name, 'none')} to {new[name]}."
