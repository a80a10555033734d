"""An Alertmanager in memory: `POST /api/v2/alerts`, as strict as its OpenAPI document, with alerts that end by themselves."""

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
FIELDS = {"labels", "annotations", "startsAt", "endsAt", "generatorURL"}

Labels = frozenset[tuple[str, str]]


@dataclass
class Alertmanager(desk.Desk):
    """The alerts by their labels, each as it was told last, and all that was told."""

    token: str = ""
    alerts: dict[Labels, dict[str, Any]] = field(default_factory=dict)
    told: list[list[dict[str, Any]]] = field(default_factory=list)

    def server(self) -> Any:
        return self.app({}, write={("POST", "/api/v2/alerts"): self._post})

    def firing(self, now: datetime) -> list[dict[str, str]]:
        """The labels of what fires."""
        return [
            one["labels"]
            for one in self.alerts.values()
            if datetime.fromisoformat(one["endsAt"]) > now
        ]

    async def _post(self, request: Request) -> Response:
        if self.token and desk.bearer(request) != self.token:
            return Response("", 401)
        body = json.loads(await request.body())
        wrong = self._wrong(body)
        if wrong:
            return JSONResponse(wrong, 400)
        self.told.append(body)
        for alert in body:
            self.alerts[frozenset(alert["labels"].items())] = alert
        return Response("", 200)

    @staticmethod
    def _wrong(body: Any) -> str:
        if not isinstance(body, list) or not body:
            return "body must be an array"
        for alert in body:
            if set(alert) - FIELDS:
                return f"unknown field {set(alert) - FIELDS}"
            labels, notes = alert.get("labels", {}), alert.get("annotations", {})
            if not labels.get("alertname"):
                return "at least one label pair required"
            for name, value in (*labels.items(), *notes.items()):
                if not NAME.fullmatch(name) or not isinstance(value, str) or not value:
                    return f"invalid label {name}"
            starts = datetime.fromisoformat(alert["startsAt"])
            ends = datetime.fromisoformat(alert["endsAt"])
            if starts.tzinfo is None or ends.tzinfo is None:
                return "no time zone"
            if ends < starts:
                return "start time must be before end time"
            if not alert.get("generatorURL", "http://x").startswith("http"):
                return "generatorURL in body must be of type uri"
        return ""
