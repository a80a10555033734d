"""An eDesk account in memory: pages of tickets by the day they changed, single tickets and messages, and the quota."""

from dataclasses import dataclass, field
from datetime import date
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk


@dataclass
class EDesk(desk.Desk):
    """Tickets and messages by id. `quota` is how many requests are still allowed."""

    token: str = "edesk-api-token"
    tickets: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: dict[str, dict[str, Any]] = field(default_factory=dict)
    quota: int = 60
    channel_text_max: int = 10_000
    """Characters that the tickets' marketplace takes."""
    sent_by: int | None = 4711
    """The user that messages of the token are shown under."""
    sent_at: str = "2026-11-24 08:00:05"

    def server(self) -> Any:
        return self.app(
            {
                "/v1/tickets": self._tickets,
                "/v1/tickets/{ticket}": self._ticket,
                "/v1/messages/{message}": self._message,
            },
            write={("POST", "/v1/messages"): self._make},
        )

    def _refusal(self, request: Request) -> Response | None:
        if desk.bearer(request) != self.token:
            return desk.refusal(401, "unauthorized")
        self.quota -= 1
        if self.quota < 0:
            problem = {
                "httpCode": 429, "message": "Too many requests", "details": "Out of quota",
            }  # fmt: skip
            return JSONResponse({"error": problem}, 429)
        return None

    async def _tickets(self, request: Request) -> Response:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        query = dict(request.query_params)
        known = {
            "page",
            "itemsPerPage",
            "order_by",
            "order_direction",
            "filter_last_updated_at_gte",
        }
        size, number = int(query.get("itemsPerPage", "25")), int(query.get("page", "1"))
        if set(query) - known or not 1 <= size <= 100 or number < 1:
            return desk.refusal(400, "bad parameter")
        day = date.fromisoformat(query.get("filter_last_updated_at_gte", "1970-01-01")).isoformat()
        found = [one for one in self.tickets.values() if one["last_updated_at"][:10] >= day]
        found.sort(
            key=lambda one: str(one[query.get("order_by", "id")]),
            reverse=query.get("order_direction") == "desc",
        )
        return JSONResponse(
            {
                "data": found[(number - 1) * size : number * size],
                "paginator": {
                    "currentPage": number,
                    "itemsPerPage": size,
                    "totalItemsCount": len(found),
                },
            }
        )

    async def _ticket(self, request: Request) -> Response:
        return self._refusal(request) or _one(self.tickets, request.path_params["ticket"])

    async def _make(self, request: Request) -> Response:
        """Take a message; without `send` it is kept and goes nowhere."""
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        body = await desk.json_of(request)
        known = {"ticket_id", "type", "body", "direction", "send", "full_response"}
        if not isinstance(body, dict) or not set(body) <= known:
            return _invalid("body", 4007)
        missing = next((one for one in ("ticket_id", "type", "body") if not body.get(one)), None)
        if missing is not None:
            return _invalid(missing, 4001)
        key = str(body["ticket_id"])
        if not isinstance(body["ticket_id"], int):
            return _invalid("ticket_id", 4005)
        if key not in self.tickets:
            return _invalid("ticket_id", 4002)
        if body["type"] not in ("Message", "Note"):
            return _invalid("type", 4007)
        if body.get("direction") not in ("Incoming", "Outgoing"):
            return _invalid("direction", 4007)
        if len(body["body"]) > self.channel_text_max:
            return _invalid("body", 4020)
        number = 90_000 + len(self.messages)
        made = {
            "id": number, "ticket_id": body["ticket_id"], "type": body["type"],
            "direction": body["direction"], "body": body["body"], "created_at": self.sent_at,
            "from_user": None if self.sent_by is None else {"id": self.sent_by}, "attachments": [],
            "subject": self.tickets[key].get("subject"), "from_consumer_id": None,
        }  # fmt: skip
        self.messages[str(number)] = made
        self.tickets[key].setdefault("messages_ids", []).append(number)
        if body.get("send") is True and body["direction"] == "Outgoing":
            self.sent.append(desk.Sent(to=key, text=body["body"], id=f"{body['type']}:{number}"))
        return JSONResponse({"data": made if body.get("full_response") else {"id": number}})

    async def _message(self, request: Request) -> Response:
        return self._refusal(request) or _one(self.messages, request.path_params["message"])


def _one(things: dict[str, dict[str, Any]], key: str) -> Response:
    return JSONResponse({"data": things[key]}) if key in things else desk.refusal(404, "not found")


def _invalid(field: str, code: int) -> Response:
    error = {
        "httpCode": 400, "message": "Validation error", "details": {field: {"errorCode": code}},
    }  # fmt: skip
    return JSONResponse({"error": error}, 400)
