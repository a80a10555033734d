"""How every client reaches the brokers: where they are, over TLS or not, and as whom.

One value is handed to consumers, producers and admin clients alike, so none of them can be forgotten. Files are read when
a client is made: a certificate that was renewed counts from the next client on. The password is in no text form of it.
"""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from chassis.errors import ConfigurationError

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

_ENCRYPTED: Final = frozenset({"SSL", "SASL_SSL"})


@dataclass(frozen=True, slots=True)
class KafkaAccess:
    """The brokers' address and what they ask of whoever comes.

    `ca_file` are the authorities that their certificates may come from (None: the system's); `certificate_file` and
    `key_file` are our own, for brokers that ask for one.
    """

    bootstrap: str
    protocol: Protocol = "PLAINTEXT"
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    key_password: str = field(default="", repr=False)
    mechanism: Mechanism = "SCRAM-SHA-512"
    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def is_encrypted(self) -> bool:
        """Whether connections are TLS."""
        return self.protocol in _ENCRYPTED

    @property
    def has_login(self) -> bool:
        """Whether a user and a password are shown."""
        return self.protocol.startswith("SASL_")

    def tls(self) -> ssl.SSLContext | None:
        """Return how TLS is spoken: the broker's certificate and name are verified, always. None: in clear.

        Raises:
            ConfigurationError: a file is missing, or holds no certificate or key.
        """
        if not self.is_encrypted:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.certificate_file is not None:
                # A key without a password must not ask the terminal for one.
                context.load_cert_chain(
                    self.certificate_file, self.key_file, lambda: self.key_password
                )
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                "SIGNALBOX_KAFKA_CA_FILE, _CERTIFICATE_FILE and _KEY_FILE must be PEM files that fit each other:"
                f" {error.strerror or type(error).__name__}"
            ) from None
        return context

    def options(self) -> dict[str, Any]:
        """Return what a client of aiokafka is made with.

        Raises:
            ConfigurationError: as `tls`.
        """
        made: dict[str, Any] = {"bootstrap_servers": self.bootstrap}
        if self.protocol != "PLAINTEXT":
            made |= {"security_protocol": self.protocol, "ssl_context": self.tls()}
        if self.has_login:
            made |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return made
