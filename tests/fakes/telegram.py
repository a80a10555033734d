"""Telegram's Bot API in memory: one bot, its chats, and what it wrote there."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

TOKEN = "4242:bot-token-of-the-test"


@dataclass
class Telegram(desk.Desk):
    """Chats by number, those of business accounts by connection; `blocked` chats have blocked the bot."""

    token: str = TOKEN
    chats: set[int] = field(default_factory=lambda: {55501, -100200})
    topics: dict[int, set[int]] = field(default_factory=lambda: {-100200: {7}})
    connections: dict[str, set[int]] = field(default_factory=lambda: {"bizConn01": {55501}})
    silent: set[int] = field(default_factory=set)
    blocked: set[int] = field(default_factory=set)
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def server(self) -> Any:
        return self.app({}, write={("POST", "/bot{token}/sendMessage"): self._send})

    async def _send(self, request: Request) -> Response:
        if request.path_params["token"] != self.token:
            return error(401, "Unauthorized")
        body = await desk.json_of(request)
        known = {
            "chat_id", "text", "link_preview_options", "business_connection_id", "message_thread_id", "reply_parameters",
        }  # fmt: skip
        if not isinstance(body, dict) or set(body) - known:
            return error(400, "Bad Request: can't parse")
        chat, text = body.get("chat_id"), body.get("text")
        if not isinstance(chat, int) or chat not in self.chats:
            return error(400, "Bad Request: chat not found")
        if chat in self.blocked:
            return error(403, "Forbidden: bot was blocked by the user")
        if not isinstance(text, str) or not text.strip():
            return error(400, "Bad Request: message text is empty")
        if len(text) > 4096:
            return error(400, "Bad Request: message is too long")
        connection = body.get("business_connection_id")
        if connection is not None and chat not in self.connections.get(connection, set()):
            return error(400, "Bad Request: BUSINESS_CONNECTION_INVALID")
        if connection is not None and chat in self.silent:
            return error(400, "Bad Request: BUSINESS_PEER_USAGE_MISSING")
        topic = body.get("message_thread_id")
        if topic is not None and topic not in self.topics.get(chat, set()):
            return error(400, "Bad Request: message thread not found")
        self.bodies.append(body)
        number = 100 + len(self.bodies)
        prefix = f"{connection}:{chat}" if connection else str(chat)
        where = f"{prefix}:{topic}" if topic is not None else prefix
        self.sent.append(desk.Sent(where, text, id=f"{prefix}:{number}"))
        return JSONResponse(
            {"ok": True, "result": {"message_id": number, "chat": {"id": chat}, "text": text}}
        )


def error(status: int, description: str, **parameters: Any) -> Response:
    """Return an error as the Bot API words it."""
    said = {"ok": False, "error_code": status, "description": description}
    return JSONResponse(said | ({"parameters": parameters} if parameters else {}), status)
