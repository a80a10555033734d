"""Why now, and why not: what a notice was brought about by, what makes it stale, and the names of all refusals.

Owns the table of what supersedes what. `plan.py` has the rules that refuse, `occasions.py` the events that are occasions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal

from schemas.ids import derive
from schemas.notifications import Category, Occasion
from schemas.tickets import (
    TicketAnswered,
    TicketCalled,
    TicketEscalated,
    TicketOpened,
    TicketPromised,
    TicketReopened,
    TicketSolved,
    TicketStatusChanged,
)

OCCASION_EVENTS = (
    TicketOpened
    | TicketAnswered
    | TicketEscalated
    | TicketSolved
    | TicketReopened
    | TicketStatusChanged
    | TicketPromised
    | TicketCalled
)


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
    EXPIRED = "expired"
    """It came too late to be true or of use: what it says was over before it could go out."""
    OPTED_OUT = "opted_out"
    NO_CONSENT = "no_consent"
    UNDELIVERABLE = "undeliverable"
    """The address is known to be dead: a hard bounce, or a vendor that knows no such person."""
    WINDOW_CLOSED = "window_closed"
    """The vendor lets nobody write so long after the customer's last message, and no approved template stands for it."""
    NOT_IN_PUBLIC = "not_in_public"
    """Everybody would read it, and it has no words for that."""
    ONLY_ANSWER = "only_answer"
    """The customer's message gets one answer there, which is left to a person."""
    CATEGORY_LIMIT = "category_limit"
    ASKED_LATELY = "asked_lately"
    """They were asked how it went not long ago, about this case or another."""
    TOLD_LATELY = "told_lately"
    """They were told not long ago, in this case or another, that a person looks at what made them unhappy."""
    WORKSPACE_LIMIT = "workspace_limit"
    DIGESTED = "digested"
    """It was told in a digest, together with others."""
    DRY_RUN = "dry_run"
    """Notices are rehearsed: all is rendered and recorded, and nothing leaves."""


OPENING: Final = frozenset({"received", "after_hours", "voicemail"})
"""Ways to say that a case has arrived: one opening, one of them."""

TELEPHONE: Final = frozenset({"aircall", "google_voice", "twilio_voice", "voip", "youmail"})
"""Channels by which customers call; a case that opens there is a call that we owe."""

_WAITING: Final = OPENING | {"reopened", "still_on_it", "delayed"}
"""What says that an answer is still to come."""

_AFTERWARDS: Final = frozenset({"next_issue", "check_in", "survey"})
"""What follows a case that is over."""

SUPERSEDES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "received": frozenset(),
        "after_hours": frozenset(),
        "voicemail": frozenset(),
        # It says that the case has arrived, or is open again, and more.
        "escalated": OPENING | {"reopened"},
        # It is for the customer to act now: that we are at it would be no longer so.
        "need_info": _WAITING | {"escalated"},
        "still_on_it": OPENING | {"reopened"},
        "delayed": OPENING | {"reopened", "still_on_it"},
        # A person has spoken; machines have nothing to add to what was before.
        "answered": _WAITING | _AFTERWARDS | {"escalated", "need_info", "solved"},
        "solved": _WAITING
        | _AFTERWARDS
        | {"escalated", "need_info", "callback_booked", "callback_missed"},
        # It is not solved after all, so nothing that follows a solution is due.
        "reopened": _AFTERWARDS | {"solved", "need_info"},
        "outage_known": frozenset(),
        "outage_over": frozenset({"outage_known"}),
        # A later time takes the place of an earlier one.
        "callback_booked": frozenset({"callback_booked", "callback_missed"}),
        "callback_missed": frozenset({"callback_booked", "callback_missed"}),
        "security": frozenset(),
        "next_issue": frozenset(),
        # Whoever was unhappy is not asked cheerfully how it went.
        "recovery": _AFTERWARDS,
        "check_in": frozenset(),
        "survey": frozenset(),
        "digest": frozenset(),
        "help": frozenset(),
        # What happens without a notice of its own:
        # our side answered by the channel's own means, or reached the customer by telephone;
        "answered_elsewhere": _WAITING | _AFTERWARDS | {"escalated", "need_info", "solved"},
        "called": _WAITING | {"escalated", "need_info", "callback_booked", "callback_missed"},
        # the answer had been there in time, and was only heard of late;
        "in_time": frozenset({"delayed"}),
        # the customer wrote, so the conversation is going on;
        "wrote": frozenset({"next_issue", "check_in"}),
        # the case goes on elsewhere, or was none.
        "merged": _WAITING
        | _AFTERWARDS
        | {"escalated", "need_info", "solved", "callback_booked", "callback_missed"},
        "spam": _WAITING
        | _AFTERWARDS
        | {"escalated", "need_info", "solved", "callback_booked", "callback_missed", "recovery"},
    }
)
"""Which notices of a ticket are stale, and dropped if they have not gone out, once this one is due. An answer never is: a
person wrote it. Nor is a security notice."""

FRESH: Final[Mapping[str, timedelta]] = MappingProxyType(
    {
        "received": timedelta(days=1),
        "after_hours": timedelta(days=1),
        "voicemail": timedelta(days=1),
        "escalated": timedelta(days=1),
        "reopened": timedelta(days=1),
        "need_info": timedelta(days=3),
        "still_on_it": timedelta(hours=4),
        "delayed": timedelta(days=1),
        "solved": timedelta(days=3),
        "outage_known": timedelta(hours=12),
        "outage_over": timedelta(days=1),
        "callback_booked": timedelta(days=1),
        "callback_missed": timedelta(days=1),
        "next_issue": timedelta(days=7),
        "recovery": timedelta(days=3),
        "check_in": timedelta(days=7),
        "survey": timedelta(days=3),
        "digest": timedelta(days=3),
        "help": timedelta(days=1),
    }
)
"""How long after it came about a notice may still go out. What an agent wrote and security have no such end."""

CATEGORIES: Final[Mapping[str, Category]] = MappingProxyType(
    {
        "outage_known": "outage",
        "outage_over": "outage",
        "next_issue": "follow_up",
        "recovery": "follow_up",
        "check_in": "follow_up",
        "survey": "follow_up",
        "security": "security",
    }
)


def category_of(occasion: str) -> Category:
    """Return what kind of notice it is, for opting out and for caps: what is about a case of the customer's is `service`."""
    return CATEGORIES.get(occasion, "service")


@dataclass(frozen=True, slots=True)
class Cause:
    """An occasion with what brought it about. The same cause names the same notice, over all retries and replays.

    `tried` are the ways ("provider/account") that have failed for good; `urgency` is for `plan`: `normal`, or `high` where a
    person said that it must not wait for the morning. `is_counted`: it was counted by the caps when it was asked for first, and is
    not held by them again.
    """

    ticket_id: str
    occasion: Occasion
    cause_id: str
    tried: tuple[str, ...] = ()
    urgency: Literal["normal", "high"] = "normal"
    is_counted: bool = False

    @property
    def notice_id(self) -> str:
        """The notice's id: one intent a cause. However an opening is worded, it is one notice."""
        kind = "received" if self.occasion in OPENING else self.occasion
        return derive("notice", self.ticket_id, kind, self.cause_id)

    @property
    def is_automatic(self) -> bool:
        """Whether a machine speaks; an agent's answer is personal."""
        return self.occasion != "answered"

    @property
    def category(self) -> Category:
        """What kind of notice it is."""
        return category_of(self.occasion)


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
        case TicketReopened():
            return Cause(event.ticket_id, "reopened", event.message_id)
        case TicketStatusChanged():
            return Cause(event.ticket_id, "need_info", event.command_id or str(event.version))
        case TicketPromised():
            return Cause(event.ticket_id, "callback_booked", event.command_id)
        case TicketCalled():
            return Cause(event.ticket_id, "callback_missed", event.command_id)
