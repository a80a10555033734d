"""A Discourse forum in memory: topics with their posts, a user's API key, and the rules that refuse posts."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

CHARACTERS_MIN = 20


@dataclass
class Discourse(desk.Desk):
    """Posts by id; `topics` are post ids by topic, the oldest first. `closed` topics take no posts; `is_approved` forums hold
    them back."""

    api_key: str = "discourse-api-key-0008"
    username: str = "support-bot"
    topics: dict[int, list[int]] = field(default_factory=dict)
    posts: dict[int, dict[str, Any]] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)
    is_approved: bool = False
    now: str = "2026-11-24T08:00:01.000Z"

    def server(self) -> Any:
        return self.app(
            {"/posts/{post}.json": self._post, "/t/{topic}.json": self._topic},
            write={("POST", "/posts.json"): self._create},
        )

    def write(self, topic: int, text: str, who: str, at: str | None = None) -> dict[str, Any]:
        """Somebody posts."""
        stream = self.topics.setdefault(topic, [])
        post: dict[str, Any] = {
            "id": 800 + len(self.posts) + 1, "topic_id": topic, "post_number": len(stream) + 1,
            "username": who, "raw": text, "created_at": at or self.now,
        }  # fmt: skip
        self.posts[post["id"]] = post
        stream.append(post["id"])
        return post

    def _refused(self, request: Request) -> Response | None:
        shown = (request.headers.get("api-key"), request.headers.get("api-username"))
        if shown == (self.api_key, self.username):
            return None
        return JSONResponse({"errors": ["not permitted"], "error_type": "invalid_access"}, 403)

    async def _post(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        found = self.posts.get(int(request.path_params["post"]))
        return JSONResponse(found) if found else self._gone()

    async def _topic(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        stream = self.topics.get(int(request.path_params["topic"]))
        if stream is None:
            return self._gone()
        return JSONResponse({"id": 77, "post_stream": {"stream": stream, "posts": []}})

    def _gone(self) -> Response:
        return JSONResponse({"errors": ["not found"], "error_type": "not_found"}, 404)

    async def _create(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        body = await desk.json_of(request)
        known = {"raw", "topic_id", "reply_to_post_number"}
        if not isinstance(body, dict) or not {"raw", "topic_id"} <= set(body) <= known:
            return JSONResponse({"errors": ["invalid"], "error_type": "invalid_parameters"}, 400)
        topic, raw, number = body["topic_id"], body["raw"], body.get("reply_to_post_number")
        if topic not in self.topics:
            return self._gone()
        mine = {post["raw"] for post in self.posts.values() if post["username"] == self.username}
        is_known = number is None or 1 < number <= len(self.topics[topic])
        if not is_known or topic in self.closed or raw in mine or len(raw) > 32_000:
            return JSONResponse({"action": "create_post", "errors": ["no"]}, 422)
        if len(raw.strip()) < CHARACTERS_MIN:
            return JSONResponse({"action": "create_post", "errors": ["too short"]}, 422)
        if self.is_approved:
            return JSONResponse({"success": True, "action": "enqueued", "pending_post": {"id": 1}})
        post = self.write(topic, raw, self.username)
        post["reply_to_post_number"] = number
        self.sent.append(desk.Sent(str(topic), raw, id=str(post["id"])))
        return JSONResponse(post)
