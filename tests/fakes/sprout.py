"""A fake Sprout Social: the messages endpoint, as strict as the documentation says, and able to misbehave.

It refuses what Sprout refuses: another token, another customer, an unknown field, a window without both ends or with a
zone, profiles outside of the group, more than 100 a page, and a cursor it did not give.
"""

import re
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

BASE = "https://sprout.invalid"
TOKEN = "sprout-token-0010"
RESULTS_MAX = 10_000

TOP_LEVEL = {
    "activity_metadata",
    "case_id",
    "content_category",
    "created_time",
    "customer_profile_id",
    "from",
    "guid",
    "hashtags",
    "inbox_permalink",
    "internal",
    "language_code",
    "network",
    "perma_link",
    "post_category",
    "post_type",
    "profile_guid",
    "review_ratings",
    "text",
    "title",
    "visual_media",
}
NESTED = {
    "from.guid",
    "from.name",
    "from.profile_picture",
    "from.screen_name",
    "internal.tags.id",
    "internal.sent_by.id",
    "internal.sent_by.email",
    "internal.sent_by.first_name",
    "internal.sent_by.last_name",
}
"""The documented fields of the messages endpoint."""

KEYS = {"filters", "fields", "limit", "timezone", "page_cursor", "sort"}
FILTER = re.compile(r"^([a-z_.]+)\.(eq|in)\((.*)\)$")
WINDOW = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\.(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)$")


class Refused(Exception):
    """A request that Sprout answers with 400, and why."""


@dataclass
class Sprout:
    """One customer with one group of profiles. `asked` holds the bodies that came, `trouble` the next wrong answers."""

    customer: str = "805215"
    group: int = 7001
    profiles: tuple[int, ...] = (111, 222)
    messages: list[dict[str, Any]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    trouble: deque[Response] = field(default_factory=deque)
    results_max: int = RESULTS_MAX

    def add(self, guid: str, created_time: str, **more: Any) -> None:
        """Put a message into the inbox."""
        self.messages.append(
            {
                "guid": guid,
                "network": "INSTAGRAM",
                "created_time": created_time,
                "post_type": "INSTAGRAM_DIRECT_MESSAGE",
                "text": f"text of {guid}",
                "from": {"guid": "ig:2222", "name": "Dana K"},
                "profile_guid": "ig:1111",
                "customer_profile_id": 111,
                **more,
            }
        )

    def misbehave(self, status: int, body: str = "", **headers: str) -> None:
        """Answer the next request with this."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.trouble.append(Response(body, status, named))

    def client(self) -> httpx.AsyncClient:
        """Return a client for which this is the whole internet."""
        app = Starlette(routes=[Route("/v1/{customer}/messages", self._messages, methods=["POST"])])
        return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), follow_redirects=False)

    async def _messages(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"error": "Unauthorized"}, 401)
        if request.path_params["customer"] != self.customer:
            return JSONResponse({"error": "Forbidden"}, 403)
        asked = await request.json()
        self.asked.append(asked)
        if self.trouble:
            return self.trouble.popleft()
        try:
            return JSONResponse(self._page(asked))
        except Refused as refused:
            return JSONResponse({"error": str(refused)}, 400)

    def _page(self, asked: dict[str, Any]) -> dict[str, Any]:
        if unknown := set(asked) - KEYS:
            raise Refused(f"unknown keys {sorted(unknown)}")
        fields = asked.get("fields", ["guid"])
        if set(fields) - TOP_LEVEL - NESTED:
            raise Refused("Requested invalid fields")
        limit = asked.get("limit", 50)
        if not 1 <= limit <= 100:
            raise Refused("limit")
        found = self._found(asked["filters"], "inbox_permalink" in fields)
        if asked.get("sort", ["created_time:desc"]) != ["created_time:asc"]:
            found.reverse()
        found = found[: self.results_max]
        start = 0
        if "page_cursor" in asked:
            given = re.fullmatch(r"page-(\d+)==", asked["page_cursor"])
            if given is None:
                raise Refused("invalid page_cursor")
            start = int(given[1])
        page: dict[str, Any] = {
            "data": [_only(message, fields) for message in found[start : start + limit]]
        }
        if start + limit < len(found):
            page["paging"] = {"next_cursor": f"page-{start + limit}=="}
        return page

    def _found(self, filters: list[str], wants_inbox_link: bool) -> list[dict[str, Any]]:
        named = {}
        for text in filters:
            parts = FILTER.match(text)
            if parts is None:
                raise Refused("filter")
            named[parts[1]] = parts[3]
        if wants_inbox_link and "group_id" not in named:
            raise Refused("inbox_permalink needs group_id")
        if named.get("group_id", "") != str(self.group):
            raise Refused("group_id")
        profiles = {int(one) for one in named.get("customer_profile_id", "0").split(",")}
        if not profiles <= set(self.profiles):
            raise Refused("customer_profile_id")
        window = WINDOW.match(named.get("created_time", ""))
        if window is None:
            raise Refused("created_time")
        begins, ends = (datetime.fromisoformat(one).replace(tzinfo=UTC) for one in window.groups())
        if begins > ends:
            raise Refused("created_time is the wrong way round")
        types = set(filter(None, named.get("post_type", "").split(",")))
        return sorted(
            (
                message
                for message in self.messages
                if begins <= datetime.fromisoformat(message["created_time"]) <= ends
                and message["customer_profile_id"] in profiles
                and (not types or message["post_type"] in types)
            ),
            key=lambda message: message["created_time"],
        )


def _only(message: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    """Return the fields that were asked for; `from` and `internal` by their parts."""
    found: dict[str, Any] = {}
    for name in fields:
        value: Any = message
        *above, last = name.split(".")
        for step in above:
            value = value.get(step, {}) if isinstance(value, dict) else {}
        if not isinstance(value, dict) or last not in value:
            continue
        place = found
        for step in above:
            place = place.setdefault(step, {})
        place[last] = value[last]
    return found
