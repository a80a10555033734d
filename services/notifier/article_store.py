"""Articles in PostgreSQL: the folder's, found by the words that its dictionaries make of a question.

English, Turkish and Russian have dictionaries in every PostgreSQL (Snowball); any other language is taken word by word.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from chassis.stage import Connection
from services.notifier.core.articles import Article, Candidate, folded, weight

DICTIONARIES: Final[Mapping[str, str]] = MappingProxyType(
    {"en": "english", "tr": "turkish", "ru": "russian"}
)
"""PostgreSQL's text search configuration by language."""

CANDIDATES_MAX: Final = 50
"""Articles that are scored for a question: those that share most words with it."""

_IS_SHOWN: Final = "SELECT 1 FROM article_shelf WHERE version = $1"
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtext('signalbox article shelf'))"
_CLEAR: Final = "DELETE FROM article"
_SHOW: Final = """
INSERT INTO article_shelf (version) VALUES ($1) ON CONFLICT (only_one) DO UPDATE SET version = excluded.version
"""
_WRITE: Final = """
INSERT INTO article (language, article_id, title, url, summary, title_words, text_words)
SELECT a.language, a.id, a.title, a.url, a.summary,
       tsvector_to_array(to_tsvector(a.dictionary::regconfig, a.title_text)),
       tsvector_to_array(to_tsvector(a.dictionary::regconfig, a.text))
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
       AS a(language, dictionary, id, title, url, summary, title_text, text)
"""
_WORDS: Final = """
SELECT tsvector_to_array(to_tsvector($1::regconfig, one.text)) AS words
  FROM unnest($2::text[]) WITH ORDINALITY AS one(text, n) ORDER BY one.n
"""
_COUNTS: Final = """
SELECT word, (SELECT count(*) FROM article
               WHERE language = $1 AND (title_words || text_words) @> ARRAY[word]) AS articles
  FROM unnest($2::text[]) AS word
"""
_SIZE: Final = "SELECT count(*) FROM article WHERE language = $1"
_FIND: Final = """
SELECT article_id, title, url, summary, title_words, text_words
  FROM article
 WHERE language = $1 AND (title_words || text_words) && $2::text[]
 ORDER BY cardinality(ARRAY(SELECT unnest(title_words || text_words) INTERSECT SELECT unnest($2::text[]))) DESC, article_id
 LIMIT $3
"""


def dictionary_of(language: str) -> str:
    """Return PostgreSQL's configuration for a language."""
    return DICTIONARIES.get(language, "simple")


async def show(connection: Connection, articles: Sequence[Article], version: str) -> bool:
    """Have the table show the folder's articles; return whether it had shown another state. Processes take turns."""
    async with connection.transaction():
        await connection.execute(_LOCK)
        if await connection.fetchval(_IS_SHOWN, version):
            return False
        await connection.execute(_CLEAR)
        if articles:
            await connection.execute(
                _WRITE,
                [one.language for one in articles],
                [dictionary_of(one.language) for one in articles],
                [one.article_id for one in articles],
                [one.title for one in articles],
                [one.url for one in articles],
                [one.summary for one in articles],
                [folded(f"{one.title} {one.keywords}", one.language) for one in articles],
                [folded(one.text, one.language) for one in articles],
            )
        await connection.execute(_SHOW, version)
        return True


async def words(
    connection: Connection, language: str, texts: Sequence[str]
) -> list[frozenset[str]]:
    """Return the words of each text as the language's dictionary has them."""
    rows = await connection.fetch(
        _WORDS, dictionary_of(language), [folded(one, language) for one in texts]
    )
    return [frozenset(row["words"]) for row in rows]


async def search(
    connection: Connection, language: str, question: str
) -> tuple[dict[str, float], list[Candidate]]:
    """Return the question's words with their weights, and the articles that share any of them."""
    asked = (await words(connection, language, [question]))[0]
    if not asked:
        return {}, []
    size = int(await connection.fetchval(_SIZE, language))
    counts = await connection.fetch(_COUNTS, language, sorted(asked))
    weights = {row["word"]: weight(row["articles"], size) for row in counts}
    rows = await connection.fetch(_FIND, language, sorted(asked), CANDIDATES_MAX)
    return weights, [
        Candidate(
            row["article_id"],
            row["title"],
            row["url"],
            row["summary"],
            frozenset(row["title_words"]),
            frozenset(row["text_words"]),
        )
        for row in rows
    ]
