"""Freshdesk: a notice as a reply in the customer's ticket, which Freshdesk mails to the requester.

Sources: Freshdesk's API reference on replying (`POST /api/v2/tickets/{id}/reply` with `body`, and `user_id`, `from_email`;
201), on listing a ticket's conversations, on errors (400 with `errors`, each with its `field` and `code`), on authentication
(the API key as a user, any password) and on rate limits (429 with `Retry-After`; refused calls count as well). There is no
idempotency key and nothing of ours stays with a reply; the search knows days only and lags behind. An interrupted reply is
looked up by its words among the replies of our agent. A ticket that came from a public place (a forum, X, a Facebook page) is
read off its `source` and refused, since others might read the reply.

Believed and not confirmed: the numbers of those sources (4, 5, 6), 405 for a ticket that is spam or deleted, `source` 0 for a reply, the order of conversations
(oldest first). Nothing was tried against a live account.
"""

from typing import Any, ClassVar, Final

import msgspec
from pydantic import Field

from services.notifier.adapters import helpdesk
from services.notifier.adapters.provider import Answer, Api, Problem, Provider, later
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "Freshdesk"
CONVERSATIONS_PAGE: Final = 100
"""Conversations a page (believed to be the most)."""
PAGES_MAX: Final = 10
NOTE: Final = 2
"""The `source` of a conversation that is a note."""

PUBLIC: Final = frozenset({4, 5, 6})
"""The `source` of tickets from a forum, from X and from a Facebook page."""

_OF_ACCOUNT: Final = frozenset({"user_id", "from_email"})


class Settings(AccountSettings):
    """A Freshdesk account."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "url": "https://lantern-oak.freshdesk.com",
        "api_key": "env:FRESHDESK_API_KEY",
        "user_id": "2043012345678",
        "from_email": "support@lantern-oak.example",
    }

    url: ApiAddress
    """The account's address, `https://<domain>.freshdesk.com`."""
    api_key: SecretReference
    """An agent's API key; the agent must be allowed to reply in the tickets."""
    user_id: str = Field(pattern=r"^[0-9]{1,18}$")
    """The agent in whose name notices are written; the same id stands in the channel's `own_ids`."""
    from_email: str = Field(default="", pattern=r"^(?:[^@\s<>\"]+@[^@\s<>\"]+)?$", max_length=254)
    """The support address that replies come from; empty: the ticket's own."""


TRAITS: Final = Traits(
    channels=frozenset({"freshdesk"}),
    form="html",
    addressing="thread",
    can_find=True,
    text_max=helpdesk.TEXT_MAX,
)


class _Ticket(msgspec.Struct, frozen=True):
    source: int | None = None
    spam: bool | None = None
    deleted: bool | None = None


class _Reply(msgspec.Struct, frozen=True):
    id: str | int | None = None


class _Conversation(msgspec.Struct, frozen=True):
    id: str | int | None = None
    body: str | None = None
    incoming: bool = False
    private: bool = False
    source: int | None = None
    user_id: str | int | None = None
    created_at: str | None = None


_REMOVED: Final = helpdesk.over(f"{VENDOR}: the ticket is spam or deleted and takes no replies")


def _explain(answer: Answer) -> Failed | Unknown | None:
    """Return what a refusal means, by the field that Freshdesk names."""
    if answer.status in (404, 410):
        return helpdesk.over(f"{VENDOR}: the ticket is gone")
    if answer.status == 405:
        return _REMOVED
    if answer.status == 400:
        body = answer.body if isinstance(answer.body, dict) else {}
        errors = body.get("errors")
        fields = {
            one.get("field") for one in errors if isinstance(one, dict)
        } if isinstance(errors, list) else set()  # fmt: skip
        wrong = sorted(str(field) for field in fields & _OF_ACCOUNT)
        if wrong:
            reason = f"{VENDOR}: {' and '.join(wrong)} is not taken"
            return Failed(reason, is_recoverable=True, trouble=Trouble.ACCOUNT)
    return None


def _login(api: Api) -> tuple[str, str]:
    return (api.secret("api_key"), "X")


async def send(api: Api, post: Post) -> Delivered:
    """Write the notice into the customer's ticket as a reply that Freshdesk mails.

    Raises:
        Problem: it could not be written, and what that means.
    """
    settings = helpdesk.settings_of(api, Settings)
    url = f"{settings.url}/api/v2/tickets/{helpdesk.number_of(post, VENDOR)}"
    reply: dict[str, Any] = {
        "body": helpdesk.html_of(helpdesk.fitting(post, VENDOR)),
        "user_id": int(settings.user_id),
    }
    if settings.from_email:
        reply["from_email"] = settings.from_email
    answer = await api.call("GET", url, basic=_login(api), explain=_explain)
    ticket = helpdesk.shaped(answer, _Ticket, VENDOR)
    if ticket.spam or ticket.deleted:
        raise Problem(_REMOVED)
    if ticket.source is None:
        later(f"{VENDOR}: the ticket is not shown with its source, and others may read it")
    if ticket.source in PUBLIC:
        raise Problem(helpdesk.over(f"{VENDOR}: others may read what is written in this ticket"))
    answer = await api.call(
        "POST",
        f"{url}/reply",
        is_making=True,
        json=reply,
        basic=_login(api),
        explain=_explain,
    )
    return helpdesk.taken(answer, _Reply, lambda made: made.id)


async def find(api: Api, post: Post) -> Delivered | None:
    """Look for the notice among the replies of our agent.

    Raises:
        Problem: it could not be told.
    """
    settings = helpdesk.settings_of(api, Settings)
    url = f"{settings.url}/api/v2/tickets/{helpdesk.number_of(post, VENDOR)}/conversations"
    written: list[helpdesk.Written] = []
    for number in range(1, PAGES_MAX + 1):
        params = {"per_page": str(CONVERSATIONS_PAGE), "page": str(number)}
        answer = await api.call("GET", url, params=params, basic=_login(api), explain=_explain)
        page = helpdesk.shaped(answer, tuple[_Conversation, ...], VENDOR)
        written += [
            helpdesk.Written(
                helpdesk.id_of(one.id), helpdesk.instant(one.created_at), one.body or ""
            )
            for one in page
            if not one.incoming
            and not one.private
            and one.source != NOTE
            and helpdesk.id_of(one.user_id) == settings.user_id
        ]
        if len(page) < CONVERSATIONS_PAGE:
            return helpdesk.sought(post, written, VENDOR)
    raise helpdesk.not_told(VENDOR)


PROVIDER: Final = Provider(
    name="freshdesk",
    settings=Settings,
    traits=TRAITS,
    send=send,
    find=find,
    renew=(
        "the agent's API key (Profile settings), that the agent of user_id may reply, and that from_email is one of the"
        " account's support addresses"
    ),
)
