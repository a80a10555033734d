"""Agents' answers → web chats: what happened to tickets, as far as their visitors are shown it.

Reads `tickets` alone, where a conversation's events stand in order: the opening tells whose session it is (its message's
name begins with the session's id), answers go into that session's rows, and a case that an agent took or answered marks
the visitor's messages as seen. The rows are written in the batch's transaction, so an answer stands there once.
"""

from datetime import datetime
from typing import ClassVar, Final

from chassis.stage import Input, Outcome, Received, Stage
from schemas.payload import Payload
from schemas.tickets import TicketAnswered, TicketClosed, TicketOpened, TicketStatusChanged
from schemas.topics import TICKETS, Topic
from services.ingest.adapters import webchat
from services.ingest.core.normalise import clean_text, clean_value
from services.ingest.webchat_store import STAGE, AnswerRow, Chat, OpenedRow, SeenRow, WebchatStore

UNDERSTOOD: Final[tuple[type[Payload], ...]] = (
    TicketOpened,
    TicketAnswered,
    TicketStatusChanged,
    TicketClosed,
)
NOT_A_WEBCHAT: Final = "not_a_webchat"


class WebchatStage(Stage[Chat]):
    """One task of web chat; the state's key is the conversation."""

    name: ClassVar[str] = STAGE
    topics: ClassVar[tuple[Topic, ...]] = (TICKETS,)
    understands: ClassVar[frozenset[str]] = frozenset(kind.TYPE for kind in UNDERSTOOD)

    def __init__(self, workspace: str) -> None:
        self.store: WebchatStore = WebchatStore(workspace)

    def decide(self, state: Chat | None, item: Input, now: datetime) -> Outcome[Chat]:
        """Apply one event of a ticket."""
        del now
        assert isinstance(item, Received), "web chat asks for no timers and no effects"
        event = item.event
        if isinstance(event, TicketOpened):
            return _opened(state, event)
        if state is None:
            return Outcome(is_changed=False, ignored=NOT_A_WEBCHAT)
        match event:
            case TicketAnswered():
                answer = AnswerRow(
                    state.session_id,
                    state.account,
                    event.command_id,
                    clean_value(event.agent_name, 80),
                    clean_text(event.text),
                    event.at,
                )
                seen = SeenRow(state.session_id, event.at)
                return Outcome(state=state, is_changed=False, rows=(seen, answer))
            case TicketStatusChanged(status="assigned"):
                seen = SeenRow(state.session_id, event.at)
                return Outcome(state=state, is_changed=False, rows=(seen,))
            case TicketClosed():
                left = tuple(one for one in state.tickets if one != event.ticket_id)
                after = Chat(state.session_id, state.account, left) if left else None
                return Outcome(state=after)
            case _:
                return Outcome(state=state, is_changed=False, ignored="means_nothing_to_a_visitor")


def _opened(state: Chat | None, event: TicketOpened) -> Outcome[Chat]:
    session_id = webchat.session_of(event.vendor_message_id)
    if event.contact.channel != webchat.CHANNEL.name or not session_id:
        return Outcome(state=state, is_changed=False, ignored=NOT_A_WEBCHAT)
    before = state.tickets if state is not None else ()
    opened = OpenedRow(event.conversation_id, session_id, event.contact.account, event.at)
    return Outcome(
        state=Chat(session_id, event.contact.account, (*before, event.ticket_id)),
        rows=(opened,),
    )
