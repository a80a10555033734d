"""What must hold after any attack: pure functions from what was sent, stored and published to what is wrong.

None of them asks the product: they compare the inputs that the broker acknowledged, the rows of both stages, and every
record of every topic. Each returns sentences; none means that it holds. `test_checkers_go_red.py` shows that each of them
sees what it is there for.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

SOURCE_A = "signalbox/pipeline_a"
SOURCE_B = "signalbox/pipeline_b"
TIMER_EVERY = 5
SECOND_EVERY = 3
KEPT_BYTES = 600_000
"""A dead letter keeps this much of a value."""

WRITTEN = {"inbound", "messages", "commands", "tickets", "dead-letters"}
"""Topics in which the pipeline or its driver write; the others must stay empty."""

READ = {"pipeline_a": ("inbound",), "pipeline_b": ("messages", "commands")}
SHOWN = 5


class Fate(StrEnum):
    """What must become of a record that the driver has sent."""

    APPLY = "apply"
    PARK = "park"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Sent:
    """A record that the broker has acknowledged. `n` is -1 where it is no numbered input; `value` is kept for those
    that must be parked with their bytes (None: the client library cannot give them)."""

    kind: str
    topic: str
    partition: int
    offset: int
    fate: Fate
    n: int = -1
    key: str = ""
    timer_seconds: float = 0.0
    is_too_large: bool = False
    value: bytes | None = None


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record as it lies in a topic. `is_readable` is false where the client library cannot decode it."""

    topic: str
    partition: int
    offset: int
    headers: Mapping[str, bytes | None] = field(default_factory=dict)
    value: bytes = b""
    is_readable: bool = True

    @property
    def source(self) -> str:
        """The writer that the record names."""
        return self._text("ce_source")

    @property
    def sequence(self) -> int | None:
        """The number that the record carries."""
        text = self._text("ce_sequence")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None

    @property
    def time(self) -> datetime:
        """When it was decided."""
        return datetime.fromisoformat(self._text("ce_time"))

    @property
    def type(self) -> str:
        """What it says."""
        return self._text("ce_type")

    def _text(self, name: str) -> str:
        return (self.headers.get(name) or b"").decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """Something that a stage says it has applied."""

    name: str
    key: str
    count: int
    late_ms: float | None = None
    applied_at: float = 0.0


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """How far a task says it has come."""

    task: int
    epoch: int
    offsets: Mapping[str, int]
    emitted: Mapping[str, int]
    applied: Mapping[str, int]
    n_applied: int
    n_duplicate: int
    n_ignored: int
    n_parked: int
    halted: str | None = None


@dataclass(frozen=True, slots=True)
class ParkedRow:
    """A record that a stage has set aside."""

    id: str
    task: int
    topic: str
    partition: int
    offset: int
    value: bytes | None
    reason: str
    error: str


@dataclass(frozen=True, slots=True)
class StageRows:
    """All that a stage has in PostgreSQL."""

    name: str
    history: Sequence[HistoryRow]
    leases: Sequence[LeaseRow]
    parked: Sequence[ParkedRow]
    states: Mapping[str, int]
    outbox: int = 0
    timers: int = 0
    effects: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """Everything at the end of a run. `maybe` are the inputs whose outcome the driver never heard of."""

    partitions: int
    sent: Sequence[Sent]
    maybe: frozenset[int]
    records: Mapping[tuple[str, int], Sequence[LogRecord]]
    a: StageRows
    b: StageRows

    def of_topic(self, topic: str) -> Iterator[LogRecord]:
        """All records of a topic, partition by partition, in the order of the log."""
        for number in range(self.partitions):
            yield from self.records.get((topic, number), ())

    def strangers(self) -> set[tuple[str, int, int]]:
        """Where the driver's own records lie."""
        return {(sent.topic, sent.partition, sent.offset) for sent in self.sent}


Check = Callable[[Run], list[str]]


def check_inputs_are_applied_once(run: Run) -> list[str]:
    """Each acknowledged input is applied exactly once, or parked with its bytes and a cause; nothing else is applied."""
    found = []
    rows = Counter(row.name for row in run.a.history if row.name.startswith("input "))
    parked = {(row.topic, row.partition, row.offset): row for row in run.a.parked}
    known = {f"input {n}" for n in run.maybe}
    for sent in run.sent:
        place = (sent.topic, sent.partition, sent.offset)
        if sent.topic != "inbound":
            continue
        if sent.fate is Fate.APPLY:
            known.add(f"input {sent.n}")
            if rows[f"input {sent.n}"] != 1:
                found.append(f"{sent.kind} {sent.n} was applied {rows[f'input {sent.n}']} times")
        elif place not in parked:
            found.append(f"{sent.kind} at {place} was not parked")
        else:
            found += _parked_wrongly(sent, parked.pop(place))
    found += [
        f"input {n} was applied {rows[f'input {n}']} times"
        for n in run.maybe
        if rows[f"input {n}"] > 1
    ]
    found += [f"{name} was applied and never sent" for name in sorted(set(rows) - known)]
    found += [
        f"a record at {place} was parked, and nothing was wrong with it"
        for place in parked
        if place[0] == "inbound"
    ]
    return found


def _parked_wrongly(sent: Sent, row: ParkedRow) -> list[str]:
    found = []
    if sent.value is not None and row.value != sent.value[:KEPT_BYTES]:
        found.append(f"{sent.kind} at offset {sent.offset} was parked with other bytes")
    if not row.reason or not row.error:
        found.append(f"{sent.kind} at offset {sent.offset} was parked without a cause")
    return found


def _too_large(run: Run) -> Counter[int]:
    """Return the inputs whose event was parked by the writer, because no record can hold it."""
    found: Counter[int] = Counter()
    for row in run.a.parked:
        if row.topic == "messages":
            number = re.search(rb'"n":(\d+)', (row.value or b"")[:200])
            found[int(number[1]) if number else -1] += 1
    return found


def check_events_are_applied_once_downstream(run: Run) -> list[str]:
    """What stage A did leads to exactly one application of each event in stage B, and to one event on `tickets`."""
    large = _too_large(run)
    planned = {sent.n for sent in run.sent if sent.is_too_large}
    found = [
        f"the event of input {n} was parked as too large {count} times"
        for n, count in large.items()
        if count != 1 or n not in planned
    ]
    found += [f"the too large event of input {n} was not parked" for n in planned - set(large)]
    expected: Counter[str] = Counter()
    for row in run.a.history:
        kind, _, number = row.name.partition(" ")
        if kind == "timer":
            expected[f"fired {number}"] += 1
            continue
        if int(number) not in large:
            expected[f"counted {number}"] += 1
        if row.count % SECOND_EVERY == 0:
            expected[f"thirded {number}"] += 1
    applied = Counter(row.name for row in run.b.history)
    for name in sorted(set(expected) | set(applied)):
        if expected[name] != applied[name]:
            found.append(f"{name} was applied {applied[name]} times, not {expected[name]}")
    said: Counter[tuple[str, int]] = Counter()
    for record in _firsts(run, "tickets"):
        data = json.loads(record.value)
        said[f"{data['kind']} {data['n']}", data["total"]] += 1
    meant = Counter((row.name, row.count) for row in run.b.history)
    for what in sorted(set(said) | set(meant)):
        if said[what] != meant[what]:
            found.append(f"{what} was published {said[what]} times, not {meant[what]}")
    return found


def _firsts(run: Run, topic: str) -> Iterator[LogRecord]:
    """Return the first occurrence of each numbered record of ours, in the order of the log."""
    strangers = run.strangers()
    seen: set[tuple[str, int, int]] = set()
    for record in run.of_topic(topic):
        if (record.topic, record.partition, record.offset) in strangers:
            continue
        name = (record.source, record.partition, record.sequence or 0)
        if name not in seen:
            seen.add(name)
            yield record


def check_sequences_have_no_hole(run: Run) -> list[str]:
    """First occurrences per (source, topic, partition) count 1, 2, 3 … in the log, and a repeat repeats the same."""
    found = []
    strangers = run.strangers()
    for (topic, number), records in run.records.items():
        if topic == "inbound":
            continue
        last: dict[str, int] = defaultdict(int)
        content: dict[tuple[str, int], tuple[bytes | None, bytes]] = {}
        for record in records:
            if (topic, number, record.offset) in strangers:
                continue
            sequence = record.sequence
            where = f"{record.source} on {topic}/{number} at offset {record.offset}"
            if sequence is None:
                found.append(f"{where}: carries no sequence")
                continue
            said = (record.headers.get("ce_id"), record.value)
            if sequence == last[record.source] + 1:
                last[record.source] = sequence
                content[record.source, sequence] = said
            elif sequence > last[record.source]:
                found.append(f"{where}: {sequence} follows {last[record.source]}")
                last[record.source] = sequence
            elif content.get((record.source, sequence)) != said:
                found.append(f"{where}: {sequence} names another fact than before")
    return found


def check_nothing_is_lost_at_the_tail(run: Run) -> list[str]:
    """What a writer has numbered last is what lies last in the log, and what its reader has applied last."""
    found = []
    applied = {
        stream: sequence for lease in run.b.leases for stream, sequence in lease.applied.items()
    }
    for source, stage in ((SOURCE_A, run.a), (SOURCE_B, run.b)):
        for lease in stage.leases:
            for slot, last in lease.emitted.items():
                topic, _, number = slot.rpartition("/")
                name = f"{source}/{lease.task}"
                in_log = max(
                    (
                        record.sequence or 0
                        for record in run.records.get((topic, int(number)), ())
                        if record.source == name
                    ),
                    default=0,
                )
                if in_log != last:
                    found.append(
                        f"{name} has numbered {slot} up to {last}, the log ends at {in_log}"
                    )
                read = applied.get(f"{name} {topic}", 0)
                if topic in READ["pipeline_b"] and read != last:
                    found.append(f"{name} has numbered {slot} up to {last}, applied is {read}")
    return found


def check_order_per_key(run: Run) -> list[str]:
    """Stage A counts each key's inputs in the order of the log; stage B keeps the order of each source and topic."""
    found = []
    counts = {row.name: row.count for row in run.a.history}
    rank: Counter[str] = Counter()
    for sent in sorted(_inputs_in_log(run), key=lambda one: (one.partition, one.offset)):
        count = counts.get(f"input {sent.n}")
        if count is None:
            continue
        rank[sent.key] += 1
        if count != rank[sent.key]:
            found.append(
                f"input {sent.n} of {sent.key} is number {rank[sent.key]}, counted {count}"
            )
    totals = {row.name: row.count for row in run.b.history}
    for topic in READ["pipeline_b"]:
        last: dict[tuple[str, str], int] = defaultdict(int)
        for record in _firsts(run, topic):
            data = json.loads(record.value)
            name = f"{record.type.split('.')[1]} {data['n']}"
            total, stream = totals.get(name), (record.source, data["key"])
            if total is None:
                continue
            if total <= last[stream]:
                found.append(f"{name} on {topic} was counted {total} after {last[stream]}")
            last[stream] = total
    return found


def _inputs_in_log(run: Run) -> list[Sent]:
    """Return the numbered inputs as they lie in the log, those with an unknown outcome too."""
    by_place = {(sent.partition, sent.offset): sent for sent in run.sent if sent.topic == "inbound"}
    found = []
    for record in run.of_topic("inbound"):
        sent = by_place.get((record.partition, record.offset))
        if sent is None and run.maybe and record.is_readable:
            data = json.loads(record.value)
            if data["n"] in run.maybe:
                sent = Sent(
                    "given",
                    "inbound",
                    record.partition,
                    record.offset,
                    Fate.APPLY,
                    data["n"],
                    data["key"],
                    data["timer_seconds"],
                )
        if sent is not None and sent.fate is Fate.APPLY:
            found.append(sent)
    return found


def check_timers(run: Run) -> list[str]:
    """Each timer that an input set fires exactly once, and never before its time, by the clock of the log itself."""
    found = []
    wanted = {
        sent.n: sent.timer_seconds for sent in _inputs_in_log(run) if sent.n % TIMER_EVERY == 0
    }
    applied = {row.name for row in run.a.history}
    fired = Counter(row.name for row in run.a.history if row.name.startswith("timer "))
    found += [
        f"the timer of input {n} fired {fired[f'timer {n}']} times"
        for n in wanted
        if f"input {n}" in applied and fired[f"timer {n}"] != 1
    ]
    found += [
        f"{name} fired and was never set"
        for name in fired
        if int(name.partition(" ")[2]) not in wanted
    ]
    found += [
        f"{row.name} fired {-row.late_ms:.3f} ms early"
        for row in run.a.history
        if row.late_ms is not None and row.late_ms < 0
    ]
    counted: dict[int, datetime] = {}
    for record in _firsts(run, "messages"):
        n = json.loads(record.value)["n"]
        if record.type == "test.counted.v1":
            counted[n] = record.time
        elif record.type == "test.fired.v1" and n in counted and n in wanted:
            after = (record.time - counted[n]).total_seconds()
            if after < wanted[n]:
                found.append(f"the timer of input {n} was set to {wanted[n]} s, fired at {after} s")
    return found


def check_state_is_the_sum_of_history(run: Run) -> list[str]:
    """Each tally equals the number of its key's rows, and the counts in them are 1 … n."""
    found = []
    for stage in (run.a, run.b):
        counts: dict[str, list[int]] = defaultdict(list)
        for row in stage.history:
            if not row.name.startswith("timer "):
                counts[row.key].append(row.count)
        for key in sorted(set(counts) | set(stage.states)):
            if stage.states.get(key) != len(counts[key]):
                found.append(
                    f"{stage.name}: the tally of {key} is {stage.states.get(key)},"
                    f" its history has {len(counts[key])} rows"
                )
            elif sorted(counts[key]) != list(range(1, len(counts[key]) + 1)):
                found.append(f"{stage.name}: the counts of {key} are not 1 … {len(counts[key])}")
    return found


def check_books_balance(run: Run) -> list[str]:
    """Per lease, read = applied + duplicate + ignored + parked, and each of them equals what is there to be counted."""
    found = []
    repeats = _repeats(run)
    for stage in (run.a, run.b):
        topics = READ[stage.name]
        parked = Counter(row.task for row in stage.parked if row.topic in topics)
        for lease in stage.leases:
            name = f"{stage.name}/{lease.task}"
            read = sum(lease.offsets.values())
            told = lease.n_applied + lease.n_duplicate + lease.n_ignored + lease.n_parked
            if read != told:
                found.append(f"{name}: read {read} records, accounts for {told}")
            if lease.n_parked != parked[lease.task]:
                found.append(
                    f"{name}: says {lease.n_parked} parked, there are {parked[lease.task]}"
                )
            expected = repeats[lease.task] if stage is run.b else 0
            if lease.n_duplicate != expected:
                found.append(f"{name}: says {lease.n_duplicate} duplicates, the log has {expected}")
        inputs = sum(not row.name.startswith("timer ") for row in stage.history)
        said = sum(lease.n_applied for lease in stage.leases)
        if inputs != said:
            found.append(f"{stage.name}: says {said} applied, its history has {inputs}")
    return found


def _repeats(run: Run) -> Counter[int]:
    """Return the records in stage B's topics, per partition, that repeat an earlier one."""
    repeats: Counter[int] = Counter()
    for topic in READ["pipeline_b"]:
        firsts = {(record.partition, record.offset) for record in _firsts(run, topic)}
        known = {
            (s.partition, s.offset)
            for s in run.sent
            if s.topic == topic and s.fate is not Fate.DUPLICATE
        }
        for record in run.of_topic(topic):
            if (record.partition, record.offset) not in firsts | known:
                repeats[record.partition] += 1
    return repeats


def check_everything_is_at_rest(run: Run) -> list[str]:
    """Every task has a lease, has read its topics to the end, owes nothing and stands at no gap."""
    found = []
    for stage in (run.a, run.b):
        for what, count in (
            ("events to publish", stage.outbox),
            ("timers", stage.timers),
            ("effects", stage.effects),
        ):
            if count:
                found.append(f"{stage.name}: {count} {what} are left")
        missing = set(range(run.partitions)) - {lease.task for lease in stage.leases}
        found += [f"{stage.name}/{task}: nobody has ever taken the lease" for task in missing]
        for lease in stage.leases:
            if lease.halted is not None:
                found.append(f"{stage.name}/{lease.task}: stands at a gap: {lease.halted}")
            for topic in READ[stage.name]:
                end = len(run.records.get((topic, lease.task), ()))
                if lease.offsets.get(topic, 0) != end:
                    found.append(
                        f"{stage.name}/{lease.task}: has read {topic} to"
                        f" {lease.offsets.get(topic, 0)} of {end}"
                    )
    return found


def check_dead_letters_are_told(run: Run) -> list[str]:
    """Each parked record is told of by exactly one event, and each such event is about a parked record."""
    told: Counter[str] = Counter()
    for record in _firsts(run, "dead-letters"):
        told[json.loads(record.value)["dead_letter_id"]] += 1
    parked = Counter(row.id for stage in (run.a, run.b) for row in stage.parked)
    return [
        f"dead letter {name}: {parked[name]} rows, {told[name]} events"
        for name in sorted(set(told) | set(parked))
        if not parked[name] == told[name] == 1
    ]


def check_strangers_are_parked(run: Run) -> list[str]:
    """What a stranger writes into our own topics is parked with its bytes and a cause, or dropped as a repeat."""
    found = []
    parked = {(row.topic, row.partition, row.offset): row for row in run.b.parked}
    for sent in run.sent:
        if sent.topic == "inbound":
            continue
        row = parked.pop((sent.topic, sent.partition, sent.offset), None)
        where = f"{sent.kind} on {sent.topic}/{sent.partition} at {sent.offset}"
        if sent.fate is Fate.PARK:
            found += [f"{where} was not parked"] if row is None else _parked_wrongly(sent, row)
        elif row is not None:
            found.append(f"{where} was parked")
    found += [f"a record of ours at {place} was parked" for place in parked]
    return found


def check_no_topic_is_written_by_accident(run: Run) -> list[str]:
    """Topics that are nobody's business here stay empty, whatever a header asked for."""
    return [
        f"{topic}/{number} holds {len(records)} records"
        for (topic, number), records in run.records.items()
        if topic not in WRITTEN and records
    ]


CHECKS: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        check_inputs_are_applied_once,
        check_events_are_applied_once_downstream,
        check_sequences_have_no_hole,
        check_nothing_is_lost_at_the_tail,
        check_order_per_key,
        check_timers,
        check_state_is_the_sum_of_history,
        check_books_balance,
        check_everything_is_at_rest,
        check_dead_letters_are_told,
        check_strangers_are_parked,
        check_no_topic_is_written_by_accident,
    )
}


def violations(run: Run) -> dict[str, list[str]]:
    """Return what is wrong, by check; empty where all of them hold."""
    found = {name: check(run) for name, check in CHECKS.items()}
    return {
        name: [*wrong[:SHOWN], f"… {len(wrong)} in all"] if len(wrong) > SHOWN else wrong
        for name, wrong in found.items()
        if wrong
    }
