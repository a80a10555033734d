"""PATCH as identity providers send it (RFC 7644, section 3.5.2), made into what it means.

Okta leaves the path out and sends the object's own `id` along. Entra ID writes `Replace`, puts "False" for false, sends a
manager as a bare text and `remove` with a value. Users are patched by scim2-models once that is put right. Groups are
patched here: a group may have thousands of members, and a change of one should not read them all.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import ValidationError
from scim2_models import Context, PatchOp, SCIMException

from services.ingest.core.scim import (
    AGENT,
    AGENT_FIELDS,
    ENTERPRISE,
    GROUP,
    LENIENT,
    MEMBERS_MAX,
    Document,
    ScimRefused,
    ScimUser,
    check_attributes,
    check_expression,
    check_extent,
    loaded,
    refusal_of,
    tidied,
    wrong,
)

PATCH: Final = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
OPERATIONS_MAX: Final = 1_000
"""Operations on a group, each of which costs what it names."""
USER_OPERATIONS_MAX: Final = 100
"""Operations on a user, each of which is compared with all that the user has."""
USER_VALUES_MAX: Final = 1_000
"""Values that all operations on a user may bring together."""
USER_TERMS_MAX: Final = 25
"""Comparisons in the paths of all operations on a user; each is made with every entry of a list."""

_READ_ONLY: Final = frozenset({"id", "meta", "groups", "schemas"})
_MANAGER: Final = f"{ENTERPRISE}:manager".lower()
_QUEUES: Final = f"{AGENT}:queues".lower()
_TERM: Final = re.compile(r"\[|\s(?:and|or)\s", re.IGNORECASE)
_GROUP_PATH: Final = re.compile(
    r"(?:(?P<urn>urn:[A-Za-z0-9:._-]{1,190}):)?(?P<name>[A-Za-z$][A-Za-z0-9$_-]*)(?:\[(?P<filter>[^\[\]]*)\])?",
    re.IGNORECASE,
)
_MEMBER: Final = r'value\s+eq\s+"[^"\\]{1,200}"'
_MEMBERS: Final = re.compile(rf"\s*{_MEMBER}(?:\s+or\s+{_MEMBER})*\s*", re.IGNORECASE)
_MEMBER_ID: Final = re.compile(r'"([^"]+)"')

Op = Literal["add", "replace", "remove"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as it is meant; `path` is empty where none was given."""

    op: Op
    path: str
    value: Any
    has_value: bool


def read_operations(body: Mapping[str, Any]) -> tuple[Operation, ...]:
    """Return a patch's operations.

    Raises:
        ScimRefused: 400, it is no patch.
    """
    lower = {name.lower(): value for name, value in body.items()}
    schemas = lower.get("schemas", [PATCH])
    given = lower.get("operations")
    if not isinstance(schemas, list) or PATCH.lower() not in [str(s).lower() for s in schemas]:
        raise ScimRefused(400, "invalidSyntax", f"schemas: must be [{PATCH}]")
    if not isinstance(given, list) or not given:
        raise ScimRefused(400, "invalidSyntax", "Operations: must be a list of at least one")
    if len(given) > OPERATIONS_MAX:
        wrong(f"Operations: has more than {OPERATIONS_MAX}")
    return tuple(_operation(one) for one in given)


def _operation(given: object) -> Operation:
    if not isinstance(given, Mapping):
        raise ScimRefused(400, "invalidSyntax", "Operations: each must be an object")
    lower = {str(name).lower(): value for name, value in given.items()}
    op, path = str(lower.get("op", "")).lower(), lower.get("path")
    if path is not None and not isinstance(path, str):
        raise ScimRefused(400, "invalidPath", "path: must be a text")
    where = (path or "").strip()
    check_expression(where, "invalidPath", "path")
    match op:
        case "add" | "replace" | "remove":
            pass
        case _:
            raise ScimRefused(400, "invalidSyntax", "op: must be add, replace or remove")
    if op == "remove" and not where:
        raise ScimRefused(400, "noTarget", "path: remove needs one")
    if op != "remove" and "value" not in lower:
        wrong(f"value: {op} needs one")
    return Operation(op, where, lower.get("value"), lower.get("value") is not None)


# ------------------------------------------------------------------------------------------------- users


def patched_user(document: Document, operations: Sequence[Operation]) -> Document:
    """Return a user after a patch: all of it, or an error and nothing.

    Raises:
        ScimRefused: 400, an operation cannot be done, or they are more than may be.
    """
    if len(operations) > USER_OPERATIONS_MAX:
        wrong(f"Operations: has more than {USER_OPERATIONS_MAX} for a user")
    sent = [one for operation in operations for one in _sent(operation)]
    check_extent([one.get("value") for one in sent], "Operations", USER_VALUES_MAX)
    if sum(len(_TERM.findall(one.get("path", ""))) for one in sent) > USER_TERMS_MAX:
        wrong(f"Operations: their paths have more than {USER_TERMS_MAX} comparisons")
    if not sent:
        return document
    user = loaded(document)
    try:
        patch = PatchOp[ScimUser].model_validate(
            {"schemas": [PATCH], "Operations": sent},
            scim_ctx=Context.RESOURCE_PATCH_REQUEST,
            scim_policy=LENIENT,
        )
        patch.patch(user, scim_policy=LENIENT)
    except (SCIMException, ValidationError) as error:
        raise refusal_of(error) from None
    return tidied(user)


def _sent(operation: Operation) -> list[dict[str, Any]]:
    """Return an operation in the form of RFC 7644: none where nothing of it is meant for us, several for an extension."""
    op, path, value = operation.op, operation.path, operation.value
    if not path:
        if not isinstance(value, Mapping):
            wrong("value: must be an object where there is no path")
        # Names with a filter, as Entra ID's older ways have them, mean nothing without a path.
        value = {
            name: _mended(str(name), inner)
            for name, inner in value.items()
            if str(name).lower() not in _READ_ONLY and "[" not in str(name)
        }
        return [{"op": op, "value": value}] if value else []
    if path.lower() == _MANAGER and op != "remove" and value in ("", [], None):
        return [{"op": "remove", "path": path}]
    if op == "remove":
        if path.lower() == AGENT.lower():
            # All but the agent's id, which stays for good.
            return [{"op": op, "path": f"{AGENT}:{name}"} for name in AGENT_FIELDS]
        if not operation.has_value or value == []:
            return [{"op": op, "path": path}]
        if path.lower() == _QUEUES:
            named = value if isinstance(value, list) else [value]
            value = [one if isinstance(one, Mapping) else {"value": one} for one in named]
        return [{"op": op, "path": path, "value": value}]
    return [{"op": op, "path": path, "value": _mended(path, value)}]


def _mended(name: str, value: Any) -> Any:
    """Return a value as its attribute has it, where providers are known to send it otherwise."""
    if name.lower() == ENTERPRISE.lower() and isinstance(value, Mapping):
        return {
            key: _mended(f"{ENTERPRISE}:{key}", inner)
            for key, inner in value.items()
            if not (str(key).lower() == "manager" and inner in ("", []))
        }
    if name.lower() == _MANAGER:
        first = value[0] if isinstance(value, list) and value else value
        return {"value": first} if isinstance(first, str) else first
    return value


# ------------------------------------------------------------------------------------------------ groups


@dataclass(frozen=True, slots=True)
class Members:
    """A step of a group's change: these users are added, removed, or are its members from now on."""

    op: Op
    user_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroupChange:
    """What a patch does to a group. `sets` has `displayName` and `externalId` where they change."""

    sets: Mapping[str, str | None] = field(default_factory=dict)
    members: tuple[Members, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupBody:
    """A group as it was posted or put."""

    display_name: str
    external_id: str | None
    user_ids: tuple[str, ...]


def read_group(body: Mapping[str, Any]) -> GroupBody:
    """Return a group that was posted or put.

    Raises:
        ScimRefused: 400, an attribute is wrong.
    """
    check_attributes(body, "body")
    lower = {name.lower(): value for name, value in body.items()}
    display_name = _display_name(lower.get("displayname"))
    return GroupBody(
        display_name,
        _external_id(lower.get("externalid")),
        _user_ids(lower.get("members")),
    )


def patched_group(operations: Iterable[Operation]) -> GroupChange:
    """Return what a patch does to a group.

    Raises:
        ScimRefused: 400, an operation cannot be done.
    """
    sets: dict[str, str | None] = {}
    steps: list[Members] = []
    for one in operations:
        if one.path:
            _change(one, one.path, one.value, sets, steps)
            continue
        if not isinstance(one.value, Mapping):
            wrong("value: must be an object where there is no path")
        check_attributes(one.value, "value")
        for name, value in one.value.items():
            _change(one, str(name), value, sets, steps)
    return GroupChange(sets, tuple(steps))


def members_after(before: frozenset[str], change: GroupChange) -> frozenset[str]:
    """Return who is in a group after a change."""
    # One set, changed in place: a step costs what it names, however many members there are.
    after = set(before)
    for step in change.members:
        match step.op:
            case "add":
                after.update(step.user_ids)
            case "remove":
                after.difference_update(step.user_ids)
            case "replace":
                after = set(step.user_ids)
    return frozenset(after)


def _change(
    operation: Operation, path: str, value: Any, sets: dict[str, str | None], steps: list[Members]
) -> None:
    name, selected = _target(path)
    if name == "members":
        if selected is not None:
            if operation.op != "remove":
                raise ScimRefused(
                    400, "invalidPath", "path: members are added and removed, not changed"
                )
            steps.append(Members("remove", selected))
        elif operation.op == "remove" and not operation.has_value:
            steps.append(Members("replace", ()))
        else:
            steps.append(Members(operation.op, _user_ids(value)))
    elif name == "displayname":
        if operation.op == "remove":
            raise ScimRefused(400, "mutability", "displayName: a group needs one")
        sets["displayName"] = _display_name(value)
    elif name == "externalid":
        sets["externalId"] = None if operation.op == "remove" else _external_id(value)
    elif name not in _READ_ONLY and operation.path:
        raise ScimRefused(
            400, "invalidPath", "path: a group has displayName, externalId and members"
        )
    elif operation.path:
        raise ScimRefused(400, "mutability", f"path: {name} is read-only")


def _target(path: str) -> tuple[str, tuple[str, ...] | None]:
    """Return which attribute a path leads to, in small letters, and the members that its filter selects.

    An attribute of another schema than the group's keeps its URN, so that it is none of ours.
    """
    found = _GROUP_PATH.fullmatch(path)
    if found is None:
        raise ScimRefused(400, "invalidPath", "path: leads to no attribute of a group")
    urn, name, selection = found["urn"], found["name"].lower(), found["filter"]
    if urn is not None and urn.lower() != GROUP.lower():
        name = f"{urn.lower()}:{name}"
    if selection is None:
        return name, None
    if _MEMBERS.fullmatch(selection) is None:
        raise ScimRefused(400, "invalidPath", 'path: members are selected by value eq "ID" only')
    return name, tuple(_MEMBER_ID.findall(selection))


def _display_name(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value.strip()) <= 200:
        wrong("displayName: must be a text of 1 to 200 characters")
    return value.strip()


def _external_id(value: object) -> str | None:
    if value is not None and (not isinstance(value, str) or len(value) > 500):
        wrong("externalId: must be a text of at most 500 characters")
    return value or None


def _user_ids(value: object) -> tuple[str, ...]:
    """Return the members' ids of a value: a list of `{"value": ID}` or of ids, or one of them."""
    if value is None:
        return ()
    entries = value if isinstance(value, list) else [value]
    if len(entries) > MEMBERS_MAX:
        wrong(f"members: has more than {MEMBERS_MAX}")
    return tuple(dict.fromkeys(_user_id(entry) for entry in entries))


def _user_id(entry: object) -> str:
    if isinstance(entry, Mapping):
        lower = {str(name).lower(): value for name, value in entry.items()}
        if str(lower.get("type") or "User").lower() != "user":
            wrong("members.type: groups within groups mean nothing here; only users are members")
        entry = lower.get("value")
    if not isinstance(entry, str) or not 1 <= len(entry) <= 200:
        wrong("members.value: must be the id of a user")
    return entry
