"""TLS, users and passwords of Kafka and PostgreSQL as settings: what fits together, and that no secret is ever shown."""

import importlib
import json
import logging
import traceback
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from chassis.errors import ConfigurationError
from chassis.kafka_access import KafkaAccess
from chassis.settings import PREFIX, Settings, load_settings
from cli.parts import SERVICES, settings_type

CANARY = "canary-7d1f-of-a-password"
SECRETS = {
    "DATABASE_URL": f"postgresql://signalbox:{CANARY}@db:5432/signalbox",
    "DATABASE_PASSWORD": f"{CANARY}-2",
    "KAFKA_PASSWORD": f"{CANARY}-3",
    "KAFKA_KEY_PASSWORD": f"{CANARY}-4",
    "TOKEN_SECRET": f"{CANARY}-5-of-the-reply-tokens",
    "SMTP_PASSWORD": f"{CANARY}-6",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"{PREFIX}{name.upper()}", raising=False)
        monkeypatch.delenv(f"{PREFIX}{name.upper()}_FILE", raising=False)
    monkeypatch.setenv("SIGNALBOX_KAFKA", "broker:9093")
    monkeypatch.setenv("SIGNALBOX_DATABASE_URL", "postgresql://signalbox@db/signalbox")
    return monkeypatch


def put(environment: pytest.MonkeyPatch, **given: str) -> None:
    for name, value in given.items():
        environment.setenv(f"SIGNALBOX_{name}", value)


def refusal() -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(Settings)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


@pytest.fixture
def pem(tmp_path: Path) -> str:
    path = tmp_path / "some.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\n", encoding="utf-8")
    return str(path)


def test_without_any_of_it_connections_are_as_they_were() -> None:
    settings = load_settings(Settings)
    assert settings.kafka_access.options() == {"bootstrap_servers": "broker:9093"}
    assert settings.dsn == "postgresql://signalbox@db/signalbox"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@one:5432,two:5433/signalbox?target_session_attrs=primary",
        "postgresql://u:p@one,two/signalbox",
        "postgresql:///signalbox?host=/var/run/postgresql",
        "postgresql://u:p%40ss@[::1]:5432/signalbox",
    ],
)
def test_several_hosts_and_sockets_are_addresses_too(
    environment: pytest.MonkeyPatch, url: str
) -> None:
    put(environment, DATABASE_URL=url)
    assert load_settings(Settings).dsn == url


def test_a_password_that_would_be_cut_is_refused_and_not_shown(
    environment: pytest.MonkeyPatch,
) -> None:
    """The driver cuts at the first `@`: the rest of the password would be a host, and a part of its error."""
    put(environment, DATABASE_URL=f"postgresql://u:pa@{CANARY}:word@db:5432/signalbox")
    assert "%40" in refusal()


def test_a_user_of_the_brokers_is_told_to_every_client(environment: pytest.MonkeyPatch) -> None:
    put(
        environment,
        KAFKA_SECURITY_PROTOCOL="SASL_SSL",
        KAFKA_USERNAME="router",
        KAFKA_PASSWORD=CANARY,
    )
    options = load_settings(Settings).kafka_access.options()
    assert options["security_protocol"] == "SASL_SSL"
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("router", CANARY)
    assert options["ssl_context"].check_hostname
    assert options["ssl_context"].verify_mode.name == "CERT_REQUIRED"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "needs SIGNALBOX_KAFKA_USERNAME"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_USERNAME": "a"},
            "SIGNALBOX_KAFKA_PASSWORD_FILE",
        ),
        ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "SIGNALBOX_KAFKA_SECURITY_PROTOCOL Input should be"),
        ({"KAFKA_SASL_MECHANISM": "GSSAPI"}, "SIGNALBOX_KAFKA_SASL_MECHANISM"),
        ({"KAFKA_CA_FILE": "/no/such/ca.pem"}, "cannot read /no/such/ca.pem"),
        ({"KAFKA_CA_FILE": "PEM"}, "is not encrypted, so the files for TLS would not be used"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_KEY_FILE": "PEM"},
            "needs SIGNALBOX_KAFKA_CERTIFICATE_FILE",
        ),
        ({"DATABASE_SSLMODE": "verify-full"}, "needs SIGNALBOX_DATABASE_CA_FILE"),
        ({"DATABASE_SSLMODE": "on"}, "SIGNALBOX_DATABASE_SSLMODE"),
        ({"DATABASE_CERTIFICATE_FILE": "PEM"}, "need each other"),
    ],
)
def test_what_does_not_fit_together_is_refused_in_a_sentence(
    environment: pytest.MonkeyPatch, pem: str, given: dict[str, str], says: str
) -> None:
    put(environment, **{name: pem if value == "PEM" else value for name, value in given.items()})
    assert says in refusal()


def test_what_is_set_of_the_way_to_postgresql_is_part_of_its_address(
    environment: pytest.MonkeyPatch, pem: str
) -> None:
    put(
        environment,
        DATABASE_URL="postgresql://signalbox@db/signalbox?sslmode=prefer",
        DATABASE_CA_FILE=pem,
        DATABASE_PASSWORD="p&ss=w/rd %41",
    )
    query = parse_qs(urlsplit(load_settings(Settings).dsn).query)
    assert query["sslmode"][-1] == "verify-full"  # The driver takes the last.
    assert query["sslrootcert"] == [pem]
    assert query["password"] == ["p&ss=w/rd %41"]


@pytest.mark.parametrize("sign", ["#", "/", "?"])
def test_a_password_that_breaks_the_address_is_refused_and_no_part_of_it_shown(
    environment: pytest.MonkeyPatch, sign: str
) -> None:
    put(environment, DATABASE_URL=f"postgresql://signalbox:{CANARY}{sign}x@db/signalbox")
    assert "%23" in refusal()


@pytest.mark.parametrize("service", SERVICES)
def test_no_secret_of_a_service_is_in_any_form_of_its_settings(
    environment: pytest.MonkeyPatch, service: str
) -> None:
    put(environment, **SECRETS)
    put(environment, KAFKA_SECURITY_PROTOCOL="SASL_SSL", KAFKA_USERNAME="router")
    settings = load_settings(settings_type(service))
    shown = [
        repr(settings),
        str(settings),
        f"{settings}",
        settings.model_dump_json(),
        repr(settings.model_dump()),
        json.dumps(settings.model_dump(mode="json")),
        repr(settings.kafka_access),
        str(settings.kafka_access),
        repr(vars(settings)),
        logging.Formatter().format(
            logging.LogRecord("a", logging.ERROR, "b", 1, "%r", (settings,), None)
        ),
    ]
    assert not [text for text in shown if CANARY in text]


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_that_holds_a_secret_is_of_the_type_that_hides_it(service: str) -> None:
    importlib.import_module(f"services.{service}.settings")
    for name, field in settings_type(service).model_fields.items():
        words = set(name.split("_"))
        if words & {"password", "secret", "dsn"} or name == "database_url":
            assert field.annotation is SecretStr, name


def test_the_brokers_password_is_no_part_of_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("none", encoding="utf-8")
    access = KafkaAccess("b:1", "SASL_SSL", broken, username="a", password=CANARY)
    with pytest.raises(ConfigurationError) as caught:
        access.options()
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert "SIGNALBOX_KAFKA_CA_FILE" in str(caught.value)


def test_a_setting_of_the_issuer_without_an_audience_is_refused(
    environment: pytest.MonkeyPatch,
) -> None:
    from services.ingest.settings import IngestSettings

    put(environment, OIDC_ISSUER="https://login.example.com")
    with pytest.raises(ConfigurationError, match="a token made for anybody would open"):
        load_settings(IngestSettings)
    put(environment, OIDC_AUDIENCE="signalbox", OIDC_ALGORITHMS="RS256, HS256")
    with pytest.raises(ConfigurationError, match="SIGNALBOX_OIDC_ALGORITHMS"):
        load_settings(IngestSettings)
    put(environment, OIDC_ALGORITHMS="RS256, ES256")
    issuer = load_settings(IngestSettings).issuer
    assert issuer is not None
    assert issuer.algorithms == ("RS256", "ES256")
    put(environment, OIDC_ISSUER="http://login.example.com")
    with pytest.raises(ConfigurationError, match="SIGNALBOX_OIDC_ISSUER"):
        load_settings(IngestSettings)
