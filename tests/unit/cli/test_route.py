"""`signalbox route explain`: tables for one ticket, NDJSON for many, and no line stops the others."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app

POLICY = ["--policy", "policy"]
MERT = {
    "agent_id": "mert", "queues": ["service"], "skills": {"orders": 6}, "languages": {"tr": 10}, "capacity": 100,
    "load": 100,
}  # fmt: skip
ASKED = {
    "language": "tr",
    "skills": [{"skill": "payments", "level": 6, "relax_after_seconds": 300}],
}
LINE = {
    "id": 7, "now": "2026-11-24T09:00:00Z", "agents": [MERT], "ticket": {"queue": "service", "requirement": ASKED},
}  # fmt: skip


def batch(*lines: object) -> list[dict[str, Any]]:
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    result = CliRunner().invoke(app, ["route", "explain", *POLICY, "--batch"], input=text)
    assert result.exit_code == 0
    return [json.loads(line) for line in result.stdout.splitlines()]


def explain(*words: str) -> str:
    result = CliRunner().invoke(app, ["route", "explain", *POLICY, *words], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_example_of_the_documentation() -> None:
    (answer,) = batch(LINE)
    assert answer["id"] == 7
    assert answer["outcome"] == "queued"
    assert answer["excluded"] == [{"agent_id": "mert", "rules": ["skill:payments", "capacity"]}]
    assert answer["relaxations"] == [
        {"at": "2026-11-24T09:05:00Z", "relaxed": ["payments"], "admits": ["mert"]}
    ]
    assert answer["next_offer"] is None


def test_every_field_of_an_answer_is_documented() -> None:
    page = Path("docs/routing.md").read_text(encoding="utf-8")
    (answer,) = batch(LINE)
    for name in answer:
        assert f"`{name}`" in page or name == "id", name


def test_lines_are_answered_in_their_order_and_a_bad_one_stops_none() -> None:
    message = {"id": "m", "ticket": {"language": "en", "text": "The API is down"}}
    answers = batch("{nonsense", LINE, {"id": 2, "ticket": {"queue": "sales"}}, "[]", "", message)
    assert [answer["id"] for answer in answers] == [None, 7, 2, None, "m"]
    assert "is not JSON" in answers[0]["error"]
    assert answers[2]["error"] == (
        "ticket.queue: 'sales': is no queue of the policy; known: leads, service, technical"
    )
    assert answers[4]["rule"] == "the API by its name"
    assert answers[4]["agents_from"] == "agents.yaml, all available and idle"


def test_nesting_that_is_too_deep_is_a_bad_line_like_any_other() -> None:
    (answer,) = batch("[" * 100_000)
    assert (answer["id"], "error" in answer) == (None, True)


def test_one_ticket_is_shown_with_rule_people_and_what_comes() -> None:
    shown = explain("--language", "tr", "--text", "Kargo nerede?", "--now", "2026-11-24T09:00:00Z")
    assert "rule       on its way (contains: kargo)" in shown
    assert "a secret got out" in shown
    assert "asks for   language tr, delivery 3 (for 120 s)" in shown
    assert "promises   standard: first response in " in shown
    assert "offered to " in shown
    assert "2026-11-24 09:02:00" in shown
    assert "nils" in shown


def test_a_ticket_and_agents_may_come_from_files(tmp_path: Path) -> None:
    ticket, agents = tmp_path / "ticket.json", tmp_path / "agents.json"
    ticket.write_text(json.dumps(LINE["ticket"]), encoding="utf-8")
    agents.write_text(json.dumps([MERT]), encoding="utf-8")
    files = ["--ticket", str(ticket), "--agents", str(agents), "--now", "2026-11-24T09:00:00Z"]
    shown = explain(*files)
    assert "waits: nobody can take it now" in shown
    assert "skill:payments" in shown
    assert json.loads(explain(*files, "--json"))["excluded"] == [
        {"agent_id": "mert", "rules": ["skill:payments", "capacity"]}
    ]
    ticket.write_text(json.dumps(LINE), encoding="utf-8")
    assert json.loads(explain("--ticket", str(ticket), "--json"))["id"] == 7


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "must be a JSON object"),
        ('{"queue": "x"}', "ticket.queue: 'x'"),
    ],
)
def test_a_file_that_cannot_be_one_is_refused(tmp_path: Path, content: str, said: str) -> None:
    ticket = tmp_path / "ticket.json"
    ticket.write_text(content, encoding="utf-8")
    result = CliRunner().invoke(app, ["route", "explain", *POLICY, "--ticket", str(ticket)])
    assert result.exit_code != 0
    assert said in str(result.exception)


def test_a_policy_that_cannot_work_is_refused_before_any_line(tmp_path: Path) -> None:
    (tmp_path / "routing.yaml").write_text("default_language: en\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["route", "explain", "--policy", str(tmp_path), "--batch"])
    assert result.exit_code != 0
    assert "routing.yaml" in str(result.exception)
