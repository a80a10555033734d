"""What customers read: every fact is only ever data, both parts say the same, times and numbers are said rightly."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.notifications import Occasion
from services.notifier.core.blocks import blocks_of, button, clean_link, preheader_of, quote
from services.notifier.core.delivery import automatic_headers
from services.notifier.core.facts import (
    PUBLIC_VARIABLES,
    SAMPLES,
    TOPICS,
    ArticleFacts,
    ChoiceFacts,
    DigestItem,
    Facts,
    Moment,
    OutageFacts,
    SlotFacts,
    SurveyFacts,
)
from services.notifier.core.render import (
    OCCASIONS,
    SAMPLE,
    Templates,
    compile_templates,
)
from services.notifier.core.text import clean_line
from services.notifier.core.tone import seen

FOLDER = Path(__file__).parents[3] / "policy" / "templates"
LANGUAGES = ("en", "tr", "ru")


def sources() -> dict[str, str]:
    return {
        path.relative_to(FOLDER).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(FOLDER.glob("**/*.j2"))
    }


@pytest.fixture(scope="module")
def templates() -> Templates:
    return compile_templates(sources(), LANGUAGES)


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</title><b>bold</b>",
    "{{ 7*7 }}",
    "{% for x in range(10**9) %}x{% endfor %}",
    "{{ self._TemplateReference__context }}",
    "{# comment #}",
    "Ada\r\nBcc: eve@example.com\r\n\r\nbody",
    "a\x02B\x1fPay here\x1fhttps://evil.example\x03b",
    "\x02Q\x1fquoted\x03",
    "\u202egnp.exe\u2066x\u2069",
    "a\x00b\x1b[31mred\x7f",
    '\'" onmouseover="alert(1)',
    "javascript:alert(1)",
]


def hostile(text: str, language: str) -> Facts:
    """Facts that say the same hostile thing everywhere."""
    moment = Moment("date", 4, text, text, "09", "30")
    return Facts(
        language=language,
        name=text,
        brand=text,
        signature=text,
        reference=text,
        subject=text,
        received_at=text,
        agent_name=text,
        answer=text,
        opens=moment,
        slots=(SlotFacts(moment, moment),),
        zone=text,
        salutation=text,
        topic=text,
        question=text,
        reason=text,
        promised=moment,
        callback=SlotFacts(moment, moment),
        articles=(ArticleFacts(text, text, text), ArticleFacts(text, f"https://x.example/{text}")),
        outage=OutageFacts(text, text, moment, moment),
        survey=SurveyFacts(text, text, (ChoiceFacts(text, text),), text),
        note=text,
        unsubscribe_url=text,
        digest=(DigestItem(text, text),),
    )


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("occasion", OCCASIONS)
def test_no_fact_is_ever_more_than_text(templates: Templates, occasion: str, text: str) -> None:
    words = templates.render(occasion, hostile(text, "en"))
    everything = "\n".join((words.subject, words.text, words.html, words.short, words.public))
    assert "\n" not in words.subject
    assert "49" not in everything
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", everything)
    plain = templates.render(occasion, hostile("x", "en"))
    assert tags(words.html) <= tags(plain.html) | {"br "}
    assert "evil.example" not in " ".join(links(words.html))
    assert all(link.startswith("https://") for link in links(words.html))


def tags(html: str) -> set[str]:
    """Every tag of a document with the names of its attributes: what a browser would take for markup."""
    from html.parser import HTMLParser

    found: set[str] = set()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.add(f"{tag} {' '.join(sorted(name for name, _ in attrs))}")

    Reader().feed(html)
    return found


def links(html: str) -> list[str]:
    return re.findall(r'href="([^"]*)"', html)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("occasion", OCCASIONS)
def test_text_and_html_say_the_same(templates: Templates, occasion: str, language: str) -> None:
    for facts in SAMPLES:
        words = templates.render(occasion, replace(facts, language=language))
        html = letters(seen(words.html))
        for line in words.text.split("\n"):
            for piece in re.split(r"https?://\S+", line):
                assert letters(piece) in html


def letters(text: str) -> str:
    return "".join(char for char in text if char.isalnum())


@pytest.mark.parametrize("language", LANGUAGES)
def test_in_public_nothing_private_is_said(templates: Templates, language: str) -> None:
    secret = hostile("secret", language)
    facts = replace(
        secret,
        **{name: getattr(SAMPLE, name) for name in PUBLIC_VARIABLES if hasattr(SAMPLE, name)},
    )
    facts = replace(facts, language=language, answer="We are sorry. Please write to us.")
    told = [one for one in OCCASIONS if templates.has(one, "public.txt")]
    assert told == ["received", "answered", "solved"]
    for occasion in told:
        public = templates.render(occasion, facts).public
        assert public
        assert "secret" not in public


@pytest.mark.parametrize(
    ("language", "offer"),
    [
        ("en", "Would you rather talk? Reply with your number and a time."),
        ("tr", "Aranmak isterseniz numaranızı ve uygun bir saati yazın."),
        ("ru", "Удобнее по телефону? Напишите номер и время."),
    ],
)
@pytest.mark.parametrize("occasion", ["after_hours", "voicemail"])
def test_a_call_is_offered_in_a_chat_too_where_there_are_times_for_it(
    templates: Templates, occasion: str, language: str, offer: str
) -> None:
    monday = moment("weekday", 10)
    facts = replace(SAMPLE, language=language)
    assert offer not in templates.render(occasion, facts).short
    facts = replace(facts, slots=(SlotFacts(monday, monday),))
    assert offer in templates.render(occasion, facts).short


@pytest.mark.parametrize("occasion", OCCASIONS)
def test_what_answers_a_message_says_so_to_machines(occasion: Occasion) -> None:
    """RFC 3834 section 5: `auto-replied` answers a message, `auto-generated` comes by itself; a person's words are neither."""
    replies = {"received", "after_hours", "voicemail", "help"}
    kind = "auto-replied" if occasion in replies else "auto-generated"
    said = dict(automatic_headers(occasion)).get("Auto-Submitted")
    assert said == (None if occasion == "answered" else kind)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("topic", [*TOPICS, "closing"])
def test_an_agent_is_offered_a_beginning_for_every_topic(
    templates: Templates, topic: str, language: str
) -> None:
    facts = replace(SAMPLE, language=language)
    text = templates.starter(topic, facts)
    assert text.count("\n\n") >= 3
    assert "Ada" in text.split("\n")[0]
    assert text.split("\n")[-1] == "Deniz"


def test_each_topic_is_acknowledged_in_its_own_words(templates: Templates) -> None:
    for language in LANGUAGES:
        for occasion in ("received", "escalated", "still_on_it", "delayed", "solved"):
            said = {
                templates.render(occasion, replace(SAMPLE, language=language, topic=topic)).text
                for topic in (*TOPICS, "", "never heard of")
            }
            assert len(said) == len(TOPICS) + 1


@pytest.mark.parametrize(
    ("language", "count", "expected"),
    [
        ("en", 1, "There is one update:"),
        ("en", 2, "There are 2 updates:"),
        ("tr", 1, "1 yeni haber var:"),
        ("tr", 5, "5 yeni haber var:"),
        ("ru", 1, "Для вас 1 новость:"),
        ("ru", 2, "Для вас 2 новости:"),
        ("ru", 5, "Для вас 5 новостей:"),
        ("ru", 11, "Для вас 11 новостей:"),
        ("ru", 21, "Для вас 21 новость:"),
        ("ru", 22, "Для вас 22 новости:"),
    ],
)
def test_numbers_take_the_form_that_the_language_asks_for(
    templates: Templates, language: str, count: int, expected: str
) -> None:
    digest = tuple(DigestItem(f"SB-{n}", "x") for n in range(count))
    text = templates.render("digest", replace(SAMPLE, language=language, digest=digest)).text
    assert expected in text.split("\n")


def test_a_piece_of_news_stays_one_item_of_its_list(templates: Templates) -> None:
    digest = (DigestItem("SB-1", "Solved.\n\n- not a second item"), DigestItem("SB-2", "Received."))
    words = templates.render("digest", replace(SAMPLE, digest=digest))
    assert words.html.count("<li>") == 2
    assert "- SB-1: Solved. - not a second item" in words.text.split("\n")


def moment(day: str, hour: int, minute: int = 0) -> Moment:
    return Moment(
        day, 1, "1 декабря 2026 г.", f"{hour:02}:{minute:02}", f"{hour:02}", f"{minute:02}"
    )


@pytest.mark.parametrize(
    ("language", "since", "expected"),
    [
        ("en", moment("today", 9, 30), "has not worked as it should since 09:30 today."),
        ("en", moment("weekday", 9), "has not worked as it should since 09:00 on Tuesday."),
        ("tr", moment("today", 9), "bugün saat 09:00’dan beri sürüyor"),
        ("tr", moment("today", 13), "bugün saat 13:00’ten beri sürüyor"),
        ("tr", moment("weekday", 16), "salı günü saat 16:00’dan beri sürüyor"),
        ("tr", moment("today", 15, 40), "bugün saat 15:40’tan beri sürüyor"),
        ("ru", moment("today", 9, 30), "он длится с 09:30."),
        ("ru", moment("weekday", 9), "он длится со вторника, 09:00."),
        ("ru", moment("date", 9), "он длится с 1 декабря 2026 г., 09:00."),
    ],
)
def test_cases_and_endings_follow_what_is_said(
    templates: Templates, language: str, since: Moment, expected: str
) -> None:
    facts = replace(SAMPLE, language=language, outage=OutageFacts("x", "", since, None))
    assert expected in templates.render("outage_known", facts).text


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://help.example/a?b=c&d=é", ""),
        ("https://help.example/a?b=c&d=1#e", "https://help.example/a?b=c&d=1#e"),
        (" http://help.example ", "http://help.example"),
        ("javascript:alert(1)", ""),
        ("data:text/html,x", ""),
        ("//help.example", ""),
        ("https://", ""),
        ("https://a b", ""),
        ('https://a"onclick=', ""),
        ("https://a<b>", ""),
        ("https://a\nb", ""),
        ("https://" + "a" * 3000, ""),
    ],
)
def test_only_what_is_surely_a_link_is_one(url: str, kept: str) -> None:
    assert clean_link(url) == kept


def test_a_button_without_an_address_is_its_label() -> None:
    assert button("Read", "javascript:alert(1)") == "Read"
    (block,) = blocks_of(button("Read", "https://help.example"))
    assert (block.kind, block.links[0].label) == ("buttons", "Read")


def test_text_is_taken_apart_into_paragraphs_lists_buttons_and_quotations() -> None:
    raw = "\n".join(
        (
            "One,", "two.", "", "", "- a", "- b", "", quote("They said:\n\n- no list"), "",
            button("A", "https://a.example"), button("B", "https://b.example"), "", "- a", "no list",
        )
    )  # fmt: skip
    assert [block.kind for block in blocks_of(raw)] == [
        "text",
        "list",
        "quote",
        "quote",
        "buttons",
        "text",
    ]


def test_the_line_before_a_mail_ends_between_two_words() -> None:
    line = preheader_of(blocks_of("word " * 60))
    assert line == "word " * 22 + "…"


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_whatever_people_write_makes_no_block_but_text_or_list(value: str) -> None:
    clean = clean_line(value)
    assert {block.kind for block in blocks_of(clean)} <= {"text", "list"}


def test_layout_needs_no_image_no_script_and_nothing_from_elsewhere(templates: Templates) -> None:
    html: Any = templates.render("survey", replace(SAMPLES[4], language="en")).html
    for word in ("<img", "<script", "<link", "@import", "url(", "<iframe", "<form"):
        assert word not in html
    assert 'name="color-scheme" content="light dark"' in html
    assert "prefers-color-scheme: dark" in html
    assert 'width="600"' in html
    assert (
        len(html.encode()) < 20_000
    )  # Gmail cuts a mail at 102 kB; what people write comes on top.
