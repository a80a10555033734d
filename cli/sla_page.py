"""A report as one page of HTML: nothing to fetch, no scripts, charts as inline SVG, for the screen, dark or light, and for paper.

Owns the page's words and pictures; every figure comes from `services.sla.core.figures`. Names in it are escaped.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from cli.sla_report import percent, row_of, span, title
from cli.sla_words import day, when

if TYPE_CHECKING:
    from services.sla.core.figures import Clock, Figures, Report

TABLE_STYLE: Final = """.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .4rem .55rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--muted); font-weight: 500; }
th:first-child, td:first-child, .words th, .words td { text-align: left; }
tr.all td { font-weight: 650; border-bottom: 0; }
footer { color: var(--muted); font-size: .85rem; margin-top: 1.75rem; }
"""
"""How a report's page sets its tables, and the line below everything."""

_STYLE: Final = (
    """
:root { color-scheme: light dark;
  --paper: #fbfaf7; --card: #ffffff; --ink: #1f2430; --muted: #667085; --line: #e3e0d8;
  --blue: #2f6690; --sky: #a9c9e0; --orange: #c8553d; --sand: #e3b778; --green: #588157; --grey: #b9bcc4; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171c; --card: #1c2027; --ink: #e8e6e1; --muted: #98a1b0; --line: #313742;
  --blue: #6fa8d6; --sky: #35546b; --orange: #e8836b; --sand: #b98c4a; --green: #86b384; --grey: #4d5562; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 1.05rem; margin: 0 0 .25rem; }
.when { color: var(--muted); margin: .35rem 0 1.75rem; }
.lead { font-size: 1.12rem; margin: 0 0 2rem; max-width: 48rem; }
.lead p { margin: 0 0 .5rem; }
.lead strong { font-weight: 650; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 0 0 1.5rem; padding: 0; list-style: none; }
.tiles li, section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
.tiles li { padding: .8rem 1rem; }
.tiles b { display: block; font-size: 1.55rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tiles .bad b { color: var(--orange); }
.tiles span { color: var(--muted); font-size: .85rem; }
section { padding: 1.1rem 1.25rem 1.25rem; margin: 0 0 1rem; break-inside: avoid; }
section > p { color: var(--muted); font-size: .9rem; margin: 0 0 .8rem; max-width: 46rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--muted); font-size: 11px; font-family: inherit; }
svg .value { fill: var(--ink); }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .85rem; color: var(--muted); margin: .5rem 0 0; padding: 0; list-style: none; }
.key i { display: inline-block; width: .75em; height: .75em; border-radius: 2px; margin-right: .4em; }
"""
    + TABLE_STYLE
    + """@media print { body { background: none; font-size: 12px; } main { max-width: none; padding: 0; }
  section, .tiles li { border-color: #ccc; } }
"""
)

_PARTS: Final = (
    ("queue", "waiting in a queue", "var(--orange)"),
    ("offer", "offered, nobody had taken it", "var(--sand)"),
    ("work", "with an agent", "var(--blue)"),
    ("pause", "standing, for the customer or a third party", "var(--sky)"),
    ("closed", "outside opening hours", "var(--grey)"),
)
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_HEAD: Final = (
    "opened", "solved", "first response, median", "p90", "longest", "within promise", "late",
    "solved in, median", "reopened", "open at end", "oldest",
)  # fmt: skip


def page(made: "Report", queue: str, now: datetime) -> str:
    """Return the whole document."""
    zone = ZoneInfo(made.zone)
    heading = escape(title(made, queue))
    parts = [
        f"<h1>How we answered</h1>\n<p class=when>{heading}, as of {escape(when(now.replace(microsecond=0), zone))}</p>",
        _lead(made),
        _tiles(made.total),
        _days(made),
        _bars(made),
        _hours(made),
        _spent(made),
        _groups(made),
        _worst(made, zone, min(now, made.until)),
        _foot(),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>How we answered: {heading}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


# -------------------------------------------------------------------------------- words


def _lead(made: "Report") -> str:
    total = made.total
    first, kept = total.first_response, total.first_kept
    said = [
        f"<strong>{total.opened}</strong> tickets were opened and <strong>{total.solved}</strong> solved."
    ]
    if first.n:
        said.append(
            f"Half of the {first.n} first answers came within <strong>{span(first.median)}</strong> of open time,"
            f" nine in ten within <strong>{span(first.p90)}</strong>; the longest wait was {span(first.longest)}."
        )
    else:
        said.append("No first answer was given.")
    if kept.share is not None:
        n = kept.kept + kept.broken
        said.append(
            f"Of {n} promised first answers <strong>{kept.kept}</strong> came in time ({percent(kept.share)})"
            f" and <strong>{kept.broken}</strong> did not."
        )
    lines = [" ".join(said), *_why(made)]
    return f"<div class=lead>{''.join(f'<p>{line}</p>' for line in lines)}</div>"


def _why(made: "Report") -> list[str]:
    """Return what explains the waits: where the time went, when those wrote who waited too long, what is still owed."""
    total = made.total
    lines = []
    if any(total.spent_ms):
        shares = sorted(
            ((total.share_of(name) or 0.0, words) for name, words, _ in _PARTS), key=lambda p: -p[0]
        )
        (most, what), (second, other) = shares[0], shares[1]
        also = f", then to {other} ({percent(second)})" if second >= 0.05 else ""
        lines.append(
            f"Most of the time to the first answer went to <strong>{what}</strong> ({percent(most)}){also}."
        )
    broken = sorted(
        ((kept.broken, place) for place, kept in made.hours.items() if kept.broken),
        key=lambda p: (-p[0], p[1]),
    )
    if broken and total.first_kept.broken >= 3:
        top = broken[:3]
        places = ", ".join(
            f"{_DAYS[weekday]} {hour:02}-{hour + 1:02} h" for _, (weekday, hour) in top
        )
        lines.append(
            f"{sum(n for n, _ in top)} of the {total.first_kept.broken} late ones were written {places}."
        )
    if total.backlog:
        lines.append(
            f"At the end <strong>{total.backlog}</strong> were open, {total.backlog_unanswered} of them without a first"
            f" answer; the oldest for {span(total.backlog_oldest)}."
        )
    return lines


def _tiles(total: "Figures") -> str:
    tiles = [
        ("first answers in time", percent(total.first_kept.share), total.first_kept.broken > 0),
        ("median first answer", span(total.first_response.median), False),
        ("average first answer", span(total.first_response.average), False),
        ("median to solve", span(total.resolution.median), False),
        ("reopened, of solved", percent(total.reopen_rate), False),
        ("told times kept", percent(total.told_share), False),
    ]
    if total.contact_ratio is not None:
        tiles.append(("tickets for 100 orders", f"{total.contact_ratio * 100:.1f}", False))
    cells = "".join(
        f"<li{' class=bad' if is_bad else ''}><b>{escape(value)}</b><span>{escape(name)}</span></li>"
        for name, value, is_bad in tiles
        if value != "-"
    )
    return f"<ul class=tiles>{cells}</ul>"


def _foot() -> str:
    return (
        "<footer><p>Waits are open, unpaused time, as the clocks count it; ages are by the clock on the wall. An answer, a"
        " solution and a kept promise count when they happened, a broken promise at its deadline. Median and p90 are waits"
        " that occurred (nearest rank). Tickets opened go by the queue they were opened in, all else by the queue they"
        " stand or stood in last. Breaches that were taken back, since the answer had come in time, do not count as late."
        "</p></footer>"
    )


# ------------------------------------------------------------------------------- pictures


def _section(heading: str, text: str, *inside: str) -> str:
    return f"<section>\n<h2>{heading}</h2>\n<p>{text}</p>\n{''.join(inside)}\n</section>"


def _svg(width: int, height: int, label: str, shapes: Iterable[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{''.join(shapes)}</svg>"
    )


def _rect(
    x: float, y: float, width: float, height: float, fill: str, tip: str, opacity: float = 1
) -> str:
    shade = "" if opacity >= 1 else f' fill-opacity="{opacity:.2f}"'
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}" rx="1.5"'
        f' style="fill:{fill}"{shade}><title>{escape(tip)}</title></rect>'
    )


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(text)}</text>'


def _line(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" style="stroke:var(--line)"/>'


def _key(*entries: tuple[str, str]) -> str:
    cells = "".join(
        f'<li><i style="background:{colour}"></i>{escape(name)}</li>' for colour, name in entries
    )
    return f"<ul class=key>{cells}</ul>"


def _top(value: int) -> int:
    """Return a round number at or above `value`, for the top of a scale."""
    step = 1
    while True:
        for factor in (1, 2, 4, 5, 8, 10):
            if factor * step >= value:
                return max(4, factor * step)
        step *= 10


def _days(made: "Report") -> str:
    if len(made.days) < 2:
        return ""
    width, height, left, bottom = 960, 230, 40, 24
    top = _top(max(max(one.opened, one.solved, one.backlog) for one in made.days))
    room, tall = (width - left) / len(made.days), height - bottom - 8

    def y(n: float) -> float:
        return 8 + tall * (1 - n / top)

    shapes = []
    for part in (0, top // 2, top):
        shapes += [
            _line(left, y(part), width, y(part)),
            _text(left - 6, y(part) + 4, str(part), "end"),
        ]
    every = max(1, -(-len(made.days) // 12))
    points = []
    for place, one in enumerate(made.days):
        x, name = left + place * room, day(one.day)
        bar = max(1.0, room * 0.36)
        shapes.append(
            _rect(
                x + room * 0.1,
                y(one.opened),
                bar,
                y(0) - y(one.opened),
                "var(--sky)",
                f"{name}: {one.opened} opened",
            )
        )
        shapes.append(
            _rect(
                x + room * 0.1 + bar,
                y(one.solved),
                bar,
                y(0) - y(one.solved),
                "var(--blue)",
                f"{name}: {one.solved} solved",
            )
        )
        points.append(f"{x + room / 2:.1f},{y(one.backlog):.1f}")
        if place % every == 0:
            shapes.append(_text(x + room / 2, height - 6, name))
    shapes.append(
        f'<polyline points="{" ".join(points)}" style="fill:none;stroke:var(--orange);stroke-width:2.5;stroke-linejoin:round"/>'
    )
    label = "Tickets opened and solved each day, and open at its end"
    return _section(
        "Day by day",
        "A line that rises means that more comes in than goes out.",
        _svg(width, height, label, shapes),
        _key(
            ("var(--sky)", "opened"),
            ("var(--blue)", "solved"),
            ("var(--orange)", "open at the day's end"),
        ),
    )


def _bars(made: "Report") -> str:
    from services.sla.core.figures import STEPS

    total = sum(made.bars)
    if not total:
        return ""
    width, height, bottom = 960, 190, 24
    names = [*(f"≤ {span(step)}" for step in STEPS), "longer"]
    room, tall = width / len(names), height - bottom - 22
    shapes, below = [], 0
    for place, (name, n) in enumerate(zip(names, made.bars, strict=True)):
        below += n
        tall_n = tall * n / max(made.bars)
        x = place * room
        tip = f"{n} first answers {name}; {percent(below / total)} up to here"
        shapes.append(
            _rect(x + room * 0.1, height - bottom - tall_n, room * 0.8, tall_n, "var(--blue)", tip)
        )
        if n:
            shapes.append(_text(x + room / 2, height - bottom - tall_n - 5, str(n), kind="value"))
        shapes.append(_text(x + room / 2, height - 7, name))
    return _section(
        "How long the first answer took",
        "Open time from the customer's message to the first answer: nights and closed days are not in it.",
        _svg(width, height, "First answers by how long they took", shapes),
    )


def _hours(made: "Report") -> str:
    if not made.hours:
        return ""
    width, left, cell, room = 960, 40, 24, (960 - 40) / 24
    height = 7 * cell + 22
    shapes = []
    for weekday in range(7):
        shapes.append(_text(left - 8, weekday * cell + 16, _DAYS[weekday], "end"))
        for hour in range(24):
            kept = made.hours.get((weekday, hour))
            x, y = left + hour * room, weekday * cell
            place = (x + 1, y + 1, room - 2, cell - 2)
            if kept is None or kept.share is None:
                tip = f"{_DAYS[weekday]} {hour:02}: nobody wrote"
                shapes.append(_rect(*place, "var(--line)", tip, 0.35))
                continue
            late, n = kept.broken, kept.kept + kept.broken
            tip = f"{_DAYS[weekday]} {hour:02}-{hour + 1:02}: {late} of {n} answered too late"
            colour = "var(--orange)" if late else "var(--sky)"
            shade = 0.3 + 0.7 * late / n if late else 0.6
            shapes.append(_rect(*place, colour, tip, shade))
            if late:
                shapes.append(_text(x + room / 2, y + 16, str(late), kind="value"))
    shapes += [
        _text(left + (hour + 0.5) * room, height - 5, f"{hour:02}") for hour in range(0, 24, 2)
    ]
    return _section(
        "When those wrote who waited too long",
        f"By weekday and hour of the message ({escape(made.zone)}). The number is how many first answers came too late or have"
        " not come; the stronger the colour, the larger their share.",
        _svg(width, height, "Late first answers by weekday and hour of the message", shapes),
        _key(
            ("var(--orange)", "some too late"),
            ("var(--sky)", "all in time"),
            ("var(--line)", "nobody wrote"),
        ),
    )


def _spent(made: "Report") -> str:
    lines = [(name, one) for name, one in made.groups if any(one.spent_ms)][:12]
    if not lines:
        return ""
    if len(lines) > 1:
        lines.append(("all", made.total))
    width, left, tall = 960, 120, 30
    shapes = []
    for place, (name, one) in enumerate(lines):
        x, y = float(left), place * tall
        shapes.append(_text(left - 10, y + 18, name[:16], "end", "value"))
        for part, words, colour in _PARTS:
            share = one.share_of(part) or 0.0
            wide = (width - left) * share
            shapes.append(
                _rect(x, y + 3, wide, tall - 8, colour, f"{name}: {percent(share)} {words}")
            )
            if wide > 40:
                shapes.append(
                    f'<text x="{x + wide / 2:.1f}" y="{y + 18}" text-anchor="middle" style="fill:var(--card);font-weight:600">{percent(share)}</text>'
                )
            x += wide
    return _section(
        "Where the time to the first answer went",
        "By the clock on the wall, from the message to the answer. Time in a queue asks for people or better routing, offers that"
        " nobody takes for a look at presence and capacity, closed time for other hours or an honest word about them.",
        _svg(width, tall * len(lines), "Shares of the time to the first answer", shapes),
        _key(*((colour, words) for _, words, colour in _PARTS)),
    )


# --------------------------------------------------------------------------------- tables


def _cells(tag: str, cells: Sequence[str]) -> str:
    return "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells)


def _groups(made: "Report") -> str:
    rows = [f"<tr>{_cells('td', (name, *row_of(one)))}</tr>" for name, one in made.groups]
    rows.append(f"<tr class=all>{_cells('td', ('all', *row_of(made.total)))}</tr>")
    return _section(
        f"By {made.by}",
        "The same figures in numbers.",
        f"<div class=scroll><table><thead><tr>{_cells('th', (made.by, *_HEAD))}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>",
    )


def _worst(made: "Report", zone: ZoneInfo, ends_at: datetime) -> str:
    if not made.worst:
        return ""
    rows = "".join(f"<tr>{_cells('td', _late(clock, zone, ends_at))}</tr>" for clock in made.worst)
    head = _cells("th", ("ticket", "queue", "owed", "written", "due", "answered", "late by"))
    return _section(
        "The latest answers",
        "<code>signalbox sla explain TICKET</code> draws what happened to each.",
        f"<div class=scroll><table class=words><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>",
    )


def _late(clock: "Clock", zone: ZoneInfo, ends_at: datetime) -> tuple[str, ...]:
    from services.sla.core.figures import lateness

    assert clock.breached_at is not None

    def short(at: datetime) -> str:
        local = at.astimezone(zone)
        return f"{day(local.date())} {local:%H:%M}"

    answered = clock.settled_at is not None and clock.settled_at <= ends_at
    return (
        clock.reference or clock.ticket_id[:8],
        clock.queue or "-",
        clock.kind.replace("_", " "),
        short(clock.started_at),
        short(clock.breached_at),
        short(clock.settled_at) if answered and clock.settled_at is not None else "not yet",
        span(lateness(clock, ends_at).total_seconds()),
    )
