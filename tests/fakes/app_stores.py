"""Google Play and App Store Connect in memory, each as strict with tokens and parameters as the store."""

from dataclasses import dataclass, field
from typing import Any

import jwt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk


@dataclass
class AppStores(desk.Desk):
    """Play's reviews as they stand in its list (in no order), Apple's by id. `now` is the clock tokens are held against."""

    public_key: Any = None
    now: float = 0.0
    play: list[dict[str, Any]] = field(default_factory=list)
    play_page: int = 100
    apple: dict[str, dict[str, Any]] = field(default_factory=dict)
    responses: dict[str, dict[str, Any]] = field(default_factory=dict)

    def server(self) -> Any:
        return self.app(
            {
                "/androidpublisher/v3/applications/{package}/reviews": self._play_list,
                "/v1/apps/{app}/customerReviews": self._apple_list,
            },
            post={"/token": self._token},
        )

    def write_play(self, review: str, text: str, seconds: int) -> None:
        """A review stands at Play, last changed at `seconds`."""
        comment = {
            "text": text, "lastModified": {"seconds": str(seconds), "nanos": 0}, "starRating": 1,
            "reviewerLanguage": "ru", "appVersionName": "4.2.0",
        }  # fmt: skip
        self.play = [one for one in self.play if one["reviewId"] != review]
        self.play.append(
            {"reviewId": review, "authorName": "Ольга", "comments": [{"userComment": comment}]}
        )

    def write_apple(self, review: str, text: str, at: str, response: str | None = None) -> None:
        """A review stands at App Store Connect, with a response where there is one."""
        attributes = {
            "rating": 2, "title": "Crashes", "body": text, "reviewerNickname": "sunny_k",
            "createdDate": at, "territory": "USA",
        }  # fmt: skip
        related: dict[str, Any] = {"data": None}
        if response is not None:
            name = {"type": "customerReviewResponses", "id": f"rsp-{review}"}
            related = {"data": name}
            said = {"responseBody": response, "lastModifiedDate": at, "state": "PUBLISHED"}
            self.responses[f"rsp-{review}"] = {**name, "attributes": said}
        self.apple[review] = {
            "type": "customerReviews", "id": review, "attributes": attributes,
            "relationships": {"response": related},
        }  # fmt: skip

    async def _token(self, request: Request) -> Response:
        form = await desk.form_of(request)
        if (
            form.get("refresh_token") != "play-refresh"
            or form.get("client_secret") != "play-secret"
        ):
            return desk.refusal(400, "invalid_grant")
        return JSONResponse({"access_token": "play-access", "expires_in": 3599})

    async def _play_list(self, request: Request) -> Response:
        if desk.bearer(request) != "play-access":
            return desk.refusal(401, "UNAUTHENTICATED")
        query = dict(request.query_params)
        if set(query) - {"maxResults", "token", "startIndex", "translationLanguage"}:
            return desk.refusal(400, "INVALID_ARGUMENT")
        size = min(int(query.get("maxResults", "10")), self.play_page)
        start = int(query.get("token", "0"))
        answer: dict[str, Any] = {"reviews": self.play[start : start + size]}
        if start + size < len(self.play):
            answer["tokenPagination"] = {"nextPageToken": str(start + size)}
        return JSONResponse(answer)

    def _is_apples_token(self, token: str) -> bool:
        try:
            claims = jwt.decode(
                token, self.public_key, algorithms=["ES256"], audience="appstoreconnect-v1",
                options={"verify_exp": False, "verify_iat": False},
            )  # fmt: skip
        except jwt.PyJWTError:
            return False
        lasts = claims["exp"] - claims["iat"]
        is_now = claims["iat"] <= self.now < claims["exp"]
        kid = jwt.get_unverified_header(token).get("kid")
        return is_now and 0 < lasts <= 1200 and claims["iss"] == "issuer-1" and kid == "KEY1"

    async def _apple_list(self, request: Request) -> Response:
        if not self._is_apples_token(desk.bearer(request) or ""):
            return desk.refusal(401, "NOT_AUTHORIZED")
        query = dict(request.query_params)
        size = int(query.get("limit", "50"))
        is_known = set(query) <= {"sort", "include", "limit", "cursor"}
        if not is_known or query.get("sort") != "-createdDate" or size > 200:
            return desk.refusal(400, "PARAMETER_ERROR.INVALID")
        listed = sorted(
            self.apple.values(), key=lambda one: str(one["attributes"]["createdDate"]), reverse=True
        )
        start = int(query.get("cursor", "0"))
        page = listed[start : start + size]
        names = [one["relationships"]["response"]["data"] for one in page]
        answer: dict[str, Any] = {
            "data": page,
            "included": [self.responses[name["id"]] for name in names if name],
            "links": {"self": str(request.url)},
        }
        if start + size < len(listed):
            # A strict client takes the cursor and never the host.
            answer["links"]["next"] = (
                f"https://elsewhere.invalid/v1/x?cursor={start + size}&limit={size}"
            )
        return JSONResponse(answer)
