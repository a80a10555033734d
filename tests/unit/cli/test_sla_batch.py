"""`signalbox sla … --batch`: NDJSON in, NDJSON out, in order, and no line stops the others."""

import json

import pytest
from typer.testing import CliRunner

from cli.main import app

SHOP = {
    "timezone": "Europe/Istanbul",
    "hours": {"mon": [["09:00", "18:00"]], "tue": [["09:00", "18:00"]]},
}


def ask(command: str, *lines: object) -> list[dict[str, object]]:
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    result = CliRunner().invoke(app, ["sla", command, "--batch"], input=text)
    assert result.exit_code == 0
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_due_counts_open_time_only() -> None:
    monday_evening = "2026-11-23T17:00:00+03:00"
    assert ask("due", {"id": 1, "calendar": SHOP, "start": monday_evening, "seconds": 7200}) == [
        {"id": 1, "due": "2026-11-24T10:00:00+03:00"}
    ]


def test_elapsed_counts_open_time_only() -> None:
    line = {
        "id": "a",
        "calendar": SHOP,
        "start": "2026-11-23T17:00:00+03:00",
        "end": "2026-11-24T10:00:00+03:00",
    }
    assert ask("elapsed", line) == [{"id": "a", "seconds": 7200}]


def test_open_names_the_next_opening() -> None:
    line = {"id": "a", "calendar": SHOP, "at": "2026-11-23T20:00:00+03:00"}
    assert ask("open", line) == [{"id": "a", "open": False, "next": "2026-11-24T09:00:00+03:00"}]


def test_a_bad_line_answers_in_its_place_and_the_others_go_on() -> None:
    good = {"id": 2, "start": "2026-11-23T17:00:00Z", "seconds": 60}
    answers = ask("due", "{not json", {"id": 1, "start": "yesterday", "seconds": 60}, "[]", good)
    assert [answer["id"] for answer in answers] == [None, 1, None, 2]
    assert "is not JSON" in str(answers[0]["error"])
    assert "start" in str(answers[1]["error"])
    assert "due" in answers[3]


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_nothing_in_is_nothing_out(text: str) -> None:
    result = CliRunner().invoke(app, ["sla", "due", "--batch"], input=text)
    assert (result.exit_code, result.stdout) == (0, "")


def test_nesting_that_is_too_deep_is_a_bad_line_like_any_other() -> None:
    (answer,) = ask("due", "[" * 100_000)
    assert answer["id"] is None
    assert "error" in answer
