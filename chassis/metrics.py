"""Every series of the chassis, each declared once, and how services declare theirs.

A declaration is data: name, help text for the person on call, labels with their closed sets. `make docs` writes
`docs/metrics.md` from it. Label sets are filled in advance, so a rate exists before the first failure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY = CollectorRegistry()
"""The process' registry; `/metrics` shows it."""

DECLARED: dict[str, "Declaration"] = {}
"""All series by name, for the documentation and the lint of dashboards."""

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(frozen=True, slots=True)
class Declaration:
    """One series: `kind` counter, gauge or histogram; `labels` maps each label to its closed set (empty: open by task)."""

    name: str
    kind: str
    help: str
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)


def _declare(
    kind: str, name: str, text: str, labels: dict[str, Sequence[str]] | None
) -> Declaration:
    if name in DECLARED:
        raise ValueError(f"{name} is declared twice")
    made = Declaration(
        name, kind, text, {key: tuple(values) for key, values in (labels or {}).items()}
    )
    DECLARED[name] = made
    return made


def _fill(metric: Any, labels: dict[str, tuple[str, ...]]) -> None:
    if labels and all(labels.values()):
        for combination in product(*labels.values()):
            metric.labels(*combination)


def counter(name: str, text: str, labels: dict[str, Sequence[str]] | None = None) -> Counter:
    """Declare a counter; its name ends in `_total`."""
    declared = _declare("counter", name, text, labels)
    made = Counter(name.removesuffix("_total"), text, tuple(declared.labels), registry=REGISTRY)
    _fill(made, declared.labels)
    return made


def gauge(name: str, text: str, labels: dict[str, Sequence[str]] | None = None) -> Gauge:
    """Declare a gauge."""
    declared = _declare("gauge", name, text, labels)
    made = Gauge(name, text, tuple(declared.labels), registry=REGISTRY)
    _fill(made, declared.labels)
    return made


def histogram(
    name: str,
    text: str,
    labels: dict[str, Sequence[str]] | None = None,
    buckets: Iterable[float] = LATENCY_BUCKETS,
) -> Histogram:
    """Declare a histogram, in the unit that its name ends in."""
    declared = _declare("histogram", name, text, labels)
    made = Histogram(name, text, tuple(declared.labels), registry=REGISTRY, buckets=tuple(buckets))
    _fill(made, declared.labels)
    return made


def exposition() -> bytes:
    """Return all series in Prometheus' text format."""
    return generate_latest(REGISTRY)


_STAGE: dict[str, Sequence[str]] = {"stage": ()}
_TASK: dict[str, Sequence[str]] = {"stage": (), "task": ()}

RECORDS = counter(
    "signalbox_task_records_total",
    "Records read, by what became of them. read = applied + duplicate + ignored + parked, always.",
    {"stage": (), "outcome": ()},
)
BATCH_SECONDS = histogram(
    "signalbox_task_batch_seconds", "From a batch in hand to its commit.", _STAGE
)
BATCH_RECORDS = histogram(
    "signalbox_task_batch_records",
    "Records in a batch: grows when the service is behind.",
    _STAGE,
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
EPOCH = gauge(
    "signalbox_task_epoch",
    "Epoch of the lease held; a fast rise means owners take it from each other.",
    _TASK,
)
OWNED = gauge(
    "signalbox_task_owned", "1 while this process holds the task's lease and reads for it.", _TASK
)
LOST = counter(
    "signalbox_task_lost_total",
    "Times a task's memory was dropped and its lease acquired again, by reason.",
    {"stage": (), "reason": ()},
)
RETRIED = counter(
    "signalbox_task_retried_total",
    "Times nothing of a batch was stored and it was taken again, whole or in pieces, by reason.",
    {"stage": (), "reason": ()},
)
ACQUIRE_SECONDS = histogram(
    "signalbox_task_acquire_seconds", "From assignment to the first poll.", _STAGE
)
PROBE_REFUSED = counter(
    "signalbox_task_probe_refused_total", "Times Kafka said that a task is not ours.", _STAGE
)
RESEEKS = counter(
    "signalbox_task_reseeks_total",
    "Times records were missing in a poll and were asked for again.",
    _STAGE,
)
HALTED = gauge(
    "signalbox_task_halted",
    "1 where a gap in a sequence stopped the task. Records were lost before it.",
    _TASK,
)
LAG = gauge(
    "signalbox_task_lag_records",
    "Records behind the end of the log, as of the last poll.",
    {"stage": (), "task": (), "topic": ()},
)
APPLIED_SEQUENCE = gauge(
    "signalbox_task_applied_sequence",
    "Last sequence applied of a source; compare with the source's emitted one.",
    {"stage": (), "task": (), "source": (), "topic": ()},
)
EMITTED_SEQUENCE = gauge(
    "signalbox_task_emitted_sequence",
    "Last sequence given out to a topic's partition.",
    {"stage": (), "task": (), "topic": (), "partition": ()},
)
OUTBOX_ROWS = gauge(
    "signalbox_outbox_rows", "Events committed and not yet acknowledged by the broker.", _TASK
)
OUTBOX_AGE = gauge("signalbox_outbox_age_seconds", "Age of the oldest of them.", _TASK)
RELAYED = counter("signalbox_relay_published_total", "Events acknowledged by the broker.", _STAGE)
RELAY_ERRORS = counter(
    "signalbox_relay_errors_total", "Publish failures; each makes a new producer.", _STAGE
)
TIMER_LATENESS = histogram(
    "signalbox_timer_lateness_seconds", "From a timer's due time to its commit.", _STAGE
)
TIMERS_LOADED = gauge(
    "signalbox_timers_loaded", "Timers in memory (those of the next minute).", _TASK
)
REVISITS = counter(
    "signalbox_revisits_total",
    "Keys decided again because the stage's revision (its policy, its calendars) has changed.",
    _STAGE,
)
REVISIT_PENDING = gauge(
    "signalbox_revisit_pending",
    "1 while keys of the task may not have been decided under the present revision.",
    _TASK,
)
PARKED = counter(
    "signalbox_dead_letters_total", "Records set aside, by reason.", {"stage": (), "reason": ()}
)
AFTER_PARKED = counter(
    "signalbox_after_parked_total",
    "Records handled while an earlier one of the same key is parked.",
    _STAGE,
)
CLOCK_SKEW = gauge(
    "signalbox_clock_skew_seconds",
    "This process' clock minus PostgreSQL's, at the last acquisition.",
    _STAGE,
)
EFFECTS = counter(
    "signalbox_effects_total",
    "Effects outside the database, by result.",
    {"stage": (), "status": ()},
)
EFFECTS_OPEN = gauge("signalbox_effects_open", "Effects recorded and not yet settled.", _TASK)
POLICY_RELOADS = counter(
    "signalbox_policy_reloads_total",
    "Policy changes seen, by result; a refused one leaves the old policy in force.",
    {"result": ("accepted", "refused")},
)
POLICY_INFO = gauge(
    "signalbox_policy_info", "1 for the version of the policy in force.", {"version": ()}
)
