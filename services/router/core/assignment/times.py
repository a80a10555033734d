"""Instants as whole microseconds, which compare faster than instants and sort the same."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(instant: datetime) -> int:
    """Return the microseconds since 1970 of an instant with a zone."""
    since = instant - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def instant(micros_since: int) -> datetime:
    """Return the instant, in UTC, so many microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=micros_since)
