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
    scope: str = "read"
    agents: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    tickets: dict[str, dict[str, Any]] = field(default_factory=dict)
    comments: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    users: dict[int, dict[str, Any]] = field(default_factory=dict)
    tokens_given: int = 0

    def server(self) -> Any:
        return self.app(
            {
                "/api/v2/tickets/{ticket}.json": self._ticket,
                "/api/v2/tickets/{ticket}/comments.json": self._comments,
                "/api/v2/users/search.json": self._search,
            },
            post={"/oauth/tokens": self._token},
            write={("PUT", "/api/v2/tickets/{ticket}.json"): self._update},
        )

    async def _token(self, request: Request) -> Response:
        form = await desk.form_of(request)
        expected = {
            "grant_type": "client_credentials", "client_id": self.client_id,
            "client_secret": self.client_secret, "scope": self.scope,
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
        users = [one for one in (self.users.get(ticket.get("requester_id", 0)),) if one]
        return JSONResponse({"ticket": ticket, "users": users})

    async def _update(self, request: Request) -> Response:
        """Take an update that is guarded by the stamp of the ticket as it was read."""
        if not self._is_let_in(request):
            return desk.refusal(401, "Couldn't authenticate you")
        ticket = self.tickets.get(request.path_params["ticket"])
        if ticket is None:
            return desk.refusal(404, "RecordNotFound")
        body = await desk.json_of(request)
        said = body.get("ticket") if isinstance(body, dict) and set(body) == {"ticket"} else None
        known = {"assignee_id", "group_id", "tags", "safe_update", "updated_stamp"}
        if not isinstance(said, dict) or not set(said) <= known or ticket.get("status") == "closed":
            return desk.refusal(422, "RecordInvalid")
        if said.get("safe_update") is not True or said.get("updated_stamp") != ticket["updated_at"]:
            return desk.refusal(409, "UpdateConflict")
        if said.get("assignee_id") not in (None, *self.agents):
            return desk.refusal(422, "RecordInvalid")
        if "group_id" in said and said["group_id"] not in self.groups:
            return desk.refusal(422, "RecordInvalid")
        changes = {key: said[key] for key in ("assignee_id", "group_id", "tags") if key in said}
        stamp = f"{len(self.wrote) + 1:02d}"
        ticket |= {**changes, "updated_at": f"2026-11-24T09:00:{stamp}Z"}
        return JSONResponse({"ticket": ticket})

    async def _search(self, request: Request) -> Response:
        if not self._is_let_in(request):
            return desk.refusal(401, "Couldn't authenticate you")
        query = request.query_params.get("query", "")
        found = [one for one in self.users.values() if query and query in one["email"]]
        return JSONResponse({"users": found, "count": len(found)})

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
