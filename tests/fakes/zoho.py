"""A Zoho Desk portal in memory: tickets, their threads (listed newest first, without texts), and access tokens."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

LISTED = ("id", "channel", "direction", "visibility", "summary", "createdTime", "author")


@dataclass
class Zoho(desk.Desk):
    """Tickets by id, threads by ticket. Every call must name the organisation in a header."""

    org_id: str = "2389290"
    client: tuple[str, str] = ("1000.client", "zoho-client-secret")
    refresh_token: str = "1000.refresh-token"
    access_token: str = "1000.access-token"
    tickets: dict[str, dict[str, Any]] = field(default_factory=dict)
    threads: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def server(self) -> Any:
        return self.app(
            {
                "/api/v1/tickets/{ticket}": self._ticket,
                "/api/v1/tickets/{ticket}/threads": self._list,
                "/api/v1/tickets/{ticket}/threads/{thread}": self._thread,
            },
            post={"/oauth/v2/token": self._token},
        )

    async def _token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        wanted = {
            "grant_type": "refresh_token", "client_id": self.client[0],
            "client_secret": self.client[1], "refresh_token": self.refresh_token,
        }  # fmt: skip
        if form != wanted:
            return JSONResponse({"error": "invalid_code"})  # Zoho says so with a 200.
        return JSONResponse({"access_token": self.access_token, "expires_in": 3600})

    def _refusal(self, request: Request) -> Response | None:
        if request.headers.get("authorization") != f"Zoho-oauthtoken {self.access_token}":
            return JSONResponse({"errorCode": "INVALID_OAUTH"}, 401)
        if request.headers.get("orgid") != self.org_id:
            return JSONResponse({"errorCode": "LICENSE_ACCESS_LIMITED"}, 403)
        if request.path_params["ticket"] not in self.tickets:
            return JSONResponse({"errorCode": "RESOURCE_NOT_FOUND"}, 404)
        return None

    async def _ticket(self, request: Request) -> Response:
        refusal = self._refusal(request)
        return refusal or JSONResponse(self.tickets[request.path_params["ticket"]])

    async def _list(self, request: Request) -> Response:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        held = self.threads.get(request.path_params["ticket"], [])
        if not held:
            return Response("", 204)
        limit = int(request.query_params.get("limit", "10"))
        if limit > 100:
            return JSONResponse({"errorCode": "INVALID_DATA"}, 422)
        listed = [{name: one[name] for name in LISTED if name in one} for one in held[::-1]]
        return JSONResponse({"data": listed[:limit]})

    async def _thread(self, request: Request) -> Response:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        held = self.threads.get(request.path_params["ticket"], [])
        found = next((one for one in held if one["id"] == request.path_params["thread"]), None)
        if found is None:
            return JSONResponse({"errorCode": "RESOURCE_NOT_FOUND"}, 404)
        return JSONResponse(found)
