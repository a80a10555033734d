"""The service's series. They count what was decided; the exact figures stand in the tables.

Counters move when a batch's rows are written, moments before its commit. A batch that is decided again because the
commit itself was lost counts twice here, and once in the tables.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from chassis import metrics
from schemas import routing
from schemas.payload import Payload
from schemas.tickets import CommandRefused

OUTCOMES: Final = (
    "opened",
    "followed_up",
    "added",
    "reopened",
    "automatic",
    "bounce",
    "outbound",
)
"""What becomes of a customer's message; the last three open no ticket."""

REFUSALS: Final = (
    "ticket_unknown",
    "closed",
    "already_solved",
    "not_assignee",
    "facts_missing",
    "already_there",
    "queue_unknown",
    "queue_not_technical",
    "nothing_asked",
)
"""Why a command is refused, without the details that follow the colon."""

ROUTING_EVENTS: Final = {
    routing.TicketQueued: "queued",
    routing.OfferMade: "offered",
    routing.TicketAssigned: "assigned",
    routing.TicketRequeued: "requeued",
    routing.OfferAnswerRefused: "answer_refused",
    routing.WorkReleased: "released",
    routing.RequirementRelaxed: "relaxed",
    routing.AssignmentExhausted: "exhausted",
}
"""The label of each event of assignment."""

REQUEUE_REASONS: Final = ("offer_declined", "offer_expired", "agent_away", "agent_removed")

MESSAGES = metrics.counter(
    "signalbox_router_messages_total",
    "Customers' messages by what became of them. Their sum is what the router read of `messages`.",
    {"outcome": OUTCOMES},
)
REFUSED = metrics.counter(
    "signalbox_router_commands_refused_total",
    "Commands that did not fit, by reason. Many `not_assignee`: a tool shows agents old tickets.",
    {"reason": REFUSALS},
)
ROUTED = metrics.counter(
    "signalbox_router_routing_events_total",
    "What assignment told. Offers that rise without assignments: nobody accepts.",
    {"event": tuple(ROUTING_EVENTS.values())},
)
REQUEUED = metrics.counter(
    "signalbox_router_requeued_total",
    "Tickets that went back to their queue, by why.",
    {"reason": REQUEUE_REASONS},
)
UNMATCHABLE = metrics.counter(
    "signalbox_router_unmatchable_total",
    "Tickets that nobody of the roster could ever take, as told. Any increase wants a look at the "
    "skills, languages and queues of the roster: such a ticket waits for ever.",
)
WAIT_SECONDS = metrics.histogram(
    "signalbox_router_wait_seconds",
    "From the ticket's entry (or the customer's last reply) to an offer.",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400),
)
WAITING = metrics.gauge(
    "signalbox_router_waiting_tickets",
    "Tickets that wait for someone, as of the domain's last decision.",
    {"domain": (), "queue": ()},
)
AVAILABLE = metrics.gauge(
    "signalbox_router_available_agents",
    "Agents who take work, as of the domain's last decision. 0 with tickets waiting: nobody is there.",
    {"domain": ()},
)


def count_ticket_event(event: Payload) -> None:
    """Count what the stage of tickets told."""
    if isinstance(event, CommandRefused):
        REFUSED.labels(event.reason.partition(":")[0]).inc()


def count_routing_events(events: Iterable[routing.RoutingEvent]) -> None:
    """Count what assignment told."""
    for event in events:
        ROUTED.labels(ROUTING_EVENTS[type(event)]).inc()
        match event:
            case routing.TicketRequeued():
                REQUEUED.labels(event.reason).inc()
            case routing.TicketQueued(is_matchable=False):
                UNMATCHABLE.inc()
            case routing.OfferMade():
                WAIT_SECONDS.observe(event.waited_seconds)
            case _:
                pass


def show_domain(name: str, waiting: Mapping[str, int], n_available: int) -> None:
    """Set the gauges of a domain."""
    AVAILABLE.labels(name).set(n_available)
    for queue, n in waiting.items():
        WAITING.labels(name, queue).set(n)
