"""Chatra in memory: messages pushed to visitors."""

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk


@dataclass
class Chatra(desk.Desk):
    """An account with its visitors and agents."""

    public_key: str = "PcExample00000001"
    secret_key: str = "chatra-secret-key"
    clients: tuple[str, ...] = ("cli_rosa_01",)
    agents: tuple[str, ...] = ("agt_signalbox", "agt_kim")

    def server(self) -> Any:
        return self.app({}, write={("POST", "/pushedMessages/"): self._push})

    async def _push(self, request: Request) -> Response:
        shown = f"Chatra.Simple {self.public_key}:{self.secret_key}"
        if request.headers.get("authorization") != shown:
            return desk.refusal(401, "unauthorized")
        body = await desk.json_of(request)
        if not isinstance(body, dict) or set(body) - {"clientId", "text", "agentId", "groupId"}:
            return desk.refusal(400, "invalid")
        if body.get("clientId") not in self.clients:
            return desk.refusal(404, "no such client")
        if not body.get("text") or body.get("agentId") not in self.agents:
            return desk.refusal(400, "invalid")
        self.sent.append(desk.Sent(body["clientId"], body["text"]))
        return JSONResponse({}, 200)
