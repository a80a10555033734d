"""When two deliveries are one message.

A message goes by its vendor's id within a channel's account, and by who sent it: an id belongs to whoever uses it, and
nobody can silence another by guessing theirs. Mail needs more, for anybody may choose a Message-ID and some machines use
one for ever: there the name has a digest of what was written too. The same mail by another way in (a retry, a second
server, an import) has the same name; a mail that merely wears another's Message-ID is a message of its own and never
lost. The same mail in two accounts is two messages: each mailbox is a desk of its own.
"""

import hashlib

from schemas.messages import MessageContent
from services.ingest.core import identity
from services.ingest.core.state import SeenKey

MAIL = frozenset({"email", "gmail", "google_voice", "youmail"})
"""Channels whose vendor's ids are Message-IDs."""


def name_of(content: MessageContent) -> str:
    """Return the name a message is known by in its account: the vendor's id and a digest of what it must agree in."""
    agreed = list(identity.address_key(content.sender))
    if content.channel in MAIL:
        agreed += [content.subject, " ".join(content.text.split())]
        agreed += [f"{part.name}/{part.size}" for part in content.attachments]
    digest = hashlib.sha256("\x1f".join(agreed).encode("utf-8", "replace")).hexdigest()[:16]
    return f"{content.vendor_message_id}#{digest}"


def revision_of(content: MessageContent) -> str:
    """Return the name of an edit or a removal: the message's, and a digest of what it became."""
    stars = "" if content.review is None else str(content.review.rating)
    agreed = "\x1f".join((content.change, content.subject, content.text, stars))
    digest = hashlib.sha256(agreed.encode("utf-8", "replace")).hexdigest()[:16]
    return f"{name_of(content)}~{digest}"


def revision_key_of(content: MessageContent) -> SeenKey:
    """Return the key under which an edit or a removal is remembered."""
    return (content.channel, content.account, revision_of(content))


def key_of(content: MessageContent) -> SeenKey:
    """Return the key under which `content` is remembered."""
    return (content.channel, content.account, name_of(content))
