"""An Intercom workspace in memory: conversations with all their parts."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk


@dataclass
class Intercom(desk.Desk):
    """Conversations by id. A call without a version is refused, so that none is forgotten."""

    access_token: str = "intercom-access-token"
    conversations: dict[str, dict[str, Any]] = field(default_factory=dict)

    def server(self) -> Any:
        return self.app({"/conversations/{conversation}": self._conversation})

    async def _conversation(self, request: Request) -> Response:
        if desk.bearer(request) != self.access_token:
            return desk.refusal(401, "unauthorized")
        if not request.headers.get("intercom-version"):
            return desk.refusal(400, "intercom_version_invalid")
        key = request.path_params["conversation"]
        if key not in self.conversations:
            return desk.refusal(404, "not_found")
        return JSONResponse(self.conversations[key])
