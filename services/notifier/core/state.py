"""What the notifier remembers of one conversation, and what one notice may be in."""

from datetime import datetime
from typing import Literal

import msgspec

from schemas.messages import DeliveryWord
from schemas.notifications import Occasion
from services.notifier.core.post import Post


class Contact(msgspec.Struct, frozen=True):
    """Where the customer is answered. `address` is as the router told it, not yet believed to be mailable."""

    name: str
    address: str
    address_kind: str
    channel: str
    account: str
    language: str | None
    is_verified: bool


class Mail(msgspec.Struct, frozen=True, tag=True):
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


Message = Mail | Post
"""What is handed to a provider."""


class Article(msgspec.Struct, frozen=True):
    """An article that may help."""

    title: str
    url: str
    summary: str = ""


class Line(msgspec.Struct, frozen=True):
    """A notice that is told as one item of a digest."""

    ticket_id: str
    occasion: Occasion
    notice_id: str


class Matter(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a notice is about, as far as neither the conversation nor the policy knows it; kept until it is said.

    `at` is when it came about. `text` is an agent's answer or what a person wrote for this notice, `language` the one it is
    written in; `question` what we need to know; `promised_by` what had been said before; `call_from` and `call_until` a time
    for a call; the rest of an outage. After `expires_at` it is of no use to anybody. `survey_kind` is what a survey asks, with the chance that
    the case was drawn, `items` are the references and words of what is told together, and `lines` say of each which notice it is
    (none in a digest of before that was kept).
    """

    at: datetime
    text: str = ""
    language: str | None = None
    agent_name: str = ""
    question: str = ""
    promised_by: datetime | None = None
    call_from: datetime | None = None
    call_until: datetime | None = None
    outage_title: str = ""
    outage_since: datetime | None = None
    outage_until: datetime | None = None
    articles: tuple[Article, ...] = ()
    expires_at: datetime | None = None
    is_urgent: bool = False
    survey_kind: str = ""
    survey_probability: float | None = None
    items: tuple[tuple[str, str], ...] = ()
    lines: tuple[Line, ...] = ()


class Planned(msgspec.Struct, frozen=True, tag=True):
    """To come about at `due_at`, unless it is stale by then. Nobody has been told of it, so its end is not news."""

    ticket_id: str
    occasion: Occasion
    cause_id: str
    due_at: datetime
    matter: Matter


class Held(msgspec.Struct, frozen=True, tag=True):
    """Due, and not written yet: what can be promised is waited for until `until`. `cause_id` is what brought it about.

    `is_searching`: articles that may help are waited for, too.
    """

    ticket_id: str
    occasion: Occasion
    cause_id: str
    until: datetime
    matter: Matter | None = None
    is_searching: bool = False


class Deferred(msgspec.Struct, frozen=True, tag=True):
    """Not before `until`, for `reason`. The words are made then. One that was tried already keeps count of its attempts."""

    ticket_id: str
    occasion: Occasion
    cause_id: str
    until: datetime
    reason: str
    matter: Matter
    tried: tuple[str, ...] = ()
    attempt: int = 0
    excused: int = 0
    is_requested: bool = False


class Sending(msgspec.Struct, frozen=True, tag=True):
    """Handed to the provider; its answer is awaited. A superseded one gets no further attempt.

    `attempt` names the attempt, `excused` of them do not count (an account's trouble). `stale_at` is from when on its words
    are no longer true. `is_troubled`: an account's trouble was told of. `doubted_at` is when an attempt ended with nobody knowing whether it was taken; the provider drops
    repeats. `tried` are the ways that have failed for good, `recipient` is whom it goes to, by their name in the tables.
    """

    ticket_id: str
    occasion: Occasion
    attempt: int
    is_superseded: bool = False
    cause_id: str = ""
    matter: Matter | None = None
    excused: int = 0
    stale_at: datetime | None = None
    doubted_at: datetime | None = None
    tried: tuple[str, ...] = ()
    recipient: str = ""
    is_troubled: bool = False


class Waiting(msgspec.Struct, frozen=True, tag=True):
    """The provider said "not now" to attempt `attempt`; the next one is due at `retry_at`."""

    ticket_id: str
    occasion: Occasion
    attempt: int
    retry_at: datetime
    message: Message
    provider: str = "smtp"
    account: str = ""
    cause_id: str = ""
    matter: Matter | None = None
    excused: int = 0
    stale_at: datetime | None = None
    doubted_at: datetime | None = None
    tried: tuple[str, ...] = ()
    recipient: str = ""
    is_troubled: bool = False


class Doubted(msgspec.Struct, frozen=True, tag=True):
    """Nobody knows whether attempt `attempt` was taken; the provider is asked at `look_at`, for the `look`-th time.

    While it is asked, `look_at` is None. What is superseded meanwhile is not sent again where it is found absent.
    """

    ticket_id: str
    occasion: Occasion
    attempt: int
    look: int
    look_at: datetime | None
    message: Message
    provider: str
    account: str
    reason: str
    cause_id: str = ""
    matter: Matter | None = None
    excused: int = 0
    stale_at: datetime | None = None
    is_superseded: bool = False
    tried: tuple[str, ...] = ()
    recipient: str = ""


class Settled(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Over: `sent`, `failed`, `unknown`, `suppressed` or `dry_run`. Kept so that a repeat of the cause changes nothing.

    `message_id` is what reports about it call it; `delivery` is what was heard last of its way (`delivered`, `read`,
    `bounced`). The rest is for whoever wants it sent again: after `attempt` attempts, brought about by `cause_id`, and the
    `matter` as far as it is kept. `message` is kept of one whose fate nobody knows: it could go again to the byte, until
    `stale_at`. `ended_at` is when it ended; those stored before that was kept have none.
    """

    ticket_id: str
    occasion: Occasion
    status: str
    message_id: str = ""
    provider: str = ""
    account: str = ""
    delivery: str = ""
    recipient: str = ""
    attempt: int = 0
    cause_id: str = ""
    matter: Matter | None = None
    message: Message | None = None
    stale_at: datetime | None = None
    ended_at: datetime | None = None


Notice = Planned | Held | Deferred | Sending | Waiting | Doubted | Settled


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was heard of a message's way before the answer to its sending: the two come by different roads."""

    what: DeliveryWord
    detail: str = ""
    is_permanent: bool = False


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


class Word(msgspec.Struct, frozen=True):
    """What the customer was told, last, about when they hear from us: by `by`, said at `at` in the notice `said_in`, if in one."""

    by: datetime
    at: datetime
    said_in: str = ""


Standing = Literal["open", "resting", "solved", "over"]
"""Whose turn it is: ours; a third party's (on hold); nobody's for the time being (solved); nobody's any more (merged, spam)."""


class Case(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a notice says about a ticket: its short name, and when the message that opened it reached us.

    `opened_at` is when the router opened it; cases stored before that was kept have none. `word` is what the customer was
    told about the time; `spoken_at` when something about the wait was said last, by a person or by a promise (None: never):
    it names the silence that follows. `waiting_on` is whom a resting case waits for, `is_awaiting_customer` whether an answer
    has gone out and they have not written since. `answered_by` is the command of the last answer.
    `why` says what events have shown of why it takes long (`demand`, `research`). A closed case is kept while a notice of it is
    not over. `priority` is 1 urgent … 4 low, `queue` where the case was opened. `reopened_at` is when the router reopened it last,
    where the customer hears of that.
    """

    reference: str
    received_at: datetime
    opened_at: datetime | None = None
    standing: Standing = "open"
    word: Word | None = None
    spoken_at: datetime | None = None
    waiting_on: str = ""
    is_awaiting_customer: bool = False
    answered_by: str = ""
    priority: int | None = None
    why: str = ""
    tags: tuple[str, ...] = ()
    cause: str = ""
    is_closed: bool = False
    queue: str = ""
    reopened_at: datetime | None = None


class Conversation(msgspec.Struct, frozen=True):
    """One conversation. `automatic_since_human` counts our automatic notices since a person last wrote.

    `in_reply_to` is the mail that the next one answers; `references` is the thread, oldest first. `thread` is the vendor's
    thread and `answers` the vendor's id of the customer's last message, `wrote_at` when they wrote it. `cases` and
    `notices` are keyed by ticket id and notice id. `promises`, by ticket id, are the latest that were told of and not yet
    passed on: of tickets that have not been heard of, or for the next notice of one. `asking` is what messages ask, by their ids,
    until their tickets are opened, and for a while at most since the last of them (`asked_at`). `counted` are the notices that
    `automatic_since_human` counts, newest last: one that ends without having left is taken back.
    `early` are reports that name no notice yet, by the messages' ids, while one is under way.

    A report that names no conversation is kept by itself, under its message's id, until it leads to a notice: as `early`, and
    `heard_at` is when it came first.

    `helped` is the message that was answered last for being the word HELP.
    """

    contact: Contact | None = None
    subject: str = ""
    in_reply_to: str | None = None
    references: tuple[str, ...] = ()
    automatic_since_human: int = 0
    cases: dict[str, Case] = {}
    notices: dict[str, Notice] = {}
    promises: dict[str, Promise] = {}
    thread: str = ""
    answers: str = ""
    wrote_at: datetime | None = None
    asking: dict[str, str] = {}
    asked_at: datetime | None = None
    counted: tuple[str, ...] = ()
    early: dict[str, Report] = {}
    heard_at: datetime | None = None
    helped: str = ""
