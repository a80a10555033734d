"""Templates: complete in each language, safe with whatever customers call themselves, refused when they cannot work."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.errors import PolicyError
from chassis.policy import load
from services.notifier.core.policy import NotifyFile, PolicyMistake, build
from services.notifier.core.render import (
    OCCASIONS,
    OUTPUT_LENGTH_MAX,
    SAMPLE,
    Facts,
    RenderError,
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


def _words(policy: Any, occasion: str, **facts: Any) -> Any:
    return policy.templates.render(occasion, replace(SAMPLE, **facts))


@pytest.mark.parametrize("language", ["en", "tr", "ru"])
@pytest.mark.parametrize("occasion", OCCASIONS)
def test_every_language_has_every_occasion(policy: Any, language: str, occasion: str) -> None:
    words = _words(policy, occasion, language=language)
    assert "SB-4K7TQ2M" in words.text
    assert "SB-4K7TQ2M" in words.html
    assert f'<html lang="{language}">' in words.html
    assert words.subject == "Re: My lamp never arrived"
    assert "instant" not in (words.text + words.html).lower()
    assert "\n\n\n" not in words.text
    without = _words(policy, occasion, language=language, subject="", name="")
    assert without.subject
    assert "  " not in without.text
    assert " ," not in without.text


@pytest.mark.parametrize("language", ["en", "tr", "ru"])
@pytest.mark.parametrize("occasion", ["received", "escalated", "solved"])
def test_every_automatic_notice_offers_a_person(policy: Any, language: str, occasion: str) -> None:
    text = _words(policy, occasion, language=language).text
    assert any(
        word in text
        for word in ("reply to this mail", "e-postayı yanıtla", "ответьте на это письмо")
    )
    assert any(word in text for word in ("person", "kişi", "человек", "сотрудник"))


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
        assert clean in words.text
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
    with pytest.raises(RenderError, match="more than 1000000"):
        policy.templates.render("answered", replace(SAMPLE, answer="&" * (OUTPUT_LENGTH_MAX // 4)))


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


@pytest.mark.parametrize(
    ("source", "where", "allowed"),
    [
        (None, "file", "is required"),
        ("Hello\n{{ nmae }}", "line 2", "unknown variable; known: agent_name"),
        ("{% if name %}", "line 1", "Unexpected end of template"),
        ("a\n{{ name|safe }}", "line 2", "No filter named 'safe'"),
        ("{{ range(3) }}", "line 1", "unknown variable"),
        ("{{ 'a' * 1000000000 }}", "line 1", "the operator * has no place in a template"),
        ("{{ name.__class__ }}", "line 1", "access to attribute '__class__'"),
        ("{% include 'received.txt.j2' %}", "line 1", "received.txt.j2"),
        ("{% include 'en/received.txt.j2' %}", "line 1", "recursion"),
        ("{% if false %}x{% endif %}", "file", "renders to nothing"),
    ],
)
def test_a_template_that_cannot_work_is_refused_with_file_and_line(
    source: str | None, where: str, allowed: str
) -> None:
    with pytest.raises(PolicyMistake) as raised:
        build(_file(), _sources(**{"en__received.txt.j2": source}), "v")
    assert raised.value.file == "templates/en/received.txt.j2"
    assert raised.value.path == where
    assert allowed in raised.value.allowed


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
    (tmp_path / "en" / "received.txt.j2").write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match="must be UTF-8"):
        read_templates(tmp_path)
