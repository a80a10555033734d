"""What rules, dashboards and runbooks say of series, held against what the services declare.

`python -m deploy.prometheus.lint` prints a sentence for each thing that does not agree, and exits 1 if there are any:

- a series that no service declares and no rule records; a label that it has not; a value outside a label's closed set; a bucket that
  the histogram has not;
- an alert without comparison, `absent` without `for`, an alert without severity, summary, description or its page;
- a label in a summary or a description that the aggregation has dropped; a `by`, `on` or `group_left` with a label that is not there;
- a page in docs/runbooks that no alert has, or one without its parts.

Queries are parsed, not searched: promql-parser is the parser of Prometheus 2.45 in Rust.
"""

import contextlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import promql_parser as promql
import yaml

from chassis import metrics
from cli import docs

ROOT: Final = Path(__file__).resolve().parents[2]
RULES: Final = ROOT / "deploy" / "prometheus" / "rules"
DASHBOARDS: Final = ROOT / "deploy" / "grafana" / "dashboards"
RUNBOOKS: Final = ROOT / "docs" / "runbooks"

TARGET_LABELS: Final = frozenset({"job", "instance", "namespace", "pod"})
"""What Prometheus adds to every series it scrapes."""

FOREIGN: Final[Mapping[str, frozenset[str]]] = {
    "up": TARGET_LABELS,
    "ALERTS": TARGET_LABELS | {"alertname", "alertstate", "severity", "service"},
}
"""Series of Prometheus itself that may be read."""

PARTS: Final = ("**Severity**: ", "\n## Look\n", "\n## Do\n", "\n## Over\n")
"""What every runbook has: whom it concerns and what it costs, where to look first, the cure, how to see that it is over."""

_COMPARISONS: Final = frozenset({"==", "!=", ">", "<", ">=", "<="})
_SET_OPERATIONS: Final = frozenset({"and", "unless", "or"})
_KEEPING: Final = frozenset({"topk", "bottomk", "limitk"})
_FROM_NOTHING: Final = frozenset({"vector", "time", "scalar", "pi"})
_FENCE: Final = re.compile(r"^ *```promql\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INLINE: Final = re.compile(r"`(signalbox[a-z0-9_:]*[a-z0-9](?:\{[^`]*\})?)`")
_LABEL_IN_TEXT: Final = re.compile(r"\$labels\.(\w+)")
_VARIABLE_QUERY: Final = re.compile(r"label_values\((?:(?P<series>.+), ?)?(?P<label>\w+)\)")


@dataclass(frozen=True, slots=True)
class Series:
    """A series that may be read: its labels, and the closed set of values of those that have one."""

    labels: frozenset[str]
    values: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL text and where it stands."""

    where: str
    text: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as its file has it."""

    where: str
    body: Mapping[str, Any]

    @property
    def alert(self) -> str | None:
        """The alert's name; None for a recording rule."""
        found: str | None = self.body.get("alert")
        return found

    @property
    def record(self) -> str | None:
        """The recorded series' name; None for an alert."""
        found: str | None = self.body.get("record")
        return found

    @property
    def query(self) -> Query:
        """Its expression."""
        return Query(self.where, self.body["expr"])


def declared() -> dict[str, Series]:
    """Return all series that the services show, by the names under which Prometheus has them."""
    docs.metrics_page()  # Imports every module that declares any.
    found: dict[str, Series] = {}
    for name, made in metrics.DECLARED.items():
        labels = frozenset(made.labels) | TARGET_LABELS
        closed = {key: frozenset(values) for key, values in made.labels.items() if values}
        if made.kind == "histogram":
            found[f"{name}_sum"] = found[f"{name}_count"] = Series(labels, closed)
            edges = {"le": _edges(name)}
            found[f"{name}_bucket"] = Series(labels | {"le"}, {**closed, **edges})
        else:
            found[name] = Series(labels, closed)
    return found


def _edges(histogram: str) -> frozenset[str]:
    # The client tells a histogram's edges only where something has been observed.
    made = metrics.REGISTRY._names_to_collectors[histogram]  # noqa: SLF001
    buckets: Iterable[float] = made._kwargs["buckets"]  # type: ignore[attr-defined]  # noqa: SLF001
    return frozenset({"+Inf", *map(repr, map(float, buckets))})


def rules(folder: Path = RULES) -> list[Rule]:
    """Return the rules of all files."""
    found = []
    for path in sorted(folder.glob("*.yaml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            for body in group["rules"]:
                name = body.get("alert") or body["record"]
                found.append(Rule(f"rules/{path.name}: {name}", body))
    return found


def dashboard_queries(folder: Path = DASHBOARDS) -> list[Query]:
    """Return the queries of all panels and variables, with a length of time where Grafana puts one."""
    found = []
    for path in sorted(folder.glob("*.json")):
        board = json.loads(path.read_text(encoding="utf-8"))
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                where = f"dashboards/{path.name}: {panel['title']}"
                found.append(Query(where, as_grafana_sends(target["expr"])))
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                where = f"dashboards/{path.name}: variable {variable['name']}"
                asked = variable["query"]
                text = asked["query"] if isinstance(asked, dict) else asked
                read = _VARIABLE_QUERY.fullmatch(text)
                if read is None or read["series"] is None:
                    found.append(Query(where, text))
                else:
                    found.append(Query(where, f"count by ({read['label']}) ({read['series']})"))
    return found


def as_grafana_sends(expr: str, *, range_: str = "1h", rate: str = "5m") -> str:
    """Return a panel's query with Grafana's own variables filled in; those of the board match everything."""
    filled = expr.replace("$__rate_interval", rate).replace("$__range", range_)
    return re.sub(r"\$\w+", ".*", filled)


def runbook_queries(folder: Path = RUNBOOKS) -> list[Query]:
    """Return what the pages tell people to ask, blocks and single series."""
    found = []
    for path in sorted(folder.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        found += [Query(f"runbooks/{path.name}", block) for block in _FENCE.findall(text)]
        for one in _INLINE.findall(text):
            found.append(Query(f"runbooks/{path.name}", _as_query(one)))
    return found


def _as_query(mentioned: str) -> str:
    """Return what prose names as a query: `series{label,label}` says which labels it has, a histogram goes by its own name."""
    name, brace, labels = mentioned.partition("{")
    made = metrics.DECLARED.get(name)
    if made is not None and made.kind == "histogram":
        name += "_count"
    if brace and "=" not in labels:
        labels = ",".join(f'{label}=~".*"' for label in labels.rstrip("}").split(",")) + "}"
    return f"{name}{brace}{labels}"


class Reader:
    """Follows labels through expressions and keeps what does not agree."""

    def __init__(self, known: Mapping[str, Series]) -> None:
        self.known = {**known, **{name: Series(labels) for name, labels in FOREIGN.items()}}
        self.findings: list[str] = []

    def learn(self, recorded: Iterable[Rule]) -> None:
        """Add what rules record; one may read another, in any order."""
        waiting = [rule for rule in recorded if rule.record is not None]
        names = {rule.record for rule in waiting}
        while waiting:
            ready = [rule for rule in waiting if not (_names(rule.query) & names)]
            if not ready:
                self.findings += [f"{rule.where}: it reads itself" for rule in waiting]
                return
            for rule in ready:
                self._learn(rule)
            waiting = [rule for rule in waiting if rule not in ready]
            names = {rule.record for rule in waiting}

    def _learn(self, rule: Rule) -> None:
        own = dict(rule.body.get("labels", {}))
        labels = self.labels_of(rule.query) | frozenset(own)
        name = str(rule.record)
        before = self.known.get(name, Series(frozenset()))
        # Each rule of one name adds its values to what its own labels may be.
        values = {
            key: before.values.get(key, frozenset()) | {str(value)} for key, value in own.items()
        }
        self.known[name] = Series(before.labels | labels, values)

    def labels_of(self, query: Query) -> frozenset[str]:
        """Return the labels that the query's results may have; findings are kept."""
        try:
            tree = promql.parse(query.text)
        except ValueError as error:
            self.findings.append(f"{query.where}: {error}")
            return frozenset()
        return self._labels(tree, query.where)

    def _find(self, where: str, what: str) -> None:
        self.findings.append(f"{where}: {what}")

    def _labels(self, node: Any, where: str) -> frozenset[str]:
        match node:
            case promql.VectorSelector():
                return self._selected(node, where)
            case promql.MatrixSelector():
                return self._selected(node.vector_selector, where)
            case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
                return self._labels(node.expr, where)
            case promql.AggregateExpr():
                return self._aggregated(node, where)
            case promql.BinaryExpr():
                return self._combined(node, where)
            case promql.Call():
                return self._called(node, where)
            case _:
                return frozenset()

    def _selected(self, node: Any, where: str) -> frozenset[str]:
        series = self.known.get(node.name)
        if series is None:
            self._find(where, f"nothing declares or records {node.name}")
            return frozenset()
        for matcher in node.matchers.matchers:
            if matcher.name not in series.labels:
                self._find(where, f"{node.name} has no label {matcher.name}")
            elif (closed := series.values.get(matcher.name)) is not None:
                self._match(node.name, matcher, closed, where)
        return series.labels

    def _match(self, name: str, matcher: Any, closed: frozenset[str], where: str) -> None:
        """Each alternative of a matcher must be one that there is; a pattern must match any."""
        is_pattern = matcher.op in (promql.MatchOp.Re, promql.MatchOp.NotRe)
        for wanted in matcher.value.split("|") if is_pattern else [matcher.value]:
            is_there = (
                any(re.fullmatch(wanted, value) for value in closed)
                if is_pattern
                else wanted in closed
            )
            if not is_there:
                self._find(where, f"{matcher.name} of {name} is never {wanted!r}")

    def _aggregated(self, node: Any, where: str) -> frozenset[str]:
        inner = self._labels(node.expr, where)
        if node.modifier is None:
            return inner if str(node.op) in _KEEPING else frozenset()
        named = frozenset(node.modifier.labels)
        self._require(named, inner, f"{node.op}", where)
        if str(node.op) in _KEEPING:
            return inner
        is_by = node.modifier.type == promql.AggModifierType.By
        return named if is_by else inner - named

    def _require(self, named: frozenset[str], there: frozenset[str], what: str, where: str) -> None:
        for label in sorted(named - there):
            self._find(where, f"{what} names {label}, which is not there any more")

    def _combined(self, node: Any, where: str) -> frozenset[str]:
        left, right = self._labels(node.lhs, where), self._labels(node.rhs, where)
        operation = str(node.op)
        matching = node.modifier.matching if node.modifier is not None else None
        on = frozenset(matching.labels) if matching is not None else None
        is_on = matching is not None and matching.type == promql.LabelModifierType.Include
        if is_on and on is not None:
            self._require(on, left & right, f"on of {operation}", where)
        if operation == "or":
            return left | right
        if operation in _SET_OPERATIONS:
            return left
        return self._matched(node, left, right, on if is_on else None)

    @staticmethod
    def _matched(
        node: Any, left: frozenset[str], right: frozenset[str], on: frozenset[str] | None
    ) -> frozenset[str]:
        if _is_number(node.lhs) or _is_number(node.rhs):
            return left | right
        card = node.modifier.card if node.modifier is not None else None
        if card == promql.VectorMatchCardinality.ManyToOne:
            return left | frozenset(node.modifier.group_labels or ())
        if card == promql.VectorMatchCardinality.OneToMany:
            return right | frozenset(node.modifier.group_labels or ())
        return left & right if on is None else on

    def _called(self, node: Any, where: str) -> frozenset[str]:
        inner = [self._labels(argument, where) for argument in node.args]
        match node.func.name:
            case "label_replace" | "label_join" as name:
                of = (3,) if name == "label_replace" else range(3, len(node.args))
                taken = frozenset(node.args[at].val for at in of)
                self._require(taken, inner[0], name, where)
                return inner[0] | {node.args[1].val}
            case "histogram_quantile":
                self._require(frozenset({"le"}), inner[1], "histogram_quantile", where)
                return inner[1] - {"le"}
            case "absent" | "absent_over_time":
                return frozenset()
            case name if name in _FROM_NOTHING:
                return frozenset()
            case _:
                return frozenset().union(*inner)


def _is_number(node: Any) -> bool:
    match node:
        case promql.NumberLiteral():
            return True
        case promql.ParenExpr() | promql.UnaryExpr():
            return _is_number(node.expr)
        case promql.BinaryExpr():
            return _is_number(node.lhs) and _is_number(node.rhs)
        case promql.Call():
            return node.func.name in ("time", "scalar", "pi")
        case _:
            return False


def _nodes(query: Query) -> Iterator[Any]:
    """Yield the parts of an expression; none where it cannot be read, which `Reader.labels_of` tells."""
    found: list[Any] = []

    def visit(node: Any) -> None:
        found.append(node)

    with contextlib.suppress(ValueError):
        promql.walk(promql.parse(query.text), visit)
    return iter(found)


def _names(query: Query) -> set[str]:
    return {str(node.name) for node in _nodes(query) if isinstance(node, promql.VectorSelector)}


def _judge_alert(rule: Rule, labels: frozenset[str]) -> Iterator[str]:
    nodes = list(_nodes(rule.query))
    compares = any(
        isinstance(node, promql.BinaryExpr) and str(node.op) in _COMPARISONS for node in nodes
    )
    if not compares:
        yield "it compares nothing, so it fires for as long as there are series"
    asks_absent = any(
        isinstance(node, promql.Call) and node.func.name.startswith("absent") for node in nodes
    )
    if asks_absent and "for" not in rule.body:
        yield "absent without `for` fires at every restart"
    if rule.body.get("labels", {}).get("severity") not in ("page", "ticket"):
        yield "its severity is neither page nor ticket"
    notes = rule.body.get("annotations", {})
    for name in ("summary", "description"):
        if not notes.get(name):
            yield f"it has no {name}"
        used = frozenset(_LABEL_IN_TEXT.findall(notes.get(name, "")))
        for label in sorted(used - labels - frozenset(rule.body.get("labels", {}))):
            yield f"its {name} shows {label}, which the expression has dropped"
    page = f"docs/runbooks/{rule.alert}.md"
    if notes.get("runbook_url") != page:
        yield f"its runbook_url is not {page}"


def _judge_pages(alerts: frozenset[str], folder: Path) -> Iterator[str]:
    pages = {path.stem: path for path in sorted(folder.glob("*.md"))}
    for name in sorted(alerts - pages.keys()):
        yield f"runbooks: {name} has no page"
    for name, path in pages.items():
        text = path.read_text(encoding="utf-8")
        if name not in alerts:
            yield f"runbooks/{path.name}: no alert is called so"
        if not text.startswith(f"# {name}\n"):
            yield f"runbooks/{path.name}: its heading is another"
        for part in PARTS:
            if part not in text:
                yield f"runbooks/{path.name}: it lacks {part.strip(' :').strip()}"


def lint(
    given: list[Rule] | None = None,
    queries: list[Query] | None = None,
    runbooks: Path = RUNBOOKS,
) -> list[str]:
    """Return what does not agree, a sentence each; nothing where all is well."""
    known = declared()
    found = rules() if given is None else given
    asked = [*dashboard_queries(), *runbook_queries(runbooks)] if queries is None else queries
    reader = Reader(known)
    reader.learn(found)
    judged = []
    for rule in found:
        if rule.alert is not None:
            labels = reader.labels_of(rule.query)
            judged += [f"{rule.where}: {what}" for what in _judge_alert(rule, labels)]
    for query in asked:
        reader.labels_of(query)
    names = frozenset(rule.alert for rule in found if rule.alert is not None)
    return [*dict.fromkeys([*reader.findings, *judged, *_judge_pages(names, runbooks)])]


def main() -> int:
    """Print what does not agree."""
    found = lint()
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
