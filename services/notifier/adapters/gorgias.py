"""Gorgias: a notice as a message in the customer's ticket, which Gorgias mails, found again by its external id.

Sources: Gorgias' developer pages on creating a message (`POST /api/tickets/{id}/messages`; without `sent_datetime` Gorgias
sends it, later than it answers), on the message object (`external_id` is free for us, `from_agent`, `source`), on listing
messages, on authentication and on rate limits (a leaky bucket, 40 calls in 20 seconds with a key; 429 with `Retry-After`).
There is no idempotency key: the notice's id is the message's `external_id`, and an interrupted send is looked up by it.

Tickets are answered by mail: those that came by it, and those of other channels that the settings name. What a message needs
on Gorgias' own chats and social channels is not documented well enough to write to customers with it, so their tickets are
refused, and the notice takes the next way.

Believed and not confirmed: that `sender` and `receiver` are taken by id, the filter `ticket_id` of the list of messages. That
a message was taken is not yet that it was mailed: Gorgias tells a failure by `failed_datetime`, later. Nothing was tried
against a live account.
"""

from typing import Any, ClassVar, Final

import msgspec
from pydantic import Field

from services.notifier.adapters import helpdesk
from services.notifier.adapters.provider import Answer, Api, Problem, Provider, unknown
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "Gorgias"
PREFIX: Final = "signalbox:"
"""What our messages' external ids begin with; the channel takes those for our own (`own_prefix`)."""
MESSAGES_PAGE: Final = 100
"""Messages a page, the most there are."""
PAGES_MAX: Final = 5


class Settings(AccountSettings):
    """A Gorgias account: a user's address and API key, or an OAuth access token."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "url": "https://lantern-oak.gorgias.com",
        "api_user": "support@lantern-oak.example",
        "api_key": "env:GORGIAS_API_KEY",
        "from_address": "support@lantern-oak.example",
        "from_name": "Lantern & Oak",
        "sender_id": "93",
    }

    url: ApiAddress
    """The account's address, `https://<domain>.gorgias.com`."""
    api_user: str = ""
    """The mail address that the API key belongs to; without one the key is an OAuth access token."""
    api_key: SecretReference
    """The API key, or the OAuth access token."""
    from_address: str = Field(pattern=r"^[^@\s<>\"]+@[^@\s<>\"]+$", max_length=254)
    """The address that notices come from: it must belong to one of the account's e-mail integrations."""
    from_name: str = Field(default="", max_length=100)
    """The name beside that address."""
    sender_id: str = Field(pattern=r"^[0-9]{1,18}$")
    """The Gorgias user in whose name notices are written."""
    answered_by_mail: tuple[str, ...] = ("email",)
    """Gorgias' channels whose tickets are answered by mail, such as `contact_form`; those of all others are refused."""


TRAITS: Final = Traits(
    channels=frozenset({"gorgias"}),
    form="html",
    addressing="thread",
    can_find=True,
    text_max=helpdesk.TEXT_MAX,
)


class _Customer(msgspec.Struct, frozen=True):
    id: str | int | None = None
    email: str | None = None
    name: str | None = None


class _Ticket(msgspec.Struct, frozen=True):
    channel: str | None = None
    subject: str | None = None
    customer: _Customer | None = None


class _Message(msgspec.Struct, frozen=True):
    id: str | int | None = None
    external_id: str | None = None
    created_datetime: str | None = None
    failed_datetime: str | None = None


class _Meta(msgspec.Struct, frozen=True):
    next_cursor: str | None = None


class _Page(msgspec.Struct, frozen=True):
    data: tuple[_Message, ...]
    meta: _Meta = _Meta()


def _login(api: Api) -> dict[str, Any]:
    settings = helpdesk.settings_of(api, Settings)
    key = api.secret("api_key")
    if settings.api_user:
        return {"basic": (settings.api_user, key)}
    return {"headers": helpdesk.bearer(key)}


def _explain(answer: Answer) -> Failed | Unknown | None:
    """Return what a refusal means."""
    if answer.status in (404, 410):
        return helpdesk.over(f"{VENDOR}: the ticket is gone")
    if answer.status == 400:
        body = answer.body if isinstance(answer.body, dict) else {}
        error = body.get("error")
        data = error.get("data") if isinstance(error, dict) else None
        if isinstance(data, dict) and set(data) & {"source", "sender"}:
            reason = f"{VENDOR}: from_address or sender_id is not taken"
            return Failed(reason, is_recoverable=True, trouble=Trouble.ACCOUNT)
    return None


async def send(api: Api, post: Post) -> Delivered:
    """Write the notice into the customer's ticket as a message that Gorgias mails.

    Raises:
        Problem: it could not be written, and what that means.
    """
    settings = helpdesk.settings_of(api, Settings)
    url = f"{settings.url}/api/tickets/{helpdesk.number_of(post, VENDOR)}"
    text, login = helpdesk.fitting(post, VENDOR), _login(api)
    answer = await api.call("GET", url, explain=_explain, **login)
    ticket = helpdesk.shaped(answer, _Ticket, VENDOR)
    customer = ticket.customer or _Customer()
    customer_id = helpdesk.id_of(customer.id)
    if ticket.channel not in settings.answered_by_mail:
        raise Problem(helpdesk.over(f"{VENDOR}: tickets of this channel are not answered by mail"))
    if not customer.email or not customer_id.isdigit():
        raise Problem(helpdesk.over(f"{VENDOR}: the ticket's customer has no mail address"))
    message = {
        "channel": "email",
        "via": "api",
        "from_agent": True,
        "public": True,
        "source": {
            "type": "email",
            "from": {"address": settings.from_address, "name": settings.from_name},
            "to": [{"address": customer.email, "name": customer.name or ""}],
        },
        "sender": {"id": int(settings.sender_id)},
        "receiver": {"id": int(customer_id)},
        "subject": helpdesk.answer_subject(ticket.subject or "", post.subject),
        "body_text": text,
        "body_html": helpdesk.html_of(text),
        "external_id": f"{PREFIX}{post.key}",
    }
    answer = await api.call(
        "POST", f"{url}/messages", is_making=True, json=message, explain=_explain, **login
    )
    return helpdesk.taken(answer, _Message, lambda made: made.id)


async def find(api: Api, post: Post) -> Delivered | None:
    """Look for the notice's external id among the ticket's messages.

    Raises:
        Problem: it could not be told.
    """
    settings = helpdesk.settings_of(api, Settings)
    login = _login(api)
    params = {
        "ticket_id": helpdesk.number_of(post, VENDOR),
        "order_by": "created_datetime:desc",
        "limit": str(MESSAGES_PAGE),
    }
    for _ in range(PAGES_MAX):
        answer = await api.call(
            "GET", f"{settings.url}/api/messages", params=params, explain=_explain, **login
        )
        page = helpdesk.shaped(answer, _Page, VENDOR)
        for one in page.data:
            if one.external_id == f"{PREFIX}{post.key}":
                if one.failed_datetime is not None:
                    unknown(f"{VENDOR}: it was taken and could not be mailed")
                return Delivered("found in the ticket", helpdesk.id_of(one.id))
        if not page.data and "cursor" not in params:
            raise helpdesk.not_shown(VENDOR)
        times = [one.created_datetime for one in page.data]
        if not page.meta.next_cursor or helpdesk.is_done(times, post):
            return None
        params = {**params, "cursor": page.meta.next_cursor}
    raise helpdesk.not_told(VENDOR)


PROVIDER: Final = Provider(
    name="gorgias",
    settings=Settings,
    traits=TRAITS,
    send=send,
    find=find,
    renew="the API key (Settings, REST API) and that from_address belongs to an e-mail integration",
)
