"""Help centres that articles are searched in, against fakes that check requests as the vendors do."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from services.notifier.adapters.api import AccountApi, Errand
from services.notifier.adapters.guides import GUIDES, Found
from services.notifier.adapters.provider import Problem
from services.notifier.core.accounts import AccountSettings
from tests.fakes import desk, guides

ORDER = ("7", "Where is my order?", "The link shows where the parcel is.")
DRAFT = ("8", "Secret prices of next year", "order order order")

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "zendesk_guide": {"url": desk.BASE, "locales": {"en": "en-gb"}},
    "helpscout_docs": {
        "url": desk.BASE,
        "key": "env:KEY",
        "sites": {"en": guides.HelpScoutDocs.site},
    },
    "freshdesk_solutions": {
        "url": desk.BASE,
        "key": "env:KEY",
        "articles": "https://help.shop.example/a/{id}",
        "languages": ["en"],
    },
}
FAKES: Mapping[str, type[guides.HelpCentre]] = {
    "zendesk_guide": guides.ZendeskGuide,
    "helpscout_docs": guides.HelpScoutDocs,
    "freshdesk_solutions": guides.FreshdeskSolutions,
}
KEYS = {"helpscout_docs": "docs-key", "freshdesk_solutions": "fd-key"}


async def search(
    name: str, fake: guides.HelpCentre, question: str, language: str = "en", **more: Any
) -> tuple[Found, ...]:
    settings: AccountSettings = GUIDES[name].settings.model_validate({**SETTINGS[name], **more})
    secrets = {"env:KEY": KEYS.get(name, ""), "env:TOKEN": "guide-token"}
    account = AccountApi(settings, desk.client(fake.server()), secrets.get, seconds=2)
    try:
        return await account.http.work(
            lambda: GUIDES[name].search(Errand(account), question, language)
        )
    finally:
        await account.retire()


@pytest.mark.parametrize("name", GUIDES)
async def test_a_help_centre_names_what_it_has_in_plain_words(name: str) -> None:
    fake = FAKES[name](articles=[ORDER], drafts=[DRAFT])

    found = await search(name, fake, "where is my order")

    assert [(one.article_id, one.title) for one in found] == [("7", "Where is my order?")]
    assert found[0].url.startswith("https://")
    assert "<" not in found[0].text
    assert found[0].text.startswith("The link shows")


@pytest.mark.parametrize("name", GUIDES)
async def test_a_language_that_the_help_centre_does_not_have_is_not_asked_for(name: str) -> None:
    fake = FAKES[name](articles=[ORDER])

    assert await search(name, fake, "where is my order", "tr") == ()
    assert fake.asked == []


@pytest.mark.parametrize("name", GUIDES)
@pytest.mark.parametrize("body", ["null", "[[]]", '{"results": 7, "items": {}}', "no JSON"])
async def test_an_answer_of_another_shape_is_a_problem_and_no_crash(name: str, body: str) -> None:
    fake = FAKES[name](articles=[ORDER])
    fake.misbehave(200, body, content_type="application/json")

    told = await asyncio.gather(search(name, fake, "where is my order"), return_exceptions=True)

    assert told == [()] or isinstance(told[0], Problem)
    assert "order" not in str(told[0])


@pytest.mark.parametrize("name", GUIDES)
async def test_an_article_that_leads_to_no_https_address_is_not_shown(name: str) -> None:
    fake = FAKES[name](articles=[("x y", "javascript:alert(1)", "order")])
    if name == "freshdesk_solutions":
        fake.articles = [("9", "Order", "order")]
        found = await search(name, fake, "order", articles="http://help.shop.example/{id}")
    else:
        bad = {
            "id": 1,
            "title": "Order",
            "name": "Order",
            "html_url": "http://a.example",
            "url": "x",
        }
        fake.misbehave(200, json.dumps({"results": [bad], "items": [bad]}))
        found = await search(name, fake, "order")

    assert found == ()


async def test_restricted_articles_are_asked_for_with_the_token() -> None:
    fake = guides.ZendeskGuide(articles=[ORDER], token="guide-token")

    assert await search("zendesk_guide", fake, "order where", token="env:TOKEN")


async def test_both_lists_of_help_scout_are_read() -> None:
    assert await search(
        "helpscout_docs", guides.HelpScoutDocs(articles=[ORDER], is_flat=True), "order where"
    )


async def test_a_key_that_is_no_good_is_the_accounts_trouble() -> None:
    with pytest.raises(Problem) as refused:
        await search("helpscout_docs", guides.HelpScoutDocs(articles=[ORDER], key="other"), "order")

    assert refused.value.outcome.trouble.value == "account"  # type: ignore[union-attr]
