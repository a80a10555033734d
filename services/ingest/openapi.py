"""The gateway's OpenAPI: every path, what it takes and each answer it can give, made from the models that read the bodies.

Nothing is parsed by it: a handler reads its body itself. It is served at `/v1/openapi.json`, and `make docs` writes it to
`docs/openapi.json`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response

from chassis.auth import anybody
from schemas import commands, link_token, roster
from schemas.feedback import COMMENT_LENGTH_MAX
from schemas.payload import Payload
from schemas.scopes import Right, opened_by
from services.ingest import adapters, api, feedback, ticket_view, webchat, webhooks
from services.ingest.adapters import event, form, message_api
from services.ingest.answers import PROBLEM
from services.ingest.paths import Paths

PATH: Final = "/v1/openapi.json"
VERSION: Final = "1"
JSON: Final = "application/json"
COMPONENTS: Final = "#/components/schemas/{name}"

REASONS: Final[Mapping[str, str]] = {
    "400": "The body ended early, or what vouches for the request cannot be read.",
    "401": "Nothing proves who asks, or what should is wrong or too old.",
    "403": "Known, and not allowed this.",
    "404": "There is no such thing; it is not told why.",
    "405": "The path does not know this method; `Allow` names those it does.",
    "408": "The body did not arrive in time.",
    "409": "It cannot fit any more: the ticket has moved on, or the offer has ended. `reason` is the router's, `ticket` where it stands.",
    "412": "The ticket has moved on since the version that `If-Match` names.",
    "413": "The body is too large.",
    "415": "The media type is none that is read here.",
    "422": "It cannot be read; `field` names what is wrong. Or an idempotency key was used for another request.",
    "429": "Asked too often; `Retry-After` says when to come again.",
    "503": "It could not be made durable now; `Retry-After` says when to come again. Nothing is lost that was answered 2xx.",
}
WAITS: Final = frozenset({"429", "503"})

OPAQUE: Final = {
    "type": "string",
    "minLength": 1,
    "maxLength": 200,
    "pattern": r"^[!-.0-~]+$",
}
"""An id in a path: printable ASCII without a space or a slash."""

NAME: Final = {"type": "string", "pattern": r"^[a-z][a-z0-9_-]{0,63}$"}

IDEMPOTENCY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The sender's own name of the request: the same again with the same body is answered as the first time.",
    "schema": {
        "type": "string",
        "pattern": r"^[ -~]*[!-~][ -~]*$",
        "minLength": 1,
        "maxLength": api.IDEMPOTENCY_KEY_LENGTH_MAX,
    },
}
DOMAIN: Final = {
    "name": "domain",
    "in": "query",
    "description": "The routing domain, where the body does not name it; else the one of channels.yaml.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
}
PREFER: Final = {
    "name": "Prefer",
    "in": "header",
    "description": "`wait=N` (RFC 7240): wait up to N seconds, at most 10, for what the router makes of the request.",
    "schema": {"type": "string", "maxLength": ticket_view.HEADER_LENGTH_MAX},
    "example": "wait=5",
}
IF_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "description": "The ETag of the ticket that the sender has before them; 412 if it has moved on since.",
    "schema": {"type": "string", "pattern": r'^("[0-9]{1,15}"|\*)$'},
}
TICKET: Final = COMPONENTS.format(name="TicketStanding")
SIGNED: Final = [
    {"name": name, "in": "header", "description": what, "schema": {"type": "string"}}
    for name, what in (
        ("webhook-id", "Standard Webhooks: the sender's name of the delivery."),
        ("webhook-timestamp", "Standard Webhooks: seconds since 1970."),
    )
]


def document() -> dict[str, Any]:
    """Return the whole description, OpenAPI 3.1."""
    schemas: dict[str, Any] = {
        "Problem": {
            "type": "object",
            "description": "What went wrong, as RFC 9457 has it. Values that were sent are never said back.",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": {"type": "string", "pattern": "^urn:signalbox:problem:[a-z_]+$"},
                "title": {"type": "string"},
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": {"type": "string"},
                "field": {"type": "string", "description": "What in the request is wrong."},
            },
        },
        "Accepted": {
            "type": "object",
            "required": ["id"],
            "properties": {"id": {"type": "string", "description": "The input's id, for good."}},
        },
        "AcceptedBatch": {
            "type": "object",
            "required": ["ids"],
            "properties": {"ids": {"type": "array", "items": {"type": "string"}, "minItems": 1}},
        },
        **_standing(),
    }
    paths: dict[str, Any] = {}
    for part in (_own(schemas), _vendors(), _widget(schemas), _customers()):
        for path, methods in part:
            paths.setdefault(path, {}).update(methods)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Signalbox gateway",
            "version": VERSION,
            "description": "The way in. 2xx means durable; what the sender did wrong is 4xx as problem JSON.",
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key (`signalbox keys add`), or one of channels.yaml. The words beside it are the"
                    " scopes, any one of which opens the operation.",
                },
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "An access token of the OpenID provider that the installation names, with one of the scopes."
                    " With the scope `agent` alone, its holder speaks as themselves only.",
                },
                "key_in_query": {"type": "apiKey", "in": "query", "name": "access_token"},
                "signature": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "webhook-signature",
                    "description": "Standard Webhooks 1.0: HMAC-SHA256 over id, time and body.",
                },
                "session": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token that beginning a web chat's session gave.",
                },
            },
        },
    }


# ----------------------------------------------------------------------------------------------- pieces


def _opened(right: Right) -> list[dict[str, list[str]]]:
    """Return what opens an operation: a key or a token with one of the scopes that have this right."""
    scopes: list[str] = [*opened_by(right)]
    return [{"key": scopes}, {"token": scopes}]


def _model(schemas: dict[str, Any], kind: type[BaseModel], without: frozenset[str]) -> str:
    """Put a model's schema among the components, without the fields that the path says; return where it is."""
    made = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(made.pop("$defs", {}))
    for name in without:
        made["properties"].pop(name, None)
    required = [name for name in made.pop("required", ()) if name not in without]
    made |= {"required": required} if required else {}
    made["additionalProperties"] = False
    made.pop("examples", None)
    schemas[kind.__name__] = made
    return COMPONENTS.format(name=kind.__name__)


def _struct(schemas: dict[str, Any], kind: type[msgspec.Struct]) -> str:
    (made,), components = msgspec.json.schema_components(
        [kind], ref_template="#/components/schemas/{name}"
    )
    schemas.update(components)
    return str(made["$ref"])


def _ref(where: str) -> dict[str, Any]:
    return {"$ref": where}


def _body(*media_types: str, schema: Mapping[str, Any], required: bool = True) -> dict[str, Any]:
    return {
        "required": required,
        "content": {media_type: {"schema": schema} for media_type in media_types},
    }


def _answers(good: Mapping[str, Mapping[str, Any]], *codes: int) -> dict[str, Any]:
    """Return the answers of an operation: the good ones, and each problem's."""
    found: dict[str, Any] = dict(good)
    for code in sorted({*map(str, codes), "405"}):
        found[code] = {
            "description": REASONS[code],
            "content": {PROBLEM: {"schema": _ref(COMPONENTS.format(name="Problem"))}},
        }
        if code in WAITS:
            found[code]["headers"] = {
                "Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}
            }
    return found


def _accepted(name: str = "Accepted") -> dict[str, Any]:
    return {
        "202": {
            "description": "Durable.",
            "headers": {"Idempotent-Replayed": {"schema": {"type": "string", "const": "true"}}},
            "content": {JSON: {"schema": _ref(COMPONENTS.format(name=name))}},
        }
    }


def _standing() -> dict[str, Any]:
    """Return the schemas of where a ticket stands, and of what became of a request about it."""
    text, instant = {"type": "string"}, {"type": "string", "format": "date-time"}

    def maybe(schema: Mapping[str, Any]) -> dict[str, Any]:
        return {"anyOf": [schema, {"type": "null"}]}

    standing = {
        "ticket_id": text,
        "conversation_id": text,
        "status": text,
        "version": {"type": "integer", "minimum": 1},
        "assignee": maybe(text),
        "queue": maybe(text),
        "priority": maybe({"type": "integer", "minimum": 1, "maximum": 4}),
        "since": instant,
        "merged_into": maybe({"type": "object"}),
        "promises": {
            "type": "array",
            "description": "What agents promised and have not kept yet: to write, or to call.",
            "items": {
                "type": "object",
                "required": ["what", "by", "not_before"],
                "properties": {
                    "what": {"enum": ["update", "callback"]},
                    "by": instant,
                    "not_before": maybe(instant),
                },
            },
        },
    }
    problem = {"$ref": COMPONENTS.format(name="Problem")}
    moved_on = {
        "id": text,
        "reason": text,
        "at": instant,
        "state": text,
        "ticket": maybe({"$ref": TICKET}),
        "winner_id": maybe(text),
        "winner_at": maybe(instant),
        "expires_at": maybe(instant),
    }
    return {
        "TicketStanding": {
            "type": "object",
            "description": "Where a ticket stands, since when, and whose it is.",
            "required": list(standing),
            "properties": standing,
        },
        "Done": {
            "type": "object",
            "required": ["id", "outcome"],
            "properties": {
                "id": text,
                "outcome": {"const": "done"},
                "ticket": {"$ref": TICKET},
            },
        },
        "MovedOn": {
            "description": "Why it cannot fit, and where the ticket stands. Of an offer also who has its ticket, since when.",
            "allOf": [problem, {"type": "object", "required": ["reason"], "properties": moved_on}],
        },
    }


def _asked(*codes: int) -> dict[str, Any]:
    """Return the answers to what an agent asks: stored, done, or too late."""
    done = {
        "description": "Done, for who preferred to wait.",
        "headers": {"Preference-Applied": {"required": True, "schema": {"type": "string"}}},
        "content": {JSON: {"schema": _ref(COMPONENTS.format(name="Done"))}},
    }
    found = _answers({**_accepted(), "200": done}, *codes, 409, 412)
    for code in ("409", "412"):
        found[code]["content"][PROBLEM]["schema"] = _ref(COMPONENTS.format(name="MovedOn"))
    return found


def _in_path(**names: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in names.items()
    ]


# ----------------------------------------------------------------------------------- the gateway's own paths


def _own(schemas: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    none: frozenset[str] = frozenset()
    fields = _model(schemas, form.FormFields, none)
    wrapped = {
        "type": "object",
        "required": ["type", "data"],
        "properties": {"type": {"type": "string"}, "data": {"type": "object"}},
    }
    yield (
        "/v1/forms/{key}",
        {
            "post": {
                "operationId": "form",
                "summary": "A web form. Public, or signed by the form's own server.",
                "tags": ["forms"],
                "parameters": [*_in_path(key=NAME), IDEMPOTENCY, *SIGNED],
                "security": [{}, {"signature": []}],
                "requestBody": {
                    "required": True,
                    "content": {
                        JSON: {"schema": {"anyOf": [_ref(fields), wrapped]}},
                        "application/x-www-form-urlencoded": {
                            "schema": {
                                "type": "object",
                                "required": ["email", "message"],
                                "additionalProperties": {"type": "string"},
                            }
                        },
                    },
                },
                "responses": _answers(
                    _accepted(), 400, 401, 403, 404, 408, 413, 415, 422, 429, 503
                ),
            },
            "options": {
                "operationId": "form_preflight",
                "summary": "Whether a site may send the form by script (CORS).",
                "tags": ["forms"],
                "parameters": _in_path(key={"type": "string"}),
                "responses": {"204": {"description": "The headers say it."}},
            },
        },
    )
    yield (
        "/v1/messages",
        {
            "post": {
                "operationId": "message",
                "summary": "A message of a generic channel. Scope `messages`.",
                "tags": ["messages"],
                "parameters": [IDEMPOTENCY],
                "security": _opened("messages"),
                "requestBody": _body(
                    JSON, schema=_ref(_model(schemas, message_api.SubmittedMessage, none))
                ),
                "responses": _answers(_accepted(), 400, 401, 403, 408, 413, 415, 422, 429, 503),
            }
        },
    )
    yield "/v1/events", _events()
    yield from _commands(schemas)
    yield from _roster(schemas)


def _events() -> dict[str, Any]:
    attribute = {"type": "string", "minLength": 1, "maxLength": event.ATTRIBUTE_LENGTH_MAX}
    data = {"type": "object", "required": ["sender", "text"]}
    one = {
        "type": "object",
        "required": ["specversion", "type", "source", "id"],
        "properties": {
            "specversion": {"const": "1.0"},
            "type": {"const": event.TYPE},
            "source": attribute,
            "id": attribute,
            "time": {"type": "string", "format": "date-time"},
            "data": data,
        },
    }
    many = {"type": "array", "items": one, "minItems": 1, "maxItems": event.BATCH_EVENTS_MAX}
    binary = [
        {
            "name": f"ce-{name}",
            "in": "header",
            "description": "Binary mode: the event's attribute.",
            "schema": {"type": "string"},
        }
        for name in ("specversion", "type", "source", "id", "time")
    ]
    either = {"anyOf": [_ref(COMPONENTS.format(name=n)) for n in ("Accepted", "AcceptedBatch")]}
    accepted = _accepted()
    accepted["202"]["content"][JSON]["schema"] = either
    asking = [
        {"name": name, "in": "header", "schema": {"type": "string"}}
        for name in ("WebHook-Request-Origin", "WebHook-Request-Rate")
    ]
    granted = {
        "200": {
            "description": "The sender may deliver.",
            "headers": {"WebHook-Allowed-Origin": {"required": True, "schema": {"type": "string"}}},
        }
    }
    return {
        "post": {
            "operationId": "event",
            "summary": "CloudEvents, in binary, structured or batched mode. Scope `events`, or signed.",
            "tags": ["events"],
            "parameters": [IDEMPOTENCY, *SIGNED, *binary],
            "security": [
                *_opened("events"),
                {"key_in_query": list(opened_by("events"))},
                {"signature": []},
            ],
            "requestBody": {
                "required": True,
                "content": {
                    JSON: {"schema": data},
                    event.STRUCTURED: {"schema": one},
                    event.BATCHED: {"schema": many},
                },
            },
            "responses": _answers(accepted, 400, 401, 403, 408, 413, 415, 422, 429, 503),
        },
        "options": {
            "operationId": "event_handshake",
            "summary": "Whether a sender may deliver here (HTTP webhooks, abuse protection).",
            "tags": ["events"],
            "parameters": asking,
            "responses": _answers(granted, 403),
        },
    }


def _commands(schemas: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    fixed = frozenset({"command_id", "conversation_id", "ticket_id"})
    bodies = [_ref(_model(schemas, kind, fixed)) for kind in api.COMMANDS.values()]
    yield (
        "/v1/conversations/{conversation_id}/tickets/{ticket_id}/{action}",
        {
            "post": {
                "operationId": "command",
                "summary": "What an agent does with a ticket. Scope `agents`.",
                "tags": ["commands"],
                "parameters": [
                    *_in_path(
                        conversation_id=OPAQUE,
                        ticket_id=OPAQUE,
                        action={"type": "string", "enum": list(api.COMMANDS)},
                    ),
                    IDEMPOTENCY,
                    PREFER,
                    IF_MATCH,
                ],
                "security": _opened("agents"),
                "requestBody": _body(JSON, schema={"anyOf": bodies}),
                "responses": _asked(400, 401, 403, 404, 408, 413, 415, 422, 429, 503),
            }
        },
    )
    notice = _model(schemas, commands.NotifyCustomer, frozenset({"command_id"}))
    model = schemas[commands.NotifyCustomer.__name__]
    # The conversation may be left out where a contact is given.
    model["required"] = [one for one in model["required"] if one != "conversation_id"]
    yield (
        "/v1/notices",
        {
            "post": {
                "operationId": "notify",
                "summary": "Something that a customer is to be told. Scope `notices`.",
                "tags": ["commands"],
                "parameters": [IDEMPOTENCY],
                "security": _opened("notices"),
                "requestBody": _body(JSON, schema=_ref(notice)),
                "responses": _answers(_accepted(), 400, 401, 403, 408, 413, 415, 422, 429, 503),
            }
        },
    )
    stands = {
        "description": "Where the ticket stands.",
        "headers": {"ETag": {"required": True, "schema": {"type": "string"}}},
        "content": {JSON: {"schema": _ref(TICKET)}},
    }
    unchanged = {"description": "It stands where `If-None-Match` says."}
    yield (
        "/v1/conversations/{conversation_id}/tickets/{ticket_id}",
        {
            "get": {
                "operationId": "ticket",
                "summary": "Where a ticket stands, as far as it is known here. Scope `agents`.",
                "tags": ["commands"],
                "parameters": _in_path(conversation_id=OPAQUE, ticket_id=OPAQUE),
                "security": _opened("agents"),
                "responses": _answers(
                    {"200": stands, "304": unchanged}, 401, 403, 404, 422, 429, 503
                ),
            }
        },
    )


def _roster(schemas: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    def operation(
        name: str,
        summary: str,
        kinds: tuple[type[Payload], ...],
        fixed: str,
        path: Any,
        *,
        right: Right = "agents",
        is_asked: bool = False,
    ) -> dict[str, Any]:
        codes = (400, 401, 403, 404, 408, 413, 415, 422, 429, 503)
        bodies = [_ref(_model(schemas, kind, frozenset({fixed}))) for kind in kinds]
        for kind in kinds:  # The domain may stand in the query, or nowhere.
            required = schemas[kind.__name__].get("required", [])
            schemas[kind.__name__]["required"] = [one for one in required if one != "domain"]
        return {
            "operationId": name,
            "summary": summary,
            "tags": ["agents"],
            "parameters": [
                *_in_path(**path),
                DOMAIN,
                IDEMPOTENCY,
                *((PREFER, IF_MATCH) if is_asked else ()),
            ],
            "security": _opened(right),
            "requestBody": _body(
                JSON,
                schema=bodies[0] if len(bodies) == 1 else {"anyOf": bodies},
                required=False,
            ),
            "responses": _asked(*codes) if is_asked else _answers(_accepted(), *codes),
        }

    def looked_after(made: dict[str, Any]) -> dict[str, Any]:
        """Add the answer where an identity provider looks after the agent."""
        answers = {**made["responses"], **_answers({}, 409)}
        answers["409"]["description"] = (
            "An identity provider looks after this agent (SCIM); the user is to be changed there."
        )
        return {**made, "responses": dict(sorted(answers.items()))}

    agent = {"agent_id": OPAQUE}
    yield (
        "/v1/agents/{agent_id}",
        {
            "put": looked_after(
                operation(
                    "agent_put",
                    "Set an agent. Scope `roster`.",
                    (roster.AgentSet,),
                    "agent_id",
                    agent,
                    right="roster",
                )
            ),
            "delete": looked_after(
                operation(
                    "agent_delete",
                    "Remove an agent. Scope `roster`.",
                    (roster.AgentRemoved,),
                    "agent_id",
                    agent,
                    right="roster",
                )
            ),
        },
    )
    yield (
        "/v1/agents/{agent_id}/presence",
        {
            "post": operation(
                "presence",
                "Set an agent's presence. Scope `agents`.",
                (roster.PresenceSet,),
                "agent_id",
                agent,
            )
        },
    )
    yield (
        "/v1/agents/{agent_id}/heartbeat",
        {
            "post": operation(
                "heartbeat",
                "Say that an agent's program is there; whoever has said so and falls silent is away. Scope `agents`.",
                (roster.AgentHeartbeat,),
                "agent_id",
                agent,
            )
        },
    )
    yield (
        "/v1/offers/{reservation_id}/{answer}",
        {
            "post": operation(
                "offer",
                "Accept or decline an offer. Scope `agents`.",
                (roster.OfferAccepted, roster.OfferDeclined),
                "reservation_id",
                {
                    "reservation_id": OPAQUE,
                    "answer": {"type": "string", "enum": ["accept", "decline"]},
                },
                is_asked=True,
            )
        },
    )


# ----------------------------------------------------------------------------------------- vendors' webhooks


def _vendors() -> Iterator[tuple[str, dict[str, Any]]]:
    """Described once: what each vendor posts, and how it proves that, is told by the channel's page in docs/channels."""
    channels = sorted(
        name for name, channel in adapters.CHANNELS.items() if channel.verify is not None
    )
    types = sorted(
        {
            media_type
            for name in channels
            for media_type in adapters.CHANNELS[name].media_types
            if "*" not in media_type
        }
    )
    answers = _answers({}, 400, 401, 403, 404, 408, 413, 415, 422, 429, 503)
    for code in ("401", "403", "405", "503"):
        # Refusals of the adapter's are the vendor's own kind, most without a body.
        answers[code].pop("content", None)
        answers[code].pop("headers", None)
    answers["2XX"] = {"description": "Durable, or a challenge answered, as the vendor wants it."}
    answers["409"] = {
        "description": "It could not be made durable now; this vendor repeats on 409."
    }
    for path in webhooks.PATHS:
        names: dict[str, Any] = {
            "channel": {"type": "string", "enum": channels},
            "account": NAME,
        }
        if "{token}" in path:
            names["token"] = OPAQUE
        operations: dict[str, Any] = {}
        for method in webhooks.METHODS:
            operations[method.lower()] = {
                "operationId": f"channel_{method.lower()}{'_token' if 'token' in names else ''}",
                "summary": "A vendor's webhook, or its challenge.",
                "tags": ["channels"],
                "parameters": _in_path(**names),
                "responses": answers,
            }
            if method in ("POST", "PUT"):
                operations[method.lower()]["requestBody"] = _body(*types, schema={})
        yield path, operations


# ------------------------------------------------------------------------------------------------- web chat


def _widget(schemas: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    here = "/v1/widget/{account}"
    usual = (400, 403, 404, 408, 413, 415, 422, 429, 503)
    said = {"description": "As asked.", "content": {JSON: {"schema": {"type": "object"}}}}

    def operation(
        name: str,
        summary: str,
        code: str,
        *,
        body: type[msgspec.Struct] | None = None,
        session: bool = True,
        parameters: tuple[dict[str, Any], ...] = (),
    ) -> dict[str, Any]:
        made: dict[str, Any] = {
            "operationId": f"widget_{name}",
            "summary": summary,
            "tags": ["webchat"],
            "parameters": [*_in_path(account=NAME), *parameters],
            "responses": _answers({code: said if code != "204" else _SILENT}, 401, *usual),
        }
        if session:
            made["security"] = [{"session": []}]
        if body is not None:
            made["requestBody"] = _body(JSON, schema=_ref(_struct(schemas, body)))
        return made

    whole = {"type": "integer", "minimum": 0}
    waits = tuple(
        {"name": name, "in": "query", "schema": whole | {"maximum": most}}
        for name, most in (
            ("after", 10**15),
            ("seen", 10**15),
            ("wait", webchat.WAIT_SECONDS_MAX),
        )
    )
    yield (
        f"{here}/sessions",
        {
            "post": operation(
                "session",
                "Begin a session, or go on with one.",
                "200",
                body=webchat.SessionAsked,
                session=False,
            )
        },
    )
    yield (
        f"{here}/messages",
        {
            "post": operation("message", "Say something.", "202", body=webchat.MessageAsked),
            "get": operation("messages", "What is new.", "200", parameters=waits),
        },
    )
    yield f"{here}/typing", {"post": operation("typing", "The visitor types.", "204")}
    yield (
        f"{here}/read",
        {"post": operation("read", "The visitor has read.", "204", body=webchat.ReadAsked)},
    )
    yield (
        f"{here}/form",
        {
            "post": operation(
                "form", "The offline form.", "202", body=webchat.FormAsked, session=False
            )
        },
    )
    told = operation(
        "notice",
        "Tell a visitor something. Scope `notices`.",
        "200",
        body=webchat.NoticeAsked,
        session=False,
    )
    yield f"{here}/notices", {"post": told | {"security": _opened("notices")}}
    files = (("{account}.js", "script", "text/javascript"), ("{account}/demo", "demo", "text/html"))
    for tail, name, media_type in files:
        good: dict[str, Any] = {
            "200": {
                "description": "The file.",
                "content": {media_type: {"schema": {"type": "string"}}},
            },
            "304": {"description": "Unchanged."},
        }
        yield (
            f"/v1/widget/{tail}",
            {
                "get": {
                    "operationId": f"widget_{name}",
                    "tags": ["webchat"],
                    "parameters": _in_path(account=NAME),
                    "responses": _answers(good, 404),
                }
            },
        )
    yield (
        f"{here}/{{name}}",
        {
            "options": {
                "operationId": "widget_preflight",
                "summary": "Whether a site's page may use the chat (CORS).",
                "tags": ["webchat"],
                "parameters": _in_path(account={"type": "string"}, name={"type": "string"}),
                "responses": {"204": {"description": "The headers say it."}},
            }
        },
    )
    for method, tail, code in (("post", "typing", "202"), ("get", "visitor", "200")):
        yield (
            f"/v1/conversations/{{conversation_id}}/{tail}",
            {
                method: {
                    "operationId": f"agent_{tail}",
                    "summary": "An agent's side of a web chat. Scope `agents`.",
                    "tags": ["webchat"],
                    "parameters": _in_path(conversation_id=OPAQUE),
                    "security": _opened("agents"),
                    "responses": _answers({code: said}, 401, 403, 404, 422, 429, 503),
                }
            },
        )


def _customers() -> Iterator[tuple[str, dict[str, Any]]]:
    """The pages behind the links of our notices: refusals are pages too."""
    html: dict[str, Any] = {"text/html": {"schema": {"type": "string"}}}
    token = _in_path(
        token={"type": "string", "pattern": f"^[A-Za-z0-9_-]{{{link_token.TOKEN_LENGTH}}}$"}
    )

    retry = {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}}

    def answers(*codes: int) -> dict[str, Any]:
        return {
            str(code): {
                "description": _PAGES.get(code) or REASONS[str(code)],
                "content": html,
                **({"headers": retry} if str(code) in WAITS else {}),
            }
            for code in codes
        }

    def operation(name: str, summary: str, *codes: int) -> dict[str, Any]:
        return {
            "operationId": name,
            "summary": summary,
            "tags": ["customers"],
            "parameters": token,
            "responses": answers(200, *codes),
        }

    def form(required: tuple[str, ...], **fields: Any) -> dict[str, Any]:
        schema = {"type": "object", "properties": fields, "required": list(required)}
        return {"requestBody": {"required": True, "content": {feedback.FORM: {"schema": schema}}}}

    score = {"type": "integer", "minimum": 0, "maximum": 10}
    comment = {"type": "string", "maxLength": COMMENT_LENGTH_MAX}
    yield (
        feedback.SURVEYS,
        {
            "get": operation("survey", "A survey's question.", 404, 410, 429, 503),
            "head": operation("survey_head", "The same without the page.", 404, 410, 429, 503),
            "post": operation(
                "survey_answer",
                "Answer it: once, and changed for a while.",
                *(400, 404, 408, 409, 410, 413, 415, 422, 429, 503),
            )
            | form(("score",), score=score, comment=comment, share={"const": "yes"}),
        },
    )
    wish = {"type": "string", "enum": ["out", "in"]}
    yield (
        feedback.WISHES,
        {
            "get": operation("unsubscribe", "One button.", 404, 410, 429),
            "head": operation("unsubscribe_head", "The same without the page.", 404, 410, 429),
            "post": operation(
                "unsubscribe_now",
                "No more of a kind of notices; one click of a mail program suffices (RFC 8058).",
                *(400, 404, 408, 410, 413, 422, 429, 503),
            )
            | form((), wish=wish, **{"List-Unsubscribe": {"const": "One-Click"}}),
        },
    )


_PAGES: Final = {
    200: "The page.",
    409: "Another answer stands, and may not be changed any more.",
    410: "The link has ended.",
}

_SILENT: Final = {"description": "Noted."}


def mount(app: Paths) -> None:
    """Serve the description."""
    made = msgspec.json.encode(document())

    async def serve(request: Request) -> Response:
        del request
        return Response(made, media_type=JSON)

    described = anybody("the same for every installation, and in the documents")
    app.add(PATH, ("GET",), serve, described)
