"""A receiver of our webhooks in memory: it checks signatures as Standard Webhooks asks, and drops repeats by their id."""

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tests.fakes import desk

WINDOW_SECONDS = 300


@dataclass
class Receiver(desk.Desk):
    """A system that delivers notices itself. `keys` are the secrets it takes."""

    secret: str = "whsec_" + base64.b64encode(b"lantern-and-oak-webhooks-secret").decode()
    secret_before: str = "whsec_" + base64.b64encode(b"the-secret-of-the-year-before-it").decode()
    keys: list[str] = field(default_factory=list)
    posted: list[dict[str, Any]] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)

    def server(self) -> Any:
        return self.app({}, write={("POST", "/signalbox"): self._take})

    async def _take(self, request: Request) -> Response:
        body = await request.body()
        name = request.headers.get("webhook-id", "")
        at = request.headers.get("webhook-timestamp", "")
        signatures = request.headers.get("webhook-signature", "")
        if not name or not at.isdigit() or abs(time.time() - int(at)) > WINDOW_SECONDS:
            return desk.refusal(400, "timestamp")
        if not any(
            hmac.compare_digest(one, self._expected(key, name, at, body))
            for one in signatures.split(" ")
            for key in self.keys or [self.secret]
        ):
            return desk.refusal(401, "signature")
        told = json.loads(body)
        if set(told) != {"type", "timestamp", "data"} or not told["type"].startswith("notice."):
            return desk.refusal(422, "payload")
        self.signatures.append(signatures)
        if name not in {one.key for one in self.sent}:
            self.posted.append(told)
            data = told["data"]
            self.sent.append(desk.Sent(data["to"], data["text"], key=name, id=name))
        return Response("taken, thank you", 200)

    @staticmethod
    def _expected(secret: str, name: str, at: str, body: bytes) -> str:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        made = hmac.new(key, f"{name}.{at}.".encode() + body, hashlib.sha256).digest()
        return "v1," + base64.b64encode(made).decode()
