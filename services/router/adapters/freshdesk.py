"""Freshdesk: whose ticket it is (`responder_id`), and its group.

Sources: Freshdesk's API reference on viewing and updating a ticket and on listing agents by `email`; basic authentication
with the API key as user; 429 with `Retry-After`; a deleted ticket or one marked as spam is answered with 405. Believed and
not confirmed: that null takes the agent away. Nothing was tried against a live account.
"""

from typing import Any, Final

import msgspec

from services.router.adapters.api import (
    CHANGED,
    UNCHANGED,
    Login,
    PlaceApi,
    Vendor,
    called,
    number,
    segment,
    setting,
    shaped,
    user_id,
)
from services.router.core.elsewhere.calls import Assign, Call
from services.router.core.elsewhere.decide import Done
from services.router.core.elsewhere.policy import ApiAddress, Desk, SecretReference


class Settings(Desk):
    """A Freshdesk account: the API key of an agent who may assign tickets."""

    USER = r"^(?:\d{1,20}|[^@\s]+@[^@\s]+)$"
    USER_SAID = "an agent's id or mail address"

    url: ApiAddress
    api_key: SecretReference


class _Ticket(msgspec.Struct, frozen=True):
    responder_id: str | None = None
    group_id: str | None = None


class _Contact(msgspec.Struct, frozen=True):
    email: str | None = None


class _Agent(msgspec.Struct, frozen=True):
    id: str
    contact: _Contact = _Contact()


async def _user(api: PlaceApi, login: Login, user: str) -> str:
    async def find() -> list[tuple[str, str | None]]:
        url = f"{setting(api, Settings).url}/api/v2/agents"
        found = shaped(await api.get(url, params={"email": user}, **login), tuple[_Agent, ...])
        return [(one.id, one.contact.email) for one in found]

    return await user_id(api, user, find)


async def tell(api: PlaceApi, call: Call) -> Done:
    """Make the ticket show whose it is.

    Raises:
        Problem: it could not be made to, and what that means.
    """
    assign = called(call, Assign)
    login: Login = {"auth": (api.secret("api_key"), "X")}
    user = assign.user
    if user:
        user = await _user(api, login, user)
    url = f"{setting(api, Settings).url}/api/v2/tickets/{segment(assign.thread)}"
    ticket = shaped(await api.get(url, **login), _Ticket)
    wanted: dict[str, Any] = {}
    if user is not None and (ticket.responder_id or "") != user:
        wanted["responder_id"] = number(user) if user else None
    if assign.group is not None and ticket.group_id != assign.group:
        wanted["group_id"] = number(assign.group)
    if not wanted:
        return UNCHANGED
    await api.call("PUT", url, json=wanted, **login)
    return CHANGED


VENDOR: Final = Vendor("freshdesk", Settings, tell)
