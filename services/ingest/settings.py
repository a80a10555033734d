"""What an operator sets for ingest, beside what every service has."""

from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from chassis.auth import ALGORITHMS, Issuer
from chassis.settings import Settings

_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class IngestSettings(Settings):
    """Ports, limits and paces of the gateway and the mail listeners."""

    gateway_host: str = Field(
        default="127.0.0.1",
        description="Address that the gateway and the SMTP listener bind to; `0.0.0.0` in a container.",
    )
    gateway_port: int = Field(
        default=8080, ge=0, le=65535, description="Port of the gateway's HTTP; 0 takes a free one."
    )
    oidc_issuer: str = Field(
        default="",
        pattern=r"^(?:https://[^\s/?#@]+(?:/[^\s?#]*)?|http://(?:127\.0\.0\.1|localhost)(?::\d{1,5})?(?:/[^\s?#]*)?)?$",
        description="OpenID provider whose access tokens open the gateway, exactly as its tokens name it (`iss`), such as"
        " `https://login.example.com/realms/shop`. Empty: only keys open it.",
    )
    oidc_audience: str = Field(
        default="",
        description="The gateway's own name at that provider (`aud` of its tokens). Required with `oidc_issuer`.",
    )
    oidc_keys_url: str = Field(
        default="",
        pattern=r"^(?:https?://[^\s#]+)?$",
        description="Where the provider publishes its keys (JWKS); empty: its discovery document says so.",
    )
    oidc_algorithms: str = Field(
        default="RS256,PS256,ES256,EdDSA",
        description="Signatures that are taken, commas between; only those with a public key can be named.",
    )
    oidc_scope_claims: str = Field(
        default="scope,scp",
        description="Claims that hold scopes, commas between, dots between nested names (`realm_access.roles`).",
    )
    oidc_scope_prefix: str = Field(
        default="",
        description="What our scopes begin with at the provider, such as `signalbox.`; others open nothing.",
    )
    oidc_agent_claim: str = Field(
        default="sub",
        min_length=1,
        description="Claim that says which agent a person is. Whoever has the scope `agent` alone speaks only as that one.",
    )
    oidc_inner_hosts: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9.,:\[\] _-]*$",
        description="Hosts, commas between, at which the provider may be asked for its keys although they lead to addresses"
        " that are not public, as one within the same cluster does.",
    )
    smtp_listen_port: int = Field(
        default=8025,
        ge=0,
        le=65535,
        description="Port of the SMTP listener; 0 takes a free one. See `smtp_enabled`.",
    )
    smtp_enabled: bool = Field(default=True, description="Whether mail is taken in by SMTP.")
    smtp_hostname: str = Field(
        default="signalbox.invalid", description="Name that the SMTP listener says it has."
    )
    smtp_bytes_max: int = Field(
        default=25 * 1024 * 1024,
        ge=10_000,
        le=50 * 1024 * 1024,
        description="Largest mail taken, in bytes; larger ones are refused with 552.",
    )
    smtp_connections_max: int = Field(
        default=200, ge=1, description="SMTP connections at a time; more are told 421."
    )
    lmtp_listen_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Port of the LMTP listener, for a mail server on the same machine or network that delivers to"
        " us; 0 opens none.",
    )
    smtp_certificate: Path | None = Field(
        default=None,
        description="PEM file with certificate chain and key; STARTTLS is offered where it is set.",
    )
    gateway_body_bytes_max: int = Field(
        default=256 * 1024,
        ge=1024,
        le=600_000,
        description="Largest HTTP body taken, in bytes; larger ones get 413.",
    )
    gateway_body_seconds: float = Field(
        default=15.0, gt=0, description="Seconds a sender has to send a body; slower ones get 408."
    )
    gateway_form_per_minute: int = Field(
        default=120,
        ge=1,
        description="Posts of one web form that are taken from one client address in a minute; more get 429. Posts"
        " that the form's own server signed are not counted. Behind a proxy, name it in `FORWARDED_ALLOW_IPS`, or all"
        " clients count as one.",
    )
    page_name: str = Field(
        default="",
        max_length=80,
        description="The shop's name on the pages that customers open from our notices (surveys, unsubscribing); empty"
        " shows none.",
    )
    request_waiters_max: int = Field(
        default=500,
        ge=0,
        description="Requests of agents that may wait at a time for what becomes of them (`Prefer: wait`); more are"
        " answered 202 at once. 0 lets nobody wait.",
    )
    channel_body_bytes_max: int = Field(
        default=4 * 1024 * 1024,
        ge=10_000,
        le=16 * 1024 * 1024,
        description="Largest webhook of a vendor taken, in bytes; larger ones get 413. WhatsApp may send 3 MB.",
    )
    channel_per_minute: int = Field(
        default=30_000,
        ge=10,
        description="Webhooks of one account, and of one sender's address, taken in a minute; more get 429.",
    )
    channel_poll_seconds: float = Field(
        default=60.0,
        ge=1,
        description="Seconds between looks into a channel that is polled, where its account says nothing else.",
    )
    webchat_days: int = Field(
        default=90,
        ge=1,
        le=3650,
        description="Days that a web chat is kept for its visitor after their last visit.",
    )
    imap_poll_seconds: float = Field(
        default=30.0,
        ge=1,
        description="Seconds between looks into a mailbox, where the account says nothing else and "
        "the server does not wake us (IDLE).",
    )
    attachments_url: str = Field(
        default="",
        description="Where attachments are kept: a folder, `s3://bucket/prefix`, `gs://bucket/prefix`,"
        " `az://container/prefix`, or `off`. Empty: the folder `attachments` in `SIGNALBOX_DATA_DIR`, else in"
        " `signalbox` in the user's state directory. Credentials come from the cloud's own variables.",
    )
    attachment_bytes_max: int = Field(
        default=25 * 1024 * 1024, ge=1, description="Largest attachment kept, in bytes."
    )
    attachments_bytes_max: int = Field(
        default=50 * 1024 * 1024, ge=1, description="Bytes of attachments kept of one message."
    )
    attachments_count_max: int = Field(
        default=50, ge=1, le=100, description="Attachments kept of one message."
    )
    attachments_refused_types: str = Field(
        default=".exe,.scr,.com,.bat,.cmd,.pif,.msi,.vbs,.vbe,.jse,.wsf,.wsh,.hta,.cpl,.jar,.lnk,.ps1,.reg",
        description="Endings (`.exe`) and media types (`application/x-msdownload`) of attachments that are not kept,"
        " commas between; empty keeps all.",
    )
    clamd: str = Field(
        default="",
        description="ClamAV daemon that looks at attachments before they are kept: `host:port`, or"
        " `unix:/path/to/socket`. While it is away, messages with attachments wait.",
    )
    phone_region: str = Field(
        default="",
        pattern=r"^(?:[A-Z]{2})?$",
        description="Country (ISO 3166-1, such as `TR`) whose phone numbers are written without a country code; empty"
        " takes only numbers with one.",
    )
    seen_days: int = Field(
        default=30,
        ge=1,
        le=400,
        description="Days that a vendor's message id is remembered, so that repeats are known.",
    )
    thread_days: int = Field(
        default=400, ge=1, description="Days that a Message-ID leads to its conversation."
    )
    interaction_days: int = Field(
        default=730,
        ge=1,
        description="Days that the first words of a customer's message are known to their later conversations.",
    )

    @field_validator("oidc_algorithms")
    @classmethod
    def _are_public(cls, value: str) -> str:
        unknown = [name for name in _listed(value) if name not in ALGORITHMS]
        if unknown or not _listed(value):
            raise ValueError(f"must be some of {', '.join(ALGORITHMS)}, with commas between")
        return value

    @model_validator(mode="after")
    def _issuer_is_whole(self) -> Self:  # noqa: N804 - an "after" validator gets the model itself
        if self.oidc_issuer and not self.oidc_audience:
            raise ValueError(
                "SIGNALBOX_OIDC_ISSUER needs SIGNALBOX_OIDC_AUDIENCE: without it a token made for anybody would open"
                " the gateway"
            )
        return self

    @model_validator(mode="after")
    def _keys_come_untouched(self) -> Self:  # noqa: N804 - an "after" validator gets the model itself
        url = urlsplit(self.oidc_keys_url)
        trusted = _LOOPBACK | {host.strip("[]").lower() for host in self.inner_host_names}
        if url.scheme == "http" and url.hostname not in trusted:
            raise ValueError(
                "SIGNALBOX_OIDC_KEYS_URL is asked in clear, so whoever sits between could put keys of their own in: use"
                " https, or name its host in SIGNALBOX_OIDC_INNER_HOSTS if it is inside"
            )
        return self

    @property
    def issuer(self) -> Issuer | None:
        """Whose access tokens are taken; None: nobody's."""
        if not self.oidc_issuer:
            return None
        return Issuer(
            self.oidc_issuer,
            self.oidc_audience,
            self.oidc_keys_url,
            _listed(self.oidc_algorithms),
            _listed(self.oidc_scope_claims),
            self.oidc_scope_prefix,
            self.oidc_agent_claim,
        )

    @property
    def inner_host_names(self) -> tuple[str, ...]:
        """The hosts that may lead to inner addresses."""
        return _listed(self.oidc_inner_hosts)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
