"""Intercom: whose conversation it is, and its team.

Sources: Intercom's reference on retrieving a conversation (`admin_assignee_id`, `team_assignee_id`), on managing one
(`POST …/parts` with `message_type: assignment`; assignee `0` is nobody) and on listing admins. Each assignment adds a part
to the conversation, even one that changes nothing: hence it is read first. Nothing was tried against a live account.
"""

from typing import Annotated, Final

import msgspec
from pydantic import Field, StringConstraints

from services.router.adapters.api import (
    CHANGED,
    UNCHANGED,
    Login,
    PlaceApi,
    Vendor,
    bearer,
    called,
    segment,
    setting,
    shaped,
    user_id,
)
from services.router.core.elsewhere.calls import Assign, Call
from services.router.core.elsewhere.decide import Done
from services.router.core.elsewhere.policy import ApiAddress, Desk, SecretReference

NOBODY: Final = "0"


class Settings(Desk):
    """An Intercom workspace: its access token, the admin in whose name we assign, the region's address and the API version."""

    USER = r"^(?:\d{1,20}|[^@\s]+@[^@\s]+)$"
    USER_SAID = "an admin's id or mail address"

    url: ApiAddress = "https://api.intercom.io"
    access_token: SecretReference
    admin_id: Annotated[str, StringConstraints(pattern=r"^\d{1,20}$")]
    api_version: str = Field(default="2.11", pattern=r"^[0-9A-Za-z.]{1,20}$")


class _Conversation(msgspec.Struct, frozen=True):
    admin_assignee_id: str | None = None
    team_assignee_id: str | None = None


class _Admin(msgspec.Struct, frozen=True):
    id: str
    email: str | None = None


class _Found(msgspec.Struct, frozen=True):
    admins: tuple[_Admin, ...] = ()


async def _user(api: PlaceApi, login: Login, user: str) -> str:
    async def find() -> list[tuple[str, str | None]]:
        found = shaped(await api.get(f"{setting(api, Settings).url}/admins", **login), _Found)
        return [(one.id, one.email) for one in found.admins]

    return await user_id(api, user, find)


async def tell(api: PlaceApi, call: Call) -> Done:
    """Make the conversation show whose it is.

    Raises:
        Problem: it could not be made to, and what that means.
    """
    assign, settings = called(call, Assign), setting(api, Settings)
    login: Login = {
        "headers": {
            **bearer(api.secret("access_token")),
            "Intercom-Version": settings.api_version,
        }
    }
    user = assign.user
    if user:
        user = await _user(api, login, user)
    url = f"{settings.url}/conversations/{segment(assign.thread)}"
    shown = shaped(await api.get(url, **login), _Conversation)
    wanted: list[tuple[str, str]] = []
    # The team first: Intercom may take the admin away with a change of team.
    if assign.group is not None and (shown.team_assignee_id or NOBODY) != assign.group:
        wanted.append(("team", assign.group))
    if user is not None and (shown.admin_assignee_id or NOBODY) != (user or NOBODY):
        wanted.append(("admin", user or NOBODY))
    for kind, assignee in wanted:
        part = {
            "message_type": "assignment",
            "type": kind,
            "admin_id": settings.admin_id,
            "assignee_id": assignee,
        }
        await api.call("POST", f"{url}/parts", json=part, **login)
    return CHANGED if wanted else UNCHANGED


VENDOR: Final = Vendor("intercom", Settings, tell)
