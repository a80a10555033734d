"""Kafka and PostgreSQL behind TLS and passwords: every client of ours comes in, and nobody who should not.

A broker with SASL over TLS and one listener for certificates; a PostgreSQL with passwords and `verify-full`.
"""

import asyncio
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from chassis.errors import ConfigurationError
from chassis.kafka_access import KafkaAccess
from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.relay import make_producer
from chassis.settings import Settings, load_settings
from chassis.topics import apply_topics
from tests.integration.kit import until
from tests.integration.tls_kit import (
    DATABASE_PASSWORD,
    KAFKA_PASSWORD,
    USER,
    Strict,
    strict_servers,
)

ROOT = Path(__file__).parents[2]
TOKEN_SECRET = "canary-of-the-reply-tokens-" + "x" * 16


@pytest.fixture(scope="module")
def strict() -> Iterator[Strict]:
    folder = Path(tempfile.mkdtemp(prefix="signalbox-tls-"))
    folder.chmod(0o755)
    try:
        with strict_servers(folder) as servers:
            yield servers
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def access(strict: Strict, **changed: Any) -> KafkaAccess:
    return KafkaAccess(
        **{
            "bootstrap": strict.kafka.login,
            "protocol": "SASL_SSL",
            "ca_file": strict.authority.file,
            "username": USER,
            "password": KAFKA_PASSWORD,
            **changed,
        }
    )


def environment(strict: Strict, folder: Path) -> dict[str, str]:
    """What a container would have: passwords in files, none in a variable."""
    for name, value in (("kafka", KAFKA_PASSWORD), ("database", DATABASE_PASSWORD)):
        (folder / name).write_text(f"{value}\n", encoding="utf-8")
    (folder / "token").write_text(TOKEN_SECRET, encoding="utf-8")
    return {
        "SIGNALBOX_KAFKA": strict.kafka.login,
        "SIGNALBOX_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "SIGNALBOX_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "SIGNALBOX_KAFKA_CA_FILE": str(strict.authority.file),
        "SIGNALBOX_KAFKA_USERNAME": USER,
        "SIGNALBOX_KAFKA_PASSWORD_FILE": str(folder / "kafka"),
        "SIGNALBOX_DATABASE_URL": strict.url(),
        "SIGNALBOX_DATABASE_SSLMODE": "verify-full",
        "SIGNALBOX_DATABASE_CA_FILE": str(strict.authority.file),
        "SIGNALBOX_DATABASE_PASSWORD_FILE": str(folder / "database"),
        "SIGNALBOX_TOKEN_SECRET_FILE": str(folder / "token"),
        "SIGNALBOX_PARTITIONS": "2",
    }


async def end_offsets(kafka: KafkaAccess) -> set[str]:
    consumer = AIOKafkaConsumer(**kafka.options(), request_timeout_ms=5_000)
    try:
        async with asyncio.timeout(20):
            await consumer.start()
        return set(await consumer.topics())
    finally:
        await consumer.stop()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_user_with_a_password_comes_in_over_tls(strict: Strict, mechanism: str) -> None:
    await end_offsets(access(strict, mechanism=mechanism))
    producer = make_producer(access(strict, mechanism=mechanism), "test")
    await producer.start()
    await producer.stop()


async def test_a_certificate_of_ours_comes_in_where_the_broker_asks_for_one(strict: Strict) -> None:
    await end_offsets(
        access(
            strict,
            bootstrap=strict.kafka.certified,
            protocol="SSL",
            certificate_file=strict.client.certificate,
            key_file=strict.client.key,
        )
    )


@pytest.mark.parametrize(
    "wrong",
    ["password", "authority", "name", "in clear", "no certificate"],
)
async def test_a_broker_lets_nobody_in_who_is_wrong_and_is_not_believed_where_it_is_wrong(
    strict: Strict, wrong: str
) -> None:
    _, _, port = strict.kafka.login.partition(":")
    kafka = {
        "password": access(strict, password="another"),
        "authority": access(strict, ca_file=strict.stranger.file),
        # The certificate is good for `localhost` alone.
        "name": access(strict, bootstrap=f"127.0.0.1:{port}"),
        "in clear": access(strict, protocol="SASL_PLAINTEXT"),
        "no certificate": access(strict, bootstrap=strict.kafka.certified, protocol="SSL"),
    }[wrong]
    with pytest.raises((KafkaError, OSError, TimeoutError)):
        await end_offsets(kafka)


async def selected(dsn: str) -> Any:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        return await connection.fetchval("SELECT 1")
    finally:
        await connection.close()


def settings(strict: Strict, url: str, **given: Any) -> Settings:
    return Settings(
        **{
            "kafka": "unused:9092",
            "database_url": url,
            "database_ca_file": strict.authority.file,
            "database_password": DATABASE_PASSWORD,
            **given,
        }
    )


async def test_postgresql_is_verified_by_name_and_authority(strict: Strict) -> None:
    assert await selected(settings(strict, strict.url()).dsn) == 1
    with pytest.raises((OSError, asyncpg.PostgresError)):  # Another name than the certificate's.
        await selected(settings(strict, strict.url("127.0.0.1")).dsn)
    with pytest.raises((OSError, asyncpg.PostgresError)):
        await selected(settings(strict, strict.url(), database_ca_file=strict.stranger.file).dsn)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await selected(settings(strict, strict.url(), database_password="another").dsn)
    with pytest.raises((OSError, asyncpg.PostgresError)):
        await selected(
            settings(strict, strict.url(), database_ca_file=None, database_sslmode="disable").dsn
        )


async def test_the_settings_go_before_what_the_url_says_of_tls(strict: Strict) -> None:
    lax = f"{strict.url('127.0.0.1')}?sslmode=require"
    with pytest.raises((OSError, asyncpg.PostgresError)):
        await selected(settings(strict, lax).dsn)


async def test_a_certificate_of_ours_opens_postgresql_where_it_asks_for_one(strict: Strict) -> None:
    url = strict.url(user=f"{USER}_mtls", certified=True)
    client = {
        "database_certificate_file": strict.client.certificate,
        "database_key_file": strict.client.key,
        "database_password": "",
    }
    assert await selected(settings(strict, url, **client).dsn) == 1
    with pytest.raises((OSError, asyncpg.PostgresError)):
        await selected(settings(strict, url, database_password="").dsn)


async def test_the_pool_and_the_migrations_come_in_likewise(strict: Strict) -> None:
    one = settings(strict, strict.url())
    await migrate(one.dsn, "secure")
    pool = await open_pool(one.dsn, "secure", 2, "test")
    async with pool.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM migration") > 0
    await pool.close()


def command(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SIGNALBOX_")}
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *words],
        cwd=ROOT,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


async def test_a_message_goes_through_ingest_and_is_seen_by_the_commands_and_no_secret_shows(
    strict: Strict, tmp_path: Path
) -> None:
    """Migrations, topics, gateway, outbox, normaliser, `tail`, `ledger` and `doctor`, each with clients of its own."""
    prefix = f"secure-{secrets.token_hex(4)}."
    given = environment(strict, tmp_path) | {"SIGNALBOX_TOPIC_PREFIX": prefix}
    (tmp_path / "channels.yaml").write_text("forms: {contact: {}}\n", encoding="utf-8")
    said = []
    for words in (("db", "migrate"), ("topics", "apply", "--replication", "1")):
        done = command(given, *words)
        assert done.returncode == 0, done.stderr
        said += [done.stdout, done.stderr]
    log = tmp_path / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.ingest", "serve"],
            cwd=ROOT,
            env=os.environ
            | given
            | {
                "SIGNALBOX_POLICY": str(tmp_path),
                "SIGNALBOX_GATEWAY_PORT": "0",
                "SIGNALBOX_SMTP_ENABLED": "false",
                "SIGNALBOX_ATTACHMENTS_URL": "off",
            },
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    try:
        port = await until_port(process, log)
        command_line = Path(f"/proc/{process.pid}/cmdline")
        variables = Path(f"/proc/{process.pid}/environ")
        for shown in (command_line, variables):
            if shown.exists():
                said.append(shown.read_text(encoding="utf-8", errors="replace"))
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            answer = await client.post(
                f"http://127.0.0.1:{port}/v1/forms/contact",
                json={"email": "a@example.com", "message": "over TLS"},
            )
        assert answer.status_code == 202

        async def is_seen() -> bool:
            done = await asyncio.to_thread(
                command,
                given,
                "tail",
                "--topic",
                "messages",
                "--from-start",
                "--until-end",
                "--json",
            )
            said.extend([done.stdout, done.stderr])
            return "message.received" in done.stdout

        await until("the message is on its topic", is_seen, seconds=60)
        for words in (("doctor",), ("ledger", "show")):
            done = command(given, *words)
            said += [done.stdout, done.stderr]
            assert "does not answer" not in done.stdout + done.stderr
    finally:
        process.terminate()
        process.wait(30)
    said.append(log.read_text(encoding="utf-8"))
    for canary in (KAFKA_PASSWORD, DATABASE_PASSWORD, TOKEN_SECRET):
        assert not [text for text in said if canary in text]


async def until_port(process: subprocess.Popen[bytes], log: Path) -> int:
    found: list[int] = []

    def is_open() -> bool:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        lines = log.read_text(encoding="utf-8").splitlines()
        found.extend(int(json.loads(one)["port"]) for one in lines if '"gateway_listening"' in one)
        return bool(found)

    await until("the gateway listens", is_open, seconds=60)
    return found[0]


async def test_topics_are_made_by_an_admin_client_with_a_certificate(strict: Strict) -> None:
    one = Settings(
        kafka=strict.kafka.certified,
        database_url="postgresql://unused",
        kafka_security_protocol="SSL",
        kafka_ca_file=strict.authority.file,
        kafka_certificate_file=strict.client.both,
        topic_prefix=f"certified-{secrets.token_hex(4)}.",
        partitions=1,
    )
    assert all(change.is_new for change in await apply_topics(one, 1))


def test_a_file_that_holds_no_certificate_is_named_at_once(
    strict: Strict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ca.pem").write_text("no certificate", encoding="utf-8")
    for name, value in environment(strict, tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SIGNALBOX_KAFKA_CA_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigurationError, match="PEM files"):
        load_settings(Settings).kafka_access.options()
