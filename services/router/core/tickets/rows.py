"""What a decision stores beside the ticket: rows of messages, for the tables that people and reports read."""

from datetime import datetime
from typing import NamedTuple


class MessageRow(NamedTuple):
    """What became of a message: `outcome` is opened, followed_up, added, reopened, carried, or why it was set aside."""

    message_id: str
    input_id: str
    ticket_id: str | None
    conversation_id: str
    kind: str
    outcome: str
    at: datetime
    text: str


class ErasedRow(NamedTuple):
    """What is kept of `members` in a conversation is to be removed: their messages, and all of their tickets.

    So is what the conversation's ticket took over from the cases of `sources`.
    """

    conversation_id: str
    members: tuple[str, ...]
    message_ids: tuple[str, ...]
    sources: tuple[str, ...] = ()


class MovedRow(NamedTuple):
    """Messages that belong to another ticket than it was said: carried to it, or come back from it."""

    message_ids: tuple[str, ...]
    ticket_id: str


class RevisedRow(NamedTuple):
    """What a message says now; empty where its writer took it back."""

    message_id: str
    text: str
