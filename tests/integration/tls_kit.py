"""A Kafka and a PostgreSQL that ask who comes, over TLS, with certificates of an authority that lives for one test run.

The broker is the one that `signalbox up` starts, with more listeners: SASL over TLS, and TLS with certificates of both sides.
The database is the embedded one with passwords. Its build knows no TLS, so a terminator stands before it that speaks TLS as
PostgreSQL's protocol has it; where `SIGNALBOX_TEST_TLS_POSTGRES` names the `bin` folder of a PostgreSQL 17 or later that knows
TLS, that one is started and proves itself.
"""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import os
import shutil
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chassis.local.kafka import JavaKafka
from chassis.local.postgres import EmbeddedPostgres, run
from chassis.local.processes import free_port

USER: Final = "signalbox"
KAFKA_PASSWORD: Final = "canary-of-kafka-5fe1"
DATABASE_PASSWORD: Final = "canary-of-postgres-77c0"
SSL_REQUEST: Final = struct.pack("!ii", 8, 80877103)


@dataclass(frozen=True)
class Certificate:
    """Two PEM files, and one with both."""

    certificate: Path
    key: Path
    both: Path


class Authority:
    """A certificate authority of a test's own."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._made = self._sign(name, self._key, is_authority=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._made.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *addresses: str) -> Certificate:
        """A certificate for `name`, good for these host names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, key, addresses=addresses).public_bytes(
            serialization.Encoding.PEM
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        made = Certificate(
            *(self._folder / f"{self._name}-{name}.{e}" for e in ("crt", "key", "pem"))
        )
        made.certificate.write_bytes(certificate)
        made.key.write_bytes(secret)
        made.both.write_bytes(secret + certificate)
        for path in (made.key, made.both):
            path.chmod(0o644)  # Of a test, and read by servers that run as somebody else.
        return made

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        *,
        addresses: tuple[str, ...] = (),
        is_authority: bool = False,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = subject if is_authority else self._made.subject
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False
            )
        )
        if addresses:
            named = [_general_name(one) for one in addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(named), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _general_name(one: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(one))
    except ValueError:
        return x509.DNSName(one)


class StrictKafka(JavaKafka):
    """The broker, which lets in by password over TLS (`login`) or by certificate (`certified`)."""

    def __init__(self, directory: Path, server: Certificate, authority: Path) -> None:
        super().__init__(directory)
        self._server = server
        self._authority = authority
        self._ports = {"LOGIN": free_port(), "CERTIFIED": free_port()}
        self.login = f"localhost:{self._ports['LOGIN']}"
        self.certified = f"localhost:{self._ports['CERTIFIED']}"

    def _own_settings(self) -> Mapping[str, str]:
        listeners = {
            "PLAINTEXT": f"127.0.0.1:{self._port}",
            "LOGIN": f"127.0.0.1:{self._ports['LOGIN']}",
            "CERTIFIED": f"127.0.0.1:{self._ports['CERTIFIED']}",
        }
        told = {**listeners, "LOGIN": self.login, "CERTIFIED": self.certified}
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        login = "listener.name.login"
        return {
            "listeners": ",".join(f"{name}://{where}" for name, where in listeners.items())
            + f",CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": ",".join(f"{name}://{where}" for name, where in told.items()),
            "listener.security.protocol.map": (
                "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,LOGIN:SASL_SSL,CERTIFIED:SSL"
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._server.both),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self._authority),
            "listener.name.certified.ssl.client.auth": "required",
            f"{login}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            f"{login}.plain.sasl.jaas.config": f'{plain} user_{USER}="{KAFKA_PASSWORD}";',
            f"{login}.scram-sha-256.sasl.jaas.config": scram,
            f"{login}.scram-sha-512.sasl.jaas.config": scram,
        }

    def _own_format_options(self) -> tuple[str, ...]:
        return tuple(
            word
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for word in ("--add-scram", f"{mechanism}=[name={USER},password={KAFKA_PASSWORD}]")
        )


class StrictPostgres(EmbeddedPostgres):
    """The database server, on a port of this machine, where a password is asked for; over TLS if its build knows it."""

    def __init__(self, directory: Path, server: Certificate, authority: Path) -> None:
        super().__init__(directory)
        self.port = free_port()
        self.knows_tls = bool(os.environ.get("SIGNALBOX_TEST_TLS_POSTGRES"))
        self._server = server
        self._authority = authority

    def _binaries(self) -> Path:
        given = os.environ.get("SIGNALBOX_TEST_TLS_POSTGRES")
        return Path(given) if given else super()._binaries()

    def _own_settings(self) -> Mapping[str, str]:
        settings = {"listen_addresses": "127.0.0.1", "port": str(self.port)}
        if self.knows_tls:
            settings |= {
                "ssl": "on",
                "ssl_cert_file": str(self.data / "server.crt"),
                "ssl_key_file": str(self.data / "server.key"),
                "ssl_ca_file": str(self._authority),
            }
        return settings

    def _initialise(self, binaries: Path) -> None:
        super()._initialise(binaries)
        kind = "hostssl" if self.knows_tls else "host"
        (self.data / "pg_hba.conf").write_text(
            "local all postgres trust\n"
            f"{kind} all {USER}_mtls 127.0.0.1/32 "
            + ("cert map=mtls\n" if self.knows_tls else "trust\n")
            + f"{kind} all all 127.0.0.1/32 scram-sha-256\n"
        )
        (self.data / "pg_ident.conf").write_text(f"mtls client {USER}_mtls\n")
        if self.knows_tls:
            for source, name in ((self._server.certificate, "crt"), (self._server.key, "key")):
                copy = self.data / f"server.{name}"
                shutil.copy(source, copy)
                copy.chmod(0o600)
                self._make_own(copy)

    def dsn(self, database: str | None = None) -> str:
        return f"{super().dsn(database)}&port={self.port}"

    def prepare(self, database: str) -> None:
        """An empty database, and who may use it."""
        run(self._execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{DATABASE_PASSWORD}'"))
        run(self._execute(f"CREATE ROLE {USER}_mtls LOGIN IN ROLE {USER}"))
        run(self._execute(f"CREATE DATABASE {database} OWNER {USER}"))


class Terminator(threading.Thread):
    """TLS as PostgreSQL's protocol asks for it, before a server that knows none; `certified` asks for the client's too."""

    def __init__(self, server: Certificate, authority: Path, port: int, *, certified: bool) -> None:
        super().__init__(name="tls", daemon=True)
        self._target = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(server.certificate, server.key)
        if certified:
            self._context.load_verify_locations(authority)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()

    def run(self) -> None:
        self._loop.run_until_complete(self._serve())

    def stop(self) -> None:
        """End it, and all connections with it."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self.join()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._client, sock=self._listener)
        await self._stopping.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
            if await reader.readexactly(8) != SSL_REQUEST:
                writer.close()  # In clear: not here.
                return
            writer.write(b"S")
            await writer.drain()
            await writer.start_tls(self._context)
            inner, out = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(_pour(reader, out), _pour(inner, writer))


async def _pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    finally:
        sink.close()


@dataclass(frozen=True)
class Strict:
    """Both servers, the files that open them, and an authority that they do not know."""

    kafka: StrictKafka
    database: str
    port: int
    certified_port: int
    authority: Authority
    stranger: Authority
    client: Certificate

    def url(self, host: str = "localhost", *, user: str = USER, certified: bool = False) -> str:
        """The database's URL, without a password."""
        port = self.certified_port if certified else self.port
        return f"postgresql://{user}@{host}:{port}/{self.database}"


@contextlib.contextmanager
def strict_servers(folder: Path) -> Iterator[Strict]:
    """Both servers, started and stopped."""
    authority, stranger = Authority(folder, "authority"), Authority(folder, "stranger")
    server = authority.issue("server", "localhost")
    kafka = StrictKafka(folder / "kafka", server, authority.file)
    postgres = StrictPostgres(folder / "postgres", server, authority.file)
    ends = contextlib.ExitStack()
    with ends:
        for one in (kafka, postgres):
            one.start()
            ends.callback(one.remove)
        postgres.prepare("strict")
        ports = [postgres.port, postgres.port]
        if not postgres.knows_tls:
            fronts = [
                Terminator(server, authority.file, postgres.port, certified=certified)
                for certified in (False, True)
            ]
            for front in fronts:
                front.start()
                ends.callback(front.stop)
            ports = [front.port for front in fronts]
        client = authority.issue("client")
        yield Strict(kafka, "strict", ports[0], ports[1], authority, stranger, client)
