"""Web chat's side of the gateway: the widget's file, sessions, messages in, answers out by socket or by long poll.

    GET  /v1/widget/{account}.js            the widget itself; public, cacheable
    GET  /v1/widget/{account}/demo          a page to try it on, where the account's `demo` says so
    POST /v1/widget/{account}/sessions      begin or go on: a session token, whether somebody is there, the history
    POST /v1/widget/{account}/messages      say something; 202 once durable; the same `id` again changes nothing
    GET  /v1/widget/{account}/messages      what is new after number `after`, waiting up to `wait` seconds for it
    POST /v1/widget/{account}/typing        POST /v1/widget/{account}/read {"n": …}
    POST /v1/widget/{account}/form          the offline form, as channel `form`
    WS   /v1/widget/{account}/socket        all of it on one connection; the first frame shows the session token
    POST /v1/conversations/{conversation_id}/typing     an agent is typing; scope `agents`
    POST /v1/widget/{account}/notices       the notifier tells a visitor something, once under its `id`; scope `notices`
    GET  /v1/conversations/{conversation_id}/visitor    presence, typing and read marks of the visitor; scope `agents`

A visitor's message goes into the spool first and into their history second. A crash between the two leaves the message
accepted and unacknowledged; the widget sends it again under the same id, and the history gets it then.

The session token goes in `Authorization`, never in a cookie or an address: the gateway needs no cookies, other sites'
pages cannot use it, and no log has it.
"""

import asyncio
import contextlib
import hashlib
import json
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.resources import files
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import asyncpg
import msgspec
from fastapi import Request, WebSocket
from fastapi.responses import JSONResponse
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.websockets import WebSocketDisconnect

from chassis import logs
from chassis.auth import anybody, needs, proved
from chassis.clock import Clock, monotonic, pause
from chassis.errors import InvalidEvent, Unavailable
from chassis.ledger import DRIVER_ERRORS
from schemas.inbound import InboundReceived
from schemas.scopes import Right
from services.ingest import announcements, metrics
from services.ingest.adapters import addresses, form, intake, json_body
from services.ingest.adapters.channel import ParseError
from services.ingest.adapters.intake import FrontDoor, PolicySource
from services.ingest.adapters.secrets import Secrets
from services.ingest.adapters.webchat import (
    CLIENT_ID,
    SESSION_ID,
    TEXT_LENGTH_MAX,
    Settings,
    Written,
    is_open,
)
from services.ingest.answers import Problem, client_of, read_body, too_many
from services.ingest.core import webchat as tokens
from services.ingest.core.normalise import clean_text, clean_value
from services.ingest.core.pace import Pace, network_of
from services.ingest.core.webchat import Session, TokenRefused
from services.ingest.paths import Paths
from services.ingest.webchat_store import CHANNEL, Clash, Shown, WebchatStore

WAY: Final = "webchat"
BODY_BYTES_MAX: Final = 32 * 1024
BODY_SECONDS: Final = 10.0
NOTICE_LENGTH_MAX: Final = 20_000
"""Characters of a notice."""
NOTICE_BYTES_MAX: Final = 128 * 1024
ANSWERED: Final = "answered"
"""The occasion of an agent's own answer, which the ticket's event shows already."""

WAIT_SECONDS_MAX: Final = 25
"""The longest a poll waits: below the 30 s and more after which proxies lose patience."""

HELLO_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 20.0
"""How often a socket looks for news although nobody announced any."""

SOCKET_HOURS_MAX: Final = 6
LISTENERS_MAX: Final = 5_000
"""Sockets and waiting polls of one process; more are told 503."""

LISTENERS_PER_SESSION: Final = 12
SESSIONS_PER_MINUTE: Final = 60
"""Sessions begun from one client address in a minute: an office behind one address is many people."""

MESSAGES_PER_MINUTE: Final = 30
MESSAGES_PER_ADDRESS: Final = 240
REQUESTS_PER_MINUTE: Final = 240
"""Polls, marks and frames of one session in a minute."""

FORMS_PER_MINUTE: Final = 10
FORGET_SECONDS: Final = 3_600.0

SCRIPT_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "public, max-age=300, stale-while-revalidate=86400",
    "Content-Security-Policy": "default-src 'none'",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Access-Control-Allow-Origin": "*",
    "X-Content-Type-Options": "nosniff",
}
DEMO_POLICY: Final = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_CONFIG: Final = re.compile(r"/\*config\*/ ?\{\}")

log = logs.get("ingest.webchat")

Handler = Callable[[Request, str, Settings], Awaitable[Response]]


# ------------------------------------------------------------------------------------------ announcements


@dataclass(eq=False, slots=True)
class Watch:
    """One listener of one session: wakes when something changed, or when an agent types."""

    changed: asyncio.Event = field(default_factory=asyncio.Event)
    is_agent_typing: bool = False

    async def wait(self, seconds: float) -> None:
        """Come back at news, or after `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.changed.wait()
        self.changed.clear()

    def take_typing(self) -> bool:
        """Return whether an agent has begun to type since the last look."""
        was, self.is_agent_typing = self.is_agent_typing, False
        return was


class Hub:
    """Announcements of all replicas, heard on one connection, and the listeners of this process.

    An announcement only says where to look: one that is lost costs a listener the time until its next look.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._watches: dict[str, set[Watch]] = {}
        self.count = 0
        self.is_closed = False

    @contextlib.contextmanager
    def watch(self, session_id: str) -> Iterator[Watch]:
        """Listen for a session's news.

        Raises:
            Unavailable: too many listen here already.
            Problem: this session listens too often.
        """
        if self.count >= LISTENERS_MAX or self.is_closed:
            raise Unavailable("the gateway has too many listeners and", retry_after=5.0)
        known = self._watches.setdefault(session_id, set())
        if len(known) >= LISTENERS_PER_SESSION:
            raise too_many("this session listens too often at once", 5)
        made = Watch()
        known.add(made)
        self.count += 1
        metrics.WEBCHAT_LISTENERS.set(self.count)
        try:
            yield made
        finally:
            self.count -= 1
            metrics.WEBCHAT_LISTENERS.set(self.count)
            known.discard(made)
            if not known:
                self._watches.pop(session_id, None)

    def hear(self, payload: str) -> None:
        """Take an announcement."""
        kind, _, session_id = payload.partition(" ")
        for one in self._watches.get(session_id, ()):
            one.is_agent_typing |= kind == "t"
            one.changed.set()

    def wake_all(self) -> None:
        """Have every listener look."""
        for watches in self._watches.values():
            for one in watches:
                one.changed.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Listen until the process stops, with a new connection whenever the old one is gone."""
        await announcements.listen(self._dsn, CHANNEL, self, stopping, log, "webchat_deaf")


# ------------------------------------------------------------------------------------------- what is asked


class _Strict(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    pass


class SessionAsked(_Strict):
    """A visitor comes: with the token of their session, and with what the site's server says of them."""

    token: str = ""
    identity: str = ""


class MessageAsked(_Strict):
    """A visitor says something. `id` is the widget's own name of it."""

    id: str
    text: str
    language: str = ""
    page: str = ""


class ReadAsked(_Strict):
    """A visitor has read the answers up to number `n`."""

    n: int


class FormAsked(_Strict):
    """The offline form. `id` is the widget's own name of it."""

    id: str
    email: str
    message: str
    name: str = ""
    language: str = ""
    page: str = ""


class NoticeAsked(_Strict):
    """The notifier tells the visitor of a session something. `id` is the notice's, `occasion` why they are told."""

    id: str
    session: str
    text: str
    occasion: str


class Frame(msgspec.Struct, kw_only=True):
    """A frame of the socket: `hello` (token, after, seen), `send` (id, text, language, page), `typing`, `read` (n)."""

    type: str
    token: str = ""
    after: int = 0
    id: str = ""
    text: str = ""
    language: str = ""
    page: str = ""
    n: int = 0


class News(NamedTuple):
    """What a look found: messages, and up to which of the visitor's own an agent has read."""

    messages: list[Shown]
    seen: int

    def as_json(self) -> dict[str, Any]:
        """Return it as the widget's protocol has it."""
        return {"messages": [one.as_json() for one in self.messages], "seen": self.seen}


def _invalid(field: str, detail: str) -> Problem:
    return Problem(422, "invalid", "The request is not valid", f"{field}: {detail}", field=field)


def _decode(body: bytes, kind: type[Any]) -> Any:
    try:
        json_body.check(body)
        return msgspec.json.decode(body or b"{}", type=kind)
    except ParseError as error:
        raise _invalid(error.field or "body", error.detail) from None
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        name = where.rstrip("`") or "body"
        # What msgspec says of a wrong shape names fields and types, never values.
        raise _invalid(name, what[:200]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _invalid("body", "is not JSON") from None


def _text_of(given: str) -> str:
    text = clean_text(given)
    if not text.strip():
        raise _invalid("text", "is empty")
    if len(text) > TEXT_LENGTH_MAX:
        raise _invalid("text", f"has more than {TEXT_LENGTH_MAX} characters")
    return text


def _notice_text(given: str) -> str:
    text = clean_text(given)
    if not text.strip():
        raise _invalid("text", "is empty")
    if len(text) > NOTICE_LENGTH_MAX:
        raise _invalid("text", f"has more than {NOTICE_LENGTH_MAX} characters")
    return text


def _client_id(given: str) -> str:
    if not re.fullmatch(CLIENT_ID, given):
        raise _invalid("id", "must be 8 to 64 letters, digits, hyphens or underscores")
    return given


def _language_of(given: str) -> str:
    return given if form.LANGUAGE.match(given) and len(given) <= 35 else ""


def _number(request: Request, name: str, most: int) -> int:
    given = request.query_params.get(name, "0")
    if not given.isascii() or not given.isdigit() or len(given) > 15 or int(given) > most:
        raise _invalid(name, f"must be a whole number from 0 to {most}")
    return int(given)


# -------------------------------------------------------------------------------------------------- the chat


@dataclass(frozen=True, slots=True)
class Deps:
    """What web chat stands on. `secret` is the token secret, from which its own key is derived."""

    spool: FrontDoor
    policies: PolicySource
    clock: Clock
    secrets: Secrets
    pool: asyncpg.Pool
    hub: Hub
    secret: bytes
    workspace: str = "default"
    keep_days: int = 90


class Webchat:
    """The routes' bodies, with what they stand on."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._store = WebchatStore(deps.workspace)
        self._key = tokens.session_key(deps.secret, deps.workspace)
        self._script = files("services.ingest").joinpath("web", "widget.js").read_text("utf-8")
        self._starts = Pace(SESSIONS_PER_MINUTE)
        self._messages = Pace(MESSAGES_PER_MINUTE)
        self._addresses = Pace(MESSAGES_PER_ADDRESS)
        self._requests = Pace(REQUESTS_PER_MINUTE)
        self._forms = Pace(FORMS_PER_MINUTE)

    def _now(self) -> datetime:
        return self._deps.clock.now()

    def _pace(self, pace: Pace, sender: object, what: str) -> None:
        wait = pace.take(sender, self._now().timestamp())
        if wait > 0:
            raise too_many(what, wait)

    def _account(self, name: str) -> Settings:
        found = self._deps.policies.current.channel_accounts.get(name)
        if found is None or found[0] != WAY or not isinstance(found[1], Settings):
            raise Problem(
                404, "not_found", "Not found", "account: there is no such chat", field="account"
            )
        return found[1]

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        async with self._deps.pool.acquire(timeout=3) as connection:
            yield connection

    # ----------------------------------------------------------------------------------- who asks, from where

    @staticmethod
    def is_allowed(settings: Settings, origin: str | None, host: str) -> bool:
        """Whether a page of `origin` may use the chat: a listed site, or the gateway's own demo page."""
        if origin is None or "*" in settings.origins or origin in settings.origins:
            return True
        return bool(host) and urlsplit(origin).netloc == host

    def _check_origin(self, asked: HTTPConnection, settings: Settings) -> None:
        if not self.is_allowed(
            settings, asked.headers.get("origin"), asked.headers.get("host", "")
        ):
            raise Problem(
                403,
                "forbidden",
                "Forbidden",
                "Origin: this chat may not be used from there; `origins` in channels.yaml lists the sites",
                field="Origin",
            )

    def _read_token(self, token: str, account: str) -> Session:
        try:
            return tokens.read(self._key, token, account, self._now())
        except TokenRefused as refused:
            raise Problem(
                401,
                "stale" if refused.reason == "stale" else "unauthorized",
                "Not authorized",
                f"token: {refused.detail}",
                field="token",
                headers={"WWW-Authenticate": "Bearer"},
            ) from None

    def _session(self, request: Request, account: str) -> Session:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        session = self._read_token(token.strip() if kind.lower() == "bearer" else "", account)
        self._pace(self._requests, session.session_id, "this session asks too often")
        return session

    def _identity(self, settings: Settings, token: str, account: str) -> tokens.Identity | None:
        if not token:
            return None
        references = (settings.secret, settings.previous_secret)
        keys = [found for one in references if one and (found := self._deps.secrets.get(one))]
        try:
            identity = tokens.read_identity(keys, token, account, self._now())
        except TokenRefused as refused:
            raise Problem(
                401,
                "stale" if refused.reason == "stale" else "unauthorized",
                "Not authorized",
                f"identity: {refused.detail}",
                field="identity",
            ) from None
        if not addresses.is_address(identity.email):
            raise _invalid("identity", "`email` is not one mail address")
        return tokens.Identity(identity.email.lower(), clean_value(identity.name, 255))

    # ------------------------------------------------------------------------------------------------ routes

    async def session(self, request: Request, account: str, settings: Settings) -> Response:
        """Begin a session, or go on with one."""
        asked: SessionAsked = _decode(await self._body(request), SessionAsked)
        identity = self._identity(settings, asked.identity, account)
        now, life = self._now(), timedelta(days=settings.session_days)
        known = self._known_session(asked.token, account)
        wanted = identity.email if identity is not None else ""
        if known is not None and known.email and known.email != wanted:
            known = None  # Somebody else sits there now, or the customer has logged out: their chat is not shown.
        if known is None:
            self._pace(self._starts, client_of(request), "sessions were begun too often from there")
            known = Session(account, secrets.token_hex(16), 0, 0)
        if identity is not None:
            known = Session(account, known.session_id, 0, 0, identity.email, identity.name)
        token = asked.token
        if known.issued_at == 0 or known.is_due_for_renewal(now):
            known = known.renewed(now, life)
            token = tokens.sign(self._key, known)
        async with self._connection() as connection:
            news = await self._look(connection, known.session_id, 0)
        return JSONResponse(
            {
                "token": token,
                "session": known.session_id,
                "expires_at": known.expires_at,
                "online": is_open(settings, now),
                "identified": bool(known.email),
                **news.as_json(),
            },
            headers={"Cache-Control": "no-store"},
        )

    def _known_session(self, token: str, account: str) -> Session | None:
        """Return the session of a token that is still good; one that is not begins anew, which is no error."""
        try:
            return tokens.read(self._key, token, account, self._now()) if token else None
        except TokenRefused:
            return None

    async def message(self, request: Request, account: str, settings: Settings) -> Response:
        """Take a visitor's message."""
        session = self._session(request, account)
        asked: MessageAsked = _decode(await self._body(request), MessageAsked)
        number, at = await self._say(request, session, account, asked)
        told = {"id": asked.id, "n": number, "at": at.isoformat()}
        return JSONResponse(
            {**told, "online": is_open(settings, self._now())}, 202, {"Cache-Control": "no-store"}
        )

    async def _say(
        self, asked_by: HTTPConnection, session: Session, account: str, asked: MessageAsked
    ) -> tuple[int, datetime]:
        """Make a message durable, then show it in its session's history; return its number and time."""
        client_id, text = _client_id(asked.id), _text_of(asked.text)
        self._pace(self._messages, session.session_id, "messages were sent too often")
        self._pace(self._addresses, _address(asked_by), "messages were sent too often from there")
        body = msgspec.json.encode(
            Written(
                session=session.session_id,
                id=client_id,
                text=text,
                name=session.name,
                email=session.email,
                language=_language_of(asked.language),
                page=clean_value(asked.page, 2_000),
            ).model_dump()
        )
        digest = intake.digest(text.encode())
        name = f"webchat/{account}/{session.session_id}/{client_id}"
        now = self._now()
        received = InboundReceived(
            input_id=intake.named_id("input", self._deps.workspace, name, digest),
            channel=WAY,
            account=account,
            method="POST",
            url=f"/v1/widget/{account}/messages",
            headers=_kept(asked_by),
            received_at=now,
            verified=bool(session.email),
        )
        result = await self._deps.spool.put(
            intake.inbound_item(
                received,
                body,
                session.session_id,
                self._deps.workspace,
                idempotency=(name, digest),
                traceparent=intake.traceparent_of(asked_by.headers.get("traceparent")),
            )
        )
        if result.conflicting:
            raise _clash()
        try:
            async with self._connection() as connection:
                shown = await self._store.add_visitors(
                    connection, session.session_id, account, client_id, text, now
                )
        except Clash:
            raise _clash() from None
        (metrics.REPEATED if result.repeated else metrics.ACCEPTED).labels(WAY).inc()
        return shown

    async def messages(self, request: Request, account: str, settings: Settings) -> Response:
        """Return what is new, waiting for it where the widget asks for that."""
        session = self._session(request, account)
        after, seen = _number(request, "after", 10**15), _number(request, "seen", 10**15)
        deadline = monotonic() + _number(request, "wait", WAIT_SECONDS_MAX)
        with self._deps.hub.watch(session.session_id) as watch:
            while True:
                async with self._connection() as connection:
                    await self._store.present(connection, session.session_id, self._now())
                    news = await self._look(connection, session.session_id, after)
                is_typing = watch.take_typing()
                left = deadline - monotonic()
                is_news = news.messages or news.seen > seen or is_typing
                if is_news or left <= 0 or self._deps.hub.is_closed:
                    break
                await watch.wait(min(left, LOOK_SECONDS))
        told = {**news.as_json(), "typing": is_typing, "online": is_open(settings, self._now())}
        return JSONResponse(told, headers={"Cache-Control": "no-store"})

    async def _look(self, connection: Any, session_id: str, after: int) -> News:
        return News(
            await self._store.shown(connection, session_id, after),
            await self._store.seen_up_to(connection, session_id),
        )

    async def typing(self, request: Request, account: str, settings: Settings) -> Response:
        """Remember that the visitor is typing."""
        del settings
        session = self._session(request, account)
        await self._body(request)
        async with self._connection() as connection:
            await self._store.visitor_types(connection, session.session_id, self._now())
        return Response(status_code=204)

    async def read(self, request: Request, account: str, settings: Settings) -> Response:
        """Remember how far the visitor has read."""
        del settings
        session = self._session(request, account)
        asked: ReadAsked = _decode(await self._body(request), ReadAsked)
        if not 0 <= asked.n <= 10**15:
            raise _invalid("n", "must be a message's number")
        async with self._connection() as connection:
            await self._store.read_up_to(connection, session.session_id, asked.n, self._now())
        return Response(status_code=204)

    async def form(self, request: Request, account: str, settings: Settings) -> Response:
        """Take the offline form, as the channel `form`: it is answered by mail."""
        del settings
        self._pace(self._forms, client_of(request), "the form was sent too often from there")
        asked: FormAsked = _decode(await self._body(request), FormAsked)
        client_id = _client_id(asked.id)
        page = clean_value(asked.page, 2_000)
        fields = msgspec.json.encode(
            {
                "name": asked.name,
                "email": asked.email,
                "message": asked.message,
                "language": _language_of(asked.language),
                "extra": {"page": page} if page else {},
            }
        )
        try:
            read = form.read_fields(fields, "application/json")
        except ParseError as error:
            raise _invalid(error.field or "body", error.detail.partition(": ")[2]) from None
        name = f"webchat-form/{account}/{client_id}"
        digest = intake.digest(fields)
        received = InboundReceived(
            input_id=intake.named_id("input", self._deps.workspace, name, digest),
            channel="form",
            account=account,
            method="POST",
            url=f"/v1/widget/{account}/form",
            headers={**_kept(request), "content-type": "application/json"},
            received_at=self._now(),
            verified=False,
        )
        item = intake.inbound_item(
            received, fields, read.email, self._deps.workspace, idempotency=(name, digest)
        )
        result = await self._deps.spool.put(item)
        if result.conflicting:
            raise _clash()
        (metrics.REPEATED if result.repeated else metrics.ACCEPTED).labels(WAY).inc()
        return JSONResponse({"id": client_id}, 202, {"Cache-Control": "no-store"})

    async def notice(self, request: Request, account: str) -> Response:
        """Show a visitor what the notifier tells them; an agent's own answer is there by the ticket's event."""
        self._account(account)
        asked: NoticeAsked = _decode(await self._body(request, NOTICE_BYTES_MAX), NoticeAsked)
        notice_id, text = _client_id(asked.id), _notice_text(asked.text)
        if not re.fullmatch(SESSION_ID, asked.session):
            raise _invalid("session", "must be 32 hexadecimal digits")
        number: int | None = None
        async with self._connection() as connection:
            if not await self._store.is_theirs(connection, asked.session, account):
                raise Problem(
                    404,
                    "not_found",
                    "Not found",
                    "session: no visitor of this chat is known by it",
                    field="session",
                )
            if asked.occasion != ANSWERED:
                try:
                    number, _ = await self._store.add_notice(
                        connection, asked.session, notice_id, text, self._now()
                    )
                except Clash:
                    raise _clash() from None
        return JSONResponse({"id": notice_id, "is_shown": number is not None, "n": number})

    async def _body(self, request: Request, limit: int = BODY_BYTES_MAX) -> bytes:
        media_type = form.media_type(request.headers.get("content-type", ""))
        if media_type not in ("application/json", ""):
            raise Problem(
                415,
                "unsupported_type",
                "Unsupported media type",
                "Content-Type: must be application/json",
                field="Content-Type",
            )
        return await read_body(request, limit, BODY_SECONDS)

    # -------------------------------------------------------------------------------------------- the files

    async def script(self, request: Request) -> Response:
        """Serve the widget with what its account says of colours and words."""
        account = request.path_params["account"]
        try:
            settings = self._account(account)
        except Problem as problem:
            return problem.response()
        config = {
            "account": account,
            "title": settings.title,
            "greeting": settings.greeting,
            "colour": settings.colour,
            "position": settings.position,
            "longest": TEXT_LENGTH_MAX,
        }
        said = json.dumps(config, sort_keys=True).replace("<", "\\u003c")
        text = _CONFIG.sub(lambda _: said, self._script, count=1)
        tag = f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
        headers = {**SCRIPT_HEADERS, "ETag": tag}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(text, headers=headers, media_type="text/javascript")

    async def demo(self, request: Request) -> Response:
        """Serve a page with nothing but the widget, under a strict content security policy."""
        account = request.path_params["account"]
        try:
            if not self._account(account).demo:
                raise Problem(404, "not_found", "Not found", "Not found")
        except Problem as problem:
            return problem.response()
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{account}: web chat</title><h1>{account}</h1>"
            f'<p>A page with one script tag.</p><script src="../{account}.js" async></script></html>'
        )
        headers = {"Content-Security-Policy": DEMO_POLICY, "Cache-Control": "no-store"}
        return Response(page, headers=headers, media_type="text/html")

    # ------------------------------------------------------------------------------------------- the socket

    async def socket(self, socket: WebSocket) -> None:
        """Serve one widget's socket until either side ends it."""
        account = socket.path_params["account"]
        try:
            self._check_origin(socket, self._account(account))
            self._pace(
                self._starts, ("socket", _address(socket)), "too many connections from there"
            )
        except Problem as problem:
            metrics.REFUSED.labels(WAY, problem.reason).inc()
            await socket.close(1008)
            return
        await socket.accept()
        wire = Wire(socket)
        try:
            async with asyncio.timeout(SOCKET_HOURS_MAX * 3_600):
                await self._converse(wire, account)
        except Problem as problem:
            metrics.REFUSED.labels(WAY, problem.reason).inc()
            await wire.refuse(problem)
            await wire.close(4401 if problem.status == 401 else 1008)
        except (Unavailable, *DRIVER_ERRORS):
            await wire.close(1013)
        except WebSocketDisconnect:
            pass

    async def _converse(self, wire: "Wire", account: str) -> None:
        async with asyncio.timeout(HELLO_SECONDS):
            hello = await wire.receive()
        if hello.type != "hello":
            raise _invalid("type", "the first frame must be `hello`")
        session = self._read_token(hello.token, account)
        with self._deps.hub.watch(session.session_id) as watch:
            parts = {
                asyncio.create_task(self._listen(wire, session, account)),
                asyncio.create_task(self._tell(wire, session, account, watch, hello.after)),
            }
            try:
                done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for part in parts:
                    part.cancel()
                await asyncio.gather(*parts, return_exceptions=True)
            for part in done:
                part.result()

    async def _listen(self, wire: "Wire", session: Session, account: str) -> None:
        """Do what the widget's frames ask for, one after the other."""
        while True:
            frame = await wire.receive()
            try:
                self._pace(self._requests, session.session_id, "this session asks too often")
                await self._do(wire, session, account, frame)
            except Problem as problem:
                metrics.REFUSED.labels(WAY, problem.reason).inc()
                await wire.refuse(problem, frame.id)
            except (InvalidEvent, ParseError):
                metrics.REFUSED.labels(WAY, "invalid").inc()
                await wire.refuse(_invalid("text", "cannot be stored"), frame.id)
            except (Unavailable, *DRIVER_ERRORS):
                metrics.UNAVAILABLE.labels(WAY).inc()
                await wire.refuse(_unavailable(5.0), frame.id)

    async def _do(self, wire: "Wire", session: Session, account: str, frame: Frame) -> None:
        match frame.type:
            case "send":
                settings = self._account(account)
                asked = MessageAsked(
                    id=frame.id, text=frame.text, language=frame.language, page=frame.page
                )
                number, at = await self._say(wire.socket, session, account, asked)
                online = is_open(settings, self._now())
                told = {"id": frame.id, "n": number, "at": at.isoformat(), "online": online}
                await wire.send({"type": "ack", **told})
            case "typing":
                async with self._connection() as connection:
                    await self._store.visitor_types(connection, session.session_id, self._now())
            case "read" if 0 <= frame.n <= 10**15:
                async with self._connection() as connection:
                    await self._store.read_up_to(
                        connection, session.session_id, frame.n, self._now()
                    )
            case _:
                raise _invalid("type", "must be send, typing or read")

    async def _tell(
        self, wire: "Wire", session: Session, account: str, watch: Watch, after: int
    ) -> None:
        """Send the widget what is new, as soon as it is there."""
        seen = -1
        latest = max(after, 0)
        while not self._deps.hub.is_closed:
            async with self._connection() as connection:
                await self._store.present(connection, session.session_id, self._now())
                news = await self._look(connection, session.session_id, latest)
            if watch.take_typing():
                await wire.send({"type": "typing"})
            if news.messages or news.seen != seen:
                online = is_open(self._account(account), self._now())
                await wire.send({"type": "news", "online": online, **news.as_json()})
                seen = news.seen
            if news.messages:
                latest = news.messages[-1].n
                continue  # There may be more than one page.
            await watch.wait(LOOK_SECONDS)

    # ------------------------------------------------------------------------------------- the agents' side

    async def agent_typing(self, conversation_id: str) -> Response:
        """Tell the visitor that an agent is typing."""
        async with self._connection() as connection:
            is_chat = await self._store.agent_types(connection, conversation_id)
        if not is_chat:
            raise _no_chat()
        return JSONResponse({"id": conversation_id}, 202)

    async def visitor(self, conversation_id: str) -> Response:
        """Tell an agent whether the visitor is there, types, and how far they have read."""
        now = self._now()
        async with self._connection() as connection:
            row = await self._store.visitor(connection, conversation_id)
        if row is None:
            raise _no_chat()
        typed_at, read_at = row["typing_at"], row["read_at"]
        return JSONResponse(
            {
                "account": row["account"],
                "present": now - row["seen_at"] < timedelta(seconds=3 * LOOK_SECONDS),
                "seen_at": row["seen_at"].isoformat(),
                "typing": typed_at is not None and now - typed_at < timedelta(seconds=6),
                "unread": row["unread"],
                "read_at": read_at.isoformat() if read_at is not None else None,
            }
        )

    # ------------------------------------------------------------------------------------------- the mounting

    async def run(self, stopping: asyncio.Event) -> None:
        """Listen for announcements and forget old sessions, until the process stops."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._deps.hub.run(stopping))
            group.create_task(self._forget(stopping))

    async def _forget(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                async with self._connection() as connection:
                    before = self._now() - timedelta(days=self._deps.keep_days)
                    await self._store.forget(connection, before)
            except DRIVER_ERRORS as error:
                log.warning("webchat_forgetting_put_off", error=type(error).__name__)
            await pause(stopping, FORGET_SECONDS)

    async def preflight(self, request: Request) -> Response:
        """Tell a browser whether a site's page may use the chat (CORS)."""
        response = self._with_cors(request, Response(status_code=204))
        if "Access-Control-Allow-Origin" in response.headers:
            response.headers["Access-Control-Allow-Methods"] = "GET, POST"
            response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
            response.headers["Access-Control-Max-Age"] = "600"
        return response

    def _with_cors(self, request: Request, response: Response) -> Response:
        origin = request.headers.get("origin")
        response.headers["Vary"] = "Origin"
        try:
            settings = self._account(request.path_params.get("account", ""))
        except Problem:
            return response
        if origin is not None and self.is_allowed(
            settings, origin, request.headers.get("host", "")
        ):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = "Retry-After"
        return response

    async def answered(
        self, request: Request, handler: Handler, *, is_for_agents: bool = False
    ) -> Response:
        """Run a route, and count and word what it refuses."""
        try:
            account = request.path_params.get("account", "")
            settings = Settings() if is_for_agents else self._account(account)
            if not is_for_agents:
                self._check_origin(request, settings)
            response = await handler(request, account, settings)
        except Problem as problem:
            metrics.REFUSED.labels(WAY, problem.reason).inc()
            response = problem.response()
        except InvalidEvent:
            metrics.REFUSED.labels(WAY, "invalid").inc()
            response = _invalid("body", "cannot be stored").response()
        except (Unavailable, *DRIVER_ERRORS) as error:
            metrics.UNAVAILABLE.labels(WAY).inc()
            response = _unavailable(getattr(error, "retry_after", None) or 5.0).response()
        return response if is_for_agents else self._with_cors(request, response)


def mount(app: Paths, chat: Webchat) -> None:
    """Put web chat's paths into the gateway's application, which proves keys before agents' paths."""
    visitor = proved(
        "the visitor's session token, or none where one begins; the site is looked at first"
    )

    def refuse(problem: Problem) -> Response:
        if problem.status == 503:
            metrics.UNAVAILABLE.labels(WAY).inc()
        else:
            metrics.REFUSED.labels(WAY, problem.reason).inc()
        return problem.response()

    def add(method: str, path: str, handler: Handler, right: Right | None = None) -> None:
        async def endpoint(request: Request) -> Response:
            return await chat.answered(request, handler, is_for_agents=right is not None)

        app.add(path, (method,), endpoint, visitor if right is None else needs(right), refuse)

    def add_for_agents(
        method: str, name: str, handler: Callable[[str], Awaitable[Response]]
    ) -> None:
        async def checked(request: Request, account: str, settings: Settings) -> Response:
            del account, settings
            return await handler(request.path_params["conversation_id"])

        path = f"/v1/conversations/{{conversation_id}}/{name}"
        add(method, path, checked, "agents")

    async def notice(request: Request, account: str, settings: Settings) -> Response:
        del account, settings
        return await chat.notice(request, request.path_params["account"])

    here = "/v1/widget/{account}"
    add("POST", f"{here}/notices", notice, "notices")
    add("POST", f"{here}/sessions", chat.session)
    add("POST", f"{here}/messages", chat.message)
    add("GET", f"{here}/messages", chat.messages)
    add("POST", f"{here}/typing", chat.typing)
    add("POST", f"{here}/read", chat.read)
    add("POST", f"{here}/form", chat.form)
    add_for_agents("POST", "typing", chat.agent_typing)
    add_for_agents("GET", "visitor", chat.visitor)
    page = anybody("the widget itself and the page that shows it: no data of anybody")
    app.add(f"{here}.js", ("GET",), chat.script, page)
    app.add(f"{here}/demo", ("GET",), chat.demo, page)
    preflight = anybody(
        "a browser's question before a request, answered without looking anything up"
    )
    app.add(f"{here}/{{name}}", ("OPTIONS",), chat.preflight, preflight)
    app.add_socket(f"{here}/socket", chat.socket, visitor)


class Wire:
    """A socket as frames: JSON texts of bounded size, sent one at a time."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self._sending = asyncio.Lock()

    async def receive(self) -> Frame:
        """Return the next frame.

        Raises:
            Problem: it is too large, or no frame.
            WebSocketDisconnect: the widget has gone.
        """
        message = await self.socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1000))
        data = (message.get("text") or "").encode("utf-8", "replace") or message.get("bytes") or b""
        if len(data) > BODY_BYTES_MAX:
            raise Problem(413, "too_large", "Too large", f"has more than {BODY_BYTES_MAX} bytes")
        frame: Frame = _decode(data, Frame)
        return frame

    async def send(self, what: Mapping[str, Any]) -> None:
        """Send a frame."""
        async with self._sending:
            await self.socket.send_text(msgspec.json.encode(what).decode())

    async def refuse(self, problem: Problem, client_id: str = "") -> None:
        """Tell the widget what was refused, and of which of its messages."""
        wait = int(problem.headers.get("Retry-After", 0))
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self.send(
                {
                    "type": "refused",
                    "id": client_id,
                    "status": problem.status,
                    "reason": problem.reason,
                    "detail": problem.detail,
                    "retry_after": wait,
                }
            )

    async def close(self, code: int) -> None:
        """End the connection; one that has ended already stays so."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self.socket.close(code)


def _address(asked_by: HTTPConnection) -> str:
    return network_of(asked_by.client.host if asked_by.client is not None else "")


def _kept(asked_by: HTTPConnection) -> dict[str, str]:
    kept = {
        name: asked_by.headers.get(name, "")[:2_000].replace("\x00", "")
        for name in ("user-agent", "origin")
    }
    return {"content-type": "application/json", **{k: v for k, v in kept.items() if v}}


def _clash() -> Problem:
    return Problem(
        422,
        "conflict",
        "The id was used before",
        "id: was used before for another text",
        field="id",
    )


def _no_chat() -> Problem:
    return Problem(
        404,
        "not_found",
        "Not found",
        "conversation_id: no web chat is known by it",
        field="conversation_id",
    )


def _unavailable(wait: float) -> Problem:
    return Problem(
        503,
        "unavailable",
        "Not now",
        "The request could not be stored now; please send it again",
        headers={"Retry-After": str(max(1, round(wait)))},
    )
