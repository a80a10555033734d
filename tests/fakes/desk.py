"""What the fake helpdesks share: an ASGI app over in-memory data that can be told to misbehave for its next answers."""

import asyncio
import base64
import json
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

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Sent:
    """A message that a fake vendor really took: where it went (a thread's or a person's id there), and its words.

    `key` is the idempotency key it came with, where the vendor has one; `id` the vendor's id of the new message.
    """

    to: str
    text: str
    key: str = ""
    id: str = ""


@dataclass
class Desk:
    """A fake vendor: what it was asked, and which answers it gives instead of the right ones, in order."""

    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    trouble: deque[Response] = field(default_factory=deque)
    wrote: list[tuple[str, str, Any]] = field(default_factory=list)
    write_trouble: deque[Response | Exception] = field(default_factory=deque)
    after_write: deque[Response | Exception] = field(default_factory=deque)
    hangs: bool | None = None
    hangs_always: bool = False
    hung: asyncio.Event = field(default_factory=asyncio.Event)
    sent: list[Sent] = field(default_factory=list)
    """Messages to people, of those fakes that take any."""
    tried: int = 0
    """Writes that came, refused ones too."""

    def misbehave(self, status: int, body: str = "", **headers: str) -> None:
        """Answer the next request for data with this."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.trouble.append(Response(body, status, named))

    def refuse_write(self, status: int, body: str = "", **headers: str) -> None:
        """Answer the next write with this, and do nothing."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.write_trouble.append(Response(body, status, named))

    def lose_write(self) -> None:
        """Let the next write reach nobody: the connection ends before anything is done."""
        self.write_trouble.append(httpx.ReadTimeout("no answer"))

    def lose_answer(self, status: int | None = None) -> None:
        """Do the next write, and then answer with a server's error, or (None) not at all."""
        lost = httpx.ReadTimeout("no answer") if status is None else Response("", status)
        self.after_write.append(lost)

    def hang(self, *, is_done: bool) -> None:
        """Let the next write do its work (or none) and never be answered."""
        self.hangs = is_done
        self.hung.clear()

    def app(
        self,
        routes: dict[str, Handler],
        *,
        post: dict[str, Handler] | None = None,
        write: dict[tuple[str, str], Handler] | None = None,
        form: dict[tuple[str, str], Handler] | None = None,
        upload: dict[tuple[str, str], Handler] | None = None,
    ) -> Any:
        """Return the app. `write` are the writes in JSON, `form` those in a form's encoding, `upload` those in any other.

        `post` are POSTs that write nothing (a token, a search).
        """
        return Starlette(
            routes=[
                *(Route(path, self._watched(one), methods=["GET"]) for path, one in routes.items()),
                *(Route(path, one, methods=["POST"]) for path, one in (post or {}).items()),
                *(
                    Route(path, self._written(one, kind), methods=[method])
                    for kind, routes_of_kind in ((JSON, write), (FORM, form), ("", upload))
                    for (method, path), one in (routes_of_kind or {}).items()
                ),
            ]
        )

    def _written(self, handler: Handler, kind: str = JSON) -> Handler:
        async def answer(request: Request) -> Response:
            self.tried += 1
            if self.hangs is False or self.hangs_always:
                await self._hang()
            if self.write_trouble:
                return _or_raise(self.write_trouble.popleft())
            if kind and request.headers.get("content-type", "").partition(";")[0] != kind:
                return refusal(415, "not JSON" if kind == JSON else f"not {kind}")
            said = await handler(request)
            if said.status_code < 300:
                raw = await request.body()
                body = dict(parse_qsl(raw.decode())) if kind == FORM else raw
                self.wrote.append(
                    (request.method, request.url.path, json.loads(raw) if kind == JSON else body)
                )
                if self.hangs:
                    await self._hang()
                if self.after_write:
                    return _or_raise(self.after_write.popleft())
            return said

        return answer

    async def _hang(self) -> None:
        self.hangs = None
        self.hung.set()
        await asyncio.Event().wait()

    def _watched(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            self.asked.append((request.url.path, dict(request.query_params)))
            return self.trouble.popleft() if self.trouble else await handler(request)

        return answer


def _or_raise(trouble: Response | Exception) -> Response:
    if isinstance(trouble, Exception):
        raise trouble
    return trouble


async def json_of(request: Request) -> Any:
    """Return a request's JSON; None where it is none."""
    try:
        return json.loads(await request.body())
    except ValueError:
        return None


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
