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


INJECTIONS = [
    "{{ ''.__class__.__base__.__subclasses__() }}",
    "{{ [].__class__.__mro__[1] }}",
    "{{ ''['__class__']['__base__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ ''|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ ''|attr(['__cl', 'ass__']|join) }}",
    "{{ name.__init__.__globals__ }}",
    "{{ button.__globals__['re'] }}",
    "{{ quote.__code__.co_consts }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'] }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ self.__init__.__globals__.__builtins__ }}",
    "{{ self._TemplateReference__context.environment }}",
    "{{ config.items() }}",
    "{{ config.SECRET_KEY }}",
    "{{ request.application.__globals__ }}",
    "{{ request['__class__'] }}",
    "{{ url_for.__globals__.current_app }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ dict(a=1).__class__.mro() }}",
    "{{ ('%s' * 9) % name }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(name) }}",
    "{{ '{0[0].__class__}'.format_map(articles) }}",
    "{% set x = name.__class__ %}{{ x }}",
    "{% for c in [].__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
    "{% for x in range(10**9) %}x{% endfor %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.popen('id') }}",
    "{% from '../../notify.yaml' import senders %}",
    "{{ (articles|first).__reduce__() }}",
    "{{ loop.__init__ }}",
    "{{ caller.__globals__ }}",
    "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}",
    "{% debug %}",
    "{{ name",
]
"""What is tried on templates of Jinja2: by class, by globals, by filters, by formats, by files, and to see whether it fails."""

OF_OTHERS = [
    "${7*7}", "#{7*7}", "*{7*7}", "@(7*7)", "[[${7*7}]]", "<%= 7*7 %>", "<% import os %>", "{7*7}", "~{7*7}",
    "${T(java.lang.Runtime).getRuntime()}", "<#assign x=7*7>${x}", "#set($x=7*7)$x", "{php}phpinfo();{/php}", "$eval('7*7')",
    "{{=7*7}}", "{{constructor.constructor('alert(1)')()}}", "{{#with this}}{{lookup . 'constructor'}}{{/with}}", "{{7*'7'}}",
    "{{_self.env.registerUndefinedFilterCallback('exec')}}", "${{<%[%'\"}}%\\.",
]  # fmt: skip
"""The same for the templates of other languages, and what is typed to find out which of them it is."""


@pytest.mark.parametrize("text", [*INJECTIONS, *OF_OTHERS])
def test_what_is_typed_to_be_run_is_only_read(policy: Any, text: str) -> None:
    facts = {"name": text, "subject": text, "answer": text, "question": text, "note": text}
    for occasion in OCCASIONS:
        words = _words(policy, occasion, topic="", **facts)
        everything = words.subject + words.text + words.html + words.short + words.public
        assert "49" not in everything
        assert "7777777" not in everything
        assert "<class" not in everything
    assert text in _words(policy, "answered", **facts).text


@pytest.mark.parametrize("text", INJECTIONS)
def test_not_even_a_template_of_ours_can_do_it(text: str) -> None:
    """As if somebody had got it into the policy folder: it is refused with the file, before anybody is written to."""
    with pytest.raises(TemplateMistake) as raised:
        compile_templates(_sources(**{"en__received.j2": _with("thanks", text)}), ("en",))
    assert raised.value.file == "templates/en/received.j2"
    assert raised.value.where.startswith("line ")


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


@pytest.mark.parametrize("answer", ["&\n" * 50_000, "a\n\n" * 33_000, "- a\n" * 25_000])
def test_the_longest_answer_fits_of_whatever_lines_it_is(policy: Any, answer: str) -> None:
    words = policy.templates.render("answered", replace(SAMPLE, answer=answer))
    assert clean_text(answer) in words.text


def _answered(words: str) -> Any:
    """The example's templates in English, with other words in the action of `answered`."""
    source = _sources()["en/answered.j2"].replace("{{ answer }}\n", words + "\n", 1)
    changes: dict[str, str | None] = {"en__answered.j2": source, "en__nothing.j2": "{# Nothing. #}"}
    return compile_templates(_sources(**changes), ("en",))


_TWICE = "{% macro twice(said) %}{{ said }}{{ said }}{% endmacro %}"
_TREE = "{% macro a0() %}{% endmacro %}" + "".join(
    f"{{% macro a{n} () %}}{{{{ a{n - 1}() }}}}{{{{ a{n - 1}() }}}}{{% endmacro %}}"
    for n in range(1, 40)
)
_PARAGRAPHS = "{% for a in answer_paragraphs %}"
_EACH = "{% for a in answer_paragraphs if answer|length > 99 %}"


@pytest.mark.parametrize(
    "words",
    [
        f"x{_PARAGRAPHS}{_PARAGRAPHS}{{% endfor %}}{{% endfor %}}",
        f"x{_PARAGRAPHS}{{% for b in answer_paragraphs[1:] %}}{{% for c in b %}}{{% endfor %}}{{% endfor %}}{{% endfor %}}",
        f"x{_PARAGRAPHS}{{% if 'x' in answer %}}{{% endif %}}{{% endfor %}}",
        f"x{_PARAGRAPHS}{{% if answer|lower == 'x' %}}{{% endif %}}{{% endfor %}}",
        f"x{_PARAGRAPHS}{{% if quote(answer) == 'x' %}}{{% endif %}}{{% endfor %}}",
        f"x{_PARAGRAPHS}{{% set both = answer ~ answer %}}{{% endfor %}}",
        f"x{_PARAGRAPHS}{{% set both = answer + answer %}}{{% endfor %}}",
        _TWICE + "{% if answer|length > 99 %}{{ " + "twice(" * 40 + "answer" + ")" * 40 + " }}{% endif %}x",
        "{% set a = answer %}{% if answer|length > 99 %}" + "{% set a = a ~ a %}" * 40 + "{% endif %}x",
        _TREE + "{% if answer|length > 99 %}{{ a39() }}{% endif %}x",
        "{% if answer|length > 99 %}{% for a in answer_paragraphs %}{% include 'en/nothing.j2' %}{% include 'en/nothing.j2' %}{% endfor %}{% endif %}x",
        f"x{_EACH}" + "{% if answer == name %}{% elif name %}{% endif %}" * 30 + "{% endfor %}",
        f"x{_EACH}" + "{{ '' if name else name }}" * 40 + "{% endfor %}",
        "{% macro much() %}" + "{% if name %}{% endif %}" * 99 + f"{{% endmacro %}}x{_EACH}{{{{ much() }}}}{{% endfor %}}",
        f"x{_EACH}{{% set same = '{'long ' * 999}' %}}{{% endfor %}}",
        "x" + f"{{% for a in answer_paragraphs if {'not ' * 99}name %}}{{% endfor %}}" * 2,
        f"{{% set same = answer ~ '' %}}x{_EACH}{{% if same == answer %}}{{% endif %}}{{% endfor %}}",
        f"{{% set same = answer ~ '' %}}x{_EACH}{{% if name in [same, answer] %}}{{% endif %}}{{% endfor %}}",
        f"{{% set same = answer ~ '' %}}x{_EACH}{{% if {{answer: 1}}[same] %}}{{% endif %}}{{% endfor %}}",
        f"x{_EACH}{{% include ['en/no.j2', 'en/none.j2', 'en/not.j2'] ignore missing %}}{{% endfor %}}",
        f"x{_EACH}{{% if answer_paragraphs[1:] %}}{{% endif %}}{{% endfor %}}",
    ],
)  # fmt: skip
def test_a_rendering_ends_however_long_the_answer_is(words: str) -> None:
    """Each passes the check, since samples are short; an answer of 100,000 characters would keep the task for minutes."""
    templates = _answered(words)
    assert templates.render("answered", replace(SAMPLE, answer="a")).text
    with pytest.raises(RenderError, match=r"^en/answered\.j2: EffortError$"):
        templates.render("answered", replace(SAMPLE, answer="a\n\n" * 33_000))


@pytest.mark.parametrize(
    ("compared", "kind"),
    [
        ("answer[1:] == answer[2:]", "SecurityError"),
        ("answer == question", "EffortError"),
        ("answer_paragraphs == [answer]", "SecurityError"),
    ],
)
def test_what_stands_in_loops_is_counted_as_often_as_it_is_run(compared: str, kind: str) -> None:
    """Few turns of loops, each of which has much to do: two loops over 300 paragraphs, and 100 comparisons of a long answer."""
    body = f"{{% if {compared} %}}{{% endif %}}" * 100
    loops = f"{_PARAGRAPHS}{_PARAGRAPHS}{body}{{% endfor %}}{{% endfor %}}"
    templates = _answered(f"{{% if answer|length > 99 %}}{loops}{{% endif %}}x")
    assert templates.render("answered", replace(SAMPLE, answer="a")).text
    with pytest.raises(RenderError, match=rf"^en/answered\.j2: {kind}$"):
        templates.render("answered", replace(SAMPLE, answer=("a" * 330 + "\n\n") * 300))


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("{{ plural('nosuch', 1) }}", "UnknownLocaleError"),
        ("{{ reference - 1 }}", "TypeError"),
        ("{{ answer_paragraphs[9].title }}", "UndefinedError"),
        ("{{ self.action() }}", "RecursionError"),
        ("{{ articles }}", "SecurityError"),
        ("{{ button }}", "SecurityError"),
        ("{{ WHY[name] }}", "UndefinedError"),
        ("{{ name['center'](9) }}", "UndefinedError"),
    ],
)
def test_what_fails_with_one_customer_only_is_a_notice_that_cannot_be_said(
    words: str, kind: str
) -> None:
    """It passes the check, which knows no customer of that name; then it is a failure of this notice, and no crash."""
    top = "{% set WHY = {'demand': 'More people write than usual.'} %}"
    templates = _answered(f"{top}{{% if name == 'Eve' %}}{words}{{% endif %}}x")
    assert templates.render("answered", SAMPLE).text
    with pytest.raises(RenderError, match=rf"^en/answered\.j2: {kind}$"):
        templates.render("answered", replace(SAMPLE, name="Eve"))


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
        (_with("thanks", "{{ name.__class__ }}"), "line 26", "no such attribute; known: choices"),
        (_with("thanks", "{% include 'solved.j2' %}"), "line 26", "solved.j2"),
        (_with("thanks", '{{ "a".center(300000000)[:1] }}'), "line 26", "no such attribute"),
        (_with("thanks", '{{ "{:>300000000}".format(1) }}'), "line 26", "no such attribute"),
        (_with("thanks", '{{ "a".ljust(10000000000) }}'), "line 26", "no such attribute"),
        (_with("thanks", '{{ "a".encode("nosuch") }}'), "line 26", "no such attribute"),
        (_with("thanks", "{{ 1/0 }}"), "line 26", "the operator / has no place"),
        (_with("thanks", "{{ 1//0 }}"), "line 26", "the operator // has no place"),
        (_with("thanks", "{{ '%9999999999d' % 1 }}"), "line 26", "the operator % has no place"),
        (
            _with("thanks", "{% if subject == 'never' %}{{ 1/0 }}{% endif %}Thank you."),
            "line 26",
            "the operator / has no place",
        ),
        (
            _with("thanks", "{% for a in answer %}{% for b in answer %}{% endfor %}{% endfor %}"),
            "line 26",
            "no list to go through; known: answer_paragraphs, articles",
        ),
        (_with("thanks", "{% for a in 'abc' %}a{% endfor %}"), "line 26", "no list to go through"),
        (
            _with("thanks", "{% for a in slots recursive %}{{ loop(name) }}{% endfor %}"),
            "line 26",
            "no list to go through",
        ),
        (_with("thanks", "{{ name|join(name) }}"), "line 26", "No filter named 'join'"),
        (_with("thanks", "{{ name[1:] }}"), "line 26", "str is no list to take a part of"),
        (_with("thanks", "{% if '%999d' is odd %}{% endif %}x"), "line 26", "No test named 'odd'"),
        (_with("thanks", "{{ name|trim('a') }}"), "line 26", "positional argument"),
        (_with("thanks", "{% if [1] == [1] %}{% endif %}x"), "line 26", "neither words nor a"),
        (_with("thanks", "{{ articles }}"), "line 26", "tuple is neither words nor a number"),
        (_with("thanks", "{{ name ~ articles }}"), "line 26", "neither words nor a number"),
        (_with("thanks", "{{ articles + digest }}"), "line 26", "neither words nor a number"),
        (_with("thanks", "{{ articles['count'] }}"), "line 26", "has no attribute 'count'"),
        (_with("thanks", "{{ reference(1) }}"), "line 26", "not safely callable"),
        (_with("thanks", "{{ plural('nosuch', 1) }}"), "line 26", "nosuch"),
        (
            _with(
                "thanks", "{% macro m(x) %}{% for c in x %}{% endfor %}{% endmacro %}{{ m(name) }}"
            ),
            "line 26",
            "no list to go through",
        ),
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
