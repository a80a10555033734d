"""The notifier's settings: how to reach the mail server, and how long to wait for it."""

from typing import Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from chassis.settings import Settings

TlsMode = Literal["none", "starttls", "tls"]


class NotifierSettings(Settings):
    """Settings of the chassis and of the SMTP provider."""

    token_secret: SecretStr = Field(
        description="Key of the signed reply tokens, at least 32 characters, the same as ingest's. Required."
    )
    smtp_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Mail server that takes our mail for delivery.",
    )
    smtp_port: int = Field(
        default=587,
        ge=1,
        le=65535,
        description="Its port: 587 with STARTTLS, 465 with TLS from the start (RFC 8314).",
    )
    smtp_user: str = Field(default="", description="User to log in as; empty logs in as nobody.")
    smtp_password: SecretStr = Field(default=SecretStr(""), description="That user's password.")
    smtp_tls: TlsMode = Field(
        default="starttls",
        validate_default=True,
        description="`starttls` (required, no fallback), `tls` from the start, or `none` for a server on this host.",
    )
    smtp_helo: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9.\[\]:-]*$",
        description="Name we greet the server with; empty takes this machine's.",
    )
    smtp_connections: int = Field(
        default=4, ge=1, le=100, description="Connections to the mail server at once, at most."
    )
    smtp_connect_seconds: float = Field(
        default=15.0, gt=0, description="Seconds to connect, greet and log in, at most."
    )
    smtp_command_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Seconds to wait for the answer to a command before the mail's content.",
    )
    smtp_accept_seconds: float = Field(
        default=600.0,
        gt=0,
        description="Seconds to wait for the answer to the mail itself. Giving up early leaves mails of which "
        "nobody knows whether they went out; RFC 5321 section 4.5.3.2.6 asks for 10 minutes.",
    )
    smtp_idle_seconds: float = Field(
        default=15.0, ge=0, description="Seconds an unused connection is kept for the next mail."
    )

    public_url: str = Field(
        default="",
        pattern=r"^(https://[^\s/?#@]+(/[^\s?#]*)?|http://(127\.0\.0\.1|localhost)(:\d{1,5})?)?$",
        description="Address of the gateway as customers reach it, such as https://in.example.com: the pages behind links in "
        "notices (surveys, the way out) stand there. Empty: notices have no such links, and no surveys are sent.",
    )
    provider_seconds: float = Field(
        default=20.0,
        gt=0,
        le=120,
        description="Seconds a vendor's API may take for one answer; a whole send may take half as long again. What is "
        "not answered in time and has no key is unknown, and shown to a person.",
    )
    inner_hosts: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9.,:\[\] _-]*$",
        description="Hosts, commas between, that accounts of notify.yaml may be called at although they lead to addresses that "
        "are not public. All others are refused, whatever their names lead to.",
    )

    @property
    def inner_host_names(self) -> tuple[str, ...]:
        """The hosts that may lead to inner addresses."""
        return tuple(name.strip() for name in self.inner_hosts.split(",") if name.strip())

    @field_validator("token_secret")
    @classmethod
    def _is_given(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value():
            raise ValueError(
                "is empty; make one with `openssl rand -hex 32` and give ingest the same"
            )
        return value

    @field_validator("smtp_tls")
    @classmethod
    def _no_password_in_clear(cls, value: TlsMode, info: ValidationInfo) -> TlsMode:
        password = info.data.get("smtp_password")
        if value == "none" and isinstance(password, SecretStr) and password.get_secret_value():
            raise ValueError("would send the password in clear; set it to `starttls` or `tls`")
        return value
