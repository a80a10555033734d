"""A Slack workspace in memory: direct messages, channels, messages with metadata. Failures come with status 200, as there."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

NOW = 1_764_000_000
TEXT_MAX = 40_000


def unescaped(text: str) -> str:
    """Return a text as people read it, where nothing in it is a mark of Slack's."""
    assert "<" not in text and ">" not in text, "a mark of Slack's"  # noqa: PT018
    shown = text.replace("&lt;", "<").replace("&gt;", ">")
    assert "&" not in shown.replace("&amp;", ""), "an escape that is none"
    return shown.replace("&amp;", "&")


@dataclass
class Slack(desk.Desk):
    """Members by id, channels by id (a direct message's is D and the member's id), messages oldest first."""

    token: str = "xoxb-bot-token"
    members: dict[str, str] = field(default_factory=dict)
    channels: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    archived: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    page_max: int = 100
    now: float = NOW

    def server(self) -> Any:
        return self.app(
            {
                "/api/users.lookupByEmail": self._lookup,
                "/api/conversations.history": self._history,
                "/api/conversations.replies": self._replies,
            },
            write={
                ("POST", "/api/conversations.open"): self._open,
                ("POST", "/api/chat.postMessage"): self._post,
                ("POST", "/api/chat.update"): self._update,
            },
        )

    def messages(self) -> list[dict[str, Any]]:
        """All messages of all channels."""
        return [message for channel in self.channels.values() for message in channel]

    def posts(self) -> int:
        return sum(path.endswith("chat.postMessage") for _, path, _ in self.wrote)

    def _refusal(self, request: Request) -> Response | None:
        if desk.bearer(request) != self.token:
            return JSONResponse({"ok": False, "error": "invalid_auth"})
        if self.errors:
            return JSONResponse({"ok": False, "error": self.errors.pop(0)})
        return None

    async def _open(self, request: Request) -> Response:
        refusal = self._refusal(request)
        body = await desk.json_of(request)
        if refusal is None and (set(body) != {"users"} or body["users"] not in self.members):
            refusal = JSONResponse({"ok": False, "error": "user_not_found"})
        if refusal is not None:
            return refusal
        channel = f"D{body['users'][1:]}"
        self.channels.setdefault(channel, [])
        return JSONResponse({"ok": True, "already_open": True, "channel": {"id": channel}})

    async def _post(self, request: Request) -> Response:
        refusal = self._refusal(request)
        body = await desk.json_of(request)
        known = {"channel", "text", "metadata", "unfurl_links", "unfurl_media"}
        known |= {"thread_ts", "reply_broadcast", "mrkdwn"}
        if refusal is None and body["channel"] not in self.channels:
            refusal = JSONResponse({"ok": False, "error": "channel_not_found"})
        if refusal is None and body["channel"] in self.archived:
            refusal = JSONResponse({"ok": False, "error": "is_archived"})
        if refusal is None and (set(body) - known or not body["text"]):
            refusal = JSONResponse({"ok": False, "error": "invalid_arguments"})
        if refusal is None and len(body["text"]) > TEXT_MAX:
            refusal = JSONResponse({"ok": False, "error": "msg_too_long"})
        thread = body.get("thread_ts")
        threads = [m["ts"] for m in self.channels.get(body["channel"], []) if "thread_ts" not in m]
        is_reply = thread is not None or "reply_broadcast" in body
        if refusal is None and is_reply and thread not in threads:
            refusal = JSONResponse({"ok": False, "error": "thread_not_found"})
        if refusal is not None:
            return refusal
        stamp = f"{int(self.now) + len(self.messages())}.000100"
        message = {"type": "message", "ts": stamp, "text": body["text"]}
        if "metadata" in body:
            message["metadata"] = body["metadata"]
        if thread is not None:
            message["thread_ts"] = thread
        self.channels[body["channel"]].append(message)
        if body.get("metadata", {}).get("event_type") == "signalbox_notice":
            where = body["channel"] if thread is None else f"{body['channel']}:{thread}"
            shown = f"{body['channel']}:{stamp}"
            self.sent.append(desk.Sent(where, unescaped(body["text"]), id=shown))
        return JSONResponse({"ok": True, "channel": body["channel"], "ts": stamp})

    async def _update(self, request: Request) -> Response:
        refusal = self._refusal(request)
        body = await desk.json_of(request)
        if refusal is None and set(body) - {"channel", "ts", "text", "metadata"}:
            refusal = JSONResponse({"ok": False, "error": "invalid_arguments"})
        found = [m for m in self.channels.get(body["channel"], []) if m["ts"] == body["ts"]]
        if refusal is None and not found:
            refusal = JSONResponse({"ok": False, "error": "message_not_found"})
        if refusal is not None:
            return refusal
        found[0]["text"] = body["text"]
        return JSONResponse({"ok": True, "channel": body["channel"], "ts": body["ts"]})

    async def _lookup(self, request: Request) -> Response:
        refusal = self._refusal(request)
        wanted = request.query_params.get("email")
        found = [key for key, one in self.members.items() if one == wanted]
        if refusal is None and not found:
            refusal = JSONResponse({"ok": False, "error": "users_not_found"})
        return refusal or JSONResponse({"ok": True, "user": {"id": found[0]}})

    async def _history(self, request: Request) -> Response:
        found = self.channels.get(request.query_params.get("channel", ""), [])
        return self._listed(request, found[::-1])

    async def _replies(self, request: Request) -> Response:
        query = request.query_params
        found = self.channels.get(query.get("channel", ""), [])
        root = query.get("ts")
        if not any(message["ts"] == root for message in found):
            return JSONResponse({"ok": False, "error": "thread_not_found"})
        return self._listed(
            request, [one for one in found if root in (one["ts"], one.get("thread_ts"))]
        )

    def _listed(self, request: Request, messages: list[dict[str, Any]]) -> Response:
        refusal = self._refusal(request)
        query = request.query_params
        if refusal is None and query.get("channel") not in self.channels:
            refusal = JSONResponse({"ok": False, "error": "channel_not_found"})
        if refusal is not None:
            return refusal
        oldest = float(query.get("oldest", "0"))
        newest = [m for m in messages if float(m["ts"]) >= oldest]
        start, size = int(query.get("cursor", "0")), min(int(query["limit"]), self.page_max)
        page = [dict(message) for message in newest[start : start + size]]
        if query.get("include_all_metadata") != "true":
            for message in page:
                message.pop("metadata", None)
        has_more = start + size < len(newest)
        return JSONResponse(
            {
                "ok": True,
                "messages": page,
                "has_more": has_more,
                "response_metadata": {"next_cursor": str(start + size) if has_more else ""},
            }
        )
