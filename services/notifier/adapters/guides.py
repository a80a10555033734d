"""Help centres that articles are searched in: Zendesk Guide, Help Scout Docs, Freshdesk Solutions.

Each is asked for published articles only and gives back words without HTML. Sources: Zendesk's help center search
(https://developer.zendesk.com/api-reference/help_center/help-center-api/search/), Help Scout's Docs API
(https://developer.helpscout.com/docs-api/search/), Freshdesk's solution search
(https://developers.freshdesk.com/api/#solutions). Addresses are built from the settings; an article's own address is shown to
customers only if it is https.
"""

import html
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Final

from services.notifier.adapters.provider import Answer, Api, later
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.articles import SUMMARY_LENGTH_MAX, TITLE_LENGTH_MAX
from services.notifier.core.text import clean_line

FOUND_MAX: Final = 10
"""Articles that a help centre is asked for."""

_TAGS = re.compile(r"<[^<>]{0,1000}>")
_TEXT_LENGTH_MAX: Final = 5_000
_LINK = re.compile(r"https://[^\s<>\"']{3,500}")


@dataclass(frozen=True, slots=True)
class Found:
    """An article as a help centre tells it, in plain words."""

    article_id: str
    title: str
    url: str
    summary: str
    text: str


class ZendeskGuide(AccountSettings):
    """Zendesk Guide. Public articles need no token. `locales` are the help centre's own, by language."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "url": "https://lantern-oak.zendesk.com",
        "locales": {"en": "en-gb", "tr": "tr"},
    }

    url: ApiAddress
    locales: dict[str, str]
    token: SecretReference | None = None
    """An OAuth token, for articles that only signed-in people see."""


class HelpScoutDocs(AccountSettings):
    """Help Scout Docs. It knows no languages: `sites` names the site of each."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "key": "env:SIGNALBOX_DOCS_KEY",
        "sites": {"en": "5f0aa1bb22cc33dd44ee55ff"},
    }

    url: ApiAddress = "https://docsapi.helpscout.net"
    key: SecretReference
    sites: dict[str, str]


class FreshdeskSolutions(AccountSettings):
    """Freshdesk Solutions. `articles` is where customers read them: {id} stands in it."""

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "url": "https://lantern-oak.freshdesk.com",
        "key": "env:SIGNALBOX_FRESHDESK_KEY",
        "articles": "https://help.lantern-oak.example/articles/{id}",
        "languages": ["en"],
    }

    url: ApiAddress
    key: SecretReference
    articles: str
    languages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Guide:
    """A kind of help centre: its settings, and how it is asked for what a question is about in a language."""

    name: str
    settings: type[AccountSettings]
    search: Callable[[Api, str, str], Awaitable[tuple[Found, ...]]]


async def _zendesk(api: Api, question: str, language: str) -> tuple[Found, ...]:
    settings: ZendeskGuide = api.settings
    locale = settings.locales.get(language)
    if locale is None:
        return ()
    headers = {"Authorization": f"Bearer {api.secret('token')}"} if settings.token else {}
    answer = await api.call(
        "GET",
        f"{settings.url}/api/v2/help_center/articles/search",
        params={"query": question, "locale": locale, "per_page": str(FOUND_MAX)},
        headers=headers,
    )
    return tuple(
        found
        for one in _items(answer, "results")
        if (found := _found(one.get("id"), one.get("title"), one.get("html_url"), one.get("body")))
    )


async def _helpscout(api: Api, question: str, language: str) -> tuple[Found, ...]:
    settings: HelpScoutDocs = api.settings
    site = settings.sites.get(language)
    if site is None:
        return ()
    answer = await api.call(
        "GET",
        f"{settings.url}/v1/search/articles",
        params={
            "query": question,
            "status": "published",
            "visibility": "public",
            "siteId": site,
            "page": "1",
        },
        basic=(api.secret("key"), "X"),
    )
    # The list stands below `articles`, or, as one note of the vendor shows it, at the top.
    body = answer.body
    inner = body.get("articles") if isinstance(body, dict) else None
    held = Answer(answer.status, answer.headers, inner if isinstance(inner, dict) else body)
    return tuple(
        found
        for one in _items(held, "items")[:FOUND_MAX]
        if (found := _found(one.get("id"), one.get("name"), one.get("url"), one.get("preview")))
    )


async def _freshdesk(api: Api, question: str, language: str) -> tuple[Found, ...]:
    settings: FreshdeskSolutions = api.settings
    if language not in settings.languages:
        return ()
    answer = await api.call(
        "GET",
        f"{settings.url}/api/v2/search/solutions",
        params={"term": question},
        basic=(api.secret("key"), "X"),
    )
    listed = answer.body if isinstance(answer.body, list) else None
    if listed is None:
        later(f"the help centre's answer is no list ({answer.status})")
    return tuple(
        found
        for one in listed[:FOUND_MAX]
        if isinstance(one, dict) and one.get("status", 2) == 2  # 1 is a draft, 2 published.
        if (
            found := _found(
                one.get("id"),
                one.get("title"),
                settings.articles.replace("{id}", str(one.get("id"))),
                one.get("description_text"),
            )
        )
    )


def _items(answer: Answer, name: str) -> list[dict[str, Any]]:
    listed = answer.body.get(name) if isinstance(answer.body, Mapping) else None
    if not isinstance(listed, list):
        later(f"the help centre's answer has no {name} ({answer.status})")
    return [one for one in listed if isinstance(one, dict)]


def _found(article_id: object, title: object, url: object, text: object) -> Found | None:
    """Return an article that can be shown; None for one without a title or an https address."""
    named = clean_line(str(title or ""), TITLE_LENGTH_MAX)
    link = str(url or "")
    if not named or not _LINK.fullmatch(link):
        return None
    plain = html.unescape(_TAGS.sub(" ", str(text or "")[: _TEXT_LENGTH_MAX * 4]))
    return Found(
        article_id=str(article_id),
        title=named,
        url=link,
        summary=clean_line(plain, SUMMARY_LENGTH_MAX),
        text=clean_line(plain, _TEXT_LENGTH_MAX),
    )


GUIDES: Final[Mapping[str, Guide]] = MappingProxyType(
    {
        one.name: one
        for one in (
            Guide("zendesk_guide", ZendeskGuide, _zendesk),
            Guide("helpscout_docs", HelpScoutDocs, _helpscout),
            Guide("freshdesk_solutions", FreshdeskSolutions, _freshdesk),
        )
    }
)
"""The kinds of help centres by name."""
