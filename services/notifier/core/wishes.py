"""What customers say of notices themselves: by a link, by a button of their mail program, by a word such as STOP."""

from datetime import datetime

from schemas.feedback import ContactOptedIn, ContactOptedOut
from schemas.messages import MessageReceived
from schemas.notifications import Category
from services.notifier.core.consent import Word, categories_of, word_in
from services.notifier.core.plan import recipients
from services.notifier.core.reason import Suppression, category_of
from services.notifier.core.state import Contact, Conversation, Settled
from services.notifier.core.text import clean_line
from services.notifier.core.told import Context, Decision, Wished, drop


def wished(
    conversation_id: str,
    state: Conversation,
    event: ContactOptedOut | ContactOptedIn,
    context: Context,
) -> Decision:
    """Remember a wish, and drop what goes against it and has not gone out."""
    is_out = isinstance(event, ContactOptedOut)
    source = "link" if event.source == "one_click" else event.source
    wish = Wished(event.recipient, event.category, is_out, event.occurred_at, source, is_name=True)
    return _kept(conversation_id, state, (wish,), context)


def written(
    conversation_id: str, state: Conversation, event: MessageReceived, context: Context
) -> Decision:
    """Take a message that is nothing but a word such as STOP at its word. All else is told by its ticket."""
    content = event.content
    text = content.text_new or content.text
    word = word_in(text, content.channel) if content.direction == "inbound" else None
    if word is None or word is Word.HELP:
        return Decision(state, ignored="told_by_its_ticket")
    contact = Contact(
        name="",
        address=clean_line(content.sender.address, limit=320),
        address_kind=content.sender.kind,
        channel=content.channel,
        account=content.account,
        language=None,
        is_verified=event.verified,
    )
    names = recipients(
        context.policy, contact, clean_line(content.thread or ""), content.vendor_message_id
    )
    wishes = tuple(
        _said(name, category, word, content.occurred_at)
        for name in names
        for category in sorted(categories_of(word, content.channel))
    )
    return _kept(conversation_id, state, wishes, context)


def _said(name: str, category: Category, word: Word, at: datetime) -> Wished:
    return Wished(name, category, word is Word.STOP, at, "word")


def _kept(
    conversation_id: str, state: Conversation, wishes: tuple[Wished, ...], context: Context
) -> Decision:
    unwanted = {wish.category for wish in wishes if wish.is_out}
    names = [
        notice_id
        for notice_id, one in sorted(state.notices.items())
        if category_of(one.occasion) in unwanted
        and one.occasion != "answered"
        and not isinstance(one, Settled)
    ]
    dropped = drop(conversation_id, state, names, Suppression.OPTED_OUT, context)
    return dropped._replace(wished=wishes)
