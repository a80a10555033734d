"""A HubSpot account in memory: messages of conversation threads, long ones cut, and tokens for a refresh token."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

THREAD = "/conversations/v3/conversations/threads/{thread}"
TICKET = "/crm/v3/objects/tickets/{ticket}"
THREADS = "/conversations/v3/conversations/threads/{thread}/messages/{message}"
MESSAGES = "/conversations/v3/conversations/threads/{thread}/messages"
WAYS = ("HS_EMAIL_ADDRESS", "HS_PHONE_NUMBER", "CHANNEL_SPECIFIC_OPAQUE_ID")


@dataclass
class HubSpot(desk.Desk):
    """Messages by thread and id; whole texts of those that are cut, by id."""

    access_token: str = "pat-na1-token"
    refresh_token: str = "hubspot-refresh-token"
    client: tuple[str, str] = ("hubspot-client", "hubspot-client-secret")
    messages: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    originals: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens_given: int = 0
    ticket_of: dict[str, str] = field(default_factory=dict)
    tickets: dict[str, dict[str, str | None]] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    actors: tuple[str, ...] = ()
    """Agents in whose names messages may be written."""
    channel_accounts: tuple[tuple[str, str], ...] = (("1002", "424242"),)
    """The channels with their connected accounts."""
    app_id: int = 2438486
    cut_at: int = 5_000
    """Characters of a text that is shown whole."""
    sent_at: str = "2026-11-24T08:00:05.123Z"

    def server(self) -> Any:
        return self.app(
            {
                THREADS: self._message,
                f"{THREADS}/original-content": self._original,
                MESSAGES: self._list,
                THREAD: self._thread,
                TICKET: self._ticket,
                "/crm/v3/owners": self._owners,
            },
            post={"/oauth/v1/token": self._token},
            write={("PATCH", TICKET): self._update, ("POST", MESSAGES): self._send},
        )

    async def _token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        wanted = {
            "grant_type": "refresh_token", "client_id": self.client[0],
            "client_secret": self.client[1], "refresh_token": self.refresh_token,
        }  # fmt: skip
        if form != wanted:
            return JSONResponse({"status": "BAD_REFRESH_TOKEN"}, 400)
        self.tokens_given += 1
        return JSONResponse({"access_token": self.access_token, "expires_in": 1800})

    def _refusal(self, request: Request) -> Response | None:
        if desk.bearer(request) != self.access_token:
            return JSONResponse({"status": "error", "category": "INVALID_AUTHENTICATION"}, 401)
        return None

    async def _message(self, request: Request) -> Response:
        key = (request.path_params["thread"], request.path_params["message"])
        refusal = self._refusal(request)
        if refusal is None and key not in self.messages:
            refusal = JSONResponse({"status": "error", "category": "OBJECT_NOT_FOUND"}, 404)
        return refusal or JSONResponse(self.messages[key])

    async def _list(self, request: Request) -> Response:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        query = dict(request.query_params)
        limit, start = int(query.get("limit", "100")), int(query.get("after", "0"))
        if set(query) - {"limit", "after", "sort", "archived", "property"} or not 1 <= limit <= 500:
            return _invalid("unknown parameter")
        thread = request.path_params["thread"]
        held = [one for (key, _), one in self.messages.items() if key == thread]
        is_backwards = query.get("sort") == "-createdAt"
        held.sort(key=lambda one: str(one.get("createdAt", "")), reverse=is_backwards)
        told: dict[str, Any] = {"results": held[start : start + limit]}
        if start + limit < len(held):
            told["paging"] = {"next": {"after": str(start + limit)}}
        return JSONResponse(told)

    async def _send(self, request: Request) -> Response:
        """Take an agent's message for somebody who can be reached by a connected channel."""
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        thread, body = request.path_params["thread"], await desk.json_of(request)
        if not any(key == thread for key, _ in self.messages):
            return JSONResponse({"status": "error", "category": "OBJECT_NOT_FOUND"}, 404)
        needed = {
            "type", "text", "richText", "senderActorId", "channelId", "channelAccountId", "recipients",
        }  # fmt: skip
        if not isinstance(body, dict) or not needed <= set(body) <= needed | {"subject"}:
            return _invalid("a field is missing or unknown")
        if body["type"] != "MESSAGE" or not body["text"].strip():
            return _invalid("type or text is wrong")
        if body["senderActorId"] not in self.actors:
            return _invalid(f"senderActorId {body['senderActorId']} is not an agent")
        if (body["channelId"], body["channelAccountId"]) not in self.channel_accounts:
            return _invalid(f"channelAccountId {body['channelAccountId']} is not connected")
        match body["recipients"]:
            case [
                {"recipientField": "TO", "deliveryIdentifiers": [{"type": way, "value": str(to)}]}
            ]:
                if way not in WAYS or not to:
                    return _invalid("recipients is wrong")
            case _:
                return _invalid("recipients is wrong")
        number = f"sent{len(self.sent)}"
        is_long = len(body["text"]) > self.cut_at
        made = {
            "id": number, "type": "MESSAGE", "conversationsThreadId": thread,
            "createdAt": self.sent_at, "createdBy": body["senderActorId"],
            "client": {"clientType": "INTEGRATION", "integrationAppId": self.app_id},
            "senders": [{"actorId": body["senderActorId"], "name": "Signalbox"}],
            "recipients": [{"deliveryIdentifier": {"type": way, "value": to}}],
            "text": body["text"][: self.cut_at], "richText": body["richText"][: self.cut_at],
            "attachments": [], "subject": body.get("subject"), "direction": "OUTGOING",
            "channelId": body["channelId"], "channelAccountId": body["channelAccountId"],
            "truncationStatus": "TRUNCATED_TO_MOST_RECENT_REPLY" if is_long else "NOT_TRUNCATED",
        }  # fmt: skip
        self.messages[(thread, number)] = made
        self.originals[number] = {"text": body["text"], "richText": body["richText"]}
        self.sent.append(desk.Sent(to=thread, text=body["richText"], id=number))
        return JSONResponse(made, 201)

    async def _original(self, request: Request) -> Response:
        key = request.path_params["message"]
        refusal = self._refusal(request)
        if refusal is None and key not in self.originals:
            refusal = JSONResponse({"status": "error", "category": "OBJECT_NOT_FOUND"}, 404)
        return refusal or JSONResponse(self.originals[key])

    async def _thread(self, request: Request) -> Response:
        refusal = self._refusal(request)
        key = request.path_params["thread"]
        if refusal is None and key not in self.ticket_of:
            refusal = JSONResponse({"status": "error", "category": "OBJECT_NOT_FOUND"}, 404)
        if refusal is not None:
            return refusal
        told: dict[str, Any] = {"id": key, "status": "OPEN"}
        if request.query_params.get("association") == "TICKET" and self.ticket_of[key]:
            told["threadAssociations"] = {"associatedTicketId": self.ticket_of[key]}
        return JSONResponse(told)

    async def _ticket(self, request: Request) -> Response:
        refusal = self._refusal(request)
        key = request.path_params["ticket"]
        if refusal is None and key not in self.tickets:
            refusal = JSONResponse({"status": "error", "category": "OBJECT_NOT_FOUND"}, 404)
        if refusal is not None:
            return refusal
        asked = request.query_params.get("properties", "").split(",")
        shown = {name: self.tickets[key].get(name) for name in asked}
        return JSONResponse({"id": key, "properties": shown})

    async def _update(self, request: Request) -> Response:
        refusal = self._refusal(request)
        key = request.path_params["ticket"]
        if refusal is not None or key not in self.tickets:
            return refusal or JSONResponse({"category": "OBJECT_NOT_FOUND"}, 404)
        match await desk.json_of(request):
            case {"properties": {"hubspot_owner_id": str(owner), **others}, **rest} if not (
                others or rest
            ) and owner in ("", *self.owners):
                self.tickets[key]["hubspot_owner_id"] = owner or None
                return JSONResponse({"id": key, "properties": self.tickets[key]})
            case _:
                return JSONResponse({"status": "error", "category": "VALIDATION_ERROR"}, 400)

    async def _owners(self, request: Request) -> Response:
        refusal = self._refusal(request)
        wanted = request.query_params.get("email")
        found = [{"id": key, "email": one} for key, one in self.owners.items() if one == wanted]
        return refusal or JSONResponse({"results": found})


def _invalid(said: str) -> Response:
    return JSONResponse({"status": "error", "category": "VALIDATION_ERROR", "message": said}, 400)
