"""Literal instants, and a clock that says what it was told."""

from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day

DAY = date(2026, 11, 24)
"""The day that a bare time of day belongs to: a Tuesday, in no zone's clock change."""


def at(text: str) -> datetime:
    """Return the instant that `text` names, in UTC: `09:00`, `09:00:30.5` on `DAY`, or RFC 3339 with an offset.

    Raises:
        ValueError: it is neither; a date without a time or an offset would leave the instant open.
    """
    try:
        if "T" in text or " " in text:
            instant = datetime.fromisoformat(text)
        else:
            instant = datetime.combine(DAY, time_of_day.fromisoformat(text), UTC)
    except ValueError:
        raise ValueError(
            f"{text!r} is no instant: write 09:00:30 or 2026-11-24T09:00:30Z"
        ) from None
    if instant.tzinfo is None:
        raise ValueError(f"{text!r} has no offset from UTC: put Z or +02:00 behind it")
    return instant.astimezone(UTC)


class FakeClock:
    """A `chassis.clock.Clock` that stands still until it is moved, and never goes back."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start if start is not None else at("09:00:00")

    def now(self) -> datetime:
        """Return the instant it was last moved to."""
        return self._now

    def move(self, to: datetime | None = None, by: timedelta | None = None) -> datetime:
        """Move to an instant or by a duration (one of the two), and return where it stands then.

        Raises:
            ValueError: backwards, or neither or both given.
        """
        if (to is None) == (by is None):
            raise ValueError("say where to or by how much, not both")
        target = to if to is not None else self._now + (by or timedelta())
        if target < self._now:
            raise ValueError(f"a clock does not go back from {self._now} to {target}")
        self._now = target
        return target
