"""`signalbox sla report` and `sla orders`: the figures of a stretch of time, as a table, CSV, JSON or a page.

Owns the way from the database to the figures, and the plain forms of them; `cli.sla_page` draws the page.
"""

import asyncio
import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from zoneinfo import ZoneInfo

import typer

from cli.database import connected
from cli.errors import UsageMistake

if TYPE_CHECKING:
    from services.sla.core.figures import Case, Clock, Facts, Figures, Report

DAYS_MAX: Final = 400
"""The longest stretch of one report: a year and a month."""

# What matters to a stretch [$1, $2): opened before its end, and open in it or ended after its beginning.
_CASES: Final = """
SELECT ticket_id, opened_queue, queue, channel, priority, status, opened_at,
       ARRAY(SELECT lower(r) FROM unnest(open_during) AS r) AS begins,
       ARRAY(SELECT upper(r) FROM unnest(open_during) AS r) AS ends
FROM sla.ticket_case
WHERE opened_at < $2 AND (ended_at IS NULL OR ended_at >= $1) AND ($3 = '' OR queue = $3 OR opened_queue = $3)
ORDER BY opened_at, ticket_id
"""
# What broke in the stretch ended after its beginning, or is open.
_CLOCKS: Final = """
SELECT t.kind, t.ticket_id, coalesce(c.reference, '') AS reference, t.queue, t.channel, t.priority, t.status,
       t.started_at, t.settled_at, t.breached_at, t.elapsed_us
FROM sla.target AS t LEFT JOIN sla.ticket_case AS c USING (ticket_id)
WHERE t.kind IN ('first_response', 'next_response', 'later_response', 'resolution') AND t.started_at < $2
  AND (t.settled_at >= $1 OR t.status IN ('running', 'paused', 'breached'))
  AND ($3 = '' OR t.queue = $3)
ORDER BY t.started_at, t.target_id
"""
_RETRACTIONS: Final = """
SELECT t.queue, t.channel, t.priority, b.retracted_at AS at FROM sla.breach AS b JOIN sla.target AS t USING (target_id)
WHERE b.retracted_at >= $1 AND b.retracted_at < $2 AND t.kind = 'first_response' AND ($3 = '' OR t.queue = $3)
"""
_SPENT: Final = """
SELECT queue, channel, priority, ended_at AS at, ARRAY[queue_ms, offer_ms, work_ms, pause_ms, closed_ms] AS ms
FROM sla.attribution
WHERE target = 'first_response' AND outcome = 'met' AND ended_at >= $1 AND ended_at < $2 AND ($3 = '' OR queue = $3)
"""
# Published is not read: whether a notice said it, the notifier knows. The service keeps these for the window of `promises`
# in sla.yaml: an older stretch has none.
_TOLD: Final = """
SELECT queue, channel, priority, settled_at AS at, kept FROM sla.wait
WHERE kept IS NOT NULL AND is_told AND settled_at >= $1 AND settled_at < $2 AND ($3 = '' OR queue = $3)
"""
_ORDERS: Final = """
SELECT day, sum(orders)::bigint AS orders FROM sla.order_volume WHERE day >= $1 AND day <= $2 GROUP BY day
"""


class By(StrEnum):
    """What a report's lines are."""

    QUEUE = "queue"
    CHANNEL = "channel"
    PRIORITY = "priority"
    DAY = "day"


class Format(StrEnum):
    """How a report is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    HTML = "html"


def report(
    since: Annotated[
        str, typer.Option("--from", metavar="DAY", help="The first day, such as 2026-11-01.")
    ],
    until: Annotated[str, typer.Option("--to", metavar="DAY", help="The last day, whole.")],
    queue: Annotated[str, typer.Option("--queue", help="Of this queue alone.")] = "",
    by: Annotated[By, typer.Option("--by", help="A line for each.")] = By.QUEUE,
    timezone: Annotated[
        str, typer.Option("--timezone", help="Whose days and hours, such as Europe/Istanbul.")
    ] = "UTC",
    form: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.TABLE,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Where to; else to the terminal."),
    ] = None,
) -> None:
    """How many wrote, how long they waited, what was kept of what was promised, and where the time went."""
    from cli import sla_words
    from cli.environment import common
    from services.sla.core import figures

    zone = sla_words.zone(timezone)
    begin, end = stretch(since, until, zone)
    now = datetime.now(UTC)
    facts = asyncio.run(_read(common().dsn, begin, end, zone, queue))
    made = figures.report(facts, begin, end, zone, by.value, now)
    if form is Format.TABLE and output is None:
        return _print(made, queue)
    hand_out(written(made, form, queue, now), output)
    return None


def hand_out(text: str, output: Path | None) -> None:
    """Write a report to a file and say so; without one, to the terminal."""
    if output is None:
        typer.echo(text, nl=False)
        return
    output.write_text(text, encoding="utf-8")
    typer.echo(f"wrote {output}")


def stretch(since: str, until: str, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return from the first day's midnight to the midnight after the last day.

    Raises:
        UsageMistake: a day is none, they are the wrong way round, or too many.
    """
    first, last = _day("--from", since), _day("--to", until)
    if last < first:
        raise UsageMistake(f"--to: {until} is before --from {since}; give the later day as --to.")
    if (last - first).days >= DAYS_MAX:
        raise UsageMistake(f"--to: that is more than {DAYS_MAX} days; give a shorter stretch.")
    return _midnight(first, zone), _midnight(last + timedelta(days=1), zone)


def _day(option: str, text: str) -> date:
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise UsageMistake(f'{option}: got {text!r}; give a day such as "2026-11-24".') from None


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


async def _read(dsn: str, since: datetime, until: datetime, zone: ZoneInfo, queue: str) -> "Facts":
    # One snapshot: the figures agree with each other while tickets go on.
    async with (
        connected(dsn) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        return await read(connection, since, until, zone, queue)


async def read(
    connection: Any, since: datetime, until: datetime, zone: ZoneInfo, queue: str
) -> "Facts":
    """Return what a report is made from; `queue` empty: of all queues."""
    from services.sla.core.figures import Facts, Retraction, Spent, Told

    asked = (since, until, queue)
    days = (since.astimezone(zone).date(), until.astimezone(zone).date())
    return Facts(
        cases=[_case(row) for row in await connection.fetch(_CASES, *asked)],
        clocks=[_clock(row) for row in await connection.fetch(_CLOCKS, *asked)],
        retractions=[
            Retraction(row["queue"], row["channel"], row["priority"], row["at"])
            for row in await connection.fetch(_RETRACTIONS, *asked)
        ],
        spent=[
            Spent(row["queue"], row["channel"], row["priority"], row["at"], tuple(row["ms"]))
            for row in await connection.fetch(_SPENT, *asked)
        ],
        told=[
            Told(row["queue"], row["channel"], row["priority"], row["at"], row["kept"])
            for row in await connection.fetch(_TOLD, *asked)
        ],
        orders={row["day"]: row["orders"] for row in await connection.fetch(_ORDERS, *days)}
        if not queue
        else {},
    )


def _case(row: Any) -> "Case":
    from services.sla.core.figures import Case

    return Case(
        ticket_id=row["ticket_id"],
        opened_queue=row["opened_queue"],
        queue=row["queue"],
        channel=row["channel"],
        priority=row["priority"],
        status=row["status"],
        opened_at=row["opened_at"],
        stretches=tuple(zip(row["begins"], row["ends"], strict=True)),
    )


def _clock(row: Any) -> "Clock":
    from services.sla.core.figures import Clock

    return Clock(
        kind=row["kind"],
        ticket_id=row["ticket_id"],
        reference=row["reference"],
        queue=row["queue"] or "",
        channel=row["channel"] or "",
        priority=row["priority"],
        status=row["status"],
        started_at=row["started_at"],
        settled_at=row["settled_at"],
        breached_at=row["breached_at"],
        elapsed=None if row["elapsed_us"] is None else row["elapsed_us"] / 1_000_000,
    )


# ------------------------------------------------------------------------------ plain forms


def flat(figures: "Figures") -> dict[str, Any]:
    """Return figures as one level of names and numbers: seconds, shares from 0 to 1, counts."""
    first, resolution = figures.first_response, figures.resolution
    return {
        "opened": figures.opened,
        "solved": figures.solved,
        "reopened": figures.reopened,
        "spam": figures.spam,
        "reopen_rate": figures.reopen_rate,
        "first_responses": first.n,
        "first_response_average_seconds": first.average,
        "first_response_median_seconds": first.median,
        "first_response_p90_seconds": first.p90,
        "first_response_longest_seconds": first.longest,
        "first_response_within_share": figures.first_kept.share,
        "first_response_breaches": figures.first_kept.broken,
        "first_response_breaches_retracted": figures.first_kept.retracted,
        "responses_within_share": figures.responses_kept.share,
        "responses_breaches": figures.responses_kept.broken,
        "resolutions": resolution.n,
        "resolution_average_seconds": resolution.average,
        "resolution_median_seconds": resolution.median,
        "resolution_p90_seconds": resolution.p90,
        "resolution_longest_seconds": resolution.longest,
        "resolution_within_share": figures.resolution_kept.share,
        "resolution_breaches": figures.resolution_kept.broken,
        "backlog": figures.backlog,
        "backlog_unanswered": figures.backlog_unanswered,
        "backlog_median_age_seconds": figures.backlog_median,
        "backlog_oldest_age_seconds": figures.backlog_oldest,
        **{f"time_{part}_share": figures.share_of(part) for part in _parts()},
        "promises_told": figures.told,
        "promises_kept_share": figures.told_share,
        "orders": figures.orders or None,
        "contact_ratio": figures.contact_ratio,
    }


def _parts() -> tuple[str, ...]:
    from services.sla.core.figures import PARTS

    return PARTS


def written(made: "Report", form: Format, queue: str, now: datetime) -> str:
    """Return the report in a form, as text that ends in a line's end."""
    match form:
        case Format.CSV:
            return _csv(made)
        case Format.JSON:
            return json.dumps(as_data(made, queue, now), indent=2) + "\n"
        case Format.HTML:
            from cli.sla_page import page

            return page(made, queue, now)
        case Format.TABLE:
            return "".join(f"{line}\n" for line in table(made, queue))


def as_data(made: "Report", queue: str, now: datetime) -> dict[str, Any]:
    """Return the report as an object of plain values."""
    from services.sla.core.figures import STEPS

    return {
        "from": made.since.isoformat(),
        "to": made.until.isoformat(),
        "timezone": made.zone,
        "made_at": now.isoformat(),
        "queue": queue or None,
        "by": made.by,
        "total": flat(made.total),
        "groups": [{made.by: name, **flat(figures)} for name, figures in made.groups],
        "days": [
            {
                "day": one.day.isoformat(),
                "opened": one.opened,
                "solved": one.solved,
                "backlog": one.backlog,
                "first_response_within_share": one.kept.share,
            }
            for one in made.days
        ],
        "first_responses_up_to_seconds": dict(
            zip([*map(str, STEPS), "longer"], made.bars, strict=True)
        ),
        "worst": [
            {
                "reference": clock.reference,
                "ticket_id": clock.ticket_id,
                "target": clock.kind,
                "queue": clock.queue,
                "due_at": None if clock.breached_at is None else clock.breached_at.isoformat(),
                "answered_at": None if clock.settled_at is None else clock.settled_at.isoformat(),
            }
            for clock in made.worst
        ],
    }


def _csv(made: "Report") -> str:
    out = io.StringIO()
    total = {made.by: "all", **flat(made.total)}
    writer = csv.DictWriter(out, list(total), lineterminator="\n")
    writer.writeheader()
    for name, figures in made.groups:
        writer.writerow({made.by: name, **flat(figures)})
    writer.writerow(total)
    return out.getvalue()


_COLUMNS: Final = (
    "opened",
    "solved",
    "first median",
    "p90",
    "longest",
    "within",
    "late",
    "solved in",
    "reopen",
    "backlog",
    "oldest",
)


def row_of(figures: "Figures") -> tuple[str, ...]:
    """Return a line of the table, in the order of its columns."""
    first = figures.first_response
    return (
        str(figures.opened),
        str(figures.solved),
        span(first.median),
        span(first.p90),
        span(first.longest),
        percent(figures.first_kept.share),
        str(figures.first_kept.broken),
        span(figures.resolution.median),
        percent(figures.reopen_rate),
        str(figures.backlog),
        span(figures.backlog_oldest),
    )


def span(seconds: float | None) -> str:
    """Return a length in words, or a dash where there is none."""
    from cli.sla_words import length

    return "-" if seconds is None else length(seconds)


def percent(share: float | None) -> str:
    """Return a share as a percentage, or a dash; only all is 100 %, and only nothing is 0 %."""
    if share is None:
        return "-"
    shown = round(share * 100)
    if (shown == 100 and share < 1) or (shown == 0 and share > 0):
        return (
            f"{share:.1%}" if 0.0005 <= share < 0.9995 else ("<0.1%" if share < 0.5 else ">99.9%")
        )
    return f"{shown}%"


def title(made: "Report", queue: str) -> str:
    """Return what a report is of, in words."""
    return days_of(made.since, made.until, made.zone, queue)


def days_of(since: datetime, until: datetime, name: str, queue: str) -> str:
    """Return the days of a stretch [since, until) in words, by the clocks of the zone of that name; the queue where it is of one."""
    from cli.sla_words import day

    zone = ZoneInfo(name)
    first = since.astimezone(zone).date()
    last = (until - timedelta(microseconds=1)).astimezone(zone).date()
    of = f", queue {queue}" if queue else ""
    return f"{day(first)} {first.year} to {day(last)} {last.year} ({name}){of}"


def closing_lines(made: "Report") -> Iterator[str]:
    """Yield what a table's columns do not hold, in sentences."""
    total = made.total
    shares = [f"{part} {percent(total.share_of(part))}" for part in _parts()]
    if any(total.spent_ms):
        yield f"Time to the first response went to: {', '.join(shares)}."
    if total.first_kept.retracted:
        yield f"{total.first_kept.retracted} breaches were taken back: the answer had come in time and was heard of late."
    if total.backlog:
        yield (
            f"Open at the end: {total.backlog}, {total.backlog_unanswered} without a first response;"
            f" half of them older than {span(total.backlog_median)}."
        )
    if total.told:
        yield f"Times published for customers: {total.told}, kept {percent(total.told_share)}."
    if total.contact_ratio is not None:
        yield (
            f"Tickets for each 100 orders: {total.contact_ratio * 100:.1f}"
            f" ({total.ordered_opened} tickets, {total.orders} orders, on the days whose orders are known)."
        )


def table(made: "Report", queue: str) -> list[str]:
    """Return the report as plain lines."""
    rows = [(name, *row_of(figures)) for name, figures in made.groups]
    shown = columns((made.by, *_COLUMNS), rows, ("all", *row_of(made.total)))
    return [title(made, queue), "", *shown, "", *closing_lines(made)]


def columns(
    head: Sequence[str], rows: Sequence[Sequence[str]], total: Sequence[str]
) -> Iterator[str]:
    """Yield a table's lines, the first column to the left and all others to the right, with a rule below head and rows."""
    widths = [max(len(row[i]) for row in (head, *rows, total)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = cells
        right = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        return "  ".join((first.ljust(widths[0]), *right)).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    yield from (line(head), rule, *(line(row) for row in rows), rule, line(total))


def _print(made: "Report", queue: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        for text in table(made, queue):
            typer.echo(text)
        return
    shown = Table(title=title(made, queue), title_justify="left", header_style="bold")
    shown.add_column(made.by)
    for name in _COLUMNS:
        shown.add_column(name, justify="right", style="red" if name == "late" else None)
    for name, figures in made.groups:
        shown.add_row(name, *row_of(figures))
    shown.add_section()
    shown.add_row("all", *row_of(made.total), style="bold")
    console.print(shown)
    for text in closing_lines(made):
        console.print(text, markup=False)


# ------------------------------------------------------------------------------------ orders

orders = typer.Typer(help="How much the shop sold: for the contact ratio.", no_args_is_help=True)


@orders.callback()
def _orders() -> None:
    """How much the shop sold: for the contact ratio."""


@orders.command("import")
def import_orders(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.csv", help="With a head: day,orders[,shop].")
    ],
) -> None:
    """Take in how many orders there were each day. A day that is there already is replaced; one bad line, and nothing is."""
    from cli.environment import common

    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UsageMistake(f"{file}: is not UTF-8; save it as CSV in UTF-8.") from None
    rows = parse_orders(text, str(file))
    asyncio.run(_put_orders(common().dsn, rows))
    days = sorted(day for day, _ in rows)
    typer.echo(
        f"{sum(rows.values())} orders of {len(set(days))} days taken in, {days[0]} to {days[-1]}."
    )


def parse_orders(text: str, name: str) -> dict[tuple[date, str], int]:
    """Return the orders by day and shop.

    Raises:
        UsageMistake: all lines that cannot be used, each with its number, what stood there and what may.
    """
    lines = csv.reader(io.StringIO(text, newline=""))
    head = [cell.strip().lower() for cell in next(lines, [])]
    if head not in (["day", "orders"], ["day", "orders", "shop"]):
        raise UsageMistake(
            f"{name}: line 1: got {','.join(head) or 'nothing'}; the head is day,orders or day,orders,shop."
        )
    rows: dict[tuple[date, str], int] = {}
    wrong: list[str] = []
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        problem = _order_line(cells, len(head), rows)
        if problem:
            wrong.append(f"line {lines.line_num}: {problem}")
    if wrong:
        more = f" … and {len(wrong) - 20} more" if len(wrong) > 20 else ""
        raise UsageMistake(f"{name}: nothing was taken in. {' '.join(wrong[:20])}{more}")
    if not rows:
        raise UsageMistake(f"{name}: has no line below its head.")
    return rows


def _order_line(cells: Sequence[str], width: int, rows: dict[tuple[date, str], int]) -> str:
    """Take in one line; return what is wrong with it, or nothing."""
    if len(cells) != width:
        return f"has {len(cells)} fields; give {width}."
    text, count, shop = cells[0].strip(), cells[1].strip(), cells[2].strip() if width == 3 else ""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return f'day: got {text!r}; give a day such as "2026-11-24".'
    if not (count.isascii() and count.isdigit()) or int(count) > 2_147_483_647:
        return f"orders: got {count!r}; give a whole number, 0 or more."
    if len(shop) > 100:
        return "shop: is longer than 100 characters."
    if (day, shop) in rows:
        return f"day: {text}{f' of {shop}' if shop else ''} stands twice."
    rows[day, shop] = int(count)
    return ""


async def _put_orders(dsn: str, rows: Mapping[tuple[date, str], int]) -> None:
    from services.sla.case_store import put_orders

    async with connected(dsn, "sla") as connection, connection.transaction():
        await put_orders(connection, [(day, shop, n) for (day, shop), n in rows.items()])
