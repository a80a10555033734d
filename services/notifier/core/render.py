"""Words from templates: compiled once, checked once with a sample, and rendered with customers' text as data only.

Templates are Jinja2 in its sandbox, with what a template does not need taken away: no globals, a short list of
filters, no arithmetic that makes long strings of short ones, an undefined name is an error, output is capped. HTML is
escaped by default. What a customer wrote is a value in the context and is never compiled.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Final, get_args
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_time, get_timezone_gmt
from jinja2 import (
    DictLoader,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateSyntaxError,
    meta,
    nodes,
)
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from schemas.notifications import Occasion
from services.notifier.core.text import clean_line, clean_text

OCCASIONS: Final[tuple[str, ...]] = get_args(Occasion)
PARTS: Final = ("subject.txt", "txt", "html")
OUTPUT_LENGTH_MAX: Final = 1_000_000
"""Characters of one rendered part: an answer of 100,000 characters, all of them escaped, fits."""

FILTERS: Final = frozenset(
    {"default", "e", "escape", "first", "join", "last", "length", "lower", "trim"}
)
FOLDER: Final = "templates"
LAYOUT: Final = "layout.html.j2"
_BLANK_LINES: Final = re.compile(r"\n{3,}")
_PARAGRAPHS: Final = re.compile(r"\n[ \t]*\n+")


class TemplateMistake(ValueError):
    """A template that cannot be used. `where` is its line, or `file`."""

    def __init__(self, file: str, where: str, value: object, allowed: str) -> None:
        super().__init__(f"{file}: {where}: {value!r}: {allowed}")
        self.file = file
        self.where = where
        self.value = value
        self.allowed = allowed


class RenderError(ValueError):
    """A notice cannot be rendered. Says which template and why, never with what."""


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox without the operators that turn a short template into a long string."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        del context, left, right
        raise SecurityError(f"the operator {operator} has no place in a template")


@dataclass(frozen=True, slots=True)
class Words:
    """A rendered notice: a subject of one line, a text, and the same as an HTML document."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class Moment:
    """An instant in the parts that languages put together: on Friday at 09:00.

    `day` is `today`, `tomorrow`, `weekday` (one of the six days from now on) or `date`; `weekday` counts from 0, Monday.
    `date` and `time` are formatted for the reader; `hour` and `minute` are two digits each, for endings that follow how a
    time is read aloud. `is_end_of_day`: the midnight that ends the day.
    """

    day: str
    weekday: int
    date: str
    time: str
    hour: str
    minute: str
    is_noon: bool = False
    is_end_of_day: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a customer is going to wait: `until` a moment, else so many `hours` and `minutes`.

    The forms are the plural forms of CLDR that the two numbers take in the language: `one`, `few`, `many`, `other`.
    """

    hours: int = 0
    minutes: int = 0
    hours_form: str = "other"
    minutes_form: str = "other"
    until: Moment | None = None


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """A time for a call, of one day."""

    starts: Moment
    ends: Moment


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a template may say. Each value is plain text, or made of it; templates know them by these names.

    `name` may be empty (nobody to greet by name), `subject` is `Re: …` or empty, `received_at` is formatted for the
    reader, `answer` is an agent's text with its `answer_paragraphs` as lines, `agent_name` may be empty. `promise` is how long
    the customer is going to wait, `opens` when we open if we are closed, `slots` are times for a call: each only where it is
    known. `zone` names the time zone where any of them says a clock time.
    """

    language: str
    name: str
    brand: str
    signature: str
    reference: str
    subject: str
    received_at: str
    agent_name: str = ""
    answer: str = ""
    promise: Wait | None = None
    opens: Moment | None = None
    slots: tuple[SlotFacts, ...] = ()
    zone: str = ""

    def context(self) -> dict[str, object]:
        """Return the template's variables."""
        paragraphs = _PARAGRAPHS.split(self.answer) if self.answer else []
        return {
            "language": self.language,
            "name": self.name,
            "brand": self.brand,
            "signature": self.signature,
            "reference": self.reference,
            "subject": self.subject,
            "received_at": self.received_at,
            "agent_name": self.agent_name,
            "answer": self.answer,
            "answer_paragraphs": tuple(tuple(part.split("\n")) for part in paragraphs),
            "promise": self.promise,
            "opens": self.opens,
            "slots": self.slots,
            "zone": self.zone,
        }


SAMPLE: Final = Facts(
    language="en",
    name="Ada Lovelace",
    brand="Lantern & Oak",
    signature="The team",
    reference="SB-4K7TQ2M",
    subject="Re: My lamp never arrived",
    received_at="24 November 2026, 11:00 GMT+03:00",
    agent_name="Deniz",
    answer="Your lamp left our house this morning.\nIt should reach you on Friday.\n\nThank you.",
)
_BARE: Final = Facts(
    "en", "", "Lantern & Oak", "The team", "SB-4K7TQ2M", "", "24 November 2026", "", "Sent."
)
_DAYS: Final = tuple(
    Moment(day, 4, "27 November 2026", f"{hour}:{minute}", hour, minute, hour == "12", hour == "00")
    for day, hour, minute in (
        ("today", "09", "30"),
        ("tomorrow", "12", "00"),
        ("weekday", "16", "00"),
        ("date", "00", "00"),
    )
)
_PROMISING: Final = (
    Wait(1, 0, "one", "other"),
    Wait(2, 30),
    Wait(0, 21, "other", "one"),
    *(Wait(until=moment) for moment in _DAYS),
)
_SAMPLES: Final = (
    SAMPLE,
    _BARE,
    *(
        replace(
            SAMPLE,
            promise=wait,
            opens=wait.until,
            slots=tuple(SlotFacts(moment, moment) for moment in _DAYS),
            zone="UTC",
        )
        for wait in _PROMISING
    ),
)
"""What each template is tried with: every way in which a time is said."""
_VARIABLES: Final = frozenset(SAMPLE.context())


class Templates:
    """All templates, compiled. `render` is the only way to make words of them."""

    def __init__(self, compiled: Mapping[str, Template]) -> None:
        self._compiled = dict(compiled)

    def render(self, occasion: str, facts: Facts) -> Words:
        """Return the words of a notice.

        Raises:
            RenderError: the output passes its cap, or the template fails with these facts.
        """
        context = facts.context()
        subject, text, html = (
            _render(self._compiled[path_of(facts.language, occasion, part)], context)
            for part in PARTS
        )
        return Words(
            subject=clean_line(subject),
            text=_BLANK_LINES.sub("\n\n", clean_text(text, OUTPUT_LENGTH_MAX)) + "\n",
            html=clean_text(html, OUTPUT_LENGTH_MAX) + "\n",
        )


def path_of(language: str, occasion: str, part: str) -> str:
    """Return a template's path below `templates/`."""
    return f"{language}/{occasion}.{part}.j2"


def compile_templates(sources: Mapping[str, str], languages: tuple[str, ...]) -> Templates:
    """Compile and try the templates of all `languages`; `sources` is keyed by path below `templates/`.

    Raises:
        TemplateMistake: one is missing, cannot be read, names what it may not, or fails with the sample.
    """
    environment = _environment(sources)
    wanted = [
        path_of(language, occasion, part)
        for language in languages
        for occasion in OCCASIONS
        for part in PARTS
    ]
    for path in wanted:
        if path not in sources:
            raise TemplateMistake(
                f"{FOLDER}/{path}", "file", None, "is required: every language has every occasion"
            )
    for path in sorted(sources):
        _check_names(environment, path, sources[path])
    compiled = {path: _attempt(path, partial(environment.get_template, path)) for path in wanted}
    templates = Templates(compiled)
    for path, template in compiled.items():
        for sample in _SAMPLES:
            rendered = _attempt(path, partial(_render_raw, template, sample.context()))
            if not rendered.strip():
                raise TemplateMistake(f"{FOLDER}/{path}", "file", "", "renders to nothing")
    return templates


def format_instant(at: datetime, locale: Locale, zone: ZoneInfo) -> str:
    """Return an instant as a reader of `locale` writes it, in `zone`, with its distance from UTC."""
    local = at.astimezone(zone)
    day = format_date(local.date(), format="long", locale=locale)
    clock = format_time(local, format="short", tzinfo=zone, locale=locale)
    offset = "UTC" if not local.utcoffset() else get_timezone_gmt(local, locale=locale)
    return clean_line(f"{day}, {clock} {offset}")


def _environment(sources: Mapping[str, str]) -> _Environment:
    environment = _Environment(
        loader=DictLoader(dict(sources)),
        undefined=StrictUndefined,
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        cache_size=-1,
    )
    environment.globals.clear()
    for name in set(environment.filters) - FILTERS:
        del environment.filters[name]
    return environment


def _check_names(environment: _Environment, path: str, source: str) -> None:
    tree = _attempt(path, lambda: environment.parse(source, name=path, filename=path))
    unknown = _attempt(path, partial(meta.find_undeclared_variables, tree)) - _VARIABLES
    for node in tree.find_all(nodes.Name):
        if node.name in unknown:
            known = ", ".join(sorted(_VARIABLES))
            raise TemplateMistake(
                f"{FOLDER}/{path}",
                f"line {node.lineno}",
                node.name,
                f"unknown variable; known: {known}",
            )


def _attempt(path: str, action: Callable[[], Any]) -> Any:
    """Do `action`, and say of what fails where it stands in the templates."""
    try:
        return action()
    except TemplateSyntaxError as error:
        # An included template is named itself; names in angle brackets are the library's.
        name = error.name if error.name and not error.name.startswith("<") else path
        raise TemplateMistake(
            f"{FOLDER}/{name}", f"line {error.lineno}", None, error.message or "cannot be read"
        ) from error
    except (TemplateError, RenderError, TypeError, ValueError, RecursionError) as error:
        reason = error.message if isinstance(error, TemplateError) else str(error)
        raise TemplateMistake(
            f"{FOLDER}/{path}", _line(error, path), None, reason or "fails"
        ) from error


def _line(error: BaseException, path: str) -> str:
    """Return the line of the template where `error` arose: Jinja2 puts it into the traceback."""
    found, trace = "file", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in {path, "<template>"}:
            found = f"line {trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _render_raw(template: Template, context: Mapping[str, object]) -> str:
    pieces: list[str] = []
    length = 0
    for piece in template.generate(context):
        length += len(piece)
        if length > OUTPUT_LENGTH_MAX:
            raise RenderError(f"{template.name}: more than {OUTPUT_LENGTH_MAX} characters")
        pieces.append(piece)
    return "".join(pieces)


def _render(template: Template, context: Mapping[str, object]) -> str:
    try:
        return _render_raw(template, context)
    except (TemplateError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, RenderError):
            raise
        raise RenderError(f"{template.name}: {type(error).__name__}") from error
