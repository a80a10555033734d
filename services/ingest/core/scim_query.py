"""What a SCIM client asks for: which users or groups (RFC 7644, section 3.4.2), and which of their attributes (3.9).

Filters compare what can be found without reading every user: `eq` on a few attributes, with `and`, `or` and `not`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from scim2_models import SCIMException, ScimFilter
from scim2_models.path import (
    AttrPath,
    CompareOperator,
    Comparison,
    FilterNode,
    LogicalExpr,
    LogicalOperator,
    Not,
    ValuePath,
)

from services.ingest.core.scim import (
    AGENT,
    ATTRIBUTES_MAX,
    GROUP,
    USER,
    ScimRefused,
    check_expression,
)

COUNT_MAX: Final = 200
COUNT_DEFAULT: Final = 100
TERMS_MAX: Final = 50

USER_FIELDS: Final[Mapping[str, str]] = {
    "id": "id",
    "username": "userName",
    "externalid": "externalId",
    "active": "active",
    "displayname": "displayName",
    "emails": "emails.value",
    "emails.value": "emails.value",
    f"{AGENT.lower()}:agentid": "agentId",
}
GROUP_FIELDS: Final[Mapping[str, str]] = {
    "id": "id",
    "displayname": "displayName",
    "externalid": "externalId",
    "members": "members.value",
    "members.value": "members.value",
}


@dataclass(frozen=True, slots=True)
class Equal:
    """A field has a value; whether case counts is the field's affair."""

    field: str
    value: str | bool


@dataclass(frozen=True, slots=True)
class Every:
    """All of these hold, or, with `any`, one of them."""

    terms: "tuple[Condition, ...]"
    any: bool = False


@dataclass(frozen=True, slots=True)
class Never:
    """This does not hold."""

    term: "Condition"


Condition = Equal | Every | Never


@dataclass(frozen=True, slots=True)
class Query:
    """A page of what fits `condition`; `start` counts from 1."""

    condition: Condition | None
    start: int
    count: int
    attributes: frozenset[str] = frozenset()
    excluded: frozenset[str] = frozenset()

    def wants(self, attribute: str) -> bool:
        """Return whether an attribute (as written in its schema) is to be told, or a part of it."""
        name = attribute.lower()
        if self.attributes:
            return any(one == name or one.startswith(f"{name}.") for one in self.attributes)
        return name not in self.excluded


def read_query(given: Mapping[str, str], fields: Mapping[str, str]) -> Query:
    """Return what the parameters of a request ask for; unknown ones mean nothing (sorting is one of those).

    Raises:
        ScimRefused: 400, the filter or a number cannot be read.
    """
    attributes = _attributes(given, "attributes")
    excluded = _attributes(given, "excludedAttributes")
    if attributes and excluded:
        raise ScimRefused(400, "invalidValue", "attributes: not together with excludedAttributes")
    text = given.get("filter", "")
    return Query(
        condition=read_filter(text, fields) if text.strip() else None,
        start=max(1, _number(given, "startIndex", 1)),
        count=min(COUNT_MAX, max(0, _number(given, "count", COUNT_DEFAULT))),
        attributes=attributes,
        excluded=excluded,
    )


def _number(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name, "").strip()
    if not text:
        return default
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):
        raise ScimRefused(400, "invalidValue", f"{name}: must be a whole number")
    return sign * int(digits)


def _attributes(given: Mapping[str, str], parameter: str) -> frozenset[str]:
    """Return the attributes that a parameter names; each is looked for in every part of every resource."""
    text = given.get(parameter, "")
    if text.count(",") >= ATTRIBUTES_MAX:
        raise ScimRefused(
            400, "invalidValue", f"{parameter}: names more than {ATTRIBUTES_MAX} attributes"
        )
    names = (name.strip().lower() for name in text.split(","))
    core = (f"{USER.lower()}:", f"{GROUP.lower()}:")
    return frozenset(
        next((name.removeprefix(p) for p in core if name.startswith(p)), name)
        for name in names
        if name
    )


def read_filter(text: str, fields: Mapping[str, str]) -> Condition:
    """Return a filter's condition.

    Raises:
        ScimRefused: 400 `invalidFilter`, it cannot be read, or asks for what is not looked for here.
    """
    check_expression(text, "invalidFilter", "filter")
    try:
        tree = ScimFilter(text).ast
    except SCIMException:
        raise ScimRefused(
            400,
            "invalidFilter",
            'filter: cannot be read; an example: userName eq "ada@example.com"',
        ) from None
    left = [TERMS_MAX]
    return _condition(tree, fields, left)


def _unknown(fields: Mapping[str, str]) -> ScimRefused:
    known = ", ".join(dict.fromkeys(fields.values()))
    return ScimRefused(
        400, "invalidFilter", f"filter: only eq, and, or, not are looked for, on {known}"
    )


def _condition(node: FilterNode, fields: Mapping[str, str], left: list[int]) -> Condition:
    left[0] -= 1
    if left[0] < 0:
        raise ScimRefused(400, "invalidFilter", f"filter: has more than {TERMS_MAX} terms")
    match node:
        case LogicalExpr(op=op, terms=terms):
            return Every(
                tuple(_condition(term, fields, left) for term in terms), op is LogicalOperator.or_
            )
        case Not(expr=inner):
            return Never(_condition(inner, fields, left))
        case ValuePath(attr_path=path, val_filter=inner) if path.sub_attr is None:
            # `members[value eq "ID"]` asks what `members.value eq "ID"` asks.
            only = {"value": fields[f"{path.attr.lower()}.value"]} if _has(path, fields) else {}
            return _condition(inner, only or fields, left)
        case Comparison(attr_path=path, op=CompareOperator.eq, value=value):
            field = fields.get(_name(path))
            if field is None:
                raise _unknown(fields)
            return Equal(field, _comparable(field, value))
        case _:
            raise _unknown(fields)


def _has(path: AttrPath, fields: Mapping[str, str]) -> bool:
    if f"{path.attr.lower()}.value" not in fields:
        raise _unknown(fields)
    return True


def _name(path: AttrPath) -> str:
    name = path.attr if path.sub_attr is None else f"{path.attr}.{path.sub_attr}"
    uri = (path.uri or "").lower()
    return (name if uri in ("", USER.lower(), GROUP.lower()) else f"{uri}:{name}").lower()


def _comparable(field: str, value: object) -> str | bool:
    if field == "active":
        # Entra ID asks for "True", as a text.
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if isinstance(value, bool):
            return value
        raise ScimRefused(400, "invalidFilter", "filter: active is compared with true or false")
    if not isinstance(value, str):
        raise ScimRefused(400, "invalidFilter", f"filter: {field} is compared with a text")
    return value


def selected(document: Mapping[str, Any], query: Query) -> dict[str, Any]:
    """Return what a query wants told of a resource; `schemas` and `id` always are."""
    if not query.attributes and not query.excluded:
        return dict(document)
    kept = {name: value for name, value in document.items() if name in ("schemas", "id")}
    for name, value in document.items():
        if name in kept:
            continue
        told = _told(name.lower(), value, query)
        if told is not None:
            kept[name] = told
    return kept


def _told(name: str, value: Any, query: Query) -> Any:
    """Return an attribute as far as it is wanted, None where it is not. An extension's attributes follow a colon."""
    separator = ":" if name.startswith("urn:") else "."
    inner = f"{name}{separator}"
    if query.attributes:
        if name in query.attributes:
            return value
        parts = {one.removeprefix(inner) for one in query.attributes if one.startswith(inner)}
        return _parts(value, lambda part: part in parts) if parts else None
    if name in query.excluded:
        return None
    parts = {one.removeprefix(inner) for one in query.excluded if one.startswith(inner)}
    return _parts(value, lambda part: part not in parts) if parts else value


def _parts(value: Any, is_kept: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: inner for name, inner in value.items() if is_kept(str(name).lower())}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_parts(one, is_kept) for one in value]
    return value
