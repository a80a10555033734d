"""LiveChat (text.com): a notice as an agent's message in the customer's chat, found again by our own id of it.

Sources: text.com's Agent Chat API, version 3.6: `send_event` (`chat_id`, an `event` with `type`, `text`, `visibility` and our
`custom_id`, `attach_to_last_thread`), `list_threads`, personal access tokens as HTTP Basic with the account's id, and the
errors (`error.type`). A chat that is over takes the message into its last thread, where the customer finds it when they come
back; a new thread is not begun, for it would wait for an agent.

No idempotency key exists: nothing says that a second event of the same `custom_id` is dropped. It is what an interrupted
send is looked up by.

Believed and not confirmed: `visibility` (other versions call it `recipients`), the names of the errors, a text's length (16
KB are named in places), 180 calls a minute. LiveChat marks automatic messages only where a bot writes them. Nothing was
tried against a live account.
"""

import re
from typing import Any, ClassVar, Final

import msgspec
from pydantic import Field

from services.notifier.adapters import helpdesk
from services.notifier.adapters.provider import Answer, Api, Provider, refuse
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "LiveChat"
TEXT_MAX: Final = 5_000
"""Characters of a message (ours: three bytes each stay below 16 KB)."""
PREFIX: Final = "signalbox-"
"""How our ids of events begin; the channel's `own_custom_id_prefix` is the beginning of this."""
THREADS_MAX: Final = 20
"""Threads of a chat that a look-up reads, the newest first."""

_CHAT: Final = re.compile(r"[A-Za-z0-9]{1,40}")
_MEANS: Final = {
    "chat_inactive": (Trouble.WINDOW, "the chat is over and takes no message"),
    "customer_banned": (Trouble.ADDRESS, "the customer is banned"),
    "chat_anonymization_in_progress": (Trouble.ADDRESS, "the customer is being forgotten"),
    "not_found": (Trouble.WINDOW, "there is no such chat"),
    "misdirected_request": (Trouble.ACCOUNT, "the account is kept in another region than `region`"),
    "license_expired": (Trouble.ACCOUNT, "the licence has expired"),
    "wrong_product_version": (Trouble.ACCOUNT, "the licence has no such API"),
    "unsupported_version": (Trouble.ACCOUNT, "the API's version in `url` is gone"),
    "validation": (Trouble.MESSAGE, "the message is refused"),
    "entity_too_large": (Trouble.MESSAGE, "the message is too long"),
}


class Settings(AccountSettings):
    """A LiveChat licence: the account that we write as, and its personal access token."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "account_id": "9b3c1c50-0000-4000-8000-000000000001",
        "token": "env:LIVECHAT_TOKEN",
        "region": "fra",
    }

    account_id: str = Field(pattern=r"^[A-Za-z0-9-]{1,100}$")
    """The account's id, which the personal access token belongs to."""
    token: SecretReference
    """The personal access token, with the scopes `chats--all:rw` and `chats--access:rw`."""
    region: str = Field(default="", pattern=r"^(?:[a-z]{3})?$")
    """The region the licence is kept in (`dal`, `fra`), sent as `X-Region`; empty leaves that to LiveChat."""
    url: ApiAddress = "https://api.livechatinc.com/v3.6"
    """The API's address with its version."""


TRAITS: Final = Traits(
    channels=frozenset({"livechat"}),
    form="text",
    addressing="thread",
    can_find=True,
    text_max=TEXT_MAX,
)


class _Taken(msgspec.Struct, frozen=True):
    event_id: str


class _Event(msgspec.Struct, frozen=True):
    id: str | None = None
    custom_id: str | None = None


class _Thread(msgspec.Struct, frozen=True):
    created_at: str | None = None
    events: tuple[_Event, ...] | None = None


class _Threads(msgspec.Struct, frozen=True):
    threads: tuple[_Thread, ...]


def _chat(post: Post) -> str:
    if not _CHAT.fullmatch(post.thread):
        refuse(Trouble.ADDRESS, f"{VENDOR}: the chat to write in is not known by its id")
    return post.thread


def _explain(answer: Answer) -> Failed | Unknown | None:
    body = answer.body if isinstance(answer.body, dict) else {}
    error = body.get("error")
    name = error.get("type") if isinstance(error, dict) else None
    known = _MEANS.get(name) if isinstance(name, str) else None
    if known is None or answer.status >= 500:
        return None
    trouble, what = known
    return Failed(f"{VENDOR}: {what}", trouble is Trouble.ACCOUNT, trouble=trouble)


async def _ask(api: Api, method: str, body: dict[str, Any], *, is_making: bool = False) -> Answer:
    settings = helpdesk.settings_of(api, Settings)
    return await api.call(
        "POST",
        f"{settings.url}/agent/action/{method}",
        is_making=is_making,
        json=body,
        headers={"X-Region": settings.region} if settings.region else None,
        basic=(settings.account_id, api.secret("token")),
        explain=_explain,
    )


async def send(api: Api, post: Post) -> Delivered:
    """Write the notice into the customer's chat.

    Raises:
        Problem: it was not taken, or nobody knows.
    """
    event = {
        "type": "message",
        "text": helpdesk.fitting(post, VENDOR, TEXT_MAX),
        "custom_id": f"{PREFIX}{post.key}",
        "visibility": "all",
    }
    body = {"chat_id": _chat(post), "event": event, "attach_to_last_thread": True}
    answer = await _ask(api, "send_event", body, is_making=True)
    return helpdesk.taken(answer, _Taken, lambda made: made.event_id)


async def find(api: Api, post: Post) -> Delivered | None:
    """Look for our id in the chat's newest threads.

    Raises:
        Problem: it could not be told.
    """
    body = {"chat_id": _chat(post), "sort_order": "desc", "limit": THREADS_MAX}
    threads = helpdesk.shaped(await _ask(api, "list_threads", body), _Threads, VENDOR).threads
    for thread in threads:
        for event in thread.events or ():
            if event.custom_id == f"{PREFIX}{post.key}":
                return Delivered("found in the chat", event.id or "")
    times = [helpdesk.instant(one.created_at) for one in threads]
    oldest = min((at for at in times if at is not None), default=None)
    if len(threads) >= THREADS_MAX and not helpdesk.is_before(oldest, post):
        raise helpdesk.not_told(VENDOR)
    return None


PROVIDER: Final = Provider(
    name="livechat",
    settings=Settings,
    traits=TRAITS,
    send=send,
    find=find,
    renew=(
        "the personal access token (platform.text.com, Tools, Personal access tokens) with the scopes chats--all:rw and"
        " chats--access:rw, and that the licence is paid"
    ),
)
