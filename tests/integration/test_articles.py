"""Articles in a real PostgreSQL: found by the dictionaries of three languages, and named only where that is measured."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from chassis.clock import monotonic
from chassis.policy import read_yaml
from chassis.stage import EffectResult
from cli.articles import app, read_named_max
from cli.errors import CommandError
from services.notifier.adapters.api import AccountApi
from services.notifier.adapters.guides import GUIDES
from services.notifier.core.articles import ArticlesFile, ArticlesPolicy, build_articles
from services.notifier.suggesting import Suggesting
from tests.fakes import desk, guides

ROOT = Path(__file__).parents[2]
POLICY = Path("policy")
KINDS = {name: kind.settings for name, kind in GUIDES.items()}


def measured(sure: float = 0.8) -> dict[str, dict[str, object]]:
    told = CliRunner().invoke(app, ["measure", "--json", "--sure", str(sure)])
    assert told.exit_code == 0, told.output
    found: dict[str, dict[str, object]] = json.loads(told.output)
    return found


def test_the_floors_of_the_example_policy_are_what_its_labelled_questions_prove() -> None:
    floors = read_yaml(POLICY / "notify.yaml")["articles"]["floor"]

    report = measured()

    assert set(floors) == {"en", "tr", "ru"}
    for language, floor in floors.items():
        above = [one for one in report[language]["thresholds"] if one["floor"] >= floor]  # type: ignore[attr-defined]
        assert above[0]["sure"] >= 0.8, (language, above[0])
        assert above[0]["precision"] == 1.0, (language, above[0])
        # A notice names two, so the second one counts too, though one alone can be right.
        all_of_it = report[language]["thresholds"][0]  # type: ignore[index]
        assert all_of_it["right"] <= all_of_it["helped"] < all_of_it["named"]


@pytest.mark.parametrize(
    ("language", "asked", "article"),
    [
        ("en", "My deliveries are always late, where are the parcels?", "where-is-my-order"),
        ("tr", "SİPARİŞİM NEREDE KALDI", "siparisim-nerede"),
        ("tr", "İade etiketini bulamadım", "iade"),
        ("ru", "Пришлите, пожалуйста, счет", "schet"),
        ("ru", "Посылку отследить не получается", "gde-zakaz"),
    ],
)
def test_words_are_found_in_the_forms_that_people_write(
    language: str, asked: str, article: str
) -> None:
    told = CliRunner().invoke(app, ["search", asked, "--language", language, "--json"])

    assert told.exit_code == 0, told.output
    assert json.loads(told.output)[0]["article"] == article


@pytest.mark.parametrize(
    ("written", "named"),
    [("", 2), ("articles: {source: folder}\n", 2), ("articles: {named_max: 3}\n", 3)],
)
def test_as_many_articles_are_judged_as_a_notice_names(
    tmp_path: Path, written: str, named: int
) -> None:
    (tmp_path / "notify.yaml").write_text(written or "{}\n")
    assert read_named_max(tmp_path) == named


def test_a_number_of_articles_that_cannot_be_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "notify.yaml").write_text("articles: {named_max: 9}\n")
    with pytest.raises(CommandError, match=r"notify\.yaml: articles\.named_max: "):
        read_named_max(tmp_path)


def test_a_question_about_something_else_names_nothing() -> None:
    told = CliRunner().invoke(app, ["search", "Do you have a shop in Berlin?", "--json"])

    floor = read_yaml(POLICY / "notify.yaml")["articles"]["floor"]["en"]
    assert all(one["score"] < floor for one in json.loads(told.output))


def test_a_language_without_articles_is_refused_before_any_database_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("no database is needed to say so")

    monkeypatch.setattr("chassis.local.start_postgres", never)
    told = CliRunner().invoke(app, ["search", "Wo ist mein Paket?", "--language", "de"])
    assert str(told.exception) == "There are no articles in de; there are in en, ru, tr."


def test_a_label_for_an_article_that_is_not_there_is_refused_with_its_place(tmp_path: Path) -> None:
    labels = tmp_path / "questions.yaml"
    labels.write_text("en:\n  no-such-article:\n    - Where?\n")

    told = CliRunner().invoke(app, ["measure", "--questions", str(labels)])

    assert told.exit_code != 0
    assert "en.no-such-article" in f"{told.output}{told.exception}"


def shelf(title: str) -> ArticlesPolicy:
    source = f"---\ntitle: {title}\nurl: https://help.example/a\n---\nSome words.\n"
    file = ArticlesFile(source="folder", floor={"en": 0.5})
    return build_articles(file, {"en/article.md": source}, ("en",), KINDS)


def guide() -> ArticlesPolicy:
    file = ArticlesFile.model_validate(
        {
            "source": "help",
            "floor": {"en": 0.4},
            "guides": {
                "help": {
                    "vendor": "zendesk_guide",
                    "url": desk.BASE,
                    "locales": {"en": "en-gb"},
                    "token": "env:TOKEN",
                }
            },
        }
    )
    return build_articles(file, {}, ("en",), KINDS)


def named(result: EffectResult) -> list[dict[str, Any]]:
    assert result.status == "done", result
    found: list[dict[str, Any]] = json.loads(result.detail)
    return found


@dataclass
class Running:
    suggesting: Suggesting
    policy: ArticlesPolicy
    ready: asyncio.Event

    async def is_ready(self) -> None:
        await asyncio.wait_for(self.ready.wait(), 10)


@asynccontextmanager
async def suggesting(
    database: str,
    policy: ArticlesPolicy,
    fake: guides.ZendeskGuide | None = None,
    seconds: float = 5.0,
) -> AsyncIterator[Running]:
    """`Suggesting` with its background part, as the service runs it."""
    pool = await asyncpg.create_pool(database, min_size=1, max_size=3)
    await pool.execute((ROOT / "services/notifier/sql/0006_articles.sql").read_text())
    stopping, ready = asyncio.Event(), asyncio.Event()

    def current() -> ArticlesPolicy:
        ready.set()
        return running.policy

    def account(settings: Any) -> AccountApi:
        assert fake is not None
        secrets = {"env:TOKEN": "guide-token"}
        return AccountApi(settings, desk.client(fake.server()), secrets.get, seconds=5)

    one = Suggesting(current, account, seconds)
    running = Running(one, policy, ready)
    background = asyncio.create_task(
        one.keep_shelf(SimpleNamespace(pool=pool, stopping=stopping))  # type: ignore[arg-type]
    )
    try:
        yield running
    finally:
        stopping.set()
        await background
        await pool.close()


async def eventually_named(one: Running, asked: str) -> list[dict[str, Any]]:
    """Ask until the shelf shows what the policy says; each time otherwise, since answers are kept."""
    await one.is_ready()
    began, n = monotonic(), 0
    while monotonic() - began < 15:
        n += 1
        found = named(
            await one.suggesting.perform(f"{asked} {n * ' '}{n % 2 * '?'}{n * '!'}", "en")
        )
        if found:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"nothing was named for {asked!r} in 15 s")


class TestWhatIsSuggested:
    """`Suggesting` with a real PostgreSQL and help centres that answer, do not, or say no."""

    async def test_the_folders_articles_are_there_once_the_policy_is_and_follow_it(
        self, database: str
    ) -> None:
        async with suggesting(database, shelf("Where is my order?")) as one:
            found = await eventually_named(one, "where is my order")
            assert [each["title"] for each in found] == ["Where is my order?"]

            one.policy = shelf("How to return something")
            await eventually_named(one, "how to return something")

            assert named(await one.suggesting.perform("where is my order, please", "en")) == []

    async def test_a_language_without_a_floor_is_asked_nothing(self, database: str) -> None:
        async with suggesting(database, shelf("Where is my order?")) as one:
            assert named(await one.suggesting.perform("where is my order", "de")) == []

    async def test_a_help_centre_is_judged_by_the_same_rule_and_asked_once_for_a_question(
        self, database: str
    ) -> None:
        fake = guides.ZendeskGuide(
            articles=[
                ("7", "Where is my order?", "…"),
                ("8", "How to return it", "Your order goes back by post"),
            ]
        )
        async with suggesting(database, guide(), fake) as one:
            await one.is_ready()
            first = named(await one.suggesting.perform("where is my order", "en"))
            again = named(await one.suggesting.perform("Where is my order", "en"))

        assert [each["title"] for each in first] == ["Where is my order?", "How to return it"]
        assert again == first
        assert len(fake.asked) == 1

    async def test_a_help_centre_that_hangs_costs_the_articles_and_nothing_else(
        self, database: str
    ) -> None:
        fake = guides.ZendeskGuide(hangs_reads=True)
        async with suggesting(database, guide(), fake, seconds=0.2) as one:
            await one.is_ready()
            result = await one.suggesting.perform("where is my order", "en")

        assert result.status == "failed"

    async def test_a_refusal_is_said_without_the_question(self, database: str) -> None:
        fake = guides.ZendeskGuide(token="another")
        async with suggesting(database, guide(), fake) as one:
            await one.is_ready()
            result = await one.suggesting.perform("where is my order", "en")

        assert result.status == "failed"
        assert "order" not in result.detail
