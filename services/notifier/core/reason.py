"""Why now, and why not: which events are occasions to tell a customer something, and what stands against it."""

from dataclasses import dataclass
from enum import StrEnum

from schemas.ids import derive
from schemas.notifications import Occasion
from schemas.tickets import TicketAnswered, TicketEscalated, TicketOpened, TicketSolved
from services.notifier.core.audience import is_machine, is_ours, mail_address, recipient_key
from services.notifier.core.policy import Policy
from services.notifier.core.state import Conversation
from services.notifier.core.throttle import Recent, is_over_cap, is_over_total

OCCASION_EVENTS = TicketOpened | TicketAnswered | TicketEscalated | TicketSolved


class Suppression(StrEnum):
    """Why someone who could have been told was not."""

    OCCASION_OFF = "occasion_off"
    CHANNEL_UNSUPPORTED = "channel_unsupported"
    NO_ADDRESS = "no_address"
    OWN_ADDRESS = "own_address"
    AUTOMATIC_MESSAGE = "automatic_message"
    TOO_MANY_AUTOMATIC = "too_many_automatic"
    UNVERIFIED_LIMIT = "unverified_limit"
    UNVERIFIED_TOTAL = "unverified_total"
    RECIPIENT_LIMIT = "recipient_limit"
    SUPERSEDED = "superseded"
    CUSTOMER_ERASED = "customer_erased"


SUPERSEDES: dict[str, frozenset[str]] = {
    "received": frozenset(),
    "escalated": frozenset({"received"}),
    "answered": frozenset({"received", "escalated", "solved"}),
    "solved": frozenset({"received", "escalated"}),
    "reopened": frozenset({"solved"}),
}
"""Which notices of a ticket are stale, and dropped if they have not gone out, once this one is due."""


@dataclass(frozen=True, slots=True)
class Cause:
    """An occasion with what brought it about. The same cause names the same notice, over all retries and replays."""

    ticket_id: str
    occasion: Occasion
    cause_id: str

    @property
    def notice_id(self) -> str:
        """The notice's id: one intent a cause."""
        return derive("notice", self.ticket_id, self.occasion, self.cause_id)

    @property
    def is_automatic(self) -> bool:
        """Whether a machine speaks; an agent's answer is personal."""
        return self.occasion != "answered"


def cause_of(event: OCCASION_EVENTS) -> Cause:
    """Return what `event` is an occasion for. An escalation is told once a ticket, however often it happens."""
    match event:
        case TicketOpened():
            return Cause(event.ticket_id, "received", event.message_id)
        case TicketAnswered():
            return Cause(event.ticket_id, "answered", event.command_id)
        case TicketEscalated():
            return Cause(event.ticket_id, "escalated", event.ticket_id)
        case TicketSolved():
            return Cause(event.ticket_id, "solved", event.command_id)


def suppression(
    policy: Policy, workspace: str, state: Conversation, cause: Cause, recent: Recent
) -> Suppression | None:
    """Return the first rule that stands against telling the customer, or None. An agent's answer knows no caps."""
    contact = state.contact
    if cause.occasion in policy.occasions_off:
        return Suppression.OCCASION_OFF
    if contact is not None and contact.channel not in policy.channels:
        return Suppression.CHANNEL_UNSUPPORTED
    address = mail_address(contact)
    if contact is None or address is None:
        return Suppression.NO_ADDRESS
    if is_ours(policy, address):
        return Suppression.OWN_ADDRESS
    if not cause.is_automatic:
        return None
    if is_machine(address):
        return Suppression.AUTOMATIC_MESSAGE
    if state.automatic_since_human >= policy.automatic_between_human:
        return Suppression.TOO_MANY_AUTOMATIC
    if is_over_cap(policy, recent, recipient_key(workspace, address), contact.is_verified):
        return Suppression.RECIPIENT_LIMIT if contact.is_verified else Suppression.UNVERIFIED_LIMIT
    if not contact.is_verified and is_over_total(policy, recent):
        return Suppression.UNVERIFIED_TOTAL
    return None
