"""A notice for a vendor's API, and what a provider can do: what the rules need to know of it, and nothing else.

Owns no rule. `Traits` are facts about a vendor, each with its source in the adapter that states them.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal

import msgspec

from schemas.notifications import Occasion

Form = Literal["mail", "html", "text"]
"""What a provider carries: a whole mail, HTML, or plain text."""

Addressing = Literal["address", "thread", "message"]
"""What a post is sent to: a person's address at the vendor, a thread there, or the one message that it answers."""


ANY_CHANNEL: Final = "*"
"""Among a provider's channels: whatever a system of one's own calls its channel."""


class Trouble(StrEnum):
    """Whose trouble a failure is, which decides what helps."""

    MESSAGE = "message"
    """This message is refused as it is; the account and the recipient are fine."""
    ADDRESS = "address"
    """The recipient cannot be reached there: no such person, or they have blocked us."""
    ACCOUNT = "account"
    """Our credentials or settings: somebody has to renew them; messages wait."""
    PROVIDER = "provider"
    """The vendor has too much to do, or trouble of its own; it passes."""
    WINDOW = "window"
    """The time in which the customer may be written to is over."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What a provider can do.

    `channels` are the contacts' channels that it answers, `ANY_CHANNEL` among them all there are. `is_keyed`: the vendor drops a
    repeat that carries the same key, so an interrupted send may be made again. `can_find`: an interrupted send can be looked up.
    `is_public`: everybody reads it; `public_thread` is a regular expression of the threads that everybody reads, where others
    are private. `text_max` is in characters. `window` is how long after the customer's last message they may be written to (None:
    always); with `has_templates`, approved templates may go later, and `answer_window` is a longer one for what a person wrote, of
    accounts that have it (`human_agent` in their settings). `per_message`: how many answers one customer message may get (None:
    any number).
    """

    channels: frozenset[str]
    form: Form
    addressing: Addressing
    is_keyed: bool = False
    can_find: bool = False
    is_public: bool = False
    text_max: int = 10_000
    window: timedelta | None = None
    answer_window: timedelta | None = None
    has_templates: bool = False
    public_thread: str = ""
    per_message: int | None = None

    def answers(self, channel: str) -> bool:
        """Whether a contact that wrote on `channel` is answered here."""
        return channel in self.channels or ANY_CHANNEL in self.channels

    def is_public_at(self, thread: str) -> bool:
        """Whether everybody reads what is sent into a thread."""
        return self.is_public or bool(
            self.public_thread and re.fullmatch(self.public_thread, thread)
        )


class VendorTemplate(msgspec.Struct, frozen=True):
    """A message that the vendor has approved: its name and language there, and the values of its places, in order."""

    name: str
    language: str
    values: tuple[str, ...] = ()


class Post(msgspec.Struct, frozen=True, tag=True):
    """A notice rendered for good for a vendor's API: every attempt sends these same words with the same key.

    `key` is the notice's id, a UUID, and the idempotency key where the vendor takes one. `account` names the account in
    `notify.yaml`. `to` is the recipient's address at the vendor, `thread` the vendor's thread, `answers` the vendor's id of the
    customer's last message; which of them counts, the provider's traits say. `text` is plain; `html` is empty where the
    provider takes none. `template` goes instead of the text where the window is over. All values are clean; `text` and `html`
    have line ends of LF.
    """

    key: str
    provider: str
    account: str
    occasion: Occasion
    to: str
    thread: str
    answers: str
    subject: str
    text: str
    html: str
    language: str
    date: datetime
    is_automatic: bool
    template: VendorTemplate | None = None
