"""What an identity provider provisions (SCIM 2.0, RFC 7643) and what it means for the roster.

A user is an agent, a group is a queue, a skill or a language. Attributes, paths and filters are read by scim2-models, which
is as pure as pydantic, on which it stands; here stands what they mean. Of a user is kept what routing needs and what
people know each other by: passwords, postal addresses, pictures and whatever else a provider offers are not.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar

import msgspec
from pydantic import Field, ValidationError
from scim2_models import (
    URN,
    CaseExact,
    ComplexAttribute,
    Context,
    EnterpriseUser,
    Extension,
    Group,
    GroupMembership,
    Mutability,
    Required,
    Resource,
    Returned,
    SCIMException,
    ScimPolicy,
    Uniqueness,
)
from scim2_models import Name as PersonName

from schemas.roster import AgentSet
from services.ingest.core.policy import ScimDomain

USER: Final = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP: Final = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE: Final = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
AGENT: Final = "urn:signalbox:params:scim:schemas:1.0:Agent"

NAMES_MAX: Final = 200
"""Queues, skills, languages or channels of one agent."""
MEMBERS_MAX: Final = 20_000
"""Members that one operation may name."""
CONTACTS_MAX: Final = 100
"""Mail addresses of one user; telephone numbers and roles likewise."""
ATTRIBUTES_MAX: Final = 100
"""Attributes of one object of a request."""
ATTRIBUTE_LENGTH_MAX: Final = 200
"""Characters of an attribute's name."""
VALUES_MAX: Final = 3_000
"""Values of all kinds that a user may consist of: what all the limits above allow, and somewhat more."""
DOCUMENT_BYTES_MAX: Final = 64 * 1024
"""Bytes of a user as it is stored. Reading a page of 200 users is then a matter of megabytes."""
TEXT_LENGTH_MAX: Final = 500
"""Characters of what users are looked up by: names, `externalId`, mail addresses. An index takes no text of any length."""
EXPRESSION_LENGTH_MAX: Final = 1_000
"""Characters of a filter or a path."""
EXPRESSION_DEPTH_MAX: Final = 20
"""Brackets within brackets in a filter or a path."""

Kind = Literal["queue", "skill", "language"]
ScimType = Literal[
    "invalidFilter", "invalidPath", "invalidSyntax", "invalidValue", "mutability", "noTarget",
    "tooMany", "uniqueness", "",
]  # fmt: skip

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}")
_MEANING: Final = re.compile(r"(queue|skill|language):([^:]+)(?::(\d{1,2}))?")
_AGENT_ID: Final = re.compile(r"[!-.0-~]{1,200}")
"""What the gateway's own paths take as an agent: printable ASCII without a space or a slash."""
_PATH: Final = re.compile(r"[A-Za-z0-9.:_$-]{1,200}")
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_BRACKET: Final = re.compile(r"[()\[\]]")

LENIENT: Final = ScimPolicy(
    unknown=ScimPolicy.Unknown.ignore,
    remove_value_as_filter=ScimPolicy.RemoveValue.apply,
    unmatched_path_filter=ScimPolicy.UnmatchedPathFilter.create,
)
"""What providers do that RFC 7644 does not: attributes we do not keep, and Entra's ways with `remove` and path filters."""


class ScimRefused(ValueError):
    """A request that cannot be done: HTTP status, RFC 7644's keyword for it where it has one, and a sentence.

    The sentence names what is wrong and never what was sent.
    """

    def __init__(self, status: int, scim_type: ScimType, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.scim_type = scim_type
        self.detail = detail


def wrong(detail: str) -> NoReturn:
    """Refuse a value.

    Raises:
        ScimRefused: 400 `invalidValue`.
    """
    raise ScimRefused(400, "invalidValue", detail)


# --------------------------------------------------------------------------------------------------- limits


def check_expression(text: str, scim_type: ScimType, field: str) -> None:
    """Refuse a filter or a path that is long or nested deeply; reading those takes seconds.

    Raises:
        ScimRefused: 400 `scim_type`, naming `field`.
    """
    if len(text) > EXPRESSION_LENGTH_MAX:
        raise ScimRefused(
            400, scim_type, f"{field}: has more than {EXPRESSION_LENGTH_MAX} characters"
        )
    depth = 0
    for found in _BRACKET.finditer(_QUOTED.sub("", text)):
        depth += 1 if found.group() in "([" else -1
        if depth > EXPRESSION_DEPTH_MAX:
            raise ScimRefused(
                400,
                scim_type,
                f"{field}: has more than {EXPRESSION_DEPTH_MAX} brackets in brackets",
            )


def check_attributes(given: Mapping[Any, Any], where: str) -> None:
    """Refuse an object of too many attributes, or with a name that is none.

    Raises:
        ScimRefused: 400 `invalidValue`, naming `where`.
    """
    if len(given) > ATTRIBUTES_MAX:
        wrong(f"{where}: has more than {ATTRIBUTES_MAX} attributes")
    if any(len(str(name)) > ATTRIBUTE_LENGTH_MAX or "[" in str(name) for name in given):
        wrong(
            f"{where}: an attribute's name has no bracket and at most {ATTRIBUTE_LENGTH_MAX} characters"
        )


def check_extent(given: object, where: str, values_max: int) -> None:
    """Refuse a value of more parts than anybody needs: validating and comparing them takes seconds.

    Raises:
        ScimRefused: 400 `invalidValue`, naming `where`.
    """
    left, rest = values_max, [given]
    while rest:
        one = rest.pop()
        left -= 1
        if left < 0:
            wrong(f"{where}: consists of more than {values_max} values")
        if isinstance(one, Mapping):
            check_attributes(one, where)
            rest.extend(one.values())
        elif isinstance(one, list):
            if len(one) > left:
                wrong(f"{where}: consists of more than {values_max} values")
            rest.extend(one)


# ------------------------------------------------------------------------------------------------ resources


class Email(ComplexAttribute):
    """A mail address of a person. It is kept as it came: directories have addresses that no public server would take."""

    value: str | None = None
    display: str | None = None
    type: str | None = None
    primary: bool | None = None


class PhoneNumber(ComplexAttribute):
    """A telephone number of a person, as it came."""

    value: str | None = None
    display: str | None = None
    type: str | None = None
    primary: bool | None = None


class Role(ComplexAttribute):
    """A role that the provider gives a person; nothing is decided by it here."""

    value: str | None = None
    display: str | None = None
    type: str | None = None
    primary: bool | None = None


class User(Resource[Any]):
    """A person at the identity provider, and so an agent here."""

    __schema__ = URN(USER)

    user_name: Annotated[str | None, Required.true, Uniqueness.server] = None
    """What the provider calls them; compared without case."""
    name: PersonName | None = None
    display_name: str | None = None
    nick_name: str | None = None
    title: str | None = None
    user_type: str | None = None
    preferred_language: str | None = None
    locale: str | None = None
    timezone: str | None = None
    active: bool | None = None
    """Whether they are in the roster. A user of whom it is not said is."""
    emails: Annotated[list[Email] | None, Field(max_length=CONTACTS_MAX)] = None
    phone_numbers: Annotated[list[PhoneNumber] | None, Field(max_length=CONTACTS_MAX)] = None
    roles: Annotated[list[Role] | None, Field(max_length=CONTACTS_MAX)] = None
    groups: Annotated[list[GroupMembership] | None, Mutability.read_only] = None
    """The groups they are in, told by the groups."""


class Proficiency(ComplexAttribute):
    """A skill, or a language's code, and how well: 1 to 10, 10 is the best."""

    value: Annotated[str | None, Required.true] = None
    level: Annotated[int | None, Field(ge=1, le=10)] = None


class ChannelLimit(ComplexAttribute):
    """How many tickets of a channel an agent takes at once."""

    value: Annotated[str | None, Required.true] = None
    limit: Annotated[int | None, Field(ge=0, le=100_000)] = None


class Agent(Extension):
    """What routing asks about an agent. What stands here goes before what groups give."""

    __schema__ = URN(AGENT)

    agent_id: Annotated[str | None, Mutability.immutable, CaseExact.true, Returned.always] = None
    """The agent's id in the roster, for good. Left out, it is the `userName` that they begin with."""
    queues: Annotated[list[str] | None, Field(max_length=NAMES_MAX)] = None
    """Queues they serve, beside those of their groups."""
    skills: Annotated[list[Proficiency] | None, Field(max_length=NAMES_MAX)] = None
    languages: Annotated[list[Proficiency] | None, Field(max_length=NAMES_MAX)] = None
    capacity: Annotated[int | None, Field(ge=0, le=100_000)] = None
    """The weighted load they can carry. Left out, it is `scim.<domain>.capacity` of channels.yaml."""
    channel_limits: Annotated[list[ChannelLimit] | None, Field(max_length=NAMES_MAX)] = None
    """Where it is given, a channel that it does not name is none of theirs."""
    calendar: str | None = None
    """A calendar of calendars.yaml, within which alone they are offered work."""
    auto_accept: bool | None = None
    """What they are offered is theirs at once."""


AGENT_FIELDS: Final = (
    "queues", "skills", "languages", "capacity", "channelLimits", "calendar", "autoAccept",
)  # fmt: skip
"""What of the extension may change."""


class ScimUser(User[EnterpriseUser | Agent]):  # type: ignore[type-arg]
    """A user with both extensions."""


MODELS: Final[tuple[type[Resource[Any]] | type[Extension], ...]] = (
    User,
    Group,
    EnterpriseUser,
    Agent,
)
"""What `/Schemas` tells of."""

Document = dict[str, Any]
"""A user as it is stored: SCIM's JSON, without `id`, `meta` and `groups`, which are told apart."""

_READ_ONLY: Final = frozenset({"id", "meta", "groups"})
_ATTRIBUTES: Final = frozenset(
    str(field.serialization_alias).lower() for field in ScimUser.model_fields.values()
)


def read_user(body: Mapping[str, Any]) -> Document:
    """Return a user that was posted.

    Raises:
        ScimRefused: 400, an attribute is wrong.
    """
    return tidied(_validated(body, Context.RESOURCE_CREATION_REQUEST))


def read_replacement(body: Mapping[str, Any], before: Document) -> Document:
    """Return a user that was put in the place of `before`: what it leaves out is gone, but for the agent's id.

    Raises:
        ScimRefused: 400, an attribute is wrong, or the agent's id is another one (`mutability`).
    """
    after = _validated(body, Context.RESOURCE_REPLACEMENT_REQUEST)
    try:
        after.replace(loaded(before))
    except SCIMException as error:
        raise refusal_of(error) from None
    return tidied(after)


def loaded(document: Document) -> ScimUser:
    """Return a stored user as a resource."""
    return ScimUser.model_validate(document)


def _validated(body: Mapping[str, Any], context: Context) -> ScimUser:
    try:
        check_attributes(body, "body")
        given = {name: value for name, value in body.items() if _is_read(name.lower())}
        check_extent(given, "body", VALUES_MAX)
        return ScimUser.model_validate(given, scim_ctx=context, scim_policy=LENIENT)
    except ValidationError as error:
        raise refusal_of(error) from None


def _is_read(name: str) -> bool:
    """Return whether an attribute, in small letters, is one of ours: what is not kept is not read either."""
    return name not in _READ_ONLY and (name in _ATTRIBUTES or name.startswith("urn:"))


def tidied(user: ScimUser) -> Document:
    """Return what is stored of a user: names in their form, each once, the last of two levels counts.

    Raises:
        ScimRefused: 400, a name is none, or there is more of something than may be.
    """
    document: Document = user.model_dump(scim_ctx=Context.DEFAULT)
    for name in _READ_ONLY:
        document.pop(name, None)
    if not str(document.get("userName", "")).strip():
        wrong("userName: must not be empty")
    for name in ("userName", "externalId"):
        _check_length(name, document.get(name))
    for name in ("emails", "phoneNumbers", "roles"):
        if len(document.get(name) or ()) > CONTACTS_MAX:
            wrong(f"{name}: has more than {CONTACTS_MAX} entries")
    for email in document.get("emails") or ():
        _check_length("emails.value", email.get("value"))
    agent = document.pop(AGENT, None)
    schemas = [name for name in document.pop("schemas", []) if name not in (USER, AGENT)]
    if agent:
        document[AGENT] = _tidied_agent(agent)
    own = [AGENT] if AGENT in document else []
    document = {"schemas": [USER, *sorted(set(schemas)), *own], **document}
    if len(msgspec.json.encode(document)) > DOCUMENT_BYTES_MAX:
        wrong(f"body: what is kept of a user may have {DOCUMENT_BYTES_MAX // 1024} KiB")
    return document


def _check_length(field: str, text: str | None) -> None:
    if text is not None and len(text) > TEXT_LENGTH_MAX:
        wrong(f"{field}: has more than {TEXT_LENGTH_MAX} characters")


def _tidied_agent(agent: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in ("queues", "skills", "languages", "channelLimits"):
        if len(agent.get(field) or ()) > NAMES_MAX:
            wrong(f"{field}: has more than {NAMES_MAX} entries")
    if agent.get("agentId") is not None:
        if not _AGENT_ID.fullmatch(agent["agentId"]):
            wrong("agentId: must be 1 to 200 printable ASCII characters without a space or a slash")
        found["agentId"] = agent["agentId"]
    if agent.get("queues"):
        queues = dict.fromkeys(_named(name, "queues") for name in agent["queues"])
        found["queues"] = list(queues)
    for field, key, form in (
        ("skills", "level", _NAME),
        ("languages", "level", _LANGUAGE),
        ("channelLimits", "limit", _NAME),
    ):
        entries: dict[str, int] = {}
        for entry in agent.get(field) or ():
            name = _named(entry.get("value"), f"{field}.value", form)
            if entry.get(key) is None:
                wrong(f"{field}.{key}: is required with each value")
            entries[name] = entry[key]
        if entries:
            found[field] = [{"value": name, key: number} for name, number in entries.items()]
    if agent.get("calendar"):
        found["calendar"] = _named(agent["calendar"], "calendar")
    for field in ("capacity", "autoAccept"):
        if agent.get(field) is not None:
            found[field] = agent[field]
    return found


def _named(name: object, field: str, form: re.Pattern[str] = _NAME) -> str:
    if not isinstance(name, str) or not form.fullmatch(name):
        example = "a language's code such as en" if form is _LANGUAGE else "a name such as service"
        wrong(f"{field}: must be {example}, in small letters")
    return name


def folded(name: str) -> str:
    """Return a name in the form in which SCIM compares it: without case (RFC 7643, section 2.2)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def emails_of(document: Document) -> list[str]:
    """Return a user's mail addresses, each once, in the form in which they are looked for."""
    given = (email.get("value") for email in document.get("emails") or ())
    return sorted({folded(value) for value in given if value})


# ------------------------------------------------------------------------------------------ what it means


@dataclass(frozen=True, slots=True)
class Meaning:
    """What being in a group gives an agent; `level` is 0 for a queue."""

    kind: Kind
    name: str
    level: int


def meaning_of(display_name: str, rules: ScimDomain) -> Meaning:
    """Return what a group's name means.

    Raises:
        ScimRefused: 400, it means nothing, or nobody chose the level.
    """
    text = rules.groups.get(display_name, display_name)
    found = _MEANING.fullmatch(text.strip())
    form = _LANGUAGE if found is not None and found[1] == "language" else _NAME
    if found is None or not form.fullmatch(found[2]):
        wrong(
            "displayName: must be queue:NAME, skill:NAME, skill:NAME:LEVEL, language:CODE or language:CODE:LEVEL;"
            " other names get their meaning under scim.<domain>.groups in channels.yaml"
        )
    level = int(found[3]) if found[3] is not None else None
    if found[1] == "queue":
        if level is not None:
            wrong("displayName: a queue has no level")
        return Meaning("queue", found[2], 0)
    if level is None:
        level = rules.level
    if level is None:
        wrong(
            "displayName: nobody chose how well: write skill:NAME:6, or set scim.<domain>.level in channels.yaml"
        )
    if not 1 <= level <= 10:
        wrong("displayName: a level is from 1 to 10")
    return Meaning("skill" if found[1] == "skill" else "language", found[2], level)


def agent_id_of(document: Document, scim_id: str) -> str:
    """Return the id of the agent that a new user is: as said, else the user's name if it can be one, else SCIM's id."""
    said = document.get(AGENT, {}).get("agentId")
    if said is not None:
        return str(said)
    name = str(document["userName"])
    return name if _AGENT_ID.fullmatch(name) else scim_id


def with_agent_id(document: Document, agent_id: str) -> Document:
    """Return a user with its agent's id, which a patch may have removed with all the rest.

    Raises:
        ScimRefused: 400 `mutability`, it says another one.
    """
    agent = document.get(AGENT, {})
    if agent.get("agentId", agent_id) != agent_id:
        raise ScimRefused(400, "mutability", "agentId: stays what it was when the user was created")
    schemas = [*(name for name in document["schemas"] if name != AGENT), AGENT]
    return {**document, "schemas": schemas, AGENT: {"agentId": agent_id, **agent}}


def is_active(document: Document) -> bool:
    """Return whether a user is in the roster."""
    return document.get("active") is not False


def agent_of(
    domain: str, agent_id: str, document: Document, meanings: Iterable[Meaning], rules: ScimDomain
) -> AgentSet | None:
    """Return the agent that a user is, with what their groups give; None while they are not active.

    What the user says of itself goes before its groups; of two groups the higher level counts.
    """
    if not is_active(document):
        return None
    own = document.get(AGENT, {})
    queues = set(own.get("queues", ()))
    levels: dict[str, dict[str, int]] = {"skill": {}, "language": {}}
    for meaning in meanings:
        if meaning.kind == "queue":
            queues.add(meaning.name)
        else:
            known = levels[meaning.kind]
            known[meaning.name] = max(meaning.level, known.get(meaning.name, 0))
    for kind, field in (("skill", "skills"), ("language", "languages")):
        levels[kind].update({one["value"]: one["level"] for one in own.get(field, ())})
    limits = {one["value"]: one["limit"] for one in own.get("channelLimits", ())}
    return AgentSet(
        domain=domain,
        agent_id=agent_id,
        name=display_name_of(document)[:200],
        queues=tuple(sorted(queues)),
        skills=dict(sorted(levels["skill"].items())),
        languages=dict(sorted(levels["language"].items())),
        capacity=own.get("capacity", rules.capacity),
        channel_limits=dict(sorted(limits.items())),
        calendar=own.get("calendar"),
        auto_accept=own.get("autoAccept", False),
    )


def display_name_of(document: Document) -> str:
    """Return what to call a user: the display name, the name, or the user name, whichever is there first."""
    name = document.get("name", {})
    parts = " ".join(
        part for part in (name.get("givenName"), name.get("familyName")) if part
    ).strip()
    return str(
        document.get("displayName") or name.get("formatted") or parts or document["userName"]
    )


# ---------------------------------------------------------------------------------------------- refusals


_SENTENCES: Final[Mapping[str, str]] = {
    "invalidFilter": "the filter cannot be read",
    "invalidPath": "the path names no attribute here",
    "invalidSyntax": "the request does not have the form of its schema",
    "invalidValue": "a value does not fit its attribute",
    "mutability": "the attribute is read-only, required, or stays as it is",
    "noTarget": "the path leads to no value",
}

E = TypeVar("E", bound=Exception)


def refusal_of(error: Exception) -> ScimRefused:
    """Return what to answer for what scim2-models says of a request, without the values that it may repeat."""
    if isinstance(error, SCIMException) and isinstance(error.__cause__, ValidationError):
        error = error.__cause__
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(_attribute(str(p)) for p in first["loc"] if _PATH.fullmatch(str(p)))
        scim_type = str(first.get("ctx", {}).get("scim_type") or "")
        if scim_type in _SENTENCES:
            return ScimRefused(400, scim_type, _located(where, _SENTENCES[scim_type]))  # type: ignore[arg-type]
        if first["type"].startswith("scim_") or first["type"] == "value_error":
            return ScimRefused(400, "invalidValue", _located(where, _SENTENCES["invalidValue"]))
        return ScimRefused(400, "invalidValue", _located(where, first["msg"]))
    if isinstance(error, SCIMException):
        named = getattr(error, "attribute", None) or getattr(error, "path", None) or ""
        where = named if _PATH.fullmatch(str(named)) else ""
        scim_type = error.scim_type if error.scim_type in _SENTENCES else "invalidValue"
        return ScimRefused(400, scim_type, _located(where, _SENTENCES[scim_type]))  # type: ignore[arg-type]
    raise error


def _attribute(name: str) -> str:
    """Return an attribute's name as SCIM writes it, where it stands as a field of ours."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _located(where: str, sentence: str) -> str:
    return f"{where}: {sentence}" if where else sentence
