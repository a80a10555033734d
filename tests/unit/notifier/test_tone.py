"""`signalbox templates lint`: what is found, where, and that the example's templates are in order."""

from collections.abc import Callable

import pytest

from services.notifier.core.tone import Finding, lint, reading_ease, seen, sentences
from tests.unit.notifier.test_templates import LANGUAGES, sources


def found(
    path: str, change: Callable[[str], str], languages: tuple[str, ...] = ()
) -> list[Finding]:
    """What is found in the example once one of its templates is changed; in its own language, if no others are named."""
    files = sources()
    files[path] = change(files[path])
    own = path.partition("/")[0]
    asked = languages or (own if own in LANGUAGES else "en",)
    # Templates of languages that nobody asks about take their time and say nothing.
    others = {name for name in LANGUAGES if name not in asked}
    return list(
        lint({p: text for p, text in files.items() if p.partition("/")[0] not in others}, asked)
    )


def test_the_examples_templates_are_in_order() -> None:
    assert lint(sources(), LANGUAGES) == ()


@pytest.mark.parametrize(
    ("path", "old", "new", "rule", "line"),
    [
        (
            "en/solved.j2",
            "Thank you for giving",
            "We will answer instantly. Thank you for giving",
            "hasty",
            13,
        ),
        (
            "en/solved.j2",
            "Thank you for giving",
            "You failed to write. Thank you for giving",
            "blame",
            13,
        ),
        (
            "en/solved.j2",
            "Thank you for giving",
            "Your ticket is closed. Thank you for giving",
            "jargon",
            13,
        ),
        ("en/solved.j2", "We believe that", "Unfortunately, we believe that", "gloom", 4),
        ("en/solved.j2", "We believe that", "IMPORTANT: we believe that", "shouting", 4),
        (
            "en/topics.j2",
            "What you told us about the damage",
            "What you told us right away",
            "hasty",
            20,
        ),
        ("tr/solved.j2", "Konunuzun çözüme", "Maalesef konunuzun çözüme", "gloom", 4),
        ("tr/solved.j2", "Talebinizi çözüldü", "Ticketınızı anında çözüldü", "hasty", 7),
        ("ru/solved.j2", "Мы отметили", "К сожалению, мы отметили", "gloom", 7),
        ("ru/solved.j2", "Мы отметили", "Вы недавно написала, мы отметили", "gender", 7),
        ("ru/solved.j2", "Мы отметили", "Вы обратился(ась), мы отметили", "gender", 7),
        ("ru/solved.j2", "Мы отметили", "В рамках тикета мы отметили", "jargon", 7),
    ],
)
def test_words_that_have_no_place_are_found_with_their_line(
    path: str, old: str, new: str, rule: str, line: int
) -> None:
    findings = found(path, lambda source: source.replace(old, new))
    assert (f"templates/{path}", line, rule) in {(one.file, one.line, one.rule) for one in findings}
    assert {one.level for one in findings} == {"error"}


def swapped(source: str) -> str:
    return source.replace("block thanks", "block later").replace("block human", "block thanks").replace(
        "block later", "block human"
    )  # fmt: skip


def test_a_notice_that_thanks_before_it_offers_a_person_is_out_of_order() -> None:
    rules = {(one.rule, one.file) for one in found("en/solved.j2", swapped)}
    assert ("order", "templates/en/solved.j2") in rules


@pytest.mark.parametrize(
    ("path", "old", "new", "rule"),
    [
        ("en/check_in.j2", "reply to this mail. A person from our team reads your reply and takes it up.", "look at our site.", "person"),
        ("en/check_in.j2", "Thank you for being our customer.", "Goodbye.", "thanks"),
        ("en/check_in.j2", "Not long ago you wrote", "Hello! Not long ago you wrote", "greeting"),
        ("en/check_in.j2", "there is nothing you need to do.", "there is nothing you need to do! Ever! Never!", "exclamations"),
        ("en/check_in.j2", "Is everything well?{%", "Is everything really, truly and in every single respect well?{%", "subject"),
        ("en/check_in.j2", "{% block short %}", "{% block short %}" + "Please read on, it is worth it. " * 8, "short"),
    ],
)  # fmt: skip
def test_what_a_notice_lacks_or_has_too_much_of_is_an_error(
    path: str, old: str, new: str, rule: str
) -> None:
    files = sources()
    assert old in files[path]
    findings = found(path, lambda source: source.replace(old, new))
    assert rule in {one.rule for one in findings if one.level == "error"}


CALM = "If everything is fine, there is nothing you need to do."


def test_a_long_sentence_and_hard_words_are_warnings() -> None:
    long = "We continue " + "and continue " * 30 + "until everything is settled."
    hard = (
        "Notwithstanding considerable organisational interdependencies, rectification necessitates collaboration. "
        * 6
    )
    assert {one.rule for one in found("en/check_in.j2", lambda s: s.replace(CALM, long))} == {
        "sentence"
    }
    rules = {one.rule for one in found("en/check_in.j2", lambda s: s.replace(CALM, hard))}
    assert rules == {"reading"}


def test_a_fact_that_only_some_customers_are_told_is_a_warning() -> None:
    findings = found(
        "tr/received.j2", lambda s: s.replace("Alındığı zaman: {{ received_at }}", ""), LANGUAGES
    )
    assert [(one.rule, one.message) for one in findings] == [
        ("facts", "does not say received_at, which en, ru does")
    ]


def test_a_topic_without_words_of_its_own_is_an_error() -> None:
    findings = found(
        "ru/topics.j2", lambda s: s.replace('"refund": "Вы хотите', '"refunds": "Вы хотите')
    )
    assert ("topics", 2, "HEARD has no words for refund") in {
        (one.rule, one.line, one.message) for one in findings
    }


def test_a_missing_file_is_found_for_every_language_at_once_and_nothing_else_is_said_of_it() -> (
    None
):
    files = sources()
    del files["tr/survey.j2"], files["ru/digest.j2"]
    findings = lint(files, LANGUAGES)
    assert [(one.rule, one.file) for one in findings] == [
        ("missing", "templates/ru/digest.j2"),
        ("missing", "templates/tr/survey.j2"),
    ]
    findings = lint(sources(), (*LANGUAGES, "de"))
    assert {one.rule for one in findings} == {"missing"}


def test_an_unknown_variable_is_found_with_its_line() -> None:
    (finding,) = [
        one
        for one in found("en/solved.j2", lambda s: s.replace("We believe", "{{ nmae }} We believe"))
        if one.rule == "template"
    ]
    assert str(finding).startswith(
        "error: templates/en/solved.j2:4: template: 'nmae': unknown variable; known: agent_name"
    )


def test_a_layout_that_swallows_words_is_found() -> None:
    findings = found("layout.html.j2", lambda s: s.replace("<li>{{ line }}</li>", "<li></li>"))
    assert "parts" in {one.rule for one in findings}


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        # Six words, one sentence, six syllables.
        ("en", "The cat sat on the mat.", 206.835 - 84.6 * 1 - 1.015 * 6),
        # Three words, one sentence, 2 + 2 + 3 syllables.
        ("tr", "Sizi yarın ararız.", 198.825 - 40.175 * 7 / 3 - 2.610 * 3),
        # Three words, one sentence, 1 + 2 + 1 syllables.
        ("ru", "Мы скоро здесь.", 206.835 - 60.1 * 4 / 3 - 1.3 * 3),
    ],
)
def test_reading_ease_is_what_the_formulas_say(language: str, text: str, expected: float) -> None:
    assert reading_ease(text, language) == pytest.approx(expected)


def test_sentences_are_counted_without_links_references_and_zones() -> None:
    text = "Your case SB-4K7TQ2M is here. Read on: https://help.example/a.b.c\n\nThank you!"
    assert sentences(text) == ["Your case  is here.", "Thank you!"]


def test_what_a_person_sees_of_a_mail_is_neither_its_style_nor_its_hidden_line() -> None:
    html = '<style>p{}</style><title>t</title><div class="preheader">h</div><p>One&amp;<a href="u">two</a></p>'
    assert seen(html) == "One& u two"
