"""Settings: what is missing or wrong is said in a sentence, and no secret is ever shown."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from chassis.errors import ConfigurationError
from chassis.settings import PREFIX, Settings, load_settings

SECRET = "postgresql://signalbox:hunter2-very-secret@db/signalbox"
TOKEN = "t0ken-" + "x" * 32


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"{PREFIX}{name.upper()}", raising=False)
        monkeypatch.delenv(f"{PREFIX}{name.upper()}_FILE", raising=False)
    monkeypatch.setenv("SIGNALBOX_KAFKA", "broker:9092")
    monkeypatch.setenv("SIGNALBOX_DATABASE_URL", SECRET)
    return monkeypatch


def refusal() -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(Settings)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None, "the cause would carry the values"
    return str(caught.value)


def test_settings_come_from_the_environment_with_defaults() -> None:
    settings = load_settings(Settings)
    assert settings.kafka == "broker:9092"
    assert settings.dsn == SECRET
    assert settings.topic("tickets") == "tickets"
    assert settings.partitions == 24


def test_every_missing_variable_is_named_with_what_it_is_for(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.delenv("SIGNALBOX_KAFKA")
    environment.delenv("SIGNALBOX_DATABASE_URL")
    said = refusal()
    assert "SIGNALBOX_KAFKA is not set (Bootstrap servers" in said
    assert "SIGNALBOX_DATABASE_URL is not set (PostgreSQL DSN" in said


def test_an_empty_variable_is_as_good_as_none(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SIGNALBOX_KAFKA", "")
    assert "SIGNALBOX_KAFKA is not set" in refusal()


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("PARTITIONS", "many", "valid integer"),
        ("PARTITIONS", "0", "greater than or equal to 1"),
        ("LOG_FORMAT", "xml", "should match pattern"),
        ("HTTP_PORT", "70000", "less than or equal to 65535"),
        ("TOPIC_PREFIX", "a b", "should match pattern"),
    ],
)
def test_a_wrong_value_is_named_by_its_variable_and_not_shown(
    environment: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    environment.setenv(f"SIGNALBOX_{name}", value)
    said = refusal()
    assert f"SIGNALBOX_{name} " in said
    assert problem in said


def test_a_short_token_secret_is_refused_without_being_shown(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("SIGNALBOX_TOKEN_SECRET", "hunter2")
    assert "SIGNALBOX_TOKEN_SECRET" in (said := refusal())
    assert "openssl rand -hex 32" in said


def test_secrets_are_in_no_representation(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SIGNALBOX_TOKEN_SECRET", TOKEN)
    settings = load_settings(Settings)
    assert settings.token_secret.get_secret_value() == TOKEN
    for shown in (
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        f"{settings.__dict__}",
    ):
        assert "hunter2" not in shown
        assert TOKEN not in shown


def test_a_secret_may_come_from_a_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    environment.setenv("SIGNALBOX_TOKEN_SECRET_FILE", str(tmp_path / "token"))
    assert load_settings(Settings).token_secret == SecretStr(TOKEN)


def test_the_file_comes_before_the_variable(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "dsn").write_text("postgresql://from-the-file/")
    environment.setenv("SIGNALBOX_DATABASE_URL_FILE", str(tmp_path / "dsn"))
    assert load_settings(Settings).dsn == "postgresql://from-the-file/"


def test_a_file_that_cannot_be_read_is_named(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("SIGNALBOX_TOKEN_SECRET_FILE", str(tmp_path / "nowhere"))
    said = refusal()
    assert "SIGNALBOX_TOKEN_SECRET_FILE: cannot read" in said
    assert "No such file" in said
