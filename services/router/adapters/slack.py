"""Slack: a message to an agent about an offer, or to a channel; what becomes of the offer changes that message.

Sources: Slack's reference on `chat.postMessage` and its `metadata`, `chat.update`, `conversations.open`,
`conversations.history` (`include_all_metadata`), `users.lookupByEmail`, and on rate limits (about one message a second and
channel; 429 with `Retry-After`). A bot token needs `chat:write`, `im:write`, `im:history` (`channels:history`,
`groups:history` for channels) and, where agents are named by address, `users:read.email`.

Every failure but throttling comes with status 200 and `ok: false`. Posting takes no idempotency key that is documented:
each message carries its marker as metadata, and one that may have been posted is looked for by it before another is. Apps
that are sold outside of Slack's marketplace may read a channel's history once a minute; then that look takes longer.
Nothing was tried against a live workspace.
"""

import re
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn

import msgspec
from pydantic import field_validator

from services.router.adapters.api import (
    PlaceApi,
    Problem,
    Vendor,
    bearer,
    called,
    is_address,
    later,
    refuse,
    setting,
    shaped,
    unknown,
)
from services.router.core.elsewhere.calls import Call, Message
from services.router.core.elsewhere.decide import Done
from services.router.core.elsewhere.policy import ApiAddress, Messenger, SecretReference
from services.router.core.elsewhere.state import Reason

EVENT_TYPE: Final = "signalbox_ticket"
LOOK_BACK: Final = timedelta(minutes=5)
"""How much earlier than our first try a message may be dated: their clock is not ours."""
PAGES_MAX: Final = 20
PAGE: Final = "100"

_CHANNEL: Final = re.compile(r"^[CG][A-Z0-9]{5,30}$")
_ERROR: Final = re.compile(r"^[a-z_]{1,60}$")
_MEANS: Final = {
    **dict.fromkeys(
        ("invalid_auth", "not_authed", "token_expired", "token_revoked", "account_inactive"),
        Reason.UNAUTHORIZED,
    ),
    **dict.fromkeys(
        ("missing_scope", "no_permission", "not_in_channel", "restricted_action", "access_denied"),
        Reason.FORBIDDEN,
    ),
    **dict.fromkeys(("channel_not_found", "message_not_found"), Reason.MISSING),
    **dict.fromkeys(
        ("user_not_found", "users_not_found", "user_disabled", "cannot_dm_bot"),
        Reason.USER_UNKNOWN,
    ),
    **dict.fromkeys(("is_archived", "cant_update_message", "edit_window_closed"), Reason.CLOSED),
}
_THROTTLED: Final = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
_HALF_WAY: Final = frozenset(
    {"internal_error", "fatal_error", "service_unavailable", "request_timeout"}
)
"""Errors after which nobody knows whether the thing was done."""


class Settings(Messenger):
    """A Slack workspace: a bot's token. `to` is `agent`, or the id of a channel that the bot is in."""

    USER = r"^(?:[UW][A-Z0-9]{4,30}|[^@\s]+@[^@\s]+)$"
    USER_SAID = "a member's id (U…) or mail address"

    url: ApiAddress = "https://slack.com/api"
    token: SecretReference

    @field_validator("to")
    @classmethod
    def _is_somewhere(cls, value: str) -> str:
        if value != "agent" and _CHANNEL.fullmatch(value) is None:
            raise ValueError("must be `agent`, or a channel's id such as C0123456789")
        return value


class _Said(msgspec.Struct, frozen=True):
    ok: bool = False
    error: str = ""


class _Channel(msgspec.Struct, frozen=True):
    id: str


class _Opened(msgspec.Struct, frozen=True):
    channel: _Channel


class _User(msgspec.Struct, frozen=True):
    id: str


class _Looked(msgspec.Struct, frozen=True):
    user: _User


class _Posted(msgspec.Struct, frozen=True):
    channel: str
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
    messages: tuple[_Message, ...] = ()
    has_more: bool = False
    response_metadata: _More = _More()


async def _ask(
    api: PlaceApi, verb: str, method: str, *, is_making: bool = False, **more: Any
) -> Any:
    url = f"{setting(api, Settings).url}/{method}"
    headers = bearer(api.secret("token"))
    answer = await api.call(verb, url, is_making=is_making, headers=headers, **more)
    try:
        said = shaped(answer, _Said)
    except Problem:
        if is_making:
            unknown(Reason.BAD_ANSWER, str(answer.status))
        raise
    if not said.ok:
        _refused(api, said.error, is_making=is_making)
    return answer


def _refused(api: PlaceApi, error: str, *, is_making: bool) -> NoReturn:
    detail = error if _ERROR.fullmatch(error) else ""
    if error in _THROTTLED:
        api.throttled(None)
    if error in _HALF_WAY:
        (unknown if is_making else later)(Reason.FAILED, detail)
    refuse(_MEANS.get(error, Reason.REFUSED), detail)


async def _channel(api: PlaceApi, recipient: str) -> str:
    """Return the id of the channel, or of the direct messages with the user, that a recipient means."""
    if _CHANNEL.fullmatch(recipient):
        return recipient
    known = api.known(recipient)
    if known is not None:
        return known
    user = recipient
    if is_address(recipient):
        answer = await _ask(api, "GET", "users.lookupByEmail", params={"email": recipient})
        user = shaped(answer, _Looked).user.id
    # Opening what is open already gives it again.
    answer = await _ask(api, "POST", "conversations.open", json={"users": user})
    return api.learn(recipient, shaped(answer, _Opened).channel.id)


async def _look(api: PlaceApi, channel: str, marker: str, since: datetime) -> str | None:
    """Return the timestamp of the message that carries the marker; None where there certainly is none."""
    cursor = ""
    for _ in range(PAGES_MAX):
        params = {
            "channel": channel,
            "oldest": f"{(since - LOOK_BACK).timestamp():.6f}",
            "inclusive": "true",
            "limit": PAGE,
            "include_all_metadata": "true",
            **({"cursor": cursor} if cursor else {}),
        }
        page = shaped(await _ask(api, "GET", "conversations.history", params=params), _History)
        for message in page.messages:
            told = message.metadata
            if told.event_type == EVENT_TYPE and told.event_payload.get("marker") == marker:
                return message.ts
        cursor = page.response_metadata.next_cursor
        if not page.has_more or not cursor:
            return None
    return later(Reason.FAILED, "history_too_long")


async def tell(api: PlaceApi, call: Call) -> Done:
    """Make the message read as it shall; the answer's handle is `channel/timestamp`.

    Raises:
        Problem: it could not be made to, and what that means.
    """
    message = called(call, Message)
    channel, _, stamp = message.handle.partition("/")
    if not stamp:
        channel = await _channel(api, message.recipient)
        if message.look_from is not None:
            stamp = await _look(api, channel, message.marker, message.look_from) or ""
    metadata = {"event_type": EVENT_TYPE, "event_payload": {"marker": message.marker}}
    body: dict[str, Any] = {"channel": channel, "text": message.text, "metadata": metadata}
    if stamp:
        await _ask(api, "POST", "chat.update", json={**body, "ts": stamp})
        return Done(f"{channel}/{stamp}")
    body |= {"unfurl_links": False, "unfurl_media": False}
    answer = await _ask(api, "POST", "chat.postMessage", is_making=True, json=body)
    try:
        posted = shaped(answer, _Posted)
    except Problem:
        unknown(Reason.BAD_ANSWER)
    return Done(f"{posted.channel}/{posted.ts}")


VENDOR: Final = Vendor("slack", Settings, tell)
