"""An agent: what they can do, whether they are there, and how much of their capacity is taken.

`load` is what they carry and nothing else of theirs interrupts: where a call may come on top of mail in hand, the mail
counts again once the call has ended. It may be above `capacity` only where the capacity was lowered under it, or somebody
transferred them work by force. `ceiling` is the most it may be: it rises with nothing else, so a load above it is a bug,
here and in the table's own check.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec import Struct

from schemas.roster import AgentSet, Presence

NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""The last offer of someone who never had one: they have been idle longest."""


class Shift(Struct, frozen=True, gc=False):
    """A time of duty: from `starts_at` up to, not including, `ends_at`."""

    starts_at: datetime
    ends_at: datetime


class Agent(Struct, gc=False):
    """A person of the roster. `last_assigned_at` is when they were last offered a ticket (None: never).

    `limits` maps a channel to how many of its tickets they take at once. It is an allow-list: where it is given, a channel
    that it does not name is none of theirs; where it is empty, the capacity alone decides. `place` is their number in
    sets of agents (-1: none yet); it stays while they do.

    `calendar` and `shifts` say when they are on duty, `on_shift` whether they are, `turns_at` when that changes. `beats`:
    their program sends heartbeats. `vanished_at` is when it had fallen silent, and they were set away for that.
    """

    agent_id: str
    name: str = ""
    queues: tuple[str, ...] = ()
    skills: dict[str, int] = {}
    languages: dict[str, int] = {}
    capacity: int = 0
    presence: Presence = "offline"
    load: int = 0
    ceiling: int = 0
    last_assigned_at: datetime | None = None
    misses: int = 0
    limits: dict[str, int] = {}
    place: int = -1
    calendar: str | None = None
    shifts: tuple[Shift, ...] = ()
    auto_accept: bool = False
    on_shift: bool = True
    turns_at: datetime | None = None
    beats: bool = False
    vanished_at: datetime | None = None

    @property
    def is_available(self) -> bool:
        """Whether they take work now. An allow-list: whatever is not `available` does not, nor who is off duty."""
        return self.on_shift and self.presence == "available"

    @property
    def idle_key(self) -> tuple[datetime, str]:
        """Sorts agents by who has been idle longest; ties by id."""
        return (self.last_assigned_at or NEVER, self.agent_id)

    def limit(self, channel: str) -> int | None:
        """Return how many tickets of a channel they take at once; None where only the capacity counts."""
        return self.limits.get(channel, 0) if self.limits else None

    def can_carry(self, cost: int) -> bool:
        """Whether `cost` more fits."""
        return self.load + cost <= self.capacity

    def take(self, cost: int) -> None:
        """Carry `cost` more."""
        assert self.can_carry(cost), (
            f"{self.agent_id}: {self.load} + {cost} is above {self.capacity}"
        )
        self.load += cost

    def release(self, cost: int) -> None:
        """Carry `cost` less."""
        assert self.load >= cost, f"{self.agent_id}: {self.load} - {cost} is below 0"
        self.load -= cost
        self.ceiling = max(self.capacity, min(self.ceiling, self.load))

    def carry(self, load: int, most: int, *, by_force: bool = False) -> None:
        """Carry `load` from now on; once other work of theirs has ended it may come to be `most`."""
        if by_force:
            self.ceiling = max(self.ceiling, most)
        self.load = load
        self.ceiling = max(self.capacity, min(self.ceiling, most))
        assert load <= self.ceiling, f"{self.agent_id}: {load} is above {self.ceiling}"

    def is_as(self, told: AgentSet) -> bool:
        """Whether `told` says nothing new."""
        return (
            (self.name, self.queues, self.capacity) == (told.name, told.queues, told.capacity)
            and self.skills == told.skills
            and self.languages == told.languages
            and self.limits == told.channel_limits
            and (self.calendar, self.auto_accept) == (told.calendar, told.auto_accept)
            and self.shifts == _shifts(told)
        )

    def become(self, told: AgentSet) -> None:
        """Take over what the roster says. What they carry stays, even above a lowered capacity."""
        self.name, self.queues = told.name, told.queues
        self.skills, self.languages = _copy(told.skills), _copy(told.languages)
        self.limits = _copy(told.channel_limits)
        self.capacity = told.capacity
        self.ceiling = max(told.capacity, self.load)
        self.auto_accept = told.auto_accept
        self.keep_hours(told)

    def keep_hours(self, told: AgentSet) -> None:
        """Take over the times of duty alone."""
        self.calendar, self.shifts = told.calendar, _shifts(told)


def _shifts(told: AgentSet) -> tuple[Shift, ...]:
    return tuple(
        Shift(shift.starts_at.astimezone(UTC), shift.ends_at.astimezone(UTC))
        for shift in told.shifts
    )


def _copy(levels: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(levels.items()))
