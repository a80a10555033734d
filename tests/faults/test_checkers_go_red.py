"""Each checker sees what it is there for: a small clean run is green, and each planted violation turns it red.

A checker that cannot fail would pass every attack; so these run first, before any server is started.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.faults import checkers
from tests.faults.checkers import (
    Fate,
    HistoryRow,
    LeaseRow,
    LogRecord,
    ParkedRow,
    Run,
    Sent,
    StageRows,
    violations,
)

START = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
INPUTS = 12
KEYS = ("k0", "k1")
TIMER_SECONDS = 1.5
TOO_LARGE = 7
GARBAGE = b"not json"


class Clean:
    """A run by hand: 12 inputs of two keys in two partitions, one of which makes too large an event, and garbage."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[LogRecord]] = {
            (topic, number): []
            for topic in ("inbound", "messages", "commands", "tickets", "dead-letters", "sla")
            for number in (0, 1)
        }
        self.sent: list[Sent] = []
        self.history: dict[str, list[HistoryRow]] = {"a": [], "b": []}
        self.parked: list[ParkedRow] = []
        self.counts: dict[tuple[str, str], int] = {}
        self.duplicates = 0

    def run(self) -> Run:
        for n in range(INPUTS):
            self._input(n)
        self._garbage()
        self._repeat_the_last()
        return Run(
            2,
            self.sent,
            frozenset(),
            self.records,
            self._stage("a", checkers.SOURCE_A),
            self._stage("b", checkers.SOURCE_B),
        )

    def _count(self, stage: str, key: str) -> int:
        self.counts[stage, key] = self.counts.get((stage, key), 0) + 1
        return self.counts[stage, key]

    def _input(self, n: int) -> None:
        key, number = KEYS[n % 2], n % 2
        at = START + timedelta(seconds=n)
        said = {"key": key, "n": n, "timer_seconds": TIMER_SECONDS}
        offset = self._append("inbound", number, "driver", None, "test.given.v1", said, at)
        self.sent.append(
            Sent(
                "given",
                "inbound",
                number,
                offset,
                Fate.APPLY,
                n,
                key,
                TIMER_SECONDS,
                n == TOO_LARGE,
            )
        )
        count = self._count("a", key)
        self.history["a"].append(HistoryRow(f"input {n}", key, count))
        if n == TOO_LARGE:
            value = f'{{"key":"{key}","n":{n},"count":{count},"padding":"ppp"}}'.encode()
            self._park("pipeline_a", number, "messages", 99, value, "too_large", at)
        else:
            self._derived("messages", "counted", number, key, n, at)
        if count % 3 == 0:
            self._derived("commands", "thirded", number, key, n, at)
        if n % 5 == 0:
            self.history["a"].append(HistoryRow(f"timer {n}", key, count, late_ms=3.0))
            later = at + timedelta(seconds=TIMER_SECONDS, milliseconds=3)
            self._derived("messages", "fired", number, key, n, later)

    def _derived(self, topic: str, kind: str, number: int, key: str, n: int, at: datetime) -> None:
        source = f"{checkers.SOURCE_A}/{number}"
        self._emit(topic, number, source, f"test.{kind}.v1", {"key": key, "n": n}, at)
        total = self._count("b", key)
        self.history["b"].append(HistoryRow(f"{kind} {n}", key, total))
        said = {"key": key, "kind": kind, "n": n, "total": total}
        self._emit("tickets", number, f"{checkers.SOURCE_B}/{number}", "test.summed.v1", said, at)

    def _garbage(self) -> None:
        offset = self._append("inbound", 1, "stranger", None, "test.given.v1", {}, START)
        self.records["inbound", 1][-1] = replace(self.records["inbound", 1][-1], value=GARBAGE)
        self.sent.append(Sent("garbage", "inbound", 1, offset, Fate.PARK, value=GARBAGE))
        self._park("pipeline_a", 1, "inbound", offset, GARBAGE, "invalid_payload", START)

    def _repeat_the_last(self) -> None:
        last = self.records["messages", 1][-1]
        again = replace(last, offset=last.offset + 1)
        self.records["messages", 1].append(again)
        self.duplicates = 1

    def _park(
        self,
        stage: str,
        number: int,
        topic: str,
        offset: int,
        value: bytes,
        reason: str,
        at: datetime,
    ) -> None:
        name = f"d-{topic}-{offset}"
        self.parked.append(ParkedRow(name, number, topic, number, offset, value, reason, "why"))
        self._emit(
            "dead-letters",
            number,
            f"signalbox/{stage}/{number}",
            "deadletter.parked.v1",
            {"dead_letter_id": name},
            at,
        )

    def _emit(
        self, topic: str, number: int, source: str, kind: str, said: dict[str, Any], at: datetime
    ) -> None:
        last = [r.sequence or 0 for r in self.records[topic, number] if r.source == source]
        self._append(topic, number, source, max(last, default=0) + 1, kind, said, at)

    def _append(
        self,
        topic: str,
        number: int,
        source: str,
        sequence: int | None,
        kind: str,
        said: dict[str, Any],
        at: datetime,
    ) -> int:
        rows = self.records[topic, number]
        headers: dict[str, bytes | None] = {
            "ce_type": kind.encode(),
            "ce_source": source.encode(),
            "ce_id": f"{kind} {said.get('n')}".encode(),
            "ce_time": at.isoformat().encode(),
        }
        if sequence is not None:
            headers["ce_sequence"] = str(sequence).encode()
        rows.append(LogRecord(topic, number, len(rows), headers, json.dumps(said).encode()))
        return len(rows) - 1

    def _stage(self, which: str, source: str) -> StageRows:
        name = f"pipeline_{which}"
        history = self.history[which]
        parked = self.parked if which == "a" else []
        leases = []
        for number in (0, 1):
            offsets = {t: len(self.records[t, number]) for t in checkers.READ[name]}
            rows = [r for r in history if r.key == KEYS[number] and "timer" not in r.name]
            leases.append(
                LeaseRow(
                    number,
                    1,
                    offsets,
                    self._last(f"{source}/{number}", number),
                    self._applied(number) if which == "b" else {},
                    len(rows),
                    self.duplicates if which == "b" and number == 1 else 0,
                    0,
                    sum(row.topic in checkers.READ[name] for row in parked if row.task == number),
                )
            )
        states = {key: self.counts[which, key] for key in KEYS}
        return StageRows(name, history, leases, parked, states)

    def _last(self, source: str, number: int) -> dict[str, int]:
        found = {}
        for (topic, partition), rows in self.records.items():
            mine = [r.sequence or 0 for r in rows if r.source == source]
            if mine and partition == number:
                found[f"{topic}/{partition}"] = max(mine)
        return found

    def _applied(self, number: int) -> dict[str, int]:
        source = f"{checkers.SOURCE_A}/{number}"
        last = self._last(source, number)
        return {f"{source} {t}": last[f"{t}/{number}"] for t in checkers.READ["pipeline_b"]}


def _swap(rows: list[HistoryRow], one: str, other: str) -> list[HistoryRow]:
    """Exchange the counts of two rows."""
    counts = {row.name: row.count for row in rows}
    counts[one], counts[other] = counts[other], counts[one]
    return [replace(row, count=counts[row.name]) for row in rows]


def _with_a(run: Run, **changes: Any) -> Run:
    return replace(run, a=replace(run.a, **changes))


def _with_b(run: Run, **changes: Any) -> Run:
    return replace(run, b=replace(run.b, **changes))


def _without(rows: Any, name: str) -> list[HistoryRow]:
    return [row for row in rows if row.name != name]


def _lease(run: Run, task: int, **changes: Any) -> list[LeaseRow]:
    return [replace(row, **changes) if row.task == task else row for row in run.b.leases]


def _with_log(run: Run, topic: str, number: int, change: Callable[[list[LogRecord]], None]) -> Run:
    rows = list(run.records[topic, number])
    change(rows)
    return replace(run, records={**run.records, (topic, number): rows})


def _renumbered(record: LogRecord, sequence: int) -> LogRecord:
    return replace(record, headers={**record.headers, "ce_sequence": str(sequence).encode()})


def _hole(rows: list[LogRecord]) -> None:
    rows[1:] = [_renumbered(row, (row.sequence or 0) + 1) for row in rows[1:]]


def _another_fact(rows: list[LogRecord]) -> None:
    rows[-1] = replace(rows[-1], value=b'{"key":"k1","n":999}')


def _fired_early(rows: list[LogRecord]) -> None:
    for index, row in enumerate(rows):
        if row.type == "test.fired.v1" and json.loads(row.value)["n"] == 0:
            early = START + timedelta(seconds=TIMER_SECONDS, milliseconds=-1)
            rows[index] = replace(
                row, headers={**row.headers, "ce_time": early.isoformat().encode()}
            )


def _stranger_in(run: Run) -> Run:
    at = len(run.records["messages", 0])
    stranger = Sent("forged", "messages", 0, at, Fate.PARK, value=b"{}")
    run = _with_log(run, "messages", 0, lambda rows: rows.append(LogRecord("messages", 0, at)))
    return replace(run, sent=[*run.sent, stranger])


PLANTED: dict[str, tuple[str, Callable[[Run], Run]]] = {
    "an input is dropped": (
        "check_inputs_are_applied_once",
        lambda run: _with_a(run, history=_without(run.a.history, "input 3")),
    ),
    "an input is applied twice": (
        "check_inputs_are_applied_once",
        lambda run: _with_a(run, history=[*run.a.history, HistoryRow("input 3", "k1", 7)]),
    ),
    "an input that nobody sent is applied": (
        "check_inputs_are_applied_once",
        lambda run: _with_a(run, history=[*run.a.history, HistoryRow("input 77", "k1", 7)]),
    ),
    "a poisonous record vanishes": (
        "check_inputs_are_applied_once",
        lambda run: _with_a(run, parked=[p for p in run.a.parked if p.topic != "inbound"]),
    ),
    "a poisonous record is parked with other bytes": (
        "check_inputs_are_applied_once",
        lambda run: _with_a(run, parked=[replace(p, value=b"!") for p in run.a.parked]),
    ),
    "a good record is parked": (
        "check_inputs_are_applied_once",
        lambda run: _with_a(
            run, parked=[*run.a.parked, ParkedRow("d", 0, "inbound", 0, 0, b"", "why", "why")]
        ),
    ),
    "a derived event is dropped": (
        "check_events_are_applied_once_downstream",
        lambda run: _with_b(run, history=_without(run.b.history, "counted 4")),
    ),
    "a derived event is applied twice": (
        "check_events_are_applied_once_downstream",
        lambda run: _with_b(run, history=[*run.b.history, HistoryRow("counted 4", "k0", 99)]),
    ),
    "a too large event is not parked": (
        "check_events_are_applied_once_downstream",
        lambda run: _with_a(run, parked=[p for p in run.a.parked if p.topic == "inbound"]),
    ),
    "what stage B says is not what it did": (
        "check_events_are_applied_once_downstream",
        lambda run: _with_log(run, "tickets", 0, lambda rows: rows.__delitem__(-1)),
    ),
    "the log has a hole": (
        "check_sequences_have_no_hole",
        lambda run: _with_log(run, "messages", 0, _hole),
    ),
    "an old sequence names another fact": (
        "check_sequences_have_no_hole",
        lambda run: _with_log(run, "messages", 1, _another_fact),
    ),
    "the last event never reached the log": (
        "check_nothing_is_lost_at_the_tail",
        lambda run: _with_log(run, "messages", 0, lambda rows: rows.__delitem__(-1)),
    ),
    "the reader stands before the end of a stream": (
        "check_nothing_is_lost_at_the_tail",
        lambda run: _with_b(
            run, leases=_lease(run, 0, applied={f"{checkers.SOURCE_A}/0 messages": 3})
        ),
    ),
    "two inputs of a key are applied in the wrong order": (
        "check_order_per_key",
        lambda run: _with_a(run, history=_swap(list(run.a.history), "input 2", "input 4")),
    ),
    "two events of a source are applied in the wrong order": (
        "check_order_per_key",
        lambda run: _with_b(run, history=_swap(list(run.b.history), "counted 2", "counted 4")),
    ),
    "a timer never fires": (
        "check_timers",
        lambda run: _with_a(run, history=_without(run.a.history, "timer 5")),
    ),
    "a timer fires twice": (
        "check_timers",
        lambda run: _with_a(run, history=[*run.a.history, HistoryRow("timer 5", "k1", 3, 1.0)]),
    ),
    "a timer says itself that it is early": (
        "check_timers",
        lambda run: _with_a(
            run,
            history=[
                replace(row, late_ms=-1.0) if row.name == "timer 5" else row
                for row in run.a.history
            ],
        ),
    ),
    "a timer is early by the log's own times": (
        "check_timers",
        lambda run: _with_log(run, "messages", 0, _fired_early),
    ),
    "a tally is wrong": (
        "check_state_is_the_sum_of_history",
        lambda run: _with_a(run, states={**run.a.states, "k0": 5}),
    ),
    "a count is given twice": (
        "check_state_is_the_sum_of_history",
        lambda run: _with_b(
            run,
            history=[
                replace(row, count=1) if row.name == "counted 4" else row for row in run.b.history
            ],
        ),
    ),
    "more was read than accounted for": (
        "check_books_balance",
        lambda run: _with_b(run, leases=_lease(run, 0, n_applied=run.b.leases[0].n_applied - 1)),
    ),
    "a duplicate is not counted": (
        "check_books_balance",
        lambda run: _with_b(
            run,
            leases=_lease(run, 1, n_duplicate=0, n_ignored=1),
        ),
    ),
    "an event is left in the outbox": (
        "check_everything_is_at_rest",
        lambda run: _with_a(run, outbox=1),
    ),
    "a timer is left": ("check_everything_is_at_rest", lambda run: _with_a(run, timers=1)),
    "a task stands at a gap": (
        "check_everything_is_at_rest",
        lambda run: _with_b(run, leases=_lease(run, 0, halted='{"reason":"sequence_gap"}')),
    ),
    "a topic is not read to its end": (
        "check_everything_is_at_rest",
        lambda run: _with_b(
            run, leases=_lease(run, 0, offsets={**run.b.leases[0].offsets, "messages": 2})
        ),
    ),
    "a task has no lease": (
        "check_everything_is_at_rest",
        lambda run: _with_b(run, leases=run.b.leases[:1]),
    ),
    "a dead letter is not told of": (
        "check_dead_letters_are_told",
        lambda run: replace(run, records={**run.records, ("dead-letters", 1): []}),
    ),
    "a stranger's record is not parked": ("check_strangers_are_parked", _stranger_in),
    "a topic is written that nobody should write": (
        "check_no_topic_is_written_by_accident",
        lambda run: _with_log(run, "sla", 0, lambda rows: rows.append(LogRecord("sla", 0, 0))),
    ),
}


def test_a_clean_run_is_green() -> None:
    assert violations(Clean().run()) == {}


@pytest.mark.parametrize("planted", PLANTED)
def test_the_right_checker_goes_red_when(planted: str) -> None:
    check, plant = PLANTED[planted]
    assert check in violations(plant(Clean().run()))


def test_every_checker_is_seen_to_go_red() -> None:
    assert {check for check, _ in PLANTED.values()} == set(checkers.CHECKS)


def test_an_input_with_an_unknown_outcome_may_be_applied_once_or_not_at_all() -> None:
    run = Clean().run()
    unknown = replace(
        run, sent=[sent for sent in run.sent if sent.n != 3], maybe=frozenset({3, 500})
    )
    assert violations(unknown) == {}
    twice = _with_a(unknown, history=[*run.a.history, HistoryRow("input 3", "k1", 7)])
    assert "check_inputs_are_applied_once" in violations(twice)
