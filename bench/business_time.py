"""`python -m bench.business_time --cases 1000000`: the calendar's arithmetic against the slow walk, question by question.

Random calendars (several intervals, over night, holidays, single dates, closures) in random zones, most of them at a
change of the zone's clock if it has any; each is walked once, and then asked hundreds of random questions with random
pauses. Prints one JSON object; exit code 1 if any answer differs. Seeded: the same numbers on every machine with the same
time zone data.
"""

import argparse
import json
import random
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final
from zoneinfo import ZoneInfo, available_timezones

from bench.business_time_reference import Walk
from hours import calendar as fast
from hours.calendar import DAYS, Calendar, parse_calendar

CASES_A_CALENDAR: Final = 400
MINUTES: Final = 4 * 1440
"""Walked of each calendar that is asked by the minute: four days, which begin on any day of the week."""
SECONDS: Final = 5400
SHARE_OF_SECONDS: Final = 0.1
MISMATCHES_SHOWN: Final = 5

FROM: Final = datetime(2000, 1, 1, tzinfo=UTC)
UNTIL: Final = datetime(2041, 1, 1, tzinfo=UTC)
_SCAN: Final = timedelta(days=5)

Pauses = list[tuple[int, int | None]]


@dataclass(slots=True)
class Outcome:
    """What was asked, and the first answers that differ."""

    cases: int = 0
    mismatches: int = 0
    zones: set[str] = field(default_factory=set)
    changes: set[tuple[str, datetime]] = field(default_factory=set)
    questions: Counter[str] = field(default_factory=Counter)
    shown: list[str] = field(default_factory=list)


def compare(cases: int, seed: int, *, stops_at_first: bool = False) -> Outcome:
    """Ask at least so many questions of both; `stops_at_first`: end at the first answer that differs."""
    chance = random.Random(seed)
    outcome = Outcome()
    while outcome.cases < cases:
        subject = _subject(chance, outcome)
        for _ in range(min(CASES_A_CALENDAR, cases - outcome.cases)):
            question, asked, got, expected = _case(chance, subject)
            outcome.cases += 1
            outcome.questions[question] += 1
            if got == expected:
                continue
            outcome.mismatches += 1
            if len(outcome.shown) < MISMATCHES_SHOWN:
                outcome.shown.append(
                    f"{question}{asked} of {subject.mapping}: got {got}, walked {expected}"
                )
            if stops_at_first:
                return outcome
    return outcome


# ------------------------------------------------------------------------------------ what is asked


@dataclass(frozen=True, slots=True)
class _Subject:
    """A calendar, walked, and as the product reads it."""

    mapping: dict[str, Any]
    walk: Walk
    product: Calendar
    turns: tuple[int, ...]
    """The steps at which it opens or closes, and their neighbours: where mistakes live."""


def _subject(chance: random.Random, outcome: Outcome) -> _Subject:
    zone = chance.choice(_zones())
    changes = changes_of(zone)
    by_second = chance.random() < SHARE_OF_SECONDS
    steps, unit = (SECONDS, 1) if by_second else (MINUTES, 60)
    change: int | None = None
    if changes and chance.random() < 0.75:
        instant = chance.choice(changes)
        outcome.changes.add((zone, instant))
        local = (instant - timedelta(seconds=1)).astimezone(ZoneInfo(zone))
        change = local.hour * 60 + local.minute
        # The change lies somewhere inside the walk.
        begin = instant - timedelta(seconds=unit * chance.randrange(steps // 8, steps - steps // 8))
    else:
        begin = FROM + timedelta(minutes=chance.randrange(int((UNTIL - FROM).days * 1440)))
    begin = begin.replace(second=0, microsecond=0)
    outcome.zones.add(zone)
    clock = _Clock(chance, by_second, change)
    mapping = _mapping(chance, zone, begin, steps * unit, clock)
    walk = Walk(mapping, begin, steps, unit)
    flags = walk.flags
    turns = [i + k for i in range(2, steps - 1) if flags[i] != flags[i - 1] for k in (-1, 0, 1)]
    return _Subject(mapping, walk, parse_calendar(mapping), tuple(sorted(set(turns))))


def _case(chance: random.Random, subject: _Subject) -> tuple[str, str, object, object]:
    """One question: its name, what was asked, the product's answer and the walk's."""
    walk, product = subject.walk, subject.product
    length, unit = len(walk.flags), timedelta(seconds=walk.seconds)
    start = _step(chance, subject, 0)
    at = walk.instant(start).astimezone(product.zone if chance.random() < 0.2 else UTC)
    draw = chance.random()
    if draw < 0.45:
        pauses = _pauses(chance, subject, start)
        end = _step(chance, subject, start)
        expected = walk.elapsed(start, end, pauses) * unit
        got = fast.elapsed(product, at, walk.instant(end), _instants(walk, pauses))
        return "elapsed", f"({at}, {walk.instant(end)}, {pauses})", got, expected
    if draw < 0.85:
        pauses = _pauses(chance, subject, start)
        amount = int(chance.expovariate(12 / length))
        if chance.random() < 0.3:
            # Used up exactly as it opens or closes, or one step beside.
            amount = walk.elapsed(start, _step(chance, subject, start), pauses)
        walked = walk.due(start, amount, pauses)
        due = fast.due(product, at, amount * unit, _instants(walk, pauses))
        # What the walk does not reach lies behind it, or behind a pause without end.
        return "due", f"({at}, {amount * unit}, {pauses})", *_within(walk, due, walked)
    if draw < 0.9:
        return "is_open", f"({at})", fast.is_open(product, at), walk.flags[start]
    if draw < 0.95:
        opening = fast.next_opening(product, at)
        return "next_opening", f"({at})", *_within(walk, opening, walk.next_opening(start))
    closing = fast.next_closing(product, at)
    return "next_closing", f"({at})", *_within(walk, closing, walk.next_closing(start))


def _step(chance: random.Random, subject: _Subject, since: int) -> int:
    """Any step from `since` on; half of the time one where the calendar opens or closes."""
    length = len(subject.walk.flags)
    first = bisect_left(subject.turns, since)
    if first < len(subject.turns) and chance.random() < 0.5:
        # Mostly one of the next: what lies further away costs the walk more than it shows.
        return subject.turns[min(len(subject.turns) - 1, first + int(chance.expovariate(1 / 12)))]
    if not since:
        return chance.randrange(length)
    return min(length - 1, since + int(chance.expovariate(6 / length)))


def _within(
    walk: Walk, got: datetime | None, expected: int | None
) -> tuple[datetime | None, datetime | None]:
    """Both answers, as far as the walk goes: one behind its end is none."""
    end = walk.instant(len(walk.flags))
    if got is not None and (got > end or (expected is None and got == end)):
        got = None
    return got, None if expected is None else walk.instant(expected)


def _pauses(chance: random.Random, subject: _Subject, start: int) -> Pauses:
    """None, mostly; else up to four that may overlap, touch, lie before the start, and go on for ever."""
    if chance.random() < 0.5:
        return []
    length = len(subject.walk.flags)
    pauses: Pauses = []
    for _ in range(chance.randint(1, 4)):
        begin = start + int(chance.gauss(0, length / 10))
        end = begin + int(chance.expovariate(20 / length))
        if chance.random() < 0.3 and subject.turns:
            begin = chance.choice(subject.turns)
            end = begin + chance.choice((1, 2, 30, 600))
        pauses.append((begin, None if chance.random() < 0.03 else end))
    if chance.random() < 0.2 and pauses[0][1] is not None:
        pauses.append((pauses[0][1], pauses[0][1] + 5))
    return pauses


def _instants(walk: Walk, pauses: Pauses) -> list[tuple[datetime, datetime | None]]:
    return [(walk.instant(a), None if b is None else walk.instant(b)) for a, b in pauses]


# --------------------------------------------------------------------------------- random calendars


@dataclass(frozen=True, slots=True)
class _Clock:
    """Random times of day: many in the small hours and on the half hour, and where the zone's clock changes."""

    chance: random.Random
    by_second: bool
    change: int | None
    """The minute of the day before which the clock changes, if it does."""

    def draw(self) -> str:
        """A time "HH:MM", or "HH:MM:SS"."""
        chance = self.chance
        if self.change is not None and chance.random() < 0.6:
            minute = (self.change + chance.randint(-75, 75)) % 1440
        else:
            minute = chance.randrange(240 if chance.random() < 0.4 else 1440)
        if chance.random() < 0.4:
            minute -= minute % 30
        second = f":{chance.randrange(60):02d}" if self.by_second else ""
        return f"{minute // 60:02d}:{minute % 60:02d}{second}"


def _mapping(
    chance: random.Random, zone: str, begin: datetime, seconds: int, clock: _Clock
) -> dict[str, Any]:
    first = begin.astimezone(ZoneInfo(zone)).date()
    days = [
        (first + timedelta(days=i)).isoformat() for i in range(-2, max(3, seconds // 86_400 + 2))
    ]
    dated = chance.sample(days, chance.choice((0, 0, 1, 2)))
    mapping: dict[str, Any] = {
        "timezone": zone,
        "hours": {day: _intervals(chance, clock) for day in DAYS},
        "holidays": chance.sample(days, chance.choice((0, 0, 1, 2))) + dated[:1],
        "dates": {day: _intervals(chance, clock) for day in dated},
        "closures": list(_closures(chance, days, clock)),
    }
    if not any(mapping["hours"].values()):
        mapping["hours"]["wed"] = [["01:30", "03:45"]]
    return mapping


def _intervals(chance: random.Random, clock: _Clock) -> list[list[str]]:
    kind = chance.random()
    if kind < 0.12:
        return []
    if kind < 0.2:
        return [["00:00", "24:00"]]
    found = []
    for _ in range(chance.choice((1, 1, 2, 3))):
        opens = clock.draw()
        closes = "24:00" if chance.random() < 0.1 else clock.draw()
        if opens != closes:
            found.append([opens, closes])
    return found


def _closures(
    chance: random.Random, days: Sequence[str], clock: _Clock
) -> Iterator[tuple[str, str]]:
    for _ in range(chance.choice((0, 0, 1, 2))):
        begin, end = sorted(f"{chance.choice(days)}T{clock.draw()}" for _ in range(2))
        if begin != end:
            yield begin, end


# --------------------------------------------------------------------------------- zones and changes


@cache
def _zones() -> tuple[str, ...]:
    """All names of zones; since 2000 every one has been whole minutes from UTC."""
    return tuple(sorted(available_timezones()))


@cache
def changes_of(name: str) -> tuple[datetime, ...]:
    """The instants from 2000 to 2040 at which a zone's offset changes, found by looking every five days and halving."""
    zone = ZoneInfo(name)
    found = []
    at, offset = FROM, FROM.astimezone(zone).utcoffset()
    while at < UNTIL:
        later = at + _SCAN
        after = later.astimezone(zone).utcoffset()
        if after != offset:
            found.append(_halved(zone, at, later))
        at, offset = later, after
    return tuple(found)


def _halved(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    offset = before.astimezone(zone).utcoffset()
    low, high = int(before.timestamp()), int(after.timestamp())
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return datetime.fromtimestamp(high, UTC)


def main(argv: Sequence[str]) -> int:
    """Compare, print what came of it, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.business_time")
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(list(argv))
    began, cpu = time.perf_counter(), time.process_time()
    outcome = compare(arguments.cases, arguments.seed)
    print(
        json.dumps(
            {
                "cases": outcome.cases,
                "mismatches": outcome.mismatches,
                "zones": len(outcome.zones),
                "clock_changes": len(outcome.changes),
                **{f"{name}_cases": n for name, n in sorted(outcome.questions.items())},
                "seconds": round(time.perf_counter() - began, 1),
                "cpu_seconds": round(time.process_time() - cpu, 1),
            }
        )
    )
    for line in outcome.shown:
        print(line, file=sys.stderr)
    return 1 if outcome.mismatches else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
