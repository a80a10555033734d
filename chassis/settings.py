"""What an operator sets: environment variables `SIGNALBOX_…`, each with its unit, default and reason.

Policy (who gets what, when) is no setting: see `chassis.policy`. Secrets are read from the environment or from files
(`SIGNALBOX_TOKEN_SECRET_FILE=/run/secrets/token`) and never shown.
"""

import os
from pathlib import Path
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlencode, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from chassis.errors import ConfigurationError
from chassis.kafka_access import KafkaAccess, Mechanism, Protocol
from schemas.topics import DEFAULT_PARTITIONS

PREFIX = "SIGNALBOX_"


class Settings(BaseSettings):
    """Settings that every service has. Services add their own by subclassing."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True
    )

    kafka: str = Field(description="Bootstrap servers, `host:port` with commas between. Required.")
    database_url: SecretStr = Field(description="PostgreSQL DSN, version 17 or later. Required.")
    kafka_security_protocol: Protocol = Field(
        default="PLAINTEXT",
        description="How the brokers are reached: `PLAINTEXT`, `SSL` (TLS), `SASL_SSL` (TLS, and a user with a password), or"
        " `SASL_PLAINTEXT` (a user without TLS; only where nobody else is on the network).",
    )
    kafka_ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authorities that the brokers' certificates may come from; without it those that the"
        " system trusts. The brokers' names are verified in any case.",
    )
    kafka_certificate_file: Path | None = Field(
        default=None,
        description="PEM file of our own certificate chain, for brokers that ask for one (mTLS).",
    )
    kafka_key_file: Path | None = Field(
        default=None, description="PEM file of its key, where that is a file of its own."
    )
    kafka_key_password: SecretStr = Field(
        default=SecretStr(""), description="Password of that key, where it has one."
    )
    kafka_sasl_mechanism: Mechanism = Field(
        default="SCRAM-SHA-512",
        description="How user and password are shown: `SCRAM-SHA-512`, `SCRAM-SHA-256` or `PLAIN`.",
    )
    kafka_username: str = Field(
        default="", description="User at the brokers. Required with `SASL_…`."
    )
    kafka_password: SecretStr = Field(
        default=SecretStr(""), description="That user's password. Required with `SASL_…`."
    )
    database_password: SecretStr = Field(
        default=SecretStr(""),
        description="Password at PostgreSQL, where the URL has none: the URL may then stand in plain sight.",
    )
    database_sslmode: Literal["", "disable", "prefer", "require", "verify-ca", "verify-full"] = (
        Field(
            default="",
            description="How PostgreSQL is reached, as libpq's `sslmode` has it; goes before the URL's own. Empty: as the URL"
            " says, and `verify-full` where `database_ca_file` is set.",
        )
    )
    database_ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authorities that PostgreSQL's certificate may come from.",
    )
    database_certificate_file: Path | None = Field(
        default=None,
        description="PEM file of our own certificate, for a server that asks for one (mTLS).",
    )
    database_key_file: Path | None = Field(default=None, description="PEM file of its key.")
    policy: Path = Field(default=Path("policy"), description="Folder of the YAML policy files.")
    workspace: str = Field(
        default="default", description="Name of the installation in every event."
    )
    partitions: int = Field(
        default=DEFAULT_PARTITIONS,
        ge=1,
        le=1000,
        description="Partitions of every topic; fixed for the life of an installation.",
    )
    topic_prefix: str = Field(
        default="",
        pattern=r"^[a-zA-Z0-9._-]*$",
        description="Put before every topic's and group's name, where several installations share a broker.",
    )
    token_secret: SecretStr = Field(
        default=SecretStr(""),
        description="Key of the signed reply tokens, at least 32 characters. Required by "
        "ingest and notifier.",
    )
    public_url: str = Field(
        default="",
        pattern=r"^(?:https?://[^/?#]+(?:/[^?#]*)?)?$",
        description="Address under which vendors and customers reach the gateway, such as `https://in.example.com`. Twilio,"
        " HubSpot and Trello sign the address they post to, so it must be exact; empty takes it from the request. Notices have"
        " links (surveys, unsubscribing) only where it is set.",
    )
    log_format: str = Field(
        default="json", pattern="^(json|console)$", description="`json` or `console`."
    )
    log_level: str = Field(
        default="info", pattern="^(debug|info|warning|error)$", description="Least level shown."
    )
    http_host: str = Field(
        default="127.0.0.1", description="Address of the health, metrics and gateway ports."
    )
    http_port: int = Field(
        default=0, ge=0, le=65535, description="Port of health and metrics; 0 takes a free one."
    )
    grace_seconds: float = Field(
        default=20.0, gt=0, description="Seconds from SIGTERM to exit, at most."
    )
    session_timeout_seconds: float = Field(
        default=6.0,
        ge=1,
        description="How long a silent process keeps its tasks. Below 6 only where the broker's "
        "group.min.session.timeout.ms allows it.",
    )
    database_pool: int = Field(
        default=6, ge=2, le=100, description="Connections to PostgreSQL a process."
    )
    batch_records: int = Field(
        default=500, ge=1, le=5000, description="Records of one poll, at most."
    )
    cached_keys: int = Field(
        default=20_000, ge=100, description="States kept in memory a task, at most."
    )
    otlp_endpoint: str = Field(
        default="", description="OTLP/HTTP endpoint for traces; empty sends none."
    )
    failpoints: str = Field(
        default="", description="Test only: `name=action[:count]`, commas between."
    )
    failpoint_log: str = Field(
        default="", description="Test only: file that each failpoint writes to before it acts."
    )

    @field_validator("token_secret")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < 32:
            raise ValueError("is shorter than 32 characters; make one with `openssl rand -hex 32`")
        return value

    @field_validator("database_url")
    @classmethod
    def _is_one_address(cls, value: SecretStr) -> SecretStr:
        """Refuse what a driver would take apart wrongly: its error would quote a part of the password."""
        try:
            parts = urlsplit(value.get_secret_value())
            where = parts.netloc.rpartition("@")[2]
            # A port that is asked for and is none raises. There may be several hosts, each with its own.
            ports = [urlsplit(f"//{host}").port for host in where.split(",")]
            is_whole = not parts.fragment and parts.netloc.count("@") <= 1 and 0 not in ports
        except ValueError:
            is_whole = False
        if not is_whole:
            raise ValueError(
                "cannot be read as an address: write `#`, `/`, `?`, `@` and `%` of a password as %23, %2F, %3F, %40 and %25"
            )
        return value

    @field_validator(
        "kafka_ca_file", "kafka_certificate_file", "kafka_key_file",
        "database_ca_file", "database_certificate_file", "database_key_file",
    )  # fmt: skip
    @classmethod
    def _can_be_read(cls, value: Path | None) -> Path | None:
        if value is not None and not os.access(value, os.R_OK):
            raise ValueError(f"cannot read {value}; it must be a PEM file")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:  # noqa: N804 - an "after" validator gets the model itself
        protocol = self.kafka_security_protocol
        if protocol.startswith("SASL_") and not (
            self.kafka_username and self.kafka_password.get_secret_value()
        ):
            raise ValueError(
                f"{PREFIX}KAFKA_SECURITY_PROTOCOL={protocol} needs {PREFIX}KAFKA_USERNAME and {PREFIX}KAFKA_PASSWORD"
                f" (or {PREFIX}KAFKA_PASSWORD_FILE)"
            )
        files = (self.kafka_ca_file, self.kafka_certificate_file, self.kafka_key_file)
        if not protocol.endswith("SSL") and any(files):
            raise ValueError(
                f"{PREFIX}KAFKA_SECURITY_PROTOCOL={protocol} is not encrypted, so the files for TLS would not be used:"
                " set it to SSL or SASL_SSL, or take them away"
            )
        if self.kafka_key_file is not None and self.kafka_certificate_file is None:
            raise ValueError(f"{PREFIX}KAFKA_KEY_FILE needs {PREFIX}KAFKA_CERTIFICATE_FILE")
        if (self.database_key_file is None) != (self.database_certificate_file is None):
            raise ValueError(
                f"{PREFIX}DATABASE_CERTIFICATE_FILE and {PREFIX}DATABASE_KEY_FILE need each other"
            )
        if self.database_sslmode.startswith("verify") and self.database_ca_file is None:
            raise ValueError(
                f"{PREFIX}DATABASE_SSLMODE={self.database_sslmode} needs {PREFIX}DATABASE_CA_FILE"
            )
        return self

    @property
    def dsn(self) -> str:
        """The DSN in clear, for the driver and nobody else: the URL, and what the other settings say of the way there.

        All that connect take it, so none can come without them. Of a name that stands twice the driver takes the last.
        """
        mode = self.database_sslmode or ("verify-full" if self.database_ca_file else "")
        added = {
            "sslmode": mode,
            "sslrootcert": str(self.database_ca_file or ""),
            "sslcert": str(self.database_certificate_file or ""),
            "sslkey": str(self.database_key_file or ""),
            "password": self.database_password.get_secret_value(),
        }
        query = urlencode({name: value for name, value in added.items() if value})
        url = self.database_url.get_secret_value()
        return f"{url}{'&' if '?' in url else '?'}{query}" if query else url

    @property
    def kafka_access(self) -> KafkaAccess:
        """What every client of the brokers is made with."""
        return KafkaAccess(
            self.kafka,
            self.kafka_security_protocol,
            self.kafka_ca_file,
            self.kafka_certificate_file,
            self.kafka_key_file,
            self.kafka_key_password.get_secret_value(),
            self.kafka_sasl_mechanism,
            self.kafka_username,
            self.kafka_password.get_secret_value(),
        )

    def topic(self, name: str) -> str:
        """Return the name a topic has on the broker."""
        return self.topic_prefix + name


T = TypeVar("T", bound=BaseSettings)


def load_settings(kind: type[T], **overrides: Any) -> T:
    """Read settings from the environment (and `…_FILE` for secrets).

    Raises:
        ConfigurationError: names each variable that is missing or wrong, and what it is for; never its value.
    """
    from_files: dict[str, Any] = {}
    for name in kind.model_fields:
        path = os.environ.get(f"{PREFIX}{name.upper()}_FILE")
        if path:
            try:
                from_files[name] = Path(path).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ConfigurationError(
                    f"{PREFIX}{name.upper()}_FILE: cannot read {path}: {error.strerror}"
                ) from None
    try:
        return kind(**{**from_files, **overrides})
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_input=False, include_url=False, include_context=False):
            if not problem["loc"]:  # Of several settings together: the text names them.
                lines.append(problem["msg"].removeprefix("Value error, "))
                continue
            name = str(problem["loc"][0])
            field = kind.model_fields.get(name)
            purpose = f" ({field.description})" if field is not None and field.description else ""
            what = "is not set" if problem["type"] == "missing" else problem["msg"]
            lines.append(f"{PREFIX}{name.upper()} {what}{purpose}")
        raise ConfigurationError("; ".join(lines)) from None
