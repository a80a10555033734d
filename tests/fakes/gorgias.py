"""A Gorgias account in memory: tickets with their messages, and the list of all messages, newest first."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk


@dataclass
class Gorgias(desk.Desk):
    """Tickets by id; messages of all tickets, oldest first."""

    user: str = "bot@shop.example"
    api_key: str = "gorgias-api-key"
    access_token: str = "gorgias-access-token"
    tickets: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    users: dict[int, str] = field(default_factory=dict)
    teams: tuple[int, ...] = ()
    addresses: tuple[str, ...] = ("support@shop.example",)
    """Addresses of the account's e-mail integrations."""
    sent_at: str = "2026-11-24T08:00:05.384938"

    def server(self) -> Any:
        return self.app(
            {
                "/api/tickets/{ticket}": self._ticket,
                "/api/messages": self._messages,
                "/api/users": self._users,
            },
            write={
                ("PUT", "/api/tickets/{ticket}"): self._update,
                ("POST", "/api/tickets/{ticket}/messages"): self._message,
            },
        )

    def _is_let_in(self, request: Request) -> bool:
        is_user = desk.basic(request) == (self.user, self.api_key)
        return is_user or desk.bearer(request) == self.access_token

    async def _ticket(self, request: Request) -> Response:
        if not self._is_let_in(request):
            return desk.refusal(401, "unauthorized")
        key = request.path_params["ticket"]
        if key not in self.tickets:
            return desk.refusal(404, "not found")
        messages = [one for one in self.messages if str(one["ticket_id"]) == key]
        return JSONResponse({**self.tickets[key], "messages": messages})

    async def _update(self, request: Request) -> Response:
        if not self._is_let_in(request):
            return desk.refusal(401, "unauthorized")
        ticket = self.tickets.get(request.path_params["ticket"])
        if ticket is None:
            return desk.refusal(404, "not found")
        body = await desk.json_of(request)
        if not isinstance(body, dict) or set(body) - {"assignee_user", "assignee_team"}:
            return desk.refusal(400, "unknown field")
        known = {"assignee_user": self.users, "assignee_team": self.teams}
        for name, value in body.items():
            if value is not None and (set(value) != {"id"} or value["id"] not in known[name]):
                return desk.refusal(400, "no such id")
        ticket |= body
        return JSONResponse(ticket, 202)

    async def _message(self, request: Request) -> Response:
        """Take a message of a user for the ticket's customer, to be mailed."""
        if not self._is_let_in(request):
            return desk.refusal(401, "unauthorized")
        key = request.path_params["ticket"]
        ticket, body = self.tickets.get(key), await desk.json_of(request)
        if ticket is None:
            return desk.refusal(404, "not found")
        known = {
            "channel", "via", "from_agent", "public", "source", "sender", "receiver", "subject",
            "body_text", "body_html", "external_id",
        }  # fmt: skip
        if not isinstance(body, dict) or set(body) != known:
            return _invalid("body")
        if (body["channel"], body["via"]) != ("email", "api"):
            return _invalid("channel")
        if body["from_agent"] is not True or body["public"] is not True:
            return _invalid("from_agent")
        customer = ticket.get("customer") or {}
        match body["source"]:
            case {
                "type": "email",
                "from": {"address": str(ours)},
                "to": [{"address": str(theirs)}],
            }:
                if ours not in self.addresses or theirs != customer.get("email"):
                    return _invalid("source")
            case _:
                return _invalid("source")
        if body["sender"].get("id") not in self.users:
            return _invalid("sender")
        if body["receiver"] != {"id": customer.get("id")}:
            return _invalid("receiver")
        if not body["body_text"].strip() or not body["body_html"].strip():
            return _invalid("body_text")
        made = {
            **body, "id": 90_000 + len(self.sent), "ticket_id": int(key), "failed_datetime": None,
            "sent_datetime": None, "created_datetime": self.sent_at, "attachments": [],
        }  # fmt: skip
        made["sender"] = {**body["sender"], "email": self.users[body["sender"]["id"]]}
        self.messages.append(made)
        self.sent.append(desk.Sent(to=key, text=body["body_html"], id=str(made["id"])))
        return JSONResponse(made, 201)

    async def _users(self, request: Request) -> Response:
        if not self._is_let_in(request):
            return desk.refusal(401, "unauthorized")
        if set(request.query_params) - {"email", "limit", "cursor"}:
            return desk.refusal(400, "unknown parameter")
        wanted = request.query_params.get("email")
        data = [
            {"id": key, "email": one} for key, one in self.users.items() if wanted in (None, one)
        ]
        return JSONResponse({"object": "list", "data": data})

    async def _messages(self, request: Request) -> Response:
        if not self._is_let_in(request):
            return desk.refusal(401, "unauthorized")
        query = dict(request.query_params)
        if set(query) - {"limit", "order_by", "cursor", "ticket_id"}:
            return desk.refusal(400, "unknown parameter")
        limit = int(query.get("limit", "30"))
        if not 1 <= limit <= 100 or query.get("order_by") != "created_datetime:desc":
            return desk.refusal(400, "bad parameter")
        cursor = query.get("cursor", "after:0")
        if not cursor.startswith("after:"):
            return desk.refusal(400, "bad cursor")
        start = int(cursor.removeprefix("after:"))
        wanted = query.get("ticket_id")
        newest = [one for one in self.messages[::-1] if wanted in (None, str(one["ticket_id"]))]
        more = f"after:{start + limit}" if start + limit < len(newest) else None
        return JSONResponse(
            {
                "object": "list",
                "data": newest[start : start + limit],
                "meta": {"next_cursor": more, "prev_cursor": None},
            }
        )


def _invalid(field: str) -> Response:
    error = {"msg": "Failed to validate data.", "data": {field: ["Not a valid value."]}}
    return JSONResponse({"error": error}, 400)
