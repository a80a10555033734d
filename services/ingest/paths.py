"""Which handler answers a request: the gateway's table of paths, as an ASGI application.

A path is added with what it needs, or not at all: whoever lacks it is turned away here, before a byte of the body is read, and
who had it goes into the audit with what came of it. A handler gets the request whole and reads the body itself. A path is
`/`-separated: literal pieces, `{name}`, or `{name}` with something literal behind it (`{account}.js`); no name is empty.
Of two paths that fit, the one added first counts. Unknown paths are 404, other methods 405, both as problem JSON, and a
handler's mistake is 500 without its details.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from fastapi import Request, WebSocket
from starlette.requests import HTTPConnection
from starlette.responses import Response

from chassis import logs
from chassis.auth import CALLER, Permission
from chassis.web import Receive, Scope, Send
from services.ingest.access import Access, asked_of
from services.ingest.answers import Problem

Handler = Callable[[Request], Awaitable[Response]]
SocketHandler = Callable[[WebSocket], Awaitable[None]]
Finish = Callable[[HTTPConnection, Response], Response]
Refuse = Callable[[Problem], Response]
"""Says in a part's own form that somebody is turned away, and counts it."""

log = logs.get("ingest.gateway")


def _plainly(problem: Problem) -> Response:
    return problem.response()


@dataclass(frozen=True, slots=True)
class Route:
    """A path and a method: what it needs, and who answers."""

    permission: Permission
    handler: Handler
    refuse: Refuse


@dataclass(slots=True)
class _Path:
    """A path and what answers it, by method."""

    pieces: tuple[tuple[str, str], ...]
    """For each piece its name ("" for a literal one) and its literal text."""

    text: str
    routes: dict[str, Route] = field(default_factory=dict)
    socket: SocketHandler | None = None

    def fits(self, given: list[str]) -> dict[str, str] | None:
        """Return what the names stand for; None where the path is another one."""
        found: dict[str, str] = {}
        for (name, literal), piece in zip(self.pieces, given, strict=True):
            if not name:
                if piece != literal:
                    return None
                continue
            if not piece.endswith(literal) or len(piece) == len(literal):
                return None
            found[name] = piece.removesuffix(literal)
        return found


class Paths:
    """The gateway's application. `finish` has the last word on every answer of it, as CORS has."""

    def __init__(self, access: Access, finish: Finish) -> None:
        self._access = access
        self._finish = finish
        self._known: dict[tuple[int, str], list[_Path]] = {}
        self.added: dict[str, tuple[str, ...]] = {}
        """Each path and its methods, as they were added."""
        self.permissions: dict[tuple[str, str], Permission] = {}
        """What each method of a path needs; a WebSocket's method is `WEBSOCKET`."""

    def add(
        self,
        path: str,
        methods: Iterable[str],
        handler: Handler,
        permission: Permission,
        refuse: Refuse = _plainly,
    ) -> None:
        """Have `handler` answer these methods of a path for those who have what it needs."""
        one = self._path(path)
        for method in methods:
            if method in one.routes:
                raise ValueError(f"{method} {path} is answered already")
            one.routes[method] = Route(permission, handler, refuse)
            self.permissions[method, path] = permission
        self.added[path] = tuple(one.routes)

    def add_socket(self, path: str, handler: SocketHandler, permission: Permission) -> None:
        """Have `handler` serve the WebSockets of a path; it proves by itself who opens one."""
        if permission.right is not None:
            raise ValueError(
                f"{path}: a WebSocket cannot show a key, its handler proves who opens it"
            )
        self._path(path).socket = handler
        self.permissions["WEBSOCKET", path] = permission

    def _path(self, path: str) -> _Path:
        pieces = tuple(_piece(text) for text in path.split("/"))
        near = self._known.setdefault((len(pieces), pieces[2][1]), [])
        for known in near:
            if known.pieces == pieces:
                return known
        near.append(_Path(pieces, path))
        return near[-1]

    def _find(self, path: str) -> list[tuple[_Path, dict[str, str]]]:
        given = path.split("/")
        # All paths begin with `/v1/` and a literal piece, which tells most of them apart.
        near = self._known.get((len(given), given[2]), ()) if len(given) > 2 else ()
        return [(one, names) for one in near if (names := one.fits(given)) is not None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or serve one socket."""
        if scope["type"] == "http":
            request = Request(scope, receive)
            response = await self._answer(request, scope)
            await self._finish(request, response)(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._serve(scope, receive, send)

    async def _answer(self, request: Request, scope: Scope) -> Response:
        found = self._find(scope["path"])
        for one, names in found:
            route = one.routes.get(scope["method"])
            if route is not None:
                scope["path_params"] = names
                try:
                    return await self._served(one.text, route, request)
                except Exception as error:
                    # The path as it was declared: as asked for, a piece of it may be a secret.
                    log.exception("request_failed", route=one.text, error=type(error).__name__)
                    return _failed()
        allowed = sorted({method for one, _ in found for method in one.routes})
        if not allowed:
            return Problem(404, "not_found", "Not found", "there is no such path").response()
        return Problem(
            405,
            "wrong_method",
            "Method not allowed",
            f"this path knows {', '.join(allowed)}",
            headers={"Allow": ", ".join(allowed)},
        ).response()

    async def _served(self, path: str, route: Route, request: Request) -> Response:
        right = route.permission.right
        if right is None:
            return await route.handler(request)
        try:
            caller = await self._access.admit(request, route.permission, path)
        except Problem as problem:
            return route.refuse(problem)
        if caller is None:
            return await route.handler(request)
        request.scope[CALLER] = caller
        status = 500
        try:
            response = await route.handler(request)
            status = response.status_code
        finally:
            asked = asked_of(request, right, path)
            self._access.audit.used(caller, asked, status)
        return response

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        for one, names in self._find(scope["path"]):
            if one.socket is not None:
                scope["path_params"] = names
                await one.socket(socket)
                return
        await socket.close(1000)


def _piece(text: str) -> tuple[str, str]:
    if not text.startswith("{"):
        return "", text
    name, _, literal = text[1:].partition("}")
    return name, literal


def _failed() -> Response:
    return Problem(500, "failed", "Failed", "Something failed here; it was written down").response()
