"""The forms of `signalbox sla report` and `sla explain`, kept in files: what a team lead and a person on call read.

`make golden` rewrites them; the figures themselves are proved in tests/unit/sla/test_reports.py.
"""

import json
import os
import random
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from cli import sla_clock, sla_report
from cli.sla_report import Format
from hours.calendar import parse_calendar
from schemas import sla
from services.sla.core import figures
from services.sla.core.figures import Case, Clock, Facts, Spent, Told

HERE = Path(__file__).parent
IS_WRITING = os.environ.get("SIGNALBOX_GOLDEN") == "write"
ZONE = ZoneInfo("Europe/Istanbul")
SINCE, UNTIL = sla_report.stretch("2026-11-09", "2026-11-22", ZONE)
SHOP = {
    "timezone": "Europe/Istanbul",
    "hours": {day: [["09:00", "18:00"]] for day in ("mon", "tue", "wed", "thu", "fri")},
}


def agree(name: str, text: str) -> None:
    path = HERE / name
    if IS_WRITING:
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{name} is missing: run `make golden` and read what it writes"
    assert text == path.read_text(encoding="utf-8"), f"{name} differs: run `make golden` and read the diff"


def facts() -> Facts:
    """Two weeks of a shop's desk: late on Monday mornings, and a technical queue that is slower."""
    draw = random.Random(20261109)
    cases, clocks, spent, said = [], [], [], []
    for n in range(420):
        day, hour = draw.randrange(14), min(23, max(0, round(draw.gauss(14, 4))))
        if day % 7 >= 5 and draw.random() < 0.6:
            continue
        opened = SINCE + timedelta(days=day, hours=hour, minutes=draw.randrange(60))
        queue = "technical" if draw.random() < 0.2 else "service"
        channel = draw.choices(["email", "form", "whatsapp"], [5, 2, 3])[0]
        slow = 2.2 if queue == "technical" else 1.0
        slow *= 3.0 if day % 7 == 0 and hour < 12 else 1.0
        wait = min(draw.lognormvariate(7.9, 0.9) * slow, 2.5 * 86_400)
        is_open = draw.random() < 0.03
        answered = opened + timedelta(seconds=wait)
        due = opened + timedelta(hours=4)
        is_late = is_open or wait > 4 * 3_600
        solved = answered + timedelta(hours=draw.expovariate(1 / 9))
        stretches: tuple[tuple[datetime, datetime | None], ...] = ((opened, None if is_open else solved),)
        if not is_open and draw.random() < 0.07:
            stretches = (*stretches, (solved + timedelta(hours=6), solved + timedelta(hours=20)))
        place = (queue, channel, draw.choice([2, 3, 3, 3, 4]))
        cases.append(Case(f"t{n:03}", queue, *place, "open" if is_open else "closed", opened, stretches))
        clocks.append(Clock(
            "first_response", f"t{n:03}", f"SB-{n:04}X", *place, "breached" if is_open else "met", opened,
            None if is_open else answered, due if is_late else None, None if is_open else wait,
        ))  # fmt: skip
        if is_open:
            continue
        clocks.append(Clock(
            "resolution", f"t{n:03}", f"SB-{n:04}X", *place, "met", opened, solved, None,
            (solved - opened).total_seconds() * 0.4,
        ))  # fmt: skip
        whole = round(wait * 1_000)
        closed = round(whole * (0.35 if hour > 17 else 0.1))
        queued = round((whole - closed) * (0.75 if is_late else 0.5))
        offered = (whole - closed - queued) // 4
        work = whole - closed - queued - offered
        spent.append(Spent(*place, answered, (queued, offered, work, 0, closed)))
        said.append(Told(*place, answered, draw.random() < 0.94))
    orders = {date(2026, 11, 9) + timedelta(days=i): 180 + 11 * (i % 5) for i in range(14)}
    return Facts(cases, None, clocks, (), spent, said, orders)


NOW = datetime(2026, 11, 23, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("form", "by", "name"),
    [
        (Format.TABLE, "queue", "sla_report.txt"),
        (Format.CSV, "day", "sla_report.csv"),
        (Format.JSON, "channel", "sla_report.json"),
        (Format.HTML, "queue", "sla_report.html"),
    ],
)
def test_a_report_reads_as_before(form: Format, by: figures.By, name: str) -> None:
    made = figures.report(facts(), SINCE, UNTIL, ZONE, by, NOW)
    agree(name, sla_report.written(made, form, "", NOW))


class Tags(HTMLParser):
    """What a page is made of: tags that are open, and whether each is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_the_page_fetches_nothing_runs_nothing_and_says_what_its_pictures_show() -> None:
    made = figures.report(facts(), SINCE, UNTIL, ZONE, "queue", NOW)
    page = sla_report.written(made, Format.HTML, "", NOW)
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in tags.seen}
    assert not any("src" in attrs or "href" in attrs for _, attrs in tags.seen)
    pictures = [attrs for tag, attrs in tags.seen if tag == "svg"]
    assert len(pictures) == 4
    assert all(one["role"] == "img" and one["aria-label"] for one in pictures)
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_the_page_escapes_whatever_a_queue_is_called() -> None:
    name = "<b>&\"'"
    case = Case("t", name, name, "email", 3, "open", SINCE, ((SINCE, None),))
    clock = Clock("first_response", "t", name, name, "email", 3, "breached", SINCE, None, SINCE, None)
    made = figures.report(Facts([case], clocks=[clock]), SINCE, UNTIL, ZONE, "queue", NOW)
    page = sla_report.written(made, Format.HTML, name, NOW)
    assert "<b>&" not in page
    assert "&lt;b&gt;&amp;" in page


def test_the_life_of_a_clock_is_drawn_as_before() -> None:
    """Started, held to another priority, paused, warned, broken, answered late; beside it one that runs."""
    base = sla.TargetStarted.EXAMPLE | {"target_id": "t-1"}
    other = base | {"target_id": "t-2", "target": "resolution"}

    def at(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=ZONE)

    start = at("2026-11-24T15:00")
    told: list[sla.SlaEvent] = [
        sla.TargetStarted.model_validate(base | {"started_at": start, "due_at": at("2026-11-25T10:00"), "warn_at": None, "seconds": 14_400}),
        sla.TargetStarted.model_validate(other | {"started_at": start, "due_at": at("2026-11-27T15:00"), "warn_at": None, "seconds": 97_200}),
        sla.TargetRetargeted.model_validate(base | {"at": at("2026-11-24T15:30"), "reason": "priority_changed", "before_due_at": at("2026-11-25T10:00"), "due_at": at("2026-11-25T09:00"), "warn_at": None, "started_at": start, "seconds": 10_800}),
        sla.TargetPaused.model_validate(base | {"paused_at": at("2026-11-24T16:00"), "cause": "pending"}),
        sla.TargetResumed.model_validate(base | {"resumed_at": at("2026-11-24T17:30"), "due_at": at("2026-11-25T10:30"), "warn_at": None}),
        sla.TargetAtRisk.model_validate(base | {"at": at("2026-11-25T09:54"), "due_at": at("2026-11-25T10:30")}),
        sla.TargetBreached.model_validate(base | {"breached_at": at("2026-11-25T10:30"), "detected_at": at("2026-11-25T10:30:00.004")}),
        sla.TargetMet.model_validate(base | {"met_at": at("2026-11-25T11:15"), "elapsed_seconds": 13_500, "was_breached": True}),
    ]  # fmt: skip
    calendar = parse_calendar(SHOP)
    lines: list[str] = []
    for life in sla_clock.lives(told, ZONE):
        life.calendar = "shop"
        if life.kind == "first_response":
            life.spent_ms = {
                "queue": 9_000_000, "offer": 600_000, "work": 2_100_000, "pause": 5_400_000, "closed": 54_000_000,
            }  # fmt: skip
        drawn = sla_clock.draw(life, at("2026-11-25T12:00"), ZONE, calendar)
        lines += ["".join(piece.text for piece in line).rstrip() for line in drawn]
        lines.append("")
        json.dumps(sla_clock.as_data(life))
    agree("sla_explain.txt", "\n".join(lines))
