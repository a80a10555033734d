"""Articles for an acknowledgement: when they are asked for, and what becomes of what was found.

Owns the wait: an acknowledgement is held for its articles as it is for what can be promised, and goes without whatever has
not come in time.
"""

from datetime import datetime, timedelta
from typing import Final

from msgspec import structs

from schemas.messages import MessageReceived
from schemas.tickets import TicketOpened
from services.notifier.core.articles import ArticlesFound, Search, question
from services.notifier.core.audience import language_of
from services.notifier.core.policy import Policy
from services.notifier.core.reason import Cause
from services.notifier.core.state import Article, Conversation, Held, Matter
from services.notifier.core.told import Context, with_notice

WAIT: Final = timedelta(seconds=3)
"""How long an acknowledgement waits for articles at least; the search itself is given up sooner."""

ASKING_MAX: Final = 3
"""Messages of a conversation whose question is kept until their ticket is opened."""

KEPT: Final = timedelta(minutes=10)
"""How long a question is kept for its ticket: that opens within seconds, or never (a follow-up opens none)."""

ASKED: Final = frozenset({"received", "after_hours"})
"""Acknowledgements that name articles. Whoever called is called back."""


def asks(policy: Policy) -> bool:
    """Whether any article is asked for at all."""
    return policy.articles.source != "none" and bool(policy.articles.floor)


def heard(state: Conversation, event: MessageReceived, context: Context) -> Conversation:
    """Keep what a customer's message asks until its ticket is opened."""
    content = event.content
    is_asked = asks(context.policy) and content.direction == "inbound" and not content.is_automatic
    if not is_asked or content.kind != "message" or content.change != "new":
        return state
    words = question(content.subject, content.text_new or content.text)
    if not words or _has_opened_one(state, event.message_id):
        return state
    asking = {**state.asking, event.message_id: words}
    kept = dict(list(asking.items())[-ASKING_MAX:])
    return structs.replace(state, asking=kept, asked_at=context.now)


def _has_opened_one(state: Conversation, message_id: str) -> bool:
    """Whether the message's ticket has been heard of: two topics keep no order between them."""
    return any(
        Cause(ticket_id, "received", message_id).notice_id in state.notices
        for ticket_id in state.cases
    )


def forgotten_at(state: Conversation) -> datetime | None:
    """Return when questions that are kept are forgotten, ticket or none."""
    if not state.asking:
        return None
    return None if state.asked_at is None else state.asked_at + KEPT


def without_questions(
    state: Conversation, now: datetime, message_id: str | None = None
) -> Conversation:
    """Return the conversation without a message's question, and without any whose time is over."""
    due = forgotten_at(state)
    is_over = bool(state.asking) and (due is None or due <= now)
    asking = {key: one for key, one in state.asking.items() if key != message_id and not is_over}
    if len(asking) == len(state.asking):
        return state
    return structs.replace(state, asking=asking, asked_at=state.asked_at if asking else None)


def search_for(
    state: Conversation, event: TicketOpened, notice_id: str, occasion: str, context: Context
) -> tuple[Conversation, Search | None]:
    """Return what is to be looked for as a ticket opens, if anything is, and the conversation without its question."""
    words = state.asking.get(event.message_id, "")
    state = without_questions(state, context.now, event.message_id)
    language = language_of(context.policy, state.contact.language if state.contact else None)
    if occasion not in ASKED or not context.policy.articles.is_asked(language):
        return state, None
    words = words or question(event.subject, "")
    return state, Search(notice_id, words, language) if words else None


def with_articles(state: Conversation, event: ArticlesFound, held: Held) -> Conversation:
    """Return the conversation with what was found in the notice that waits for it."""
    found = tuple(Article(one.title, one.url, one.summary) for one in event.articles)
    matter = held.matter or Matter(held.until)
    complete = structs.replace(
        held, is_searching=False, matter=structs.replace(matter, articles=found)
    )
    return with_notice(state, event.notice_id, complete)
