"""Hootsuite's Inbox 2.0 in memory: a token for an organisation's app, and conversations that our virtual agent has."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk


@dataclass
class Hootsuite(desk.Desk):
    """`conversations` are those assigned to us."""

    client_id: str = "hootsuite-client"
    client_secret: str = "hootsuite-client-secret"
    organization: str = "1234567"
    conversations: set[str] = field(default_factory=lambda: {"0-0001"})
    tokens_given: int = 0

    def server(self) -> Any:
        path = "/inbox/v1/virtual-agent/conversations/{conversation}"
        return self.app(
            {}, post={"/oauth2/token": self._token}, write={("POST", path): self._manipulate}
        )

    async def _token(self, request: Request) -> Response:
        form = await desk.form_of(request)
        wanted = {"grant_type": "organization_app", "organization_id": self.organization}
        if desk.basic(request) != (self.client_id, self.client_secret) or form != wanted:
            return desk.refusal(401, "invalid_client")
        self.tokens_given += 1
        return JSONResponse({"access_token": "hootsuite-access", "expires_in": 3600})

    async def _manipulate(self, request: Request) -> Response:
        if desk.bearer(request) != "hootsuite-access":
            return desk.refusal(401, "unauthorized")
        conversation = request.path_params["conversation"]
        if conversation not in self.conversations:
            return desk.refusal(404, "not assigned")
        body = await desk.json_of(request)
        said = body.get("sendMessage") if isinstance(body, dict) else None
        known = {"sendMessage", "applyTopics", "applyConversationNotes", "complete"}
        if not isinstance(said, dict) or not set(body) <= known or set(said) != {"text"}:
            return desk.refusal(400, "invalid")
        if not isinstance(said["text"], str) or not said["text"].strip():
            return desk.refusal(400, "invalid")
        self.sent.append(desk.Sent(conversation, said["text"]))
        return JSONResponse({})
