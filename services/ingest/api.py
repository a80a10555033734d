"""The gateway's HTTP: every route checks who asks, bounds and reads the body, stores, and only then says 202.

    POST   /v1/forms/{key}                                               a web form; public
    POST   /v1/messages                                                  a message of a generic channel; scope `messages`
    POST   /v1/events                                                    CloudEvents; scope `events`, or signed
    GET    /v1/conversations/{conversation}/tickets/{ticket}             where the ticket stands; ETag: its version
    POST   /v1/conversations/{conversation}/tickets/{ticket}/{action}    what agents do: `COMMANDS` below
    POST   /v1/notices                                                   something to tell a customer; scope `notices`
    POST   /v1/agents/{agent}/presence    POST /v1/agents/{agent}/heartbeat
    POST   /v1/offers/{reservation}/accept    POST /v1/offers/{reservation}/decline      the last six: scope `agents`
    PUT    /v1/agents/{agent}    DELETE /v1/agents/{agent}                               scope `roster`

Answers: 202 `{"id": …}` once durable; the same `Idempotency-Key` with the same body gets the first answer again (and the
header `Idempotent-Replayed: true`), with another body 422. What the sender did wrong is 4xx as RFC 9457 problem JSON
that names the field; who asks too often gets 429, and a database that is away is 503, both with `Retry-After`. Values are never echoed.
A command or an answer to an offer that comes too late gets 409 with where the ticket stands (`services.ingest.ticket_view`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

import msgspec
from fastapi import Request
from pydantic import ValidationError
from starlette.requests import HTTPConnection
from starlette.responses import Response

from chassis.audit import Audit
from chassis.auth import NotAllowed, Permission, anybody, caller_of, needs, proved
from chassis.auth_keys import KeyRing
from chassis.auth_tokens import TokenVerifier
from chassis.clock import Clock, monotonic
from chassis.errors import InvalidEvent, Unavailable
from chassis.spool import SpoolItem
from schemas import commands, roster
from schemas.ids import derive
from schemas.inbound import InboundReceived
from schemas.payload import Payload
from services.ingest import metrics
from services.ingest.access import Access, SecretSource, asked_of, forbidden
from services.ingest.adapters import event as foreign
from services.ingest.adapters import form, intake, json_body, standard_webhooks
from services.ingest.adapters.channel import ParseError
from services.ingest.adapters.intake import FrontDoor, PolicySource
from services.ingest.adapters.message_api import SubmittedMessage
from services.ingest.adapters.standard_webhooks import SignatureRefused
from services.ingest.answers import (
    HEADER_LENGTH_MAX,
    Problem,
    as_json,
    client_of,
    kept_headers,
    read_body,
    too_many,
    unavailable,
)
from services.ingest.core.pace import Pace
from services.ingest.core.policy import Channels
from services.ingest.paths import Paths
from services.ingest.ticket_view import Later, TicketView, as_body, etag
from services.ingest.ticket_view_store import Asked

P = TypeVar("P", bound=Payload)

JSON_TYPES: Final = frozenset({"application/json", ""})
FORM_TYPES: Final = frozenset({"application/json", "application/x-www-form-urlencoded"})
IDEMPOTENCY_KEY_LENGTH_MAX: Final = 200
HEADERS_KEPT: Final = frozenset(
    {
        b"content-type",
        b"user-agent",
        b"origin",
        b"idempotency-key",
        b"webhook-id",
        b"webhook-timestamp",
    }
)
EVENT_ATTRIBUTES: Final = b"ce-"
FORMS: Final = "/v1/forms/"
EVENTS: Final = "/v1/events"
ALLOW_ORIGIN: Final = "Access-Control-Allow-Origin"
EVENT_RATE_PER_MINUTE: Final = 6_000
"""What a sender of CloudEvents that asks is told it may deliver in a minute."""

COMMANDS: Final[Mapping[str, type[commands.Command]]] = {
    "reply": commands.ReplyToCustomer,
    "note": commands.AddNote,
    "solve": commands.SolveTicket,
    "escalate": commands.EscalateTicket,
    "reassign": commands.ReassignTicket,
    "tag": commands.TagTicket,
    "hold": commands.HoldTicket,
    "snooze": commands.SnoozeTicket,
    "resume": commands.ResumeTicket,
    "delegate": commands.DelegateTicket,
    "return": commands.ReturnTicket,
    "spam": commands.MarkTicketAsSpam,
    "restore": commands.RestoreTicket,
    "merge": commands.MergeTicket,
    "unmerge": commands.UnmergeTicket,
    "promise": commands.PromiseCustomer,
    "called": commands.CallMade,
    "prioritise": commands.PrioritiseTicket,
}
NEEDS_ONE_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "reassign": ("queue", "to_agent_id"),
    "tag": ("add", "remove"),
}


class Provisioned(Protocol):
    """Who looks after an agent; `scim_store.ScimStore` knows."""

    async def is_theirs(self, domain: str, agent_id: str, *, is_in: bool) -> bool:
        """Return whether an identity provider looks after an agent; with `is_in`, whether it has them in the roster."""
        ...


@dataclass(frozen=True, slots=True)
class Deps:
    """What the gateway stands on."""

    spool: FrontDoor
    policies: PolicySource
    clock: Clock
    secrets: SecretSource
    workspace: str = "default"
    body_bytes_max: int = 256 * 1024
    body_seconds: float = 15.0
    form_per_minute: int = 120
    tickets: TicketView | None = None
    """What is known of tickets; None judges no request and knows no outcome."""
    provisioned: Provisioned | None = None
    """Whom an identity provider looks after; None where no agent is looked after by one."""
    keys: KeyRing | None = None
    """The stored keys; None knows only those of `channels.yaml`."""
    tokens: TokenVerifier | None = None
    """Whose access tokens are taken; None takes none."""
    audit: Audit | None = None
    """Where it is written who did what; None writes it to the log."""


def _invalid(error: ParseError) -> Problem:
    return Problem(422, "invalid", "The request is not valid", error.detail, field=error.field)


# ------------------------------------------------------------------------------------- reading a request


@dataclass(frozen=True, slots=True)
class Named:
    """A sender's name for a request, and the digest of what it asks."""

    name: str | None
    digest: str

    def id(self, kind: str, workspace: str) -> str:
        """Return the input's id: derived from name and body where there is a name, else fresh."""
        if self.name is None:
            return intake.new_id()
        return intake.named_id(kind, workspace, self.name, self.digest)

    @property
    def idempotency(self) -> tuple[str, str] | None:
        """What the spool keeps of it."""
        return None if self.name is None else (self.name, self.digest)


def _path(request: Request) -> str:
    path: str = request.scope["path"]
    return path


def _raw_headers(request: Request) -> dict[bytes, bytes]:
    return dict(request.scope["headers"])


def _content_type(request: Request, allowed: frozenset[str]) -> str:
    given = form.media_type(request.headers.get("content-type", ""))
    if given not in allowed:
        known = ", ".join(sorted(kind for kind in allowed if kind))
        raise Problem(
            415,
            "unsupported_type",
            "Unsupported media type",
            f"Content-Type: must be one of {known}",
            field="Content-Type",
        )
    return given


def _named(request: Request, scope: str, body: bytes) -> Named:
    """Return the request's name within `scope`, from `Idempotency-Key`."""
    raw = _raw_headers(request).get(b"idempotency-key")
    digest = intake.digest(request.method.encode(), _path(request).encode("utf-8", "replace"), body)
    if raw is None:
        return Named(None, digest)
    text = raw.strip().decode("ascii", "replace")
    if (
        not text
        or len(text) > IDEMPOTENCY_KEY_LENGTH_MAX
        or not text.isprintable()
        or "\ufffd" in text
    ):
        raise Problem(
            422,
            "invalid",
            "The request is not valid",
            f"Idempotency-Key: must be 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} printable ASCII characters",
            field="Idempotency-Key",
        )
    return Named(f"{scope}/{text}", digest)


def _kept_headers(request: Request) -> dict[str, str]:
    return kept_headers(
        request, lambda name: name in HEADERS_KEPT or name.startswith(EVENT_ATTRIBUTES)
    )


def _identifier(value: str, field: str) -> str:
    if not 1 <= len(value) <= 200 or not value.isascii() or not value.isprintable() or " " in value:
        raise Problem(
            422,
            "invalid",
            "The request is not valid",
            f"{field}: must be 1 to 200 printable ASCII characters",
            field=field,
        )
    return value


def _object(body: bytes) -> dict[str, Any]:
    """Return a JSON object; an empty body is an empty one."""
    if not body.strip():
        return {}
    try:
        json_body.check(body)
        return msgspec.json.decode(body, type=dict[str, Any])
    except ParseError as error:
        raise _invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Problem(
            422, "invalid", "The request is not valid", "body: is not a JSON object", field="body"
        ) from None


def _find_nul(value: Any, path: str = "") -> str | None:
    """Return the path of the first text with a NUL in it, which PostgreSQL cannot hold."""
    if isinstance(value, str):
        return path if "\x00" in value else None
    if isinstance(value, Mapping):
        for name, inner in value.items():
            where = f"{path}.{name}".lstrip(".")
            found = (path or "body") if "\x00" in str(name) else _find_nul(inner, where)
            if found is not None:
                return found
    if isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            found = _find_nul(inner, f"{path}.{index}")
            if found is not None:
                return found
    return None


def _payload(kind: type[P], body: dict[str, Any], fixed: Mapping[str, Any]) -> P:
    """Return an event of `kind` out of a body and what the path says; unknown fields are refused, none is overridden."""
    allowed = set(kind.model_fields) - set(fixed)
    for name in body:
        if name not in allowed:
            shown = name if len(name) <= 64 and name.isprintable() else "a field"
            raise Problem(
                422,
                "invalid",
                "The request is not valid",
                f"{shown}: is not known here; known: {', '.join(sorted(allowed))}",
                field=shown,
            )
    nul = _find_nul(body)
    if nul is not None:
        raise Problem(
            422, "invalid", "The request is not valid", f"{nul}: holds a NUL character", field=nul
        )
    try:
        return kind.model_validate_json(msgspec.json.encode({**body, **fixed}))
    except ValidationError as error:
        field, message = json_body.field_of(error)
        raise Problem(
            422, "invalid", "The request is not valid", f"{field}: {message}", field=field
        ) from None


# --------------------------------------------------------------------------------------------- answering


def _key_conflict() -> Problem:
    return Problem(
        422,
        "conflict",
        "The key was used before",
        "Idempotency-Key: was used before for another request; use a new one",
        field="Idempotency-Key",
    )


async def _store(deps: Deps, item: SpoolItem) -> tuple[Response, bool]:
    """Store, then answer; also whether it was a repeat.

    Raises:
        Problem: 422 where the idempotency key was used for another body.
    """
    result = await deps.spool.put(item)
    if result.conflicting:
        raise _key_conflict()
    headers = {"Idempotent-Replayed": "true"} if result.repeated else None
    return as_json({"id": result.answer or item.answer}, 202, headers), result.repeated


Handler = Callable[[Request], Awaitable[tuple[Response, bool | None]]]
"""A route: its answer, and whether it repeats an earlier one; None where nothing was to be stored."""


async def _answered(counters: metrics.Way, handler: Handler, request: Request) -> Response:
    """Run a route and count what came of it."""
    began = monotonic()
    try:
        response, is_repeated = await handler(request)
    except Problem as problem:
        counters.refused(problem.reason)
        return problem.response()
    except ParseError as error:
        counters.refused("invalid")
        return _invalid(error).response()
    except InvalidEvent as error:
        counters.refused("invalid")
        return Problem(422, "invalid", "The request is not valid", error.detail).response()
    except Unavailable as error:
        counters.unavailable.inc()
        return unavailable(error.retry_after).response()
    if is_repeated is not None:
        counters.answered(monotonic() - began, is_repeated=is_repeated)
    return await response.settle() if isinstance(response, Later) else response


# ------------------------------------------------------------------------------------------------ routes


class Gateway:
    """The routes' bodies, with what they stand on."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._forms = Pace(deps.form_per_minute)
        self.access = Access(
            deps.policies,
            deps.secrets,
            deps.clock,
            deps.audit or Audit(deps.workspace),
            keys=deps.keys,
            tokens=deps.tokens,
        )

    @property
    def _channels(self) -> Channels:
        return self._deps.policies.current

    def _seconds(self) -> float:
        return self._deps.clock.now().timestamp()

    async def _body(self, request: Request) -> bytes:
        return await read_body(request, self._deps.body_bytes_max, self._deps.body_seconds)

    def _traceparent(self, request: Request) -> str | None:
        return intake.traceparent_of(request.headers.get("traceparent"))

    def _received(
        self, request: Request, named: Named, channel: str, account: str, *, verified: bool
    ) -> InboundReceived:
        return InboundReceived(
            input_id=named.id("input", self._deps.workspace),
            channel=channel,
            account=account,
            method=request.method,
            url=_path(request),
            headers=_kept_headers(request),
            received_at=self._deps.clock.now(),
            verified=verified,
        )

    async def _store_inbound(
        self, request: Request, named: Named, received: InboundReceived, body: bytes, address: str
    ) -> tuple[Response, bool]:
        return await _store(
            self._deps,
            intake.inbound_item(
                received,
                body,
                address,
                self._deps.workspace,
                idempotency=named.idempotency,
                traceparent=self._traceparent(request),
            ),
        )

    def _secrets(self, references: tuple[str, ...]) -> list[bytes]:
        found = (self._deps.secrets.get(reference) for reference in references)
        return [secret for secret in found if secret is not None]

    def _signed_by(
        self, request: Request, body: bytes, secrets: Mapping[str, list[bytes]], now: datetime
    ) -> tuple[str, str]:
        with self.access.proving(request):
            try:
                return standard_webhooks.verify(_raw_headers(request), body, secrets, now)
            except SignatureRefused as refused:
                field = str(refused).partition(":")[0]
                raise Problem(
                    401, refused.reason, "The signature is not valid", str(refused), field=field
                ) from None

    async def form(self, request: Request) -> tuple[Response, bool]:
        """Take a web form."""
        key = request.path_params["key"]
        account = self._channels.file.forms.get(key)
        if account is None:
            raise Problem(404, "not_found", "Not found", "key: there is no such form", field="key")
        self._check_origin(request, account.origins)
        is_signed = standard_webhooks.is_signed(_raw_headers(request))
        if not is_signed:
            wait = self._forms.take((key, client_of(request)), self._seconds())
            if wait > 0:
                raise too_many("this form was sent too often from this address", wait)
        else:
            self.access.hold_off(request)
        content_type = _content_type(request, FORM_TYPES)
        body = await self._body(request)
        named = _named(request, f"form/{key}", body)
        verified = False
        if is_signed:
            secrets = {key: self._secrets(account.secrets)}
            _, webhook_id = self._signed_by(request, body, secrets, self._deps.clock.now())
            named = Named(f"webhook/form/{key}/{webhook_id}", named.digest)
            verified = True
        fields = form.read_fields(body, content_type)
        received = self._received(request, named, "form", key, verified=verified)
        return await self._store_inbound(request, named, received, body, fields.email)

    def _check_origin(self, request: Request, origins: tuple[str, ...]) -> None:
        origin = request.headers.get("origin")
        if origins and origin is not None and origin not in origins:
            raise Problem(
                403,
                "forbidden",
                "Forbidden",
                "Origin: this form may not be sent from there",
                field="Origin",
            )

    async def form_preflight(self, request: Request) -> Response:
        """Tell a browser whether a site may send a form by script (CORS)."""
        response = self.with_cors(request, Response(status_code=204))
        if ALLOW_ORIGIN in response.headers:
            response.headers["Access-Control-Allow-Methods"] = "POST"
            response.headers["Access-Control-Allow-Headers"] = "Content-Type, Idempotency-Key"
            response.headers["Access-Control-Max-Age"] = "600"
        return response

    def with_cors(self, request: HTTPConnection, response: Response) -> Response:
        """Let a page's script read the answer to a form, a refusal too, where its site may send that form (CORS).

        A form without a list of sites may be sent from any. That is no risk: the gateway knows no cookies.
        """
        path: str = request.scope["path"]
        if not path.startswith(FORMS):
            return response
        account = self._channels.file.forms.get(path.removeprefix(FORMS))
        origins = account.origins if account is not None else ()
        origin = request.headers.get("origin", "")
        if not origins:
            response.headers[ALLOW_ORIGIN] = "*"
        else:
            response.headers["Vary"] = "Origin"
            if origin in origins:
                response.headers[ALLOW_ORIGIN] = origin
        if ALLOW_ORIGIN in response.headers:
            response.headers["Access-Control-Expose-Headers"] = "Idempotent-Replayed, Retry-After"
        return response

    async def message(self, request: Request) -> tuple[Response, bool]:
        """Take a message of a generic channel."""
        key_name = caller_of(request.scope).name
        _content_type(request, JSON_TYPES)
        body = await self._body(request)
        named = _named(request, f"message/{key_name}", body)
        message = json_body.read(body, SubmittedMessage)
        account = self._channels.file.messages.get(message.account)
        if account is None or account.channel != message.channel:
            raise Problem(
                422,
                "invalid",
                "The request is not valid",
                "account: no such account of that channel stands under `messages` in channels.yaml",
                field="account",
            )
        received = self._received(request, named, message.channel, message.account, verified=True)
        return await self._store_inbound(request, named, received, body, message.sender.address)

    async def event(self, request: Request) -> tuple[Response, bool]:
        """Take a CloudEvent, in binary or structured mode."""
        content_type = _content_type(
            request, frozenset({"application/json", foreign.STRUCTURED, foreign.BATCHED})
        )
        if standard_webhooks.is_signed(_raw_headers(request)):
            self.access.hold_off(request)
            body = await self._body(request)
            secrets = {
                name: self._secrets(account.secrets)
                for name, account in self._channels.file.events.items()
            }
            try:
                account_name, webhook_id = self._signed_by(
                    request, body, secrets, self._deps.clock.now()
                )
            except Problem as problem:
                if problem.status == 401:
                    asked = asked_of(request, "events", EVENTS)
                    self.access.audit.refused(asked, problem.status, problem.reason)
                raise
            named = Named(
                f"webhook/event/{account_name}/{webhook_id}", _named(request, "", body).digest
            )
        else:
            account_name = caller_of(request.scope).name
            body = await self._body(request)
            named = _named(request, f"event/{account_name}", body)
        headers = {**_kept_headers(request), "content-type": content_type}
        if content_type == foreign.BATCHED:
            return await self._event_batch(request, named, account_name, body)
        message = foreign.read_message(headers, body, account_name)
        received = self._received(request, named, "event", message.account, verified=True)
        return await self._store_inbound(request, named, received, body, message.sender.address)

    async def _event_batch(
        self, request: Request, named: Named, account_name: str, body: bytes
    ) -> tuple[Response, bool]:
        """Take many events at once: all are read before any is stored, and it is answered when all are durable."""
        items: list[SpoolItem] = []
        headers = {"content-type": foreign.STRUCTURED}
        for index, one in enumerate(foreign.split_batch(body)):
            try:
                message = foreign.read_message(headers, one, account_name)
            except ParseError as error:
                field = f"{index}.{error.field or 'event'}"
                raise ParseError(error.problem, f"{index}.{error.detail}", field) from None
            # Within a batch an event goes by its own name, so the whole may be sent again after it was cut off.
            own = Named(
                None if named.name is None else f"{named.name}/{index}",
                intake.digest(named.digest.encode(), one),
            )
            received = self._received(request, own, "event", message.account, verified=True)
            received = received.model_copy(update={"headers": headers})
            items.append(
                intake.inbound_item(
                    received,
                    one,
                    message.sender.address,
                    self._deps.workspace,
                    idempotency=own.idempotency,
                    traceparent=self._traceparent(request),
                )
            )
        results = await asyncio.gather(*(self._deps.spool.put(item) for item in items))
        if any(result.conflicting for result in results):
            raise _key_conflict()
        answered = [
            result.answer or item.answer for item, result in zip(items, results, strict=True)
        ]
        return as_json({"ids": answered}, 202), all(result.repeated for result in results)

    async def event_handshake(self, request: Request) -> Response:
        """Tell a sender of CloudEvents that it may deliver here, and how fast (HTTP webhooks, abuse protection)."""
        origin = request.headers.get("webhook-request-origin", "").strip()
        allowed = self._channels.file.event_origins
        if not origin or len(origin) > HEADER_LENGTH_MAX or (allowed and origin not in allowed):
            return Problem(
                403,
                "forbidden",
                "Forbidden",
                "WebHook-Request-Origin: this origin may not deliver here",
                field="WebHook-Request-Origin",
            ).response()
        granted = {"Allow": "POST", "WebHook-Allowed-Origin": origin}
        if "webhook-request-rate" in request.headers:
            granted["WebHook-Allowed-Rate"] = str(EVENT_RATE_PER_MINUTE)
        return Response(status_code=200, headers=granted)

    async def command(self, request: Request) -> tuple[Response, bool]:
        """Take an agent's command about a ticket."""
        caller = caller_of(request.scope)
        action = request.path_params["action"]
        kind = COMMANDS.get(action)
        if kind is None:
            raise Problem(
                404,
                "not_found",
                "Not found",
                f"action: must be one of {', '.join(COMMANDS)}",
                field="action",
            )
        conversation_id = _identifier(request.path_params["conversation_id"], "conversation_id")
        ticket_id = _identifier(request.path_params["ticket_id"], "ticket_id")
        _content_type(request, JSON_TYPES)
        body = await self._body(request)
        given = _object(body)
        needed = NEEDS_ONE_OF.get(action, ())
        if needed and not any(given.get(name) for name in needed):
            raise Problem(
                422,
                "invalid",
                "The request is not valid",
                f"{needed[0]}: at least one of {' and '.join(needed)} is required",
                field=needed[0],
            )
        if caller.agent_id is not None:
            given.setdefault("agent_id", caller.agent_id)
        named = _named(request, f"command/{caller.sender}{_path(request)}", body)
        command_id = named.id("command", self._deps.workspace)
        fixed = {
            "command_id": command_id,
            "conversation_id": conversation_id,
            "ticket_id": ticket_id,
        }
        event = _payload(kind, given, fixed)
        _check_agent(request, event.agent_id)
        asked = Asked(
            command_id,
            named.name,
            named.digest,
            ticket_id,
            conversation_id,
            event.agent_id,
            action,
        )
        return await self._ask(request, asked, event, conversation_id, named)

    async def notice(self, request: Request) -> tuple[Response, bool]:
        """Take something that a customer is to be told: in their conversation, or by a contact that never wrote."""
        caller = caller_of(request.scope)
        _content_type(request, JSON_TYPES)
        body = await self._body(request)
        given = _object(body)
        if caller.agent_id is not None:
            given.setdefault("agent_id", caller.agent_id)
        named = _named(request, f"notice/{caller.sender}", body)
        command_id = named.id("notice", self._deps.workspace)
        event = _payload(
            commands.NotifyCustomer,
            {"conversation_id": _place_of(given, self._deps.workspace), **given},
            {"command_id": command_id},
        )
        _check_agent(request, event.agent_id)
        try:
            UUID(event.conversation_id)
        except ValueError:
            raise Problem(
                422,
                "invalid",
                "The request is not valid",
                "conversation_id: must be a UUID; leave it out for somebody who has none, and give their contact",
                field="conversation_id",
            ) from None
        return await self._store_event(request, event, command_id, event.conversation_id, named)

    async def ticket(self, request: Request) -> tuple[Response, None]:
        """Tell where a ticket stands."""
        conversation_id = _identifier(request.path_params["conversation_id"], "conversation_id")
        ticket_id = _identifier(request.path_params["ticket_id"], "ticket_id")
        if self._deps.tickets is None:
            raise Unavailable("the view of tickets")
        found = await self._deps.tickets.ticket(conversation_id, ticket_id)
        headers = {"ETag": etag(found), "Cache-Control": "no-cache"}
        if etag(found) in request.headers.get("if-none-match", "").replace(" ", "").split(","):
            return Response(status_code=304, headers=headers), None
        return as_json(as_body(found), 200, headers), None

    async def agent_put(self, request: Request) -> tuple[Response, bool]:
        """Set an agent."""
        return await self._roster(request, roster.AgentSet, {"agent_id": "agent_id"})

    async def presence(self, request: Request) -> tuple[Response, bool]:
        """Set an agent's presence."""
        return await self._roster(request, roster.PresenceSet, {"agent_id": "agent_id"})

    async def heartbeat(self, request: Request) -> tuple[Response, bool]:
        """Say that an agent's program is there."""
        return await self._roster(request, roster.AgentHeartbeat, {"agent_id": "agent_id"})

    async def agent_delete(self, request: Request) -> tuple[Response, bool]:
        """Remove an agent."""
        return await self._roster(request, roster.AgentRemoved, {"agent_id": "agent_id"})

    async def offer(self, request: Request) -> tuple[Response, bool]:
        """Accept or decline an offer."""
        answer = request.path_params["answer"]
        kinds: dict[str, type[roster.OfferAccepted | roster.OfferDeclined]] = {
            "accept": roster.OfferAccepted,
            "decline": roster.OfferDeclined,
        }
        if answer not in kinds:
            raise Problem(
                404, "not_found", "Not found", "answer: must be accept or decline", field="answer"
            )
        return await self._roster(request, kinds[answer], {"reservation_id": "reservation_id"})

    async def _roster(
        self,
        request: Request,
        kind: type[Payload],
        from_path: Mapping[str, str],
    ) -> tuple[Response, bool]:
        caller = caller_of(request.scope)
        fixed = {
            field: _identifier(request.path_params[name], field)
            for field, name in from_path.items()
        }
        _content_type(request, JSON_TYPES)
        body = await self._body(request)
        given = _object(body)
        if "domain" in request.query_params:
            given.setdefault("domain", _identifier(request.query_params["domain"], "domain"))
        given.setdefault("domain", self._channels.file.domain)
        if caller.agent_id is not None and "agent_id" not in fixed:
            given.setdefault("agent_id", caller.agent_id)
        named = _named(request, f"roster/{caller.sender}{_path(request)}", body)
        event = _payload(kind, given, fixed)
        _check_agent(request, getattr(event, "agent_id", ""))
        event_id = named.id("roster", self._deps.workspace)
        key = str(given["domain"])
        if isinstance(event, roster.OfferAccepted | roster.OfferDeclined):
            asked = Asked(
                event_id,
                named.name,
                named.digest,
                event.ticket_id,
                "",
                event.agent_id,
                request.path_params["answer"],
                event.reservation_id,
            )
            return await self._ask(request, asked, event, key, named)
        await self._refuse_provisioned(event)
        return await self._store_event(request, event, event_id, key, named)

    async def _refuse_provisioned(self, event: Payload) -> None:
        """Leave an agent to the identity provider that looks after them.

        It was told that the agent is as it said, and would not say it again: what is done here would stay for good.

        Raises:
            Problem: 409, the agent is to be set, or removed from where it has put them.
        """
        if self._deps.provisioned is None or not isinstance(
            event, roster.AgentSet | roster.AgentRemoved
        ):
            return
        if event.domain not in self._channels.file.scim:
            return  # No provider is listened to there, or none any more.
        if await self._deps.provisioned.is_theirs(
            event.domain, event.agent_id, is_in=isinstance(event, roster.AgentRemoved)
        ):
            raise Problem(
                409,
                "conflict",
                "Somebody else looks after this agent",
                "agent_id: an identity provider looks after this agent (SCIM); change the user there",
                field="agent_id",
            )

    async def _ask(
        self,
        request: Request,
        asked: Asked,
        event: commands.Command | roster.OfferAccepted | roster.OfferDeclined,
        key: str,
        named: Named,
    ) -> tuple[Response, bool]:
        """Store what an agent asks unless it cannot fit any more, and tell what became of it if they wait.

        Raises:
            Problem: 409 or 412, with where the ticket stands; 422 where the idempotency key was used for another body.
        """
        view = self._deps.tickets
        if view is not None:
            await view.admit(request, asked, event)
        response, is_repeated = await self._store_event(
            request, event, asked.request_id, key, named
        )
        if view is not None:
            response = view.answer(request, asked, response)
        return response, is_repeated

    async def _store_event(
        self, request: Request, event: Payload, event_id: str, key: str, named: Named
    ) -> tuple[Response, bool]:
        return await _store(
            self._deps,
            intake.event_item(
                event,
                event_id,
                key,
                self._deps.workspace,
                self._deps.clock.now(),
                idempotency=named.idempotency,
                traceparent=self._traceparent(request),
            ),
        )


def _check_agent(request: Request, agent_id: str) -> None:
    """Keep an agent from speaking as another.

    Raises:
        Problem: 403, the caller is one agent, and this is another.
    """
    try:
        caller_of(request.scope).check_agent(agent_id)
    except NotAllowed as refused:
        raise forbidden(str(refused), "agent_id") from None


def _is_signed(request: Request) -> bool:
    return standard_webhooks.is_signed(_raw_headers(request))


def _place_of(given: Mapping[str, Any], workspace: str) -> str:
    """Return the conversation of somebody who has none: one for each address, so that all that they are told stands together.

    Empty where no contact is given: then the body has to name the conversation.
    """
    contact = given.get("contact")
    address = contact.get("address") if isinstance(contact, dict) else None
    return derive("notified", workspace, str(address).strip().lower()) if address else ""


def create_app(deps: Deps) -> Paths:
    """Return the gateway's application; further parts add their paths to it."""
    gateway = Gateway(deps)
    app = Paths(gateway.access, gateway.with_cors)

    def add(method: str, path: str, way: str, handler: Handler, permission: Permission) -> None:
        counters = metrics.Way(way)

        async def answer(request: Request) -> Response:
            return await _answered(counters, handler, request)

        def refuse(problem: Problem) -> Response:
            if problem.status == 503:
                counters.unavailable.inc()
            else:
                counters.refused(problem.reason)
            return problem.response()

        app.add(path, (method,), answer, permission, refuse)

    form = anybody("customers send it from the shop's page; bounded by address, site and size")
    add("POST", "/v1/forms/{key}", "forms", gateway.form, form)
    preflight = anybody(
        "a browser's question before a request, answered without looking anything up"
    )
    app.add("/v1/forms/{key}", ("OPTIONS",), gateway.form_preflight, preflight)
    add("POST", "/v1/messages", "messages", gateway.message, needs("messages"))
    signed = needs(
        "events", waived_by=_is_signed, why="or a signature of the body (Standard Webhooks)"
    )
    add("POST", EVENTS, "events", gateway.event, signed)
    handshake = proved("the origin is one of those that may deliver; nothing is taken by it")
    app.add(EVENTS, ("OPTIONS",), gateway.event_handshake, handshake)
    ticket = "/v1/conversations/{conversation_id}/tickets/{ticket_id}"
    agents, roster_right = needs("agents"), needs("roster")
    add("GET", ticket, "tickets", gateway.ticket, agents)
    add("POST", f"{ticket}/{{action}}", "commands", gateway.command, agents)
    add("POST", "/v1/notices", "commands", gateway.notice, needs("notices"))
    add("PUT", "/v1/agents/{agent_id}", "agents", gateway.agent_put, roster_right)
    add("DELETE", "/v1/agents/{agent_id}", "agents", gateway.agent_delete, roster_right)
    add("POST", "/v1/agents/{agent_id}/presence", "agents", gateway.presence, agents)
    add("POST", "/v1/agents/{agent_id}/heartbeat", "agents", gateway.heartbeat, agents)
    add("POST", "/v1/offers/{reservation_id}/{answer}", "offers", gateway.offer, agents)
    return app
