"""X in memory: direct messages and posts, signed by OAuth 1.0a as its library would check it."""

import base64
import hashlib
import hmac
import re
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk

SKEW_SECONDS = 300


_LINK = re.compile(r"https?://\S+")


def shortened(text: str) -> str:
    """Return a text as X shows it: with links of its own."""
    return _LINK.sub("https://t.co/a1B2c3D4e5", text)


def problem(status: int, detail: str, kind: str = "about:blank") -> Response:
    """Return a refusal as X writes it."""
    return JSONResponse(
        {"title": "Refused", "type": kind, "detail": detail, "status": status}, status
    )


@dataclass
class X(desk.Desk):
    """An account. `people` can be written to, `posts` are others' by id; those in `mentions` mention us."""

    user: str = "1111"
    consumer_key: str = "x-consumer-key-0003"
    consumer_secret: str = "x-consumer-secret-0003"
    token: str = "1111-x-access-token"
    token_secret: str = "x-access-token-secret"
    people: set[str] = field(default_factory=lambda: {"2222"})
    posts: set[str] = field(default_factory=set)
    mentions: set[str] = field(default_factory=set)
    direct: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    written: list[dict[str, Any]] = field(default_factory=list)
    nonces: set[str] = field(default_factory=set)
    now: str = "2026-11-24T08:00:01.000Z"

    def server(self) -> Any:
        return self.app(
            {
                "/2/dm_conversations/with/{person}/dm_events": self._events,
                "/2/users/{user}/tweets": self._posts,
            },
            write={
                ("POST", "/2/dm_conversations/with/{person}/messages"): self._message,
                ("POST", "/2/tweets"): self._post,
            },
        )

    def _is_let_in(self, request: Request) -> bool:
        kind, _, rest = request.headers.get("authorization", "").partition(" ")
        if kind != "OAuth":
            return False
        shown: dict[str, str] = {}
        for part in rest.split(", "):
            name, _, value = part.partition("=")
            shown[name] = unquote(value.strip('"'))
        signature = shown.pop("oauth_signature", "")
        is_known = (
            shown.get("oauth_consumer_key") == self.consumer_key
            and shown.get("oauth_token") == self.token
            and shown.get("oauth_signature_method") == "HMAC-SHA1"
            and shown.get("oauth_version") == "1.0"
            and abs(time.time() - int(shown.get("oauth_timestamp", "0"))) < SKEW_SECONDS
        )
        nonce = shown.get("oauth_nonce", "")
        if not is_known or not nonce or nonce in self.nonces:
            return False
        self.nonces.add(nonce)
        pairs = [*shown.items(), *request.query_params.multi_items()]
        coded = sorted((quote(name, "~"), quote(value, "~")) for name, value in pairs)
        listed = "&".join("=".join(pair) for pair in coded)
        address = str(request.url.replace(query=""))
        base = "&".join(quote(part, "~") for part in (request.method, address, listed))
        key = f"{quote(self.consumer_secret, '~')}&{quote(self.token_secret, '~')}"
        wanted = hmac.new(key.encode(), base.encode(), hashlib.sha1).digest()
        return base64.b64encode(wanted).decode() == signature

    async def _message(self, request: Request) -> Response:
        if not self._is_let_in(request):
            return problem(401, "Unauthorized")
        body = await desk.json_of(request)
        text = body.get("text") if isinstance(body, dict) and set(body) == {"text"} else None
        if not isinstance(text, str) or not 0 < len(text) <= 10_000:
            return problem(400, "text is invalid")
        person = request.path_params["person"]
        if person not in self.people:
            return problem(403, "You cannot send messages to this user.")
        return JSONResponse({"data": self.write(person, text, self.user)}, 201)

    def write(self, person: str, text: str, who: str) -> dict[str, str]:
        """A direct message is written by us or by the person."""
        name = f"90{sum(map(len, self.direct.values())) + 1:05d}"
        self.direct.setdefault(person, []).insert(
            0, {"id": name, "text": shortened(text), "sender_id": who, "created_at": self.now}
        )
        if who == self.user:
            self.sent.append(desk.Sent(person, text, id=name))
        return {"dm_conversation_id": f"{self.user}-{person}", "dm_event_id": name}

    async def _post(self, request: Request) -> Response:
        if not self._is_let_in(request):
            return problem(401, "Unauthorized")
        body = await desk.json_of(request)
        if not isinstance(body, dict) or set(body) != {"text", "reply"}:
            return problem(400, "One or more parameters to your request was invalid.")
        text, reply = body["text"], body["reply"]
        if not isinstance(text, str) or not text or set(reply) != {"in_reply_to_tweet_id"}:
            return problem(400, "One or more parameters to your request was invalid.")
        above = reply["in_reply_to_tweet_id"]
        if above not in self.posts:
            return problem(403, "You attempted to reply to a Tweet that is deleted or not visible.")
        if above not in self.mentions:
            return problem(403, "Reply is not allowed: you have not been mentioned or quoted.")
        if text in {one["said"] for one in self.written}:
            return problem(403, "You are not allowed to create a Tweet with duplicate content.")
        name = f"20{len(self.written) + 1:05d}"
        # X shows whom a post answers in front of its words, shortens links and escapes three signs.
        shown = shortened(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        self.written.insert(
            0,
            {
                "id": name, "text": f"@dana_k {shown}", "said": text, "created_at": self.now,
                "referenced_tweets": [{"type": "replied_to", "id": above}],
            },
        )  # fmt: skip
        self.sent.append(desk.Sent(above, text, id=name))
        return JSONResponse({"data": {"id": name, "text": text}}, 201)

    async def _events(self, request: Request) -> Response:
        if not self._is_let_in(request):
            return problem(401, "Unauthorized")
        query = dict(request.query_params)
        fields = query.pop("dm_event.fields", "id,event_type,text").split(",")
        if query.pop("event_types", "") != "MessageCreate" or set(query) != {"max_results"}:
            return problem(400, "One or more parameters to your request was invalid.")
        listed = self.direct.get(request.path_params["person"], [])[: int(query["max_results"])]
        found = [{name: one[name] for name in fields} for one in listed]
        return JSONResponse({"data": found} if found else {"meta": {"result_count": 0}})

    async def _posts(self, request: Request) -> Response:
        if not self._is_let_in(request):
            return problem(401, "Unauthorized")
        query = dict(request.query_params)
        wanted = {"max_results", "start_time", "tweet.fields"}
        if request.path_params["user"] != self.user or set(query) != wanted:
            return problem(400, "One or more parameters to your request was invalid.")
        listed = [one for one in self.written if one["created_at"] >= query["start_time"]]
        hidden = {"said"}
        found = [
            {name: value for name, value in one.items() if name not in hidden}
            for one in listed[: int(query["max_results"])]
        ]
        return JSONResponse({"data": found} if found else {"meta": {"result_count": 0}})
