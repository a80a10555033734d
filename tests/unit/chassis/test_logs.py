"""Logs: one line an event, no input forges another, and what people wrote or keep secret has no way in."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from chassis import logs


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, before = list(root.handlers), root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_an_event_is_one_line_of_json_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("sla")
    logs.get("task").info("task_acquired", stage="sla", task=3, epoch=7)
    (line,) = lines(capsys)
    said = json.loads(line)
    assert said.pop("timestamp").endswith("Z")
    assert said == {
        "event": "task_acquired",
        "level": "info",
        "service": "sla",
        "part": "task",
        "stage": "sla",
        "task": 3,
        "epoch": 7,
    }


@pytest.mark.parametrize("name", sorted(logs.FORBIDDEN))
def test_a_field_that_could_carry_a_secret_or_a_body_is_replaced(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("sla")
    logs.get("task").info("something", **{name: "hunter2", name.upper(): "hunter2"})
    (line,) = lines(capsys)
    assert "hunter2" not in line
    assert json.loads(line)[name] == "[redacted]"


def test_a_bound_secret_is_replaced_too(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("sla")
    logs.get("task").bind(token="hunter2").info("something")
    assert "hunter2" not in lines(capsys)[0]


FORGERY = 'x\n{"event": "all is well"}\r\x1b[2J\x00\u2028\x85y'


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_no_input_can_forge_a_line_or_move_the_cursor(
    fmt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("sla", fmt)
    logs.get("task").warning("record_parked", detail=FORGERY, key=["a", FORGERY])
    logging.getLogger("some.library").warning("said %s", FORGERY)
    written = capsys.readouterr().err
    assert written.count("\n") == 2
    assert not any(sign in written for sign in ("\r", "\x1b[2J", "\x00", "\u2028", "\x85"))


def test_a_traceback_stays_within_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("sla")
    try:
        raise RuntimeError("broken\nhere")
    except RuntimeError:
        logs.get("task").exception("batch_failed")
    (line,) = lines(capsys)
    assert json.loads(line)["exception"].startswith("RuntimeError\n")


def test_less_than_the_level_is_not_said(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("sla", level="warning")
    logs.get("task").info("quiet")
    logs.get("task").error("loud")
    assert [json.loads(line)["event"] for line in lines(capsys)] == ["loud"]


def test_libraries_speak_in_the_same_shape(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("sla", level="debug")
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("it is %s", "late")
    (line,) = lines(capsys)
    said = json.loads(line)
    assert (said["event"], said["logger"], said["level"]) == (
        "it is late",
        "some.library",
        "warning",
    )


def test_the_service_can_be_named_once_it_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("signalbox")
    logs.name_service("router")
    logs.get("task").info("something")
    assert json.loads(lines(capsys)[0])["service"] == "router"
