"""A Help Scout account in memory: the OAuth token, conversations, and their threads newest first."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

PAGE_SIZE = 25
THREADS_MAX = 100
STATUSES = ("active", "all", "closed", "open", "pending", "spam")


@dataclass
class HelpScout(desk.Desk):
    """Conversations by id, threads by conversation (oldest first)."""

    client_id: str = "hs-client"
    client_secret: str = "hs-client-secret"
    access_token: str = "hs-access-token"
    conversations: dict[str, dict[str, Any]] = field(default_factory=dict)
    threads: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tokens_given: int = 0
    users: dict[int, dict[str, Any]] = field(default_factory=dict)
    merged: dict[str, str] = field(default_factory=dict)
    locked: set[str] = field(default_factory=set)
    sent_at: str = "2026-11-24T08:00:05Z"

    def server(self) -> Any:
        return self.app(
            {
                "/v2/conversations/{conversation}": self._conversation,
                "/v2/conversations/{conversation}/threads": self._threads,
                "/v2/users": self._users,
            },
            post={"/v2/oauth2/token": self._token},
            write={
                ("PATCH", "/v2/conversations/{conversation}"): self._patch,
                ("POST", "/v2/conversations/{conversation}/reply"): self._reply,
            },
        )

    async def _token(self, request: Request) -> Response:
        form = await desk.form_of(request)
        expected = {
            "grant_type": "client_credentials", "client_id": self.client_id,
            "client_secret": self.client_secret,
        }  # fmt: skip
        if form != expected:
            return desk.refusal(401, "invalid_client")
        self.tokens_given += 1
        return JSONResponse({"access_token": self.access_token, "expires_in": 172800})

    async def _conversation(self, request: Request) -> Response:
        if desk.bearer(request) != self.access_token:
            return desk.refusal(401, "unauthorized")
        key = request.path_params["conversation"]
        if key in self.merged:
            place = f"{desk.BASE}/v2/conversations/{self.merged[key]}"
            return Response("", 301, {"location": place})
        found = self.conversations.get(key)
        return JSONResponse(found) if found is not None else desk.refusal(404, "not found")

    async def _patch(self, request: Request) -> Response:
        if desk.bearer(request) != self.access_token:
            return desk.refusal(401, "unauthorized")
        found = self.conversations.get(request.path_params["conversation"])
        if found is None:
            return desk.refusal(404, "not found")
        match await desk.json_of(request):
            case {"op": "remove", "path": "/assignTo", **rest} if not rest:
                found.pop("assignee", None)
            case {"op": "replace", "path": "/assignTo", "value": int(user), **rest} if not rest:
                if user not in self.users:
                    return desk.refusal(400, "no such user")
                found["assignee"] = {"id": user, "email": self.users[user]["email"]}
            case _:
                return desk.refusal(400, "bad patch")
        return Response("", 204)

    async def _reply(self, request: Request) -> Response:
        """Take a reply of a user to the conversation's own customer; without a status it makes the conversation active."""
        if desk.bearer(request) != self.access_token:
            return desk.refusal(401, "unauthorized")
        key = request.path_params["conversation"]
        if key in self.merged:
            place = f"{desk.BASE}/v2/conversations/{self.merged[key]}"
            return Response("", 301, {"location": place})
        found = self.conversations.get(key)
        if found is None:
            return desk.refusal(404, "not found")
        threads = self.threads.setdefault(key, [])
        if key in self.locked or len(threads) >= THREADS_MAX:
            return desk.refusal(412, "the conversation is locked")
        body = await desk.json_of(request)
        known = {"customer", "text", "user", "status", "draft", "imported", "assignTo", "cc", "bcc"}
        if not isinstance(body, dict) or not {"customer", "text"} <= set(body) <= known:
            return desk.refusal(400, "bad reply")
        customer = found.get("primaryCustomer", {}).get("id")
        if body["customer"] != {"id": customer} or not isinstance(body["text"], str):
            return desk.refusal(400, "bad customer")
        if not body["text"].strip() or body.get("status", "active") not in STATUSES:
            return desk.refusal(400, "bad text or status")
        if body.get("user") not in self.users:
            return desk.refusal(400, "no such user")
        number = 90_000 + len(self.sent)
        writer = {"id": body["user"], "type": "user", "email": self.users[body["user"]]["email"]}
        threads.append({
            "id": number, "type": "message", "state": "published", "body": body["text"],
            "customer": body["customer"], "createdBy": writer, "createdAt": self.sent_at,
            "status": body.get("status", "active"),
        })  # fmt: skip
        found["status"] = body.get("status", "active")
        self.sent.append(desk.Sent(to=key, text=body["text"], id=str(number)))
        return Response("", 201, {"resource-id": str(number)})

    async def _users(self, request: Request) -> Response:
        if desk.bearer(request) != self.access_token:
            return desk.refusal(401, "unauthorized")
        if set(request.query_params) - {"email", "page"}:
            return desk.refusal(400, "unknown parameter")
        wanted = request.query_params.get("email")
        users = [one for one in self.users.values() if wanted in (None, one["email"])]
        return JSONResponse({"_embedded": {"users": users}} if users else {"page": {"number": 1}})

    async def _threads(self, request: Request) -> Response:
        if desk.bearer(request) != self.access_token:
            return desk.refusal(401, "unauthorized")
        if set(request.query_params) - {"page"}:
            return desk.refusal(400, "unknown parameter")
        found = self.threads.get(request.path_params["conversation"])
        if found is None:
            return desk.refusal(404, "not found")
        number = int(request.query_params.get("page", "1"))
        newest = found[::-1]
        page = newest[(number - 1) * PAGE_SIZE : number * PAGE_SIZE]
        pages = max(1, -(-len(found) // PAGE_SIZE))
        return JSONResponse(
            {
                "_embedded": {"threads": page},
                "page": {
                    "size": PAGE_SIZE,
                    "totalElements": len(found),
                    "totalPages": pages,
                    "number": number,
                },
            }
        )
