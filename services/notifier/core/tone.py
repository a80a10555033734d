"""How we sound: rules for templates that a machine can hold, each finding with its file and line.

Owns what makes a notice kind, clear and true: the order in which it speaks, a way to a person in each of them, words that have
no place, lengths, and how easily it reads. Pure: sources in, findings out. `signalbox templates lint` prints them all, and
`signalbox policy check` counts the errors.

Reading ease is measured by the formula of each language, all of which give 0 (hard) to 100 (easy):

- English: R. Flesch, "A new readability yardstick", Journal of Applied Psychology 32 (1948), 221–233.
- Turkish: E. Ateşman, "Türkçede okunabilirliğin ölçülmesi", Dil Dergisi 58 (1997), 71–74.
- Russian: I. V. Oborneva, "Avtomatizirovannaya otsenka slozhnosti uchebnykh tekstov na osnove statisticheskikh parametrov"
  (thesis, Moscow 2006), who fitted Flesch's formula to Russian.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Final, Literal

from jinja2 import Environment, TemplateSyntaxError, nodes

from services.notifier.core.consent import OPTIONAL
from services.notifier.core.facts import (
    BARE,
    SAMPLE,
    SAMPLES,
    TOPICS,
    VARIABLES,
    Facts,
    Moment,
    SlotFacts,
    Wait,
)
from services.notifier.core.reason import category_of
from services.notifier.core.render import (
    FOLDER,
    LAYOUT,
    OCCASIONS,
    PERSONAL,
    RenderError,
    TemplateMistake,
    Templates,
    blocks_wanted,
    compile_templates,
    path_of,
)

SUBJECT_LENGTH_MAX: Final = 60
"""Characters of a subject of ours with a reference in it: what a telephone shows in two lines."""

SHORT_LENGTH_MAX: Final = 300
"""Characters of a short notice without links and without what people wrote: two to five SMS, one look at a chat. A signed link is
about 150 more."""

SENTENCE_WORDS_MAX: Final = {"en": 24, "tr": 20, "ru": 22}
"""Words of one sentence. Turkish says in one word what English says in three."""

READING_EASE_MIN: Final = {"en": 70.0, "tr": 55.0, "ru": 45.0}
"""English: plain (Flesch). Turkish: of middling difficulty (Ateşman). Russian: what adults read with ease (Oborneva)."""

EXCLAMATIONS_MAX: Final = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a template that a customer would stumble over. `rule` is its short name, `line` counts from 1."""

    level: Literal["error", "warning"]
    file: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.level}: {self.file}:{self.line}: {self.rule}: {self.message}"


# ----------------------------------------------------------------------------------------- the words


@dataclass(frozen=True, slots=True)
class Manner:
    """How a language is spoken kindly: expressions that have no place, and those that have to be there."""

    hasty: str
    gloomy: str
    blaming: str
    jargon: str
    person: str
    way: str
    thanks: str
    greeting: str
    vowels: str


_MANNERS: Final[Mapping[str, Manner]] = {
    "en": Manner(
        hasty=r"instant\w*|immediately|right away|asap|in no time|straight ?away|24/7",
        gloomy=r"unfortunately|sadly|regrettably|we regret",
        blaming=r"you (?:failed|forgot|neglected|claim\w*|must|should have|did not|didn['’]t)|your (?:fault|mistake|error)"
        r"|as (?:we|I) (?:already )?(?:said|wrote|told)|calm down|obviously|simply wrong",
        jargon=r"tickets?|queues?|sla|escalat\w+|agents?|backlog|workflow|fyi|eta|tbd|stakeholders?|reach(?:ing)? out to you"
        r"|touch base|leverage|utili[sz]e|facilitate|kindly|as per|herewith|hesitate|valued customer|any inconvenience"
        r"|aforementioned|pursuant|proactive(?:ly)?|synergy|deep dive",
        person=r"person|people|colleague",
        way=r"reply|tell|ask|answer|write|add",
        thanks=r"thank",
        greeting=r"(?:hello|hi|dear)\b",
        vowels="aeiouy",
    ),
    "tr": Manner(
        hasty=r"anında|derhal|hemen|anlık|vakit kaybetmeden|7/24",
        gloomy=r"maalesef|ne yazık ki|üzülerek",
        blaming=r"unuttunuz|yapmadınız|belirtmediniz|yanlış (?:girdiniz|yazdınız|yaptınız)|hatanız\w*|sizin hata\w*"
        r"|iddia\w*|zorundasınız|daha önce de (?:söyle|belirt)\w*",
        jargon=r"ticket\w*|tıkıt\w*|sla|eskal\w+|feedback\w*|tarafınız\w*|tarafımız\w*|işbu|mağduriyet\w*|iletişime geçiniz"
        r"|bilginize|gereğini|müşteri temsilcisi\w*|aksiyon\w*|sayın müşterimiz|çekinmeyin",
        person=r"kişi\w*|insan\w*|uzman\w*|arkadaş\w*",
        way=r"yanıtla\w*|yaz\w*|sor\w*|görüş\w*|ekleme|yanıt\w*",
        thanks=r"teşekkür",
        greeting=r"(?:merhaba|sayın|sevgili)\b",
        vowels="aeıioöuüâîû",
    ),
    "ru": Manner(
        hasty=r"мгновенн\w+|моментальн\w+|немедленн\w+|незамедлительн\w+|сию минуту|сразу же|круглосуточн\w+",
        gloomy=r"к сожалению|увы|сожалеем",
        blaming=r"вы (?:забыли|не указали|не предоставили|не прислали|должны|обязаны|утверждаете)|ваш\w* ошибк\w+"
        r"|по вашей вине|успокойтесь|как мы уже (?:писали|говорили)|очевидно",
        jargon=r"тикет\w*|эскалац\w+|sla|в рамках|осуществл\w+|данн(?:ый|ая|ое|ые|ого|ой|ым)|в кратчайшие сроки"
        r"|уважаем\w+ клиент\w*|регламент\w*|фидбэк\w*|апдейт\w*|не стесняйтесь|надлежащ\w+|вышеуказанн\w+",
        person=r"человек\w*|люди|людьми|сотрудник\w*|специалист\w*|руководител\w*|прочитают",
        way=r"ответ\w*|напи[сш]\w*|спрос\w*|дополнить|сказать",
        thanks=r"спасибо|благодар",
        greeting=r"(?:здравствуйте|добрый день|уважаем\w+)\b",
        vowels="аеёиоуыэюя",
    ),
}

_RUSSIAN_GENDER: Final = re.compile(
    r"\bвы\s+(?:\w+\s+)?\w{2,}(?:л|ла|лся|лась)\b(?!\w)|\w+\((?:а|ла|ась|на)\)", re.IGNORECASE
)
"""The singular past tense has a gender, and we do not know the customer's; with "вы" the plural is right and has none."""

_SHOUTING: Final = re.compile(r"\b(?!UTC\b|GMT\b|SMS\b|HTML\b)[^\W\d_]{4,}\b")
_TAG: Final = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_COMMENT: Final = re.compile(r"\{#.*?#\}", re.DOTALL)
_LITERAL: Final = re.compile(r'"[^"\n]*"|\n')
_SENTENCE: Final = re.compile(r"(?<=[.!?…:;])\s+|\n+")
_WORD: Final = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")
_URL: Final = re.compile(r"(?:[^\s.!?][^\n.!?]*: )?https?://\S+")
_CODE: Final = re.compile(r"\bSB-[0-9A-Z]+\b|\b[A-Z]{3}[+-]\d\d:\d\d")


def lint(sources: Mapping[str, str], languages: tuple[str, ...]) -> tuple[Finding, ...]:
    """Return all that is found in templates, by file and line; nothing, where they are as they should be.

    Where a template cannot be used at all, that is found, with what shows without rendering.
    """
    found = [*_missing(sources, languages)]
    for path in sorted(sources):
        language = path.partition("/")[0]
        if language in languages and language in _MANNERS:
            found += _spoken(path, sources[path], language)
    trees = dict(_trees(sources, languages))
    for path, tree in trees.items():
        found += _order(path, tree)
    found += _same_facts(trees, languages)
    if not any(one.rule == "missing" for one in found):
        try:
            templates = compile_templates(sources, languages)
        except TemplateMistake as mistake:
            where = re.search(r"\d+", mistake.where)
            message = f"{mistake.value!r}: {mistake.allowed}" if mistake.value else mistake.allowed
            line = int(where[0]) if where else 1
            found.append(Finding("error", mistake.file, line, "template", message))
        else:
            for language in (one for one in languages if one in _MANNERS):
                for occasion in OCCASIONS:
                    found += _heard(templates, trees, language, occasion)
                found += _topics(sources, language)
    return tuple(sorted(set(found), key=lambda one: (one.file, one.line, one.rule, one.message)))


def written(text: str, language: str, file: str) -> tuple[Finding, ...]:
    """Return what customers would stumble over in words that a person wrote for one notice. `file` says where they stand.

    A language whose manners are not known has no findings.
    """
    if language not in _MANNERS:
        return ()
    return tuple(replace(one, file=file) for one in _spoken(file, text, language))


def _missing(sources: Mapping[str, str], languages: tuple[str, ...]) -> Iterator[Finding]:
    for language in languages:
        for name in (*OCCASIONS, "frame", "starters", "topics", "times"):
            if path_of(language, name) not in sources:
                yield Finding(
                    "error",
                    f"{FOLDER}/{path_of(language, name)}",
                    1,
                    "missing",
                    "is not there: every language has every file",
                )
    if LAYOUT not in sources:
        yield Finding("error", f"{FOLDER}/{LAYOUT}", 1, "missing", "is not there")


def _trees(
    sources: Mapping[str, str], languages: tuple[str, ...]
) -> Iterator[tuple[str, nodes.Template]]:
    environment = Environment(autoescape=True)
    for language in languages:
        for path in (path_of(language, occasion) for occasion in OCCASIONS):
            if path not in sources:
                continue  # Said by name; that it says none of the facts would only drown that.
            try:
                yield path, environment.parse(sources[path])
            except TemplateSyntaxError:
                continue  # Said when the templates are compiled, with its line.


# ------------------------------------------------------------------------------- what the source shows


def _spoken(path: str, source: str, language: str) -> Iterator[Finding]:
    """Yield expressions that have no place, line by line, in what a template says; not in its comments and tags."""
    manner = _MANNERS[language]
    rules = (
        ("hasty", rf"\b(?:{manner.hasty})", "promises what nobody keeps; say when, or say nothing"),
        ("blame", rf"\b(?:{manner.blaming})\b", "blames; say what we do about it"),
        ("jargon", rf"\b(?:{manner.jargon})\b", "is our jargon; say it as a friend would"),
        (
            "gloom",
            rf"(?:^|[.!?]\s+|\"\s*)(?:{manner.gloomy})\b",
            "opens with bad news; say first what we can do",
        ),
    )
    file = f"{FOLDER}/{path}"
    bare = _COMMENT.sub(lambda found: "\n" * found[0].count("\n"), source)
    prose = _TAG.sub(lambda tag: " ".join(_LITERAL.findall(tag[0])), bare)
    for number, line in enumerate(prose.split("\n"), 1):
        said = line.strip()
        for rule, pattern, why in rules:
            for hit in re.finditer(pattern, said, re.IGNORECASE):
                words = hit[0].strip(' ."!?')
                yield Finding("error", file, number, rule, f"{words!r} {why}")
        if language == "ru":
            for hit in _RUSSIAN_GENDER.finditer(said):
                yield Finding(
                    "error",
                    file,
                    number,
                    "gender",
                    f"{hit[0]!r} takes the customer for a man or a woman; use the plural, or no past tense",
                )
        for hit in _SHOUTING.finditer(said):
            if hit[0].isupper():
                yield Finding("error", file, number, "shouting", f"{hit[0]!r} is shouted")


def _order(path: str, tree: nodes.Template) -> Iterator[Finding]:
    """Blocks stand in the order in which they are read: heard, done, a person, thanks."""
    occasion = path.partition("/")[2].removesuffix(".j2")
    wanted = [*blocks_wanted(occasion), "public"]
    lines = {block.name: block.lineno for block in tree.find_all(nodes.Block)}
    present = [name for name in wanted if name in lines]
    for before, after in pairwise(present):
        if lines[after] < lines[before]:
            yield Finding(
                "error",
                f"{FOLDER}/{path}",
                lines[after],
                "order",
                f"{after} stands before {before}; the order is {', '.join(wanted)}",
            )


def _same_facts(
    trees: Mapping[str, nodes.Template], languages: tuple[str, ...]
) -> Iterator[Finding]:
    """Customers of all languages are told the same: what one template names, those of the other languages name too."""
    for occasion in OCCASIONS:
        used = {
            language: _names(trees[path_of(language, occasion)])
            for language in languages
            if path_of(language, occasion) in trees
        }
        every = set().union(*used.values()) - {"language"}
        for language, names in used.items():
            for name in sorted(every - names):
                others = ", ".join(one for one in used if name in used[one])
                yield Finding(
                    "warning",
                    f"{FOLDER}/{path_of(language, occasion)}",
                    1,
                    "facts",
                    f"does not say {name}, which {others} does",
                )


def _names(tree: nodes.Template) -> set[str]:
    return {node.name for node in tree.find_all(nodes.Name) if node.name in VARIABLES}


def _topics(sources: Mapping[str, str], language: str) -> Iterator[Finding]:
    """Each topic has words of its own in each of the sets."""
    path = f"{language}/topics.j2"
    source = sources[path]
    for name in re.findall(r"\{% set (\w+) = \{", source):
        start = source.index(f"set {name} =")
        body = source[start : source.find("%}", start)]
        for topic in TOPICS:
            if f'"{topic}"' not in body:
                yield Finding(
                    "error",
                    f"{FOLDER}/{path}",
                    source.count("\n", 0, start) + 1,
                    "topics",
                    f"{name} has no words for {topic}",
                )


# ------------------------------------------------------------------------------- what a customer reads


def _heard(
    templates: Templates, trees: Mapping[str, nodes.Template], language: str, occasion: str
) -> Iterator[Finding]:
    path = path_of(language, occasion)
    file = f"{FOLDER}/{path}"
    lines = {block.name: block.lineno for block in trees[path].find_all(nodes.Block)}
    for number, sample in enumerate((_long(language), BARE, SAMPLES[4])):
        facts = replace(sample, language=language)
        try:
            words = templates.render(occasion, facts)
        except RenderError as error:
            yield Finding("error", file, 1, "template", str(error))
            continue
        if occasion in PERSONAL:
            continue  # A person wrote it; the rules of a machine end here.
        yield from _sections(file, lines, language, words.text, words.short)
        if number == 0:
            yield from _lengths(file, lines, templates, occasion, facts)
        lost = _lost(words.text, words.html)
        if lost:
            yield Finding(
                "error", f"{FOLDER}/{LAYOUT}", 1, "parts", f"{path}: HTML does not say {lost!r}"
            )


def _sections(
    file: str, lines: Mapping[str, int], language: str, text: str, short: str
) -> Iterator[Finding]:
    manner = _MANNERS[language]
    greeting, _, body = text.partition("\n\n")
    if re.match(manner.greeting, body.strip(), re.IGNORECASE):
        yield Finding(
            "error",
            file,
            lines["acknowledge"],
            "greeting",
            "greets; every notice is greeted already",
        )
    if not re.match(manner.greeting, greeting, re.IGNORECASE):
        yield Finding("warning", file, 1, "greeting", "does not open with a greeting")
    for where, said in (("human", body), ("short", short)):
        has_person = re.search(rf"\b(?:{manner.person})", said, re.IGNORECASE)
        has_way = re.search(rf"\b(?:{manner.way})", said, re.IGNORECASE)
        if not (has_person and has_way):
            yield Finding(
                "error", file, lines[where], "person", "names no person, and no way to reach one"
            )
    if not re.search(manner.thanks, body, re.IGNORECASE):
        yield Finding("error", file, lines["thanks"], "thanks", "does not thank")
    if body.count("!") > EXCLAMATIONS_MAX or short.count("!") > EXCLAMATIONS_MAX:
        yield Finding(
            "error", file, lines["acknowledge"], "exclamations", f"more than {EXCLAMATIONS_MAX} '!'"
        )


def _lengths(
    file: str, lines: Mapping[str, int], templates: Templates, occasion: str, facts: Facts
) -> Iterator[Finding]:
    """Judge lengths and reading with long dates and names, and without what people write themselves."""
    language = facts.language
    words = templates.render(occasion, replace(facts, can_stop=category_of(occasion) in OPTIONAL))
    subject = replace(facts, subject="", outage=None)
    length = len(templates.render(occasion, subject).subject)
    if length > SUBJECT_LENGTH_MAX:
        yield Finding(
            "error",
            file,
            lines["subject"],
            "subject",
            f"{length} characters; {SUBJECT_LENGTH_MAX} are read",
        )
    short = _URL.sub("", words.short).strip()
    if len(short) > SHORT_LENGTH_MAX:
        yield Finding(
            "error",
            file,
            lines["short"],
            "short",
            f"{len(short)} characters; at most {SHORT_LENGTH_MAX}",
        )
    plain = "\n\n".join(words.text.split("\n\n")[1:])
    prose = [one for one in sentences(plain) if len(_WORD.findall(one)) > 1]
    limit = SENTENCE_WORDS_MAX[language]
    for sentence in prose:
        count = len(_WORD.findall(sentence))
        if count > limit:
            yield Finding(
                "warning",
                file,
                lines["acknowledge"],
                "sentence",
                f"{count} words, at most {limit} are read with ease: {sentence[:60]!r}",
            )
    ease = reading_ease(" ".join(prose), language)
    if ease < READING_EASE_MIN[language]:
        yield Finding(
            "warning",
            file,
            lines["acknowledge"],
            "reading",
            f"reading ease {ease:.0f}, at least {READING_EASE_MIN[language]:.0f} is wanted: shorter sentences and words",
        )


def _long(language: str) -> Facts:
    """Facts as long as they come: a far date, a zone without an offset, a long reference; nothing that people wrote."""
    date = {"en": "27 September 2026", "tr": "27 Eylül 2026", "ru": "27 сентября 2026 г."}
    moment = Moment("date", 6, date.get(language, date["en"]), "16:45", "16", "45")
    return replace(
        SAMPLE,
        language=language,
        reference="SB-4K7TQ2M9X",
        promise=Wait(until=moment),
        opens=moment,
        promised=moment,
        reason="research",
        slots=(SlotFacts(moment, moment),),
        callback=SlotFacts(moment, moment),
        zone="GMT+03:00",
        topic="refund",
    )


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, without links, references and clock times."""
    bare = _CODE.sub("", _URL.sub("", text))
    return [one.strip() for one in _SENTENCE.split(bare) if one.strip()]


def reading_ease(text: str, language: str) -> float:
    """Return how easily `text` reads in `language`, from about 0 (hard) to about 100 (easy); see the module for sources."""
    manner = _MANNERS[language]
    words = _WORD.findall(text)
    if not words:
        return 100.0
    count = sum(1 for one in re.split(r"[.!?…]+", text) if _WORD.search(one))
    length = len(words) / max(1, count)
    syllables = sum(_syllables(word, language, manner.vowels) for word in words) / len(words)
    match language:
        case "tr":
            return 198.825 - 40.175 * syllables - 2.610 * length
        case "ru":
            return 206.835 - 60.1 * syllables - 1.3 * length
        case _:
            return 206.835 - 84.6 * syllables - 1.015 * length


def _syllables(word: str, language: str, vowels: str) -> int:
    """Count syllables. In Turkish and Russian they are the vowels; English is counted by groups of vowels, without a mute e."""
    lower = word.replace("İ", "i").lower()
    if language != "en":
        return max(1, sum(char in vowels for char in lower))
    groups = len(re.findall(f"[{vowels}]+", lower))
    is_mute = lower.endswith("e") and not lower.endswith(("le", "ee", "ye")) and groups > 1
    is_mute = is_mute or (
        lower.endswith("ed") and not lower.endswith(("ted", "ded")) and groups > 1
    )
    return max(1, groups - is_mute)


class _Reader(HTMLParser):
    """Reads what a person sees of an HTML document; the line before the mail that only lists show is left out."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        is_hidden = tag in {"style", "title", "script"} or dict(attrs).get("class") == "preheader"
        if self._hidden:
            self._hidden += tag == "div"
        elif is_hidden:
            self._hidden = 1
        if tag == "a" and not self._hidden:
            self.words.append(dict(attrs).get("href") or "")

    def handle_endtag(self, tag: str) -> None:
        if self._hidden and tag in {"style", "title", "script", "div"}:
            self._hidden -= 1

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)


def seen(html: str) -> str:
    """Return the words that a person sees of an HTML document, links with where they lead."""
    reader = _Reader()
    reader.feed(html)
    return " ".join(" ".join(reader.words).split())


def _lost(text: str, html: str) -> str:
    """Return the first words of the text that the HTML does not say, or nothing."""
    said = _letters([seen(html)])
    for line in text.split("\n"):
        pieces = re.split(r"(https?://\S+)", line.removeprefix("- "))
        for piece in pieces:
            if _letters([piece]) and _letters([piece]) not in said:
                return piece.strip()
    return ""


def _letters(texts: Iterable[str]) -> str:
    return "".join(char for text in texts for char in text if char.isalnum())
