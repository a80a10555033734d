"""Help centres in memory: Zendesk Guide, Help Scout Docs, Freshdesk Solutions. They find whatever shares a word."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes import desk


def _shares_a_word(question: str, text: str) -> bool:
    return bool(set(question.lower().split()) & set(text.lower().replace("?", " ").split()))


@dataclass
class HelpCentre(desk.Desk):
    """Articles as (id, title, text), published; `drafts` are not to be shown to anybody."""

    articles: list[tuple[str, str, str]] = field(default_factory=list)
    drafts: list[tuple[str, str, str]] = field(default_factory=list)

    def found(self, question: str) -> list[tuple[str, str, str]]:
        return [one for one in self.articles if _shares_a_word(question, f"{one[1]} {one[2]}")]


@dataclass
class ZendeskGuide(HelpCentre):
    """Restricted content asks for a bearer's token."""

    token: str = ""
    locale: str = "en-gb"
    hangs_reads: bool = False

    def server(self) -> Any:
        return self.app({"/api/v2/help_center/articles/search": self._search})

    async def _search(self, request: Request) -> Response:
        if self.hangs_reads:
            await asyncio.Event().wait()
        if self.token and desk.bearer(request) != self.token:
            return desk.refusal(401, "Couldn't authenticate you")
        query = dict(request.query_params)
        if set(query) != {"query", "locale", "per_page"} or not query["query"]:
            return desk.refusal(400, "InvalidParameter")
        if query["locale"] != self.locale or not 1 <= int(query["per_page"]) <= 100:
            return desk.refusal(400, "InvalidParameter")
        results = [
            {
                "id": int(key),
                "title": title,
                "html_url": f"https://shop.example/hc/{self.locale}/articles/{key}",
                "snippet": text[:50],
                "body": f"<p>{text}</p>",
                "locale": self.locale,
            }
            for key, title, text in self.found(query["query"])
        ]
        return JSONResponse({"results": results, "count": len(results), "next_page": None})


@dataclass
class HelpScoutDocs(HelpCentre):
    """The key is the user of Basic, with X as the password."""

    key: str = "docs-key"
    site: str = "5f0aa1bb22cc33dd44ee55ff"
    is_flat: bool = False

    def server(self) -> Any:
        return self.app({"/v1/search/articles": self._search})

    async def _search(self, request: Request) -> Response:
        if desk.basic(request) != (self.key, "X"):
            return desk.refusal(401, "Unauthorized")
        query = dict(request.query_params)
        known = {"query", "status", "visibility", "siteId", "page"}
        if set(query) != known or query["siteId"] != self.site or query["page"] != "1":
            return desk.refusal(400, "Bad Request")
        listed = self.found(query["query"])
        if (query["status"], query["visibility"]) != ("published", "public"):
            listed += self.drafts
        items = [
            {
                "id": key,
                "name": title,
                "preview": f"<em>{text[:40]}</em>",
                "url": f"https://docs.shop.example/article/{key}",
                "status": "published",
            }
            for key, title, text in listed
        ]
        page = {"page": 1, "pages": 1, "count": len(items), "items": items}
        return JSONResponse(page if self.is_flat else {"articles": page})


@dataclass
class FreshdeskSolutions(HelpCentre):
    """Lists drafts, too: whoever shows articles has to leave them out."""

    key: str = "fd-key"

    def server(self) -> Any:
        return self.app({"/api/v2/search/solutions": self._search})

    async def _search(self, request: Request) -> Response:
        if desk.basic(request) != (self.key, "X"):
            return desk.refusal(401, "Unauthorized")
        query = dict(request.query_params)
        if set(query) != {"term"}:
            return desk.refusal(400, "Bad Request")
        return JSONResponse(
            [
                {"id": int(key), "title": title, "description_text": text, "status": status}
                for status, listed in ((2, self.found(query["term"])), (1, self.drafts))
                for key, title, text in listed
            ]
        )
