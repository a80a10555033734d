"""What the service counts and reports: rows of tickets, series with bounded labels, the figures of a report."""

import math
import random
import statistics
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.utils import floatToGoString

from chassis import metrics as series
from schemas.sla import TargetBreached, TargetMet
from schemas.tickets import (
    TicketClosed,
    TicketMerged,
    TicketOpened,
    TicketReopened,
    TicketSolved,
    TicketStatusChanged,
)
from services.sla import labels, metrics
from services.sla.core import figures
from services.sla.core.cases import Backlog, CaseChange, OpenTargets, change_of, folded
from services.sla.core.figures import Case, Clock, Facts, Kept, Retraction, Spent, Told

REPOSITORY = Path(__file__).parents[3]
NINE = datetime(2026, 11, 24, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def told(kind: type, minutes: float, **fields: object) -> CaseChange:
    at = NINE + minutes * MINUTE
    change = change_of(kind.model_validate(kind.EXAMPLE | {"at": at, "occurred_at": at} | fields))
    assert change is not None
    return change


# ------------------------------------------------------------------------------ a ticket's row


def test_a_case_that_is_solved_reopened_and_solved_was_open_twice() -> None:
    life = [told(TicketSolved, 5), told(TicketReopened, 10), told(TicketSolved, 12)]
    (change,) = folded(life)
    assert change.cut_at == NINE + 5 * MINUTE
    assert change.stretches == ((NINE + 10 * MINUTE, NINE + 12 * MINUTE),)
    assert (change.status, change.solved_at, change.reopened) == ("solved", NINE + 12 * MINUTE, 1)


def test_closing_a_merged_ticket_does_not_make_it_a_closed_one() -> None:
    (change,) = folded([told(TicketMerged, 3), told(TicketClosed, 9)])
    assert change.status == "merged"
    assert change.cut_at == NINE + 3 * MINUTE


def test_spam_ends_a_case_and_its_restoration_begins_it_anew() -> None:
    spam = told(TicketStatusChanged, 1, before="queued", status="spam", reason="spam")
    back = told(TicketStatusChanged, 4, before="spam", status="queued", reason="restored")
    (change,) = folded([spam, back])
    assert change.status == "open"
    assert change.is_unsolved
    assert change.stretches == ((NINE + 4 * MINUTE, None),)


def test_an_opening_in_the_future_counts_as_when_it_was_told() -> None:
    change = told(TicketOpened, 0, occurred_at=NINE + timedelta(days=9))
    assert change.opening is not None
    assert change.opening.opened_at == NINE
    assert not change.is_patch


# --------------------------------------------------------------------------------- series


@pytest.fixture
def policy_names() -> labels.Labels:
    names = labels.Labels(frozenset({"service", "technical"}), frozenset({"email", "form"}))
    metrics.use(names)
    return names


def met(seconds: float, **fields: object) -> TargetMet:
    return TargetMet.model_validate(
        TargetMet.EXAMPLE
        | {"elapsed_seconds": seconds, "queue": "service", "channel": "email", "priority": 3}
        | fields
    )


def samples(name: str) -> dict[tuple[tuple[str, str], ...], float]:
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(series.exposition().decode())
        for sample in family.samples
        if sample.name == name
    }


def test_o5_every_wait_in_prometheus_equals_the_sum_from_the_log_within_a_bucket(
    policy_names: labels.Labels,
) -> None:
    """O5: the sum is the log's; a quantile of the buckets lies in the bucket of the log's own."""
    name = "signalbox_sla_first_response_seconds"
    before = {part: samples(f"{name}_{part}") for part in ("sum", "count", "bucket")}
    draw = random.Random(20261124)
    log = [round(draw.lognormvariate(8, 2), 3) for _ in range(3_000)]
    for seconds in log:
        metrics.count(met(seconds))
    place = (("channel", "email"), ("priority", "3"), ("queue", "service"))

    def grown(part: str, key: tuple[tuple[str, str], ...]) -> float:
        return samples(f"{name}_{part}")[key] - before[part].get(key, 0.0)

    assert grown("count", place) == len(log)
    assert math.isclose(grown("sum", place), math.fsum(log), rel_tol=1e-9)
    bounds = [*metrics.RESPONSE_BUCKETS, math.inf]
    below = []
    for bound in bounds:
        le = floatToGoString(bound)
        below.append(grown("bucket", tuple(sorted((*place, ("le", le))))))
    assert below == [sum(value <= bound for value in log) for bound in bounds]
    for share in (0.5, 0.9, 0.99):
        exact = sorted(log)[math.ceil(share * len(log)) - 1]
        bucket = next(i for i, n in enumerate(below) if n >= share * len(log))
        assert (bounds[bucket - 1] if bucket else 0) < exact <= bounds[bucket]


def test_o5_no_queue_channel_or_ticket_of_anybodys_adds_a_series(
    policy_names: labels.Labels,
) -> None:
    """O5: labels come from the policy; what it does not name is `other`, however much of it there is."""
    metrics.count(met(60, queue="made up", channel="made up", priority=None))
    metrics.count_case("made up", "made up", "opened")
    names = ("signalbox_sla_first_response_seconds_count", "signalbox_sla_targets_total")
    before = [len(samples(name)) for name in (*names, "signalbox_sla_cases_total")]
    for n in range(500):
        metrics.count(met(60, queue=f"q{n}", channel=f"c{n}", ticket_id=f"t{n}", priority=None))
        metrics.count_case(f"q{n}", f"c{n}", "opened")
    assert [len(samples(name)) for name in (*names, "signalbox_sla_cases_total")] == before


def test_a_rate_exists_before_the_first_breach(policy_names: labels.Labels) -> None:
    found = samples("signalbox_sla_targets_total")
    for queue in ("service", "technical", labels.OTHER):
        key = (("outcome", "retracted"), ("queue", queue), ("target", "callback"))
        assert key in found


def test_a_breach_is_counted_with_how_late_it_was_noticed(policy_names: labels.Labels) -> None:
    key = (("outcome", "breached"), ("queue", "technical"), ("target", "first_response"))
    before = samples("signalbox_sla_targets_total")[key]
    metrics.count(TargetBreached.model_validate(TargetBreached.EXAMPLE | {"queue": "technical"}))
    assert samples("signalbox_sla_targets_total")[key] == before + 1


def test_gauges_of_what_is_no_longer_open_go_to_zero(policy_names: labels.Labels) -> None:
    gauges = metrics.OpenGauges()
    one = OpenTargets("service", "resolution", "at_risk", 4, 90.0)
    strangers = [OpenTargets(f"q{n}", "resolution", "running", 1, 10.0 + n) for n in range(3)]
    gauges.show([one, *strangers], [Backlog("service", 90.0, (4, 1, 0, 0, 0, 0, 0))])
    at_risk = (("queue", "service"), ("status", "at_risk"), ("target", "resolution"))
    other = (("queue", "other"), ("status", "running"), ("target", "resolution"))
    assert samples("signalbox_sla_open_targets")[at_risk] == 4
    assert samples("signalbox_sla_open_targets")[other] == 3
    longest = (("queue", "other"), ("target", "resolution"))
    assert samples("signalbox_sla_longest_running_seconds")[longest] == 12.0
    older = (("older_than", "1h"), ("queue", "service"))
    assert samples("signalbox_sla_backlog_tickets")[older] == 1
    gauges.show([], [])
    assert samples("signalbox_sla_open_targets")[at_risk] == 0
    assert samples("signalbox_sla_longest_running_seconds")[longest] == 0
    assert samples("signalbox_sla_backlog_oldest_seconds")[("queue", "service"),] == 0


def test_the_names_are_those_of_the_example_policy() -> None:
    found = labels.read(REPOSITORY / "policy")
    assert {"service", "technical"} <= found.queues
    assert {"email", "form", "kiosk"} <= found.channels
    assert found.queue("nowhere") == labels.OTHER


def test_a_folder_without_the_files_names_nothing(tmp_path: Path) -> None:
    found = labels.read(tmp_path)
    assert found.queue("service") == labels.OTHER


# -------------------------------------------------------------------------------- figures


def dataset() -> Facts:
    """Two weeks of a small desk, seeded: every figure below is worked out again in plain Python."""
    draw = random.Random(7)
    begins = datetime(2026, 11, 9, tzinfo=UTC)
    cases, clocks, retractions, spent, said = [], [], [], [], []
    for n in range(160):
        opened = begins + timedelta(seconds=draw.randrange(14 * 86_400))
        queue = draw.choices(["service", "technical"], [3, 1])[0]
        channel, priority = draw.choice(["email", "form"]), draw.choice([1, 2, 3, 4])
        wait = draw.lognormvariate(8, 1.2)
        answered = opened + timedelta(seconds=wait)
        solved = answered + timedelta(seconds=draw.lognormvariate(10, 1))
        stretches: list[tuple[datetime, datetime | None]] = [(opened, solved)]
        if draw.random() < 0.1:
            stretches = [(opened, solved), (solved + timedelta(hours=5), None)]
        if draw.random() < 0.08:
            stretches = [(opened, None)]
        cases.append(
            Case(f"t{n:03}", "service", queue, channel, priority, "open", opened, tuple(stretches))
        )
        due = opened + timedelta(seconds=4 * 3_600)
        is_unanswered = draw.random() < 0.06
        is_late = is_unanswered or wait > 4 * 3_600
        clocks.append(
            Clock(
                "first_response",
                f"t{n:03}",
                f"SB-{n:03}",
                queue,
                channel,
                priority,
                "breached" if is_unanswered else "met",
                opened,
                None if is_unanswered else answered,
                due if is_late else None,
                None if is_unanswered else wait,
            )
        )
        if not is_unanswered:
            whole = round(wait * 1_000)
            parts = sorted(draw.sample(range(1, whole), 4))
            ms = tuple(b - a for a, b in zip([0, *parts], [*parts, whole], strict=True))
            spent.append(Spent(queue, channel, priority, answered, ms))
            said.append(Told(queue, channel, priority, answered, draw.random() < 0.93))
        if draw.random() < 0.03:
            retractions.append(Retraction(queue, channel, priority, due))
    orders = {date(2026, 11, 9) + timedelta(days=i): 100 + i for i in range(10)}
    return Facts(cases, None, clocks, retractions, spent, said, orders)


SINCE = datetime(2026, 11, 10, tzinfo=UTC)
UNTIL = datetime(2026, 11, 21, tzinfo=UTC)
ZONE = ZoneInfo("UTC")


def test_the_figures_are_those_of_a_plain_computation() -> None:
    facts = dataset()
    total = figures.report(facts, SINCE, UNTIL, ZONE, "queue", UNTIL).total

    def inside(at: datetime | None) -> bool:
        return at is not None and SINCE <= at < UNTIL

    waits = sorted(
        c.elapsed for c in facts.clocks if c.elapsed is not None and inside(c.settled_at)
    )
    assert total.first_response.n == len(waits)
    assert total.first_response.average == pytest.approx(statistics.fmean(waits))
    assert total.first_response.median == waits[math.ceil(len(waits) / 2) - 1]
    assert total.first_response.p90 == waits[math.ceil(len(waits) * 0.9) - 1]
    assert total.first_response.longest == waits[-1]
    broken = [c for c in facts.clocks if inside(c.breached_at)]
    kept = [c for c in facts.clocks if c.breached_at is None and inside(c.settled_at)]
    assert (total.first_kept.kept, total.first_kept.broken) == (len(kept), len(broken))
    assert total.first_kept.share == len(kept) / (len(kept) + len(broken))
    assert total.first_kept.retracted == len([r for r in facts.retractions if inside(r.at)])
    assert total.opened == len([c for c in facts.cases if inside(c.opened_at)])
    ends = [end for c in facts.cases for _, end in c.stretches if inside(end)]
    again = [begin for c in facts.cases for begin, _ in c.stretches[1:] if inside(begin)]
    assert (total.solved, total.reopened) == (len(ends), len(again))
    assert total.reopen_rate == len(again) / len(ends)
    left = [
        c
        for c in facts.cases
        if any(b < UNTIL and (e is None or e >= UNTIL) for b, e in c.stretches)
    ]
    assert total.backlog == len(left)
    assert total.backlog_oldest == max((UNTIL - c.opened_at).total_seconds() for c in left)
    spent = [one.ms for one in facts.spent if inside(one.at)]
    assert total.spent_ms == tuple(map(sum, zip(*spent, strict=True)))
    assert sum(total.share_of(part) or 0 for part in figures.PARTS) == pytest.approx(1)
    said = [one.is_kept for one in facts.told if inside(one.at)]
    assert total.told_share == sum(said) / len(said)
    days = {day for day in facts.orders if SINCE.date() <= day < UNTIL.date()}
    asked = [c for c in facts.cases if c.opened_at.date() in days]
    assert total.contact_ratio == len(asked) / sum(facts.orders[day] for day in days)


@pytest.mark.parametrize("by", ["queue", "channel", "priority", "day"])
def test_groups_add_up_to_the_whole(by: figures.By) -> None:
    made = figures.report(dataset(), SINCE, UNTIL, ZONE, by, UNTIL)
    groups = [one for _, one in made.groups]
    assert sum(one.opened for one in groups) == made.total.opened
    assert sum(one.solved for one in groups) == made.total.solved
    assert sum(one.first_kept.broken for one in groups) == made.total.first_kept.broken
    assert sum(one.first_response.n for one in groups) == made.total.first_response.n
    if by != "day":
        assert sum(one.backlog for one in groups) == made.total.backlog
    assert sum(day.opened for day in made.days) == made.total.opened
    assert sum(day.solved for day in made.days) == made.total.solved
    assert made.days[-1].backlog == made.total.backlog
    assert sum(made.bars) == made.total.first_response.n
    late = sum((kept.broken for kept in made.hours.values()), 0)
    assert late == made.total.first_kept.broken


def test_a_day_is_the_zones_also_when_the_clock_is_put_back() -> None:
    """In Berlin 25 October 2026 has 25 hours: what is opened in each of them is of that day."""
    zone = ZoneInfo("Europe/Berlin")
    since = datetime(2026, 10, 24, 22, tzinfo=UTC)
    cases = [
        Case(str(n), "q", "q", "email", 3, "open", since + n * timedelta(hours=1), ())
        for n in range(26)
    ]
    until = datetime(2026, 10, 26, 23, tzinfo=UTC)
    made = figures.report(Facts(cases), since, until, zone, "day", until)
    assert [(one.day.day, one.opened) for one in made.days] == [(25, 25), (26, 1)]


def test_an_empty_stretch_has_no_averages_and_no_division() -> None:
    made = figures.report(Facts(), SINCE, UNTIL, ZONE, "queue", UNTIL)
    assert made.total.first_response == figures.Waits()
    assert made.total.first_kept == Kept()
    assert made.total.reopen_rate is None
    assert made.total.contact_ratio is None
    assert made.groups == ()


def test_what_is_not_over_is_looked_at_now() -> None:
    """A report of a month that is not over tells the backlog of today."""
    case = Case("t", "q", "q", "email", 3, "open", SINCE, ((SINCE, None),))
    now = SINCE + timedelta(hours=3)
    made = figures.report(Facts([case]), SINCE, UNTIL, ZONE, "queue", now)
    assert made.total.backlog_oldest == 3 * 3_600
    assert [one.day for one in made.days] == [SINCE.date()]
