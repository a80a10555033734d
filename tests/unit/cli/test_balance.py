"""The demo's arithmetic: every accepted input has one fate, and one without is missed."""

import json
from pathlib import Path

from cli.demo import summary
from cli.demo.samples import Sample
from cli.demo.summary import Books, balance


def books(**changes: object) -> Books:
    known: dict[str, object] = {
        "outcomes": {},
        "messages": {},
        "conversations": {},
        "desks": {},
        "parked": {},
    }
    return Books(**{**known, **changes})  # type: ignore[arg-type]


def test_every_fate_is_counted_once_and_the_sums_come_out() -> None:
    sums = balance(
        {"i1": "a", "i2": "a", "i3": "b", "i4": "c", "i5": "d"},
        named=["i3"],
        promised={"a": 2, "b": 1, "c": 1},
        repeats=1,
        books=books(
            outcomes={
                "i1": ("message", None),
                "i2": ("duplicate", None),
                "i3": ("ignored", "spam"),
                "i5": ("message", None),
            },
            messages={"i1": "opened", "i5": "automatic"},
            parked={"i4": "unparsable_body"},
        ),
    )
    assert (sums.accepted, sums.messages, sums.duplicates, sums.parked) == (6, 1, 2, 1)
    assert sums.ignored == {"automatic": 1, "spam": 1}
    assert sums.unaccounted == 0
    assert sums.is_even


def test_an_input_that_nobody_decided_is_missing_by_its_id() -> None:
    sums = balance({"i1": "a"}, named=[], promised={}, repeats=0, books=books())
    assert (sums.accepted, sums.unaccounted) == (1, 1)
    assert "i1" in sums.missing[0]
    assert not sums.is_even


def test_a_message_that_never_reached_the_router_is_missing() -> None:
    sums = balance({"i1": "a"}, [], {}, 0, books(outcomes={"i1": ("message", None)}))
    assert sums.unaccounted == 1


def test_an_input_that_the_gateway_named_and_kafka_never_saw_is_missing() -> None:
    sums = balance({}, named=["i9"], promised={}, repeats=0, books=books())
    assert (sums.accepted, sums.unaccounted) == (1, 1)


def test_a_mail_that_was_answered_with_250_twice_and_is_there_once_is_missing_once() -> None:
    sums = balance(
        {"i1": "a"},
        named=[],
        promised={"a": 2},
        repeats=0,
        books=books(outcomes={"i1": ("message", None)}, messages={"i1": "added"}),
    )
    assert (sums.accepted, sums.messages, sums.unaccounted) == (2, 1, 1)
    assert not sums.is_even


def test_a_mail_that_was_stored_though_its_250_was_lost_counts_as_accepted() -> None:
    """The sender sends it again, and the second copy is a duplicate: nothing is lost and nothing opens twice."""
    sums = balance(
        {"i1": "a", "i2": "a"},
        named=[],
        promised={"a": 1},
        repeats=0,
        books=books(
            outcomes={"i1": ("message", None), "i2": ("duplicate", None)},
            messages={"i1": "opened"},
        ),
    )
    assert (sums.accepted, sums.messages, sums.duplicates) == (2, 1, 1)
    assert sums.is_even


def test_a_message_parked_by_the_router_counts_as_parked() -> None:
    sums = balance(
        {"i1": "a"},
        [],
        {},
        0,
        books(outcomes={"i1": ("message", None)}, parked={"i1": "handler_failed"}),
    )
    assert (sums.messages, sums.parked, sums.unaccounted) == (0, 1, 0)


def test_the_json_line_has_exactly_the_promised_keys() -> None:
    sums = balance({}, [], {}, 0, books())
    line = json.loads(summary.to_json(sums, books(notices={"sent": 3, "suppressed": 2})))
    assert list(line) == [
        "accepted", "messages", "duplicates", "ignored", "parked", "tickets", "offered", "answered", "escalated",
        "breached", "notices", "unaccounted",
    ]  # fmt: skip
    assert line["notices"] == 3


def sample(number: str, fate: str, about: str = "", desk: str = "") -> Sample:
    return Sample(number, f"mail/{number}.eml", "", "en", fate, about, desk)  # type: ignore[arg-type]


def test_a_day_that_went_as_the_manifest_expects_surprises_nobody() -> None:
    samples = [
        sample("001", "ticket", desk="service"),
        sample("002", "joins", "001"),
        sample("003", "duplicate", "001"),
        sample("004", "ignored", "spam"),
        sample("005", "parked"),
    ]
    day = books(
        outcomes={
            "i1": ("message", None),
            "i2": ("message", None),
            "i3": ("duplicate", None),
            "i4": ("ignored", "spam"),
        },
        messages={"i1": "opened", "i2": "reopened"},
        conversations={"i1": "c1", "i2": "c1"},
        desks={"i1": "service"},
        parked={"i5": "unparsable_body"},
    )
    inputs = {"001": ["i1"], "002": ["i2"], "003": ["i3"], "004": ["i4"], "005": ["i5"]}
    assert summary.surprises(samples, inputs, [], day) == []


def test_what_went_elsewhere_is_said_with_its_file() -> None:
    samples = [
        sample("001", "ticket", desk="service"),
        sample("002", "joins", "001"),
        sample("004", "ignored", "spam"),
    ]
    day = books(
        outcomes=dict.fromkeys(("i1", "i2", "i4"), ("message", None)),
        messages={"i1": "opened", "i2": "added", "i4": "opened"},
        conversations={"i1": "c1", "i2": "c2", "i4": "c4"},
        desks={"i1": "technical"},
    )
    told = summary.surprises(samples, {"001": ["i1"], "002": ["i2"], "004": ["i4"]}, [], day)
    assert told == [
        "mail/001.eml was to go to the service desk and went to technical",
        "mail/002.eml was to join 001 and went elsewhere",
        "mail/004.eml was to be ignored: spam and became ticket",
    ]


def test_a_mail_in_the_mailbox_twice_is_found() -> None:
    assert summary.doubled_mails(["<a>", "<b>", "<a>"]) == ["<a>"]


def test_names_of_services_in_the_books_queries_are_all_four() -> None:
    text = Path(summary.__file__).read_text(encoding="utf-8")
    for service in ("ingest", "router", "sla", "notifier"):
        assert f"FROM {service}.outbox" in text
        assert f"FROM {service}.lease WHERE halted" in text
