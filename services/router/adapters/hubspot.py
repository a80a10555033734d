"""HubSpot: the owner of the ticket that belongs to a conversation.

Sources: HubSpot's reference on a conversation's thread (`association=TICKET` adds the ticket's id), on tickets of the CRM
(`hubspot_owner_id`; empty has no owner) and on owners. A thread's own assignee can be set only through an API that is in
beta; the ticket's owner is the stable way. Owners are not users: their ids differ. Teams follow the owner and cannot be
set, so there are no groups here. Nothing was tried against a live account.
"""

from typing import ClassVar, Final, Self

import msgspec
from pydantic import model_validator

from services.router.adapters.api import (
    CHANGED,
    UNCHANGED,
    Login,
    PlaceApi,
    Vendor,
    bearer,
    called,
    refuse,
    segment,
    setting,
    shaped,
    user_id,
)
from services.router.core.elsewhere.calls import Assign, Call
from services.router.core.elsewhere.decide import Done
from services.router.core.elsewhere.policy import ApiAddress, Desk, SecretReference
from services.router.core.elsewhere.state import Reason

OWNER: Final = "hubspot_owner_id"


class Settings(Desk):
    """A HubSpot account: `access_token` of a private app, or `client_id`, `client_secret` and `refresh_token`."""

    USER: ClassVar[str] = r"^(?:\d{1,20}|[^@\s]+@[^@\s]+)$"
    USER_SAID: ClassVar[str] = "an owner's id or mail address"

    url: ApiAddress = "https://api.hubapi.com"
    access_token: SecretReference | None = None
    client_id: str = ""
    client_secret: SecretReference | None = None
    refresh_token: SecretReference | None = None

    @model_validator(mode="after")
    def _can_log_in(self) -> Self:  # noqa: N804 - an "after" validator gets the model itself
        client = (self.client_id, self.client_secret, self.refresh_token)
        if self.access_token is None and not all(client):
            raise ValueError("needs access_token, or client_id, client_secret and refresh_token")
        if self.groups:
            raise ValueError("has groups, and HubSpot's teams cannot be set; leave groups out")
        return self


class _Associations(msgspec.Struct, frozen=True, rename="camel"):
    associated_ticket_id: str | None = None


class _Thread(msgspec.Struct, frozen=True, rename="camel"):
    thread_associations: _Associations | None = None


class _Ticket(msgspec.Struct, frozen=True):
    properties: dict[str, str | None]


class _Owner(msgspec.Struct, frozen=True):
    id: str
    email: str | None = None


class _Found(msgspec.Struct, frozen=True):
    results: tuple[_Owner, ...] = ()


async def _login(api: PlaceApi) -> Login:
    settings = setting(api, Settings)
    if settings.access_token is not None:
        return {"headers": bearer(api.secret("access_token"))}
    form = {
        "grant_type": "refresh_token",
        "client_id": settings.client_id,
        "client_secret": api.secret("client_secret"),
        "refresh_token": api.secret("refresh_token"),
    }
    return {"headers": bearer(await api.token(f"{settings.url}/oauth/v1/token", form))}


async def _owner(api: PlaceApi, login: Login, user: str) -> str:
    async def find() -> list[tuple[str, str | None]]:
        url = f"{setting(api, Settings).url}/crm/v3/owners"
        found = shaped(await api.get(url, params={"email": user}, **login), _Found)
        return [(one.id, one.email) for one in found.results]

    return await user_id(api, user, find)


async def _ticket_of(api: PlaceApi, login: Login, thread: str) -> str:
    """Return the id of the ticket that a conversation belongs to."""
    base = setting(api, Settings).url
    url = f"{base}/conversations/v3/conversations/threads/{segment(thread)}"
    found = shaped(await api.get(url, params={"association": "TICKET"}, **login), _Thread)
    ticket = found.thread_associations.associated_ticket_id if found.thread_associations else None
    return ticket or refuse(Reason.NO_TICKET)


async def tell(api: PlaceApi, call: Call) -> Done:
    """Make the conversation's ticket show who owns it.

    Raises:
        Problem: it could not be made to, and what that means.
    """
    assign = called(call, Assign)
    if assign.user is None:
        return UNCHANGED
    login = await _login(api)
    owner = await _owner(api, login, assign.user) if assign.user else ""
    ticket = await _ticket_of(api, login, assign.thread)
    url = f"{setting(api, Settings).url}/crm/v3/objects/tickets/{segment(ticket)}"
    shown = shaped(await api.get(url, params={"properties": OWNER}, **login), _Ticket)
    if (shown.properties.get(OWNER) or "") == owner:
        return UNCHANGED
    await api.call("PATCH", url, json={"properties": {OWNER: owner}}, **login)
    return CHANGED


VENDOR: Final = Vendor("hubspot", Settings, tell)
