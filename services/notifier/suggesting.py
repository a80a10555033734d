"""Asks for articles: the folder's in PostgreSQL, or a help centre's. What cannot be had in time is left out.

A search is an effect of the ticket's opening: recorded, done beside the loop, and brought back as an input. It never keeps a
ticket or its acknowledgement waiting longer than the promise of an answer does.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import asyncpg
import msgspec

from chassis import logs
from chassis.clock import monotonic, pause
from chassis.ledger import DRIVER_ERRORS
from chassis.lifecycle import Runtime
from chassis.stage import EffectResult
from chassis.vendor_api import VendorFailure
from services.notifier import article_store
from services.notifier.adapters.api import AccountApi, Errand
from services.notifier.adapters.guides import GUIDES, Found
from services.notifier.adapters.provider import Problem
from services.notifier.core.accounts import AccountSettings
from services.notifier.core.articles import ArticlesPolicy, Candidate, Suggestion, choose
from services.notifier.metrics import ARTICLE_SEARCHES

SEARCH_SECONDS: Final = 2.0
"""How long one search may take. A customer is not kept waiting for an article."""

KEPT_SECONDS: Final = 600.0
"""How long what a help centre found is kept for the same question."""

KEPT_MAX: Final = 2_000
LOOK_SECONDS: Final = 2.0
"""How often the policy is looked at for another state of the folder."""

log = logs.get("notifier.articles")


class Suggesting:
    """The articles of this process: keeps the table in step with the folder, and answers questions.

    `account` makes the client of a help centre from its settings.
    """

    def __init__(
        self,
        policy: Callable[[], ArticlesPolicy],
        account: Callable[[AccountSettings], AccountApi],
        seconds: float = SEARCH_SECONDS,
    ) -> None:
        self._policy = policy
        self._new_account = account
        self._account: AccountApi | None = None
        self._seconds = seconds
        self._pool: asyncpg.Pool | None = None
        self._kept: dict[tuple[str, str, str], tuple[float, tuple[Suggestion, ...]]] = {}

    async def keep_shelf(self, runtime: Runtime) -> None:
        """Have the table show the folder's articles, for the process' life."""
        self._pool = runtime.pool
        shown = ""
        while not runtime.stopping.is_set():
            policy = self._policy()
            if policy.source == "folder" and policy.version != shown:
                try:
                    async with runtime.pool.acquire() as connection:
                        is_new = await article_store.show(connection, policy.shelf, policy.version)
                    shown = policy.version
                    log.info("articles_shown", articles=len(policy.shelf), is_new=is_new)
                except DRIVER_ERRORS as error:
                    log.warning("articles_not_shown", error=type(error).__name__)
            await pause(runtime.stopping, LOOK_SECONDS)
        if self._account is not None:
            await self._account.retire()

    async def perform(self, question: str, language: str) -> EffectResult:
        """Return the articles worth naming as JSON in the result's detail; `failed` where nothing could be asked."""
        policy = self._policy()
        if not policy.is_asked(language):
            return EffectResult("done", "[]")
        try:
            async with asyncio.timeout(self._seconds):
                found = await self._search(policy, question, language)
        except TimeoutError:
            return _failed("in_time", "the search took too long")
        except Problem as problem:
            return _failed("refused", problem.outcome.reason)
        except VendorFailure as failure:
            return _failed("unanswered", f"the help centre: {failure.failure.value}")
        except DRIVER_ERRORS as error:
            return _failed("unreachable", f"the articles cannot be read: {type(error).__name__}")
        ARTICLE_SEARCHES.labels("named" if found else "nothing_sure").inc()
        return EffectResult("done", msgspec.json.encode(found).decode())

    async def _search(
        self, policy: ArticlesPolicy, question: str, language: str
    ) -> tuple[Suggestion, ...]:
        key = (policy.source + policy.version, language, question.lower())
        kept = self._kept.get(key)
        if kept is not None and kept[0] > monotonic():
            return kept[1]
        assert self._pool is not None, "keep_shelf() runs as long as the process does"
        if policy.source == "folder":
            async with self._pool.acquire() as connection:
                asked, candidates = await article_store.search(connection, language, question)
        else:
            asked, candidates = await self._ask_guide(self._pool, policy, question, language)
        found = choose(asked, candidates, policy.floor[language], policy.named_max)
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        self._kept[key] = (monotonic() + KEPT_SECONDS, found)
        return found

    async def _ask_guide(
        self,
        pool: asyncpg.Pool,
        policy: ArticlesPolicy,
        question: str,
        language: str,
    ) -> tuple[dict[str, float], list[Candidate]]:
        """Ask a help centre, and have what it found judged as our own articles are; there, every word weighs the same."""
        found = await self._found(policy, question, language)
        texts = [question, *(one.title for one in found), *(one.text for one in found)]
        async with pool.acquire() as connection:
            asked, *words = await article_store.words(connection, language, texts)
        titles, bodies = words[: len(found)], words[len(found) :]
        return dict.fromkeys(asked, 1.0), [
            Candidate(one.article_id, one.title, one.url, one.summary, title, body)
            for one, title, body in zip(found, titles, bodies, strict=True)
        ]

    async def _found(
        self, policy: ArticlesPolicy, question: str, language: str
    ) -> tuple[Found, ...]:
        settings = policy.settings
        assert settings is not None, "a help centre has settings"
        account = self._account
        if account is None or account.settings != settings:
            if account is not None:
                await account.retire()
            account = self._account = self._new_account(settings)
        search, errand = GUIDES[policy.vendor].search, Errand(account)
        return await account.http.work(lambda: search(errand, question, language))


def _failed(outcome: str, reason: str) -> EffectResult:
    ARTICLE_SEARCHES.labels("failed").inc()
    log.warning("articles_not_searched", outcome=outcome, reason=reason)
    return EffectResult("failed", reason)
