"""The pages behind the links of notices: the same in every language, safe whatever stands in them, and without scripts."""

import base64
import hashlib
import re
from typing import get_args

import pytest

from schemas.feedback import SCALES, SurveyKind
from schemas.notifications import Category
from services.ingest.core import feedback_page as pages
from services.ingest.core.feedback_page import Frame

LANGUAGES = ("en", "tr", "ru")


def every_page(frame: Frame) -> list[str]:
    made = [pages.plain(frame, what) for what in ("ended", "broken", "later", "wrong")]
    for kind in get_args(SurveyKind):
        most = SCALES[kind].most
        made += [
            pages.question(frame, kind, most),
            pages.choose_first(frame, kind, "words"),
            pages.thanks(frame, kind, 1, "2026-11-26 08:00"),
            pages.thanks(frame, kind, most, ""),
            pages.answered(frame, kind, 1, most, "2026-11-26 08:00"),
            pages.answered(frame, kind, 1, None, ""),
        ]
    for category in get_args(Category):
        made += [
            pages.stop(frame, category),
            pages.stopped(frame, category),
            pages.wanted(frame, category),
        ]
    return made


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_page_has_a_script_or_fetches_anything(language: str) -> None:
    for page in every_page(Frame(language, "Lantern & Oak")):
        assert "<script" not in page
        assert not re.search(r"\b(src|href|action|onclick)=", page)
        assert not re.search(r"https?://", page)
        assert f'<html lang="{language}">' in page
        assert page.count("<h1>") + page.count("<legend>") >= 1


def test_each_language_says_everything_and_in_its_own_words() -> None:
    words = {language: pages._words(language) for language in LANGUAGES}
    assert len({frozenset(said) for said in words.values()}) == 1
    for name in words["en"]:
        assert len({words[language][name] for language in LANGUAGES}) == 3, name
    assert all("{until}" in words[language]["change"] for language in LANGUAGES)


def test_what_others_wrote_stands_there_as_text() -> None:
    frame = Frame("en", '<img src=x onerror="alert(1)">')
    page = pages.choose_first(frame, "csat", "</textarea><script>alert(1)</script>")
    assert "<img" not in page
    assert "<script" not in page
    assert "&lt;/textarea&gt;" in page


def test_the_policy_allows_the_pages_own_style_and_nothing_else() -> None:
    page = pages.plain(Frame("en", ""), "ended")
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert pages.HEADERS["Content-Security-Policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    assert " style=" not in page


def test_the_links_score_is_chosen_and_no_other() -> None:
    page = pages.question(Frame("en", ""), "nps", 0)
    assert re.findall(r"value=(\d+) required [^>]*checked", page) == ["0"]
    assert not re.search("<input[^>]*checked", pages.question(Frame("en", ""), "nps", None))


@pytest.mark.parametrize("language", LANGUAGES)
def test_whoever_changes_only_the_score_sends_their_words_and_consent_again(language: str) -> None:
    frame, until = Frame(language, ""), "2026-11-26 08:00"
    page = pages.thanks(frame, "csat", 2, until, "Three <mails>.", may_share=True)
    assert "Three &lt;mails&gt;.</textarea>" in page
    assert "name=share value=yes checked" in page
    assert "name=share value=yes>" in pages.thanks(frame, "csat", 2, until, "Three mails.")
    answered = pages.answered(frame, "csat", 2, 3, until)
    assert "name=share value=yes>" in answered
    for said in (page, answered):
        assert frame.say("kept") in said
    assert frame.say("say_again") in answered
    assert frame.say("say_again") not in page


@pytest.mark.parametrize(
    ("accepted", "language"),
    [("", "en"), ("tr-TR,tr;q=0.9,en;q=0.8", "tr"), ("de, ru;q=0.5", "ru"), ("*", "en")],
)
def test_a_refusal_is_told_in_the_readers_language(accepted: str, language: str) -> None:
    assert pages.language_of(accepted) == language
