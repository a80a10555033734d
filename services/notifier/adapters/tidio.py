"""Tidio: a notice as an operator's public reply in the customer's ticket (Plus and Premium plans).

Sources: integrations that use Tidio's OpenAPI and agree: `POST /tickets/{id}/reply` with `author_type`, `operator_id`,
`content` and `message_type`, answered by 201 with the message's id; `GET /tickets/{id}` with the ticket's messages
(`author_type`, `author_id`, `message_content`, `created_at`); the two headers of a client's id and secret; `Accept` with the
API's version. Tidio tells the customer by mail. Live chats cannot be written in by that API, so only tickets are answered.

No idempotency key is documented. An interrupted reply is looked for by its words among the operator's messages in the
ticket.

Believed and not confirmed: the address (`api.tidio.com`; older integrations use another), the messages' ids, 10 to 120 calls
a minute by plan with a 429 that names no wait, the text's length. Nothing was tried against a live account.
"""

from typing import Any, ClassVar, Final

import msgspec
from pydantic import Field

from services.notifier.adapters import helpdesk
from services.notifier.adapters.provider import Answer, Api, Provider
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits

VENDOR: Final = "Tidio"
TEXT_MAX: Final = 10_000
"""Characters of a reply (ours; Tidio names no number)."""
ACCEPT: Final = "application/json; version=1"


class Settings(AccountSettings):
    """A Tidio project: an OpenAPI client of it, and the operator whose replies ours are."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "client_id": "ci_example",
        "client_secret": "env:TIDIO_CLIENT_SECRET",
        "operator_id": "b4c3717a-0000-4000-8000-000000000001",
    }

    client_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,100}$")
    """The client's id (Settings, Developer, OpenAPI)."""
    client_secret: SecretReference
    """The client's secret."""
    operator_id: str = Field(pattern=r"^[A-Za-z0-9-]{1,100}$")
    """The operator in whose name notices are written; the same id stands in the channel's `own_ids`."""
    url: ApiAddress = "https://api.tidio.com"
    """The API's address."""


TRAITS: Final = Traits(
    channels=frozenset({"tidio"}),
    form="text",
    addressing="thread",
    can_find=True,
    text_max=TEXT_MAX,
)


class _Taken(msgspec.Struct, frozen=True):
    id: str | int


class _Message(msgspec.Struct, frozen=True):
    id: str | int | None = None
    message_id: str | int | None = None
    author_type: str = ""
    author_id: str | None = None
    message_type: str = ""
    message_content: str | None = None
    created_at: str | int | None = None


class _Ticket(msgspec.Struct, frozen=True):
    messages: tuple[_Message, ...]


def _explain(answer: Answer) -> Failed | Unknown | None:
    if answer.status in (404, 410):
        return helpdesk.over(f"{VENDOR}: the ticket is gone")
    return None


def _login(api: Api) -> dict[str, str]:
    return {
        "Accept": ACCEPT,
        "X-Tidio-Openapi-Client-Id": helpdesk.settings_of(api, Settings).client_id,
        "X-Tidio-Openapi-Client-Secret": api.secret("client_secret"),
    }


async def send(api: Api, post: Post) -> Delivered:
    """Write the notice into the customer's ticket.

    Raises:
        Problem: it was not taken, or nobody knows.
    """
    settings = helpdesk.settings_of(api, Settings)
    ticket = helpdesk.number_of(post, VENDOR)
    answer = await api.call(
        "POST",
        f"{settings.url}/tickets/{ticket}/reply",
        is_making=True,
        headers=_login(api),
        json={
            "author_type": "operator",
            "operator_id": settings.operator_id,
            "content": helpdesk.fitting(post, VENDOR, TEXT_MAX),
            "message_type": "public",
        },
        explain=_explain,
    )
    return helpdesk.taken(answer, _Taken, lambda made: made.id)


async def find(api: Api, post: Post) -> Delivered | None:
    """Look for the words among what the operator wrote in the ticket.

    Raises:
        Problem: it could not be told.
    """
    settings = helpdesk.settings_of(api, Settings)
    url = f"{settings.url}/tickets/{helpdesk.number_of(post, VENDOR)}"
    answer = await api.call("GET", url, headers=_login(api), explain=_explain)
    ticket = helpdesk.shaped(answer, _Ticket, VENDOR)
    return helpdesk.sought(
        post,
        [
            helpdesk.Written(
                helpdesk.id_of(one.message_id if one.message_id is not None else one.id),
                helpdesk.instant(one.created_at),
                one.message_content or "",
                is_html="</" in (one.message_content or "") or "<br" in (one.message_content or ""),
            )
            for one in ticket.messages
            if one.author_type == "operator" and one.author_id in (None, settings.operator_id)
        ],
        VENDOR,
    )


PROVIDER: Final = Provider(
    name="tidio",
    settings=Settings,
    traits=TRAITS,
    send=send,
    find=find,
    renew=(
        "the OpenAPI client's id and secret (Settings, Developer, OpenAPI), that the plan has the OpenAPI, and that the"
        " operator of operator_id still exists"
    ),
)
