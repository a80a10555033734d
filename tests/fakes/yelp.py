"""Yelp's public API in memory: at most three excerpts of a business's reviews, and no more."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

EXCERPTS_MAX = 3


@dataclass
class Yelp(desk.Desk):
    """Reviews by business, the ones shown first in front."""

    businesses: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def server(self) -> Any:
        return self.app({"/v3/businesses/{business}/reviews": self._reviews})

    async def _reviews(self, request: Request) -> Response:
        if desk.bearer(request) != "yelp-key":
            return desk.refusal(401, "UNAUTHORIZED_ACCESS_TOKEN")
        found = self.businesses.get(request.path_params["business"])
        if found is None:
            return desk.refusal(404, "BUSINESS_NOT_FOUND")
        return JSONResponse({"reviews": found[:EXCERPTS_MAX], "total": len(found)})
