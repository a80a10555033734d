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
    admins: dict[str, str] = field(default_factory=dict)
    teams: tuple[str, ...] = ()

    def server(self) -> Any:
        return self.app(
            {"/conversations/{conversation}": self._conversation, "/admins": self._admins},
            write={("POST", "/conversations/{conversation}/parts"): self._part},
        )

    async def _conversation(self, request: Request) -> Response:
        if desk.bearer(request) != self.access_token:
            return desk.refusal(401, "unauthorized")
        if not request.headers.get("intercom-version"):
            return desk.refusal(400, "intercom_version_invalid")
        key = request.path_params["conversation"]
        if key not in self.conversations:
            return desk.refusal(404, "not_found")
        return JSONResponse(self.conversations[key])

    def _refusal(self, request: Request) -> Response | None:
        if desk.bearer(request) != self.access_token:
            return desk.refusal(401, "unauthorized")
        if not request.headers.get("intercom-version"):
            return desk.refusal(400, "intercom_version_invalid")
        return None

    async def _part(self, request: Request) -> Response:
        """Take an assignment; each adds a part, whether it changes anything or not."""
        refusal = self._refusal(request)
        key = request.path_params["conversation"]
        if refusal is not None or key not in self.conversations:
            return refusal or desk.refusal(404, "not_found")
        found = self.conversations[key]
        match await desk.json_of(request):
            case {
                "message_type": "assignment",
                "type": "admin" | "team" as kind,
                "admin_id": str(actor),
                "assignee_id": str(assignee),
                **rest,
            } if not rest and actor in self.admins:
                if assignee not in ("0", *(self.admins if kind == "admin" else self.teams)):
                    return desk.refusal(422, "assignee_not_found")
                found[f"{kind}_assignee_id"] = int(assignee) or None
                if kind == "team":
                    found["admin_assignee_id"] = None
                return JSONResponse(found)
            case _:
                return desk.refusal(422, "parameter_invalid")

    async def _admins(self, request: Request) -> Response:
        admins = [{"type": "admin", "id": key, "email": one} for key, one in self.admins.items()]
        return self._refusal(request) or JSONResponse({"type": "admin.list", "admins": admins})
