"""Zoho Desk: a notice as a reply by mail in the customer's ticket.

Sources: Zoho Desk's OpenAPI description and reference: sending a reply (`POST /api/v1/tickets/{id}/sendReply`; `channel`,
`content` and `fromEmailAddress` are required, `contentType` is `html` or `plainText`; 200 with the thread, whose `status` is
SUCCESS, PENDING, FAILED or DRAFT), listing threads (newest first) and reading one, the header `orgId`; on OAuth (a self
client's refresh token, scopes `Desk.tickets.READ` and `Desk.tickets.UPDATE`) and on rate limits. There is no idempotency key
and nothing of ours stays with a thread: an interrupted reply is looked up by its words among what our agent sent.

A reply always goes by mail, also where the ticket began in another of Zoho's channels; a ticket without a mail address is
refused.

Believed and not confirmed: that a thread's `responderId` is the agent whose client sent it, the authorisation header's scheme (`Zoho-oauthtoken`), the form of a 422 (`errors`, each with
`fieldName`). Nothing was tried against a live account.
"""

from typing import Any, ClassVar, Final

import msgspec
from pydantic import Field

from services.notifier.adapters import helpdesk
from services.notifier.adapters.provider import Answer, Api, Problem, Provider, later, refuse
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "Zoho Desk"
THREADS_PAGE: Final = 100
"""Threads asked for in a look-up, the newest."""
LOOKED_AT_MAX: Final = 20
"""Threads of ours whose text a look-up reads, each by a call of its own."""


class Settings(AccountSettings):
    """A Zoho Desk portal: a self client with a refresh token."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "url": "https://desk.zoho.eu",
        "accounts_url": "https://accounts.zoho.eu",
        "org_id": "2389290",
        "client_id": "1000.SELFCLIENT",
        "client_secret": "env:ZOHO_CLIENT_SECRET",
        "refresh_token": "env:ZOHO_REFRESH_TOKEN",
        "from_address": "support@lantern-oak.example",
        "agent_id": "231057000000012345",
    }

    url: ApiAddress = "https://desk.zoho.com"
    """The data centre's address."""
    accounts_url: ApiAddress = "https://accounts.zoho.com"
    """Where that data centre gives out tokens."""
    org_id: str = Field(pattern=r"^[0-9]{1,30}$")
    """The organisation's id."""
    client_id: str = Field(min_length=1)
    """The self client's id."""
    client_secret: SecretReference
    """The self client's secret."""
    refresh_token: SecretReference
    """The self client's refresh token, with the scopes `Desk.tickets.READ` and `Desk.tickets.UPDATE`."""
    from_address: str = Field(pattern=r"^[^@\s<>\"]+@[^@\s<>\"]+$", max_length=254)
    """The address that replies come from, one of the portal's."""
    agent_id: str = Field(pattern=r"^[0-9]{1,30}$")
    """The agent who made the self client, in whose name replies are written; the same id stands in the channel's `own_ids`."""


TRAITS: Final = Traits(
    channels=frozenset({"zoho"}),
    form="html",
    addressing="thread",
    can_find=True,
    text_max=helpdesk.TEXT_MAX,
)


class _Ticket(msgspec.Struct, frozen=True):
    email: str | None = None


class _Author(msgspec.Struct, frozen=True):
    id: str | int | None = None


class _Thread(msgspec.Struct, frozen=True, rename="camel"):
    id: str | int | None = None
    status: str | None = None
    direction: str | None = None
    content: str | None = None
    content_type: str | None = None
    created_time: str | int | None = None
    from_email_address: str | None = None
    responder_id: str | int | None = None
    author: _Author | None = None


class _Threads(msgspec.Struct, frozen=True):
    data: tuple[_Thread, ...]


async def _login(api: Api) -> dict[str, str]:
    settings = helpdesk.settings_of(api, Settings)
    form = helpdesk.refresh_form(api, settings.client_id)
    token = await api.token(f"{settings.accounts_url}/oauth/v2/token", form)
    return {"Authorization": f"Zoho-oauthtoken {token}", "orgId": settings.org_id}


def _explain(answer: Answer) -> Failed | Unknown | None:
    """Return what a refusal means, by the field that Zoho names."""
    if answer.status in (404, 410):
        return helpdesk.over(f"{VENDOR}: the ticket is gone")
    if answer.status == 422:
        body = answer.body if isinstance(answer.body, dict) else {}
        errors = body.get("errors")
        fields = {
            str(one.get("fieldName", "")).strip("/") for one in errors if isinstance(one, dict)
        } if isinstance(errors, list) else set()  # fmt: skip
        if "fromEmailAddress" in fields:
            reason = f"{VENDOR}: from_address is not one of the portal's addresses"
            return Failed(reason, is_recoverable=True, trouble=Trouble.ACCOUNT)
        if "to" in fields:
            reason = f"{VENDOR}: the customer's mail address is not taken"
            return Failed(reason, is_recoverable=False, trouble=Trouble.ADDRESS)
    return None


def _place(api: Api, post: Post) -> str:
    url = helpdesk.settings_of(api, Settings).url
    return f"{url}/api/v1/tickets/{helpdesk.number_of(post, VENDOR)}"


async def send(api: Api, post: Post) -> Delivered:
    """Write the notice into the customer's ticket as a reply by mail.

    Raises:
        Problem: it could not be written, and what that means.
    """
    settings = helpdesk.settings_of(api, Settings)
    url, text = _place(api, post), helpdesk.fitting(post, VENDOR)
    headers = await _login(api)
    answer = await api.call("GET", url, headers=headers, explain=_explain)
    customer = (helpdesk.shaped(answer, _Ticket, VENDOR).email or "").strip()
    if not customer:
        raise Problem(helpdesk.over(f"{VENDOR}: the ticket has no mail address to answer to"))
    reply = {
        "channel": "EMAIL",
        "to": customer,
        "fromEmailAddress": settings.from_address,
        "contentType": "html",
        "content": helpdesk.html_of(text),
    }
    answer = await api.call(
        "POST", f"{url}/sendReply", is_making=True, json=reply, headers=headers, explain=_explain
    )
    made = helpdesk.made(answer, _Thread)
    if made is not None and made.status == "FAILED":
        refuse(Trouble.MESSAGE, f"{VENDOR}: the reply was taken and could not be mailed")
    return Delivered("taken", helpdesk.id_of(made.id) if made is not None else "")


async def find(api: Api, post: Post) -> Delivered | None:
    """Look for the notice among the ticket's threads that our agent sent.

    Raises:
        Problem: it could not be told.
    """
    settings = helpdesk.settings_of(api, Settings)
    url, headers = _place(api, post), await _login(api)
    params = {"limit": str(THREADS_PAGE)}
    answer = await api.call(
        "GET", f"{url}/threads", params=params, headers=headers, explain=_explain
    )
    listed = helpdesk.shaped(answer, _Threads, VENDOR).data
    if not listed:
        raise helpdesk.not_shown(VENDOR)
    ours = [one for one in listed if _is_ours(one, settings) and not _is_before(one, post)]
    written: list[helpdesk.Written] = []
    for one in ours[:LOOKED_AT_MAX]:
        number = helpdesk.id_of(one.id)
        place = f"{url}/threads/{helpdesk.segment(number)}"
        answer = await api.call("GET", place, headers=headers, explain=_explain)
        thread = helpdesk.shaped(answer, _Thread, VENDOR)
        if thread.content is None:
            later(f"{VENDOR}: a thread is not shown with its words")
        is_html = thread.content_type not in ("text/plain", "plainText")
        at = helpdesk.instant(one.created_time)
        written.append(helpdesk.Written(number, at, thread.content, is_html))
    found = helpdesk.sought(post, written, VENDOR)
    is_whole = len(listed) < THREADS_PAGE or helpdesk.is_done(
        [one.created_time for one in listed], post
    )
    if found is None and (len(ours) > LOOKED_AT_MAX or not is_whole):
        raise helpdesk.not_told(VENDOR)
    return found


def _is_ours(thread: _Thread, settings: Settings) -> bool:
    """Whether our agent sent a thread, or somebody unnamed from our address; a draft and what failed went nowhere."""
    if (thread.direction or "").lower() != "out" or thread.status in ("DRAFT", "FAILED"):
        return False
    agent = helpdesk.id_of(thread.responder_id) or helpdesk.id_of((thread.author or _Author()).id)
    if agent:
        return agent == settings.agent_id
    sender = (thread.from_email_address or "").lower()
    return not sender or settings.from_address.lower() in sender


def _is_before(thread: _Thread, post: Post) -> bool:
    return helpdesk.is_before(helpdesk.instant(thread.created_time), post)


PROVIDER: Final = Provider(
    name="zoho",
    settings=Settings,
    traits=TRAITS,
    send=send,
    find=find,
    renew=(
        "the self client's refresh token (Zoho API console) with the scopes Desk.tickets.READ and Desk.tickets.UPDATE, and"
        " that from_address is one of the portal's addresses"
    ),
)
