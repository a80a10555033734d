"""What customers say of notices themselves: by a link, by a button of their mail program, by a word such as STOP."""

from datetime import datetime

from msgspec import structs

from schemas.feedback import ContactOptedIn, ContactOptedOut
from schemas.messages import MessageReceived
from schemas.notifications import Category
from services.notifier.core.consent import (
    PHONE_CHANNELS,
    Word,
    categories_of,
    help_language,
    word_in,
)
from services.notifier.core.plan import recipients
from services.notifier.core.reason import OPENING, Cause, Suppression, category_of
from services.notifier.core.state import Contact, Conversation, Matter, Planned, Settled
from services.notifier.core.text import clean_line
from services.notifier.core.told import Context, Decision, Wished, drop, then, without_lines
from services.notifier.core.words import Intent, say


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
    is_help = word is Word.HELP and content.channel in PHONE_CHANNELS
    if word is None or (word is Word.HELP and not is_help):
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
    if is_help:
        return _helped(conversation_id, state, event, contact, context)
    names = recipients(
        context.policy, contact, clean_line(content.thread or ""), content.vendor_message_id
    )
    wishes = tuple(
        _said(name, category, word, content.occurred_at)
        for name in names
        for category in sorted(categories_of(word, content.channel))
    )
    return _kept(conversation_id, state, wishes, context)


def _helped(
    conversation_id: str,
    state: Conversation,
    event: MessageReceived,
    contact: Contact,
    context: Context,
) -> Decision:
    """Answer HELP: who we are, how to stop, how to reach a person. Once a conversation and day, whatever else was told."""
    content = event.content
    day = content.occurred_at.astimezone(context.policy.zone).date()
    cause = Cause(conversation_id, "help", day.isoformat())
    if cause.notice_id in state.notices:
        return Decision(state, ignored="already_told")
    text = content.text_new or content.text
    if state.contact is None:
        state = structs.replace(state, contact=contact)
    matter = Matter(content.occurred_at, language=help_language(text), is_urgent=True)
    told = say(conversation_id, state, Intent(cause, matter), context)
    if isinstance(told.state.notices.get(cause.notice_id), Settled):
        return told  # It was not told, so the message is acknowledged like any other.
    names = [
        notice_id
        for notice_id, one in sorted(told.state.notices.items())
        if one.occasion in OPENING
        and not isinstance(one, Planned | Settled)
        and one.cause_id == event.message_id
    ]
    helped = structs.replace(told.state, helped=event.message_id)
    dropped = drop(conversation_id, helped, names, Suppression.SUPERSEDED, context)
    return then(told, dropped)


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
    fewer = without_lines(
        conversation_id,
        dropped.state,
        lambda line: category_of(line.occasion) in unwanted,
        Suppression.OPTED_OUT,
        context,
    )
    return then(dropped, fewer)._replace(wished=wishes)
