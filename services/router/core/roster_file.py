"""Rosters in files: `agents.yaml` and tables (CSV), read into agents, written from them, and compared with who is there.

A table has a line for each agent and names its columns; a column that it lacks leaves what an agent has. Every cell that
cannot be is told by line, column, value and what could stand there; one is enough, and nothing of the table counts.
"""

import csv
import io
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import ValidationError

from schemas.roster import AgentSet, Shift
from services.router.core.policy.policy_model import AgentModel, AgentsModel, RoutingModel

COLUMNS: Final = (
    "agent_id", "name", "domain", "queues", "skills", "languages", "capacity", "channel_limits", "calendar",
    "shifts", "auto_accept",
)  # fmt: skip
DEFAULT_DOMAIN: Final = "main"
ROWS_MAX: Final = 100_000
CELL_LENGTH_MAX: Final = 20_000
VALUE_LENGTH_SHOWN: Final = 60

Key = tuple[str, str]
"""Domain and agent id."""

_AGENT_ID: Final = re.compile(r"[!-.0-~]{1,200}")
"""What the gateway's paths take: printable ASCII without a space or a slash."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_NUMBER: Final = re.compile(r"[0-9]{1,6}")
"""Six digits hold the largest number there is; of more, `int` would read thousands."""
_SEPARATOR: Final = re.compile(r"\ufeff?\"?sep=([,;\t|])\"?[,;\t|]*", re.IGNORECASE)
"""A first line with which a spreadsheet is told what parts the columns; it is no part of the table."""
_BREAKS: Final = re.compile(r"[\s,;|]+")


@dataclass(frozen=True, slots=True)
class CellMistake:
    """What cannot stand where it stands. `column` is empty where the whole line is wrong."""

    file: str
    line: int
    column: str
    value: str
    allowed: str

    def __str__(self) -> str:
        where = f"{self.file}: line {self.line}"
        shown = self.value
        if len(shown) > VALUE_LENGTH_SHOWN:
            shown = shown[: VALUE_LENGTH_SHOWN - 1] + "…"
        return (
            f"{where}, {self.column}: {shown!r}: {self.allowed}"
            if self.column
            else (f"{where}: {self.allowed}")
        )


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table: which agent, and what it says of them, by the fields of `AgentSet`."""

    line: int
    key: Key
    given: Mapping[str, Any]


def agent_events(roster: AgentsModel) -> tuple[AgentSet, ...]:
    """Return one `agent.set` for each agent of the file, by id. Applying them twice changes nothing."""
    return tuple(_event(agent_id, agent) for agent_id, agent in sorted(roster.agents.items()))


def _event(agent_id: str, agent: AgentModel) -> AgentSet:
    given = {name: getattr(agent, name) for name in type(agent).model_fields}
    for name in ("skills", "languages", "channel_limits"):
        given[name] = dict(sorted(given[name].items()))
    return AgentSet(agent_id=agent_id, **given)


# --------------------------------------------------------------------------------------------- reading a table


def read_table(
    text: str, file: str, routing: RoutingModel, domain: str | None = None
) -> tuple[tuple[Row, ...], tuple[CellMistake, ...]]:
    """Return a table's rows, and all that is wrong with it.

    `domain` is the only one that may stand in it, and the one of lines that name none; without it that is `main`.
    """
    reader = _Reader(file, routing, domain)
    rows = tuple(reader.rows(text))
    return rows, tuple(reader.mistakes)


def delimiter_of(first_line: str) -> str:
    """Return what parts the columns: the one of semicolon, comma and tab that stands most often in the first line."""
    return max((",", ";", "\t"), key=first_line.count)


def _without_empty_end(cells: list[str]) -> list[str]:
    """Return a line without the empty cells at its end: some programs end each line with what parts the columns."""
    end = len(cells)
    while end and not cells[end - 1]:
        end -= 1
    return cells[:end]


class _Reader:
    """Reads one table and notes what is wrong."""

    def __init__(self, file: str, routing: RoutingModel, domain: str | None) -> None:
        self._file = file
        self._routing = routing
        self._domain = domain
        self._line = 1
        self.mistakes: list[CellMistake] = []

    def rows(self, text: str) -> Iterator[Row]:
        """Return the good lines."""
        lines = self._lines(text)
        header = next(lines, None)
        if header is None:
            self._wrong("", "", f"is empty; the first line names the columns: {', '.join(COLUMNS)}")
            return
        columns = self._columns(header)
        if columns is None:
            return
        seen: dict[Key, int] = {}
        for cells in lines:
            if len(seen) >= ROWS_MAX:
                self._wrong("", "", f"more than {ROWS_MAX} agents; import them in several files")
                return
            row = self._row(cells, columns)
            if row is None:
                continue
            if row.key in seen:
                self._wrong("agent_id", row.key[1], f"stands in line {seen[row.key]} already")
                continue
            seen[row.key] = row.line
            yield row

    def _lines(self, text: str) -> Iterator[list[str]]:
        first, _, rest = text.partition("\n")
        said = _SEPARATOR.fullmatch(first.strip("\r"))
        reader = csv.reader(
            io.StringIO(rest if said else text, newline=""),
            delimiter=said[1] if said else delimiter_of(first),
            strict=True,
        )
        before = 1 if said else 0
        ended = before
        while True:
            self._line = ended + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self._wrong("", "", f"is no row of a table: {error}")
                return
            ended = before + reader.line_num
            if any(cell.strip() for cell in cells):
                yield [cell.strip() for cell in cells]

    def _wrong(self, column: str, value: str, allowed: str) -> None:
        self.mistakes.append(CellMistake(self._file, self._line, column, value, allowed))

    def _columns(self, header: list[str]) -> dict[str, int] | None:
        found: dict[str, int] = {}
        header = _without_empty_end(header)
        for place, cell in enumerate(header):
            name = cell.lower()
            if name not in COLUMNS:
                self._wrong("header", cell, f"no such column; known: {', '.join(COLUMNS)}")
            elif name in found:
                self._wrong("header", cell, "stands twice")
            found.setdefault(name, place)
        if "agent_id" not in found:
            self._wrong("header", ",".join(header), "needs the column agent_id")
        return found if not self.mistakes else None

    def _row(self, cells: list[str], columns: Mapping[str, int]) -> Row | None:
        before = len(self.mistakes)
        if len(cells) > len(columns):
            cells = _without_empty_end(cells)
        if len(cells) > len(columns):
            self._wrong("", "", f"has {len(cells)} cells, the header {len(columns)}")
            return None
        texts = {
            name: cells[place] if place < len(cells) else "" for name, place in columns.items()
        }
        for name, text in texts.items():
            if "\x00" in text or len(text) > CELL_LENGTH_MAX:
                self._wrong(
                    name, "…", f"must be at most {CELL_LENGTH_MAX} characters without a NUL"
                )
        agent_id = texts.pop("agent_id")
        if not _AGENT_ID.fullmatch(agent_id):
            self._wrong(
                "agent_id",
                agent_id,
                "must be 1 to 200 letters, digits and signs of ASCII without a space or a slash, such as ada",
            )
        domain = self._domain_of(texts.pop("domain", ""))
        given = {name: _READERS[name](self, text, domain) for name, text in texts.items()}
        if len(self.mistakes) > before:
            return None
        return Row(self._line, (domain, agent_id), given)

    def _domain_of(self, text: str) -> str:
        domain = text or self._domain or DEFAULT_DOMAIN
        if self._domain is not None and domain != self._domain:
            self._wrong("domain", text, f"only {self._domain} is imported (--domain)")
        else:
            self._known("domain", domain, self._routing.domains)
        return domain

    def _known(self, column: str, name: str, known: Collection[str]) -> bool:
        if name in known:
            return True
        self._wrong(
            column, name, f"no such {column.rstrip('s')}; known: {', '.join(sorted(known))}"
        )
        return False

    def name(self, text: str, domain: str) -> str:
        """Read what an agent is called."""
        del domain
        if len(text) > 200:
            self._wrong("name", text, "must be at most 200 characters")
        return text

    def queues(self, text: str, domain: str) -> tuple[str, ...]:
        """Read the queues of an agent, which are of their domain."""
        found = tuple(dict.fromkeys(name for name in _BREAKS.split(text) if name))
        for name in found:
            if not self._known("queues", name, self._routing.queues):
                continue
            home = self._routing.queues[name].domain
            if home != domain and domain in self._routing.domains:
                self._wrong("queues", name, f"belongs to the domain {home}, the agent to {domain}")
        return found

    def skills(self, text: str, domain: str) -> dict[str, int]:
        """Read skills with their levels."""
        del domain
        return self._pairs("skills", text, self._routing.skills, "orders:6 payments:3", 1, 10)

    def languages(self, text: str, domain: str) -> dict[str, int]:
        """Read languages with their levels."""
        del domain
        return self._pairs("languages", text, self._routing.languages, "en:9 tr:5", 1, 10)

    def channel_limits(self, text: str, domain: str) -> dict[str, int]:
        """Read how many tickets of a channel an agent takes at once."""
        del domain
        return self._pairs("channel_limits", text, None, "chat:3 voice:1", 0, 100_000)

    def _pairs(
        self,
        column: str,
        text: str,
        known: Collection[str] | None,
        example: str,
        low: int,
        high: int,
    ) -> dict[str, int]:
        found: dict[str, int] = {}
        for pair in filter(None, _BREAKS.split(text)):
            name, _, number = pair.partition(":")
            if not (_NUMBER.fullmatch(number) and low <= int(number) <= high):
                self._wrong(
                    column, pair, f"must be NAME:NUMBER, from {low} to {high}, such as {example}"
                )
            elif known is None and not _NAME.fullmatch(name):
                self._wrong(column, pair, f"must begin with a channel's name, such as {example}")
            elif name in found:
                self._wrong(column, pair, f"{name} stands twice")
            elif known is None or self._known(column, name, known):
                found[name] = int(number)
        return dict(sorted(found.items()))

    def capacity(self, text: str, domain: str) -> int | None:
        """Read the load that an agent can carry; None where the cell is empty, which keeps what there is."""
        del domain
        if not text:
            return None
        if not (_NUMBER.fullmatch(text) and int(text) <= 100_000):
            self._wrong("capacity", text, "must be a whole number from 0 to 100000, such as 100")
            return None
        return int(text)

    def calendar(self, text: str, domain: str) -> str | None:
        """Read the name of a calendar."""
        del domain
        if text and not _NAME.fullmatch(text):
            self._wrong("calendar", text, "must be the name of a calendar of calendars.yaml")
        return text or None

    def shifts(self, text: str, domain: str) -> tuple[Shift, ...]:
        """Read times of duty."""
        del domain
        found: list[Shift] = []
        for span in filter(None, re.split(r"[\s,;|]+", text)):
            starts_at, _, ends_at = span.partition("/")
            try:
                found.append(Shift.model_validate({"starts_at": starts_at, "ends_at": ends_at}))
            except ValidationError:
                self._wrong(
                    "shifts",
                    span,
                    "must be FROM/TO with the offset from UTC, such as 2026-11-24T09:00Z/2026-11-24T17:00Z",
                )
        return tuple(found)

    def auto_accept(self, text: str, domain: str) -> bool:
        """Read whether what an agent is offered is theirs at once."""
        del domain
        if text.lower() not in ("", "true", "false"):
            self._wrong("auto_accept", text, "must be true or false")
        return text.lower() == "true"


_READERS: Final[Mapping[str, Callable[[_Reader, str, str], Any]]] = {
    "name": _Reader.name,
    "queues": _Reader.queues,
    "skills": _Reader.skills,
    "languages": _Reader.languages,
    "capacity": _Reader.capacity,
    "channel_limits": _Reader.channel_limits,
    "calendar": _Reader.calendar,
    "shifts": _Reader.shifts,
    "auto_accept": _Reader.auto_accept,
}


def agents_of(
    rows: Iterable[Row], file: str, present: Mapping[Key, AgentSet]
) -> tuple[tuple[AgentSet, ...], tuple[CellMistake, ...]]:
    """Return the agents that a table means, given who is there; and what a new agent lacks."""
    found: list[AgentSet] = []
    mistakes: list[CellMistake] = []
    for row in rows:
        domain, agent_id = row.key
        known = present.get(row.key)
        given = {
            name: value
            for name, value in row.given.items()
            if not (name == "capacity" and value is None)
        }
        if known is not None:
            found.append(known.model_copy(update=given))
        elif "capacity" in given:
            found.append(AgentSet(domain=domain, agent_id=agent_id, **given))
        else:
            mistakes.append(
                CellMistake(
                    file,
                    row.line,
                    "capacity",
                    "",
                    "a new agent needs one, such as 100; there is no default",
                )
            )
    return tuple(found), tuple(mistakes)


def name_mistakes(agents: Iterable[AgentSet], file: str, routing: RoutingModel) -> Iterator[str]:
    """Return what agents of a YAML file name that there is not, each as a sentence."""
    for agent in agents:
        where = f"{file}: agents.{agent.agent_id}"
        if not _AGENT_ID.fullmatch(agent.agent_id):
            yield f"{where}: must be ASCII without a space or a slash, such as ada"
        if agent.domain not in routing.domains:
            yield f"{where}.domain: {agent.domain!r}: no such domain; known: {_listed(routing.domains)}"
        for name in agent.queues:
            queue = routing.queues.get(name)
            if queue is None:
                yield f"{where}.queues: {name!r}: no such queue; known: {_listed(routing.queues)}"
            elif queue.domain != agent.domain:
                yield f"{where}.queues: {name!r}: belongs to the domain {queue.domain}, the agent to {agent.domain}"
        for name in agent.skills:
            if name not in routing.skills:
                yield f"{where}.skills: {name!r}: no such skill; known: {_listed(routing.skills)}"
        for name in agent.languages:
            if name not in routing.languages:
                yield f"{where}.languages: {name!r}: no such language; known: {_listed(routing.languages)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


# ------------------------------------------------------------------------------------------------- writing


def to_table(agents: Iterable[AgentSet]) -> str:
    """Return agents as a table that `read_table` reads to the same."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for agent in _sorted(agents):
        writer.writerow([_cell(agent, column) for column in COLUMNS])
    return out.getvalue()


def _cell(agent: AgentSet, column: str) -> str:
    value = getattr(agent, column)
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else ""
        case dict():
            return " ".join(f"{name}:{number}" for name, number in sorted(value.items()))
        case tuple():
            return " ".join(_span(one) if isinstance(one, Shift) else one for one in value)
        case _:
            return str(value)


def _span(shift: Shift) -> str:
    return f"{shift.starts_at.isoformat()}/{shift.ends_at.isoformat()}"


def to_document(agents: Iterable[AgentSet]) -> dict[str, Any]:
    """Return agents as `agents.yaml` has them, without what is as it is by itself.

    Raises:
        ValueError: an agent is in two domains, which the file cannot say.
    """
    found: dict[str, Any] = {}
    for agent in _sorted(agents):
        if agent.agent_id in found:
            raise ValueError(
                f"{agent.agent_id} is in the domains {found[agent.agent_id].get('domain', DEFAULT_DOMAIN)} and"
                f" {agent.domain}; agents.yaml names an agent once, so export one with --domain"
            )
        whole = agent.model_dump(mode="json", exclude={"agent_id"}, exclude_defaults=True)
        if agent.domain == DEFAULT_DOMAIN:
            del whole["domain"]
        whole["queues"] = list(agent.queues)
        found[agent.agent_id] = {name: whole[name] for name in (*COLUMNS, *whole) if name in whole}
    return {"agents": found}


def _sorted(agents: Iterable[AgentSet]) -> list[AgentSet]:
    return sorted(agents, key=lambda agent: (agent.domain, agent.agent_id))


# ----------------------------------------------------------------------------------------------- comparing


@dataclass(frozen=True, slots=True)
class Change:
    """What an import does to one agent; `details` has what changes, a phrase each."""

    kind: Literal["added", "changed", "removed", "unchanged"]
    key: Key
    agent: AgentSet
    details: tuple[str, ...] = ()


def compare(
    present: Mapping[Key, AgentSet],
    wanted: Iterable[AgentSet],
    *,
    remove_from: Collection[str] = (),
) -> tuple[Change, ...]:
    """Return what makes the roster as wanted, by domain and agent; in the domains of `remove_from` others are removed."""
    changes: list[Change] = []
    named: set[Key] = set()
    for agent in wanted:
        key = (agent.domain, agent.agent_id)
        named.add(key)
        known = present.get(key)
        if known is None:
            changes.append(Change("added", key, agent))
            continue
        details = tuple(_differences(known, agent))
        changes.append(Change("changed" if details else "unchanged", key, agent, details))
    changes += [
        Change("removed", key, agent)
        for key, agent in present.items()
        if key not in named and key[0] in remove_from
    ]
    return tuple(sorted(changes, key=lambda change: change.key))


def _differences(before: AgentSet, after: AgentSet) -> Iterator[str]:
    for column in COLUMNS[1:]:
        old, new = getattr(before, column), getattr(after, column)
        match old, new:
            case dict(), dict():
                for name in sorted({*old, *new}):
                    if old.get(name) != new.get(name):
                        yield f"{column} {name}: {old.get(name, '–')} → {new.get(name, '–')}"
            case tuple(), tuple() if column == "queues":
                # In which order they are named means nothing.
                yield from (f"queues: +{name}" for name in new if name not in old)
                yield from (f"queues: -{name}" for name in old if name not in new)
            case _:
                if old != new:
                    yield f"{column}: {_cell(before, column) or '–'} → {_cell(after, column) or '–'}"
