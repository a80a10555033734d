"""Every error a person can meet is one sentence that says what to do, and never a traceback."""

from importlib.metadata import version

import asyncpg
import pytest
from aiokafka.errors import KafkaConnectionError
from typer.testing import CliRunner

from chassis.errors import ConfigurationError, PolicyError
from chassis.local import LocalPlatformError
from cli import main as command
from cli.errors import CommandError, UsageMistake, sentence, unexpected


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (CommandError("No such ticket."), "No such ticket."),
        (ConfigurationError("SIGNALBOX_KAFKA is not set"), "SIGNALBOX_KAFKA is not set"),
        (
            PolicyError("sla.yaml", "default", "gold", "one of standard"),
            "sla.yaml: default: 'gold': one of standard",
        ),
        (LocalPlatformError("No Java was found; install one."), "No Java was found; install one."),
        (KafkaConnectionError("no brokers"), "SIGNALBOX_KAFKA"),
        (asyncpg.UndefinedTableError('relation "ticket" does not exist'), "signalbox db migrate"),
        (asyncpg.InvalidCatalogNameError('database "x" does not exist'), "create it"),
        (asyncpg.InvalidPasswordError("password authentication failed"), "SIGNALBOX_DATABASE_URL"),
        (asyncpg.InsufficientPrivilegeError("permission denied"), "does not allow that"),
        (asyncpg.CannotConnectNowError("starting up"), "PostgreSQL does not answer"),
        (ConnectionRefusedError(111, "Connection refused"), "signalbox up"),
        (TimeoutError(), "No answer in time"),
        (FileNotFoundError(2, "No such file or directory", "x.eml"), "x.eml: No such file"),
    ],
)
def test_an_expected_error_is_a_sentence(error: Exception, told: str) -> None:
    said = sentence(error)
    assert said is not None
    assert told in said
    assert "Traceback" not in said


def test_an_error_that_nobody_expected_names_itself_and_the_way_to_see_more() -> None:
    error = ZeroDivisionError("division by zero")
    assert sentence(error) is None
    assert "ZeroDivisionError: division by zero" in unexpected(error)
    assert "--debug" in unexpected(error)


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["signalbox", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    return int(ended.value.code or 0)


def test_a_command_that_fails_says_why_on_standard_error_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*arguments: object) -> None:
        raise CommandError("That cannot be done; do this.")

    monkeypatch.setattr(command, "app", fails)
    assert run_main(monkeypatch, "topics", "check") == 1
    assert capsys.readouterr().err == "signalbox: That cannot be done; do this.\n"


def test_what_was_typed_wrongly_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "serve", "nonsense") == 2
    assert "ingest, router, sla, notifier" in capsys.readouterr().err


def test_debug_shows_the_error_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> None:
        raise UsageMistake("Not so.")

    monkeypatch.setattr(command, "app", fails)
    monkeypatch.setattr("sys.argv", ["signalbox", "demo", "--debug"])
    with pytest.raises(UsageMistake):
        command.main()


def test_every_command_that_the_readme_names_exists() -> None:
    for words in (
        ["demo"], ["up"], ["down"], ["serve"], ["topics", "apply"], ["topics", "check"], ["db", "migrate"],
        ["policy", "check"], ["roster", "apply"], ["mail", "import"], ["ticket", "show"], ["tail"],
        ["deadletters", "list"], ["deadletters", "show"], ["deadletters", "replay"], ["ledger", "show"],
        ["ledger", "resume"], ["doctor"], ["sla", "due"], ["sla", "elapsed"], ["sla", "open"], ["bench", "hop"],
    ):  # fmt: skip
        result = CliRunner().invoke(command.app, [*words, "--help"])
        assert result.exit_code == 0, words
        assert "Usage" in result.output


def test_the_command_says_which_version_it_is() -> None:
    done = CliRunner().invoke(command.app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"signalbox {version('signalbox')}\n")
