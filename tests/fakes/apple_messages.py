"""Apple's message service in memory: it checks the token, the headers and the body of each message, and answers with nothing."""

import base64
import hmac
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tests.fakes import desk

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass
class AppleMessages(desk.Desk):
    """A business and its customers by their opaque ids; `closed` ones have ended the conversation."""

    msp_id: str = "7a1c2f9e-0000-4000-8000-000000000001"
    business_id: str = "a884eddf-0000-4000-8000-000000000002"
    secret: str = base64.b64encode(b"apple-msp-secret-of-the-test-0001").decode()
    customers: tuple[str, ...] = ("urn:mbid:AQAAY0000000000000000000000000001",)
    closed: set[str] = field(default_factory=set)
    automatic: list[bool] = field(default_factory=list)

    def server(self) -> Any:
        return self.app({}, write={("POST", "/v1/message"): self._message})

    def _is_let_in(self, token: str | None) -> bool:
        parts = (token or "").split(".")
        if len(parts) != 3:
            return False
        said = f"{parts[0]}.{parts[1]}".encode()
        right = hmac.digest(base64.b64decode(self.secret), said, "sha256")
        if not hmac.compare_digest(decoded(parts[2]), right):
            return False
        header, claims = json.loads(decoded(parts[0])), json.loads(decoded(parts[1]))
        is_fresh = abs(time.time() - claims["iat"]) < 3600
        return bool(header["alg"] == "HS256" and claims["iss"] == self.msp_id and is_fresh)

    async def _message(self, request: Request) -> Response:
        if not self._is_let_in(desk.bearer(request)):
            return Response(status_code=401)
        given, body = request.headers, await desk.json_of(request)
        to, name = given.get("destination-id", ""), given.get("id", "")
        if given.get("source-id") != self.business_id:
            return Response(status_code=403)
        if to in self.closed:
            return Response(status_code=410)
        if to not in self.customers:
            return Response(status_code=404)
        wanted = {
            "v": 1, "type": "text", "id": name, "sourceId": self.business_id, "destinationId": to,
        }  # fmt: skip
        text = body.pop("body", "") if isinstance(body, dict) else ""
        if body != wanted or not text or not UUID.fullmatch(name):
            return Response(status_code=400)
        if given.get("auto-reply", "true") != "true":
            return Response(status_code=400)
        self.automatic.append("auto-reply" in given)
        self.sent.append(desk.Sent(to, text, key=name, id=name))
        return Response(status_code=200)


def decoded(part: str) -> bytes:
    """Return a part of a token."""
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
