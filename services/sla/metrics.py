"""The service's series. They count what was told; the exact figures stand in the tables.

Counters move when a batch's rows are written, moments before its commit. A batch that is decided
again because the commit itself was lost counts twice here, and once in the tables.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import product
from typing import Final, get_args

from prometheus_client import Gauge

from chassis import metrics
from schemas.sla import (
    BreachRetracted,
    SlaEvent,
    TargetAtRisk,
    TargetBreached,
    TargetCancelled,
    TargetMet,
    TargetPaused,
    TargetResumed,
    TargetRetargeted,
    TargetStarted,
)
from services.sla.core.book import Remark
from services.sla.core.cases import AGES, Backlog, OpenTargets
from services.sla.core.feeds import FailureReason
from services.sla.core.policy import PRIORITIES
from services.sla.core.state import KINDS
from services.sla.labels import OTHER, Labels

OUTCOMES: Final = {
    TargetStarted: "started",
    TargetPaused: "paused",
    TargetResumed: "resumed",
    TargetRetargeted: "retargeted",
    TargetAtRisk: "at_risk",
    TargetBreached: "breached",
    TargetMet: "met",
    TargetCancelled: "cancelled",
    BreachRetracted: "retracted",
}
"""The label of each event."""

OPEN_STATUSES: Final = ("running", "at_risk", "paused", "breached")
"""What an open target can be: one at risk runs and was warned of, a breached one is still to be answered."""

CASES: Final = ("opened", "solved", "reopened", "closed", "escalated")
"""What is counted of tickets."""

RESPONSE_BUCKETS: Final = (
    60, 300, 900, 1_800, 3_600, 7_200, 14_400, 28_800,
    86_400, 2 * 86_400, 3 * 86_400, 5 * 86_400, 7 * 86_400, 14 * 86_400,
)  # fmt: skip
"""A minute to two weeks of open time, at the lengths that companies promise."""

TARGETS = metrics.counter(
    "signalbox_sla_targets_total",
    "Changes of SLA targets, by kind and the queue of the ticket. Breaches that stand are breached minus"
    " retracted; met is met in time, met_late after the deadline.",
    {"target": (), "queue": (), "outcome": ()},
)
FIRST_RESPONSE_SECONDS = metrics.histogram(
    "signalbox_sla_first_response_seconds",
    "Open, unpaused time from the opening message to the first answer: what the promise counts. A night between"
    " is not in it.",
    {"queue": (), "channel": (), "priority": ()},
    buckets=RESPONSE_BUCKETS,
)
CASES_TOTAL = metrics.counter(
    "signalbox_sla_cases_total",
    "Tickets opened, solved, reopened, closed, escalated, by the queue they then stood in (escalated: went to).",
    {"queue": (), "channel": (), "what": ()},
)
DETECTION_SECONDS = metrics.histogram(
    "signalbox_sla_breach_detection_seconds",
    "From a deadline to our noticing that it was missed. High after a standstill of the service;"
    " the breach itself is dated at the deadline.",
    {"target": KINDS},
)
_DETECTION: Final = {kind: DETECTION_SECONDS.labels(kind) for kind in KINDS}
OPEN_TARGETS = metrics.gauge(
    "signalbox_sla_open_targets",
    "Targets to be kept in the whole installation, as of the last look at the table: every process"
    " shows the same figure, so take the maximum over processes, not the sum.",
    {"queue": (), "target": (), "status": ()},
)
LONGEST_RUNNING = metrics.gauge(
    "signalbox_sla_longest_running_seconds",
    "Age of the oldest open target, by the clock on the wall; 0 where none is open. Take the maximum over"
    " processes.",
    {"queue": (), "target": ()},
)
BACKLOG = metrics.gauge(
    "signalbox_sla_backlog_tickets",
    "Open tickets older than so long (0: all of them), by the clock on the wall. Take the maximum over processes.",
    {"queue": (), "older_than": ()},
)
BACKLOG_OLDEST = metrics.gauge(
    "signalbox_sla_backlog_oldest_seconds",
    "Age of the oldest open ticket; 0 where none is open. Take the maximum over processes.",
    {"queue": ()},
)
CONTACT_RATIO = metrics.gauge(
    "signalbox_sla_contact_ratio",
    "Tickets opened for each order, over those of the last 28 days (UTC) whose orders were imported. Not a number"
    " where none were.",
)
GAUGES_AT = metrics.gauge(
    "signalbox_sla_gauges_at_seconds",
    "When the tables were last looked at for the gauges above, in seconds after 1970. One that stands still"
    " shows old figures.",
)
REMARKS = metrics.counter(
    "signalbox_sla_remarks_total",
    "Decisions with something a person should look at: an instant in the future, a policy or a"
    " calendar that sla.yaml no longer knows.",
    {"remark": tuple(remark.value for remark in Remark)},
)


_labels = Labels()
"""The names that series may have, as of the policy read last."""


def use(labels: Labels) -> None:
    """Take over the policy's names, and let every series of theirs exist at 0: a rate needs a start."""
    global _labels
    _labels = labels
    for queue in (*sorted(labels.queues), OTHER):
        for kind, outcome in product(KINDS, (*OUTCOMES.values(), "met_late")):
            TARGETS.labels(kind, queue, outcome)
        for kept in ("yes", "no"):
            PROMISES.labels(queue, kept)


def labels() -> Labels:
    """The names that series may have now."""
    return _labels


FEED_AGE = metrics.gauge(
    "signalbox_sla_calendar_feed_age_seconds",
    "Since a calendar's feed last gave what we work by, unchanged or new. Grows while its address is silent or"
    " unreadable; +Inf: there has been no good answer yet, and the calendar works without.",
    {"feed": ()},
)
FEED_FAILURES = metrics.counter(
    "signalbox_sla_calendar_feed_failures_total",
    "Times a calendar's feed was not taken, by reason; the last good one is kept.",
    {"feed": (), "reason": get_args(FailureReason)},
)


PROMISES = metrics.counter(
    "signalbox_sla_promises_total",
    "Promises of a first answer that were published, by whether they were kept. One that passed unanswered counts"
    " as no; an answer in time that is heard of late counts as yes besides.",
    {"queue": (), "kept": ("yes", "no")},
)
PROMISE_KEPT_SHARE = metrics.gauge(
    "signalbox_sla_promise_kept_share",
    "Share of the latest promises (400 a queue at most, those of quiet queues too) that were kept; between 0.9 and 0.97 is right where 0.9 is"
    " promised. Not a number where there were none. Take the minimum over processes.",
    {"queue": ()},
)
PROMISE_FACTOR = metrics.gauge(
    "signalbox_sla_promise_factor",
    "What measured waits are multiplied by before they are promised, as past promises have taught; 1 where they are right."
    " Below 1 it takes back what tickets ahead add, and no more.",
    {"queue": ()},
)
ESTIMATES_AT = metrics.gauge(
    "signalbox_sla_estimates_at_seconds",
    "When the estimates of waits were last brought up to date, in seconds after 1970. One that stands still: promises are"
    " made from old figures.",
)


PAGE_OUTCOMES: Final = ("delivered", "failed", "unknown", "refused")
"""How an attempt to tell a receiver can end; after `failed` and `unknown` it is made again."""

PAGES = metrics.counter(
    "signalbox_sla_pages_total",
    "Attempts to tell a receiver of pages.yaml. failed and unknown (no answer: it may have arrived) are tried again;"
    " refused is not, until a person has put it right: see the log line page_refused.",
    {"receiver": (), "outcome": PAGE_OUTCOMES},
)
PAGE_DELAY_SECONDS = metrics.histogram(
    "signalbox_sla_page_delay_seconds",
    "From when the sender heard of a change to when the receiver was told, group_wait and group_interval included.",
    {"receiver": ()},
    buckets=(1, 5, 15, 30, 45, 60, 120, 300, 600, 1_800, 3_600),
)
PAGE_OLDEST_SECONDS = metrics.gauge(
    "signalbox_sla_page_undelivered_seconds",
    "Age of the oldest news that attempts to tell a receiver have failed for; 0 where there is none. Only the process"
    " that sends knows: take the maximum over processes.",
    {"receiver": ()},
)
PAGE_UNREAD_SECONDS = metrics.gauge(
    "signalbox_sla_page_unread_seconds",
    "Age of the oldest alert that no process has taken up to send; 0 where there is none. Every process shows it, also"
    " while none sends: take the maximum over processes.",
)

_receivers: set[str] = set()
"""Those that the series of pages have."""


def use_receivers(names: Iterable[str]) -> None:
    """Let every series of these receivers exist at 0, since a rate needs a start, and forget those of all others."""
    known = set(names)
    for gone in _receivers - known:
        for outcome in PAGE_OUTCOMES:
            PAGES.remove(gone, outcome)
        PAGE_DELAY_SECONDS.remove(gone)
        PAGE_OLDEST_SECONDS.remove(gone)
    for name in sorted(known - _receivers):
        for outcome in PAGE_OUTCOMES:
            PAGES.labels(name, outcome)
        PAGE_DELAY_SECONDS.labels(name)
        PAGE_OLDEST_SECONDS.labels(name)
    _receivers.clear()
    _receivers.update(known)


def show_unread(oldest: datetime | None, now: datetime) -> None:
    """Set how long the oldest change of an alert has waited for a sender."""
    age = 0.0 if oldest is None else (now - oldest).total_seconds()
    PAGE_UNREAD_SECONDS.set(max(0.0, age))


def count_all(events: Iterable[SlaEvent]) -> None:
    """Count what a batch has told: events that are counted alike once, by their number."""
    alike: Counter[tuple[str, str, str]] = Counter()
    for event in events:
        alike[_counted(event)] += 1
    for labelled, n in alike.items():
        TARGETS.labels(*labelled).inc(n)


def count(event: SlaEvent) -> None:
    """Count one event that was told."""
    count_all((event,))


def _counted(event: SlaEvent) -> tuple[str, str, str]:
    """Observe what an event says of durations, and return the labels that it is counted by."""
    outcome = OUTCOMES[type(event)]
    queue = _labels.queue(event.queue)
    if isinstance(event, TargetMet):
        if event.was_breached:
            outcome = "met_late"
        if event.target == "first_response":
            channel, priority = _labels.channel(event.channel), _priority(event.priority)
            FIRST_RESPONSE_SECONDS.labels(queue, channel, priority).observe(event.elapsed_seconds)
    elif isinstance(event, TargetBreached):
        lag = event.detected_at - event.breached_at
        _DETECTION[event.target].observe(lag.total_seconds())
    return event.target, queue, outcome


def _priority(given: int | None) -> str:
    return str(given) if given in PRIORITIES else OTHER


def count_case(queue: str, channel: str, what: str, n: int = 1) -> None:
    """Count `n` tickets that were `what` (one of `CASES`)."""
    CASES_TOTAL.labels(_labels.queue(queue), _labels.channel(channel), what).inc(n)


def count_promise(queue: str, *, is_kept: bool) -> None:
    """Count a promise whose end is known."""
    PROMISES.labels(_labels.queue(queue), "yes" if is_kept else "no").inc()


def show_estimates(kept: Mapping[str, tuple[int, int, float]], at: datetime) -> None:
    """Set the gauges of the estimates: by queue the promises kept, their number, and the factor.

    Queues outside the policy are one: their promises together, and the largest of their factors.
    """
    sums: dict[str, tuple[int, int, float]] = dict.fromkeys((*_labels.queues, OTHER), (0, 0, 1.0))
    first = set(sums)
    for queue, (n_kept, n, factor) in kept.items():
        label = _labels.queue(queue)
        before = sums[label]
        largest = factor if label in first else max(before[2], factor)
        first.discard(label)
        sums[label] = (before[0] + n_kept, before[1] + n, largest)
    for label, (n_kept, n, factor) in sums.items():
        PROMISE_KEPT_SHARE.labels(label).set(n_kept / n if n else math.nan)
        PROMISE_FACTOR.labels(label).set(factor)
    ESTIMATES_AT.set(at.timestamp())


class OpenGauges:
    """The gauges of what is open. What one look no longer finds is set to 0, not left as it was."""

    def __init__(self) -> None:
        self._shown: dict[Gauge, set[tuple[str, ...]]] = {}

    def show(self, targets: Iterable[OpenTargets], backlog: Iterable[Backlog]) -> None:
        """Set the gauges to what was found, queues outside the policy together as `other`."""
        open_now: Counter[tuple[str, ...]] = Counter()
        longest: dict[tuple[str, ...], float] = {}
        older: Counter[tuple[str, ...]] = Counter()
        oldest: dict[tuple[str, ...], float] = {}
        for queue in (*_labels.queues, OTHER):
            open_now.update({(queue, kind, status): 0 for kind, status in _OPEN_PAIRS})
            older.update({(queue, age): 0 for age in AGES})
        for found in targets:
            queue = _labels.queue(found.queue)
            open_now[queue, found.kind, found.status] += found.n
            key = (queue, found.kind)
            longest[key] = max(longest.get(key, 0.0), found.longest)
        for line in backlog:
            queue = _labels.queue(line.queue)
            for age, n in zip(AGES, line.older, strict=True):
                older[queue, age] += n
            oldest[queue,] = max(oldest.get((queue,), 0.0), line.oldest)
        self._set(OPEN_TARGETS, open_now)
        self._set(LONGEST_RUNNING, longest)
        self._set(BACKLOG, older)
        self._set(BACKLOG_OLDEST, oldest)
        GAUGES_AT.set_to_current_time()

    def _set(self, gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> None:
        shown = self._shown.setdefault(gauge, set())
        for key in shown - values.keys():
            gauge.labels(*key).set(0)
        for key, value in values.items():
            gauge.labels(*key).set(value)
        shown.update(values)


def show_contacts(found: tuple[int, int] | None) -> None:
    """Set the contact ratio from tickets and orders."""
    CONTACT_RATIO.set(math.nan if found is None else found[0] / found[1])


_OPEN_PAIRS: Final = tuple(product(KINDS, OPEN_STATUSES))
