"""What the notifier remembers of one conversation, and what one notice may be in."""

from datetime import datetime

import msgspec

from schemas.notifications import Occasion


class Contact(msgspec.Struct, frozen=True):
    """Where the customer is answered. `address` is as the router told it, not yet believed to be mailable."""

    name: str
    address: str
    address_kind: str
    channel: str
    account: str
    language: str | None
    is_verified: bool


class Mail(msgspec.Struct, frozen=True):
    """A notice rendered for good: every attempt sends these same words under the same Message-ID.

    `envelope_from` is where bounces go (empty: nowhere), `headers` are those that mark an automatic mail,
    `references` are ids of the thread, oldest first. All values are clean single lines but `text` and `html`.
    """

    from_name: str
    from_address: str
    to_address: str
    envelope_from: str
    reply_to: str
    subject: str
    text: str
    html: str
    language: str
    date: datetime
    message_id: str
    in_reply_to: str | None
    references: tuple[str, ...]
    headers: tuple[tuple[str, str], ...]


class Sending(msgspec.Struct, frozen=True, tag=True):
    """Handed to the provider; its answer is awaited. A superseded one gets no further attempt."""

    ticket_id: str
    occasion: Occasion
    attempt: int
    is_superseded: bool = False


class Waiting(msgspec.Struct, frozen=True, tag=True):
    """The provider said "not now" to attempt `attempt`; the next one is due at `retry_at`."""

    ticket_id: str
    occasion: Occasion
    attempt: int
    retry_at: datetime
    mail: Mail


class Held(msgspec.Struct, frozen=True, tag=True):
    """Due, and not written yet: what can be promised is waited for until `until`. `cause_id` is what brought it about."""

    ticket_id: str
    occasion: Occasion
    cause_id: str
    until: datetime


class Settled(msgspec.Struct, frozen=True, tag=True):
    """Over: `sent`, `failed`, `unknown` or `suppressed`. Kept so that a repeat of the cause changes nothing."""

    ticket_id: str
    occasion: Occasion
    status: str


Notice = Held | Sending | Waiting | Settled


class Slot(msgspec.Struct, frozen=True):
    """A time in which we could call."""

    starts_at: datetime
    ends_at: datetime


class Promise(msgspec.Struct, frozen=True):
    """What can honestly be said of a ticket's wait, as of `at`.

    `by` is when such tickets are answered at the latest, as a rule (None: nothing is known); `minutes`, where that is said as
    a length. `opens_at` is when we open, where the ticket came after hours.
    """

    at: datetime
    by: datetime | None
    minutes: int | None
    opens_at: datetime | None
    slots: tuple[Slot, ...] = ()


class Case(msgspec.Struct, frozen=True):
    """What a notice says about a ticket: its short name, and when the message that opened it reached us.

    `opened_at` is when the router opened it; cases stored before that was kept have none.
    """

    reference: str
    received_at: datetime
    opened_at: datetime | None = None


class Conversation(msgspec.Struct, frozen=True):
    """One conversation. `automatic_since_human` counts our automatic notices since a person last wrote.

    `in_reply_to` is the mail that the next one answers; `references` is the thread, oldest first. `cases` and
    `notices` are keyed by ticket id and notice id. `promises`, by ticket id, were told before their tickets were.
    """

    contact: Contact | None = None
    subject: str = ""
    in_reply_to: str | None = None
    references: tuple[str, ...] = ()
    automatic_since_human: int = 0
    cases: dict[str, Case] = {}
    notices: dict[str, Notice] = {}
    promises: dict[str, Promise] = {}
