"""A Freshdesk account in memory: tickets, their conversations oldest first, and the list of changed tickets."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk


@dataclass
class Freshdesk(desk.Desk):
    """Tickets by id and conversations by ticket. The password of basic authentication is never looked at, as there."""

    api_key: str = "freshdesk-api-key"
    tickets: dict[str, dict[str, Any]] = field(default_factory=dict)
    conversations: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    agents: dict[int, str] = field(default_factory=dict)
    groups: tuple[int, ...] = ()
    addresses: tuple[str, ...] = ("support@shop.example",)
    """The account's support addresses."""
    sent_at: str = "2026-11-24T08:00:05Z"

    def server(self) -> Any:
        return self.app(
            {
                "/api/v2/tickets": self._list,
                "/api/v2/tickets/{ticket}": self._ticket,
                "/api/v2/tickets/{ticket}/conversations": self._conversations,
                "/api/v2/agents": self._agents,
            },
            write={
                ("PUT", "/api/v2/tickets/{ticket}"): self._update,
                ("POST", "/api/v2/tickets/{ticket}/reply"): self._reply,
            },
        )

    def _refusal(self, request: Request, *allowed: str) -> Response | None:
        shown = desk.basic(request)
        if shown is None or shown[0] != self.api_key:
            return JSONResponse({"code": "invalid_credentials"}, 401)
        unknown = set(request.query_params) - set(allowed)
        if unknown:
            return JSONResponse({"description": "Validation failed"}, 400)
        key = request.path_params.get("ticket")
        if key is not None and not key.isdigit():
            return JSONResponse({"description": "Validation failed"}, 400)
        if key is not None and key not in self.tickets:
            return Response("", 404)
        return None

    async def _ticket(self, request: Request) -> Response:
        refusal = self._refusal(request, "include")
        if refusal is not None:
            return refusal
        ticket = dict(self.tickets[request.path_params["ticket"]])
        if request.query_params.get("include") != "requester":
            ticket.pop("requester", None)
        return JSONResponse(ticket)

    async def _update(self, request: Request) -> Response:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        ticket, body = self.tickets[request.path_params["ticket"]], await desk.json_of(request)
        if ticket.get("spam"):
            return Response("", 405)
        known = {"responder_id": self.agents, "group_id": self.groups}
        if not isinstance(body, dict) or not body or set(body) - set(known):
            return JSONResponse({"description": "Validation failed"}, 400)
        if any(value is not None and value not in known[name] for name, value in body.items()):
            return JSONResponse({"description": "Validation failed"}, 400)
        ticket |= body
        return JSONResponse(ticket)

    async def _reply(self, request: Request) -> Response:
        """Take a reply of an agent, from one of the support addresses."""
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        key, body = request.path_params["ticket"], await desk.json_of(request)
        ticket = self.tickets[key]
        if ticket.get("spam") or ticket.get("deleted"):
            return Response("", 405)
        known = {"body", "user_id", "from_email", "cc_emails", "bcc_emails"}
        if not isinstance(body, dict) or set(body) - known:
            return _invalid("body", "invalid_field")
        if not isinstance(body.get("body"), str) or not body["body"].strip():
            return _invalid("body", "missing_field")
        if body.get("user_id") not in self.agents:
            return _invalid("user_id", "invalid_value")
        if body.get("from_email", self.addresses[0]) not in self.addresses:
            return _invalid("from_email", "invalid_value")
        made = {
            "id": 90_000 + len(self.sent), "body": body["body"], "body_text": None,
            "incoming": False, "private": False, "source": 0, "user_id": body["user_id"],
            "from_email": body.get("from_email", self.addresses[0]), "ticket_id": int(key),
            "to_emails": [ticket.get("requester", {}).get("email", "")], "attachments": [],
            "created_at": self.sent_at,
        }  # fmt: skip
        self.conversations.setdefault(key, []).append(made)
        self.sent.append(desk.Sent(to=key, text=body["body"], id=str(made["id"])))
        return JSONResponse(made, 201)

    async def _agents(self, request: Request) -> Response:
        refusal = self._refusal(request, "email")
        wanted = request.query_params.get("email")
        found = [
            {"id": key, "contact": {"email": one}}
            for key, one in self.agents.items()
            if wanted in (None, one)
        ]
        return refusal or JSONResponse(found)

    async def _conversations(self, request: Request) -> Response:
        refusal = self._refusal(request, "page", "per_page")
        if refusal is not None:
            return refusal
        return self._page(request, self.conversations.get(request.path_params["ticket"], []))

    async def _list(self, request: Request) -> Response:
        refusal = self._refusal(
            request, "updated_since", "order_by", "order_type", "page", "per_page"
        )
        if refusal is not None:
            return refusal
        query = request.query_params
        if query.get("order_by") != "updated_at" or query.get("order_type") != "asc":
            return JSONResponse({"description": "Validation failed"}, 400)
        changed = sorted(
            (one for one in self.tickets.values() if one["updated_at"] >= query["updated_since"]),
            key=lambda one: (one["updated_at"], one["id"]),
        )
        listed = [
            {name: value for name, value in one.items() if name not in ("description", "requester")}
            for one in changed
        ]
        return self._page(request, listed)

    def _page(self, request: Request, rows: list[dict[str, Any]]) -> Response:
        size = int(request.query_params.get("per_page", "30"))
        number = int(request.query_params.get("page", "1"))
        if not 1 <= size <= 100 or number < 1:
            return JSONResponse({"description": "Validation failed"}, 400)
        start = (number - 1) * size
        return JSONResponse(rows[start : start + size])


def _invalid(field: str, code: str) -> Response:
    error = {"field": field, "message": "It should be another value", "code": code}
    return JSONResponse({"description": "Validation failed", "errors": [error]}, 400)
