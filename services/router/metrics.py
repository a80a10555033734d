"""The service's series. They count what was decided; the exact figures stand in the tables.

Counters move when a batch's rows are written, moments before its commit. A batch that is decided again because the
commit itself was lost counts twice here, and once in the tables.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from chassis import metrics
from schemas import routing
from schemas.payload import Payload
from schemas.tickets import (
    CommandRefused,
    TicketEscalated,
    TicketMerged,
    TicketOwnerForced,
    TicketPaged,
    TicketReturned,
)
from services.router.core.elsewhere.state import Reason

OUTCOMES: Final = (
    "opened",
    "followed_up",
    "added",
    "reopened",
    "carried",
    "automatic",
    "bounce",
    "outbound",
    "spam",
)
"""What becomes of a customer's message; the last four open no ticket."""

REFUSALS: Final = (
    "ticket_unknown",
    "closed",
    "already_solved",
    "not_assignee",
    "facts_missing",
    "facts_too_large",
    "already_there",
    "queue_unknown",
    "queue_not_technical",
    "nothing_asked",
    "agent_missing",
    "already_delegated",
    "cause_required",
    "cause_unknown",
    "is_spam",
    "merge_chain_too_long",
    "merge_cycle",
    "merge_too_large",
    "merge_unanswered",
    "merge_underway",
    "merged",
    "not_merged",
    "not_resting",
    "not_spam",
    "nothing_to_return",
    "nowhere_to_return",
    "other_customer",
    "owner_forced",
    "priority_unchanged",
    "same_ticket",
    "tag_unknown",
    "tags_too_many",
    "target_closed",
    "target_full",
    "target_merge_underway",
    "target_solved",
    "target_spam",
    "target_unknown",
    "until_past",
    "until_too_far",
    "promise_not_in_the_future",
    "promise_too_far",
    "promise_window_empty",
    "promise_with_solution",
    "promise_window_past",
    "called_in_the_future",
    "called_before_ticket",
)
"""Why a command is refused, without the details that follow the colon."""

ESCALATED_BY: Final = (
    "command",
    "after",
    "on_breach",
    "on_call",
    "on_causes",
    "on_exhausted",
    "on_intents",
    "on_overload",
    "on_reopens",
    "on_risk",
    "on_unanswered",
)
"""What moves a ticket up."""

ROUTING_EVENTS: Final = {
    routing.TicketQueued: "queued",
    routing.OfferMade: "offered",
    routing.TicketAssigned: "assigned",
    routing.TicketRequeued: "requeued",
    routing.OfferAnswerRefused: "answer_refused",
    routing.WorkReleased: "released",
    routing.RequirementRelaxed: "relaxed",
    routing.AssignmentExhausted: "exhausted",
    routing.OfferWithdrawn: "offer_withdrawn",
    routing.TransferRefused: "transfer_refused",
    routing.QueueOverloaded: "overloaded",
}
"""The label of each event of assignment."""

REQUEUE_REASONS: Final = (
    "offer_declined",
    "offer_expired",
    "agent_away",
    "agent_removed",
    "agent_vanished",
    "shift_ended",
)

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
ESCALATED = metrics.counter(
    "signalbox_router_escalations_total",
    "Tickets that went up to technical support, by what moved them: a command, or which rule.",
    {"by": ESCALATED_BY},
)
ESCALATION_LATE_SECONDS = metrics.histogram(
    "signalbox_router_escalation_late_seconds",
    "How late a ticket's age moved it up: what the router was down, or behind.",
    buckets=(0.1, 0.5, 1, 5, 30, 60, 300, 900, 3600),
)
RETURNED = metrics.counter(
    "signalbox_router_returns_total",
    "Tickets given back: a delegated part to its owner, an escalation to the front line. Many of the latter: the front "
    "line and technical support disagree on what is whose.",
    {"what": ("delegation", "escalation")},
)
OWNERS_FORCED = metrics.counter(
    "signalbox_router_owners_forced_total",
    "Tickets that went to and fro between the desks until their owner was fixed. A supervisor should look at each.",
)
PAGED = metrics.counter(
    "signalbox_router_pages_total",
    "Tickets that somebody on call was told of, by the level of the policy.",
    {"on_call": ()},
)
MERGED = metrics.counter(
    "signalbox_router_merges_total", "Tickets that were merged into another one."
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
UNMATCHABLE_NOW = metrics.gauge(
    "signalbox_router_unmatchable_tickets",
    "Tickets that wait and that nobody of the roster could ever take, as of the domain's last decision. "
    "Above 0 for a second is an alarm: it stays so until somebody learns what is asked.",
    {"domain": (), "queue": ()},
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

ELSEWHERE_VENDORS: Final = (
    "zendesk",
    "helpscout",
    "gorgias",
    "hubspot",
    "freshdesk",
    "intercom",
    "slack",
    "trello",
)
"""Who is told elsewhere; the adapters' names."""
ELSEWHERE = metrics.counter(
    "signalbox_router_elsewhere_total",
    "Things that helpdesks, chat tools and boards were to show of tickets, by what became of them: done, unchanged (it was "
    "shown already), failed, superseded by something newer.",
    {"vendor": ELSEWHERE_VENDORS, "outcome": ("done", "unchanged", "failed", "superseded")},
)
ELSEWHERE_FAILED = metrics.counter(
    "signalbox_router_elsewhere_failed_total",
    "The failed ones by reason. unauthorized, forbidden, no_secret: credentials; agent_unmapped, user_unknown: "
    "elsewhere.yaml lacks or misnames an agent; the rest: see docs/elsewhere.md.",
    {"reason": tuple(reason.value for reason in Reason)},
)
ELSEWHERE_SECONDS = metrics.histogram(
    "signalbox_router_elsewhere_seconds",
    "From a vendor's call's start to its end, its reading included, by how it ended.",
    {
        "vendor": ELSEWHERE_VENDORS,
        "result": ("done", "recoverable", "refused", "unknown"),
    },
)


def count_ticket_event(event: Payload) -> None:
    """Count what the stage of tickets told."""
    match event:
        case CommandRefused():
            REFUSED.labels(event.reason.partition(":")[0]).inc()
        case TicketEscalated():
            ESCALATED.labels((event.by_rule or "command").partition(".")[0]).inc()
            if event.due_at is not None:
                ESCALATION_LATE_SECONDS.observe(event.late_seconds)
        case TicketReturned():
            RETURNED.labels(event.what).inc()
        case TicketOwnerForced():
            OWNERS_FORCED.inc()
        case TicketPaged():
            PAGED.labels(event.on_call).inc()
        case TicketMerged():
            MERGED.inc()
        case _:
            pass


def show_on_call(levels: Iterable[str]) -> None:
    """Let the series of each on-call level begin at 0, so that its first page is an increase that an alert sees."""
    for level in levels:
        PAGED.labels(level)


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


def show_domain(
    name: str, waiting: Mapping[str, int], n_available: int, unmatchable: Mapping[str, int]
) -> None:
    """Set the gauges of a domain."""
    AVAILABLE.labels(name).set(n_available)
    for queue, n in waiting.items():
        WAITING.labels(name, queue).set(n)
    for queue, n in unmatchable.items():
        UNMATCHABLE_NOW.labels(name, queue).set(n)
