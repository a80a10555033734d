"""A Zendesk account in memory: the OAuth token, tickets, their comments with cursor pagination, and their audits."""

import json
import re
from dataclasses import dataclass, field
from html import unescape
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

COMMENT_BYTES_MAX = 65_536
METADATA_BYTES_MAX = 1_024


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
    audits: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    sent_at: str = "2026-11-24T08:00:05Z"

    def server(self) -> Any:
        return self.app(
            {
                "/api/v2/tickets/{ticket}.json": self._ticket,
                "/api/v2/tickets/{ticket}/comments.json": self._comments,
                "/api/v2/tickets/{ticket}/audits.json": self._audits,
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
        if isinstance(said, dict) and "comment" in said:
            return self._comment(request.path_params["ticket"], ticket, said)
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

    def _comment(self, key: str, ticket: dict[str, Any], said: dict[str, Any]) -> Response:
        """Take a public comment in a staff user's name, with metadata that the update's audit keeps."""
        if "write" not in self.scope.split():
            return desk.refusal(403, "Forbidden")
        if ticket.get("status") == "closed":
            return _invalid("status", "closed prevents ticket update")
        comment = said["comment"]
        if not set(said) <= {"comment", "metadata", "status"} or not isinstance(comment, dict):
            return _invalid("base", "unknown field")
        if set(comment) != {"html_body", "public", "author_id"} or comment["public"] is not True:
            return _invalid("comment", "unknown field")
        if comment["author_id"] not in self.agents or comment["author_id"] not in self.users:
            return _invalid("author", "is not an agent")
        html = comment["html_body"]
        if not isinstance(html, str) or not html.strip():
            return _invalid("comment", "cannot be blank")
        if len(html.encode()) > COMMENT_BYTES_MAX:
            return _invalid("comment", "is too long")
        custom = said.get("metadata", {})
        if len(json.dumps(custom).encode()) > METADATA_BYTES_MAX:
            return _invalid("metadata", "is too long")
        if said.get("status", "open") not in ("open", "pending", "hold", "solved"):
            return _invalid("status", "is not known")
        number = 90_000 + len(self.sent)
        made = {
            "id": number, "author_id": comment["author_id"], "html_body": html, "body": _plain(html),
            "plain_body": None, "public": True, "created_at": self.sent_at, "attachments": [],
            "via": {"channel": "api"},
        }  # fmt: skip
        self.comments.setdefault(key, []).append(made)
        event = {"id": number, "type": "Comment", "public": True, "html_body": html}
        audit = {
            "id": number + 500_000, "ticket_id": int(key), "created_at": self.sent_at,
            "author_id": comment["author_id"], "metadata": {"system": {}, "custom": custom},
            "events": [{"id": number + 1_000_000, "type": "Notification"}, event],
        }  # fmt: skip
        self.audits.setdefault(key, []).append(audit)
        ticket |= {"updated_at": self.sent_at, "status": said.get("status", ticket.get("status"))}
        self.sent.append(desk.Sent(to=key, text=html, id=str(number)))
        return JSONResponse({"ticket": ticket, "audit": audit})

    async def _audits(self, request: Request) -> Response:
        if not self._is_let_in(request):
            return desk.refusal(401, "Couldn't authenticate you")
        key, query = request.path_params["ticket"], dict(request.query_params)
        if key not in self.tickets:
            return desk.refusal(404, "RecordNotFound")
        size, number = int(query.get("per_page", "100")), int(query.get("page", "1"))
        if set(query) - {"sort_order", "per_page", "page"} or not 1 <= size <= 100 or number < 1:
            return desk.refusal(400, "InvalidParameter")
        made = {
            "id": 1, "ticket_id": int(key), "created_at": "2026-11-01T07:00:00Z", "author_id": 1,
            "metadata": {"system": {}, "custom": {}}, "events": [{"id": 2, "type": "Create"}],
        }  # fmt: skip
        found = [made, *self.audits.get(key, [])]
        if query.get("sort_order") == "desc":
            found.reverse()
        page = found[(number - 1) * size : number * size]
        more = f"{desk.BASE}/page/{number + 1}" if number * size < len(found) else None
        return JSONResponse({"audits": page, "next_page": more, "count": len(found)})

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


def _plain(html: str) -> str:
    """Return a comment's HTML as the text that Zendesk shows beside it."""
    return unescape(re.sub(r"<[^<>]*>", "", re.sub(r"</p>|<br>", "\n", html))).strip()


def _invalid(name: str, said: str) -> Response:
    details = {name: [{"description": f"{name}: {said}", "error": "InvalidValue"}]}
    problem = {
        "error": "RecordInvalid", "description": "Record validation errors", "details": details,
    }  # fmt: skip
    return JSONResponse(problem, 422)
