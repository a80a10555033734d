"""The service's series. They count what was told; the exact figures stand in the tables.

Counters move when a batch's rows are written, moments before its commit. A batch that is decided
again because the commit itself was lost counts twice here, and once in the tables.
"""

from typing import Final

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
from services.sla.core.decide import Remark
from services.sla.core.state import KINDS

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

OPEN_STATUSES: Final = ("running", "paused", "breached")
"""What an open target can be; a breached one is still to be answered."""

TARGETS = metrics.counter(
    "signalbox_sla_targets_total",
    "Changes of SLA targets, by kind. Breaches that stand are breached minus retracted;"
    " met_late is met after the deadline.",
    {"target": KINDS, "outcome": (*OUTCOMES.values(), "met_late")},
)
DETECTION_SECONDS = metrics.histogram(
    "signalbox_sla_breach_detection_seconds",
    "From a deadline to our noticing that it was missed. High after a standstill of the service;"
    " the breach itself is dated at the deadline.",
    {"target": KINDS},
)
OPEN_TARGETS = metrics.gauge(
    "signalbox_sla_open_targets",
    "Targets to be kept in the whole installation, as of the last look at the table: every process"
    " shows the same figure, so take the maximum over processes, not the sum.",
    {"target": KINDS, "status": OPEN_STATUSES},
)
REMARKS = metrics.counter(
    "signalbox_sla_remarks_total",
    "Decisions with something a person should look at: an instant in the future, a policy or a"
    " calendar that sla.yaml no longer knows.",
    {"remark": tuple(remark.value for remark in Remark)},
)


def count(event: SlaEvent) -> None:
    """Count one event that was told."""
    outcome = OUTCOMES[type(event)]
    if isinstance(event, TargetMet) and event.was_breached:
        outcome = "met_late"
    TARGETS.labels(event.target, outcome).inc()
    if isinstance(event, TargetBreached):
        lag = event.detected_at - event.breached_at
        DETECTION_SECONDS.labels(event.target).observe(lag.total_seconds())
