"""Tidio's OpenAPI in memory: tickets with their messages."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

NOW = "2026-11-24T08:00:05+00:00"


@dataclass
class Tidio(desk.Desk):
    """Tickets by number, each with its messages."""

    client_id: str = "ci_example"
    client_secret: str = "tidio-client-secret"
    operators: tuple[str, ...] = ("b4c3717a-0000-4000-8000-000000000001",)
    tickets: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"5158": []})

    def server(self) -> Any:
        return self.app(
            {"/tickets/{ticket}": self._ticket},
            write={("POST", "/tickets/{ticket}/reply"): self._reply},
        )

    def _refusal(self, request: Request) -> Response | None:
        given = request.headers
        shown = (
            given.get("x-tidio-openapi-client-id"),
            given.get("x-tidio-openapi-client-secret"),
        )
        if shown != (self.client_id, self.client_secret):
            return error(401, "unauthorized")
        if given.get("accept") != "application/json; version=1":
            return error(406, "not_acceptable")
        if request.path_params["ticket"] not in self.tickets:
            return error(404, "ticket_not_found")
        return None

    async def _ticket(self, request: Request) -> Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        number = request.path_params["ticket"]
        return JSONResponse({"id": int(number), "messages": self.tickets[number]})

    async def _reply(self, request: Request) -> Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        body = await desk.json_of(request)
        if set(body) != {"author_type", "operator_id", "content", "message_type"}:
            return error(422, "validation_failed")
        if body["author_type"] != "operator" or body["operator_id"] not in self.operators:
            return error(422, "operator_not_found")
        if body["message_type"] not in ("public", "internal") or not body["content"]:
            return error(422, "validation_failed")
        number = request.path_params["ticket"]
        name = f"msg-{len(self.tickets[number]) + 1:04}"
        made = {
            "message_id": name, "author_type": "operator", "author_id": body["operator_id"], "created_at": NOW,
            "message_type": body["message_type"], "message_content": body["content"],
        }  # fmt: skip
        self.tickets[number].append(made)
        if body["message_type"] == "public":
            self.sent.append(desk.Sent(number, body["content"], id=name))
        return JSONResponse({"id": name}, 201)


def error(status: int, code: str) -> Response:
    """Return an error as Tidio words it."""
    return JSONResponse({"errors": [{"code": code, "message": "see the reference"}]}, status)
