"""What a customer is told about time: what the service can promise, when we open, and when we could call.

Owns the way from the promise that was published for a ticket to what a template may say of it, in the reader's language and
in the zone that notices are written in. Only what still holds when the mail is written is said.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_time, get_timezone_gmt, get_timezone_name

from schemas.sla import WaitPromised
from services.notifier.core.facts import Moment, SlotFacts, Wait
from services.notifier.core.state import Promise, Slot
from services.notifier.core.text import clean_line

SLOTS_MAX: Final = 10
"""How many times for a call are offered at most."""

EARLY_MAX: Final = 20
"""How many promises of one conversation are kept whose tickets have not been heard of yet."""


class TimesSaid(NamedTuple):
    """What a notice says about time; nothing, where there is nothing true to say. `zone` is named where a clock time is.

    From `stale_at` on some of it no longer holds.
    """

    promise: Wait | None = None
    opens: Moment | None = None
    slots: tuple[SlotFacts, ...] = ()
    zone: str = ""
    stale_at: datetime | None = None


def promise_of(event: WaitPromised) -> Promise:
    """Return what is remembered of a published promise. One without an estimate still knows when we open."""
    wording = event.wording
    is_promised = event.by is not None and wording is not None
    return Promise(
        event.at,
        event.by if is_promised else None,
        wording.minutes if wording is not None and wording.kind == "within" else None,
        event.opens_at if event.is_after_hours else None,
        tuple(Slot(one.starts_at, one.ends_at) for one in event.callback_slots[:SLOTS_MAX]),
    )


def said(promise: Promise | None, now: datetime, locale: Locale, zone: ZoneInfo) -> TimesSaid:
    """Return what holds at `now`.

    Of a promise of which more than half is over nothing is said: that nobody has answered by then is news that the estimate
    did not have. An opening that is over, and times for a call that have begun, are none.
    """
    if promise is None:
        return TimesSaid()
    wait = None
    named: list[datetime] = []
    ends: list[datetime] = []
    if promise.by is not None and promise.by - now >= (promise.by - promise.at) / 2:
        wait = _wait(promise.by, promise.minutes, now, locale, zone)
        ends.append(promise.by - (promise.by - promise.at) / 2)
        if promise.minutes is None:
            named.append(promise.by)
    opens = None
    if promise.opens_at is not None and promise.opens_at > now:
        opens = moment_of(promise.opens_at, now, locale, zone)
        named.append(promise.opens_at)
        ends.append(promise.opens_at)
    ahead = [one for one in promise.slots if one.starts_at > now]
    slots = tuple(
        SlotFacts(
            moment_of(one.starts_at, now, locale, zone), moment_of(one.ends_at, now, locale, zone)
        )
        for one in ahead
    )
    named += [at for one in ahead for at in (one.starts_at, one.ends_at)]
    ends += [one.starts_at for one in ahead]
    return TimesSaid(wait, opens, slots, zone_said(named, locale, zone), min(ends, default=None))


def _wait(by: datetime, minutes: int | None, now: datetime, locale: Locale, zone: ZoneInfo) -> Wait:
    if minutes is None:
        return Wait(until=moment_of(by, now, locale, zone, is_end=True))
    hours, rest = divmod(minutes, 60)
    return Wait(hours, rest, locale.plural_form(hours), locale.plural_form(rest))


def moment_of(
    at: datetime, now: datetime, locale: Locale, zone: ZoneInfo, *, is_end: bool = False
) -> Moment:
    """Return an instant as people say it. With `is_end` a midnight is the end of its day, not the start of the next."""
    local = at.astimezone(zone)
    day = local.date()
    clock = (local.hour, local.minute)
    is_end_of_day = is_end and clock == (0, 0)
    if is_end_of_day:
        day -= timedelta(days=1)
    ahead = (day - now.astimezone(zone).date()).days
    names = {0: "today", 1: "tomorrow"}
    return Moment(
        # A weekday alone is the next one of its name; today's, a week ahead, needs its date.
        day=names.get(ahead, "weekday" if 1 < ahead < 7 else "date"),
        weekday=day.weekday(),
        date=clean_line(format_date(day, format="long", locale=locale)),
        time=clean_line(format_time(local, format="short", tzinfo=zone, locale=locale)),
        hour=f"{clock[0]:02}",
        minute=f"{clock[1]:02}",
        is_noon=clock == (12, 0),
        is_end_of_day=is_end_of_day,
    )


def zone_said(moments: Sequence[datetime], locale: Locale, zone: ZoneInfo) -> str:
    """Return the offset of the moments that are said, not today's: clocks may change in between. Nothing, where none is.

    Where they change between two of the moments no offset is true of both, and the zone's own name is said.
    """
    local = [one.astimezone(zone) for one in moments]
    if not local:
        return ""
    if len({one.utcoffset() for one in local}) > 1:
        return clean_line(get_timezone_name(zone, locale=locale))
    first = local[0]
    return "UTC" if not first.utcoffset() else clean_line(get_timezone_gmt(first, locale=locale))
