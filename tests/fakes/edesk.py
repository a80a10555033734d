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

    def server(self) -> Any:
        return self.app(
            {
                "/v1/tickets": self._tickets,
                "/v1/tickets/{ticket}": self._ticket,
                "/v1/messages/{message}": self._message,
            }
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

    async def _message(self, request: Request) -> Response:
        return self._refusal(request) or _one(self.messages, request.path_params["message"])


def _one(things: dict[str, dict[str, Any]], key: str) -> Response:
    return JSONResponse({"data": things[key]}) if key in things else desk.refusal(404, "not found")
