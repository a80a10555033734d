"""Words from templates: compiled once, checked once with samples, and rendered with customers' text as data only.

A template is one file an occasion and language, `<language>/<occasion>.j2`, of blocks in the order in which a kind person
writes: `subject`, `acknowledge`, `action`, `human`, `thanks`, then `short` (chat, SMS) and, where everybody may read it,
`public`. The greeting, the signature and the reference stand round them in every notice alike (`frame.j2`). Templates write
text; the HTML part is made of the same text by one layout, so the two cannot say different things.

They are Jinja2 in a sandbox of ours (`sandbox.py`): no globals but three functions, no attributes but those of facts, an undefined
name is an error, output and effort are capped. What a customer wrote is a value in the context: it is never compiled, and only
the layout, which escapes everything, writes HTML.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, Final, TypeVar, get_args
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

from schemas.notifications import Occasion
from services.notifier.core.blocks import (
    as_text,
    blocks_of,
    button,
    preheader_of,
    quote,
)
from services.notifier.core.facts import BARE as BARE
from services.notifier.core.facts import PUBLIC_VARIABLES, SAMPLES, VARIABLES
from services.notifier.core.facts import SAMPLE as SAMPLE
from services.notifier.core.facts import TOPICS as TOPICS
from services.notifier.core.facts import ArticleFacts as ArticleFacts
from services.notifier.core.facts import ChoiceFacts as ChoiceFacts
from services.notifier.core.facts import DigestItem as DigestItem
from services.notifier.core.facts import Facts as Facts
from services.notifier.core.facts import Moment as Moment
from services.notifier.core.facts import OutageFacts as OutageFacts
from services.notifier.core.facts import SlotFacts as SlotFacts
from services.notifier.core.facts import SurveyFacts as SurveyFacts
from services.notifier.core.facts import Wait as Wait
from services.notifier.core.sandbox import Sandbox, bounded, faults
from services.notifier.core.text import clean_line, clean_text

OCCASIONS: Final[tuple[str, ...]] = get_args(Occasion)
PARTS: Final = ("subject.txt", "txt", "html", "short.txt", "public.txt")
"""What can be made of a template; `public.txt` only where its block is written."""

SECTIONS: Final = ("acknowledge", "action", "human", "thanks")
"""What a notice says, in this order: I have heard you, this is what happens, here is a person, thank you."""

PERSONAL: Final = frozenset({"answered"})
"""Occasions whose words a person wrote: they need no frame of ours round them, only a signature."""

PUBLIC: Final = "public"
"""The block that everybody may read. It knows the public variables and nothing else."""

FRAME: Final = ("reference", "unsubscribe", "stop")
"""The blocks of a language's `frame.j2`: the lines below a notice, and the one below a short one that a word ends."""

OUTPUT_LENGTH_MAX: Final = 1_000_000
"""Characters of one rendered part: an answer of 100,000 characters, all of them escaped, fits."""

FOLDER: Final = "templates"
LAYOUT: Final = "layout.html.j2"
_LAYOUT_VARIABLES: Final = frozenset(
    {
        "language",
        "brand",
        "title",
        "preheader",
        "greeting",
        "blocks",
        "signature",
        "footer",
        "unsubscribe",
    }
)
T = TypeVar("T")
_GLOBALS: Final = frozenset({"button", "quote", "plural"})


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


@dataclass(frozen=True, slots=True)
class Words:
    """A rendered notice: a subject of one line, a text, the same as an HTML document, `short` for chat and SMS.

    `public` is what may stand where everybody reads it; empty where the occasion is not told in public.
    """

    subject: str
    text: str
    html: str
    short: str = ""
    public: str = ""


class Templates:
    """All templates, compiled. `render` is the only way to make words of them."""

    def __init__(self, compiled: Mapping[str, Template]) -> None:
        self._compiled = dict(compiled)
        public = {
            path.partition("/")[2].removesuffix(".j2")
            for path, template in compiled.items()
            if "public" not in template.blocks
        }
        self._private = frozenset(public)

    def has(self, occasion: str, part: str = "txt") -> bool:
        """Whether the occasion has the part, in every language."""
        return occasion in OCCASIONS and (part != "public.txt" or occasion not in self._private)

    def render(self, occasion: str, facts: Facts) -> Words:
        """Return the words of a notice.

        Raises:
            RenderError: the output passes its cap, or the template fails with these facts.
        """
        name = path_of(facts.language, occasion)
        template = self._compiled.get(name)
        if template is None:
            raise RenderError(f"{name}: there is no such template")
        context = facts.context()
        said = _say(template, context)
        frame = _say(self._compiled[f"{facts.language}/frame.j2"], context)
        subject = clean_line(as_text(said["subject"], OUTPUT_LENGTH_MAX))
        footer = tuple(
            line for line in as_text(frame["reference"], OUTPUT_LENGTH_MAX).split("\n") if line
        )
        body = "\n\n".join(said[section].strip() for section in SECTIONS if section in said)
        greeting = "" if occasion in PERSONAL else str(context["salutation"])
        signature = tuple(
            one
            for one in (context["agent_name"] if occasion in PERSONAL else "", context["signature"])
            if one
        )
        blocks = blocks_of(body)
        unsubscribe = as_text(frame["unsubscribe"], OUTPUT_LENGTH_MAX).strip()
        leaving = (
            f"{unsubscribe} {context['unsubscribe_url']}" if context["unsubscribe_url"] else ""
        )
        html = _guarded(
            self._compiled[LAYOUT],
            {
                "language": facts.language,
                "brand": context["brand"],
                "title": subject,
                "preheader": preheader_of(blocks_of(said["short"])),
                "greeting": greeting,
                "blocks": blocks,
                "signature": signature,
                "footer": footer,
                "unsubscribe": (unsubscribe.rstrip(": "), context["unsubscribe_url"])
                if leaving
                else None,
            },
        )
        short = as_text(said["short"], OUTPUT_LENGTH_MAX).strip()
        stop = as_text(frame["stop"], OUTPUT_LENGTH_MAX).strip() if context["can_stop"] else ""
        foot = "\n".join((*footer, leaving)).strip()
        text = "\n\n".join(
            part for part in (greeting, body.strip(), "\n".join(signature), foot) if part
        )
        return Words(
            subject=subject,
            text=as_text(text, OUTPUT_LENGTH_MAX) + "\n",
            html=clean_text(html, OUTPUT_LENGTH_MAX) + "\n",
            short="\n\n".join(one for one in (short, stop) if one),
            public=as_text(said.get("public", ""), OUTPUT_LENGTH_MAX).strip(),
        )

    def starter(self, topic: str, facts: Facts) -> str:
        """Return the beginning of an answer about a topic, or `closing`, for a person to finish.

        Raises:
            RenderError: the template fails with these facts.
        """
        template = self._compiled[f"{facts.language}/starters.j2"]
        context = facts.context()
        said = _guarded(template, {**context, "topic": topic})
        return as_text(said, OUTPUT_LENGTH_MAX).strip()


def path_of(language: str, occasion: str) -> str:
    """Return a template's path below `templates/`."""
    return f"{language}/{occasion}.j2"


def blocks_wanted(occasion: str) -> tuple[str, ...]:
    """Return the blocks that an occasion's template must have, in their order."""
    sections = ("action",) if occasion in PERSONAL else SECTIONS
    return ("subject", *sections, "short")


def compile_templates(sources: Mapping[str, str], languages: tuple[str, ...]) -> Templates:
    """Compile and try the templates of all `languages`; `sources` is keyed by path below `templates/`.

    Raises:
        TemplateMistake: one is missing, cannot be read, names what it may not, or fails with a sample.
    """
    return _compile(tuple(sorted(sources.items())), languages)


@lru_cache(maxsize=4)
def _compile(items: tuple[tuple[str, str], ...], languages: tuple[str, ...]) -> Templates:
    """Compile and try; the same files are the same templates, so a policy that is read again costs nothing."""
    sources = dict(items)
    environment = _environment(sources)
    trees: dict[str, nodes.Template] = {}
    occasions = {path_of(language, one): one for language in languages for one in OCCASIONS}
    shared = [f"{language}/{name}.j2" for language in languages for name in ("frame", "starters")]
    for path in (*occasions, *shared, LAYOUT):
        if path not in sources:
            raise TemplateMistake(
                f"{FOLDER}/{path}", "file", None, "is required: every language has every occasion"
            )
    for path in sorted(sources):
        if path != LAYOUT and path.partition("/")[0] not in languages:
            continue  # A language that nobody is written to in.
        if path != LAYOUT and path.count(".") > 1:
            raise TemplateMistake(
                f"{FOLDER}/{path}",
                "file",
                None,
                "is no longer read: an occasion is one file, <language>/<occasion>.j2, of the blocks"
                f" {', '.join(blocks_wanted('received'))}",
            )
        parse = partial(environment.parse, sources[path], name=path, filename=path)
        trees[path] = _attempt(path, parse)
        _check_names(path, trees[path])
        for fault in faults(trees[path], is_layout=path == LAYOUT):
            where = f"line {fault.line}"
            raise TemplateMistake(f"{FOLDER}/{path}", where, fault.value, fault.allowed)
    for path, occasion in occasions.items():
        _check_blocks(path, trees[path], blocks_wanted(occasion))
    for path in (one for one in shared if one.endswith("frame.j2")):
        _check_blocks(path, trees[path], FRAME)
    compiled = {
        path: _attempt(path, partial(environment.get_template, path))
        for path in (*occasions, *shared, LAYOUT)
    }
    templates = Templates(compiled)
    samples = {one: [replace(sample, language=one) for sample in SAMPLES] for one in languages}
    contexts = {one: [facts.context() for facts in samples[one]] for one in languages}
    for path, occasion in occasions.items():
        language = path.partition("/")[0]
        _try(compiled[path], path, contexts[language])
        for facts in samples[language][:3]:
            _attempt(path, partial(templates.render, occasion, facts))
    for language in languages:
        for topic in (*TOPICS, "closing"):
            _attempt(
                f"{language}/starters.j2",
                partial(templates.starter, topic, replace(SAMPLE, language=language)),
            )
    return templates


def _try(template: Template, path: str, contexts: list[dict[str, Any]]) -> None:
    """Say a template with every sample: what could fail at a customer, or say nothing, fails here."""
    for context in contexts:
        said = _attempt(path, partial(_say, template, context, is_guarded=False))
        for name, words in said.items():
            if not words.strip():
                raise TemplateMistake(f"{FOLDER}/{path}", f"block {name}", "", "renders to nothing")


def _check_blocks(path: str, tree: nodes.Template, wanted: tuple[str, ...]) -> None:
    found = {block.name: block for block in tree.find_all(nodes.Block)}
    for name in wanted:
        if name not in found:
            raise TemplateMistake(
                f"{FOLDER}/{path}",
                "file",
                None,
                f"lacks the block {name}; needed: {', '.join(wanted)}",
            )
    for name, block in found.items():
        if name not in {*wanted, "public"}:
            raise TemplateMistake(
                f"{FOLDER}/{path}",
                f"line {block.lineno}",
                name,
                f"no such block; known: {', '.join((*wanted, 'public'))}",
            )
    if "public" in found:
        for node in found["public"].find_all(nodes.Name):
            if node.ctx == "load" and node.name in VARIABLES - PUBLIC_VARIABLES:
                raise TemplateMistake(
                    f"{FOLDER}/{path}",
                    f"line {node.lineno}",
                    node.name,
                    f"is private; in public may be said: {', '.join(sorted(PUBLIC_VARIABLES))}",
                )
            if node.name == "self":
                raise TemplateMistake(
                    f"{FOLDER}/{path}",
                    f"line {node.lineno}",
                    "self",
                    "says another block, which is private; write the words in public itself",
                )
        for included in found["public"].find_all(nodes.Include):
            raise TemplateMistake(
                f"{FOLDER}/{path}",
                f"line {included.lineno}",
                "include",
                "says another file, which may be private; write the words in public itself",
            )
    for top in tree.body:
        stray = top.nodes if isinstance(top, nodes.Output) else []
        for piece in stray:
            if not isinstance(piece, nodes.TemplateData) or piece.data.strip():
                raise TemplateMistake(
                    f"{FOLDER}/{path}",
                    f"line {piece.lineno}",
                    None,
                    "stands outside every block, so nobody would read it",
                )


def format_instant(at: datetime, locale: Locale, zone: ZoneInfo) -> str:
    """Return an instant as a reader of `locale` writes it, in `zone`, with its distance from UTC."""
    local = at.astimezone(zone)
    day = format_date(local.date(), format="long", locale=locale)
    clock = format_time(local, format="short", tzinfo=zone, locale=locale)
    offset = "UTC" if not local.utcoffset() else get_timezone_gmt(local, locale=locale)
    return clean_line(f"{day}, {clock} {offset}")


@lru_cache(maxsize=64)
def _locale(language: str) -> Locale:
    return Locale.parse(language)


def plural(language: str, number: int) -> str:
    """Return the plural form of CLDR that `number` takes in `language`: `one`, `few`, `many` or `other`."""
    return str(_locale(language).plural_form(number))


def _environment(sources: Mapping[str, str]) -> Sandbox:
    environment = Sandbox(
        loader=DictLoader(dict(sources)),
        undefined=StrictUndefined,
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        cache_size=-1,
    )
    environment.globals.clear()
    environment.globals.update(button=button, quote=quote, plural=plural)
    return environment


def _check_names(path: str, tree: nodes.Template) -> None:
    known = _LAYOUT_VARIABLES if path == LAYOUT else VARIABLES
    unknown = _attempt(path, partial(meta.find_undeclared_variables, tree)) - known - _GLOBALS
    unknown -= set(_declared(tree))
    for node in tree.find_all(nodes.Name):
        if node.name in unknown:
            raise TemplateMistake(
                f"{FOLDER}/{path}",
                f"line {node.lineno}",
                node.name,
                f"unknown variable; known: {', '.join(sorted(known))}",
            )


def _declared(tree: nodes.Template) -> Iterator[str]:
    """Yield the names that the top of a file imports or sets; blocks know them too."""
    for node in tree.body:
        match node:
            case nodes.FromImport():
                yield from (name if isinstance(name, str) else name[1] for name in node.names)
            case nodes.Import():
                yield node.target
            case nodes.Assign(target=nodes.Name() as target):
                yield target.name
            case nodes.Macro():
                yield node.name
            case _:
                pass


def _attempt(path: str, action: Callable[[], Any]) -> Any:
    """Do `action`, and say of what fails where it stands in the templates.

    A template is somebody's program: what it can raise has no end, and all of it is the template's mistake.
    """
    try:
        return action()
    except TemplateSyntaxError as error:
        # An included template is named itself; names in angle brackets are the library's.
        name = error.name if error.name and not error.name.startswith("<") else path
        raise TemplateMistake(
            f"{FOLDER}/{name}", f"line {error.lineno}", None, error.message or "cannot be read"
        ) from error
    except Exception as error:
        reason = error.message if isinstance(error, TemplateError) else str(error)
        raise TemplateMistake(
            f"{FOLDER}/{path}", _line(error, path), None, reason or "fails"
        ) from error


def _line(error: BaseException, path: str) -> str:
    """Return the line of the template where `error` arose.

    A block that is run by itself shows the lines of the code that Jinja2 made of it, and its template maps them back; what was
    run as a whole has its traceback rewritten already.
    """
    found, trace = "file", error.__traceback__
    while trace is not None:
        template = trace.tb_frame.f_globals.get("__jinja_template__")
        if template is not None and template.name == path:
            found = f"line {template.get_corresponding_lineno(trace.tb_lineno)}"
        elif template is None and trace.tb_frame.f_code.co_filename in {path, "<template>"}:
            found = f"line {trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _say(
    template: Template, context: Mapping[str, object], *, is_guarded: bool = True
) -> dict[str, str]:
    """Return what each block of a template says. Imports and settings at its top are done first, blocks on their own."""
    if is_guarded:
        return _guard(template, lambda: _blocks(template, context))
    with bounded():
        return _blocks(template, context)


def _guarded(template: Template, context: Mapping[str, object]) -> str:
    return _guard(template, lambda: _capped(template, template.generate(context)))


def _blocks(
    template: Template, values: Mapping[str, object], *, is_public: bool = False
) -> dict[str, str]:
    context = template.new_context(dict(values))
    # The top of the file runs with its blocks silent; after it, imported macros are known to them.
    context.blocks = {name: [lambda _: iter(())] for name in template.blocks}
    _capped(template, template.root_render_func(context))
    context.blocks = {name: [block] for name, block in template.blocks.items()}
    said = {
        name: _capped(template, block(context)).strip()
        for name, block in template.blocks.items()
        if (name == PUBLIC) == is_public
    }
    if PUBLIC in template.blocks and not is_public:
        # Said with what is public alone: whatever way a template goes to a private fact, it is not there.
        known = {name: value for name, value in values.items() if name in PUBLIC_VARIABLES}
        said |= _blocks(template, known, is_public=True)
    return said


def _capped(template: Template, produced: Iterator[str]) -> str:
    pieces: list[str] = []
    length = 0
    for piece in produced:
        length += len(piece)
        if length > OUTPUT_LENGTH_MAX:
            raise RenderError(f"{template.name}: more than {OUTPUT_LENGTH_MAX} characters")
        pieces.append(piece)
    return "".join(pieces)


def _guard(template: Template, action: Callable[[], T]) -> T:
    """Do `action` within bounds; of what fails say only which template and what kind: a message may hold a customer's words.

    Whatever a template raises is a notice that cannot be said, and no reason for the task to stop.
    """
    try:
        with bounded():
            return action()
    except RenderError:
        raise
    except Exception as error:
        raise RenderError(f"{template.name}: {type(error).__name__}") from error
