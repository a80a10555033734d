"""Slack, by its Web API: one message a page, changed as the group changes, and told aloud where it got worse.

Facts from https://docs.slack.dev/reference/methods/chat.postMessage, chat.update and conversations.history, and from
https://docs.slack.dev/apis/web-api/rate-limits: failures come with status 200 and `ok: false` and an error's name, except too
many requests, which are 429 with Retry-After; text should stay below 4,000 characters; `&`, `<` and `>` are to be escaped;
an update notifies nobody.

What got worse, and a reminder, is therefore said as an answer to the page's message that the channel sees too. A message that
may be there already is looked for first, by the metadata that ours carry (scope `channels:history`; without it, or where the
channel has had hundreds of messages since, a page may be doubled after an answer was lost). An end that may not look says so
in a message of its own: a message that stays CRITICAL would be a lie.
"""

from typing import Any, Final

from services.sla.adapters.sending import (
    Answer,
    Attempted,
    Delivered,
    Failed,
    Outside,
    Refused,
    SecretMissing,
    detail,
    request,
    secret,
    trouble,
)
from services.sla.core.page_text import Message
from services.sla.core.pages import SlackReceiver
from services.sla.core.paging import Saying, is_worse

TEXT_MAX: Final = 3_900
EVENT_TYPE: Final = "signalbox_page"
LOOK_BACK: Final = "100"
LOOK_BACK_PAGES: Final = 5
"""Messages of the channel, and how often so many, in which a message that may be there is looked for."""
ANSWER_BYTES_MAX: Final = 2 * 1024 * 1024
"""A hundred long messages are above what other answers may have."""

PASSING: Final = frozenset(
    {
        "ratelimited",
        "rate_limited",
        "message_limit_exceeded",
        "internal_error",
        "fatal_error",
        "service_unavailable",
        "request_timeout",
        "team_added_to_org",
    }
)
"""Errors after which the same may be asked again. All others stay."""

UNKNOWN: Final = frozenset({"internal_error", "fatal_error", "request_timeout"})
"""Of those: some of the work may have been done."""

GONE: Final = frozenset({"message_not_found", "cant_update_message", "edit_window_closed"})
"""The message cannot be changed any more; what is to be said is said anew."""

CURES: Final = {
    "invalid_auth": "give the receiver's `token` anew",
    "not_authed": "give the receiver's `token` anew",
    "token_revoked": "give the receiver's `token` anew",
    "token_expired": "give the receiver's `token` anew",
    "account_inactive": "give the token of an app that is still installed",
    "missing_scope": "give the app the scope chat:write",
    "channel_not_found": "set `channel` to the channel's id, and invite the app if it is private",
    "not_in_channel": "invite the app to the channel",
    "is_archived": "set `channel` to one that is not archived",
    "restricted_action": "allow the app to post in the channel",
}


async def send(message: Message, receiver: SlackReceiver, outside: Outside) -> Attempted:
    """Post the page's message, or change it."""
    try:
        slack = _Slack(outside, receiver, secret(receiver.token))
    except SecretMissing as error:
        return Failed(str(error))
    ref = message.page.ref
    if not ref and message.is_retry:
        found = await slack.find(message, _payload(message))
        if isinstance(found, Failed):
            return found
        if found == "" and message.saying is Saying.RESOLVE:
            return Delivered()  # It never was there.
        ref = found or ""
    if not ref:
        return await slack.post(message)
    changed = await slack.update(message, ref)
    if isinstance(changed, Refused) and changed.reason in GONE:
        return await slack.post(message)
    is_aloud = message.saying is Saying.REPEAT or is_worse(message.severity, message.page.severity)
    if isinstance(changed, Delivered) and is_aloud and message.page.ref:
        said = await slack.answer(message, ref)
        return changed if isinstance(said, Delivered) else said
    return changed


class _Slack:
    """One receiver's channel."""

    def __init__(self, outside: Outside, receiver: SlackReceiver, token: str) -> None:
        self._client = outside.client
        self._url = receiver.url.rstrip("/")
        self._channel = receiver.channel
        self._token = token

    async def post(self, message: Message, thread: str = "") -> Attempted:
        """Say it, as an answer to `thread` if that is given."""
        body: dict[str, Any] = {
            "channel": self._channel,
            "text": text(message),
            "unfurl_links": False,
            "unfurl_media": False,
            "metadata": {"event_type": EVENT_TYPE, "event_payload": _payload(message)},
        }
        if thread:
            body["metadata"]["event_payload"] = _answers_payload(message)
            body |= {"thread_ts": thread, "reply_broadcast": True}
        answer = await self._ask("POST", "chat.postMessage", body=body)
        if not isinstance(answer, dict):
            return answer
        return Delivered(str(answer.get("ts", "")))

    async def answer(self, message: Message, thread: str) -> Attempted:
        """Say it as an answer to `thread`, unless that is there already."""
        found: str | Failed | None = ""
        if message.is_retry:
            found = await self.find(message, _answers_payload(message))
        if isinstance(found, Failed):
            return found
        return Delivered(found) if found else await self.post(message, thread)

    async def update(self, message: Message, ref: str) -> Attempted:
        """Change the page's message."""
        body = {"channel": self._channel, "ts": ref, "text": text(message)}
        answer = await self._ask("POST", "chat.update", body=body)
        return Delivered(ref) if isinstance(answer, dict) else answer

    async def find(self, message: Message, payload: dict[str, Any]) -> str | Failed | None:
        """Return the name of the message that is there already: empty where none is, None where that cannot be told."""
        oldest = message.page.changed_at or message.since
        query = {
            "channel": self._channel,
            "include_all_metadata": "true",
            "limit": LOOK_BACK,
            "oldest": f"{oldest.timestamp() - 60:.6f}",
        }
        wanted = {"event_type": EVENT_TYPE, "event_payload": payload}
        for _ in range(LOOK_BACK_PAGES):
            answer = await self._ask("GET", "conversations.history", query=query)
            if isinstance(answer, Refused):
                return None
            if isinstance(answer, Failed):
                return answer
            messages = answer.get("messages")
            for one in messages if isinstance(messages, list) else ():
                if isinstance(one, dict) and one.get("metadata") == wanted:
                    return str(one.get("ts", ""))
            more = answer.get("response_metadata")
            cursor = more.get("next_cursor") if isinstance(more, dict) else None
            if not cursor:
                return ""
            query["cursor"] = str(cursor)
        return None

    async def _ask(
        self, method: str, name: str, *, body: Any = None, query: dict[str, str] | None = None
    ) -> dict[str, Any] | Failed | Refused:
        answer = await request(
            self._client,
            method,
            f"{self._url}/{name}",
            body=body,
            token=self._token,
            query=query,
            bytes_max=ANSWER_BYTES_MAX,
        )
        if isinstance(answer, Failed):
            return answer
        return trouble(answer) or self._read(answer)

    def _read(self, answer: Answer) -> dict[str, Any] | Failed | Refused:
        body = answer.json()
        if answer.status != 200 or not isinstance(body, dict):
            return Refused(
                f"answered {answer.status} and no JSON of Slack's",
                "set `url` to https://slack.com/api, or leave it out",
            )
        if body.get("ok") is True:
            return body
        error = detail(body.get("error", "no error named"), self._token)
        if error in PASSING:
            return Failed(f"said {error}", is_unknown=error in UNKNOWN)
        return Refused(error, CURES.get(error, "look the error up on Slack's page of the method"))


def _payload(message: Message) -> dict[str, Any]:
    return {"page": message.key, "episode": message.page.episode}


def _answers_payload(message: Message) -> dict[str, Any]:
    """What an answer carries: beside the page, which of its messages it repeats aloud."""
    return {**_payload(message), "number": message.page.number}


def text(message: Message) -> str:
    """The message as Slack shows it: the title in bold, the lines, the links."""
    notice = message.notice
    lines = [f"*{_escaped(notice.title)}*", *map(_escaped, notice.lines)]
    if notice.runbook:
        lines.append(f"<{_escaped(notice.runbook)}|Runbook>")
    said = "\n".join(lines)
    return said if len(said) <= TEXT_MAX else said[: TEXT_MAX - 1] + "…"


def _escaped(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
