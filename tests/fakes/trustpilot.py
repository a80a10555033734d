"""Trustpilot in memory: client credentials, single private reviews, and numbered pages by creation, the newest first."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk


@dataclass
class Trustpilot(desk.Desk):
    """Reviews by id, service reviews and product reviews apart."""

    reviews: dict[str, dict[str, Any]] = field(default_factory=dict)
    product_reviews: dict[str, dict[str, Any]] = field(default_factory=dict)
    business_users: set[str] = field(default_factory=set)
    """Who may answer reviews."""
    tokens_given: int = 0
    now: str = "2026-11-24T08:00:01.000Z"

    def server(self) -> Any:
        token = "/v1/oauth/oauth-business-users-for-applications/accesstoken"
        return self.app(
            {
                "/v1/private/business-units/unit1/reviews": self._list,
                "/v1/private/reviews/{review}": self._get,
                "/v1/private/product-reviews/{review}": self._get_product,
            },
            post={token: self._token},
            write={("POST", "/v1/private/reviews/{review}/reply"): self._reply},
        )

    def write(self, review: str, text: str, at: str, **more: Any) -> None:
        """A review is written at `at`."""
        self.reviews[review] = {
            "id": review, "consumer": {"id": f"c-{review}", "displayName": "R. Lund"}, "stars": 2,
            "title": "Late", "text": text, "language": "en", "createdAt": at, "updatedAt": None, **more,
        }  # fmt: skip

    async def _token(self, request: Request) -> Response:
        is_right = desk.basic(request) == ("api-key", "api-secret")
        if not is_right or await desk.form_of(request) != {"grant_type": "client_credentials"}:
            return desk.refusal(401, "invalid_client")
        self.tokens_given += 1
        return JSONResponse({"access_token": "trustpilot-access", "expires_in": "359999"})

    def _answer(self, request: Request, found: dict[str, dict[str, Any]]) -> Response:
        if desk.bearer(request) != "trustpilot-access":
            return desk.refusal(401, "unauthorized")
        review = found.get(request.path_params["review"])
        return JSONResponse(review) if review else desk.refusal(404, "not found")

    async def _get(self, request: Request) -> Response:
        return self._answer(request, self.reviews)

    async def _get_product(self, request: Request) -> Response:
        return self._answer(request, self.product_reviews)

    async def _list(self, request: Request) -> Response:
        if desk.bearer(request) != "trustpilot-access":
            return desk.refusal(401, "unauthorized")
        query = dict(request.query_params)
        size, number = int(query.get("perPage", "20")), int(query.get("page", "1"))
        is_known = set(query) == {"orderBy", "page", "perPage"}
        if not is_known or query["orderBy"] != "createdat.desc" or not 1 <= size <= 100:
            return desk.refusal(400, "bad parameter")
        listed = sorted(self.reviews.values(), key=lambda one: str(one["createdAt"]), reverse=True)
        return JSONResponse({"reviews": listed[(number - 1) * size : number * size]})

    async def _reply(self, request: Request) -> Response:
        """Make the company's reply, or replace it."""
        if desk.bearer(request) != "trustpilot-access":
            return desk.refusal(401, "unauthorized")
        review = str(request.path_params["review"])
        if review not in self.reviews:
            return desk.refusal(404, "not found")
        body = await desk.json_of(request)
        if not isinstance(body, dict) or set(body) != {"message", "authorBusinessUserId"}:
            return desk.refusal(400, "bad request")
        text = body["message"]
        if body["authorBusinessUserId"] not in self.business_users:
            return desk.refusal(403, "forbidden")
        if not isinstance(text, str) or not text.strip():
            return desk.refusal(400, "bad request")
        self.reviews[review]["companyReply"] = {
            "text": text, "createdAt": self.now, "authorBusinessUserId": body["authorBusinessUserId"],
        }  # fmt: skip
        self.sent.append(desk.Sent(review, text, id=f"{review}/reply"))
        return JSONResponse({"reply": {"message": text, "createdAt": self.now}}, 201)
