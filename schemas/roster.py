"""`roster`: the agents of a routing domain, what they can do, whether they are there, and what they say to offers."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import StringConstraints

from schemas.payload import Field, Id, Instant, Part, Payload
from schemas.topics import ROSTER

Presence = Literal["available", "away", "offline"]

Level = Annotated[int, Field(ge=1, le=10)]
"""A proficiency: 10 is the best."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
"""The name of a skill, or a language code."""


class Shift(Part):
    """A time of duty of one agent: from `starts_at` up to, not including, `ends_at`."""

    starts_at: Instant
    ends_at: Instant


class AgentSet(Payload):
    """An agent as they are from now on; replaces what was known. Presence is not part of it and stays.

    `skills` maps a skill to its proficiency (1 to 10); `languages` a language code to proficiency likewise.
    `capacity` is the weighted load the agent can carry, `queues` which queues they serve. `channel_limits` maps a channel to
    how many of its tickets they take at once; where it is given, a channel that it does not name is none of theirs.

    Whoever has a `calendar` (one of `calendars.yaml`) or `shifts` is offered work within these alone, whatever their
    presence; with both, either is enough. `auto_accept`: what they are offered is theirs at once.
    """

    TYPE: ClassVar[str] = "agent.set.v1"
    TOPIC: ClassVar[str] = ROSTER.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        "domain": "main",
        "agent_id": "ada",
        "name": "Ada",
        "queues": ["service"],
        "skills": {"orders": 6},
        "languages": {"en": 9, "tr": 5},
        "capacity": 100,
    }

    domain: Id
    agent_id: Id
    name: Annotated[str, StringConstraints(max_length=200)] = ""
    queues: tuple[Id, ...] = ()
    skills: dict[Name, Level] = Field(default_factory=dict)
    languages: dict[Name, Level] = Field(default_factory=dict)
    capacity: int = Field(ge=0, le=100_000)
    channel_limits: dict[Name, Annotated[int, Field(ge=0, le=100_000)]] = Field(
        default_factory=dict
    )
    calendar: Id | None = None
    shifts: tuple[Shift, ...] = ()
    auto_accept: bool = False


class AgentRemoved(Payload):
    """An agent has left; their open offers return to the queue, their tickets too."""

    TYPE: ClassVar[str] = "agent.removed.v1"
    TOPIC: ClassVar[str] = ROSTER.name
    EXAMPLE: ClassVar[dict[str, Any]] = {"domain": "main", "agent_id": "ada"}

    domain: Id
    agent_id: Id


class PresenceSet(Payload):
    """Whether an agent takes work now. Only `available` does."""

    TYPE: ClassVar[str] = "agent.presence_set.v1"
    TOPIC: ClassVar[str] = ROSTER.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        "domain": "main",
        "agent_id": "ada",
        "presence": "available",
    }

    domain: Id
    agent_id: Id
    presence: Presence


class AgentHeartbeat(Payload):
    """An agent's program is there. Whoever sends these and then falls silent is away, and their offers go to others.

    Whoever never sent one is believed to be there as their presence says. Presence and answers to offers count as one.
    """

    TYPE: ClassVar[str] = "agent.heartbeat.v1"
    TOPIC: ClassVar[str] = ROSTER.name
    EXAMPLE: ClassVar[dict[str, Any]] = {"domain": "main", "agent_id": "ada"}

    domain: Id
    agent_id: Id


class OfferAccepted(Payload):
    """An agent takes what was offered to them."""

    TYPE: ClassVar[str] = "offer.accept.v1"
    TOPIC: ClassVar[str] = ROSTER.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        "domain": "main",
        "agent_id": "ada",
        "ticket_id": "3c59dc04-8e88-5024-9be8-079a5c74d079",
        "reservation_id": "6512bd43-d9ca-56e0-82c9-90b0a82652dc",
    }

    domain: Id
    agent_id: Id
    ticket_id: Id
    reservation_id: Id


class OfferDeclined(Payload):
    """An agent does not take what was offered to them."""

    TYPE: ClassVar[str] = "offer.decline.v1"
    TOPIC: ClassVar[str] = ROSTER.name
    EXAMPLE: ClassVar[dict[str, Any]] = {**OfferAccepted.EXAMPLE, "reason": "not my field"}

    domain: Id
    agent_id: Id
    ticket_id: Id
    reservation_id: Id
    reason: str = ""


AnyRosterEvent = (
    AgentSet | AgentRemoved | PresenceSet | AgentHeartbeat | OfferAccepted | OfferDeclined
)
