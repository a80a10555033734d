"""What the tests of timelines and recounts share: instants, events as they are told, and a conversation as it goes on."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from chassis.policy import parse
from hours.file import CalendarsFile
from schemas.payload import Payload
from services.sla.core.book import Decision, Tick
from services.sla.core.decide import decide, next_due
from services.sla.core.policy import Policy, SlaFile, build
from services.sla.core.recount import Recount
from services.sla.core.state import Conversation, Target

P = TypeVar("P", bound=Payload)

DAYS = ("mon", "tue", "wed", "thu", "fri")
OFFICE: dict[str, Any] = {"timezone": "UTC", "hours": {day: [["09:00", "17:00"]] for day in DAYS}}


def make_policy(
    policies: Mapping[str, Any],
    version: str = "v1",
    more: Mapping[str, Any] | None = None,
    **calendars: Any,
) -> Policy:
    """The policy of `standard` and others, with a calendar `office` and whatever else is given by name."""
    return build(
        {
            "sla.yaml": parse(
                "sla.yaml", {"default": "standard", "policies": policies, **(more or {})}, SlaFile
            ),
            "calendars.yaml": parse(
                "calendars.yaml", {"calendars": {"office": OFFICE, **calendars}}, CalendarsFile
            ),
        },
        Path("policy"),
        version,
    )


def at(text: str) -> datetime:
    """An instant of Tuesday, 24 November 2026, in UTC; or one with its own date and offset."""
    return datetime.fromisoformat(text if "T" in text else f"2026-11-24T{text}+00:00")


def told(kind: type[P], when: datetime, /, **fields: Any) -> P:
    """An event of ticket `t1` that happened, and was told, at `when`."""
    data = kind.EXAMPLE | {"ticket_id": "t1", "conversation_id": "c1"}
    for name in ("at", "offered_at", "assigned_at", "occurred_at"):
        if name in kind.model_fields:
            data[name] = when
    return kind.model_validate(data | fields)


class Story:
    """A conversation as it goes on; `told` is what the last step told, `all` what all of them did.

    The state goes through JSON between two steps, as it does in the ledger.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.state: Conversation | None = None
        self.told: tuple[Payload, ...] = ()
        self.all: list[Payload] = []
        self.last = Decision(None)

    def then(self, *events: Payload) -> Self:
        """Each event is heard of when it is told."""
        for event in events:
            self._decide(event, _told_at(event))
        return self

    def heard(self, event: Payload, now: datetime) -> Self:
        """An event is heard of at `now`, whenever it was told."""
        return self._decide(event, now)

    def tick(self, now: datetime) -> Self:
        """The timer fires at `now`."""
        return self._decide(Tick(), now)

    def recount(
        self, now: datetime, recount: Recount | None = None, policy: Policy | None = None
    ) -> Self:
        """Hours or promises are what they are by `policy` from `now` on."""
        self.policy = policy or self.policy
        return self._decide(recount or Recount(), now)

    def target(self, kind: str) -> Target:
        """The latest target of that kind."""
        assert self.state is not None
        return next(one for one in reversed(self.state.tickets[0].targets) if one.kind == kind)

    def kinds(self) -> list[type[Payload]]:
        """The types of what the last step told."""
        return [type(one) for one in self.told]

    @property
    def next_due(self) -> datetime | None:
        """When the core next wants a tick."""
        return next_due(self.state)

    def _decide(self, event: Payload | Tick | Recount, now: datetime) -> Self:
        self.last = decide(self.state, event, now, self.policy)
        self.told = tuple(self.last.events)
        self.all += self.told
        state = self.last.state
        if state is not None:
            state = msgspec.json.decode(msgspec.json.encode(state), type=Conversation)
        self.state = state
        return self


def _told_at(event: Payload) -> datetime:
    """When an event was told: the latest of its instants."""
    names: Sequence[str] = ("at", "offered_at", "assigned_at")
    found = [value for name, value in event if name in names]
    return max(value for value in found if isinstance(value, datetime))
