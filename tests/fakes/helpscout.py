"""A Help Scout account in memory: the OAuth token, conversations, and their threads newest first."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

PAGE_SIZE = 25


@dataclass
class HelpScout(desk.Desk):
    """Conversations by id, threads by conversation (oldest first)."""

    client_id: str = "hs-client"
    client_secret: str = "hs-client-secret"
    access_token: str = "hs-access-token"
    conversations: dict[str, dict[str, Any]] = field(default_factory=dict)
    threads: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tokens_given: int = 0

    def server(self) -> Any:
        return self.app(
            {
                "/v2/conversations/{conversation}": self._conversation,
                "/v2/conversations/{conversation}/threads": self._threads,
            },
            post={"/v2/oauth2/token": self._token},
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
        found = self.conversations.get(request.path_params["conversation"])
        return JSONResponse(found) if found is not None else desk.refusal(404, "not found")

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
