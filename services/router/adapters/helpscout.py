"""Help Scout: whose conversation it is. A queue's group is a team, and a conversation is a user's or a team's.

Sources: Help Scout's developer pages on updating a conversation (a JSON Patch operation: `replace` or `remove` of
`/assignTo`, answered by 204), on getting one (301 with its new place for 60 days after a merge), on listing users and on
OAuth. Believed and not confirmed: that `/assignTo` takes a team's id as it takes a user's. Writes count double towards
the rate limit, which is another reason to read first. Nothing was tried against a live account.
"""

import re
from typing import Any, Final

import msgspec
from pydantic import Field

from chassis.vendor_api import Answer
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

_MERGED_INTO: Final = re.compile(r"/v2/conversations/(\d{1,20})$")


class Settings(Desk):
    """A Help Scout account: the id and secret of an OAuth application of it."""

    USER = r"^(?:\d{1,20}|[^@\s]+@[^@\s]+)$"
    USER_SAID = "a user's id or mail address"

    url: ApiAddress = "https://api.helpscout.net"
    client_id: str = Field(min_length=1)
    client_secret: SecretReference


class _Person(msgspec.Struct, frozen=True):
    id: str
    email: str | None = None


class _Conversation(msgspec.Struct, frozen=True):
    assignee: _Person | None = None


class _Users(msgspec.Struct, frozen=True):
    users: tuple[_Person, ...] = ()


class _Found(msgspec.Struct, frozen=True, rename={"embedded": "_embedded"}):
    embedded: _Users = _Users()


async def _login(api: PlaceApi) -> Login:
    settings = setting(api, Settings)
    form = {
        "grant_type": "client_credentials",
        "client_id": settings.client_id,
        "client_secret": api.secret("client_secret"),
    }
    return {"headers": bearer(await api.token(f"{settings.url}/v2/oauth2/token", form))}


async def _user(api: PlaceApi, login: Login, user: str) -> str:
    async def find() -> list[tuple[str, str | None]]:
        url = f"{setting(api, Settings).url}/v2/users"
        found = shaped(await api.get(url, params={"email": user}, **login), _Found)
        return [(one.id, one.email) for one in found.embedded.users]

    return await user_id(api, user, find)


async def _read(api: PlaceApi, login: Login, thread: str) -> tuple[str, Answer]:
    """Return a conversation's address and the conversation; one that was merged is followed once."""
    base = f"{setting(api, Settings).url}/v2/conversations"
    url = f"{base}/{segment(thread)}"
    answer = await api.get(url, redirects=True, **login)
    if answer.status < 300:
        return url, answer
    found = _MERGED_INTO.search(answer.headers.get("location", ""))
    if found is None:
        refuse(Reason.MISSING, str(answer.status))
    url = f"{base}/{found.group(1)}"
    return url, await api.get(url, **login)


async def tell(api: PlaceApi, call: Call) -> Done:
    """Make the conversation show whose it is.

    Raises:
        Problem: it could not be made to, and what that means.
    """
    assign = called(call, Assign)
    login = await _login(api)
    # A user or a team: whom it belongs to in the end.
    wanted = assign.user or assign.group or ""
    if assign.user:
        wanted = await _user(api, login, assign.user)
    url, answer = await _read(api, login, assign.thread)
    shown = shaped(answer, _Conversation).assignee
    if (shown.id if shown is not None else "") == wanted:
        return UNCHANGED
    patch: dict[str, Any] = {"op": "remove", "path": "/assignTo"}
    if wanted:
        patch = {"op": "replace", "path": "/assignTo", "value": number(wanted)}
    await api.call("PATCH", url, json=patch, **login)
    return CHANGED


VENDOR: Final = Vendor("helpscout", Settings, tell)
