"""Whom an announcement goes to: an outage that is known or over, or a security notice, told to each person once.

Owns who a person is here, in which of their conversations they are told, and who was told already. Announcements are known by
their names, and each is told to a person once that it is known and once that it is over.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from msgspec import structs

from schemas.ids import derive
from services.notifier.core.audience import is_concerned, recipient_key
from services.notifier.core.policy import OutageAudience
from services.notifier.core.reason import Cause
from services.notifier.core.state import Contact, Conversation

Announced = Literal["outage_known", "outage_over", "security"]
"""The occasions that are announced to many at once."""

TOLD_STATUSES: Final = frozenset({"deferred", "requested", "sent", "unknown", "dry_run"})
"""What a notice's row says where its recipient heard it, may have heard it, or is about to hear it."""

_NEVER: Final = datetime.min.replace(tzinfo=UTC)


class Why(StrEnum):
    """Why somebody is told."""

    RECENT = "wrote lately"
    OPEN = "has an open case"
    NAMED = "named in the file"
    TOLD = "was told that it is known"


_STRENGTH: Final[Mapping[Why | None, int]] = {
    None: 0,
    Why.NAMED: 1,
    Why.RECENT: 2,
    Why.OPEN: 2,
    Why.TOLD: 3,
}


@dataclass(frozen=True, slots=True)
class Filters:
    """What a case has to have to count, each set of them where it is not empty; `channels` are those that customers wrote on."""

    tags: frozenset[str] = frozenset()
    queues: frozenset[str] = frozenset()
    causes: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()

    @property
    def of_cases(self) -> bool:
        """Whether a case decides at all."""
        return bool(self.tags or self.queues or self.causes)


ANY: Final = Filters()
"""Every case counts."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is announced, by its name: `about` is the operator's own word for the outage."""

    workspace: str
    occasion: Announced
    about: str

    def command_id(self, recipient: str) -> str:
        """Return the id of the command to tell a recipient (by `recipient_of`): the same however often it is asked."""
        return derive("announce", self.workspace, self.occasion, self.about, recipient)

    def notice_id(self, conversation_id: str, recipient: str) -> str:
        """Return the id of the notice that comes of it in a conversation, as `occasions.asked` makes it."""
        name = self.command_id(recipient) if self.occasion == "security" else self.about
        return Cause(conversation_id, self.occasion, name).notice_id

    @property
    def key(self) -> str:
        """The beginning of the names that its commands have at the gateway's door; a recipient's name follows."""
        return f"announce/{derive('announcement', self.workspace, self.about)}/{self.occasion}/"

    def as_known(self) -> "Announcement":
        """Return the announcement that the same outage is known."""
        return Announcement(self.workspace, "outage_known", self.about)

    def as_over(self) -> "Announcement":
        """Return the announcement that the same outage is over."""
        return Announcement(self.workspace, "outage_over", self.about)


@dataclass(frozen=True, slots=True)
class Place:
    """A conversation in which somebody can be told. `person` names whoever reads there, `recipient` is their name in tables.

    `why` is None where they are not concerned here, `at` is when they wrote last. `contact` is given for somebody who never
    wrote.
    """

    conversation_id: str
    person: str
    recipient: str
    why: Why | None
    channel: str
    language: str | None
    is_verified: bool
    at: datetime | None = None
    contact: Contact | None = None


class Choice(NamedTuple):
    """Whom to tell, one place a person, by conversation; and how many people have been told already."""

    places: tuple[Place, ...]
    already: int


@dataclass(frozen=True, slots=True)
class Record:
    """What is recorded of an announcement: statuses by notice, and the conversations of those handed over, by recipient.

    `began_at` is when the first of it happened.
    """

    statuses: Mapping[str, str] = field(default_factory=dict)
    handed: Mapping[str, str] = field(default_factory=dict)
    began_at: datetime | None = None

    def is_decided(self, notice_id: str, recipient: str) -> bool:
        """Whether somebody was told, or it was decided that they are not, or that will be."""
        return notice_id in self.statuses or recipient in self.handed

    def was_told(self, notice_id: str, conversation_id: str, recipient: str) -> bool:
        """Whether it was told in a conversation, or is about to be. What was handed over and has no row yet is on its way."""
        status = self.statuses.get(notice_id)
        if status is not None:
            return status in TOLD_STATUSES
        return self.handed.get(recipient) == conversation_id


NO_RECORD: Final = Record()


def person_of(contact: Contact, conversation_id: str) -> str:
    """Name the person that a contact is, by address. A vendor's ids are its own, so channel and account go with them."""
    address = contact.address.strip()
    if contact.address_kind == "vendor_id":
        return f"vendor_id:{contact.channel}/{contact.account}/{address or conversation_id}"
    if contact.address_kind == "none" or not address:
        return f"none:{conversation_id}"
    return f"{contact.address_kind}:{address.lower()}"


def recipient_of(workspace: str, person: str) -> str:
    """Return what tables call a person: it has no address in it."""
    return recipient_key(workspace, f"announced:{person}")


def place_without(workspace: str, contact: Contact) -> Place:
    """Return the place of somebody who never wrote: a conversation of their own, the one that the gateway gives them too."""
    address = contact.address.strip().lower()
    conversation_id = derive("notified", workspace, address)
    person = person_of(contact, conversation_id)
    return Place(
        conversation_id,
        person,
        recipient_of(workspace, person),
        Why.NAMED,
        contact.channel,
        contact.language,
        contact.is_verified,
        contact=contact,
    )


def place_on_its_way(recipient: str, conversation_id: str) -> Place:
    """Return the place of somebody who is about to hear that it is known, and of whom the notifier knows nothing yet."""
    return Place(conversation_id, "", recipient, Why.TOLD, "", None, is_verified=False)


def place_in(
    workspace: str, conversation_id: str, conversation: Conversation, why: Why | None
) -> Place | None:
    """Return a conversation as a place to tell somebody; None where nobody is there any more."""
    contact = conversation.contact
    if contact is None:
        return None
    person = person_of(contact, conversation_id)
    return Place(
        conversation_id,
        person,
        recipient_of(workspace, person),
        why,
        contact.channel,
        contact.language,
        contact.is_verified,
        _last_at(conversation),
    )


def why_concerned(
    audience: OutageAudience,
    conversation: Conversation,
    now: datetime,
    filters: Filters,
    since: datetime | None = None,
) -> Why | None:
    """Return why an announcement concerns the people of a conversation; None where it does not.

    With `since`, only by cases that came to us from then on: whoever came before was told, or was not to be.
    """
    contact = conversation.contact
    if contact is None or (filters.channels and contact.channel not in filters.channels):
        return None
    cases = {
        ticket_id: case
        for ticket_id, case in conversation.cases.items()
        if (not filters.queues or case.queue in filters.queues)
        and (not filters.causes or case.cause in filters.causes)
        and (since is None or max(case.received_at, case.opened_at or _NEVER) >= since)
    }
    if not cases and (filters.of_cases or since is not None):
        return None
    narrowed = structs.replace(conversation, cases=cases)
    if not is_concerned(audience, narrowed, now, filters.tags):
        return None
    only_open = OutageAudience("open", audience.recent)
    return Why.OPEN if is_concerned(only_open, narrowed, now, filters.tags) else Why.RECENT


def _last_at(conversation: Conversation) -> datetime | None:
    times = [case.received_at for case in conversation.cases.values()]
    if conversation.wrote_at is not None:
        times.append(conversation.wrote_at)
    return max(times, default=None)


def choose(
    announcement: Announcement,
    places: Iterable[Place],
    record: Record,
    same: Mapping[str, str],
    named: Set[str] = frozenset(),
) -> Choice:
    """Return whom to tell, each person once.

    `places` are all conversations that matter: those that it concerns, and those in which a person was told or could be. `same`
    gives one name to persons (`Place.person`) of whom it is proved that they are one. `named` are persons of a file: they are
    told in a conversation that they have, wherever it stands, if the address was proved there. Of several places the one counts
    in which they were told that it is known, then one with a proved address, then the latest.
    """
    groups: dict[str, list[Place]] = {}
    for place in places:
        groups.setdefault(same.get(place.person, place.recipient), []).append(place)
    chosen: list[Place] = []
    already = 0
    for places_of_one in groups.values():
        best = max((_with_name(one, named) for one in places_of_one), key=_rank)
        if best.why is None:
            continue
        if any(
            record.is_decided(
                announcement.notice_id(one.conversation_id, one.recipient), one.recipient
            )
            for one in places_of_one
        ):
            already += 1
            continue
        chosen.append(best if best.language else replace(best, language=_language(places_of_one)))
    return Choice(tuple(sorted(chosen, key=lambda one: one.conversation_id)), already)


def _language(places: list[Place]) -> str | None:
    """Return the language of a person where the place that was chosen does not say it."""
    return next(
        (one.language for one in sorted(places, key=_rank, reverse=True) if one.language), None
    )


def _with_name(place: Place, named: Set[str]) -> Place:
    is_new = place.why is None and place.person in named
    return replace(place, why=Why.NAMED) if is_new else place


def _rank(place: Place) -> tuple[bool, bool, int, bool, datetime, str]:
    return (
        place.why is Why.TOLD,
        place.why is not None and place.is_verified,
        _STRENGTH[place.why],
        place.contact is None,  # A conversation that is there goes before one that would be made.
        place.at or _NEVER,
        place.conversation_id,
    )
