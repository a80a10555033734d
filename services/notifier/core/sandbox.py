"""What a template may do: Jinja2's sandbox with nearly everything taken away, and the work of one rendering counted.

Jinja2's sandbox keeps a template from the interpreter, and not from its time and memory: `"a".center(10**9)`, a loop within a
loop over a long text and a macro that doubles what it gets are all safe to it. So here

- an attribute is a field of one of our facts, by the type of the value: texts have no methods, and a subscript is an item;
- what is called is a macro, a block or one of our own functions;
- only what is words or a number is printed, only lists of facts are gone through;
- what is compared or looked for is words or a number, and a part is taken of a list only, never of a text;
- no operator makes long of short or divides, nor does a test: `is` asks whether something is there;
- and each rendering has `EFFORT_MAX`: every turn of a loop, call, include, every piece of a template as often as it is run, and
  every character that is printed, joined, compared, searched or changed is taken from it. So a rendering ends in time, whoever
  wrote the template and however long the answer is.

`faults` finds most of it before anything is rendered, so that it can be said with its line; the rest holds it for what only some
customer's facts bring to light.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from functools import wraps
from typing import Any, Final, NamedTuple

from jinja2 import Template, Undefined, nodes, pass_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.environment import TemplateModule
from jinja2.exceptions import SecurityError
from jinja2.runtime import (
    BlockReference,
    Context,
    LoopContext,
    Macro,
    TemplateReference,
    markup_join,
)
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from services.notifier.core.blocks import Block, Link
from services.notifier.core.facts import (
    ArticleFacts,
    ChoiceFacts,
    DigestItem,
    Moment,
    OutageFacts,
    SlotFacts,
    SurveyFacts,
    Wait,
)

EFFORT_MAX: Final = 5_000_000
"""What one rendering may take, in characters: half of it is enough for an answer of 100,000 characters that is all line ends."""

TURN: Final = 10
"""What a turn of a loop counts as, in characters, beside what is run in it."""

CALL: Final = 100
"""What a call, an include or an import counts as, in characters."""

NODE: Final = 1
"""What each piece of a template (a name, a word, an operator) counts as, in characters, each time that it is run."""

COMPARED: Final = 10
"""How many compared characters count as one: two texts are compared by their bytes, many at once."""

CLEANED: Final = 10
"""What each character counts as that a function of ours gets: it looks at every one of them."""

FILTERS: Final = frozenset({"default", "e", "escape", "first", "last", "length", "lower", "trim"})
"""Each gives back no more than it gets, but for the escapes of a character. `join` is not among them: it multiplies."""

TESTS: Final = frozenset({"defined", "none", "undefined"})
"""Each looks at no more than whether a value is there. `odd` is not among them: of a text it makes a format, `%` by another name."""

LISTS: Final = frozenset({"articles", "slots", "digest", "answer_paragraphs"})
"""What a template may go through, by name; and the lines of a paragraph."""

LAYOUT_LISTS: Final = frozenset({"blocks", "footer", "signature"})
_LIST_FIELDS: Final = frozenset({"choices", "lines", "links"})

_FIELDS: Final[dict[type, frozenset[str]]] = {
    kind: frozenset(field.name for field in fields(kind))
    for kind in (
        *(Moment, Wait, SlotFacts, ArticleFacts, OutageFacts, ChoiceFacts, SurveyFacts),
        *(DigestItem, Block, Link),
    )
} | {LoopContext: frozenset({"first", "index", "index0", "last", "length"})}

ATTRIBUTES: Final = frozenset().union(*_FIELDS.values())
"""Every attribute that there is in a template, of whatever value."""

_OPERATORS: Final[dict[type[nodes.Node], str]] = {
    nodes.Mul: "*",
    nodes.Div: "/",
    nodes.FloorDiv: "//",
    nodes.Mod: "%",
    nodes.Pow: "**",
}
# No template can name these: a filter's name has no blank in it.
_TURNS, _JOINED, _SEARCHED = "turns of", "joined with", "searched for"
_COMPARED, _PART, _STRETCH = "compared with", "part of", "stretch of"

_RUN_APART: Final[dict[type[nodes.Node], frozenset[str]]] = {
    nodes.If: frozenset({"body", "else_"}),
    nodes.For: frozenset({"target", "test", "body"}),
    nodes.Macro: frozenset({"args", "defaults", "body"}),
    nodes.CallBlock: frozenset({"args", "defaults", "body"}),
    nodes.Block: frozenset({"body"}),
}
"""The fields of a node that are not run when it is, or not as often: each is a stretch of its own, or counted by the turn."""

_left: ContextVar[list[int] | None] = ContextVar("_left", default=None)
"""What is left of the rendering that is going on; None while templates are compiled, when constants alone are worked out."""


class EffortError(SecurityError):
    """A rendering takes more than `EFFORT_MAX`."""


class Fault(NamedTuple):
    """Something that has no place in a template: its line, what it is, and what would be right."""

    line: int
    value: str
    allowed: str


@contextmanager
def bounded() -> Iterator[None]:
    """Give what is rendered within it `EFFORT_MAX`, and no more."""
    token = _left.set([EFFORT_MAX])
    try:
        yield
    finally:
        _left.reset(token)


def faults(tree: nodes.Template, *, is_layout: bool) -> Iterator[Fault]:
    """Yield what has no place in a template whatever the facts are."""
    for operation in tree.find_all(tuple(_OPERATORS)):
        sign = _OPERATORS[type(operation)]
        yield Fault(operation.lineno, sign, _no_place(sign))
    modules = {node.target for node in tree.find_all(nodes.Import)} | {"self"}
    for node in tree.find_all(nodes.Getattr):
        is_of_module = isinstance(node.node, nodes.Name) and node.node.name in modules
        if node.attr not in ATTRIBUTES and not is_of_module:
            yield Fault(node.lineno, node.attr, f"no such attribute; known: {_list(ATTRIBUTES)}")
    lists = LAYOUT_LISTS if is_layout else LISTS
    paragraphs = {
        loop.target.name
        for loop in tree.find_all(nodes.For)
        if isinstance(loop.target, nodes.Name) and _list_of(loop.iter) == "answer_paragraphs"
    }
    for loop in tree.find_all(nodes.For):
        name = _list_of(loop.iter)
        if loop.recursive or name not in lists | _LIST_FIELDS | paragraphs:
            allowed = _list(lists | _LIST_FIELDS)
            yield Fault(loop.lineno, name or "for", f"no list to go through; known: {allowed}")


def _list_of(node: nodes.Node) -> str:
    """Return the name of the list that an expression is, or is the beginning of; nothing where it is none by its form."""
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        node = node.node
    match node:
        case nodes.Name():
            return node.name
        case nodes.Getattr() if node.attr in _LIST_FIELDS:
            return node.attr
        case _:
            return ""


def _list(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


def _no_place(sign: str) -> str:
    return f"the operator {sign} has no place in a template"


# ---------------------------------------------------------------------------------------- the effort


def _spend(effort: int) -> None:
    left = _left.get()
    if left is None:
        return
    left[0] -= effort
    if left[0] < 0:
        raise EffortError(f"takes more than {EFFORT_MAX} characters and turns")


def _words(value: Any) -> Any:
    """Return what may be printed, and count it: words or a number. What is undefined says so itself."""
    if isinstance(value, str):
        _spend(len(value))
    elif not isinstance(value, int | Undefined) or isinstance(value, bool):
        raise SecurityError(f"{type(value).__name__} is neither words nor a number")
    return value


def _turns(value: Any, weight: int) -> Any:
    """Return a list to go through, and count its turns, of `weight` each. A text is none: it would be gone through by letters."""
    if isinstance(value, Undefined):
        return value
    if not isinstance(value, tuple):
        raise SecurityError(f"{type(value).__name__} is no list to go through")
    _spend((TURN + weight) * len(value))
    return value


def _part(value: Any) -> Any:
    """Return a list that a part is taken of, and count it. Of a text that would be a new text, as long as it is."""
    if isinstance(value, Undefined):
        return value
    if not isinstance(value, tuple | list):
        raise SecurityError(f"{type(value).__name__} is no list to take a part of")
    _spend(len(value))
    return value


def _compared(value: Any) -> Any:
    """Return what may be compared, looked for or be a key, and count it: a list would be compared with all that is in it."""
    if isinstance(value, str):
        _spend(len(value) // COMPARED)
    elif value is not None and not isinstance(value, int | float | Undefined):
        raise SecurityError(f"{type(value).__name__} is neither words nor a number")
    return value


@pass_context
def _stretch(context: Context, weight: int) -> None:
    """Count a stretch of a template that is about to be run. Only for the context is it no constant, done when it is compiled."""
    del context
    _spend(weight)


def _joined(first: Any, *more: Any) -> str:
    return markup_join(_words(one) for one in (first, *more))


def _searched(value: Any) -> Any:
    if isinstance(value, str):
        _spend(len(value))
    elif isinstance(value, tuple | list):
        # Each that is in it is compared with what is looked for.
        _spend(sum(1 + len(one) // COMPARED if isinstance(one, str) else 1 for one in value))
    return value


def _counted(work: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(work)
    def counted(value: Any) -> Any:  # No more: `trim` would look for each character in a text.
        return work(_words(value))

    return counted


class _Counting(NodeTransformer):
    """Puts the counting into a template's loops, stretches and operations. Jinja2 finds the methods by their names.

    A stretch is what is run from its beginning to its end once it is begun; it is counted then, all of it.
    """

    def visit_Template(self, node: nodes.Template) -> nodes.Node:  # noqa: N802
        return self._with_stretches(node, "body")

    visit_Block = visit_Macro = visit_CallBlock = visit_Template  # noqa: N815

    def visit_If(self, node: nodes.If) -> nodes.Node:  # noqa: N802
        return self._with_stretches(node, "body", "else_")

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        each = (
            [node.target, *node.body] if node.test is None else [node.target, node.test, *node.body]
        )
        weight = nodes.Const(_weight(each), lineno=node.lineno)
        self.generic_visit(node)
        node.iter = _filter(_TURNS, node.iter, weight)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _filter(_COMPARED, node.expr)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.key = _filter(_COMPARED, node.key)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _filter(_PART, node.node)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(_JOINED, *node.nodes)

    def visit_Operand(self, node: nodes.Operand) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _filter(_SEARCHED if node.op in ("in", "notin") else _COMPARED, node.expr)
        return node

    def _with_stretches(self, node: nodes.Node, *names: str) -> nodes.Node:
        """Let each of these fields begin with its own counting. It is weighed before anything is put into it."""
        arguments = [one for name in ("args", "defaults") for one in getattr(node, name, ())]
        weights = {name: _weight([*arguments, *getattr(node, name)]) for name in names}
        self.generic_visit(node)
        for name, weight in weights.items():
            stretch = getattr(node, name)
            if stretch:
                line = stretch[0].lineno
                counting = _filter(_STRETCH, nodes.Const(weight, lineno=line))
                stretch.insert(0, nodes.ExprStmt(counting, lineno=line))
        return node


def _weight(stretch: Iterable[nodes.Node]) -> int:
    """Return what running a stretch once counts as, without what in it is run apart."""
    weight = 0
    left = list(stretch)
    while left:
        node = left.pop()
        weight += NODE
        match node:
            case nodes.TemplateData(data=str() as words) | nodes.Const(value=str() as words):
                weight += len(words) // COMPARED
        left.extend(node.iter_child_nodes(exclude=_RUN_APART.get(type(node), ())))
    return weight


def _filter(name: str, first: nodes.Node, *more: nodes.Node) -> nodes.Filter:
    return nodes.Filter(first, name, list(more), [], None, None, lineno=first.lineno)


class _Compiler(CodeGenerator):
    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:  # noqa: N802
        counting = _Counting().visit(node)
        # What is made anew knows its environment only when it is told.
        counting.set_environment(self.environment)
        super().visit_Template(counting, frame)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of all templates; see the module for what it lets them do."""

    code_generator_class = _Compiler
    intercepted_binops = frozenset({"+", *_OPERATORS.values()})

    def __init__(self, **options: Any) -> None:
        super().__init__(finalize=_words, **options)
        for name in set(self.filters) - FILTERS:
            del self.filters[name]
        for name in set(self.tests) - TESTS:
            del self.tests[name]
        for name in ("e", "escape", "lower", "trim"):
            self.filters[name] = _counted(self.filters[name])
        self.filters |= {_TURNS: _turns, _JOINED: _joined, _SEARCHED: _searched}
        self.filters |= {_COMPARED: _compared, _PART: _part, _STRETCH: _stretch}

    def getattr(self, obj: Any, attribute: str) -> Any:
        match obj:
            case Undefined():
                return getattr(obj, attribute)  # It says what is undefined.
            case TemplateReference():
                return self.getitem(obj, attribute)
            case TemplateModule():
                is_known = not attribute.startswith("_") and attribute in vars(obj)
            case _:
                is_known = attribute in _FIELDS.get(type(obj), ())
        if is_known:
            return getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(argument, str):
            _spend(len(argument) // COMPARED)
        if isinstance(obj, Undefined | str | tuple | list | dict | TemplateReference):
            try:
                return obj[argument]
            except (LookupError, TypeError):
                pass  # Not there, which is said by what is given back.
        return self.undefined(obj=obj, name=argument)

    def is_safe_callable(self, obj: Any) -> bool:
        return isinstance(obj, Macro | BlockReference | Undefined) or any(
            obj is one for one in self.globals.values()
        )

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        length = sum(len(one) for one in (*args, *kwargs.values()) if isinstance(one, str))
        _spend(CALL + length * (1 if isinstance(obj, Macro) else CLEANED))
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        del context
        if operator != "+":
            raise SecurityError(_no_place(operator))
        if isinstance(left, int) and isinstance(right, int):
            return left + right
        return _joined(left, right)

    def get_template(self, name: Any, *args: Any, **kwargs: Any) -> Template:
        _spend(CALL)
        return super().get_template(name, *args, **kwargs)

    def select_template(self, names: Any, *args: Any, **kwargs: Any) -> Template:
        _spend(CALL * len(names))  # Each is looked for, until one is there.
        return super().select_template(names, *args, **kwargs)
