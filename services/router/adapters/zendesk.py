"""Zendesk: whose ticket it is, its group, and a tag that says that Signalbox decided it.

Sources: Zendesk's developer pages on tickets (show, update, `safe_update` with `updated_stamp` and its 409), on searching
users and on OAuth's client credentials. API tokens are being withdrawn there; an OAuth client is the way to go.

Updating is not idempotent by a key, but says how things shall be: the ticket is read, and written only where it differs,
and only as it was read. Tags are replaced as a whole, which is why the stamp matters. Nothing was tried against a live
account.
"""

from typing import Annotated, Any, Final, Self

import msgspec
from pydantic import Field, StringConstraints, model_validator

from services.router.adapters.api import (
    CHANGED,
    UNCHANGED,
    Login,
    PlaceApi,
    Vendor,
    bearer,
    called,
    number,
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

TAGS_MAX: Final = 1000
"""A ticket with more is left without ours rather than rewritten."""


class Settings(Desk):
    """A Zendesk account: an OAuth client with `read` and `write` (`client_id`, `client_secret`), or `email` and `api_token`.

    `tag` is set on each ticket that we assign; empty sets none.
    """

    USER = r"^(?:\d{1,20}|[^@\s]+@[^@\s]+)$"
    USER_SAID = "a user's id or mail address"

    url: ApiAddress
    client_id: str = ""
    client_secret: SecretReference | None = None
    email: str = ""
    api_token: SecretReference | None = None
    tag: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_/-]{0,100}$")] = Field(default="")

    @model_validator(mode="after")
    def _can_log_in(self) -> Self:  # noqa: N804 - an "after" validator gets the model itself
        has_client = bool(self.client_id) and self.client_secret is not None
        has_token = bool(self.email) and self.api_token is not None
        if not has_client and not has_token:
            raise ValueError("needs client_id and client_secret, or email and api_token")
        return self


class Ticket(msgspec.Struct, frozen=True):
    """A ticket, as far as it is ours to change."""

    updated_at: str
    assignee_id: str | None = None
    group_id: str | None = None
    tags: tuple[str, ...] = ()
    status: str = ""


class _Shown(msgspec.Struct, frozen=True):
    ticket: Ticket


class _User(msgspec.Struct, frozen=True):
    id: str
    email: str | None = None


class _Found(msgspec.Struct, frozen=True):
    users: tuple[_User, ...] = ()


async def _login(api: PlaceApi) -> Login:
    settings = setting(api, Settings)
    if settings.client_secret is None:
        return {"auth": (f"{settings.email}/token", api.secret("api_token"))}
    form = {
        "grant_type": "client_credentials",
        "client_id": settings.client_id,
        "client_secret": api.secret("client_secret"),
        "scope": "read write",
    }
    return {"headers": bearer(await api.token(f"{settings.url}/oauth/tokens", form))}


async def _user(api: PlaceApi, login: Login, user: str) -> str:
    async def find() -> list[tuple[str, str | None]]:
        url = f"{setting(api, Settings).url}/api/v2/users/search.json"
        found = shaped(await api.get(url, params={"query": user}, **login), _Found)
        return [(one.id, one.email) for one in found.users]

    return await user_id(api, user, find)


async def tell(api: PlaceApi, call: Call) -> Done:
    """Make the ticket show whose it is.

    Raises:
        Problem: it could not be made to, and what that means.
    """
    assign, settings = called(call, Assign), setting(api, Settings)
    login = await _login(api)
    user = assign.user
    if user:
        user = await _user(api, login, user)
    url = f"{settings.url}/api/v2/tickets/{segment(assign.thread)}.json"
    ticket = shaped(await api.get(url, **login), _Shown).ticket
    wanted: dict[str, Any] = {}
    if user is not None and (ticket.assignee_id or "") != user:
        wanted["assignee_id"] = number(user) if user else None
    if assign.group is not None and ticket.group_id != assign.group:
        wanted["group_id"] = number(assign.group)
    if user and settings.tag and settings.tag not in ticket.tags and len(ticket.tags) < TAGS_MAX:
        wanted["tags"] = [*ticket.tags, settings.tag]
    if not wanted:
        return UNCHANGED
    if ticket.status == "closed":
        refuse(Reason.CLOSED, "status")
    guarded = {**wanted, "safe_update": True, "updated_stamp": ticket.updated_at}
    await api.call("PUT", url, json={"ticket": guarded}, **login)
    return CHANGED


VENDOR: Final = Vendor("zendesk", Settings, tell)
