"""LiveChat in memory: chats with their threads and events, as an agent's account sees them."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

NOW = "2026-11-24T08:00:05.000000Z"


@dataclass
class LiveChat(desk.Desk):
    """Chats by id, each with its threads, the oldest first."""

    account_id: str = "9b3c1c50-0000-4000-8000-000000000001"
    token: str = "fra:lc-personal-token"
    region: str = "fra"
    author: str = "signalbox@lantern-oak.example"
    chats: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {
            "QX7LCHAT01": [
                {
                    "id": "QX7THREAD9",
                    "active": False,
                    "created_at": "2026-11-24T07:50:00.000000Z",
                    "events": [],
                }
            ]
        }
    )

    def server(self) -> Any:
        return self.app(
            {},
            post={"/agent/action/list_threads": self._watched(self._threads)},
            write={("POST", "/agent/action/send_event"): self._send},
        )

    def _refusal(self, request: Request) -> Response | None:
        if desk.basic(request) != (self.account_id, self.token):
            return error(401, "authentication")
        if request.headers.get("x-region", self.region) != self.region:
            return error(421, "misdirected_request")
        return None

    async def _send(self, request: Request) -> Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        body = await desk.json_of(request)
        if set(body) != {"chat_id", "event", "attach_to_last_thread"}:
            return error(400, "validation")
        threads, event = self.chats.get(body["chat_id"]), body["event"]
        if threads is None:
            return error(404, "not_found")
        if set(event) != {"type", "text", "custom_id", "visibility"} or event["type"] != "message":
            return error(400, "validation")
        if event["visibility"] not in ("all", "agents") or not event["text"]:
            return error(400, "validation")
        if len(event["text"].encode()) > 16_384:
            return error(413, "entity_too_large")
        if not threads[-1]["active"] and body["attach_to_last_thread"] is not True:
            return error(422, "chat_inactive")
        name = f"{threads[-1]['id']}_{len(threads[-1]['events']) + 1}"
        made = {**event, "id": name, "author_id": self.author, "created_at": NOW}
        threads[-1]["events"].append(made)
        if event["visibility"] == "all":
            where, key = body["chat_id"], event["custom_id"]
            self.sent.append(desk.Sent(where, event["text"], key=key, id=name))
        return JSONResponse({"event_id": name})

    async def _threads(self, request: Request) -> Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        body = await desk.json_of(request)
        if set(body) - {"chat_id", "sort_order", "limit"} or not 1 <= body["limit"] <= 100:
            return error(400, "validation")
        threads = self.chats.get(body["chat_id"])
        if threads is None:
            return error(404, "not_found")
        found = threads[::-1] if body["sort_order"] == "desc" else threads
        return JSONResponse({"threads": found[: body["limit"]], "found_threads": len(threads)})


def error(status: int, kind: str) -> Response:
    """Return an error as LiveChat words it."""
    return JSONResponse({"error": {"type": kind, "message": "see the reference"}}, status)
