"""Twilio's Calls resource in memory, behind HTTP basic authentication."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk


@dataclass
class Twilio(desk.Desk):
    """An account with its calls by id."""

    account_sid: str = "AC" + "0" * 31 + "1"
    auth_token: str = "tw-auth-token"
    calls: dict[str, dict[str, Any]] = field(default_factory=dict)

    def server(self) -> Any:
        return self.app({"/2010-04-01/Accounts/{account}/Calls/{call}.json": self._call})

    async def _call(self, request: Request) -> Response:
        if desk.basic(request) != (self.account_sid, self.auth_token):
            return desk.refusal(401, "20003")
        if request.path_params["account"] != self.account_sid or request.query_params:
            return desk.refusal(400, "20001")
        found = self.calls.get(request.path_params["call"])
        return JSONResponse(found) if found is not None else desk.refusal(404, "20404")
