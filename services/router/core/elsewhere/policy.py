"""`elsewhere.yaml`: which places are told who has a ticket, and who our agents are there.

Secrets stand here by reference only: `env:NAME` or `file:/path`. What a vendor's place takes besides is declared by its
adapter and checked with the rest; names of queues and accounts are checked against the files that own them. Agents may
be known from elsewhere than `agents.yaml`: one who is not in it is worth a warning, not a refusal.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from schemas.elsewhere import Saying as What
from services.router.core.policy.policy_model import (
    ROUTING_FILE,
    PolicyMistake,
    RoutingModel,
)

ELSEWHERE_FILE: Final = "elsewhere.yaml"
CHANNELS_FILE: Final = "channels.yaml"

SECRET_REFERENCE: Final = re.compile(r"^(?:env:[A-Za-z_][A-Za-z0-9_]*|file:/.+)$")
SecretReference = Annotated[str, StringConstraints(pattern=SECRET_REFERENCE.pattern)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Key = Annotated[str, StringConstraints(min_length=1, max_length=200)]
User = Annotated[str, StringConstraints(pattern=r"^\S{1,254}$")]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
SECRET_FIELD: Final = re.compile(r"(?:^|_)(?:key|token|secret|password)$")
"""The names of fields that refer to a secret. What stands there may be one, written out by mistake."""


def _address(value: str) -> str:
    """Return an API's address without a slash at its end; credentials go there, so only over TLS."""
    parts = urlsplit(value)
    is_local = parts.scheme == "http" and parts.hostname in LOOPBACK
    if (parts.scheme != "https" and not is_local) or not parts.hostname:
        raise ValueError("must be an https address, such as https://shop.zendesk.com")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must be an address without user, password, query and fragment")
    return value.rstrip("/")


ApiAddress = Annotated[
    str, StringConstraints(max_length=500, strip_whitespace=True), AfterValidator(_address)
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PlaceSettings(_Strict):
    """What every place has: who our agents are there, by their ids in the roster."""

    USER: ClassVar[str] = r"^\S+$"
    """What a user may look like at this vendor."""
    USER_SAID: ClassVar[str] = "a user's id"

    agents: dict[Key, User] = Field(default_factory=dict, max_length=20_000)


class Desk(PlaceSettings):
    """A helpdesk that shows who has its own tickets; `account` is the one of `channels.yaml` that they come from.

    `groups` maps our queues to the vendor's groups or teams. With `unassign` a ticket that nobody has is nobody's there,
    too; without, the last one stays.
    """

    GROUP: ClassVar[str] = r"^\d{1,20}$"

    account: Name
    groups: dict[Key, User] = Field(default_factory=dict, max_length=1000)
    unassign: bool = True


class Shown(PlaceSettings):
    """A place that shows tickets of whatever channel: all accounts and queues, or those that are listed.

    The subject is what a customer wrote; it goes to the place only where `show_subject` says so.
    """

    accounts: tuple[Name, ...] = ()
    queues: tuple[Key, ...] = ()
    show_subject: bool = False


class Messenger(Shown):
    """A chat tool in which agents are told: each in a direct message (`to: agent`), or all in one channel.

    `tell` are the occasions on which a message is written; what becomes of it changes that message.
    """

    to: str = "agent"
    tell: tuple[Annotated[str, StringConstraints(pattern="^(offered|assigned)$")], ...] = Field(
        default=("offered", "assigned"), min_length=1
    )


class Lists(_Strict):
    """The lists that a card lies in. Where one is missing, the card stays where it is (and is not made before)."""

    waiting: Key | None = None
    assigned: Key
    escalated: Key | None = None
    solved: Key | None = None

    def of(self, what: What) -> str | None:
        """Return the list of a ticket that is `what`."""
        match what:
            case "assigned":
                return self.assigned
            case "escalated":
                return self.escalated or self.waiting
            case "solved":
                return self.solved
            case _:
                return self.waiting


class Board(Shown):
    """A board with a card for each ticket."""

    lists: Lists


class PlaceModel(BaseModel):
    """A place as written: its vendor, and the settings that the vendor's adapter declares."""

    model_config = ConfigDict(extra="allow", frozen=True)

    vendor: Name


class RetryModel(_Strict):
    """How often a call is tried again: after each of `delays_seconds`, then always after the last, until the limit.

    Each delay is stretched by up to `jitter` of itself. A vendor's own wish for a longer wait counts.
    """

    delays_seconds: tuple[Seconds, ...] = Field(default=(2, 10, 60, 300, 900), min_length=1)
    jitter: float = Field(default=0.2, ge=0, le=1)
    give_up_after_minutes: float = Field(default=180, gt=0, le=10_080)


class ElsewhereModel(_Strict):
    """The file as written. `link` leads people from a place to a ticket: `{reference}` or `{ticket_id}` stand in it.

    What happened longer than `news_hours` ago is told to nobody any more.
    """

    link: str = Field(default="", max_length=500)
    news_hours: float = Field(default=24, gt=0, le=720)
    retry: RetryModel = RetryModel()
    places: dict[Name, PlaceModel] = Field(default_factory=dict, max_length=100)

    @field_validator("link")
    @classmethod
    def _leads_to_a_ticket(cls, value: str) -> str:
        if not value:
            return value
        left = value.replace("{reference}", "").replace("{ticket_id}", "")
        if "{" in left or "}" in left or left == value or re.search(r"[\s<>|]", left):
            raise ValueError(
                "must be an address with {reference} or {ticket_id} in it and nothing else in braces,"
                " such as https://desk.example/tickets/{reference}"
            )
        if not value.startswith("https://"):
            raise ValueError("must be an https address")
        return value


class AccountName(BaseModel):
    """An account of `channels.yaml`, as far as places name it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    channel: str = ""


class ChannelNamesModel(BaseModel):
    """`channels.yaml`, as far as places name its accounts. What else it holds is for its owner to judge."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    mail: dict[str, Any] = Field(default_factory=dict)
    forms: dict[str, Any] = Field(default_factory=dict)
    messages: dict[str, Any] = Field(default_factory=dict)
    channels: dict[str, AccountName] = Field(default_factory=dict)

    @property
    def accounts(self) -> frozenset[str]:
        """The names of all accounts."""
        return frozenset((*self.mail, *self.forms, *self.messages, *self.channels))


@dataclass(frozen=True, slots=True)
class Place:
    """A place in force: its vendor and its settings."""

    vendor: str
    settings: PlaceSettings


@dataclass(frozen=True, slots=True)
class Places:
    """The places in force, by name, and how they are told."""

    places: Mapping[str, Place] = field(default_factory=dict)
    link: str = ""
    news: timedelta = timedelta(hours=24)
    delays: tuple[timedelta, ...] = (timedelta(seconds=2),)
    jitter: float = 0.2
    give_up_after: timedelta = timedelta(minutes=180)

    def link_to(self, reference: str, ticket_id: str) -> str:
        """Return the address of a ticket for people; empty where none is set."""
        return self.link.replace("{reference}", reference).replace("{ticket_id}", ticket_id)

    @property
    def has_messengers(self) -> bool:
        """Whether offers are news for any place."""
        return any(isinstance(place.settings, Messenger) for place in self.places.values())

    @property
    def shows_subjects(self) -> bool:
        """Whether any place shows what a customer wrote as the subject."""
        return any(
            isinstance(place.settings, Shown) and place.settings.show_subject
            for place in self.places.values()
        )

    def of(self, name: str) -> Place | None:
        """Return a place by its name."""
        return self.places.get(name)


NOWHERE: Final = Places()


def build(parsed: Mapping[str, Any], kinds: Mapping[str, type[PlaceSettings]]) -> Places:
    """Make the places of the parsed files; `kinds` are the settings that each vendor's adapter declares.

    Raises:
        PolicyMistake: a vendor, a queue or an account is none, a setting is not what the vendor takes, or two helpdesks
            claim one account. What may be a secret is not repeated.
    """
    file: ElsewhereModel | None = parsed.get(ELSEWHERE_FILE)
    if file is None:
        return NOWHERE
    places: dict[str, Place] = {}
    desks: dict[str, str] = {}
    for name, model in file.places.items():
        settings = _settings(f"places.{name}", model, kinds)
        _check_names(f"places.{name}", settings, model.vendor, parsed)
        if isinstance(settings, Desk):
            taken = desks.setdefault(settings.account, name)
            if taken != name:
                raise PolicyMistake(
                    ELSEWHERE_FILE,
                    f"places.{name}.account",
                    settings.account,
                    f"an account's tickets have one helpdesk; {taken} has them",
                )
        places[name] = Place(model.vendor, settings)
    return Places(
        places=places,
        link=file.link,
        news=timedelta(hours=file.news_hours),
        delays=tuple(timedelta(seconds=one) for one in file.retry.delays_seconds),
        jitter=file.retry.jitter,
        give_up_after=timedelta(minutes=file.retry.give_up_after_minutes),
    )


def _settings(
    where: str, model: PlaceModel, kinds: Mapping[str, type[PlaceSettings]]
) -> PlaceSettings:
    kind = kinds.get(model.vendor)
    if kind is None:
        raise PolicyMistake(
            ELSEWHERE_FILE,
            f"{where}.vendor",
            model.vendor,
            f"must be one of {', '.join(sorted(kinds))}",
        )
    try:
        return kind.model_validate(model.model_extra or {})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in ("", *first["loc"]))
        name = str(first["loc"][0]) if first["loc"] else ""
        value: object = None
        allowed = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(kind.model_fields))
            allowed = f"is not known here; known: vendor, {known}"
        elif first["type"] == "missing":
            allowed = "is required"
        elif SECRET_FIELD.search(name):
            allowed = (
                "must say where the secret is, and not be it,"
                f" such as env:{model.vendor.upper()}_{name.upper()} or file:/run/secrets/{name}"
            )
        elif not _may_be_secret(name, first["input"]):
            value = first["input"]
        raise PolicyMistake(ELSEWHERE_FILE, f"{where}{path}", value, allowed) from None


def _may_be_secret(name: str, value: object) -> bool:
    """Whether a wrong value is repeated to nobody: all that a place holds, or an address with more than host and path."""
    if isinstance(value, str):
        is_address = name == "url" or "//" in value
        return is_address and any(mark in value for mark in "@?#")
    return isinstance(value, dict | list)


def _check_names(
    where: str, settings: PlaceSettings, vendor: str, parsed: Mapping[str, Any]
) -> None:
    routing: RoutingModel | None = parsed.get(ROUTING_FILE)
    channels: ChannelNamesModel | None = parsed.get(CHANNELS_FILE)
    for agent_id, user in settings.agents.items():
        _looks_like(f"{where}.agents.{agent_id}", user, settings.USER, settings.USER_SAID)
    match settings:
        case Desk():
            for queue, group in settings.groups.items():
                if routing is not None:
                    _known(f"{where}.groups", queue, routing.queues, f"queue in {ROUTING_FILE}")
                _looks_like(f"{where}.groups.{queue}", group, settings.GROUP, "a group's id")
            if channels is not None:
                theirs = [n for n, one in channels.channels.items() if one.channel == vendor]
                _known(
                    f"{where}.account",
                    settings.account,
                    theirs,
                    f"account of the channel {vendor} in {CHANNELS_FILE}",
                )
        case Shown():
            for index, queue in enumerate(settings.queues):
                if routing is not None:
                    path = f"{where}.queues.{index}"
                    _known(path, queue, routing.queues, f"queue in {ROUTING_FILE}")
            for index, account in enumerate(settings.accounts):
                if channels is not None:
                    path = f"{where}.accounts.{index}"
                    _known(path, account, channels.accounts, f"account in {CHANNELS_FILE}")


def unlisted_agents(settings: PlaceSettings, listed: Iterable[str]) -> list[str]:
    """Return the agents to whom a place gives a user and whom `agents.yaml` does not name, in order.

    A slip of the pen, or people whom the roster knows by another way: from a directory or from a table.
    """
    return sorted(set(settings.agents) - set(listed))


def _known(path: str, value: str, allowed: Iterable[str], what: str) -> None:
    names = sorted(allowed)
    if value not in names:
        shown = ", ".join(names[:50]) or "there is none"
        raise PolicyMistake(ELSEWHERE_FILE, path, value, f"no such {what}; known: {shown}")


def _looks_like(path: str, value: str, pattern: str, said: str) -> None:
    if re.fullmatch(pattern, value) is None:
        raise PolicyMistake(ELSEWHERE_FILE, path, value, f"must be {said}")


__all__ = [
    "CHANNELS_FILE",
    "ELSEWHERE_FILE",
    "NOWHERE",
    "ApiAddress",
    "Board",
    "ChannelNamesModel",
    "Desk",
    "ElsewhereModel",
    "Lists",
    "Messenger",
    "Place",
    "PlaceSettings",
    "Places",
    "SecretReference",
    "Shown",
    "build",
    "unlisted_agents",
]
