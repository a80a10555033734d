"""A Zoho Desk portal in memory: tickets, their threads (listed newest first, without texts), and access tokens."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

LISTED = (
    "id", "channel", "direction", "visibility", "summary", "createdTime", "author", "status",
    "fromEmailAddress", "contentType", "responderId",
)  # fmt: skip


@dataclass
class Zoho(desk.Desk):
    """Tickets by id, threads by ticket. Every call must name the organisation in a header."""

    org_id: str = "2389290"
    client: tuple[str, str] = ("1000.client", "zoho-client-secret")
    refresh_token: str = "1000.refresh-token"
    access_token: str = "1000.access-token"
    tickets: dict[str, dict[str, Any]] = field(default_factory=dict)
    threads: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    addresses: tuple[str, ...] = ("support@shop.example",)
    """The portal's addresses."""
    sent_at: str = "2026-11-24T08:00:05.000Z"
    sent_as: str = "SUCCESS"
    """The status of a reply that was just taken."""
    tokens_given: int = 0

    def server(self) -> Any:
        return self.app(
            {
                "/api/v1/tickets/{ticket}": self._ticket,
                "/api/v1/tickets/{ticket}/threads": self._list,
                "/api/v1/tickets/{ticket}/threads/{thread}": self._thread,
            },
            post={"/oauth/v2/token": self._token},
            write={("POST", "/api/v1/tickets/{ticket}/sendReply"): self._reply},
        )

    async def _token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        wanted = {
            "grant_type": "refresh_token", "client_id": self.client[0],
            "client_secret": self.client[1], "refresh_token": self.refresh_token,
        }  # fmt: skip
        if form != wanted:
            return JSONResponse({"error": "invalid_code"})  # Zoho says so with a 200.
        self.tokens_given += 1
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

    async def _reply(self, request: Request) -> Response:
        """Take a reply by mail from one of the portal's addresses."""
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        key, body = request.path_params["ticket"], await desk.json_of(request)
        known = {"channel", "to", "fromEmailAddress", "contentType", "content"}
        if not isinstance(body, dict) or set(body) != known or body["channel"] != "EMAIL":
            return _invalid("channel")
        if body["fromEmailAddress"] not in self.addresses:
            return _invalid("fromEmailAddress")
        if "@" not in body["to"]:
            return _invalid("to")
        if body["contentType"] != "html" or not body["content"].strip():
            return _invalid("content")
        number = f"2310570000{len(self.sent):05d}"
        made = {
            "id": number, "channel": "EMAIL", "direction": "out", "visibility": "public",
            "status": self.sent_as, "content": body["content"], "contentType": "text/html",
            "fromEmailAddress": f'"Lantern & Oak"<{body["fromEmailAddress"]}>', "to": body["to"],
            "summary": body["content"][:20], "createdTime": self.sent_at, "attachments": [],
            "author": {"type": "AGENT", "name": "Signalbox", "email": "bot@zoho.example"},
            "responderId": "777",
        }  # fmt: skip
        self.threads.setdefault(key, []).append(made)
        if self.sent_as != "FAILED":
            self.sent.append(desk.Sent(to=key, text=body["content"], id=number))
        return JSONResponse(made)

    async def _thread(self, request: Request) -> Response:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        held = self.threads.get(request.path_params["ticket"], [])
        found = next((one for one in held if one["id"] == request.path_params["thread"]), None)
        if found is None:
            return JSONResponse({"errorCode": "RESOURCE_NOT_FOUND"}, 404)
        return JSONResponse(found)


def _invalid(field: str) -> Response:
    error = {"fieldName": f"/{field}", "errorType": "invalid", "errorMessage": ""}
    problem = {"errorCode": "INVALID_DATA", "message": "The data is invalid", "errors": [error]}
    return JSONResponse(problem, 422)
