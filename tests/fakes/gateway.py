"""The gateway's side of web chat in memory, as far as notices go: sessions, and messages once by their names."""

import re
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

SESSION = "0123456789abcdef0123456789abcdef"


@dataclass
class Gateway(desk.Desk):
    """A widget called `desk` with its visitors' sessions."""

    key: str = "sb-notifier-key"
    sessions: tuple[str, ...] = (SESSION,)
    shown: dict[str, str] = field(default_factory=dict)

    def server(self) -> Any:
        return self.app({}, write={("POST", "/v1/widget/{account}/notices"): self._notice})

    async def _notice(self, request: Request) -> Response:
        if desk.bearer(request) != self.key:
            return desk.refusal(401, "no such key")
        body = await desk.json_of(request)
        if set(body) != {"id", "session", "occasion", "text"} or len(body["text"]) > 20_000:
            return desk.refusal(422, "invalid")
        if not re.fullmatch(r"[A-Za-z0-9_-]{8,64}", body["id"]) or not body["text"].strip():
            return desk.refusal(422, "invalid")
        for name, is_known in (
            ("account", request.path_params["account"] == "desk"),
            ("session", body["session"] in self.sessions),
        ):
            if not is_known:
                problem = {"title": "Not found", "status": 404, "detail": "no such", "field": name}
                return JSONResponse(problem, 404)
        if body["occasion"] == "answered":
            return JSONResponse({"id": body["id"], "is_shown": False, "n": None})
        known = self.shown.setdefault(body["id"], body["text"])
        if known != body["text"]:
            return desk.refusal(422, "the id was used before")
        if all(one.key != body["id"] for one in self.sent):
            name = body["id"]
            self.sent.append(desk.Sent(body["session"], body["text"], key=name, id=name))
        number = list(self.shown).index(body["id"]) + 1
        return JSONResponse({"id": body["id"], "is_shown": True, "n": number})
