"""A Zendesk account in memory: the OAuth token, tickets and their comments, with cursor pagination."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk


@dataclass
class Zendesk(desk.Desk):
    """Tickets by id, comments by ticket (oldest first), users by id."""

    email: str = "bot@shop.example"
    api_token: str = "zd-api-token"
    client_id: str = "signalbox"
    client_secret: str = "zd-client-secret"
    access_token: str = "zd-access-token"
    tickets: dict[str, dict[str, Any]] = field(default_factory=dict)
    comments: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    users: dict[int, dict[str, Any]] = field(default_factory=dict)
    tokens_given: int = 0

    def server(self) -> Any:
        return self.app(
            {
                "/api/v2/tickets/{ticket}.json": self._ticket,
                "/api/v2/tickets/{ticket}/comments.json": self._comments,
            },
            post={"/oauth/tokens": self._token},
        )

    async def _token(self, request: Request) -> Response:
        form = await desk.form_of(request)
        expected = {
            "grant_type": "client_credentials", "client_id": self.client_id,
            "client_secret": self.client_secret, "scope": "read",
        }  # fmt: skip
        if form != expected:
            return desk.refusal(401, "invalid_client")
        self.tokens_given += 1
        return JSONResponse({"access_token": self.access_token, "expires_in": 1800})

    def _is_let_in(self, request: Request) -> bool:
        by_token = desk.basic(request) == (f"{self.email}/token", self.api_token)
        return by_token or desk.bearer(request) == self.access_token

    async def _ticket(self, request: Request) -> Response:
        if not self._is_let_in(request):
            return desk.refusal(401, "Couldn't authenticate you")
        ticket = self.tickets.get(request.path_params["ticket"])
        if ticket is None:
            return desk.refusal(404, "RecordNotFound")
        users = [self.users[ticket["requester_id"]]]
        return JSONResponse({"ticket": ticket, "users": users})

    async def _comments(self, request: Request) -> Response:
        if not self._is_let_in(request):
            return desk.refusal(401, "Couldn't authenticate you")
        query = dict(request.query_params)
        if set(query) - {"page[size]", "page[after]", "sort", "include"}:
            return desk.refusal(400, "InvalidParameter")
        size = int(query.get("page[size]", "100"))
        if not 1 <= size <= 100 or query.get("sort") not in ("created_at", "-created_at", None):
            return desk.refusal(400, "InvalidPaginationParameter")
        found = list(self.comments.get(request.path_params["ticket"], []))
        if query.get("sort") == "-created_at":
            found.reverse()
        start = int(query.get("page[after]", "0"))
        page = found[start : start + size]
        has_more = start + size < len(found)
        users = [self.users[key] for key in sorted({one["author_id"] for one in page})]
        return JSONResponse(
            {
                "comments": page,
                "users": users if query.get("include") == "users" else [],
                "meta": {
                    "has_more": has_more,
                    "after_cursor": str(start + size) if has_more else None,
                },
            }
        )
