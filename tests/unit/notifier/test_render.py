"""Templates: complete in each language, safe with whatever customers call themselves, refused when they cannot work."""

from dataclasses import replace
from datetime import datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.errors import PolicyError
from chassis.policy import load
from services.notifier.core.facts import SAMPLES, TOPICS, DigestItem
from services.notifier.core.policy import NotifyFile, PolicyMistake, build
from services.notifier.core.render import (
    OCCASIONS,
    OUTPUT_LENGTH_MAX,
    SAMPLE,
    Facts,
    RenderError,
    TemplateMistake,
    compile_templates,
    format_instant,
)
from services.notifier.core.text import clean_line, clean_text, greeting_name, reply_subject
from services.notifier.handlers import POLICY, read_templates

POLICY_FOLDER = Path(__file__).parents[3] / "policy"

HOSTILE = [
    "<script>alert(1)</script>",
    "{{ 7*7 }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{% for x in range(10**9) %}x{% endfor %}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ self._TemplateReference__context }}",
    "${7*7} #{7*7} <%= 7*7 %>",
    "Ada\r\nBcc: eve@example.com",
    "Ada\u2028Subject: x\u202egnp.exe",
    '" onmouseover="x',
    "\ud800 lone",
]


OWN_SUBJECT = {"outage_known", "outage_over", "security", "digest"}
"""Notices that belong to no thread of the customer's."""


def _words(policy: Any, occasion: str, **facts: Any) -> Any:
    return policy.templates.render(occasion, replace(SAMPLE, **facts))


@pytest.mark.parametrize("language", ["en", "tr", "ru"])
@pytest.mark.parametrize("occasion", OCCASIONS)
def test_every_language_has_every_occasion(policy: Any, language: str, occasion: str) -> None:
    words = _words(policy, occasion, language=language)
    assert "SB-4K7TQ2M" in words.text
    assert "SB-4K7TQ2M" in words.html
    assert f'<html lang="{language}"' in words.html
    assert words.short
    assert (words.subject == "Re: My lamp never arrived") == (occasion not in OWN_SUBJECT)
    assert "instant" not in (words.text + words.html).lower()
    assert "\n\n\n" not in words.text
    without = _words(policy, occasion, language=language, subject="", name="")
    assert without.subject
    assert "  " not in without.text
    assert " ," not in without.text


@pytest.mark.parametrize("language", ["en", "tr", "ru"])
@pytest.mark.parametrize("occasion", [one for one in OCCASIONS if one != "answered"])
def test_every_automatic_notice_offers_a_person(policy: Any, language: str, occasion: str) -> None:
    text = _words(policy, occasion, language=language).text.lower()
    assert any(
        word in text
        for word in ("reply to this mail", "e-postayı", "просто ответьте на это письмо")
    )
    assert any(
        word in text for word in ("person", "people", "kişi", "человек", "сотрудник", "прочита")
    )


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("occasion", OCCASIONS)
def test_what_people_write_is_data(policy: Any, text: str, occasion: str) -> None:
    clean = clean_text(text)
    line = clean_line(text)
    words = _words(policy, occasion, name=line, subject=line, answer=clean, agent_name=line)
    assert "\n" not in words.subject
    assert "<script" not in words.html
    assert '" onmouseover' not in words.html
    assert "49" not in words.subject + words.text + words.html
    assert "\u202e" not in words.subject + words.text + words.html
    if occasion == "answered":
        assert clean.strip() in words.text
    (words.subject + words.text + words.html).encode()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_is_not_greeted(text: str) -> None:
    name = greeting_name(text)
    assert not set(name) & set("<>{}@/:\n\r")


@pytest.mark.parametrize(
    ("given_name", "greeted"),
    [
        ("Ada Lovelace", "Ada Lovelace"),
        ("  Ada\tLovelace ", "Ada Lovelace"),
        ("Lovelace, Ada", "Ada Lovelace"),
        ("O'Brien", "O'Brien"),
        ("Зоя Михайловна", "Зоя Михайловна"),
        ("Şule Yılmaz", "Şule Yılmaz"),
        ("Jean-Luc", "Jean-Luc"),
        ("Martin L. King", "Martin L. King"),
        ("ada@example.com", ""),
        ("www.spam.example", ""),
        ("spam.example now", ""),
        ("Ada 2", ""),
        ("Buy now! Cheap", ""),
        ("one two three four five", ""),
        ("A" * 41, ""),
        ("", ""),
        ("...", ""),
    ],
)
def test_a_name_is_greeted_if_it_is_one(given_name: str, greeted: str) -> None:
    assert greeting_name(given_name) == greeted


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("My lamp", "Re: My lamp"),
        ("RE: re[2]: Ynt: Отв: My lamp", "Re: My lamp"),
        ("Reply cards", "Re: Reply cards"),
        ("", ""),
        ("Re:", ""),
        ("a\r\nBcc: b", "Re: a Bcc: b"),
    ],
)
def test_prefixes_do_not_pile_up(subject: str, expected: str) -> None:
    assert reply_subject(subject) == expected


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400))
def test_a_clean_line_is_one_printable_line(value: str) -> None:
    line = clean_line(value)
    assert len(line) <= 200
    assert "\n" not in line
    assert "\r" not in line
    assert len(line.splitlines()) <= 1
    line.encode()
    assert clean_line(line) == line


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400))
def test_a_clean_text_has_no_line_end_but_lf(value: str) -> None:
    text = clean_text(value)
    assert text.split("\n") == text.splitlines() or text == ""
    assert "\x00" not in text
    text.encode()


@pytest.mark.parametrize(
    ("locale_of", "expected"),
    [
        ("en", "1 July 2026, 01:30 GMT+03:00"),
        ("tr", "1 Temmuz 2026, 01:30 GMT+03:00"),
        ("ru", "1 июля 2026 г., 01:30 GMT+03:00"),
    ],
)
def test_times_are_written_as_readers_write_them(
    policy: Any, locale_of: str, expected: str
) -> None:
    instant = datetime.fromisoformat("2026-06-30T22:30:00+00:00")
    assert format_instant(instant, policy.languages[locale_of].locale, policy.zone) == expected


def test_output_is_capped(policy: Any) -> None:
    """Ten times an answer of the greatest length, in an operator's own template, is too much for one mail."""
    answer = "{% for _ in answer_paragraphs %}{{ answer }}{% endfor %}"
    greedy = _sources()["en/answered.j2"].replace("{{ answer }}", answer)
    templates = compile_templates(_sources(**{"en__answered.j2": greedy}), ("en",))
    with pytest.raises(RenderError, match="more than 1000000"):
        templates.render("answered", replace(SAMPLE, answer="&&&&&&&\n\n" * 10_000))


def test_the_longest_answer_fits(policy: Any) -> None:
    words = policy.templates.render("answered", replace(SAMPLE, answer="&" * 200_000))
    assert words.text.count("&") == 100_000
    assert len(words.html) < OUTPUT_LENGTH_MAX


def test_an_answer_that_cannot_be_rendered_is_a_failure_and_no_crash(
    story_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = story_with().opened("08:00")

    def refuse(occasion: str, facts: Facts) -> Any:
        raise RenderError("en/answered.txt.j2: too long")

    monkeypatch.setattr(story.policy.templates, "render", refuse)
    story.answered("08:10").then(("answered", "failed"))
    assert story.last.sends == ()
    assert story.last.events[0].reason == "cannot be rendered: en/answered.txt.j2: too long"


# --------------------------------------------------------------------------------- mistakes in policy


def _sources(**changes: str | None) -> dict[str, str]:
    sources: dict[str, str | None] = dict(read_templates(POLICY_FOLDER / "templates"))
    sources.update({path.replace("__", "/"): source for path, source in changes.items()})
    return {path: source for path, source in sources.items() if source is not None}


def _file(**changes: Any) -> NotifyFile:
    content = {
        "senders": {"support": {"from_name": "L", "address": "support@x.example", "message_id_domain": "x.example"}},
        "default_sender": "support",
        "languages": {"en": {"locale": "en_GB", "signature": "L"}},
        **changes,
    }  # fmt: skip
    return NotifyFile.model_validate(content)


def _with(block: str, words: str) -> str:
    """The example's template of `received` with other words in one block."""
    source = _sources()["en/received.j2"]
    start = source.index("{% block " + block + " %}")
    end = source.index("{% endblock %}", start)
    return f"{source[:start]}{{% block {block} %}}{words}{source[end:]}"


@pytest.mark.parametrize(
    ("source", "where", "allowed"),
    [
        (None, "file", "is required"),
        (_with("subject", "Hello\n{{ nmae }}"), "line 4", "unknown variable; known: agent_name"),
        (_with("subject", "{% if name %}"), "line 3", "endblock"),
        (_with("subject", "a\n{{ name|safe }}"), "line 4", "No filter named 'safe'"),
        (_with("short", "{{ range(3) }}"), "line 29", "unknown variable"),
        (_with("thanks", "{{ 'a' * 1000000000 }}"), "line 26", "the operator * has no place"),
        (_with("thanks", "{{ name.__class__ }}"), "line 26", "access to attribute '__class__'"),
        (_with("thanks", "{% include 'solved.j2' %}"), "line 26", "solved.j2"),
        (_with("thanks", "{% if false %}x{% endif %}"), "block thanks", "renders to nothing"),
        (
            _with("public", "{{ reference }}"),
            "line 30",
            "is private; in public may be said: answer",
        ),
        ("stray\n" + _with("thanks", "Thank you."), "line 1", "stands outside every block"),
        (
            _with("thanks", "x").replace("block human", "block humans"),
            "file",
            "lacks the block human",
        ),
    ],
)
def test_a_template_that_cannot_work_is_refused_with_file_and_line(
    source: str | None, where: str, allowed: str
) -> None:
    with pytest.raises(TemplateMistake) as raised:
        compile_templates(_sources(**{"en__received.j2": source}), ("en",))
    assert raised.value.file == "templates/en/received.j2"
    assert raised.value.where == where
    assert allowed in raised.value.allowed


_FROM = '{% from "en/extra.j2" import who with context %}'


@pytest.mark.parametrize(
    ("top", "words", "allowed"),
    [
        ("", "{{ self.subject() }}", "says another block"),
        ("", "{{ self.acknowledge() }}", "says another block"),
        ("", '{% include "en/frame.j2" %}', "says another file"),
        (_FROM, "{{ who() }}", "'name' is undefined"),
        ("{% set called = name %}", "{{ called }}", "'name' is undefined"),
        ("{% macro called() %}{{ name }}{% endmacro %}", "{{ called() }}", "'name' is undefined"),
    ],
)
def test_no_way_round_brings_a_private_fact_into_public(top: str, words: str, allowed: str) -> None:
    changes: dict[str, str | None] = {
        "en__received.j2": top + _with("public", words),
        "en__extra.j2": "{% macro who() %}{{ name }}{{ note }}{% endmacro %}",
    }
    with pytest.raises(TemplateMistake) as raised:
        compile_templates(_sources(**changes), ("en",))
    assert raised.value.file == "templates/en/received.j2"
    assert allowed in raised.value.allowed


UNTRUE = {
    "en": ("one click is enough", "is reading this", "still tracing", "still checking",
           "more than one case", "opens again", "reopens the case", "will not ask again"),
    "tr": ("tek tık yeterli", "bunu okuyor", "izini sürmeyi sürdürüyoruz",
           "birden çok talebiniz", "yeniden açılır", "talebi yeniden açar", "yanıtınız: "),
    "ru": ("достаточно одного нажатия", "уже читает", "мы продолжаем", "не одно ваше обращение",
           "откроется снова", "больше мы спрашивать"),
}  # fmt: skip
"""What cannot be known to be so when it is said, or is not: nobody reads yet, a case may open as another one."""


@pytest.mark.parametrize("language", ["en", "tr", "ru"])
@pytest.mark.parametrize(
    "occasion",
    ["received", "still_on_it", "delayed", "survey", "digest", "check_in", "solved", "answered"],
)
def test_nothing_is_said_that_may_not_be_so(policy: Any, language: str, occasion: str) -> None:
    for sample, topic in zip(cycle(SAMPLES), ("", *TOPICS), strict=False):
        facts = replace(sample, language=language, topic=topic, subject="")
        words = policy.templates.render(occasion, facts)
        said = "\n".join((words.subject, words.text, words.short, words.public)).lower()
        assert not [one for one in UNTRUE[language] if one in said]


@pytest.mark.parametrize(
    ("language", "more"), [("en", "and 2 more"), ("tr", "2 haber daha"), ("ru", "и ещё 2")]
)
def test_a_short_digest_says_how_much_it_leaves_out(policy: Any, language: str, more: str) -> None:
    for number in (3, 5):
        news = tuple(DigestItem(f"SB-{n}", "Your lamp is on its way.") for n in range(number))
        words = _words(policy, "digest", language=language, digest=news)
        assert (more in words.short.lower()) == (number == 5)


def test_a_missing_language_is_refused() -> None:
    with pytest.raises(
        TemplateMistake, match=r"templates/de/received\.j2.*every language has every"
    ):
        compile_templates(_sources(), ("en", "de"))


def test_a_template_of_the_old_form_is_refused_with_its_cure() -> None:
    with pytest.raises(
        TemplateMistake, match=r"en/received\.html\.j2.*is no longer read.*acknowledge"
    ):
        compile_templates(_sources(**{"en__received.html.j2": "<p>x</p>"}), ("en",))


def test_a_mistake_in_a_template_is_a_mistake_of_the_policy() -> None:
    with pytest.raises(PolicyMistake) as raised:
        build(_file(), _sources(**{"en/solved.j2": "{{ nmae }}"}), "v")
    assert (raised.value.file, raised.value.path) == ("templates/en/solved.j2", "line 1")


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"default_sender": "other"}, "default_sender"),
        ({"default_language": "tr"}, "default_language"),
        ({"timezone": "Mars/Base"}, "timezone"),
        ({"timezone": "../../etc/passwd"}, "timezone"),
        ({"languages": {"en": {"locale": "xx_YY", "signature": "L"}}}, "languages.en.locale"),
        ({"languages": {"en": {"locale": "tr_TR", "signature": "L"}}}, "languages.en.locale"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(PolicyMistake) as raised:
        build(_file(**changes), _sources(), "v")
    assert raised.value.file == "notify.yaml"
    assert raised.value.path == path


def test_an_account_has_one_sender() -> None:
    one = {
        "from_name": "L",
        "address": "a@x.example",
        "message_id_domain": "x.example",
        "accounts": ["m"],
    }
    two = {**one, "address": "b@x.example"}
    with pytest.raises(PolicyMistake, match=r"senders\.two\.accounts\.0"):
        build(_file(senders={"one": one, "two": two}, default_sender="one"), _sources(), "v")


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("sender: {}\n", "sender"),
        ("default_language: english\n", "default_language"),
        ("caps: {unverified_recipient_per_hour: -1}\n", "caps.unverified_recipient_per_hour"),
        ("retry: {delays_seconds: [0]}\n", "retry.delays_seconds.0"),
    ],
)
def test_a_file_with_a_mistake_is_refused_by_path(tmp_path: Path, line: str, path: str) -> None:
    (tmp_path / "notify.yaml").write_text(
        "senders: {s: {from_name: L, address: s@x.example, message_id_domain: x.example}}\n"
        "default_sender: s\nlanguages: {en: {locale: en, signature: L}}\n" + line
    )
    with pytest.raises(PolicyError) as raised:
        load(tmp_path, POLICY)
    assert raised.value.file == "notify.yaml"
    assert raised.value.path == path


def test_a_missing_templates_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="does not exist"):
        read_templates(tmp_path / "templates")


def test_a_template_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "received.j2").write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match="must be UTF-8"):
        read_templates(tmp_path)
