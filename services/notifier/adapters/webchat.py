"""Our own web chat: a notice as a message that the visitor's widget shows, now or when they come back.

The gateway keeps what widgets are shown; a notice goes to it by `POST /v1/widget/{account}/notices`, named by its id, so a
repeat changes nothing. An agent's own answer is shown by the gateway as soon as the ticket's event says so: it is not shown
again, and the gateway says whether the visitor's session is still there. A session that is over, or was forgotten, is
nobody's address any more.
"""

import re
from typing import Any, ClassVar, Final

import msgspec

from services.notifier.adapters import helpdesk
from services.notifier.adapters.provider import Answer, Api, Provider, refuse
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "web chat"
TEXT_MAX: Final = 20_000
"""Characters of a message; the gateway takes no longer ones."""

_SESSION: Final = re.compile(r"[0-9a-f]{32}")


class Settings(AccountSettings):
    """The gateway, and a key of it."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "url": "https://support.lantern-oak.example",
        "key": "env:SIGNALBOX_NOTIFIER_KEY",
    }

    url: ApiAddress
    """The gateway's address. The account's own name is that of the widget in `channels.yaml`."""
    key: SecretReference
    """A key of the gateway (`api_keys` in `channels.yaml`) with the scope `notices`."""


TRAITS: Final = Traits(
    channels=frozenset({"webchat"}),
    form="text",
    addressing="thread",
    is_keyed=True,
    text_max=TEXT_MAX,
)


class _Taken(msgspec.Struct, frozen=True):
    is_shown: bool
    n: int | None = None


def _explain(answer: Answer) -> Failed | Unknown | None:
    # Another 404 is the account's: the gateway knows no such chat, or `url` is not the gateway's.
    field = answer.body.get("field") if isinstance(answer.body, dict) else None
    if answer.status == 404 and field == "session":
        reason = f"{VENDOR}: the visitor's session is over"
        return Failed(reason, is_recoverable=False, trouble=Trouble.ADDRESS)
    return None


async def send(api: Api, post: Post) -> Delivered:
    """Have the visitor's widget show the notice.

    Raises:
        Problem: it was not taken.
    """
    settings = helpdesk.settings_of(api, Settings)
    if not _SESSION.fullmatch(post.thread):
        refuse(Trouble.ADDRESS, f"{VENDOR}: the visitor's session is not known")
    answer = await api.call(
        "POST",
        f"{settings.url}/v1/widget/{helpdesk.segment(post.account)}/notices",
        headers=helpdesk.bearer(api.secret("key")),
        json={
            "id": post.key,
            "session": post.thread,
            "occasion": post.occasion,
            "text": helpdesk.fitting(post, VENDOR, TEXT_MAX),
        },
        explain=_explain,
    )
    taken = helpdesk.made(answer, _Taken)
    if taken is not None and not taken.is_shown:
        return Delivered("the chat shows an agent's answer by itself", post.key)
    return Delivered("shown", post.key)


PROVIDER: Final = Provider(
    name="webchat",
    settings=Settings,
    traits=TRAITS,
    send=send,
    renew="the gateway's key (`api_keys` in channels.yaml) and its scope `notices`",
)
