"""`signalbox articles …`: what a question finds, and what a floor is worth by questions that people have labelled."""

import asyncio
import json as json_module
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.errors import CommandError

if TYPE_CHECKING:
    from services.notifier.core.articles import Article, Judged

app = typer.Typer(
    help="Articles that acknowledgements name: what is found, and how sure that is.",
    no_args_is_help=True,
)

NONE: Final = "none"
"""In the file of questions: no article answers these."""

FOLDER: Final = "articles"
QUESTIONS: Final = "questions.yaml"

_POLICY = typer.Option("--policy", help="The policy folder.", exists=True, file_okay=False)
_JSON = typer.Option("--json", help="Print one JSON object and nothing else.")


@app.command()
def search(
    question: Annotated[str, typer.Argument(help="What a customer wrote.")],
    language: Annotated[str, typer.Option(help="Its language: en, tr, ru …")] = "en",
    policy: Annotated[Path, _POLICY] = Path("policy"),
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Show what the folder's articles score for a question, the surest first."""
    articles = read_shelf(policy / FOLDER)
    spoken = sorted({one.language for one in articles})
    if language not in spoken:
        raise CommandError(
            f"There are no articles in {language}; there are in {', '.join(spoken)}."
        )
    found = asyncio.run(_scores(articles, {language: [question]}))[language][0]
    if json:
        typer.echo(
            json_module.dumps([{"article": name, "score": round(sure, 4)} for name, sure in found])
        )
        return
    if not found:
        typer.echo("No article has any of these words.")
    for name, sure in found:
        typer.echo(f"{sure:6.3f}  {name}")


@app.command()
def measure(
    policy: Annotated[Path, _POLICY] = Path("policy"),
    questions: Annotated[
        Path | None, typer.Option(help="Labelled questions; articles/questions.yaml otherwise.")
    ] = None,
    sure: Annotated[
        float,
        typer.Option(
            min=0.5, max=0.999, help="How often a named article has to be right, at least."
        ),
    ] = 0.8,
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Say which floor makes named articles right often enough, by language, from labelled questions.

    Of each question all articles are judged that a notice would name (`articles.named_max`), from the folder.
    """
    from services.notifier.core.articles import lowest_floor, thresholds

    articles = read_shelf(policy / FOLDER)
    path = questions or policy / FOLDER / QUESTIONS
    labelled = read_questions(path, articles)
    judged = asyncio.run(judge(articles, labelled, read_named_max(policy)))
    report: dict[str, Any] = {}
    for language, answers in judged.items():
        best = lowest_floor(answers, sure)
        report[language] = {
            "asked": sum(one.place == 0 for one in answers),
            "floor": None if best is None else round(best.floor, 3),
            "named": 0 if best is None else best.named,
            "right": 0 if best is None else best.right,
            "sure": 0 if best is None else round(best.sure, 3),
            "thresholds": [
                {
                    "floor": round(one.floor, 3),
                    "named": one.named,
                    "right": one.right,
                    "helped": one.helped,
                    "precision": round(one.precision, 3),
                    "coverage": round(one.coverage, 3),
                    "sure": round(one.sure, 3),
                }
                for one in thresholds(answers)
            ],
        }
    if json:
        typer.echo(json_module.dumps(report))
        return
    for language, said in report.items():
        typer.echo(f"{language}: {said['asked']} questions")
        for one in said["thresholds"]:
            typer.echo(
                f"  from {one['floor']:.3f}: {one['named']:4} named, {one['right']:4} right"
                f" ({one['precision']:.0%}, at least {one['sure']:.0%}), {one['coverage']:.0%} of all"
            )
        if said["floor"] is None:
            typer.echo(
                f"  No floor is right in {sure:.0%} of the cases for sure. Label more questions, add the words that customers"
                " use to `keywords`, or leave the language without a floor: it gets no articles."
            )
        else:
            typer.echo(f"  Set articles.floor.{language} to {said['floor']} or more.")
    typer.echo(
        "A floor is chosen and judged by the same questions here, so expect a little less of it with the next ones: label new"
        " questions now and then, and measure again."
    )


def read_named_max(policy: Path) -> int:
    """Return how many articles a notice names by the policy's `notify.yaml`, or by default where it says nothing.

    Raises:
        CommandError: the file cannot be read, or the number cannot be used.
    """
    from pydantic import ValidationError

    from chassis.errors import PolicyError
    from chassis.policy import read_yaml
    from services.notifier.core.articles import ArticlesFile

    path = policy / "notify.yaml"
    try:
        content = read_yaml(path) if path.exists() else {}
    except PolicyError as error:
        raise CommandError(str(error)) from None
    rules = content.get("articles") if isinstance(content, Mapping) else None
    given = {"named_max": rules["named_max"]} if rules and "named_max" in rules else {}
    try:
        return ArticlesFile.model_validate(given).named_max
    except ValidationError as error:
        reason = error.errors(include_input=False, include_url=False)[0]["msg"]
        raise CommandError(f"notify.yaml: articles.named_max: {reason}") from None


def read_shelf(folder: Path) -> tuple["Article", ...]:
    """Return the articles below a folder.

    Raises:
        CommandError: there are none, or one cannot be used.
    """
    from services.notifier.core.articles import ArticleMistake, parse

    shelf = []
    for path in sorted(folder.glob("*/*.md")):
        try:
            shelf.append(parse(path.stem, path.parent.name, path.read_text(encoding="utf-8")))
        except ArticleMistake as mistake:
            raise CommandError(
                f"{FOLDER}/{path.parent.name}/{path.name}: {mistake.field}: {mistake.allowed}"
            ) from None
    if not shelf:
        raise CommandError(
            f"There are no articles below {folder}: <language>/<name>.md is expected."
        )
    return tuple(shelf)


def read_questions(path: Path, articles: Sequence["Article"]) -> dict[str, list[tuple[str, str]]]:
    """Return (question, article's id or `none`) by language.

    Raises:
        CommandError: the file is missing, or names an article that is not there.
    """
    from chassis.errors import PolicyError
    from chassis.policy import read_yaml

    try:
        content = read_yaml(path)
    except PolicyError as error:
        raise CommandError(str(error)) from None
    known = {(one.language, one.article_id) for one in articles}
    labelled: dict[str, list[tuple[str, str]]] = {}
    for language, by_article in (content if isinstance(content, Mapping) else {}).items():
        for name, asked in (by_article if isinstance(by_article, Mapping) else {}).items():
            if name != NONE and (language, name) not in known:
                raise CommandError(f"{path.name}: {language}.{name}: there is no such article")
            for one in asked if isinstance(asked, list) else ():
                labelled.setdefault(str(language), []).append((str(one), str(name)))
    if not labelled:
        raise CommandError(f"{path.name}: has no questions; see `policy/articles/questions.yaml`")
    return labelled


async def judge(
    articles: Sequence["Article"],
    labelled: Mapping[str, Sequence[tuple[str, str]]],
    named_max: int,
) -> dict[str, list["Judged"]]:
    """Return the scores of each question's best `named_max` articles, and whether each is the one that people named."""
    from services.notifier.core.articles import Judged

    asked = {language: [one for one, _ in pairs] for language, pairs in labelled.items()}
    scores = await _scores(articles, asked)
    judged: dict[str, list[Judged]] = {}
    for language, pairs in labelled.items():
        for (_, right), found in zip(pairs, scores[language], strict=True):
            best = found[:named_max] or [("", 0.0)]
            judged.setdefault(language, []).extend(
                Judged(sure, name == right, place) for place, (name, sure) in enumerate(best)
            )
    return judged


async def _scores(
    articles: Sequence["Article"], asked: Mapping[str, Sequence[str]]
) -> dict[str, list[list[tuple[str, float]]]]:
    """Ask a PostgreSQL about the folder as it stands, in tables that only this connection sees: no service is needed."""
    import tempfile

    import asyncpg

    from chassis.local import start_postgres
    from services.notifier import article_store
    from services.notifier.core.articles import question, score

    sql = Path(article_store.__file__).with_name("sql") / "0006_articles.sql"
    with tempfile.TemporaryDirectory(prefix="signalbox-articles-") as directory:
        server = await asyncio.to_thread(start_postgres, Path(directory))
        try:
            connection = await asyncpg.connect(server.dsn())
            try:
                await connection.execute("SET search_path = pg_temp")
                await connection.execute(sql.read_text(encoding="utf-8"))
                await article_store.show(connection, articles, "as it stands")
                scores: dict[str, list[list[tuple[str, float]]]] = {}
                for language, questions in asked.items():
                    for one in questions:
                        weights, candidates = await article_store.search(
                            connection, language, question("", one)
                        )
                        found = [(each.article_id, score(weights, each)) for each in candidates]
                        found.sort(key=lambda pair: (-pair[1], pair[0]))
                        scores.setdefault(language, []).append(found)
                return scores
            finally:
                await connection.close()
        finally:
            await asyncio.to_thread(server.stop)
