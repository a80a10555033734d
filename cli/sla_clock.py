"""The life of a ticket's clocks, drawn from what was told of them.

Owns the drawing: `lives` puts the events of each clock together, `draw` makes lines of it for a terminal, `as_data` an
object. Both are pure; the events come from the table `clock_event`, in the order in which they were told.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cli.sla_words import clock, day, length, when, windows
from schemas import sla

if TYPE_CHECKING:
    from hours.calendar import Calendar

WIDTH: Final = 64
"""Cells of a clock's strip."""

RUNS, STANDS, CLOSED, LATE, LATE_CLOSED, NONE = "█", "▒", "·", "▓", "░", " "
LEGEND: Final = (
    f"{RUNS} runs   {STANDS} stands   {CLOSED} closed   {LATE} runs past its deadline ({LATE_CLOSED} closed)   "
    "S start  P pause  R resumed  W warning  D deadline  X breach  T other deadline  M met  C cancelled"
)

_STYLES: Final = {
    RUNS: "green",
    STANDS: "yellow",
    CLOSED: "dim",
    LATE: "bold red",
    LATE_CLOSED: "red",
}
_PARTS: Final = (
    ("queue", "waited in a queue", "█", "yellow"),
    ("offer", "was offered", "▓", "cyan"),
    ("work", "somebody had it", "▒", "green"),
    ("pause", "stood", "░", "magenta"),
    ("closed", "we were closed", "·", "dim"),
)


class Moment(NamedTuple):
    """One thing that was told of a clock: when it was so, the mark on the strip, and what it was."""

    at: datetime
    mark: str
    text: str
    style: str = ""


class Piece(NamedTuple):
    """A piece of a line, and its colour."""

    text: str
    style: str = ""


Line = tuple[Piece, ...]


@dataclass(slots=True)
class Life:
    """A clock: what it is held to, and all that was told of it."""

    target_id: str
    kind: str
    tier: str
    policy: str
    policy_version: str
    queue: str
    calendar: str = ""
    started_at: datetime | None = None
    seconds: float | None = None
    due_at: datetime | None = None
    pauses: list[tuple[datetime, datetime | None, str]] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    breached_at: datetime | None = None
    detected_at: datetime | None = None
    retracted: list[datetime] = field(default_factory=list)
    ended_at: datetime | None = None
    ending: str = ""
    elapsed: float | None = None
    spent_ms: dict[str, int] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """How it stands, in words."""
        if self.ending == "met":
            return "met, too late" if self.breached_at is not None else "met in time"
        if self.ending:
            return self.ending
        if self.breached_at is not None:
            return "BROKEN, and still to be answered"
        return "stands" if self.pauses and self.pauses[-1][1] is None else "runs"


def lives(events: Iterable[sla.SlaEvent], zone: tzinfo) -> list[Life]:
    """Put the events of each clock together; instants in the texts are in `zone`."""
    found: dict[str, Life] = {}
    for event in events:
        life = found.setdefault(
            event.target_id,
            Life(
                event.target_id,
                event.target,
                event.tier,
                event.policy,
                event.policy_version,
                event.queue,
            ),
        )
        life.policy, life.policy_version = event.policy, event.policy_version
        life.queue = event.queue or life.queue
        _tell(life, event, zone)
    return sorted(found.values(), key=lambda life: (_start(life), life.kind))


def _tell(life: Life, event: sla.SlaEvent, zone: tzinfo) -> None:
    match event:
        case sla.TargetStarted():
            life.started_at, life.seconds, life.due_at = (
                event.started_at,
                event.seconds,
                event.due_at,
            )
            text = f"starts: {length(event.seconds)} of open time, due {when(event.due_at, zone)}"
            life.moments.append(Moment(event.started_at, "S", text))
        case sla.TargetPaused():
            life.pauses.append((event.paused_at, None, event.cause))
            life.due_at = None
            text = f"stands: {event.cause.replace('_', ' ')}"
            life.moments.append(Moment(event.paused_at, "P", text, "yellow"))
        case sla.TargetResumed():
            stood = _resume(life, event.resumed_at)
            life.due_at = event.due_at
            text = f"runs on{stood}, due {when(event.due_at, zone)}"
            life.moments.append(Moment(event.resumed_at, "R", text))
        case sla.TargetRetargeted():
            life.started_at, life.seconds, life.due_at = (
                event.started_at,
                event.seconds,
                event.due_at,
            )
            life.moments.append(Moment(event.at, "T", _retargeted(event, zone), "cyan"))
        case sla.TargetAtRisk():
            left = (event.due_at - event.at).total_seconds()
            text = f"warning: {length(left)} before the deadline"
            life.moments.append(Moment(event.at, "W", text, "yellow"))
        case _:
            _end(life, event)


def _end(life: Life, event: sla.SlaEvent) -> None:
    match event:
        case sla.TargetBreached():
            life.breached_at, life.detected_at = event.breached_at, event.detected_at
            life.due_at = event.breached_at
            lag = (event.detected_at - event.breached_at).total_seconds()
            text = f"BROKEN: the deadline passed (noticed {length(lag)} later)"
            life.moments.append(Moment(event.breached_at, "X", text, "bold red"))
        case sla.BreachRetracted():
            life.retracted.append(event.breached_at)
            life.breached_at = life.detected_at = None
            text = "breach taken back: what ended it had happened in time"
            life.moments.append(Moment(event.at, "", text, "cyan"))
        case sla.TargetMet():
            life.ended_at, life.ending, life.elapsed = event.met_at, "met", event.elapsed_seconds
            late = (
                f", {length((event.met_at - life.breached_at).total_seconds())} after the deadline"
                if (life.breached_at is not None)
                else ""
            )
            text = f"met after {length(event.elapsed_seconds)} of open time{late}"
            style = "red" if event.was_breached else "green"
            life.moments.append(Moment(event.met_at, "M", text, style))
        case sla.TargetCancelled():
            life.ended_at, life.ending = event.at, f"cancelled ({event.reason.replace('_', ' ')})"
            life.moments.append(Moment(event.at, "C", life.ending, "dim"))
        case _:
            pass  # A kind of event that a later release tells: not drawn, and no harm.


def _resume(life: Life, at: datetime) -> str:
    if not life.pauses or life.pauses[-1][1] is not None:
        return ""
    since, _, cause = life.pauses[-1]
    life.pauses[-1] = (since, at, cause)
    return f" after {length((at - since).total_seconds())}"


def _retargeted(event: sla.TargetRetargeted, zone: tzinfo) -> str:
    before = (
        "it stood" if event.before_due_at is None else f"was due {when(event.before_due_at, zone)}"
    )
    after = "it stands" if event.due_at is None else f"now due {when(event.due_at, zone)}"
    moved = ""
    if event.before_due_at is not None and event.due_at is not None:
        shift = (event.due_at - event.before_due_at).total_seconds()
        moved = f" ({length(abs(shift))} {'later' if shift > 0 else 'earlier'})"
    return f"another deadline, {event.reason.replace('_', ' ')}: {before}, {after}{moved}"


def _start(life: Life) -> datetime:
    return life.started_at or min(moment.at for moment in life.moments)


def draw(
    life: Life, now: datetime, zone: tzinfo, calendar: "Calendar | None", width: int = WIDTH
) -> list[Line]:
    """Return a clock's lines: what it is, its strip with the marks above, what happened, and where the time went."""
    style = "bold red" if life.breached_at is not None else "bold"
    of = f" {life.tier}" if life.tier else ""
    head = f"{life.kind.replace('_', ' ')}{of}  {life.status}"
    held = f"policy {life.policy}" + (f"@{life.policy_version[:7]}" if life.policy_version else "")
    held += f", calendar {life.calendar}" if life.calendar else ""
    lines: list[Line] = [(Piece(head, style), Piece(f"   {held}", "dim"))]
    begin, end = _span(life, now)
    lines += _strip(life, begin, end, now, calendar, zone, width)
    lines += _moments(life, zone)
    lines.append((Piece(f"  {_left(life, now, calendar)}", style),))
    if life.spent_ms:
        lines += _spent(life.spent_ms, width)
    return lines


def _span(life: Life, now: datetime) -> tuple[datetime, datetime]:
    """What the strip shows: from the start to the last thing that was or is to be."""
    begin = min(_start(life), *(moment.at for moment in life.moments))
    ends = [life.ended_at or now, *(moment.at for moment in life.moments if moment.mark)]
    ends += [life.due_at] if life.due_at is not None else []
    return begin, max(max(ends), begin + timedelta(seconds=1))


def _strip(
    life: Life,
    begin: datetime,
    end: datetime,
    now: datetime,
    calendar: "Calendar | None",
    zone: tzinfo,
    width: int,
) -> list[Line]:
    step = (end - begin) / width
    is_open = _openness(calendar, begin, end)
    cells = [_cell(life, begin + step * (i + 0.5), now, is_open) for i in range(width)]
    marks = [NONE] * width
    wanted = [(m.at, m.mark) for m in life.moments if m.mark]
    if life.due_at is not None and life.breached_at is None:
        wanted.insert(0, (life.due_at, "D"))
    for at, mark in wanted:
        place = min(width - 1, int((at - begin) / step))
        while marks[place] != NONE and place < width - 1:
            place += 1
        marks[place] = mark
    scale = _scale(begin.astimezone(zone), end.astimezone(zone), width)
    return [
        (Piece("  "), Piece("".join(marks).rstrip(), "bold")),
        (Piece("  "), *_runs(cells)),
        (Piece(f"  {scale}", "dim"),),
    ]


def _openness(
    calendar: "Calendar | None", begin: datetime, end: datetime
) -> list[tuple[datetime, datetime]] | None:
    return None if calendar is None else list(windows(calendar, begin, end + timedelta(seconds=1)))


def _cell(
    life: Life,
    at: datetime,
    now: datetime,
    is_open: Sequence[tuple[datetime, datetime]] | None,
) -> str:
    if at > (life.ended_at or now) or at < _start(life):
        return NONE
    closed = is_open is not None and not any(begin <= at < end for begin, end in is_open)
    is_late = life.breached_at is not None and at >= life.breached_at
    if closed:
        return LATE_CLOSED if is_late else CLOSED
    if any(since <= at and (until is None or at < until) for since, until, _ in life.pauses):
        return STANDS
    return LATE if is_late else RUNS


def _runs(cells: Sequence[str]) -> list[Piece]:
    pieces: list[Piece] = []
    for cell in cells:
        if pieces and pieces[-1].text[-1] == cell:
            pieces[-1] = Piece(pieces[-1].text + cell, pieces[-1].style)
        else:
            pieces.append(Piece(cell, _STYLES.get(cell, "")))
    return pieces


def _scale(begin: datetime, end: datetime, width: int) -> str:
    first = f"{day(begin.date())} {begin:%H:%M}"
    last = f"{end:%H:%M}" if begin.date() == end.date() else f"{day(end.date())} {end:%H:%M}"
    return first + " " * max(1, width - len(first) - len(last)) + last


def _moments(life: Life, zone: tzinfo) -> list[Line]:
    lines: list[Line] = []
    shown = ""
    for moment in life.moments:
        local = moment.at.astimezone(zone)
        on = day(local.date())
        place = "" if on == shown else on
        shown = on
        stamp = f"  {place:<10} {clock(local.replace(microsecond=local.microsecond // 1000 * 1000)):<13}"
        lines.append(
            (
                Piece(stamp, "dim"),
                Piece(f"{moment.mark or ' '}  ", "bold"),
                Piece(moment.text, moment.style),
            )
        )
    return lines


def _left(life: Life, now: datetime, calendar: "Calendar | None") -> str:
    """Say the time that was left, or over: open time where the calendar is known, else by the clock on the wall."""
    if life.breached_at is not None:
        over = ((life.ended_at or now) - life.breached_at).total_seconds()
        return f"{length(over)} over its deadline{'' if life.ended_at else ', and counting'}"
    if life.ending == "met" and life.elapsed is not None and life.seconds is not None:
        spare = life.seconds - life.elapsed
        return f"{length(spare)} to spare of {length(life.seconds)}"
    if life.ended_at is not None:
        return "nothing was owed any more"
    if life.due_at is None:
        return "no deadline while it stands"
    wall = (life.due_at - now).total_seconds()
    if calendar is None or wall <= 0:
        return f"{length(wall)} left" if wall > 0 else "due now"
    spans = windows(calendar, now, life.due_at)
    open_left = sum((end - begin).total_seconds() for begin, end in spans)
    return f"{length(open_left)} of open time left, {length(wall)} by the clock on the wall"


def _spent(spent: dict[str, int], width: int) -> list[Line]:
    """Return the bar of where the time went, and its legend; cells go by largest remainder, so they fill the bar."""
    total = sum(spent.values())
    if total <= 0:
        return []
    exact = {name: spent.get(name, 0) * width / total for name, *_ in _PARTS}
    cells = {name: int(value) for name, value in exact.items()}
    short = width - sum(cells.values())
    for name in sorted(exact, key=lambda n: (cells[n] - exact[n], n))[:short]:
        cells[name] += 1
    bar = tuple(Piece(sign * cells[name], style) for name, _, sign, style in _PARTS if cells[name])
    legend = [
        Piece(f"  {sign} {words} {length(spent[name] / 1000)} ({spent[name] / total:.0%})", style)
        for name, words, sign, style in _PARTS
        if spent.get(name)
    ]
    return [(Piece("  where the time went", "dim"),), (Piece("  "), *bar), tuple(legend)]


def as_data(life: Life) -> dict[str, Any]:
    """Return a clock as an object of plain values; instants are RFC 3339, in UTC as they were told."""
    return {
        "target_id": life.target_id,
        "target": life.kind,
        "tier": life.tier,
        "status": life.status,
        "policy": life.policy,
        "policy_version": life.policy_version,
        "queue": life.queue,
        "calendar": life.calendar,
        "started_at": _iso(life.started_at),
        "seconds": life.seconds,
        "due_at": _iso(life.due_at),
        "breached_at": _iso(life.breached_at),
        "detected_at": _iso(life.detected_at),
        "retracted": [_iso(at) for at in life.retracted],
        "ended_at": _iso(life.ended_at),
        "elapsed_seconds": life.elapsed,
        "pauses": [
            {"from": _iso(since), "to": _iso(until), "cause": cause}
            for since, until, cause in life.pauses
        ],
        "told": [{"at": _iso(m.at), "mark": m.mark, "text": m.text} for m in life.moments],
        "spent_ms": life.spent_ms,
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
