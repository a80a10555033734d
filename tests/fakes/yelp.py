"""Yelp in memory: the public API with three excerpts of a business's reviews, the partner API for comments on them."""

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


def refusal(status: int, name: str) -> Response:
    """Return a refusal as Yelp's partner API writes it."""
    return JSONResponse({"error": {"id": name, "description": name, "http_code": status}}, status)


@dataclass
class YelpPartner(desk.Desk):
    """The partner API: a token for an owner's refresh token, and one public comment for a review."""

    client_id: str = "yelp-client"
    client_secret: str = "yelp-client-secret"
    refresh_token: str = "yelp-refresh-token"
    comments: dict[str, str] = field(default_factory=dict)
    """Comments by review; empty where a review has none."""
    tokens_given: int = 0

    def server(self) -> Any:
        return self.app(
            {},
            post={"/token/v1": self._token},
            write={("POST", "/reviews/v1/{review}"): self._comment},
        )

    async def _token(self, request: Request) -> Response:
        wanted = {
            "grant_type": "refresh_token", "client_id": self.client_id,
            "client_secret": self.client_secret, "refresh_token": self.refresh_token,
        }  # fmt: skip
        if await desk.form_of(request) != wanted:
            return refusal(400, "INVALID_GRANT")
        self.tokens_given += 1
        return JSONResponse({"access_token": "yelp-access", "expires_in": 604_800})

    async def _comment(self, request: Request) -> Response:
        if desk.bearer(request) != "yelp-access":
            return refusal(401, "INVALID_TOKEN")
        body = await desk.json_of(request)
        if not isinstance(body, dict) or set(body) != {"response_text", "response_type"}:
            return refusal(400, "INVALID_REQUEST")
        if body["response_type"] != "public_comment":
            return refusal(400, "R2R_INVALID_RESPONSE_TYPE")
        review, text = request.path_params["review"], body["response_text"]
        if review not in self.comments:
            return refusal(400, "R2R_REVIEW_DOES_NOT_EXIST")
        has_emoji = isinstance(text, str) and any(ord(one) > 0xFFFF for one in text)
        if not isinstance(text, str) or not 0 < len(text) <= 5_000 or has_emoji:
            return refusal(400, "R2R_INVALID_RESPONSE_TEXT")
        if self.comments[review]:
            return refusal(400, "R2R_PERMISSION_DENIED")
        self.comments[review] = text
        self.sent.append(desk.Sent(review, text, id=f"{review}/reply"))
        return JSONResponse({})
