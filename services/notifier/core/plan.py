"""Whether a notice goes now, by which way and to which address; or later, and when; or not at all, and why.

Owns the order of the rules. What may go at all comes first, then how it can go, then what the recipient wants, then how much is
too much, and last of all when.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from services.notifier.core.audience import (
    is_machine,
    is_ours,
    language_of,
    mail_address,
    phone_number,
)
from services.notifier.core.consent import PHONE_CHANNELS
from services.notifier.core.known import Known, dead_name
from services.notifier.core.policy import (
    MAIL,
    MAIL_FALL_BACK,
    PHONE_PROVIDERS,
    ApprovedTemplate,
    Policy,
)
from services.notifier.core.post import ANY_CHANNEL, Form, Traits
from services.notifier.core.quiet import next_at, quiet_until, spread_end, zones_of
from services.notifier.core.reason import Cause, Suppression
from services.notifier.core.state import Contact, Conversation
from services.notifier.core.throttle import over_cap

__all__ = ["MAIL", "Go", "Later", "Plan", "Refused", "Route", "plan", "recipients"]

WAYS_MAX: Final = 2
"""The customer's own channel, and one fall-back."""

WINDOW_MARGIN: Final = timedelta(minutes=5)
"""A vendor's window is taken to close this much earlier: a message takes its time, and the vendor's clock is its own."""

CONSOLED_WITHIN: Final = timedelta(days=7)
"""Several low ratings of one customer within so long are one unhappiness: that a person looks at it is said once."""

CALLS: Final = frozenset({"twilio_voice"})
"""Providers that ring somebody up: for what a person said only."""

QUIET: Final = "quiet_hours"
DIGEST: Final = "digest"

_OWN_MAIL: Final = Traits(channels=frozenset(), form="mail", addressing="address")


@dataclass(frozen=True, slots=True)
class Route:
    """A way to the customer: the provider and the account (the channel's own name of it for our mail), and the address there.

    `to` is a mail address, a telephone number in E.164 or the vendor's id of the person; empty where a thread alone is
    addressed. `recipient` names them in events, counts and tables: `to` for mail and telephone, with the account in front of
    a vendor's id or thread, since two vendors may have the same. `form` is what the provider carries. `template` goes in the
    place of the words, where the vendor's window is over.
    """

    provider: str
    account: str
    to: str
    form: Form
    recipient: str
    is_public: bool = False
    template: ApprovedTemplate | None = None

    @property
    def way(self) -> str:
        """The name that `Cause.tried` has of it."""
        return f"{self.provider}/{self.account}"


@dataclass(frozen=True, slots=True)
class Go:
    """Tell them now, by `route`."""

    route: Route


@dataclass(frozen=True, slots=True)
class Later:
    """Ask again at `until`; `reason` is `quiet_hours` or `digest`. What waited for a digest is gathered with what else did."""

    until: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Do not tell them."""

    reason: Suppression


Plan = Go | Later | Refused


def plan(
    policy: Policy,
    known: Known,
    conversation: Conversation,
    cause: Cause,
    now: datetime,
    *,
    is_gathered: bool = False,
) -> Plan:
    """Return what is to be done with a notice. Same input, same output.

    `is_gathered`: the notice has waited for the digest's hour already, and does not wait for another.
    """
    if cause.occasion in policy.occasions_off:
        return Refused(Suppression.OCCASION_OFF)
    contact = conversation.contact
    if contact is None:
        return Refused(Suppression.NO_ADDRESS)
    route = _route(policy, known, conversation, contact, cause, now)
    if isinstance(route, Suppression):
        return Refused(route)
    refused = _held_back(policy, known, conversation, contact, cause, route, now)
    if refused is not None:
        return Refused(refused)
    gathered_at = None if is_gathered else _digest_at(policy, contact, cause, now)
    until = _quiet_until(policy, conversation, contact, cause, route, gathered_at or now)
    if gathered_at is not None:
        return Later(until or gathered_at, DIGEST)
    if until is not None:
        # What has waited for the digest goes with it still, should the hour be quiet where the customer is.
        return Later(until, DIGEST if is_gathered else QUIET)
    return Go(route)


def recipients(
    policy: Policy, contact: Contact, thread: str = "", answers: str = ""
) -> tuple[str, ...]:
    """Return what names the contact by each way to them: what has to be known of them before `plan` is asked."""
    conversation = Conversation(contact=contact, thread=thread, answers=answers)
    places = [_place(policy, conversation, contact, way) for way in _ways(policy, contact)]
    return tuple(dict.fromkeys(one[1] for one in places if not isinstance(one, Suppression)))


# --------------------------------------------------------------------------------------- by which way


@dataclass(frozen=True, slots=True)
class _Way:
    """A provider's account, before it is known whether anything can be told by it. `is_own`: the customer writes there."""

    provider: str
    account: str
    traits: Traits
    is_own: bool


def _ways(policy: Policy, contact: Contact) -> Iterator[_Way]:
    """Yield the customer's own channel and account, then the fall-backs in the policy's order, each once."""
    seen = set()
    for way in (
        _own_way(policy, contact),
        *(_fall_back(policy, contact, name) for name in policy.fall_back),
    ):
        if way is not None and (way.provider, way.account) not in seen:
            seen.add((way.provider, way.account))
            yield way


def _own_way(policy: Policy, contact: Contact) -> _Way | None:
    account = policy.accounts.get(contact.account)
    if account is not None and policy.traits[contact.account].answers(contact.channel):
        return _Way(account.provider, contact.account, policy.traits[contact.account], True)
    if contact.channel in policy.channels:
        return _Way(MAIL, contact.account, _OWN_MAIL, True)
    return None


def _fall_back(policy: Policy, contact: Contact, name: str) -> _Way | None:
    """Return the way that a fall-back is for this contact; None where it needs another kind of address."""
    if name == MAIL_FALL_BACK:
        is_fit = contact.address_kind == "email"
        return _Way(MAIL, contact.account, _OWN_MAIL, False) if is_fit else None
    provider, traits = policy.accounts[name].provider, policy.traits[name]
    kind = "phone" if provider in PHONE_PROVIDERS else "email"
    is_fit = ANY_CHANNEL in traits.channels or contact.address_kind == kind
    is_own = name == contact.account and traits.answers(contact.channel)
    return _Way(provider, name, traits, is_own) if is_fit else None


def _route(
    policy: Policy,
    known: Known,
    conversation: Conversation,
    contact: Contact,
    cause: Cause,
    now: datetime,
) -> Route | Suppression:
    """Return the first way that is open, or what stands against the first of them.

    Once the second way has failed there is none: two messages that say the same would be worse than none.
    """
    refused = None
    if len(cause.tried) < WAYS_MAX:
        for way in _ways(policy, contact):
            if f"{way.provider}/{way.account}" in cause.tried:
                continue
            route = _open(policy, known, conversation, contact, cause, way, now)
            if isinstance(route, Route):
                return route
            refused = refused or route
    if refused is None and cause.tried:
        return Suppression.UNDELIVERABLE
    return refused or Suppression.CHANNEL_UNSUPPORTED


def _open(
    policy: Policy,
    known: Known,
    conversation: Conversation,
    contact: Contact,
    cause: Cause,
    way: _Way,
    now: datetime,
) -> Route | Suppression:
    """Return the route that a way is, or why it is none for this notice."""
    if cause.is_automatic and way.provider in CALLS:
        return Suppression.CHANNEL_UNSUPPORTED
    place = _place(policy, conversation, contact, way)
    if isinstance(place, Suppression):
        return place
    to, recipient = place
    is_public = way.traits.is_public_at(conversation.thread)
    if is_public and not policy.templates.has(cause.occasion, "public.txt"):
        return Suppression.NOT_IN_PUBLIC
    if cause.is_automatic and _is_only_answer(policy, way):
        return Suppression.ONLY_ANSWER
    if _is_dead(known, conversation, contact, way, recipient, now):
        return Suppression.UNDELIVERABLE
    # Whoever wrote STOP by text message gets none at all there, be it from a machine or a person: carriers block it.
    # HELP is answered even then: carriers ask for it whether or not somebody is subscribed (support.twilio.com, "US Short Code
    # Keyword Requirements: HELP, STOP and Opt-In Confirmation").
    is_asked = (cause.is_automatic or way.provider in PHONE_CHANNELS) and cause.occasion != "help"
    if is_asked and cause.category != "security" and known.has_opted_out(recipient, cause.category):
        return Suppression.OPTED_OUT
    route = Route(way.provider, way.account, to, way.traits.form, recipient, is_public)
    if _is_window_open(policy, conversation, cause, way, now):
        return route
    template = _template(policy, contact, cause, way)
    if template is None:
        return Suppression.WINDOW_CLOSED
    return Route(way.provider, way.account, to, way.traits.form, recipient, is_public, template)


def _is_only_answer(policy: Policy, way: _Way) -> bool:
    """Whether an automatic notice would use up the one answer that a customer's message gets there: it is left to a person."""
    if way.traits.per_message != 1 or way.account not in policy.accounts:
        return False
    return not getattr(policy.accounts[way.account].settings, "automatic", False)


def _place(
    policy: Policy, conversation: Conversation, contact: Contact, way: _Way
) -> tuple[str, str] | Suppression:
    """Return what the provider is given as the address, and what names the recipient."""
    if way.traits.form == "mail":
        address = mail_address(contact)
        if address is None:
            return Suppression.NO_ADDRESS
        return Suppression.OWN_ADDRESS if is_ours(policy, address) else (address, address)
    address = mail_address(contact) or phone_number(contact)
    if address is not None and is_ours(policy, address):
        return Suppression.OWN_ADDRESS
    if way.provider in PHONE_PROVIDERS and contact.address_kind == "phone" and address is None:
        return Suppression.NO_ADDRESS
    place = {
        "address": contact.address if contact.address_kind != "none" else "",
        "thread": conversation.thread,
        "message": conversation.answers,
    }[way.traits.addressing]
    if not place:
        return Suppression.NO_ADDRESS
    to = address or (contact.address if contact.address_kind != "none" else "")
    return to, address or f"{way.account}:{to or place}"


def _is_dead(
    known: Known,
    conversation: Conversation,
    contact: Contact,
    way: _Way,
    recipient: str,
    now: datetime,
) -> bool:
    """Whether nothing reaches the recipient. One who has proved the address and written from it since is there again."""
    if way.traits.addressing != "address":
        return False  # What is gone there is a thread, of this conversation alone.
    dead = known.undeliverable.get(dead_name(way.provider, known.key(recipient)))
    if dead is None or (dead.until is not None and dead.until <= now):
        return False
    wrote_at = conversation.wrote_at
    is_back = way.is_own and contact.is_verified and wrote_at is not None and wrote_at > dead.at
    return not is_back


def _is_window_open(
    policy: Policy, conversation: Conversation, cause: Cause, way: _Way, now: datetime
) -> bool:
    """Whether the vendor lets us write in our own words. Where the customer has never written it does not."""
    window = way.traits.window
    if window is None:
        return True
    if not cause.is_automatic and way.traits.answer_window and way.account in policy.accounts:
        is_longer = getattr(policy.accounts[way.account].settings, "human_agent", False)
        window = way.traits.answer_window if is_longer else window
    wrote_at = conversation.wrote_at if way.is_own else None
    return wrote_at is not None and now < wrote_at + window - WINDOW_MARGIN


def _template(policy: Policy, contact: Contact, cause: Cause, way: _Way) -> ApprovedTemplate | None:
    """Return the approved template for the occasion, in the customer's language or else in the default one."""
    if not way.traits.has_templates:
        return None
    written = policy.approved.get(way.account, {}).get(cause.occasion, {})
    language = language_of(policy, contact.language)
    return written.get(language) or written.get(policy.default_language)


# ------------------------------------------------------------------------------- wanted, and how much


def _held_back(
    policy: Policy,
    known: Known,
    conversation: Conversation,
    contact: Contact,
    cause: Cause,
    route: Route,
    now: datetime,
) -> Suppression | None:
    """Return what stands against an automatic notice. An agent's answer knows no caps, nor does a security notice."""
    if not cause.is_automatic:
        return None
    if is_machine(route.to):
        return Suppression.AUTOMATIC_MESSAGE
    if cause.category in policy.consent_needed and not known.has_opted_in(
        route.recipient, cause.category
    ):
        return Suppression.NO_CONSENT
    if cause.category == "security" or cause.is_counted:
        return None
    if cause.occasion == "survey" and known.has_been_surveyed(
        route.recipient, now, policy.survey.again
    ):
        return Suppression.ASKED_LATELY
    if cause.occasion == "recovery" and known.has_been_consoled(
        route.recipient, now, CONSOLED_WITHIN
    ):
        return Suppression.TOLD_LATELY
    is_too_much = conversation.automatic_since_human >= policy.automatic_between_human
    if is_too_much and cause.occasion != "help":  # A person has just written that word.
        return Suppression.TOO_MANY_AUTOMATIC
    return over_cap(policy, known, route.recipient, cause.category, contact.is_verified, now)


# ------------------------------------------------------------------------------------------------ when


def _digest_at(policy: Policy, contact: Contact, cause: Cause, now: datetime) -> datetime | None:
    """Return when the notice is told with others of the day; None where it goes by itself."""
    if cause.occasion not in policy.digest.occasions or cause.urgency == "high":
        return None
    return next_at(policy.digest.minute, _zones(policy, contact)[0], now)


def _quiet_until(
    policy: Policy,
    conversation: Conversation,
    contact: Contact,
    cause: Cause,
    route: Route,
    now: datetime,
) -> datetime | None:
    """Return when the customer may be disturbed again; None where it is no disturbance now."""
    if not policy.quiet.windows or _breaks_through(policy, conversation, cause, route, now):
        return None
    zones = _zones(policy, contact)
    until = quiet_until(policy.quiet.windows, zones, policy.zone, now)
    if until is None:
        return None
    return spread_end(policy.quiet, zones, policy.zone, until, cause.notice_id)


def _breaks_through(
    policy: Policy, conversation: Conversation, cause: Cause, route: Route, now: datetime
) -> bool:
    quiet, case = policy.quiet, conversation.cases.get(cause.ticket_id)
    wrote_at = conversation.wrote_at
    return (
        cause.urgency == "high"
        or cause.category in quiet.categories
        or cause.occasion in quiet.occasions
        or route.provider in quiet.silent
        or (case is not None and case.priority in quiet.priorities)
        # Vendors' clocks are their own, so that may be a little ahead.
        or (wrote_at is not None and abs(now - wrote_at) < quiet.awake)
    )


def _zones(policy: Policy, contact: Contact) -> tuple[ZoneInfo, ...]:
    """Return where the customer may be: by their telephone number, else where the policy says that customers are."""
    phone = phone_number(contact)
    if phone is None:
        return (policy.zone,)
    return zones_of(phone, policy.zone, policy.zone_by_country)
