"""Intercom: a notice as an admin's comment in the customer's conversation, shown in the Messenger and mailed by Intercom.

Sources: Intercom's reference and its own client libraries on replying to a conversation (`POST /conversations/{id}/reply`
with `message_type: comment`, `type: admin`, `admin_id` and `body`; the answer is the conversation with its parts), on
retrieving one (up to 500 parts), on the header `Intercom-Version`, on error codes and on rate limits. A comment's body is
plain text there; HTML is promised for notes only. There is no idempotency key, and nothing of ours stays with a part: an
interrupted reply is looked up by its words among the parts of our admin. A conversation that began on X may be public, so it
is read first and refused.

Believed and not confirmed: that line breaks of the text stay, 409 for a conversation that another call was changing. Nothing
was tried against a live account.
"""

from typing import Any, ClassVar, Final

import msgspec
from pydantic import Field

from services.notifier.adapters import helpdesk
from services.notifier.adapters.provider import Answer, Api, Problem, Provider, later
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "Intercom"
TEXT_MAX: Final = 10_000
"""Characters of a comment (an own bound)."""
PUBLIC: Final = frozenset({"twitter"})
"""The `source.type` of conversations that others may read."""

_OF_ACCOUNT: Final = frozenset({
    "admin_not_found", "intercom_version_invalid", "token_not_found", "token_revoked", "token_expired", "token_unauthorized",
    "token_suspended", "token_blocked", "unauthorized", "action_forbidden", "api_plan_restricted",
})  # fmt: skip
_GONE: Final = frozenset({"not_found", "conversation_not_found"})


class Settings(AccountSettings):
    """An Intercom workspace."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "access_token": "env:INTERCOM_TOKEN",
        "admin_id": "880123",
    }

    url: ApiAddress = "https://api.intercom.io"
    """The region's address: `api.intercom.io`, `api.eu.intercom.io` or `api.au.intercom.io`."""
    access_token: SecretReference
    """The app's access token; it has to be allowed to read and write conversations."""
    admin_id: str = Field(pattern=r"^[0-9]{1,20}$")
    """The admin in whose name notices are written; the same id stands in the channel's `own_ids`."""
    api_version: str = Field(default="2.11", pattern=r"^[0-9A-Za-z.]{1,20}$")
    """The version of the API that is asked for."""


TRAITS: Final = Traits(
    channels=frozenset({"intercom"}),
    form="text",
    addressing="thread",
    can_find=True,
    text_max=TEXT_MAX,
)


class _Author(msgspec.Struct, frozen=True):
    id: str | int | None = None
    type: str | None = None


class _Part(msgspec.Struct, frozen=True):
    id: str | int | None = None
    part_type: str | None = None
    body: str | None = None
    created_at: int | None = None
    author: _Author | None = None


class _Parts(msgspec.Struct, frozen=True):
    conversation_parts: tuple[_Part, ...]
    total_count: int = 0


class _Source(msgspec.Struct, frozen=True):
    type: str | None = None


class _Shown(msgspec.Struct, frozen=True):
    source: _Source | None = None


class _Conversation(msgspec.Struct, frozen=True):
    conversation_parts: _Parts


def _login(api: Api) -> dict[str, str]:
    version = helpdesk.settings_of(api, Settings).api_version
    return {**helpdesk.bearer(api.secret("access_token")), "Intercom-Version": version}


def _explain(answer: Answer) -> Failed | Unknown | None:
    """Return what a refusal means, by Intercom's error codes."""
    body = answer.body if isinstance(answer.body, dict) else {}
    errors = body.get("errors")
    codes = {
        str(one.get("code")) for one in errors if isinstance(one, dict)
    } if isinstance(errors, list) else set()  # fmt: skip
    wrong = sorted(codes & _OF_ACCOUNT)
    if wrong and answer.status < 500:
        reason = f"{VENDOR}: {wrong[0]}"
        return Failed(reason, is_recoverable=True, trouble=Trouble.ACCOUNT)
    if answer.status in (404, 410) or codes & _GONE:
        return helpdesk.over(f"{VENDOR}: the conversation is gone")
    if answer.status == 409:
        reason = f"{VENDOR}: the conversation was being changed"
        return Failed(reason, is_recoverable=True, trouble=Trouble.PROVIDER)
    return None


def _written(conversation: _Conversation, settings: Settings) -> list[helpdesk.Written]:
    """Return the comments of our admin."""
    return [
        helpdesk.Written(helpdesk.id_of(one.id), helpdesk.instant(one.created_at), one.body or "")
        for one in conversation.conversation_parts.conversation_parts
        if one.part_type == "comment"
        and one.author is not None
        and one.author.type == "admin"
        and helpdesk.id_of(one.author.id) == settings.admin_id
    ]


def _url(api: Api, post: Post) -> str:
    number = helpdesk.number_of(post, VENDOR, "conversation")
    return f"{helpdesk.settings_of(api, Settings).url}/conversations/{number}"


async def send(api: Api, post: Post) -> Delivered:
    """Write the notice into the customer's conversation as an admin's comment.

    Raises:
        Problem: it could not be written, and what that means.
    """
    settings = helpdesk.settings_of(api, Settings)
    reply = {
        "message_type": "comment",
        "type": "admin",
        "admin_id": settings.admin_id,
        "body": helpdesk.fitting(post, VENDOR, TEXT_MAX),
    }
    url, headers = _url(api, post), _login(api)
    answer = await api.call("GET", url, headers=headers, explain=_explain)
    source = helpdesk.shaped(answer, _Shown, VENDOR).source
    if source is None or source.type is None:
        later(f"{VENDOR}: the conversation is not shown with its source, and others may read it")
    if source.type in PUBLIC:
        raise Problem(helpdesk.over(f"{VENDOR}: others may read what is written there"))
    answer = await api.call(
        "POST", f"{url}/reply", is_making=True, json=reply, headers=headers, explain=_explain
    )
    return helpdesk.taken(answer, _Conversation, lambda made: _new_part(made, post, settings))


def _new_part(told: _Conversation, post: Post, settings: Settings) -> str:
    """Return the id of the part that a reply made: the newest with its words; empty where none is shown."""
    words = helpdesk.compact(post.text, is_html=False)
    same = [
        one
        for one in _written(told, settings)
        if helpdesk.compact(one.text, is_html=one.is_html) == words
    ]
    return same[-1].message_id if same else ""


async def find(api: Api, post: Post) -> Delivered | None:
    """Look for the notice among the comments of our admin.

    Raises:
        Problem: it could not be told.
    """
    settings = helpdesk.settings_of(api, Settings)
    answer = await api.call("GET", _url(api, post), headers=_login(api), explain=_explain)
    conversation = helpdesk.shaped(answer, _Conversation, VENDOR)
    found = helpdesk.sought(post, _written(conversation, settings), VENDOR)
    parts = conversation.conversation_parts
    if found is None and parts.total_count > len(parts.conversation_parts):
        raise helpdesk.not_told(VENDOR)
    return found


PROVIDER: Final = Provider(
    name="intercom",
    settings=Settings,
    traits=TRAITS,
    send=send,
    find=find,
    renew=(
        "the app's access token (Developer Hub, Authentication) with read and write access to conversations, and that the"
        " admin of admin_id exists"
    ),
)
