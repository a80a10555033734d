"""Help Scout: a notice as a reply in the customer's conversation, which Help Scout mails to them.

Sources: Help Scout's developer pages on creating a reply thread (`POST /v2/conversations/{id}/reply` with `customer` and
`text`; `user` writes it; a reply makes the conversation active unless `status` is given; 201 with the thread's id in the
header `Resource-Id`), on getting a conversation (301 with its new place for 60 days after a merge), on listing threads, on
OAuth and on rate limits (writes count double). There is no idempotency key and nothing of ours can be attached to a thread,
so an interrupted reply is looked up by its words among what our user wrote.

Believed and not confirmed: 412 for a conversation that is locked (a hundred threads, or too old), which states of a thread
were sent (`published`). 504 is said to be safe to repeat; it is not relied on, for the look-up tells it better. Nothing was
tried against a live account.
"""

import re
from typing import Any, ClassVar, Final, Literal

import msgspec
from pydantic import Field

from services.notifier.adapters import helpdesk
from services.notifier.adapters.provider import Answer, Api, Problem, Provider, refuse
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "Help Scout"
PAGES_MAX: Final = 5
"""Pages of threads that a look-up reads; a conversation takes a hundred threads, a page holds at least 25."""

_MERGED_INTO: Final = re.compile(r"/v2/conversations/(\d{1,20})$")


class Settings(AccountSettings):
    """A Help Scout account: an OAuth application of it, and the user in whose name notices are written."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "client_id": "hs-application-id",
        "client_secret": "env:HELPSCOUT_CLIENT_SECRET",
        "user_id": "256",
    }

    url: ApiAddress = "https://api.helpscout.net"
    """The API's address."""
    client_id: str = Field(min_length=1)
    """The OAuth application's id."""
    client_secret: SecretReference
    """The OAuth application's secret."""
    user_id: str = Field(pattern=r"^[0-9]{1,20}$")
    """The Help Scout user in whose name notices are written; the same id stands in the channel's `own_ids`."""
    answered_status: Literal["active", "pending", "closed"] = "pending"
    """The status a conversation gets with an agent's answer. Automatic notices keep the one that it has."""


TRAITS: Final = Traits(
    channels=frozenset({"helpscout"}),
    form="html",
    addressing="thread",
    can_find=True,
    text_max=helpdesk.TEXT_MAX,
)


class _Person(msgspec.Struct, frozen=True):
    id: str | int | None = None
    type: str | None = None


class _Conversation(msgspec.Struct, frozen=True, rename="camel"):
    status: str = ""
    primary_customer: _Person | None = None


class _Thread(msgspec.Struct, frozen=True, rename="camel"):
    id: str | int | None = None
    type: str | None = None
    state: str | None = None
    body: str | None = None
    created_by: _Person | None = None
    created_at: str | None = None


class _Threads(msgspec.Struct, frozen=True):
    threads: tuple[_Thread, ...]


class _Numbers(msgspec.Struct, frozen=True, rename="camel"):
    total_pages: int


class _Page(msgspec.Struct, frozen=True, rename={"embedded": "_embedded"}):
    embedded: _Threads
    page: _Numbers


async def _login(api: Api) -> dict[str, str]:
    settings = helpdesk.settings_of(api, Settings)
    form = {
        "grant_type": "client_credentials",
        "client_id": settings.client_id,
        "client_secret": api.secret("client_secret"),
    }
    return helpdesk.bearer(await api.token(f"{settings.url}/v2/oauth2/token", form))


def _explain(answer: Answer) -> Failed | Unknown | None:
    """Return what a refusal means."""
    if answer.status in (301, 404, 410):
        return helpdesk.over(f"{VENDOR}: the conversation is gone")
    if answer.status == 412:
        return helpdesk.over(f"{VENDOR}: the conversation is locked and takes no more replies")
    return None


async def _conversation(api: Api, post: Post, headers: dict[str, str]) -> tuple[str, _Conversation]:
    """Return the conversation's address and itself; one that was merged into another is followed there, once."""
    base = f"{helpdesk.settings_of(api, Settings).url}/v2/conversations"
    url = f"{base}/{helpdesk.number_of(post, VENDOR, 'conversation')}"
    moved: list[str] = []

    def explain(answer: Answer) -> Failed | Unknown | None:
        found = _MERGED_INTO.search(answer.headers.get("location", ""))
        if answer.status == 301 and found is not None:
            moved.append(found.group(1))
        return _explain(answer)

    try:
        answer = await api.call("GET", url, headers=headers, explain=explain)
    except Problem:
        if not moved:
            raise
        # Only the number is taken from what the vendor said: the address stays the account's own.
        url = f"{base}/{moved[0]}"
        answer = await api.call("GET", url, headers=headers, explain=_explain)
    return url, helpdesk.shaped(answer, _Conversation, VENDOR)


async def send(api: Api, post: Post) -> Delivered:
    """Write the notice into the customer's conversation as a reply.

    Raises:
        Problem: it could not be written, and what that means.
    """
    settings = helpdesk.settings_of(api, Settings)
    text = helpdesk.html_of(helpdesk.fitting(post, VENDOR))
    headers = await _login(api)
    url, conversation = await _conversation(api, post, headers)
    customer = helpdesk.id_of((conversation.primary_customer or _Person()).id)
    if not customer.isdigit():
        refuse(Trouble.MESSAGE, f"{VENDOR}: the conversation has no customer to reply to")
    status = conversation.status if post.is_automatic else settings.answered_status
    reply: dict[str, Any] = {
        "customer": {"id": int(customer)},
        "text": text,
        "user": int(settings.user_id),
    }
    if status in ("active", "pending", "closed", "open", "spam"):
        reply["status"] = status
    answer = await api.call(
        "POST", f"{url}/reply", is_making=True, json=reply, headers=headers, explain=_explain
    )
    return Delivered("taken", answer.headers.get("resource-id", ""))


async def find(api: Api, post: Post) -> Delivered | None:
    """Look for the notice among the replies of our user.

    Raises:
        Problem: it could not be told.
    """
    settings = helpdesk.settings_of(api, Settings)
    headers = await _login(api)
    url, _ = await _conversation(api, post, headers)
    for number in range(1, PAGES_MAX + 1):
        params = {"page": str(number)}
        answer = await api.call(
            "GET", f"{url}/threads", params=params, headers=headers, explain=_explain
        )
        page = helpdesk.shaped(answer, _Page, VENDOR)
        threads = page.embedded.threads
        if not threads and number == 1:
            raise helpdesk.not_shown(VENDOR)
        written = (
            helpdesk.Written(
                helpdesk.id_of(one.id), helpdesk.instant(one.created_at), one.body or ""
            )
            for one in threads
            if one.type == "message"
            and one.state in (None, "published")
            and one.created_by is not None
            and one.created_by.type != "customer"
            and helpdesk.id_of(one.created_by.id) == settings.user_id
        )
        found = helpdesk.sought(post, written, VENDOR)
        if found is not None:
            return found
        is_last = number >= page.page.total_pages or not threads
        if is_last or helpdesk.is_done([one.created_at for one in threads], post):
            return None
    raise helpdesk.not_told(VENDOR)


PROVIDER: Final = Provider(
    name="helpscout",
    settings=Settings,
    traits=TRAITS,
    send=send,
    find=find,
    renew=(
        "the OAuth application's secret (Your profile, My apps), and that the user of user_id exists and may reply in the"
        " inbox"
    ),
)
