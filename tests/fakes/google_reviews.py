"""Google Business Profile in memory: tokens for a refresh token, reviews, pages of 50 by their last change, replies."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk


@dataclass
class GoogleReviews(desk.Desk):
    """Reviews by resource name. `old_pages` are page tokens that Google has forgotten; `tokens` were given out.

    `unverified` are places whose reviews take no reply.
    """

    reviews: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: int = 0
    old_pages: set[str] = field(default_factory=set)
    unverified: set[str] = field(default_factory=set)
    now: str = "2026-11-24T08:00:01Z"

    @property
    def tokens_given(self) -> int:
        return self.tokens

    def server(self) -> Any:
        return self.app(
            {
                "/v4/accounts/{account}/locations/{location}/reviews": self._list,
                "/v4/accounts/{account}/locations/{location}/reviews/{review}": self._get,
            },
            post={"/token": self._token},
            write={
                (
                    "PUT",
                    "/v4/accounts/{account}/locations/{location}/reviews/{review}/reply",
                ): self._reply
            },
        )

    def write(self, name: str, text: str, at: str, **more: Any) -> None:
        """A review is written at `at`."""
        self.reviews[name] = {
            "name": name, "reviewId": name.rpartition("/")[2], "reviewer": {"displayName": "Mert A."},
            "starRating": "TWO", "comment": text, "createTime": at, "updateTime": at, **more,
        }  # fmt: skip

    async def _token(self, request: Request) -> Response:
        form = await desk.form_of(request)
        known = {
            "grant_type": "refresh_token", "client_id": "client",
            "client_secret": "client-secret", "refresh_token": "refresh-token",
        }  # fmt: skip
        if form != known:
            return desk.refusal(400, "invalid_grant")
        self.tokens += 1
        return JSONResponse({"access_token": "google-access", "expires_in": 3599})

    def _is_let_in(self, request: Request) -> bool:
        return desk.bearer(request) == "google-access"

    async def _get(self, request: Request) -> Response:
        if not self._is_let_in(request):
            return desk.refusal(401, "UNAUTHENTICATED")
        found = self.reviews.get(request.url.path.removeprefix("/v4/"))
        return JSONResponse(found) if found else desk.refusal(404, "NOT_FOUND")

    async def _list(self, request: Request) -> Response:
        if not self._is_let_in(request):
            return desk.refusal(401, "UNAUTHENTICATED")
        query = dict(request.query_params)
        size = int(query.get("pageSize", "50"))
        is_known = set(query) <= {"pageSize", "pageToken", "orderBy"}
        if not is_known or not 1 <= size <= 50 or query.get("orderBy") != "updateTime desc":
            return desk.refusal(400, "INVALID_ARGUMENT")
        page = query.get("pageToken", "from-0")
        if page in self.old_pages:
            return desk.refusal(400, "INVALID_ARGUMENT")
        place = request.url.path.removeprefix("/v4/") + "/"
        listed = sorted(
            (one for name, one in self.reviews.items() if name.startswith(place)),
            key=lambda one: str(one["updateTime"]),
            reverse=True,
        )
        start = int(page.removeprefix("from-"))
        answer: dict[str, Any] = {"reviews": listed[start : start + size]}
        if not answer["reviews"]:
            answer = {}
        if start + size < len(listed):
            answer["nextPageToken"] = f"from-{start + size}"
        return JSONResponse(answer)

    async def _reply(self, request: Request) -> Response:
        """Make the review's reply, or replace it."""
        if not self._is_let_in(request):
            return desk.refusal(401, "UNAUTHENTICATED")
        name = request.url.path.removeprefix("/v4/").removesuffix("/reply")
        if name not in self.reviews:
            return desk.refusal(404, "NOT_FOUND")
        if name.partition("/reviews/")[0] in self.unverified:
            return desk.refusal(400, "FAILED_PRECONDITION")
        body = await desk.json_of(request)
        text = body.get("comment") if isinstance(body, dict) and set(body) == {"comment"} else None
        if not isinstance(text, str) or not 0 < len(text) <= 4_096:
            return desk.refusal(400, "INVALID_ARGUMENT")
        reply = {"comment": text, "updateTime": self.now}
        self.reviews[name]["reviewReply"] = reply
        review = str(request.path_params["review"])
        self.sent.append(desk.Sent(review, text, id=f"{review}/reply"))
        return JSONResponse(reply)
