"""Gorgias: whose ticket it is, and its team.

Sources: Gorgias' reference on retrieving and updating a ticket (`assignee_user`, `assignee_team`) and on listing users;
40 requests in 20 s with an API key, 429 with `Retry-After`. Believed and not confirmed: that null unassigns, that users are
found by `email`. Nothing was tried against a live account.
"""

from typing import Any, Final

import msgspec

from services.router.adapters.api import (
    CHANGED,
    UNCHANGED,
    Login,
    PlaceApi,
    Vendor,
    bearer,
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
    """A Gorgias account: `api_user` and `api_key` of the REST API; a key without a user is an OAuth access token."""

    USER = r"^(?:\d{1,20}|[^@\s]+@[^@\s]+)$"
    USER_SAID = "a user's id or mail address"

    url: ApiAddress
    api_user: str = ""
    api_key: SecretReference


class _Named(msgspec.Struct, frozen=True):
    id: str
    email: str | None = None


class _Ticket(msgspec.Struct, frozen=True):
    assignee_user: _Named | None = None
    assignee_team: _Named | None = None


class _Found(msgspec.Struct, frozen=True):
    data: tuple[_Named, ...] = ()


def _login(api: PlaceApi) -> Login:
    user, key = setting(api, Settings).api_user, api.secret("api_key")
    return {"auth": (user, key)} if user else {"headers": bearer(key)}


async def _user(api: PlaceApi, login: Login, user: str) -> str:
    async def find() -> list[tuple[str, str | None]]:
        url = f"{setting(api, Settings).url}/api/users"
        found = shaped(await api.get(url, params={"email": user}, **login), _Found)
        return [(one.id, one.email) for one in found.data]

    return await user_id(api, user, find)


async def tell(api: PlaceApi, call: Call) -> Done:
    """Make the ticket show whose it is.

    Raises:
        Problem: it could not be made to, and what that means.
    """
    assign = called(call, Assign)
    login = _login(api)
    user = assign.user
    if user:
        user = await _user(api, login, user)
    url = f"{setting(api, Settings).url}/api/tickets/{segment(assign.thread)}"
    ticket = shaped(await api.get(url, **login), _Ticket)
    wanted: dict[str, Any] = {}
    if user is not None and (ticket.assignee_user.id if ticket.assignee_user else "") != user:
        wanted["assignee_user"] = {"id": number(user)} if user else None
    team = ticket.assignee_team.id if ticket.assignee_team else ""
    if assign.group is not None and team != assign.group:
        wanted["assignee_team"] = {"id": number(assign.group)}
    if not wanted:
        return UNCHANGED
    await api.call("PUT", url, json=wanted, **login)
    return CHANGED


VENDOR: Final = Vendor("gorgias", Settings, tell)
