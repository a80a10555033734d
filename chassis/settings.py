"""What an operator sets: environment variables `SIGNALBOX_…`, each with its unit, default and reason.

Policy (who gets what, when) is no setting: see `chassis.policy`. Secrets are read from the environment or from files
(`SIGNALBOX_TOKEN_SECRET_FILE=/run/secrets/token`) and never shown.
"""

import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from chassis.errors import ConfigurationError
from schemas.topics import DEFAULT_PARTITIONS

PREFIX = "SIGNALBOX_"


class Settings(BaseSettings):
    """Settings that every service has. Services add their own by subclassing."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True
    )

    kafka: str = Field(description="Bootstrap servers, `host:port` with commas between. Required.")
    database_url: SecretStr = Field(description="PostgreSQL DSN, version 17 or later. Required.")
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

    @property
    def dsn(self) -> str:
        """The DSN in clear, for the driver and nobody else."""
        return self.database_url.get_secret_value()

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
            name = str(problem["loc"][0]) if problem["loc"] else "settings"
            field = kind.model_fields.get(name)
            purpose = f" ({field.description})" if field is not None and field.description else ""
            what = "is not set" if problem["type"] == "missing" else problem["msg"]
            lines.append(f"{PREFIX}{name.upper()} {what}{purpose}")
        raise ConfigurationError("; ".join(lines)) from None
