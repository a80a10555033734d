"""Slack: a notice as our app's message in the customer's thread, found again by its metadata.

Sources: Slack's reference on `chat.postMessage` (text of at most 40,000 characters, 4,000 advised; `thread_ts`, `metadata`,
`mrkdwn`, `unfurl_links`), on `conversations.replies` and `conversations.history` (`include_all_metadata`), on formatting
(`&`, `<` and `>` are escaped, nothing else), and on rate limits (about one message a second and channel; 429 with
`Retry-After`). A bot token needs `chat:write`, and `channels:history`, `groups:history`, `im:history`, `mpim:history` for the
places that customers write in.

Every failure but throttling comes with status 200 and `ok: false`. Posting takes no idempotency key that is documented: each
message carries the notice's id as metadata, and one that may have been posted is looked for by it. A message's text is shown
as it was written, without Slack's markup. Apps that are sold outside of Slack's marketplace may read a thread once a minute;
then a look-up waits.

Believed and not confirmed: what each error is the trouble of. Nothing was tried against a live workspace.
"""

import re
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar, Final

import msgspec

from services.notifier.adapters import helpdesk
from services.notifier.adapters.provider import Answer, Api, Provider, refuse
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "Slack"
TEXT_MAX: Final = 40_000
"""Characters of a message, its escapes counted; Slack cuts what is longer."""
EVENT_TYPE: Final = "signalbox_notice"
LOOK_BACK: Final = timedelta(minutes=5)
"""How much earlier than the notice a message of it may be dated: their clock is not ours."""
PAGES_MAX: Final = 10
WAIT_MAX: Final = timedelta(days=1)
PAGE: Final = "100"

_CHANNEL: Final = re.compile(r"[CDG][A-Z0-9]{4,30}")
_STAMP: Final = re.compile(r"[0-9]{1,15}\.[0-9]{1,10}")
_ERROR: Final = re.compile(r"[a-z_]{1,60}")
_MEANS: Final = {
    **dict.fromkeys(
        (
            "invalid_auth",
            "not_authed",
            "token_expired",
            "token_revoked",
            "account_inactive",
            "missing_scope",
            "no_permission",
            "not_allowed_token_type",
            "access_denied",
            "ekm_access_denied",
            "team_access_not_granted",
            "metadata_must_be_sent_from_app",
        ),
        Trouble.ACCOUNT,
    ),
    **dict.fromkeys(
        (
            "channel_not_found",
            "not_in_channel",
            "is_archived",
            "restricted_action",
            "restricted_action_thread_locked",
            "restricted_action_thread_only_channel",
            "restricted_action_non_threadable_channel",
            "restricted_action_read_only_channel",
            "cannot_reply_to_message",
            "message_not_found",
            "thread_not_found",
            "user_not_found",
            "cannot_dm_bot",
        ),
        Trouble.ADDRESS,
    ),
}
_THROTTLED: Final = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
_HALF_WAY: Final = frozenset(
    {"internal_error", "fatal_error", "service_unavailable", "request_timeout"}
)
"""Errors after which nobody knows whether the thing was done."""


class Settings(AccountSettings):
    """A Slack workspace: a bot's token."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"token": "env:SLACK_BOT_TOKEN"}

    token: SecretReference
    """The bot's token, `xoxb-…`."""
    url: ApiAddress = "https://slack.com/api"
    """The API's address."""


TRAITS: Final = Traits(
    channels=frozenset({"slack"}),
    form="text",
    addressing="thread",
    can_find=True,
    text_max=TEXT_MAX,
)


class _Said(msgspec.Struct, frozen=True):
    ok: bool | None = None
    error: str = ""


class _Posted(msgspec.Struct, frozen=True):
    ts: str


class _Metadata(msgspec.Struct, frozen=True):
    event_type: str = ""
    event_payload: dict[str, Any] = {}


class _Message(msgspec.Struct, frozen=True):
    ts: str
    metadata: _Metadata = _Metadata()


class _More(msgspec.Struct, frozen=True):
    next_cursor: str = ""


class _History(msgspec.Struct, frozen=True):
    messages: tuple[_Message, ...]
    has_more: bool = False
    response_metadata: _More | None = None


def _place(post: Post) -> tuple[str, str]:
    """Return the channel and the thread's first message; that is empty in a direct conversation.

    Raises:
        Problem: the post's thread is none of Slack's.
    """
    channel, _, root = post.thread.partition(":")
    if not _CHANNEL.fullmatch(channel) or (root and not _STAMP.fullmatch(root)):
        refuse(Trouble.ADDRESS, f"{VENDOR}: the channel and thread to write in are not known")
    return channel, root


def escaped(text: str) -> str:
    """Return text with the three characters escaped that begin Slack's marks."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _explain(answer: Answer, *, is_making: bool) -> Failed | Unknown | None:
    """Return what an answer means that is no success; nearly all of them come with status 200."""
    if answer.status >= 300:
        return None
    said = helpdesk.made(answer, _Said)
    if said is not None and said.ok is True:
        return None
    if said is None or said.ok is None:
        reason = f"{VENDOR}: an answer of an unexpected shape"
        return Unknown(reason) if is_making else Failed(reason, True, trouble=Trouble.PROVIDER)
    reason = f"{VENDOR}: {said.error if _ERROR.fullmatch(said.error) else 'a nameless error'}"
    if said.error in _HALF_WAY and is_making:
        return Unknown(reason)
    if said.error in _THROTTLED or said.error in _HALF_WAY:
        return Failed(reason, True, _wait(answer), Trouble.PROVIDER)
    trouble = _MEANS.get(said.error, Trouble.MESSAGE)
    return Failed(reason, trouble is Trouble.ACCOUNT, trouble=trouble)


def _wait(answer: Answer) -> timedelta | None:
    wish = answer.headers.get("retry-after", "")
    if not (wish.isascii() and wish.isdigit()):
        return None
    return timedelta(seconds=int(wish)) if len(wish) <= 5 else WAIT_MAX


async def _ask(api: Api, verb: str, method: str, *, is_making: bool = False, **more: Any) -> Answer:
    return await api.call(
        verb,
        f"{helpdesk.settings_of(api, Settings).url}/{method}",
        is_making=is_making,
        headers=helpdesk.bearer(api.secret("token")),
        explain=partial(_explain, is_making=is_making),
        **more,
    )


async def send(api: Api, post: Post) -> Delivered:
    """Post the notice in the customer's thread.

    Raises:
        Problem: it was not taken, or nobody knows.
    """
    channel, root = _place(post)
    text = escaped(helpdesk.fitting(post, VENDOR, TEXT_MAX))
    if len(text) > TEXT_MAX:
        refuse(Trouble.MESSAGE, f"{VENDOR}: the text with its escapes is too long")
    body: dict[str, Any] = {
        "channel": channel,
        "text": text,
        "mrkdwn": False,
        "unfurl_links": False,
        "unfurl_media": False,
        "metadata": {"event_type": EVENT_TYPE, "event_payload": {"notice": post.key}},
    }
    if root:
        body["thread_ts"] = root
    answer = await _ask(api, "POST", "chat.postMessage", is_making=True, json=body)
    return helpdesk.taken(answer, _Posted, lambda made: f"{channel}:{made.ts}")


async def find(api: Api, post: Post) -> Delivered | None:
    """Look for the notice's id in the thread, from when the notice was made.

    Raises:
        Problem: it could not be told.
    """
    channel, root = _place(post)
    params = {
        "channel": channel,
        "oldest": f"{(post.date - LOOK_BACK).timestamp():.6f}",
        "limit": PAGE,
        "include_all_metadata": "true",
    }
    method = "conversations.history"
    if root:
        method, params = "conversations.replies", {**params, "ts": root}
    for _ in range(PAGES_MAX):
        answer = await _ask(api, "GET", method, params=params)
        page = helpdesk.shaped(answer, _History, VENDOR)
        for message in page.messages:
            mark = message.metadata
            if mark.event_type == EVENT_TYPE and mark.event_payload.get("notice") == post.key:
                return Delivered("found in the thread", f"{channel}:{message.ts}")
        if not page.has_more:
            return None
        cursor = page.response_metadata.next_cursor if page.response_metadata else ""
        if not cursor:
            raise helpdesk.not_told(VENDOR)
        params = {**params, "cursor": cursor}
    raise helpdesk.not_told(VENDOR)


PROVIDER: Final = Provider(
    name="slack",
    settings=Settings,
    traits=TRAITS,
    send=send,
    find=find,
    renew=(
        "the bot's token (api.slack.com/apps, OAuth & Permissions) with the scopes chat:write and channels:history,"
        " groups:history, im:history, mpim:history; after a new scope the app has to be installed again"
    ),
)
