"""What the fake helpdesks share: an ASGI app over in-memory data that can be told to misbehave for its next answers."""

import base64
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

BASE = "https://desk.invalid"
"""The address the fakes are asked at; nothing leaves the process."""

Handler = Callable[[Request], Awaitable[Response]]


@dataclass
class Desk:
    """A fake vendor: what it was asked, and which answers it gives instead of the right ones, in order."""

    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    trouble: deque[Response] = field(default_factory=deque)

    def misbehave(self, status: int, body: str = "", **headers: str) -> None:
        """Answer the next request for data with this."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.trouble.append(Response(body, status, named))

    def app(self, routes: dict[str, Handler], *, post: dict[str, Handler] | None = None) -> Any:
        return Starlette(
            routes=[
                *(Route(path, self._watched(handler)) for path, handler in routes.items()),
                *(Route(path, one, methods=["POST"]) for path, one in (post or {}).items()),
            ]
        )

    def _watched(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            self.asked.append((request.url.path, dict(request.query_params)))
            return self.trouble.popleft() if self.trouble else await handler(request)

        return answer


def client(app: Any) -> httpx.AsyncClient:
    """Return a client for which the fake is the whole internet."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), follow_redirects=False)


def basic(request: Request) -> tuple[str, str] | None:
    """Return the user and password a request shows, if they are well-formed."""
    kind, _, rest = request.headers.get("authorization", "").partition(" ")
    if kind != "Basic":
        return None
    try:
        user, colon, password = base64.b64decode(rest, validate=True).decode().partition(":")
    except ValueError:
        return None
    return (user, password) if colon else None


def bearer(request: Request) -> str | None:
    """Return the token a request shows."""
    kind, _, rest = request.headers.get("authorization", "").partition(" ")
    return rest if kind == "Bearer" else None


def refusal(status: int, error: str) -> Response:
    return JSONResponse({"error": error}, status)


async def form_of(request: Request) -> dict[str, str]:
    """Return a request's form; what is sent as anything else is none."""
    if request.headers.get("content-type", "") != "application/x-www-form-urlencoded":
        return {}
    return dict(parse_qsl((await request.body()).decode(), strict_parsing=True))
