"""An Intercom workspace in memory: conversations with all their parts."""

from dataclasses import dataclass, field
from html import escape
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
    sent_at: int = 1_795_507_205

    def server(self) -> Any:
        return self.app(
            {"/conversations/{conversation}": self._conversation, "/admins": self._admins},
            write={
                ("POST", "/conversations/{conversation}/parts"): self._part,
                ("POST", "/conversations/{conversation}/reply"): self._reply,
            },
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

    async def _reply(self, request: Request) -> Response:
        """Take an admin's comment; its text is shown as paragraphs."""
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        key, body = request.path_params["conversation"], await desk.json_of(request)
        if key not in self.conversations:
            return _problem(404, "not_found")
        if not isinstance(body, dict) or set(body) != {"message_type", "type", "admin_id", "body"}:
            return _problem(400, "parameter_invalid")
        if (body["message_type"], body["type"]) != ("comment", "admin"):
            return _problem(400, "parameter_invalid")
        if not isinstance(body["body"], str) or not body["body"].strip():
            return _problem(400, "parameter_not_found")
        if body["admin_id"] not in self.admins:
            return _problem(404, "admin_not_found")
        number = f"9000{len(self.sent)}"
        shown = "".join(f"<p>{escape(line)}</p>" for line in body["body"].split("\n"))
        part = {
            "type": "conversation_part", "id": number, "part_type": "comment", "body": shown,
            "created_at": self.sent_at, "attachments": [], "redacted": False,
            "author": {"type": "admin", "id": body["admin_id"], "name": "Signalbox"},
        }  # fmt: skip
        found = self.conversations[key]
        held = found.setdefault("conversation_parts", {"conversation_parts": []})
        held["conversation_parts"].append(part)
        held["total_count"] = len(held["conversation_parts"])
        self.sent.append(desk.Sent(to=key, text=body["body"], id=number))
        return JSONResponse(found)

    async def _admins(self, request: Request) -> Response:
        admins = [{"type": "admin", "id": key, "email": one} for key, one in self.admins.items()]
        return self._refusal(request) or JSONResponse({"type": "admin.list", "admins": admins})


def _problem(status: int, code: str) -> Response:
    errors = [{"code": code, "message": "said in words"}]
    return JSONResponse({"type": "error.list", "request_id": "r1", "errors": errors}, status)
