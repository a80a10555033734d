"""PagerDuty's Events API v2 in memory: it takes what the vendor takes, and keeps incidents by their dedup_key."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

FIELDS = {"routing_key", "event_action", "dedup_key", "payload", "client", "client_url", "links"}
PAYLOAD = {
    "summary", "source", "severity", "timestamp", "component", "group", "class", "custom_details",
}  # fmt: skip
BYTES_MAX = 512 * 1024


@dataclass
class PagerDuty(desk.Desk):
    """What is open by its dedup_key, with its events; and how many incidents there ever were."""

    routing_key: str = "R" * 32
    open: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    closed: dict[str, int] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    incidents: int = 0

    def server(self) -> Any:
        return self.app({}, write={("POST", "/v2/enqueue"): self._enqueue})

    async def _enqueue(self, request: Request) -> Response:
        raw = await request.body()
        wrong = self._wrong(raw)
        if wrong:
            said = {"status": "invalid event", "message": "Event object is invalid"}
            return JSONResponse({**said, "errors": [wrong]}, 400)
        event = json.loads(raw)
        key = event["dedup_key"]
        self.events.append(event)
        if event["event_action"] == "trigger":
            if key not in self.open:
                self.incidents += 1
                self.open[key] = []
            self.open[key].append(event)
        elif key in self.open:
            del self.open[key]
            self.closed[key] = self.closed.get(key, 0) + 1
        said = {"status": "success", "message": "Event processed", "dedup_key": key}
        return JSONResponse(said, 202)

    def _wrong(self, raw: bytes) -> str:
        if len(raw) > BYTES_MAX:
            return "Event object exceeds 512 KB"
        event = json.loads(raw)
        payload = event.get("payload")
        if set(event) - FIELDS or not isinstance(payload, dict) or set(payload) - PAYLOAD:
            return "unknown field"
        if len(event["routing_key"]) != 32:
            return f"Length of 'routing_key' is incorrect (should be 32 characters): {event['routing_key']}"
        if event["routing_key"] != self.routing_key:
            return "Invalid routing key"
        if event["event_action"] not in ("trigger", "acknowledge", "resolve"):
            return "'event_action' is invalid"
        if not 0 < len(event["dedup_key"]) <= 255:
            return "Length of 'dedup_key' is incorrect"
        if not 0 < len(payload["summary"]) <= 1024 or not payload["source"]:
            return "'payload.summary' or 'payload.source' is invalid"
        if payload["severity"] not in ("critical", "error", "warning", "info"):
            return "'payload.severity' is invalid"
        if datetime.fromisoformat(payload["timestamp"]).tzinfo is None:
            return "'payload.timestamp' is invalid"
        for link in event.get("links", ()):
            if set(link) != {"href", "text"} or not link["href"].startswith("http"):
                return "'links' is invalid"
        return ""
